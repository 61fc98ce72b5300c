"Rows and batches: labels by construction, who sees whom as a slow and plain reading of the rule says, rows that are full."

import pytest
import torch
from hypothesis import given, strategies as st

from earthgpt_lite.data.records import Turn
from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.packing import (
    LENGTHS,
    attention_bias,
    best_sequence_length,
    build_sequence,
    collate,
    join_sequences,
    pack_best_fit,
    prefix_causal_mask,
    round_up,
)
from earthgpt_lite.model.tokens import ChatFormat, IGNORE, check_length, encode_turns, train_tokenizer

ids = st.lists(st.integers(6, 500), min_size=1, max_size=6)
pairs = st.lists(st.tuples(ids, ids), min_size=1, max_size=5)


@pytest.fixture(scope='module')
def tokenizer():
    return train_tokenizer(
        [' is there any water in this image?', ' yes', ' where is the lake?', ' [0.10,0.20,0.30,0.40]'] * 9
    )


def test_labels_are_the_answers_and_their_end(tokenizer):
    turns, chat = [Turn('is there any water?', 'yes'), Turn('where?', '[0.10,0.20,0.30,0.40]')], ChatFormat()
    row = build_sequence(encode_turns(tokenizer, turns, chat), [1] + [5] * 4)
    graded = [i for i in row['labels'] if i != IGNORE]
    assert tokenizer.decode(graded) == ' yes<end> [0.10,0.20,0.30,0.40]<end>'
    assert (
        all(label in (IGNORE, token) for token, label in zip(row['input_ids'], row['labels']))
        and row['labels'][:5] == [IGNORE] * 5
    )
    text = tokenizer.decode(row['input_ids'])
    assert (
        text
        == '<begin><image><image><image><image><user> is there any water?<assistant> yes<end><user> where?<assistant> [0.10,0.20,0.30,0.40]<end>'
    )


@given(pairs, st.booleans(), st.integers(1, 4))
def test_a_row_by_construction(pairs, shared, first):
    row, prefix = build_sequence(pairs, [1, 5, 5], first, shared), 3
    assert row['input_ids'] == [1, 5, 5] + [i for q, a in pairs for i in q + a]
    assert row['labels'] == [IGNORE] * 3 + [i for q, a in pairs for i in [IGNORE] * len(q) + a]
    assert len({len(v) for v in row.values()}) == 1
    at = prefix
    for k, (q, a) in enumerate(pairs, 1):
        n = len(q + a)
        start = prefix if shared else at
        assert row['position_ids'][at : at + n] == list(range(start, start + n))
        assert set(row['segment_ids'][at : at + n]) == {first + (k if shared else 1)} and set(
            row['prefix_ids'][at : at + n]
        ) == {first}
        at += n


@given(st.lists(pairs, min_size=1, max_size=3), st.booleans())
def test_who_sees_whom(rows, shared):
    "By hand, from the meaning: of a token one keeps row, whether it is picture or pair k, and place"
    prefix = [1, 5, 5]
    batch = collate(
        [build_sequence(p, prefix, shared=shared) for p in rows], torch.zeros(len(rows), 3, 2, 2), 0
    )
    seen = prefix_causal_mask(batch.segment_ids, batch.prefix_ids)
    for r, row in enumerate(rows):
        owner = ['picture'] * 3 + [k if shared else 'talk' for k, (q, a) in enumerate(row) for _ in q + a]
        for i, mine in enumerate(owner):
            for j in range(seen.shape[2]):
                allowed = j <= i and j < len(owner) and owner[j] in (mine, 'picture')
                assert bool(seen[r, i, j]) == allowed, (r, i, j)
        # padding sees padding: no row without any, which would be NaN
        for i in range(len(owner), seen.shape[1]):
            assert seen[r, i].any() and not seen[r, i, : len(owner)].any()
        assert (batch.labels[r, len(owner) :] == IGNORE).all() and (
            batch.input_ids[r, len(owner) :] == 0
        ).all()


