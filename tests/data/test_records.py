"""Records, wordings, paths and checks of lesson 03, and the store of lesson 03b."""

import itertools
import json
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earthgpt_lite.data.records import (
    Record,
    TEMPLATES,
    Task,
    Turn,
    clean_path,
    find_image,
    guess_task,
    record_problems,
    sample_question,
    template_fields,
)
from earthgpt_lite.data.store import InstructionData, drop_invalid, read_rows, validate, write_rows
from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.chips import Sensor

VALUES = {
    'label': 'ships',
    'labels': 'water, forest',
    'a': 'water',
    'b': 'forest',
    'box': '[0.10,0.20,0.30,0.40]',
    'question': 'is it wet?',
}


def records(n):
    for i in range(n):
        yield Record(
            f'images/{i}.png',
            [
                Turn('how many ships are there in this image?', str(i), Task.COUNTING),
                Turn('where is the ship?', '[0.10,0.20,0.30,0.40]', Task.GROUNDING),
            ],
            Sensor.SAR,
            'made',
            'train',
        )


# ---- wordings


@pytest.mark.parametrize('task', list(Task))
def test_each_wording_can_be_drawn(task):
    rng = np.random.default_rng(0)
    for fields in {template_fields(w) for w in TEMPLATES[task]}:
        wanted = {w.format(**VALUES) for w in TEMPLATES[task] if template_fields(w) == fields}
        got = {sample_question(task, rng, **{k: VALUES[k] for k in fields}) for _ in range(200)}
        assert got == wanted


def test_wordings_are_plain_and_differ_between_tasks():
    said = [w for task, ws in TEMPLATES.items() if task not in (Task.VQA, Task.DIALOGUE) for w in ws]
    assert len(said) == len(set(said)), 'two tasks share a wording'
    assert all(w == w.lower() and w.isascii() and '"' not in w for w in said)
    assert all(len(TEMPLATES[t]) >= 3 for t in TEMPLATES if t not in (Task.VQA, Task.DIALOGUE))


def test_ask_says_which_fields_it_takes():
    with pytest.raises(BadInput, match='give a, b'):
        sample_question(Task.COMPARISON, label='water')
    with pytest.raises(BadInput, match='give label or none'):
        sample_question(Task.DETECTION, box='x')


def test_ask_takes_both_kinds_of_generators():
    import random

    assert isinstance(sample_question(Task.CAPTION, random.Random(0)), str)
    assert type(sample_question(Task.CAPTION, np.random.default_rng(0))) is str


# ---- records

texts = st.text(st.characters(exclude_categories=['Cs']), min_size=1).filter(
    lambda s: s.strip() and '[' not in s and '<image>' not in s
)
turns = st.builds(Turn, texts, texts, st.sampled_from(Task))


@given(
    st.lists(turns, min_size=1, max_size=5),
    st.sampled_from(Sensor),
    st.text(st.characters(exclude_categories=['Cs'])),
)
def test_json_round_trip(turns, sensor, source):
    record = Record('a/b.png', turns, sensor, source, 'val')
    row = json.loads(json.dumps(record.to_json()))
    assert Record.from_json(row) == record
    assert record.to_json(extra=False).keys() == {'image', 'conversations'}


def test_one_task_for_all_turns_or_one_each():
    record = next(records(1))
    assert record.to_json()['task'] == ['counting', 'grounding']
    record.turns[0].task = Task.GROUNDING
    assert record.to_json()['task'] == 'grounding'


def test_release_rows_without_tags_are_read():
    row = {
        'image': r'data\RSVG\DIOR_RSVG\images\11207.jpg',
        'conversations': [
            {
                'from': 'human',
                'value': 'Please provide a short description for this region in this remote sensing image :[0.1,0.2,0.3,0.4]',
            },
            {'from': 'gpt', 'value': 'The tiny vehicle'},
            {
                'from': 'human',
                'value': 'Please provide the horizontal bounding box coordinate of the region which is described as:The tiny vehicle in this remote sensing image',
            },
            {'from': 'gpt', 'value': '[0.1,0.2,0.3,0.4]'},
        ],
    }
    record = Record.from_json(row)
    assert record.image == 'data/RSVG/DIOR_RSVG/images/11207.jpg'
    assert [t.task for t in record.turns] == ['region_caption', 'grounding']
    assert {t.task for t in Record.from_json(row, task=Task.VQA).turns} == {'vqa'}


