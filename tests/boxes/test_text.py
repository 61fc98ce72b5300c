"Boxes as text: the frame, the text and the way back, bad input."

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from earthgpt_lite.boxes.text import (
    BoxFormat,
    LabelledBox,
    box_problem,
    check_boxes,
    clip_box,
    format_box,
    format_detection,
    padding,
    parse_boxes,
    parse_count,
    plural,
    singular,
    to_pixels,
    to_unit,
)
from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.chips import Frame

DIALECTS = {
    'two': BoxFormat(),
    'three': BoxFormat(decimals=3),
    'four': BoxFormat(decimals=4),
    'thousand': BoxFormat(1000, 0, square=False),
    'thousand of the square': BoxFormat(1000, 0),
}
CLASSES = """airplane airport baseball_field basketball_court bridge chimney dam expressway_service_area expressway_toll_station
golf_field ground_track_field harbor overpass ship stadium storage_tank tennis_court train_station vehicle windmill plane
small-vehicle large-vehicle helicopter roundabout soccer-ball-field swimming-pool container-crane helipad person car bicycle
other_vehicle bus truck van tricycle motor pedestrian tree crosswalk island lake water beach ferry warship greenhouse house
aircraft aircraft_carrier Boeing737 A220 Dry_Cargo_Ship intersection railway_station parking_lot box city church""".replace(
    '_', ' \b'
).split()
CLASSES = ' '.join(CLASSES).replace(' \b', '_').split()
CLASSES = [c.replace('_', ' ') for c in CLASSES]
sides = st.integers(1, 5000)
unit = st.floats(0, 1)


def random_boxes(rng, n, width, height):
    return np.sort(rng.uniform(0, [width, height], (n, 2, 2)), 1).reshape(n, 4)


# the frame
@given(sides, sides)
def test_padding_is_the_readmes_rule(w, h):
    # EarthGPT's README, literally
    expected = (int((h - w) / 2), 0, h) if h > w else (0, int((w - h) / 2), w)
    assert padding(w, h) == expected == (Frame(w, h).pad_x, Frame(w, h).pad_y, Frame(w, h).side)


@given(sides, sides, st.lists(unit, min_size=4, max_size=4))
def test_unit_is_the_readmes_formula(w, h, r):
    x0, y0, bw, bh = r[0] * w, r[1] * h, r[2] * w, r[3] * h
    pad_x, pad_y, side = padding(w, h)
    readme = [(x0 + pad_x) / side, (y0 + pad_y) / side, (x0 + pad_x + bw) / side, (y0 + pad_y + bh) / side]
    assert np.allclose(to_unit([x0, y0, x0 + bw, y0 + bh], w, h), readme)


@pytest.mark.parametrize('n', (4, 5, 8))
def test_there_and_back_in_every_form(n):
    rng = np.random.default_rng(n)
    for w, h in rng.integers(1, 4000, (100, 2)):
        boxes = rng.uniform(-50, 4000, (2, 3, n))
        assert np.allclose(to_pixels(to_unit(boxes, w, h), w, h), boxes)
        if n == 5:
            assert (to_unit(boxes, w, h)[..., 4] == boxes[..., 4]).all()


def test_a_box_of_three_numbers_is_refused():
    with pytest.raises(BadInput, match='4 numbers'):
        to_unit([1, 2, 3], 10, 10)


# text and back
@pytest.mark.parametrize('name', DIALECTS)
def test_ten_thousand_boxes_come_back_within_one_step(name):
    box_format, rng = DIALECTS[name], np.random.default_rng(0)
    for w, h in rng.integers(20, 5000, (100, 2)):
        boxes = random_boxes(rng, 100, w, h)
        found = box_format.read(box_format.write(boxes, w, h), w, h)
        back = np.array([b.box for b in found.boxes])
        step = np.array([max(w, h)] * 2 if box_format.square else [w, h]) / box_format.steps
        assert not found.unread and back.shape == boxes.shape
        assert (abs(back - boxes) <= np.tile(step, 2) * (1 + 1e-9)).all()
        assert (back[:, 2:] > back[:, :2]).all()


