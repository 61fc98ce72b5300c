"The one writer: whatever fails at whatever moment, a file or folder is the old one or the new one, whole."

import json
import os
import subprocess
import sys
import time

import pytest
from fixtures_faults import FAILED, KILLED, UNTOUCHED, WRONG, full, in_a_process, killed

from earthgpt_lite import files
from earthgpt_lite.errors import BadInput
from earthgpt_lite.files import (
    append_rows,
    files_digest,
    finish_writes,
    whole_file,
    whole_folder,
    write_json,
    write_whole,
)

POSIX = pytest.mark.skipif(sys.platform == 'win32', reason='forks, and limits the size of files')
SAYS = 'x cannot be written: No space left on device; make room'


def write_file(room):
    with whole_file(room / 'x') as part, open(part, 'w') as f:
        f.write('new')


def write_folder(room):
    with whole_folder(room / 'x') as part:
        (part / 'in').mkdir(parents=True)
        (part / 'a').write_text('new')
        (part / 'in' / 'b').write_text('new')


def write_rows_to_the_end(room):
    append_rows(room / 'x', ['new'])


OLD = {'file': {'x': 'old'}, 'folder': {'x/a': 'old', 'x/in/b': 'old'}, 'journal': {'x': '"old"\n'}}
NEW = {'file': {'x': 'new'}, 'folder': {'x/a': 'new', 'x/in/b': 'new'}, 'journal': {'x': '"old"\n"new"\n'}}
WRITE = {'file': write_file, 'folder': write_folder, 'journal': write_rows_to_the_end}


def content(room):
    return {p.relative_to(room).as_posix(): p.read_text() for p in room.rglob('*') if p.is_file()}


def fill(room, texts):
    room.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (room / name).parent.mkdir(parents=True, exist_ok=True)
        (room / name).write_text(text)
    return room


@POSIX
@pytest.mark.parametrize('before', ['nothing', 'old'])
@pytest.mark.parametrize('fault', [full, killed])
@pytest.mark.parametrize('kind', WRITE)
def test_at_every_touch_of_the_disk_it_is_the_old_or_the_new(kind, fault, before, tmp_path):
    old = OLD[kind] if before == 'old' else {}
    new = {'x': '"new"\n'} if kind == 'journal' and not old else NEW[kind]
    ended = []
    while UNTOUCHED not in ended:
        room = fill(tmp_path / str(len(ended)), old)
        ended.append(in_a_process(lambda: WRITE[kind](room), len(ended), fault, room, SAYS))
        left = content(room)
        finish_writes(room)
        found = content(room)
        begun = kind == 'journal' and not old and found == {'x': ''}
        assert ended[-1] != WRONG and (found in (old, new) or begun), (len(ended), ended[-1], found)
        assert found == new or ended[-1] in (FAILED, KILLED)
        assert {p.name for p in room.iterdir()} <= {'x'}
        if ended[-1] != KILLED:
            assert {k: v for k, v in left.items() if not k.startswith('.')} == found  # without a next start
    assert len(ended) > {'file': 6, 'folder': 10, 'journal': 2}[kind], ended
    assert FAILED in ended or fault is killed


LIMITED = """
import resource, signal, sys
from earthgpt_lite.errors import BadInput
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))   # a write beyond that fails, as on a full disk
try:
    exec(sys.argv[1])
except BadInput as e:
    print(e)
"""


def on_a_full_disk(code, room):
    "What code prints where a file may hold 5000 bytes."
    argv = [sys.executable, '-W', 'ignore', '-c', LIMITED, code]
    run = subprocess.run(argv, cwd=room, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]
    return run.stdout


@POSIX
def test_a_disk_that_fills_up_in_the_middle(tmp_path):
    "Of a write, a library's write, and a line of a journal."
    fill(tmp_path, {'a': 'old', 'rows': '"old"\n'})
    head = 'from earthgpt_lite.files import *\n'
    too_large = 'a cannot be written: File too large; make room, or choose another place\n'
    assert on_a_full_disk(head + "write_whole('a', 'x' * 9000)", tmp_path) == too_large
    code = (
        head
        + 'import numpy as np\nwith whole_file("a.npy", errors=(OSError,)) as a: np.save(a, np.ones(9000))'
    )
    assert 'a.npy cannot be written' in on_a_full_disk(code, tmp_path)
    told = on_a_full_disk(head + "append_rows('rows', ['x' * 9000])", tmp_path)
    assert told == 'rows' + too_large[1:]
    assert content(tmp_path) == {'a': 'old', 'rows': '"old"\n'}


def test_what_came_out_is_looked_at_before_it_takes_the_place(tmp_path):
    write_whole(tmp_path / 'a', 'old')
    with pytest.raises(BadInput, match='a cannot be written: it came out empty; make room'):
        with whole_file(tmp_path / 'a') as part:
            part.touch()
    with pytest.raises(BadInput, match='a cannot be written: no file came out; make room'):
        with whole_file(tmp_path / 'a'):
            pass
    for check, why in ((lambda p: p.read_text() == 'other', 'does not hold'), (json.loads, 'cannot be read')):
        with pytest.raises(BadInput, match=why):
            with whole_file(tmp_path / 'a', check) as part:
                part.write_text('new')
    with pytest.raises(BadInput, match='b.bin came out empty'):
        with whole_folder(tmp_path / 'f') as new:
            fill(new, {'a': 'x', 'b.bin': ''})
    assert content(tmp_path) == {'a': 'old'} and len(list(tmp_path.iterdir())) == 1
    write_whole(tmp_path / 'a', '')
    assert content(tmp_path) == {'a': ''}