@pytest.mark.parametrize(
    'answer, task',
    [
        ('There are <p>13 ships</p>[0.75,0.69,0.76,0.71;0.1,0.2,0.3,0.4]', 'detection'),
        ('[0.1,0.2,0.3,0.4]', 'grounding'),
        ('yes', 'vqa'),
        ('in [brackets]', 'vqa'),
    ],
)
def test_guess_task(answer, task):
    assert guess_task('find them', answer) == task


# ---- paths


@pytest.mark.parametrize(
    'bad',
    [
        '../a.png',
        'a/../../b.png',
        '..',
        '.',
        '',
        '  ',
        '/a.png',
        r'\\host\a.png',
        r'C:\a.png',
        'c:a.png',
        'https://x/a.png',
        'a\0.png',
    ],
)
def test_clean_path_refuses(bad):
    with pytest.raises(BadInput):
        clean_path(bad)


@given(st.text('ab./\\', max_size=12))
def test_clean_path_never_climbs(text):
    try:
        path = clean_path(text)
    except BadInput:
        return
    assert '\\' not in path and not path.startswith('/') and '..' not in path.split('/')


def test_find_image_stays_in_the_root(tmp_path):
    root = tmp_path / 'root'
    (root / 'in').mkdir(parents=True)
    (root / 'in/a.png').touch()
    (tmp_path / 'out.png').touch()
    (root / 'link.png').symlink_to(tmp_path / 'out.png')
    (root / 'up').symlink_to(tmp_path)
    (root / 'fine.png').symlink_to(root / 'in/a.png')
    assert (
        find_image('data/in/a.png', root)
        == find_image('in\\a.png', root)
        == find_image('fine.png', root)
        == (root / 'in/a.png').resolve()
    )
    for bad in ('link.png', 'up/out.png'):
        with pytest.raises(BadInput, match='leads out'):
            find_image(bad, root)
    with pytest.raises(BadInput, match='not there'):
        find_image('in', root)
    (tmp_path / 'rooted').mkdir()
    (tmp_path / 'rooted/a.png').touch()
    with pytest.raises(BadInput, match='climbs'):
        find_image('../rooted/a.png', root)


# ---- the check


def put(key, value):
    return lambda r: {**r, key: value}


def say(i, **new):
    return lambda r: {
        **r,
        'conversations': [{**t, **new} if j == i else t for j, t in enumerate(r['conversations'])],
    }


SPOIL = {
    "no key 'conversations'": lambda r: {k: v for k, v in r.items() if k != 'conversations'},
    "unknown key 'id'": put('id', 3),
    'climbs out': put('image', '../../x.png'),
    'absolute image path': put('image', '/x.png'),
    'not there': put('image', 'gone.png'),
    'unknown sensor': put('sensor', 'lidar'),
    'unknown task': put('task', 'guessing'),
    '1 tasks for 2 turns': put('task', ['vqa']),
    "must be 'gpt'": say(1, **{'from': 'human'}),
    'empty message': say(2, value=' '),
    '3 messages': lambda r: {**r, 'conversations': r['conversations'][:3], 'task': 'vqa'},
    'is no text': say(0, value=7),
    '<image> token': say(0, value='<image>\nwhere?'),
    'no area': say(3, value='[0.10,0.20,0.10,0.40]'),
    'beyond the frame': say(3, value='[0.10,0.20,1.10,0.40]'),
    'not a number': say(3, value='[nan,0.2,0.3,0.4]'),
    'but of type int': lambda r: 7,
}


