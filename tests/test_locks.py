"One output, one writer: who holds it is named, what the dead held is free, nothing is left behind."

import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from earthgpt_lite import locks
from earthgpt_lite.errors import BadInput
from earthgpt_lite.files import NotWritten
from earthgpt_lite.locks import lock_owner, output_lock

HOLD = """
import sys, time
from earthgpt_lite.locks import output_lock
with output_lock(sys.argv[1], inside=len(sys.argv) > 2):
    print('held', flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold():
    "Start a process that holds a lock; what is still running at the end is killed"
    running = []

    def start(*args):
        words = [sys.executable, '-c', HOLD, *map(str, args)]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, encoding='utf-8')
        running.append(process)
        assert process.stdout.readline() == 'held\n'
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.parametrize('inside', [False, True])
def test_the_second_is_told_who_holds_it(tmp_path, hold, inside):
    out = tmp_path / 'runs'
    process = hold(out, *['inside'] * inside)
    with pytest.raises(BadInput) as caught, output_lock(out, inside):
        pass
    said = str(caught.value)
    assert str(out) in said and f'process {process.pid} on {platform.node()}, started 20' in said
    assert "-c" in said and '\n' not in said and 'delete' not in said


def test_what_a_killed_process_held_is_free_at_once(tmp_path, hold):
    out = tmp_path / 'places.geojson'
    process = hold(out)
    process.kill()
    process.wait()
    assert {p.name for p in tmp_path.iterdir()} == {'.places.geojson.lock', '.places.geojson.owner'}
    with output_lock(out):
        assert lock_owner(tmp_path / '.places.geojson.owner')['pid'] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_goes_with_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), output_lock(tmp_path / 'a.json'):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), output_lock(tmp_path, inside=True):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_the_same_output_by_another_spelling(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'sub').mkdir()
    with output_lock('out.json'):
        for other in (tmp_path / 'out.json', 'sub/../out.json', Path('./out.json')):
            with pytest.raises(BadInput, match='another run'), output_lock(other):
                pass
    with output_lock('.', inside=True), pytest.raises(BadInput), output_lock(tmp_path, inside=True):
        pass


def test_two_outputs_do_not_stop_each_other(tmp_path):
    with output_lock(tmp_path / 'a'), output_lock(tmp_path / 'b'), output_lock(tmp_path, inside=True):
        assert len(list(tmp_path.iterdir())) == 6


def test_many_threads_one_after_the_other(tmp_path):
    "What is deleted at the end of one writer must not let two in"
    inside, most, entered = [], [], []

    def write():
        for _ in range(60):
            try:
                with output_lock(tmp_path / 'out'):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.0005)
                    inside.pop()
                    entered.append(1)
            except BadInput:
                pass

    threads = [threading.Thread(target=write) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert max(most) == 1 and len(entered) >= 10 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    'change',
    [
        dict(pid=2**22 + 5),  # no such process
        dict(started=1.0),  # the number belongs to another one by now
        dict(started=None),
        dict(pid='x'),
        dict(pid=-1),
    ],
)
def test_an_owner_that_is_gone_is_no_owner(tmp_path, change):
    path = tmp_path / 'owner'
    me = locks._this_process()
    path.write_text(json.dumps(me), encoding='utf-8')
    assert lock_owner(path) == me
    path.write_text(json.dumps(me | change), encoding='utf-8')
    assert lock_owner(path) is None
    for text in ('', '[]', '{"pid"', 'null', '{}'):
        path.write_text(text, encoding='utf-8')
        assert lock_owner(path) is None
    assert lock_owner(tmp_path / 'none') is None


def test_an_owner_on_another_machine_may_be_gone(tmp_path):
    "Its process cannot be asked for, so the message says what to delete"
    with output_lock(tmp_path / 'out'):
        owner = tmp_path / '.out.owner'
        stranger = dict(pid=1, host='elsewhere', started=1e9, command='earthgpt-lite train')
        owner.write_text(json.dumps(stranger), encoding='utf-8')
        with pytest.raises(BadInput, match='on elsewhere.*earthgpt-lite train.*or delete .*lock if'):
            with output_lock(tmp_path / 'out'):
                pass


def test_a_place_where_nothing_can_be_written_is_named(tmp_path):
    (tmp_path / 'file').touch()
    out = tmp_path / 'file' / 'out.json'
    with pytest.raises(NotWritten) as caught, output_lock(out):
        pass
    assert str(caught.value).startswith(f'{out} cannot be written')


@pytest.mark.unix
def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    "A worker that outlives its killed parent"
    code = """
import os, signal, sys, time
from earthgpt_lite.locks import output_lock
with output_lock(sys.argv[1]):
    if not os.fork():
        print(os.getpid(), flush=True)
        os.close(1)
        time.sleep(30)
        os._exit(0)
    time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    words = [sys.executable, '-c', code, str(tmp_path / 'out')]
    done = subprocess.run(words, stdout=subprocess.PIPE, encoding='utf-8')
    worker = int(done.stdout)
    try:
        assert done.returncode == -signal.SIGKILL and os.kill(worker, 0) is None
        with output_lock(tmp_path / 'out'):
            pass
    finally:
        os.kill(worker, signal.SIGKILL)


@pytest.mark.unix
def test_an_owner_that_is_a_link_or_a_pipe(tmp_path):
    (tmp_path / 'mine').write_text('mine')
    (tmp_path / '.a.owner').symlink_to('mine')
    os.mkfifo(tmp_path / '.b.owner')
    assert lock_owner(tmp_path / '.b.owner') is None
    for name in 'ab':
        with output_lock(tmp_path / name):
            assert lock_owner(tmp_path / f'.{name}.owner')['pid'] == os.getpid()
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [('mine', 'mine')]
