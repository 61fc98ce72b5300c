"Whatever stands in a file, it is read right or refused with a sentence: no error of another kind ever comes out."

import json
import shutil
from pathlib import Path

import pytest
import yaml
from fixtures_readers import build
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from earthgpt_lite.app.maps import _features
from earthgpt_lite.app.monitor import read_log
from earthgpt_lite.app.survey_files import Journal
from earthgpt_lite.boxes.oriented import GeoChatFormat
from earthgpt_lite.boxes.text import parse_boxes
from earthgpt_lite.data.convert import read
from earthgpt_lite.data.records import Record, record_problems
from earthgpt_lite.data.registry import READERS
from earthgpt_lite.data.store import InstructionData, begin_conversion, read_rows, validate
from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval.join import inspect_answers, join_answers, read_questions
from earthgpt_lite.eval.score import score_files
from earthgpt_lite.eval.sheets import AnswerSheet
from earthgpt_lite.model.presets import read_preset
from earthgpt_lite.model.adapter_files import ADAPTER_FILE, read_adapter
from earthgpt_lite.train.checkpoints import find_checkpoint
from earthgpt_lite.train.run_file import read_run

PLACES = ['.csv', '.geojson', '.json', '.jsonl', '.txt', '.xml', '.yaml', '.toml']  # texts among the files
# what stands in a stranger's file where something else was meant
ODD = [
    None, True, -1, 0, 10**30, 10**400, 1e308, float('nan'), float('inf'), '', ' ', 'x', '\0', '\ud800', '\u202e\x1b[2J',
    'a\nb', '../../etc', '/etc/passwd', 'y' * 300, [], {}, [[]], [None], {'id': None}, [0.1, 0.2], ['x'] * 5, '１', '1e999',
]  # fmt: skip
WORDS = [str(odd) for odd in ODD if odd != '\ud800'] + [
    '[' * 3000,
    '{' * 3000,
    '9' * 5000,
    'z' * 140_000,
    '"',
    "'",
    '<',
    '&x;',
    '\n',
]


def budget(examples):
    "As many examples for each of the readers; the same ones every time"
    return settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def few_and_many(few, many):
    "A test with `examples` of a budget, and with those of a rare and longer one"
    return pytest.mark.parametrize('examples', [few, pytest.param(many, marks=pytest.mark.rare)])


# ---- how a file is spoilt


def places(value, at=()):
    "The paths of all values in a JSON value"
    yield at
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        yield from places(one, (*at, key))


def spoil_value(draw, value):
    "A JSON value of which one place holds something else, or nothing"
    value = json.loads(json.dumps(value))
    at = draw(st.sampled_from(list(places(value))))
    if not at:
        return draw(st.sampled_from(ODD))
    inner = value
    for key in at[:-1]:
        inner = inner[key]
    how = draw(st.sampled_from(('other', 'other', 'none', 'twice')))
    if how == 'none':
        del inner[at[-1]]
    elif how == 'twice' and isinstance(inner, list):
        inner.insert(at[-1], inner[at[-1]])
    else:
        inner[at[-1]] = draw(st.sampled_from(ODD))
    return value


def spoil_text(draw, text):
    "A text of which a stretch was cut out, and something else put there"
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, min(len(text), start + 12)))
    return text[:start] + draw(st.sampled_from(WORDS)) + text[end:]


def spoil_bytes(draw, raw):
    start = draw(st.integers(0, len(raw)))
    end = draw(st.integers(start, len(raw)))
    return raw[:start] + draw(st.binary(max_size=6)) + (raw[end:] if draw(st.booleans()) else b'')


def spoil_json(draw, text):
    "A file of JSON, or of one value a line, with one value that is another"
    try:
        return json.dumps(spoil_value(draw, json.loads(text)))
    except ValueError:
        lines = text.splitlines()
        i = draw(st.integers(0, len(lines) - 1))
        lines[i] = json.dumps(spoil_value(draw, json.loads(lines[i])))
        return '\n'.join(lines) + '\n'


@st.composite
def spoilt(draw, raw, suffix):
    "The bytes of a file as a stranger may have it"
    ways = ['text', 'bytes'] + ['value'] * 6 * (suffix in ('.json', '.jsonl', '.geojson'))
    way = draw(st.sampled_from(ways))
    if way == 'bytes':
        return spoil_bytes(draw, raw)
    text = raw.decode('utf-8', 'replace')
    text = spoil_json(draw, text) if way == 'value' else spoil_text(draw, text)
    return text.encode('utf-8', draw(st.sampled_from(('surrogatepass', 'replace'))))


def refused_or(act, *args):
    "What a call gives; None where it was refused with one sentence"
    try:
        return act(*args)
    except BadInput as e:
        assert str(e).strip(), 'a refusal says what is wrong'


# ---- readers


@pytest.fixture(scope='module')
def shelf(tmp_path_factory):
    "Each reader's folder, and its files of text"
    base = tmp_path_factory.mktemp('any')
    found = {}
    for name in READERS:
        (base / name).mkdir()
        build(name, base / name)
        files = [p for p in sorted((base / name).rglob('*')) if p.suffix in PLACES]
        found[name] = [(path, path.read_bytes()) for path in files]
    return base, {name: files for name, files in found.items() if files}


