"The commands for data, as a person or a script types them: what is said, what is written, and the exit status."

import json
import os
import shutil

import pytest
from fixtures_readers import build, picture, write

import earthgpt_lite.data.convert as readers
from earthgpt_lite.app.cli import main
from earthgpt_lite.data.records import Record, Turn
from earthgpt_lite.data.registry import READERS
from earthgpt_lite.data.store import read_rows, write_rows


@pytest.fixture
def type_(capsys):
    def call(*words):
        capsys.readouterr()
        status = main(['data', *map(str, words)])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def refused(result, *words):
    status, out, err = result
    assert status == 2 and not out and err.startswith('earthgpt-lite: ') and err.count('\n') == 1, result
    assert all(str(w) in err for w in words), err


def records(folder, n=3):
    for i in range(n):
        picture(folder / f'{i}.png')
    return [Record(f'{i}.png', [Turn('what is it?', f'thing {i}')]).to_json() for i in range(n)]


# ---- convert


def test_convert_says_what_was_made_and_what_to_type_next(tmp_path, type_):
    build('hrsid', tmp_path / 'in')
    status, out, err = type_('convert', 'hrsid', tmp_path / 'in', tmp_path / 'out')
    assert (
        status == 0
        and not err
        and 'detection' in out
        and 'sar' in out
        and f'data check {tmp_path / "out"}' in out
    )
    assert sorted(p.name for p in (tmp_path / 'out').iterdir()) == [
        'begun.json',
        'info.json',
        'records.jsonl',
    ]
    assert type_('check', tmp_path / 'out')[0] == 0
    status, out, _ = type_('convert', 'hrsid', tmp_path / 'in', tmp_path / 'out')
    assert status == 0 and 'converted before' in out


def test_convert_for_a_program(tmp_path, type_):
    build('hit-uav-rotated', tmp_path / 'in')
    status, out, _ = type_(
        'convert',
        'hit-uav-rotated',
        tmp_path / 'in',
        tmp_path / 'out',
        '--json',
        '--oriented',
        '--decimals',
        3,
    )
    result = json.loads(out)
    assert (
        status == 0
        and out.count('\n') == 1
        and result == json.loads((tmp_path / 'out/info.json').read_text())
        and result['sensors'] == {'infrared': result['records']}
    )
    answers = [
        t['value']
        for r in read_rows(tmp_path / 'out/records.jsonl')
        for t in r['conversations'][1::2]
        if '[' in t['value']
    ]
    assert answers and all(a.split('[')[1].count(',') == 7 for a in answers), 'four corners'


def test_an_unverified_reader_says_so(tmp_path, type_):
    for name in ('rsod', 'dota'):
        build(name, tmp_path / name)
        assert (
            'no public source' in type_('convert', name, tmp_path / name, tmp_path / f'{name}-out')[1]
        ) == (not READERS[name].verified)


def test_the_folder_of_another_data_set(tmp_path, type_):
    build('dota', tmp_path / 'in')
    refused(
        type_('convert', 'dior', tmp_path / 'in', tmp_path / 'out'),
        tmp_path / 'in',
        'does not look like DIOR',
        READERS['dior'].layout,
    )
    assert not (tmp_path / 'out').exists()


def test_wrong_names(tmp_path, type_):
    refused(type_('convert', 'HRSDI', tmp_path, tmp_path / 'out'), 'did you mean', 'hrsid')
    refused(
        type_('convert', 'hrsid', tmp_path / 'gone', tmp_path / 'out'), tmp_path / 'gone', 'no such folder'
    )
    refused(type_('convert', 'hrsid', write_(tmp_path / 'a.zip'), tmp_path / 'out'), 'a.zip', 'folder')
    build('hrsid', tmp_path / 'in')
    refused(type_('convert', 'hrsid', tmp_path / 'in', write_(tmp_path / 'notes.txt')), 'notes.txt')
    refused(type_('convert', 'hrsid', tmp_path / 'in', tmp_path / 'notes.txt/deep'), 'notes.txt')
    refused(type_('convert', 'hrsid', tmp_path / 'in', tmp_path / 'in'), tmp_path / 'in', 'not empty')
    status, _, err = type_('convert', 'hrsid', tmp_path / 'in', tmp_path / 'out', '--most', 0)
    assert status == 2 and '--most' in err and 'above 0' in err
    assert not (tmp_path / 'out').exists() and (tmp_path / 'notes.txt').read_text() == 'x'


