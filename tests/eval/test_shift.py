"What is new to a model: wordings nobody trained on, brightness through the one path, fair differences, places left out."

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from earthgpt_lite.data.records import CHANGE_TEMPLATES, TEMPLATES, Task, Turn, template_fields
from earthgpt_lite.data.sample import change, pairs
from earthgpt_lite.data.sample.sites import RENDERING, SITES, site_examples
from earthgpt_lite.data.sample.synthetic import place_of, without_place
from earthgpt_lite.data.sample.world_map import DATA
from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval import shift as module
from earthgpt_lite.eval.drawings import paired_figure
from earthgpt_lite.eval.measures import METRICS, exact_match
from earthgpt_lite.eval.runner import evaluate_model
from earthgpt_lite.eval.questions import example_questions
from earthgpt_lite.eval.shift import (
    askable,
    evaluate_places,
    evaluate_scene,
    evaluate_shift,
    fold_folder,
    held_out_tones,
    held_out_wordings,
    presence_scores,
    rerendered,
    held_out_versions,
    reworded,
    scene_questions,
    shift_rows,
    shift_table,
    shift_text,
    toned,
)
from earthgpt_lite.eval.statistics import paired_change
from earthgpt_lite.raster.chips import Sensor
from earthgpt_lite.raster.reading import Scene, read_scene
from earthgpt_lite.raster.rendering import Tone
from earthgpt_lite.raster.sources import as_chip, read_tiles

HALVES = ('validation', 'test')


# ---- words


def folded(text):
    "Letters and figures alone: what case, punctuation and space cannot hide."
    return re.sub(r'[\W_]+', ' ', re.sub(r'\{\w+\}', 'x', text)).casefold().split()


def training_wordings():
    for table in (TEMPLATES, CHANGE_TEMPLATES):
        for wordings in table.values():
            yield from (w for w in wordings if w != '{question}')
    for hows in change.QUESTIONS.values():
        for wordings in hows.values():
            yield from wordings
    yield from (change.ANYTHING, change.WHAT, change.HOW_MUCH, pairs.SAME_GROUND)
    yield from (key for key in held_out_wordings() if ' ' in key)
    yield from (where for _, where in change.EVENTS.values())


def test_no_held_out_wording_is_in_training():
    known = {tuple(folded(w)) for w in training_wordings()}
    assert len(known) > 40
    for task, halves in held_out_wordings().items():
        for wording in (*halves['validation'], *halves['test']):
            assert tuple(folded(wording)) not in known, f'{task}: {wording!r} is trained on'


def test_no_question_of_training_is_a_held_out_one(few):
    "As they are asked, with their fields: what is composed anew for each picture is seen too."
    asked = {}
    for t in (t for e in few['train'] + site_examples('alabama', 'train', 60) for t in e.turns):
        asked.setdefault(tuple(folded(t.question)), t)
    assert len(asked) > 50
    for t in list(asked.values()):
        for half in HALVES:
            for wording, text in held_out_versions(t.question, t.task, half).items():
                assert tuple(folded(text)) not in asked, f'{wording!r} is trained on'


def test_the_halves_share_no_wording_and_have_ten_each():
    tasks = set(METRICS) - {'vqa', 'dialogue'}
    assert tasks <= set(held_out_wordings())
    for task, halves in held_out_wordings().items():
        sets = [{tuple(folded(w)) for w in halves[half]} for half in HALVES]
        assert [len(s) for s in sets] == [10, 10] and not sets[0] & sets[1], task
        fields = {template_fields(w) for half in HALVES for w in halves[half]}
        assert len(fields) == 1, f'{task}: {fields}'


@pytest.mark.parametrize('half', HALVES)
def test_every_wording_of_the_sample_is_reworded_and_keeps_its_words(half):
    fields = dict(label='the lake', a='water', b='snow', box='[0.10,0.20,0.30,0.40]')
    for task, wordings in TEMPLATES.items():
        for wording in wordings:
            names = template_fields(wording)
            if names & {'labels', 'question'} or not names and task == Task.DETECTION:
                continue
            said = held_out_versions(wording.format(**{name: fields[name] for name in names}), task, half)
            assert len(said) == 10, wording
            for text in said.values():
                assert all(fields[name].casefold() in text.casefold() for name in names), text
                assert '{' not in text
    for n in ('one tree', 'two trees'):
        said = held_out_versions(f'are there more than {n} in this image?', 'vqa', half)
        assert len(said) == 10 and all(n in text.casefold() for text in said.values())
    assert len(held_out_versions('is the left half warmer than the right half?', 'vqa', half)) == 10