def test_all_fifty_of_a_thousand_are_reported_with_the_true_reason(tmp_path):
    (tmp_path / 'images').mkdir()
    rows = [r.to_json() for r in records(1000)]
    for r in rows:
        (tmp_path / r['image']).touch()
    chosen = np.random.default_rng(0).choice(1000, 51, replace=False)
    where = dict(zip(map(int, chosen), itertools.cycle(SPOIL)))
    for i, way in where.items():
        rows[i] = SPOIL[way](rows[i])
    write_rows(rows, tmp_path / 'rows.json')
    report = validate(tmp_path / 'rows.json', tmp_path)
    assert report.total == 1000 and report.bad == sorted(where) and len(report.problems) == 51
    assert all(where[i] in reason for i, reason in report.problems)
    again = drop_invalid(tmp_path / 'rows.json', tmp_path / 'good.jsonl', tmp_path)
    assert again.bad == report.bad
    assert list(read_rows(tmp_path / 'good.jsonl')) == [r for i, r in enumerate(rows) if i not in where]


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda x: (
            st.lists(x)
            | st.dictionaries(
                st.sampled_from(['image', 'conversations', 'from', 'value', 'task', 'sensor', 'split', 'x']),
                x,
            )
        ),
        max_leaves=12,
    )
)
@settings(max_examples=300)
def test_check_never_raises_and_agrees_with_from_json(row):
    wrong = record_problems(row)
    if not wrong:
        Record.from_json(row)
    else:
        with pytest.raises(BadInput):
            Record.from_json(row)


def test_all_reasons_of_one_row_are_told():
    row = {**next(records(1)).to_json(), 'image': '../x', 'sensor': 'radar'}
    with pytest.raises(BadInput, match='climbs out.*unknown sensor'):
        Record.from_json(row)


# ---- files


