"Judges of lesson tokens: what learners write wrong is told in words that fit; right answers of any form pass."

import numpy as np
import torch
from fixtures_course import judged

from earthgpt_lite.course.tokens import EXERCISES
from earthgpt_lite.model.tokens import IGNORE


def see(rule):
    "A mask from a rule about (i, j, segments, prefixes)"
    return lambda s, p: [[bool(rule(i, j, s, p)) for j in range(len(s))] for i in range(len(s))]


def in_order(i, j, s, p):
    return j <= i and s[j] in (s[i], p[i])


def by_segment(row, of=lambda label, token: label):
    found = {}
    for segment, label, token in zip(row['segment_ids'], row['labels'], row['input_ids']):
        if label != IGNORE:
            found.setdefault(segment, []).append(of(label, token))
    return list(found.values())


def questions_too(row):
    found = {}
    for segment, token in zip(row['segment_ids'], row['input_ids']):
        found.setdefault(segment, []).append(token)
    return list(found.values())[1:]


def by_prefix(row):
    found = {}
    for prefix, label in zip(row['prefix_ids'], row['labels']):
        if label != IGNORE:
            found.setdefault(prefix, []).append(label)
    return list(found.values())


def up_to_the_end_mark(row):
    found = [[]]
    for label in row['labels']:
        if label != IGNORE:
            found[-1].append(label)
            if label == 2:
                found.append([])
    return found[:-1]


def table_of_masks(s, p):
    s, p = np.array(s), np.array(p)
    return ((s[:, None] == s) | (p[:, None] == s)) & np.tri(len(s), dtype=bool)


WRONG_ANSWERS = [
    ('labels', lambda q, a: None, 'returns nothing'),
    ('labels', lambda q, a: [IGNORE] * len(q + a), 'All labels are IGNORE'),
    ('prefix_mask', lambda s, p: None, 'returns nothing'),
    ('times_cheaper', lambda n, picture=64, pair=14: None, 'returns nothing'),
    ('read_targets', lambda row: None, 'returns nothing'),
    ('read_targets', lambda row: dict(enumerate(by_segment(row))), 'a dictionary'),
    ('labels', lambda q, a: q + a, 'learn to write questions'),
    ('labels', lambda q, a: a, 'returns 3 labels'),
    ('labels', lambda q, a: [0] * len(q) + a, 'marked -100'),
    ('labels', lambda q, a: [IGNORE] * len(q) + a[:-1] + [IGNORE], 'never learn to stop'),
    ('labels', lambda q, a: [IGNORE if t in q else t for t in q + a], 'question holds the same token'),
    ('labels', lambda q, a: [IGNORE] * (len(q) - 1) + a + [IGNORE], 'one place too early'),
    ('labels', lambda q, a: q + [IGNORE] * len(a), 'learn to write questions'),
    ('labels', lambda q, a: [IGNORE] * len(q) + [1] * len(a), r'has the labels \[1, 1, 1\]'),
    ('labels', lambda q, a: [IGNORE] * q + a, 'It raises TypeError'),
    ('prefix_mask', see(lambda i, j, s, p: s[j] in (s[i], p[i])), 'comes later'),
    ('prefix_mask', see(lambda i, j, s, p: j >= i and s[i] in (s[j], p[j])), 'exchanged'),
    ('prefix_mask', see(lambda i, j, s, p: j <= i and s[j] == s[i]), 'of its picture'),
    ('prefix_mask', see(lambda i, j, s, p: j <= i), 'neither its own nor its picture'),
    ('prefix_mask', see(lambda i, j, s, p: j < i and s[j] in (s[i], p[i])), 'does not see itself'),
    ('prefix_mask', see(lambda i, j, s, p: j <= i and p[j] == p[i]), 'neither its own nor its picture'),
    ('prefix_mask', see(lambda i, j, s, p: j <= i and s[j] in (s[i], 1)), 'neither its own'),
    ('prefix_mask', lambda s, p: [in_order(i, i, s, p) for i in range(len(s))], r'the shape \(6,\)'),
    ('times_cheaper', lambda n, picture=64, pair=14: n, 'too many'),
    ('times_cheaper', lambda n, picture=64, pair=14: (picture + n * pair) / (n * (picture + pair)), 'share'),
    ('times_cheaper', lambda n, picture=64, pair=14: n * picture / (picture + n * pair), 'nobody to share'),
    ('times_cheaper', lambda n, picture=64, pair=14: n * 78 / (64 + n * 14), 'too'),
    ('read_targets', lambda row: [x for x in row['labels'] if x != IGNORE], 'a list of its own'),
    ('read_targets', lambda row: [row['labels']], 'a -100 among'),
    ('read_targets', questions_too, 'not asked to write'),
    ('read_targets', lambda row: [found[:-1] for found in by_segment(row)], 'end mark is missing'),
    ('read_targets', by_prefix, '3 questions gives 1 lists'),
    ('read_targets', up_to_the_end_mark, '3 questions gives 4 lists'),
]
RIGHT_ANSWERS = [
    ('labels', lambda q, a: len(q) * [-100] + list(a)),
    ('labels', lambda q, a: np.array([IGNORE for _ in q] + a)),
    ('labels', lambda q, a: torch.cat([torch.full((len(q),), IGNORE), torch.tensor(a)])),
    ('prefix_mask', see(in_order)),
    ('prefix_mask', table_of_masks),
    ('prefix_mask', lambda s, p: torch.from_numpy(table_of_masks(s, p)).int()),
    ('times_cheaper', lambda n, picture=64, pair=14: (n * picture + n * pair) / (picture + pair * n)),
    ('times_cheaper', lambda n, picture=64, pair=14: round(n * (picture + pair) / (picture + n * pair), 3)),
    ('read_targets', by_segment),
    ('read_targets', lambda row: [np.array(found) for found in by_segment(row, lambda label, token: token)]),
]


test_wrong, test_right, test_left, test_enough = judged(EXERCISES, WRONG_ANSWERS, RIGHT_ANSWERS)
