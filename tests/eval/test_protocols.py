"Scene classification and RSVQA on hand-computed cases."

import numpy as np
import pytest

from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval.protocols import (
    answer_score,
    classification_scores,
    consistency,
    detection_scores,
    is_correct,
    reliability,
    rsvqa_scores,
)


def rows(pairs, **more):
    return [dict(image=f'{i}.png', truth=t, answer=a, **more) for i, (t, a) in enumerate(pairs)]


def test_classification_by_hand():
    s = classification_scores(
        rows([('Ice', 'the ice.'), ('ice', ''), ('water', 'ICE'), ('water', 'water'), ('water', 'lake')]),
        ['water', 'ice', 'sand'],
    )
    assert s['confusion'].tolist() == [[1, 1, 0, 1], [0, 1, 0, 1], [0, 0, 0, 0]]
    assert (
        (s['n'], s['outside']) == (5, 2)
        and s['accuracy'] == pytest.approx(0.4)
        and s['balanced'] == pytest.approx((1 / 3 + 1 / 2) / 2)
    )
    assert s['per_class'] == {'water': (3, pytest.approx(1 / 3)), 'ice': (2, 0.5), 'sand': (0, 0)}


def test_similar_spelling_is_not_right():
    assert classification_scores(rows([('forest', 'forests'), ('desert', 'dessert')]))['accuracy'] == 0


@pytest.mark.parametrize(
    'data, classes, words', [([], None, 'no predictions'), (rows([('ice', 'ice')]), ['water'], '0.png')]
)
def test_classification_bad_input(data, classes, words):
    with pytest.raises(BadInput, match=words):
        classification_scores(data, classes)


SHEET = (
    rows([('yes', 'Yes'), ('no', 'yes'), ('no', 'no.'), ('yes', '')], type='presence')
    + rows([('600', '640')], type='count')
    + rows([('0', '1'), ('10', '10')], type='count')
    + rows([('37m2', '99m2'), ('37m2', '37')], type='area')
)


def test_rsvqa_by_hand():
    s = rsvqa_scores(SHEET)
    assert {t: (n, a) for t, (n, a, _) in s['types'].items()} == {
        'presence': (4, 0.5),
        'count': (3, pytest.approx(2 / 3)),
        'area': (2, 0.5),
    }
    assert (
        s['OA'] == pytest.approx(5 / 9) and s['AA'] == pytest.approx((0.5 + 2 / 3 + 0.5) / 3) and s['n'] == 9
    )


def test_rsvqa_without_drawers_and_with_skipping():
    assert rsvqa_scores(SHEET, bucketed=())['OA'] == pytest.approx(3 / 9)
    s = rsvqa_scores(SHEET, skip=('count', 'area'))
    assert (
        s['OA'] == s['AA'] == 0.5
        and s['skipped'] == {'count': 3, 'area': 2}
        and list(s['types']) == ['presence']
    )


def test_rsvqa_intervals_hold_the_scores_and_repeat():
    rng = np.random.default_rng(0)
    sheet = [
        dict(type=t, image=str(i % 40), truth='yes', answer=str(rng.choice(['yes', 'no'])))
        for i in range(200)
        for t in ('presence', 'comp')
    ]
    s = rsvqa_scores(sheet)
    assert s == rsvqa_scores(sheet) and all(
        low < s[k] < high for k in ('OA', 'AA') for low, high in [s[k + '_interval']]
    )


# predictor: OA and AA of the sheet, then top-1 and balanced accuracy of four classes
PREDICTORS = dict(
    perfect=(lambda t: t, 1, 1, 1, 1),
    empty=(lambda t: [''] * len(t), 0, 0, 0, 0),
    constant=(lambda t: t[:1] * len(t), 2 / 9, 0.5 / 3, 0.25, 0.25),
    shuffled=(lambda t: t[1:] + t[:1], 2 / 9, (0.25 + 0 + 0.5) / 3, 0, 0),
)


