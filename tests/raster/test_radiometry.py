"Speckle, kelvin and indices against what is known by construction."

import json
from dataclasses import replace
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster import radiometry as R
from earthgpt_lite.raster.chips import Sensor
from earthgpt_lite.raster.radiometry import (
    INDICES,
    LANDSAT,
    brightness_temperature,
    despeckle,
    equivalent_number_of_looks,
    lee,
    refined_lee,
    spectral_index,
    thermal_constants,
    to_kelvin,
)
from earthgpt_lite.raster.reading import Scene, read_scene

DATA = files('earthgpt_lite') / 'assets/data'


def grain(shape, looks, seed=0):
    return np.random.default_rng(seed).gamma(looks, 1 / looks, shape)


def scene(pixels, bands, sensor=Sensor.SAR, **more):
    return Scene(np.asarray(pixels), np.ones(np.shape(pixels)[1:], bool), sensor, bands, **more)


def test_moments_equal_the_plain_loop():
    x = np.random.default_rng(0).random((15, 12))
    x[3, 4] = np.nan
    mean, var = R._moments(x, 5)
    y = np.pad(x, 2, mode='reflect')
    for r, c in np.ndindex(x.shape):
        assert np.isclose(mean[r, c], np.nanmean(y[r : r + 5, c : c + 5])) and np.isclose(
            var[r, c], np.nanvar(y[r : r + 5, c : c + 5])
        )


@pytest.mark.parametrize('filter', [lee, refined_lee])
class TestFilters:
    def test_even_ground_is_smoothed_without_bias(self, filter):
        field = 5 * grain((200, 200), 4)
        out = filter(field, 4)
        assert abs(out.mean() / field.mean() - 1) < 0.03 and equivalent_number_of_looks(
            out
        ) > 3 * equivalent_number_of_looks(field)

    def test_without_speckle_nothing_happens(self, filter):
        x = np.random.default_rng(0).random((40, 40)) + 0.1
        assert np.allclose(filter(x, 1e12), x)

    def test_gain_does_not_matter(self, filter):
        x = grain((40, 40), 3)
        assert np.allclose(filter(x * 1e-4, 3), filter(x, 3) * 1e-4)

    def test_nodata_stays_and_spreads_not(self, filter):
        x = grain((40, 40), 3)
        x[10:20, 10:20] = np.nan
        assert (np.isnan(filter(x, 3)) == np.isnan(x)).all()

    def test_refusals(self, filter):
        for x, looks in ((np.ones((5, 5)), 4), (np.ones((2, 9, 9)), 4), (np.ones((9, 9)), 0)):
            with pytest.raises(BadInput):
                filter(x, looks)


@pytest.mark.parametrize('turn', range(4))
@pytest.mark.parametrize('slanted', [False, True])
def test_refined_filter_picks_its_own_side_of_any_edge(turn, slanted):
    r, c = np.mgrid[:64, :64]
    truth = np.rot90(np.where((r + c > 64) if slanted else (c > 31), 1.0, 0.05), turn)
    noisy = truth * grain(truth.shape, 4, turn)
    error = lambda x: np.abs(10 * np.log10(x / truth))[4:-4, 4:-4].mean()
    assert error(refined_lee(noisy, 4)) < min(error(lee(noisy, 4)), error(noisy) / 2)


def test_refined_statistics_equal_the_plain_loop():
    x = grain((12, 14), 2)
    side, halves, y = R._side(x), R._halves(), np.pad(x, 3, mode='reflect')
    out = refined_lee(x, 2)
    for r, c in ((0, 0), (5, 6), (11, 13), (3, 9)):
        part = y[r : r + 7, c : c + 7][halves[side[r, c]]]
        k = np.clip((part.var() - part.mean() ** 2 / 2) / (part.var() * 1.5), 0, 1)
        assert np.isclose(out[r, c], part.mean() + k * (x[r, c] - part.mean()))


def test_despeckle_takes_any_unit():
    x = grain((2, 30, 30), 4).astype('float32')
    outs = [
        despeckle(scene(p, ('VV', 'VH'), unit=u), 4)
        for p, u in (
            (x, 'intensity'),
            (x**0.5, 'amplitude'),
            (10 * np.log10(x), 'dB'),
            ((x**0.5).astype('complex64'), 'complex'),
        )
    ]
    # ties at mirrored borders may fall either way
    for out in outs:
        assert out.unit == 'intensity' and np.isclose(out.pixels, outs[0].pixels, rtol=1e-4).mean() > 0.98
    with pytest.raises(BadInput, match='radar'):
        despeckle(scene(x, ('a', 'b'), Sensor.OPTICAL), 4)
    with pytest.raises(BadInput, match='lee, refined'):
        despeckle(scene(x, ('VV', 'VH')), 4, 'median')


