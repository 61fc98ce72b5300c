"""A fault at every touch of the disk: save, convert, build, survey, evaluate, by an exception and by a kill.

What is there is whole, the old or the new, and the same command goes on to the same bytes.
"""

import json
import os
import sys

import datasets  # noqa: F401  loaded once here, and not in every process
import psutil  # noqa: F401
import pytest
import rasterio
from rasterio import features  # noqa: F401

sys.path.insert(0, os.path.join(os.path.dirname(__file__), 'app'))
from fixtures_faults import DONE, FAILED, KILLED, UNTOUCHED, WRONG, full, in_a_process, killed
from fixtures_readers import build as build_hrsid
from test_survey import SHIPS, UTM, Perfect, harbour

from earthgpt_lite.app import model_commands
from earthgpt_lite.app.cli import main
from earthgpt_lite.data import convert  # noqa: F401
from earthgpt_lite.data.records import Record, Turn
from earthgpt_lite.data.store import InstructionData, write_rows
from earthgpt_lite.eval import runner
from earthgpt_lite.files import finish_writes
from earthgpt_lite.model.config import MODELS
from earthgpt_lite.model.modeling import save
from earthgpt_lite.model.loading import load

pytestmark = pytest.mark.unix


def content(room):
    "All that is not hidden."
    found = [p for p in room.rglob('*') if p.is_file()]
    names = {p: p.relative_to(room).as_posix() for p in found}
    return {n: p.read_bytes() for p, n in names.items() if not any(x.startswith('.') for x in n.split('/'))}


@pytest.fixture(scope='module')
def given(tmp_path_factory):
    "What the commands read."
    room = tmp_path_factory.mktemp('given')
    build_hrsid('hrsid', room / 'hrsid')
    harbour(room / 'a.tif', SHIPS, **UTM)
    turns = [Turn(f'is there any {what} in this image?', 'yes', 'presence') for what in ('water', 'forest')]
    write_rows([Record(f'{k}.png', turns) for k in range(6)], room / 'records.jsonl')
    return room


class Blind:  # a model that says nothing of how it looks
    config = None


@pytest.fixture
def quick(monkeypatch):
    "Models that need no time."
    echo = lambda *a, **k: lambda asked: [dict(answer='yes', score=-0.5) for _ in asked]
    monkeypatch.setattr(runner, 'model_asker', echo)
    monkeypatch.setattr(runner, '_open_model', lambda model, options: (str(model), Blind(), None))
    monkeypatch.setattr(runner, '_stamp', lambda *a: 'me')
    monkeypatch.setattr(model_commands, '_assistant', lambda args: Perfect())


def do_convert(given, room):
    return main(['data', 'convert', 'hrsid', str(given / 'hrsid'), str(room / 'x'), '--json'])


def do_build(given, room):
    InstructionData.build(given / 'records.jsonl', room / 'x', rows_per_file=2)


def do_survey(given, room):
    words = ['--classify', 'dark,bright', '--batch-size', '2', '--size', '150', '--json']
    outs = ['--out', str(room / 'x.geojson'), '--raster', str(room / 'x.tif')]
    return main(['survey', 'perfect', str(given / 'a.tif'), *outs, *words])


def do_evaluate(given, room):
    changes = dict(progress=False, say=None, chunk_size=4, baselines=False)
    runner.evaluate_model('nano', str(given / 'records.jsonl'), room / 'x', **changes)


WORK = dict(convert=do_convert, build=do_build, survey=do_survey, evaluate=do_evaluate)
WHOLE = dict(convert='x/info.json', build='x/info.json', survey='x.tif', evaluate='x/metrics.json')


def settled(file, data):
    "What a file of a survey says, but for when it was made and how long that took."
    if file.endswith('.tif'):
        with rasterio.MemoryFile(data) as memory, memory.open() as f:
            told, pixels = f.tags(), (f.read().tolist(), f.colormap(1), f.tags(1), f.profile)
    elif file.endswith('.geojson'):
        told, pixels = json.loads(data), None
    else:
        return data
    assert told.pop('created') and float(told.pop('seconds')) >= 0
    return told, pixels


def same(name, found, clean):
    "Whether all files are those of a run that nobody disturbed; times differ."
    if name == 'survey':
        found, clean = ({file: settled(file, files[file]) for file in files} for files in (found, clean))
    if name != 'evaluate':
        return found == clean
    results = []
    for files in (found := dict(found), clean := dict(clean)):
        results.append(json.loads(files.pop('x/metrics.json'))['results'])
        assert files.pop('x/report.html')
    return found == clean and results[0] == results[1]


@pytest.mark.parametrize('fault', [full, killed])
@pytest.mark.parametrize('name', WORK)
def test_the_same_command_goes_on_to_the_same_bytes(name, fault, given, quick, tmp_path):
    clean_room = tmp_path / 'clean'
    clean_room.mkdir()
    if name != 'build':
        WORK[name](given, tmp_path / 'first')  # loads what it needs; Arrow's threads do not outlive a fork
    assert in_a_process(lambda: WORK[name](given, clean_room)) == DONE
    clean, ended = content(clean_room), []
    while UNTOUCHED not in ended:
        room = tmp_path / str(len(ended))
        room.mkdir()
        ended.append(in_a_process(lambda: WORK[name](given, room), len(ended), fault, room))
        left = content(room)
        assert ended[-1] != WRONG, len(ended)
        for file in (WHOLE[name], 'x.geojson', 'x/records.jsonl'):
            if file in left and name != 'evaluate':
                assert same(name, {file: left[file]}, {file: clean[file]}), (len(ended), file)
        if ended[-1] in (DONE, UNTOUCHED) or (name == 'survey' and same(name, left, clean)):
            assert same(name, left, clean), len(ended)
            continue
        assert in_a_process(lambda: WORK[name](given, room)) == DONE, (len(ended), sorted(left))
        assert same(name, content(room), clean), (len(ended), sorted(content(room)))
        hidden = {p.name for p in room.rglob('.*')}
        if WHOLE[name] in left and name != 'evaluate':
            hidden -= {'.x.lock', '.x.owner'}  # what is finished is only read, and needs no lock
        assert hidden == set(), (len(ended), hidden)
    assert len(ended) > 12 and {FAILED, KILLED} & set(ended), ended


@pytest.mark.parametrize('fault', [full, killed])
def test_a_model_is_the_old_or_the_new(fault, tmp_path):
    old, tokenizer = load('nano', 'cpu')
    new, _ = load('nano', 'cpu')
    new.config.visual_scale = 9
    next(new.parameters()).data += 1
    save(new, tokenizer, tmp_path / 'new' / 'x')
    save(old, tokenizer, tmp_path / 'old' / 'x')
    states, ended = [content(tmp_path / 'old'), content(tmp_path / 'new')], []
    while UNTOUCHED not in ended:
        room = tmp_path / str(len(ended))
        save(old, tokenizer, room / 'x')
        ended.append(in_a_process(lambda: save(new, tokenizer, room / 'x'), len(ended), fault, room))
        finish_writes(room)
        assert ended[-1] != WRONG and content(room) in states, len(ended)
        assert in_a_process(lambda: save(new, tokenizer, room / 'x')) == DONE
        assert content(room) == states[1] and [p.name for p in room.iterdir()] == ['x']
        for file in room.rglob('*.safetensors'):
            file.unlink()
    assert len(ended) > 12 and (MODELS / 'nano').is_dir()
