"Lesson 7: mistakes that a learner makes are told in words that fit, and right answers of any make pass."

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from earthgpt_lite.exercises import RIGHT, UNSOLVED, WRONG, find_exercise, verdict


def judged(name, made):
    return verdict(find_exercise(f'language.{name}'), made)


# ---- attention


def attention(scale=True, hide=-math.inf, invert=False, dim=-1, late=False):
    def attend(q, k, v, mask):
        scores = q @ k.mT
        if scale:
            scores = scores / q.shape[-1] ** (0.5 if scale is True else scale)
        hidden = mask if invert else ~mask
        if late:
            return scores.softmax(dim).masked_fill(hidden, 0) @ v
        return (scores if hide is None else scores.masked_fill(hidden, hide)).softmax(dim) @ v

    return attend


def forgets_the_values(q, k, v, mask):
    return (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~mask, -math.inf).softmax(-1)


WRONG_ATTENTION = [
    (attention(scale=False), 'too sharp'),
    (attention(scale=1), 'too even'),
    (attention(hide=None), 'still look ahead'),
    (lambda q, k, v, mask: None, 'gives None'),
    (attention(hide=0), 'still gets a share'),
    (attention(late=True), 'do not add up to one'),
    (attention(invert=True), 'True in the mask means'),
    (attention(dim=-2), 'wrong dimension'),
    (attention(dim=1), 'along the heads'),
    (forgets_the_values, 'shape'),
    (lambda q, k, v, mask: q @ k @ v, 'raises RuntimeError'),
]


@pytest.mark.parametrize('made, words', WRONG_ATTENTION, ids=[w for _, w in WRONG_ATTENTION])
def test_wrong_attention(made, words):
    state, said = judged('attend', made)
    assert state == WRONG and words in said


def einsum_attention(q, k, v, mask):
    scores = torch.einsum('bhtd,bhsd->bhts', q / math.sqrt(q.shape[-1]), k)
    weights = torch.where(mask, scores.exp(), 0)
    return torch.einsum('bhts,bhsd->bhtd', weights / weights.sum(-1, keepdim=True), v)


def numpy_attention(q, k, v, mask):
    q, k, v = (x.numpy().astype('float32') for x in (q, k, v))
    scores = q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1]) - 1e9 * ~mask.numpy()
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


@pytest.mark.parametrize(
    'made',
    [
        attention(),
        attention(hide=-1e9),
        lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, attn_mask=mask),
        einsum_attention,
        numpy_attention,
    ],
)
def test_right_attention(made):
    assert judged('attend', made) == (RIGHT, '')


# ---- the count


D, INNER, WORDS = 5120, 13824, 32000
LAYER = 4 * D * D + 3 * D * INNER + 2 * D


@pytest.mark.parametrize(
    'made, words',
    [
        (40 * LAYER + WORDS * D + D, 'One vocabulary is missing'),
        (40 * LAYER + 2 * WORDS * D, 'Exactly one vector'),
        (40 * (LAYER - 2 * D) + 2 * WORDS * D + D, 'norms of the layers'),
        (40 * (LAYER - 2 * D) + 2 * WORDS * D, 'no norm'),
        (40 * (LAYER - D * INNER) + 2 * WORDS * D + D, 'MLP of a layer has one matrix more'),
        (40 * (LAYER - D * D) + 2 * WORDS * D + D, 'attention of a layer has one matrix more'),
        (40 * LAYER + D, 'no words yet'),
        (13_000_000_000, 'too few'),
        (14e9, 'too many'),
        ('thirteen billion', 'raises ValueError'),
    ],
)
def test_wrong_counts(made, words):
    state, said = judged('parameters', made)
    assert state == WRONG and words in said and '13,015' not in said


@pytest.mark.parametrize('kind', [int, float, np.int64, torch.tensor])
def test_right_counts(kind):
    assert judged('parameters', kind(40 * LAYER + 2 * WORDS * D + D)) == (RIGHT, '')


# ---- neighbours


def halves(x, angle):
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    a, b = x.chunk(2, -1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def turn(signs=(-1, 1), join=lambda a, b: torch.stack([a, b], -1).flatten(-2), add_heads=True):
    def neighbours(x, angle):
        cos, sin = angle.cos(), angle.sin()
        if add_heads:
            cos, sin = cos[:, None], sin[:, None]
        a, b = x[..., ::2], x[..., 1::2]
        return join(a * cos + signs[0] * b * sin, b * cos + signs[1] * a * sin)

    return neighbours


WRONG_TURNS = [
    (halves, 'as `rotate` does'),
    (turn(join=lambda a, b: torch.cat([a, b], -1)), 'do not come back'),
    (turn(signs=(1, -1)), 'wrong way round'),
    (turn(signs=(1, 1)), 'change their length'),
    (turn(join=lambda a, b: torch.stack([b, a], -1).flatten(-2)), 'changed places'),
    (turn(join=lambda a, b: torch.stack([a, b], -1)), 'shape'),
    (turn(add_heads=False), 'raises RuntimeError'),
]


@pytest.mark.parametrize('made, words', WRONG_TURNS, ids=[w for _, w in WRONG_TURNS])
def test_wrong_turns(made, words):
    state, said = judged('neighbours', made)
    assert state == WRONG and words in said


def complex_turn(x, angle):
    arrows = torch.view_as_complex(x.unflatten(-1, (-1, 2)).contiguous())
    turned = arrows * torch.polar(torch.ones_like(angle), angle)[:, None]
    return torch.view_as_real(turned).flatten(-2)


def filled_turn(x, angle):
    x, angle = x.numpy(), angle.numpy()[:, None]
    turned = np.empty(x.shape, 'float32')
    turned[..., ::2] = x[..., ::2] * np.cos(angle) - x[..., 1::2] * np.sin(angle)
    turned[..., 1::2] = x[..., ::2] * np.sin(angle) + x[..., 1::2] * np.cos(angle)
    return turned


@pytest.mark.parametrize('made', [turn(), complex_turn, filled_turn])
def test_right_turns(made):
    assert judged('neighbours', made) == (RIGHT, '')


def test_what_was_left_is_unsolved():
    def blank(*args):
        raise NotImplementedError

    assert judged('attend', blank)[0] == judged('neighbours', blank)[0] == UNSOLVED
    assert judged('parameters', ...)[0] == UNSOLVED
