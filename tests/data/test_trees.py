"Trees: boxes, counts and scenes are held against the labels, by a count of their own."

from collections import Counter
import json
import numpy as np
import pytest
from PIL import Image
from earthgpt_lite.boxes.iou import iou_matrix
from earthgpt_lite.boxes.text import parse_boxes
from earthgpt_lite.data.records import Task
from earthgpt_lite.data.sample import trees
from earthgpt_lite.data.sample.world_map import DATA, SPLITS
from earthgpt_lite.errors import BadInput

LABELS = json.loads((DATA / 'aerial_boxes.json').read_text())


@pytest.fixture(scope='module')
def sets():
    return {split: trees.tree_examples(split, n=600) for split in SPLITS}


def turns(sets, *tasks):
    return [(e, t) for examples in sets.values() for e in examples for t in e.turns if t.task in tasks]


def moved(x, y, quarter, mirror):
    "A point of 0..1 in the picture turned to the left by quarters, then mirrored"
    for _ in range(quarter):
        x, y = y, 1 - x
    return (1 - x if mirror else x), y


def inside(e):
    "(share inside, box cut at the rim in 0..1 of the picture as it is shown) of every tree that touches the chip, one by one"
    c, r, side = e.place['window']
    for x1, y1, x2, y2 in LABELS[e.place['file']]:
        a, b, u, v = max(x1, c), max(y1, r), min(x2, c + side), min(y2, r + side)
        if a < u and b < v:
            (left, right), (top, bottom) = map(
                sorted,
                zip(
                    moved((a - c) / side, (b - r) / side, *e.place['dihedral']),
                    moved((u - c) / side, (v - r) / side, *e.place['dihedral']),
                ),
            )
            yield (u - a) * (v - b) / ((x2 - x1) * (y2 - y1)), (left, top, right, bottom)


def test_no_footprint_meets_one_of_another_split(sets):
    for name in trees.TREES:
        seen = {}
        for split, examples in sets.items():
            for e in examples:
                if e.place['file'] == name:
                    c, r, s = e.place['window']
                    seen.setdefault(split, np.zeros(trees.aerial(name).shape[:2], bool))[
                        r : r + s, c : c + s
                    ] = True
        assert (sum(m.astype(int) for m in seen.values()) <= 1).all()


def test_counts_are_true_and_certain(sets):
    found = turns(sets, Task.COUNTING)
    assert len(found) > 200 and {t.answer for _, t in found} == set('0123')
    for e, t in found:
        parts = [s for s, _ in inside(e)]
        assert int(t.answer) == sum(s >= 0.5 for s in parts) and not any(0.2 < s < 0.5 for s in parts)


def test_counts_are_dealt_and_thresholds_true(sets):
    for split, examples in sets.items():
        tally = Counter(t.answer for e in examples for t in e.turns if t.task == Task.COUNTING)
        assert tally.most_common(3)[0][1] == tally.most_common(3)[2][1], split
    found = turns(sets, Task.VQA)
    assert len(found) > 300
    for e, t in found:
        more = sum(s >= 0.5 for s, _ in inside(e)) > next(
            n for n, word in enumerate(trees.NUMBERS) if f'than {word} tree' in t.question
        )
        assert t.answer == ('yes' if more else 'no')


def test_pictures_are_turned_with_their_boxes(sets):
    ways = Counter(e.place['dihedral'] for e in sets['train'])
    assert len(ways) == 8 and {e.place['dihedral'] for e in sets['validation']} == {(0, False)}
    for e in sets['train'][::40]:
        c, r, side = e.place['window']
        small = lambda picture: np.asarray(
            Image.fromarray(np.ascontiguousarray(picture)).resize((8, 8), Image.BOX), float
        )
        shown, ground = small(e.image), small(trees.aerial(e.place['file'])[r : r + side, c : c + side])
        centres = (np.arange(8) + 0.5) / 8
        there = [[moved(x, y, *e.place['dihedral']) for x in centres] for y in centres]
        assert np.abs([[shown[int(v * 8), int(u * 8)] for u, v in row] for row in there] - ground).max() < 6


