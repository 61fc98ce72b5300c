"Lesson 9: mistakes that a learner makes are told in words that fit, and right answers of any make pass."

import numpy as np
import pytest
import torch
from torch import nn

from earthgpt_lite.exercises import RIGHT, UNSOLVED, WRONG, find_exercise, verdict
from earthgpt_lite.model.parts import part_of


def judged(name, made):
    return verdict(find_exercise(f'stages.{name}'), made)


# ---- the scaled layer


def layer(
    scale=torch.ones,
    bias=torch.zeros,
    formula=lambda s, x: s.linear(x * s.scale) + s.bias,
    frozen=True,
    kind=nn.Parameter,
    lengths=('in_features', 'out_features'),
):
    class Scaled(nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.linear = linear.requires_grad_(not frozen)
            self.scale = kind(scale(getattr(linear, lengths[0])))
            self.bias = kind(bias(getattr(linear, lengths[1])))

        def forward(self, x):
            return formula(self, x)

    return Scaled


class NoBias(nn.Module):
    def __init__(self, linear):
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.scale = nn.Parameter(torch.ones(linear.in_features))

    def forward(self, x):
        return self.linear(x * self.scale)


WRONG_LAYERS = [
    (layer(scale=torch.zeros), 'lets nothing through'),
    (layer(bias=torch.ones), 'bias already adds'),
    (layer(scale=torch.rand), 'scale already changes'),
    (layer(frozen=False), 'still learn'),
    (layer(kind=lambda t: t), 'No optimiser will find the scale'),
    (layer(lengths=('out_features',) * 2), 'as long as what goes in'),
    (layer(lengths=('in_features',) * 2), 'as long as what comes out'),
    (layer(formula=lambda s, x: s.linear(x * s.scale)), 'bias has no effect'),
    (layer(formula=lambda s, x: s.linear(x) + s.bias), 'scale has no effect'),
    (layer(formula=lambda s, x: s.linear(x + s.scale - 1) + s.bias), 'not those of the formula'),
    (
        layer(formula=lambda s, x: x * s.scale @ s.linear.weight.T + s.bias),
        'does not answer as the plain one',
    ),
    (layer(formula=lambda s, x: s.linear(x) * s.scale + s.bias), 'raises RuntimeError'),
    (layer(formula=lambda s, x: None), 'raises'),
    (NoBias, 'no `bias`'),
    (lambda linear: linear, 'no class'),
]


@pytest.mark.parametrize('made, words', WRONG_LAYERS, ids=[w for _, w in WRONG_LAYERS])
def test_wrong_layers(made, words):
    state, said = judged('scaled', made)
    assert state == WRONG and words in said


class Written(nn.Module):
    "With other code: parameters frozen one by one, a product of its own"

    def __init__(self, linear):
        super().__init__()
        self.linear = linear
        for p in linear.parameters():
            p.requires_grad = False
        self.scale = nn.Parameter(torch.full((linear.in_features,), 1.0))
        self.bias = nn.Parameter(torch.zeros_like(linear.weight[:, 0]))

    def forward(self, x):
        return (self.scale * x) @ self.linear.weight.T + self.linear.bias + self.bias


class ByColumns(layer()):
    def forward(self, x):
        return nn.functional.linear(x, self.linear.weight * self.scale, self.linear.bias + self.bias)


@pytest.mark.parametrize('made', [layer(), Written, ByColumns])
def test_right_layers(made):
    assert judged('scaled', made) == (RIGHT, '')


# ---- the count


@pytest.mark.parametrize(
    'made, words',
    [
        (14_592, 'input side'),
        (7_936, 'There are two'),
        (3_968, 'one block'),
        (4 * 2 * (4 * 192 + 3 * 512), 'last matrix'),
        (4 * 2 * 4 * 192, 'attention alone'),
        (100, 'Too few'),
        (10**6, 'Too many'),
    ],
)
def test_wrong_counts(made, words):
    state, said = judged('added', made)
    assert state == WRONG and words in said and '15' not in said


@pytest.mark.parametrize('made', [15_872, 15_872.0, np.int64(15_872)])
def test_right_counts(made):
    assert judged('added', made) == (RIGHT, '')


# ---- the rule


WRONG_RULES = [
    (lambda name, words: part_of(name) in words, 'beginning of a name is not found'),
    (lambda name, words: name.startswith(words), 'part is not found'),
    (lambda name, words: any(word in name for word in words) or part_of(name) in words, 'not enough'),
    (
        lambda name, words: part_of(name) in words or any('.' in w and w in name for w in words),
        'in its middle',
    ),
    (lambda name, words: part_of(name) in words or name.startswith(words[0]), 'Any of the words'),
    (lambda name, words: all(part_of(name) == w or name.startswith(w) for w in words), 'Any of the words'),
    (lambda name, words: True, 'learns with'),
    (lambda name, words: None, 'gives None'),
]


@pytest.mark.parametrize('made, words', WRONG_RULES)
def test_wrong_rules(made, words):
    state, said = judged('learns', made)
    assert state == WRONG and words in said


def in_a_loop(name, trainable):
    for word in trainable:
        if part_of(name) == word or name[: len(word)] == word:
            return 1
    return 0


@pytest.mark.parametrize(
    'made',
    [
        in_a_loop,
        lambda name, words: part_of(name) in words or name.startswith(tuple(words)),
        lambda name, words: np.any([name.startswith(w) or w == part_of(name) for w in words]),
    ],
)
def test_right_rules(made):
    assert judged('learns', made) == (RIGHT, '')


def test_what_was_left_is_unsolved():
    class Blank(nn.Module):
        def __init__(self, linear):
            super().__init__()
            raise NotImplementedError

    def blank(*args):
        raise NotImplementedError

    assert judged('scaled', Blank)[0] == judged('learns', blank)[0] == judged('added', ...)[0] == UNSOLVED
