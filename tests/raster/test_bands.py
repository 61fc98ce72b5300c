"Names, roles and numbers of bands."

import pytest

from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.bands import default_bands, find_band, is_thermal
from earthgpt_lite.raster.chips import Sensor


def find(role, names, **tags):
    return find_band(role, names, tags, '')


def test_roles_differ_between_satellites():
    landsat = tuple(f'B{i}' for i in range(1, 12))
    sentinel = ('B01', 'B02', 'B03', 'B04', 'B05', 'B06', 'B07', 'B08', 'B8A', 'B09', 'B10', 'B11', 'B12')
    assert landsat[find('nir', landsat, satellite='Landsat 8')] == 'B5'
    assert landsat[find('thermal', landsat, satellite='Landsat 9')] == 'B10'
    assert sentinel[find('nir', sentinel)] == 'B08' and sentinel[find('swir1', sentinel)] == 'B11'
    with pytest.raises(BadInput):
        find('thermal', sentinel)
    assert find('nir', ('B5', 'B8'), satellite='Landsat 9') == 0
    assert find('nir', ('B5', 'B8'), PLATFORM='Sentinel-2B') == 1


def test_what_platforms_disagree_about_is_not_guessed():
    with pytest.raises(BadInput, match='no platform is told; give --bands 4,3,2 .* or --platform sentinel-2'):
        find('nir', ('B2', 'B3', 'B4', 'B5'))
    with pytest.raises(BadInput, match=r'x.tif: 7 bands \(B1, B2, .*nothing says which are red'):
        default_bands(tuple(f'B{i}' for i in range(1, 8)), Sensor.OPTICAL, {}, 'x.tif')
    assert not is_thermal(('B11',), {}, '') and is_thermal(('B11',), {}, 'LC08_x.tif')
    assert is_thermal(('ST_B6',), {'SPACECRAFT_ID': 'LANDSAT_5'}, '')
