"A raster on the grid of another: as rasterio's own reproject has it, in parts as in one piece, there and back again."

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings, strategies as st
from rasterio.warp import Resampling, reproject, transform

from fixtures_app import raster
from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster import align
from earthgpt_lite.raster.align import (
    check_order,
    check_same_place,
    cloud_band,
    clouds_on_grid,
    file_frame,
    pixel_scale,
    read_on_grid,
    shared_ground,
    shared_part,
    window_frame,
)
from earthgpt_lite.raster.chips import Frame
from earthgpt_lite.raster.opening import open_raster
from earthgpt_lite.raster.reading import ReadOptions, read_scene

UTM = dict(crs=rasterio.CRS.from_epsg(32618), transform=Affine(10, 0, 440_000, 0, -10, 4_170_000))
SIZE = 120, 150  # rows, columns


def smooth(seed=0, bands=2, shape=SIZE, kind='float32'):
    "Waves, so that a shift of a pixel shows, and neighbours are alike."
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    waves = [np.sin(rows / rng.uniform(8, 20)) + np.cos(columns / rng.uniform(8, 20)) for _ in range(bands)]
    return (np.stack(waves) * 30 + 100).astype(kind)


def write(path, pixels, place=UTM, **more):
    raster(path, pixels, **place, **more)
    return path


def target(code, scale, turn, east, north, size=(90, 110)):
    "A grid of other pixels, turned and shifted by metres, in another CRS, over the middle of the source."
    crs = rasterio.CRS.from_epsg(code)
    middle = UTM['transform'] @ (SIZE[1] / 2, SIZE[0] / 2)
    (x,), (y,) = transform(UTM['crs'], crs, [middle[0] + east], [middle[1] + north])
    step = 10 * scale / (111_000 if crs.is_geographic else 1)
    t = Affine.translation(x, y) @ Affine.rotation(turn) @ Affine.scale(step, -step)
    return Frame(size[1], size[0], t @ Affine.translation(-size[1] / 2, -size[0] / 2), crs, 'target')


GRIDS = st.builds(
    target,
    st.sampled_from([32618, 32617, 4326, 3857]),
    st.floats(0.4, 4),
    st.floats(-40, 40),
    st.floats(-500, 500),
    st.floats(-500, 500),
)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    return write(tmp_path_factory.mktemp('a') / 'a.tif', smooth())


@settings(max_examples=40)
@given(GRIDS)
def test_as_rasterio_has_it(source, frame):
    with open_raster(source) as file:
        found = read_on_grid(file, frame)
        scale = pixel_scale(frame, file_frame(file))
        expected = np.full((2, frame.height, frame.width), np.nan, 'f4')
        place = dict(dst_transform=frame.transform, dst_crs=frame.crs, dst_nodata=np.nan)
        exact = dict(XSCALE=1 / scale[0], YSCALE=1 / scale[1])
        reproject(rasterio.band(file, [1, 2]), expected, resampling=Resampling.bilinear, **place, **exact)
    seen = np.isfinite(expected).all(0)
    assert (found.valid <= seen).all() and (seen & ~found.valid).mean() < 0.02  # half of a pixel at the edge
    assert np.allclose(found.pixels[:, found.valid], expected[:, found.valid], atol=1e-3)
    assert found.crs == frame.crs and found.transform == frame.transform


@settings(max_examples=20)
@given(GRIDS, st.integers(0, 60), st.integers(0, 60), st.integers(1, 40), st.integers(1, 30))
def test_a_window_is_a_window_of_the_whole(source, frame, column, row, width, height):
    with open_raster(source) as file:
        whole = read_on_grid(file, frame)
        scale = pixel_scale(frame, file_frame(file))
        part = read_on_grid(file, window_frame(frame, (column, row, width, height)), scale=scale)
    here = np.s_[..., row : row + height, column : column + width]
    both = whole.valid[here] & part.valid
    assert np.allclose(part.pixels[:, both], whole.pixels[here][:, both], atol=0.5)  # an eighth of a pixel
    assert (whole.valid[here] != part.valid).mean() < 0.05


def test_the_source_is_read_in_parts(source, monkeypatch):
    frame = target(4326, 3, 20, 0, 0)
    with open_raster(source) as file:
        whole = read_on_grid(file, frame)
        sizes, read = [], align.read_open

        def watched(file, options, window, **more):
            sizes.append(window[2] * window[3])
            return read(file, options, window, **more)

        monkeypatch.setattr(align, 'read_open', watched)
        monkeypatch.setattr(align, '_AT_ONCE', 2000)
        parts = read_on_grid(file, frame)
    assert len(sizes) > 10 and max(sizes) < 8000
    assert (parts.valid == whole.valid).all() and np.allclose(parts.pixels, whole.pixels, atol=0.1)


