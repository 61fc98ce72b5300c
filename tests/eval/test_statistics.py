"Results, intervals and baselines on hand-computed cases."

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earthgpt_lite.boxes.iou import iou
from earthgpt_lite.data.records import Task, Turn
from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval.measures import METRICS, exact_match, normalise, number_in
from earthgpt_lite.eval.statistics import (
    best_box,
    bootstrap_clusters,
    bootstrap_weights,
    prior_answers,
    prior_predictions,
    results,
    score_with_interval,
)


def made(task, truths, answers, images=None, score=None):
    images = images or [f'{i}.png' for i in range(len(truths))]
    return [
        dict(task=task, sensor='optical', image=i, question='q?', truth=t, answer=a, score=score)
        for i, t, a in zip(images, truths, answers)
    ]


def scores(predictions, baselines=None):
    return {r['metric']: r['score'] for r in results(predictions, baselines)}


@pytest.mark.parametrize(
    'answer, truth, right',
    [
        ('Yes.', 'yes', True),
        ('the  Forest', 'forest', True),
        ('', 'yes', False),
        ('', '', False),
        ('.', 'yes', False),
        ('s', 'yes', False),
        ('yes it is', 'yes', False),
        ('A', 'b', False),
        ('a', 'A.', True),
        ('Größe', 'größe!', True),
    ],
)
def test_right(answer, truth, right):
    assert exact_match(answer, truth) is right


def test_normalise_keeps_a_lone_article():
    assert normalise('The A.') == 'the a' and normalise('a lake') == 'lake'


@pytest.mark.parametrize(
    'text, number',
    [('12', 12), ('there are seven.', 7), ('1,200 trees', 1200), ('3.5', 3.5), ('none', None), ('', None)],
)
def test_number(text, number):
    assert number_in(text) == number


def test_accuracy_and_empty_answers():
    assert scores(made('presence', ['yes', 'no', 'no', 'yes'], ['Yes', 'no.', '', 'no']))['accuracy'] == 0.5


def test_counting_error_of_a_missing_number_is_the_worst_in_range():
    row = results(made('counting', ['4', '6', '2'], ['4', 'five', 'many']))
    # 6 - 2 is farther than 2 - 0
    assert (
        row[0]['score'] == pytest.approx(1 / 3)
        and row[1]['score'] == pytest.approx((0 + 1 + 4) / 3)
        and row[1]['unparsed'] == 1
    )


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.data())
@settings(max_examples=60)
def test_silence_never_beats_a_count_in_range(truths, data):
    said = data.draw(st.lists(st.integers(0, max(truths)), min_size=len(truths), max_size=len(truths)))
    quiet = data.draw(st.lists(st.booleans(), min_size=len(truths), max_size=len(truths)))
    error = lambda answers: score_with_interval(
        'MAE', made('counting', [str(t) for t in truths], answers), 0
    )[0]
    assert error(['' if q else str(s) for s, q in zip(said, quiet)]) >= error([str(s) for s in said])


def test_unparsable_box_is_a_miss_and_is_counted():
    box = '[0.00,0.00,0.50,0.50]'
    rows = results(made('grounding', [box] * 4, [box, 'over there', '', 'at [0.00,0.00,0.50,0.25]']))
    by = {r['metric']: r for r in rows}
    # 0.5 itself counts
    assert by['meanIoU']['score'] == pytest.approx(1.5 / 4) and by['Pr@0.5']['score'] == 0.5
    assert by['meanIoU']['unparsed'] == 2


def test_detection_is_one_to_one():
    truth = 'there are <p>2 trees</p>[0.00,0.00,0.20,0.20;0.50,0.50,0.70,0.70]'
    answer = '<p>3 trees</p>[0.00,0.00,0.20,0.20;0.00,0.00,0.20,0.19;0.90,0.90,1.00,1.00]'
    s = scores(made('detection', [truth], [answer]))
    # COCO: 51 of 101 recall levels
    assert (
        s['precision'] == pytest.approx(1 / 3)
        and s['recall'] == 0.5
        and s['F1'] == pytest.approx(0.4)
        and s["AP50"] == pytest.approx(51 / 101)
    )