def read_spoilt(name, shelf, data):
    base, texts = shelf
    path, raw = data.draw(st.sampled_from(texts[name]))
    path.write_bytes(data.draw(spoilt(raw, path.suffix)))
    try:
        records = refused_or(lambda: list(read(name, base / name)))
    finally:
        path.write_bytes(raw)
    for record in records or ():
        assert not record_problems(record.to_json()), record


PICTURES_ALONE = ('class_folders', 'change_masks')
TOLD = [name for name in READERS if READERS[name].mechanism.__name__ not in PICTURES_ALONE]


@few_and_many(12, 400)
@pytest.mark.parametrize('name', TOLD)
def test_a_reader_refuses_or_reads(name, shelf, examples):
    budget(examples)(given(st.data())(lambda data: read_spoilt(name, shelf, data)))()


# ---- single files

TURNS = [
    {'from': 'human', 'value': 'where is [0.10,0.20,0.30,0.40]?'},
    {'from': 'gpt', 'value': '<p>a ship</p>[0,0,1,1]'},
]
ROWS = [
    {
        'image': 'a.tif',
        'conversations': TURNS,
        'sensor': 'sar',
        'task': 'grounding',
        'source': 's',
        'split': 'train',
    },
    {'image': 'b.tif', 'conversations': TURNS * 2, 'task': ['vqa', 'vqa']},
]
QUESTIONS = [
    {'image': 'a.tif', 'question': 'where?', 'truth': '[0.1,0.1,0.5,0.5]', 'task': 'grounding', 'id': 1, 'type': 'x'},
    {'image': 'a.tif', 'question': 'what is it?', 'truth': ['a farm', 'one farm'], 'task': 'caption', 'source': 's'},
    {'image': 'b.tif', 'question': 'find all ships', 'truth': '<p>ship</p>[0,0,.5,.5];[.5,.5,1,1]', 'task': 'detection'},
]  # fmt: skip
ANSWERS = [
    {'id': 1, 'image': 'a.tif', 'question': 'where?', 'answer': '[0.1,0.1,0.5,0.6]', 'score': -0.5},
    {'image': 'a.tif', 'question': 'what is it?', 'answer': 'a farm', 'score': 0.5},
    {'image': 'b.tif', 'question': 'find all ships', 'answer': '<p>ship</p>[0,0,.5,.5]', 'score': [0.5]},
]
RING = [[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]]
PLACE = {
    'type': 'Feature',
    'properties': {'class': 'x'},
    'geometry': {'type': 'Polygon', 'coordinates': RING},
}
RUN = dict(
    model='nano',
    data='samples',
    minutes=1.5,
    seed=3,
    stage=dict(name='tune', lr=1e-3, rates=dict(vit=1e-4)),
    choices=dict(a=1),
)
HEAD = dict(scene='s.tif', model='m', size=64)
STAMPED = [row | dict(by='me') for row in ANSWERS]
LOG = 'epoch,loss,step\n0,3.5,1\n0,2.5,2\n'


def lines_of(rows):
    return ''.join(json.dumps(row) + '\n' for row in rows)


def read_records(path):
    validate(path)
    for row in read_rows(path):
        if not record_problems(row):
            Record.from_json(row)


def build_store(path):
    folder = path.with_name('store')
    shutil.rmtree(folder, ignore_errors=True)
    InstructionData.build(path, folder)


def join_of(truth, answers):
    rows, problems = join_answers(read_questions(truth), answers)
    inspect_answers(rows, problems)


def truth_of(path):
    join_of(path, ANSWERS)


def answers_of(path):
    join_of(QUESTIONS, read_rows(path))


def journal_of(path):
    journal = Journal(path, HEAD, {0: ('a tile',), 1: ('a tile',)})
    assert all(len(answers) == 1 for answers in journal.rows.values()) and set(journal.rows) <= {0, 1}


def sheet_of(path):
    AnswerSheet(path, QUESTIONS, 'me', chunk_size=1)


KINDS = {
    'records.json': (json.dumps(ROWS), read_records),
    'records.jsonl': (lines_of(ROWS), read_records),
    'store.jsonl': (lines_of(ROWS), build_store),
    'truth.json': (json.dumps(QUESTIONS), truth_of),
    'answers.jsonl': (lines_of(ANSWERS), answers_of),
    'places.geojson': (json.dumps({'type': 'FeatureCollection', 'features': [PLACE, PLACE]}), _features),
    'run.yaml': (yaml.safe_dump(RUN), read_run),
    'preset.toml': (None, read_preset),
    'begun.json': (json.dumps({'source': 'x', 'root': 'y'}), lambda path: begin_conversion(path.parent, {'source': 'x'})),
    'info.json': (json.dumps({'records': 1, 'root': 'x', 'files': ['a.arrow']}), lambda path: InstructionData(path.parent)),
    'journal.jsonl': (lines_of([HEAD, [0, [None], 0.5], [1, [[1.5]], 0.5]]), journal_of),
    'sheet.jsonl': (lines_of(STAMPED), sheet_of),
    'metrics.csv': (LOG, read_log),
}  # fmt: skip


