"Maps: everything inside the page, pictures in their place, text of models shown as text."

import json
import re

import numpy as np
import pytest
import shapely
from affine import Affine
from rasterio.crs import CRS
from rasterio.warp import transform

from earthgpt_lite.app.answers import Answer
from earthgpt_lite.app.maps import (
    _features,
    _near,
    map_of,
    overlay,
    page_text,
    static_map,
    swipe_map,
    write_map,
)
from earthgpt_lite.boxes.text import format_detection
from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.palettes import label_colour, label_colours
from earthgpt_lite.raster.chips import Chip, Frame
from earthgpt_lite.raster.reading import Scene
from earthgpt_lite.raster.sources import as_chip


def scene(code=32618, t=Affine(10, 0, 282_000, 0, -10, 4_158_000), w=80, h=60, **more):
    pixels = np.random.default_rng(0).integers(30, 220, (3, h, w), 'uint8')
    return Scene(
        pixels,
        np.ones((h, w), bool),
        bands=('red', 'green', 'blue'),
        crs=CRS.from_epsg(code),
        transform=t,
        path='a.tif',
        **more,
    )


def outside(page):
    return re.findall(r'(?:src|href)\s*=\s*["\'](?:https?:)?//[^"\']+|@import|url\((?:https?:)?//', page)


PLACES = {
    'utm': (32618, Affine(10, 0, 282_000, 0, -10, 4_158_000)),
    'turned': (32756, Affine.translation(334_000, 6_252_000) @ Affine.rotation(33) @ Affine.scale(10, -10)),
    'degrees': (4326, Affine(0.5, 0, -20, 0, -0.5, 75)),
    'antimeridian': (32701, Affine(900, 0, 156_000, 0, -900, 8_160_000)),
    'arctic': (3413, Affine(9000, 0, 3e5, 0, -9000, -3e5)),
}


@pytest.mark.parametrize('name', PLACES)
def test_a_mark_lies_where_it_should(name):
    "A white spot in the picture, found again in the overlay at the longitude and Mercator height of its ground."
    s = scene(*PLACES[name])
    s.pixels[:] = 20
    s.pixels[:, 20:24, 50:54] = 255
    image, ((south, west), (north, east)) = overlay(s, 900)
    rows, columns = np.nonzero((image[..., 0] > 150) & (image[..., 3] > 0))
    up = lambda lat: np.log(np.tan(np.pi / 4 + np.radians(lat) / 2))
    lon = west + (columns.mean() + 0.5) / image.shape[1] * (east - west)
    height = up(north) + (rows.mean() + 0.5) / image.shape[0] * (up(south) - up(north))
    (x,), (y,) = transform(s.crs, 'EPSG:4326', *[[v] for v in s.transform @ (52, 22)])
    pixel = (east - west) / image.shape[1]
    assert abs((lon - x + 180) % 360 - 180) < 3 * pixel and abs(np.degrees(height - up(y))) < 3 * pixel
    assert east - west < 180


def test_padding_and_nodata_are_clear():
    s = scene()
    s.valid[:, :40] = False
    image, _ = overlay(s, 400)
    assert 0.4 < (image[..., 3] == 0).mean() < 0.6
    image, _ = overlay(as_chip(scene()), 400)  # of a chip: only its padding
    assert (image[..., 3] == 0).mean() < 0.08


def test_the_whole_world_and_its_edge():
    world = scene(4326, Affine(1, 0, -180, 0, -1, 90), 360, 180)
    image, bounds = overlay(world, 300)
    assert bounds == ((-85.05, -180), (85.05, 180)) and (image[..., 3] > 0).mean() > 0.99
    with pytest.raises(BadInput, match='85 degrees'):
        overlay(scene(4326, Affine(0.01, 0, 0, 0, -0.01, 89.9), 20, 20))


def test_without_a_crs_there_is_no_map_and_the_reason_is_given():
    for call in (overlay, map_of, static_map):
        with pytest.raises(BadInput, match='no CRS'):
            call(as_chip(np.full((9, 9, 3), 9, 'uint8')))


def test_nothing_comes_from_elsewhere():
    answers = [Answer('[0.10,0.10,0.40,0.40]', -0.3, 'where?', scene().chip(), default_label='ship')]
    for m in (
        map_of(scene(), answers, draw=True),
        map_of(answers=answers),
        swipe_map(scene(), scene(), answers),
    ):
        page = m.get_root().render()
        assert not outside(page) and 'L.map(' in page and page.count('data:text/javascript') >= 1
    assert outside(map_of(scene(), online=True).get_root().render())  # only when asked
    import folium

    assert any('http' in url for _, url in folium.Map.default_js)  # and folium itself is as it was


