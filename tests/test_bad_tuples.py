"""Several pictures in one question, given wrongly: in Python, on the command line, in files of records.

Each is refused, or said, in a sentence that names the file or the record and what to do."""

import json
import os
import re
import sys
from copy import deepcopy
from io import StringIO

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, os.path.join(os.path.dirname(__file__), 'model'))
from test_tuples import seen

from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.app.cli import main
from earthgpt_lite.app.studio import Studio
from earthgpt_lite.data.records import Record, Turn
from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.generation import generate_answers
from earthgpt_lite.model.processor import EarthGPTProcessor


@pytest.fixture(scope='module')
def room(tmp_path_factory):
    "Three pictures, two of them the same."
    folder = tmp_path_factory.mktemp('room')
    rng = np.random.default_rng(0)
    for name in 'abc':
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), 'uint8')).save(folder / f'{name}.png')
    (folder / 'copy.png').write_bytes((folder / 'a.png').read_bytes())
    return folder


def helper_for(tiny, most):
    model = deepcopy(tiny[0])
    model.config.max_pictures = most
    return Assistant(model, tiny[1], 'tiny')


@pytest.fixture
def helper(tiny):
    "As if it had been trained with pairs."
    return helper_for(tiny, 2)


GIVEN = {  # what is given: what is said of it
    '[]': '0 images: give one, several',
    '[a, gone]': r'gone\.png: no such file',
    '[a, None]': 'image 2 of the question is missing: give a flat list',
    '[a, [pixels, pixels]]': 'image 2 of the question is a list itself: give a flat list',
    '{"before": a, "after": {}}': 'image 2 of the question is a dict itself',
    '[a, b, c]': '3 pictures in one question.*at most 2 pictures.*ask about each alone',
    '[a, text]': r'text\.png: ',
}


def value_of(words, room):
    names = {name: str(room / f'{name}.png') for name in ('a', 'b', 'c', 'gone', 'text')}
    (room / 'text.png').write_text('no picture')
    return eval(words, {}, names | dict(pixels=np.zeros((8, 8, 3), 'uint8')))


@pytest.mark.parametrize('words', GIVEN)
def test_what_is_no_tuple_of_pictures_is_refused(helper, room, words):
    given = value_of(words, room)
    processor = EarthGPTProcessor.of(helper.model.config, helper.tokenizer)
    calls = [lambda: helper.ask(given, 'what has changed?'), lambda: helper.chat(given)]
    if words != '[a, b, c]':  # the processor of a model does not know what it was trained with
        calls.append(lambda: processor([given], ['what has changed?']))
    for call in calls:
        with pytest.raises(BadInput, match=GIVEN[words]):
            call()
    if 'gone' in words or 'text' in words:
        assert re.search(GIVEN[words], Studio(helper, given, background=False).message.value)
    else:
        with pytest.raises(BadInput, match=GIVEN[words].replace(' in one question.*', ': the studio|')):
            Studio(helper, given)


def test_tokens_in_a_question_place_its_pictures_or_are_refused(helper, room):
    a, b = (str(room / name) for name in ('a.png', 'b.png'))
    named = helper.ask({'before': a, 'after': b}, 'what has changed?')
    told = helper.ask([a, b], 'before <image> after <image> what has changed?')
    assert told.prompt == named.prompt and told.text == named.text
    processor = EarthGPTProcessor.of(helper.model.config, helper.tokenizer)
    for question, count in (('<image> what?', 1), ('<image><image><image> what?', 3)):
        for call in (lambda: helper.ask([a, b], question), lambda: processor([[a, b]], [question])):
            with pytest.raises(BadInput, match=f'has {count} <image> tokens for 2 images: give each one'):
                call()
    with pytest.raises(BadInput, match='empty'):
        helper.ask([a, b], '<image> <image>')


def test_more_pictures_than_the_model_can_read(tiny, room):
    helper, many = helper_for(tiny, 99), [str(room / 'a.png')] * 20
    for call in (lambda: helper.ask(many, 'snow?'), lambda: helper.chat(many)):
        with pytest.raises(
            BadInput, match=r'1,\d+ tokens with 20 pictures.* the 1,024 that .*fewer pictures'
        ):
            call()


def test_what_is_odd_is_said_and_answered(helper, room):
    a, copy = str(room / 'a.png'), str(room / 'copy.png')
    for answer in (
        helper.ask([a, copy], 'what has changed?'),
        helper.chat([a, copy]).ask('what has changed?'),
    ):
        assert 'pictures 1 and 2 are the same in every pixel' in answer.warnings[0]
    helper.model.config.scope = dict(optical={})
    chips = [helper.chip(a), helper.chip(str(room / 'b.png'), 'sar')]
    (said,) = helper.ask(chips, 'what has changed?').warnings
    assert said == 'this is sar, and the model was trained with optical alone'
    helper.strict = True
    with pytest.raises(BadInput, match='this is sar'):
        helper.chat(chips).ask('what has changed?')


