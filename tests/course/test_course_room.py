"A machine looks at itself, and a room of results says who needs help: any fault, any file."

import copy
import csv
import json
import os
import random
import re
import shutil
import sys

import pytest

from earthgpt_lite.app.cli import main
from earthgpt_lite.course import collect, looks, room, widget
from earthgpt_lite.errors import BadInput

CHROME = 'chromium', 'chromium-browser', 'google-chrome'
PASSED = [dict(what=what, seconds=0.1, error=None) for what in ('reads a picture', 'trains on cpu')]
GPU = dict(name='NVIDIA T4', memory_gb=15.8, error=None, steps_per_second=30.0, first_loss=6, last_loss=1)


def machine(k, **changed):
    "The result of a check on machine k, all well"
    made = dict(form=room.FORM, form_version=1, who=f'Person {k}', host=f'lab-{k:02}', machine=f'{k:012x}')
    made |= dict(time='2026-11-30T08:00:00+00:00', system='Linux x86_64', python='3.11.7', seconds=24.0)
    made |= dict(versions={'earthgpt-lite': '0.1.0', 'numpy': '2.4.6', 'torch': '2.13.0+cpu'})
    made |= dict(disk=dict(free_gb=40.0 + k, where='here'), memory=dict(all_gb=8.0, free_gb=5.0))
    speed = random.Random(k).uniform(4, 8)
    made |= dict(training=dict(steps_per_second=speed, seconds=10.0, first_loss=5.7, last_loss=2.1))
    seen = dict(extension='5.0.16', kernel=True, seen='pressed', not_seen=None, error=None, mend=None)
    return copy.deepcopy(made | dict(tests=PASSED, widget=seen, gpus=[], faults=[])) | changed


def write(folder, results):
    folder.mkdir(exist_ok=True)
    for k, found in enumerate(results):
        text = found if isinstance(found, str) else json.dumps(found)
        (folder / f'check-{k:02}.json').write_text(text, encoding='utf-8')
    return folder


def rows_of(folder):
    results, broken, _ = collect.read_results(folder)
    return collect.room_rows(results, broken)


def inside(part, **changed):
    "A change of one part of a result"
    return lambda k: machine(k, **{part: machine(k)[part] | changed})


FAULTS = dict(
    disk=(inside('disk', free_gb=0.3), 'disk', 'empty'),
    memory_free=(inside('memory', free_gb=1.2), 'memory', 'close'),
    memory_all=(inside('memory', all_gb=2.0, free_gb=1.5), 'memory', 'share'),
    other_numpy=(inside('versions', numpy='1.26.4'), 'versions', 'numpy==2.4.6'),
    older_package=(inside('versions', **{'earthgpt-lite': '0.0.9'}), 'versions', 'earthgpt-lite==0.1.0'),
    missing=(inside('versions', numpy=None), 'versions', 'pip install numpy'),
    no_extension=(inside('widget', extension=None, seen=None), 'widget', 'jupyterlab'),
    no_kernel=(inside('widget', kernel=False, seen=None), 'widget', 'ipykernel'),
    no_press=(inside('widget', seen=None, error='it does not answer', mend='look'), 'widget', 'look'),
    slow=(inside('training', steps_per_second=1.0), 'training', 'plug it in'),
    stopped=(inside('training', steps_per_second=0), 'training', 'plug it in'),
    learns_nothing=(inside('training', last_loss=5.9), 'training', 'torch'),
    broken_training=(lambda k: machine(k, training=dict(error='RuntimeError: x')), 'training', 'doctor'),
    failed_test=(lambda k: machine(k, tests=[PASSED[0] | dict(error='OSError: x')]), 'tests', 'doctor'),
    gpu=(lambda k: machine(k, gpus=[GPU | dict(error='CUDA error: no kernel image')]), 'gpus', 'driver'),
    gpu_learns_nothing=(lambda k: machine(k, gpus=[GPU | dict(last_loss=9)]), 'gpus', 'torch'),
    stored=(lambda k: machine(k, faults=[dict(what='sound', said='loud', mend='hush')]), 'sound', 'hush'),
    torn=(lambda k: json.dumps(machine(k))[:200], 'file', 'course check'),
    empty=(lambda k: '', 'file', 'course check'),
    foreign=(lambda k: '{"version": 3}', 'file', 'course check'),
    list=(lambda k: '[1]', 'file', 'course check'),
    deep=(lambda k: '[' * 100_000, 'file', 'course check'),
    huge=(lambda k: json.dumps(machine(k) | dict(more='x' * 2_000_000)), 'file', 'course check'),
    digits=(lambda k: '{"form": ' + '9' * 5000 + '}', 'file', 'course check'),
    newer=(lambda k: machine(k, form_version=2), 'file', 'same earthgpt-lite'),
    not_a_number=(inside('training', steps_per_second=float('nan')), 'training', 'course check'),
    text_for_a_number=(inside('disk', free_gb='40'), 'disk', 'course check'),
    other_kind=(lambda k: machine(k, gpus='none'), 'gpus', 'course check'),
    part_missing=(lambda k: {n: v for n, v in machine(k).items() if n != 'memory'}, 'memory', 'course check'),
)