def test_capitals_reach_the_fields_and_a_foreign_question_is_left_out():
    said = held_out_versions('is there any bare soil in this image?', 'presence', 'test')
    assert said['DO YOU SEE {label}?'] == 'DO YOU SEE BARE SOIL?'
    for question, task in (('quelle heure est-il?', 'presence'), ('how high is it?', 'vqa')):
        assert held_out_versions(question, task, 'test') == {}
    questions = [
        dict(question='odd?', task='presence'),
        dict(question='describe this image.', task='caption'),
    ]
    known, new = reworded(questions, 'validation')
    assert known == questions[1:] and len(new) == 10 and {q['of'] for q in new} == {0}
    assert len({q['question'] for q in new}) == len({q['version'] for q in new}) == 10


# ---- brightness


@pytest.mark.parametrize('name', SITES)
def test_no_move_is_no_change(name):
    "The way over the scene is the very way of the sample, byte by byte."
    examples = site_examples(name, 'validation')[::40]
    assert len(examples) >= 2
    assert all(np.array_equal(toned(e, Tone()), e.image) for e in examples)


@pytest.mark.parametrize('name', SITES)
def test_a_scene_moved_by_its_limits_is_the_picture_moved_where_nothing_was_cut(name):
    tone = Tone((-0.2,), (0.3,))  # both ends move out: nothing new is cut
    for e in site_examples(name, 'validation')[::60]:
        inside = ((e.image > 12) & (e.image < 243)).all(-1)
        by_limits, by_bytes = toned(e, tone).astype(int), tone(e.image).astype(int)
        off = np.abs(by_limits - by_bytes)[inside]
        assert not len(off) or np.median(off) <= 1, name


def test_what_was_white_shows_again_out_of_the_scene():
    cut = Tone(white=(0.5,))
    e = max(site_examples('virginia', 'validation'), key=lambda e: (e.image == 255).sum())
    white = (e.image == 255).all(-1)
    assert white.sum() > 20 and cut(e.image)[white].std() < 1 < toned(e, cut)[white].std()


def test_percentiles_fill_the_range():
    dull = (np.random.default_rng(0).integers(90, 120, (32, 32, 3))).astype('uint8')
    bright = Tone(percent=(2, 98))(dull)
    assert bright.min() == 0 and bright.max() == 255 and bright.shape == dull.shape


def test_each_half_has_its_own_brightness_for_each_sensor():
    for sensor in map(str, Sensor):
        names = [set(held_out_tones(half, sensor)) for half in HALVES]
        assert min(map(len, names)) >= 4
        for name in names[0] & names[1]:
            assert held_out_tones('validation', sensor)[name] != held_out_tones('test', sensor)[name], (
                sensor,
                name,
            )
        for half in HALVES:  # a rendering made of each is one that a model may have
            for tone in held_out_tones(half, sensor).values():
                replace(RENDERING, **{sensor: tone.of(RENDERING.of(sensor))})


# ---- differences


def rows_of(answers, truth='yes'):
    return [
        dict(image=str(i), truth=truth, answer=a, task='presence', sensor='sar')
        for i, a in enumerate(answers)
    ]


def test_the_change_is_the_difference_of_the_scores():
    known = rows_of(['yes'] * 80 + ['no'] * 20)
    worse = rows_of(['yes'] * 50 + ['no'] * 50)
    score, versions, (low, high) = paired_change('accuracy', known, [worse, known])
    assert score == 0.8 and versions == [0.5, 0.8] and low < -0.15 < high
    assert paired_change('accuracy', known, [known, known])[2] == (0, 0)
    alone = paired_change('accuracy', known, [worse])[2]
    assert -0.42 < alone[0] < -0.3 < alone[1] < -0.2


def test_neighbours_are_drawn_together():
    known = rows_of(['yes'] * 200)
    worse = rows_of((['yes'] * 5 + ['no'] * 5) * 20)
    blocks = [dict(group=f'{i // 5}') for i in range(200)]
    joined = [[p | b for p, b in zip(rows, blocks)] for rows in (known, worse)]
    wide, narrow = (paired_change('accuracy', k, [w])[2] for k, w in (joined, (known, worse)))
    assert wide[1] - wide[0] > 1.5 * (narrow[1] - narrow[0])


def test_rows_pair_what_belongs_together_whatever_the_order():
    known = rows_of(['yes', 'no', 'yes', 'yes'])
    known[1]['sensor'] = 'optical'
    new = [
        p | dict(version=v, of=i, answer='no' if v == 'b' else p['answer'])
        for i, p in enumerate(known)
        for v in 'ab'
    ]
    table = shift_rows(known, new[::-1])
    assert [(r['sensor'], r['n'], r['known'], r['versions']) for r in table] == [
        ('optical', 1, 0, dict(b=0, a=0)),
        ('sar', 3, 1, dict(b=0, a=1)),
    ]
    assert table[1]['new'] == 0.5 and table[1]['change'] == -0.5
    text = shift_table(table)
    assert '-0.500' in text and len({len(line) for line in text.splitlines()}) == 1
    assert paired_figure(table).axes[0].get_xlabel() == 'score'


