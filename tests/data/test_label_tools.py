"What label tools write: turned boxes, shapes that are no objects, one bad item among good ones."

import json

import numpy as np
import pytest
from fixtures_readers import CAR, SHIP, SIZE, build, coco_box, objects_of, picture, ring, shares, write

from earthgpt_lite.data.convert import read
from earthgpt_lite.data.formats import Parsed, Skipped
from earthgpt_lite.data.label_tools import createml, cvat, label_studio, labelme, vott, yolo
from earthgpt_lite.errors import BadInput


def told(found):
    "Pictures, and what was left out, of what a reader finds."
    found = list(found)
    kept = {p.image: p for p in found if isinstance(p, Parsed)}
    return kept, [f'{s.name} {s.why}' for s in found if isinstance(s, Skipped)]


def near(box, want):
    return np.allclose(np.array(box, float), np.array(want, float))


# ---- CVAT


def cvat_file(root, shapes, name='a.png', more=''):
    picture(root / name)
    image = f'<image id="0" name="{name}" width="80" height="60">{shapes}</image>{more}'
    write(root / 'annotations.xml', f'<annotations>{image}</annotations>')
    return told(cvat(root))


def test_cvat_turned_boxes_ellipses_and_masks(tmp_path):
    shapes = (
        '<box label="a" xtl="12" ytl="6" xbr="32" ybr="16" rotation="90.0"/>'
        '<ellipse label="b" cx="20" cy="10" rx="8" ry="4"/>'
        '<mask label="c" rle="1, 2" left="3" top="4" width="5" height="6"/>'
    )
    kept, left = cvat_file(tmp_path, shapes)
    (_, turned), (_, ellipse), (_, mask) = kept['a.png'].objects
    assert turned == [22, 11, 20, 10, 90] and ellipse == [20, 10, 16, 8, 0] and mask == [3, 4, 8, 10]
    assert not left
    record = next(read('cvat', tmp_path, decimals=4))
    assert near(sorted(objects_of(record))[0][1:], (17, 1, 27, 21)), (
        'turned by a right angle: 10 wide, 20 high'
    )


def test_cvat_shapes_that_are_no_objects_are_told(tmp_path):
    line = '<polyline label="coast" points="0,1;5,2"/>'
    box = '<box label="" xtl="1" ytl="1" xbr="9" ybr="9"/>'
    kept, left = cvat_file(tmp_path, line + box)
    assert not kept and 'nothing else' in left[0] and 'polyline' in left[0]
    kept, left = cvat_file(tmp_path, line + box.replace('""', '"ship"'))
    assert len(kept['a.png'].objects) == 1 and '1 shapes that are no objects' in left[0]


def test_cvat_one_bad_box_costs_its_picture_only(tmp_path):
    picture(tmp_path / 'b.png')
    good = '<image id="1" name="b.png" width="80" height="60"/>'
    kept, left = cvat_file(tmp_path, '<box label="a" xtl="x" ytl="6" xbr="32" ybr="16"/>', more=good)
    assert list(kept) == ['b.png'] and kept['b.png'].objects == [] and 'cannot be read' in left[0]


def test_cvat_tags_are_classes_and_videos_are_refused(tmp_path):
    kept, _ = cvat_file(tmp_path, '<tag label="Harbour_Town"/>')
    assert kept['a.png'].label == 'harbour town' and kept['a.png'].objects is None
    write(tmp_path / 'annotations.xml', '<annotations><track id="0" label="a"/></annotations>')
    with pytest.raises(
        BadInput, match='tracks of a video.*annotations.xml|annotations.xml.*tracks of a video'
    ):
        list(read('cvat', tmp_path))


# ---- LabelMe, VoTT, CreateML


def test_labelme_circles_lines_and_flags(tmp_path):
    picture(tmp_path / 'a.png'), picture(tmp_path / 'b.png')
    shapes = [
        {'label': 'tank', 'points': [[20, 10], [24, 13]], 'shape_type': 'circle'},
        {'label': 'road', 'points': [[0, 0], [9, 9]], 'shape_type': 'line'},
        {'label': 'ship', 'points': ring(CAR)[:4], 'shape_type': None},
    ]
    write(tmp_path / 'a.json', {'shapes': shapes, 'imagePath': 'elsewhere/a.png', 'imageData': 'x'})
    write(tmp_path / 'b.json', {'shapes': [], 'flags': {'harbour': True, 'farm': False}})
    write(tmp_path / 'notes.json', [1, 2])
    write(tmp_path / 'c.json', '{"shapes": [')
    kept, left = told(labelme(tmp_path))
    assert kept['a.png'].objects[0] == ('tank', [15, 5, 25, 15])
    assert near(kept['a.png'].objects[1][1], np.ravel(ring(CAR)[:4]))
    assert kept['b.png'].label == 'harbour' and kept['b.png'].objects is None
    assert len(left) == 3 and all(any(w in text for text in left) for w in ('a line', 'notes.json', 'c.json'))


