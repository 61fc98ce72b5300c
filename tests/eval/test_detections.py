"Matching and average precision: by hand, against pycocotools, and against the rules of the DOTA kit."

import contextlib
import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from earthgpt_lite.boxes.iou import obb_iou, to_corners
from earthgpt_lite.boxes.text import parse_boxes
from earthgpt_lite.eval.detections import (
    NearBoxes,
    ap_by_label,
    average_precision,
    box_logprobs,
    boxes_by_label,
    coco_map,
    match_by_label,
    match_greedy,
    overlap_matrix,
    voc_map,
)
from earthgpt_lite.errors import BadInput

LABELS = ['ship', 'plane', 'harbor']


def scene(rng, turned=False, ties=False):
    "One picture: answered and true boxes of three labels, some found well, some badly, some not at all."
    found, true = {}, {}
    for label in LABELS:
        n = rng.integers(0, 7)
        corner = rng.uniform(0, 0.6, (n, 2))
        truths = np.c_[corner, corner + rng.uniform(0.03, 0.35, (n, 2))]
        copies = np.repeat(truths, rng.integers(0, 3, n), 0)
        guess = copies + rng.normal(0, 0.02, copies.shape)
        lone = rng.uniform(0, 0.5, (rng.integers(0, 3), 2))
        guess = np.concatenate([guess, np.c_[lone, lone + 0.2]])
        guess = np.c_[np.minimum(guess[:, :2], guess[:, 2:]), np.maximum(guess[:, :2], guess[:, 2:])]
        if turned:
            guess, truths = (
                turn(guess, rng.uniform(0, 40, len(guess))),
                turn(truths, rng.uniform(0, 40, len(truths))),
            )
        scores = rng.integers(0, 4, len(guess)) / 4.0 if ties else rng.random(len(guess))
        if len(guess):
            found[label] = (list(guess), scores)
        if n:
            true[label] = (list(truths),)
    return found, true


def turn(boxes, degrees):
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    return to_corners(np.c_[centre, size, degrees])


def coco_reference(found, true):
    "mAP of pycocotools on the same boxes."
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    box = lambda b: [float(b[0]), float(b[1]), float(b[2] - b[0]), float(b[3] - b[1])]
    truth, answers = [], []
    for i, (f, t) in enumerate(zip(found, true), 1):
        for k, label in enumerate(LABELS, 1):
            for b in t.get(label, ([],))[0]:
                truth.append(
                    dict(
                        id=len(truth) + 1,
                        image_id=i,
                        category_id=k,
                        bbox=box(b),
                        area=box(b)[2] * box(b)[3],
                        iscrowd=0,
                    )
                )
            for b, s in zip(*f.get(label, ([], []))):
                answers.append(dict(image_id=i, category_id=k, bbox=box(b), score=float(s)))
    with contextlib.redirect_stdout(io.StringIO()):
        gt = COCO()
        gt.dataset = dict(
            images=[dict(id=i + 1) for i in range(len(true))],
            annotations=truth,
            categories=[dict(id=k + 1, name=l) for k, l in enumerate(LABELS)],
        )
        gt.createIndex()
        run = COCOeval(gt, gt.loadRes(answers), 'bbox')
        run.evaluate()
        run.accumulate()
        run.summarize()
    return run.stats[:2]


@pytest.mark.parametrize('seed, ties', [(0, False), (1, False), (2, True), (3, True)])
def test_coco_map_equals_pycocotools(seed, ties):
    pytest.importorskip('pycocotools')
    rng = np.random.default_rng(seed)
    found, true = zip(*[scene(rng, ties=ties) for _ in range(30)])
    all_, half = coco_reference(found, true)
    assert 0 < all_ < half < 1
    assert coco_map(found, true) == pytest.approx(all_, abs=1e-6)
    at_half = ap_by_label([match_by_label(f, t, 0.5, max_detections=100) for f, t in zip(found, true)], 101)
    assert np.mean(list(at_half.values())) == pytest.approx(half, abs=1e-6)


def voc_reference(found, true, difficult, label, threshold, points):
    "The rules of VOC and of DOTA's task 1, step by step: rank over the whole set, best truth, one hit a truth, difficult ones ignored."
    ranked = sorted(
        ((s, i, b) for i, f in enumerate(found) for b, s in zip(*f.get(label, ([], [])))), key=lambda x: -x[0]
    )
    used, hits = set(), []
    for _, i, b in ranked:
        truths = true[i].get(label, ([],))[0]
        table = [float(obb_iou(b, t)) for t in truths]
        j = int(np.argmax(table)) if table else -1
        if j < 0 or table[j] <= threshold:
            hits.append(0)
        elif difficult[i].get(label, [False] * len(truths))[j]:
            continue
        else:
            hits.append(int((i, j) not in used))
            used.add((i, j))
    total = sum(len(t.get(label, ([],))[0]) - sum(d.get(label, [])) for t, d in zip(true, difficult))
    recall, precision = np.cumsum(hits) / total, np.cumsum(hits) / np.arange(1, len(hits) + 1)
    if points == 11:
        return np.mean([max(precision[recall >= t], default=0) for t in np.linspace(0, 1, 11)])
    area, before = 0, 0
    for k, r in enumerate(recall):
        area += (r - before) * max(precision[k:])
        before = r
    return area


