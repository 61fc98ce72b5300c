"Judges of lesson vision: what learners write wrong is told in words that fit; right answers of any form pass."

import numpy as np
import torch
import torch.nn.functional as F
from fixtures_course import judged

from earthgpt_lite.course.vision import EXERCISES


def double(m):
    return m.repeat_interleave(2, -1).repeat_interleave(2, -2)


def smooth(m):
    return F.interpolate(m, scale_factor=2, mode='bilinear')


def top_down(combine):
    "A pyramid from a rule about a level and what was made of the next coarser one"

    def pyramid(levels):
        made = list(levels)
        for i in reversed(range(len(levels) - 1)):
            made[i] = combine(levels[i], made[i + 1])
        return made

    return pyramid


def given_ones(levels):
    return [a + double(b) for a, b in zip(levels, levels[1:])] + levels[-1:]


def three_only(levels):
    middle = levels[1] + double(levels[2])
    return [levels[0] + double(middle), middle, levels[2]]


def three_only_with_care(levels):
    return three_only(levels[:3]) + levels[3:]


def bottom_up(levels):
    made = list(levels)
    for i in range(1, len(levels)):
        made[i] = levels[i] + F.avg_pool2d(made[i - 1], 2)
    return made


def recursive(levels):
    if len(levels) == 1:
        return levels
    coarse = recursive(levels[1:])
    return [levels[0] + F.interpolate(coarse[0], scale_factor=2)] + coarse


def in_numpy(levels):
    made = [level.numpy() for level in levels]
    for i in range(len(made) - 2, -1, -1):
        made[i] = made[i] + made[i + 1].repeat(2, 2).repeat(2, 3)
    return tuple(made)


def beside(read):
    return lambda tokens, maps: torch.cat([tokens, read(maps)], -1)


def by_loops(tokens, maps):
    g = maps.shape[-1]
    places = [torch.cat([tokens[:, i], maps[:, :, i // g, i % g]], 1) for i in range(g * g)]
    return torch.stack(places, 1)


def into_the_given(levels):
    for i in range(len(levels) - 2, -1, -1):
        levels[i] = levels[i] + double(levels[i + 1])
    return levels


def into_the_maps(levels):
    made = list(levels)
    for i in range(len(levels) - 2, -1, -1):
        made[i] += double(made[i + 1])
    return made


WRONG_ANSWERS = [
    ('pyramid', lambda levels: None, 'returns nothing'),
    ('pyramid', into_the_given, 'have changed'),
    ('pyramid', into_the_maps, 'have changed'),
    ('fuse', lambda tokens, maps: None, 'returns nothing'),
    ('pyramid', lambda levels: levels, 'nothing was added'),
    ('pyramid', given_ones, 'has not heard of all coarser ones'),
    ('pyramid', lambda levels: top_down(lambda a, b: a + double(b))(levels)[::-1], 'from coarse to fine'),
    ('pyramid', top_down(lambda a, b: double(b)), 'what the fine one saw is lost'),
    ('pyramid', top_down(lambda a, b: (a + double(b)) / 2), 'They are added'),
    ('pyramid', top_down(lambda a, b: a + smooth(b)), 'enlarged smoothly'),
    ('pyramid', bottom_up, 'coarsest level has changed'),
    ('pyramid', lambda levels: given_ones(levels)[:-1], 'Of 3 levels it makes 2'),
    ('pyramid', lambda levels: [double(levels[-1])], 'Of 3 levels it makes 1'),
    ('pyramid', three_only, 'Of 4 levels it makes 3'),
    ('pyramid', three_only_with_care, 'is neither itself|has not heard|came back|nor itself'),
    ('pyramid', lambda levels: [a + b for a, b in zip(levels, levels[1:])], 'It raises RuntimeError'),
    ('channels', 384 + 3 * 64, 'one layer of the ViT'),
    ('channels', 2 * 384 + 64, 'one scale of the CNN'),
    ('channels', 2 * 384 * 3 * 64, 'widths are added'),
    ('channels', 1000, 'side by side'),
    (
        'fuse',
        lambda tokens, maps: torch.cat([maps.flatten(2).transpose(1, 2), tokens], -1),
        'CNN comes first',
    ),
    ('fuse', beside(lambda m: m.reshape(m.shape[0], -1, m.shape[1])), 'Token 1 has from the CNN'),
    ('fuse', beside(lambda m: m.permute(0, 3, 2, 1).flatten(1, 2)), 'column by column'),
    ('fuse', lambda tokens, maps: maps.flatten(2).transpose(1, 2), r'it makes \(2, 16, 5\)'),
    ('fuse', lambda tokens, maps: torch.cat([tokens, maps.flatten(2)], -1), 'It raises RuntimeError'),
    ('fuse', lambda tokens, maps: torch.cat([tokens.transpose(1, 2), maps.flatten(2)], 1), 'it makes'),
]
RIGHT_ANSWERS = [
    ('pyramid', top_down(lambda a, b: a + double(b))),
    ('pyramid', recursive),
    ('pyramid', in_numpy),
    ('channels', 960),
    ('channels', 960.0),
    ('channels', torch.tensor(960)),
    ('fuse', beside(lambda m: m.permute(0, 2, 3, 1).flatten(1, 2))),
    ('fuse', by_loops),
    ('fuse', lambda t, m: np.concatenate([t.numpy(), m.flatten(2).numpy().swapaxes(1, 2)], 2)),
]


test_wrong, test_right, test_left, test_enough = judged(EXERCISES, WRONG_ANSWERS, RIGHT_ANSWERS)
