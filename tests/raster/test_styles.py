"Styles: QGIS and GDAL find the colours of the palette, whatever the labels are; nobody's own style is touched."

import json
import os
import sqlite3
import warnings
from contextlib import closing
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.shutil import copy

from earthgpt_lite.data.sample.world_map import COVERS
from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.palettes import label_colour, label_colours
from earthgpt_lite.raster.reading import read_scene
from earthgpt_lite.raster.styles import (
    add_layer_style,
    category_names,
    check_style,
    class_table,
    names_path,
    style_path,
    style_qml,
    text_items,
    write_classes,
    xml_text,
)

ODD = [
    'water',
    'a "lake" & <b>',
    "it's",
    'ding \x07',
    '\ud800',
    'zwei\nZeilen',
    '海',
    'a, b',
    '{{ 7 }}',
    'x' * 500,
]
PLACE = dict(crs='EPSG:32756', transform=Affine(640, 0, 334_000, 0, -640, 6_252_000))


def symbol_colours(root):
    "The colour of each value of a categorised renderer: {value: ('#rrggbb' of the fill, of the outline)}"
    renderer = root.find('renderer-v2')
    assert renderer.get('type') == 'categorizedSymbol' and renderer.get('attr') == 'label'
    props = {}
    for symbol in renderer.iter('symbol'):
        found = {p.get('k'): p.get('v').split(',') for p in symbol.iter('prop')}
        rgb = lambda key: '#' + bytes(map(int, found[key][:3])).hex()
        props[symbol.get('name')] = rgb('color'), rgb('outline_color')
    return {c.get('value'): props[c.get('symbol')] for c in renderer.iter('category')}


@pytest.mark.parametrize(
    'labels', [list(COVERS), ['river', 'lake', 'water'], ODD, [f'thing {k}' for k in range(300)]]
)
def test_a_style_has_the_colours_of_the_palette(labels):
    classes, colours = class_table(labels), label_colours(labels)
    assert [row['class_id'] for row in classes] == [*range(1, len(labels) + 1)]
    root = ElementTree.fromstring(style_qml(classes, raster=True))
    expected = {xml_text(label): colours[label] for label in labels}
    assert symbol_colours(root) == {label: (colour, colour) for label, colour in expected.items()}
    entries = [
        (int(e.get('value')), e.get('label'), e.get('color')) for e in root.find('pipe').iter('paletteEntry')
    ]
    assert entries == [(k, label, colour) for k, (label, colour) in enumerate(expected.items(), 1)]
    assert ElementTree.fromstring(style_qml(classes)).find('pipe') is None


def test_a_shape_without_a_label_has_a_colour_too():
    classes = class_table(['ship', None, ''])
    assert [(row['class_id'], row['label']) for row in classes] == [(0, None), (1, 'ship')]
    found = symbol_colours(ElementTree.fromstring(style_qml(classes)))
    assert found[''] == (label_colour('answer'),) * 2 and set(found) == {'', 'ship'}
    assert class_table([]) == [] and symbol_colours(ElementTree.fromstring(style_qml([]))) == {}