# ---- the room


@pytest.mark.parametrize('name', FAULTS)
def test_one_fault_among_25_is_named_with_its_mend(name, tmp_path):
    make, what, mend = FAULTS[name]
    rows = rows_of(write(tmp_path / 'room', [*map(machine, range(7)), make(7), *map(machine, range(8, 25))]))
    (ill,) = [row for row in rows if row['faults']]
    assert len(rows) == 25 and rows[0] is ill
    assert [fault['what'] for fault in ill['faults']] == [what]
    assert mend in ill['faults'][0]['mend'] and ill['faults'][0]['said']
    assert ill['who'] == 'Person 7' if what != 'file' else ill['file'] == 'check-07.json'


@pytest.mark.parametrize('seed', range(8))
def test_three_faults_of_25(seed, tmp_path, capsys):
    chosen = random.Random(seed).sample(sorted(FAULTS), 3)
    places = dict(zip(random.Random(seed).sample(range(25), 3), chosen))
    results = [FAULTS[places[k]][0](k) if k in places else machine(k) for k in range(25)]
    out = tmp_path / 'room.html'
    assert main(['course', 'collect', str(write(tmp_path / 'room', results)), '--out', str(out)]) == 1
    told = capsys.readouterr().out
    assert '25 results, 22 well, 3 with faults.' in told
    blocks = told.split('\n\n')[1:-1]
    assert len(blocks) == 3
    for k, name in places.items():
        (block,) = [b for b in blocks if f'check-{k:02}.json' in b]
        assert FAULTS[name][2] in block.split('mend: ')[1]
        assert f'check-{k:02}.json' in out.read_text(encoding='utf-8')


def test_a_room_that_is_well(tmp_path, capsys):
    assert main(['course', 'collect', str(write(tmp_path / 'room', map(machine, range(25))))]) == 0
    assert '25 results, 25 well, 0 with faults.' in capsys.readouterr().out


def test_the_latest_check_of_a_machine_counts(tmp_path, capsys):
    mended = machine(1, time='2026-11-30T10:00:00+02:00')  # an hour before the other, by the clock of both
    ill = machine(1, time='2026-11-30T09:00:00', disk=dict(free_gb=0.1, where='here'))
    folder = write(tmp_path / 'room', [ill, mended, machine(2), machine(2)])
    assert main(['course', 'collect', str(folder)]) == 1
    told = capsys.readouterr()
    assert '2 results, 1 well, 1 with faults.' in told.out and told.err.count('left aside') == 2
    (folder / 'later.JSON').write_text(json.dumps(mended | dict(time='2026-11-30T12:00:00Z')))
    assert main(['course', 'collect', str(folder)]) == 0


