"From tiles to shapes and files: a grid that covers the scene, regions that leave no gap, files that are whole or not there."

import json
import signal
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from hypothesis import given, settings, strategies as st
from rasterio.crs import CRS

from earthgpt_lite.app.survey_files import (
    TileAnswer,
    TileGrid,
    box_features,
    check_output,
    describe_features,
    feature_files,
    label_classes,
    raster_files,
    region_features,
    write_together,
)
from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.chips import Frame
from earthgpt_lite.raster.palettes import label_colour
from earthgpt_lite.raster.reading import read_scene
from earthgpt_lite.raster.styles import class_table

FRAME = Frame(160, 100, Affine(10, 0, 334_000, 0, -10, 6_252_000), CRS.from_epsg(32756), 'a.tif')
FACTS = dict(
    prompt='ship', kind='detect', model='m', scene='a.tif', sensor='optical', classes=class_table(['ship'])
)


def write_raster(path, answers, frame, grid, labels):
    facts = dict(prompt=labels, kind='classify', model='m', classes=class_table(labels))
    write_together(raster_files(path, answers, frame, grid, facts))


@settings(max_examples=60)
@given(st.integers(1, 900), st.integers(1, 700), st.integers(1, 200), st.integers(0, 199), st.integers(0, 9))
def test_regions_fill_the_scene_without_a_gap(width, height, size, overlap, seed):
    overlap %= size
    if width / (size - overlap) * height / (size - overlap) > 3000:
        return
    grid, rng = TileGrid(width, height, size, overlap), np.random.default_rng(seed)
    assert len(grid) == len(grid.columns) * len(grid.rows)
    tiles = [grid.tile(c, r) for r in grid.rows for c in grid.columns]
    answers = [TileAnswer(tile, 'abc'[rng.integers(3)], 0.5) for tile in tiles]
    polygons = [p for p, _ in region_features(answers, grid)]
    assert sum(p.area for p in polygons) == pytest.approx(width * height)
    assert shapely.union_all(polygons).bounds == (0, 0, width, height)
    xs, ys = grid.edges()
    assert len(xs) == len(grid.columns) + 1 and len(ys) == len(grid.rows) + 1


def test_scores_decide_what_is_left_out():
    grid = TileGrid(160, 80, 80)
    sure, unsure = TileAnswer(grid.tile(0, 0), 'water', 0.9), TileAnswer(grid.tile(80, 0), 'water', 0.4)
    assert [p.area for p, _ in region_features([sure, unsure], grid, 0.4)] == [160 * 80]
    assert [facts['score'] for _, facts in region_features([sure, unsure], grid, 0.5)] == [0.9]
    boxes = TileAnswer((0, 0, 100, 100), 'x', -1.0, [(1, 1, 9, 9), (20, 20, 30, 30)], ['a', None], [-0.5, -2])
    assert [facts['label'] for _, facts in box_features([boxes], FRAME, -1)] == ['a']
    assert not region_features([boxes], grid)  # boxes are shapes of their own


def test_boxes_end_at_the_scene_and_empty_ones_are_no_shapes():
    boxes = [(-5, -5, 10, 10), (90, 90, 120, 120), (200, 0, 220, 10)]
    answer = TileAnswer((0, 0, 100, 100), 'x', -1.0, boxes, ['a'] * 3, [-1] * 3)
    found = sorted(p.bounds for p, _ in box_features([answer], FRAME))
    assert found == [(0, 0, 10, 10), (90, 90, 120, 100)]


def test_what_fails_leaves_no_file(tmp_path, monkeypatch):
    write_together(feature_files(tmp_path / 'a.json', [], FRAME, FACTS))
    assert json.loads((tmp_path / 'a.json').read_text())['answers'] == []
    grid = TileGrid(160, 100, 80)
    answers = [TileAnswer(grid.tile(c, r), 'water', 1.0) for r in grid.rows for c in grid.columns]
    with pytest.raises(KeyError):
        write_raster(tmp_path / 'c.tif', answers, FRAME, grid, ['forest', 'snow'])
    monkeypatch.setattr(rasterio.io.BufferedDatasetWriter, 'update_tags', lambda *a, **k: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_raster(tmp_path / 'c.tif', answers, FRAME, grid, ['water', 'snow'])
    assert [p.name for p in tmp_path.iterdir()] == ['a.json']


@pytest.mark.parametrize('name', ['a.shp', 'a', 'a.GEOJSON.txt'])
def test_names_of_no_known_form_are_refused(tmp_path, name):
    with pytest.raises(BadInput, match='geojson'):
        check_output(tmp_path / name)


@contextmanager
def full_disk(size):
    "No file may grow beyond this size, as on a disk with so much room."
    resource = pytest.importorskip('resource')
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize('name', ['a.tif', 'a.gpkg'])
def test_a_full_disk_keeps_the_good_file(tmp_path, name):
    "GDAL writes most of a file when it closes it, and loses the error of a full disk there."
    grid = TileGrid(64 * 100, 64 * 100, 64)
    frame = replace(FRAME, width=grid.width, height=grid.height)
    rng, path = np.random.default_rng(0), tmp_path / name
    tiles = [grid.tile(c, r) for r in grid.rows for c in grid.columns]
    answers = [TileAnswer(tile, 'abc'[rng.integers(3)], 1.0) for tile in tiles]
    found = [
        (shapely.box(i, 0, i + 1, 1), dict(label='a', score=1, answer='a', tiles=1)) for i in range(2000)
    ]
    facts = FACTS | dict(classes=label_classes('detect', '', found))
    features = describe_features(found, 'detect', facts['classes'], {}, frame)

    def write():
        if name == 'a.tif':
            write_raster(path, answers, frame, grid, ['a', 'b', 'c'])
        else:
            write_together(feature_files(path, features, frame, facts))

    write()
    good, names = path.read_bytes(), sorted(p.name for p in tmp_path.iterdir())
    for room in (0, 1000, len(good) // 2, len(good) - 2000, len(good) - 1):
        with full_disk(room), pytest.raises(BadInput, match=f'{name} cannot be written: .*; make room') as e:
            write()
        assert '.earthgpt-lite' not in str(e.value)
        assert path.read_bytes() == good and sorted(p.name for p in tmp_path.iterdir()) == names, room


@pytest.mark.parametrize('more', [0, 300])
def test_a_raster_of_classes_has_the_usual_colours_whatever_the_order(tmp_path, more):
    grid = TileGrid(160, 100, 80)
    words = ['forest', 'water', 'water', 'ship']
    tiles = [grid.tile(c, r) for r in grid.rows for c in grid.columns]
    answers = [TileAnswer(tile, word, 1.0) for tile, word in zip(tiles, words)]
    labels = ['ship', 'forest', 'water', *(f'thing {k}' for k in range(more))]
    write_raster(tmp_path / 'c.tif', answers, FRAME, grid, labels)
    rgb = lambda label: tuple(bytes.fromhex(label_colour(label)[1:]))
    with rasterio.open(tmp_path / 'c.tif') as f:
        assert [f.colormap(1)[k][:3] for k in (1, 2, 3)] == [rgb(label) for label in labels[:3]]
    shown = read_scene(tmp_path / 'c.tif').pixels
    assert [tuple(shown[:, r, c]) for r, c in np.ndindex(2, 2)] == [rgb(word) for word in words]
