"Corruptions: deterministic, ever worse, boxes moved along; what is left of a score by hand."

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from earthgpt_lite.boxes.text import parse_boxes
from earthgpt_lite.data.records import Turn
from earthgpt_lite.data.sample.change import PairExample
from earthgpt_lite.data.sample.world_map import Example
from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval import robustness as module
from earthgpt_lite.eval.robustness import (
    CORRUPTIONS,
    corrupt,
    corrupt_examples,
    applies_to,
    transform_box,
    transform_text,
    robustness,
)
from earthgpt_lite.eval.statistics import results
from earthgpt_lite.raster.chips import Sensor

RNG = np.random.default_rng(0)
PICTURE = np.kron(RNG.integers(20, 200, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
LOOKS = [n for n in CORRUPTIONS if n not in ('rotation', 'scale', 'translation')]


def sensor_of(name):
    return 'sar' if name == 'speckle' else 'optical'


@pytest.mark.parametrize('name', CORRUPTIONS)
@pytest.mark.parametrize('side', [8, 64, 65])
def test_same_arguments_same_picture(name, side):
    picture = np.resize(PICTURE, (side, side, 3))
    for severity in range(1, 6):
        a, move = corrupt(picture, name, severity, 3, sensor_of(name))
        b, _ = corrupt(picture.copy(), name, severity, 3, sensor_of(name))
        assert (
            np.array_equal(a, b)
            and a.shape == picture.shape
            and a.dtype == np.uint8
            and (move is None) == (name in LOOKS)
        )
    # the picture itself is left alone
    assert np.array_equal(picture, np.resize(PICTURE, (side, side, 3)))


@pytest.mark.parametrize('name', CORRUPTIONS)
def test_severity_grows(name):
    corners = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 1], [1, 1, 1]])

    def moved(move):
        return np.abs(corners @ move.T - corners[:, :2]).mean()

    def harmed(worse, move):
        return moved(move) if move is not None else np.abs(worse.astype(float) - PICTURE).mean()

    harm = [
        np.mean([harmed(*corrupt(PICTURE, name, s, seed, sensor_of(name))) for seed in range(12)])
        for s in range(1, 6)
    ]
    assert 0 < harm[0] and harm == sorted(harm) and harm[4] > 1.2 * harm[0]


def test_seeds_and_names_draw_differently():
    assert not np.array_equal(corrupt(PICTURE, 'noise', 3, 0)[0], corrupt(PICTURE, 'noise', 3, 1)[0])
    assert not np.array_equal(
        corrupt(PICTURE, 'rotation', 5, 0)[1], corrupt(PICTURE, 'rotation', 5, 1)[1]
    ) or not np.array_equal(corrupt(PICTURE, 'rotation', 5, 2)[1], corrupt(PICTURE, 'rotation', 5, 1)[1])


def test_speckle_keeps_the_mean_of_intensity():
    grey = np.full((256, 256, 3), 128, np.uint8)
    for severity, looks in zip((1, 3), (16, 4)):
        worse = corrupt(grey, 'speckle', severity, sensor='sar')[0][..., 0].astype(float)
        factor = 10 ** ((worse - 128) * 15 / 255 / 10)
        assert factor.mean() == pytest.approx(1, abs=0.05) and factor.var() == pytest.approx(
            1 / looks, rel=0.25
        )


@pytest.mark.parametrize(
    'name, severity, sensor, words',
    [
        ('rain', 1, 'optical', 'noise, blur'),
        ('noise', 0, 'optical', '1 to 5'),
        ('noise', 6, 'optical', '1 to 5'),
        ('speckle', 1, 'optical', 'speckle'),
        ('cloud', 1, 'sar', 'cloud'),
    ],
)
def test_bad_input(name, severity, sensor, words):
    with pytest.raises(BadInput, match=words):
        corrupt(PICTURE, name, severity, sensor=sensor)


@pytest.mark.parametrize('name', ['rotation', 'scale', 'translation'])
@pytest.mark.parametrize('severity', [1, 3, 5])
def test_boxes_move_with_the_picture(name, severity):
    "A white box on black: after the move, the bright pixels lie in the moved box and fill it."
    picture, box = np.zeros((200, 200, 3), np.uint8), np.array([0.4, 0.45, 0.6, 0.55])
    picture[90:110, 80:120] = 255
    worse, move = corrupt(picture, name, severity, seed=1)
    y, x = np.nonzero(worse[..., 0] > 190)
    there = transform_box(box, move)
    assert np.allclose(
        there, [x.min() / 200, y.min() / 200, (x.max() + 1) / 200, (y.max() + 1) / 200], atol=0.015
    )


