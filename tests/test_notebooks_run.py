"Every notebook runs from top to bottom, alone in an empty folder, from the installed wheel and without network."

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import fixtures_outside
import nb
import pytest

from earthgpt_lite.course import copies
from earthgpt_lite.course.contents import LESSONS
from earthgpt_lite.course.progress import verdicts
from earthgpt_lite.exercises import RIGHT, UNSOLVED, WRONG

ROOT = Path(__file__).parent.parent
ABOUT = nb.settings(ROOT)
LIB = ABOUT['lib_path']
# nothing to go on without: real weights out of pinned packages, a server, several devices
WEIGHTS = {'offline'}
NEEDED = WEIGHTS | {'serve', 'spread', 'mcp'}
ALL_NEEDED = {'7_app/18_others_tools'}


def extras(path):
    return set(nb.extras(nb.load(path)))


def needed(path):
    "Extras without which a notebook has nothing to say"
    return extras(path) if nb.short(path) in ALL_NEEDED else extras(path) & NEEDED


BOOKS = nb.notebooks(ROOT)
MARKED = [pytest.param(p, id=nb.short(p), marks=[pytest.mark.slow] if nb.is_slow(p) else []) for p in BOOKS]
WITH_EXTRAS = [p for p in BOOKS if extras(p) - needed(p)]
# slow lessons that can be shortened: whole in `make test-all`
SHORTENED = [p for p in BOOKS if nb.is_slow(p) and 'EARTHGPT_LITE_FAST' in p.read_text(encoding='utf-8')]


def python(*args, cwd, **env):
    done = subprocess.run(
        [sys.executable, *map(str, args)], cwd=cwd, capture_output=True, text=True, env={**os.environ, **env}
    )
    assert not done.returncode, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope='session')
def site(tmp_path_factory):
    "A folder with the wheel of today installed in it"
    work = tmp_path_factory.mktemp('wheel')
    src = work / 'src'
    shutil.copytree(ROOT / LIB, src / LIB, ignore=nb.LEFT_OUT)
    for name in ('settings.ini', 'setup.py', 'README.md', 'LICENSE'):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, src)
    python('-m', 'build', '--wheel', '--no-isolation', '--outdir', work, src, cwd=work)
    wheel = next(work.glob('*.whl'))
    pip = ['-m', 'pip', 'install', '-q', '--no-deps', '--no-index', '--disable-pip-version-check']
    python(*pip, '--target', work / 'site', wheel, cwd=work)
    return work / 'site'


def machine(tmp_path, site, names):
    "Variables of a machine without network where the wheel is installed with these extras"
    keys = ['requirements', *(f'{e}_requirements' for e in sorted(names))]
    begin = fixtures_outside.prepare(tmp_path / 'begin', ' '.join(ABOUT[k] for k in keys))
    homes = {k: str(tmp_path / k.lower()) for k in ('IPYTHONDIR', 'JUPYTER_RUNTIME_DIR', 'MPLCONFIGDIR')}
    nowhere = dict.fromkeys(('http_proxy', 'https_proxy', 'all_proxy'), 'http://127.0.0.1:9')
    return dict(PYTHONPATH=f'{begin}{os.pathsep}{site}', HF_HUB_OFFLINE='1', **homes, **nowhere)


# the last cell: all of the package came out of the wheel
PROOF = """
import sys
used = [m.__file__ for name, m in sys.modules.items() if name.split('.')[0] == {lib!r} and getattr(m, '__file__', None)]
strays = [file for file in used if not file.startswith({site!r})]
assert used and not strays, strays
"""


def run(path, tmp_path, site, names, whole=False):
    "What fails when a copy of the notebook is run alone in an empty folder"
    return executed(nb.load(path), path.name, tmp_path, site, names, whole)[1]


def executed(book, name, tmp_path, site, names, whole=False):
    "A notebook that was run alone in an empty folder, and what failed"
    proof = PROOF.format(lib=LIB, site=str(site) + os.sep).strip()
    last = dict(cell_type='code', execution_count=None, id='proof', metadata={}, outputs=[])
    book['cells'].append(last | dict(source=proof.splitlines(True)))
    nb.dump(book, tmp_path / 'empty' / name)
    fast = {} if whole else {'EARTHGPT_LITE_FAST': '1'}
    return nb.execute(tmp_path / 'empty' / name, **machine(tmp_path, site, names), **fast)


