"The sample of the whole Earth: splits share no ground, questions are balanced, and every answer is held against the map it came from."

import math
import re
from collections import Counter

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings, strategies as st

from earthgpt_lite.boxes.text import parse_boxes
from earthgpt_lite.data.records import Task
from earthgpt_lite.data.sample import world_map as samples
from earthgpt_lite.data.sample.objects import object_examples, optical_examples
from earthgpt_lite.data.sample.world_map import (
    COVERS,
    DATA,
    SIDE,
    SPLITS,
    balance_yes_no,
    blocks,
    caption,
    footprint,
    global_chips,
    global_examples,
    is_answerable,
    split_of,
)
from earthgpt_lite.errors import BadInput

PAIRS = [('train', 'validation'), ('train', 'test'), ('validation', 'test')]
# by MODIS class
COVER_OF = np.array(['water'] + ['forest'] * 5 + ['grassland'] * 6 + ['cropland'] * 3 + ['snow', 'desert'])


@pytest.fixture(scope='module')
def sets():
    "Some of what the quickstart takes: (whole Earth, things) of each split"
    return {
        split: global_examples(split, n) + object_examples(split, 2)
        for split, n in (('train', 700), ('validation', None), ('test', None))
    }


@pytest.fixture(scope='module')
def igbp():
    with rasterio.open(DATA / 'global_landcover.tif') as file:
        return file.read(1)


def looked_up(igbp, bounds):
    "(SIDE, SIDE) names of cover: for the middle of each cell of a chip the cell of the map it lies in, without rasterio"
    west, south, east, north = bounds
    middle = (np.arange(SIDE) + 0.5) / SIDE
    columns = np.floor((west + middle * (east - west) + 180) / 0.05).astype(int)
    rows = np.floor((90 - north + middle * (north - south)) / 0.05).astype(int)
    return COVER_OF[igbp[np.ix_(rows, columns)]]


def turns(sets, *tasks):
    return [(e, t) for examples in sets.values() for e in examples for t in e.turns if t.task in tasks]


def meets(a, b):
    "(n, m) bool: do the insides of two lists of bounds meet"
    a, b = np.array(a)[:, None], np.array(b)[None]
    return (np.maximum(a[..., :2], b[..., :2]) < np.minimum(a[..., 2:], b[..., 2:])).all(-1)


# splits


def test_no_footprint_meets_one_of_another_split(sets):
    for a, b in PAIRS:
        assert not meets(*[[e.place['bounds'] for e in sets[s]] for s in (a, b)]).any(), (a, b)


def test_no_footprint_meets_one_of_another_split_whatever_the_seed():
    drawn = {
        split: [c.bounds for seed in (1, 2, 3) for c in global_chips(split, 150, seed)] for split in SPLITS
    }
    for a, b in PAIRS:
        assert not meets(drawn[a], drawn[b]).any(), (a, b)


