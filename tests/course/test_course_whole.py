"Judges of whole: mistakes that a learner makes are told in words that fit, and right answers of any make pass."

import math

import numpy as np
import pytest
import torch
from fixtures_course import judged
from torch.nn import functional as F

from earthgpt_lite.course.whole import EXERCISES
from earthgpt_lite.exercises import verdict
from earthgpt_lite.model.tokens import IGNORE


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


def in_a_loop(words, is_image, features):
    line, rows = list(features.reshape(-1, features.shape[-1])), []
    for vectors, places in zip(words, is_image):
        rows.append([line.pop(0) if place else vector for vector, place in zip(vectors, places)])
    return rows


def by_numpy(words, is_image, features):
    placed = words.numpy().copy()
    placed[is_image.numpy()] = features.numpy().reshape(-1, features.shape[-1])
    return placed


# ---- the loss by hand


def loss(logits, labels, **more):
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(), **(dict(ignore_index=IGNORE) | more))


def by_rows(logits, labels):
    return sum(loss(a[None, :-1], b[None, 1:]) for a, b in zip(logits, labels)) / len(logits)


def without_a_logarithm(logits, labels):
    kept = labels[:, 1:] != IGNORE
    return -logits[:, :-1].softmax(-1)[kept].gather(1, labels[:, 1:][kept][:, None]).mean()


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


# ---- all of them


WRONG_ANSWERS = [
    ('place_pictures', lambda words, is_image, features: words, 'Nothing has changed'),
    ('place_pictures', changed, '`words` itself was changed'),
    ('place_pictures', in_front, 'at the beginning of the rows'),
    ('place_pictures', longer, 'shape'),
    ('place_pictures', added, 'added to'),
    ('place_pictures', no_return, 'gives None'),
    ('place_pictures', lambda w, i, f: indexed(w, i, f[:1].expand_as(f)), 'shows the first picture'),
    ('place_pictures', lambda w, i, f: indexed(w, i, f.flip(0)), 'pictures come in the wrong order'),
    (
        'place_pictures',
        lambda w, i, f: indexed(w, i, f.flip(1)),
        'tokens of each picture come in the wrong order',
    ),
    ('place_pictures', lambda w, i, f: indexed(w, i, f.transpose(0, 1)), 'mixed up'),
    (
        'place_pictures',
        lambda w, i, f: indexed(w, ~i, f.flatten(0, 1).repeat(9, 1)[None, : int((~i).sum())]),
        'were replaced',
    ),
    ('place_pictures', lambda w, i, f: w.masked_scatter(i, f), 'raises RuntimeError'),
    ('clueless', -math.log(500), 'sign'),
    ('clueless', 1 / 500, 'probability of the right word'),
    ('clueless', math.log2(500), 'in bits'),
    ('clueless', math.log10(500), 'base of ten'),
    ('clueless', math.log(10), 'ten words'),
    ('clueless', 500, 'number of words'),
    ('clueless', 0.0, 'certain'),
    ('clueless', 5, 'more than 5'),
    ('clueless', 7, 'less than 7'),
    ('clueless', 'six', 'raises ValueError'),
    ('mean_loss', loss, 'its own token'),
    ('mean_loss', lambda a, b: loss(a[:, 1:], b[:, :-1]), 'wrong way'),
    ('mean_loss', lambda a, b: loss(a[:, :-1], b[:, 1:], reduction='sum'), 'not their mean'),
    (
        'mean_loss',
        lambda a, b: loss(a[:, :-1], b[:, 1:], reduction='sum') / b.numel(),
        'divided by all tokens',
    ),
    ('mean_loss', lambda a, b: loss(a[:, :-1], b[:, 1:], reduction='none').mean(), 'divided by all tokens'),
    ('mean_loss', by_rows, 'mean of the rows'),
    ('mean_loss', lambda a, b: loss(a[:, :-1], b[:, 1:].clamp(min=0)), 'word 0'),
    ('mean_loss', lambda a, b: -loss(a[:, :-1], b[:, 1:]), 'sign'),
    ('mean_loss', without_a_logarithm, 'logarithm is missing'),
    ('mean_loss', lambda a, b: loss(a[:, :-1].softmax(-1), b[:, 1:]), 'taken twice'),
    ('mean_loss', lambda a, b: loss(a[:, :-1], b[:, 1:], reduction='none'), 'one number'),
    ('mean_loss', lambda a, b: F.cross_entropy(a[:, :-1], b[:, 1:]), 'raises'),
]
RIGHT_ANSWERS = [
    ('place_pictures', indexed),
    ('place_pictures', in_a_loop),
    ('place_pictures', by_numpy),
    ('place_pictures', lambda w, i, f: w.masked_scatter(i[..., None], f.flatten(0, 1))),
    ('clueless', 6.21),
    ('clueless', math.log(500)),
    ('clueless', np.log(500.0)),
    ('clueless', -torch.tensor(1 / 500).log()),
    ('mean_loss', lambda a, b: loss(a[:, :-1], b[:, 1:])),
    ('mean_loss', looped),
    ('mean_loss', by_softmax),
]


test_wrong, test_right, test_left, test_enough = judged(EXERCISES, WRONG_ANSWERS, RIGHT_ANSWERS)


@pytest.mark.parametrize('name, made', [one[:2] for one in WRONG_ANSWERS if one[0] == 'clueless'])
def test_the_number_is_not_given_away(name, made):
    assert '6.2' not in verdict(EXERCISES[name], made)[1]
