"""Every reader on its fixture, on the fixtures of all others, and on damaged data; conversion, check and show."""

import json

import numpy as np
import pytest
from fixtures_readers import SHIP, SIZE, build, coco, objects_of, picture, write

from earthgpt_lite.boxes.text import parse_boxes, singular, to_pixels
from earthgpt_lite.data.convert import check_records, convert, load_records, read, record_of, show_records
from earthgpt_lite.data.formats import Parsed
from earthgpt_lite.data.records import Record
from earthgpt_lite.data.registry import READERS
from earthgpt_lite.data.store import read_rows
from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.sources import as_chip


@pytest.fixture(scope='module')
def shelf(tmp_path_factory):
    base = tmp_path_factory.mktemp('shelf')
    truth = {}
    for name in READERS:
        (base / name).mkdir()
        truth[name] = build(name, base / name)
    return base, truth


# ---- what is read


def close(got, want, tolerance=0.5):
    return (
        len(got) == len(want)
        and all(g[0] == singular(w[0]) or g[0] == w[0] for g, w in zip(got, want))
        and np.allclose([g[1:] for g in got], [w[1:] for w in want], atol=tolerance)
        if want
        else not got
    )


@pytest.mark.parametrize('name', list(READERS))
def test_reader_finds_what_its_fixture_holds(name, shelf):
    base, truth = shelf
    left = []
    records = list(read(name, base / name, left, decimals=3))
    astray = [('drawn.geojson', '1 shapes lie in no picture, such as feature 2')]
    assert left == (astray if name == 'geojson' else []), left
    want = truth[name]
    keys = [r.image for r in records]
    if not all(isinstance(k, str) or k in keys for k in want):  # several records of one picture
        keys = [(r.image, r.split if name == 'dior-rsvg' else i) for i, r in enumerate(records)]
    assert sorted(map(str, keys)) == sorted(map(str, want))
    for key, record in zip(keys, records):
        told = want[key]
        assert record.split == told.get('split', '')
        assert record.sensor == told.get('sensor', READERS[name].sensor)
        assert record.words == told.get('words', record.words)
        if 'first' in told:
            assert (record.turns[0].question, record.turns[0].answer) == told['first']
        if 'label' in told:
            assert [(t.answer, t.task) for t in record.turns] == [(told['label'], 'classification')]
        if 'captions' in told:
            assert [t.answer for t in record.turns] == told['captions'] and {
                t.task for t in record.turns
            } == {'caption'}
        if 'qa' in told:
            assert [(t.question, t.answer, t.task) for t in record.turns] == told['qa']
        if 'objects' in told:
            assert close(objects_of(record), sorted((k, *map(float, b)) for k, b in told['objects']))
        for (phrase, box), ground, region in (
            zip(told['phrases'], record.turns[::2], record.turns[1::2], strict=True)
            if 'phrases' in told
            else ()
        ):
            assert (
                ground.task == 'grounding'
                and phrase in ground.question
                and region.task == 'region_caption'
                and region.answer == phrase
            )
            for text in (ground.answer, region.question):
                assert np.allclose(to_pixels(parse_boxes(text).boxes[0].box, *SIZE), box, atol=0.1)


@pytest.mark.parametrize('name', list(READERS))
def test_records_are_valid_and_the_same_each_time(name, shelf):
    base, _ = shelf
    once, again = (list(read(name, base / name)) for _ in range(2))
    assert once == again and [Record.from_json(r.to_json()) for r in once] == once
    assert set(t.task for r in once for t in r.turns) <= set(READERS[name].tasks)


# ---- what is refused


@pytest.mark.parametrize('name', [n for n, r in READERS.items() if not r.any])
def test_reader_refuses_the_folders_of_all_others(name, shelf):
    base, _ = shelf
    taken = []
    for other in READERS:
        if other == name:
            continue
        try:
            taken.append((other, len(list(read(name, base / other)))))
        except BadInput as e:
            assert (
                'does not look like' in str(e)
                and READERS[name].layout in str(e)
                and str(base / other) in str(e)
            )
    assert not taken


@pytest.mark.parametrize('name', [n for n, r in READERS.items() if r.any])
def test_reader_of_own_data_refuses_other_forms(name, shelf):
    base, _ = shelf
    mine = READERS[name].mechanism.__name__
    # its pictures lie in folders with names, which is all that class folders are
    alike = {'class_folders': {'rsivqa'}}.get(mine, set())
    taken = []
    for other, reader in READERS.items():
        if reader.mechanism.__name__ == mine or other in alike:
            continue
        try:
            taken.append((other, len(list(read(name, base / other)))))
        except BadInput as e:
            assert 'does not look like' in str(e)
    assert not taken