def write_(path):
    path.write_text('x')
    return path


@pytest.mark.parametrize(
    'words',
    [
        ['convert', 'hrsid'],
        ['convert', 'hrsid', 'a', 'b', '--decimals', '9'],
        ['chekc'],
        ['check'],
        ['show', 'a', '--n', 'x'],
        ['show', 'a', '--n', '0'],
        ['list', '--jsno'],
    ],
)
def test_wrong_use_is_2(words, capsys):
    assert main(['data', *words]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith('earthgpt-lite data') and err.count('\n') == 1 and '--help' in err


def test_stray_files_and_folders(tmp_path, type_):
    build('resisc45', tmp_path / 'in')
    for name in (
        'Thumbs.db',
        'airport/.DS_Store',
        'airport/._airport_001.jpg',
        '__MACOSX/airport/._airport_001.jpg',
        'airport/desktop.ini',
        'readme.txt',
    ):
        write(tmp_path / 'in/NWPU-RESISC45' / name, 'x')
    picture(tmp_path / 'in/preview.jpg')
    status, out, _ = type_('convert', 'resisc45', tmp_path / 'in', tmp_path / 'out')
    assert (
        status == 0
        and 'records: 3' in out
        and 'left out: 1' in out
        and 'preview.jpg lies in no class folder' in out
    )


@pytest.mark.parametrize('stop', [1, 4, 9])
def test_interrupted_convert_goes_on(tmp_path, type_, monkeypatch, stop):
    for i in range(9):
        picture(tmp_path / f'in/dune/{i}.png')
    real, calls = readers.record_of, []

    def tired(*args, **options):
        calls.append(1)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(readers, 'record_of', tired)
        status, out, err = type_('convert', 'folders', tmp_path / 'in', tmp_path / 'out')
    assert (
        status == 130
        and not out
        and 'run the same command again' in err
        and not (tmp_path / 'out/records.jsonl').exists()
    )
    if stop > 1:
        (
            refused(type_('check', tmp_path / 'out'), 'interrupted', 'run it again'),
            refused(type_('show', tmp_path / 'out', '--out', tmp_path / 's.png'), 'interrupted'),
        )
    status, out, _ = type_('convert', 'folders', tmp_path / 'in', tmp_path / 'out')
    assert (
        status == 0
        and 'records: 9' in out
        and type_('convert', 'folders', tmp_path / 'in', tmp_path / 'whole')[0] == 0
    )
    assert (tmp_path / 'out/records.jsonl').read_bytes() == (tmp_path / 'whole/records.jsonl').read_bytes()
    assert not list((tmp_path / 'out').glob('*.part'))


def test_a_full_disk_leaves_nothing_for_whole(tmp_path, type_, monkeypatch):
    build('hrsid', tmp_path / 'in')

    def full(*a):
        raise OSError(28, 'No space left on device')

    with monkeypatch.context() as patch:
        patch.setattr(os, 'fsync', full)
        status, out, err = type_('convert', 'hrsid', tmp_path / 'in', tmp_path / 'out')
    assert (
        status == 1
        and 'No space left' in err
        and 'Traceback' not in err
        and not (tmp_path / 'out/records.jsonl').exists()
    )
    assert (
        type_('convert', 'hrsid', tmp_path / 'in', tmp_path / 'out')[0] == 0
        and type_('check', tmp_path / 'out')[0] == 0
    )


def test_going_on_after_the_folder_has_changed(tmp_path, type_, monkeypatch):
    "Lines of the first run that are no longer true are written anew."
    for i in range(6):
        picture(tmp_path / f'in/dune/{i}.png')
    real, calls = readers.record_of, []

    def tired(*args, **options):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(readers, 'record_of', tired)
        assert type_('convert', 'folders', tmp_path / 'in', tmp_path / 'out')[0] == 130
    (tmp_path / 'in/dune/1.png').unlink()
    assert type_('convert', 'folders', tmp_path / 'in', tmp_path / 'out')[0] == 0
    assert [r['image'] for r in read_rows(tmp_path / 'out/records.jsonl')] == [
        f'dune/{i}.png' for i in (0, 2, 3, 4, 5)
    ]


# ---- check


def test_every_bad_record_by_index_and_reason(tmp_path, type_):
    rows = records(tmp_path, 8)
    (
        picture(tmp_path.parent / 'secret.png'),
        (tmp_path / 'link.png').symlink_to(tmp_path.parent / 'secret.png'),
    )
    rows[0]['image'] = 'gone.png'
    rows[1]['image'] = '../secret.png'
    rows[2]['image'] = str(tmp_path.parent / 'secret.png')
    rows[3]['image'] = 'link.png'
    rows[4]['conversations'][1]['value'] = '[nan,0.1,0.2,0.3]'
    rows[5]['conversations'][1]['value'] = '[0.1,0.1,0.2,1.3]'
    write(tmp_path / 'a.json', rows)
    status, out, err = type_('check', tmp_path / 'a.json')
    assert status == 1 and not err and 'records: 8, bad: 6' in out
    for i, why in enumerate(('not there', 'climbs out', 'absolute', 'link', 'not a number', '1.3')):
        assert any(line.startswith(f'  record {i} ') and why in line for line in out.splitlines()), (i, out)
    status, out, _ = type_('check', tmp_path / 'a.json', '--json')
    result = json.loads(out)
    assert status == 1 and result['bad'] == 6 and [p['record'] for p in result['problems']] == list(range(6))


def test_drop_keeps_the_good(tmp_path, type_):
    rows = records(tmp_path)
    del rows[1]['conversations']
    write(tmp_path / 'a.json', rows)
    status, out, _ = type_('check', tmp_path / 'a.json', '--drop', tmp_path / 'b.jsonl')
    assert (
        status == 1
        and "record 1 has no key 'conversations'" in out
        and list(read_rows(tmp_path / 'b.jsonl')) == [rows[0], rows[2]]
    )
    assert type_('check', tmp_path / 'b.jsonl')[0] == 0
    refused(type_('check', tmp_path / 'a.json', '--drop', tmp_path / 'a.json'), 'exists already')
    refused(type_('check', tmp_path / 'a.json', '--drop', tmp_path / 'b.jsonl'), 'exists already', '--force')
    assert type_('check', tmp_path / 'a.json', '--drop', tmp_path / 'b.jsonl', '--force')[0] == 1
    assert json.loads((tmp_path / 'a.json').read_text()) == rows


def test_drop_over_itself_is_refused(tmp_path, type_):
    rows = records(tmp_path)
    rows[0]['extra'] = 1
    write(tmp_path / 'a.json', rows)
    refused(type_('check', tmp_path / 'a.json', '--drop', tmp_path / 'a.json', '--force'), 'is read as')
    assert json.loads((tmp_path / 'a.json').read_text()) == rows


def test_a_byte_order_mark_and_odd_line_ends(tmp_path, type_):
    rows = records(tmp_path)
    (tmp_path / 'a.json').write_bytes(
        b'\xef\xbb\xbf' + json.dumps(rows, indent=2).replace('\n', '\r\n').encode()
    )
    (tmp_path / 'b.jsonl').write_bytes(b'\xef\xbb\xbf' + '\r\n'.join(map(json.dumps, rows)).encode())
    for name in ('a.json', 'b.jsonl'):
        assert type_('check', tmp_path / name)[0] == 0
    (tmp_path / 'c.json').write_text(json.dumps(rows), encoding='utf-16')
    refused(type_('check', tmp_path / 'c.json'), 'c.json', 'UTF-8')


def test_cut_empty_and_foreign_files(tmp_path, type_):
    rows = records(tmp_path)
    write(tmp_path / 'cut.json', json.dumps(rows)[:-20])
    status, out, _ = type_('check', tmp_path / 'cut.json')
    assert status == 1 and 'record 2' in out and 'ends within' in out
    for name, text in {'empty.json': '', 'none.json': '[]', 'blank.jsonl': '\n\n'}.items():
        refused(type_('check', write_text(tmp_path / name, text)), name, 'holds no records')
    shutil.copy(tmp_path / '0.png', tmp_path / 'photo.json')
    refused(type_('check', tmp_path / 'photo.json'), 'photo.json', 'UTF-8')
    status, out, _ = type_('check', write_text(tmp_path / 'one.json', '{"image": "0.png"}'))
    assert status == 1 and "no key 'conversations'" in out
    refused(type_('check', tmp_path / 'gone.json'), 'gone.json', 'no such file')
    refused(type_('check', tmp_path), tmp_path, 'data convert')


def write_text(path, text):
    path.write_text(text)
    return path


def test_windows_paths_and_the_data_prefix(tmp_path, type_):
    picture(tmp_path / 'VQA/x/1.png')
    row = {
        'image': r'data\VQA\x\1.png',
        'conversations': [{'from': 'human', 'value': 'a'}, {'from': 'gpt', 'value': 'b'}],
    }
    write(tmp_path / 'a.json', [row])
    assert type_('check', tmp_path / 'a.json')[0] == 0
    assert type_('check', tmp_path / 'a.json', '--root', tmp_path / 'VQA')[0] == 1
    refused(
        type_('check', tmp_path / 'a.json', '--root', tmp_path / 'gone'), tmp_path / 'gone', 'no such folder'
    )


def test_pictures_that_were_moved(tmp_path, type_):
    build('hrsid', tmp_path / 'in'), type_('convert', 'hrsid', tmp_path / 'in', tmp_path / 'out')
    (tmp_path / 'in').rename(tmp_path / 'there')
    refused(type_('check', tmp_path / 'out'), tmp_path / 'in', 'no longer there', 'root')
    assert type_('check', tmp_path / 'out', '--root', tmp_path / 'there')[0] == 0


# ---- show


def test_show_draws_what_can_be_drawn(tmp_path, type_):
    rows = records(tmp_path, 5)
    rows[1]['image'] = 'gone.png'
    rows[2]['conversations'][1]['value'] = 'costs $5 and $6 [0.1,0.2,0.3,0.4]'
    (tmp_path / '3.png').write_bytes((tmp_path / '3.png').read_bytes()[:40])
    write(tmp_path / 'a.json', rows)
    before = sorted(os.listdir(tmp_path))
    status, out, err = type_('show', tmp_path / 'a.json', '--out', tmp_path / 'sheet.png', '--n', 9)
    assert (
        status == 0
        and not err
        and 'sheet.png' in out
        and (tmp_path / 'sheet.png').read_bytes().startswith(b'\x89PNG')
    )
    assert sorted(os.listdir(tmp_path)) == sorted([*before, 'sheet.png']), 'nothing else is left behind'


def test_show_refuses(tmp_path, type_):
    write(tmp_path / 'a.json', [{'image': 'gone.png', 'conversations': []}])
    refused(type_('show', tmp_path / 'a.json', '--out', tmp_path / 's.png'), 'record 0', 'data check')
    write(tmp_path / 'b.json', records(tmp_path))
    refused(type_('show', tmp_path / 'b.json', '--out', tmp_path / 's.jpg'), 's.jpg', '.png')
    (tmp_path / 'file').write_text('x')
    refused(type_('show', tmp_path / 'b.json', '--out', tmp_path / 'file/s.png'), 'file/s.png')
    refused(
        type_('show', write_text(tmp_path / 'c.json', '[]'), '--out', tmp_path / 's.png'), 'holds no records'
    )


def test_the_sheet_is_drawn_from_the_whole_file(tmp_path):
    drawn = {i for seed in range(40) for i, _ in readers._sampled(iter(range(100)), 6, seed)}
    assert len(drawn) > 85 and all(0 <= i < 100 for i in drawn)
    assert [i for i, _ in readers._sampled(iter('abc'), 6, 0)] == [0, 1, 2]


# ---- list


def test_list_tells_every_reader(type_):
    status, out, _ = type_('list')
    assert (
        status == 0
        and all(f'\n{name} ' in f'\n{out}' for name in READERS)
        and out.count('UNVERIFIED') == sum(not r.verified for r in READERS.values())
    )
    status, out, _ = type_('list', '--json')
    result = {r['reader']: r for r in json.loads(out)}
    assert set(result) == set(READERS) and set(result['iray']) == {
        'reader',
        'title',
        'tasks',
        'sensor',
        'size',
        'licence',
        'where',
        'layout',
        'verified',
    }
    assert (
        result['iray']['verified'] is False
        and result['hrsid']['verified'] is True
        and result['folders']['verified'] is None
    )
    assert {r['sensor'] for r in json.loads(type_('list', 'infrared', '--json')[1])} == {'infrared'}
    refused(type_('list', 'lidar'), 'lidar', 'data list')


def test_a_closed_pipe_is_no_error():
    import subprocess
    import sys

    run = subprocess.run(
        f'{sys.executable} -c "from earthgpt_lite.app.cli import run; run()" data list | head -1',
        shell=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.stdout.startswith('resisc45') and not run.stderr


# ---- tokens


def test_tokens_of_a_record(tmp_path, type_, saved):
    rows = records(tmp_path)
    rows[1] |= {
        'conversations': rows[1]['conversations']
        + [{'from': 'human', 'value': 'where is it?'}, {'from': 'gpt', 'value': '[0.10,0.20,0.30,0.40]'}]
    }
    write_rows(rows, tmp_path / 'a.jsonl')
    status, out, _ = type_('tokens', tmp_path / 'a.jsonl', '--record', 1, '--out', tmp_path / 't.png')
    lines = out.splitlines()
    assert (
        status == 0
        and '1.png' in lines[0]
        and [s.split()[0] for s in lines[1:6]] == ['picture', 'question', 'answer', 'question', 'answer']
    )
    assert (
        '0.10|,|0.20|,|0.30' in lines[5] and (tmp_path / 't.png').stat().st_size > 1000 and '\033' not in out
    )
    assert (
        type_('tokens', tmp_path / 'a.jsonl', '--out', tmp_path / 't.html')[0] == 0
        and '0.png' in (tmp_path / 't.html').read_text()
    )
    status, out, _ = type_('tokens', tmp_path / 'a.jsonl', '--model', saved)
    assert status == 0 and 'target tokens' in out
    refused(type_('tokens', tmp_path / 'a.jsonl', '--record', 7), 'no record 7')
    status, _, err = type_('tokens', tmp_path / 'a.jsonl', '--record', -1)
    assert status == 2 and '--record' in err and 'from 0 on' in err
    refused(type_('tokens', tmp_path / 'a.jsonl', '--model', tmp_path), 'holds no model')
    write(tmp_path / 'b.json', [{'image': 'x'}])
    refused(type_('tokens', tmp_path / 'b.json'), 'record 0', 'data check')


# ---- help


@pytest.mark.parametrize('name', ['', 'convert', 'check', 'show', 'list', 'tokens'])
def test_help_has_an_example(name, capsys):
    assert (
        main(['data', *name.split(), '--help']) == 0
        and f'\n  earthgpt-lite data {name}' in capsys.readouterr().out
    )


def test_data_alone_shows_its_commands(type_):
    status, out, _ = type_()
    assert status == 2 and all(c in out for c in ('convert', 'check', 'show', 'list', 'tokens'))


@pytest.mark.parametrize('words', ['data', 'data convert', 'data check', 'data list', 'data tokens'])
def test_help_imports_nothing_heavy(words):
    from test_cli import LOADED, process

    run, seconds = process(*words.split(), '--help', code=LOADED)
    assert run.returncode == 0 and not run.stderr.strip() and seconds < 5


def test_records_are_exported(tmp_path, capsys):
    def run_cli(*argv):
        status = main(list(map(str, argv)))
        return status, *capsys.readouterr()

    picture(tmp_path / 'a.png')
    turns = [
        {'from': 'human', 'value': 'find all objects in this image.'},
        {'from': 'gpt', 'value': 'There is <p>1 ship</p>[0.20,0.30,0.50,0.60].'},
    ]
    rows = [{'image': name, 'conversations': turns, 'task': 'detection'} for name in ('a.png', 'no.png')]
    (tmp_path / 'mine.json').write_text(json.dumps(rows), encoding='utf-8')
    status, text, _ = run_cli('data', 'export', tmp_path / 'mine.json', 'coco', tmp_path / 'out')
    assert (
        status == 0
        and 'pictures: 1, objects: 1' in text
        and 'no.png names an image that is not there' in text
    )
    status, text, _ = run_cli(
        'data', 'export', tmp_path / 'mine.json', 'voc', tmp_path / 'out', '--force', '--json'
    )
    assert status == 0 and json.loads(text)['left_out'] == 1 and (tmp_path / 'out/Annotations/a.xml').exists()
    status, text, err = run_cli('data', 'export', tmp_path / 'mine.json', 'voc', tmp_path / 'out')
    assert status == 2 and '--force' in err and not text


def test_forms_of_export_are_those_of_the_command():
    from earthgpt_lite.app.cli import make_parser
    from earthgpt_lite.data.export import FORMATS

    for form in FORMATS:
        assert make_parser().parse_args(['data', 'export', 'mine', form, 'out']).form == form
