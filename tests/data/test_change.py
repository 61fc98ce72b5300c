"Forest loss between two dates: folds share no ground, answers follow from the map and turn with the order."

from collections import Counter
import numpy as np
import pytest
import rasterio
from hypothesis import given, strategies as st
from earthgpt_lite.boxes.text import parse_boxes
from earthgpt_lite.data.records import Task, Turn
from earthgpt_lite.data.sample import change
from earthgpt_lite.data.sample.change import (
    ANYTHING,
    EVENTS,
    HOW_MUCH,
    PERIODS,
    PairExample,
    QUESTIONS,
    RIM,
    WHAT,
    describe_change,
    hidden,
    holds,
    is_yes,
    largest_component,
    loss_examples,
    loss_folds,
    loss_windows,
    mask_box,
    same_twice,
    swapped,
)
from earthgpt_lite.data.sample.sites import find_site
from earthgpt_lite.data.sample.world_map import DATA, SIDE
from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.chips import GREY, Sensor

FORTH, BACK = ('before', 'after'), ('after', 'before')
bits = st.tuples(st.integers(0, 1), st.integers(0, 1))


@pytest.fixture(scope='module')
def folds():
    return [(loss_examples(fold, 'train', n=80), loss_examples(fold, 'test')) for fold in range(5)]


def by_day(example):
    return example.images if example.words == FORTH else example.images[::-1]


