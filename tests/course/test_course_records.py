"Judges of records: wrong answers that a learner would give are told wrong in words that fit, right ones pass."

import random

import numpy as np
from fixtures_course import judged
from shapely.geometry import box

from earthgpt_lite.course.records import EXERCISES


def all_of_them(yes, no):
    return [(p, 'yes') for p in yes] + [(p, 'no') for p in no]


def oversampled(yes, no):
    most = max(len(yes), len(no))
    return all_of_them((yes * most)[:most], (no * most)[:most])


def without_answers(yes, no):
    return [p for pair in zip(yes, no) for p in pair]


def by_drawing(yes, no):
    most = min(len(yes), len(no))
    return all_of_them(random.sample(yes, most), random.sample(no, most))


def by_length(yes, no):
    if len(yes) > len(no):
        yes = yes[-len(no) :] if no else []
    return [[p, 'yes'] for p in yes] + [[p, 'no'] for p in no[: len(yes)]]


def a_corner_inside(a, b):
    inside = [a[0] <= x <= a[2] and a[1] <= y <= a[3] for x in b[::2] for y in b[1::2]]
    return any(inside)


def touching_too(a, b):
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]


def one_direction(a, b):
    return a[0] < b[2] and b[0] < a[2]


def begins_inside(a, b):
    return a[0] <= b[0] < a[2] and a[1] <= b[1] < a[3]


def by_shapely(a, b):
    return box(*a).intersection(box(*b)).area > 0


def by_numpy(a, b):
    a, b = np.array(a), np.array(b)
    return (np.minimum(a[2:], b[2:]) > np.maximum(a[:2], b[:2])).all()


WRONG_ANSWERS = [
    ('balance', all_of_them, '4 times yes and 2 times no'),
    ('balance', oversampled, 'used twice'),
    ('balance', without_answers, 'a pair of'),
    ('balance', lambda yes, no: balanced_by_one(yes, no), 'More pairs'),
    ('balance', lambda yes, no: [(a, 'no') for a in yes[:1]] + [(b, 'yes') for b in no[:1]], 'other list'),
    ('balance', lambda yes, no: [(a, True) for a in yes], "'yes' or 'no'"),
    ('usable', 60, 'Are they all'),
    ('usable', 240, 'paired'),
    ('usable', 300, 'four times in five'),
    ('usable', 180, 'more have yes'),
    ('share_ground', one_direction, 'further north'),
    ('share_ground', touching_too, 'only touch'),
    ('share_ground', a_corner_inside, 'wholly in the other'),
    ('share_ground', begins_inside, 'in a corner'),
    ('share_ground', lambda a, b: np.array(a) < np.array(b), 'several values'),
]
RIGHT_ANSWERS = [
    ('balance', by_drawing),
    ('balance', by_length),
    ('usable', 120.0),
    ('usable', np.int64(120)),
    ('share_ground', by_shapely),
    ('share_ground', by_numpy),
]


def balanced_by_one(yes, no):
    return [(yes[0], 'yes'), (no[0], 'no')]


test_wrong, test_right, test_left, test_enough = judged(EXERCISES, WRONG_ANSWERS, RIGHT_ANSWERS)
