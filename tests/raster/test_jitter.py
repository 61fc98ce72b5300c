"Random renderings: a pure function of the draw that moves nothing, keeps the order of brightness, and spares the padding."

import numpy as np
import pytest
from hypothesis import given, strategies as st

from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.chips import GREY, Sensor, dihedral_image
from earthgpt_lite.raster.jitter import SPREADS, jitter_chip, rendering_curves

sensors, seeds = st.sampled_from(list(Sensor)), st.integers(0, 10**6)


def picture(seed, side=24):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), 'uint8')


@given(sensors, seeds)
def test_no_strength_no_change(sensor, seed):
    image = picture(seed)
    assert (jitter_chip(image, sensor, np.random.default_rng(seed), 0) == image).all()


@given(sensors, seeds, st.floats(0.1, 2))
def test_the_same_draw_gives_the_same_picture_of_the_same_kind(sensor, seed, strength):
    image = picture(1)
    first, second = (jitter_chip(image, sensor, np.random.default_rng(seed), strength) for _ in range(2))
    assert (first == second).all() and first.dtype == np.uint8 and first.shape == image.shape


@given(sensors, seeds)
def test_no_curve_falls(sensor, seed):
    curves = rendering_curves(np.random.default_rng(seed), picture(0).reshape(-1, 3), sensor).astype(int)
    assert (np.diff(curves, axis=0) >= 0).all() and 0 <= curves.min() and curves.max() <= 255


@given(st.sampled_from([Sensor.OPTICAL, Sensor.INFRARED]), seeds, st.integers(0, 3), st.booleans())
def test_nothing_moves(sensor, seed, quarter, mirror):
    "Turned and then rendered is rendered and then turned, where no noise lies over it"
    image = picture(seed)
    one = jitter_chip(dihedral_image(image, quarter, mirror), sensor, np.random.default_rng(seed))
    other = dihedral_image(jitter_chip(image, sensor, np.random.default_rng(seed)), quarter, mirror)
    assert (one == other).all()


@given(sensors, seeds)
def test_grey_stays_grey_and_padding_stays_padding(sensor, seed):
    image = np.full((24, 24, 3), GREY, 'uint8')
    image[5:19] = picture(seed)[5:19, :, :1]
    shown = jitter_chip(image, sensor, np.random.default_rng(seed))
    assert (shown == shown[..., :1]).all()
    assert (shown[:5] == GREY).all() and (shown[19:] == GREY).all()
    whole = np.full((8, 8, 3), GREY, 'uint8')
    assert (jitter_chip(whole, sensor, np.random.default_rng(seed)) == GREY).all()


def test_padding_has_no_say_in_the_stretch():
    "The stretch of a padded picture is that of its content"
    image = picture(3) // 4 + 100
    padded = np.full((40, 24, 3), GREY, 'uint8')
    padded[8:32] = image
    for seed in range(20):
        alone, inside = (jitter_chip(i, 'optical', np.random.default_rng(seed)) for i in (image, padded))
        assert (inside[8:32] == alone).all()


def test_some_pictures_change_and_all_keep_their_pattern():
    y, x = np.indices((32, 32))
    image = np.stack([60 + 2 * x + y, 50 + 3 * y, 80 + x], -1).astype('uint8')
    changed, alike = 0, []
    for seed in range(200):
        shown = jitter_chip(image, 'optical', np.random.default_rng(seed))
        changed += (shown != image).any()
        if shown.std() > 2:
            alike.append(np.corrcoef(shown.ravel(), image.ravel())[0, 1])
    assert 100 <= changed < 140 and np.median(alike) > 0.9 and len(alike) > 180


def test_only_radar_has_speckle_and_one_band_no_colour():
    assert SPREADS[Sensor.SAR].speckle and not SPREADS[Sensor.OPTICAL].speckle
    assert not SPREADS[Sensor.INFRARED].balance
    flat = np.full((32, 32, 3), 90, 'uint8')
    stds = [jitter_chip(flat, 'sar', np.random.default_rng(k)).astype(float).std() for k in range(9)]
    assert max(stds) > 3 and jitter_chip(flat, 'infrared', np.random.default_rng(1)).std() == 0


def test_an_unknown_sensor_is_refused():
    with pytest.raises(BadInput, match="no sensor named 'lidar'"):
        jitter_chip(picture(0), 'lidar', np.random.default_rng(0))
