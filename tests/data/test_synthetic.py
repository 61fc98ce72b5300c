"Drawn islands and lakes: their boxes are true, they come from training ground only, and the exam does not know them."

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from earthgpt_lite.boxes.iou import iou
from earthgpt_lite.boxes.text import parse_boxes
from earthgpt_lite.data.sample import synthetic as synthetic_module
from earthgpt_lite.data.sample.synthetic import (
    ZOOM,
    pointing_examples,
    scaled_examples,
    shape_with_box,
    synthetic_examples,
    wavy_outline,
)
from earthgpt_lite.data.sample.world_map import SIDE


@given(st.integers(0, 10_000), st.floats(0, 0.7))
@settings(max_examples=60)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_the_box_is_that_of_a_piece_that_stands_alone(seed, clutter):
    import shapely
    from rasterio.features import shapes

    mask, box = shape_with_box(np.random.default_rng(seed), clutter)
    x1, y1, x2, y2 = (box * SIDE).round().astype(int)
    assert 0 < x1 < x2 < SIDE and 0 < y1 < y2 < SIDE and 0.04 < (x2 - x1) * (y2 - y1) / SIDE**2 < 0.6
    rim = np.zeros_like(mask)
    rim[max(0, y1 - 3) : y2 + 3, max(0, x1 - 3) : x2 + 3] = True
    rim[y1:y2, x1:x2] = False
    assert not (mask & rim).any()
    inside = np.zeros_like(mask)
    inside[y1:y2, x1:x2] = mask[y1:y2, x1:x2]
    pieces = [
        shapely.geometry.shape(s).bounds
        for s, _ in shapes(inside.astype('uint8'), mask=inside, connectivity=8)
    ]
    assert (x1, y1, x2, y2) == tuple(np.array([[p[0], p[1]] for p in pieces]).min(0)) + tuple(
        np.array([[p[2], p[3]] for p in pieces]).max(0)
    )


def test_without_swings_an_outline_is_an_ellipse():
    mask = wavy_outline(np.random.default_rng(0), (0.5, 0.5), (0.8, 0.4), 0)
    assert abs(mask.mean() - np.pi * 0.4 * 0.2) < 0.003


@pytest.fixture(scope='module')
def drawn():
    return synthetic_examples(40)


def test_the_answer_is_the_box_and_the_thing_differs_from_its_surroundings(drawn):
    for e in drawn:
        (turn,) = e.turns
        said = np.array(parse_boxes(turn.answer).boxes[0].box, float)
        assert iou(said, e.place['box']) > 0.8 and e.split == 'train' and e.name.startswith('synthetic/')
        x1, y1, x2, y2 = (e.place['box'] * SIDE).round().astype(int)
        middle = np.median(e.image[y1:y2, x1:x2].reshape(-1, 3), 0)
        rim = np.concatenate(
            [e.image[max(0, y1 - 3) : y1 - 1].reshape(-1, 3), e.image[y2 + 1 : y2 + 3].reshape(-1, 3)]
        )
        assert not len(rim) or np.abs(middle - np.median(rim, 0)).sum() > 20


def test_the_same_seed_draws_the_same(drawn):
    again, other = synthetic_examples(3), synthetic_examples(3, seed=1)  # of other ground, too
    assert all((a.image == b.image).all() and a.turns == b.turns for a, b in zip(again, drawn))
    assert any((a.image != b.image).any() for a, b in zip(other, drawn))


def test_validation_and_test_hold_no_drawn_ones(monkeypatch):
    monkeypatch.setattr(synthetic_module, 'sample_examples', lambda split, seed: [(split, seed)])
    assert pointing_examples('validation', 3) == [('validation', 3)] and pointing_examples('test') == [
        ('test', 0)
    ]


def test_each_aerial_picture_is_a_place_and_training_may_leave_it_out(monkeypatch):
    from earthgpt_lite.data.sample.synthetic import PLACES, place_of
    from earthgpt_lite.data.sample.trees import tree_examples
    from earthgpt_lite.errors import BadInput
    from earthgpt_lite.train import examples
    from earthgpt_lite.train.examples import open_examples

    trees = tree_examples('train', 60)
    assert {place_of(e) for e in trees} == {'aerial_meadow', 'aerial_road', 'aerial_sand'} < set(PLACES)
    monkeypatch.setitem(examples.MADE, 'pointing', lambda split: trees)
    monkeypatch.setattr(examples, 'sample_examples', lambda split: trees)
    for word in ('pointing', 'samples', 'samples/trees'):
        rest = open_examples(f'{word}/without-aerial_road')
        assert len(open_examples(word)) == len(trees) > len(rest)
        assert {place_of(e) for e in rest} == {'aerial_meadow', 'aerial_sand'}
    with pytest.raises(BadInput, match='no place .oslo.*aerial_meadow'):
        open_examples('pointing/without-oslo')


def test_chips_of_other_sizes_lie_in_training_blocks_and_are_true():
    from earthgpt_lite.data.dialogues import truth_of
    from earthgpt_lite.data.records import Task
    from earthgpt_lite.data.sample.sites import SITES, spatial_split
    from earthgpt_lite.data.sample.world_map import SPAN, split_of
    from earthgpt_lite.data.wordings import parse_question

    made = scaled_examples('train', n=0.04)
    sides, spans, checked = {}, [], 0
    for e in made:
        assert (
            e.image.shape == (SIDE, SIDE, 3) and e.turns and e.split == 'train' and e.name.endswith('/scaled')
        )
        truth, site = truth_of(e), e.place.get('site')
        for turn in e.turns:
            if turn.task == Task.PRESENCE:
                k = truth.labels.index(parse_question(turn.question)[1]['label'])
                assert truth.has(k) == (turn.answer == 'yes')
                checked += 1
        if not site:
            spans.append(e.place['bounds'][3] - e.place['bounds'][1])
            assert split_of(e.place['bounds']) == 'train'
            continue
        column, row, side = e.place['window']
        block = SITES[site].block
        assert row // block == (row + side - 1) // block and column // block == (column + side - 1) // block
        assert spatial_split(site)[row // block, column // block] == 0
        sides.setdefault(site, []).append(side / SITES[site].chip)
    assert checked > 100 and set(sides) == set(SITES)
    for found in (*sides.values(), np.array(spans) / SPAN):
        assert 0.99 / ZOOM <= min(found) < 0.8 and 1.2 < max(found) <= 1.01 * ZOOM