def test_the_added_mask(tokenizer):
    seen = torch.tensor([[[True, False], [True, True]]])
    for dtype in (torch.float32, torch.bfloat16):
        mask = attention_bias(seen, dtype)
        assert (
            mask.shape == (1, 1, 2, 2)
            and mask.dtype == dtype
            and (mask[0, 0] == 0).tolist() == seen[0].tolist()
            and mask.min() == torch.finfo(dtype).min
        )


@given(pairs, st.booleans())
def test_the_length_that_counts_is_the_highest_position(pairs, shared):
    row = build_sequence(pairs, [1, 5, 5], shared=shared)
    longest = 3 + (max(len(q + a) for q, a in pairs) if shared else sum(len(q + a) for q, a in pairs))
    check_length(row, longest)
    with pytest.raises(BadInput, match=f'coast/17.png: {longest} tokens.* 1 more than the {longest - 1}'):
        check_length(row, longest - 1, 'coast/17.png')
    with pytest.raises(BadInput, match='the prompt: 1,300 tokens with the picture, 276 more than the 1,024'):
        check_length([5] * 1300, 1024)


@given(st.lists(st.integers(1, 300), min_size=1, max_size=30), st.integers(1, 600))
def test_bins_are_what_pack_makes(lengths, sequence_length):
    "Every row once, no packed row too long unless it holds one row alone, and the joined rows are as long as their parts"
    rows = [
        dict(input_ids=[1] * n, labels=[1] * n, position_ids=[0] * n, segment_ids=[1] * n, prefix_ids=[1] * n)
        for n in lengths
    ]
    groups = pack_best_fit(lengths, sequence_length)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        joined = join_sequences([rows[i] for i in group])
        assert len(joined['input_ids']) == sum(lengths[i] for i in group)
        assert len(joined['input_ids']) <= sequence_length or len(group) == 1
        assert set(joined['segment_ids']) == set(joined['prefix_ids']) == set(range(1, len(group) + 1))


@given(st.lists(st.integers(1, 300), min_size=1, max_size=30), st.integers(1, 600))
def test_best_fit_is_as_slow_and_plain_code_says(lengths, sequence_length):
    "Bins of (room, indices): the longest row first, into the bin with the least room that is enough"
    bins = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        enough = [b for b in bins if b[0] >= lengths[i]]
        if not enough:
            enough = [[max(sequence_length, lengths[i]), []]]
            bins.append(enough[0])
        best = min(enough, key=lambda b: b[0])
        best[0] -= lengths[i]
        best[1].append(i)
    assert pack_best_fit(lengths, sequence_length) == [members for _, members in bins]


def cost(lengths, sequence_length, attention=768):
    return len(pack_best_fit(lengths, sequence_length)) * sequence_length * (attention + sequence_length)


@given(st.lists(st.integers(60, 300), min_size=1, max_size=40))
def test_the_best_length_is_the_cheapest_of_a_few_sizes_and_never_too_short(lengths):
    best = best_sequence_length(lengths)
    assert best % LENGTHS == 0 and max(lengths) <= best <= 1024
    for other in (round_up(max(lengths), LENGTHS), 320, 512, 1024):
        assert cost(lengths, best) <= cost(lengths, other)
    assert best == best_sequence_length(lengths[::-1])


def test_a_wide_model_takes_fuller_rows():
    "There attention costs little beside the matrices"
    lengths = [135] * 24
    narrow, wide = best_sequence_length(lengths), best_sequence_length(lengths, attention=16384)
    full = {n: sum(lengths) / (n * len(pack_best_fit(lengths, n))) for n in (narrow, wide)}
    assert wide > narrow and full[wide] > full[narrow]
    assert best_sequence_length([2000, 50]) == 2016


def test_a_batch_can_be_as_long_as_a_multiple():
    rows = [build_sequence([([7] * n, [8])], [1, 5, 5]) for n in (3, 20)]
    plain, padded = (collate(rows, torch.zeros(2, 3, 2, 2), 0, multiple) for multiple in (1, 32))
    assert plain.input_ids.shape == (2, 24) and padded.input_ids.shape == (2, 32)
    for field, values in padded.items():
        if field != 'pixel_values':
            assert torch.equal(values[:, :24], getattr(plain, field))
    assert not padded.segment_ids[:, 24:].any() and (padded.labels[:, 24:] == IGNORE).all()
