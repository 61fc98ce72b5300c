"What every dump comes down to: pictures found by name, classes as one would say them, splits."

import pytest
from fixtures_readers import picture

from earthgpt_lite.data.formats import Pictures, readable_name, split_of


def test_pictures_prefers_the_nearest(tmp_path):
    for name in ('a/x.png', 'b/x.png', 'b/c/X.PNG', 'b/x.jpg'):
        picture(tmp_path / name)
    found = Pictures(tmp_path)
    assert (
        found.find('x', 'a/y.xml') == 'a/x.png'
        and found.find('x.jpg', 'a/y.xml') == 'b/x.jpg'
        and found.find('b/c/x.png') == 'b/c/X.PNG'
        and found.find('z') is None
    )


@pytest.mark.parametrize(
    'text, name',
    [
        ('GolfCourse', 'golf course'),
        ('small-vehicle', 'small vehicle'),
        (' sea_ice ', 'sea ice'),
        ('T junction', 't junction'),
    ],
)
def test_words(text, name):
    assert readable_name(text) == name


@pytest.mark.parametrize(
    'path, split',
    [
        ('a/train/1.jpg', 'train'),
        ('VisDrone2019-DET-val/x/1.jpg', 'validation'),
        ('JPEGImages_test/1.jpg', 'test'),
        ('contest/1.jpg', ''),
        ('validation/1.jpg', 'validation'),
    ],
)
def test_split_of(path, split):
    assert split_of(path) == split
