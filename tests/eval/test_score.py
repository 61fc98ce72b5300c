"Files of answers: every question counts, boxes in other units are named, one page stands alone."

import json
import re

import numpy as np
import pytest
from PIL import Image

from earthgpt_lite.data.records import Record, Turn
from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval.join import PROBLEMS, guess_frame, join_answers, read_questions
from earthgpt_lite.eval.protocols import best_and_worst
from earthgpt_lite.eval.score import score_files, summary

TRUTH = [
    dict(image=f'a/{i}.png', question='Is there water?', truth='yes' if i % 2 else 'no', task='presence')
    for i in range(6)
]


def answers_of(*pairs, **more):
    return [dict(image=f'{i}.png', question='is there  water?', answer=a) | more for i, a in pairs]


def found(problems):
    return {k: len(v) for k, v in problems.items() if v}


def test_every_misfit_is_listed_and_every_question_counts():
    answers = (
        answers_of((0, 'no'), (1, 'yes'), (1, 'yes'), (1, 'no'), (2, ''), (9, 'yes'))
        + [dict(image='3.png', question='what?', answer='x'), 'text', dict(image='4.png')]
        + answers_of((3, 'yes'), score='nan')
    )
    rows, problems = join_answers(read_questions(TRUTH), answers)
    assert [p['answer'] for p in rows] == ['no', 'yes', '', 'yes', '', '']
    assert found(problems) == dict(missing=2, empty=1, duplicate=2, unknown=2, unreadable=2, score=1)
    assert (
        'says something else' not in problems['duplicate'][0]
        and 'says something else' in problems['duplicate'][1]
    )
    assert (
        problems['unreadable'] == ['row 8: no answer in it', 'row 9: no answer in it']
        and '9.png' in problems['unknown'][0]
    )
    metrics = score_files(answers, TRUTH)
    assert metrics['results'][0]['score'] == pytest.approx(3 / 6) and metrics['results'][0]['n'] == 6
    assert set(problems) == set(PROBLEMS) and all(
        p in summary(metrics) for p in (PROBLEMS['missing'], PROBLEMS['unknown'])
    )


@pytest.mark.parametrize(
    'predictor, value', [('perfect', 1), ('empty', 0), ('constant', 0.5), ('shuffled', 0)]
)
def test_four_predictors(predictor, value):
    truths = [t['truth'] for t in TRUTH]
    answers = dict(perfect=truths, empty=[''] * 6, constant=['no'] * 6, shuffled=truths[1:] + truths[:1])[
        predictor
    ]
    assert score_files(answers_of(*enumerate(answers)), TRUTH)['results'][0]['score'] == value


def test_records_with_several_captions_are_one_question():
    r = Record(
        'a.png',
        [Turn('describe', t, 'caption') for t in ('a pond.', 'some water.')]
        + [Turn('what is in [0.10,0.10,0.20,0.20]?', 'a pond', 'region_caption')],
    )
    assert [q['truth'] for q in read_questions([r])] == [['a pond.', 'some water.'], ['a pond']]
    row = score_files([dict(image='a', question='describe', answer='some water')], [r])['results']
    assert {x['metric']: x['score'] for x in row if x['task'] == 'caption'}['BLEU-1'] == pytest.approx(1)


def test_scores_that_are_no_number_rank_last():
    box = '[0.10,0.10,0.30,0.30]'
    truth = [
        dict(image=str(i), question='find ships', truth=f'<p>1 ship</p>{box}', task='detection')
        for i in range(2)
    ]
    wrong = '<p>1 ship</p>[0.60,0.60,0.90,0.90]'
    ap = lambda score: {
        r['metric']: r['score']
        for r in score_files(
            [
                dict(image='0', answer=truth[0]['truth'], score=-3.0),
                dict(image='1', answer=wrong, score=score),
            ],
            truth,
        )['results']
    }['AP50']
    assert [ap(float('nan')), ap(-9.0), ap('high'), ap(-1.0)] == pytest.approx(
        [51 / 101] * 3 + [51 / 101 / 2]
    )


