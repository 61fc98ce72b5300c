"Oriented boxes: one angle, GeoChat, the way to the map."

import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings, strategies as st

from earthgpt_lite.boxes.iou import obb_iou, to_corners, to_polygons
from earthgpt_lite.boxes.oriented import (
    GeoChatFormat,
    from_map,
    mask_box,
    min_area_rect,
    square_geochat,
    square_whole_boxes,
    to_map,
    whole_boxes,
)
from earthgpt_lite.boxes.text import BoxFormat, parse_boxes, to_pixels, to_unit
from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.chips import Frame


def tilted(rng, n, width, height, smallest=6.0):
    "Boxes with all corners in the picture."
    size = np.sort(rng.uniform(smallest, min(width, height) / 2, (n, 2)), 1)[:, ::-1]
    reach = np.hypot(*size.T)[:, None] / 2
    centre = rng.uniform(reach, np.array([width, height]) - reach)
    return np.concatenate([centre, size, rng.uniform(-90, 90, (n, 1))], 1)


def distance(a, b):
    "Largest distance of the corners, whichever is counted first."
    a, b = to_corners(a).reshape(-1, 1, 4, 2), to_corners(b).reshape(-1, 4, 2)
    orders = np.stack([np.roll(b[:, ::d], k, 1) for d in (1, -1) for k in range(4)], 1)
    return abs(a - orders).max((-1, -2)).min(1)


# one convention


@settings(max_examples=300)
@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(1, 500), st.floats(1, 500), st.floats(-720, 720))
def test_any_angle_becomes_the_one(cx, cy, w, h, angle):
    once = min_area_rect([cx, cy, w, h, angle])
    assert -90 <= once[4] < 90 and once[2] >= once[3]
    assert distance(once[None], np.array([[cx, cy, w, h, angle]]))[0] < 1e-6 * (1e3 + w + h)
    assert distance(min_area_rect(to_corners(once))[None], once[None])[0] < 1e-6 * (1e3 + w + h)


def test_round_trip_of_the_numbers_themselves():
    boxes = tilted(np.random.default_rng(1), 10_000, 900, 700)
    boxes = boxes[(boxes[:, 2] > boxes[:, 3] * 1.001) & (abs(abs(boxes[:, 4]) - 90) > 1e-3)]
    assert len(boxes) > 9_000 and np.allclose(min_area_rect(to_corners(boxes)), boxes, atol=1e-6)
    # DOTA: any corner may be the first
    assert np.allclose(min_area_rect(np.roll(to_corners(boxes), 2, -1)), boxes, atol=1e-6)


def test_radians_as_in_hit_uav():
    assert np.allclose(min_area_rect([320, 256, 20, 48, np.rad2deg(2.871098)])[2:4], [48, 20])
    assert np.allclose(min_area_rect([10, 10, 8, 2, np.rad2deg(np.pi / 6)]), [10, 10, 8, 2, 30])


@settings(max_examples=200)
@given(st.lists(st.integers(0, 60), min_size=8, max_size=8))
def test_the_rectangle_of_clicked_corners_is_the_smallest(numbers):
    corners = np.array(numbers, float)
    ours, shapelys = (
        min_area_rect(corners),
        shapely.MultiPoint(corners.reshape(4, 2)).minimum_rotated_rectangle,
    )
    assert to_polygons(ours).buffer(1e-6).covers(shapely.MultiPoint(corners.reshape(4, 2)))
    assert ours[2] * ours[3] <= shapelys.area + 1e-6


def test_the_square_keeps_the_angle():
    boxes = tilted(np.random.default_rng(3), 100, 640, 512)
    assert np.allclose(to_corners(to_unit(boxes, 640, 512)), to_unit(to_corners(boxes), 640, 512))
    assert np.allclose(to_pixels(to_unit(boxes, 640, 512), 640, 512), boxes)


# text
def test_ten_thousand_corners_come_back_within_one_step():
    rng = np.random.default_rng(7)
    for box_format in (BoxFormat(), BoxFormat(decimals=3), BoxFormat(1000, 0, square=False)):
        for w, h in rng.integers(100, 3000, (34, 2)):
            five = tilted(rng, 300, w, h, smallest=0.02 * max(w, h))
            boxes, found = to_corners(five), box_format.read(box_format.write(five, w, h), w, h)
            step = np.array([max(w, h)] * 2 if box_format.square else [w, h]) / box_format.steps
            assert (
                not found.unread
                and (abs(np.array([b.box for b in found.boxes]) - boxes) <= np.tile(step, 4)).all()
            )