SCORED = {
    'truth.json': lambda path: score_files(ANSWERS, path),
    'answers.jsonl': lambda path: score_files(path, QUESTIONS),
}


def source_of(kind):
    text = KINDS[kind][0]
    if text is None:
        import earthgpt_lite.model.presets as module

        text = (Path(str(module.PRESETS)) / 'lite.toml').read_text(encoding='utf-8')
    return text.encode()


def open_spoilt(kind, folder, data, act=None):
    path = folder / kind
    path.write_bytes(data.draw(spoilt(source_of(kind), path.suffix)))
    refused_or(act or KINDS[kind][1], path)


@few_and_many(40, 3000)
@pytest.mark.parametrize('kind', KINDS)
def test_a_file_is_refused_or_read(kind, tmp_path, examples):
    budget(examples)(given(st.data())(lambda data: open_spoilt(kind, tmp_path, data)))()


@pytest.mark.rare
@pytest.mark.parametrize('kind', SCORED)
def test_a_file_is_refused_or_scored(kind, tmp_path):
    budget(60)(given(st.data())(lambda data: open_spoilt(kind, tmp_path, data, SCORED[kind])))()


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize(
    'raw',
    [b'', b'\xff\xfe', b'\0' * 50, b'[' * 100_000, b'{"a":' * 50_000, b'[' + b'9' * 5000 + b']', b'\x89PNG\r\n\x1a\n' + bytes(range(256)), b'null', b'[NaN]', b'[null, 1, "x", []]'],
    ids=['empty', 'utf-16', 'nulls', 'deep', 'deeper', 'digits', 'picture', 'null', 'nan', 'values'],
)  # fmt: skip
def test_what_is_no_such_file_at_all(kind, raw, tmp_path):
    (tmp_path / kind).write_bytes(raw)
    refused_or(KINDS[kind][1], tmp_path / kind)


FILES = [k for k in KINDS if k not in ('journal.jsonl', 'sheet.jsonl', 'begun.json', 'info.json')]


@pytest.mark.unix
@pytest.mark.parametrize('kind', FILES)
@pytest.mark.parametrize(
    'what', ['folder', 'pipe', 'device', 'null byte', 'long', 'half a character', 'below a file']
)
def test_what_is_no_file(kind, what, tmp_path):
    import os

    name = tmp_path / kind
    if what == 'folder':
        name.mkdir()
    elif what == 'pipe':
        os.mkfifo(name)
    elif what == 'device':
        name.symlink_to('/dev/zero')
    elif what == 'below a file':
        name.write_text('')
        name = name / kind
    else:
        odd = {'null byte': '\0', 'long': 'x' * 5000, 'half a character': '\ud800'}[what]
        name = tmp_path / f'{odd}{kind}'
    with pytest.raises(BadInput):
        KINDS[kind][1](name)


# ---- texts of a model


@few_and_many(200, 20_000)
def test_any_text_is_read_as_boxes_or_told_unread(examples):
    alphabet = st.sampled_from(
        list('[]{}<>|;,. -+eE0123456789naifp/') + ['<p>', '</p>', '１', '\0', '\ud800', '9' * 400]
    )
    text = st.lists(alphabet, max_size=60).map(''.join)

    @example('[1e400,0,1,1]')
    @example('[' + '9' * 5000 + ',0,1,1]')
    @example('{<0><0><50><100>|<9' + '9' * 400 + '>}')
    @given(text)
    def check(said):
        for repair in (False, True):
            found = parse_boxes(said, repair=repair)
            assert all(0 <= v <= 1 for b in found.boxes for v in b.box if len(b.box) == 4), found
            GeoChatFormat().read(said, 100, 80, repair=repair)

    budget(examples)(check)()


# ---- files of a training


def adapter_of(folder):
    import torch
    from safetensors.torch import save_file

    said = dict(base='x', beside='', fingerprint='f', stage='')
    about = json.dumps(dict(kind='bias', options=dict(side='input'), **said))
    save_file({'a': torch.zeros(2)}, folder / ADAPTER_FILE, {'earthgpt_adapter': about})
    return folder / ADAPTER_FILE, lambda path: read_adapter(path.parent)


def checkpoint_of(folder):
    import torch

    torch.save(dict(run={}, global_step=1, state_dict={'a': torch.zeros(2)}), folder / 'last.ckpt')
    return folder / 'last.ckpt', lambda path: find_checkpoint(path.parent)


@pytest.mark.parametrize('make', [adapter_of, checkpoint_of])
@few_and_many(40, 3000)
def test_a_spoilt_adapter_or_checkpoint_is_refused_or_read(make, examples, tmp_path):
    path, act = make(tmp_path)
    raw = path.read_bytes()

    @given(st.data())
    def check(data):
        path.write_bytes(spoil_bytes(data.draw, raw))
        refused_or(act, path)

    budget(examples)(check)()