@pytest.mark.parametrize('what', ['who', 'host', 'machine'])
def test_what_differs_in_a_name_is_another_machine(what, tmp_path):
    assert len(rows_of(write(tmp_path / 'room', [machine(1), machine(1, **{what: 'other'})]))) == 2


def test_a_time_that_is_none_is_the_oldest(tmp_path):
    results = [machine(1, time=3), machine(1, disk=dict(free_gb=0.1, where='here')), machine(1, time='soon')]
    (row,) = rows_of(write(tmp_path / 'room', results))
    assert row['faults']


def test_a_widget_at_which_nobody_looked_is_told_and_no_fault(tmp_path, capsys):
    unseen = inside('widget', seen=None, not_seen='playwright is not installed')(1)
    assert main(['course', 'collect', str(write(tmp_path / 'room', [unseen, machine(2)]))]) == 0
    assert 'at 1 nobody has looked at a widget yet' in capsys.readouterr().out


def test_two_halves_of_a_room_are_held_against_what_was_tested(tmp_path):
    numpy = [dict(numpy=v) for v in ('2.4.5', '2.4.6', '2.4.5', '2.4.6')]
    rows = rows_of(write(tmp_path / 'room', [inside('versions', **v)(k) for k, v in enumerate(numpy)]))
    ill = [row['who'] for row in rows if row['faults']]
    assert ill == ['Person 0', 'Person 2']


def test_the_build_of_torch_is_left_aside(tmp_path):
    cuda = inside('versions', torch='2.13.0+cu130')
    assert not any(row['faults'] for row in rows_of(write(tmp_path / 'room', [cuda(0), machine(1)])))


def test_laptops_differ_by_two(tmp_path):
    speeds = [2.6, 3, 4, 5, 6]
    results = [inside('training', steps_per_second=s)(k) for k, s in enumerate(speeds)]
    assert not any(row['faults'] for row in rows_of(write(tmp_path / 'room', results)))


@pytest.mark.parametrize('out', ['room.html', 'room.png', 'room.csv'])
def test_the_table_is_written(out, tmp_path, capsys):
    folder, out = write(tmp_path / 'room', [machine(1), FAULTS['disk'][0](2)]), tmp_path / out
    command = ['course', 'collect', str(folder), '--out', str(out)]
    assert main(command) == 1 and out.stat().st_size > 200
    assert main(command) == 2 and 'exists already' in capsys.readouterr().err
    assert main([*command, '--force']) == 1


def test_the_spreadsheet_holds_faults_and_mends(tmp_path):
    rows = rows_of(write(tmp_path / 'room', [machine(1), FAULTS['disk'][0](2)]))
    head, ill, well = csv.reader(collect.room_csv(rows).splitlines())
    table = dict(zip(head, ill))
    assert table['who'] == 'Person 2' and 'GB of disk' in table['what is wrong'] and table['mend']
    assert dict(zip(head, well))['faults'] == 'none'


NASTY = '=cmd|x!A0 <script>alert(1)</script> \x1b[31m $\\frac{1$ \u202e\n' + 'long ' * 100


def test_names_steer_neither_terminal_nor_page_nor_spreadsheet(tmp_path):
    fault = dict(what=NASTY, said=NASTY, mend=NASTY)
    nasty = machine(1, who=NASTY, host=NASTY, gpus=[GPU | dict(name=NASTY)], faults=[fault])
    nasty['versions'] = {'earthgpt-lite': NASTY, NASTY: NASTY}
    nasty['disk'] = dict(free_gb=0.1, where=NASTY)
    rows = rows_of(write(tmp_path / 'room', [nasty, machine(2), machine(3)]))
    text, page, table = collect.room_text(rows), collect.room_page(rows), collect.room_csv(rows)
    assert not re.search('[\x1b\u202e]', text + page + table) and '<script' not in page
    assert max(map(len, text.splitlines())) < 2500
    for row in csv.reader(table.splitlines()):
        assert not [cell for cell in row if cell[:1] in tuple('=+-@')]
    assert collect.room_png(rows).startswith(b'\x89PNG')


