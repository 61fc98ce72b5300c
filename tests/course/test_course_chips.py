"Judges of chips: wrong answers that a learner would give are told wrong in words that fit, right ones pass."

import numpy as np
from fixtures_course import judged

from earthgpt_lite.course.chips import EXERCISES
from earthgpt_lite.raster.chips import Stretch


def padded(picture, top=None, left=None, fill=127):
    h, w = picture.shape[:2]
    side = max(h, w)
    top = (side - h) // 2 if top is None else top
    left = (side - w) // 2 if left is None else left
    square = np.full((side, side, 3), fill, np.uint8)
    square[top : top + h, left : left + w] = picture
    return square


def stretched(picture):
    side = max(picture.shape[:2])
    rows, columns = (np.arange(side) * n // side for n in picture.shape[:2])
    return picture[rows][:, columns]


def rounded_up(picture):
    h, w = picture.shape[:2]
    return padded(picture, (max(h, w) - h + 1) // 2, (max(h, w) - w + 1) // 2)


def only_wide(picture):
    h, w = picture.shape[:2]
    square = np.full((w, w, 3), 127, np.uint8)
    square[(w - h) // 2 : (w - h) // 2 + h] = picture
    return square


def by_np_pad(picture):
    h, w = picture.shape[:2]
    y, x = max(w - h, 0), max(h - w, 0)
    edges = ((y // 2, y - y // 2), (x // 2, x - x // 2), (0, 0))
    return np.pad(picture, edges, constant_values=127)


def by_lists(picture):
    return padded(picture).tolist()


def limits(layer, low, high):
    return 255 * ((layer - low) / (high - low))


def all_vote(layer, valid):
    bright = limits(layer, *np.percentile(layer, (2, 98))).clip(0, 255)
    return np.where(valid, bright, 127).astype(np.uint8)


def not_cut(layer, valid):
    bright = limits(layer, *np.percentile(layer[valid], (2, 98)))
    return np.where(valid, bright, 127).astype(int).astype(np.uint8)


def min_to_max(layer, valid):
    bright = limits(layer, layer[valid].min(), layer[valid].max()).clip(0, 255)
    return np.where(valid, bright, 127).astype(np.uint8)


def no_grey(layer, valid):
    return limits(layer, *np.percentile(layer[valid], (2, 98))).clip(0, 255).astype(np.uint8)


def shares(layer, valid):
    return (no_grey(layer, valid) / 255).astype(np.uint8)


def floats(layer, valid):
    return limits(layer, *np.percentile(layer[valid], (2, 98))).clip(0, 255)


def only_valid(layer, valid):
    return no_grey(layer, valid)[valid]


def by_stretch(layer, valid):
    return np.where(valid, Stretch.fit(layer[None], valid)(layer[None])[0], np.uint8(127))


def by_sorting(layer, valid):
    values = np.sort(layer[valid])
    low, high = values[round(0.02 * len(values))], values[round(0.98 * len(values)) - 1]
    bright = np.interp(layer, [low, high], [0, 255])
    bright[~valid] = 127
    return bright.astype(np.uint8)


WRONG_ANSWERS = [
    ('pad_to_square', lambda picture: padded(picture, 0, 0), 'not the middle'),
    ('pad_to_square', lambda picture: padded(picture, fill=0), 'should be grey'),
    ('pad_to_square', rounded_up, 'one pixel off'),
    ('pad_to_square', stretched, 'stretched'),
    ('pad_to_square', only_wide, 'raises'),
    ('pad_to_square', lambda picture: picture, 'shape it had'),
    ('pixel', (440, 450), 'pixel of the square'),
    ('pixel', (740, 450), 'was added'),
    ('pixel', (440, 150), 'taller'),
    ('pixel', (450, 140), 'column comes first'),
    ('pixel', (290, 450), 'at the left'),
    ('pixel', 140, 'two numbers'),
    ('show_layer', all_vote, 'count'),
    ('show_layer', not_cut, 'cut before'),
    ('show_layer', min_to_max, 'percentiles'),
    ('show_layer', no_grey, 'should be 127'),
    ('show_layer', shares, 'All is black'),
    ('show_layer', floats, 'np.uint8'),
    ('show_layer', only_valid, 'shape'),
    ('show_layer', lambda layer, valid: 255 - no_grey(layer, valid), 'ones dark'),
]
RIGHT_ANSWERS = [
    ('pad_to_square', by_np_pad),
    ('pad_to_square', by_lists),
    ('pixel', [140.0, 450.0]),
    ('pixel', np.array([140, 450])),
    ('show_layer', by_stretch),
    ('show_layer', by_sorting),
]


test_wrong, test_right, test_left, test_enough = judged(EXERCISES, WRONG_ANSWERS, RIGHT_ANSWERS)
