"Training on examples of several pictures: from the store to the last step as if there were nothing special."

import os
import subprocess
import sys
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_training import Several, examples, small, tokenizer, tuples, error_of_parts
from PIL import Image

from earthgpt_lite.boxes.text import parse_boxes
from earthgpt_lite.data.records import Record, Task, Turn
from earthgpt_lite.data.store import InstructionData
from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.generation import generate_answers
from earthgpt_lite.model.processor import to_pixel_values
from earthgpt_lite.model.tokens import IGNORE
from earthgpt_lite.raster.chips import Sensor, dihedral_image
from earthgpt_lite.train.augment import WAYS
from earthgpt_lite.train.callbacks import Interrupted, Validation
from earthgpt_lite.train.dataset import InstructionBatches, data_fingerprint, most_pictures
from earthgpt_lite.train.loader import StepKeys, make_loader
from earthgpt_lite.train.examples import StoredExamples
from earthgpt_lite.train.fit import fit
from earthgpt_lite.train.sampling import ExampleColumns

SHORT = dict(batch_size=6, device='cpu', precision='32-true', progress=False)
tok = lru_cache(1)(tokenizer)
config = lru_cache(1)(lambda: small(tok()).config)


def batches(n=20, size=6, **k):
    return InstructionBatches(tuples(n), tok(), config(), size, **k)


# ---- the store

ASKED = [
    Turn('is there water?', 'yes', Task.PRESENCE),
    Turn('where?', '[0.10,0.20,0.30,0.40]', Task.GROUNDING),
]


def records():
    a, b, c = 'x/a.png', 'x/b.png', 'y/c.png'
    when = dict(words=('before', 'after'))
    both = (Sensor.OPTICAL, Sensor.SAR)
    yield Record((a, b), ASKED[:1], source='s', split='train', **when)
    yield Record(a, ASKED[1:], Sensor.SAR)
    yield Record((a, b), ASKED[1:], **when)  # the same tuple
    yield Record((b, a), ASKED[1:], **when)  # another order
    yield Record((a, b), ASKED[:1])  # not announced
    yield Record((a, b, c), ASKED, split='val')
    yield Record((a, b), ASKED[:1], both, words=('before', 'after'))  # another sensor
    yield Record(a, ASKED[:1], Sensor.SAR)
    yield Record(b, ASKED[:1], words=('2019',))
    yield Record(b, ASKED[1:])


