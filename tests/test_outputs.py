"Outputs never eat inputs, on any command: what is read stays, however it is spelled, with --force and without."

import argparse
import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures_app import colours, raster
from rasterio.transform import from_origin

from earthgpt_lite.app.cli import main, make_parser
from earthgpt_lite.errors import BadInput
from earthgpt_lite.locks import output_lock
from earthgpt_lite.model.config import MODELS
from earthgpt_lite.outputs import MANIFEST, check_inputs, claim_files, remove_claimed, written_files
from earthgpt_lite.train.run_file import RunOptions

# every option of every command that takes a text: where something is written, what is read, or mere words.
# An option that is not here fails the test below: say what it is, and see that it is protected
WRITES = {'out', 'raster', 'drop', 'dst'}
READS = {
    'image',
    'scene',
    'answers',
    'base',
    'model',
    'data',
    'train',
    'images',
    'predictions',
    'truth',
    'shuffled',
}
READS |= {'blind', 'folder', 'file', 'root', 'src', 'before', 'after', 'before_clouds', 'after_clouds'}
READS |= {'nbs', 'notebooks'}
WORDS = {'question', 'ask', 'detect', 'ground', 'classify', 'word', 'name', 'reader', 'label', 'platform'}
WORDS |= {'split', 'change', 'words', 'who', 'names', 'host', 'token'}
LINE = {'wait_for_gpu'}  # a folder of locks, which refuses one of other things by itself
TRAIN_WRITES, TRAIN_READS = {'out'}, {'model', 'base', 'data', 'root', 'config'}
TRAIN_WORDS = {'checkpoint_every', 'strategy', 'precision', 'device', 'logger', 'full_disk'}


def commands(parser=None, words=()):
    "(words, parser) of every command."
    parser = parser or make_parser()
    groups = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    for group in groups:
        for name, inner in group.choices.items():
            yield from commands(inner, (*words, name))
    if not groups:
        yield words, parser


def texts(parser):
    "The options and arguments that take any text."
    for action in parser._actions:
        if action.nargs != 0 and action.type is None and not action.choices:
            yield action


def test_of_every_option_it_is_known_whether_it_reads_or_writes():
    found = {a.dest for _, parser in commands() for a in texts(parser)}
    known = WRITES | READS | WORDS | LINE
    assert found <= known, found - known
    fields = {
        f.name for f in dataclasses.fields(RunOptions) if 'str' in str(f.type) or 'Literal' in str(f.type)
    }
    known = TRAIN_WRITES | TRAIN_READS | TRAIN_WORDS | {'sampling_weights', 'choices', 'stage', 'augment'}
    assert fields <= known, fields - known


@pytest.fixture
def room(tmp_path):
    "Everything that a command can read."
    place = dict(crs='EPSG:4326', transform=from_origin(10, 50, 0.01, 0.01))
    raster(tmp_path / 'scene.tif', colours(3), **place)
    Image.fromarray(np.zeros((40, 40, 3), 'uint8')).save(tmp_path / 'a.png')
    turns = [dict({'from': 'human', 'value': 'is there any water in this image?'})]
    turns += [dict({'from': 'gpt', 'value': 'yes'})]
    row = dict(image='a.png', conversations=turns)
    (tmp_path / 'records.jsonl').write_text(json.dumps(row) + '\n')
    answer = dict(image='a.png', question='is there any water in this image?', answer='yes')
    for name in ('predictions', 'shuffled', 'blind'):
        (tmp_path / f'{name}.jsonl').write_text(json.dumps(answer) + '\n')
    (tmp_path / 'places.geojson').write_text(json.dumps(dict(type='FeatureCollection', features=[])))
    shutil.copytree(MODELS / 'nano', tmp_path / 'model')
    return tmp_path


def contents(room):
    return {p.relative_to(room).as_posix(): p.read_bytes() for p in room.rglob('*') if p.is_file()}


