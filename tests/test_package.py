"What people install: the wheel and the sdist, built, installed in an empty environment, and run outside the repository."

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from configparser import ConfigParser
from pathlib import Path
import house
import nb
import pytest

ROOT = Path(__file__).parent.parent
LIB = ROOT / 'earthgpt_lite'
# module -> the requirement that brings it, where the names differ
NAMES = {
    'PIL': 'pillow',
    'yaml': 'pyyaml',
    'affine': 'rasterio',
    'packaging': 'transformers',
    'pyarrow': 'datasets',
    'traitlets': 'ipywidgets',
}
cfg = ConfigParser(delimiters=['='])
cfg.read(ROOT / 'settings.ini', encoding='utf-8')
cfg = cfg['DEFAULT']


def call(*args, cwd, **env):
    done = subprocess.run(
        [str(a) for a in args],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': '', **env},
    )
    assert not done.returncode, (
        f'{done.args} gave {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}'
    )
    return done.stdout


def data_files():
    "The files that must travel with the package"
    files = [p for p in (LIB / 'assets').rglob('*') if p.is_file()]
    return {p.relative_to(ROOT).as_posix() for p in files}


def top_imports(path):
    for n in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(n, ast.Import):
            yield from (a.name.split('.')[0] for a in n.names)
        elif isinstance(n, ast.ImportFrom) and not n.level:
            yield n.module.split('.')[0]


def test_every_import_is_declared():
    "What the package imports is a requirement or belongs to an extra that people can install; nothing comes from `dev`."
    words = ' '.join(
        v
        for k, v in cfg.items()
        if k == 'requirements' or k.endswith('_requirements') and k != 'dev_requirements'
    )
    declared = {re.match(r'[\w.-]+', w)[0].lower().replace('-', '_') for w in words.split()}
    used = {m for p in LIB.rglob('*.py') for m in top_imports(p)} - set(sys.stdlib_module_names) - {LIB.name}
    assert not {m for m in used if NAMES.get(m, m).lower() not in declared}


def test_import_is_light():
    out = call(
        sys.executable,
        '-c',
        'import sys, earthgpt_lite; print(earthgpt_lite.__version__, sorted({"torch", "numpy", "transformers"} & {*sys.modules}))',
        cwd=ROOT,
    )
    assert out.split() == [cfg['version'], '[]']


def test_licence_says_apache():
    assert 'Apache License' in (ROOT / 'LICENSE').read_text() and cfg['license'] == 'apache2'


@pytest.fixture(scope='module')
def built(tmp_path_factory):
    "sdist and wheel, made from a copy; the wheel is built from the unpacked sdist"
    work = tmp_path_factory.mktemp('build')
    src = shutil.copytree(ROOT, work / 'src', ignore=nb.LEFT_OUT)
    call(sys.executable, '-m', 'build', '--no-isolation', '--outdir', work / 'dist', src, cwd=work)
    return next((work / 'dist').glob('*.whl')), next((work / 'dist').glob('*.tar.gz'))


@pytest.fixture(scope='module')
def empty(built, tmp_path_factory):
    "An environment with the wheel alone; the requirements are borrowed from this one"
    home = tmp_path_factory.mktemp('empty')
    env = home / 'env'
    call(sys.executable, '-m', 'venv', env, cwd=home)
    call(
        env / 'bin/python',
        '-m',
        'pip',
        'install',
        '--no-deps',
        '--no-index',
        '--disable-pip-version-check',
        built[0],
        cwd=home,
    )
    site = Path(
        call(
            env / 'bin/python', '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))', cwd=home
        ).strip()
    )
    paths = dict.fromkeys(sysconfig.get_path(k) for k in ('purelib', 'platlib'))
    (site / 'borrowed.pth').write_text('\n'.join(paths) + '\n')
    return env / 'bin', site, home