@pytest.fixture
def place(tmp_path):
    rng = np.random.default_rng(0)
    for name in ('x/a.png', 'x/b.png', 'y/c.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), 'uint8')).save(tmp_path / name)
    return tmp_path


def test_a_store_gives_tuples_back_and_groups_what_is_the_same(place):
    store = InstructionData.build(records(), place / 'store', place, rows_per_file=4)
    assert [store[i] for i in range(len(store))] == list(records())
    assert [r for some in store.batches(3) for r in some] == list(records())
    made = StoredExamples(store, 32)
    found = [(e.name, e.words, str(e.sensor), len(e.turns)) for e in made]
    pair, when = 'x/a.png + x/b.png', ('before', 'after')
    assert found == [
        (pair, when, 'optical', 2),
        ('x/a.png', ('',), 'sar', 2),
        ('x/b.png + x/a.png', when, 'optical', 1),
        (pair, ('', ''), 'optical', 1),
        (pair, when, str((Sensor.OPTICAL, Sensor.SAR)), 1),
        ('x/b.png', ('2019',), 'optical', 1),
        ('x/b.png', ('',), 'optical', 1),
    ]
    assert made.most_pictures == 2 and StoredExamples(store, 32, split='validation').most_pictures == 3
    first = made[0]
    assert len(first.images) == 2 and not np.array_equal(*first.images)
    assert np.array_equal(first.images[1], made[2].images[0]) and np.array_equal(first.image, first.images[1])
    columns, objects = made.columns, ExampleColumns.of(list(made))
    for name in ('sensors', 'turn_tasks', 'turn_starts'):
        assert np.array_equal(getattr(columns, name), getattr(objects, name))
    other = [*records()][:-1] + [Record('x/b.png', ASKED[1:], words=('2019',))]
    changed = InstructionData.build(other, place / 'other', place)
    assert StoredExamples(changed, 32).fingerprint != made.fingerprint


def test_a_missing_picture_of_a_tuple_is_missed(place):
    store = InstructionData.build(records(), place / 'store', place)
    (place / 'x/b.png').unlink()
    made = StoredExamples(store, 32, group=False)
    assert made.missing().tolist() == [0, 2, 3, 4, 6, 8, 9]
    batch = InstructionBatches(made, tok(), config(), 9, augment=False, sequence_length=None)
    part = batch.part(0)
    assert len(part.unreadable) == 7 and part.target_count > int((part.batch.labels != IGNORE).sum()) > 0
    grey = [bool((p == 128).all()) for p in part.batch.pixel_values]
    assert sum(grey) == 12, 'all pictures of an example that lacks one'


def test_tuples_go_to_the_hub_with_all_their_pictures(place):
    store = InstructionData.build(records(), place / 'store', place)
    row = next(iter(store.with_pictures()['train']))
    assert [Image.open(BytesIO(picture['bytes'])).size for picture in row['images']] == [(32, 32)] * 2
    assert row['image_paths'] == ['x/a.png', 'x/b.png'] and row['words'] == ['before', 'after']
    assert row['sensor'] == ['optical', 'optical'] and 'image' not in row


# ---- batches


def test_parts_are_the_step(place):
    b, whole = batches(), batches().batch(4)
    made = [b.part(4, k, 4) for k in range(4)]
    key = lambda batch: sorted(p.numpy().tobytes() for p in batch.pixel_values)
    assert sorted(sum((key(part.batch) for part in made), [])) == key(whole)
    places = [int((part.batch.input_ids == config().image_token_id).sum()) for part in made]
    assert places == [len(part.batch.pixel_values) * config().visual_tokens for part in made]
    assert sum(int((p.batch.labels != IGNORE).sum()) for p in made) == made[0].target_count


def test_packed_is_unpacked():
    model = small(tok()).double()
    losses = []
    for length in (1, 300, None):
        batch = batches(sequence_length=length, augment=False).batch(2)
        losses.append(model(**vars(batch)).loss_sum.item())
    assert len({round(loss, 4) for loss in losses}) == 1, losses


def test_parts_sum_to_the_gradient_of_the_whole():
    assert error_of_parts(small(tok()).double(), batches()) < 1e-6


def test_all_pictures_of_a_tuple_are_turned_alike_and_the_box_with_them():
    rng = np.random.default_rng(0)
    images = tuple(rng.integers(0, 255, (32, 32, 3), 'uint8') for _ in range(2))
    turn = Turn('where is it?', '[0.25,0.00,0.50,0.25]', Task.GROUNDING)
    b = InstructionBatches([Several(images, ('before', 'after'), [turn], 'p')], tok(), config(), 1)
    seen = set()
    for step in range(12):
        batch = b.batch(step)
        told = tok().decode(batch.labels[batch.labels != IGNORE])
        for quarter in range(4):
            for mirror in (False, True):
                turned = [to_pixel_values(dihedral_image(image, quarter, mirror)) for image in images]
                if torch.equal(batch.pixel_values[1], turned[1]):
                    assert torch.equal(batch.pixel_values[0], turned[0])
                    seen.add((quarter, mirror))
        x1, y1, x2, y2 = parse_boxes(told).boxes[0].box
        assert np.isclose((x2 - x1) * (y2 - y1), 1 / 16)
    assert len(seen) > 3


def test_workers_make_the_same_batches():
    made = [
        [x.batch for x, _ in zip(make_loader(batches(augment=WAYS), StepKeys(0, [0]), workers), range(3))]
        for workers in (0, 1)
    ]
    for here, there in zip(*made):
        assert torch.equal(here.pixel_values, there.pixel_values)
        assert torch.equal(here.input_ids, there.input_ids)


def test_words_and_order_are_part_of_the_data():
    images = tuple(e.image for e in examples(2))
    make = lambda images, words: [Several(images, words, ASKED, 'p')]
    told = [make(images, ('a', 'b')), make(images[::-1], ('a', 'b')), make(images, ('b', 'a'))]
    assert len({data_fingerprint(some) for some in told}) == 3
    assert most_pictures(tuples(3)) == 3 and most_pictures(examples(3)) == 1


def test_a_tuple_longer_than_the_context_is_refused_by_name():
    images = (examples(1)[0].image,) * 80
    b = InstructionBatches([Several(images, ('',) * 80, ASKED, 'series/7')], tok(), config(), 1)
    with pytest.raises(BadInput, match=r'series/7: 1,\d+ tokens with 80 pictures'):
        b.batch(0)


# ---- runs


def test_stopped_and_resumed_is_uninterrupted(tmp_path, monkeypatch):
    from earthgpt_lite.train import module as training

    whole = small(tok())
    want = fit(whole, tok(), tuples(), tmp_path / 'a', steps=6, **SHORT)
    step = training.EarthGPTModule.training_step

    def stopping(self, batch, index):
        if self.global_step == 3:
            raise KeyboardInterrupt
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(training.EarthGPTModule, 'training_step', stopping)
        with pytest.raises(Interrupted):
            fit(small(tok()), tok(), tuples(), tmp_path / 'b', steps=6, checkpoint_every=1, **SHORT)
    later = small(tok(), 9)
    again = fit(later, tok(), tuples(), tmp_path / 'b', steps=6, resume=True, **SHORT)
    assert again['losses'] == want['losses']
    assert all(torch.equal(a, b) for a, b in zip(later.parameters(), whole.parameters()))


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    script = Path(__file__).parents[1] / 'fixtures_runs.py'
    env = os.environ | dict(OMP_NUM_THREADS='1', PYTHONPATH=str(script.parent.parent))
    for n in (1, 2):
        (tmp_path / str(n)).mkdir()
        words = [sys.executable, str(script), 'several', str(tmp_path / str(n)), str(n), '8']
        done = subprocess.run(words, env=env, timeout=500, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
    (one, a), (two, b) = (torch.load(tmp_path / str(n) / 'result.pt') for n in (1, 2))
    assert max(abs(x - y) for (_, x), (_, y) in zip(one, two)) < 1e-4 and one != two
    assert max((a[n] - b[n]).abs().max() for n in a) < 1e-4


def test_held_out_tuples_are_measured_and_shown(tmp_path):
    said = []
    held = Validation(tuples(4), tok(), validate_every=2, batch_size=2, show=3, say=said.append)
    model = small(tok())
    fit(model, tok(), tuples(), tmp_path, steps=2, callbacks=[held], **SHORT)
    assert held.history and len([text for text in said if '->' in text]) >= 3
    example = tuples(4)[1]
    pixels = torch.stack([to_pixel_values(image) for image in example.images])
    asked = [((0, 1), example.turns[0].question)]
    ((text, _),) = generate_answers(model.eval(), tok(), pixels, asked, 16, words=[example.words])
    assert any(f'{example.turns[0].question}  ->  {text}' in line for line in said)
