"""Small folders in the layout of each data set, written by us.

They show that a reader does what we believe, not that we believe right. build(name, root) makes the folder and
returns what a reader must find: {picture below the root: {key: value}} with the keys split, label, captions,
objects (label, box in pixels), phrases, qa (question, answer, task), sensor."""

import json
import warnings

import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import from_origin
from rasterio.warp import transform_geom

from earthgpt_lite.boxes.text import parse_boxes, to_pixels

SIZE = (80, 60)  # width, height of every picture
SHIP, CAR = (12, 6, 32, 16), (40, 20, 48, 30)


def picture(path, size=SIZE, bands=0, crs=None, transform=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = (
        np.random.default_rng(len(str(path.name)))
        .integers(40, 200, (bands or 3, size[1] // 4, size[0] // 4), dtype='uint8')
        .repeat(4, 1)
        .repeat(4, 2)
    )
    if not bands and crs is None:
        Image.fromarray(pixels.transpose(1, 2, 0)).save(path)
        return
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with rasterio.open(
            path,
            'w',
            driver='GTiff',
            width=size[0],
            height=size[1],
            count=len(pixels),
            dtype='uint16' if bands else 'uint8',
            crs=crs,
            transform=transform,
        ) as f:
            f.write(pixels.astype('uint16') * 30 if bands else pixels)


def write(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding='utf-8')


# ---- class folders


def folders(root, rows, bands=0):
    for path, *_ in rows:
        picture(root / path, bands=bands)
    return {path: {'label': label, 'split': split} for path, label, split in rows}


def resisc45(root):
    return folders(
        root,
        [
            ('NWPU-RESISC45/airport/airport_001.jpg', 'airport', ''),
            ('NWPU-RESISC45/airport/airport_700.jpg', 'airport', ''),
            ('NWPU-RESISC45/golf_course/golf_course_001.jpg', 'golf course', ''),
        ],
    )


def aid(root):
    return folders(
        root,
        [
            ('AID/Airport/airport_1.jpg', 'airport', ''),
            ('AID/BareLand/bareland_12.jpg', 'bare land', ''),
            ('AID/Airport/airport_300.jpg', 'airport', ''),
        ],
    )


def ucmerced(root):
    return folders(
        root,
        [
            ('UCMerced_LandUse/Images/agricultural/agricultural00.tif', 'agricultural', ''),
            ('UCMerced_LandUse/Images/tenniscourt/tenniscourt99.tif', 'tenniscourt', ''),
        ],
    )


def eurosat(root):
    (
        write(root / 'eurosat-train.txt', 'AnnualCrop_1.jpg\n'),
        write(root / 'eurosat-test.txt', 'SeaLake_12.jpg\n'),
    )
    return folders(
        root,
        [
            ('2750/AnnualCrop/AnnualCrop_1.jpg', 'annual crop', 'train'),
            ('2750/SeaLake/SeaLake_12.jpg', 'sea lake', 'test'),
        ],
    )


def eurosat_bands(root):
    base = 'ds/images/remote_sensing/otherDatasets/sentinel_2/tif'
    write(root / 'eurosat-val.txt', 'AnnualCrop_1.jpg\n')
    return folders(
        root,
        [
            (f'{base}/AnnualCrop/AnnualCrop_1.tif', 'annual crop', 'validation'),
            (f'{base}/SeaLake/SeaLake_12.tif', 'sea lake', ''),
        ],
        bands=13,
    )


def whu_rs19(root):
    return folders(
        root,
        [
            ('WHU-RS19/airport/airport_01.jpg', 'airport', ''),
            ('WHU-RS19/beach/beach-02.jpg', 'beach', ''),
            ('WHU-RS19/footballField/footballField_11.jpg', 'football field', ''),
        ],
    )


def rsscn7(root):
    return folders(
        root,
        [
            ('aGrass/a001.jpg', 'grass', ''),
            ('dRiverLake/d400.jpg', 'river or lake', ''),
            ('gParking/g002.jpg', 'parking', ''),
        ],
    )


def fgscr42(root):
    return folders(
        root,
        [
            ('train/1.Nimitz-class_aircraft_carrier/a.bmp', 'nimitz-class aircraft carrier', 'train'),
            ('test/7.Container_ship/b.bmp', 'container ship', 'test'),
        ],
    )


def dscr(root):
    return folders(
        root, [('DCSR/train/warship/a.jpg', 'warship', 'train'), ('DCSR/test/cargo/b.jpg', 'cargo', 'test')]
    )


def own_folders(root):
    return folders(
        root, [('red roofs/a.png', 'red roofs', ''), ('val/green_roofs/b.png', 'green roofs', 'validation')]
    )


# ---- captions


def karpathy(root, file, images, key, suffix='.jpg'):
    rows, truth = [], {}
    for i, split in enumerate(('train', 'test')):
        picture(root / f'{images}airport_{i}{suffix}')
        said = [f'a plane number {i} .', f'there is a runway {i} .']
        rows.append(
            {
                'filename': f'airport_{i}{suffix}',
                'imgid': i,
                'split': split,
                'sentids': [0, 1, 2],
                'sentences': [
                    {'tokens': s.split(), 'raw': s, 'imgid': i, 'sentid': k}
                    for k, s in enumerate([*said, said[0]])
                ],
            }
        )
        truth[f'{images}airport_{i}{suffix}'] = {'captions': said, 'split': split}
    write(root / file, {'images': rows, 'dataset': key})
    return truth


def rsicd(root):
    return karpathy(root, 'dataset_rsicd.json', 'RSICD_images/', 'rsicd')


def ucm_captions(root):
    return karpathy(root, 'UCM_captions/dataset.json', 'UCM_captions/imgs/', '', '.tif')


def sydney_captions(root):
    return karpathy(root, 'Sydney_captions/dataset.json', 'Sydney_captions/imgs/', '', '.tif')


def rsitmd(root):
    return karpathy(root, 'dataset_RSITMD.json', 'images/', 'RSITMD', '.tif')


def own_captions(root):
    return karpathy(root, 'dataset.json', 'pics/', 'mine', '.png')


def nwpu_captions(root):
    data, truth = {}, {}
    for name in ('airport', 'beach'):
        path = f'NWPU_images/{name}/{name}_001.jpg'
        picture(root / path)
        data[name] = [
            {
                'filename': f'{name}_001.jpg',
                'imgid': 0,
                'split': 'val',
                'sentids': [0],
                'raw': f'one {name}',
                **{f'raw_{k}': f'{name} {k}' for k in range(1, 5)},
            }
        ]
        truth[path] = {
            'captions': [f'one {name}', *(f'{name} {k}' for k in range(1, 5))],
            'split': 'validation',
        }
    write(root / 'dataset_nwpu.json', data)
    return truth


# ---- questions


def active(id, **more):
    return {'id': id, 'active': True, **more}


def rsvqa_questions(number):
    road = dict(type='presence', question='Is a road present?', answers_ids=[2])
    more = dict(type='comp', question='Are there more roads than lakes?', answers_ids=[3])
    area = dict(type='area', question='What is the area?', answers_ids=[7])
    return [
        {'id': 0, 'active': False},
        active(1, img_id=number, people_id=0, **road),
        active(3, img_id=number, **more),
        active(4, img_id=number, type='count'),
        active(5, img_id=number, **area),
    ]


def rsvqa(root, prefix, splits, images):
    truth = {}
    answers = [
        {'id': 0, 'active': False},
        active(2, question_id=1, answer='yes'),
        active(3, question_id=3, answer='no'),
        active(6),
        {'id': 7, 'active': False, 'answer': '37m2'},
    ]
    turns = [
        ('Is a road present?', 'yes', 'presence'),
        ('Are there more roads than lakes?', 'no', 'comparison'),
        ('How many roads are there?', '4', 'counting'),
    ]
    for number, split in enumerate(splits, 10):
        picture(root / f'{images}/{number}.tif')
        rows = {
            'images': [active(number, questions_ids=[0, 1, 3, 4, 5])],
            'questions': rsvqa_questions(number),
            'answers': answers,
        }
        for key, some in rows.items():
            write(root / f'{prefix}_split_{split}_{key}.json', {key: some})
        truth[f'{images}/{number}.tif'] = {'split': split, 'qa': turns}
    count = dict(type='count', question='How many roads are there?', answers_ids=[6])
    write(root / 'all_questions.json', {'questions': [{'id': 4, 'img_id': 10, **count}]})
    write(root / 'all_answers.json', {'answers': [{'id': 6, 'question_id': 4, 'answer': 4}]})
    return truth


def rsvqa_lr(root):
    return rsvqa(root, 'LR', ['train'], 'Images_LR')


def rsvqa_hr(root):
    return rsvqa(root, 'USGS', ['test_phili'], 'Data')


def rsivqa(root):
    picture(root / 'DOTA/P0003.png'), picture(root / 'AID/00433.jpg')
    write(
        root / 'dota_train.txt',
        'P0003: how many small vehicles are there in this picture?15\nP0003:is there a ship? or a boat?no\n\n',
    )
    write(root / 'aid.txt', '00433.jpg:what is the theme of this picture?airport\n')
    return {
        'DOTA/P0003.png': {
            'split': 'train',
            'qa': [
                ('how many small vehicles are there in this picture?', '15', 'vqa'),
                ('is there a ship? or a boat?', 'no', 'vqa'),
            ],
        },
        'AID/00433.jpg': {'qa': [('what is the theme of this picture?', 'airport', 'vqa')]},
    }


def crsvqa(root):
    picture(root / 'image/1.jpg'), picture(root / 'image/2.jpg')
    write(root / 'text/1.txt', 'What is next to the road?\na lake\nIs it day？\nyes\n')
    (root / 'text/2.txt').write_bytes('What is this？\na park\n'.encode('gbk'))
    return {
        'image/1.jpg': {'qa': [('What is next to the road?', 'a lake', 'vqa'), ('Is it day?', 'yes', 'vqa')]},
        'image/2.jpg': {'qa': [('What is this?', 'a park', 'vqa')]},
    }


def floodnet(root):
    picture(root / 'Images/Train_Image/10165.JPG')
    rows = [
        ('What is the overall condition of the given image?', 'flooded', 'Condition_Recognition'),
        ('How many buildings are there?', 4, 'Simple_Counting'),
    ]
    write(
        root / 'Questions/Training Question.json',
        {
            str(i): {'Image_ID': '10165.JPG', 'Question': q, 'Ground_Truth': a, 'Question_Type': t}
            for i, (q, a, t) in enumerate(rows)
        },
    )
    return {
        'Images/Train_Image/10165.JPG': {
            'split': 'train',
            'qa': [(rows[0][0], 'flooded', 'vqa'), (rows[1][0], '4', 'counting')],
        }
    }


# ---- boxes


def corners_xml(box):
    return ''.join(f'<{k}>{v}</{k}>' for k, v in zip(('xmin', 'ymin', 'xmax', 'ymax'), box))


def object_xml(label, box, *descriptions):
    described = ''.join(f'<description>{text}</description>' for text in descriptions)
    head = f'<name>{label}</name><pose>Unspecified</pose>'
    return f'<object>{head}<bndbox>{corners_xml(box)}</bndbox>{described}</object>'


def xml(objects, name='x.jpg', extra=''):
    size = f'<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height><depth>3</depth></size>'
    head = f'<filename>{name}</filename><source><database>x</database></source>{size}<segmented>0</segmented>'
    return f'<annotation>{head}{"".join(object_xml(*o) for o in objects)}{extra}</annotation>'


def ring(b):
    return (b[0], b[1]), (b[2], b[1]), (b[2], b[3]), (b[0], b[3]), (b[0], b[1])


def points_xml(label, box):
    points = ''.join(f'<point>{x}, {y}</point>' for x, y in ring(box))
    head = '<coordinate>pixel</coordinate><type>rectangle</type><description>None</description>'
    result = f'<possibleresult><name>{label}</name></possibleresult>'
    return f'<object>{head}{result}<points>{points}</points></object>'


def objects_xml(objects):
    source = '<source><filename>x.tif</filename><origin>GF2/GF3</origin></source>'
    found = ''.join(points_xml(label, box) for label, box in objects)
    head = '<?xml version="1.0" encoding="utf-8"?>'
    return f'{head}<annotation>{source}<objects>{found}</objects></annotation>'


def dior(root):
    for name in ('00001', '00002'):
        picture(root / f'JPEGImages-trainval/{name}.jpg')
    base = 'Annotations/Horizontal Bounding Boxes'
    (
        write(root / base / '00001.xml', xml([('golffield', SHIP), ('Expressway-Service-area', CAR)])),
        write(root / base / '00002.xml', xml([('ship', SHIP)])),
    )
    write(root / 'ImageSets/Main/train.txt', '00001\n'), write(root / 'ImageSets/Main/val.txt', '00002\n')
    return {
        'JPEGImages-trainval/00001.jpg': {
            'objects': [('golffield', SHIP), ('expressway service area', CAR)],
            'split': 'train',
        },
        'JPEGImages-trainval/00002.jpg': {'objects': [('ship', SHIP)], 'split': 'validation'},
    }


def dior_rsvg(root):
    for name in ('00002', '00010'):
        picture(root / f'DIOR_RSVG/JPEGImages/{name}.jpg')
    (
        write(root / 'DIOR_RSVG/Annotations/00010.xml', xml([('vehicle', CAR, 'The Vehicle below')])),
        write(
            root / 'DIOR_RSVG/Annotations/00002.xml',
            xml([('vehicle', SHIP, 'The tiny vehicle'), ('vehicle', CAR, 'A vehicle on the right')]),
        ),
    )
    for split, numbers in (('train', '0\n2\n'), ('val', ''), ('test', '1\n')):
        write(root / f'DIOR_RSVG/{split}.txt', numbers)
    two = 'DIOR_RSVG/JPEGImages/00002.jpg'
    return {
        (two, 'train'): {'phrases': [('the tiny vehicle', SHIP)], 'split': 'train'},
        (two, 'test'): {'phrases': [('a vehicle on the right', CAR)], 'split': 'test'},
        ('DIOR_RSVG/JPEGImages/00010.jpg', 'train'): {
            'phrases': [('the vehicle below', CAR)],
            'split': 'train',
        },
    }


def dota(root):
    picture(root / 'train/images/P0706.png'), picture(root / 'val/images/P0002.png')
    eight = lambda b: f'{b[0]} {b[1]} {b[2]} {b[1]} {b[2]} {b[3]} {b[0]} {b[3]}'
    (
        write(
            root / 'train/labelTxt-v1.5/labelTxt/P0706.txt',
            f'imagesource:GoogleEarth\ngsd:0.255589285596\n{eight(SHIP)} ship 1\n{eight(CAR)} small-vehicle 0\n',
        ),
        write(root / 'val/labelTxt-v1.5/labelTxt/P0002.txt', f'{eight(SHIP)} container-crane 0\n'),
    )
    return {
        'train/images/P0706.png': {'objects': [('ship', SHIP), ('small vehicle', CAR)], 'split': 'train'},
        'val/images/P0002.png': {'objects': [('container crane', SHIP)], 'split': 'validation'},
    }


def vhr10(root):
    picture(root / 'positive image set/001.jpg'), picture(root / 'negative image set/001.jpg')
    write(root / 'ground truth/001.txt', '(12,6),(32,16),2 \n( 40, 20),( 48, 30),10\n\n')
    return {
        'positive image set/001.jpg': {'objects': [('ship', SHIP), ('vehicle', CAR)]},
        'negative image set/001.jpg': {'objects': []},
    }


def hrrsd(root):
    picture(root / 'OPT2017/JPEGImages/00001.jpg')
    (
        write(root / 'OPT2017/Annotations/00001.xml', xml([('ship', SHIP), ('T junction', CAR)])),
        write(root / 'OPT2017/ImageSets/Main/test.txt', '00001\n'),
        write(root / 'OPT2017/ImageSets/Main/ship_test.txt', '00001  1\n'),
    )
    return {
        'OPT2017/JPEGImages/00001.jpg': {'objects': [('ship', SHIP), ('t junction', CAR)], 'split': 'test'}
    }


def rsod(root):
    picture(root / 'aircraft/JPEGImages/aircraft_4.jpg'), picture(root / 'oiltank/JPEGImages/oiltank_1.jpg')
    (
        write(root / 'aircraft/Annotation/xml/aircraft_4.xml', xml([('aircraft', SHIP)])),
        write(root / 'oiltank/Annotation/xml/oiltank_1.xml', xml([('oiltank', CAR)])),
    )
    return {
        'aircraft/JPEGImages/aircraft_4.jpg': {'objects': [('aircraft', SHIP)]},
        'oiltank/JPEGImages/oiltank_1.jpg': {'objects': [('oiltank', CAR)]},
    }


def ucas_aod(root):
    for name in ('CAR/P0001', 'PLANE/P0001', 'NEG/N0001'):
        picture(root / f'{name}.png')
    thirteen = lambda b: '\t'.join(
        map(str, (b[0], b[1], b[2], b[1], b[2], b[3], b[0], b[3], 0.0, b[0], b[1], b[2] - b[0], b[3] - b[1]))
    )
    (
        write(root / 'CAR/P0001.txt', thirteen(CAR) + '\n'),
        write(root / 'PLANE/P0001.txt', thirteen(SHIP) + '\n'),
    )
    return {
        'CAR/P0001.png': {'objects': [('car', CAR)]},
        'PLANE/P0001.png': {'objects': [('plane', SHIP)]},
        'NEG/N0001.png': {'objects': []},
    }


def visdrone(root):
    base = 'VisDrone2019-DET-train'
    picture(root / f'{base}/images/0000002_00005_d_0000014.jpg')
    write(
        root / f'{base}/annotations/0000002_00005_d_0000014.txt',
        '12,6,20,10,1,4,0,0\n40,20,8,10,1,8,0,1,\n0,0,9,9,0,0,0,0\n1,1,5,5,1,11,0,0\n2,2,5,5,0,4,0,0\n',
    )
    return {
        f'{base}/images/0000002_00005_d_0000014.jpg': {
            'objects': [('car', SHIP), ('awning tricycle', CAR)],
            'split': 'train',
        }
    }


def fair1m(root):
    picture(root / 'train/part1/images/1.tif')
    write(root / 'train/part1/labelXml/1.xml', objects_xml([('Boeing737', SHIP), ('Small Car', CAR)]))
    return {
        'train/part1/images/1.tif': {'objects': [('boeing737', SHIP), ('small car', CAR)], 'split': 'train'}
    }


def coco_box(b, angle):
    if angle is None:
        return [b[0], b[1], b[2] - b[0], b[3] - b[1]]
    return [(b[0] + b[2]) / 2, (b[1] + b[3]) / 2, b[2] - b[0], b[3] - b[1], angle]


def coco(images, boxes, names, keys=('annotations', 'file_name'), start=1, angle=None):
    size = {'width': SIZE[0], 'height': SIZE[1]}
    annotations = []
    for k, (i, c, b) in enumerate(boxes):
        row = {'id': k, 'image_id': i, 'category_id': c, 'bbox': coco_box(b, angle)}
        annotations.append(row | {'iscrowd': 0, 'segmentation': []})
    return {
        'info': {},
        'licenses': [],
        'categories': [{'id': i, 'name': n, 'supercategory': n} for i, n in enumerate(names, start)],
        'images': [{'id': i, keys[1]: name, **size} for i, name in enumerate(images)],
        keys[0]: annotations,
    }


def hrsid(root):
    for name in ('P0001_0_800_7200_8000.jpg', 'P0137_62.jpg'):
        picture(root / f'HRSID_JPG/JPEGImages/{name}')
    (
        write(
            root / 'HRSID_JPG/annotations/train2017.json',
            coco(['P0001_0_800_7200_8000.jpg'], [(0, 1, SHIP), (0, 1, CAR)], ['ship']),
        ),
        write(root / 'HRSID_JPG/annotations/test2017.json', coco(['P0137_62.jpg'], [(0, 1, CAR)], ['ship'])),
    )
    write(root / 'HRSID_JPG/annotations/train_test2017.json', coco(['P0137_62.jpg'], [], ['ship']))
    return {
        'HRSID_JPG/JPEGImages/P0001_0_800_7200_8000.jpg': {
            'objects': [('ship', SHIP), ('ship', CAR)],
            'split': 'train',
        },
        'HRSID_JPG/JPEGImages/P0137_62.jpg': {'objects': [('ship', CAR)], 'split': 'test'},
    }


def ssdd(root):
    base = 'Official-SSDD-OPEN/BBox_SSDD/coco_style'
    picture(root / f'{base}/images/train/000002.jpg'), picture(root / f'{base}/images/test/000001.jpg')
    (
        write(root / f'{base}/annotations/train.json', coco(['000002.jpg'], [(0, 1, SHIP)], ['ship'])),
        write(root / f'{base}/annotations/test.json', coco(['000001.jpg'], [(0, 1, CAR)], ['ship'])),
    )
    return {
        f'{base}/images/train/000002.jpg': {'objects': [('ship', SHIP)], 'split': 'train'},
        f'{base}/images/test/000001.jpg': {'objects': [('ship', CAR)], 'split': 'test'},
    }


def ssdd_voc(root):
    base = 'Official-SSDD-OPEN/BBox_SSDD/voc_style'
    (
        picture(root / f'{base}/JPEGImages_train/000002.jpg'),
        picture(root / f'{base}/JPEGImages_test/000001.jpg'),
    )
    (
        write(root / f'{base}/Annotations_train/000002.xml', xml([('ship', SHIP)])),
        write(root / f'{base}/Annotations_test/000001.xml', xml([('ship', CAR)])),
    )
    return {
        f'{base}/JPEGImages_train/000002.jpg': {'objects': [('ship', SHIP)], 'split': 'train'},
        f'{base}/JPEGImages_test/000001.jpg': {'objects': [('ship', CAR)], 'split': 'test'},
    }


def air_sarship(root):
    picture(root / 'AIR-SARShip-2.0-data/83.tiff', bands=1)
    write(root / 'AIR-SARShip-2.0-xml/83.xml', objects_xml([('ship', SHIP), ('ship', CAR)]))
    return {'AIR-SARShip-2.0-data/83.tiff': {'objects': [('ship', SHIP), ('ship', CAR)]}}


HIT = ('Person', 'Car', 'Bicycle', 'OtherVehicle', 'DontCare')


def hit_uav(root):
    (
        picture(root / 'normal_json/train/0_100_30_0_03280.jpg'),
        picture(root / 'normal_json/val/0_100_30_0_03281.jpg'),
    )
    write(
        root / 'normal_json/annotations/train.json',
        coco(
            ['0_100_30_0_03280.jpg'],
            [(0, 1, CAR), (0, 3, SHIP), (0, 4, (1, 1, 5, 5))],
            HIT,
            ('annotation', 'filename'),
            0,
        ),
    )
    write(
        root / 'normal_json/annotations/val.json',
        coco(['0_100_30_0_03281.jpg'], [], HIT, ('annotation', 'filename'), 0),
    )
    return {
        'normal_json/train/0_100_30_0_03280.jpg': {
            'objects': [('car', CAR), ('other vehicle', SHIP)],
            'split': 'train',
        },
        'normal_json/val/0_100_30_0_03281.jpg': {'objects': [], 'split': 'validation'},
    }


def hit_uav_rotated(root):
    picture(root / 'rotate_json/test/0_100_30_0_03280.jpg')
    write(
        root / 'rotate_json/annotations/test.json',
        coco(
            ['0_100_30_0_03280.jpg'],
            [(0, 1, CAR), (0, 4, SHIP)],
            HIT,
            ('annotations', 'filename'),
            0,
            angle=np.pi / 2,
        ),
    )
    (cx, cy), (w, h) = ((CAR[0] + CAR[2]) / 2, (CAR[1] + CAR[3]) / 2), (CAR[2] - CAR[0], CAR[3] - CAR[1])
    return {
        'rotate_json/test/0_100_30_0_03280.jpg': {
            'objects': [('car', (cx - h / 2, cy - w / 2, cx + h / 2, cy + w / 2))],
            'split': 'test',
        }
    }


def iray(root):
    picture(root / 'JPEGImages/0001.jpg')
    write(root / 'Annotations/0001.xml', xml([('sailboat', SHIP), ('bulk carrier', CAR)]))
    return {'JPEGImages/0001.jpg': {'objects': [('sailboat', SHIP), ('bulk carrier', CAR)]}}


def own_coco(root):
    picture(root / 'pics/a.png')
    write(root / 'boxes.json', coco(['a.png'], [(0, 1, SHIP)], ['greenhouse']))
    return {'pics/a.png': {'objects': [('greenhouse', SHIP)]}}


def own_voc(root):
    picture(root / 'val/a.png'), write(root / 'val/a.xml', xml([('well', CAR)]))
    return {'val/a.png': {'objects': [('well', CAR)], 'split': 'validation'}}


# ---- conversations and own labels


def conversation(*pairs):
    return [{'from': who, 'value': text} for pair in pairs for who, text in zip(('human', 'gpt'), pair)]


# fmt: off
MMRS1M = [  # folder, file, picture, sensor, turns
    ('RSVG', 'rsvg_trainval', 'RSVG/DIOR_RSVG/images/1.jpg', 'optical',
     [('Please provide a short description for this region in this remote sensing image :[0.1,0.2,0.3,0.4]',
       'The tiny vehicle', 'region_caption'),
      ('Please provide the horizontal bounding box coordinate of the region which is described as:'
       'The tiny vehicle in this remote sensing image',
       '[0.1,0.2,0.3,0.4]', 'grounding')]),
    ('caption', 'caption_syndney', 'caption/syndney/2.jpg', 'optical',
     [('describe it', 'a harbour .', 'caption')]),
    ('classification', 'DSCR_cls', 'classification/DCSR/3.jpg', 'optical',
     [('which ship?', 'warship', 'classification')]),
    ('VQA', 'floodnet', 'VQA/floodnet/4.jpg', 'optical',
     [('is it flooded?', 'no', 'vqa')]),
    ('detection/SSDD', 'ssdd', 'detection/SSDD/5.jpg', 'sar',
     [('Please detect all objects in this image.',
       'There are <p>2 ships</p>[0.10,0.20,0.30,0.40;0.50,0.60,0.70,0.80]', 'detection')]),
    ('detection/IR_ship', 'IR_ship', 'detection/IR_ship/6.jpg', 'infrared',
     [('Please detect all objects in this image.',
       'There is <p>1 ship</p>[0.10,0.20,0.30,0.40]', 'detection')]),
]
# fmt: on


def mmrs1m(root):
    truth, base = {}, root / 'mmrs1m/data'
    for folder, name, image, sensor, turns in MMRS1M:
        picture(base / image)
        messages = conversation(*(turn[:2] for turn in turns))
        row = {'image': f'data/{image}'.replace('/', '\\'), 'conversations': messages}
        write(base / f'json/{folder}/{name}.json', [row])
        write(base / 'json/detection/total.json', [row])
        truth[f'mmrs1m/data/{image}'] = {'qa': turns, 'sensor': sensor}
    return truth


def geochat(root):
    picture(root / 'a.png')
    rows = [
        {
            'id': '1',
            'image': 'share/softwares/kartik/a.png',
            'conversations': conversation(
                ('<image>\n[refer] Give me the location of <p> a ship </p>', '{<0><0><50><100>|<0>}')
            ),
        },
        {
            'id': '2',
            'image': 'a.png',
            'conversations': conversation(('<image>\n[identify] What is {<50><0><100><100>|<0>}', 'a car')),
        },
    ]
    write(root / 'GeoChat_Instruct.json', rows)
    return {
        ('a.png', 0): {
            'qa': [('Give me the location of <p> a ship </p>', '[0.00,0.13,0.50,0.88]', 'grounding')]
        },
        ('a.png', 1): {'qa': [('What is [0.50,0.13,1.00,0.88]', 'a car', 'region_caption')]},
    }


def levir_cc(root):
    rows = []
    for k, (split, sentences) in enumerate(
        [('train', ['a house appears .', 'one house is built .']), ('test', ['nothing differs .'])]
    ):
        name = f'{split}_{k:06d}.png'
        for date in 'AB':
            picture(root / f'images/{split}/{date}/{name}')
        told = [{'raw': f' {text} ', 'tokens': text.split()} for text in sentences]
        row = {'filepath': split, 'filename': name, 'split': split, 'sentences': told, 'changeflag': 1 - k}
        rows.append(row)
    write(root / 'LevirCCcaptions.json', {'images': rows, 'dataset': 'Levir_CC'})
    pair = lambda name: tuple(f'images/{name.split("_")[0]}/{date}/{name}' for date in 'AB')
    return {
        pair('train_000000.png'): {
            'captions': ['a house appears .', 'one house is built .'],
            'split': 'train',
        },
        pair('test_000001.png'): {'captions': ['nothing differs .'], 'split': 'test'},
    }


def levir_cd(root):
    for split, name, boxes in (('train', '1.png', [SHIP, CAR]), ('val', '1.png', [])):
        mask = np.zeros((SIZE[1], SIZE[0]), np.uint8)
        for x1, y1, x2, y2 in boxes:
            mask[y1:y2, x1:x2] = 255
        for folder in 'AB':
            picture(root / f'{split}/{folder}/{name}')
        (root / f'{split}/label').mkdir(parents=True)
        Image.fromarray(mask).save(root / f'{split}/label/{name}')
    asked = 'has anything changed between these images?'
    found = [('changed building', SHIP), ('changed building', CAR)]
    return {
        ('train/A/1.png', 'train/B/1.png'): {'split': 'train', 'first': (asked, 'yes'), 'objects': found},
        ('val/A/1.png', 'val/B/1.png'): {'split': 'validation', 'first': (asked, 'no'), 'objects': []},
    }


def geobench_vlm_temporal(root):
    for date in ('pre', 'post'):
        picture(root / f'Temporal/images/a_{date}.png')
    row = {
        'question_id': 4,
        'image_path': ['Temporal/images/a_pre.png', 'Temporal/images/a_post.png'],
        'task': 'Damaged Building Count',
        'prompts': ['How many buildings are damaged?'],
        'options': 'A. 1 B. 2',
        'ground_truth': '2',
        'ground_truth_option': 'B',
    }
    write(root / 'Temporal/qa.json', [row])
    qa = [('How many buildings are damaged? Options: A. 1 B. 2', '2', 'counting')]
    return {tuple(row['image_path']): {'qa': qa, 'words': ('before', 'after')}}


def teochat(root):
    for year in (2016, 2019):
        picture(root / f's2looking/images/{year}.png')
    text = 'This is a sequence of satellite images: <video>\nIdentify all changed buildings.'
    row = {
        'id': '1',
        'video': ['s2looking/images/2016.png', 's2looking/images/2019.png'],
        'task': 'localization_task',
        'conversations': conversation((text, '[50, 40, 60, 50]')),
    }
    write(root / 'train/instruct.json', [row])
    question = 'This is a sequence of satellite images: Identify all changed buildings.'
    qa = [(question, '[0.500,0.425,0.600,0.500]', 'grounding')]  # of 80 x 60 pixels in a square of 80
    return {tuple(row['video']): {'qa': qa, 'split': 'train'}}


def llava(root):
    picture(root / 'pics/a.png')
    write(
        root / 'mine.json',
        [
            {
                'id': '1',
                'image': 'pics/a.png',
                'conversations': conversation(
                    ('<image>\nWhat is it?', 'a farm'), ('Is it large?', 'yes, rather')
                ),
            }
        ],
    )
    return {
        'pics/a.png': {
            'qa': [('What is it?', 'a farm', 'dialogue'), ('Is it large?', 'yes, rather', 'dialogue')]
        }
    }


def table(root):
    picture(root / 'a.png'), picture(root / 'b.png')
    rows = ['a.png,12,6,32,16,well,train', 'a.png,40,20,48,30,shed,train', 'b.png,,,,,,val']
    text = '\n'.join(['\ufeffimage,x1,y1,x2,y2,label,split', *rows])
    write(root / 'boxes.csv', text + '\n')
    return {
        'a.png': {'objects': [('well', SHIP), ('shed', CAR)], 'split': 'train'},
        'b.png': {'objects': [], 'split': 'validation'},
    }


def geojson(root):
    utm = from_origin(500_000, 4_000_000, 10, 10)
    picture(root / 'scene.tif', crs='EPSG:32631', transform=utm)
    features = []
    for box, name in ((SHIP, 'Wind-Farm'), (CAR, 'pond'), ((900, 900, 910, 910), 'far')):
        polygon = {'type': 'Polygon', 'coordinates': [[list(utm @ point) for point in ring(box)]]}
        polygon = transform_geom('EPSG:32631', 'EPSG:4326', polygon)
        features.append({'type': 'Feature', 'properties': {'class': name}, 'geometry': polygon})
    write(root / 'drawn.geojson', {'type': 'FeatureCollection', 'features': features})
    return {'scene.tif': {'objects': [('wind farm', SHIP), ('pond', CAR)]}}


# ---- captions, questions and boxes of newer sets


def coco_captions(root):
    picture(root / 'val2017/a.png')
    images = [{'id': 5, 'file_name': 'a.png', 'width': SIZE[0], 'height': SIZE[1]}]
    said = [{'id': k, 'image_id': 5, 'caption': text} for k, text in enumerate((' a quay ', 'two ships'))]
    write(root / 'annotations/captions_val2017.json', {'images': images, 'annotations': said})
    return {'val2017/a.png': {'captions': ['a quay', 'two ships'], 'split': 'validation'}}


def vrsbench(root):
    picture(root / 'Images_val/P0001_0002.png')
    shares = [SHIP[0] / SIZE[0], SHIP[1] / SIZE[1], SHIP[2] / SIZE[0], SHIP[3] / SIZE[1]]
    ship = {'obj_id': 0, 'obj_cls': 'ship', 'obj_coord': shares, 'referring_sentence': 'The ship at the top'}
    pair = {'ques_id': 1, 'question': 'Is there a ship?', 'type': 'object existence', 'answer': 'Yes'}
    row = {'image': 'P0001_0002.png', 'caption': 'A ship.', 'objects': [ship], 'qa_pairs': [pair]}
    write(root / 'Annotations_val/P0001_0002.json', row)
    return {'Images_val/P0001_0002.png': {'split': 'validation'}}


def vrsbench_eval(root):
    picture(root / 'Images_val/P0001_0002.png')
    head = {'image_id': 'P0001_0002.png', 'question_id': 0, 'dataset': 'DOTA_v2'}
    asked = {'question': 'How many ships?', 'ground_truth': '2', 'type': 'object quantity'}
    write(root / 'VRSBench_EVAL_vqa.json', [head | asked])
    refers = {'question': 'The ship at the top', 'ground_truth': '{<0><0><50><100>}', 'type': 'ref'}
    write(root / 'VRSBench_EVAL_referring.json', [head | refers])
    return {
        ('Images_val/P0001_0002.png', 0): {
            'split': 'validation',
            'qa': [('The ship at the top', '[0.00,0.13,0.50,0.88]', 'grounding')],
        },
        ('Images_val/P0001_0002.png', 1): {
            'split': 'validation',
            'qa': [('How many ships?', '2', 'counting')],
        },
    }


def geobench_vlm(root):
    picture(root / 'Single/images/a.jpg')
    row = {
        'question_id': 3,
        'image_path': 'Single/images/a.jpg',
        'task': 'Land Use Classification',
        'prompts': ['What is it?', 'Which land use is this?'],
        'options': 'A. farm B. port',
        'options_list': ['farm', 'port'],
        'ground_truth': 'port',
        'ground_truth_option': 'B',
    }
    write(root / 'Single/qa.json', [row])
    return {'Single/images/a.jpg': {'qa': [('What is it? Options: A. farm B. port', 'port', 'vqa')]}}


def questions(root):
    picture(root / 'images/a.png')
    row = {
        'image': 'a.png',
        'question': 'Which?',
        'multi-choice options': ['(A) farm', '(B) port'],
        'answer': 'B',
    }
    write(root / 'test.json', [row])
    write(root / 'mine.tsv', 'index\timage_path\tquestion\tA\tB\tanswer\n0\ta.png\tRoad?\tyes\tno\tA\n')
    return {
        ('images/a.png', 0): {'qa': [('Road? Options: A. yes B. no', 'A', 'vqa')]},
        ('images/a.png', 1): {'split': 'test', 'qa': [('Which? Options: (A) farm (B) port', 'B', 'vqa')]},
    }


def dior_r(root):
    picture(root / 'JPEGImages-test/00001.jpg')
    places = ('left_top', 'right_top', 'right_bottom', 'left_bottom')
    corners = ''.join(
        f'<x_{place}>{x}</x_{place}><y_{place}>{y}</y_{place}>' for place, (x, y) in zip(places, ring(SHIP))
    )
    ship = f'<object><name>ship</name><robndbox>{corners}</robndbox></object>'
    write(root / 'Annotations/Oriented Bounding Boxes/00001.xml', f'<annotation>{ship}</annotation>')
    return {'JPEGImages-test/00001.jpg': {'objects': [('ship', SHIP)], 'split': 'test'}}


def hrsc2016(root):
    picture(root / 'FullDataSet/AllImages/100000006.bmp')
    upright = ''.join(f'<box_{k}>{v}</box_{k}>' for k, v in zip(('xmin', 'ymin', 'xmax', 'ymax'), SHIP))
    turned = ''.join(
        f'<mbox_{k}>{v}</mbox_{k}>'
        for k, v in zip(('cx', 'cy', 'w', 'h', 'ang'), (22, 11, 20, 10, np.pi / 2))
    )
    ship = f'<HRSC_Object><Class_ID>100000006</Class_ID>{upright}{turned}</HRSC_Object>'
    text = f'<HRSC_Image><Img_ID>100000006</Img_ID><HRSC_Objects>{ship}</HRSC_Objects></HRSC_Image>'
    write(root / 'FullDataSet/Annotations/100000006.xml', text)
    write(root / 'ImageSets/train.txt', '100000006\n')
    return {'FullDataSet/AllImages/100000006.bmp': {'objects': [('ship', SHIP)], 'split': 'train'}}


def vhr10_coco(root):
    base = 'NWPU VHR-10 dataset'
    picture(root / f'{base}/positive image set/001.jpg'), picture(root / f'{base}/negative image set/001.jpg')
    write(root / f'{base}/annotations.json', coco(['001.jpg'], [(0, 2, SHIP)], ['airplane', 'ship']))
    return {f'{base}/positive image set/001.jpg': {'objects': [('ship', SHIP)]}}


def soda(root):
    picture(root / 'Images/00001.jpg')
    image = {'file_name': '00001.jpg', 'width': SIZE[0], 'height': SIZE[1], 'id': 1}
    classes = [{'id': 1, 'name': 'small-vehicle'}, {'id': 9, 'name': 'ignore'}]
    boxes = [(1, CAR), (9, SHIP)]
    polygons = [{'category_id': c, 'poly': [v for point in ring(b)[:4] for v in point]} for c, b in boxes]
    write(
        root / 'Annotations/val/00001.json', {'images': image, 'categories': classes, 'annotations': polygons}
    )
    return {'Images/00001.jpg': {'objects': [('small vehicle', CAR)], 'split': 'validation'}}


# ---- label tools


def shares(box):
    w, h = SIZE
    return (box[0] + box[2]) / 2 / w, (box[1] + box[3]) / 2 / h, (box[2] - box[0]) / w, (box[3] - box[1]) / h


def yolo(root):
    for name in ('train/images/a', 'valid/images/b'):
        picture(root / f'{name}.jpg')
    corners = [f'{x / SIZE[0]} {y / SIZE[1]}' for x, y in ring(CAR)[:4]]
    line = ' '.join(map(str, shares(SHIP)))
    write(root / 'train/labels/a.txt', f'1 {line}\n0 {" ".join(corners)}\n')
    write(root / 'valid/labels/b.txt', '')
    write(
        root / 'data.yaml',
        "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['small-car', 'ship']\n",
    )
    return {
        'train/images/a.jpg': {'objects': [('ship', SHIP), ('small car', CAR)], 'split': 'train'},
        'valid/images/b.jpg': {'objects': [], 'split': 'validation'},
    }


def dota_text(root):
    picture(root / 'val/images/a.png')
    lines = [' '.join(map(str, (v for point in ring(b)[:4] for v in point))) for b in (SHIP, CAR)]
    write(root / 'val/labelTxt/a.txt', f'{lines[0]} fish farm 1\n{lines[1]} raft 0\n')
    return {'val/images/a.png': {'objects': [('fish farm', SHIP), ('raft', CAR)], 'split': 'validation'}}


def cvat(root):
    picture(root / 'images/a b.png'), picture(root / 'images/c.png')
    sides = ' '.join(f'{k}="{v}"' for k, v in zip(('xtl', 'ytl', 'xbr', 'ybr'), SHIP))
    points = ';'.join(f'{x},{y}' for x, y in ring(CAR))
    size = f'width="{SIZE[0]}" height="{SIZE[1]}"'
    images = [
        f'<image id="0" name="a b.png" {size}><box label="ship" {sides}/><polygon label="car" points="{points}"/></image>',
        f'<image id="1" name="c.png" {size}></image>',
    ]
    write(root / 'annotations.xml', f'<annotations><version>1.1</version>{"".join(images)}</annotations>')
    return {'images/a b.png': {'objects': [('ship', SHIP), ('car', CAR)]}, 'images/c.png': {'objects': []}}


def labelme(root):
    picture(root / 'a.png')
    boxes = [('ship', [SHIP[2:], SHIP[:2]], 'rectangle'), ('car', ring(CAR), 'polygon')]
    shapes = [{'label': label, 'points': points, 'shape_type': kind} for label, points, kind in boxes]
    row = {'version': '5.0', 'flags': {}, 'shapes': shapes, 'imagePath': '..\\mine\\a.png', 'imageData': None}
    write(root / 'a.json', row | {'imageWidth': SIZE[0], 'imageHeight': SIZE[1]})
    return {'a.png': {'objects': [('ship', SHIP), ('car', CAR)]}}


def vott(root):
    picture(root / 'my ship.png')
    box = dict(zip(('left', 'top', 'width', 'height'), coco_box(SHIP, None)))
    asset = {'name': 'my%20ship.png', 'path': 'file:D:/x/my%20ship.png', 'state': 2}
    asset['size'] = {'width': SIZE[0], 'height': SIZE[1]}
    region = {'id': 'x', 'type': 'RECTANGLE', 'tags': ['ship'], 'boundingBox': box}
    write(
        root / 'mine-export.json', {'name': 'mine', 'assets': {'a1': {'asset': asset, 'regions': [region]}}}
    )
    return {'my ship.png': {'objects': [('ship', SHIP)]}}


def createml(root):
    picture(root / 'train/a.jpg')
    middle = dict(zip(('x', 'y', 'width', 'height'), coco_box(SHIP, 0)))
    row = {'image': 'a.jpg', 'annotations': [{'label': 'ship', 'coordinates': middle}]}
    write(root / 'train/_annotations.createml.json', [row])
    return {'train/a.jpg': {'objects': [('ship', SHIP)], 'split': 'train'}}


def label_studio(root):
    picture(root / 'images/a.png')
    x, y, w, h = [100 * v for v in shares(SHIP)]
    value = {
        'x': x - w / 2,
        'y': y - h / 2,
        'width': w,
        'height': h,
        'rotation': 0,
        'rectanglelabels': ['ship'],
    }
    size = {'original_width': SIZE[0], 'original_height': SIZE[1]}
    results = [{'type': 'rectanglelabels', 'value': value, **size}]
    data = {'image': '/data/upload/1/0a1b2c3d-a.png'}
    write(root / 'project.json', [{'id': 1, 'data': data, 'annotations': [{'result': results}]}])
    return {'images/a.png': {'objects': [('ship', SHIP)]}}


def open_images(root):
    picture(root / 'validation/0a1b.jpg')
    head = 'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded'
    x1, y1, x2, y2 = SHIP[0] / SIZE[0], SHIP[1] / SIZE[1], SHIP[2] / SIZE[0], SHIP[3] / SIZE[1]
    write(root / 'validation-annotations-bbox.csv', f'{head}\n0a1b,xclick,/m/019jd,1,{x1},{x2},{y1},{y2},0\n')
    write(root / 'class-descriptions-boxable.csv', '/m/019jd,Boat\n')
    return {'validation/0a1b.jpg': {'objects': [('boat', SHIP)], 'split': 'validation'}}


NAMES = """
resisc45 aid ucmerced eurosat eurosat_bands whu_rs19 rsscn7 fgscr42 dscr rsicd ucm_captions sydney_captions
rsitmd nwpu_captions rsvqa_lr rsvqa_hr rsivqa crsvqa floodnet dior dior_rsvg dota vhr10 hrrsd rsod ucas_aod
visdrone fair1m hrsid ssdd ssdd_voc air_sarship hit_uav hit_uav_rotated iray mmrs1m geochat llava table geojson
coco_captions levir_cc levir_cd geobench_vlm_temporal teochat vrsbench vrsbench_eval geobench_vlm questions dior_r hrsc2016 vhr10_coco soda
yolo dota_text cvat labelme vott createml label_studio open_images
""".split()
BUILD = {name.replace('_', '-'): globals()[name] for name in NAMES}
BUILD |= {'folders': own_folders, 'captions': own_captions, 'coco': own_coco, 'voc': own_voc}


def build(name, root):
    return BUILD[name](root)


def objects_of(record):
    "(label, x1, y1, x2, y2) of the detection answer, in pixels."
    turn = next(t for t in record.turns if t.task == 'detection')
    return sorted((b.label, *to_pixels(b.box, *SIZE).round(1)) for b in parse_boxes(turn.answer).boxes)
