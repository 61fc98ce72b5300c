"Overlap of upright and tilted boxes, and the suppression that rests on it."

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from shapely import affinity
from shapely.geometry import Polygon, box as rectangle

from earthgpt_lite.boxes.iou import iou, iou_matrix, nms, obb_iou, to_corners
from earthgpt_lite.errors import BadInput


def random_boxes(rng, n, width, height):
    return np.sort(rng.uniform(0, [width, height], (n, 2, 2)), 1).reshape(n, 4)


def tilted(rng, n, width, height, smallest=6.0):
    "Boxes with all corners in the picture."
    size = np.sort(rng.uniform(smallest, min(width, height) / 2, (n, 2)), 1)[:, ::-1]
    reach = np.hypot(*size.T)[:, None] / 2
    centre = rng.uniform(reach, np.array([width, height]) - reach)
    return np.concatenate([centre, size, rng.uniform(-90, 90, (n, 1))], 1)


def test_iou_by_counting_pixels():
    rng = np.random.default_rng(1)
    boxes = np.sort(rng.integers(0, 30, (200, 2, 2)), 1).reshape(-1, 4)
    for a, b in zip(boxes[:100], boxes[100:]):
        m = np.zeros((2, 30, 30), bool)
        for k, (x1, y1, x2, y2) in enumerate((a, b)):
            m[k, y1:y2, x1:x2] = True
        union = (m[0] | m[1]).sum()
        assert np.isclose(iou(a, b), (m[0] & m[1]).sum() / union if union else 0)


def test_iou_is_one_thing_in_numpy_and_torch():
    rng = np.random.default_rng(2)
    a, b = random_boxes(rng, 50, 10, 10), random_boxes(rng, 40, 10, 10)
    m = iou_matrix(torch.tensor(a), torch.tensor(b))
    assert (
        isinstance(m, torch.Tensor)
        and m.dtype == torch.float64
        and np.allclose(m, iou_matrix(a, b))
        and m.shape == (50, 40)
    )
    assert np.allclose(iou(torch.tensor(a[:40]).half(), b), iou(a[:40], b), atol=0.01)  # mixed kinds meet
    # whole numbers
    assert iou(torch.tensor([0, 0, 2, 2]), torch.tensor([1, 0, 3, 2])).item() == pytest.approx(1 / 3)
    x = torch.tensor(a[:40], requires_grad=True)
    iou(x, torch.tensor(b)).sum().backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().sum() > 0


def test_iou_of_boxes_without_an_inside_is_zero():
    assert (
        iou([1, 1, 1, 3], [0, 0, 4, 4]) == 0
        and iou([3, 3, 1, 1], [0, 0, 4, 4]) == 0
        and iou([1, 1, 1, 1], [1, 1, 1, 1]) == 0
    )
    assert iou([0, 0, 1e-7, 1e-7], [0, 0, 1e-7, 1e-7]) == 1


def slow_nms(boxes, scores, threshold, labels=None):
    kept = []
    for i in sorted(range(len(boxes)), key=lambda i: (-scores[i], i)):
        rivals = [k for k in kept if labels is None or labels[k] == labels[i]]
        if all(iou(boxes[i], boxes[k]) <= threshold for k in rivals):
            kept.append(i)
    return kept


@settings(max_examples=100)
@given(st.integers(0, 25), st.integers(0, 10**6), st.floats(0, 1), st.booleans())
def test_nms_equals_the_slow_one(n, seed, threshold, classwise):
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 20, (n, 2))
    boxes = np.concatenate([corner, corner + rng.integers(1, 15, (n, 2))], 1).astype(float)
    # many equal scores
    scores, labels = rng.integers(0, 5, n) / 4, rng.integers(0, 2, n) if classwise else None
    assert nms(boxes, scores, threshold, labels).tolist() == slow_nms(boxes, scores, threshold, labels)


def test_nms_takes_words_as_labels_and_refuses_nan():
    same = [[0, 0, 2, 2]] * 3
    assert nms(same, [0.1, 0.3, 0.2], 0.5, ['ship', 'car', 'ship']).tolist() == [1, 2]
    assert nms(np.zeros((0, 4)), [], 0.5).tolist() == [] == nms([], []).tolist()
    with pytest.raises(BadInput, match='not a number'):
        nms([[0, 0, np.nan, 1], [0, 0, 1, 1]], [0.9, 0.8])
    with pytest.raises(BadInput, match='not a number'):
        nms([[0, 0, 1, 1]], [np.nan])


def test_positive_angles_turn_clockwise_on_the_screen():
    box = to_corners([0, 0, 10, 2, 30]).reshape(4, 2)
    right = (box[1] + box[2]) / 2  # where w points
    assert right[0] > 0 and right[1] > 0  # right and down: y grows downwards
    assert np.allclose(right, 5 * np.array([np.cos(np.pi / 6), 0.5]))


def test_corners_agree_with_shapelys_rotation():
    for cx, cy, w, h, angle in tilted(np.random.default_rng(0), 200, 500, 400):
        # shapely's positive angle is counter-clockwise with y upwards, which is clockwise with y downwards
        other = affinity.rotate(rectangle(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2), angle)
        assert (
            Polygon(to_corners([cx, cy, w, h, angle]).reshape(4, 2)).symmetric_difference(other).area
            < 1e-6 * w * h
        )


def test_overlap_equals_shapelys():
    rng = np.random.default_rng(4)
    a, b = tilted(rng, 2000, 120, 100), tilted(rng, 2000, 120, 100)
    ours = obb_iou(a, b)
    for one, two, value in zip(a, b, ours):
        p, q = (
            affinity.rotate(rectangle(x - w / 2, y - h / 2, x + w / 2, y + h / 2), t)
            for x, y, w, h, t in (one, two)
        )
        assert abs(p.intersection(q).area / p.union(q).area - value) < 1e-6
    assert ((ours > 0.1) & (ours < 0.9)).sum() > 200  # the test has something to see
    assert np.allclose(obb_iou(to_corners(a), b), ours)


def test_overlap_on_upright_boxes_and_odd_ones():
    rng = np.random.default_rng(5)
    a, b = np.sort(rng.uniform(0, 1, (2, 500, 2, 2)), 2).reshape(2, 500, 4)
    assert np.allclose(obb_iou(a, b), iou(a, b)) and np.allclose(
        iou_matrix(a[:20], b[:30], obb_iou), iou_matrix(a[:20], b[:30])
    )
    crossed = np.array([0, 0, 2, 2, 2, 0, 0, 2.0])  # corners in a wrong order
    assert np.isclose(obb_iou(crossed, [0, 0, 2, 2]), 0.5)
    assert obb_iou([1, 1, 0, 0, 0], [0, 0, 2, 2]) == 0


def test_nms_for_tilted_boxes():
    rng = np.random.default_rng(6)
    boxes, scores = tilted(rng, 60, 100, 100), rng.uniform(0, 1, 60)
    kept = []
    for i in np.argsort(-scores):
        if all(obb_iou(boxes[i], boxes[k]) <= 0.2 for k in kept):
            kept.append(i)
    assert nms(boxes, scores, 0.2, overlap=obb_iou).tolist() == kept and 5 < len(kept) < 55
