"The auditor: a thousand answers whose score is known under each rule, to the last digit."

import json

import numpy as np
import pytest

from earthgpt_lite.boxes.iou import iou
from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval.audit import RULES, audit, audit_text, chance_levels, iou_plus, own_rule

SIDE = 200  # pixels of every picture


def rows_of(pairs, task, said=None, **more):
    "A thousand questions with their truths, and answers: some pairs of (how many, truth, answer)"
    truths, answers = [], []
    for count, truth, answer in pairs:
        for _ in range(count):
            q = dict(image=f'{len(truths)}.png', question='?', task=task, width=SIDE, height=SIDE)
            truths.append(q | dict(truth=truth) | more)
            answers.append({'image': q['image'], 'question': '?', 'answer': answer})
    assert len(truths) == 1000
    return answers, truths


def added(found, kind):
    "{rule: what it adds}, to nine digits"
    assert {row['n'] for row in found['rows'] if row['kind'] == kind} == {1000}
    return {
        row['rule']: row['adds'] and round(row['adds'], 9) for row in found['rows'] if row['kind'] == kind
    }


def test_words_have_the_known_effects():
    answers, truths = rows_of(
        [
            (400, 'yes', 'Yes.'),  # right under every rule
            (150, 'no', 'I do not know'),  # right where the truth is looked for anywhere
            (80, 'yes', ''),  # right where nothing counts as right
            (20, 'yes', '  '),
            (50, 'no', 'perhaps'),  # neither yes nor no
            (300, 'no', 'yes'),  # wrong under every rule
        ],
        'presence',
    )
    found = audit(answers, truths)
    assert found['rows'][0]['own'] == 0.4 and found['split'] == 'not named'
    assert added(found, 'words') == {
        'truth anywhere in the answer': 0.15,
        'empty answers right': 0.1,
        'unparsable answers dropped': round(400 / 700 - 0.4, 9),
        'all splits in one score': None,
    }


def pixels(*box):
    return f'[{",".join(f"{v / SIDE:.4f}" for v in box)}]'


def test_boxes_have_the_known_effects():
    right = pixels(20, 20, 60, 60)
    answers, truths = rows_of(
        [
            (300, right, right),
            # apart, and together once they are read as corner and size
            (200, pixels(90, 60, 110, 80), pixels(112, 62, 132, 82)),
            # 2 of 5 pixels in common; 6 of 11 with the one
            (100, pixels(100, 100, 102, 102), pixels(100, 100, 101, 103)),
            (150, right, 'over there'),
            # far apart and large: a miss even where one is added to numbers from 0 to 1
            (250, pixels(0, 0, 10, 10), pixels(190, 190, 200, 200)),
        ],
        'grounding',
    )
    found = audit(answers, truths)
    effects = added(found, 'grounding')
    assert found['rows'][0]['own'] == 0.3 and effects == {
        'xyxy read as xywh': round(0.2 + hits_as_xywh(0.1, (100, 100, 102, 102), (100, 100, 101, 103)), 9),
        'one pixel added': 0.1,
        'one added in the units of the answers': 0.3,
        'the better of pixels and 0 to 1000': None,
        'unparsable answers dropped': round(300 / 850 - 0.3, 9),
        'all splits in one score': None,
    }


def hits_as_xywh(share, a, b):
    a, b = (np.array([x, y, x + w, y + h], float) for x, y, w, h in (a, b))
    return share * float(iou(a, b) >= 0.5)


def test_units_that_were_mixed_have_the_known_effect():
    "A truth in 0 to 1, answers in pixels, a quarter of them in thousandths"
    right = '[0.1000,0.2000,0.4000,0.6000]'
    answers, truths = rows_of(
        [(500, right, '[20,40,80,120]'), (250, right, '[100,200,400,600]'), (250, right, '[0,0,9,9]')],
        'grounding',
    )
    found = audit(answers, truths, frame='pixels')
    effects = added(found, 'grounding')
    assert found['rows'][0]['own'] == 0.5 and effects['the better of pixels and 0 to 1000'] == 0.25
    assert effects['one added in the units of the answers'] == effects['one pixel added'] == 0
    assert (
        added(audit(answers, truths, frame='1000'), 'grounding')['the better of pixels and 0 to 1000'] == 0.5
    )


