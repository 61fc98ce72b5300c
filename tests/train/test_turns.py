"Who shares GPUs gets them in turn: first come, first served, one each, also where somebody dies."

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from earthgpt_lite.app.cli import main
from earthgpt_lite.errors import BadInput
from earthgpt_lite.files import NotWritten
from earthgpt_lite.train import run as running
from earthgpt_lite.train import turns
from earthgpt_lite.train.run import train_command
from earthgpt_lite.train.turns import gpu_turn, visible_gpus

HOLD = """
import os, sys
from earthgpt_lite.train import turns
turns._PAUSE = 0.02
with turns.gpu_turn(sys.argv[1], ['0', '1']):
    assert sys.argv[2:] == ['any'] or os.environ['CUDA_VISIBLE_DEVICES'] in ('0', '1')
    sys.stdin.readline()
"""


@pytest.fixture
def come(tmp_path):
    "Somebody comes to the line; all that is left at the end is killed"
    there = []

    def start():
        words = [sys.executable, '-c', HOLD, str(tmp_path / 'line')]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        there.append(subprocess.Popen(words, **pipes))
        return there[-1]

    yield start
    for process in there:
        process.kill()
        process.communicate()


def said(process):
    return process.stdout.readline().strip()


def before(process):
    "How many it says are before it"
    return int(re.match(r'waiting for a GPU: (\d) before you; ', said(process))[1])


def leave(process):
    process.communicate('\n', timeout=60)
    assert process.returncode == 0


@pytest.mark.unix
def test_a_line_with_a_killed_holder_a_killed_waiter_and_one_who_gives_up(tmp_path, come):
    first, second = come(), come()
    assert {said(first), said(second)} == {'GPU 0 is yours', 'GPU 1 is yours'}
    waiting = []
    for k in range(4):
        waiting.append(come())
        text = said(waiting[-1])
        assert text.startswith(f'waiting for a GPU: {k} before you; GPU 0: '), text
        assert text.count(' since ') == 2
    killed, impatient, third, fourth = waiting
    killed.kill()
    killed.wait()
    assert said(impatient).startswith('waiting for a GPU: 0 before you')
    assert said(third).startswith('waiting for a GPU: 1 before you')
    impatient.send_signal(signal.SIGINT)
    assert 'KeyboardInterrupt' in impatient.communicate(timeout=60)[1]
    assert said(third).startswith('waiting for a GPU: 0 before you')
    first.kill()
    assert said(third) in ('GPU 0 is yours', 'GPU 1 is yours')
    heard = [before(fourth)]
    while heard[-1]:
        heard.append(before(fourth))
    assert heard == sorted(heard, reverse=True)  # two may go between two looks
    leave(second)
    for process in (third, fourth):
        leave(process)
    left = sorted(path.name for path in (tmp_path / 'line').iterdir())
    assert left == ['gpu-0.lock', 'gpu-1.lock', 'line.lock']


def test_the_gpu_is_named_in_the_block_only(tmp_path, monkeypatch):
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '4, 5')
    monkeypatch.setattr(torch.backends.cuda, 'is_built', lambda: True)
    lines = []
    with gpu_turn(tmp_path, say=lines.append) as mine, gpu_turn(tmp_path, ['4', '5'], lines.append) as other:
        assert (mine, other, os.environ['CUDA_VISIBLE_DEVICES']) == ('4', '5', '5')
    assert os.environ['CUDA_VISIBLE_DEVICES'] == '4, 5' and lines == ['GPU 4 is yours', 'GPU 5 is yours']
    with pytest.raises(KeyError), gpu_turn(tmp_path, ['7'], lines.append):
        raise KeyError
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES')
    with gpu_turn(tmp_path, ['7'], lines.append):
        assert os.environ['CUDA_VISIBLE_DEVICES'] == '7'
    assert 'CUDA_VISIBLE_DEVICES' not in os.environ


def test_a_process_that_uses_a_gpu_already_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_initialized', lambda: True)
    with pytest.raises(BadInput, match='a script of its own'), gpu_turn(tmp_path, ['0']):
        pass
    assert not list(tmp_path.iterdir())


# ---- which GPUs


def fake_driver(folder, monkeypatch, text, status=0):
    program = folder / 'nvidia-smi'
    program.write_text(f'#!{sys.executable}\nprint({text!r})\nraise SystemExit({status})\n')
    program.chmod(0o755)
    monkeypatch.setenv('PATH', str(folder))


@pytest.mark.unix
def test_gpus_as_the_driver_or_the_variable_names_them(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cuda, 'is_built', lambda: True)
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES', raising=False)
    fake_driver(tmp_path, monkeypatch, '0\n1')
    assert visible_gpus() == ['0', '1']
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', 'MIG-1a/2, 3')
    assert visible_gpus() == ['MIG-1a/2', '3']
    for named in ('', '-1', ' , '):
        monkeypatch.setenv('CUDA_VISIBLE_DEVICES', named)
        with pytest.raises(BadInput, match='no GPU to wait for'):
            visible_gpus()
    monkeypatch.delenv('CUDA_VISIBLE_DEVICES')
    fake_driver(tmp_path, monkeypatch, 'No devices were found', 6)
    with pytest.raises(BadInput, match='no GPU to wait for'):
        visible_gpus()
    monkeypatch.setenv('PATH', '')
    with pytest.raises(BadInput, match='no GPU to wait for'):
        visible_gpus()
    monkeypatch.setattr(torch.backends.cuda, 'is_built', lambda: False)
    with pytest.raises(BadInput, match='built for CPUs only'):
        visible_gpus()


