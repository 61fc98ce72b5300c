"Judges of lesson projector: what learners write wrong is told in words that fit; right answers of any form pass."

import numpy as np
import torch
import torch.nn.functional as F
from fixtures_course import judged

from earthgpt_lite.course.projector import EXERCISES


def axes(*order):
    "Squares by an order of the six axes: picture, row of squares, row inside, column of squares, column inside, channel"

    def squares(x, r):
        b, n, c = x.shape
        g = int(n**0.5) // r
        return x.view(b, g, r, g, r, c).permute(order).reshape(b, g * g, r * r * c)

    return squares


def unshuffled(x, r):
    side = int(x.shape[1] ** 0.5)
    return F.pixel_unshuffle(x.transpose(1, 2).unflatten(2, (side, side)), r).flatten(2).transpose(1, 2)


def means(x, r):
    side = int(x.shape[1] ** 0.5)
    return F.avg_pool2d(x.transpose(1, 2).unflatten(2, (side, side)), r).flatten(2).transpose(1, 2)


def of_eight_by_two(x, r):
    b, n, c = x.shape
    return x.view(b, 4, 2, 4, 2, c).transpose(2, 3).reshape(b, 16, 4 * c)


def by_loops(x, r):
    g = int(x.shape[1] ** 0.5)
    made = []
    for top in range(0, g, r):
        for left in range(0, g, r):
            places = [(top + i) * g + left + j for i in range(r) for j in range(r)]
            made.append(x[:, places].flatten(1))
    return torch.stack(made, 1)


def in_numpy(x, r):
    b, n, c = x.shape
    g = int(n**0.5) // r
    return x.numpy().reshape(b, g, r, g, r, c).swapaxes(2, 3).reshape(b, g * g, -1)


def length(words):
    return words.norm(dim=-1).mean().item()


WRONG_ANSWERS = [
    ('squares', lambda x, r: None, 'returns nothing'),
    ('start_scale', lambda words: None, 'returns nothing'),
    ('start_scale', lambda words: words.norm(dim=-1), 'several numbers'),
    ('averaging', lambda c: None, 'returns nothing'),
    ('squares', lambda x, r: x.reshape(len(x), -1, r * r * x.shape[2]), 'a strip, and no square'),
    ('squares', axes(0, 1, 2, 3, 4, 5), 'a strip, and no square'),
    ('squares', unshuffled, 'keep the numbers of a token together'),
    ('squares', axes(0, 1, 3, 4, 2, 5), 'column by column'),
    ('squares', axes(0, 3, 1, 2, 4, 5), 'squares run row by row'),
    ('squares', axes(0, 2, 4, 1, 3, 5), 'with r = 4 it makes|holds'),
    ('squares', means, r'it makes \(2, 16, 2\)'),
    ('squares', of_eight_by_two, 'with r = 4 it makes'),
    ('start_scale', length, 'length of a word'),
    ('start_scale', lambda words: length(words) / words.shape[-1], 'Divided by the width'),
    ('start_scale', lambda words: words.norm().item(), 'whole table'),
    ('start_scale', lambda words: words.shape[-1] ** 0.5 / length(words), 'inverse'),
    ('start_scale', lambda words: words.var().item(), 'a square'),
    ('start_scale', lambda words: 0.02, 'times as long'),
    ('averaging', lambda c: torch.eye(c).repeat(1, 4), 'the sum of the four'),
    ('averaging', lambda c: torch.eye(c).repeat(4, 1) / 4, 'turned on its side'),
    ('averaging', lambda c: torch.eye(c).repeat_interleave(4, 1) / 4, 'averages neighbouring numbers'),
    ('averaging', lambda c: torch.full((c, 4 * c), 1 / 4), 'all channels are mixed'),
    ('averaging', lambda c: F.pad(torch.eye(c), (0, 3 * c)), 'their mean is'),
]
RIGHT_ANSWERS = [
    ('squares', axes(0, 1, 3, 2, 4, 5)),
    ('squares', by_loops),
    ('squares', in_numpy),
    ('start_scale', lambda words: words.std()),
    ('start_scale', lambda words: (words**2).mean().sqrt().item()),
    ('start_scale', lambda words: round(length(words) / words.shape[-1] ** 0.5, 4)),
    ('averaging', lambda c: torch.cat(4 * [torch.eye(c) / 4], 1)),
    ('averaging', lambda c: np.kron(np.full(4, 0.25), np.eye(c))),
    ('averaging', lambda c: [[0.25 * (j % c == i) for j in range(4 * c)] for i in range(c)]),
]


test_wrong, test_right, test_left, test_enough = judged(EXERCISES, WRONG_ANSWERS, RIGHT_ANSWERS)