@pytest.mark.parametrize('more', [0, 300])
def test_a_raster_says_its_colours_names_and_probabilities(tmp_path, more):
    labels = [*ODD, *(f'thing {k}' for k in range(more))]
    classes, rng = class_table(labels), np.random.default_rng(0)
    values = rng.integers(0, len(labels) + 1, (1100, 600)).astype('uint16' if more else 'uint8')
    sure = rng.random(values.shape)
    sure[0, :100] = 0
    path = tmp_path / 'c.tif'
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        write_classes(
            path, values, sure, classes, text_items(dict(prompt=labels, size=3, none=None)), **PLACE
        )
    names_path(path).write_text(category_names(classes), encoding='utf-8')
    for level in (None, 0):
        with rasterio.open(path, **({} if level is None else dict(overview_level=level))) as f:
            rgb = {k: '#' + bytes(colour[:3]).hex() for k, colour in f.colormap(1).items()}
            assert {row['class_id']: row['colour'] for row in classes}.items() <= rgb.items()
            assert f.colorinterp == (ColorInterp.palette, ColorInterp.undefined) and f.nodatavals == (0, 0)
    with rasterio.open(path) as f:
        assert (
            f.tags(ns='IMAGE_STRUCTURE')['LAYOUT'] == 'COG'
            and f.overviews(1) == f.overviews(2) == [2, 4][: len(f.overviews(1))]
        )
        found, real = f.read(1), f.read(2) * f.scales[1] + f.offsets[1]
        assert (
            (found == values).all()
            and f.scales == (1, 1 / 255)
            and f.descriptions == ('class', 'probability')
        )
        assert (
            np.abs(real - sure)[values > 0].max() <= 1 / 255
            and (real[values == 0] == 0).all()
            and (real[values > 0] > 0).all()
        )
        assert f.tags(1)['CLASS_2'] == ODD[1] and f.tags()['size'] == '3' and 'none' not in f.tags()
        assert json.loads(f.tags()['prompt'])[0] == 'water'
        copy(f, tmp_path / 'c.vrt', driver='VRT')
    (band,) = [b for b in ElementTree.parse(tmp_path / 'c.vrt').iter('VRTRasterBand') if b.get('band') == '1']
    assert [c.text for c in band.iter('Category')] == ['no data', *map(xml_text, labels)]


@pytest.mark.parametrize(
    'tags', [{}, dict(sensor='sar', platform='sentinel-1', unit='dB'), dict(sensor='infrared', unit='K')]
)
def test_a_raster_of_classes_is_seen_in_its_colours(tmp_path, tags):
    "Though it says from which sensor its classes come, and has a second band"
    values = np.array([[1, 2], [2, 0]], 'uint8')
    write_classes(
        tmp_path / 'c.tif', values, np.full((2, 2), 0.5), class_table(['water', 'ship']), tags, **PLACE
    )
    scene = read_scene(tmp_path / 'c.tif')
    assert bytes(scene.pixels[:, 0, 0]).hex() == label_colour('water')[1:]
    assert scene.valid.tolist() == [[True, True], [True, False]]
    assert (scene.chip().image[0, 0] == scene.pixels[:, 0, 0]).all()


def test_only_our_styles_are_written_over(tmp_path):
    style = style_path(tmp_path / 'a.geojson')
    check_style(style)
    style.write_text(style_qml(class_table(['water'])))
    check_style(style)
    for own in ('<qgis/>', '', 'x' * 1000 + style_qml([])):
        style.write_text(own)
        with pytest.raises(BadInput, match='a.qml is there, and it is no style of ours'):
            check_style(style)
    style.unlink()
    style.mkdir()
    with pytest.raises(BadInput, match='no style of ours'):
        check_style(style)


@pytest.mark.unix
def test_a_pipe_is_no_style(tmp_path):
    os.mkfifo(tmp_path / 'a.qml')
    with pytest.raises(BadInput, match='no style of ours'):
        check_style(tmp_path / 'a.qml')


def test_a_geopackage_keeps_its_style(tmp_path):
    geopandas = pytest.importorskip('geopandas', reason='geopandas comes with the extra geo')
    import pyogrio
    import shapely

    path, qml = tmp_path / 'a.gpkg', style_qml(class_table(ODD))
    shapes = geopandas.GeoDataFrame(
        dict(label=['water']), geometry=[shapely.box(0, 0, 1, 1)], crs='EPSG:32756'
    )
    shapes.to_file(path, layer='answers', engine='pyogrio')
    add_layer_style(path, 'answers', qml)
    styles = pyogrio.read_dataframe(path, layer='layer_styles')
    assert styles.f_table_name.tolist() == ['answers'] and styles.f_geometry_column.tolist() == ['geom']
    assert styles.useAsDefault.tolist() == [True] and styles.styleQML.tolist() == [qml]
    with pytest.warns(UserWarning, match="'answers' \\(default\\)"):
        assert geopandas.read_file(path).label.tolist() == ['water']
    with closing(sqlite3.connect(path)) as base:
        assert base.execute('PRAGMA integrity_check').fetchall() == [('ok',)]