# what is given for what a command reads, and what must then survive
GIVEN = dict(
    image='scene.tif',
    scene='scene.tif',
    answers='places.geojson',
    model='model',
    data='records.jsonl',
    train='records.jsonl',
    images='.',
    predictions='predictions.jsonl',
    truth='records.jsonl',
    shuffled='shuffled.jsonl',
    blind='blind.jsonl',
    file='records.jsonl',
    root='.',
)
VICTIMS = dict(model=['model/config.json', 'model/model.safetensors'], images=['a.png'], root=['a.png'])
VICTIMS |= dict(
    data=['records.jsonl', 'a.png'], truth=['records.jsonl', 'a.png'], file=['records.jsonl', 'a.png']
)
# the files that a command writes into a folder
INSIDE = dict(evaluate=['metrics.json', 'report.html', 'answers.jsonl', 'blind.jsonl', MANIFEST])
INSIDE |= dict(score=['metrics.json', 'report.html'])
# suffixes that an output must have
SUFFIX = {
    'map': '.html',
    'show': '.png',
    'tokens': '.html',
    'ask': '.json',
    'survey': '.json',
    'check': '.jsonl',
}


def line(words, parser, room, target):
    "A command line that reads what it can and writes to a target."
    argv = [*words]
    for action in parser._actions:
        if action.dest in GIVEN and not action.choices:
            value = [str(room / GIVEN[action.dest])]
        elif action.dest == 'question':
            value = ['what is this?']
        elif action.dest == 'form':
            value = ['llava']
        elif action.dest == 'classify':
            value = ['water,forest']
        elif action.dest in WRITES:
            value = [str(target[action.dest])]
        else:
            continue
        argv += [action.option_strings[0], *value] if action.option_strings else value
    if any('--force' in a.option_strings for a in parser._actions):
        argv += ['--force']
    return argv


def cases():
    for words, parser in commands():
        outs = [a.dest for a in parser._actions if a.dest in WRITES]
        reads = [a.dest for a in parser._actions if a.dest in GIVEN and not a.choices]
        if 'dst' in outs:
            continue  # only ever a new folder
        yield from (
            pytest.param(words, out, read, id='-'.join((*words, out, read))) for out in outs for read in reads
        )


def point(name, victim, how):
    "Make a name lead to a file."
    name.parent.mkdir(exist_ok=True)
    (os.symlink if how == 'link' else os.link)(victim, name)


@pytest.mark.parametrize('how', ['link', 'hard link'])
@pytest.mark.parametrize('words, out, read', list(cases()))
def test_no_output_takes_the_place_of_an_input(room, words, out, read, how, capsys, monkeypatch):
    monkeypatch.chdir(room)
    parser = dict(commands())[words]
    for k, victim in enumerate(VICTIMS.get(read, [GIVEN[read]])):
        where = room / f'{k}'
        suffix = '.tif' if out == 'raster' else SUFFIX.get(words[-1], '')
        names = (
            [where / name for name in INSIDE[words[-1]]] if words[-1] in INSIDE else [where / f'out{suffix}']
        )
        for name in names:
            point(name, room / victim, how)
            target = dict.fromkeys(WRITES, room / 'other.json') | dict(raster=room / 'other.tif')
            target |= {out: where if words[-1] in INSIDE else name}
            before = contents(room)
            status = main(line(words, parser, room, target))
            said = capsys.readouterr().err
            assert status == 2 and 'is read as' in said, (victim, name, said)
            assert contents(room) == before
            name.unlink()


@pytest.mark.parametrize('words, out, read', [case for case in cases() if 'raster' not in case.id])
def test_nor_by_its_own_name_nor_without_force(room, words, out, read, capsys, monkeypatch):
    "Another spelling, and a command line without --force"
    monkeypatch.chdir(room)
    parser = dict(commands())[words]
    if words[-1] in INSIDE:
        return
    for victim in VICTIMS.get(read, [GIVEN[read]]):
        (room / 'sub').mkdir(exist_ok=True)
        target = dict.fromkeys(WRITES, Path('sub') / '..' / victim) | dict(raster=room / 'other.tif')
        before = contents(room)
        for argv in (line(words, parser, room, target), line(words, parser, room, target)[:-1]):
            assert main(argv) == 2, capsys.readouterr()
            assert contents(room) == before