@pytest.mark.parametrize('suffix', ['json', 'jsonl'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
def test_read_what_json_wrote(tmp_path, suffix, encoding):
    rows = [{**r.to_json(), 'source': 'été 海'} for r in records(500)]
    text = (
        json.dumps(rows, indent=1, ensure_ascii=False)
        if suffix == 'json'
        else '\n\n'.join(json.dumps(r) for r in rows)
    )
    (tmp_path / f'a.{suffix}').write_text(text, encoding=encoding)
    assert list(read_rows(tmp_path / f'a.{suffix}')) == rows


@given(
    st.lists(
        st.dictionaries(st.text(max_size=3), st.text(max_size=30) | st.integers() | st.none(), max_size=3),
        max_size=8,
    ),
    st.integers(1, 40),
)
def test_array_in_pieces_of_any_size(rows, chunk):
    import io

    from earthgpt_lite.data.store import _array_rows

    for text in (json.dumps(rows), json.dumps(rows, indent=2, ensure_ascii=False)):
        assert list(_array_rows(io.StringIO(text), chunk)) == rows


def test_broken_json_is_named(tmp_path):
    rows = [r.to_json() for r in records(3)]
    (tmp_path / 'cut.json').write_text(json.dumps(rows)[:-40])
    report = validate(tmp_path / 'cut.json')
    assert report.total == 3 and report.bad == [2] and 'the file ends within it' in report.problems[0][1]
    (tmp_path / 'b.jsonl').write_text('\n'.join([json.dumps(rows[0]), '{oops', json.dumps(rows[1])]))
    report = validate(tmp_path / 'b.jsonl')
    assert report.total == 3 and report.bad == [1] and '(line 2)' in report.problems[0][1]
    (tmp_path / 'deep.json').write_text('[' * 200_000)
    assert validate(tmp_path / 'deep.json').bad == [0]
    (tmp_path / 'latin.json').write_bytes(b'[{"image": "\xe9t\xe9"}]')
    with pytest.raises(BadInput, match='UTF-8'):
        validate(tmp_path / 'latin.json')
    with pytest.raises(BadInput, match='no such|cannot be read'):
        validate(tmp_path / 'none.json')
    with pytest.raises(BadInput, match='cannot be read'):
        validate(tmp_path)


def test_an_error_in_the_middle_does_not_swallow_the_file(tmp_path):
    rows = [json.dumps(r.to_json()) for r in records(4000)]
    rows[10] = rows[10].replace('"image":', 'image:')
    (tmp_path / 'a.json').write_text('[' + ','.join(rows) + ']')
    report = validate(tmp_path / 'a.json')
    assert report.bad == [10] and 'is not JSON' in report.problems[0][1]


def interrupted(n, at):
    for i, r in enumerate(records(n)):
        if i == at:
            raise KeyboardInterrupt
        yield r


def test_interrupted_writing_leaves_no_file_and_goes_on(tmp_path):
    path = tmp_path / 'a.jsonl'
    with pytest.raises(KeyboardInterrupt):
        write_rows(interrupted(50, 20), path)
    assert not path.exists()
    part = tmp_path / 'a.jsonl.part'
    part.write_bytes(part.read_bytes() + b'{"torn": ')
    seen = []
    assert write_rows((seen.append(1) or r for r in records(50)), path, resume=True) == 50
    assert [Record.from_json(r) for r in read_rows(path)] == list(records(50)) and not part.exists()


def test_half_characters_survive_and_are_reported(tmp_path):
    row = next(records(1)).to_json()
    row['conversations'][0]['value'] = 'cut \ud83d'
    write_rows([row], tmp_path / 'a.jsonl')
    assert list(read_rows(tmp_path / 'a.jsonl')) == [row]
    assert 'half a character' in validate(tmp_path / 'a.jsonl').problems[0][1]


# ---- the store


@pytest.fixture(scope='module')
def store(tmp_path_factory):
    room = tmp_path_factory.mktemp('store')
    write_rows(records(1003), room / 'rows.jsonl')
    return InstructionData.build(room / 'rows.jsonl', room / 'store', rows_per_file=300)


def test_store_gives_back_the_records(store):
    assert len(store) == 1003 and len(store.info['files']) == 4
    assert [store[i] for i in (0, 299, 300, 1002)] == [
        r for i, r in enumerate(records(1003)) if i in (0, 299, 300, 1002)
    ]
    assert [r for b in store.batches(64) for r in b] == list(records(1003))
    assert len(pickle.loads(pickle.dumps(store))) == 1003


@pytest.mark.parametrize('world', [1, 2, 3, 4])
def test_shares_are_equal_and_apart(store, world):
    shares = [
        [r.image for b in store.batches(50, seed=3, rank=k, world=world) for r in b] for k in range(world)
    ]
    assert {len(s) for s in shares} == {1003 // world}
    together = list(itertools.chain(*shares))
    assert len(set(together)) == len(together) and together != sorted(together)
    streams = [[r.image for r in store.stream(k, world, seed=1)] for k in range(world)]
    assert sorted(itertools.chain(*streams)) == sorted(r.image for r in records(1003))


def test_same_seed_same_order(store):
    take = lambda seed: [r.image for b in store.batches(64, seed=seed) for r in b]
    assert take(1) == take(1) != take(2)


def test_interrupted_build_goes_on_and_is_never_taken_for_whole(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        InstructionData.build(interrupted(100, 75), tmp_path / 's', rows_per_file=30)
    with pytest.raises(BadInput, match='no finished records'):
        InstructionData(tmp_path / 's')
    data = InstructionData.build(records(100), tmp_path / 's', rows_per_file=30)
    assert [data[i] for i in range(100)] == list(records(100))
    assert not list((tmp_path / 's').glob('*.part'))


def test_build_refuses_other_sources_full_folders_and_bad_rows(tmp_path):
    for name in ('a', 'b'):
        write_rows(records(10), tmp_path / f'{name}.jsonl')
    InstructionData.build(tmp_path / 'a.jsonl', tmp_path / 's')
    with pytest.raises(BadInput, match='something else'):
        InstructionData.build(tmp_path / 'b.jsonl', tmp_path / 's')
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/thesis.txt').touch()
    with pytest.raises(BadInput, match='not empty'):
        InstructionData.build(tmp_path / 'a.jsonl', tmp_path / 'mine')
    rows = [r.to_json() for r in records(10)]
    rows[7]['sensor'] = 'lidar'
    write_rows(rows, tmp_path / 'c.jsonl')
    with pytest.raises(BadInput, match='record 7.*unknown sensor'):
        InstructionData.build(tmp_path / 'c.jsonl', tmp_path / 't')
    write_rows([], tmp_path / 'd.jsonl')
    with pytest.raises(BadInput, match='no records'):
        InstructionData.build(tmp_path / 'd.jsonl', tmp_path / 'u')


def test_image_of_a_record_is_named_with_it(store):
    with pytest.raises(BadInput, match='record 5 names an image that is not there'):
        store.image(5)