@given(
    st.floats(0, 0.8),
    st.floats(0, 0.8),
    st.floats(0.05, 0.2),
    st.floats(0.05, 0.2),
    st.sampled_from(['rotation', 'scale', 'translation']),
    st.integers(1, 5),
    st.integers(0, 50),
)
@settings(max_examples=80)
def test_a_moved_box_is_sound_or_gone(x, y, w, h, name, severity, seed):
    _, move = corrupt(PICTURE[:8, :8], name, severity, seed)
    there = transform_box([x, y, x + w, y + h], move)
    assert there is None or ((there >= 0) & (there <= 1)).all() and (there[2:] > there[:2]).all()
    text = f'where is [{x:.2f},{y:.2f},{x + w:.2f},{y + h:.2f}] and <p>2 ships</p>[0.40,0.40,0.60,0.60;0.45,0.45,0.55,0.55]?'
    moved = transform_text(text, move)
    assert (
        moved is None
        or len(parse_boxes(moved).boxes) == 3
        and moved.startswith('where is [')
        and moved.endswith(']?')
        and not parse_boxes(moved).unread
    )


def test_a_box_that_leaves_is_gone():
    away = np.c_[np.eye(2), [0.5, 0]]
    assert transform_box([0.7, 0.1, 0.9, 0.2], away) is None and transform_box(
        [0.4, 0.1, 0.6, 0.2], away
    ).tolist() == pytest.approx([0.9, 0.1, 1, 0.2])
    assert (
        transform_text('[0.70,0.10,0.90,0.20]', away) is None
        and transform_text('[0.70,0.10,0.90,0.20]', None) == '[0.70,0.10,0.90,0.20]'
    )


def test_brackets_without_a_box_stay():
    half = np.array([[0.5, 0, 0.25], [0, 0.5, 0.25]])
    assert (
        transform_text('picture [2]; where is [0.40,0.40,0.60,0.60]? [1]', half)
        == 'picture [2]; where is [0.45,0.45,0.55,0.55]? [1]'
    )
    # corners in the wrong order are put right, as scoring does it
    assert (
        transform_text('[see 3; 4]', half) == '[see 3; 4]'
        and transform_text('[0.60,0.40,0.40,0.60]', half) == '[0.45,0.45,0.55,0.55]'
    )


def example(i, sensor='optical', *turns):
    return Example(
        PICTURE,
        list(turns) or [Turn('is it wet?', 'yes' if i % 2 else 'no', 'presence')],
        f'{i}.png',
        'test',
        Sensor(sensor),
        {},
    )


def test_worsen_asks_the_same_questions_of_both():
    lost, kept = (
        Turn('where is the pond?', '[0.00,0.00,0.02,0.02]', 'grounding'),
        Turn('where is the roof?', '[0.40,0.40,0.60,0.60]', 'grounding'),
    )
    worse, clean = corrupt_examples([example(i, 'optical', lost, kept) for i in range(8)], 'translation', 5)
    assert [[t.question for t in e.turns] for e in worse] == [
        [t.question for t in e.turns] for e in clean
    ] and any(len(e.turns) == 1 for e in worse)
    assert all(c.turns[-1] == kept and w.turns[-1] != kept for w, c in zip(worse, clean))
    assert (
        corrupt_examples([example(0)], 'speckle', 1) == ([], [])
        and len(corrupt_examples([example(0), example(1, 'sar')], 'haze', 1)[0]) == 1
    )
    assert [
        np.array_equal(a.image, b.image)
        for a, b in zip(
            corrupt_examples([example(0), example(1)], 'noise', 1, 5)[0],
            corrupt_examples([example(0), example(1)], 'noise', 1, 5)[0],
        )
    ] == [True, True]


