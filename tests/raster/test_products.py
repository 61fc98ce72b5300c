"What a provider's file says of itself: numbers with units, times, radar, ground distance, what is no data."

import json

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from test_platforms import UTM, write

from earthgpt_lite.app.answers import Answer
from earthgpt_lite.app.cli import make_parser
from earthgpt_lite.app.model_commands import _answer_lines, reading
from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.products import acquisition_time, band_of_file, sigma_nought, time_of_name
from earthgpt_lite.raster.radiometry import spectral_index
from earthgpt_lite.raster.reading import read_scene
from earthgpt_lite.raster.sources import as_chip, read_tiles

SCENE = 'LC08_{}_047027_20201204_20210313_02_T1'
LEVEL1 = dict(
    REFLECTANCE_MULT_BAND_4='2.0000E-05',
    REFLECTANCE_ADD_BAND_4='-0.100000',
    RADIANCE_MULT_BAND_10='3.3420E-04',
    RADIANCE_ADD_BAND_10='0.10000',
)
MTL = dict(
    PRODUCT_CONTENTS=dict(PROCESSING_LEVEL='L2SP', DATE_PRODUCT_GENERATED='2021-03-13T05:55:12Z'),
    IMAGE_ATTRIBUTES=dict(
        SPACECRAFT_ID='LANDSAT_8',
        DATE_ACQUIRED='2020-12-04',
        SCENE_CENTER_TIME='19:02:11.1944860Z',
        SUN_ELEVATION='30.0',
    ),
    LEVEL2_SURFACE_REFLECTANCE_PARAMETERS=dict(
        REFLECTANCE_MULT_BAND_4='3e-05', REFLECTANCE_ADD_BAND_4='-0.3'
    ),
    LEVEL2_SURFACE_TEMPERATURE_PARAMETERS=dict(
        TEMPERATURE_MULT_BAND_ST_B10='0.004', TEMPERATURE_ADD_BAND_ST_B10='150.0'
    ),
    LEVEL1_RADIOMETRIC_RESCALING=LEVEL1,
    LEVEL1_THERMAL_CONSTANTS=dict(K1_CONSTANT_BAND_10='774.8853', K2_CONSTANT_BAND_10='1321.0789'),
)
COUNTS = np.random.default_rng(0).integers(8000, 20000, (1, 9, 9)).astype('uint16')


def mtl(folder, scene, form, groups):
    root = 'LANDSAT_METADATA_FILE'
    if form == 'json':
        text = json.dumps({root: groups})
    elif form == 'xml':
        rows = {g: ''.join(f'<{k}>{v}</{k}>' for k, v in row.items()) for g, row in groups.items()}
        text = f'<{root}>' + ''.join(f'<{g}>{row}</{g}>' for g, row in rows.items()) + f'</{root}>'
    else:
        rows = {g: ''.join(f'    {k} = "{v}"\n' for k, v in row.items()) for g, row in groups.items()}
        inner = ''.join(f'  GROUP = {g}\n{row}  END_GROUP = {g}\n' for g, row in rows.items())
        text = f'GROUP = {root}\n{inner}END_GROUP = {root}\nEND\n'
    (folder / f'{scene}_MTL.{form}').write_text(text)


# Landsat


@pytest.mark.parametrize('form', ['txt', 'json', 'xml'])
def test_landsat_metadata_of_both_levels(tmp_path, form):
    for level in ('L2SP', 'L1TP'):
        groups = {**MTL, 'PRODUCT_CONTENTS': dict(PROCESSING_LEVEL=level)}
        mtl(tmp_path, SCENE.format(level), form, groups)
    surface = read_scene(write(tmp_path / f'{SCENE.format("L2SP")}_SR_B4.TIF', COUNTS))
    assert surface.unit == 'reflectance' and surface.datetime == '2020-12-04T19:02:11Z'
    assert np.allclose(surface.pixels, COUNTS * 3e-5 - 0.3)  # not the factors of level 1 in the same file
    warm = read_scene(write(tmp_path / f'{SCENE.format("L2SP")}_ST_B10.TIF', COUNTS))
    assert (warm.unit, warm.sensor) == ('K', 'infrared') and np.allclose(warm.pixels, COUNTS * 0.004 + 150)
    top = read_scene(write(tmp_path / f'{SCENE.format("L1TP")}_B4.TIF', COUNTS))
    assert np.allclose(top.pixels, (COUNTS * 2e-5 - 0.1) / 0.5, atol=1e-5)  # the sun stands at 30 degrees
    counts = np.array([[[0, 20_000], [25_000, 30_000]]], 'uint16')
    heat = read_scene(write(tmp_path / f'{SCENE.format("L1TP")}_B10.TIF', counts))
    by_hand = 1321.0789 / np.log(774.8853 / (3.342e-4 * counts + 0.1) + 1)
    assert heat.unit == 'K' and np.allclose(heat.pixels[heat.valid[None]], by_hand[counts > 0], atol=0.01)
    assert heat.valid.tolist() == [[False, True], [True, True]]