def test_what_another_command_wrote_needs_force_and_what_nobody_wrote_stays(room, capsys, monkeypatch):
    "evaluate and score into the folder of a finished quickstart"
    monkeypatch.chdir(room)
    for name in ('metrics.json', 'report.html'):
        (room / 'run').mkdir(exist_ok=True)
        (room / 'run' / name).write_text(f'of the quickstart: {name}')
    claim_files(room / 'run', ['metrics.json', 'report.html'], 'quickstart', force=True)
    (room / 'run' / 'answers_of_gpt4.jsonl').write_text('bought')
    (room / 'run' / 'answers.best_of_all.jsonl').write_text('bought')
    before = contents(room / 'run')
    evaluate = ['evaluate', 'model', 'records.jsonl', '--out', 'run', '--json', '--device', 'cpu']
    score = ['score', 'predictions.jsonl', 'records.jsonl', '--out', 'run', '--json']
    for words in (evaluate, score):
        assert main(words) == 2 and '--force' in capsys.readouterr().err
        assert contents(room / 'run') == before
    assert main([*evaluate, '--force']) == 0 and main(evaluate) == 0  # its own it may write again
    after = contents(room / 'run')
    assert json.loads(after['metrics.json'])['model'] == 'model'
    assert written_files(room / 'run')['metrics.json'] == 'evaluate'
    assert {n: after[n] for n in before if 'bought' in str(before[n])} == {
        'answers_of_gpt4.jsonl': b'bought',
        'answers.best_of_all.jsonl': b'bought',
    }
    assert main([*evaluate, '--force', '--no-baselines']) == 0
    left = {p.name for p in (room / 'run').iterdir()}
    assert (
        'blind.jsonl' not in left and 'answers_of_gpt4.jsonl' in left and not any(n[0] == '.' for n in left)
    )
    assert main([*score, '--force']) == 0 and written_files(room / 'run')['metrics.json'] == 'score'


def test_a_list_of_ours_removes_nothing_outside_its_folder(tmp_path):
    (tmp_path / 'precious').write_text('x')
    run = tmp_path / 'run'
    (run / 'sub').mkdir(parents=True)
    (run / 'sub' / 'deep').write_text('x')
    names = ['../precious', 'sub/deep', str(tmp_path / 'precious'), 'gone']
    (run / MANIFEST).write_text(json.dumps(dict.fromkeys(names, 'evaluate')))
    remove_claimed(run, 'evaluate')
    assert (tmp_path / 'precious').exists() and (run / 'sub' / 'deep').exists()


def test_a_list_is_no_leave_to_delete_or_to_write_over_an_input(room, monkeypatch):
    "A name that no command of ours writes, whatever the list says of it"
    monkeypatch.chdir(room)
    (room / 'run').mkdir()
    forged = {
        'notes.txt': 'evaluate',
        '..': 'evaluate',
        '': 'evaluate',
        'run.json': 'evaluate',
        'blind.jsonl': {},
    }
    for name in ('notes.txt', 'run.json', 'blind.jsonl'):
        (room / 'run' / name).write_text('mine')
    (room / 'run' / MANIFEST).write_text(json.dumps(forged | {'report.html': 'evaluate'}))
    words = [
        'evaluate',
        'model',
        'records.jsonl',
        '--out',
        'run',
        '--json',
        '--device',
        'cpu',
        '--no-baselines',
    ]
    assert main([*words, '--force']) == 0
    for name in ('notes.txt', 'run.json', 'blind.jsonl'):
        assert (room / 'run' / name).read_text() == 'mine'
    (room / MANIFEST).write_text(json.dumps({'a.png': 'evaluate', 'metrics.json': 'evaluate'}))
    with pytest.raises(BadInput, match='is read as'):
        check_inputs([room / 'a.png'], [room])