ODD = [None, True, 3, -1e308, 'x', [], [[]], {}, {'a': []}, [None], [{}], '\ud800']


@pytest.mark.parametrize('part', [*room.PARTS, 'who', 'host', 'machine', 'time', 'faults', 'form_version'])
def test_odd_values_hide_nobody(part, tmp_path):
    results = [machine(k, **{part: odd}) for k, odd in enumerate(ODD)]
    rows = rows_of(write(tmp_path / 'room', results))
    assert len(rows) == len(ODD)
    for form in (collect.room_text, collect.room_page, collect.room_csv):
        assert form(rows)
    assert part != 'gpus' or collect.room_png(rows)  # slow, so once
    if part in room.PARTS:
        fine = dict(tests=[[], {}], gpus=[[], {}], versions=[]).get(part, [])
        ill = {row['file'] for row in rows if row['faults']}
        assert len(ill) >= len(ODD) - 2 - len(fine), part


def test_files_that_are_none(tmp_path):
    folder = write(tmp_path / 'room', [machine(1)])
    (folder / 'folder.json').mkdir()
    (folder / 'bytes.json').write_bytes(b'\xff\xfe{}')
    (folder / 'notes.txt').write_text('no result')
    (folder / '.hidden.json').write_text('{')
    if hasattr(os, 'mkfifo'):
        os.mkfifo(folder / 'pipe.json')
    rows = rows_of(folder)
    assert len(rows) == 3 + hasattr(os, 'mkfifo')
    assert sum(bool(row['faults']) for row in rows) == len(rows) - 1


def test_results_below_folders_and_with_a_mark_of_windows(tmp_path):
    write(tmp_path / 'room', [machine(1)])
    below = write(tmp_path / 'room/Ben', [])
    (below / 'check.json').write_text('\ufeff' + json.dumps(machine(2)), encoding='utf-8')
    assert (
        not any(row['faults'] for row in rows_of(tmp_path / 'room')) and len(rows_of(tmp_path / 'room')) == 2
    )


def test_a_folder_without_results_is_refused(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / 'nowhere'):
        assert main(['course', 'collect', str(folder)]) == 2
        assert str(folder) in capsys.readouterr().err
    folder = write(tmp_path / 'room', [machine(1)])
    assert main(['course', 'collect', str(folder), '--out', str(tmp_path / 'a.pdf')]) == 2
    assert '.html, .png or .csv' in capsys.readouterr().err


def test_a_large_room_is_a_table_and_not_a_picture(tmp_path):
    rows = rows_of(write(tmp_path / 'room', [machine(1)])) * 201
    with pytest.raises(BadInput, match='201 machines'):
        collect.room_png(rows)
    assert collect.room_page(rows).count('<tr>') == 202


def test_for_programs(tmp_path, capsys):
    assert main(['course', 'collect', str(write(tmp_path / 'room', [FAULTS['disk'][0](1)])), '--json']) == 1
    (row,) = json.loads(capsys.readouterr().out)
    assert row['who'] == 'Person 1' and row['faults'][0]['what'] == 'disk'


# ---- one machine


@pytest.fixture
def quick(monkeypatch):
    "Looks that take no time, to be changed"
    well = machine(1)
    quick = {what: lambda part=well[what]: part for what in room.PARTS}
    monkeypatch.setattr(room, '_LOOKS', quick)
    return quick


