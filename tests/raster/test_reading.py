"Reading, rendering and tiling of rasters: what must work, what must be refused and how."

import json, subprocess, sys, warnings
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings, strategies as st
from PIL import Image
from rasterio.shutil import copy

from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster import reading as S
from earthgpt_lite.raster.chips import BACKSCATTER, Frame, GREY, Sensor
from earthgpt_lite.raster.reading import Scene, read_scene
from earthgpt_lite.raster.sources import as_chip, read_tiles, tile_origins

DATA = files('earthgpt_lite') / 'assets/data'
UTM = dict(crs='EPSG:32618', transform=Affine(10, 0, 5e5, 0, -10, 4e6))
pytestmark = pytest.mark.filterwarnings('error::rasterio.errors.NotGeoreferencedWarning')


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def write(path, pixels, names=None, tags=None, scales=None, offsets=None, **options):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        c, h, w = pixels.shape
        with rasterio.open(
            path, 'w', driver='GTiff', width=w, height=h, count=c, dtype=pixels.dtype, **options
        ) as f:
            f.write(pixels)
            if names:
                f.descriptions = names
            if tags:
                f.update_tags(**tags)
            if scales:
                f.scales = scales
            if offsets:
                f.offsets = offsets
    return path


def refusal(path, call=as_chip, **options):
    "The one sentence that a bad file gets; it must name the file."
    with pytest.raises(BadInput) as error:
        call(path, **options)
    text = str(error.value)
    assert str(path) in text and '\n' not in text and ';' in text, text  # what is wrong; what to do
    return text


# The place of a window


@given(
    st.floats(-180, 180),
    st.floats(0.01, 100),
    st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)),
    st.tuples(st.integers(0, 999), st.integers(0, 999)),
)
def test_windows_of_any_transform_know_their_place(angle, scale, origin, window):
    a, b = scale * np.cos(np.radians(angle)), scale * np.sin(np.radians(angle))
    t = Affine(a, -b, origin[0], b, a, origin[1])
    part = Frame(5, 5, S._moved(t, *window), 'EPSG:32618')
    assert np.allclose(
        part.to_map([2, 3]), Frame(9, 9, t, 'EPSG:32618').to_map([2 + window[0], 3 + window[1]]), atol=1e-6
    )


# Reading


def test_window_equals_part_of_whole(tmp_path, rng):
    p = write(
        tmp_path / 'a.tif', rng.integers(0, 9999, (4, 60, 80), 'uint16'), ('B02', 'B03', 'B04', 'B08'), **UTM
    )
    whole, part = read_scene(p), read_scene(p, window=(10, 20, 30, 25))
    assert (part.pixels == whole.pixels[:, 20:45, 10:40]).all() and part.offset == (10, 20)
    assert np.allclose(part.frame.to_map([0, 0]), [5e5 + 100, 4e6 - 200])
    assert (read_scene(p, window=rasterio.windows.Window(10, 20, 30, 25)).pixels == part.pixels).all()
    assert whole.gsd == 10 and whole.bands == ('B02', 'B03', 'B04', 'B08') and whole.sensor is Sensor.OPTICAL


def test_bands_by_name_role_and_number(tmp_path, rng):
    p = write(tmp_path / 'a.tif', rng.integers(0, 9999, (4, 6, 8), 'uint16'), ('B02', 'B03', 'B04', 'B08'))
    whole = read_scene(p).pixels
    for asked in (['B08', 'b4'], ['nir', 'red'], [4, 3], ['b8', 'B04']):
        assert (read_scene(p, bands=asked).pixels == whole[[3, 2]]).all()
    assert (read_scene(p, bands='nir').pixels[0] == whole[3]).all()
    for wrong in ('B05', 'pink', 0, 5):
        assert 'B02, B03, B04, B08' in refusal(p, read_scene, bands=[wrong])


def test_names_from_colours_then_numbers(tmp_path, rng):
    rgb, five = rng.integers(0, 255, (3, 5, 6), 'uint8'), rng.integers(0, 255, (5, 5, 6), 'uint16')
    assert read_scene(write(tmp_path / 'a.tif', rgb, photometric='RGB')).bands == ('red', 'green', 'blue')
    assert read_scene(write(tmp_path / 'b.tif', five)).bands == ('B1', 'B2', 'B3', 'B4', 'B5')
    assert read_scene(write(tmp_path / 'c.tif', five[:2], ('x', 'x'))).bands == ('x', 'x_2')