# ---- the exam


def hushed(**changes):
    return dict(progress=False, say=None, device='cpu') | changes


def test_known_scores_are_those_of_evaluate(tiny, few, tmp_path):
    examples = few['validation'][:8]
    found = evaluate_shift(tiny, examples, 'words', tmp_path / 'new', **hushed())
    metrics = evaluate_model(tiny, examples, tmp_path / 'old', **hushed(baselines=False))
    old = {(r['task'], r['sensor'], r['metric']): (r['score'], r['n']) for r in metrics['results']}
    for row in found['rows']:
        score, n = old[row['task'], row['sensor'], row['metric']]
        assert n == row['n'] and score == pytest.approx(row['known'])
    assert found['half'] == 'validation' and json.loads((tmp_path / 'new/words.json').read_text()) == found
    assert (tmp_path / 'new/words.png').stat().st_size > 1000


@pytest.mark.parametrize('kind', ['words', 'renderings'])
def test_a_stopped_exam_goes_on(tiny, few, tmp_path, kind):
    examples = [replace(e, split='test') for e in few['test'][:6]]
    settings = hushed(chunk_size=20)
    once = evaluate_shift(tiny, examples, kind, tmp_path / 'a', **settings)
    sheet = (tmp_path / f'a/{kind}.jsonl').read_bytes()
    assert once['half'] == 'test' and sheet.count(b'\n') == once['asked']
    (tmp_path / 'b').mkdir()
    (tmp_path / f'b/{kind}.jsonl').write_bytes(sheet[: len(sheet) // 2])
    again = evaluate_shift(tiny, examples, kind, tmp_path / 'b', **settings)
    assert again['rows'] == once['rows'] and (tmp_path / f'b/{kind}.jsonl').read_bytes() == sheet
    with pytest.raises(BadInput, match='--force'):
        evaluate_shift(tiny, examples[:3], kind, tmp_path / 'a', **settings)
    assert (
        evaluate_shift(tiny, examples[:3], kind, tmp_path / 'a', **settings, force=True)['asked']
        < once['asked']
    )


def test_new_brightness_is_what_the_model_sees(tiny, few):
    e = few['test'][0]
    questions, render = example_questions([e])
    known, new = rerendered(questions, 'test')
    shown = module._tone_renderer(render, 'test', {e.name: e})
    assert np.array_equal(shown(known[0], 64), e.image)
    for q in new:
        expected = toned(e, held_out_tones('test', q['sensor'])[q['version']])
        assert np.array_equal(shown(q, 64), expected) and not np.array_equal(expected, e.image)
    assert {q['of'] for q in new} == set(range(len(known)))
    assert not rerendered([questions[0] | dict(images=['a', 'b'])], 'test')[0]


def test_records_in_no_known_wording_are_refused(tiny, few, tmp_path):
    odd = [replace(few['test'][0], turns=[Turn('odd?', 'yes', Task.PRESENCE)])]
    with pytest.raises(BadInput, match='other words'):
        evaluate_shift(tiny, odd, 'words', tmp_path, **hushed())


# ---- places


def test_every_example_has_its_place(few):
    examples = few['train'] + [e for name in SITES for e in site_examples(name, 'train', 20)]
    examples += pairs.sensor_pairs('train', 20) + change.loss_examples(0, 'train', n=20)
    examples += [e for source in pairs.SOURCES for e in pairs.synthetic_pairs('train', 3, source=source)]
    found = {place_of(e) for e in examples}
    assert found == {'world', *SITES}
    for place in found:
        rest = without_place(examples, place)
        assert place not in set(map(place_of, rest)) and 0 < len(rest) < len(examples)
    assert not any('alabama' in str(e.place) for e in without_place(examples, 'alabama'))
    assert not any('virginia' in str(e.place) for e in without_place(examples, 'virginia'))
    with pytest.raises(BadInput, match='world, virginia'):
        without_place(examples, 'Virgina')


def test_what_is_askable_is_taught_elsewhere_for_the_same_sensor():
    def q(question, truth, task, sensor='optical'):
        return dict(question=question, truth=truth, task=task, sensor=sensor)

    taught = [
        q('is there any water in this image?', 'yes', 'presence'),
        q('is there any water in this image?', 'no', 'presence'),
        q('what is the main class of this image?', 'forest', 'classification'),
        q('where is the lake?', '[0.1,0.1,0.5,0.5]', 'grounding'),
        q('describe this image.', 'mostly forest and water.', 'caption'),
    ]
    fits = [
        q('does this image show water?', 'no', 'presence'),
        q('name the scene in this image.', 'forest', 'classification'),
        q('give the box of the lake.', '[0.2,0.1,0.5,0.5]', 'grounding'),
        q('describe this image.', 'water and forest.', 'caption'),
    ]
    misfits = [
        q('is there any sand in this image?', 'no', 'presence'),
        q('is there any water in this image?', 'yes', 'presence', 'sar'),
        q('name the scene in this image.', 'sand', 'classification'),
        q('where is the island?', '[0.1,0.1,0.5,0.5]', 'grounding'),
        q('describe this image.', 'only sand in this image.', 'caption'),
        q('is there more water than water?', 'no', 'comparison'),
    ]
    assert askable(fits + misfits, taught) == fits


def test_places_are_trained_once_and_kept(tiny, few, tmp_path, monkeypatch):
    from earthgpt_lite.model.modeling import save

    monkeypatch.setattr(module, 'LEAST', 4)
    trained = []

    def train(place, folder):
        trained.append(place)
        save(*tiny, folder / 'model')
        (folder / 'run.json').write_text('{}')

    places = dict(world=(few['test'][:6], few['train'][:20]), florida=(few['test'][6:12], few['train'][:20]))
    found = evaluate_places(train, places, tmp_path, **hushed())
    assert trained == ['world', 'florida'] == list(dict.fromkeys(r['source'] for r in found['rows']))
    row = found['rows'][0]
    assert row['n'] >= 4 and None not in (row['prior'], row['shuffled'], row['blind']) and 'ahead' in row
    assert evaluate_places(train, places, tmp_path, **hushed()) == found and len(trained) == 2
    assert json.loads((tmp_path / 'places.json').read_text()) == found
    assert (fold_folder(tmp_path, 'world') / 'evaluation/report.html').exists()
    assert 'world' in shift_text(found)


# ---- scenes


def wet_scene(h=256, w=320):
    "Water in the left third, of low reflectance and lower still in near infrared; land that is green."
    rng = np.random.default_rng(0)
    land, water = np.array([0.08, 0.10, 0.06, 0.35]), np.array([0.03, 0.06, 0.07, 0.01])
    wet = np.zeros((h, w), bool)
    wet[:, : w // 3] = True
    pixels = np.where(wet, water[:, None, None], land[:, None, None]) + rng.normal(0, 0.004, (4, h, w))
    bands = ('red', 'green', 'blue', 'nir')
    return Scene(
        pixels.astype('float32'), np.ones((h, w), bool), bands=bands, unit='reflectance', path='wet.tif'
    )


def test_the_truth_of_a_scene_is_its_index():
    questions = scene_questions(wet_scene(), 32)
    truth = {q['window'][:2]: q['truth'] for q in questions}
    assert len(questions) == 80 and truth[0, 0] == 'yes' == truth[96, 0] and truth[128, 0] == 'no'
    dry = wet_scene()
    dry.valid[:, 160:] = False
    assert all(q['window'][0] < 160 for q in scene_questions(dry, 32))
    counts = replace(wet_scene(), pixels=(wet_scene().pixels * 10000).astype('uint16'), unit='')
    with pytest.raises(BadInput, match='counts'):
        scene_questions(counts, 32)


def test_chips_of_a_scene_are_the_tiles_of_a_survey():
    path = DATA / 'sentinel2_virginia.tif'
    scene = read_scene(path)
    render = module._scene_renderer(scene, RENDERING)
    for tile, _ in zip(read_tiles(path, 96), range(3)):
        expected = as_chip(tile, size=64, rendering=RENDERING).image
        assert np.array_equal(render(dict(window=(*tile.offset, 96)), 64), expected)


def test_balanced_accuracy_is_half_for_a_model_that_says_no():
    rows = [dict(image=str(i), truth='yes' if i < 30 else 'no', answer='no') for i in range(200)]
    scores = presence_scores(rows)
    assert [s for s, _ in scores.values()] == [0, 1, 0.5]
    right = [row | dict(answer=row['truth']) for row in rows]
    assert [s for s, _ in presence_scores(right).values()] == [1, 1, 1]
    assert all(exact_match(row['answer'], row['truth']) for row in right)


def test_a_scene_is_asked_whole(tiny):
    found = evaluate_scene(tiny, wet_scene(), 32, **hushed())
    assert found['yes'] + found['no'] == 80 and set(found['scores']) == {
        'recall',
        'specificity',
        'balanced accuracy',
    }
    assert 'balanced accuracy' in shift_text(found)
    with pytest.raises(BadInput, match='not both'):
        evaluate_scene(
            tiny,
            replace(wet_scene(), pixels=wet_scene().pixels[:, :, :96], valid=np.ones((256, 96), bool)),
            32,
            **hushed(),
        )
