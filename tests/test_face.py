"The names at the root of the package: there when asked for, free until then."

import ast
import os
import pickle
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import earthgpt_lite

ROOT = Path(__file__).parent.parent
NAMES = ['Assistant', 'EarthGPT', 'InstructionData', 'Record', 'fit', 'read_scene', 'survey']
HEAVY = ['torch', 'numpy', 'rasterio', 'transformers', 'lightning', 'matplotlib', 'PIL', 'pandas', 'psutil']


def python(code):
    command = [sys.executable, '-c', code]
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return subprocess.run(command, capture_output=True, encoding='utf-8', env=env, check=True).stdout


def test_import_loads_nothing():
    loaded = python('import sys, earthgpt_lite; dir(earthgpt_lite); print(*sys.modules)').split()
    assert 'earthgpt_lite' in loaded and not {*HEAVY} & {*loaded}


@pytest.mark.parametrize(
    ('words', 'seconds'),
    [
        (['-c', 'import earthgpt_lite'], 0.2),
        (['-c', 'from earthgpt_lite.app.cli import run; run()', '--help'], 0.3),
    ],
)
def test_nobody_waits(words, seconds):
    "Time of the processor, the interpreter included, which a busy machine does not change much; the best of five"
    code = 'import os; print(os.times().children_user + os.times().children_system)'

    def once():
        work = f'import subprocess, sys; subprocess.run([sys.executable, *{words}], stdout=subprocess.DEVNULL, check=True)'
        return float(python(f'{work}\n{code}'))

    assert min(once() for _ in range(5)) < seconds


def test_all_names_are_the_objects_of_the_parts():
    assert earthgpt_lite.__all__ == NAMES == sorted(NAMES)
    for name, home in earthgpt_lite._HOMES.items():
        found = getattr(earthgpt_lite, name)
        assert found is getattr(import_module(f'earthgpt_lite.{home}'), name)
        assert found.__module__ == f'earthgpt_lite.{home}'  # where it is made, not where it passes by
    assert {*NAMES, '__version__'} <= {*dir(earthgpt_lite)}


def test_star_brings_the_names_and_no_more():
    space = {}
    exec('from earthgpt_lite import *', space)
    assert sorted(n for n in space if not n.startswith('_')) == NAMES
    assert pickle.loads(pickle.dumps(space['Assistant'])) is earthgpt_lite.Assistant


def test_a_name_loads_its_part_and_no_other():
    code = 'import sys; from earthgpt_lite import Record, InstructionData; print(*sys.modules)'
    loaded = python(code).split()
    assert 'earthgpt_lite.data.store' in loaded and not {'torch', 'rasterio', 'transformers'} & {*loaded}


def test_what_type_checkers_see_is_what_is_loaded():
    tree = ast.parse((ROOT / 'earthgpt_lite/__init__.py').read_text(encoding='utf-8'))
    (block,) = [n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == 'TYPE_CHECKING']
    seen = {a.name: n.module.removeprefix('earthgpt_lite.') for n in block.body for a in n.names}
    assert seen == earthgpt_lite._HOMES and sorted(seen) == NAMES


@pytest.mark.parametrize('name', ['Asistant', 'assistant', 'torch', '_private', '__wrapped__'])
def test_an_unknown_name_is_answered_with_the_known_ones(name):
    with pytest.raises(AttributeError) as caught:
        getattr(earthgpt_lite, name)
    assert all(n in str(caught.value) for n in [name, *NAMES]) and not hasattr(earthgpt_lite, name)
    with pytest.raises(ImportError):
        exec(f'from earthgpt_lite import {name}')


def test_parts_are_still_imported_by_name():
    from earthgpt_lite import errors, model

    assert errors.__name__ == 'earthgpt_lite.errors' and model.__name__ == 'earthgpt_lite.model'


def test_the_three_lines_of_the_front_page(tmp_path, monkeypatch):
    "They are what README shows, run as they stand"
    text = (ROOT / 'README.md').read_text(encoding='utf-8')
    (code,) = [c.split('```')[0] for c in text.split('```python\n')[1:] if 'Assistant' in c]
    assert code.startswith('from earthgpt_lite import Assistant\n') and len(code.splitlines()) == 3
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    Image.new('RGB', (64, 64), (20, 60, 120)).save('picture.tif')
    exec(code, {})