def test_unnamed_bands_are_shown_in_order_and_named_ones_by_role(tmp_path, rng):
    pixels = rng.integers(1, 255, (4, 8, 8), 'uint8')
    assert (
        read_scene(write(tmp_path / 'a.tif', pixels)).chip().image == np.moveaxis(pixels[:3], 0, -1)
    ).all()
    named = read_scene(write(tmp_path / 'b.tif', pixels, ('B02', 'B03', 'B04', 'B08')))
    assert (named.chip().image == np.moveaxis(pixels[[2, 1, 0]], 0, -1)).all()
    assert (named.chip('colour_infrared').image == np.moveaxis(pixels[[3, 2, 1]], 0, -1)).all()
    # though GDAL marks it as alpha
    assert (named.chip('B08').image == pixels[3][..., None]).all()
    pixels[3, 2, 2] = 0
    assert read_scene(write(tmp_path / 'b.tif', pixels, ('B02', 'B03', 'B04', 'B08'))).valid.all()


def test_scale_and_offset_give_physical_values(tmp_path, rng):
    counts = rng.integers(0, 99, (2, 5, 6), 'uint8')
    p = write(tmp_path / 'a.tif', counts, scales=(0.1, 2.0), offsets=(5.0, 0.0))
    assert np.allclose(
        read_scene(p).pixels,
        counts * np.array([0.1, 2.0])[:, None, None] + np.array([5.0, 0.0])[:, None, None],
    )
    assert (read_scene(p, raw=True).pixels == counts).all() and read_scene(
        p, raw=True
    ).pixels.dtype == np.uint8
    assert np.allclose(read_scene(p, bands=[2]).pixels[0], counts[1] * 2.0)


def test_nodata_alpha_and_nan_are_not_valid(tmp_path, rng):
    pixels = rng.integers(1, 999, (2, 6, 6), 'uint16')
    pixels[0, 0, 0] = 0
    pixels[:, 1, 1] = 0
    # one band without data is enough
    assert (~read_scene(write(tmp_path / 'a.tif', pixels, nodata=0)).valid).sum() == 2
    colour = rng.integers(1, 255, (3, 6, 6), 'uint8')
    colour[0, 0, 0] = 0
    colour[:, 1, 1] = 0
    valid = read_scene(write(tmp_path / 'b.tif', colour, nodata=0)).valid
    assert valid[0, 0] and not valid[1, 1] and valid.sum() == 35  # but cyan is a colour
    bad = rng.random((2, 6, 6)).astype('float32')
    bad[1, 2, 3] = np.nan
    bad[0, 3, 3] = np.inf
    scene = read_scene(write(tmp_path / 'c.tif', bad))
    assert not scene.valid[2, 3] and not scene.valid[3, 3] and scene.valid.sum() == 34
    assert (scene.chip(1).image[2, 3] == GREY).all()
    rgba = rng.integers(1, 255, (6, 6, 4), np.uint8)
    rgba[..., 3] = 255
    rgba[4, 4, 3] = 0
    Image.fromarray(rgba).save(tmp_path / 'd.png')
    for scene_or_picture in (tmp_path / 'd.png', Image.open(tmp_path / 'd.png'), rgba):
        chip = as_chip(scene_or_picture)
        assert (chip.image[4, 4] == GREY).all() and (chip.image[:4] == rgba[:4, :, :3]).all()


def test_gsd(tmp_path):
    one = np.ones((1, 10, 10), 'uint8')
    assert read_scene(
        write(tmp_path / 'a.tif', one, crs='EPSG:4326', transform=Affine(0.1, 0, 0, 0, -0.1, 60.5))
    ).gsd == pytest.approx(7884.7, rel=1e-4)  # on the ellipsoid, of pyproj.Geod
    # feet
    assert read_scene(
        write(tmp_path / 'b.tif', one, crs='EPSG:2263', transform=Affine(10, 0, 0, 0, -10, 0))
    ).gsd == pytest.approx(3.048, rel=1e-4)
    assert read_scene(write(tmp_path / 'c.tif', one)).gsd is None
    assert read_scene(write(tmp_path / 'd.tif', one, tags=dict(GSD='0.5'))).gsd == 0.5


