"The judge of the first look: wrong answers that a learner would give are told wrong in words that fit, right ones pass."

import numpy as np
import pytest

from earthgpt_lite.course.first_look import EXERCISES
from earthgpt_lite.exercises import RIGHT, UNSOLVED, WRONG, verdict


def by_loop(scores):
    best = 0
    for k, score in enumerate(scores):
        if score > scores[best]:
            best = k
    return best


@pytest.mark.parametrize(
    'made, words',
    [
        (lambda scores: scores.max(), 'At which place'),
        (lambda scores: scores.argmin(), 'lowest score'),
        (lambda scores: int(scores.argmax()) + 1, 'counted from 0'),
        (lambda scores: scores.abs().argmax(), 'lowest score'),
        (lambda scores: len(scores) - 1, 'does not stand'),
        (lambda scores: scores.softmax(-1), 'several numbers'),
        (lambda scores: print(end=''), 'return'),
        (lambda scores: scores.argmx(), 'raises AttributeError'),
    ],
)
def test_wrong_answers_are_told_wrong_in_words_that_fit(made, words):
    state, why = verdict(EXERCISES['likeliest'], made)
    assert state == WRONG and words in why


@pytest.mark.parametrize(
    'made',
    [
        by_loop,
        lambda scores: scores.argmax(),
        lambda scores: np.argmax(scores.numpy()),
        lambda scores: scores.topk(1).indices,
        lambda scores: scores.tolist().index(max(scores.tolist())),
        EXERCISES['likeliest'].finished,
    ],
)
def test_right_answers_pass(made):
    assert verdict(EXERCISES['likeliest'], made) == (RIGHT, '')


def test_a_blank_is_not_solved():
    assert verdict(EXERCISES['likeliest'], ...)[0] == UNSOLVED
