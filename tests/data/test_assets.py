"The packaged data: small enough, every file with origin and licence, and the script that makes it refuses what it should."

import fnmatch, hashlib
from pathlib import Path
import numpy as np
import pytest
import rasterio
from earthgpt_lite.data.sample.world_map import DATA

import build_samples as build

# aerial photographs are kept without a place on the map
NO_PLACE = pytest.mark.filterwarnings('ignore::rasterio.errors.NotGeoreferencedWarning')
FILES = sorted(p for p in DATA.iterdir() if p.suffix in ('.tif', '.json'))


def test_data_is_small():
    assert (
        len(FILES) > 15
        and sum(p.stat().st_size for p in DATA.rglob('*') if p.is_file() and p.parent.name != 'leaflet')
        < 12e6
    )


@pytest.mark.parametrize('path', FILES, ids=lambda p: p.name)
def test_every_file_is_attributed(path):
    names = [
        n.strip(' `')
        for line in (DATA / 'ATTRIBUTION.md').read_text().splitlines()
        if line.startswith('| `')
        for n in line.split('|')[1].split(',')
    ]
    assert any(fnmatch.fnmatch(path.name, n) for n in names)


@NO_PLACE
@pytest.mark.parametrize('path', [p for p in FILES if p.suffix == '.tif'], ids=lambda p: p.name)
def test_every_raster_tells_its_origin(path):
    with rasterio.open(path) as f:
        tags = f.tags()
        assert tags['ORIGIN'] and tags['LICENCE'] and all(f.descriptions)
        assert ('SENSOR' in tags) != any(k.startswith('CLASS_') for k in tags), (
            'a picture has a sensor, a truth has classes'
        )
        assert f.crs is not None or path.name in ('aerial_meadow.tif', 'aerial_road.tif')
        assert f.profile['tiled']


@pytest.mark.parametrize(
    'name', ['sentinel2_virginia', 'landsat8_alabama', 'sentinel1_florida', 'sentinel1_sabah']
)
def test_truth_lies_on_its_picture(name):
    with rasterio.open(DATA / f'{name}_cover.tif') as truth:
        pictures = [p for p in FILES if p.name.startswith(name) and not p.name.endswith('_cover.tif')]
        assert pictures
        for p in pictures:
            with rasterio.open(p) as f:
                assert (f.shape, f.transform, f.crs) == (truth.shape, truth.transform, truth.crs)


def test_a_file_with_another_hash_is_refused(tmp_path):
    package = build.Package('x', 'x-1.whl', hashlib.sha256(b'right').hexdigest())
    (tmp_path / 'x-1.whl').write_bytes(b'right')
    assert build.fetch(package, tmp_path).read_bytes() == b'right'
    (tmp_path / 'x-1.whl').write_bytes(b'wrong')
    with pytest.raises(SystemExit, match='SHA-256'):
        build.fetch(package, tmp_path)


def test_a_wrong_download_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(build, 'from_index', lambda package, target: target.write_bytes(b'wrong'))
    with pytest.raises(SystemExit, match='SHA-256'):
        build.fetch(build.Package('x', 'x-1.whl', '0' * 64), tmp_path / 'cache')
    assert not (tmp_path / 'cache' / 'x-1.whl').exists()


@pytest.mark.parametrize(
    'package', [v for v in vars(build).values() if isinstance(v, build.Package)], ids=lambda p: p.project
)
def test_packages_are_pinned(package):
    assert len(package.sha256) == 64 and any(c.isdigit() for c in package.file)


@NO_PLACE
def test_writing_twice_gives_the_same_bytes(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (3, 300, 300), dtype=np.uint8)
    for name, options in (('jpeg', dict(jpeg_quality=90, **build.JPEG)), ('deflate', build.DEFLATE)):
        for i in (1, 2):
            build.write(
                tmp_path / f'{name}{i}.tif',
                pixels,
                'abc',
                dict(ORIGIN='x'),
                build.WGS84,
                rasterio.Affine(1, 0, 0, 0, -1, 0),
                **options,
            )
        assert (tmp_path / f'{name}1.tif').read_bytes() == (tmp_path / f'{name}2.tif').read_bytes()


def test_smooth_is_a_mean_of_neighbours():
    a = np.random.default_rng(0).random((12, 9))
    p = np.pad(a, 2, mode='edge')
    assert np.allclose(
        build.smooth(a, 5), [[p[i : i + 5, j : j + 5].mean() for j in range(9)] for i in range(12)]
    )
    one = np.zeros((5, 5), int)
    one[2, 2] = 1
    assert not build.majority(one).any()