@pytest.mark.parametrize('name', list(READERS))
def test_empty_and_missing_folders(name, tmp_path):
    with pytest.raises(BadInput, match='does not look like'):
        list(read(name, tmp_path))
    with pytest.raises(BadInput, match='no such folder'):
        list(read(name, tmp_path / 'gone'))


# ---- damaged data


@pytest.mark.parametrize('name', list(READERS))
def test_damaged_picture_is_left_out_and_named(name, tmp_path):
    truth = build(name, tmp_path)
    victim = next(iter(truth))
    victim = victim if isinstance(victim, str) else victim[0]
    whole = (tmp_path / victim).read_bytes()
    (tmp_path / victim).write_bytes(whole[:20])
    left, got = [], []
    try:
        got = list(read(name, tmp_path, left))
    except BadInput as e:
        assert 'nothing could be read' in str(e) or name == 'geojson'
    assert victim not in {r.image for r in got}
    assert any(victim in place or victim in why for place, why in left) and any(
        'not an image' in why or 'cannot be opened' in why for _, why in left
    )


@pytest.mark.parametrize(
    'name',
    [
        n
        for n in READERS
        if n not in ('ucas-aod', 'vhr10', 'geojson') and READERS[n].mechanism.__name__ != 'class_folders'
    ],
)
def test_missing_picture_is_left_out_and_told(name, tmp_path):
    truth = build(name, tmp_path)
    victim = next(iter(truth))
    (tmp_path / (victim if isinstance(victim, str) else victim[0])).unlink()
    left, got = [], []
    try:
        got = list(read(name, tmp_path, left))
    except BadInput:
        pass
    assert len(got) < len(truth) and left


@pytest.mark.parametrize(
    'name',
    [
        n
        for n in READERS
        if READERS[n].mechanism.__name__ in ('coco', 'captions', 'rsvqa', 'qa_json', 'mmrs1m', 'llava')
    ],
)
def test_truncated_json_is_named(name, tmp_path):
    build(name, tmp_path)
    for path in tmp_path.rglob('*.json'):
        path.write_text(path.read_text()[:-9])
    left = []
    try:
        list(read(name, tmp_path, left))
    except BadInput as e:
        left.append(('', str(e)))
    assert any('JSON' in why for _, why in left)


def test_too_many_objects(tmp_path):
    picture(tmp_path / 'a.jpg'), picture(tmp_path / 'b.jpg')
    write(tmp_path / 'x.json', coco(['a.jpg', 'b.jpg'], [(0, 1, SHIP)] * 101 + [(1, 1, SHIP)], ['ship']))
    left = []
    assert [r.image for r in read('coco', tmp_path, left)] == ['b.jpg'] and 'tiles' in left[0][1]
    assert len(list(read('coco', tmp_path, most=200))) == 2


def test_stray_files_in_class_folders(tmp_path):
    build('resisc45', tmp_path)
    for name in ('Thumbs.db', 'airport/.DS_Store', 'airport/notes.txt', 'airport/._airport_001.jpg'):
        write(tmp_path / 'NWPU-RESISC45' / name, 'x')
    picture(tmp_path / 'preview.jpg'), picture(tmp_path / 'NWPU-RESISC45/airport/beach_001.jpg')
    left = []
    assert len(list(read('resisc45', tmp_path, left))) == 3
    assert sorted(n for n, _ in left) == ['NWPU-RESISC45/airport/beach_001.jpg', 'preview.jpg']


def test_links_out_of_the_root_are_not_followed(tmp_path):
    build('folders', tmp_path / 'in'), picture(tmp_path / 'secret.png')
    (tmp_path / 'in/red roofs/link.png').symlink_to(tmp_path / 'secret.png')
    (tmp_path / 'in/blue roofs').symlink_to(tmp_path)
    assert len(list(read('folders', tmp_path / 'in'))) == 2


# ---- tilted boxes


def test_oriented_keeps_the_corners(tmp_path):
    picture(tmp_path / 'images/1.png')
    write(tmp_path / 'labelTxt/1.txt', '20 10 30 20 20 30 10 20 plane 0\n')
    tilted, upright = (
        parse_boxes(next(read('dota', tmp_path, oriented=o, decimals=3)).turns[0].answer).boxes[0].box
        for o in (True, False)
    )
    assert np.allclose(to_pixels(tilted, *SIZE), [20, 10, 30, 20, 20, 30, 10, 20], atol=0.1)
    assert np.allclose(to_pixels(upright, *SIZE), [10, 10, 30, 30], atol=0.1)


# ---- conversion