def grounding(frame_text, **more):
    truth = [
        dict(image=f'{i}.png', question='where?', truth='[0.25,0.20,0.75,0.40]', task='grounding', **more)
        for i in range(4)
    ]
    return [dict(image=f'{i}.png', answer=frame_text) for i in range(4)], truth


@pytest.mark.parametrize(
    'text, frame',
    [
        ('[25, 12.5, 75, 50]', '100'),
        ('[250,125,750,500]', '1000'),
        ('[[50,12.5,150,50]]', 'pixels'),
        ('[0.25,0.125,0.75,0.5]', 'picture'),
        ('{<25><12><75><50>|<0>}', 'geochat'),
    ],
)
def test_boxes_in_other_units(text, frame):
    "A picture of 200 x 100: the padding is 50 above and below, so y = 12.5 .. 50 becomes 0.3125 .. 0.5."
    answers, truth = grounding(text, width=200, height=100)
    if frame != 'picture':
        with pytest.raises(BadInput, match='--boxes'):
            score_files(answers, truth)
    by = {r['metric']: r['score'] for r in score_files(answers, truth, frame=frame)['results']}
    inter, union = 0.5 * 0.0875, 0.5 * (0.2 + 0.1875) - 0.5 * 0.0875
    assert by['meanIoU'] == pytest.approx(inter / union, abs=0.03 if frame == 'geochat' else 1e-3)


def test_units_are_never_guessed_for_the_user():
    answers, truth = grounding('[25,12,75,50]')
    with pytest.raises(BadInput, match='--images'):
        score_files(answers, truth, frame='100')
    with pytest.raises(BadInput, match='no frame'):
        score_files(answers, truth, frame='feet')
    assert score_files(answers, truth, frame=None)['results'][0]['score'] == 0
    assert (
        guess_frame(['[0.1,0.2,0.3,1.2]'])[0] == 'unit'
        and guess_frame(['no box'])[0] is None
        and guess_frame(['[5] [6]'])[0] is None
    )


def test_other_languages_and_markup_are_told(tmp_path):
    answers = answers_of((0, '**no**'), (1, '是'), (2, '<i>no</i>'), (3, 'yes'))
    assert {
        k: v for k, v in found(score_files(answers, TRUTH)['problems']).items() if k != 'missing'
    } == dict(markup=2, script=1)


@pytest.mark.parametrize(
    'predictions, truth, words',
    [
        ([], TRUTH, ': none of the answers'),
        (answers_of((77, 'yes')), TRUTH, '77.png'),
        (answers_of((0, 'no')), [], 'no questions'),
        (answers_of((0, 'no')), [dict(image='x')], 'no question and no truth'),
        (answers_of((0, 'no')), [Record('../x.png', [Turn('a', 'b')]).to_json()], 'record 0'),
    ],
)
def test_bad_input(predictions, truth, words):
    with pytest.raises(BadInput, match=re.escape(words)):
        score_files(predictions, truth)


def test_files_in_and_a_page_out(tmp_path):
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / 'a.png')
    evil = '<script>alert(1)</script>'
    records = [
        Record(
            'a.png',
            [
                Turn('where is it?', '[0.10,0.30,0.60,0.70]', 'grounding'),
                Turn('scene?', 'ice', 'classification'),
                Turn('q', 'yes', 'vqa'),
            ],
            source='x',
        ),
        Record('gone.png', [Turn('scene?', 'sand', 'classification')], source='y'),
    ]
    (tmp_path / 't.json').write_text(json.dumps([r.to_json() for r in records]))
    rows = [
        dict(image='a.png', question='where is it?', answer='[0.10,0.30,0.60,0.60]', score=-0.2),
        dict(image='a.png', question='scene?', answer=evil, score=-0.1),
        dict(image='gone.png', question='scene?', answer='sand', score=-0.5),
    ]
    (tmp_path / 'p.jsonl').write_text('\n'.join(map(json.dumps, rows)) + '\n{"image": "a.p')
    metrics = score_files(
        tmp_path / 'p.jsonl', tmp_path / 't.json', tmp_path / 'out', root=tmp_path, blind=tmp_path / 'p.jsonl'
    )
    page = (tmp_path / 'out/report.html').read_text()
    assert (
        '<script' not in page
        and '&lt;script' in page
        and not re.search(r'(?:src|href)\s*=\s*"(?!data:)|url\(|@import', page)
    )
    assert (
        page.count('data:image/png') == 3
        and 'Scene classification' in page
        and 'By source' in page
        and 'reliab' not in page.lower()[:200]
    )
    stored = json.loads((tmp_path / 'out/metrics.json').read_text())
    assert (
        stored['results'] == json.loads(json.dumps(metrics['results']))
        and stored['problems']['missing'] == ['a.png: q']
        and len(stored['problems']['unreadable']) == 1
    )
    assert (
        {r['source'] for r in stored['sources']} == {'x', 'y'}
        and stored['scenes']['outside'] == 1
        and all(r['blind'] is not None for r in stored['results'])
    )
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == ['metrics.json', 'report.html']