def test_vott_tags_and_assets_that_nobody_looked_at(tmp_path):
    box = dict(zip(('left', 'top', 'width', 'height'), coco_box(SHIP, None)))
    assets = {}
    for name, state, tags in (('a', 2, ['ship', 'tanker']), ('b', 0, None), ('c', 2, []), ('d', 1, None)):
        picture(tmp_path / f'{name}.jpg')
        regions = [] if tags is None else [{'tags': tags, 'boundingBox': box}]
        asset = {'name': f'{name}.jpg', 'path': f'https://x.net/y/{name}.jpg', 'state': state}
        assets[name] = {'asset': asset, 'regions': regions}
    write(tmp_path / 'x-export.json', {'assets': assets})
    kept, left = told(vott(tmp_path))
    assert [label for label, _ in kept['a.jpg'].objects] == ['ship', 'tanker']
    assert kept['d.jpg'].objects == [] and set(kept) == {'a.jpg', 'd.jpg'}
    assert 'nobody has looked' in left[0] and 'without a label' in left[1]


@pytest.mark.parametrize('corner', [False, True])
def test_createml_middle_or_corner(corner, tmp_path):
    boxes = [SHIP, (0, 30, 20, 44)]
    picture(tmp_path / 'a.jpg')
    shapes = []
    for x1, y1, x2, y2 in boxes:
        at = (x1, y1) if corner else ((x1 + x2) / 2, (y1 + y2) / 2)
        coordinates = dict(zip(('x', 'y', 'width', 'height'), (*at, x2 - x1, y2 - y1)))
        shapes.append({'label': 'ship', 'coordinates': coordinates})
    write(tmp_path / 'x.json', [{'imagefilename': 'a.jpg', 'annotation': shapes}])
    left = []
    record = next(read('createml', tmp_path, left, decimals=4))
    assert near([o[1:] for o in objects_of(record)], sorted(boxes)[::1]), (
        'in either reading the boxes are these'
    )
    assert ('left and top' in str(left)) == corner
    assert createml.__doc__


# ---- Label Studio


def studio(root, results, **more):
    picture(root / 'a.png')
    answers = [{'result': results, 'was_cancelled': False}]
    task = {'data': {'image': '/data/local-files/?d=sets/my%20a/a.png'}, 'annotations': answers}
    write(root / 'x.json', [task | more])
    return told(label_studio(root))


def test_label_studio_turns_about_the_corner(tmp_path):
    value = {'x': 50, 'y': 50, 'width': 25, 'height': 100 / 6, 'rotation': 90, 'rectanglelabels': ['ship']}
    size = {'original_width': SIZE[0], 'original_height': SIZE[1]}
    kept, left = studio(tmp_path, [{'type': 'rectanglelabels', 'value': value, **size}])
    assert near(kept['a.png'].objects[0][1], (35, 40, 20, 10, 90)) and not left
    record = next(read('label-studio', tmp_path, decimals=4))
    assert near(objects_of(record)[0][1:], (30, 30, 40, 50))


def test_label_studio_choices_texts_and_other_people(tmp_path):
    results = [
        {'type': 'choices', 'value': {'choices': ['Harbour']}},
        {'type': 'textarea', 'value': {'text': ['A harbour with two ships.']}},
        {'type': 'keypointlabels', 'value': {'x': 1, 'y': 1, 'width': 1, 'keypointlabels': ['mast']}}
        | {'original_width': 80, 'original_height': 60},
    ]
    kept, left = studio(tmp_path, results)
    found = kept['a.png']
    assert (found.label, found.captions, found.objects) == ('harbour', ['A harbour with two ships.'], None)
    assert 'keypointlabels' in left[0]
    kept, left = studio(tmp_path, [], annotations=[])
    assert not kept and 'nobody has labelled it' in left[0]


# ---- YOLO


