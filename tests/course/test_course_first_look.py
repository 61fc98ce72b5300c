"The judge of the first look: wrong answers that a learner would give are told wrong in words that fit, right ones pass."

import numpy as np
from fixtures_course import judged

from earthgpt_lite.course.first_look import EXERCISES


def by_loop(scores):
    best = 0
    for k, score in enumerate(scores):
        if score > scores[best]:
            best = k
    return best


WRONG_ANSWERS = [
    ('likeliest', lambda scores: scores.max(), 'At which place'),
    ('likeliest', lambda scores: scores.argmin(), 'lowest score'),
    ('likeliest', lambda scores: int(scores.argmax()) + 1, 'counted from 0'),
    ('likeliest', lambda scores: scores.abs().argmax(), 'lowest score'),
    ('likeliest', lambda scores: len(scores) - 1, 'does not stand'),
    ('likeliest', lambda scores: scores.softmax(-1), 'several numbers'),
    ('likeliest', lambda scores: print(end=''), 'return'),
    ('likeliest', lambda scores: scores.argmx(), 'raises AttributeError'),
]
RIGHT_ANSWERS = [
    ('likeliest', by_loop),
    ('likeliest', lambda scores: scores.argmax()),
    ('likeliest', lambda scores: np.argmax(scores.numpy())),
    ('likeliest', lambda scores: scores.topk(1).indices),
    ('likeliest', lambda scores: scores.tolist().index(max(scores.tolist()))),
]


test_wrong, test_right, test_left, test_enough = judged(EXERCISES, WRONG_ANSWERS, RIGHT_ANSWERS)
