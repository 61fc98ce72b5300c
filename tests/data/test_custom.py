"Tables, shapes on the map, and the hub without a network."

import numpy as np
import pytest
from fixtures_readers import SHIP, build, objects_of, picture, write

from earthgpt_lite.boxes.iou import iou
from earthgpt_lite.data.convert import read
from earthgpt_lite.data.custom import table
from earthgpt_lite.errors import BadInput


def test_geojson_through_a_rotated_transform(tmp_path):
    from affine import Affine
    from shapely.geometry import box, mapping
    from shapely.affinity import affine_transform

    turned = Affine.translation(500_000, 4_000_000) @ Affine.rotation(30) @ Affine.scale(10, -10)
    picture(tmp_path / 'a.tif', crs='EPSG:32631', transform=turned)
    there = affine_transform(box(*SHIP), [turned.a, turned.b, turned.d, turned.e, turned.c, turned.f])
    write(
        tmp_path / 'x.geojson',
        {
            'type': 'FeatureCollection',
            'crs': {'type': 'name', 'properties': {'name': 'EPSG:32631'}},
            'features': [{'type': 'Feature', 'properties': {}, 'geometry': mapping(there)}],
        },
    )
    got = objects_of(next(read('geojson', tmp_path, decimals=4)))
    assert got[0][0] == 'object' and iou(np.array(got[0][1:]), np.array(SHIP, float)) > 0.98


def test_geojson_needs_a_crs(tmp_path):
    build('geojson', tmp_path), picture(tmp_path / 'plain.png')
    left = []
    assert [r.image for r in read('geojson', tmp_path, left)] == ['scene.tif'] and (
        'plain.png',
        'has no CRS, so that nothing on the map can be placed in it',
    ) in left


def test_table_forms(tmp_path):
    picture(tmp_path / 'a.png')
    for text, want in [
        ('image,label\na.png,lake\n', [('lake', 'classification')]),
        ('Image,Caption\na.png,a lake.\na.png,water.\n', [('a lake.', 'caption'), ('water.', 'caption')]),
        ('image,question,answer,task\na.png,how many?,3,counting\n', [('3', 'counting')]),
    ]:
        write(tmp_path / 'a.csv', text)
        assert [(t.answer, t.task) for t in next(read('table', tmp_path)).turns] == want
    write(tmp_path / 'a.csv', 'image,x1,y1,x2,y2,label\na.png,1,2,x,4,lake\n')
    with pytest.raises(BadInput, match='cannot be read'):
        list(read('table', tmp_path))
    assert table.__doc__


def test_from_hub_with_local_files(tmp_path):
    from earthgpt_lite.data.custom import from_hub

    for label in ('dune', 'oasis'):
        picture(tmp_path / f'local/{label}/a.png')
    assert from_hub('imagefolder', tmp_path / 'out', data_dir=str(tmp_path / 'local')) == 2
    assert sorted((r.turns[0].answer, r.split) for r in read('table', tmp_path / 'out')) == [
        ('dune', 'train'),
        ('oasis', 'train'),
    ]
    (
        write(
            tmp_path / 'captioned/metadata.jsonl', '{"file_name": "a.png", "text": "a lake, and a wood"}\n'
        ),
        picture(tmp_path / 'captioned/a.png'),
    )
    from_hub('imagefolder', tmp_path / 'out2', data_dir=str(tmp_path / 'captioned'))
    assert next(read('table', tmp_path / 'out2')).turns[0].answer == 'a lake, and a wood'
    write(tmp_path / 'rows/a.csv', 'x,y\n1,2\n')
    with pytest.raises(BadInput, match='no picture'):
        from_hub('csv', tmp_path / 'out3', data_files=str(tmp_path / 'rows/a.csv'))
    with pytest.raises(BadInput, match='cannot be loaded'):
        from_hub('imagefolder', tmp_path / 'out4', data_dir=str(tmp_path / 'gone'))
