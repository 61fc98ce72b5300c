"The checks of the notebooks find what they are for: each fault is put into a small copy of the project, and they must fail."

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import house
import nb
import pytest

ROOT = Path(__file__).parent.parent
SYNC, RUN = 'tests/test_notebooks_sync.py', 'tests/test_notebooks_run.py'
FRAME = [
    'settings.ini',
    'setup.py',
    'pytest.ini',
    'tools/nb.py',
    'tools/house.py',
    'tests/conftest.py',
    'tests/fixtures_outside.py',
    SYNC,
    RUN,
]
TINY_BOOK, MORE_BOOK = '1_raster/01_tiny', '2_boxes/01_more'
TINY = {
    'index': ['# Tiny', 'print(1 + 1)'],
    TINY_BOOK: [
        '# Tiny',
        '#| default_exp raster.tiny',
        '#| export\ndef double(x):\n    return 2*x',
        'assert double(2) == 4',
    ],
    MORE_BOOK: [
        '# More',
        '#| default_exp boxes.more',
        '#| export\nfrom earthgpt_lite.raster.tiny import double',
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


def put(root, name, cells):
    "Write a notebook with its link to Colab and its install cell"
    nb.dump(book(cells), place(root, name))
    nb.dump(nb.stamped(place(root, name), root), place(root, name))


def add(root, name, source):
    "Append a code cell to a notebook"
    cells = [c for c in nb.load(place(root, name))['cells'] if c['id'] != 'install']
    put(root, name, [*(''.join(c['source']) for c in cells), source])


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
    (tmp_path / 'earthgpt_lite').mkdir()
    (tmp_path / 'earthgpt_lite/__init__.py').write_text("__version__ = '0.1.0'\n")
    for name, cells in TINY.items():
        put(tmp_path, name, cells)
    export(tmp_path)
    nb.readme(tmp_path / 'index.ipynb', tmp_path / 'README.md')
    return tmp_path


def test_a_sound_project_passes(project):
    assert failed(project, SYNC, RUN, '-m', 'not slow', '--all-notebooks') == set()


def test_a_module_edited_by_hand_is_found(project):
    module = project / 'earthgpt_lite/raster/tiny.py'
    module.write_text(module.read_text().replace('2*x', 'x+x'))
    assert failed(project, SYNC) == {'test_package_is_what_the_notebooks_export'}


def test_a_stale_module_is_found(project):
    place(project, MORE_BOOK).unlink()
    assert 'test_package_is_what_the_notebooks_export' in failed(project, SYNC)


def test_a_module_without_a_notebook_is_found(project):
    (project / 'earthgpt_lite/extra.py').write_text('x = 1\n')
    assert 'test_every_module_has_its_notebook' in failed(project, SYNC)


def test_a_notebook_not_exported_is_found(project):
    add(project, TINY_BOOK, '#| export\ndef triple(x): return 3*x')
    assert failed(project, SYNC) == {'test_package_is_what_the_notebooks_export'}


def test_a_stale_readme_is_found(project):
    add(project, 'index', '3')
    assert failed(project, SYNC) == {'test_readme_is_the_front_page'}


def test_an_unclean_notebook_is_found(project):
    d = nb.load(place(project, TINY_BOOK))
    d['cells'][3]['execution_count'] = 7
    nb.dump(d, place(project, TINY_BOOK))
    assert failed(project, SYNC) == {'test_notebook_is_clean'}


def test_a_notebook_without_its_install_cell_is_found(project):
    d = nb.load(place(project, TINY_BOOK))
    d['cells'] = [c for c in d['cells'] if c['id'] != 'install']
    nb.dump(d, place(project, TINY_BOOK))
    found = {'test_notebook_can_be_opened_alone', 'test_student_copy_has_no_solution'}
    assert failed(project, SYNC) == found


@pytest.mark.parametrize('old', ['blob/v', 'earthgpt-lite=='])
def test_a_link_or_an_install_cell_of_another_version_is_found(project, old):
    for name in TINY:
        path = place(project, name)
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, f'{old}9'))
    stale = [
        name for name in TINY if nb.load(place(project, name)) != nb.stamped(place(project, name), project)
    ]
    assert stale == list(TINY)


def test_the_install_cell_brings_the_extras_that_the_head_names(project):
    head = '# Tiny\n\n**Data** none; needs `pip install "earthgpt-lite[lora,geo]"`'
    put(project, MORE_BOOK, [head, '1'])
    install = ''.join(nb.load(place(project, MORE_BOOK))['cells'][1]['source'])
    assert '"earthgpt-lite[geo,lora]==' in install
    (project / 'settings.ini').write_text(
        (project / 'settings.ini').read_text().replace('version = ', 'version = 7.')
    )
    again = nb.stamped(place(project, MORE_BOOK), project)
    assert '[geo,lora]==7.' in ''.join(again['cells'][1]['source'])
    assert [''.join(c['source']).count('Open in Colab') for c in again['cells']] == [1, 0, 0]