def test_detection_ranks_by_its_own_scores():
    truth, near, far = '<p>tree</p>[0.0,0.0,0.2,0.2]', '[0.0,0.0,0.2,0.2', '0.6,0.6,0.8,0.8]'
    answer = f'<p>2 trees</p>{near};{far}'
    assert scores(made('detection', [truth], [answer], score=[0.1, 0.9]))['AP50'] == 0.5
    assert scores(made('detection', [truth], [answer], score=[0.9, 0.1]))['AP50'] == 1


def test_interval_resamples_pictures_not_questions():
    truths, answers = ['yes'] * 400, (['yes'] * 20 + ['no'] * 20) * 10
    alone = results(made('presence', truths, answers))[0]['interval']
    together = results(made('presence', truths, answers, images=[f'{i // 20}' for i in range(400)]))[0][
        'interval'
    ]
    assert np.diff(together) > 3 * np.diff(alone)


def test_interval_is_the_same_every_time_and_holds_the_score():
    p = made('presence', ['yes'] * 50, ['yes'] * 30 + ['no'] * 20)
    a, b = results(p), results(p)
    assert a == b and a[0]['interval'][0] <= 0.6 <= a[0]['interval'][1]


def test_clusters_are_groups_or_pictures_or_rows():
    assert bootstrap_clusters(
        [
            dict(image='a', group=7),
            dict(image='b', group=7),
            dict(image='a'),
            dict(image='c'),
            dict(image='a'),
        ]
    ).tolist() == [0, 0, 1, 2, 1]
    assert len(set(bootstrap_clusters([{}, {}, {}]).tolist())) == 3


def test_resamples_draw_as_many_as_there_are():
    assert (bootstrap_weights(7, 20).sum(1) == 7).all()


def test_sensors_are_kept_apart():
    p = made('presence', ['yes'] * 4, ['yes', 'yes', 'no', 'no'])
    for i in (2, 3):
        p[i]['sensor'] = 'sar'
    assert {(r['sensor'], r['score']) for r in results(p)} == {('optical', 1.0), ('sar', 0.0)}


def test_best_box_beats_every_training_box():
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 0.6, (200, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.1, 0.4, (200, 2))], 1)
    for metric, value in (('meanIoU', lambda o: o.mean(-1)), ('Pr@0.5', lambda o: (o >= 0.5).mean(-1))):
        assert value(iou(best_box(boxes, metric), boxes)) >= value(iou(boxes[:, None], boxes[None])).max()


def test_prior_answers():
    train = [Turn('is it wet?', a, Task.PRESENCE) for a in ('yes', 'no', 'no')] + [
        Turn('dry?', 'yes', Task.PRESENCE)
    ] * 3
    assert prior_answers(
        train,
        [Turn('is it wet?', '', Task.PRESENCE), Turn('hot?', '', Task.PRESENCE), Turn('q', '', Task.VQA)],
    ) == ['no', 'yes', '']


def test_prior_box_may_differ_by_metric():
    boxes = ['[0.00,0.00,0.10,0.10]'] * 12 + [
        '[0.05,0.00,0.90,0.90]',
        '[0.00,0.10,0.90,1.00]',
        '[0.10,0.10,1.00,1.00]',
    ] * 3
    train = [Turn('where?', b, Task.GROUNDING) for b in boxes]
    p = prior_predictions(train, made('grounding', boxes, [''] * len(boxes)))
    rows = results(made('grounding', boxes, boxes), {'prior': p})
    assert (
        set(p[0]['answers']) == {'meanIoU', 'Pr@0.5'}
        and all(0 < r['prior'] < 1 for r in rows)
        and rows[1]['prior'] >= 12 / 21 - 1e-9
    )