@given(st.floats(-89, 89), st.floats(-180, 180), st.floats(0.5, 9))
@settings(max_examples=300)
def test_a_split_holds_for_every_point_of_a_footprint(lat, lon, span):
    bounds = west, south, east, north = footprint(lat, lon, span)
    assert (east - west) * max(math.cos(math.radians(lat)), 0.15) == pytest.approx(north - south)
    split = split_of(bounds)
    if not (-180 <= west and east <= 180 and -90 <= south and north <= 90):
        assert split is None
        return
    inside = [np.linspace(low, high, 60)[1:-1] for low, high in ((south, north), (west, east))]
    kinds = {
        SPLITS[blocks()[int((y + 90) // 10), int((x + 180) // 10)]] for y in inside[0] for x in inside[1]
    }
    if split:
        assert kinds == {split}
    elif len(kinds) == 1:  # only a touch that the points missed may refuse it
        edges = [v % 10 for v in bounds]
        assert min(min(e, 10 - e) for e in edges) < max(east - west, north - south) / 30 + samples.RIM


def test_a_picture_does_not_hang_on_ground_outside_its_split(tmp_path):
    "Colours of all other blocks are turned round; not one pixel of a picture may change"
    with rasterio.open(DATA / 'global_optical.tif') as file:
        pixels, transform, crs = file.read(), file.transform, file.crs
    kinds = np.kron(blocks()[::-1], np.ones((150, 150), int))
    for number, split in enumerate(SPLITS[1:], 1):
        with rasterio.open(
            tmp_path / f'{split}.tif',
            'w',
            driver='GTiff',
            width=5400,
            height=2700,
            count=3,
            dtype='uint8',
            crs=crs,
            transform=transform,
        ) as file:
            file.write(np.where(kinds == number, pixels, 255 - pixels))
        with rasterio.open(tmp_path / f'{split}.tif') as other:
            for chip in global_chips(split, 60):
                assert (samples.crop(other, chip.bounds).transpose(1, 2, 0) == chip.image).all(), chip.bounds


def test_blocks_are_dealt_to_all_and_are_fixed():
    share = np.bincount(blocks().ravel(), minlength=3) / blocks().size
    assert share.sum() == 1 and 0.6 < share[0] < 0.75 and 0.1 < share[2] < share[1] < 0.25
    again = blocks.__wrapped__()
    assert (again == blocks()).all() and (blocks.__wrapped__(seed=1) != again).any()


def test_all_six_covers_are_in_every_split(sets):
    for split, examples in sets.items():
        assert {t.answer for e in examples for t in e.turns if t.task == Task.CLASSIFICATION} == set(
            COVERS
        ), split


def test_the_same_seed_gives_the_same_examples_and_names_are_unique(sets):
    again = global_examples('validation')
    assert (
        all(
            (a.image == b.image).all() and a.turns == b.turns and a.name == b.name
            for a, b in zip(again, sets['validation'])
        )
        and len(again) > 500
    )
    assert [e.place['bounds'] for e in global_examples('train', 20, seed=1)] != [
        e.place['bounds'] for e in global_examples('train', 20)
    ]
    names = [e.name for examples in sets.values() for e in examples]
    assert len(set(names)) == len(names)


def test_an_unknown_split_is_refused():
    with pytest.raises(BadInput, match="'dev'.*train, validation, test"):
        optical_examples('dev')


# questions


def test_yes_and_no_are_balanced_within_every_wording(sets):
    for split, examples in sets.items():
        said = Counter(
            (t.question, t.answer)
            for e in examples
            for t in e.turns
            if t.task in (Task.PRESENCE, Task.COMPARISON)
        )
        assert {a for _, a in said} == {'yes', 'no'} and len(said) > 150, split
        uneven = [q for q, _ in said if said[q, 'yes'] != said[q, 'no']]
        assert not uneven, (split, uneven[:3])


def test_no_picture_is_asked_the_same_twice(sets):
    for examples in sets.values():
        for e in examples:
            assert len({t.question for t in e.turns}) == len(e.turns) and all(
                n <= (4 if task in (Task.PRESENCE, Task.COMPARISON) else 1)
                for task, n in Counter(t.task for t in e.turns).items()
            )


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=3),
        st.tuples(st.sets(st.integers(0, 9)), st.sets(st.integers(10, 19))),
        max_size=6,
    ),
    st.integers(1, 3),
)
def test_dealing_keeps_balance_and_room(candidates, room):
    dealt = balance_yes_no(
        {q: (sorted(a), sorted(b)) for q, (a, b) in candidates.items()}, room, np.random.default_rng(0)
    )
    said, used = Counter((q, answer) for _, q, answer in dealt), Counter(i for i, _, _ in dealt)
    assert all(said[q, 'yes'] == said[q, 'no'] for q in candidates)
    assert all(i in candidates[q][answer == 'no'] for i, q, answer in dealt) and len(set(dealt)) == len(dealt)
    assert max(used.values(), default=0) <= room


# truth, held against the map

KNOWN = {}


def shares_of(igbp, example):
    bounds = example.place['bounds']
    if bounds not in KNOWN:
        names, counts = np.unique(looked_up(igbp, bounds), return_counts=True)
        KNOWN[bounds] = dict.fromkeys(COVERS, 0.0) | dict(zip(names.tolist(), counts / SIDE**2))
    return KNOWN[bounds]


def named(question):
    return [n for _, n in sorted((question.find(c), c) for c in COVERS if c in question)]


def test_presence_is_clear_on_the_map(sets, igbp):
    found = turns(sets, Task.PRESENCE)
    assert len(found) > 1000
    for e, t in found:
        (kind,), share = named(t.question), shares_of(igbp, e)
        assert share[kind] > 0.1 - 0.005 if t.answer == 'yes' else share[kind] < 0.01 + 0.005, (
            e.name,
            t,
            share,
        )


def test_comparison_is_clear_on_the_map(sets, igbp):
    found = turns(sets, Task.COMPARISON)
    assert len(found) > 1000
    for e, t in found:
        a, b = named(t.question)
        more = shares_of(igbp, e)[a] - shares_of(igbp, e)[b]
        assert more > 0.095 if t.answer == 'yes' else more < -0.095, (e.name, t)


def test_dominant_cover_is_the_largest_and_clear_outside_training(sets, igbp):
    found = turns(sets, Task.CLASSIFICATION)
    assert len(found) > 1000
    for e, t in found:
        share = shares_of(igbp, e)
        assert share[t.answer] > (0.395 if e.split == 'train' else 0.595) and share[t.answer] == max(
            share.values()
        ), (e.name, t)


def test_caption_names_what_covers_a_tenth(sets, igbp):
    for e, t in turns(sets, Task.CAPTION):
        share = shares_of(igbp, e)
        said = re.findall('|'.join(COVERS), t.answer)
        assert all(share[c] > 0.09 for c in said) and all(share[c] < 0.11 for c in COVERS if c not in said), (
            e.name,
            t,
        )
        if e.split != 'train':
            assert not any(0.065 < s < 0.095 for s in share.values()), (e.name, t)
            assert all(share[a] - share[b] > 0.04 for a, b in zip(said, said[1:])) and (
                len(said) < 2 or abs(share[said[0]] - 0.6) > 0.04
            ), (e.name, t)
        assert (
            all(share[a] > share[b] - 0.01 for a, b in zip(said, said[1:]))
            and ('mostly' in t.answer) == (len(said) > 1 and share[said[0]] >= 0.6)
            or abs(share[said[0]] - 0.6) < 0.005
        )