def test_text_is_text():
    nasty = '<script>alert(1)</script><img src=x onerror=alert(2)> {{ 7*7 }} ${8*8} `'
    s = scene()
    s.path = 'a<b onmouseover=alert(3)>.tif'
    answer = Answer(nasty + '[0.10,0.10,0.40,0.40]', -0.3, nasty, s.chip(), default_label=nasty, model=nasty)
    page = map_of(s, [answer]).get_root().render()
    for bad in (
        '<script>alert',
        '<img src=x',
        '<b onmouseover',
        '\\u003cscript\\u003ealert',
        '\\u003cimg src',
        '\\u003cb on',
    ):
        assert bad not in page
    # folium reads some of what it fills in as a template
    assert '{{ 7*7 }}' not in page and '&#123;&#123; 7*7 }} $&#123;8*8}' in page and ' 49 ' not in page
    assert page_text('<') == '&lt;' and len(page_text('<' * 900)) < 1300


def test_a_template_in_an_answer_runs_no_code(tmp_path):
    code = (
        "{{ cycler.__init__.__globals__.os.system('touch %s') }}{%% for i in 'abc' %%}loop{%% endfor %%}{# gone #}"
        % (tmp_path / 'made')
    )
    s = scene()
    s.path = code
    answer = Answer(code + '[0.10,0.10,0.40,0.40]', -0.3, code, s.chip(), default_label=code, model=code)
    for page in (
        map_of(s, answer).get_root().render(),
        swipe_map(s, s, answer).get_root().render(),
        write_map(tmp_path / 'a.html', s, answer).read_text(),
    ):
        assert 'looploop' not in page and 'gone' in page
    assert [p.name for p in tmp_path.iterdir()] == ['a.html']


def test_five_hundred_boxes_and_none():
    corners = np.random.default_rng(0).uniform(0, 0.9, (500, 2))
    answer = Answer(
        format_detection([('ship', [*p, *(p + 0.05)]) for p in corners], decimals=3),
        -0.5,
        'find all ships.',
        scene().chip(),
    )
    page = map_of(scene(), answer, base=False).get_root().render()
    assert page.count('"Feature"') >= 500 and len(page) < 3_000_000
    map_of(scene(), []), map_of(scene(), dict(type='FeatureCollection', features=[]))


def test_cut_shapes_come_together_beside_the_scene():
    s = scene(*PLACES['antimeridian'])
    answer = Answer('[0.00,0.20,1.00,0.80]', -0.1, 'where?', s.chip())
    (f,) = answer.to_geojson()['features']
    near = _near(shapely.geometry.shape(f['geometry']), 180.0)
    assert (
        f['geometry']['type'] == 'MultiPolygon'
        and near.bounds[2] - near.bounds[0] < 2
        and near.bounds[0] < 180 < near.bounds[2]
    )
    static_map(s, answer)


def test_answers_that_are_none(tmp_path):
    (tmp_path / 'a.geojson').write_text('not json')
    for bad, words in [
        (tmp_path / 'a.geojson', 'a.geojson'),
        (tmp_path / 'none.geojson', 'none.geojson: .*[Nn]o such file'),
        (7, 'no answer'),
        ({}, 'no answer'),
    ]:
        with pytest.raises(BadInput, match=words):
            map_of(scene(), bad)


def test_any_geometry_is_drawn_and_properties_may_be_missing():
    shapes = [
        dict(type='Point', coordinates=[-77.4, 37.5, 9.0]),
        dict(type='LineString', coordinates=[[-77.4, 37.5], [-77.3, 37.5]]),
        dict(type='Polygon', coordinates=[[[-77.4, 37.5], [-77.3, 37.5], [-77.3, 37.6], [-77.4, 37.5]]]),
        dict(type='MultiPoint', coordinates=[[-77.4, 37.5], [-77.3, 37.5]]),
        None,
        dict(type='Polygon', coordinates=[]),
    ]
    shapes.append(
        dict(
            type='GeometryCollection',
            geometries=[shapes[0], dict(type='GeometryCollection', geometries=[shapes[2]])],
        )
    )
    found = dict(
        type='FeatureCollection',
        features=[dict(type='Feature', properties=None, geometry=g) for g in shapes]
        + [dict(type='Feature', geometry=shapes[0]), dict(properties=dict(label='ship'), geometry=shapes[0])],
    )
    page = map_of(scene(), found).get_root().render()
    assert page.count('"Feature"') == 8 and 'L.CircleMarker(' in page and 'ship' in page
    assert len(static_map(scene(), found).lines) == 9 and not outside(page)
    map_of(answers=found)  # without a scene, too


def test_what_is_no_longitude_or_no_geometry_is_named():
    row = lambda **g: dict(
        type='FeatureCollection', features=[dict(type='Feature', properties={}, geometry=g)]
    )
    with pytest.raises(BadInput, match='feature 0.*EPSG:4326'):
        map_of(scene(), row(type='Point', coordinates=[282_000, 4_158_000]))
    for g in (
        dict(type='Star', coordinates=[1, 2]),
        dict(type='Polygon', coordinates=[[1, 2]]),
        dict(type='Point'),
        dict(type='Polygon', coordinates=[[[0, 0], [1], [0, 1], [0, 0]]]),
        dict(type='Polygon', coordinates=[[[0, 0], [1, 0, 3], [0, 1], [0, 0]]]),
    ):
        with pytest.raises(
            BadInput, match='feature 0.*cannot be read; give a type of GeoJSON with pairs'
        ) as e:
            map_of(scene(), row(**g))
        assert 'shape' not in str(e.value)
    with pytest.raises(BadInput, match=r'1e\+308.*EPSG:4326') as e:
        map_of(scene(), row(type='Polygon', coordinates=[[[1e308, 0], [1e308, 1e308], [0, 1], [1e308, 0]]]))
    assert len(str(e.value)) < 200