@given(st.lists(unit, min_size=4, max_size=4), st.integers(1, 5))
def test_a_written_box_has_an_inside_and_lies_in_the_square(r, decimals):
    box = [min(r[0], r[2]), min(r[1], r[3]), max(r[0], r[2]), max(r[1], r[3])]
    found = parse_boxes(format_box(box, decimals))
    assert not found.unread and box_problem(found.boxes[0].box) == ''
    assert abs(found.boxes[0].box - box).max() <= 10.0**-decimals + 1e-9


def test_the_contracts_form():
    assert format_box([0.1, 0.2, 0.3, 0.4]) == '[0.10,0.20,0.30,0.40]'
    assert format_box(np.float32([0, 0, 1, 1]), 3) == '[0.000,0.000,1.000,1.000]'
    assert format_box([-1e-9, 0, 0.5, 1 + 1e-9]) == '[0.00,0.00,0.50,1.00]'
    assert format_box([0, 0, 0.5, 0, 0.5, 0.25, 0, 0.25]) == '[0.00,0.00,0.50,0.00,0.50,0.25,0.00,0.25]'


@pytest.mark.parametrize(
    'thin',
    ([0.3141, 0.2718, 0.3149, 0.2750], [0, 0, 0, 0], [1, 1, 1, 1], [0.5, 0, 0.5, 1], [0.999, 0.2, 1, 0.201]),
)
def test_thin_boxes_are_widened_or_refused(thin):
    back = parse_boxes(format_box(thin)).boxes[0].box
    assert (
        (back[2:] > back[:2]).all()
        and (back >= 0).all()
        and (back <= 1).all()
        and abs(back - thin).max() <= 0.01 + 1e-9
    )
    with pytest.raises(BadInput, match='no area'):
        format_box(thin, repair=False)


def test_a_line_in_the_data_is_refused_or_repaired_by_choice():
    text = '[0.31,0.27,0.31,0.28]'
    assert parse_boxes(text).boxes == [] and 'no area' in parse_boxes(text).unread[0]
    repaired = parse_boxes(text, repair=True)
    assert not repaired.unread and np.allclose(repaired.boxes[0].box, [0.305, 0.27, 0.315, 0.28])


@pytest.mark.parametrize(
    'box',
    (
        [np.nan, 0, 1, 1],
        [0, 0, np.inf, 1],
        [200, 60, 300, 120],
        [1.2, 0.1, 1.4, 0.3],
        [0.1, 0.2, 0.3],
        [0.1, 0.2, 0.3, 0.4, 0.5, 0.6],
    ),
)
def test_what_means_nothing_is_never_written(box):
    for repair in (True, False):
        with pytest.raises(BadInput):
            format_box(box, repair=repair)


def test_a_box_over_the_edge_is_cut_or_refused():
    assert format_box([0.8, 0.3, 1.2, 0.7]) == '[0.80,0.30,1.00,0.70]'
    with pytest.raises(BadInput, match='beyond'):
        format_box([0.8, 0.3, 1.2, 0.7], repair=False)
    assert parse_boxes('[0.8,0.3,1.2,0.7]').unread == ['0.8,0.3,1.2,0.7: beyond the frame']
    assert np.allclose(parse_boxes('[0.8,0.3,1.2,0.7]', repair=True).boxes[0].box, [0.8, 0.3, 1, 0.7])


@pytest.mark.parametrize(
    'text, why',
    [
        ('[nan,0,1,1]', 'not a number'),
        ('[0,0,inf,1]', 'not a number'),
        ('[a,b,c,d]', 'not a number'),
        ('[0.1,0.2,0.3]', '3 numbers'),
        ('[0.1,0.2,0.3,0.4,0.5]', '5 numbers'),
        ('[0.5,0.2,0.3,0.4]', 'left of left'),
        ('[200,60,300,120]', 'beyond'),
        ('[0.1,0.2,0.3,0.4', 'cut off'),
    ],
)
def test_what_could_not_be_read_is_said(text, why):
    found = parse_boxes(f'It is here: {text}')
    assert found.boxes == [] and len(found.unread) == 1 and why in found.unread[0]


