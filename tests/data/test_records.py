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


# ---- several pictures

plain = texts.map(str.strip).filter(lambda s: s and '\n' not in s)


@given(st.lists(st.sampled_from(['a.png', 'b/c.png', 'd.tif']), min_size=1, max_size=4), plain, st.data())
def test_several_pictures_go_to_json_and_back(images, question, data):
    n = len(images)
    sensors = tuple(data.draw(st.lists(st.sampled_from(Sensor), min_size=n, max_size=n)))
    words = data.draw(st.lists(st.just('') | plain, min_size=n, max_size=n))
    words = tuple(' '.join(word.replace('\0', ' ').split()) for word in words)  # on one line
    record = Record(images, [Turn(question, 'yes'), Turn('why?', 'no')], sensors, words=words)
    row = json.loads(json.dumps(record.to_json()))
    assert record_problems(row) == [] and Record.from_json(row) == record
    assert record.images == tuple(images) and record.sensors == sensors and record.words == words
    assert isinstance(record.image, str) == (n == 1)
    alone = record.to_json(extra=False)
    assert alone.keys() == {'image', 'conversations'}
    assert Record.from_json(alone).words == words and Record.from_json(alone).images == record.images


def test_one_picture_is_written_as_before():
    row = Record('a.png', [Turn('what?', 'a lake')]).to_json()
    assert row['image'] == 'a.png' and row['conversations'][0]['value'] == 'what?'
    assert row['sensor'] == 'optical' and row.keys() == {'image', 'conversations', 'sensor', 'task'}


def pair_row(text='<image> <image> what has changed?', image=('a.png', 'b.png'), **more):
    messages = [{'from': 'human', 'value': text}, {'from': 'gpt', 'value': 'a lake'}]
    return {'image': list(image), 'conversations': messages} | more


@pytest.mark.parametrize(
    'text, words, question',
    [
        ('<image> <image> what has changed?', ('', ''), 'what has changed?'),
        ('what has changed?', ('', ''), 'what has changed?'),
        ('2016: <image>\n2019: <image>\nwhat has changed?', ('2016:', '2019:'), 'what has changed?'),
        (
            'what is in <image> and not in <image>, if anything?',
            ('what is in', 'and not in'),
            ', if anything?',
        ),
    ],
)
def test_tokens_say_where_pictures_stand(text, words, question):
    record = Record.from_json(pair_row(text))
    assert record.words == words and record.turns[0].question == question


@pytest.mark.parametrize(
    'row, why',
    [
        (pair_row('<image> what?'), 'has 1 <image> tokens in its first question and 2 pictures'),
        (pair_row('<image><image><image> what?'), 'has 3 <image> tokens .* and 2 pictures'),
        (pair_row('what? <image><image>'), 'asks nothing behind its last <image> token'),
        (pair_row(image=()), 'names no image'),
        (pair_row(image=('a.png', '../b.png')), 'climbs out'),
        (pair_row(image=('a.png', 7)), 'image path that is no text'),
        (pair_row(sensor=['optical', 'radar']), "unknown sensor 'radar'"),
        (pair_row(sensor=['optical', 'sar', 'sar']), 'has 3 sensors for 2 pictures'),
    ],
)
def test_what_does_not_match_is_told(row, why):
    with pytest.raises(BadInput, match=why):
        Record.from_json(row)


def test_tokens_stand_in_the_first_question_alone():
    row = pair_row()
    row['conversations'][1]['value'] = 'an <image>'
    assert record_problems(row) == [
        'has an <image> token in message 1: they stand in the first question, one for each picture'
    ]


def test_who_needs_one_picture_is_told_of_several():
    with pytest.raises(BadInput, match='has 2 pictures where one is needed: a.png . b.png'):
        find_image(('a.png', 'b.png'), '.')
    with pytest.raises(BadInput, match='a.png . b.png: 1 words for 2 pictures'):
        Record(('a.png', 'b.png'), words=('before',))