def test_a_scene_without_a_place_on_earth_is_named():
    plan = CRS.from_wkt('LOCAL_CS["x",UNIT["metre",1]]')
    frame = Frame(8, 8, Affine.identity(), plan, 'plan.tif')
    with pytest.raises(BadInput, match='plan.tif: the CRS of this scene cannot be brought'):
        map_of(Chip(np.full((8, 8, 3), 9, 'uint8'), frame))


def test_a_page_is_written_whole(tmp_path):
    answer = Answer('[0.10,0.10,0.40,0.40]', -0.3, 'where?', scene().chip())
    (tmp_path / 'a.geojson').write_text(json.dumps(answer.to_geojson()))
    one, two = (
        write_map(tmp_path / 'one.html', scene(), tmp_path / 'a.geojson'),
        write_map(tmp_path / 'two.html', [scene(), scene()]),
    )
    assert (
        not outside(one.read_text())
        and not outside(two.read_text())
        and sorted(p.name for p in tmp_path.iterdir()) == ['a.geojson', 'one.html', 'two.html']
    )
    with pytest.raises(BadInput, match='no CRS'):
        write_map(tmp_path / 'no.html', np.full((9, 9, 3), 9, 'uint8'))
    assert not (tmp_path / 'no.html').exists()


@pytest.mark.parametrize('order', [('water', 'forest', 'ship'), ('ship', 'forest', 'water')])
def test_labels_have_their_usual_colours_in_whatever_order_they_come(order):
    square = [[[-77.4, 37.5], [-77.3, 37.5], [-77.3, 37.6], [-77.4, 37.5]]]
    rows = [dict(properties=dict(label=k), geometry=dict(type='Polygon', coordinates=square)) for k in order]
    found = dict(type='FeatureCollection', features=rows)
    page = map_of(answers=found).get_root().render()
    legend = dict(re.findall(r'background:(#\w{6})"></i>(\w+)<', page))
    assert {label: colour for colour, label in legend.items()} == {k: label_colour(k) for k in order}
    assert all(f'"colour": "{label_colour(k)}"' in page for k in order)
    drawn = [line.get_color() for line in static_map(answers=found).lines]
    assert drawn == [label_colour(k) for k in order]


def test_what_a_survey_says_once_is_said_of_each_shape_and_its_classes_keep_their_colours():
    square = dict(type='Polygon', coordinates=[[[-77.4, 37.5], [-77.3, 37.5], [-77.3, 37.6], [-77.4, 37.5]]])
    row = dict(properties=dict(label='river', probability=0.75, area_m2=1234.5), geometry=square)
    classes = [dict(label=label) for label in ('river', 'lake', 'water')]
    found = dict(
        type='FeatureCollection', prompt=['river', 'lake'], model='m', classes=classes, features=[row]
    )
    page = map_of(answers=found).get_root().render()
    expected = label_colours(['river', 'lake', 'water'])['river']
    assert f'"colour": "{expected}"' in page and expected != label_colour('river')
    for text in (
        '"probability": "0.75"',
        '"area_m2": "1234.50"',
        '"prompt": "[^"]*river.*lake',
        '"model": "m"',
    ):
        assert re.search(text, page), text
    for classes in (None, 5, [None, 7], [{}], [dict(label=[])]):
        assert len(_features(found | dict(classes=classes))) == 1


@pytest.mark.parametrize('features', [None, 5, {}, 'x'])
def test_features_that_are_no_list(features):
    with pytest.raises(BadInput):
        _features(dict(type='FeatureCollection', features=features))


# ---- two dates


def test_a_slider_lies_over_both_dates_and_tells_them_apart():
    before, after = scene(datetime='2017-01-24T10:00:00'), scene()
    after.path = 'b<i>.tif'
    page = swipe_map(before, after).get_root().render()
    (layers, names) = re.search(r'L\.swipe\(\w+, \[(.*?)\], (\[.*?\])\);', page).groups()
    assert len(set(layers.split(', '))) == 2 and all(
        f'var {name} = L.imageOverlay' in page for name in layers.split(', ')
    )
    assert '2017-01-24' in names and 'before: ' in names and '<i>' not in names
    assert not outside(page) and page.index('L.imageOverlay') < page.index('L.swipe(')


def test_two_places_under_a_slider_are_refused(tmp_path):
    away = scene(t=Affine(10, 0, 292_000, 0, -10, 4_158_000))
    with pytest.raises(BadInput, match='share no ground'):
        swipe_map(scene(), away)
    with pytest.raises(BadInput, match='share no ground'):
        write_map(tmp_path / 'a.html', [scene(), away])
    assert not list(tmp_path.iterdir())
    west, east = (scene(4326, Affine(0.1, 0, lon, 0, -0.1, 5)) for lon in (178, -182))
    swipe_map(west, east)  # the same ground, told from either side of the date line
