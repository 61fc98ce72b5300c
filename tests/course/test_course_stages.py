"Judges of stages: mistakes that a learner makes are told in words that fit, and right answers of any make pass."

import numpy as np
import pytest
import torch
from fixtures_course import judged
from torch import nn

from earthgpt_lite.course.stages import EXERCISES
from earthgpt_lite.exercises import verdict
from earthgpt_lite.model.parts import part_of


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


# ---- the rule


def in_a_loop(name, trainable):
    for word in trainable:
        if part_of(name) == word or name[: len(word)] == word:
            return 1
    return 0


# ---- all of them


WRONG_ANSWERS = [
    ('scaled', layer(scale=torch.zeros), 'lets nothing through'),
    ('scaled', layer(bias=torch.ones), 'bias already adds'),
    ('scaled', layer(scale=torch.rand), 'scale already changes'),
    ('scaled', layer(frozen=False), 'still learn'),
    ('scaled', layer(kind=lambda t: t), 'No optimiser will find the scale'),
    ('scaled', layer(lengths=('out_features',) * 2), 'as long as what goes in'),
    ('scaled', layer(lengths=('in_features',) * 2), 'as long as what comes out'),
    ('scaled', layer(formula=lambda s, x: s.linear(x * s.scale)), 'bias has no effect'),
    ('scaled', layer(formula=lambda s, x: s.linear(x) + s.bias), 'scale has no effect'),
    ('scaled', layer(formula=lambda s, x: s.linear(x + s.scale - 1) + s.bias), 'not those of the formula'),
    (
        'scaled',
        layer(formula=lambda s, x: x * s.scale @ s.linear.weight.T + s.bias),
        'does not answer as the plain one',
    ),
    ('scaled', layer(formula=lambda s, x: s.linear(x) * s.scale + s.bias), 'raises RuntimeError'),
    ('scaled', layer(formula=lambda s, x: None), 'raises'),
    ('scaled', NoBias, 'no `bias`'),
    ('scaled', lambda linear: linear, 'no class'),
    ('added', 14_592, 'input side'),
    ('added', 7_936, 'There are two'),
    ('added', 3_968, 'one block'),
    ('added', 4 * 2 * (4 * 192 + 3 * 512), 'last matrix'),
    ('added', 4 * 2 * 4 * 192, 'attention alone'),
    ('added', 100, 'Too few'),
    ('added', 10**6, 'Too many'),
    ('learns', lambda name, words: part_of(name) in words, 'beginning of a name is not found'),
    ('learns', lambda name, words: name.startswith(words), 'part is not found'),
    (
        'learns',
        lambda name, words: any(word in name for word in words) or part_of(name) in words,
        'not enough',
    ),
    (
        'learns',
        lambda name, words: part_of(name) in words or any('.' in w and w in name for w in words),
        'in its middle',
    ),
    ('learns', lambda name, words: part_of(name) in words or name.startswith(words[0]), 'Any of the words'),
    (
        'learns',
        lambda name, words: all(part_of(name) == w or name.startswith(w) for w in words),
        'Any of the words',
    ),
    ('learns', lambda name, words: True, 'learns with'),
    ('learns', lambda name, words: None, 'gives None'),
]
RIGHT_ANSWERS = [
    ('scaled', layer()),
    ('scaled', Written),
    ('scaled', ByColumns),
    ('added', 15_872.0),
    ('added', np.int64(15_872)),
    ('learns', in_a_loop),
    ('learns', lambda name, words: part_of(name) in words or name.startswith(tuple(words))),
    ('learns', lambda name, words: np.any([name.startswith(w) or w == part_of(name) for w in words])),
]


test_wrong, test_right, test_left, test_enough = judged(EXERCISES, WRONG_ANSWERS, RIGHT_ANSWERS)


@pytest.mark.parametrize('name, made', [one[:2] for one in WRONG_ANSWERS if one[0] == 'added'])
def test_the_number_is_not_given_away(name, made):
    assert '15' not in verdict(EXERCISES[name], made)[1]