@pytest.mark.parametrize('code, turn', [(32618, 0), (4326, 0), (32617, 30)])
def test_there_and_back_again(source, tmp_path, code, turn):
    "Onto a grid twice as fine and back: what is lost is a little of the waves' height."
    fine = target(code, 0.5, turn, 0, 0, (560, 600))
    with open_raster(source) as file:
        frame, there = file_frame(file), read_on_grid(file, fine)
    place = dict(crs=fine.crs, transform=fine.transform)
    write(tmp_path / 'b.tif', np.where(there.valid, there.pixels, np.nan).astype('f4'), place, nodata=np.nan)
    with open_raster(tmp_path / 'b.tif') as file:
        back = read_on_grid(file, frame)
    assert back.valid.mean() > 0.95
    assert np.abs(back.pixels - smooth())[:, back.valid].max() < 1.5, (
        'waves of 60; half a pixel off would be 3'
    )


@pytest.mark.parametrize('kind', ['uint8', 'int16', 'uint16', 'float32', 'float64'])
def test_its_own_grid_changes_nothing(tmp_path, kind):
    path = write(tmp_path / 'a.tif', smooth(kind=kind))
    with open_raster(path) as file:
        same = read_on_grid(file, file_frame(file))
    assert same.pixels.dtype == kind and same.valid.all() and np.allclose(same.pixels, smooth(kind=kind))


@settings(max_examples=20)
@given(GRIDS)
def test_missing_data_never_bleed(tmp_path_factory, frame):
    pixels = np.full((1, *SIZE), 100, 'int16')
    pixels[:, :, 60:80] = -9999
    path = write(tmp_path_factory.mktemp('n') / 'a.tif', pixels, nodata=-9999)
    with open_raster(path) as file:
        found = read_on_grid(file, frame)
        shared = shared_ground(frame, file_frame(file))
    assert (found.pixels[:, found.valid] == 100).all()
    assert found.valid.mean() <= shared + 0.02


def test_scale_offset_and_a_nodata_that_the_user_gives(tmp_path):
    pixels = smooth(kind='uint16')
    pixels[:, :30] = 7
    write(tmp_path / 'a.tif', pixels, names=('red', 'nir'))
    with rasterio.open(tmp_path / 'a.tif', 'r+') as file:
        file.scales, file.offsets = (0.01, 0.01), (-0.1, -0.1)
    with open_raster(tmp_path / 'a.tif') as file:
        found = read_on_grid(file, file_frame(file), ReadOptions(nodata=7, bands=['nir']))
    whole = read_scene(tmp_path / 'a.tif', nodata=7, bands=['nir'])
    assert (found.valid == whole.valid).all() and not found.valid[:30].any() and found.bands == ('nir',)
    assert np.allclose(found.pixels[:, found.valid], whole.pixels[:, whole.valid], atol=1e-6)


def test_what_lies_elsewhere_is_not_valid(source):
    with open_raster(source) as file:
        nowhere = read_on_grid(file, target(32618, 1, 0, 90_000, 0))
    assert not nowhere.valid.any() and nowhere.pixels.shape == (2, 90, 110)


# ---- how much both show


@settings(max_examples=30)
@given(GRIDS)
def test_shared_ground_is_the_same_from_either_side(frame):
    source = Frame(SIZE[1], SIZE[0], UTM['transform'], UTM['crs'])
    metres = lambda f: align._extent(f) ** 2
    one, other = shared_ground(source, frame) * metres(source), shared_ground(frame, source) * metres(frame)
    assert one == pytest.approx(other, rel=0.03, abs=100)
    at = np.random.default_rng(0).uniform(0, 1, (4000, 2)) * [source.width, source.height]
    column, row = align._to_pixels(at, source, frame).T
    inside = (0 <= column) & (column < frame.width) & (0 <= row) & (row < frame.height)
    assert shared_ground(source, frame) == pytest.approx(inside.mean(), abs=0.04)


def test_shared_ground_of_small_and_large():
    town = Frame(100, 100, UTM['transform'], UTM['crs'], 'town.tif')
    world = Frame(3600, 1800, Affine(0.1, 0, -180, 0, -0.1, 90), rasterio.CRS.from_epsg(4326), 'world.tif')
    assert shared_ground(town, world) == pytest.approx(1) and 0 < shared_ground(world, town) < 1e-6
    check_same_place(town, world)
    left, top, right, low = shared_part(world, town).bounds
    (lon,), (lat,) = transform(town.crs, 'EPSG:4326', *[[v] for v in town.transform @ (50, 50)])
    assert left < (lon + 180) * 10 < right and top < (90 - lat) * 10 < low


def test_two_zones_at_the_date_line():
    east = Frame(100, 100, Affine(10, 0, 830_000, 0, -10, 8_100_000), rasterio.CRS.from_epsg(32760), 'e')
    (x,), (y,) = transform(east.crs, 'EPSG:32701', [830_000], [8_100_000])
    west = Frame(100, 100, Affine(10, 0, x, 0, -10, y), rasterio.CRS.from_epsg(32701), 'w')
    assert shared_ground(east, west) > 0.9


def test_different_places_are_refused_with_their_distance():
    here = Frame(100, 100, UTM['transform'], UTM['crs'], 'a.tif')
    there = window_frame(here, (9000, 0, 100, 100))
    with pytest.raises(BadInput, match=r'a.tif and a.tif show different places, 89\.8 km'):
        check_same_place(here, there)
    assert check_same_place(here, window_frame(here, (50, 0, 100, 100))).area == pytest.approx(5000)


