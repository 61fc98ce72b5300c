"Outputs never eat inputs, on any command: what is read stays, however it is spelled, with --force and without."

import argparse
import dataclasses
import json
import os
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
from earthgpt_lite.model.modeling import MODELS
from earthgpt_lite.outputs import MANIFEST, check_inputs, claim_files, remove_claimed, written_files
from earthgpt_lite.train.run_file import RunOptions

# every option of every command that takes a text: where something is written, what is read, or mere words.
# An option that is not here fails the test below: say what it is, and see that it is protected
WRITES = {'out', 'raster', 'drop', 'dst'}
READS = {'image', 'scene', 'answers', 'model', 'data', 'train', 'images', 'predictions', 'truth', 'shuffled'}
READS |= {'blind', 'file', 'root', 'src'}
WORDS = {'question', 'ask', 'detect', 'ground', 'classify', 'word', 'name', 'reader'}
TRAIN_WRITES, TRAIN_READS = {'out'}, {'model', 'data', 'root', 'config'}
TRAIN_WORDS = {'strategy', 'precision', 'device', 'logger', 'full_disk'}


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
    assert found <= WRITES | READS | WORDS, found - WRITES - READS - WORDS
    fields = {f.name for f in dataclasses.fields(RunOptions) if 'str' in str(f.type) or 'Literal' in str(f.type)}
    known = TRAIN_WRITES | TRAIN_READS | TRAIN_WORDS | {'sampling_weights', 'choices', 'stage'}
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
VICTIMS |= dict(data=['records.jsonl', 'a.png'], truth=['records.jsonl', 'a.png'], file=['records.jsonl', 'a.png'])
# the files that a command writes into a folder
INSIDE = dict(evaluate=['metrics.json', 'report.html', 'answers.jsonl', 'blind.jsonl', MANIFEST])
INSIDE |= dict(score=['metrics.json', 'report.html'])
# suffixes that an output must have
SUFFIX = {'map': '.html', 'show': '.png', 'tokens': '.html', 'ask': '.json', 'survey': '.json', 'check': '.jsonl'}


def line(words, parser, room, target):
    "A command line that reads what it can and writes to a target."
    argv = [*words]
    for action in parser._actions:
        if action.dest in GIVEN:
            value = [str(room / GIVEN[action.dest])]
        elif action.dest == 'question':
            value = ['what is this?']
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
        reads = [a.dest for a in parser._actions if a.dest in GIVEN]
        if 'dst' in outs:
            continue  # only ever a new folder
        yield from (pytest.param(words, out, read, id='-'.join((*words, out, read))) for out in outs for read in reads)


def point(name, victim, how):
    "Make a name lead to a file."
    name.parent.mkdir(exist_ok=True)
    (os.symlink if how == 'link' else os.link)(victim, name)


@pytest.mark.parametrize('how', ['link', 'hard link'])
@pytest.mark.parametrize('words, out, read', cases())
def test_no_output_takes_the_place_of_an_input(room, words, out, read, how, capsys, monkeypatch):
    monkeypatch.chdir(room)
    parser = dict(commands())[words]
    for k, victim in enumerate(VICTIMS.get(read, [GIVEN[read]])):
        where = room / f'{k}'
        suffix = '.tif' if out == 'raster' else SUFFIX.get(words[-1], '')
        names = [where / name for name in INSIDE[words[-1]]] if words[-1] in INSIDE else [where / f'out{suffix}']
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
