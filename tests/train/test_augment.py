"Augmentation: boxes in the words turn with their picture, and words of direction keep a picture as it is."

import numpy as np
import pytest
from hypothesis import given, strategies as st

from earthgpt_lite.boxes.iou import dihedral_boxes
from earthgpt_lite.boxes.text import format_box, parse_boxes
from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.chips import dihedral_image
from earthgpt_lite.data.records import Task, Turn
from earthgpt_lite.train.augment import (
    DIRECTION_WORDS,
    SPELLINGS,
    dihedral_text,
    jitter_pictures,
    reword_turns,
    tokenizer_texts,
    ways_of,
)

dihedrals = st.tuples(st.integers(0, 3), st.booleans())


@st.composite
def whole_boxes(draw, side=20):
    x, y = (sorted(draw(st.sets(st.integers(0, side), min_size=2, max_size=2))) for _ in range(2))
    return [x[0], y[0], x[1], y[1]]


# mirrored turns undo themselves
def undone(quarter, mirror):
    return (quarter, True) if mirror else (-quarter % 4, False)


@given(whole_boxes(), dihedrals)
def test_a_box_turns_with_its_picture(box, dihedral):
    x1, y1, x2, y2 = box
    picture = np.zeros((20, 20, 1), 'uint8')
    picture[y1:y2, x1:x2] = 1
    rows, columns = np.nonzero(dihedral_image(picture, *dihedral)[..., 0])
    assert np.allclose(
        dihedral_boxes(np.array([box]) / 20, *dihedral)[0] * 20,
        [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1],
    )


@given(st.lists(whole_boxes(100), min_size=1, max_size=3), dihedrals)
def test_turning_there_and_back(boxes, dihedral):
    boxes = np.array(boxes) / 100
    assert np.allclose(dihedral_boxes(dihedral_boxes(boxes, *dihedral), *undone(*dihedral)), boxes)
    picture = np.arange(75, dtype='uint8').reshape(5, 5, 3)
    assert (dihedral_image(dihedral_image(picture, *dihedral), *undone(*dihedral)) == picture).all()
    text = 'a lake at ' + ' and '.join(map(format_box, boxes)) + '?'
    moved = dihedral_text(text, *dihedral)
    assert dihedral_text(moved, *undone(*dihedral)) == text
    assert np.allclose([b.box for b in parse_boxes(moved).boxes], dihedral_boxes(boxes, *dihedral), atol=1e-9)


def test_words_without_boxes_stay():
    for text in ('is there more water than forest?', 'scene [a, b]', ''):
        assert dihedral_text(text, 1, True) == text


@pytest.mark.parametrize(
    'text',
    [
        'the lake [0.1, 0.2, 0.3, 0.4]',
        '[0.100,0.200,0.300,0.400]',
        'a ship [0.10,0.20,0.30,0.20,0.30,0.40,0.10,0.40]',
        '[0.1 0.2 0.3 0.4]',
        '[1e-1,+0.20,.3,0.400]',
    ],
)
def test_a_box_in_another_writing_turns_too(text):
    moved = dihedral_text(text, 1, False)
    assert dihedral_text(text, 0, False) == text == dihedral_text(text, 4, False)
    box = np.array(parse_boxes(moved).boxes[0].box).reshape(-1, 2)
    assert np.allclose([*box.min(0), *box.max(0)], dihedral_boxes([0.1, 0.2, 0.3, 0.4], 1, False)[0])


@given(whole_boxes(), dihedrals)
def test_four_corners_turn_and_keep_their_sense(box, dihedral):
    x1, y1, x2, y2 = np.array(box) / 20
    corners = [x1, y1, x2, y1, x2, y2, x1, y2]  # clockwise
    text = '[' + ','.join(f'{v:.2f}' for v in corners) + ']'
    (found,) = parse_boxes(dihedral_text(text, *dihedral)).boxes
    points = found.box.reshape(4, 2)
    assert np.allclose([*points.min(0), *points.max(0)], dihedral_boxes([x1, y1, x2, y2], *dihedral)[0])
    (a, b), (c, d) = points[1] - points[0], points[2] - points[1]
    assert a * d - b * c > 0, 'clockwise still'


def test_a_box_keeps_all_its_digits():
    assert (
        dihedral_text('[0.1,0.25,0.5,1]', 0, True) == '[0.50,0.25,0.90,1.00]'
        and dihedral_text('[0,0,0.125,1]', 0, True) == '[0.875,0.000,1.000,1.000]'
    )


@pytest.mark.parametrize('text', ['a ship [10,20,30,40]', 'in [2020]', '[0.1,0.2,0.3]', '[0.1,0.2,0.3,x4]'])
def test_what_cannot_be_turned_is_refused_only_where_it_would_be(text):
    with pytest.raises(BadInput, match='four or eight numbers from 0 to 1'):
        dihedral_text(text, 1, False)
    assert dihedral_text(text, 0, False) == text


def test_words_that_do_not_turn():
    for text in (
        'left of it',
        'the pier above the road',
        'below',
        'in front of the hall',
        'the NE corner',
        'ships pointing up',
        'a vertical road',
        'counter-clockwise',
        'behind the dam',
        'the top',
        'northern',
    ):
        assert DIRECTION_WORDS.search(text), text
    for text in (
        'made up of houses',
        'a new bridge over water',
        'please give the horizontal bounding box',
        'seen there',
        'in the middle',
    ):
        assert not DIRECTION_WORDS.search(text), text


# ---- other renderings, other words


def test_ways_by_name():
    assert ways_of(True) == ('turn',) and ways_of(False) == ways_of([]) == ()
    assert ways_of(['words', 'turn']) == ('turn', 'words')
    with pytest.raises(
        BadInput, match="there is no way 'jiter'; give true, false, or some of turn, jitter, words"
    ):
        ways_of(['jiter'])


def test_a_picture_is_rendered_by_its_key_and_place_alone():
    images = [np.random.default_rng(k).integers(0, 256, (16, 16, 3), 'uint8') for k in range(3)]
    first, again = (jitter_pictures(images, 'optical', [0, 4, 7, 2]) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, again))
    alike = [images[0]] * 3
    shown = jitter_pictures(alike, ('optical', 'optical', 'sar'), [0, 4, 8, 1])
    assert (shown[0] != shown[1]).any(), 'two dates are not rendered alike'


def test_pairs_are_varied_by_half():
    image = np.random.default_rng(0).integers(60, 200, (16, 16, 3), 'uint8')
    moved = lambda n: np.mean(
        [
            np.abs(s - image.astype(float)).mean()
            for k in range(60)
            for s in jitter_pictures([image] * n, 'optical', [k])
        ]
    )
    assert 0.3 * moved(1) < moved(2) < 0.75 * moved(1)


def test_turns_are_worded_by_their_key_alone():
    turns = [Turn('where is the lake?', '[0.10,0.20,0.30,0.40]', Task.GROUNDING)] * 5
    assert reword_turns(turns, [1, 2]) == reword_turns(turns, [1, 2]) != reword_turns(turns, [1, 3])


def test_a_tokenizer_learns_what_is_read_and_what_is_written():
    turns = [Turn('Where is IT?', 'SeaLake'), Turn('is there any water in this image?', 'yes')] * 3
    plain = list(tokenizer_texts(turns))
    assert plain == [' where is it?', ' SeaLake', ' is there any water in this image?', ' yes'] * 3
    more = list(tokenizer_texts(turns, words=True))
    assert len(more) == len(plain) + 2 * SPELLINGS and set(plain) <= set(more)