def test_metadata_count_only_where_they_belong(tmp_path):
    mtl(tmp_path, SCENE.format('L2SP'), 'txt', MTL)
    other = f'{SCENE.format("L2SP").replace("20201204", "20201220")}_SR_B4.TIF'
    scene = read_scene(write(tmp_path / other, COUNTS))
    assert np.allclose(scene.pixels, COUNTS * 2.75e-5 - 0.2) and scene.date == '2020-12-20'
    stack = write(tmp_path / 'stack.tif', np.repeat(COUNTS, 7, 0))
    assert read_scene(stack).platform == 'landsat-8' and read_scene(stack).unit == 'reflectance'
    picture = write(tmp_path / 'view.tif', np.repeat(COUNTS, 3, 0).astype('uint8'))
    assert read_scene(picture).pixels.dtype == np.uint8
    (tmp_path / f'{SCENE.format("L2SP")}_MTL.json').write_text('{')
    (tmp_path / f'{SCENE.format("L2SP")}_MTL.txt').unlink()
    with pytest.raises(BadInput, match='MTL.json: damaged metadata; fetch it again'):
        read_scene(write(tmp_path / f'{SCENE.format("L2SP")}_SR_B4.TIF', COUNTS))


def test_the_counts_of_level_1_alone_stay_counts(tmp_path):
    scene = read_scene(write(tmp_path / f'{SCENE.format("L1TP")}_B4.TIF', COUNTS))
    assert scene.unit == '' and (scene.pixels == COUNTS).all()


# Sentinel-2


def safe(folder, offsets, baseline):
    root = folder / 'S2B_MSIL2A_20240413T150759_N0510_R025_T33XWJ_20240414T082126.SAFE'
    place = root / 'GRANULE/L2A_T33XWJ_A026649_20240413T150756/IMG_DATA/R20m'
    place.mkdir(parents=True)
    rows = ''.join(f'<BOA_ADD_OFFSET band_id="{i}">{v}</BOA_ADD_OFFSET>' for i, v in enumerate(offsets))
    (root / 'MTD_MSIL2A.xml').write_text(
        f'<p><PRODUCT_START_TIME>2024-04-13T15:07:59.024Z</PRODUCT_START_TIME>'
        f'<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>'
        f'<GENERATION_TIME>2024-04-14T08:21:26Z</GENERATION_TIME>'
        f'<IMAGE_FILE>R20m/T33XWJ_20240413T150759_B8A_20m</IMAGE_FILE>'
        f'<BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>{rows}</p>'
    )
    return place / 'T33XWJ_20240413T150759_B8A_20m.tif'


@pytest.mark.parametrize('baseline', ['05.10', '79.90', '99.99'])
def test_a_safe_folder_says_its_offset_for_each_band(tmp_path, baseline):
    offsets = [-1000] * 13
    offsets[8] = -500  # of B8A
    scene = read_scene(write(safe(tmp_path, offsets, baseline), COUNTS))
    assert np.allclose(scene.pixels, (COUNTS - 500.0) / 10_000)
    assert scene.datetime == '2024-04-13T15:07:59Z' and scene.unit == 'reflectance'


NEW = dict(platform='Sentinel-2B', PROCESSING_BASELINE='05.10')


