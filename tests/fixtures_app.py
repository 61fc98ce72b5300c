"Rasters to ask about, and the command line as a test calls it."

import warnings

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

from earthgpt_lite.app.cli import main

RNG = np.random.default_rng(0)


def raster(path, pixels, driver='GTiff', alpha=False, names=(), date=None, **keys):
    count, height, width = pixels.shape
    keys |= dict(driver=driver, width=width, height=height, count=count, dtype=pixels.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', NotGeoreferencedWarning)  # without a place, on purpose
        file = rasterio.open(path, 'w', **keys)
    with file:
        file.write(pixels)
        if alpha:
            file.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
        if names:
            file.descriptions = names
        if date:
            file.update_tags(DATE=date)
    return str(path)


def colours(bands, height=20, width=30, most=255, kind='uint8'):
    return RNG.integers(0, most, (bands, height, width)).astype(kind)


@pytest.fixture(scope='module')
def tif(tmp_path_factory):
    return raster(
        tmp_path_factory.mktemp('images') / 'scene.tif',
        colours(3),
        crs='EPSG:4326',
        transform=from_origin(10, 50, 0.01, 0.01),
    )


@pytest.fixture
def run_cli(capsys):
    def call(*argv):
        capsys.readouterr()
        here = argv[:1] == ('ask',) and '--device-map' not in argv
        status = main([str(a) for a in argv] + ['--device', 'cpu'] * here)
        got = capsys.readouterr()
        return status, got.out, got.err

    return call


def refused(answer, *words):
    status, out, err = answer
    assert (
        status == 2
        and out == ''
        and err.startswith('earthgpt-lite: ')
        and err.count('\n') == 1
        and 'Traceback' not in err
    ), answer
    assert all(str(w) in err for w in words), err
    return err


@pytest.fixture
def path(tmp_path):
    with rasterio.open(
        tmp_path / 'a.tif',
        'w',
        driver='GTiff',
        width=60,
        height=40,
        count=4,
        dtype='uint16',
        crs='EPSG:32618',
        transform=Affine(10, 0, 3e5, 0, -10, 4e6),
    ) as f:
        f.write(np.random.default_rng(0).integers(1, 4000, (4, 40, 60), 'uint16'))
        f.descriptions = ('B02', 'B03', 'B04', 'B08')
    return tmp_path / 'a.tif'