def fetch_weights():
    "Real weights into the cache of this user: the one thing that such lessons need a network for, once"
    from earthgpt_lite.model.weights import PACKAGES, find_weights

    for name in PACKAGES:
        find_weights(name, say=lambda line: None)


@pytest.mark.parametrize('path', MARKED)
def test_notebook_runs(path, site, tmp_path):
    if extras(path) & WEIGHTS:
        fetch_weights()
    bad = run(path, tmp_path, site, extras(path))
    assert not bad, '\n'.join(bad)


@pytest.mark.rare
@pytest.mark.parametrize('path', SHORTENED, ids=nb.short)
def test_slow_notebook_runs_whole(path, site, tmp_path):
    bad = run(path, tmp_path, site, extras(path), whole=True)
    assert not bad, '\n'.join(bad)


@pytest.mark.slow
@pytest.mark.parametrize('path', WITH_EXTRAS, ids=nb.short)
def test_notebook_goes_on_without_its_extras(path, site, tmp_path):
    bad = run(path, tmp_path, site, needed(path))
    assert not bad, '\n'.join(bad)


def test_that_machine_has_no_network_no_repository_and_no_extra(site, tmp_path):
    code = f"""
import importlib.metadata, importlib.util, socket, sys, {LIB}
assert {LIB}.__file__.startswith({str(site)!r})
assert not [p for p in sys.path if p.rstrip('/') in ('', {str(ROOT)!r})]
assert importlib.util.find_spec('numpy') and importlib.metadata.version('numpy')
for name in ('pytest', 'nbdev', 'peft', 'conftest', 'house', 'tools'):
    assert importlib.util.find_spec(name) is None, name
for host in ('192.0.2.1', 'example.org'):
    try:
        socket.create_connection((host, 80), 1)
    except OSError as e:
        assert 'no network here' in str(e), e
    else:
        raise AssertionError(host)
with socket.create_server(('127.0.0.1', 0)) as server:
    socket.create_connection(server.getsockname()).close()
"""
    (tmp_path / 'try.py').write_text(code)
    python('-P', tmp_path / 'try.py', cwd=tmp_path, **machine(tmp_path, site, ()))


# ---- copies of the lessons of the course


def in_copy(make, lesson):
    path = ROOT / f'nbs/{lesson.notebook}.ipynb'
    return make(copies.plain_cells(nb.load(path), lesson.notebook, nb.home()))


def all_wrong(copy):
    "A copy in which every blank holds a word that no judge waits for"
    for cell in copy['cells']:
        if copies.mark_of(cell)['kind'] == 'blank':
            text = copies.source_of(cell).replace('raise NotImplementedError', "return 'no idea'")
            cell['source'] = re.sub(r'= \.\.\.$', "= 'no idea'", text, flags=re.M).splitlines(True)
    return copy


def has_checks(lesson):
    path = ROOT / f'nbs/{lesson.notebook}.ipynb'
    return path.exists() and bool(verdicts(nb.load(path)))


COPIED = [pytest.param(lesson, id=lesson.slug) for lesson in LESSONS if has_checks(lesson)]


WAYS = [  # to leave the blanks
    pytest.param(dict, UNSOLVED, id='blank', marks=pytest.mark.slow),
    pytest.param(all_wrong, WRONG, id='wrong', marks=pytest.mark.rare),
]


@pytest.mark.parametrize('change, state', WAYS)
@pytest.mark.parametrize('lesson', COPIED)
def test_a_student_copy_runs_through_and_says_what_is_left(lesson, change, state, site, tmp_path):
    copy = change(in_copy(copies.student_copy, lesson))
    done, bad = executed(copy, f'{lesson.name}.ipynb', tmp_path, site, nb.extras(copy))
    assert not bad, '\n'.join(bad)
    found = verdicts(done)
    assert found and set(found.values()) == {state}, found


@pytest.mark.parametrize('lesson', COPIED)
def test_a_lesson_is_solved_as_it_is_stored(lesson):
    found = verdicts(in_copy(copies.solution_copy, lesson))
    assert found and set(found.values()) == {RIGHT}, found
