"Boxes in XML that is cut, wild or missing."

import numpy as np
import pytest
from fixtures_readers import CAR, SHIP, build, objects_of, picture, write, xml

from earthgpt_lite.data.convert import read
from earthgpt_lite.errors import BadInput


def test_truncated_xml_and_wild_boxes(tmp_path):
    for i in range(4):
        picture(tmp_path / f'{i}.jpg')
    write(tmp_path / '0.xml', xml([('ship', SHIP)])[:-30])
    write(tmp_path / '1.xml', xml([('ship', (12, 6, 'nan', 16)), ('ship', CAR)]))
    write(
        tmp_path / '2.xml',
        xml([('ship', (70, 50, 200, 200)), ('ship', (500, 500, 600, 600)), ('ship', (10, 10, 10, 20))]),
    )
    write(tmp_path / '3.xml', xml([('ship', ('a', 6, 1, 16))]))
    left = []
    records = {r.image: r for r in read('voc', tmp_path, left, decimals=3)}
    assert set(records) == {'1.jpg', '2.jpg'}
    assert len(objects_of(records['1.jpg'])) == 1 and len(objects_of(records['2.jpg'])) == 2
    assert np.allclose(max(o[3:] for o in objects_of(records['2.jpg'])), (80, 60), atol=0.2), (
        'cut at the border of the picture'
    )
    assert all(x2 > x1 for _, x1, _, x2, _ in objects_of(records['2.jpg'])), 'a box without width is widened'
    assert {n for n, _ in left} == {'0.xml', '1.jpg', '2.jpg', '3.xml'}


def test_missing_xml_would_shift_all_phrases(tmp_path):
    build('dior-rsvg', tmp_path)
    write(tmp_path / 'DIOR_RSVG/Annotations/00002.xml', '<annotation>')
    with pytest.raises(BadInput, match='miscounted'):
        list(read('dior-rsvg', tmp_path))