def test_needles_are_thickened():
    rng = np.random.default_rng(8)
    for _ in range(300):
        x, y, angle = *rng.uniform(0.2, 0.8, 2), rng.uniform(-90, 90)
        needle = to_corners([x, y, rng.uniform(0, 0.3), 1e-4, angle])
        found = parse_boxes(BoxFormat().write([needle], 1, 1))
        assert not found.unread and distance(found.boxes[0].box[None], needle[None])[0] < 0.025


@pytest.mark.parametrize('clockwise', (False, True))
def test_ten_thousand_boxes_through_geochat(clockwise):
    box_format, rng = GeoChatFormat(clockwise=clockwise), np.random.default_rng(9)
    for w, h in rng.integers(100, 3000, (100, 2)):
        boxes = tilted(rng, 100, w, h)
        found = box_format.read(box_format.write(boxes, w, h), w, h)
        back = np.array([min_area_rect(b.box) for b in found.boxes])
        step = np.array([w, h]) / 100
        assert not found.unread and len(back) == 100
        assert (abs(back[:, :2] - boxes[:, :2]) <= step).all()
        # nearly square: the long side may change
        swapped = abs((back[:, 4] - boxes[:, 4] + 90) % 180 - 90) > 45
        sizes = np.where(swapped[:, None], back[:, 3:1:-1], back[:, 2:4])
        # both edges of a needle are pushed apart
        allowed = np.where(boxes[:, 2:4] < 1.5 * step.max(), 2, 1) * step.max()
        assert (abs(sizes - boxes[:, 2:4]) <= allowed * (1 + 1e-9)).all()
        turned = np.where(swapped, back[:, 4] + 90, back[:, 4])
        assert (abs((turned - boxes[:, 4] + 90) % 180 - 90) <= 1).all()


def test_ten_thousand_upright_boxes_through_geochat():
    rng = np.random.default_rng(10)
    for w, h in rng.integers(100, 3000, (100, 2)):
        boxes = np.sort(rng.uniform(0, [w, h], (100, 2, 2)), 1).reshape(-1, 4)
        found = GeoChatFormat().read(GeoChatFormat().write(boxes, w, h), w, h)
        back = np.array([b.box for b in found.boxes])
        assert back.shape == (100, 4) and (abs(back - boxes) <= np.tile([w, h], 2) / 100 * (1 + 1e-9)).all()
        assert (back[:, 2:] > back[:, :2]).all()


def test_geochat_turns_as_its_demo_draws():
    "OpenCV's getRotationMatrix2D: positive is counter-clockwise, origin top left; [[a, b], [-b, a]] about the centre."
    x1, y1, x2, y2, theta = 30, 40, 70, 60, 30
    a, b, centre = np.cos(np.pi / 6), np.sin(np.pi / 6), np.array([50.0, 50.0])
    drawn = (np.array([[x1, y1], [x2, y1], [x2, y2], [x1, y2]]) - centre) @ np.array(
        [[a, b], [-b, a]]
    ).T + centre
    (got,) = GeoChatFormat().read('{<30><40><70><60>|<30>}', 100, 100).boxes
    assert np.isclose(obb_iou(got.box, drawn.ravel()), 1) and got.box[4] == pytest.approx(-30)
    (other,) = GeoChatFormat(clockwise=True).read('{<30><40><70><60>|<30>}', 100, 100).boxes
    assert other.box[4] == pytest.approx(30) and obb_iou(got.box, other.box) < 0.6


def test_geochat_reads_what_it_writes_and_says_the_rest():
    box_format = GeoChatFormat()
    assert box_format.write([[0, 0, 320, 256], [100, 100, 80, 20, -20]], 640, 512).startswith(
        '{<0><0><50><50>|<0>}{<'
    )
    text = 'There are <p> 2 ships </p> {<10><10><20><20>|<30>}<delim>{<40><40><60><60>} and <p>harbor</p>{<1><2><3>} {<60><10><40><30>|<5>} {<1><1><9'
    found = box_format.read(text, 640, 512)
    assert [b.label for b in found.boxes] == ['ship', 'ship'] and [len(b.box) for b in found.boxes] == [5, 4]
    assert [why.split(': ')[1] for why in found.unread] == [
        'not of the form <x1><y1><x2><y2>|<theta>',
        'right lies left of left, or bottom above top',
        'cut off before its end',
    ]
    assert (
        'beyond' in box_format.read('{<50><50><120><60>}', 640, 512).unread[0]
        and 'no area' in box_format.read('{<5><5><5><9>}', 640, 512).unread[0]
    )
    assert np.allclose(
        box_format.read('{<50><50><120><60>}', 100, 100, repair=True).boxes[0].box, [50, 50, 100, 60]
    )
    assert 'beyond' in box_format.read('{<500><500><700><700>|<30>}', 640, 512).unread[0]
    for bad in ([np.nan, 0, 1, 1], [900, 900, 20, 10, 5], [np.nan, 9, 20, 10, 5], [10, 10, 0, 0, 5]):
        with pytest.raises(BadInput):
            box_format.write([bad], 640, 512)


