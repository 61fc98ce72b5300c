"Scene classification and RSVQA on hand-computed cases."
import numpy as np
import pytest

from earthgpt_lite.protocols import classification_scores, rsvqa_scores
from earthgpt_lite.sensors import BadInput


def rows(pairs, **more): return [dict(image=f'{i}.png', truth=t, answer=a, **more) for i, (t, a) in enumerate(pairs)]


def test_classification_by_hand():
    s = classification_scores(rows([('Ice', 'the ice.'), ('ice', ''), ('water', 'ICE'), ('water', 'water'), ('water', 'lake')]), ['water', 'ice', 'sand'])
    assert s['confusion'].tolist() == [[1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]]
    assert (s['n'], s['outside']) == (5, 2) and s['accuracy'] == pytest.approx(.4) and s['balanced'] == pytest.approx((1 / 3 + 1 / 2) / 2)
    assert s['per_class'] == {'water': (3, pytest.approx(1 / 3)), 'ice': (2, .5), 'sand': (0, 0)}


def test_similar_spelling_is_not_right():
    assert classification_scores(rows([('forest', 'forests'), ('desert', 'dessert')]))['accuracy'] == 0


@pytest.mark.parametrize('data, classes, words', [([], None, 'no predictions'), (rows([('ice', 'ice')]), ['water'], '0.png')])
def test_classification_bad_input(data, classes, words):
    with pytest.raises(BadInput, match=words): classification_scores(data, classes)


SHEET = (rows([('yes', 'Yes'), ('no', 'yes'), ('no', 'no.'), ('yes', '')], type='presence') + rows([('600', '640')], type='count') +
         rows([('0', '1'), ('10', '10')], type='count') + rows([('37m2', '99m2'), ('37m2', '37')], type='area'))


def test_rsvqa_by_hand():
    s = rsvqa_scores(SHEET)
    assert {t: (n, a) for t, (n, a, _) in s['types'].items()} == {'presence': (4, .5), 'count': (3, pytest.approx(2 / 3)), 'area': (2, .5)}
    assert s['OA'] == pytest.approx(5 / 9) and s['AA'] == pytest.approx((.5 + 2 / 3 + .5) / 3) and s['n'] == 9


def test_rsvqa_without_drawers_and_with_skipping():
    assert rsvqa_scores(SHEET, drawers=())['OA'] == pytest.approx(3 / 9)
    s = rsvqa_scores(SHEET, skip=('count', 'area'))
    assert s['OA'] == s['AA'] == .5 and s['skipped'] == {'count': 3, 'area': 2} and list(s['types']) == ['presence']


def test_rsvqa_intervals_hold_the_scores_and_repeat():
    rng = np.random.default_rng(0)
    sheet = [dict(type=t, image=str(i % 40), truth='yes', answer=str(rng.choice(['yes', 'no']))) for i in range(200) for t in ('presence', 'comp')]
    s = rsvqa_scores(sheet)
    assert s == rsvqa_scores(sheet) and all(low < s[k] < high for k in ('OA', 'AA') for low, high in [s[k + '_interval']])


@pytest.mark.parametrize('answers, accuracy', [('perfect', 1), ('empty', 0)])
def test_predictors(answers, accuracy):
    s = rsvqa_scores([p | {'answer': p['truth'] if answers == 'perfect' else ''} for p in SHEET])
    assert s['OA'] == s['AA'] == accuracy


def test_rsvqa_bad_input():
    with pytest.raises(BadInput, match='no type'): rsvqa_scores(rows([('yes', 'yes')]))
    with pytest.raises(BadInput, match='skipped'): rsvqa_scores(SHEET, skip=('presence', 'count', 'area'))
