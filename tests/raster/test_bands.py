"Names, roles and numbers of bands."

import pytest

from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.bands import find_band


def test_roles_differ_between_satellites():
    find = lambda role, names, **tags: find_band(role, names, tags, '')
    landsat = tuple(f'B{i}' for i in range(1, 12))
    sentinel = ('B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B10', 'B11', 'B12')
    assert landsat[find('nir', landsat)] == 'B5' and sentinel[find('nir', sentinel)] == 'B08'
    assert landsat[find('thermal', landsat)] == 'B10' and sentinel[find('swir1', sentinel)] == 'B11'
    with pytest.raises(BadInput):
        find('thermal', sentinel)
    assert (
        find('nir', ('B5', 'B8'), satellite='Landsat 9') == 0
        and find('nir', ('B5', 'B8'), PLATFORM='Sentinel-2B') == 1
    )