@pytest.mark.slow
def test_wheel_holds_the_data_and_is_small(built):
    wheel, _ = built
    names = set(zipfile.ZipFile(wheel).namelist())
    assert data_files() <= names, sorted(data_files() - names)
    assert {p.relative_to(ROOT).as_posix() for p in LIB.rglob('*.py')} <= names
    assert not [n for n in names if n.startswith(('nbs/', 'tests/', 'tools/'))]
    assert (
        'earthgpt_lite/assets/models/nano/model.safetensors' in names
        and 'earthgpt_lite/assets/models/nano/README.md' in names
    )
    assert wheel.stat().st_size < 25e6
    with zipfile.ZipFile(wheel) as archive:
        (announced,) = (archive.read(n).decode() for n in names if n.endswith('dist-info/entry_points.txt'))
    assert '[lmms_eval.models]\nearthgpt_lite = earthgpt_lite.app.lmms_model:manifest\n' in announced


@pytest.mark.slow
def test_wheel_asks_for_no_development_tool(built):
    wheel, _ = built
    z = zipfile.ZipFile(wheel)
    meta = z.read(next(n for n in z.namelist() if n.endswith('.dist-info/METADATA'))).decode()
    asked = [l for l in meta.splitlines() if l.startswith('Requires-Dist')]
    assert not [l for l in asked if re.search('nbdev|fastcore|pytest', l) and 'extra == "dev"' not in l]
    assert 'License-Expression: Apache-2.0' in meta and 'License-File: LICENSE' in meta
    assert {
        'lora',
        'gguf',
        'offline',
        '8bit',
        'geo',
        'log',
        'studio',
        'serve',
        'mcp',
        'spread',
        'browser',
        'docs',
        'grading',
        'dev',
    } == set(re.findall(r'^Provides-Extra: (\w+)', meta, re.M))


@pytest.mark.slow
def test_sdist_holds_the_source(built):
    _, sdist = built
    names = {n.split('/', 1)[-1] for n in tarfile.open(sdist).getnames()}
    assert (
        data_files()
        | {'settings.ini', 'setup.py', 'constraints.txt', 'LICENSE', 'README.md', 'index.ipynb', 'Makefile'}
        <= names
    )
    assert {p.relative_to(ROOT).as_posix() for p in (ROOT / 'nbs').rglob('[0-9]*.ipynb')} <= names


@pytest.mark.slow
def test_wheel_imports_outside_the_repository(empty):
    "Every module imports, from the installed wheel, and finds its data."
    bin, site, home = empty
    modules = house.modules(ROOT)
    assert len(modules) >= 63, f'only {len(modules)} modules were seen'
    code = (
        'import earthgpt_lite, importlib, sys\n'
        'for m in sys.argv[1:]: importlib.import_module("earthgpt_lite." + m)\n'
        'print(earthgpt_lite.__file__)'
    )
    assert Path(call(bin / 'python', '-c', code, *modules, cwd=home).strip()).is_relative_to(site)
    assert all((site / f).is_file() for f in data_files())


@pytest.mark.slow
def test_command_answers(empty):
    bin, _, home = empty
    assert 'quickstart' in call(bin / 'earthgpt-lite', '--help', cwd=home)


@pytest.mark.slow
def test_the_trained_nano_answers_from_the_wheel(empty):
    from PIL import Image
    from earthgpt_lite.data.sample.objects import object_examples

    bin, _, home = empty
    Image.fromarray(object_examples('validation', 1)[0].image).save(home / 'chip.png')
    said = json.loads(
        call(bin / 'earthgpt-lite', 'ask', 'nano', 'chip.png', 'where is the island?', '--json', cwd=home)
    )
    assert len(said['boxes']) == 1 and len(said['boxes'][0]) == 4


@pytest.mark.slow
def test_quickstart_runs_from_the_wheel(empty):
    bin, _, home = empty
    call(bin / 'earthgpt-lite', 'quickstart', '--minutes', '1', cwd=home)
    run = home / 'runs/quickstart'
    assert json.loads((run / 'metrics.json').read_text())['results'] and (run / 'report.html').stat().st_size