@pytest.mark.parametrize(
    'change, words',
    [
        (lambda p: p.clear(), 'no predictions'),
        (lambda p: p[0].update(task='poetry'), 'poetry'),
        (lambda p: p[1].update(score=float('nan')), '1.png'),
    ],
)
def test_bad_input(change, words):
    p = made('presence', ['yes', 'no'], ['yes', 'no'])
    change(p)
    with pytest.raises(BadInput, match=words):
        results(p)


def test_baseline_must_answer_the_same_questions():
    p = made('presence', ['yes', 'no'], ['yes', 'no'])
    with pytest.raises(BadInput, match='blind'):
        results(p, {'blind': p[::-1]})


def test_every_task_has_a_metric():
    assert set(METRICS) == set(Task)


def test_results_by_source():
    p = made('presence', ['yes'] * 6, ['yes', 'yes', 'no', 'no', 'no', 'yes'])
    for i, source in enumerate(['trees'] * 2 + ['global'] * 3):
        p[i]['source'] = source
    split = results(p, {'blind': p}, by=('source', 'sensor'))
    assert [(r['source'], r['sensor'], r['n'], r['score'], r['blind']) for r in split] == [
        ('', 'optical', 1, 1.0, 1.0),
        ('global', 'optical', 3, 0.0, 0.0),
        ('trees', 'optical', 2, 1.0, 1.0),
    ]
    assert [(r['n'], r['score']) for r in results(p, by=())] == [(6, 0.5)] and 'sensor' not in results(
        p, by=()
    )[0]
    assert results(p) == results(p, by=('sensor',)) and 'source' not in results(p)[0]


def turns(task, question, answers, **place):
    return [dict(task=task, question=question, answer=a, **place) for a in answers]


def test_prior_looks_near_first():
    train = (
        turns('presence', 'ice?', ['yes'] * 3, sensor='optical', source='arctic')
        + turns('presence', 'ice?', ['no'] * 9, sensor='optical', source='tropics')
        + turns('presence', 'sand?', ['no'] * 9, sensor='optical', source='arctic')
        + turns('presence', 'ice?', ['perhaps'] * 2, sensor='sar', source='straits')
    )
    ask = lambda q, sensor='', source='', task='presence': prior_answers(
        train, [dict(task=task, question=q, sensor=sensor, source=source)]
    )[0]
    assert ask('ice?', 'optical', 'arctic') == 'yes'  # the same text in the same source
    assert ask('water?', 'optical', 'arctic') == 'no'  # the task there
    assert ask('sand?', 'sar', 'straits') == 'perhaps'  # not the same text from elsewhere
    assert ask('ice?', 'sar', 'harbours') == 'perhaps'  # the task of that sensor
    assert ask('ice?', 'infrared', 'city') == 'no'  # the whole task
    assert ask('ice?', task='vqa') == ''


def test_prior_of_turns_without_a_place_is_as_before():
    train = [Turn('ice?', 'no', Task.PRESENCE)] * 2 + [Turn('sand?', 'yes', Task.PRESENCE)] * 9
    asked = [dict(task='presence', question='ice?', sensor='sar', source='x')]
    assert prior_answers(train, asked) == ['no'] == prior_answers(turns('presence', 'ice?', ['no']), asked)


def test_prior_of_dicts_with_a_sensor_only():
    train = turns('presence', 'ice?', ['no'], sensor='sar') + turns(
        'presence', 'ice?', ['yes'] * 5, sensor='optical'
    )
    assert prior_answers(train, [dict(task='presence', question='ice?', sensor='sar', source='new')]) == [
        'no'
    ]


def test_open_tasks_need_twenty_of_the_same_text_in_the_same_source():
    box, other = '[0.00,0.00,0.20,0.20]', '[0.50,0.50,0.90,0.90]'
    train = (
        turns('grounding', 'the pond', [box] * 20, source='a')
        + turns('grounding', 'the pond', [box] * 3, source='b')
        + turns('grounding', 'the roof', [other] * 20, source='b')
    )
    asked = [dict(task='grounding', question='the pond', source=s) for s in 'ab']
    assert [s[:6] for s in prior_answers(train, asked)] == ['[0.00,', '[0.50,']