@pytest.mark.parametrize('name', PREDICTORS)
def test_predictors(name):
    make, oa, aa, top, balanced = PREDICTORS[name]
    s = rsvqa_scores([p | {'answer': a} for p, a in zip(SHEET, make([p['truth'] for p in SHEET]))])
    assert (s['OA'], s['AA']) == (pytest.approx(oa), pytest.approx(aa))
    truths = ['forest', 'water', 'desert', 'ice']
    c = classification_scores(rows(zip(truths, make(truths))))
    assert (c['accuracy'], c['balanced'], c['outside']) == (top, balanced, 4 * (name == 'empty'))


def test_rsvqa_bad_input():
    with pytest.raises(BadInput, match='no type'):
        rsvqa_scores(rows([('yes', 'yes')]))
    with pytest.raises(BadInput, match='skipped'):
        rsvqa_scores(SHEET, skip=('presence', 'count', 'area'))


BOX, NEAR, OFF = '[0.00,0.00,0.20,0.20]', '[0.00,0.00,0.20,0.10]', '[0.50,0.50,0.70,0.70]'


def test_detection_by_class_by_hand():
    data = [
        dict(
            image='0',
            truth=f'<p>1 ship</p>{BOX} and <p>1 bridge</p>{OFF}',
            answer=f'<p>1 ship</p>{NEAR} and <p>1 tree</p>{OFF}',
        ),
        dict(image='1', truth=f'<p>1 ship</p>{OFF}', answer=''),
    ]
    rows = {r['class']: r for r in detection_scores(data, (0.4, 0.6))}
    assert {k: (r['truths'], r['answered']) for k, r in rows.items()} == {
        'ship': (2, 1),
        'bridge': (1, 0),
        'tree': (0, 1),
    }
    ship = rows['ship']
    assert (ship['precision@0.4'], ship['recall@0.4'], ship['F1@0.4'], ship['F1@0.6']) == (
        1,
        0.5,
        pytest.approx(2 / 3),
        0,
    )
    assert (
        ship['AP@0.4'] == pytest.approx(51 / 101)
        and rows['bridge']['AP@0.4'] == 0
        and rows['tree']['AP@0.4'] is None
    )


@pytest.mark.parametrize(
    'task, truth, answer, value, right',
    [
        ('presence', 'yes', 'Yes.', 1, True),
        ('presence', 'yes', '', 0, False),
        ('counting', '3', '4', 0, False),
        ('grounding', BOX, NEAR, 0.5, True),
        ('grounding', BOX, 'there', 0, False),
        ('caption', ['two ships', 'boats'], 'boats', 1, None),
        (
            'detection',
            f'<p>1 ship</p>{BOX}',
            f'<p>2 ships</p>[0.00,0.00,0.20,0.20;0.50,0.50,0.70,0.70]',
            pytest.approx(2 / 3),
            None,
        ),
        ('detection', 'There are no objects.', 'none', 1, None),
        ('detection', 'There are no objects.', ' ', 0, None),
    ],
)
def test_quality(task, truth, answer, value, right):
    p = dict(task=task, truth=truth, answer=answer)
    assert answer_score(p) == value and is_correct(p) is right


def test_reliability_by_hand():
    made = lambda answer, score: dict(task='presence', truth='yes', answer=answer, score=score)
    r = reliability(
        [
            made('yes', np.log(0.95)),
            made('no', np.log(0.93)),
            made('yes', np.log(0.35)),
            made('yes', None),
            made('yes', float('nan')),
            dict(task='caption', truth='a', answer='a', score=-1.0),
        ]
    )
    assert (r['n'], r['without']) == (3, 3) and [(x['low'], x['n'], x['right']) for x in r['rows']] == [
        (pytest.approx(0.3), 1, 1),
        (pytest.approx(0.9), 2, 0.5),
    ]
    assert r['error'] == pytest.approx((0.65 + 2 * 0.44) / 3)
    assert reliability([made('yes', 0.0)])['rows'][0]['right'] == 1 and reliability([])['error'] is None


def test_consistency():
    group = lambda *answers: [dict(task='vqa', truth='yes', answer=a) for a in answers]
    assert consistency([group('yes', 'yes'), group('yes', 'no'), []]) == dict(
        groups=2, whole=0.5, expected=pytest.approx(0.75**2)
    )
    with pytest.raises(BadInput):
        consistency([])