@pytest.mark.parametrize(
    'first, second, right',
    [
        ('2017-01-24', '2018-11-03T02:00:00Z', True),
        ('2018-11-03', '2017-01-24', False),
        ('2018', '2018-11-03', True),
        ('2018-11-03T03:00:00Z', '2018-11-03', True),
        ('2018-11-03T03:00:00Z', '2018-11-03T02:59:59Z', False),
        (None, '2017', True),
        ('2017', None, True),
    ],
)
def test_the_order_of_dates_as_far_as_they_are_known(first, second, right):
    if right:
        return check_order(('a', first), ('b', second))
    with pytest.raises(BadInput, match='a is of 2018-11-03, and b of .*swap'):
        check_order(('a', first), ('b', second))


# ---- without a CRS, with other kinds of numbers


def test_pictures_without_a_place_lie_on_their_pixels(tmp_path):
    path = write(tmp_path / 'a.tif', smooth(), {})
    with open_raster(path) as file:
        frame = file_frame(file)
        found = read_on_grid(file, window_frame(frame, (20, 10, 50, 40)))
    assert np.array_equal(found.pixels, smooth()[:, 10:50, 20:70]) and found.transform is None
    with open_raster(path) as file, pytest.raises(BadInput, match='a.tif: it has no CRS'):
        read_on_grid(file, target(32618, 1, 0, 0, 0))


def test_complex_echoes_become_amplitudes(tmp_path):
    pixels = smooth(bands=1) * np.exp(1j).astype('c8')
    path = write(tmp_path / 'a.tif', pixels.astype('complex64'), names=('VV',))
    with open_raster(path) as file:
        found = read_on_grid(file, file_frame(file))
    assert found.unit == 'amplitude' and np.allclose(found.pixels, smooth(bands=1), atol=0.01)


# ---- cloud


@pytest.mark.parametrize(
    'name, values, hidden',
    [
        ('x_SCL_20m.tif', (0, 3, 4, 5, 6, 8, 9, 10, 11), (1, 1, 0, 0, 0, 1, 1, 1, 0)),
        ('LC08_L2SP_QA_PIXEL.TIF', (1, 2, 4, 8, 16, 32, 64, 21824), (1, 1, 1, 1, 1, 0, 0, 0)),
        ('HLS.S30.T18STG.v2.0.Fmask.tif', (0, 2, 4, 8, 16, 64, 255), (0, 1, 1, 1, 0, 0, 1)),
        ('hand_drawn.tif', (0, 1, 255), (0, 1, 1)),
    ],
)
def test_what_each_mask_means(tmp_path, name, values, hidden):
    pixels = np.repeat(np.array(values, 'uint16'), 4).reshape(1, 1, -1).repeat(4, 1)
    path = write(tmp_path / name, pixels, nodata=0)  # a mask may call its clear pixels nodata
    with open_raster(path) as file:
        found = clouds_on_grid(file, file_frame(file), cloud_band(file, whole=True))
    assert found[0, ::4].tolist() == [bool(h) for h in hidden] and (found[0, ::4] == found[0, 3::4]).all()


def test_a_band_of_clouds_is_found_by_its_name(tmp_path):
    path = write(tmp_path / 'a.tif', np.zeros((4, 9, 9), 'uint8'), names=('red', 'green', 'blue', 'SCL'))
    plain = write(tmp_path / 'b.tif', np.zeros((3, 9, 9), 'uint8'), names=('red', 'cloud_probability', 'B8'))
    with open_raster(path) as file, open_raster(plain) as other:
        assert cloud_band(file) == (4, 'scl') and cloud_band(other) is None
        with pytest.raises(BadInput, match='none of its 3 bands is named SCL'):
            cloud_band(other, whole=True)


def test_a_mask_with_values_of_another_kind_is_refused(tmp_path):
    path = write(tmp_path / 'mask.tif', np.full((1, 9, 9), 4, 'uint8'))
    with open_raster(path) as file, pytest.raises(BadInput, match='holds 0 and 1, and this one 4'):
        clouds_on_grid(file, file_frame(file), cloud_band(file, whole=True))


def test_a_coarse_mask_on_a_fine_grid_and_nothing_beyond_it(tmp_path):
    mask = np.zeros((1, 20, 20), 'uint8')
    mask[:, 5:10, 5:15] = 1
    coarse = dict(UTM, transform=UTM['transform'] @ Affine.scale(4))
    path = write(tmp_path / 'mask.tif', mask, coarse)
    frame = Frame(100, 80, UTM['transform'], UTM['crs'])
    with open_raster(path) as file:
        hidden = clouds_on_grid(file, frame, (1, 'cloud'))
    assert hidden[20:40, 20:60].all() and not hidden[:18, :78].any()
    assert (
        hidden[:, 80:].all()
        and 0 < (hidden[:, :78] & ~np.pad(np.ones((20, 40), bool), ((20, 40), (20, 18)))).mean() < 0.05
    )