def test_a_link_to_a_file_that_stays_behind_is_found(project):
    put(project, MORE_BOOK, ['# More\n\n![a picture](../../settings.ini)', '1'])
    (fault,) = nb.faults(place(project, MORE_BOOK))
    assert 'settings.ini' in fault


def test_an_import_upwards_is_found(project):
    add(
        project,
        TINY_BOOK,
        '#| export\ndef later():\n    from earthgpt_lite.boxes.more import double\n    return double',
    )
    export(project)
    assert failed(project, SYNC) == {'test_module_imports_only_lower_ones'}


PLANTED = {
    'a part to the right': ('boxes', 'earthgpt_lite.boxes.more', 'import double'),
    'train and eval know each other': ('train', 'earthgpt_lite.eval.marks', 'import mark'),
    'a later notebook of its part': ('raster', 'earthgpt_lite.raster.zoom', 'import zoom'),
}


@pytest.mark.parametrize('name', PLANTED)
def test_a_planted_import_is_found(project, name):
    "Two modules that import each other, a part that looks to its right, train and eval: each is named."
    for where, module, code in (
        ('6_eval/01_marks', 'eval.marks', 'mark = 1'),
        ('5_train/01_steps', 'train.steps', 'step = 1'),
        ('1_raster/02_zoom', 'raster.zoom', 'zoom = 2'),
    ):
        put(project, where, [f'# {where}', f'#| default_exp {module}', f'#| export\n{code}'])
    export(project)
    assert list(house.import_faults(project)) == []
    part, module, words = PLANTED[name]
    book_of = dict(boxes=TINY_BOOK, train='5_train/01_steps', raster=TINY_BOOK)[part]
    add(project, book_of, f'#| export\ndef later():\n    from {module} {words}')
    export(project)
    (fault,) = house.import_faults(project)
    assert module.removeprefix('earthgpt_lite.') in fault
    assert failed(project, SYNC) == {'test_module_imports_only_lower_ones'}


def test_a_dangling_reference_is_found(project):
    "A link, a lesson by its place and one by an old number."
    cells = [
        '# Tiny\n\nSee [there](../2_boxes/99_gone.ipynb), and lesson 4_model/06_blocks.',
        '# of 2_boxes/98_gone',
    ]
    nb.dump(book(cells), place(project, '1_raster/03_lost'))
    faults = ' '.join(house.reference_faults(project))
    assert '99_gone' in faults and '98_gone' in faults and 'lesson 4_model/06_blocks' in faults


def test_dense_lines_are_found(project):
    text = 'def f(a, b, c, d, e, g, h, i, j):\n    x = [k for k in a if (lambda q: q)(k) or (y := k)]; return x\n'
    (project / 'earthgpt_lite/raster/tiny.py').write_text(text + f'long = "{"x" * 140}"\n')
    found = house.line_measures(project)
    worst = {name: rows[-1][1] for name, rows in found.items() if rows}
    assert worst == {'two statements': 2, 'inline': 3, 'length': 149, 'function': 2, 'parameters': 9}


BROKEN = dict(
    raises='1/0',
    outdated='import warnings\nwarnings.warn("gone in the next version", DeprecationWarning)',
    repr_raises='class Map:\n    def _repr_html_(self): raise KeyError("features")\nMap()',
    figure_does_not_draw="import matplotlib.pyplot as plt\nplt.title(r'$\\frac$');",
    widget_callback_raises='import ipywidgets as w\nw.interactive_output(lambda k: 1/k, dict(k=w.IntSlider()))',
    button_raises="import ipywidgets as w\nb = w.Button()\nb.on_click(lambda b: 1/0)\nb.click()",
    thread_raises='import threading\nt = threading.Thread(target=lambda: 1/0)\nt.start(); t.join()',
    reads_the_repository="open('../../settings.ini')",
    imports_from_the_repository='import house',
    imports_what_developers_have='import hypothesis',
    asks_the_network="import socket\nsocket.create_connection(('192.0.2.1', 80), 1)",
    does_so_in_a_child='import subprocess, sys\n'
    'subprocess.run([sys.executable, "-c", "import socket; socket.getaddrinfo(\'example.org\', 80)"], check=True)',
)


def test_a_cell_that_fails_is_found(project):
    "One notebook for each kind of failure: every one of them is found, and the sound ones pass."
    for i, (name, source) in enumerate(BROKEN.items(), 3):
        put(project, f'1_raster/{i:02}_{name}', [f'# {name}', source])
    out = python(project, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-p', 'no:xdist', RUN)
    assert set(re.findall(r'^FAILED \S+::test_notebook_runs\[1_raster/\d+_(\w+)\]', out.stdout, re.M)) == set(
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