def test_convert_check_load_show(tmp_path, shelf):
    base, truth = shelf
    info = convert('dota', base / 'dota', tmp_path / 'out', decimals=3)
    assert (
        info['records'] == 2
        and info['tasks'] == {'detection': 2}
        and info['splits'] == {'train': 1, 'validation': 1}
    )
    report = check_records(tmp_path / 'out')
    assert report.total == 2 and not report.bad
    assert load_records(tmp_path / 'out')[0] == Record.from_json(
        next(read_rows(tmp_path / 'out/records.jsonl'))
    )
    show_records(tmp_path / 'out', out=tmp_path / 'sheet.png')
    assert as_chip(tmp_path / 'sheet.png').image.std() > 10 and not list(tmp_path.glob('.sheet*'))
    assert convert('dota', base / 'dota', tmp_path / 'out', decimals=3) == json.loads(
        (tmp_path / 'out/info.json').read_text()
    )
    with pytest.raises(BadInput, match='something else'):
        convert('dota', base / 'dota', tmp_path / 'out', decimals=2)


def test_a_picture_that_vanished_is_reported(tmp_path):
    build('hrsid', tmp_path / 'in')
    convert('hrsid', tmp_path / 'in', tmp_path / 'out')
    (tmp_path / 'in/HRSID_JPG/JPEGImages/P0137_62.jpg').unlink()
    report = check_records(tmp_path / 'out')
    assert len(report.bad) == 1 and 'not there' in report.problems[0][1]


def test_refused_conversion_writes_nothing(tmp_path, shelf):
    with pytest.raises(BadInput):
        convert('dior', shelf[0] / 'dota', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()
    write(tmp_path / 'mine/thesis.txt', 'x')
    with pytest.raises(BadInput, match='not empty'):
        convert('dota', shelf[0] / 'dota', tmp_path / 'mine')
    assert sorted(p.name for p in (tmp_path / 'mine').iterdir()) == ['thesis.txt']


@pytest.mark.parametrize('stop', [1, 3, 7, 12])
def test_interrupted_conversion_goes_on(tmp_path, monkeypatch, stop):
    for i in range(12):
        picture(tmp_path / f'in/well/{i}.png')
    convert('folders', tmp_path / 'in', tmp_path / 'whole')
    import earthgpt_lite.data.convert as module

    calls, real = [], module.record_of

    def tired(*args, **options):
        calls.append(1)
        if len(calls) == stop:
            raise KeyboardInterrupt
        return real(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(module, 'record_of', tired)
        with pytest.raises(KeyboardInterrupt):
            convert('folders', tmp_path / 'in', tmp_path / 'out')
    assert not (tmp_path / 'out/records.jsonl').exists()
    if stop > 1:
        with pytest.raises(BadInput, match='interrupted'):
            check_records(tmp_path / 'out')
    info = convert('folders', tmp_path / 'in', tmp_path / 'out')
    assert (
        info['records'] == 12
        and (tmp_path / 'out/records.jsonl').read_bytes() == (tmp_path / 'whole/records.jsonl').read_bytes()
    )


def test_interrupted_between_records_and_info(tmp_path):
    build('hrsid', tmp_path / 'in')
    convert('hrsid', tmp_path / 'in', tmp_path / 'out')
    whole = (tmp_path / 'out/records.jsonl').read_bytes()
    (tmp_path / 'out/info.json').unlink()
    with pytest.raises(BadInput, match='interrupted'):
        load_records(tmp_path / 'out')
    convert('hrsid', tmp_path / 'in', tmp_path / 'out')
    assert (tmp_path / 'out/records.jsonl').read_bytes() == whole


def test_check_and_show_say_what_they_want(tmp_path):
    with pytest.raises(BadInput, match='holds no converted data'):
        check_records(tmp_path)
    with pytest.raises(BadInput, match='no such file'):
        check_records(tmp_path / 'gone')


def test_record_of_says_why_nothing_is_left(tmp_path):
    picture(tmp_path / 'a.png')
    with pytest.raises(BadInput, match='nothing in the picture'):
        record_of(Parsed('a.png', objects=[('ship', (500, 500, 600, 600))]), tmp_path, READERS['coco'])
    record, _ = record_of(Parsed('a.png', objects=[]), tmp_path, READERS['coco'])
    assert record.turns[0].answer == 'There are no objects.'


def test_several_pictures_are_shown_side_by_side(tmp_path):
    build('levir-cd', tmp_path / 'in')
    convert('levir-cd', tmp_path / 'in', tmp_path / 'out')
    figure = show_records(tmp_path / 'out', n=2)
    shown = figure.axes[0].images[0].get_array()
    assert shown.shape == (256, 256 + 8 + 256, 3)
    boxes = [line.get_xdata().min() for line in figure.axes[0].lines]
    assert boxes and min(boxes) > 256, 'boxes are in the last picture'
    assert figure.axes[0].get_title('left').endswith('1.png | 1.png')
    assert [text.get_text() for text in figure.axes[0].texts] == ['1 before', '2 after']