def test_detections_hold_every_tree(sets):
    for e, t in turns(sets, Task.DETECTION):
        read, true = parse_boxes(t.answer), np.array([b for s, b in inside(e) if s >= 0.5])
        assert not read.unread and len(read.boxes) == len(true)
        assert (iou_matrix(np.array([b.box for b in read.boxes]), true).max(1) > 0.7).all()
        assert {b.label for b in read.boxes} == {'tree'}


def test_grounding_means_one_tree(sets):
    found = turns(sets, Task.GROUNDING)
    assert len(found) > 100
    for e, t in found:
        true = np.array([b for s, b in inside(e) if s >= 0.5])
        area = np.prod(true[:, 2:] - true[:, :2], 1)
        overlap = iou_matrix(parse_boxes(t.answer).boxes[0].box[None], true)[0]
        assert overlap.argmax() == area.argmax() and overlap.max() > 0.7
        assert ('largest' in t.question) == (len(true) > 1)


def test_regions_are_what_they_are_called(sets):
    found = turns(sets, Task.REGION_CAPTION)
    assert {t.answer for _, t in found} == {
        'a large tree crown.',
        'a small tree crown.',
        'open ground without trees.',
    }
    for e, t in found:
        box, side = parse_boxes(t.question).boxes[0].box, e.place['window'][2]
        near = iou_matrix(box[None], np.array([b for _, b in inside(e)]).reshape(-1, 4))
        if t.answer == 'open ground without trees.':
            assert near.size == 0 or near.max() < 0.1
        else:
            assert near.max() > 0.7 and ((box[2:] - box[:2]).min() * side > 40) == (
                t.answer == 'a large tree crown.'
            )


def visible(e):
    "Whether a tree reaches at least one cell of the 32 x 32 grid into the chip"
    return any(min(u - a, v - b) > 1 / 32 for _, (a, b, u, v) in inside(e))


def test_presence_and_scenes(sets):
    for e, t in turns(sets, Task.PRESENCE):
        assert (t.answer == 'yes') == visible(e)
    for e, t in turns(sets, Task.CLASSIFICATION, Task.CAPTION):
        if t.answer.startswith('open ground'):
            assert not visible(e)
        elif 'woodland' in t.answer:
            assert e.place['share'] > 0.35
        else:
            assert any(s >= 0.5 for s, _ in inside(e)) and e.place['share'] < 0.36 and t.task == Task.CAPTION


def test_more_woodland_than_open_ground(sets):
    found = turns(sets, Task.COMPARISON)
    assert len(found) > 40
    for e, t in found:
        y, x = (np.indices((64, 64)) + 0.5) / 64
        wood = np.any(
            [(a < x) & (x < u) & (b < y) & (y < v) for _, (a, b, u, v) in inside(e)]
            or [np.zeros((64, 64), bool)],
            0,
        ).mean()
        first = 'wood' if t.question.index('woodland') < t.question.index('open ground') else 'open'
        assert abs(wood - 0.5) > 0.02 and (t.answer == 'yes') == ((wood > 0.5) == (first == 'wood'))


def test_captions_count_to_three(sets):
    said = Counter()
    for e, t in turns(sets, Task.CAPTION):
        if ' tree' in t.answer and 'without' not in t.answer:
            n, word = sum(s >= 0.5 for s, _ in inside(e)), t.answer.split()[0]
            assert word == (['no', 'one', 'two', 'three'][n] if n < 4 else 'several')
            said[word] += 1
    assert min(said[w] for w in ('one', 'two', 'three', 'several')) > 5


def test_yes_and_no_are_balanced(sets):
    for examples in sets.values():
        said = Counter((t.question, t.answer) for e in examples for t in e.turns if t.answer in ('yes', 'no'))
        assert said and all(said[q, 'yes'] == said[q, 'no'] for q, _ in said)


def test_boxes_of_the_file():
    assert sum(map(len, LABELS.values())) == 914
    for name, boxes in trees.tree_boxes().items():
        h, w = trees.aerial(name).shape[:2]
        assert (
            (boxes[:, :2] >= 0).all()
            and (boxes[:, 2] <= w).all()
            and (boxes[:, 3] <= h).all()
            and (boxes[:, 2:] > boxes[:, :2]).all()
        )


def test_wrong_split_is_answered_with_the_right_ones():
    with pytest.raises(BadInput, match='validation'):
        trees.tree_examples('dev')