def test_a_check_writes_one_file(quick, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['course', 'check', '--who', 'Ada Ö. <b>']) == 0
    told = capsys.readouterr()
    (path,) = tmp_path.iterdir()
    found = json.loads(path.read_text())
    assert path.name.startswith('check-') and path.name.endswith('ada-ö-b.json')
    assert found['who'] == 'Ada Ö. <b>' and found['faults'] == [] and 'All is well' in told.out
    assert [line.split()[0] for line in told.err.splitlines()[1:]] == list(room.PARTS)
    assert main(['course', 'check', '--who', 'Ada Ö. <b>']) == 0, 'a check may be taken again'
    assert not any(row['faults'] for row in rows_of(tmp_path))


def test_a_fault_is_the_status_of_a_check(quick, tmp_path, capsys):
    quick['disk'] = lambda: dict(free_gb=0.2, where='here')
    assert main(['course', 'check', '--out', str(tmp_path / 'a.json')]) == 1
    told = capsys.readouterr().out
    assert '0.2 GB of disk are free here' in told and 'mend: empty' in told
    assert main(['course', 'check', '--out', str(tmp_path / 'a.json'), '--json']) == 1
    assert json.loads(capsys.readouterr().out)['faults'][0]['what'] == 'disk'


@pytest.mark.parametrize('what', room.PARTS)
def test_a_look_that_breaks_hides_no_other(what, quick, capsys):
    def broken():
        raise RuntimeError('by hand')

    quick[what] = broken
    found = room.check_machine('Ada', lambda line: None)
    (fault,) = found['faults']
    assert fault['what'] == what and 'by hand' in fault['said'] and fault['mend']


@pytest.mark.parametrize('text', ['{"form": "mine"}', 'words', '[]'])
def test_what_is_no_check_is_not_replaced(text, quick, tmp_path, capsys):
    path = tmp_path / 'a.json'
    path.write_text(text)
    assert main(['course', 'check', '--out', str(path)]) == 2
    assert 'a.json exists already' in capsys.readouterr().err and path.read_text() == text
    assert main(['course', 'check', '--out', str(path), '--force']) == 0


def test_a_widget_that_was_not_seen_gets_a_notebook(quick, tmp_path, capsys):
    quick['widget'] = lambda: inside('widget', seen=None, not_seen='playwright is not installed')(1)['widget']
    assert main(['course', 'check', '--out', str(tmp_path / 'a.json')]) == 0
    told = capsys.readouterr().out
    assert 'not looked at: playwright is not installed' in told and 'jupyter lab' in told
    assert "widget_button('a.json')" in (tmp_path / 'a.ipynb').read_text()


def test_a_press_by_hand_is_written_into_the_result(tmp_path):
    path = tmp_path / 'a.json'
    path.write_text(json.dumps(inside('widget', seen=None, not_seen='no browser')(1)))
    panel = widget.widget_button(str(path))
    panel.children[0].click()
    assert widget.HEARD in panel.children[1].value
    (row,) = rows_of(tmp_path)
    assert row['widget'] == 'works' and not row['faults']
    path.write_text('{}')
    panel.children[0].click()
    assert 'is no result' in panel.children[1].value


def test_without_a_browser_nothing_is_claimed(monkeypatch):
    def none(path):
        raise widget.NotSeen('no browser here')

    monkeypatch.setattr(widget, 'press_button', none)
    monkeypatch.setattr(widget, 'run_kernel', lambda path: None)
    found = widget.look_at_widget()
    assert (found['seen'], found['not_seen'], found['error']) == (None, 'no browser here', None)
    assert room.part_text(dict(widget=found), 'widget') == 'not looked at'


@pytest.mark.parametrize(
    'info, said',
    [
        (dict(federated_extensions={}, disabled={}), 'has no widget extension'),
        (
            dict(
                federated_extensions={widget._EXTENSION: dict(version='5')},
                disabled={f'{widget._EXTENSION}:plugin': True},
            ),
            'switched off',
        ),
    ],
)
def test_a_widget_extension_that_is_not_there_is_a_fault(info, said, monkeypatch):
    monkeypatch.setattr('jupyterlab.commands.get_app_info', lambda options: info)
    found = widget.look_at_widget()
    assert said in found['error'] and 'restart JupyterLab' in found['mend'] and not found['seen']
    assert room.part_text(dict(widget=found), 'widget') == 'failed'


