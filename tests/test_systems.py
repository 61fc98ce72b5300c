"The package on any system: without what only Unix has, in any encoding, with any file system's names."

import ast
import json
import ntpath
import os
import posixpath
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthgpt_lite.data import formats
from earthgpt_lite.data.records import clean_path, find_image
from earthgpt_lite.errors import BadInput

ROOT = Path(__file__).parent.parent
LIB = ROOT / 'earthgpt_lite'
SOURCES = [*LIB.rglob('*.py'), *(ROOT / 'tools').glob('*.py'), *(ROOT / 'benchmarks').glob('*.py')]


def without_unix(folder):
    command = [sys.executable, ROOT / 'tests/fixtures_systems.py', folder]
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(command, capture_output=True, encoding='utf-8', env=env, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


# ---- what only Unix has


@pytest.fixture(scope='module')
def windows(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    return without_unix(folder) | dict(left=list(folder.rglob('.running*')))


def test_every_module_is_imported_without_it(windows):
    assert windows['failed'] == {} and windows['modules'] == len(list(LIB.rglob('*.py')))


def test_a_run_is_stopped_and_goes_on_without_it(windows):
    assert windows['stopped'] and windows['equal'] and windows['left'] == []
    assert [step for step, _ in windows['losses']] == [0, 1, 2, 3, 4] and windows['memory'] > 100


UNIX = {'fcntl', 'resource', 'termios', 'tty', 'pty', 'pwd', 'grp', 'posix', 'syslog', 'crypt'}


def top_level_imports(tree):
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


def test_no_module_of_unix_is_imported_at_the_top():
    trees = {p.name: ast.parse(p.read_text(encoding='utf-8')) for p in SOURCES}
    assert 'json' in {m for tree in trees.values() for m in top_level_imports(tree)}
    assert [name for name, tree in trees.items() if UNIX & set(top_level_imports(tree))] == []


# ---- encodings


def text_opens(tree):
    "(line, call) of each place that opens a text file"
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
        modes = [ast.unparse(a) for a in node.args[1:2]]
        modes += [ast.unparse(k.value) for k in node.keywords if k.arg == 'mode']
        binary = any(re.search(r"'[rwax+]*b[+]?'", mode) for mode in modes)
        if name in ('read_text', 'write_text') and not (name == 'read_text' and node.args):
            yield node
        elif isinstance(node.func, ast.Name) and name == 'open' and not binary:
            yield node


def without_encoding(text):
    calls = text_opens(ast.parse(text))
    return [c.lineno for c in calls if 'encoding' not in [k.arg for k in c.keywords]]


def test_the_search_for_encodings_sees():
    faults = ["open('a')", "open('a', 'w')", "open('a', mode='r')", 'p.read_text()', 'p.write_text(x)']
    fine = ["open('a', 'rb')", "open('a', 'r+b' if x else 'wb')", "open('a', encoding='utf-8')"]
    assert [without_encoding(t) for t in faults] == [[1]] * len(faults)
    assert [without_encoding(t) for t in fine] == [[]] * len(fine)
    assert sum(1 for p in SOURCES for _ in text_opens(ast.parse(p.read_text(encoding='utf-8')))) > 30


def test_text_is_opened_with_its_encoding():
    "Without it Windows takes the code page of the country"
    found = {p.name: without_encoding(p.read_text(encoding='utf-8')) for p in [*SOURCES, ROOT / 'setup.py']}
    assert {name: lines for name, lines in found.items() if lines} == {}


def test_a_console_that_knows_few_letters():
    "An answer with other letters comes out with their numbers, not as an error"
    code = "import earthgpt_lite.app.cli as c; c.main = lambda: print('sn\\u00f8 \\u6c34'); c.run()"
    env = {**os.environ, 'PYTHONIOENCODING': 'cp1252', 'PYTHONUTF8': '0', 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, env=env, cwd=ROOT)
    assert done.stdout.decode('cp1252').split() == ['snø', '\\u6c34'] and done.returncode == 0


# ---- names of files


def all_files():
    "What a clone holds"
    tops = ['earthgpt_lite', 'nbs', 'tests', 'tools', 'benchmarks', 'docs', '.github']
    paths = [p for top in tops for p in (ROOT / top).rglob('*') if '__pycache__' not in p.parts]
    return [p.relative_to(ROOT).as_posix() for p in paths if p.is_file()]


def test_names_that_every_file_system_knows():
    names = all_files()
    assert len(names) > 250
    assert [n for n, k in Counter(n.lower() for n in names).items() if k > 1] == []
    device = re.compile(r'(con|prn|aux|nul|com\d|lpt\d)(\.|$)', re.I)
    odd = re.compile(r'[<>:"\\|?*\x00-\x1f]|[. ]$')
    assert [n for n in names if any(device.match(w) or odd.search(w) for w in n.split('/'))] == []


NAMES = st.text('abcXYZ 019_-.ü水', min_size=1, max_size=8).filter(lambda n: n.strip(' .'))


@given(st.lists(NAMES, min_size=1, max_size=5))
def test_a_path_written_on_windows_is_the_path_written_on_linux(names):
    want = posixpath.normpath('/'.join(names))
    assert clean_path(ntpath.join(*names)) == clean_path(posixpath.join(*names)) == want
    assert clean_path(want) == want and '\\' not in want


@given(
    st.lists(NAMES | st.just('..'), min_size=1, max_size=5),
    st.sampled_from(['', 'C:', 'C:\\', '\\', '\\\\pc\\']),
)
def test_what_is_let_pass_stays_below_the_root_on_both(names, start):
    "Whatever a record says: joined to a root by either system's rules it lies below it"
    try:
        path = clean_path(start + '\\'.join(names))
    except BadInput:
        return
    assert posixpath.normpath(posixpath.join('/root', path)).startswith('/root/')
    assert ntpath.normpath(ntpath.join('D:\\root', path)).startswith('D:\\root\\')


def test_a_link_to_another_drive_is_refused(tmp_path, monkeypatch):
    "os.path.commonpath raises where two drives have nothing in common; so nothing asks it"
    (tmp_path / 'a.png').touch()
    monkeypatch.setattr(os.path, 'commonpath', lambda paths: (_ for _ in ()).throw(ValueError('drives')))
    assert find_image('a.png', tmp_path).name == 'a.png'
    real = os.path.realpath
    elsewhere = str(tmp_path.parent / 'b.png')
    monkeypatch.setattr(os.path, 'realpath', lambda p: elsewhere if str(p).endswith('a.png') else real(p))
    with pytest.raises(BadInput, match='leads out'):
        find_image('a.png', tmp_path)
    monkeypatch.setattr(os.path, 'islink', lambda p: True)
    assert formats.Pictures(tmp_path).paths == []


# ---- renames and signals


def test_a_rename_over_a_file_that_is_there_replaces_it():
    "Path.rename refuses that on Windows; it stands only where a folder takes a free name"
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Attribute) and node.attr in ('rename', 'renames'):
                found.append(f'{path.stem}: {ast.unparse(node)}')
    assert set(found) == {'files: os.rename'}


def test_ctrl_break_of_windows_stops_a_run_as_ctrl_c_does(monkeypatch):
    import signal
    from types import SimpleNamespace

    from earthgpt_lite.train.callbacks import CheckpointWriter

    other = signal.SIGTERM
    monkeypatch.setattr(signal, 'SIGBREAK', other, raising=False)
    before = signal.getsignal(other), signal.getsignal(signal.SIGINT)
    writer = CheckpointWriter('.', None)
    writer.on_train_start(SimpleNamespace(global_step=0), SimpleNamespace(total=3))
    signal.raise_signal(other)
    assert writer.interrupts == 1
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    writer.teardown(None, None, 'fit')
    assert (signal.getsignal(other), signal.getsignal(signal.SIGINT)) == before


def test_notebooks_of_lessons_need_no_unix():
    "Lessons run on Windows too"
    faults = []
    for path in nb.notebooks(ROOT):
        for cell in nb.load(path)['cells']:
            text = ''.join(cell['source'])
            if cell['cell_type'] == 'code' and re.search(r'^\s*import (fcntl|resource|pwd)\b', text, re.M):
                faults.append(path.name)
    assert set(faults) <= {'09_throughput.ipynb'}  # inside a function, where Windows does not come