@pytest.mark.parametrize('turned', [False, True])
@pytest.mark.parametrize('points', [None, 11])
def test_voc_and_dota_rules(turned, points):
    rng = np.random.default_rng(5)
    found, true = zip(*[scene(rng, turned) for _ in range(12)])
    difficult = [{k: rng.random(len(v[0])) < 0.2 for k, v in t.items()} for t in true]
    wanted = [voc_reference(found, true, difficult, k, 0.5, points) for k in LABELS]
    assert voc_map(found, true, points=points, difficult=difficult) == pytest.approx(
        np.mean(wanted), abs=1e-6
    )


def test_by_hand():
    hits, scores = [True, False, True, False, True], [0.9, 0.8, 0.7, 0.6, 0.5]
    assert average_precision(scores, hits, 4) == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    assert average_precision(scores, hits, 4, points=11) == pytest.approx((3 + 3 * 2 / 3 + 2 * 3 / 5) / 11)
    assert average_precision([], [], 2) == 0 and np.isnan(average_precision([0.1], [False], 0))


def test_turned_boxes_by_hand():
    diamond, square = [0.5, 0.2, 0.8, 0.5, 0.5, 0.8, 0.2, 0.5], [0.2, 0.2, 0.8, 0.8]
    assert overlap_matrix([square], [diamond])[0, 0] == pytest.approx(0.5)
    assert match_greedy(overlap_matrix([square], [diamond]), 0.5 - 1e-9).tolist() == [0] and match_greedy(
        overlap_matrix([square], [diamond]), 0.51
    ).tolist() == [-1]


def test_weights_of_one_change_nothing_and_of_two_neither():
    rng = np.random.default_rng(1)
    tables = [match_by_label(*scene(rng)) for _ in range(10)]
    plain, weighted = ap_by_label(tables, 101), ap_by_label(tables, 101, np.array([[1.0] * 10, [2.0] * 10]))
    assert all(np.allclose(weighted[k], plain[k]) for k in plain)


def test_weights_are_copies():
    rng = np.random.default_rng(2)
    tables = [match_by_label(*scene(rng)) for _ in range(6)]
    weights = [2, 0, 1, 3, 0, 1]
    copied = [t for t, n in zip(tables, weights) for _ in range(n)]
    weighted, plain = ap_by_label(tables, None, np.array([weights], float)), ap_by_label(copied)
    assert all(weighted[k][0] == pytest.approx(plain[k]) for k in plain)


def test_iou_never_enters_the_ranking():
    truth = {'ship': ([[0.1, 0.1, 0.3, 0.3], [0.6, 0.6, 0.8, 0.8]],)}
    found = {'ship': ([[0.1, 0.1, 0.3, 0.3], [0.4, 0.4, 0.5, 0.5]], np.array([0.2, 0.9]))}
    assert voc_map([found], [truth]) == pytest.approx(0.25)


@pytest.mark.parametrize(
    'text, counts',
    [
        ('There are <p>2 ships</p>[0.1,0.1,0.2,0.2;0.3,0.3,0.4,0.4].', {'ship': 2}),
        ('There are no objects.', {}),
        ('[0.1,0.1,0.2,0.2]', {'': 1}),
        ('', {}),
        ('<p>1 ship</p>[0.1,0.1,0.2,0.2] and <p>1 ship</p>[0.3,0.3,0.4,0.4]', {'ship': 2}),
        ('<p>Ship</p>[0.1,0.1,1.2,0.2]', {'ship': 1}),
        ('<p>1 ship</p>[0.1,0.1', {}),
    ],
)
def test_boxes_by_label(text, counts):
    assert {k: len(b) for k, (b, _) in boxes_by_label(text).items()} == counts


def test_scores_that_do_not_fit_become_their_mean():
    assert boxes_by_label('[0.1,0.1,0.2,0.2]', [0.2, 0.4])[''][1].tolist() == pytest.approx([0.3])


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.floats(0.1, 0.95))
def test_matching_is_one_to_one(seed, threshold):
    rng = np.random.default_rng(seed)
    table = rng.random((rng.integers(0, 8), rng.integers(0, 8)))
    for rule in ('coco', 'voc'):
        found = match_greedy(table, threshold, rng.random(len(table)), rule)
        hit = found[found >= 0]
        assert len(set(hit)) == len(hit) and (table[found >= 0, hit] >= threshold).all()
    # COCO's rule leaves no pair that could still be matched
    left = set(range(table.shape[1])) - set(match_greedy(table, threshold))
    assert all(
        table[i, j] < threshold for i in np.flatnonzero(match_greedy(table, threshold) < 0) for j in left
    )