def test_train_and_test_of_a_fold_share_no_ground_and_keep_a_rim():
    tested = []
    for fold in range(5):
        sides = {split: np.array(loss_windows(fold, split)) for split in ('train', 'test')}
        corners = {k: np.c_[w[:, :2] - RIM, w[:, :2] + w[:, 2:] + RIM] for k, w in sides.items()}
        x, y = corners['train'][:, None], corners['test'][None]
        assert not (np.maximum(x[..., :2], y[..., :2]) < np.minimum(x[..., 2:], y[..., 2:])).all(-1).any()
        tested += [(c // 50, r // 50) for c, r, _ in sides['test']]
    assert len(set(tested)) == 64 and set(Counter(tested).values()) == {9}  # each block, in one fold


def test_each_fold_has_loss_of_either_year():
    with rasterio.open(DATA / find_site('sabah').cover) as file:
        years = file.read(3)
    for year in (17, 18):
        share = (years == year).reshape(8, 50, 8, 50).mean((1, 3))
        assert all((share[loss_folds() == fold] > 0.1).any() for fold in range(5)), year


def test_yes_and_no_are_balanced_in_every_wording_and_period(folds):
    for examples in (e for pair in folds for e in pair):
        said = Counter()
        for e in examples:
            for t in e.turns:
                if t.task == Task.PRESENCE:
                    said[t.question, e.place['period'], t.answer] += 1
        assert {period for _, period, _ in said} == set(PERIODS)
        assert {q for q, *_ in said} == {*QUESTIONS['clearing']['new'], *QUESTIONS['clearing']['second']}
        assert all(said[q, p, 'yes'] == said[q, p, 'no'] for q, p, _ in said)


def test_answers_are_what_the_map_says(folds):
    with rasterio.open(DATA / find_site('sabah').cover) as file:
        years = file.read(3)
    seen = Counter()
    for e in folds[2][0] + folds[2][1]:
        c, r, side = e.place['window']
        lost = np.isin(years[r : r + side, c : c + side], PERIODS[e.place['period']][2])
        assert lost.mean() < 0.02 or lost.mean() >= 0.15  # the grey zone is left out
        for t in e.turns:
            seen[t.task, t.answer if t.task != Task.GROUNDING else ''] += 1
            if t.question in QUESTIONS['clearing']['new']:
                assert (t.answer == 'yes') == (lost.mean() >= 0.15)
            elif t.task == Task.PRESENCE:  # the second picture shows less
                assert (t.answer == 'yes') == (lost.mean() >= 0.15 and e.words == FORTH)
            elif t.question == HOW_MUCH:
                assert (t.answer == 'none.') == (lost.mean() < 0.02)
                assert (t.answer == 'more than half.') == (lost.mean() > 0.5)
            else:
                x1, y1, x2, y2 = np.round(np.array(parse_boxes(t.answer).boxes[0].box) * side).astype(int)
                assert lost[y1:y2, x1:x2].sum() > 0.6 * lost.sum() and lost[y1:y2, x1:x2].mean() > 0.3
    assert len(seen) == 6 and min(seen.values()) > 10, seen


def test_pictures_are_of_their_days_in_the_order_of_the_words(folds):
    orders = Counter(e.words for e in folds[0][1])
    assert 0.2 < orders[BACK] / sum(orders.values()) < 0.5 and set(orders) == {FORTH, BACK}
    for e in folds[0][1][::20]:
        assert e.sensors == (Sensor.SAR, Sensor.SAR)
        for day, image in zip(e.place['days'], by_day(e), strict=True):
            chip = change.cut_chip('sabah', f'sentinel1_sabah_{day}.tif', e.place['window'])
            assert (image == chip).all() and image.shape == (SIDE, SIDE, 3) and image.dtype == np.uint8


def test_names_are_unique_and_the_seed_decides(folds):
    names = [e.name for pair in folds for examples in pair for e in examples]
    assert len(set(names)) == len(names)
    again, other = loss_examples(0, 'train', n=80), loss_examples(0, 'train', n=80, seed=1)
    first = folds[0][0]
    assert [(e.name, e.words, e.turns) for e in again] == [(e.name, e.words, e.turns) for e in first]
    assert all((a.images[i] == b.images[i]).all() for a, b in zip(again, first) for i in (0, 1))
    assert [e.place['window'] for e in other] != [e.place['window'] for e in first]


def test_radar_shows_the_loss_of_2017():
    "Mean VV fell on ground that the map calls lost, against ground it calls kept"
    examples = [e for e in loss_examples(0, 'test') if e.place['period'] == '2017']
    drop = [float(a[..., 0].mean()) - float(b[..., 0].mean()) for a, b in map(by_day, examples)]
    lost = np.array([e.place['share'] >= 0.15 for e in examples])
    assert np.median(np.array(drop)[lost]) > np.median(np.array(drop)[~lost]) + 5


@given(bits, bits)
def test_truth_by_words_does_not_hang_on_the_order(lake, clearing):
    states, other = dict(lake=lake, clearing=clearing), dict(lake=lake[::-1], clearing=clearing[::-1])
    for kind in ('lake', 'clearing'):
        hows = QUESTIONS[kind]
        for how in ('new', 'gone', 'either'):
            for question in hows[how]:
                assert is_yes(question, states, FORTH) == is_yes(question, other, BACK)
        assert holds('either', states[kind], FORTH) == (
            holds('new', states[kind], FORTH) or holds('gone', states[kind], FORTH)
        )
        (second,) = hows['second']
        assert not (is_yes(second, states, FORTH) and is_yes(second, other, BACK))
        assert is_yes(second, states, FORTH) == is_yes(hows['new'][0], states, FORTH)
    assert describe_change(states, FORTH) == describe_change(other, BACK)
    assert (describe_change(states, FORTH) == 'nothing.') == (not is_yes(ANYTHING, states, BACK))


def pair(states, words=FORTH):
    images = np.zeros((SIDE, SIDE, 3), 'uint8'), np.full((SIDE, SIDE, 3), 9, 'uint8')
    questions = [q for kind in states for qs in QUESTIONS[kind].values() for q in qs] + [ANYTHING]
    turns = [Turn(q, 'yes' if is_yes(q, states, words) else 'no', Task.PRESENCE) for q in questions]
    turns.append(Turn(WHAT, describe_change(states, words)))
    turns.append(Turn(EVENTS['lake', 'new'][1], '[0.10,0.10,0.50,0.50]', Task.GROUNDING))
    return PairExample(images, words, turns, 'x', 'test', place=dict(states=states))


def test_swapped_keeps_what_happened_and_turns_what_the_second_shows():
    one = pair(dict(lake=(0, 1), clearing=(1, 1)))
    other = swapped(one)
    assert other.words == BACK and other.images[0] is one.images[1] and other.images[1] is one.images[0]
    assert [t.question for t in other.turns] == [t.question for t in one.turns]
    turned = [a.question for a, b in zip(one.turns, other.turns) if a.answer != b.answer]
    assert turned == list(QUESTIONS['lake']['second'])
    assert swapped(other).turns == one.turns and swapped(other).words == one.words


@pytest.mark.parametrize('which', [0, 1])
def test_one_picture_twice_has_not_changed(which):
    one = pair(dict(lake=(0, 1), clearing=(1, 0)))
    twice = same_twice(one, which)
    assert all(image is one.images[which] for image in twice.images)
    assert {t.answer for t in twice.turns} == {'no', 'nothing.'}
    assert len(twice.turns) == len(one.turns) - 1  # nothing to point at
    assert len({twice.name, one.name, swapped(one).name, hidden(one, which).name}) == 4


def test_hidden_is_grey_and_asks_the_same():
    one = pair(dict(lake=(0, 1)))
    covered = hidden(one, 1)
    assert (covered.images[1] == GREY).all() and covered.images[0] is one.images[0]
    assert covered.turns == one.turns and (one.images[1] == 9).all()


def test_the_largest_part_is_found_unless_it_has_a_rival():
    mask = np.zeros((32, 32), bool)
    mask[4:14, 20:32] = mask[30, 2] = True
    assert np.allclose(largest_component(mask) * 32, [20, 4, 32, 14])
    mask[20:28, 2:12] = True
    assert largest_component(mask) is None
    assert largest_component(np.zeros((32, 32), bool)) is None
    assert largest_component(np.ones((32, 32), bool)) is None  # the whole chip is no place
    assert np.allclose(mask_box(mask) * 32, [2, 4, 32, 31])


def test_bad_input_is_named():
    with pytest.raises(BadInput, match='fold 7'):
        loss_windows(7, 'test')
    with pytest.raises(BadInput, match='validation'):
        loss_examples(0, 'validation')
    images = pair(dict(lake=(0, 1))).images
    alone = PairExample(images, ('optical', 'infrared'), [], 'two/7', 'test')
    for turn_round in (swapped, same_twice):
        with pytest.raises(BadInput, match='two/7'):
            turn_round(alone)