def test_retained_by_hand():
    "A model that is right on clean pictures, and says yes to all others: nothing is left above the prior."

    def ask(some):
        return [
            dict(
                task='presence',
                sensor='optical',
                image=e.name,
                question=t.question,
                truth=t.answer,
                score=None,
                answer=t.answer if np.array_equal(e.image, PICTURE) else 'yes',
            )
            for e in some
            for t in e.turns
        ]

    (row,) = robustness(
        ask, [example(i) for i in range(10)], lambda p: [x | {'answer': 'no'} for x in p], ['blur'], [2]
    )
    assert (row['clean'], row['score'], row['prior'], row['retained'], row['above_prior'], row['n']) == (
        1,
        0.5,
        0.5,
        0.5,
        0,
        10,
    )
    (alone,) = robustness(ask, [example(i) for i in range(10)], None, ['blur'], [2])
    assert alone['prior'] is None and alone['above_prior'] is None and alone['retained'] == 0.5


def test_less_is_better():
    def ask(some):
        return [
            dict(
                task='counting',
                sensor='optical',
                image=e.name,
                question=e.turns[0].question,
                truth='4',
                score=None,
                answer='3' if np.array_equal(e.image, PICTURE) else '2',
            )
            for e in some
        ]

    rows = {
        r['metric']: r
        for r in robustness(
            ask, [example(i) for i in range(4)], lambda p: [x | {'answer': '0'} for x in p], ['blur'], [5]
        )
    }
    assert (
        rows['MAE']['retained'] == 0.5
        and rows['MAE']['above_prior'] == pytest.approx(2 / 3)
        and rows['accuracy']['retained'] is None
    )


def test_what_happens_to_whom():
    assert (
        applies_to('speckle', 'sar')
        and not applies_to('speckle', 'infrared')
        and applies_to('cloud', 'infrared')
        and not applies_to('gaps', 'sar')
    )


def test_the_clean_pictures_are_asked_and_scored_once(monkeypatch):
    asked = []

    def ask(some):
        asked.append(len(some))
        return [
            dict(
                task='presence',
                sensor='optical',
                image=e.name,
                question=t.question,
                truth=t.answer,
                score=None,
                answer='yes',
            )
            for e in some
            for t in e.turns
        ]

    calls, tables = [], []
    monkeypatch.setattr(module, 'results', lambda *a: tables.append(a) or results(*a))
    robustness(
        ask,
        [example(i) for i in range(4)],
        lambda p: p,
        ['blur', 'noise', 'speckle'],
        [1, 2],
        progress=calls.append,
    )
    # one clean table without a prior, one for each worse sheet
    assert asked == [4] * 5 and calls == [1] * 6 and len(tables) == 5 and len(tables[0]) == 1


def test_stripes_are_as_wide_at_every_size():
    for side in (64, 128, 200):
        worse = corrupt(np.full((side, side, 3), 100, np.uint8), 'stripes', 5)[0][0, :, 0]
        assert np.count_nonzero(np.diff(worse.astype(int))) <= 64


# ---- several pictures


def pair(sensor='optical', turns=None):
    turns = turns or [Turn('where?', '[0.40,0.40,0.60,0.60]', 'grounding')]
    return PairExample((PICTURE, PICTURE.copy()), ('before', 'after'), turns, 'p', 'test', sensor)


@pytest.mark.parametrize('name', [n for n in CORRUPTIONS if n != 'speckle'])
def test_all_pictures_of_an_example_are_made_worse(name):
    given = pair()
    (worse,), (clean,) = corrupt_examples([given], name, 4)
    assert all(not np.array_equal(image, PICTURE) for image in worse.images)
    assert all(np.array_equal(image, PICTURE) for image in clean.images) and clean.turns == given.turns
    moved = name in ('rotation', 'scale', 'translation')
    if name != 'brightness':  # brighter or darker, by chance
        assert np.array_equal(*worse.images) == (moved or name in ('blur', 'compression'))
    assert (worse.turns == given.turns) == (not moved) and worse.words == given.words
    single = corrupt_examples([example(0)], name, 4)[0][0].image
    assert np.array_equal(worse.images[0], single), 'the first as if it were alone'


def test_what_happens_to_one_sensor_of_two_leaves_the_other():
    both = pair((Sensor.OPTICAL, Sensor.SAR))
    (hazy,), _ = corrupt_examples([both], 'haze', 3)
    assert [np.array_equal(image, PICTURE) for image in hazy.images] == [False, True]
    (speckled,), _ = corrupt_examples([both], 'speckle', 3)
    assert [np.array_equal(image, PICTURE) for image in speckled.images] == [True, False]
    (turned,), _ = corrupt_examples([both], 'rotation', 3)
    assert np.array_equal(*turned.images)
    assert corrupt_examples([pair(Sensor.SAR)], 'haze', 3) == ([], [])