KINDS = {
    'scattered': lambda rng, n: np.tile(rng.random((n, 2)) * 0.9, 2) + [0, 0, 0.05, 0.05],
    'on one heap': lambda rng, n: np.tile([[0.1, 0.1, 0.9, 0.9]], (n, 1)),
    'any corners': lambda rng, n: np.sort(rng.random((n, 2, 2)), 1).reshape(n, 4),
    'turned': lambda rng, n: to_corners(
        np.c_[rng.random((n, 2)), rng.random((n, 2)) / 4, rng.random(n) * 90]
    ),
}


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('rule', ['coco', 'voc'])
@pytest.mark.parametrize('threshold', [0.05, 0.5, 0.95])
def test_matching_of_near_boxes_is_that_of_the_whole_table(kind, rule, threshold):
    rng = np.random.default_rng(0)
    answered, truths = KINDS[kind](rng, 60), KINDS[kind](rng, 50)
    answered[20:30] = truths[:10]  # some exact ones, twice
    answered[30:40] = truths[:10]
    scores, hard = rng.integers(0, 5, 60), rng.random(50) < 0.2
    near = NearBoxes(list(answered), list(truths), threshold)
    wanted = match_greedy(overlap_matrix(list(answered), list(truths)), threshold, scores, rule, hard)
    assert (wanted >= 0).any()
    assert match_greedy(near, threshold, scores, rule, hard).tolist() == wanted.tolist()
    by_blocks = [near.rows(np.arange(60), pairs) for pairs in (10, 10**6)]
    for (small, small_ious), (large, large_ious) in zip(*by_blocks, strict=True):
        assert small.tolist() == large.tolist() and small_ious.tolist() == large_ious.tolist()


def test_no_box_on_either_side():
    for answered, truths in ([], []), ([[0, 0, 1, 1]], []), ([], [[0, 0, 1, 1]]):
        assert match_greedy(NearBoxes(answered, truths, 0.5)).tolist() == [-1] * len(answered)


def test_a_threshold_of_zero_is_refused():
    with pytest.raises(BadInput, match='threshold of 0'):
        match_greedy([[0.0]], 0)


def test_ten_thousand_boxes_hold_no_table_of_all_pairs():
    rng = np.random.default_rng(0)
    answered, truths = ({'tree': (list(KINDS['scattered'](rng, 10_000)), np.ones(10_000))} for _ in range(2))
    tracemalloc.start()
    scores, hits, count = match_by_label(answered, truths)['tree']
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == len(hits) == 10_000 and 0 < hits.sum() < 10_000
    assert peak < 200e6  # the table alone has 800 MB


@pytest.mark.parametrize(
    'tokens, scores',
    [
        (
            [
                ('[', -9.0),
                ('0.10', -1.0),
                (',', 0.0),
                ('0.20', -2.0),
                (',0.30,0.40', 0.0),
                (';', -9.0),
                ('0.50,0.50,0.60,0.60', -0.2),
                (']', -9.0),
            ],
            [-3 / 4, -0.2],
        ),
        ([('one', -1.0), (' ship [0.1,0.2,0.3,0.4] and [0.1,0.2,0.3,0.4]', -0.5)], [-0.5, -0.5]),
        (  # tokens may straddle a box, or be empty, or have space; what is cut at the frame is a box
            [
                ('the', -1.0),
                ('[0', -2.0),
                ('.1, ', -4.0),
                ('', -9.0),
                ('0.1,0.2,0.2];[0.', -6.0),
                ('1,0.1,1.2,0.2]', -3.0),
                ('</s>', -8.0),
            ],
            [(-2 - 4 - 9 - 6) / 4, (-6 - 3) / 2],
        ),
        ([('[0.1,0.2', -1.0), (']', 0.0)], []),
        ([('no ships', -1.0)], []),
        ([], []),
    ],
)
def test_a_score_for_each_box(tokens, scores):
    assert box_logprobs(tokens) == pytest.approx(scores)


@given(
    st.lists(st.tuples(*[st.integers(-20, 140)] * 4), max_size=6),
    st.sampled_from(['', ' [0.5,0.5] [9,9,9,9', '; and [,,,] of [no] and [[0.1,0.1,0.5,0.5]]']),
    st.integers(1, 9),
)
def test_as_many_scores_as_boxes_whatever_is_written(rows, more, size):
    text = f'[{";".join(",".join(f"{v / 100:.2f}" for v in row) for row in rows)}]{more}'
    tokens = [(text[k : k + size], -1.0) for k in range(0, len(text), size)]
    assert box_logprobs(tokens) == [-1.0] * len(parse_boxes(text, repair=True).boxes)
