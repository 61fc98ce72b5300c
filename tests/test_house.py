"The house is in order: all of it is seen, imports go one way, lines are open, and references lead somewhere."

import json
import subprocess
import sys
from pathlib import Path

import house
import nb
import pytest

ROOT = Path(__file__).parent.parent
PARTS = ['raster', 'boxes', 'data', 'model', 'train', 'eval', 'app', 'course']
LEAST_MODULES, LEAST_NOTEBOOKS = 63, 66  # fewer means that a check looks in the wrong place
MEASURES = house.line_measures(ROOT)


def over(name, limit):
    return [(where, n) for where, n in MEASURES[name] if n > limit]


def test_all_of_it_is_seen():
    modules, notebooks = house.modules(ROOT), nb.notebooks(ROOT)
    print(f'{len(modules)} modules, {len(notebooks)} notebooks')
    assert len(modules) >= LEAST_MODULES and len(notebooks) >= LEAST_NOTEBOOKS


def test_eight_parts():
    folders = [p.name for p in sorted((ROOT / 'nbs').iterdir()) if p.is_dir() and p.name[0].isdigit()]
    assert folders == [f'{k}_{name}' for k, name in enumerate(PARTS, 1)]
    low = {'errors', 'texts', 'budget', 'files', 'locks', 'outputs', 'exercises', '__init__'}
    assert {house.part(m) for m in house.modules(ROOT)} <= {*PARTS, *low}
    assert {p.name for p in (ROOT / 'tests').iterdir() if p.is_dir() and p.name != '__pycache__'} == {*PARTS}


def test_a_module_lies_where_its_notebook_says():
    for name, path in house.exported(ROOT).items():
        where = path.relative_to(ROOT / 'nbs').parts
        if len(where) == 2:
            assert where[0].split('_', 1)[1] == house.part(name)


def test_imports_go_one_way():
    assert list(house.import_faults(ROOT)) == []


def test_one_statement_a_line():
    assert over('two statements', 1) == []


def test_statements_hold_few_constructs():
    assert over('inline', 2) == []
    two = [where for where, n in MEASURES['inline'] if n == 2]
    assert len(two) < 0.004 * len(MEASURES['inline']), two


def test_lines_are_short():
    lengths = [n for _, n in MEASURES['length']]
    assert sum(n > 110 for n in lengths) < 0.02 * len(lengths) and over('length', 140) == []


def test_functions_are_short():
    assert over('function', 60) == []


# what transformers and Lightning prescribe, and what files outside rely on
PRESCRIBED = {'model.modeling.forward', 'eval.score.score_files'}


def test_functions_take_few_arguments():
    assert [w for w, _ in over('parameters', 8) if w not in PRESCRIBED] == []


def test_references_lead_somewhere():
    faults = list(house.reference_faults(ROOT))
    assert not faults, '\n'.join(faults)


@pytest.mark.parametrize('folder', ['nbs', 'tests', 'tools', 'benchmarks', 'index.ipynb'])
def test_written_as_ruff_formats(folder):
    command = [sys.executable, '-m', 'ruff', 'format', '--check', '--no-cache', folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + 'run: make format'
