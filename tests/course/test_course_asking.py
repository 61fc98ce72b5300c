"Blanks of the lesson on asking: what a learner might write, and what is said of it."

import math

import numpy as np
import torch
from fixtures_course import judged

from earthgpt_lite.boxes.text import to_pixels
from earthgpt_lite.course.asking import EXERCISES, finished_map_box
from earthgpt_lite.eval.measures import first_box


def corners(box, frame):
    (west, north), (east, south) = frame.to_map(box[:2]), frame.to_map(box[2:])
    return west, south, east, north


def no_padding(text, frame):
    return corners(first_box(text) * np.array([frame.width, frame.height] * 2), frame)


def upside_down(text, frame):
    west, south, east, north = finished_map_box(text, frame)
    return west, north, east, south


def other_order(text, frame):
    west, south, east, north = finished_map_box(text, frame)
    return south, west, north, east


def plain_ratio(sums):
    return {label: s / sum(sums.values()) for label, s in sums.items()}


def without_shift(sums):
    total = sum(math.exp(s) for s in sums.values())
    return {label: math.exp(s) / total for label, s in sums.items()}


def without_shift_numpy(sums):
    with np.errstate(all='ignore'):
        e = np.exp(list(sums.values()))
        return dict(zip(sums, e / e.sum()))


def scores(assistant, pictures, label, labels):
    return [a.scores[label] for a in assistant.classify(pictures, labels)]


def by_winner(assistant, pictures, label, labels, k):
    answers = assistant.classify(pictures, labels)
    return np.argsort([-max(a.scores.values()) for a in answers])[:k].tolist()


def only_where_it_wins(assistant, pictures, label, labels, k):
    answers = enumerate(assistant.classify(pictures, labels))
    return [i for i, a in answers if a.text == label][:k]


def ascending(*given):
    return np.argsort(scores(*given[:4]))[: given[4]].tolist()


def the_pictures(*given):
    order = np.argsort(-np.array(scores(*given[:4])))[: given[4]]
    return [given[1][i] for i in order]


WRONG_ANSWERS = [
    ('map_box', no_padding, 'padding'),
    ('map_box', upside_down, 'North and south'),
    ('map_box', other_order, 'order'),
    ('map_box', lambda text, frame: first_box(text), 'padded square'),
    ('map_box', lambda text, frame: to_pixels(first_box(text), frame.width, frame.height), 'pixels'),
    ('map_box', lambda text, frame: corners(first_box(text), frame), 'one corner'),
    ('map_box', lambda text, frame: finished_map_box(text, frame)[:2], 'Four numbers'),
    ('map_box', lambda text, frame: np.array(finished_map_box(text, frame)) + 50, 'elsewhere'),
    ('map_box', lambda text, frame: None, 'nothing'),
    ('map_box', lambda text, frame: frame.to_map(text), 'raises'),
    ('probabilities', lambda sums: {label: math.exp(s) for label, s in sums.items()}, 'Together'),
    ('probabilities', plain_ratio, 'ratios'),
    ('probabilities', without_shift, 'as low as'),
    ('probabilities', without_shift_numpy, 'no number'),
    ('probabilities', lambda sums: sums, 'never below 0'),
    ('probabilities', lambda sums: list(finished(sums).values()), 'dict'),
    ('probabilities', lambda sums: None, 'nothing'),
    ('search', by_winner, 'the winner'),
    ('search', only_where_it_wins, 'another label win'),
    ('search', ascending, 'least probable'),
    ('search', the_pictures, 'places in the list'),
    ('search', lambda *given: sorted(EXERCISES['search'].finished(*given)), 'best comes first'),
    ('search', lambda *given: None, 'nothing'),
]
finished = EXERCISES['probabilities'].finished


def by_frame(text, frame):
    box = np.array(first_box(text))
    pixels = box * frame.side - [frame.pad_x, frame.pad_y, frame.pad_x, frame.pad_y]
    xs, ys = zip(frame.to_map(pixels[:2]), frame.to_map(pixels[2:]))
    return [min(xs), min(ys), max(xs), max(ys)]


def by_torch(sums):
    return dict(zip(sums, torch.tensor(list(sums.values())).softmax(0).tolist()))


def one_by_one(assistant, pictures, label, labels, k):
    found = {i: assistant.classify(p, labels).scores[label] for i, p in enumerate(pictures)}
    return sorted(found, key=found.get, reverse=True)[:k]


def by_corners(text, frame):
    return np.array(corners(to_pixels(first_box(text), frame.width, frame.height), frame))


def shifted(sums):
    e = {label: math.exp(s - max(sums.values())) for label, s in sums.items()}
    return {label: value / sum(e.values()) for label, value in e.items()}


def by_argsort(*given):
    return np.argsort(-np.array(scores(*given[:4])))[: given[4]]


RIGHT_ANSWERS = [
    ('map_box', by_frame),
    ('map_box', by_corners),
    ('probabilities', by_torch),
    ('probabilities', shifted),
    ('search', one_by_one),
    ('search', by_argsort),
]
test_wrong, test_right, test_left, test_enough = judged(EXERCISES, WRONG_ANSWERS, RIGHT_ANSWERS)