@pytest.mark.parametrize(
    'shares, said',
    [
        ((1, 0, 0, 0, 0, 0), 'only water in this image.'),
        ((0.7, 0.3, 0, 0, 0, 0), 'mostly water and forest.'),
        ((0.3, 0.2, 0.5, 0, 0, 0), 'grassland, water and forest.'),
        ((0.05, 0.05, 0, 0, 0.1, 0.8), 'only desert in this image.'),
    ],
)
def test_captions(shares, said):
    assert caption(np.array(shares)) == said


def test_the_picture_is_the_map_at_that_place(sets):
    "Mean colours of a chip against native pixels of Blue Marble under its footprint"
    with rasterio.open(DATA / 'global_optical.tif') as file:
        pixels = file.read()
    for e in [e for e in sets['validation'] if e.name.startswith('global')][::20]:
        west, south, east, north = e.place['bounds']
        near = pixels[
            :,
            int((90 - north) * 15) : math.ceil((90 - south) * 15),
            int((west + 180) * 15) : math.ceil((east + 180) * 15),
        ]
        assert np.abs(near.mean((1, 2)) - e.image.mean((0, 1))).max() < 6, e.name


def test_snow_that_the_map_does_not_know_is_not_asked(sets):
    white = np.full((SIDE, SIDE, 3), 200, 'uint8')
    chip = lambda image, kind: samples.LandCoverChip(
        image, np.full((SIDE, SIDE), kind, 'uint8'), (0, 0, 1, 1), 'train'
    )
    assert (
        not is_answerable(chip(white, 2))
        and is_answerable(chip(white, 4))
        and is_answerable(chip(white // 4, 2))
        and not is_answerable(chip(white // 4, 0))
    )
    speck = white // 4
    speck[:2] = 200  # 3 % white, no snow on the map
    assert not samples._can_be_asked(chip(speck, 2), 4) and samples._can_be_asked(chip(white // 4, 2), 4)
    for e, t in turns(sets, Task.PRESENCE):
        if 'snow' in t.question and t.answer == 'no':
            assert (e.image.min(-1) > 150).mean() < 0.02, e.name


# islands and lakes


def component(mask, y, x):
    "Rows and columns of the piece of a mask around a cell, by flooding"
    seen, edge = {(y, x)}, [(y, x)]
    while edge:
        y, x = edge.pop()
        for p in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
            if 0 <= min(p) and max(p) < SIDE and mask[p] and p not in seen:
                seen.add(p)
                edge.append(p)
    return np.array(sorted(seen))


def test_boxes_are_where_the_map_has_the_thing(sets, igbp):
    found = turns(sets, Task.GROUNDING)[::3]
    assert len(found) > 150
    for e, t in found:
        kind, (got,) = ('lake' if 'lake' in t.question else 'island'), parse_boxes(t.answer).boxes
        water = looked_up(igbp, e.place['bounds']) == 'water'
        mask = water if kind == 'lake' else ~water
        x1, y1, x2, y2 = np.rint(e.place['box'] * SIDE).astype(int)
        assert np.abs(got.box - e.place['box']).max() <= 0.00501, (e.name, t)
        # the thing reaches the top of its box; try each cell there
        top = component(mask, y1, x1 + np.flatnonzero(mask[y1, x1:x2])[0])
        tries = [top] + [
            component(mask, y1, x1 + x)
            for x in np.flatnonzero(mask[y1, x1:x2])[1:]
            if [y1, x1 + x] not in top.tolist()
        ]
        sides = [(*p.min(0)[::-1], *p.max(0)[::-1] + 1) for p in tries]
        assert (x1, y1, x2, y2) in sides, (e.name, t, sides)
        assert (
            min(x1, y1) > 0 and max(x2, y2) < SIDE and 0.04 < np.prod([x2 - x1, y2 - y1]) / SIDE**2 < 0.6
        ), e.name


def test_region_captions_are_true(sets, igbp):
    found = turns(sets, Task.REGION_CAPTION)
    assert len(found) > 50
    for e, t in found:
        kind, land = re.fullmatch(r'an? (lake|island) (?:in|of) (\w+)\.', t.answer).groups()
        names, (x1, y1, x2, y2) = (
            looked_up(igbp, e.place['bounds']),
            np.rint(e.place['box'] * SIDE).astype(int),
        )
        near = (
            names[y1:y2, x1:x2]
            if kind == 'island'
            else names[max(0, y1 - 3) : y2 + 3, max(0, x1 - 3) : x2 + 3]
        )
        assert (near == land).sum() > 0.5 * (near != 'water').sum(), (e.name, t)
        assert np.abs(parse_boxes(t.question).boxes[0].box - e.place['box']).max() <= 0.00501