@pytest.mark.parametrize(
    'tags, offset',
    [
        (NEW, -0.1),
        (NEW | {'boa_offset_applied': 'true'}, 0.0),
        (NEW | {'boa_offset_applied': 'False'}, -0.1),
        (NEW | {'PROCESSING_BASELINE': '03.01'}, 0.0),
        (NEW | {'BOA_ADD_OFFSET': '-1000'}, -0.1),
    ],
)
def test_the_offset_of_sentinel2_is_taken_once(tmp_path, tags, offset):
    two = np.concatenate([COUNTS, COUNTS[:, ::-1]])
    plain = read_scene(write(tmp_path / 'a.tif', two, ('B04', 'B08'), tags))
    red, nir = (x / 10_000 + offset for x in two)
    assert np.abs(spectral_index(plain, 'ndvi') - (nir - red) / (nir + red)).max() < 1e-4
    if tags['PROCESSING_BASELINE'] == '03.01':
        return
    path = write(tmp_path / 'b.tif', two, ('B04', 'B08'), tags)
    with rasterio.open(path, 'r+') as f:  # a catalogue's raster:bands, which may still say -0.1
        f.scales, f.offsets = (1e-4, 1e-4), (-0.1, -0.1)
    stated = read_scene(path)
    assert np.allclose(stated.pixels, plain.pixels, atol=1e-6)


def test_sentinel2_without_a_baseline_is_counts(tmp_path):
    scene = read_scene(write(tmp_path / 'sentinel2.tif', np.repeat(COUNTS, 2, 0), ('B04', 'B08')))
    assert scene.unit == '' and scene.pixels.dtype == np.uint16 and 'baseline' in scene.notes[0]
    with pytest.raises(BadInput, match='sentinel2.tif: an index of counts means nothing'):
        spectral_index(scene, 'ndvi')


@pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
def test_a_product_folder_is_one_raster_on_its_finest_grid(tmp_path):
    fine = safe(tmp_path, [-1000] * 13, '05.10')
    rng, stored = np.random.default_rng(0), {}
    for band, size, step in (
        ('B02', 24, 10),
        ('B04', 24, 10),
        ('B08', 24, 10),
        ('B02', 12, 20),
        ('B8A', 12, 20),
    ):
        name = fine.parent / f'T33XWJ_20240413T150759_{band}_{step}m.tif'
        place = dict(transform=rasterio.Affine(step, 0, 5e5, 0, -step, 4e6))
        counts = rng.integers(1200, 6000, (1, size, size)).astype('uint16')
        write(name, counts, **place)
        stored.setdefault(band, counts[0] / 10_000 - 0.1)
    root = fine.parents[4]
    scene = read_scene(root)
    assert scene.bands == ('B02', 'B04', 'B08', 'B8A') and scene.pixels.shape == (4, 24, 24)
    assert scene.unit == 'reflectance' and scene.gsd == 10 and scene.datetime == '2024-04-13T15:07:59Z'
    by_hand = (stored['B08'] - stored['B04']) / (stored['B08'] + stored['B04'])
    assert np.abs(spectral_index(scene, 'ndvi') - by_hand).max() < 1e-4
    assert as_chip(root, size=16, bands=['nir', 'red', 'B02']).image.shape == (16, 16, 3)
    twice = fine.parent.parent / 'T33XWJ_20240501T150759_B04_10m.tif'
    write(twice, COUNTS)
    with pytest.raises(BadInput, match='band B04 is there twice; give a folder of one scene'):
        read_scene(root)
    twice.unlink()
    write(fine.parent / 'T33XWJ_20240413T150759_B11_20m.tif', COUNTS)
    with pytest.raises(BadInput, match='B11 lies on another grid than the others; give'):
        read_scene(root)
    empty = tmp_path / 'LC08_L2SP_x'
    empty.mkdir()
    with pytest.raises(BadInput, match='no bands of a scene are in this folder'):
        read_scene(empty)


# Others


def test_planet_coefficients_and_hls_heat(tmp_path):
    name = '20220125_075509_67_1061_3B_AnalyticMS'
    bands = ''.join(
        f'<ps:bandSpecificMetadata><ps:bandNumber>{i}</ps:bandNumber>'
        f'<ps:reflectanceCoefficient>{i}e-05</ps:reflectanceCoefficient></ps:bandSpecificMetadata>'
        for i in (1, 2, 3, 4)
    )
    (tmp_path / f'{name}_metadata.xml').write_text(f'<x>{bands}</x>')
    scene = read_scene(write(tmp_path / f'{name}.tif', np.repeat(COUNTS, 4, 0)))
    assert np.allclose(scene.pixels, COUNTS * np.arange(1, 5)[:, None, None] * 1e-5)
    assert scene.bands == ('blue', 'green', 'red', 'nir') and scene.datetime == '2022-01-25T07:55:09Z'
    heat = np.full((1, 4, 4), 1500, 'int16')
    heat[0, 0, 0] = -9999
    warm = read_scene(write(tmp_path / 'HLS.L30.T10TET.2021032T190000.v2.0.B10.tif', heat))
    assert warm.unit == 'K' and warm.pixels[0, 1, 1] == pytest.approx(288.15, abs=0.01)
    assert warm.valid.sum() == 15 and warm.datetime == '2021-02-01T19:00:00Z'


