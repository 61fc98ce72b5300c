"Every platform in the order, names and tags that its provider documents: the right roles, or refused."

import numpy as np
import pytest
import rasterio

from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.platforms import PLATFORMS, check_platform, roles_of, stated_platform, usual_order
from earthgpt_lite.raster.radiometry import spectral_index
from earthgpt_lite.raster.reading import read_scene
from earthgpt_lite.raster.sources import as_chip

UTM = dict(crs='EPSG:32618', transform=rasterio.Affine(10, 0, 5e5, 0, -10, 4e6))
S2_12 = 'B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12'
S2_13 = 'B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B10 B11 B12'
L2 = '{}_L2SP_047027_20201204_20210313_02_T1'
PLANET = '20220125_075509_67_1061_3B_AnalyticMS'
SAFE = 'S2B_MSIL2A_20240413T150759_N0510_R025_T33XWJ_20240414T082126'
ROWS = [  # file, tags, bands as described ('' as the product has them), places of red and nir, scale, offset
    (f'{SAFE}.tif', {}, '', 4, 2, 3, 1e-4, -0.1),
    (f'{SAFE}.tif', {}, '', 10, 2, 6, 1e-4, -0.1),
    (f'{SAFE}.tif', {}, '', 12, 3, 7, 1e-4, -0.1),
    (f'{SAFE.replace("N0510", "N0211")}.tif', {}, '', 13, 3, 7, 1e-4, 0.0),
    (f'{SAFE.replace("2A", "1C")}.tif', {}, S2_13, 13, 3, 7, 1e-4, -0.1),
    ('s.tif', {'PROCESSING_BASELINE': '05.10', 'SPACECRAFT': 'Sentinel-2A'}, S2_12, 12, 3, 7, 1e-4, -0.1),
    ('s.tif', {'s2:processing_baseline': '02.12', 'platform': 'Sentinel-2B'}, S2_12, 12, 3, 7, 1e-4, 0.0),
    (f'{L2.format("LT05")}.tif', {}, 'SR_B1 SR_B2 SR_B3 SR_B4 SR_B5 SR_B7', 6, 2, 3, 2.75e-5, -0.2),
    (f'{L2.format("LT04")}.tif', {}, '', 6, 2, 3, 2.75e-5, -0.2),
    (f'{L2.format("LE07")}.tif', {}, 'SR_B1 SR_B2 SR_B3 SR_B4 SR_B5 ST_B6 SR_B7', 7, 2, 3, 2.75e-5, -0.2),
    (f'{L2.format("LC08")}.tif', {}, '', 7, 3, 4, 2.75e-5, -0.2),
    (
        'x.tif',
        {'SPACECRAFT_ID': 'LANDSAT_9'},
        ' '.join(f'SR_B{i}' for i in range(1, 8)),
        7,
        3,
        4,
        2.75e-5,
        -0.2,
    ),
    ('HLS.L30.T10TET.2021001T190000.v2.0.tif', {}, 'B02 B03 B04 B05 B06 B07', 6, 2, 3, 1e-4, 0.0),
    ('HLS.S30.T10TET.2021001T190000.v2.0.tif', {}, 'B02 B03 B04 B05 B8A B11', 6, 2, 4, 1e-4, 0.0),
    ('MOD09A1.A2020161.h18v04.061.tif', {}, '', 7, 0, 1, 1e-4, 0.0),
    (f'{PLANET}_SR.tif', {}, '', 4, 2, 3, 1e-4, 0.0),
    (f'{PLANET}_8b_SR.tif', {}, '', 8, 5, 7, 1e-4, 0.0),
    (f'{PLANET}_SR.tif', {}, 'blue green red nir', 4, 2, 3, 1e-4, 0.0),
    ('m_3008501_ne_16_060_20191120.tif', {}, '', 4, 0, 3, None, None),
    ('x.tif', {'SATELLITEID': 'WV03'}, '', 8, 4, 6, None, None),
    ('WorldView-2_scene.tif', {}, '', 4, 2, 3, None, None),
]


def write(path, pixels, names=(), tags=None, **options):
    c, h, w = pixels.shape
    shape = dict(driver='GTiff', width=w, height=h, count=c, dtype=pixels.dtype)
    with rasterio.open(path, 'w', **shape, **(UTM | options)) as f:
        f.write(pixels)
        f.update_tags(**(tags or {}))
        if names:
            f.descriptions = names
    return path


@pytest.mark.parametrize('name, tags, bands, count, red, nir, scale, offset', ROWS)
def test_each_row_as_its_provider_writes_it(tmp_path, name, tags, bands, count, red, nir, scale, offset):
    counts = np.random.default_rng(0).integers(8000, 20000, (count, 9, 9)).astype('uint16')
    scene = read_scene(write(tmp_path / name, counts, bands.split(), tags))
    assert scene.platform and scene.band_index('red') == red and scene.band_index('nir') == nir
    assert scene.chip().image.shape == (9, 9, 3) and scene.band_index('green') != scene.band_index('blue')
    if scale is None:
        with pytest.raises(BadInput, match='index of counts'):
            spectral_index(scene, 'ndvi')
        return
    assert scene.unit == 'reflectance'
    a, b = (counts[i] * scale + offset for i in (nir, red))
    assert np.abs(spectral_index(scene, 'ndvi') - (a - b) / (a + b)).max() < 1e-4