def test_prose_survives():
    found = parse_boxes(
        '[refer] As seen [sic] in 2 of 3 pictures, it is at [0.1, 0.2, 0.3, 0.4]; see [0.5,0.5,0.6,0.6]. Not at (0.1,0.2).'
    )
    assert len(found.boxes) == 2 and not found.unread and {b.label for b in found.boxes} == {None}
    assert parse_boxes('I see no ship.') == parse_boxes('')


def test_nested_and_separate_brackets_belong_to_one_label():
    for text in (
        '[[0.1,0.1,0.2,0.2],[0.3,0.3,0.4,0.4]]',
        '[0.1,0.1,0.2,0.2] and [0.3,0.3,0.4,0.4]',
        '[0.1,0.1,0.2,0.2;0.3,0.3,0.4,0.4]',
    ):
        found = parse_boxes('There are <p>2 ships</p>' + text)
        assert [b.label for b in found.boxes] == ['ship'] * 2 and not found.unread


def test_a_sentence_cut_off_keeps_what_was_whole():
    found = parse_boxes('There are <p>3 ships</p>[0.1,0.1,0.2,0.2;0.3,0.3,0.4,0.4;0.5,0.5,0.6')
    assert len(found.boxes) == 2 and found.unread == [
        '0.5,0.5,0.6: cut off before its end',
        'ship: 3 announced, 2 read',
    ]


@settings(max_examples=500)
@given(st.one_of(st.text(), st.text('[]0123456789.,;<p>/ \n-eEnaif', max_size=200)))
def test_no_text_breaks_the_parser(text):
    for repair in (True, False):
        for found in (parse_boxes(text, repair), BoxFormat(1000, 0, False).read(text, 640, 512, repair)):
            assert all(np.isfinite(b.box).all() and len(b.box) in (4, 8) for b in found.boxes)


def test_long_texts_take_no_long_time():
    for text in (
        '[' * 200_000,
        '[0.1,' * 40_000,
        '<p>' * 60_000 + '[0.1,0.1,0.2,0.2]',
        ' ' * 200_000 + '[0.1,0.1,0.2,0.2]',
        '9' * 10_000 + ' ships</p>[0.1,0.1,0.2,0.2]',
    ):
        parse_boxes(text)


# classes and counts
@pytest.mark.parametrize('label', CLASSES)
def test_class_names_come_back(label):
    for n in (1, 2, 13):
        text = format_detection([(label, [0.1, 0.1, 0.2 + i / 100, 0.3]) for i in range(n)])
        found = parse_boxes(text)
        assert [b.label for b in found.boxes] == [label] * n and not found.unread, text


def test_known_classes_settle_what_english_leaves_open():
    text = '<p>2 trees</p>[0.1,0.1,0.2,0.2;0.3,0.3,0.4,0.4]'
    assert {b.label for b in parse_boxes(text).boxes} == {'tree'}
    assert {b.label for b in parse_boxes(text, classes=('trees',)).boxes} == {'trees'}
    assert plural('lens') == 'lens' and plural('gas') == 'gas' and singular('glass') == 'glass'


