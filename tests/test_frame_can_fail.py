"The checks of the notebooks find what they are for: each fault is put into a small copy of the project, and they must fail."

import os, re, shutil, subprocess, sys
from pathlib import Path
import pytest
import nb

ROOT = Path(__file__).parent.parent
SYNC, RUN = 'tests/test_notebooks_sync.py', 'tests/test_notebooks_run.py'
FRAME = [
    'settings.ini',
    'setup.py',
    'pytest.ini',
    'earthgpt_lite/__init__.py',
    'tools/nb.py',
    'tests/conftest.py',
    SYNC,
    RUN,
]
TINY = {
    'index': ['# Tiny', 'print(1+1)'],
    '01_tiny': [
        '# Tiny',
        '#| default_exp tiny',
        '#| export\ndef double(x): return 2*x',
        'assert double(2) == 4',
    ],
    '02_more': [
        '# More',
        '#| default_exp more',
        '#| export\nfrom earthgpt_lite.tiny import double',
        'double(2)',
    ],
}


def book(cells):
    kinds = ['markdown'] + ['code'] * (len(cells) - 1)
    more = dict(markdown={}, code=dict(execution_count=None, outputs=[]))
    return dict(
        cells=[
            dict(cell_type=k, id=f'cell{i}', metadata={}, source=s.splitlines(True), **more[k])
            for i, (k, s) in enumerate(zip(kinds, cells))
        ],
        metadata=nb.KERNEL,
        nbformat=4,
        nbformat_minor=5,
    )


def python(root, *args):
    return subprocess.run(
        [sys.executable, *args],
        cwd=root,
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(root)},
    )


def export(root):
    return python(root, '-c', 'from nbdev.doclinks import nbdev_export; nbdev_export()').check_returncode()


def place(root, name):
    return root / ('index.ipynb' if name == 'index' else f'nbs/{name}.ipynb')


def add(root, name, source):
    "Append a code cell to a notebook"
    cells = [''.join(c['source']) for c in nb.load(place(root, name))['cells']]
    nb.dump(book([*cells, source]), place(root, name))


def failed(root, *tests):
    "Names of the checks that fail in a copy"
    out = python(root, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-p', 'no:xdist', *tests)
    names = set(re.findall(r'^(?:FAILED|ERROR) \S+::(\w+)', out.stdout, re.M))
    assert bool(out.returncode) == bool(names), out.stdout + out.stderr
    return names


@pytest.fixture
def project(tmp_path):
    for f in FRAME:
        (tmp_path / f).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / f, tmp_path / f)
    for name, cells in TINY.items():
        nb.dump(book(cells), place(tmp_path, name))
    export(tmp_path)
    nb.readme(tmp_path / 'index.ipynb', tmp_path / 'README.md')
    return tmp_path


def test_a_sound_project_passes(project):
    assert failed(project, SYNC, RUN, '-m', 'not slow', '--all-notebooks') == set()


def test_a_module_edited_by_hand_is_found(project):
    module = project / 'earthgpt_lite/tiny.py'
    module.write_text(module.read_text().replace('2*x', 'x+x'))
    assert failed(project, SYNC) == {'test_package_is_what_the_notebooks_export'}


def test_a_stale_module_is_found(project):
    place(project, '02_more').unlink()
    assert 'test_package_is_what_the_notebooks_export' in failed(project, SYNC)


def test_a_module_without_a_notebook_is_found(project):
    (project / 'earthgpt_lite/extra.py').write_text('x = 1\n')
    assert 'test_every_module_has_its_notebook' in failed(project, SYNC)


def test_a_notebook_not_exported_is_found(project):
    add(project, '01_tiny', '#| export\ndef triple(x): return 3*x')
    assert failed(project, SYNC) == {'test_package_is_what_the_notebooks_export'}


def test_a_stale_readme_is_found(project):
    add(project, 'index', '3')
    assert failed(project, SYNC) == {'test_readme_is_the_front_page'}


def test_an_unclean_notebook_is_found(project):
    d = nb.load(place(project, '01_tiny'))
    d['cells'][3]['execution_count'] = 7
    nb.dump(d, place(project, '01_tiny'))
    assert failed(project, SYNC) == {'test_notebook_is_clean'}


def test_an_import_upwards_is_found(project):
    add(
        project,
        '01_tiny',
        '#| export\ndef later():\n    from earthgpt_lite.more import double\n    return double',
    )
    export(project)
    assert failed(project, SYNC) == {'test_module_imports_only_lower_ones'}


BROKEN = dict(
    raises='1/0',
    repr_raises='class Map:\n    def _repr_html_(self): raise KeyError("features")\nMap()',
    figure_does_not_draw="import matplotlib.pyplot as plt\nplt.title(r'$\\frac$');",
    widget_callback_raises='import ipywidgets as w\nw.interactive_output(lambda k: 1/k, dict(k=w.IntSlider()))',
    button_raises="import ipywidgets as w\nb = w.Button()\nb.on_click(lambda b: 1/0)\nb.click()",
    thread_raises='import threading\nt = threading.Thread(target=lambda: 1/0)\nt.start(); t.join()',
)


def test_a_cell_that_fails_is_found(project):
    "One notebook for each kind of failure: every one of them is found, and the sound ones pass."
    for i, (name, source) in enumerate(BROKEN.items(), 3):
        nb.dump(book([f'# {name}', source]), place(project, f'{i:02}_{name}'))
    out = python(project, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-p', 'no:xdist', RUN)
    assert set(re.findall(r'^FAILED \S+::test_notebook_runs\[\d+_(\w+)\]', out.stdout, re.M)) == set(
        BROKEN
    ), out.stdout


def test_a_notebook_left_out_is_found(project):
    out = python(
        project,
        '-m',
        'pytest',
        '-q',
        '-p',
        'no:cacheprovider',
        '-p',
        'no:xdist',
        RUN,
        '-k',
        'tiny',
        '--all-notebooks',
    )
    assert out.returncode and 'notebooks executed: 1 of 3' in out.stdout
