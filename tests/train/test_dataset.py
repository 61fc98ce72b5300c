"Batches: every picture once in a pass for any size, parts that add up, rows that are full and leak nothing."

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from fixtures_training import examples, small, tokenizer, error_of_parts
from hypothesis import given, settings, strategies as st

from earthgpt_lite.boxes.text import format_box, parse_boxes
from earthgpt_lite.data.records import Task, Turn
from earthgpt_lite.data.sample.world_map import Example
from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.tokens import IGNORE
from earthgpt_lite.raster.chips import Sensor
from earthgpt_lite.train.dataset import InstructionBatches, TokenCache, data_fingerprint, packing_efficiency
from earthgpt_lite.train.loader import StepKeys, UnreadablePictures, make_loader, pick_workers

tok = lru_cache(1)(tokenizer)
config = lru_cache(1)(lambda: small(tok()).config)


def batches(n=20, size=6, **k):
    return InstructionBatches(examples(n), tok(), config(), size, **k)


ALL = ['turn', 'jitter', 'words']


def known(n=20):
    "Examples whose questions have other wordings"
    turns = [
        Turn('is there any water in this image?', 'yes', Task.PRESENCE),
        Turn('where is the lake?', '[0.10,0.20,0.30,0.40]', Task.GROUNDING),
    ]
    return [replace(e, turns=turns) for e in examples(n)]


def test_a_varied_batch_is_that_of_its_seed_and_step():
    "The same again, in any order, and in parts"
    make = lambda seed=0: InstructionBatches(known(), tok(), config(), 6, seed, ALL)
    b = make()
    whole, again = b.batch(5), make().batch(5)
    assert torch.equal(whole.pixel_values, again.pixel_values) and torch.equal(
        whole.input_ids, again.input_ids
    )
    assert not torch.equal(whole.pixel_values, make(1).batch(5).pixel_values)
    key = lambda batch: sorted(p.numpy().tobytes() for p in batch.pixel_values)
    assert sorted(sum((key(make().part(5, k, 3).batch) for k in range(3)), [])) == key(whole)


def test_each_way_varies_what_it_says_and_nothing_else():
    make = lambda *ways: InstructionBatches(known(6), tok(), config(), 6, 0, ways, sequence_length=1).batch(0)
    plain, jitter, words, turn = make(), make('jitter'), make('words'), make('turn')
    shown = lambda batch: sorted(p.numpy().tobytes() for p in batch.pixel_values)  # rows are packed by length
    assert shown(plain) == shown(words) != shown(jitter)
    assert torch.equal(plain.input_ids, jitter.input_ids) and not plain.input_ids.equal(words.input_ids)
    colours = lambda batch: [p.flatten(1).sort(1).values for p in batch.pixel_values]
    assert all(map(torch.equal, colours(plain), colours(turn))) and shown(plain) != shown(turn)


def test_another_wording_keeps_the_answer():
    b = InstructionBatches(known(), tok(), config(), 6, 0, ['words'], sequence_length=1)
    seen = set()
    for step in range(8):
        for _, _, pairs, _ in b._rows(step):
            assert [tok().decode(answer[:-1]) for _, answer in pairs] == [' yes', ' [0.10,0.20,0.30,0.40]']
            seen |= {tok().decode(question) for question, _ in pairs}
    assert len(seen) > 40


# which pictures


