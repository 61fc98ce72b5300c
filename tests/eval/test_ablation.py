"Intervals over pictures and seeds, what may be claimed, and the stored table of the ablation."

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from earthgpt_lite.eval.statistics import intervals_overlap, mean_interval, supported_claims

TABLE = Path(__file__).parents[2] / 'earthgpt_lite/assets/results/ablation.json'


def width(interval):
    return interval[1] - interval[0]


def test_without_luck_the_interval_is_a_point():
    assert mean_interval(np.full((3, 40), 0.5), np.arange(40)) == (0.5, (0.5, 0.5))


def test_one_run_of_many_questions_is_the_binomial_interval():
    right = np.random.default_rng(0).random(2000) < 0.7
    mean, interval = mean_interval(right, np.arange(2000))
    assert mean == right.mean() and width(interval) == pytest.approx(
        2 * 1.96 * (0.7 * 0.3 / 2000) ** 0.5, rel=0.1
    )


def test_questions_that_go_together_count_as_one():
    right = np.repeat(np.random.default_rng(1).random(40) < 0.5, 25)  # 40 blocks, 25 like answers each
    alone, blocks = mean_interval(right, np.arange(1000))[1], mean_interval(right, np.arange(1000) // 25)[1]
    assert width(blocks) == pytest.approx(5 * width(alone), rel=0.15)  # as 40 questions, not as 1,000


def test_seeds_that_disagree_widen_it():
    like, unlike = (
        np.tile([0.0, 1.0], (3, 200)),
        np.stack([np.zeros(400), np.ones(400), np.tile([0.0, 1.0], 200)]),
    )
    low, high = mean_interval(unlike, np.arange(400))[1]
    assert width(mean_interval(like, np.arange(400))[1]) < 0.12 and low < 0.2 and high > 0.8


def test_blocks_of_unequal_size_weigh_by_their_questions():
    groups = ['a'] * 9 + ['b']
    mean, (low, high) = mean_interval([1.0] * 9 + [0.0], groups)
    assert mean == 0.9 and (low, high) == (0, 1)


def test_same_seed_same_interval():
    scores = np.random.default_rng(2).random((3, 50))
    assert (
        mean_interval(scores, np.arange(50))
        == mean_interval(scores, np.arange(50))
        != mean_interval(scores, np.arange(50), seed=1)
    )


pairs = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)


@given(pairs, pairs)
@settings(max_examples=100)
def test_a_claim_is_made_exactly_where_intervals_do_not_touch(a, b):
    said = supported_claims({'one': a, 'two': b})
    assert intervals_overlap(a, b) == intervals_overlap(b, a) == (not said)
    if said:
        assert said == (['one is above two'] if a[0] > b[1] else ['two is above one'])


def test_the_stored_table_is_whole():
    table = json.loads(TABLE.read_text(encoding='utf-8'))
    assert {
        'date',
        'machine',
        'threads',
        'precision',
        'versions',
        'seconds',
        'batch',
        'training',
        'pictures',
    } <= set(table) and table['seeds'] == [0, 1, 2]
    assert [r['variant'] for r in table['rows']] == list(table['milliseconds']) and len(table['rows']) == 5
    for row in table['rows']:
        assert row['steps'] == pytest.approx(
            1000 * table['seconds'] / table['milliseconds'][row['variant']], rel=0.01
        ), 'minutes are not equal'
        for s in row['scores'].values():
            assert (
                len(s['seeds']) == 3
                and np.mean(s['seeds']) == pytest.approx(s['score'], abs=1e-4)
                and s['interval'][0] <= s['score'] <= s['interval'][1]
            )
