"The square that a model sees: padding, stretches, decibels."

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.chips import Frame, GREY, Stretch, decibels
from earthgpt_lite.raster.sources import as_chip


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_frame_is_earthgpts_rule(w, h):
    f = Frame(w, h)
    assert f.side == max(w, h)
    assert (f.pad_x, f.pad_y) == ((int((h - w) / 2), 0) if h > w else (0, int((w - h) / 2)))


def test_chip_is_padded_with_grey_and_centred(rng):
    pixels = rng.integers(128, 255, (5, 9, 3), np.uint8)
    v = as_chip(pixels)
    assert v.image.shape == (9, 9, 3) and v.image.dtype == np.uint8
    assert (v.image[2:7] == pixels).all() and (v.image[:2] == GREY).all() and (v.image[7:] == GREY).all()
    assert as_chip(pixels, size=18).image.shape == (18, 18, 3) and as_chip(pixels, size=18).frame == v.frame


@given(st.floats(-1e3, 1e3), st.floats(0.1, 1e4))
@settings(max_examples=30)
def test_stretch_ignores_gain_and_offset(offset, gain):
    x, valid = np.random.default_rng(1).random((1, 30, 30)), np.ones((30, 30), bool)
    a, b = (Stretch.fit(y, valid)(y).astype(int) for y in (x, x * gain + offset))
    assert np.abs(a - b).max() <= 1


def test_stretch_has_no_ear_for_nodata(rng):
    x, valid = rng.random((1, 20, 20)), np.ones((20, 20), bool)
    want = Stretch.fit(x, valid).limits
    wide = np.concatenate([x, np.full((1, 50, 20), -9999.0)], 1)
    assert Stretch.fit(wide, np.concatenate([valid, np.zeros((50, 20), bool)])).limits == want
    # a constant is grey, not an error
    assert (Stretch.fit(x * 0, valid)(x * 0) == 128).all()
    assert Stretch(((0, 1),))(np.array([[[-5, 0, 0.5, 1, 9]]])).tolist() == [[[0, 0, 128, 255, 255]]]


def test_decibels_agree(rng):
    z = rng.normal(size=(5, 5)) + 1j * rng.normal(size=(5, 5))
    db = decibels(z, 'complex')
    assert (
        db.dtype == np.float32
        and np.allclose(db, decibels(abs(z), 'amplitude'), atol=1e-4)
        and np.allclose(db, decibels(abs(z) ** 2), atol=1e-4)
    )
    assert np.allclose(decibels(db, 'dB'), db) and np.isnan(decibels(np.zeros(1)))[0]
    with pytest.raises(BadInput):
        decibels(z, 'volts')
