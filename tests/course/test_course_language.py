"Judges of language: mistakes that a learner makes are told in words that fit, and right answers of any make pass."

import math

import numpy as np
import pytest
import torch
from fixtures_course import judged
from torch.nn import functional as F

from earthgpt_lite.course.language import EXERCISES
from earthgpt_lite.exercises import verdict


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


def einsum_attention(q, k, v, mask):
    scores = torch.einsum('bhtd,bhsd->bhts', q / math.sqrt(q.shape[-1]), k)
    weights = torch.where(mask, scores.exp(), 0)
    return torch.einsum('bhts,bhsd->bhtd', weights / weights.sum(-1, keepdim=True), v)


def numpy_attention(q, k, v, mask):
    q, k, v = (x.numpy().astype('float32') for x in (q, k, v))
    scores = q @ k.swapaxes(2, 3) / np.sqrt(q.shape[-1]) - 1e9 * ~mask.numpy()
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


# ---- the count


D, INNER, WORDS = 5120, 13824, 32000
LAYER = 4 * D * D + 3 * D * INNER + 2 * D


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


# ---- all of them


WRONG_ANSWERS = [
    ('attend', attention(scale=False), 'too sharp'),
    ('attend', attention(scale=1), 'too even'),
    ('attend', attention(hide=None), 'still look ahead'),
    ('attend', lambda q, k, v, mask: None, 'gives None'),
    ('attend', attention(hide=0), 'still gets a share'),
    ('attend', attention(late=True), 'do not add up to one'),
    ('attend', attention(invert=True), 'True in the mask means'),
    ('attend', attention(dim=-2), 'wrong dimension'),
    ('attend', attention(dim=1), 'along the heads'),
    ('attend', forgets_the_values, 'shape'),
    ('attend', lambda q, k, v, mask: q @ k @ v, 'raises RuntimeError'),
    ('parameters', 40 * LAYER + WORDS * D + D, 'One vocabulary is missing'),
    ('parameters', 40 * LAYER + 2 * WORDS * D, 'Exactly one vector'),
    ('parameters', 40 * (LAYER - 2 * D) + 2 * WORDS * D + D, 'norms of the layers'),
    ('parameters', 40 * (LAYER - 2 * D) + 2 * WORDS * D, 'no norm'),
    ('parameters', 40 * (LAYER - D * INNER) + 2 * WORDS * D + D, 'MLP of a layer has one matrix more'),
    ('parameters', 40 * (LAYER - D * D) + 2 * WORDS * D + D, 'attention of a layer has one matrix more'),
    ('parameters', 40 * LAYER + D, 'no words yet'),
    ('parameters', 13_000_000_000, 'too few'),
    ('parameters', 14e9, 'too many'),
    ('parameters', 'thirteen billion', 'raises ValueError'),
    ('neighbours', halves, 'as `rotate` does'),
    ('neighbours', turn(join=lambda a, b: torch.cat([a, b], -1)), 'do not come back'),
    ('neighbours', turn(signs=(1, -1)), 'wrong way round'),
    ('neighbours', turn(signs=(1, 1)), 'change their length'),
    ('neighbours', turn(join=lambda a, b: torch.stack([b, a], -1).flatten(-2)), 'changed places'),
    ('neighbours', turn(join=lambda a, b: torch.stack([a, b], -1)), 'shape'),
    ('neighbours', turn(add_heads=False), 'raises RuntimeError'),
]
RIGHT_ANSWERS = [
    ('attend', attention()),
    ('attend', attention(hide=-1e9)),
    ('attend', lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, attn_mask=mask)),
    ('attend', einsum_attention),
    ('attend', numpy_attention),
    *(('parameters', kind(40 * LAYER + 2 * WORDS * D + D)) for kind in (int, float, np.int64, torch.tensor)),
    ('neighbours', turn()),
    ('neighbours', complex_turn),
    ('neighbours', filled_turn),
]


test_wrong, test_right, test_left, test_enough = judged(EXERCISES, WRONG_ANSWERS, RIGHT_ANSWERS)


@pytest.mark.parametrize('name, made', [one[:2] for one in WRONG_ANSWERS if one[0] == 'parameters'])
def test_the_number_is_not_given_away(name, made):
    assert '13,015' not in verdict(EXERCISES[name], made)[1]