def test_the_detection_sentence():
    labelled = [
        LabelledBox('ship', np.array([0.1, 0.2, 0.3, 0.4])),
        ('harbor', [0, 0, 0.5, 0.1]),
        ('ship', [0.5, 0.5, 0.6, 0.6]),
        ('dam', [0.7, 0.7, 0.8, 0.8]),
    ]
    assert format_detection(labelled) == (
        'There are <p>2 ships</p>[0.10,0.20,0.30,0.40;0.50,0.50,0.60,0.60], '
        '<p>1 harbor</p>[0.00,0.00,0.50,0.10] and <p>1 dam</p>[0.70,0.70,0.80,0.80].'
    )
    assert format_detection(labelled[1:2], 3) == 'There is <p>1 harbor</p>[0.000,0.000,0.500,0.100].'
    assert (
        format_detection([]) == 'There are no objects.' and parse_boxes('There are no objects.').boxes == []
    )
    with pytest.raises(BadInput, match='rename'):
        format_detection([('a[0]', [0.1, 0.2, 0.3, 0.4])])


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(CLASSES), st.lists(unit, min_size=4, max_size=4)), max_size=30))
def test_any_detection_comes_back(items):
    labelled = [(label, np.sort(np.reshape(r, (2, 2)), 0).ravel()) for label, r in items]
    found = parse_boxes(format_detection(labelled, 3))
    order = {label: None for label, _ in labelled}
    expected = sorted(labelled, key=lambda x: list(order).index(x[0]))
    assert not found.unread and [b.label for b in found.boxes] == [label for label, _ in expected]
    for b, (_, box) in zip(found.boxes, expected):
        assert abs(b.box - box).max() <= 0.001 + 1e-9


def test_spelled_counts_and_wrong_counts():
    assert [
        parse_count(w)
        for w in ('no', 'one', 'Nineteen', 'thirty', 'forty-two', '007', 'a', 'forty-ten', 'many', '9' * 5000)
    ] == [0, 1, 19, 30, 42, 7, 1, None, None, None]
    found = parse_boxes('There are seven airplanes [0.1,0.2,0.3,0.4; 0.1,0.1,0.2,0.2] in the image.')
    assert {b.label for b in found.boxes} == {'airplane'} and found.unread == [
        'airplane: 7 announced, 2 read'
    ]
    assert parse_boxes('<p>thirteen storage tanks</p>[0.1,0.2,0.3,0.4]').unread == [
        'storage tank: 13 announced, 1 read'
    ]
    assert parse_boxes('<p>the red ship</p>[0.1,0.2,0.3,0.4]').boxes[0].label == 'the red ship'


# bad input
def test_check_boxes_says_which_and_why():
    good, over, line, lost = [10, 10, 50, 50], [600, 10, 660, 40], [5, 5, 5, 9], [700, 20, 720, 40]
    assert np.array_equal(check_boxes([good, good], 640, 512), [good, good])
    for bad, why in (
        (over, 'beyond'),
        (line, 'no area'),
        ([np.nan, 1, 2, 3], 'not a number'),
        ([9, 1, 2, 3], 'left of left'),
    ):
        with pytest.raises(BadInput, match=f'harbour.txt: box 1 .*{why}'):
            check_boxes([good, bad], 640, 512, name='harbour.txt')
    assert np.allclose(
        check_boxes([over, line, [50, 60, 20, 10]], 640, 512, repair=True),
        [[600, 10, 640, 40], [4.5, 5, 5.5, 9], [20, 10, 50, 60]],
    )
    for bad in (lost, [np.nan, 1, 2, 3], [np.inf, 1, 2, 3]):
        with pytest.raises(BadInput, match='x.txt: box 1 .*leave it out'):
            check_boxes([good, bad], 640, 512, repair=True, name='x.txt')
    with pytest.raises(BadInput, match='3 numbers'):
        check_boxes([[1, 2, 3]], 640, 512, repair=True)
    assert check_boxes(np.zeros((0, 4)), 640, 512).shape == (0, 4)


@settings(max_examples=300)
@given(st.lists(st.floats(-2, 3), min_size=4, max_size=4))
def test_a_clipped_box_is_sound(box):
    try:
        out = clip_box(box, least=0.01)
    except BadInput:
        x, y = sorted(box[::2]), sorted(box[1::2])
        assert x[0] > 1 or x[1] < 0 or y[0] > 1 or y[1] < 0
    else:
        assert box_problem(out) == '' and (out[2:] - out[:2] >= 0.01 - 1e-9).all()


@pytest.mark.parametrize(
    'box', [[0, 0, 1e300, 1e300], [-1e308, 0, 1e308, 1], [0, 0, 1e200, 0, 1e200, 1e200, 0, 1e200]]
)
def test_a_box_beyond_all_numbers_is_beyond_the_frame(box):
    assert box_problem(box) == 'beyond the frame'
