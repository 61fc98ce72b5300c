"There and back: what is exported is read again, in every form, and nothing is lost in silence."

import base64
import csv
import io
import json

import numpy as np
import pytest
import rasterio
import yaml
from affine import Affine
from fixtures_readers import picture
from PIL import Image

from earthgpt_lite.boxes.text import format_detection, parse_boxes, to_pixels, to_unit
from earthgpt_lite.data.convert import read
from earthgpt_lite.data.export import FORMATS, LIST, export, flat_names, labelled_pictures
from earthgpt_lite.data.records import Record, Task, Turn
from earthgpt_lite.data.registry import READERS
from earthgpt_lite.errors import BadInput

LABELS = ['ship', 'storage tank', 'Gebäude', 'tennis court', 'person']
SPLITS = ['train', 'validation', 'test']
QUESTIONS = ['is there a "bridge" here?', "what's built, left; or right?", 'naïve <question>\\n?', 'Ü & ß?']


def sizes(i):
    return 30 + i % 71, 100 - i % 61  # width, height: some wider, some higher


@pytest.fixture(scope='module', params=[60, pytest.param(1000, marks=pytest.mark.rare)])
def thousand(request, tmp_path_factory):
    "A thousand random records with pictures that know their place, and some that are empty or tilted nowhere"
    root, rng = tmp_path_factory.mktemp('thousand'), np.random.default_rng(0)
    records = []
    for i in range(request.param):
        width, height = sizes(i)
        name = f'{"abc"[i % 3]}/{i:04d}.tif'
        (root / name).parent.mkdir(exist_ok=True)
        there = Affine(10, 0, 3e5 + 2000 * (i % 100), 0, -10, 5e6 + 2000 * (i // 100))
        kind = dict(driver='GTiff', width=width, height=height, count=1, dtype='uint8')
        with rasterio.open(root / name, 'w', crs=f'EPSG:326{31 + i % 2}', transform=there, **kind) as f:
            f.write(np.full((1, height, width), i % 255, 'uint8'))
        objects = []
        for _ in range(rng.integers(0, 5)):
            x, y = rng.uniform(0, width - 6), rng.uniform(0, height - 6)
            box = [x, y, rng.uniform(x + 4, width), rng.uniform(y + 4, height)]
            objects.append((str(rng.choice(LABELS)), to_unit(box, width, height)))
        turns = [
            Turn('find all objects in this image.', format_detection(objects, 4), 'detection'),
            Turn(str(rng.choice(QUESTIONS)), f'{rng.integers(100)} "of\' them", {i}', 'vqa'),
        ]
        records.append(Record(name, turns, split=str(rng.choice(SPLITS))))
    return root, records


def boxes_of(answer, image):
    "Label and box in pixels, sorted"
    size = sizes(int(image.split('/')[-1][:4]))
    found = [(b.label, *to_pixels(b.box, *size)) for b in parse_boxes(answer, repair=True).boxes]
    return sorted((label.casefold(), *box) for label, *box in found)


def told(records):
    "By number of the picture: split, and its objects"
    return {
        r.image.split('/')[-1][:4]: (
            r.split,
            boxes_of(next(t.answer for t in r.turns if t.task == 'detection'), r.image),
        )
        for r in records
    }


def assert_same(back, there, atol):
    "The same pictures and splits, as many objects, each box where it was"
    assert back.keys() == there.keys()
    for name, (split, boxes) in there.items():
        assert back[name][0] == split and len(back[name][1]) == len(boxes), (name, split, back[name][0])
        rest = list(back[name][1])
        for label, *box in boxes:
            hit = next((b for b in rest if b[0] == label and np.allclose(b[1:], box, atol=atol)), None)
            assert hit, (name, label, box, rest)
            rest.remove(hit)


GRID = 0.02  # pixels: four decimals of a square of a hundred pixels, twice


def test_coco_there_and_back(thousand, tmp_path):
    root, records = thousand
    info = export(records, 'coco', tmp_path / 'out', root)
    assert (
        info['pictures'] == len(records)
        and not info['left']
        and sorted(p.name for p in (tmp_path / 'out/annotations').iterdir())
        == ['instances_test.json', 'instances_train.json', 'instances_val.json']
    )
    back = list(read('coco', tmp_path / 'out', decimals=4))
    assert {r.image for r in back} == {r.image for r in records}
    assert_same(told(back), told(records), GRID)


def test_voc_there_and_back(thousand, tmp_path):
    root, records = thousand
    export(records, 'voc', tmp_path / 'out', root)
    assert_same(told(read('voc', tmp_path / 'out', decimals=4)), told(records), 0.5 + GRID)


@pytest.mark.parametrize('form', ['yolo', 'yolo-oriented'])
def test_yolo_there_and_back(form, thousand, tmp_path):
    root, records = thousand
    export(records, form, tmp_path / 'out', root)
    names = yaml.safe_load((tmp_path / 'out/data.yaml').read_text(encoding='utf-8'))['names']
    back = {}
    for path in (tmp_path / 'out/labels').rglob('*.txt'):
        size, boxes = sizes(int(path.stem)), []
        assert (tmp_path / f'out/images/{path.parent.name}/{path.stem}.tif').is_file()
        for number, *v in (map(float, line.split()) for line in path.read_text().splitlines() if line):
            points = np.array(v) * np.tile(size, len(v) // 2)
            if form == 'yolo':
                box = [*points[:2] - points[2:] / 2, *points[:2] + points[2:] / 2]
            else:
                box = [*points.reshape(4, 2).min(0), *points.reshape(4, 2).max(0)]
            boxes.append((names[int(number)].casefold(), *box))
        back[path.stem] = (path.parent.name.replace('val', 'validation'), sorted(boxes))
    assert_same(back, told(records), GRID)
    if 'yolo' in READERS:
        assert_same(told(read('yolo', tmp_path / 'out', decimals=4)), told(records), GRID)


def test_geoparquet_there_and_back(thousand, tmp_path):
    root, records = thousand
    info = export(records, 'geoparquet', tmp_path / 'out', root)
    there = {name: said for name, said in told(records).items() if said[1]}
    assert info['left_out'] == len(records) - len(there) and 'cannot say so' in info['left'][0][1]
    assert_same(told(read('geojson', tmp_path / 'out', decimals=4)), there, GRID)


def test_llava_there_and_back(thousand, tmp_path):
    root, records = thousand
    assert export(records, 'llava', tmp_path / 'out', root)['turns'] == 2 * len(records)
    back = [
        (r.image, r.split, t.question, t.answer) for r in read('llava', tmp_path / 'out') for t in r.turns
    ]
    assert sorted(back) == sorted((r.image, r.split, t.question, t.answer) for r in records for t in r.turns)
    row = json.loads((tmp_path / 'out/val.json').read_text(encoding='utf-8'))[0]
    assert row['conversations'][0]['value'].startswith('<image>\n') and row['task'] == ['detection', 'vqa']


def test_vlmeval_there_and_back(thousand, tmp_path):
    from earthgpt_lite.eval.join import read_questions

    root, records = thousand
    export(records, 'vlmeval', tmp_path / 'out', root)
    back = []
    for path in (tmp_path / 'out').glob('*.tsv'):
        for q in read_questions(path):
            back.append((q['image_path'], q['split'], q['question'], q['truth'], q['task']))
            assert q['image'] == q['image_path']
    asked = [(r.image, r.split, t.question, t.answer, str(t.task)) for r in records for t in r.turns]
    assert sorted(back) == sorted(asked)
    with open(tmp_path / 'out/train.tsv', encoding='utf-8', newline='') as f:
        row = next(csv.DictReader(f, delimiter='\t'))
    number = int(row['image_path'].split('/')[1][:4])
    with Image.open(io.BytesIO(base64.b64decode(row['image']))) as square:
        assert square.size == (max(sizes(number)),) * 2  # padded: the boxes count in it


def scenes(folder, classes, source=''):
    "Twelve grey pictures, each of one of some classes"
    found = []
    for k in range(12):
        Image.new('L', (40, 30), 20 * k).save(folder / f'{source}{k}.png')
        turn = Turn('what is the scene?', classes[k % len(classes)], 'classification')
        found.append(Record(f'{source}{k}.png', [turn], source=source, split='test'))
    return found


def test_scenes_become_a_choice_of_four_classes_of_their_source(tmp_path):
    from earthgpt_lite.eval.join import read_questions
    from earthgpt_lite.eval.score import score_files

    classes = dict(land=[f'field {k}' for k in range(6)], sea=['calm', 'rough'], air=['cloud'])
    records = [r for name, some in classes.items() for r in scenes(tmp_path, some, name)]
    export(records, 'vlmeval', tmp_path / 'out', tmp_path)
    with open(tmp_path / 'out/test_choices.tsv', encoding='utf-8', newline='') as f:
        rows = list(csv.DictReader(f, delimiter='\t'))
    with open(tmp_path / 'out/test.tsv', encoding='utf-8', newline='') as f:
        open_rows = {row['index']: row for row in csv.DictReader(f, delimiter='\t')}
    assert len(rows) == 24 and len(open_rows) == 36  # where there is one class there is no choice
    for row in rows:
        asked, options = open_rows[row['index']], [row[letter] for letter in 'ABCD' if row[letter]]
        assert row[row['answer']] == asked['answer'] and row['image'] == asked['image']
        source = row['image_path'].rstrip('.png0123456789')
        assert len({*options}) == len(options) == min(4, len(classes[source])) and {*options} <= {
            *classes[source]
        }
    assert {row['answer'] for row in rows} == {*'ABCD'}
    questions = read_questions(tmp_path / 'out/test_choices.tsv')
    assert [q['truth'] for q in questions] == [row[row['answer']] for row in rows]
    said = [
        '{}',
        '({})',
        '{}. {}',
        '{}: {}',
        '{1}',
        'Z',
    ] * 4  # five ways to be right, and one that is no option
    answers = []
    for row, form in zip(rows, said):
        answers.append(row | dict(prediction=form.format(row['answer'], row[row['answer']])))
    scored = score_files(answers, tmp_path / 'out/test_choices.tsv')
    (score,) = (r['score'] for r in scored['results'] if r['metric'] == 'accuracy')
    assert score == pytest.approx(5 / 6) and not scored['problems']['missing']


def test_an_answer_that_begins_with_a_letter_is_no_option():
    from earthgpt_lite.eval.predictions import plain_answers

    row = dict(index=1, question='what is it?', answer='B', A='a lake', B='a road')
    for said in ('A lake', 'Bridge', 'a', 'road B'):
        assert plain_answers([row | dict(prediction=said)])[0]['answer'] == said
    assert plain_answers([dict(index=1, question='?', prediction='B', A='one')])[0]['answer'] == 'B'


@pytest.fixture
def three(tmp_path):
    "Two pictures of one name in two folders, and a third without a detection"
    records = []
    for name in ('a/1.png', 'b/1.png', 'c/2.png'):
        (tmp_path / 'in' / name).parent.mkdir(parents=True)
        Image.new('RGB', (50, 40), (40, 40, 40)).save(tmp_path / 'in' / name)
        turn = Turn(
            'find all objects in this image.', 'There is <p>1 ship</p>[0.20,0.30,0.50,0.60].', 'detection'
        )
        if name == 'c/2.png':
            turn = Turn('is it sea?', 'yes', 'presence')
        records.append(Record(name, [turn], split='train'))
    return tmp_path / 'in', records


def test_pictures_of_one_name_are_kept_apart(three, tmp_path):
    root, records = three
    for form in ('voc', 'yolo', 'coco'):
        info = export(records, form, tmp_path / form, root)
        assert info['pictures'] == 2 and info['left'] == [('c/2.png', 'has no turn that tells all objects')]
    assert {p.name for p in (tmp_path / 'voc/JPEGImages').iterdir()} == {'a__1.png', 'b__1.png'}
    assert {p.stem for p in (tmp_path / 'yolo/labels/train').iterdir()} == {'a__1', 'b__1'}
    with pytest.raises(BadInput, match='would have one file of labels'):
        flat_names(['a/1.png', 'b/1.png', 'a__1.tif', 'c/a__1.png'])


def test_whole_folder_or_none(three, tmp_path, monkeypatch):
    root, records = three
    out = tmp_path / 'out'
    for reason, some, form in (
        ('holds nothing to export as yolo: c/2.png has no turn', records[2:], 'yolo'),
        ('has no CRS', records[:2], 'geoparquet'),
        ('holds nothing to export as llava: there are no records', [], 'llava'),
        ('no form named', records, 'kml'),
        ('names an image that is not there', [Record('no.png', records[0].turns)], 'coco'),
    ):
        with pytest.raises(BadInput, match=reason):
            export(some, form, out, root)
        assert not out.exists()
    export(records, 'coco', out, root)
    before = {p: p.read_bytes() for p in out.rglob('*') if p.is_file()}
    with pytest.raises(BadInput, match='--force'):
        export(records, 'yolo', out, root)
    monkeypatch.setitem(FORMATS, 'yolo', lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export(records, 'yolo', out, root, force=True)
    assert {p: p.read_bytes() for p in out.rglob('*') if p.is_file()} == before
    monkeypatch.undo()
    export(records, 'yolo', out, root, force=True)
    listed = (out / LIST).read_text().split()
    assert sorted(listed) == sorted(p.relative_to(out).as_posix() for p in out.rglob('*') if p.is_file())
    (out / 'mine.txt').write_text('keep')
    with pytest.raises(BadInput, match='mine.txt was written by no export'):
        export(records, 'yolo', out, root, force=True)
    for place in (root, root / 'a', root / 'a/1.png'):
        with pytest.raises(BadInput, match='it is read as'):
            export(records, 'yolo', place, root, force=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ['in', 'out']


def test_what_is_read_again_is_never_replaced(three, tmp_path):
    root, records = three
    export(records, 'coco', tmp_path / 'out', root)
    again = list(read('coco', tmp_path / 'out'))
    with pytest.raises(BadInput, match='it is read as'):
        export(again, 'voc', tmp_path / 'out', tmp_path / 'out', force=True)


def test_tilted_boxes_keep_their_corners(tmp_path):
    Image.new('RGB', (60, 60)).save(tmp_path / 'a.png')
    answer = 'There is <p>1 ship</p>[0.5000,0.2000,0.8000,0.5000,0.5000,0.8000,0.2000,0.5000].'
    records = [Record('a.png', [Turn('find all objects in this image.', answer, 'detection')])]
    (picture,) = labelled_pictures(records, tmp_path, [])
    assert np.allclose(picture.objects[0][1], np.array([30, 12, 48, 30, 30, 48, 12, 30]))
    export(records, 'yolo-oriented', tmp_path / 'o', tmp_path)
    line = (tmp_path / 'o/labels/train/a.txt').read_text().split()
    assert line[0] == '0' and np.allclose(
        [float(v) for v in line[1:]], [0.5, 0.2, 0.8, 0.5, 0.5, 0.8, 0.2, 0.5]
    )
    export(records, 'coco', tmp_path / 'c', tmp_path)
    (row,) = json.loads((tmp_path / 'c/annotations/instances.json').read_text())['annotations']
    assert row['bbox'] == [12, 12, 36, 36] and row['segmentation'] == [[30, 12, 48, 30, 30, 48, 12, 30]]


def test_companions_of_a_picture_go_with_it(tmp_path):
    Image.new('RGB', (20, 20)).save(tmp_path / 'a.png')
    (tmp_path / 'a.pgw').write_text('10\n0\n0\n-10\n500000\n4000000\n')
    answer = 'There is <p>1 ship</p>[0.20,0.30,0.50,0.60].'
    export(
        [Record('a.png', [Turn('find all objects in this image.', answer, 'detection')])],
        'yolo',
        tmp_path / 'o',
        tmp_path,
    )
    assert (tmp_path / 'o/images/train/a.pgw').read_text().startswith('10')


def test_pairs_go_to_llava_and_back_and_are_told_elsewhere(tmp_path):
    for name in ('a.png', 'b.png'):
        picture(tmp_path / f'in/{name}')
    turns = [Turn('is there a new ship?', 'yes', Task.PRESENCE), Turn('where?', 'in the port')]
    pair = Record(('a.png', 'b.png'), turns, words=('before', 'after'))
    export([pair], 'llava', tmp_path / 'out', tmp_path / 'in')
    (back,) = read('llava', tmp_path / 'out')
    assert back.images == pair.images and back.words == pair.words
    assert [(t.question, t.answer) for t in back.turns] == [(t.question, t.answer) for t in turns]
    with pytest.raises(BadInput, match='a.png . b.png has 2 pictures where one is needed'):
        export([pair], 'vlmeval', tmp_path / 'tsv', tmp_path / 'in')