def test_prior_in_hindsight_does_not_answer_unique_questions():
    truth = [
        dict(image=f'{i}.png', question=f'question {i}', truth='yes' if i % 2 else 'no') for i in range(40)
    ]
    row = score_files([dict(image=f'{i}.png', answer='yes') for i in range(40)], truth)['results'][0]
    assert row['prior'] == 0.5
    train = [t | {'truth': 'yes'} for t in truth]
    assert score_files([dict(image='1.png', answer='yes')], truth, train=train)['results'][0]['prior'] == 0.5


def test_surest_mistakes_come_first_and_tasks_take_turns():
    made = lambda task, answer, score, truth='yes': dict(task=task, truth=truth, answer=answer, score=score)
    rows = [
        made('vqa', 'no', -2.0),
        made('vqa', 'no', -0.1),
        made('vqa', 'yes', -0.3),
        made('presence', 'no', -5.0),
        made('presence', '', 0.0),
    ]
    best, worst = best_and_worst(rows, 2)
    assert worst == [rows[1], rows[3]] and best == [rows[2]]


def test_rsvqa_stands_in_the_summary_and_on_the_page(tmp_path):
    "Counts by drawer; the habit of leaving counts out is named as such."
    asked = [
        ('presence', 'yes', 'yes'),
        ('presence', 'no', 'yes'),
        ('count', '37', '99'),
        ('count', '0', '5'),
        ('comp', 'no', 'no'),
    ]
    truth = [
        dict(image=f'{i}.png', question=f'{t}?', truth=a, task='vqa', type=t)
        for i, (t, a, _) in enumerate(asked)
    ]
    metrics = score_files(
        [dict(image=q['image'], question=q['question'], answer=s) for q, (*_, s) in zip(truth, asked)],
        truth,
        tmp_path,
    )
    all_, short = metrics['rsvqa']['all types'], metrics['rsvqa']['without count and area']
    assert (
        (all_['OA'], all_['AA']) == (0.6, pytest.approx((0.5 + 0.5 + 1) / 3))
        and short['OA'] == pytest.approx(2 / 3)
        and short['skipped'] == {'count': 2, 'area': 0}
    )
    assert (
        'without count and area: OA 0.667' in summary(metrics)
        and 'RSVQA, all types' in (tmp_path / 'report.html').read_text()
    )
    for q in truth:
        q['type'] = 'presence'
    assert list(score_files([dict(image='0.png', question='presence?', answer='yes')], truth)['rsvqa']) == [
        'all types'
    ]


def test_boxes_without_a_name_are_told():
    truth = [
        dict(
            image='1.png',
            question='find all ships',
            truth='<p>1 ship</p>[0.10,0.10,0.30,0.30]',
            task='detection',
        )
    ]
    metrics = score_files(
        [dict(image='1.png', question='find all ships', answer='[0.10,0.10,0.30,0.30]')], truth
    )
    assert len(metrics['problems']['label']) == 1 and 'name nothing' in summary(metrics)
    assert not score_files(
        [dict(image='1.png', question='find all ships', answer='<p>ship</p>[0.10,0.10,0.30,0.30]')], truth
    )['problems']['label']
