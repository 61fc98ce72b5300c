"Judges of boxes in words: wrong answers that a learner would give are told wrong in words that fit, right ones pass."

import re

import numpy as np
from fixtures_course import judged

from earthgpt_lite.boxes.text import BoxFormat, parse_boxes
from earthgpt_lite.course.boxes import EXERCISES

BRACKETS = r'\[([^\[\]]*)\]'


def flat(text):
    return [float(n) for n in re.findall(r'\d+\.?\d*', text)]


def chunks(text):
    numbers = flat(text)
    return [numbers[i : i + 4] for i in range(0, len(numbers) - 3, 4)]


def one_each(text):
    found = [re.findall(r'\d+\.?\d*', inside) for inside in re.findall(BRACKETS, text)]
    return [list(map(float, four)) for four in found if len(four) == 4]


def as_text(text):
    return [p.split(',') for inside in re.findall(BRACKETS, text) for p in inside.split(';')]


def split_and_float(text):
    pieces = [p for inside in re.findall(BRACKETS, text) for p in inside.split(';')]
    return [[float(n) for n in p.split(',')] for p in pieces if p.count(',') != 2]


def with_points_only(text):
    pieces = [p for inside in re.findall(BRACKETS, text) for p in inside.split(';')]
    found = [re.findall(r'\d\.\d+', p) for p in pieces]
    return [list(map(float, four)) for four in found if len(four) == 4]


def open_ones_too(text):
    pieces = [p for inside in re.findall(r'\[([^\[\]]*)', text) for p in inside.split(';')]
    return [list(map(float, n)) for p in pieces if (n := re.findall(r'\d+\.?\d*', p))]


def by_library(text):
    return [found.box for found in parse_boxes(text).boxes]


def by_pattern(text):
    number = r'\s*(-?\d+(?:\.\d+)?)\s*'
    closed = [f'[{inside}]' for inside in re.findall(BRACKETS, text)]
    pattern = rf'(?<=[\[;]){",".join([number] * 4)}(?=[\];])'
    return [tuple(map(float, m)) for part in closed for m in re.findall(pattern, part)]


def unit_inside(box, width, height):
    return all(0 <= v <= 1 for v in box)


def rows_only(box, width, height):
    pad = (max(width, height) - height) / 2 / max(width, height)
    return box[1] >= pad and box[3] <= 1 - pad and box[0] < box[2] and box[1] < box[3]


def unordered(box, width, height):
    side = max(width, height)
    x, y = np.array(box[::2]) * side - (side - width) / 2, np.array(box[1::2]) * side - (side - height) / 2
    return bool((x >= 0).all() and (x <= width).all() and (y >= 0).all() and (y <= height).all())


def by_hand(box, width, height):
    x1, y1, x2, y2 = box
    side = max(width, height)
    left, top = (side - width) // 2 / side, (side - height) // 2 / side
    return left <= x1 < x2 <= 1 - left and top <= y1 < y2 <= 1 - top


def by_numpy(box, width, height):
    frame = BoxFormat()
    found = frame.read('[' + ','.join(f'{v:.6f}' for v in box) + ']', width, height)
    if not found.boxes:
        return np.False_
    box = found.boxes[0].box
    return (box >= -1e-6).all() and (box <= np.array([width, height] * 2) + 1e-6).all()


WRONG_ANSWERS = [
    ('find_boxes', flat, 'list of its own'),
    ('find_boxes', chunks, 'outside brackets'),
    ('find_boxes', one_each, 'inside one pair of brackets'),
    ('find_boxes', as_text, 'still text'),
    ('find_boxes', split_and_float, 'hold words'),
    ('find_boxes', with_points_only, 'has a point'),
    ('find_boxes', open_ones_too, 'not four numbers'),
    ('pixels', [250, 200, 750, 240], 'equally long'),
    ('pixels', [250, 500, 750, 600], 'pixels of the square'),
    ('pixels', [250, 800, 750, 900], 'was added'),
    ('pixels', [0.25, 0.2, 0.75, 0.3], 'shares'),
    ('pixels', [100, 200, 300, 300], 'at x'),
    ('pixels', [250, 200, 750], 'four numbers'),
    ('is_inside', unit_inside, 'strip above'),
    ('is_inside', rows_only, 'tall picture'),
    ('is_inside', unordered, 'right of its right edge'),
    ('is_inside', lambda *a: not by_hand(*a), 'in the middle'),
    ('is_inside', lambda box, w, h: np.array(box) >= 0, 'All of them'),
    ('is_inside', lambda box, w, h: '', 'True or False'),
]
RIGHT_ANSWERS = [
    ('find_boxes', by_library),
    ('find_boxes', by_pattern),
    ('pixels', (250.0, 200, 750, 300)),
    ('pixels', np.array([250, 200, 750, 300])),
    ('is_inside', by_hand),
    ('is_inside', by_numpy),
]


test_wrong, test_right, test_left, test_enough = judged(EXERCISES, WRONG_ANSWERS, RIGHT_ANSWERS)
