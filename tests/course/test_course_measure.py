"Time and memory: what is measured is what was run, and a table keeps what it has."

import json
import subprocess
import sys

import fixtures_course as small
import nb
import pytest

from earthgpt_lite.app.cli import main, parse_command_line
from earthgpt_lite.course import measure
from earthgpt_lite.course.contents import LESSONS
from earthgpt_lite.errors import BadInput

ROW = dict(seconds=21, peak_mb=1234, date='2026-11-30')


def book(path, *sources):
    cells = [small.cell(f'c{k}', source) for k, source in enumerate(sources)]
    nb.dump(small.lesson() | dict(cells=cells), path)
    return path


@pytest.fixture
def here(monkeypatch):
    "A machine with two cores, on which everything runs at once"
    done = []

    def one(name, path):
        done.append(name)
        if name == 'boxes':
            raise measure.NotRun('boxes: ended with status 1 (by hand)')
        return ROW

    monkeypatch.setattr(measure, 'measure_one', one)
    monkeypatch.setattr(measure, 'this_column', lambda: 'two CPU cores')
    return done


@pytest.fixture
def lessons(tmp_path):
    "A folder of copies"
    for lesson in LESSONS:
        book(tmp_path / f'copies/{lesson.name}.ipynb', 'x = 1')
    return str(tmp_path / 'copies')


WATCH = """
import subprocess, sys
from earthgpt_lite.course.measure import MemoryWatch
code = 'x = b"x" * {}; import time; time.sleep(1.5)'
outer = f'import subprocess, sys; subprocess.run([sys.executable, "-c", {code.format(80_000_000)!r}])'
with MemoryWatch() as watch:
    both = [subprocess.Popen([sys.executable, '-c', c]) for c in (outer, code.format(120_000_000))]
    for process in both:
        process.wait()
with MemoryWatch() as idle:
    pass
print(watch.peak, idle.peak)
"""


def test_the_watch_sees_children_of_children():
    "In a process of its own: others have children that other tests left"
    done = subprocess.run([sys.executable, '-c', WATCH], capture_output=True, text=True, check=True)
    peak, idle = map(int, done.stdout.split())
    assert 200e6 < peak < 320e6 and idle == 0


@pytest.mark.skipif(sys.platform == 'darwin', reason='macOS does not remember the peak of a process')
def test_a_peak_between_two_looks_is_remembered():
    code = 'x = b"x" * 150_000_000; del x; import time; time.sleep(1)'
    with measure.MemoryWatch() as watch:
        subprocess.run([sys.executable, '-c', code])
    assert watch.peak > 150e6


def test_a_notebook_is_measured_alone_in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.setenv('EARTHGPT_LITE_FAST', '1')
    source = "import os\nassert os.listdir() == ['small.ipynb'] and 'EARTHGPT_LITE_FAST' not in os.environ"
    path = book(tmp_path / 'small.ipynb', source, "x = b'x' * 150_000_000\nopen('left.txt', 'w').close()")
    row = measure.measure_one('small', path)
    assert (
        row['peak_mb'] > 150
        and row['seconds'] >= 0
        and [p.name for p in tmp_path.iterdir()] == ['small.ipynb']
    )


@pytest.mark.parametrize('source, why', [('1 / 0', 'division by zero'), ('import os; os._exit(1)', 'died')])
def test_a_notebook_that_fails_is_not_measured(source, why, tmp_path):
    with pytest.raises(measure.NotRun, match=f'small.ipynb.*{why}'):
        measure.measure_one('small', book(tmp_path / 'small.ipynb', source))


def test_a_command_that_fails_is_not_measured(monkeypatch):
    monkeypatch.setitem(measure.COMMANDS, 'ask', 'ask nano nowhere.tif "what?"')
    with pytest.raises(measure.NotRun, match='ask: ended with status 2 .*nowhere.tif'):
        measure.measure_one('ask')


@pytest.mark.parametrize('name', measure.COMMANDS)
def test_commands_are_words_of_the_command_line(name):
    assert parse_command_line(measure._words(measure.COMMANDS[name])).run


def test_all_is_measured_and_what_fails_is_told(here, lessons, tmp_path, capsys):
    out = tmp_path / 'times.json'
    assert main(['course', 'measure', '--notebooks', lessons, '--out', str(out)]) == 1
    told = capsys.readouterr()
    assert here == [lesson.slug for lesson in LESSONS] + list(measure.COMMANDS)
    rows = measure.read_times(out)['two CPU cores']['rows']
    assert list(rows) == [name for name in here if name != 'boxes']
    assert 'by hand' in told.err and told.out.count('21 s, 1.2 GB') == len(here) - 1


def test_a_table_is_filled_further(here, lessons, tmp_path):
    out = tmp_path / 'times.json'
    other = dict(machine='a T4', version='0.1.0', rows=dict(vision=ROW | dict(seconds=9)))
    out.write_text(json.dumps({'T4': other, 'two CPU cores': other}))
    assert main(['course', 'measure', 'ask', 'chips', '--notebooks', lessons, '--out', str(out)]) == 0
    times = measure.read_times(out)
    assert here == ['chips', 'ask'] and times['T4'] == other
    assert {name: row['seconds'] for name, row in times['two CPU cores']['rows'].items()} == dict(
        chips=21, vision=9, ask=21
    )
    head, *rows = measure.times_rows(times)
    table = {row[0]: dict(zip(head, row)) for row in rows}
    assert table['Seeing twice'] == {
        '': 'Seeing twice',
        'two CPU cores': '9 s, 1.2 GB',
        'T4': '9 s, 1.2 GB',
    } | {'A100': measure.NOT_MEASURED}
    assert table['`doctor`']['two CPU cores'] == measure.NOT_MEASURED


@pytest.mark.parametrize('text', ['{"mine": 1}', '[]', '', '{"T4": {"rows": {"vision": 3}}}', '{"T4": {}}'])
def test_what_is_no_table_is_not_written_into(text, here, lessons, tmp_path, capsys):
    out = tmp_path / 'times.json'
    out.write_text(text)
    assert main(['course', 'measure', '--notebooks', lessons, '--out', str(out)]) == 2
    assert not here and out.read_text() == text and 'times.json' in capsys.readouterr().err


def test_names_and_notebooks_are_looked_up_first(here, lessons, tmp_path, capsys):
    assert main(['course', 'measure', 'visions', '--notebooks', lessons]) == 2
    assert main(['course', 'measure', 'vision', '--notebooks', str(tmp_path)]) == 2
    assert '05_vision.ipynb' in capsys.readouterr().err and not here
    assert main(['course', 'measure', 'ask', '--notebooks', str(tmp_path)]) == 0


@pytest.mark.parametrize(
    'gpu, cores, column',
    [
        (None, 2, 'two CPU cores'),
        (None, 1, '1 CPU core'),
        (None, 16, '16 CPU cores'),
        ('Tesla T4', 2, 'T4'),
        ('NVIDIA A100-SXM4-40GB', 12, 'A100'),
        ('NVIDIA A100 80GB PCIe', 12, 'A100'),
        ('NVIDIA T400', 2, 'NVIDIA T400'),
    ],
)
def test_a_machine_has_its_column(gpu, cores, column):
    assert measure.column_of(gpu, cores) == column


def test_the_stored_table_is_one():
    times = measure.read_times()
    assert set(times['two CPU cores']['rows']) >= {lesson.slug for lesson in LESSONS}
    with pytest.raises(BadInput, match='nowhere.json'):
        measure.read_times('nowhere.json')