@pytest.mark.parametrize(
    'name, mend',
    [
        ('folder', 'give the name of a file'),
        ('file/below', 'choose another place'),
        ('file/below/deep', 'choose another place'),
        ('long' * 100, 'give a shorter name'),
    ],
)
def test_the_target_and_the_mend_are_named(name, mend, tmp_path):
    fill(tmp_path, {'file': 'old', 'folder/a': 'old'})
    for write in (lambda p: write_whole(p, 'x'), lambda p: write_json([], p)):
        with pytest.raises(BadInput) as e:
            write(tmp_path / name)
        told = str(e.value)
        assert told.startswith(f'{tmp_path / name} cannot be written: ') and told.count('\n') == 0
        assert mend in told or 'folder' in told.split(';')[1]
    assert content(tmp_path) == {'file': 'old', 'folder/a': 'old'}


def test_a_name_of_full_length_can_be_written(tmp_path):
    write_whole(tmp_path / ('n' * 255), 'x')
    assert content(tmp_path) == {'n' * 255: 'x'}


def test_an_error_about_another_file_passes(tmp_path):
    with pytest.raises(FileNotFoundError, match='picture.png'):
        with whole_file(tmp_path / 'a') as part:
            part.write_bytes((tmp_path / 'picture.png').read_bytes())
    with pytest.raises(ZeroDivisionError):
        with whole_folder(tmp_path / 'a') as new:
            fill(new, {'b': str(1 / 0)})
    assert list(tmp_path.iterdir()) == []


def test_a_library_in_the_block_may_have_its_own_error(tmp_path):
    class Refused(Exception):
        pass

    def fail(text, errors=()):
        with whole_file(tmp_path / 'a.tif', errors=errors) as part:
            raise Refused(text.format(part))

    with pytest.raises(Refused):
        fail('any')
    with pytest.raises(BadInput, match='a.tif cannot be written: cannot open a.tif; make room'):
        fail('cannot open {}', (Refused,))
    with pytest.raises(BadInput, match='a.tif cannot be written: No space left on device; make room'):
        fail('I/O error: no room (os error 28)', (Refused,))


def test_the_living_are_left_alone(tmp_path):
    "Another process at work, another machine, and a folder that is none of ours; a day later they are gone."
    mine = f'{files._PREFIX}{files._machine()}'
    names = [f'{mine}.{os.getpid()}.a', f'{files._PREFIX}other.1.b', f'{files._PREFIX}kept']
    for name in [*names, f'{mine}.99999999.c']:
        fill(tmp_path / name, {'new/x': 'part'})
    finish_writes(tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {*names}
    past = time.time() - 2 * 24 * 3600
    for path in [*tmp_path.rglob('*')]:
        os.utime(path, (past, past))
    finish_writes(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [names[2]]


@pytest.mark.unix
def test_a_name_that_a_library_cannot_write_is_told(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b'/\xff.tif')
    with pytest.raises(BadInput, match='its name holds bytes that are no UTF-8; give another name'):
        with whole_file(path) as part:
            str(part).encode()  # as GDAL and pyogrio take it
    with pytest.raises(UnicodeEncodeError), whole_file(tmp_path / 'x'):
        '\udcff'.encode()


def test_the_digest_sees_bytes_and_names_alone(tmp_path):
    a, b = fill(tmp_path / 'a', {'x': 'one', 'y': 'two'}), fill(tmp_path / 'b', {'x': 'one', 'y': 'two'})
    assert files_digest([a / 'x', a / 'y']) == files_digest([str(b / 'x'), b / 'y'])
    (b / 'y').write_text('new')
    others = [[b / 'x', b / 'y'], [a / 'x'], [a / 'y', a / 'x'], [a / 'x', a / 'gone'], [a / 'x', tmp_path]]
    assert len({files_digest(paths) for paths in others} | {files_digest([a / 'x', a / 'y'])}) == 6


@pytest.mark.unix
def test_what_grows_leads_to_no_other_file(tmp_path):
    "A link would let a stranger's folder choose the file."
    (tmp_path / 'mine').write_text('"mine"\n')
    for name, target in (('a', 'mine'), ('b', 'nowhere')):
        (tmp_path / name).symlink_to(target)
        with pytest.raises(BadInput, match=f'{name} cannot be written: it is a link'):
            append_rows(tmp_path / name, ['row'], size=0)
    os.mkfifo(tmp_path / 'pipe')
    with pytest.raises(BadInput, match='it is a pipe or a device'):
        append_rows(tmp_path / 'pipe', ['row'])
    assert (tmp_path / 'mine').read_text() == '"mine"\n' and not (tmp_path / 'nowhere').exists()


@pytest.mark.unix
def test_no_pipe_or_device_is_replaced(tmp_path):
    os.mkfifo(tmp_path / 'pipe')
    (tmp_path / 'link').symlink_to('pipe')
    for name in ('pipe', 'link'):
        with pytest.raises(BadInput, match=f'{name} cannot be written: it is a pipe or a device'):
            write_whole(tmp_path / name, 'x')
    assert (tmp_path / 'pipe').is_fifo() and (tmp_path / 'link').is_symlink()