@pytest.mark.parametrize('count', sorted({row[3] for row in ROWS}))
def test_the_same_stacks_unnamed_are_refused_and_can_be_said(tmp_path, count):
    counts = np.random.default_rng(0).integers(8000, 20000, (count, 9, 9)).astype('uint16')
    path = write(tmp_path / 'stack.tif', counts)
    with pytest.raises(
        BadInput, match=rf'stack.tif: {count} bands \(B1, .*--bands 4,3,2 .*--platform sentinel-2'
    ):
        as_chip(path)
    with pytest.raises(BadInput, match='no platform is told'):
        read_scene(path).band('nir')
    assert (read_scene(path, bands=[3, 2, 1]).layers() == counts[[2, 1, 0]]).all()
    for name, platform in PLATFORMS.items():
        if order := usual_order(name, count):
            scene = read_scene(path, platform=name)
            assert scene.bands == order and scene.platform == name
            assert scene.band_index('red') == [role for role, _ in map(platform.bands.get, order)].index(
                'red'
            )
    if count == 6:
        with pytest.raises(BadInput, match='6 bands'):
            read_scene(path, platform='sentinel-2').chip()
        with pytest.raises(BadInput):
            read_scene(path, platform='sentinel-2').band('blue')  # its second band is not B2


@pytest.mark.parametrize(
    'name, band, role',
    [
        (f'{L2.format("LC08")}_SR_B4.TIF', 'SR_B4', 'red'),
        (f'{L2.format("LT05")}_SR_B4.TIF', 'SR_B4', 'nir08'),
        (f'{L2.format("LE07")}_ST_B6.TIF', 'ST_B6', 'lwir'),
        ('LE07_L1TP_021030_20100109_20200911_02_T1_B6_VCID_1.TIF', 'B6_VCID_1', 'lwir'),
        ('T46RER_20210908T042701_B8A.tif', 'B8A', 'nir08'),
        ('T33XWJ_20220413T150759_B11_20m.tif', 'B11', 'swir16'),
        ('HLS.L30.T10TET.2021001T190000.v2.0.B05.tif', 'B05', 'nir08'),
        ('HLS.S30.T10TET.2021001T190000.v2.0.B05.tif', 'B05', 'rededge071'),
        ('MOD09Q1.A2020161.h18v04.061_sur_refl_b02.tif', 'sur_refl_b02', 'nir'),
    ],
)
def test_a_file_for_each_band(tmp_path, name, band, role):
    counts = np.full((1, 4, 4), 9000, 'int16' if 'HLS' in name or 'MOD' in name else 'uint16')
    scene = read_scene(write(tmp_path / name, counts))
    assert scene.bands == (band,) and roles_of(scene.bands, scene.platform) == [role]
    assert scene.sensor == ('infrared' if role.startswith('lwir') else 'optical')


def test_gdals_descriptions_name_the_wavelength(tmp_path):
    counts = np.arange(400, dtype='uint16').reshape(4, 10, 10) + 1
    names = [f'B{b}, central wavelength {nm} nm' for b, nm in ((4, 665), (3, 560), (2, 490), (8, 842))]
    scene = read_scene(write(tmp_path / 'x.tif', counts, names))
    assert [scene.band_index(r) for r in ('red', 'green', 'blue')] == [0, 1, 2]


def test_pictures_go_on_as_ever(tmp_path):
    pixels = np.random.default_rng(0).integers(1, 255, (4, 8, 8), 'uint8')
    for name in ('plain.tif', 'sentinel-2_view.tif', 'landsat8.tif'):
        for count in (1, 3, 4):  # 8-bit RGB, and RGBA
            chip = as_chip(write(tmp_path / name, pixels[:count]))
            assert chip.image.shape == (8, 8, 3)
            full = pixels[3] > 0
            assert count == 1 or (chip.image[full] == np.moveaxis(pixels[:3], 0, -1)[full]).all()


def test_platforms_are_known_by_any_spelling():
    for said in ('Sentinel-2A', 'SENTINEL2', 's2b', 'sentinel_2'):
        assert check_platform(said) == 'sentinel-2'
    assert check_platform('LANDSAT_8') == check_platform('landsat 8') == check_platform('LC08') == 'landsat-8'
    with pytest.raises(BadInput, match="no platform 'spot-5' is known; give one of sentinel-2, .*landsat-8"):
        check_platform('spot-5')
    assert stated_platform('landsat') == stated_platform('apls2_x') == stated_platform('') == ''


def test_eurosat_puts_b8a_last(tmp_path):
    (tmp_path / 'EuroSAT_MS').mkdir()
    counts = np.random.default_rng(0).integers(0, 3000, (13, 8, 8)).astype('uint16')
    scene = read_scene(write(tmp_path / 'EuroSAT_MS' / 'Forest_1.tif', counts))
    places = [scene.band_index(role) for role in ('red', 'nir', 'nir08', 'swir16', 'swir22')]
    assert places == [3, 7, 12, 10, 11] and scene.valid.all()


def test_what_is_said_of_the_platform_counts(tmp_path):
    counts = np.random.default_rng(0).integers(1, 3000, (4, 8, 8)).astype('uint16')
    assert read_scene(write(tmp_path / 'a.tif', counts[:2]), platform='sentinel-1').sensor == 'sar'
    scene = read_scene(write(tmp_path / 'b.tif', counts), platform='worldview')
    assert 'worldview: unverified is the order of four bands' in scene.notes[0]
    assert roles_of([f'sur_refl_b0{i}' for i in (1, 2, 4)], '') == ['red', 'nir', 'green']
    assert roles_of(['SR_B2', 'SR_B3'], '') == ['', '']