# ---- the folder


@pytest.mark.unix
def test_others_may_use_the_line_whatever_the_umask_is(tmp_path):
    old = os.umask(0o077)
    try:
        with gpu_turn(tmp_path / 'a' / 'line', ['MIG-1a/2'], lambda text: None):
            modes = {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / 'a' / 'line').iterdir()}
    finally:
        os.umask(old)
    assert (tmp_path / 'a' / 'line').stat().st_mode & 0o7777 == 0o1777
    assert modes.keys() == {'000001.json', '000001.lock', 'gpu-MIG-1a_2.lock', 'line.lock'}
    assert {mode for name, mode in modes.items() if name.endswith('.lock')} == {0o666}
    assert modes['000001.json'] == 0o644


def test_a_folder_of_other_things_is_refused_and_untouched(tmp_path):
    (tmp_path / '000009.json').write_text('{"answer": "mine"}')
    with pytest.raises(BadInput, match='holds other things'), gpu_turn(tmp_path, ['0'], print):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ['000009.json']


def test_what_lies_in_the_folder_besides_stops_nobody(tmp_path):
    (tmp_path / 'line.lock').touch()
    (tmp_path / '12abc.lock').touch()
    (tmp_path / 'notes.txt').touch()
    (tmp_path / '000007.lock').touch()  # of somebody who died
    (tmp_path / '000009.json').write_text('[')
    with gpu_turn(tmp_path, ['0'], lambda text: None):
        assert sorted(path.name for path in tmp_path.glob('0*')) == ['000001.json', '000001.lock']


def test_who_computes_is_told_in_harmless_words(tmp_path):
    path = tmp_path / 'x.json'
    path.write_text(json.dumps(dict(user='\x1b[2Jada\n', since=time.time(), gpu='0')))
    about = turns._read(path)
    assert about['user'] == '\\x1b[2Jada\\n'
    text = turns._line_text(2, {1: about}, ['0', '1'])
    assert text.startswith('waiting for a GPU: 2 before you; GPU 0: \\x1b[2Jada\\n since ')
    assert text.endswith(', GPU 1: in use') and len(text.split('since ')[1].split(',')[0]) == 5
    assert 'since 1970-01-0' in turns._line_text(0, {1: dict(user='eve', since=9e4, gpu='0')}, ['0'])
    path.write_text('null')
    assert turns._read(path)['user'] == 'somebody'


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(NotWritten, match='file'), gpu_turn(tmp_path / 'file' / 'line', ['0']):
        pass


# ---- the commands


def asked_for_cuda(*words):
    raise AssertionError('CUDA was asked before the turn: it would not see CUDA_VISIBLE_DEVICES')


def test_train_waits_before_it_asks_for_a_gpu(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2,3')
    monkeypatch.setattr(torch.backends.cuda, 'is_built', lambda: True)
    monkeypatch.setattr(torch.cuda, 'is_available', asked_for_cuda)
    monkeypatch.setattr(torch.cuda, 'device_count', asked_for_cuda)
    note = lambda run, resume, force: seen.append((os.environ['CUDA_VISIBLE_DEVICES'], run.steps))
    monkeypatch.setattr(running, 'train', note)
    words = ['--steps', '1', '--out', str(tmp_path / 'run'), '--wait_for_gpu', str(tmp_path / 'line')]
    assert train_command(words) == 0 and seen == [('2', 1)]
    for wrong in (['--device', 'cpu'], ['--devices', '2'], ['--nodes', '2']):
        with pytest.raises(BadInput, match='gets one GPU'):
            train_command(words + wrong)
    (tmp_path / 'run').mkdir()
    (tmp_path / 'run' / 'run.json').touch()
    with pytest.raises(BadInput, match='finished run'):  # and not after an hour of waiting
        train_command(words)


def test_quickstart_waits_before_it_asks_for_a_gpu(tmp_path, monkeypatch, capsys):
    from earthgpt_lite.app import quickstart
    from earthgpt_lite.model import processor

    def note(out, **options):
        raise BadInput(f'device {options["device"]} of {os.environ["CUDA_VISIBLE_DEVICES"]}')

    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '2,3')
    monkeypatch.setattr(torch.backends.cuda, 'is_built', lambda: True)
    monkeypatch.setattr(quickstart, 'quickstart', note)
    monkeypatch.setattr(processor, 'pick_device', lambda name: f'{name} {os.environ["CUDA_VISIBLE_DEVICES"]}')
    words = ['quickstart', '--wait-for-gpu', str(tmp_path / 'line')]
    assert main(words) == 2 and 'device auto 2 of 2' in capsys.readouterr().err
    assert main([*words, '--device', 'cpu']) == 2 and 'leave --device cpu away' in capsys.readouterr().err