def test_detection_and_consistency_of_four_predictors():
    truths = [f'<p>1 ship</p>{b}' for b in (BOX, OFF, '[0.80,0.00,1.00,0.20]', '[0.30,0.00,0.50,0.20]')]
    table = dict(perfect=truths, empty=[''] * 4, constant=truths[:1] * 4, shuffled=truths[1:] + truths[:1])
    values = {
        k: detection_scores([dict(truth=t, answer=a) for t, a in zip(truths, answers)])[0]
        for k, answers in table.items()
    }
    assert {k: (v['F1@0.5'], v['AP@0.5']) for k, v in values.items()} == dict(
        perfect=(1, 1), empty=(0, 0), constant=(0.25, pytest.approx(26 / 101)), shuffled=(0, 0)
    )


def test_intervals_of_classes_by_hand():
    "A class that is always right has no spread; one of one picture none either; the whole draws pictures with all their questions."
    data = rows([('ice', 'ice')] * 20 + [('water', 'water'), ('water', 'ice')] * 10)
    s = classification_scores(data)
    low, high = s['class_intervals']['water']
    assert (
        s['class_intervals']['ice'] == [1, 1]
        and 0.2 < low < 0.5 < high < 0.8
        and s['accuracy_interval'][0] < 0.75 < s['accuracy_interval'][1]
    )
    assert s['class_intervals'] == classification_scores(data)['class_intervals']
    together = classification_scores([p | {'image': str(i // 20)} for i, p in enumerate(data)])
    # its twenty questions are always drawn together
    assert together['class_intervals']['water'] == [0.5, 0.5]
    assert classification_scores(data, ['ice', 'water', 'sand'])['class_intervals'][
        'sand'
    ] is None and 'class_intervals' not in classification_scores(data, repeats=0)


@pytest.mark.parametrize('key', ['image', 'group'])
@pytest.mark.parametrize(
    'score, names',
    [
        (
            lambda rows: rsvqa_scores(
                [p | dict(type='presence', truth='yes', answer='yes' if p['good'] else 'no') for p in rows]
            ),
            ['OA_interval', 'AA_interval'],
        ),
        (
            lambda rows: detection_scores(
                [
                    p
                    | dict(
                        truth=f'<p>1 ship</p>{BOX}',
                        answer=f'<p>1 ship</p>{BOX if p["good"] else OFF}',
                        score=-1.0,
                    )
                    for p in rows
                ]
            )[0],
            ['precision@0.5 interval', 'F1@0.4 interval', 'AP@0.5 interval'],
        ),
    ],
)
def test_questions_of_a_picture_or_block_are_drawn_together(score, names, key):
    "Ten clusters of twenty rows that are all right or all wrong: the interval is that of ten, not of two hundred"
    rows = [dict(good=i // 20 % 2) for i in range(200)]
    alone = score([p | {'image': str(i)} for i, p in enumerate(rows)])
    whole = score([p | {'image': str(i)} | {key: f'c{i // 20}'} for i, p in enumerate(rows)])
    assert all(np.ptp(whole[n]) > 3 * np.ptp(alone[n]) for n in names)


def test_intervals_of_detection_hold_the_scores():
    data = [
        dict(
            image=str(i),
            truth=f'<p>1 ship</p>{BOX}',
            answer=f'<p>1 ship</p>{BOX if i % 3 else OFF}',
            score=-i / 30,
        )
        for i in range(30)
    ]
    (row,) = detection_scores(data)
    for name in ('precision@0.5', 'recall@0.4', 'F1@0.5', 'AP@0.5'):
        low, high = row[f'{name} interval']
        assert low < row[name] < high and high - low < 0.6
    (perfect,) = detection_scores([p | {'answer': p['truth']} for p in data])
    assert (
        perfect['AP@0.5 interval'] == pytest.approx([1, 1])
        and perfect['F1@0.4 interval'] == [1, 1]
        and detection_scores(data, repeats=0)[0]['AP@0.5 interval'] is None
    )