@settings(max_examples=300)
@given(st.one_of(st.text(), st.text('{}<>|0123456789-; p/', max_size=150)))
def test_no_text_breaks_geochats_parser(text):
    for repair in (True, False):
        assert all(np.isfinite(b.box).all() for b in GeoChatFormat().read(text, 640, 512, repair).boxes)


# the map
NORTH = Affine(10, 0, 300000, 0, -10, 5000000)
TURNED = Affine.translation(300000, 5000000) @ Affine.rotation(20) @ Affine.scale(10, -10)


@pytest.mark.parametrize('transform', (NORTH, TURNED, Affine(7, 2, 3, -1, -9, 4)))
def test_boxes_go_to_the_map_and_back(transform):
    rng = np.random.default_rng(11)
    boxes = np.sort(rng.uniform(0, 500, (50, 2, 2)), 1).reshape(-1, 4)
    shapes = to_map(boxes, transform)
    assert shapes.shape == (50,) and np.allclose(from_map(shapes, transform), boxes)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) * abs(transform.determinant)
    # a bounding box of two corners would be too large
    assert np.allclose(shapely.area(shapes), areas)
    a, b, c, d, e, f = tuple(transform)[:6]
    for shape, (x1, y1, x2, y2) in zip(shapes, boxes):
        expected = {
            (round(a * x + b * y + c, 6), round(d * x + e * y + f, 6)) for x in (x1, x2) for y in (y1, y2)
        }
        assert {(round(x, 6), round(y, 6)) for x, y in shape.exterior.coords} == expected


def test_tilted_boxes_and_frames_go_to_the_map():
    assert np.isclose(to_map([50, 50, 40, 10, 30], TURNED).area, 400 * 100)
    assert to_map([1, 2, 3, 4], Frame(10, 10, NORTH, 'EPSG:32633')).bounds == (
        300010,
        4999960,
        300030,
        4999980,
    )


def test_pictures_without_map_coordinates_say_so():
    for where in (Frame(640, 512), None):
        with pytest.raises(BadInput, match='map coordinates'):
            to_map([1, 2, 3, 4], where)
    with pytest.raises(BadInput, match='no inverse'):
        from_map(to_map([1, 2, 3, 4], NORTH), Affine(1, 1, 0, 1, 1, 0))


def test_box_of_a_mask_as_pycocotools_writes_it():
    from pycocotools import mask as coco

    pixels = np.zeros((30, 50), 'uint8', order='F')
    pixels[4:9, 11:40] = 1
    pixels[20, 3] = 1
    code = coco.encode(pixels)
    text = {'size': code['size'], 'counts': code['counts'].decode()}
    assert mask_box(text) == [3, 4, 40, 21]


def test_boxes_inside_other_texts():
    text = 'a [100, 200, 500, 1000], b [[0, 0, 1000, 500],[10,20,30,40]], c [0.1,0.2,0.3,0.4], d [1, 2, 3]'
    assert len(whole_boxes(text)) == 3
    squared = square_whole_boxes(text, 200, 100, thousandths=True)
    assert squared == (
        'a [0.100,0.350,0.500,0.750], b [0.000,0.250,1.000,0.500;0.010,0.260,0.030,0.270], '
        'c [0.1,0.2,0.3,0.4], d [1, 2, 3]'
    )
    assert square_whole_boxes('[20, 10, 40, 30]', 200, 100, thousandths=False) == '[0.100,0.300,0.200,0.400]'
    assert square_geochat('x {<0><0><50><100>} y {z}', 200, 100) == 'x [0.00,0.25,0.50,0.75] y {z}'
    tilted = square_geochat('{<30><40><70><60>|<30>}', 640, 512, oriented=True)
    assert tilted.count(',') == 7
    with pytest.raises(BadInput, match='cannot be read'):
        square_geochat('{<1><2>}', 200, 100)
