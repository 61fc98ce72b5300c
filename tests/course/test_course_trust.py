"Blanks of the lesson on trust: what a learner might write, and what is said of it."

import numpy as np
from fixtures_course import judged

from earthgpt_lite.course.trust import EXERCISES, _two_models, finished_interval
from earthgpt_lite.eval.measures import first_box, first_box_overlap
from earthgpt_lite.boxes.iou import iou

ENDS = [0.025, 0.975]


def means(values, n=None, repeats=1000):
    values, rng = np.asarray(values, float), np.random.default_rng(1)
    return values[rng.integers(0, len(values), (repeats, n or len(values)))].mean(1)


def once_each(values):
    rng = np.random.default_rng(1)
    return np.quantile([rng.permutation(values).mean() for _ in range(500)], ENDS)


def single_answers(values):
    values = np.asarray(values, float)
    return values.mean() - 1.96 * values.std(), values.mean() + 1.96 * values.std()


def iou_of(answer, truth):
    return first_box_overlap(answer, truth)[0]


def readable_only(answers, truths):
    read = [iou_of(a, t) for a, t in zip(answers, truths) if first_box(a) is not None]
    return np.mean(np.array(read) >= 0.5) if read else 0


def drawn_apart(a, b):
    a, b = np.asarray(a, float).mean(1), np.asarray(b, float).mean(1)
    rng = np.random.default_rng(0)
    one, two = (x[rng.integers(0, len(x), (1000, len(x)))].mean(1) for x in (a, b))
    return np.quantile(one - two, ENDS)


def subtracted(a, b):
    return np.quantile(means(a.mean(1)), ENDS) - np.quantile(means(b.mean(1)), ENDS)


def by_questions(a, b):
    return finished_interval((np.asarray(a, float) - b).ravel())


WRONG_ANSWERS = [
    ('interval', once_each, 'put back'),
    ('interval', single_answers, 'single answers'),
    ('interval', lambda v: np.quantile(v, ENDS), 'single answers'),
    ('interval', lambda v: (np.mean(v) - np.std(v), np.mean(v) + np.std(v)), 'single answers'),
    ('interval', lambda v: np.quantile(means(v), [0.4, 0.6]), 'cut off at each side'),
    ('interval', lambda v: np.quantile(means(v), [0.05, 0.95]), 'a little too narrow'),
    ('interval', lambda v: (means(v).min(), means(v).max()), 'too wide'),
    ('interval', lambda v: np.quantile(means(v, 100), ENDS), 'as many questions as the exam'),
    ('interval', lambda v: np.quantile(means(v), [0.975, 0.025]), 'lower end comes first'),
    ('interval', lambda v: means(v), '1000 numbers'),
    ('interval', lambda v: np.mean(v), '1 numbers'),
    ('interval', lambda v: None, 'nothing'),
    ('interval', lambda v: v.no_such_thing(), 'raises AttributeError'),
    ('pr_at_half', readable_only, 'were asked too'),
    ('pr_at_half', lambda a, t: np.mean([iou_of(x, y) for x, y in zip(a, t)]), 'mean overlap'),
    ('pr_at_half', lambda a, t: np.mean([iou_of(x, y) > 0.5 for x, y in zip(a, t)]), 'at least'),
    ('pr_at_half', lambda a, t: sum(iou_of(x, y) >= 0.5 for x, y in zip(a, t)), 'counts the hits'),
    ('pr_at_half', lambda a, t: np.mean([x == y for x, y in zip(a, t)]), 'exactly .5'),
    ('pr_at_half', lambda a, t: None, 'nothing'),
    ('difference', drawn_apart, 'too wide'),
    ('difference', by_questions, 'too narrow'),
    ('difference', lambda a, b: finished_interval((a - b).mean(0)), 'over the pictures'),
    ('difference', subtracted, 'Two intervals'),
    ('difference', lambda a, b: finished_interval(b.mean(1) - a.mean(1)), 'sign'),
    ('difference', lambda a, b: finished_interval(a.mean(1)), 'not in the interval'),
    ('difference', lambda a, b: a.mean() - b.mean(), 'two ends'),
]


def loop(values):
    found = []
    for k in range(1000):
        drawn = np.random.default_rng(k).choice(list(values), len(values))
        found.append(float(np.mean(drawn)))
    found = sorted(found)
    return [found[25], found[974]]


def by_formula(values):
    p, n = np.mean(values), len(values)
    half = 1.96 * (p * (1 - p) / n) ** 0.5
    return p - half, p + half


def by_hand(answers, truths):
    hits = 0
    for answer, truth in zip(answers, truths):
        box = first_box(answer)
        if box is not None and iou(box, first_box(truth)) >= 0.5:
            hits += 1
    return round(hits / len(answers), 4)


def weighted(a, b):
    per_picture = (a.astype(int) - b.astype(int)).mean(1)
    return tuple(np.quantile(means(per_picture, repeats=2000), ENDS))


def by_overlap(answers, truths):
    return np.mean([iou_of(a, t) >= 0.5 for a, t in zip(answers, truths)])


def one_draw_for_both(a, b):
    a, b = np.asarray(a, float).mean(1), np.asarray(b, float).mean(1)
    drawn = np.random.default_rng(2).integers(0, len(a), (1000, len(a)))
    return np.quantile(a[drawn].mean(1) - b[drawn].mean(1), ENDS)


RIGHT_ANSWERS = [
    ('interval', loop),
    ('interval', by_formula),
    ('pr_at_half', by_hand),
    ('pr_at_half', by_overlap),
    ('difference', weighted),
    ('difference', one_draw_for_both),
]
test_wrong, test_right, test_left, test_enough = judged(EXERCISES, WRONG_ANSWERS, RIGHT_ANSWERS)


def test_the_two_models_differ_as_told():
    a, b = _two_models()
    assert a.mean() > b.mean() + 0.1