@pytest.mark.unix
@pytest.mark.parametrize('name', ['answers.jsonl', 'metrics.json', MANIFEST])
@pytest.mark.parametrize('force', [[], ['--force']])
def test_a_pipe_in_the_folder_is_refused(room, capsys, monkeypatch, name, force):
    monkeypatch.chdir(room)
    (room / 'run').mkdir()
    os.mkfifo(room / 'run' / name)
    assert main(['evaluate', 'model', 'records.jsonl', '--out', 'run', '--device', 'cpu', *force]) == 2
    assert f'{name} is' in capsys.readouterr().err and (room / 'run' / name).is_fifo()


@pytest.mark.parametrize('text', ['', '[]', '{"a"', 'my own notes'])
def test_a_list_that_is_none_of_ours_stays(tmp_path, text):
    (tmp_path / MANIFEST).write_text(text)
    with pytest.raises(BadInput, match='no list of ours'):
        claim_files(tmp_path, ['a'], 'evaluate', force=True)
    assert (tmp_path / MANIFEST).read_text() == text


def test_a_folder_that_holds_an_input_is_not_replaced(tmp_path):
    (tmp_path / 'out' / 'deep').mkdir(parents=True)
    (tmp_path / 'out' / 'deep' / 'a.tif').write_text('x')
    os.symlink(tmp_path / 'out' / 'deep', tmp_path / 'link')
    with pytest.raises(BadInput, match='is read as'):
        check_inputs([tmp_path / 'out'], [tmp_path / 'link' / 'a.tif'])
    check_inputs([tmp_path / 'other'], [tmp_path / 'link' / 'a.tif'])


def test_train_leaves_the_model_that_it_starts_from(room, capsys, monkeypatch):
    "A quickstart's folder holds its model in `model`, where a run would put its own"
    monkeypatch.chdir(room)
    (room / 'run').mkdir()
    shutil.copytree(room / 'model', room / 'run' / 'model')
    before = contents(room)
    words = ['train', '--model', 'run', '--stage.name', 'tune', '--steps', '1', '--data', 'records.jsonl']
    assert main([*words, '--out', 'run']) == 2 and 'run/model' in capsys.readouterr().err
    (room / 'mine').mkdir()
    (room / 'mine' / 'run.yaml').write_text('steps: 1\nout: mine\ndata: records.jsonl\n')
    before = contents(room)
    assert main(['train', '--config', 'mine/run.yaml']) == 2 and 'run.yaml' in capsys.readouterr().err
    assert contents(room) == before


@pytest.mark.parametrize('words', [['--steps', v] for v in ('0', '-3', '10000000000000')])
@pytest.mark.parametrize('more', [[], ['--accumulate', '0'], ['--batch_size', '-1'], ['--devices', '0']])
def test_a_run_that_would_never_end_is_refused(room, words, more, capsys, monkeypatch):
    monkeypatch.chdir(room)
    argv = ['train', '--data', 'records.jsonl', '--out', 'run', *(['--steps', '2', *more] if more else words)]
    assert main(argv) == 2 and 'give a whole number from 1' in capsys.readouterr().err
    assert not (room / 'run' / 'last.ckpt').exists()


