"Painted changes and two sensors: truth by construction, no ground in two splits, no answer from one picture."

import subprocess
import sys
from collections import Counter
import numpy as np
import pytest
import rasterio
from earthgpt_lite.boxes.iou import iou
from earthgpt_lite.boxes.text import parse_boxes
from earthgpt_lite.data.records import Task
from earthgpt_lite.data.sample import pairs
from earthgpt_lite.data.sample.change import ANYTHING, QUESTIONS, WHAT, events, is_yes, mask_box, same_twice
from earthgpt_lite.data.sample.pairs import (
    CONTRAST,
    KINDS,
    PAINTED,
    SAME_GROUND,
    SOURCES,
    donors,
    grounds,
    half_question,
    paint,
    place_shape,
    plan_strokes,
    sensor_pairs,
    synthetic_pairs,
    texture,
)
from earthgpt_lite.data.sample.world_map import DATA, RIM, SIDE, SPLITS, split_of
from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.chips import Sensor


@pytest.fixture(scope='module')
def painted():
    return {(s, split): synthetic_pairs(split, 80, 3, s) for s in SOURCES for split in SPLITS}


@pytest.fixture(scope='module')
def sensed():
    return {split: sensor_pairs(split, 150) for split in SPLITS}


def meet(a, b):
    "Whether any of the windows a (column, row, side) meets one of b"
    a, b = (np.array(sorted(set(windows))) for windows in (a, b))
    x, y = (np.c_[w[:, :2], w[:, :2] + w[:, 2:]] for w in (a, b))
    x, y = x[:, None], y[None]
    return (np.maximum(x[..., :2], y[..., :2]) < np.minimum(x[..., 2:], y[..., 2:])).all(-1).any()


def test_no_ground_of_two_splits(painted, sensed):
    for a, b in (('train', 'validation'), ('train', 'test'), ('validation', 'test')):
        windows = [[e.place['window'] for e in painted['virginia', s]] for s in (a, b)]
        assert not meet(*windows)
        windows = [[w for e in sensed[s] for w in e.place['windows']] for s in (a, b)]
        assert not meet(*windows)
        for source in SOURCES:
            blocks = [{e.place['block'] for e in painted[source, s]} for s in (a, b)]
            assert not blocks[0] & blocks[1]
    for split in SPLITS:
        for e in painted['world', split]:
            west, south, east, north = e.place['bounds']
            assert split_of((west, south, east, north)) == split and RIM > 0


def test_what_is_painted_with_comes_from_the_split_itself():
    for source in SOURCES:
        for split in ('validation', 'test'):
            whole = [ground.image for ground in grounds(source, split)]
            for square in donors(source, split, 'water')[:5]:
                d = len(square)
                views = (np.lib.stride_tricks.sliding_window_view(i[..., 0], (d, d)) for i in whole)
                assert any((view == square[..., 0]).all((-1, -2)).any() for view in views)
            filled = texture(np.random.default_rng(0), source, split, 'open land')
            assert filled.shape == (SIDE, SIDE, 3)
            colours = {
                tuple(c) for square in donors(source, split, 'open land') for c in square.reshape(-1, 3)
            }
            assert {tuple(c) for c in filled.reshape(-1, 3).astype(int)} <= colours


def test_yes_and_no_are_balanced_in_every_wording(painted):
    wordings = {q for hows in QUESTIONS.values() for qs in hows.values() for q in qs} | {ANYTHING}
    for key, examples in painted.items():
        said = Counter((t.question, t.answer) for e in examples for t in e.turns if t.task == Task.PRESENCE)
        assert {q for q, _ in said} == wordings, key
        assert all(said[q, 'yes'] == said[q, 'no'] for q in wordings), key


