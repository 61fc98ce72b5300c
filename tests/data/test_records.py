"Records: wordings, paths, and all that can be wrong with a row."

import json

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
    record = Record('a/b.png', turns, sensor, source, 'validation')
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