def test_a_gpu_that_fails_is_a_fault_and_the_next_is_tried(monkeypatch):
    class About:
        name, total_memory = 'NVIDIA T4', 15.8e9

    def train(device, seconds):
        if device == 'cuda:0':
            raise RuntimeError('CUDA error: no kernel image is available\nmore')
        return dict(steps_per_second=30.0, seconds=3, first_loss=6, last_loss=2)

    monkeypatch.setattr('torch.cuda.is_available', lambda: True)
    monkeypatch.setattr('torch.cuda.device_count', lambda: 2)
    monkeypatch.setattr('torch.cuda.get_device_properties', lambda k: About)
    monkeypatch.setattr(looks, 'train_briefly', train)
    first, second = looks.look_at_gpus()
    assert 'no kernel image' in first['error'] and 'more' not in first['error']
    assert second['error'] is None and second['steps_per_second'] == 30
    faults = room.find_faults(machine(1, gpus=[first, second]))
    assert [fault['what'] for fault in faults] == ['gpus'] and 'NVIDIA T4' in faults[0]['said']


def test_a_gpu_that_torch_does_not_find(monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    monkeypatch.setattr(looks, '_nvidia_names', lambda: ['NVIDIA T4'])
    monkeypatch.setattr('torch.version.cuda', '13.0')
    (gpu,) = looks.look_at_gpus()
    assert 'torch does not find it' in room.find_faults(machine(1, gpus=[gpu]))[0]['said']
    monkeypatch.setattr('torch.version.cuda', None)  # a torch for CPUs was chosen
    assert looks.look_at_gpus() == []


def test_a_short_training_learns(monkeypatch):
    trained = looks.train_briefly(seconds=0)
    assert trained['steps_per_second'] > 0 and trained['last_loss'] < trained['first_loss']


@pytest.mark.slow
def test_a_kernel_that_lacks_the_package_is_a_fault(tmp_path):
    book = widget.write_widget_notebook(tmp_path / 'widget.ipynb')
    book.write_text(book.read_text().replace('earthgpt_lite.course', 'earthgpt_missing'))
    with pytest.raises(widget.Fault, match='lacks something .ModuleNotFoundError'):
        widget.run_kernel(book)
    book.write_text(
        book.read_text().replace('from earthgpt_missing', 'print(1) #').replace('widget_button(', '(')
    )
    with pytest.raises(widget.Fault, match='sends no widget'):
        widget.run_kernel(book)


def test_a_kernel_that_does_not_start_is_a_fault(tmp_path, monkeypatch):
    def none(self, **options):
        raise RuntimeError('No such kernel named python3')

    monkeypatch.setattr('nbclient.NotebookClient.execute', none)
    with pytest.raises(widget.Fault, match='does not run .No such kernel.*ipykernel install'):
        widget.run_kernel(widget.write_widget_notebook(tmp_path / 'widget.ipynb'))


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, CHROME)), reason='Chromium is missing')
def test_the_button_is_pressed_in_a_browser(tmp_path, monkeypatch):
    pytest.importorskip('playwright', reason='playwright is missing')
    book = widget.write_widget_notebook(tmp_path / 'widget.ipynb')
    assert widget.press_button(book).startswith('pressed in Chromium')
    monkeypatch.setattr(widget, '_TO_ANSWER', 3_000)
    book.write_text(book.read_text().replace('widget_button(', 'type('))
    with pytest.raises(widget.Fault, match='does not answer'):
        widget.press_button(book)


def test_without_playwright_no_browser_is_driven(monkeypatch):
    monkeypatch.setitem(sys.modules, 'playwright.sync_api', None)
    with pytest.raises(widget.NotSeen, match='playwright is not installed'):
        with widget.browser():
            pass