def test_answers_follow_from_what_was_painted(painted):
    other_kind = 0
    for e in (e for examples in painted.values() for e in examples):
        states, happened = e.place['states'], events(e.place['states'], e.words)
        for t in e.turns:
            if t.task == Task.PRESENCE:
                assert (t.answer == 'yes') == is_yes(t.question, states, e.words)
                changed = {kind for kind, _ in happened}
                about_lake = t.question in sum(QUESTIONS['lake'].values(), ())
                other_kind += about_lake and bool(changed) and 'lake' not in changed
        assert sum(t.task == Task.GROUNDING for t in e.turns) == len(happened)
        assert len(states) >= 2  # something else may change as well
        assert sum(t.question == WHAT for t in e.turns) == 1
    assert other_kind > 100  # a change, and the answer is no


@pytest.mark.parametrize('source', SOURCES)
def test_boxes_are_those_of_the_noiseless_difference(source):
    alone = 0
    for e in synthetic_pairs('validation', 60, 1, source, jitter=0):
        difference = np.abs(e.images[0].astype(int) - e.images[1]).sum(-1)
        happened = events(e.place['states'], e.words)
        assert bool(happened) == bool(difference.any())
        if len(happened) != 1:
            continue
        (turn,) = (t for t in e.turns if t.task == Task.GROUNDING)
        said = np.array(parse_boxes(turn.answer).boxes[0].box)
        assert np.abs(mask_box(difference > 0) - said).max() * SIDE < 5  # the edge is soft
        assert iou(mask_box(difference > difference.max() / 10), said) > 0.5
        x1, y1, x2, y2 = np.round(said * SIDE).astype(int)
        assert difference[y1:y2, x1:x2].sum() > 0.9 * difference.sum()
        alone += 1
    assert alone > 15


def test_strokes_lie_on_their_ground_apart_and_stand_out():
    rng = np.random.default_rng(0)
    both = 0
    for ground in grounds('virginia', 'train')[:300]:
        strokes = plan_strokes(rng, ground, 'virginia', 'train')
        for kind, stroke in strokes.items():
            filling, on = PAINTED[kind]
            assert np.isin(ground.cover[stroke.mask], [KINDS.index(k) for k in on]).mean() >= 0.9
            apart = stroke.fill[stroke.mask].mean(0) - ground.image[stroke.mask].mean(0)
            assert np.abs(apart).sum() >= CONTRAST
            done = paint(ground, {kind: stroke})
            assert (done.cover[stroke.mask] == KINDS.index(filling)).all()
            still = stroke.soft[..., 0] == 0
            assert (done.image[still] == ground.image[still]).all()
        if len(strokes) > 1:
            assert sum(stroke.mask.astype(int) for stroke in strokes.values()).max() == 1
            both += 1
    assert both > 5


def test_no_shape_where_there_is_no_room():
    rng = np.random.default_rng(0)
    assert place_shape(rng, np.zeros((SIDE, SIDE), bool)) is None
    stripes = np.zeros((SIDE, SIDE), bool)
    stripes[::4] = True
    assert place_shape(rng, stripes) is None
    assert place_shape(rng, np.ones((SIDE, SIDE), bool)).any()


def test_unchanged_pairs_differ_too(painted):
    for examples in painted.values():
        still = [e for e in examples if not events(e.place['states'], e.words)]
        assert len(still) > 5
        assert all((e.images[0] != e.images[1]).mean() > 0.5 for e in still)


def test_either_cannot_be_told_from_one_state(painted):
    "What one picture shows of a kind says nothing about whether it changed"
    for i in (0, 1):
        shown = Counter()
        for e in (e for examples in painted.values() for e in examples):
            for first, second in e.place['states'].values():
                shown[(first, second)[i], first != second] += 1
        share = [shown[bit, True] / (shown[bit, True] + shown[bit, False]) for bit in (0, 1)]
        assert all(0.4 < s < 0.6 for s in share)


def test_the_same_seed_paints_the_same_and_names_are_unique(painted):
    first = painted['virginia', 'test']
    again, other = synthetic_pairs('test', 80, 3), synthetic_pairs('test', 10, 4)
    assert [(e.name, e.words, e.turns) for e in again] == [(e.name, e.words, e.turns) for e in first]
    assert all((a.images[i] == b.images[i]).all() for a, b in zip(again, first) for i in (0, 1))
    assert any((a.images[0] != b.images[0]).any() for a, b in zip(other, first))
    names = [e.name for examples in [*painted.values(), other] for e in examples]
    assert len(set(names)) == len(names) and all(name.startswith('synthetic') for name in names)
    assert {t.answer for e in first for t in same_twice(e).turns} == {'no', 'nothing.'}