@pytest.mark.parametrize(
    'tags, date',
    [
        (dict(DATE='2017-01'), '2017-01'),
        (dict(ACQUISITION_DATE='2020-05-06T10:00:00'), '2020-05-06'),
        (dict(TIFFTAG_DATETIME='2021:02:03 04:05:06', date_acquired='20200102'), '2020-01-02'),
        (dict(TIFFTAG_DATETIME='2021:02:03 04:05:06'), None),  # of writing
        (dict(UPDATE='soon'), None),
        ({}, None),
    ],
)
def test_date(tmp_path, tags, date):
    assert read_scene(write(tmp_path / 'a.tif', np.ones((1, 4, 4), 'uint8'), tags=tags)).date == date


def test_rotated_transform_works(tmp_path, rng):
    turned = Affine(75**0.5, 5, 5e5, 5, -(75**0.5), 4e6)  # 30 degrees
    p = write(
        tmp_path / 'a.tif', rng.integers(0, 999, (3, 20, 30), 'uint16'), crs='EPSG:32618', transform=turned
    )
    s = read_scene(p, window=(4, 5, 10, 10))
    assert s.gsd == pytest.approx(10)
    with rasterio.open(p) as f:
        assert np.allclose(s.frame.to_map([0, 0]), f.xy(5, 4, offset='ul'))
    assert as_chip(p).image.shape == (30, 30, 3)


def test_overview_keeps_its_place(tmp_path, rng):
    s = read_scene(write(tmp_path / 'a.tif', rng.integers(0, 999, (1, 200, 400), 'uint16'), **UTM), size=100)
    assert s.pixels.shape == (1, 50, 100) and s.gsd == pytest.approx(40)
    assert np.allclose(s.frame.to_map([100, 50]), [5e5 + 4000, 4e6 - 2000])


# Rendering


