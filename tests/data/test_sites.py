"Four sites: splits share no ground, questions are balanced, and every answer is held against the map it came from."

from collections import Counter
import numpy as np
import pytest
import rasterio
from hypothesis import given, settings, strategies as st
from earthgpt_lite.boxes.iou import iou
from earthgpt_lite.boxes.text import parse_boxes
from earthgpt_lite.data.records import Task
from earthgpt_lite.data.sample import sites
from earthgpt_lite.data.sample.world_map import DATA, SIDE, SPLITS
from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.reading import read_scene


@pytest.fixture(scope='module')
def sets():
    return {split: sites.all_site_examples(split, n=0.2) for split in SPLITS}


def turns(sets, *tasks):
    return [(e, t) for examples in sets.values() for e in examples for t in e.turns if t.task in tasks]


def shares(example):
    "Share of each kind by name, read anew from the file with a rasterio window"
    c, r, side = example.place['window']
    with rasterio.open(DATA / sites.SITES[example.place['site']].cover) as f:
        tags, cover = f.tags(), f.read(1, window=((r, r + side), (c, c + side)))
    return {tags[f'CLASS_{i}']: float((cover == i).mean()) for i in range(7) if f'CLASS_{i}' in tags}


def words_of(question, names):
    "The kinds named in a question, in order; longer names first, so that no name is found within another"
    at = sorted((question.find(n), n) for n in names if n in question)
    return [n for _, n in at]


def test_no_footprint_meets_one_of_another_split(sets):
    for name in sites.SITES:
        of = lambda split: np.array(
            [
                (c, r, c + s, r + s)
                for c, r, s in {e.place['window'] for e in sets[split] if e.place['site'] == name}
            ]
        )
        for a, b in (('train', 'validation'), ('train', 'test'), ('validation', 'test')):
            x, y = of(a)[:, None], of(b)[None]
            assert not (
                (np.maximum(x[..., :2], y[..., :2]) < np.minimum(x[..., 2:], y[..., 2:])).all(-1)
            ).any(), (name, a, b)


def test_no_place_on_the_map_is_in_two_splits(sets):
    for name in sites.SITES:
        with rasterio.open(DATA / sites.SITES[name].cover) as f:
            step = f.res[0] / 2
        box = lambda split: np.array([e.place['bounds'] for e in sets[split] if e.place['site'] == name])
        x, y = box('train')[:, None], box('test')[None]
        assert not (
            (np.maximum(x[..., :2], y[..., :2]) < np.minimum(x[..., 2:], y[..., 2:]) - step).all(-1)
        ).any()


@pytest.mark.parametrize('name', sites.SITES)
def test_every_split_has_every_common_kind(name):
    cover, labels = sites.ground_truth(name)
    for split in SPLITS:
        held = sum(
            np.bincount(cover[r : r + s, c : c + s].ravel(), minlength=len(labels))
            for c, r, s in sites.chip_windows(name, split)
        )
        assert all(held[k] for k in sites.asked_classes(name)), split


def test_yes_and_no_are_balanced_within_every_wording(sets):
    for split, examples in sets.items():
        said = Counter(
            (e.place['site'], t.question, t.answer)
            for e in examples
            for t in e.turns
            if t.answer in ('yes', 'no')
        )
        assert said and all(said[s, q, 'yes'] == said[s, q, 'no'] for s, q, _ in said), split


def test_presence_is_what_the_map_says(sets):
    found = turns(sets, Task.PRESENCE)
    assert len(found) > 500
    for e, t in found:
        s = shares(e)
        (kind,) = words_of(t.question, s)
        assert s[kind] > 0.1 if t.answer == 'yes' else s[kind] < 0.01, (e.name, t, s)


def test_comparison_is_what_the_map_says(sets):
    found = turns(sets, Task.COMPARISON)
    assert len(found) > 500
    for e, t in found:
        s = shares(e)
        a, b = words_of(t.question, s)
        assert (s[a] - s[b] > 0.1) if t.answer == 'yes' else (s[b] - s[a] > 0.1), (e.name, t, s)


def test_classification_is_the_dominant_kind(sets):
    for e, t in turns(sets, Task.CLASSIFICATION):
        s = shares(e)
        assert t.answer == max(s, key=s.get) and s[t.answer] > (0.5 if e.split == 'train' else 0.6)