def test_same_ground_is_asked_of_each_picture_once_with_either_answer(sensed):
    for examples in sensed.values():
        for i in (0, 1):
            said = Counter()
            for e in examples:
                for t in e.turns:
                    if t.question == SAME_GROUND:
                        assert (t.answer == 'yes') == (e.place['windows'][0] == e.place['windows'][1])
                        said[e.place['windows'][i], e.images[i].tobytes(), t.answer] += 1
            assert len(said) == len(examples) and set(said.values()) == {1}
            assert Counter(answer for *_, answer in said) == {'yes': len(said) // 2, 'no': len(said) // 2}
        strange = [e.place['windows'] for e in examples if e.place['windows'][0] != e.place['windows'][1]]
        assert all(not meet([a], [b]) for a, b in strange)
        assert all(e.sensors == (Sensor.OPTICAL, Sensor.INFRARED) for e in examples)


def test_halves_are_what_both_scenes_say_and_balanced(sensed):
    with rasterio.open(DATA / pairs.THERMAL) as file:
        kelvin = file.read(1) * file.scales[0] + file.offsets[0]
    for examples in sensed.values():
        said = Counter()
        for e in examples:
            c, r, side = e.place['windows'][1]
            warmth = kelvin[r : r + side, c : c + side]
            for t in e.turns:
                if t.task != Task.COMPARISON:
                    continue
                axis = 0 if 'left' in t.question else 1
                light, warm = (np.array_split(v, 2, 1 - axis) for v in (e.images[0].mean(-1), warmth))
                same = (light[0].mean() > light[1].mean()) == (warm[0].mean() > warm[1].mean())
                assert (t.answer == 'yes') == (same == ('warmer' in t.question))
                assert abs(warm[0].mean() - warm[1].mean()) >= 0.69
                said[t.question, e.place['cloudy'], t.answer] += 1
        assert {q for q, *_ in said} == {half_question(a, w) for a in (0, 1) for w in (True, False)}
        assert all(said[q, sky, 'yes'] == said[q, sky, 'no'] for q, sky, _ in said)


def test_sensor_pairs_follow_the_seed_and_have_names_of_their_own(sensed):
    again = sensor_pairs('train', 150)
    assert [(e.name, e.turns) for e in again] == [(e.name, e.turns) for e in sensed['train']]
    names = [e.name for examples in sensed.values() for e in examples]
    assert len(set(names)) == len(names)


def test_bad_input_is_named():
    with pytest.raises(BadInput, match='virginia'):
        synthetic_pairs('train', 1, source='mars')
    with pytest.raises(BadInput, match='validation'):
        synthetic_pairs('dev', 1)
    with pytest.raises(BadInput, match='validation'):
        sensor_pairs('dev')


def test_nothing_is_drawn_at_import():
    code = 'import sys; sys.modules["matplotlib"] = None; import earthgpt_lite.data.sample.pairs'
    subprocess.run([sys.executable, '-c', code], check=True)


def test_changes_of_a_split_are_of_its_blocks():
    from earthgpt_lite.data.sample.pairs import change_examples
    from earthgpt_lite.data.sample.sites import spatial_split
    from earthgpt_lite.data.sample.world_map import SPLITS

    for split in ('train', 'validation'):
        made = change_examples(split, 20)
        kinds = {pair.name.split('/')[0] for pair in made}
        assert kinds == {'synthetic_change', 'loss'} and {pair.split for pair in made} == {split}
        for pair in made:
            if pair.name.startswith('loss/'):
                _, row, column = pair.place['block'].split('-')
                assert SPLITS[spatial_split('sabah')[int(row), int(column)]] == split
