"Shapes on any map to RFC 7946: against pyproj where it is installed, and by what must hold everywhere."

import json

import numpy as np
import pytest
import shapely
from shapely.affinity import rotate
from hypothesis import given, settings, strategies as st
from rasterio.crs import CRS
from rasterio.warp import transform

from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.georef import feature, feature_collection, ground_area, to_world


def parts(shape):
    return list(getattr(shape, 'geoms', [shape]))


def holds(shape):
    "What RFC 7946 asks for"
    for p in parts(shape):
        west, south, east, north = p.bounds
        assert p.is_valid and p.exterior.is_ccw and not any(hole.is_ccw for hole in p.interiors)
        assert -180 <= west and east <= 180 and -90 <= south and north <= 90 and east - west <= 360


@settings(max_examples=60)
@given(
    st.floats(-180, 180), st.floats(-79, 79), st.floats(10, 50_000), st.floats(10, 50_000), st.floats(0, 90)
)
def test_corners_are_where_rasterio_says(lon, lat, width, height, angle):
    zone = CRS.from_epsg((32601 if lat > 0 else 32701) + int((lon + 180) // 6) % 60)
    (x,), (y,) = transform('EPSG:4326', zone, [lon], [lat])
    box = rotate(shapely.box(x, y, x + width, y + height), angle)
    found = to_world(box, zone)
    holds(found)
    true = np.stack(transform(zone, 'EPSG:4326', *box.exterior.coords.xy), 1)
    ring = np.concatenate([np.asarray(p.exterior.coords) for p in parts(found)])
    # the same place, whatever turn it is given
    apart = np.abs((ring[None] - true[:, None] + [180, 0]) % [360, 1e9] - [180, 0])
    apart[..., 1] = np.abs(ring[None, :, 1] - true[:, None, 1])
    assert (apart.max(-1).min(1) < 1e-6).all()


def test_against_pyproj():
    pyproj = pytest.importorskip('pyproj', reason='pyproj comes with the extra geo')
    for code, x, y in [
        (32618, 282_000, 4_158_000),
        (2056, 2_600_000, 1_200_000),
        (3031, 1e6, -5e5),
        (2193, 1_750_000, 5_920_000),
        (3857, -8e6, -3e6),
        (2263, 1e6, 2e5),
    ]:
        box = shapely.box(x, y, x + 1000, y + 800)
        ring = np.asarray(to_world(box, CRS.from_epsg(code)).exterior.coords)
        true = np.stack(
            pyproj.Transformer.from_crs(code, 4326, always_xy=True).transform(*box.exterior.coords.xy), 1
        )
        assert all(np.abs(ring - corner).max(1).min() < 1e-6 for corner in true), code


def test_the_date_line_cuts():
    fiji = to_world(shapely.box(156_000, 8_120_000, 216_000, 8_160_000), 'EPSG:32701')
    holds(fiji)
    east, west = sorted(parts(fiji), key=lambda p: -p.bounds[0])
    assert east.bounds[2] == 180 and west.bounds[0] == -180 and east.bounds[0] > 179 and west.bounds[2] < -179
    # longitudes beyond 180, as some scenes have them
    assert to_world(shapely.box(170, -5, 190, 5), 'EPSG:4326').area == pytest.approx(200)


MERCATOR = 20_037_508.342789244  # half of the equator


@pytest.mark.parametrize(
    'crs, box, area',
    [
        ('EPSG:4326', (-170, -5, 170, 5), 340 * 10),
        ('EPSG:4326', (-180, -90, 180, 90), 360 * 180),
        ('EPSG:4326', (0, -80, 360, 80), 360 * 160),
        ('EPSG:3857', (-MERCATOR, -MERCATOR, MERCATOR, MERCATOR), 360 * 2 * 85.0511288),
    ],
)
def test_a_shape_wider_than_half_the_world_is_not_turned_inside_out(crs, box, area):
    found = to_world(shapely.box(*box), crs)
    holds(found)
    assert found.area == pytest.approx(area, rel=1e-6)


@pytest.mark.parametrize('code, pole', [(3413, 90), (3031, -90)])
def test_a_pole_inside_and_a_hole_around_it(code, pole):
    cap = shapely.box(-5e5, -5e5, 5e5, 5e5)
    found = to_world(cap, f'EPSG:{code}')
    holds(found)
    assert pole in (found.bounds[1], found.bounds[3]) and found.bounds[0] == -180 and found.bounds[2] == 180
    ring = to_world(cap.difference(shapely.box(-1e5, -1e5, 1e5, 1e5)), f'EPSG:{code}')
    holds(ring)
    assert (
        pole not in (ring.bounds[1], ring.bounds[3])
        and 0.9 * found.area
        < ring.area + to_world(shapely.box(-1e5, -1e5, 1e5, 1e5), f'EPSG:{code}').area
        < 1.01 * found.area
    )


def test_curves_get_points_and_small_boxes_do_not():
    assert len(to_world(shapely.box(282_000, 4e6, 282_400, 4_000_400), 'EPSG:32618').exterior.coords) == 5
    cap = np.asarray(to_world(shapely.box(-5e5, -5e5, 5e5, 5e5), 'EPSG:3413').exterior.coords)
    assert cap[:, 1].max() == 90 and np.abs(cap[:, 1] - 85.39).min() < 0.1  # the middles of the sides


def test_a_hole_stays_a_hole_across_the_date_line():
    outer = shapely.box(156_000, 8_120_000, 216_000, 8_160_000)
    found = to_world(outer.difference(shapely.box(170_000, 8_130_000, 200_000, 8_150_000)), 'EPSG:32701')
    holds(found)
    assert 0.45 < found.area / to_world(outer, 'EPSG:32701').area < 0.8


def test_a_crs_without_a_place_is_refused():
    with pytest.raises(BadInput, match='place on Earth'):
        to_world(shapely.box(0, 0, 1, 1), CRS.from_wkt('LOCAL_CS["drone",UNIT["metre",1]]'))
    with pytest.raises(BadInput):
        to_world(shapely.box(1e12, 1e12, 1e13, 1e13), 'EPSG:32618')


def test_features_are_json_and_rounded():
    row = json.loads(
        json.dumps(
            feature_collection(
                [
                    feature(to_world(shapely.box(1 / 3, 0, 1, 1), 'EPSG:4326'), label='<b>', score=-0.5),
                    feature(None),
                ],
                prompt='where?',
            )
        )
    )
    assert (
        row['prompt'] == 'where?'
        and row['features'][0]['properties'] == dict(label='<b>', score=-0.5)
        and row['features'][1]['geometry'] is None
    )
    assert [0.3333333, 0] in row['features'][0]['geometry']['coordinates'][0]


@pytest.mark.parametrize('size', [1e4, 1e12, 1e300])
def test_what_lies_turns_of_the_globe_away_is_refused_at_once(size):
    with pytest.raises(BadInput, match='outside what EPSG:4326 can express'):
        to_world(shapely.box(0, 0, size, 10), 'EPSG:4326')


@pytest.mark.parametrize(
    'crs, shape, true',
    [
        ('EPSG:4326', shapely.box(-180, -90, 180, 90), 510_065_621_724_089),  # the whole ellipsoid of WGS84
        ('EPSG:3031', shapely.box(-1e5, -1e5, 1e5, 1e5), 4e10 / 0.97276901289**2),  # around the pole
        ('EPSG:32756', shapely.box(500_000, 6_252_000, 501_000, 6_253_000), 1e6 / 0.9996**2),
    ],
)
def test_area_is_that_of_the_ground(crs, shape, true):
    assert ground_area(shape, crs) == pytest.approx(true, rel=1e-3)