def test_captions_name_what_covers_a_tenth(sets):
    for e, t in turns(sets, Task.CAPTION):
        s = {k: v for k, v in shares(e).items() if k not in sites.UNASKED}
        assert set(words_of(t.answer, s)) == {k for k, v in s.items() if v > 0.1}
        assert t.answer.startswith('only') == (sum(v > 0.1 for v in s.values()) == 1)
        large = sorted(v for v in s.values() if v > 0.1)
        if e.split != 'train':
            assert all(b - a >= 0.05 for a, b in zip(large, large[1:])) and (
                len(large) < 2 or abs(large[-1] - 0.6) >= 0.05
            ), (e.name, t)


def test_boxes_lie_on_what_they_name(sets):
    found = turns(sets, Task.GROUNDING)
    assert len(found) > 20
    for e, t in found:
        x1, y1, x2, y2 = parse_boxes(t.answer).boxes[0].box
        c, r, side = e.place['window']
        a, b, l, u = (int(round(v * side)) for v in (y1, y2, x1, x2))
        scene = read_scene(DATA / e.place['file'], window=(c, r, side, side))
        if e.place['site'] == 'alabama':
            middle, here = np.median(scene.pixels), scene.pixels[0, a:b, l:u]
            share = (here < middle - 4).mean() if 'cold' in t.question else (here > middle + 4).mean()
        else:
            cover, labels = sites.ground_truth(e.place['site'])
            kind = next(k for k, words in sites.SITES[e.place['site']].objects.items() if words in t.question)
            share = (cover[r : r + side, c : c + side][a:b, l:u] == labels.index(kind)).mean()
        assert share > 0.4, (e.name, t)


def test_grounding_is_no_constant_box(sets):
    boxes = np.array([parse_boxes(t.answer).boxes[0].box for _, t in turns(sets, Task.GROUNDING)])
    best = max(float((iou(b, boxes) > 0.5).mean()) for b in boxes)
    assert best < 0.5, 'one box answers most grounding questions'


def test_warmer_half_is_warmer(sets):
    found = turns(sets, Task.VQA)
    assert found
    for e, t in found:
        c, r, side = e.place['window']
        left, right = np.array_split(
            read_scene(DATA / e.place['file'], window=(c, r, side, side)).pixels[0], 2, axis=1
        )
        assert (left.mean() > right.mean()) == (t.answer == 'yes') and abs(left.mean() - right.mean()) >= 2


def test_thermal_truth_agrees_with_the_clouds_of_landsat():
    kelvin = read_scene(DATA / 'landsat8_alabama_thermal.tif').pixels[0]
    with rasterio.open(DATA / 'landsat8_alabama_cover.tif') as f:
        cover, quality = f.read()
    # stored in steps of 0.05
    assert kelvin[cover == 1].max() < 283.03 and kelvin[cover == 2].min() > 287.47
    assert (quality[cover == 2] == 1).all()
    assert (cover[quality == 3] == 1).mean() > 0.75


def test_radar_truth_agrees_with_polygons_drawn_by_hand():
    with rasterio.open(DATA / 'sentinel1_florida_cover.tif') as f:
        cover, hand = f.read()
    both = (cover > 0) & (hand > 0)
    assert both.sum() > 1500 and (cover == hand)[both].mean() > 0.99


def test_images_are_small_squares_with_a_sensor(sets):
    for examples in sets.values():
        assert {str(e.sensor) for e in examples} == {'optical', 'sar', 'infrared'}
        assert all(e.image.shape == (SIDE, SIDE, 3) and e.image.dtype == np.uint8 for e in examples)
    assert len({e.name for s in sets.values() for e in s}) == sum(map(len, sets.values()))


def test_same_seed_same_examples():
    a, b = (sites.site_examples('sabah', 'train', 40, seed=3) for _ in range(2))
    assert [e.turns for e in a] == [e.turns for e in b] and all(
        (x.image == y.image).all() for x, y in zip(a, b)
    )
    assert [e.place['window'] for e in a] != [
        e.place['window'] for e in sites.site_examples('sabah', 'train', 40, seed=4)
    ]


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(4, 20), st.integers(4, 20))
def test_lone_piece_finds_a_rectangle(x, y, w, h):
    mask = np.zeros((64, 64), bool)
    mask[y : y + h, x : x + w] = True
    box = sites.isolated_component(mask, least=0, most=1)
    assert np.allclose(box * 64, [x, y, x + w, y + h])
    # a frame that touches the rim and is a rival by its area
    mask[63, :] = mask[:, 63] = True
    assert sites.isolated_component(mask, 0, 1) is None or w * h > 1.7 * 127


def test_wrong_names_are_answered_with_the_right_ones():
    with pytest.raises(BadInput, match='virginia'):
        sites.find_site('mars')
    with pytest.raises(BadInput, match='validation'):
        sites.all_site_examples('dev')