def test_a_talk_about_a_pair_encodes_it_once(helper, room):
    pair = {'before': str(room / 'a.png'), 'after': str(room / 'b.png')}
    talk = []
    assert seen(helper.model, lambda: talk.append(helper.chat(pair))) == 2
    (talk,) = talk
    first = helper.ask(pair, 'what has changed?')

    def ask_five():
        assert talk.ask('what has changed?').text == first.text
        talk.clear()
        for k in range(4):
            talk.ask(f'where is lake {k}?')

    assert seen(helper.model, ask_five) == 0 and len(talk.turns) == 4
    assert seen(helper.model, lambda: helper.ask(pair, ['where?', 'what?', 'how many?'])) == 2
    assert talk.turns[0].prompt.startswith('<begin> before<image>x64 after<image>x64<user>')


def test_a_series_asked_in_all_pairs_is_encoded_once(helper, room):
    "Paths that are equal are one picture, whoever made them."
    names = ['a.png', 'b.png', 'c.png', 'copy.png']
    pairs = [[str(room / m), room / n] for m in names for n in names if m != n]
    assert seen(helper.model, lambda: helper.ask(pairs, ['what has changed?'] * len(pairs))) == 4


# ---- records

TALK = [{'from': 'human', 'value': 'what has changed?'}, {'from': 'gpt', 'value': 'nothing.'}]


def told(text):
    return [TALK[0] | dict(value=text), TALK[1]]


ROWS = [  # of a file: what is said of it, '' for a good one
    (dict(image=['a.png', 'b.png'], conversations=TALK), ''),
    (
        dict(image=['a.png', 'b.png'], conversations=told('<image> was? <image>')),
        'asks nothing behind its last',
    ),
    (
        dict(image=['a.png', 'b.png'], conversations=told('<image> what?')),
        'has 1 <image> tokens in its first question and 2 pictures: give each picture one, or none any',
    ),
    (dict(image='a.png', conversations=told('<image><image> what?')), '2 <image> tokens .* and 1 pictures'),
    (dict(image=[], conversations=TALK), 'names no image'),
    (dict(image=[['a.png', 'b.png']], conversations=TALK), 'has an image path that is no text'),
    (dict(image=['a.png', 'gone.png'], conversations=TALK), 'names an image that is not there: gone.png'),
    (dict(image=['a.png', '/b.png'], conversations=TALK), "an absolute image path '/b.png'"),
    (dict(image=['a.png', 'b.png'], sensor=['sar'], conversations=TALK), '1 sensors for 2 pictures'),
    (dict(image=['a.png', 'b.png'], sensor=['sar', 'lidar'], conversations=TALK), "unknown sensor 'lidar'"),
    (dict(image=['a.png', 'a.png'], conversations=TALK), ''),
]


@pytest.fixture(scope='module')
def records(room):
    (room / 'records.jsonl').write_text(''.join(json.dumps(row) + '\n' for row, _ in ROWS))
    return room / 'records.jsonl'


def test_a_check_names_each_bad_record_and_tells_of_a_picture_that_comes_twice(records, room, capsys):
    assert main(['data', 'check', str(records)]) == 1
    lines = capsys.readouterr().out.splitlines()
    for k, (_, said) in enumerate(ROWS):
        found = [line for line in lines if line.startswith(f'  record {k} ')]
        assert len(found) == bool(said), (k, found)
        if said:
            assert re.search(said, found[0]), found
    assert lines[-1].startswith(
        '  records that show one picture twice: 1, the first is 10; right where nothing'
    )
    assert main(['data', 'check', str(records), '--json']) == 1
    assert json.loads(capsys.readouterr().out)['bad'] == sum(bool(said) for _, said in ROWS)


def test_records_made_in_python(room):
    for images in ((), [], [['a.png', 'b.png']], ['a.png', None], [room / 'a.png']):
        with pytest.raises(BadInput, match='give a path as text, or a flat list'):
            Record(images, [Turn('what?', 'a lake.')])
    with pytest.raises(BadInput, match=r'a.png \+ b.png: 3 words for 2 pictures'):
        Record(('a.png', 'b.png'), [Turn('what?', 'a lake.')], words=('x', 'y', 'z'))