@settings(max_examples=60)
@given(st.integers(1, 40), st.integers(1, 17), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_no_picture_is_seen_twice_or_missed_in_a_pass(n, size, world, rounds, seed):
    "For any number of pictures, step size, processes and rounds: each pass holds each picture once, and each step's parts are the step"
    b = batches(n, size, seed=seed)
    parts = world * rounds
    if parts > min(n, size):
        with pytest.raises(BadInput, match='cannot be dealt'):
            b.deal(parts)
        return
    passes, steps = size, n  # n steps of `size` pictures are `size` passes
    seen = [b.indices(k) for k in range(steps)]
    flat = sum(seen, [])
    for p in range(passes):
        assert sorted(flat[p * n : (p + 1) * n]) == list(range(n))
    mine = [
        [seen[k][r * world + rank :: parts] for k in range(steps) for r in range(rounds)]
        for rank in range(world)
    ]
    assert sorted(i for rank in mine for part in rank for i in part) == sorted(flat)
    assert len({len(rank) for rank in mine}) == 1, (
        'ranks with unequal numbers of batches would wait for one another for ever'
    )
    assert all(part for rank in mine for part in rank), 'an empty part has no gradient'


@pytest.mark.parametrize('world,rounds', [(1, 1), (2, 1), (2, 2), (3, 2)])
def test_what_the_ranks_are_given_is_the_step(world, rounds):
    whole, b = batches().batch(4), batches()
    parts = world * rounds
    made = [b.part(4, r * world + rank, parts) for rank in range(world) for r in range(rounds)]
    dealt = [part.batch for part in made]
    key = lambda batch: sorted(p.numpy().tobytes() for p in batch.pixel_values)
    assert sorted(sum((key(d) for d in dealt), [])) == key(whole)
    assert sum(int((d.labels != IGNORE).sum()) for d in dealt) == int((whole.labels != IGNORE).sum())
    assert {part.target_count for part in made} == {int((whole.labels != IGNORE).sum())}


def test_iteration_begins_at_a_step_and_gives_the_parts_of_a_rank():
    b = batches()
    b.deal(4)
    got = [x for x, _ in zip(make_loader(b, StepKeys(2, [1, 3])), range(4))]
    for x, (step, part) in zip(got, [(2, 1), (2, 3), (3, 1), (3, 3)]):
        assert torch.equal(x.batch.pixel_values, b.batch(step, part, 4).pixel_values)


def test_a_text_is_encoded_once_however_many_pictures_have_it(monkeypatch):
    from earthgpt_lite.model.tokens import ChatFormat, encode_turns

    said, plain = [], type(tok()).__call__
    monkeypatch.setattr(
        type(tok()), '__call__', lambda self, text, **k: said.append(text) or plain(self, text, **k)
    )
    b = batches(augment=False)
    rows = [pairs for step in range(4) for _, _, pairs, _ in b._rows(step)]
    assert len(said) == len(set(said)) > 5
    fresh = [
        encode_turns(tok(), examples()[i].turns, ChatFormat()) for step in range(4) for i in b.indices(step)
    ]
    assert rows == fresh  # and nobody has changed what is kept


def test_parts_sum_to_the_gradient_of_the_whole():
    assert error_of_parts(small(tok()).double(), batches()) < 1e-6


def test_mixed_by_weights():
    data = [replace(e, sensor=Sensor.SAR if i < 4 else Sensor.OPTICAL) for i, e in enumerate(examples(40))]

    def shares(sampling_weights, seed=0):
        b = InstructionBatches(data, tok(), config(), 40, sampling_weights=sampling_weights, seed=seed)
        return np.bincount(b.indices(0), minlength=40)

    assert (shares(None) == 1).all()
    half = shares(dict(sar=1, optical=1))
    assert half[:4].sum() == 20 and half[:4].max() - half[:4].min() <= 1 and half[4:].max() <= 1
    assert shares(dict(sar=0, optical=3))[:4].sum() == 0
    assert (shares(dict(sar=1, optical=1)) == half).all()
    for bad in (
        dict(sar=1),
        dict(sar=1, optical=1, infrared=1),
        dict(sar=-1, optical=2),
        dict(sar=0, optical=0),
    ):
        with pytest.raises(BadInput, match='sampling_weights .*give each of the sensors optical, sar'):
            InstructionBatches(data, tok(), config(), 4, sampling_weights=bad)


def test_the_mark_of_the_data_sees_pictures_words_and_order():
    data = examples(6)
    want = data_fingerprint(data)
    assert data_fingerprint(examples(6)) == want
    darker = replace(data[2], image=data[2].image // 2)
    other = replace(data[2], turns=[replace(data[2].turns[0], answer='ice cream')])
    for changed in (data[:2] + [darker] + data[3:], data[:2] + [other] + data[3:], data[::-1], data[:5]):
        assert data_fingerprint(changed) != want


# rows


def test_rows_of_the_samples_are_full(few, tiny):
    "Few sizes, and nine tenths no padding, though a row is a multiple of 32 long"
    b = InstructionBatches(few['train'], tiny[1], tiny[0].config, 24)
    found = [b.batch(k) for k in range(8)]
    assert {x.input_ids.shape[1] % 32 for x in found} == {0}
    assert np.mean([packing_efficiency(x) for x in found]) >= 0.9


def test_packed_rows_give_the_loss_of_unpacked_ones():
    model, b = small(tok()).double().eval(), batches(size=8, augment=False)
    with torch.no_grad():
        one, many = (
            model(**vars(b_.batch(0))).loss for b_ in (b, batches(size=8, augment=False, sequence_length=1))
        )
    assert abs(one - many) < 1e-5 and b.batch(0).input_ids.shape[0] < 8


def test_no_pair_sees_another():
    "The gradient of one pair's loss with respect to every token that is not its own or its picture's is exactly zero"
    model, b = small(tok()), batches(size=6, sequence_length=400, augment=False).batch(1)
    table = model.get_input_embeddings()
    assert len(b.input_ids) < 3
    for row in range(len(b.input_ids)):
        for segment in set(b.segment_ids[row].tolist()) - {0}:
            mine = b.segment_ids[row] == segment
            if not (b.labels[row][mine] != IGNORE).any():
                continue
            words = table(b.input_ids.clamp(max=table.num_embeddings - 1)).detach().requires_grad_()
            labels = torch.where(
                mine[None] & (torch.arange(len(b.input_ids)) == row)[:, None], b.labels, IGNORE
            )
            model(
                inputs_embeds=words,
                labels=labels,
                segment_ids=b.segment_ids,
                prefix_ids=b.prefix_ids,
                position_ids=b.position_ids,
            ).loss.backward()
            own = mine | (b.segment_ids[row] == b.prefix_ids[row][mine][0])
            assert (
                words.grad[row][own].abs().sum() > 0
                and (words.grad[row][~own] == 0).all()
                and (words.grad[[i for i in range(len(b.input_ids)) if i != row]] == 0).all()
            )


def test_a_dialogue_is_one_segment_that_sees_what_was_said():
    data = examples(1)
    talk = [Turn('what covers this image?', 'water', Task.VQA), Turn('is it deep?', 'yes', Task.DIALOGUE)]
    apart, together = (
        InstructionBatches([replace(data[0], turns=t)], tok(), config(), 1, augment=False).batch(0)
        for t in ([replace(t, task=Task.VQA) for t in talk], talk)
    )
    assert apart.segment_ids.max() == 3 and together.segment_ids.max() == 2
    last = together.position_ids.max()
    assert last == (together.segment_ids > 0).sum() - 1 and apart.position_ids.max() < last


# tasks in the mix


def asked(b, steps):
    return [
        str(t.task)
        for step in range(steps)
        for k, i in enumerate(b.indices(step))
        for t in b._sample_turns(b.examples[i], step, k)
    ]


def test_tasks_have_their_shares():
    data, weights = examples(60), dict(classification=1, presence=1, grounding=2)
    b = InstructionBatches(data, tok(), config(), 30, sampling_weights=weights)
    seen, plain = asked(b, 40), asked(InstructionBatches(data, tok(), config(), 30), 40)
    shares = {t: seen.count(t) / len(seen) for t in weights}
    assert plain.count('grounding') / len(plain) < 0.3 and len(seen) < len(plain)
    assert shares['grounding'] == pytest.approx(0.5, abs=0.05) and shares['presence'] == pytest.approx(
        0.25, abs=0.05
    )
    assert seen == asked(InstructionBatches(data, tok(), config(), 30, sampling_weights=weights), 40)
    assert [b.pair_count([k]) for k in range(3)] == [len(asked_at(b, k)) for k in range(3)]
    parts = [b.part(5, shard, 2) for shard in (0, 1)]
    targets = sum(int((part.batch.labels != IGNORE).sum()) for part in parts)
    assert {part.target_count for part in parts} == {targets}


def asked_at(b, step):
    return [t for k, i in enumerate(b.indices(step)) for t in b._sample_turns(b.examples[i], step, k)]


def test_a_task_of_no_weight_is_never_asked_and_both_kinds_of_weights_go_together():
    data = [replace(e, sensor=Sensor.SAR if i < 4 else Sensor.OPTICAL) for i, e in enumerate(examples(40))]
    b = InstructionBatches(
        data,
        tok(),
        config(),
        40,
        sampling_weights=dict(sar=1, optical=1, classification=0, presence=1, grounding=1),
    )
    assert set(asked(b, 8)) == {'presence', 'grounding'}
    places = [i for k in range(8) for i in b.indices(k)]
    assert (
        all(len(data[i].turns) > 1 for i in places)
        and abs(sum(i < 4 for i in places) / len(places) - 0.5) < 0.03
    )
    for bad, what in (
        (dict(presence=1), 'tasks classification, grounding, presence'),
        (dict(sar=1, optical=1, presence=1), 'tasks'),
        (dict(sarr=1), 'sensors'),
    ):
        with pytest.raises(BadInput, match=f'give each of the {what}'):
            InstructionBatches(data, tok(), config(), 4, sampling_weights=bad)


def test_a_dialogue_is_asked_whole():
    data = [
        replace(e, turns=[Turn('what is it?', 'water', Task.VQA), Turn('is it deep?', 'yes', Task.DIALOGUE)])
        for e in examples(4)
    ]
    b = InstructionBatches(data, tok(), config(), 4, sampling_weights=dict(vqa=0, dialogue=1))
    assert asked(b, 3) == ['vqa', 'dialogue'] * 12


# on the samples


def test_a_batch_is_a_function_of_its_step(tiny, few):
    config, tokenizer = tiny[0].config, tiny[1]
    a, b = (InstructionBatches(few['train'], tokenizer, config, 5, seed=4) for _ in range(2))
    forward, backward = [a.batch(k) for k in range(9)], [b.batch(k) for k in reversed(range(9))][::-1]
    for x, y in zip(forward, backward):
        assert all(torch.equal(v, w) for (_, v), (_, w) in zip(x.items(), y.items()))
    (first,) = [part.batch for part, _ in zip(make_loader(b, StepKeys(6, [0])), range(1))]
    assert torch.equal(first.pixel_values, forward[6].pixel_values)
    other = InstructionBatches(few['train'], tokenizer, config, 5, seed=5).batch(0)
    assert not torch.equal(other.pixel_values, forward[0].pixel_values)


def test_a_pass_shows_every_picture_once_and_the_next_in_another_order(tiny, few):
    n = len(few['train'])
    batches = InstructionBatches(few['train'], tiny[1], tiny[0].config, n, augment=False)
    own = {bytes(e.image.transpose(2, 0, 1).tobytes()) for e in few['train']}
    orders = [[p.numpy().tobytes() for p in batches.batch(k).pixel_values] for k in (0, 1)]
    assert all(set(o) == own for o in orders) and orders[0] != orders[1]


def test_boxes_in_a_batch_fit_their_turned_pictures(tiny):
    "A bright square on dark ground; the answer in the batch must be where it is seen"
    image = np.zeros((64, 64, 3), 'uint8')
    image[6:26, 32:58] = 255
    example = Example(
        image,
        [Turn('where is the lake?', format_box(np.array([32, 6, 58, 26]) / 64), Task.GROUNDING)],
        'a',
        'train',
    )
    # one picture a row
    batches, seen = InstructionBatches([example], tiny[1], tiny[0].config, 8, sequence_length=1), set()
    for step in range(3):
        batch = batches.batch(step)
        for pixels, labels in zip(batch.pixel_values, batch.labels):
            rows, columns = np.nonzero(pixels[0].numpy())
            (found,) = parse_boxes(tiny[1].decode(labels[labels >= 0], skip_special_tokens=True)).boxes
            assert (
                np.abs(found.box * 64 - [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).max()
                < 0.7
            )
            seen.add(tuple(found.box))
    assert len(seen) > 4


def test_nothing_to_train_on_is_refused(tiny, few):
    with pytest.raises(BadInput, match='no examples'):
        InstructionBatches([], tiny[1], tiny[0].config)
    with pytest.raises(BadInput, match='global/x.*answer'):
        InstructionBatches(
            [
                Example(
                    few['train'][0].image, [type(few['train'][0].turns[0])('what?', '')], 'global/x', 'train'
                )
            ],
            tiny[1],
            tiny[0].config,
        ).batch(0)


# workers, and what goes wrong


def test_workers_make_the_same_parts():
    "The same, in the same order, with 0, 1 and 2 workers; an error comes in its place, in its own words"
    bad = examples(20)
    bad[11] = replace(bad[11], turns=[Turn('what?', ' ')])

    def made(workers, data):
        b = InstructionBatches(data, tok(), config(), 6, seed=1)
        b.deal(2)
        return [part for part, _ in zip(make_loader(b, StepKeys(3, [0, 1]), workers), range(8))]

    want = made(0, examples(20))
    for workers in (1, 2):
        for a, b in zip(want, made(workers, examples(20)), strict=True):
            assert a.target_count == b.target_count and not b.unreadable
            assert all(torch.equal(v, w) for (_, v), (_, w) in zip(a.batch.items(), b.batch.items()))
    errors = [str(part) if isinstance(part, BadInput) else '' for part in made(1, bad)]
    assert errors == [str(part) if isinstance(part, BadInput) else '' for part in made(0, bad)]
    assert any(errors) and all(e.startswith('place/11: 1 answer is empty') for e in errors if e)


def test_a_cache_of_texts_is_bounded_by_bytes():
    texts, cache = [f'{i} {"long " * (i % 50)}' for i in range(500)], TokenCache(tok(), most=20_000)
    plain = [tok()(text, add_special_tokens=False).input_ids for text in texts]
    for _ in range(2):
        assert [cache(text, add_special_tokens=False).input_ids for text in texts] == plain
        assert 10_000 < cache.used <= 20_000
    assert cache.used == sum(cache._cost(key[0], ids) for key, ids in cache._known.items())


class Unreadable:
    "An example whose picture cannot be read"

    def __init__(self, example, error=BadInput('cut short')):
        self.error = error
        self.name, self.turns, self.sensor = example.name, example.turns, example.sensor

    @property
    def image(self):
        raise self.error


def test_a_picture_that_cannot_be_read_is_skipped_and_nothing_else_changes():
    data = examples(8)
    holed = [Unreadable(e) if i in (2, 5) else e for i, e in enumerate(data)]
    whole, lacking = (InstructionBatches(d, tok(), config(), 8, augment=False).part(0) for d in (data, holed))
    assert sorted(lacking.unreadable) == [('place/2', 'cut short'), ('place/5', 'cut short')]
    assert torch.equal(whole.batch.input_ids, lacking.batch.input_ids)
    assert whole.target_count == lacking.target_count
    model = small(tok()).double()
    kept = [e for i, e in enumerate(data) if i not in (2, 5)]
    with torch.no_grad():
        alone = model(**vars(InstructionBatches(kept, tok(), config(), 6, augment=False).batch(0)))
        skipped = model(**vars(lacking.batch))
    assert skipped.loss_sum.item() == pytest.approx(alone.loss_sum.item(), rel=1e-6)
    assert skipped.target_count == alone.target_count


def test_a_part_without_any_picture_has_a_gradient_of_zero():
    model = small(tok())
    part = InstructionBatches([Unreadable(e) for e in examples(3)], tok(), config(), 3).part(0)
    (model(**vars(part.batch)).loss_sum / part.target_count).backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    assert len(part.unreadable) == 3


def test_too_many_unreadable_pictures_stop_the_run():
    part = InstructionBatches([Unreadable(e) for e in examples(4)], tok(), config(), 4).part(0)
    good = InstructionBatches(examples(100), tok(), config(), 96).part(0)
    count = UnreadablePictures(0.01, 1_000_000)
    for _ in range(40):
        for k in range(11):
            count.add(good)
        count.add(part)  # four of each 1,060
    assert count.summary(2) == dict(count=4, first={k: 'cut short' for k in list(count.names)[:2]})
    count.add(part)
    with pytest.raises(BadInput, match=r'cut short. 12 of the last 1,000 pictures .* 1.0%.*max_unreadable'):
        count.add(part)
    with pytest.raises(BadInput, match='4 of the last 4 pictures'):
        UnreadablePictures(0.01, 50).add(part)
    UnreadablePictures(1.0, 4).add(part)


def test_workers_by_data_and_machine(monkeypatch):
    import os

    class Stored(tuple):
        pass

    monkeypatch.setattr(os, 'sched_getaffinity', lambda pid: range(16), raising=False)
    many = Stored(range(1000))
    assert [pick_workers(many, n) for n in (1, 2, 4, 16)] == [8, 7, 3, 0]
    assert pick_workers(list(range(1000))) == pick_workers(Stored(range(999))) == 0
