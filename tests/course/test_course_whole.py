"Lesson 8: mistakes that a learner makes are told in words that fit, and right answers of any make pass."

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from earthgpt_lite.exercises import RIGHT, UNSOLVED, WRONG, find_exercise, verdict
from earthgpt_lite.model.tokens import IGNORE


def judged(name, made):
    return verdict(find_exercise(f'whole.{name}'), made)


# ---- pictures between words


def indexed(words, is_image, features):
    placed = words.clone()
    placed[is_image] = features.flatten(0, 1)
    return placed


def changed(words, is_image, features):
    words[is_image] = features.flatten(0, 1)
    return words


def in_front(words, is_image, features):
    return torch.cat([features[: len(words)], words[:, features.shape[1] :]], 1)


def longer(words, is_image, features):
    return torch.cat([features[: len(words)], words], 1)


def added(words, is_image, features):
    return indexed(words, is_image, words[is_image].view_as(features) + features)


def no_return(words, is_image, features):
    words[is_image] = features.flatten(0, 1)


WRONG_PLACES = [
    (lambda words, is_image, features: words, 'Nothing has changed'),
    (changed, '`words` itself was changed'),
    (in_front, 'at the beginning of the rows'),
    (longer, 'shape'),
    (added, 'added to'),
    (no_return, 'gives None'),
    (lambda w, i, f: indexed(w, i, f[:1].expand_as(f)), 'shows the first picture'),
    (lambda w, i, f: indexed(w, i, f.flip(0)), 'pictures come in the wrong order'),
    (lambda w, i, f: indexed(w, i, f.flip(1)), 'tokens of each picture come in the wrong order'),
    (lambda w, i, f: indexed(w, i, f.transpose(0, 1)), 'mixed up'),
    (lambda w, i, f: indexed(w, ~i, f.flatten(0, 1).repeat(9, 1)[None, : int((~i).sum())]), 'were replaced'),
    (lambda w, i, f: w.masked_scatter(i, f), 'raises RuntimeError'),
]


@pytest.mark.parametrize('made, words', WRONG_PLACES, ids=[w for _, w in WRONG_PLACES])
def test_wrong_places(made, words):
    state, said = judged('place_pictures', made)
    assert state == WRONG and words in said


def in_a_loop(words, is_image, features):
    line, rows = list(features.reshape(-1, features.shape[-1])), []
    for vectors, places in zip(words, is_image):
        rows.append([line.pop(0) if place else vector for vector, place in zip(vectors, places)])
    return rows


def by_numpy(words, is_image, features):
    placed = words.numpy().copy()
    placed[is_image.numpy()] = features.numpy().reshape(-1, features.shape[-1])
    return placed


@pytest.mark.parametrize(
    'made', [indexed, in_a_loop, by_numpy, lambda w, i, f: w.masked_scatter(i[..., None], f.flatten(0, 1))]
)
def test_right_places(made):
    assert judged('place_pictures', made) == (RIGHT, '')


# ---- a model that knows nothing


@pytest.mark.parametrize(
    'made, words',
    [
        (-math.log(500), 'sign'),
        (1 / 500, 'probability of the right word'),
        (math.log2(500), 'in bits'),
        (math.log10(500), 'base of ten'),
        (math.log(10), 'ten words'),
        (500, 'number of words'),
        (0.0, 'certain'),
        (5, 'more than 5'),
        (7, 'less than 7'),
        ('six', 'raises ValueError'),
    ],
)
def test_wrong_losses_of_nobody(made, words):
    state, said = judged('clueless', made)
    assert state == WRONG and words in said and '6.2' not in said


@pytest.mark.parametrize('made', [6.21, math.log(500), np.log(500.0), -torch.tensor(1 / 500).log()])
def test_right_losses_of_nobody(made):
    assert judged('clueless', made) == (RIGHT, '')


# ---- the loss by hand


def loss(logits, labels, **more):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), **(dict(ignore_index=IGNORE) | more))


def by_rows(logits, labels):
    return sum(loss(a[None, :-1], b[None, 1:]) for a, b in zip(logits, labels)) / len(logits)


def without_a_logarithm(logits, labels):
    kept = labels[:, 1:] != IGNORE
    return -logits[:, :-1].softmax(-1)[kept].gather(1, labels[:, 1:][kept][:, None]).mean()


WRONG_LOSSES = [
    (loss, 'its own token'),
    (lambda a, b: loss(a[:, 1:], b[:, :-1]), 'wrong way'),
    (lambda a, b: loss(a[:, :-1], b[:, 1:], reduction='sum'), 'not their mean'),
    (lambda a, b: loss(a[:, :-1], b[:, 1:], reduction='sum') / b.numel(), 'divided by all tokens'),
    (lambda a, b: loss(a[:, :-1], b[:, 1:], reduction='none').mean(), 'divided by all tokens'),
    (by_rows, 'mean of the rows'),
    (lambda a, b: loss(a[:, :-1], b[:, 1:].clamp(min=0)), 'word 0'),
    (lambda a, b: -loss(a[:, :-1], b[:, 1:]), 'sign'),
    (without_a_logarithm, 'logarithm is missing'),
    (lambda a, b: loss(a[:, :-1].softmax(-1), b[:, 1:]), 'taken twice'),
    (lambda a, b: loss(a[:, :-1], b[:, 1:], reduction='none'), 'one number'),
    (lambda a, b: F.cross_entropy(a[:, :-1], b[:, 1:]), 'raises'),
]


@pytest.mark.parametrize('made, words', WRONG_LOSSES)
def test_wrong_losses(made, words):
    state, said = judged('mean_loss', made)
    assert state == WRONG and words in said


def looped(logits, labels):
    found = []
    for row, targets in zip(logits.tolist(), labels.tolist()):
        for scores, target in zip(row, targets[1:]):
            if target != IGNORE:
                found.append(math.log(sum(map(math.exp, scores))) - scores[target])
    return sum(found) / len(found)


def by_softmax(logits, labels):
    kept = labels[:, 1:] != IGNORE
    return -logits[:, :-1].log_softmax(-1)[kept].gather(1, labels[:, 1:][kept][:, None]).mean()


@pytest.mark.parametrize('made', [lambda a, b: loss(a[:, :-1], b[:, 1:]), looped, by_softmax])
def test_right_losses(made):
    assert judged('mean_loss', made) == (RIGHT, '')


def test_what_was_left_is_unsolved():
    def blank(*args):
        raise NotImplementedError

    states = [judged(name, made)[0] for name, made in (('place_pictures', blank), ('mean_loss', blank))]
    assert {*states, judged('clueless', ...)[0]} == {UNSOLVED}