def test_a_scale_of_0_and_a_band_twice_are_refused(tmp_path):
    path = write(tmp_path / 'a.tif', COUNTS)
    with rasterio.open(path, 'r+') as f:
        f.scales = (0.0,)
    with pytest.raises(BadInput, match='a.tif: band 1 has a scale of 0; correct it, or read it raw'):
        read_scene(path)
    assert (read_scene(path, raw=True).pixels == COUNTS).all()
    with pytest.raises(BadInput, match='asked for twice'):
        read_scene(write(tmp_path / 'b.tif', np.repeat(COUNTS, 2, 0)), bands=[1, 1])


# Radar

MEASURED = 's1a-iw-grd-vv-20210809t173953-20210809t174018-039156-049f13-001'


def calibration(folder):
    place = folder / 'annotation/calibration'
    place.mkdir(parents=True)
    rows = ''.join(
        f'<calibrationVector><line>{line}</line><pixel count="3">0 40 80</pixel>'
        f'<sigmaNought count="3">{a} {a + 40} {a + 200}</sigmaNought></calibrationVector>'
        for line, a in ((-10, 300), (50, 360), (110, 480))
    )
    (place / f'calibration-{MEASURED}.xml').write_text(f'<c>{rows}</c>')
    return place / f'calibration-{MEASURED}.xml'


def test_sigma_nought_of_a_safe_folder(tmp_path):
    table = calibration(tmp_path)
    assert sigma_nought(table, [-10, 50, 20, 80], [0, 40, 20, 60]).tolist() == [300, 400, 350, 540]
    counts = np.random.default_rng(0).integers(50, 900, (1, 100, 80)).astype('uint16')
    (tmp_path / 'measurement').mkdir()
    path = write(tmp_path / 'measurement' / f'{MEASURED}.tiff', counts)
    scene = read_scene(path)
    line, pixel = np.mgrid[:100, :80]
    by_hand = (counts[0] / sigma_nought(table, line, pixel)) ** 2
    assert (scene.sensor, scene.unit, scene.bands) == ('sar', 'intensity', ('VV',))
    assert np.allclose(scene.pixels[0], by_hand, rtol=1e-2) and 'sigma nought' in scene.notes[0]
    assert scene.datetime == '2021-08-09T17:39:53Z'
    part = read_scene(path, window=(30, 20, 40, 50))
    assert np.allclose(part.pixels, scene.pixels[:, 20:70, 30:70], rtol=1e-2)
    for tile in read_tiles(path, 40):
        c, r = tile.offset
        assert np.allclose(tile.pixels, scene.pixels[:, r : r + 40, c : c + 40], rtol=1e-2)
    table.unlink()
    plain = read_scene(path)
    assert plain.unit == 'amplitude' and 'uncalibrated' in plain.notes[0]


def points(wrong=False):
    grid = [(r, c) for r in (0, 50, 100) for c in (0, 40, 80)]
    found = [GroundControlPoint(r, c, 10 + c * 2e-4, 60 - r * 1e-4 - c * 1e-5) for r, c in grid]
    if wrong:
        found[4].x += 1
    return found


def with_points(path, pixels, gcps):
    c, h, w = pixels.shape
    with rasterio.open(path, 'w', driver='GTiff', width=w, height=h, count=c, dtype=pixels.dtype) as f:
        f.write(pixels)
        f.gcps = (gcps, 'EPSG:4326')
    return path


@pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
def test_scenes_with_ground_control_points_come_on_the_map(tmp_path):
    counts = np.random.default_rng(0).integers(50, 90, (1, 100, 80)).astype('uint16')
    counts[:, 40:50, 20:30] = 5000
    calibration(tmp_path)
    (tmp_path / 'measurement').mkdir()
    path = with_points(tmp_path / 'measurement' / f'{MEASURED}.tiff', counts, points())
    scene = read_scene(path)
    assert scene.crs.to_epsg() == 32632 and 9 < scene.gsd < 14 and scene.unit == 'intensity'
    bright = np.argwhere(scene.pixels[0] > 50).mean(0)[::-1] + 0.5
    (lon,), (lat,) = rasterio.warp.transform(scene.crs, 'EPSG:4326', *scene.frame.to_map([bright]).T)
    assert lon == pytest.approx(10 + 25 * 2e-4, abs=2e-4) and lat == pytest.approx(
        60 - 45e-4 - 25e-5, abs=2e-4
    )
    place = 5000 / np.sqrt(np.median(scene.pixels[scene.pixels > 50]))  # the table where the bright spot is
    assert place == pytest.approx(sigma_nought(calibrated(tmp_path), 45, 25), rel=0.02)
    assert 0.5 < scene.valid.mean() < 1 and as_chip(path).frame.crs == scene.crs
    assert len(list(read_tiles(path, 32))) > 4
    with pytest.raises(BadInput, match='control points contradict each other; correct'):
        read_scene(with_points(tmp_path / 'b.tif', counts, points(wrong=True)))
    with pytest.raises(BadInput, match='do not span a plane'):
        read_scene(with_points(tmp_path / 'c.tif', counts, points()[:3]))


def calibrated(folder):
    return next((folder / 'annotation/calibration').iterdir())


def test_hundredths_of_decibels_are_decibels(tmp_path):
    db = np.random.default_rng(0).normal(-12, 4, (2, 40, 40))
    scene = read_scene(write(tmp_path / 'a.tif', (db * 100).round().astype('int16'), ('VV', 'VH')))
    assert scene.unit == 'dB' and np.allclose(scene.pixels, db, atol=0.01) and 'unverified' in scene.notes[0]
    same = read_scene(write(tmp_path / 'b.tif', db.astype('float32'), ('VV', 'VH')))
    assert np.abs(scene.chip().image.astype(int) - same.chip().image).max() <= 1
    assert all(t.unit == 'dB' and t.pixels.mean() > -20 for t in read_tiles(tmp_path / 'a.tif', 16))


@pytest.mark.parametrize(
    'name, unit, factor',
    [
        ('iw-vv.rtc.tiff', 'intensity', 1),
        ('Gamma0_VV.tif', 'intensity', 1),
        ('S1A_IW_20200104T005102_DVP_RTC30_G_gpuned_1234_VV.tif', 'intensity', 1),
        ('S1A_IW_20200104T005102_DVP_RTC30_G_gauned_1234_VV.tif', 'amplitude', 1),
        ('N23W161_20_sl_HH_F02DAR_palsar.tif', 'amplitude', 10 ** (-83 / 20)),
    ],
)
def test_radar_by_its_providers_name(tmp_path, name, unit, factor):
    kind = 'uint16' if 'palsar' in name else 'float32'
    scene = read_scene(write(tmp_path / name, (COUNTS / 1000 + 1).astype(kind)))
    assert (scene.sensor, scene.unit) == ('sar', unit) and scene.bands[0] in ('VV', 'HH')
    assert np.allclose(scene.pixels, (COUNTS / 1000 + 1).astype(kind) * factor)


# When, how large, and what is no data


@pytest.mark.parametrize(
    'name, time',
    [
        ('S1A_IW_GRDH_1SDV_20210809T173953_20210809T174018_039156_049F13_6FF8.tif', '2021-08-09T17:39:53Z'),
        ('S2A_28QCH_20200714_0_L2A.tif', '2020-07-14'),
        ('LE07_L2SP_021030_20100109_20200911_02_T1_SR_B3.TIF', '2010-01-09'),
        ('MOD09A1.A2020161.h18v04.061.tif', '2020-06-09'),
        ('m_3008501_ne_16_060_20191120_20200101.tif', '2019-11-20'),
        ('CAPELLA_C02_SM_GEO_HH_20201209213329_20201209213332.tif', '2020-12-09T21:33:29Z'),
        ('2023-02-08-03-04-05_UMBRA-04_GEC.tif', '2023-02-08T03:04:05Z'),
        ('https://x.org/B04.tif?se=20240101T000000', None),
        ('coast_99999999.tif', None),
    ],
)
def test_time_of_the_usual_names(name, time):
    assert time_of_name(name) == time