@pytest.mark.parametrize('minutes', ['0', '-1', 'nan', 'inf', '1e308'])
@pytest.mark.parametrize('command', ['train', 'quickstart'])
def test_a_time_that_is_none_is_refused(tmp_path, command, minutes, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if command == 'train':  # as YAML spells them
        minutes = dict(nan='.nan', inf='.inf').get(minutes, minutes)
    assert main([command, '--minutes', minutes]) == 2
    assert re.search('give a time above 0|give a number from 0 on', capsys.readouterr().err)


def test_a_second_writer_is_refused_with_the_name_of_the_first(room, capsys, monkeypatch):
    monkeypatch.chdir(room)
    words = {
        'survey model scene.tif --detect ship --out x.json': dict(path='x.json'),
        'survey model scene.tif --classify a,b --out y.json --raster x.tif': dict(path='x.tif'),
        'evaluate model records.jsonl --out x': dict(path='x', inside=True),
        'train --data records.jsonl --steps 1 --out x': dict(path='x'),
        'quickstart --out x': dict(path='x'),
    }
    for line_, lock in words.items():
        with output_lock(**lock):
            before = contents(room)
            assert main(line_.split()) == 2, line_
            said = capsys.readouterr().err
            assert f'process {os.getpid()} on' in said and 'another run is going on' in said, said
            assert contents(room) == before
    from earthgpt_lite.data.store import InstructionData
    from earthgpt_lite.model.loading import load
    from earthgpt_lite.model.modeling import save

    model, tokenizer = load('model', 'cpu')
    with output_lock('x'):
        with pytest.raises(BadInput, match='another run'):
            InstructionData.build('records.jsonl', 'x')
        with pytest.raises(BadInput, match='another run'):
            save(model, tokenizer, 'x')
    assert not (room / 'x').exists() or not any((room / 'x').iterdir())


def test_save_replaces_a_model_and_nothing_else(room):
    from earthgpt_lite.model.loading import load
    from earthgpt_lite.model.modeling import save

    model, tokenizer = load(room / 'model', 'cpu')
    (room / 'thesis').mkdir()
    (room / 'thesis' / 'chapter.txt').write_text('years of work')
    with pytest.raises(BadInput, match='holds other things'):
        save(model, tokenizer, room / 'thesis')
    assert (room / 'thesis' / 'chapter.txt').read_text() == 'years of work'
    save(model, tokenizer, room / 'model')


SLOW = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may start its jobs deaf to it
from earthgpt_lite.app import cli, model_commands
sys.path[:0] = sys.argv[1:3]
from test_survey import Perfect
class Slow(Perfect):
    def _step(self):
        time.sleep(0.1)
model_commands._assistant = lambda args: Slow()
sys.exit(cli.main(sys.argv[3:]))
"""


@pytest.mark.unix
@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_survey_that_then_goes_on(tmp_path, number):
    raster(
        tmp_path / 'a.tif', colours(3, 400, 400), crs='EPSG:4326', transform=from_origin(10, 50, 0.01, 0.01)
    )
    here = str(Path(__file__).parent)
    words = (
        f'survey m {tmp_path}/a.tif --ask what? --size 40 --batch-size 1 --out {tmp_path}/x.geojson'.split()
    )
    argv = [sys.executable, '-c', SLOW, here, f'{here}/app', *words]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, encoding='utf-8')
    journal = tmp_path / 'x.geojson.part'
    for _ in range(600):
        if journal.exists() and journal.read_bytes().count(b'\n') > 3:
            break
        time.sleep(0.1)
    process.send_signal(number)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130 and 'the same command goes on' in said
    assert sorted(p.name for p in tmp_path.iterdir()) == ['a.tif', 'x.geojson.part']
    assert subprocess.run(argv).returncode == 0 and not journal.exists()


@pytest.mark.unix
@pytest.mark.parametrize('words', [('ask', 'what?'), ('survey', '--ask', 'what?')])
def test_a_pipe_or_a_link_to_a_stream_is_no_output(room, words, capsys, monkeypatch):
    monkeypatch.chdir(room)
    monkeypatch.setattr('earthgpt_lite.app.model_commands._assistant', None)  # never reached
    os.mkfifo('pipe.json')
    Path('link.json').symlink_to('pipe.json')
    command, *question = words
    for name in ('pipe.json', 'link.json'):
        assert main([command, 'nano', 'scene.tif', *question, '--out', name, '--force']) == 2
        assert f'{name} cannot be written: it is a pipe or a device' in capsys.readouterr().err