def test_yolo_outlines_poses_and_names(tmp_path):
    picture(tmp_path / 'images/a.jpg'), picture(tmp_path / 'images/b.jpg')
    outline = [(12, 6), (32, 6), (32, 16), (22, 16), (12, 16)]
    text = ' '.join(f'{x / SIZE[0]} {y / SIZE[1]}' for x, y in outline)
    write(tmp_path / 'labels/a.txt', f'0 {text}\n')
    write(tmp_path / 'classes.txt', 'fish farm\n')
    kept, left = told(yolo(tmp_path))
    assert (
        near(kept['images/a.jpg'].objects[0][1], SHIP) and kept['images/a.jpg'].objects[0][0] == 'fish farm'
    )
    assert len(left) == 1 and left[0].startswith('1 pictures have no file of labels')
    (tmp_path / 'classes.txt').unlink()
    write(tmp_path / 'data.yaml', 'kpt_shape: [2, 2]\nnames: {0: horse}\n')
    line = ' '.join(map(str, shares(SHIP)))
    write(tmp_path / 'labels/a.txt', f'0 {line} 0.1 0.1 0.9 0.9\n')
    kept, _ = told(yolo(tmp_path))
    assert near(kept['images/a.jpg'].objects[0][1], SHIP), 'joints are no corners'


def test_yolo_faults_cost_one_picture_each(tmp_path):
    line = ' '.join(map(str, shares(SHIP)))
    rows = dict(
        good=f'0 {line}\n',
        pixels='0 12 6 32 16\n',
        unnamed=f'7 {line}\n',
        odd=f'0 {line} 0.5\n',
        word='0 x\n',
    )
    for name, text in rows.items():
        picture(tmp_path / f'{name}.jpg')
        write(tmp_path / f'{name}.txt', text)
    write(tmp_path / 'obj.names', 'ship\n')
    write(tmp_path / 'train.txt', '\n'.join(f'data/{name}.jpg' for name in rows))
    kept, left = told(yolo(tmp_path))
    assert list(kept) == ['good.jpg'] and kept['good.jpg'].split == 'train'
    words = dict(pixels='no shares', unnamed='class 7', odd='6 numbers', word='no class and shares')
    for name, word in words.items():
        assert any(name in text and word in text for text in left), (name, left)


def test_yolo_splits_of_data_yaml(tmp_path):
    line = ' '.join(map(str, shares(SHIP)))
    for name in ('one', 'two', 'three'):
        picture(tmp_path / f'images/{name}/a b.jpg')
        write(tmp_path / f'labels/{name}/a b.txt', f'1 {line}')
    names = 'names:\n  1: Ship\n  0: Car\n'
    write(tmp_path / 'my.yaml', f'path: ../x\ntrain: [images/one, images/two]\nval: ./images/three\n{names}')
    kept, left = told(yolo(tmp_path))
    splits = [kept[f'images/{name}/a b.jpg'].split for name in ('one', 'two', 'three')]
    assert splits == ['train', 'train', 'validation'] and not left
    write(tmp_path / 'classes.txt', 'Car\nBoat\n')
    with pytest.raises(BadInput, match='name the classes differently'):
        list(read('yolo', tmp_path))


def test_yolo_without_names_says_so(tmp_path):
    build('yolo', tmp_path)
    (tmp_path / 'data.yaml').unlink()
    left = []
    records = list(read('yolo', tmp_path, left))
    assert 'class 1' in records[0].turns[0].answer and 'data.yaml' in str(left)


@pytest.mark.parametrize('name', ['cvat', 'labelme', 'vott', 'createml', 'label-studio', 'yolo'])
def test_marks_line_ends_and_capitals(name, tmp_path):
    "A byte order mark, the line ends of Windows, and picture suffixes in capitals change nothing."
    truth = build(name, tmp_path)
    want = [record.turns for record in read(name, tmp_path)]
    for path in list(tmp_path.rglob('*')):
        if path.suffix in ('.json', '.xml', '.txt', '.yaml'):
            path.write_bytes(b'\xef\xbb\xbf' + path.read_bytes().replace(b'\n', b'\r\n'))
        elif path.is_file():
            path.rename(path.with_suffix(path.suffix.upper()))
    got = list(read(name, tmp_path))
    assert len(got) == len(truth) and [json.dumps(r.turns[-1].answer) for r in got] == [
        json.dumps(turns[-1].answer) for turns in want
    ]