def test_sabah_is_calmer_and_as_bright():
    before = read_scene(DATA / 'sentinel1_sabah_2017-01-24.tif')
    after = despeckle(before, 20)
    vv, calm = 10 ** (before.band('VV') / 10), after.band('VV')
    assert calm.mean() == pytest.approx(vv.mean(), rel=0.03) and equivalent_number_of_looks(
        calm[60:160, 60:160]
    ) > 1.5 * equivalent_number_of_looks(vv[60:160, 60:160])


@given(st.floats(180, 350), st.sampled_from(list(LANDSAT)))
def test_planck_and_back(kelvin, key):
    c = LANDSAT[key]
    counts = (c['k1'] / (np.exp(c['k2'] / kelvin) - 1) - c['add']) / c['mult']
    if counts > 0:
        assert brightness_temperature(counts, **c) == pytest.approx(kelvin, abs=1e-6)


def test_temperature_by_hand():
    assert brightness_temperature(25_000, **LANDSAT['landsat-8', 'B10']) == pytest.approx(
        1321.0789 / np.log(774.8853 / (3.342e-4 * 25_000 + 0.1) + 1)
    )
    assert np.isnan(brightness_temperature(0, **LANDSAT['landsat-8', 'B10']))


TEXT = '    RADIANCE_MULT_BAND_1 = 9.9\n    RADIANCE_MULT_BAND_10 = 3.3420E-04\n    RADIANCE_ADD_BAND_10 = 0.10000\n    K1_CONSTANT_BAND_10 = 774.8853\n    K2_CONSTANT_BAND_10 = 1321.0789\n'


def test_metadata_in_three_forms(tmp_path):
    pairs = [line.strip().split(' = ') for line in TEXT.splitlines()]
    for name, text in (
        ('a_MTL.txt', TEXT),
        ('a_MTL.json', json.dumps(dict(LANDSAT_METADATA_FILE=dict(X=dict(pairs))))),
        ('a_MTL.xml', ''.join(f'<{k}>{v}</{k}>' for k, v in pairs)),
    ):
        (tmp_path / name).write_text(text)
        assert (
            thermal_constants(tmp_path / name)
            == thermal_constants(dict(pairs))
            == LANDSAT['landsat-8', 'B10']
        )
    with pytest.raises(BadInput, match='a_MTL.txt: no RADIANCE_MULT_BAND_11'):
        thermal_constants(tmp_path / 'a_MTL.txt', 'B11')
    with pytest.raises(BadInput, match='no_MTL.txt: not a readable'):
        thermal_constants(tmp_path / 'no_MTL.txt')


def test_to_kelvin():
    counts = np.array([[[0, 25_000], [20_000, 30_000]]], 'uint16')
    s = scene(
        counts,
        ('B10',),
        Sensor.OPTICAL,
        tags=dict(SPACECRAFT_ID='LANDSAT_8', **dict(line.strip().split(' = ') for line in TEXT.splitlines())),
    )
    warm = to_kelvin(s)
    assert (
        warm.unit == 'K'
        and warm.sensor is Sensor.INFRARED
        and warm.valid.tolist() == [[False, True], [True, True]]
    )
    assert (
        np.allclose(warm.pixels, to_kelvin(s, 'landsat-8').pixels, equal_nan=True) and to_kelvin(warm) is warm
    )
    with pytest.raises(BadInput):
        to_kelvin(replace(s, tags={}))
    with pytest.raises(BadInput, match='landsat-5'):
        to_kelvin(s, 'landsat-5')


@given(st.floats(0.01, 1), st.floats(0.01, 1))
@settings(max_examples=50)
def test_indices(a, b):
    for name, bands in INDICES.items():
        s = scene([[[a, 0.0]], [[b, 0.0]]], bands, Sensor.OPTICAL)
        assert spectral_index(s, name)[0, 0] == pytest.approx((a - b) / (a + b), abs=1e-5) and np.isnan(
            spectral_index(s, name)[0, 1]
        )
    with pytest.raises(BadInput, match='ndvi, ndwi, nbr'):
        spectral_index(s, 'evi')


def test_virginia_is_green_and_wet_where_the_map_says():
    coast, cover = (
        read_scene(DATA / 'sentinel2_virginia.tif'),
        read_scene(DATA / 'sentinel2_virginia_cover.tif').pixels[0],
    )
    assert (
        np.nanmedian(spectral_index(coast, 'ndvi')[cover == 3])
        > 0.5
        > 0.2
        > np.nanmedian(spectral_index(coast, 'ndvi')[cover == 5])
    )
    assert (
        np.nanmedian(spectral_index(coast, 'ndwi')[cover == 1])
        > 0
        > np.nanmedian(spectral_index(coast, 'ndwi')[cover == 2])
    )
    with pytest.raises(BadInput, match='B02, B03, B04, B08, B11'):
        spectral_index(coast, 'nbr')