def test_confidence_that_knows_the_truth_has_the_known_effect():
    "Half of the boxes right and unsure, half wrong and sure: 51 of 101 levels of recall are reached"
    right, wrong = (
        f'There is <p>1 ship</p>{pixels(*box)}.' for box in ((20, 20, 60, 60), (120, 120, 160, 160))
    )
    answers, truths = rows_of([(500, right, right), (500, right, wrong)], 'detection')
    for row in answers:
        row['score'] = 0.1 if row['answer'] == right else 0.9
    found = audit(answers, truths)
    assert found['rows'][0]['own'] == pytest.approx(0.5 * 51 / 101, abs=1e-12)
    assert added(found, 'detection') == {
        'unparsable answers dropped': 0.0,
        'overlap with the truth as confidence': round(0.5 * 51 / 101, 9),
        'all splits in one score': None,
    }


def test_mixed_splits_have_the_known_effect():
    known = rows_of([(1000, 'yes', 'yes')], 'vqa', split='train')
    asked = rows_of([(300, 'lake', 'lake'), (700, 'lake', 'sea')], 'vqa', split='test')
    for rows in asked:
        for row in rows:
            row['image'] = f'test/{row["image"]}'.replace('.png', '.tif')
    answers, truths = ([*a, *b] for a, b in zip(known, asked))
    found = audit(answers, truths)
    assert found['split'] == 'test' and added(found, 'words')['all splits in one score'] == round(
        0.65 - 0.3, 9
    )
    assert audit(answers, truths, split='train')['rows'][0]['own'] == 1


def test_one_unit_is_that_of_the_answers():
    "GeoChat's hundredths, as in VRSBench: 6 of 11 with the one, and its makers' rule is named"
    truths = [
        dict(image='a.png', question='?', truth='{<50><50><52><52>}', task='grounding', width=300, height=200)
    ]
    answers = [dict(image='a.png', question='?', answer='{<50><50><51><53>}')]
    found = audit(answers, truths, frame='geochat')
    effects = {row['rule']: row['adds'] for row in found['rows']}
    assert found['rows'][0]['own'] == 0 and effects['one added in the units of the answers'] == 1
    assert effects['one pixel added'] == 0
    vrs = own_rule(truths, 'VRSBench_EVAL_referring.json')
    assert vrs['rule'] in {rule.name for rule in RULES} and '<- the rule' in audit_text(
        found | dict(rule=vrs)
    )


def test_sizes_that_are_not_known_are_asked_for():
    truths = [dict(image='a.png', question='?', truth='[0.1,0.1,0.2,0.2]', task='grounding')]
    answers = [dict(image='a.png', question='?', answer='[0.1,0.1,0.2,0.2]')]
    text = audit_text(audit(answers, truths))
    assert 'needs the sizes of the pictures (--images)' in text and '1.000' in text


def test_guesses_gain_what_was_measured():
    chance = chance_levels()
    assert round(chance['own'], 3) == 0.001 and round(chance['xywh'], 3) == 0.035
    assert iou_plus([0, 0, 2, 2], [0, 0, 1, 3]) == 6 / 11 and iou_plus([0, 0, 2, 2], [0, 0, 1, 3], 0) == 2 / 5


def test_what_cannot_be_audited_is_refused():
    caption = [dict(image='a.png', question='?', truth='a lake', task='caption')]
    with pytest.raises(BadInput, match='no question with words'):
        audit([dict(image='a.png', question='?', answer='a lake')], caption)
    with pytest.raises(BadInput, match='none of the answers fits'):
        audit([dict(image='b.png', question='?', answer='x')], [caption[0] | dict(task='vqa')])
    splits = [dict(image=s, question='?', truth='x', task='vqa', split=s) for s in ('train', 'val')]
    with pytest.raises(BadInput, match='--split'):
        audit([dict(image=s, question='?', answer='x') for s in ('train', 'val')], splits)


def test_command(tmp_path, capsys):
    from earthgpt_lite.app.cli import main

    answers, truths = rows_of([(600, 'yes', 'yes'), (400, 'no', '')], 'presence')
    for name, rows in (('a.jsonl', answers), ('t.jsonl', truths)):
        (tmp_path / name).write_text('\n'.join(map(json.dumps, rows)))
    words = ['audit', str(tmp_path / 'a.jsonl'), str(tmp_path / 't.jsonl')]
    assert main(words) == 0
    text = capsys.readouterr().out
    assert 'words, accuracy by our rule: 0.600 (n 1,000)' in text and '1.000  +0.400' in text
    assert main([*words, '--json']) == 0
    assert json.loads(capsys.readouterr().out)['rows'][1]['rule'] == 'empty answers right'
    assert main([*words[:2], str(tmp_path / 'no.jsonl')]) == 2
