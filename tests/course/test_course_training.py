"Blanks of the lesson on training: what a learner might write, and what is said of it."

import numpy as np
import torch
import torch.nn.functional as F
from fixtures_course import judged

from earthgpt_lite.course.training import EXERCISES, _last_part, _means_alike, _sums, _undivided


def targets(labels):
    return (labels >= 0).nonzero()[:, 0]


def same_place(logits, labels):
    places = targets(labels)
    return -logits.log_softmax(-1)[places, labels[places]].mean()


def got(logits, labels, shift=1):
    places = targets(labels)
    return logits.log_softmax(-1)[places - shift, labels[places]]


def every_place(logits, labels):
    logp = logits.log_softmax(-1)
    return -torch.stack([logp[i - 1, labels[i] % 7] for i in range(1, len(labels))]).mean()


def step_each(loss_and_count, optimizer, parts):
    for part in parts:
        optimizer.zero_grad()
        loss_and_count(part)[0].backward()
        optimizer.step()


def no_backward(loss_and_count, optimizer, parts):
    optimizer.step()
    return 0.0


def weighed(loss_and_count, optimizer, parts, clean=True):
    if clean:
        optimizer.zero_grad()
    pairs = [loss_and_count(part) for part in parts]
    total = sum(count for _, count in pairs)
    loss = sum(loss * count for loss, count in pairs) / total
    loss.backward()
    optimizer.step()
    return loss


def leftovers(loss_and_count, optimizer, parts):
    return weighed(loss_and_count, optimizer, parts, clean=False)


def says_nothing(*args):
    weighed(*args)


def says_mean_of_means(loss_and_count, optimizer, parts):
    losses = [loss_and_count(part)[0].item() for part in parts]
    weighed(loss_and_count, optimizer, parts)
    return sum(losses) / len(losses)


WRONG_ANSWERS = [
    ('loss', same_place, 'another place'),
    ('loss', every_place, 'no target'),
    ('loss', lambda x, y: F.cross_entropy(x[1:], y[:-1]), 'wrong way'),
    ('loss', lambda x, y: -x.log_softmax(-1)[targets(y) - 1][:, y[targets(y)]].mean(), 'every target'),
    ('loss', lambda x, y: -x.log_softmax(0)[targets(y) - 1, y[targets(y)]].mean(), 'Along which axis'),
    ('loss', lambda x, y: -got(x, y).sum(), 'the sum'),
    ('loss', lambda x, y: got(x, y).mean(), 'sign'),
    ('loss', lambda x, y: -got(x, y).sum() / len(y), 'all places'),
    ('loss', lambda x, y: got(x, y).exp().mean(), 'logarithm'),
    ('loss', lambda x, y: -x[targets(y) - 1, y[targets(y)]].mean(), 'logits, not'),
    ('loss', lambda x, y: -got(x, y), 'one number'),
    ('loss', lambda x, y: None, 'nothing'),
    ('loss', lambda x, y: -got(x, y, 2).mean(), 'not their loss'),
    ('loss', lambda x, y: x[y].mean(), 'raises IndexError'),
    ('warm_up', lambda step, steps=50: min(1, step / steps), 'learn nothing'),
    ('warm_up', lambda step, steps=50: (step + 1) / steps, 'never used'),
    ('warm_up', lambda step, steps=50: min(1, (step + 1) / 50), '`steps`'),
    ('warm_up', lambda step, steps=50: min(1, (step + 2) / steps), 'equal'),
    ('warm_up', lambda step, steps=50: max(0.01, 1 - step / steps), 'After the warm-up'),
    ('warm_up', lambda step, steps=50: None, 'nothing'),
    ('step_in_parts', _means_alike, 'weighs the same'),
    ('step_in_parts', _sums, 'added up'),
    ('step_in_parts', _undivided, 'divided'),
    ('step_in_parts', _last_part, 'cleared'),
    ('step_in_parts', step_each, '3 steps'),
    ('step_in_parts', no_backward, 'not moved'),
    ('step_in_parts', leftovers, 'left over'),
    ('step_in_parts', says_nothing, 'returns nothing'),
    ('step_in_parts', says_mean_of_means, 'uncut batch'),
]


def by_library(logits, labels):
    return F.cross_entropy(logits[:-1], labels[1:], ignore_index=-100)


def by_loop(logits, labels):
    found = []
    for i, label in enumerate(labels.tolist()):
        if label >= 0:
            p = logits[i - 1].softmax(0)[label]
            found.append(-float(p.log()))
    return round(sum(found) / len(found), 4)


def warm_by_cases(step, steps=50):
    if step >= steps:
        return 1.0
    return (1 + step) * (1 / steps)


def warm_in_numpy(step, steps=50):
    return np.clip(np.float64(step + 1) / steps, 0, 1)


def part_by_part(loss_and_count, optimizer, parts):
    optimizer.zero_grad()
    pairs = [loss_and_count(part) for part in parts]
    total = sum(count for _, count in pairs)
    for loss, count in pairs:
        (loss * count / total).backward()
    optimizer.step()
    return sum(loss.item() * count for loss, count in pairs) / total


RIGHT_ANSWERS = [
    ('loss', by_library),
    ('loss', by_loop),
    ('warm_up', warm_by_cases),
    ('warm_up', warm_in_numpy),
    ('step_in_parts', weighed),
    ('step_in_parts', part_by_part),
]
test_wrong, test_right, test_left, test_enough = judged(EXERCISES, WRONG_ANSWERS, RIGHT_ANSWERS)