def test_eight_bit_pictures_stay_as_they_are(rng, tmp_path):
    pixels = rng.integers(20, 90, (7, 7, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    for thing in (pixels, Image.fromarray(pixels), tmp_path / 'a.png', str(tmp_path / 'a.png')):
        assert (as_chip(thing).image == pixels).all()
    assert read_scene(tmp_path / 'a.png').chip(stretch=True).image.max() == 255


@pytest.mark.parametrize('kind', ['uint8', 'int16', 'uint16', 'int32', 'uint32', 'float32', 'float64'])
def test_one_band_of_any_depth(tmp_path, rng, kind):
    pixels = (rng.random((1, 12, 15)) * 200).astype(kind)
    image = as_chip(write(tmp_path / 'a.tif', pixels)).image[1:13]
    assert image.shape == (12, 15, 3) and (image[..., 0] == image[..., 2]).all() and np.ptp(image) > 150
    assert np.corrcoef(image[..., 0].ravel(), pixels.ravel())[0, 1] > 0.99


def test_sixteen_bit_png_and_palette(tmp_path, rng):
    Image.fromarray(rng.integers(0, 65535, (9, 9), np.uint16)).save(tmp_path / 'a.png')
    assert (
        np.ptp(as_chip(tmp_path / 'a.png').image)
        == 255
        == np.ptp(as_chip(Image.open(tmp_path / 'a.png')).image)
    )
    picture = Image.fromarray(rng.integers(0, 255, (9, 9, 3), np.uint8)).quantize(16)
    picture.save(tmp_path / 'p.png')
    assert (as_chip(tmp_path / 'p.png').image == np.asarray(picture.convert('RGB'))).all()
    assert (as_chip(picture).image == np.asarray(picture.convert('RGB'))).all()


def test_float_arrays():
    picture = np.linspace(0, 1, 75).reshape(5, 5, 3)
    # as matplotlib reads it
    assert (as_chip(picture).image == (picture * 255).round()).all()
    assert as_chip(picture * 1000).image.max() == 255 and as_chip(picture[..., 0] * 1000).image.shape == (
        5,
        5,
        3,
    )
    for wrong in (np.zeros((0, 4)), np.zeros(3), np.array([['a']]), None):
        with pytest.raises(BadInput, match='array'):
            as_chip(wrong)
    with pytest.raises(BadInput):
        as_chip(np.full((4, 4), np.nan))
    with pytest.raises(BadInput, match='one band or three, not 4'):
        Scene(np.ones((4, 4, 4), 'uint16'), np.ones((4, 4), bool), bands=tuple('abcd')).chip([1, 2, 3, 4])


# Radar and infrared


@pytest.mark.parametrize(
    'pixels, unit',
    [
        (np.full((2, 8, 8), 30, 'uint16'), 'amplitude'),
        (np.full((2, 8, 8), 0.1, 'float32'), 'intensity'),
        (np.full((2, 8, 8), -12.0, 'float32'), 'dB'),
        (np.full((2, 8, 8), 1 + 1j, 'complex64'), 'complex'),
    ],
)
def test_radar_is_known_by_its_polarisations(tmp_path, pixels, unit):
    s = read_scene(write(tmp_path / 'a.tif', pixels, ('Sigma0_VV', 'Sigma0_VH')))
    assert s.sensor is Sensor.SAR and s.unit == unit and s.chip().image.shape == (8, 8, 3)
    assert read_scene(write(tmp_path / 'a.tif', pixels), sensor='sar', unit='amplitude').unit == 'amplitude'


def test_composite_is_co_cross_ratio(tmp_path, rng):
    db = rng.normal(-12, 4, (2, 9, 9)).astype('float32')
    s = read_scene(write(tmp_path / 'a.tif', db, ('VH', 'VV')))
    # whatever the order in the file
    assert np.allclose(s.layers(), [db[1], db[0], db[1] - db[0]], atol=1e-5)
    assert s.stretch().limits == (BACKSCATTER['co'], BACKSCATTER['cross'], BACKSCATTER['ratio'])
    assert (
        s.stretch('VH').limits == (BACKSCATTER['cross'],)
        and s.stretch(percent=(1, 99)).limits != s.stretch().limits
    )
    assert (s.chip('VV').image[..., 0] == s.chip('VV').image[..., 1]).all()


def test_calibrated_radar_means_the_same_everywhere():
    water, land = (
        Scene(
            np.full((1, 4, 4), v, 'float32') + np.arange(16).reshape(4, 4) / 100,
            np.ones((4, 4), bool),
            Sensor.SAR,
            ('VV',),
            unit='dB',
        )
        .chip()
        .image.mean()
        for v in (-19.0, -6.0)
    )
    assert water < 20 and land > 150


def test_infrared_shows_the_thermal_band(tmp_path, rng):
    pixels = rng.integers(1, 9999, (2, 8, 8), 'uint16')
    s = read_scene(write(tmp_path / 'LC08_x.tif', pixels, ('B4', 'B10')), 'infrared')
    assert (s.layers() == pixels[1:]).all()
    assert read_scene(write(tmp_path / 'LC09_x.tif', pixels[:1], ('B10',))).sensor is Sensor.INFRARED
    assert (
        read_scene(write(tmp_path / 'x.tif', pixels[:1], ('B10',), dict(SENSOR='optical'))).sensor
        is Sensor.OPTICAL
    )


# What must be refused, each with one sentence


def test_missing_text_and_damaged_files(tmp_path, rng):
    assert 'no such file' in refusal(tmp_path / 'no.tif')
    (tmp_path / 'text.tif').write_text('hello')
    assert 'not an image' in refusal(tmp_path / 'text.tif')
    (tmp_path / 'void.png').write_bytes(b'')
    assert 'not an image' in refusal(tmp_path / 'void.png')
    assert 'not an image' in refusal(tmp_path)


@pytest.mark.parametrize('name', ['a.tif', 'deflate.tif', 'a.png', 'alpha.png', 'a.jpg'])
@pytest.mark.parametrize('share', [0.4, 0.9])
def test_a_file_cut_short_is_never_taken_for_whole(tmp_path, rng, name, share):
    pixels = rng.integers(0, 255, (90, 80, 4 if name == 'alpha.png' else 3), np.uint8)
    if name.endswith('tif'):
        write(
            tmp_path / name,
            np.moveaxis(pixels, -1, 0),
            **({} if name == 'a.tif' else dict(compress='deflate', tiled=True, blockxsize=16, blockysize=16)),
        )
    else:
        Image.fromarray(pixels).save(tmp_path / name)
    assert as_chip(tmp_path / name).image.shape == (90, 90, 3)
    data = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(data[: int(len(data) * share)])
    assert 'cut short' in (text := refusal(tmp_path / name)) or 'not an image' in text


def test_nothing_to_see(tmp_path):
    assert 'NaN' in refusal(write(tmp_path / 'nan.tif', np.full((1, 5, 5), np.nan, 'float32')))
    assert 'nodata' in refusal(write(tmp_path / 'none.tif', np.zeros((2, 5, 5), 'uint16'), nodata=0))
    assert 'single pixel' in refusal(write(tmp_path / 'one.tif', np.ones((3, 1, 1), 'uint8')))
    assert as_chip(write(tmp_path / 'line.tif', np.ones((1, 1, 3), 'uint16'))).image.shape == (3, 3, 3)


def test_no_bands(tmp_path):
    store = tmp_path / 'two.zarr'
    for name in ('a', 'b'):
        (store / name).mkdir(parents=True)
        (store / name / '.zarray').write_text(
            json.dumps(
                dict(
                    zarr_format=2,
                    shape=[4, 4],
                    chunks=[4, 4],
                    dtype='|u1',
                    compressor=None,
                    fill_value=0,
                    order='C',
                    filters=None,
                )
            )
        )
        (store / name / '0.0').write_bytes(bytes(16))
    (store / '.zgroup').write_text('{"zarr_format": 2}')
    assert 'allow-vrt' in refusal(store)  # a folder, which may name servers
    text = refusal(store, read_scene, allow_vrt=True)
    assert 'no bands' in text and 'ZARR:' in text


def test_no_crs_works_in_pixels(tmp_path, rng):
    s = read_scene(write(tmp_path / 'a.tif', rng.integers(0, 255, (3, 8, 8), 'uint8')))
    assert s.crs is None and s.transform is None and as_chip(s).frame.crs is None
    with pytest.raises(BadInput, match='a.tif: map coordinates are unavailable'):
        s.frame.to_map([0, 0])


def test_wrong_sensor(tmp_path, rng):
    p = write(tmp_path / 'a.tif', rng.integers(0, 255, (1, 8, 8), 'uint8'))
    assert 'optical, sar, infrared' in refusal(p, sensor='radar')
    # 8-bit ship chips say nothing of themselves
    assert read_scene(p, 'SAR').sensor is Sensor.SAR
    assert 'this is sar, not optical' in refusal(
        write(tmp_path / 'b.tif', rng.random((2, 8, 8)), ('VV', 'VH')), sensor='optical'
    )
    assert 'this is optical, not sar' in refusal(
        write(tmp_path / 'c.tif', rng.random((2, 8, 8)), tags=dict(SENSOR='optical')), sensor='sar'
    )


def test_a_jpeg_of_500_million_pixels_is_refused_unread(tmp_path, rng, monkeypatch):
    Image.fromarray(rng.integers(0, 255, (40, 30, 3), np.uint8)).save(tmp_path / 'a.jpg')
    data = bytearray((tmp_path / 'a.jpg').read_bytes())
    at = data.find(b'\xff\xc0') + 5
    data[at : at + 4] = (20_000).to_bytes(2, 'big') + (25_000).to_bytes(2, 'big')
    (tmp_path / 'a.jpg').write_bytes(data)
    text = refusal(tmp_path / 'a.jpg')
    assert '25000 x 20000' in text and '3,000 MB' in text and 'tiles' in text
    monkeypatch.setattr(S, 'MAX_PIXELS', 100)
    text = refusal(write(tmp_path / 'b.tif', np.ones((1, 11, 10), 'uint8')), read_scene)
    assert '10 x 11' in text and 'limit of 100' in text and 'tiles' in text


@pytest.mark.parametrize('window', [(0, 0, 9, 9), (-1, 0, 3, 3), (7, 7, 2, 2), (0, 0, 0, 4)])
def test_window_outside(tmp_path, window):
    assert '8 x 8' in refusal(
        write(tmp_path / 'a.tif', np.ones((1, 8, 8), 'uint8')), read_scene, window=window
    )


# Numbers that float32 cannot tell apart, and odd types


@pytest.mark.parametrize(
    'middle, noise, dtype',
    [
        (1e8, 50, 'float64'),
        (-1e12, 1e-1, 'float64'),
        (2**53, 500, 'int64'),
        (2**53, 500, 'uint64'),
        (2**31 - 2000, 900, 'int32'),
        (0, 1e38, 'float32'),
        (0, 1e38, 'float64'),
        (0, 1e300, 'float64'),
        (0, 1e-300, 'float64'),
        (0, 30_000, 'int16'),
    ],
)
def test_any_numbers_are_stretched_as_the_same_numbers_near_zero(tmp_path, rng, middle, noise, dtype):
    plain = rng.integers(-200, 200, (1, 40, 50)) / 200
    near_zero = as_chip(plain[0] * 100).image.astype(int)
    made = (np.array(middle, dtype) + (plain * noise).astype(dtype)).astype(dtype)
    if dtype.startswith('float'):
        made[0, 0, :3] = np.nan, np.inf, -np.inf
    for image in (made[0], write(tmp_path / 'a.tif', made)):
        seen = as_chip(image).image.astype(int)
        assert np.abs(seen - near_zero)[6:45].max() <= 8 and seen.std() > 40


def test_numbers_too_large_for_any_stretch_are_refused(tmp_path, rng):
    close = 2**60 + rng.integers(0, 90, (1, 9, 9))
    assert 'subtract' in refusal(write(tmp_path / 'a.tif', close))
    far = rng.choice([-1.7e308, 1.7e308], (1, 9, 9))
    assert 'divide' in refusal(write(tmp_path / 'b.tif', far))
    same = write(tmp_path / 'c.tif', np.full((1, 9, 9), 2**60))
    assert set(as_chip(same).image.ravel()) == {128}  # constant: grey, as 1e8 is
    assert set(as_chip(np.full((9, 9), 1e8)).image.ravel()) == {128}


def test_palettes_of_16_bits(tmp_path):
    index = np.array([[[0, 300], [40_000, 65_535]]], 'uint16')
    p = write(tmp_path / 'a.tif', index, photometric='palette', **UTM)
    with rasterio.open(p, 'r+') as f:
        f.write_colormap(1, {0: (1, 2, 3), 300: (4, 5, 6), 40_000: (7, 8, 9), 65_535: (10, 11, 12)})
    assert as_chip(p).image[..., 0].tolist() == [[1, 4], [7, 10]]


def test_complex_arrays_are_radar(rng):
    echo = rng.random((9, 9)) + 1j
    with pytest.raises(BadInput, match="sensor='sar'"):
        as_chip(echo)
    assert as_chip(echo, 'sar').image.std() > 30


# Tiles


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.floats(0, 0.9))
@settings(max_examples=200)
def test_tiles_cover_everything_and_overlap(width, height, size, share):
    overlap = int(size * share)
    seen = np.zeros((height, width), int)
    for r in tile_origins(height, size, size - overlap):
        for c in tile_origins(width, size, size - overlap):
            assert 0 <= r <= max(height - size, 0) and 0 <= c <= max(width - size, 0)
            seen[r : r + size, c : c + size] += 1
    assert seen.min() >= 1
    starts = tile_origins(width, size, size - overlap)
    assert all(a + size - b >= overlap and a < b for a, b in zip(starts, starts[1:]))


def test_tiles_are_the_file_with_one_stretch(tmp_path, rng):
    pixels = (rng.random((3, 100, 140)) * np.linspace(1, 9000, 140)).astype('uint16')
    p = write(tmp_path / 'a.tif', pixels, **UTM)
    found = list(read_tiles(p, 64, 16))
    assert [t.offset for t in found] == [(c, r) for r in (0, 36) for c in (0, 48, 76)]
    for t in found:
        assert (t.pixels == pixels[:, t.offset[1] : t.offset[1] + 64, t.offset[0] : t.offset[0] + 64]).all()
    assert len({t.stretch() for t in found}) == 1 and found[0].stretch() == read_scene(p).stretch()
    # the dark side stays dark
    assert found[0].chip().image.mean() < found[2].chip().image.mean() - 50
    assert np.allclose(found[1].frame.to_map([0, 0]), [5e5 + 480, 4e6])
    with pytest.raises(BadInput, match='0 to 63'):
        next(read_tiles(p, 64, 64))


def test_tiles_without_data_are_left_out_and_small_files_are_one_tile(tmp_path):
    pixels = np.zeros((1, 40, 40), 'uint16')
    pixels[0, :20, :20] = 7
    p = write(tmp_path / 'a.tif', pixels, nodata=0)
    assert [t.offset for t in read_tiles(p, 20)] == [(0, 0)] and len(list(read_tiles(p, 20, empty=True))) == 4
    assert [t.pixels.shape for t in read_tiles(p, 512)] == [(1, 40, 40)]


STREAM = '''
import sys, threading, time, psutil, rasterio
from earthgpt_lite.raster.sources import read_tiles
process, peak, done = psutil.Process(), 0, threading.Event()
def watch():
    global peak
    while not done.wait(.005): peak = max(peak, process.memory_info().rss)
before = process.memory_info().rss
thread = threading.Thread(target=watch); thread.start()
count = sum(t.chip(size=64).image.shape == (64, 64, 3) for t in read_tiles(sys.argv[1], 1024, 64))
done.set(); thread.join()
print(count, (peak - before)/1e6)
'''


@pytest.mark.slow
def test_a_scene_of_400_million_pixels_in_bounded_memory(tmp_path, rng):
    side, block = 20_000, rng.integers(0, 4000, (40, 40)).astype('uint16').repeat(64, 0).repeat(64, 1)
    with rasterio.open(
        tmp_path / 'big.tif',
        'w',
        driver='GTiff',
        width=side,
        height=side,
        count=3,
        dtype='uint16',
        tiled=True,
        blockxsize=512,
        blockysize=512,
        compress='deflate',
        zlevel=1,
        **UTM,
    ) as f:
        for r in range(0, side, 512):
            row = np.tile(block[r % 2048 : r % 2048 + min(512, side - r)], (1, 8))[:, :side]
            f.write(np.stack([row, row // 2, row // 3]), window=rasterio.windows.Window(0, r, side, len(row)))
    done = subprocess.run(
        [sys.executable, '-c', STREAM, str(tmp_path / 'big.tif')], capture_output=True, text=True, check=True
    )
    count, grown = done.stdout.split()
    print(f'{count} tiles, {float(grown):.0f} MB')
    assert int(count) == 21 * 21 and float(grown) < 500


# The files in the package


@pytest.mark.parametrize(
    'name, sensor, bands, gsd',
    [
        ('global_optical', 'optical', 3, 6237),
        ('sentinel2_virginia', 'optical', 5, 10),
        ('sentinel1_florida_2017-07', 'sar', 2, 178.3),
        ('sentinel1_sabah_2017-01-24', 'sar', 2, 14.03),
        ('landsat8_alabama_optical', 'optical', 4, 30),
        ('landsat8_alabama_thermal', 'infrared', 1, 30),
        ('aerial_road', 'optical', 3, 0.1),
    ],
)
def test_samples(name, sensor, bands, gsd):
    s = read_scene(
        DATA / f'{name}.tif', window=(0, 0, 300, 200) if name != 'global_optical' else None, size=300
    )
    assert s.sensor == sensor and len(s.bands) == bands
    if name != 'global_optical':
        assert s.gsd == pytest.approx(gsd, rel=0.01)
    assert np.ptp(s.chip(size=64).image) > 100
    if sensor == 'sar':
        assert s.unit == 'dB' and -40 < np.median(s.pixels[:, s.valid]) < 0 and s.date.startswith('2017')
    if sensor == 'infrared':
        assert s.unit == 'K' and 200 < s.pixels[0][s.valid].min() < s.pixels[0][s.valid].max() < 340


def test_the_files_of_a_scene_are_those_of_its_sources_too(tmp_path, rng):
    write(tmp_path / 'a.tif', rng.integers(0, 255, (3, 64, 64), 'uint8'), **UTM)
    (tmp_path / 'a.tif.aux.xml').write_text('<PAMDataset></PAMDataset>')
    with rasterio.open(tmp_path / 'a.tif') as f:
        copy(f, tmp_path / 'b.vrt', driver='VRT')
    text = (tmp_path / 'b.vrt').read_text()
    (tmp_path / 'c.vrt').write_text(text.replace('a.tif', 'b.vrt'))
    found = [Path(p).name for p in S.scene_files(tmp_path / 'c.vrt', True)]
    assert sorted(found) == ['a.tif', 'a.tif.aux.xml', 'b.vrt', 'c.vrt'] and found[0] == 'c.vrt'
    (tmp_path / 'b.vrt').write_text(text.replace('a.tif', './c.vrt'))  # round and round
    assert sorted(Path(p).name for p in S.scene_files(tmp_path / 'c.vrt', True)) == ['b.vrt', 'c.vrt']