def test_a_conversion_names_what_it_leaves_out(room, tmp_path, capsys):
    (tmp_path / 'in').mkdir()
    for name in ('a.png', 'b.png'):
        (tmp_path / 'in' / name).write_bytes((room / name).read_bytes())
    good = dict(image=['a.png', 'b.png'], conversations=told('<image><image> what has changed?'))
    bad = [
        (good | dict(conversations=told('<image> what?')), 'has 1 <image> tokens and 2 pictures'),
        (good | dict(image=['a.png', 'gone.png']), 'gone.png'),
        (good | dict(image=[['a.png'], 'b.png']), 'not named by its path'),
    ]
    (tmp_path / 'in/talks.json').write_text(json.dumps([good, *(row for row, _ in bad)]))
    assert main(['data', 'convert', 'llava', str(tmp_path / 'in'), str(tmp_path / 'out')]) == 0
    said = capsys.readouterr().out
    for k, (_, words) in enumerate(bad, 1):
        (line,) = [line for line in said.splitlines() if f'talks.json record {k} ' in line]
        assert words in line
    rows = (tmp_path / 'out/records.jsonl').read_text().splitlines()
    assert [json.loads(row)['image'] for row in rows] == [['a.png', 'b.png']]


def test_training_names_the_record(room, tmp_path, capsys):
    for name, row, words in [
        (
            'long',
            dict(image=['a.png', 'b.png'] * 10, conversations=TALK),
            r'a.png \+ b.png.* tokens with 20 pictures',
        ),
        ('tokens', ROWS[2][0], 'record 0: .*1 <image> tokens in its first question and 2 pictures'),
        ('nested', ROWS[5][0], 'record 0: .*image path that is no text'),
        ('gone', ROWS[6][0], 'record 0 had none .*put them there'),
    ]:
        file = tmp_path / f'{name}.jsonl'
        file.write_text(json.dumps(row) + '\n')
        words_of = ['--data', str(file), '--root', str(room), '--out', str(tmp_path / name), '--steps', '1']
        status = main(['train', '--model', 'nano', *words_of])
        said = capsys.readouterr().err
        assert status in (1, 2) and re.search(words, ' '.join(said.split())), (name, said)


# ---- the command line


@pytest.mark.parametrize(
    'words, said',
    [
        (['ask', 'nano', 'a.png', 'b.png', 'what?'], '2 pictures in one question.*trained with one picture'),
        (['chat', 'nano', 'a.png', 'b.png'], '2 pictures in one question.*trained with one picture'),
        (
            ['ask', 'nano', 'a.png', 'what', 'is', 'this?'],
            'what: no such image; a question of several words stands in quotes',
        ),
        (
            ['ask', 'nano', 'a.png', '--words', 'x,y', 'what?'],
            '--words x,y: give each of the 1 images a word',
        ),
        (
            ['ask', 'nano', 'a.png', 'b.png', 'what?', '--words', 'x,x'],
            '--words x,x: give each of the 2 images a word',
        ),
        (
            ['chat', 'nano', 'a.png', 'b.png', '--words', 'x,x'],
            '--words x,x: give each of the 2 images a word',
        ),
        (['ask', 'nano', 'a.png'], 'QUESTION'),
        (['map', 'a.png', 'b.png', 'c.png'], '3 scenes: give one, or two dates of one place'),
        (['map', 'a.png', 'gone.png'], 'gone.png.*[Nn]o such file'),
        (['map', 'a.png', 'b.png'], 'a.png.*no CRS'),
    ],
)
def test_the_command_line_says_what_is_wrong(room, monkeypatch, capsys, words, said):
    monkeypatch.chdir(room)
    assert main(words) == 2
    assert re.search(said, ' '.join(capsys.readouterr().err.split()))


def test_the_command_line_asks_about_pairs(room, helper, monkeypatch, capsys):
    from earthgpt_lite.app import model_commands

    monkeypatch.chdir(room)
    monkeypatch.setattr(model_commands, '_assistant', lambda args: helper)
    pair = ['a.png', 'b.png']
    assert main(['ask', 'x', *pair, 'what has changed?', '--words', 'before,after', '--json']) == 0
    answer = json.loads(capsys.readouterr().out)
    expected = helper.ask({'before': 'a.png', 'after': 'b.png'}, 'what has changed?')
    assert answer['text'] == expected.text and answer['images'] == [chip.name for chip in expected.chips]
    assert main(['ask', 'x', 'a.png', 'copy.png', 'what has changed?']) == 0
    assert 'warning: pictures 1 and 2 are the same in every pixel' in capsys.readouterr().out
    monkeypatch.setattr('sys.stdin', StringIO('what has changed?\nwhere?\n/clear\nwhere?\n'))
    assert main(['chat', 'x', *pair, '--words', 'before,after', '--json']) == 0
    talk = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [t['question'] for t in talk] == ['what has changed?', 'where?', 'where?']
    assert talk[0]['text'] == expected.text
