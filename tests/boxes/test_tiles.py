"Many tiles, one answer: merging and dissolving."

import numpy as np
from hypothesis import given, settings, strategies as st

from earthgpt_lite.boxes.iou import nms
from earthgpt_lite.boxes.tiles import dissolve, indexed_nms, merge_tiles


def test_neighbours_stay_two_and_classes_do_not_mix():
    windows = [(0, 0, 100, 100), (60, 0, 160, 100)]
    assert (
        len(merge_tiles([(80, 10, 99, 30), (101, 10, 120, 30)], [1, 1], ['s', 's'], windows, 160, 100)[0])
        == 2
    )
    assert (
        len(merge_tiles([(70, 10, 95, 30), (70, 10, 95, 30)], [1, 2], ['s', 't'], windows, 160, 100)[0]) == 2
    )
    boxes, source, tiles = merge_tiles(
        [(70, 10, 95, 30), (70, 10, 95, 30)], [1, 2], ["s", "s"], windows, 160, 100
    )
    assert len(boxes) == 1 and source.tolist() == [1] and tiles.tolist() == [2]  # the surer one
    boxes, *_ = merge_tiles([(40, 10, 100, 30), (60, 10, 130, 30)], [1, 2], ['s', 's'], windows, 160, 100)
    assert boxes.tolist() == [[40, 10, 130, 30]]  # cut by both tiles: put together
    assert len(merge_tiles([], [], [], [], 9, 9)[0]) == 0


@given(st.integers(0, 10**6), st.integers(0, 60))
@settings(max_examples=30)
def test_suppression_is_nms(seed, n):
    rng = np.random.default_rng(seed)
    boxes = rng.uniform(0, 50, (n, 2))
    boxes = np.concatenate([boxes, boxes + rng.uniform(1, 30, (n, 2))], 1)
    scores, labels = rng.random(n), rng.integers(0, 2, n)
    if n:
        assert set(indexed_nms(boxes, scores, labels, 0.4)) == set(nms(boxes, scores, 0.4, labels))


def test_dissolve_adds_up():
    values = np.random.default_rng(0).integers(-1, 3, (7, 9))
    found = dissolve(values, np.ones((7, 9)), np.arange(10) * 10, np.arange(8) * 10)
    assert sum(p.area for p, *_ in found) == (values >= 0).sum() * 100 and all(m == 1 for *_, m, _ in found)
    assert [n * 100 for *_, n in found] == [p.area for p, *_ in found]