def test_time_in_tags():
    time = lambda **tags: acquisition_time('a.tif', tags)
    assert time(ACQUISITIONDATETIME='2020-05-06 10:11:12') == '2020-05-06T10:11:12Z'
    assert time(SENSING_TIME='2020-05-06T10:11:12+02:00') == '2020-05-06T08:11:12Z'
    assert time(PRODUCT_START_TIME='2020-05-06T10:11:12.024Z', GENERATION_TIME='2021-01-01') == (
        '2020-05-06T10:11:12Z'
    )
    assert time(PROCESSING_DATE='2021-01-01') is time(TIFFTAG_DATETIME='2021:02:03 04:05:06') is None
    with pytest.raises(BadInput, match="a.tif: the tag ACQUISITION_DATE '2020-13-45' is no date; correct it"):
        time(ACQUISITION_DATE='2020-13-45')


@pytest.mark.parametrize(
    'crs, x, y, step, metres',
    [
        ('EPSG:3857', 0, 8_399_738, 10, 5.01),  # 60 N: twice too long on the map
        ('EPSG:4326', 10, 60, 1e-4, 7.886),
        ('EPSG:32632', 5e5, 6_651_000, 10, 10),
        ('EPSG:2263', 3e5, 0, 10, 3.048),  # feet
    ],
)
def test_ground_distance_on_the_ellipsoid(tmp_path, crs, x, y, step, metres):
    place = dict(crs=crs, transform=rasterio.Affine(step, 0, x, 0, -step, y))
    scene = read_scene(write(tmp_path / 'a.tif', COUNTS, **place))
    assert scene.gsd == pytest.approx(metres, rel=2e-3)


def test_nodata_as_the_user_says(tmp_path):
    counts = COUNTS.repeat(2, 0)
    counts[0, 2, 2] = 7
    path = write(tmp_path / 'a.tif', counts)
    assert read_scene(path).valid.all() and read_scene(path, nodata=7).valid.sum() == 80
    with pytest.raises(BadInput, match='nodata -1 cannot stand in a file of uint16; give another'):
        read_scene(path, nodata=-1)
    with pytest.raises(BadInput, match=r'nodata 15000 lies among the values \(.*give one outside'):
        read_scene(path, nodata=15_000)


def test_zero_collars_are_found_and_said(tmp_path):
    counts = np.random.default_rng(0).integers(8000, 20000, (3, 60, 60)).astype('uint16')
    row, column = np.mgrid[:60, :60]
    counts[:, row + column < 20] = 0
    counts[1, 40, 40] = 0
    path = write(tmp_path / 'a.tif', counts)
    scene = read_scene(path)
    assert (scene.valid == (row + column >= 20)).all() and 'zeros are taken for no data' in scene.notes[0]
    assert all(
        (t.valid == scene.valid[t.offset[1] :][:30, t.offset[0] :][:, :30]).all()
        for t in read_tiles(path, 30)
    )
    assert read_scene(
        write(tmp_path / 'b.tif', (counts // 100).astype('uint8'))
    ).valid.all()  # black is a colour


def test_names_of_files():
    assert band_of_file('s1a-iw-grd-vh-20210809t173953-002.tiff') == 'VH'
    assert band_of_file('scene_vv.tif') == 'VV' and band_of_file('ivvory.tif') == ''
    assert band_of_file('LC08_L2SP_x_ST_QA.TIF') == band_of_file('LC08_x_ST_EMIS.TIF') == ''


def test_12_bit_files(tmp_path):
    path = write(tmp_path / 'a.tif', np.minimum(COUNTS, 4095), nbits=12)
    assert (read_scene(path).pixels == 4095).all()


def test_the_command_line_says_how_to_read():
    words = [
        'ask',
        'nano',
        'a.tif',
        'what?',
        '--bands',
        '4, nir,2',
        '--platform',
        'landsat-8',
        '--nodata',
        '-9999',
    ]
    args = reading(make_parser().parse_args(words))
    assert args['bands'] == [4, 'nir', 2] and args['platform'] == 'landsat-8' and args['nodata'] == -9999


def test_time_ground_distance_and_notes_reach_the_answer(tmp_path):
    name = 's1a-iw-grd-vv-20210809t173953-20210809t174018-039156-049f13-001.tiff'
    answer = Answer('water', -0.1, 'what?', as_chip(write(tmp_path / name, COUNTS)))
    lines = '\n'.join(_answer_lines(answer))
    assert 'seen: 2021-08-09T17:39:53Z, 10.0 m a pixel' in lines and 'radar uncalibrated' in lines
    facts = answer.to_geojson()['features'][0]['properties']
    assert facts['datetime'] == '2021-08-09T17:39:53Z' and facts['gsd'] == 10 and facts['notes']
