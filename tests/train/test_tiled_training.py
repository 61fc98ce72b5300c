"Training on pictures that are read in tiles: from a file, a store, a pack or memory, the same."

import numpy as np
import pytest
import torch
from fixtures_training import error_of_parts, examples, small
from fixtures_training import tokenizer as make_tokenizer
from functools import lru_cache
from PIL import Image

from earthgpt_lite.boxes.layout import fit_picture, split_views, view_words
from earthgpt_lite.data.records import Record, Task, Turn
from earthgpt_lite.data.sample.world_map import Example
from earthgpt_lite.data.shards import PackOptions, PackedData, pack
from earthgpt_lite.data.store import InstructionData, write_rows
from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval.runner import evaluate_model
from earthgpt_lite.eval.questions import example_questions, model_asker, open_data
from earthgpt_lite.model.config import rendering_of
from earthgpt_lite.model.loading import load
from earthgpt_lite.model.processor import to_pixel_values
from earthgpt_lite.raster.chips import dihedral_image
from earthgpt_lite.raster.rendering import Rendering
from earthgpt_lite.train.dataset import InstructionBatches
from earthgpt_lite.train.examples import StoredExamples
from earthgpt_lite.train.fit import fit
from earthgpt_lite.train import run
from earthgpt_lite.train.run import RunOptions, train

tok = lru_cache(1)(make_tokenizer)
SHAPES = [(80, 60), (32, 20), (30, 100), (64, 64), (200, 200), (32, 32)]
SHORT = dict(batch_size=3, device='cpu', precision='32-true', progress=False)


def tiled_config():
    config = small(tok()).config
    config.tiles = 4
    return config


def large(n=6):
    "Examples with pictures of many forms."
    rng, found = np.random.default_rng(1), []
    for e, shape in zip(examples(n), SHAPES * n):
        found.append(Example(rng.integers(0, 255, (*shape, 3), 'uint8'), e.turns, e.name, 'train'))
    return found


@pytest.fixture
def place(tmp_path):
    "Records of the same pictures, on a disk."
    rows = []
    for k, e in enumerate(large()):
        Image.fromarray(e.image).save(tmp_path / f'{k}.png')
        rows.append(Record(f'{k}.png', e.turns, split=('train', 'validation')[k > 3]))
    InstructionData.build(rows, tmp_path / 'store', tmp_path)
    return tmp_path


def test_views_stand_in_the_row_with_their_words():
    batches = InstructionBatches(large(), tok(), tiled_config(), 6, augment=False, sequence_length=10_000)
    batch, want = batches.batch(0), 0
    text = tok().decode(batch.input_ids[0])
    for i in batches.indices(0):
        grid, views = split_views(batches.examples[i].image, 32, 4)
        want += len(views)
        assert all(word in text for word in view_words(grid))
    assert len(batch.pixel_values) == want == 5 + 1 + 5 + 5 + 5 + 1
    assert (batch.input_ids == tiled_config().image_token_id).sum() == want * tiled_config().visual_tokens


def test_a_picture_is_turned_before_it_is_cut():
    image = np.random.default_rng(0).integers(0, 255, (32, 96, 3), 'uint8')
    turn = Turn('where is it?', '[0.25,0.40,0.50,0.60]', Task.GROUNDING)
    batches, seen = (
        InstructionBatches([Example(image, [turn], 'p', 'train')], tok(), tiled_config(), 1),
        set(),
    )
    for step in range(12):
        batch = batches.batch(step)
        for quarter in range(4):
            for mirror in (False, True):
                grid, views = split_views(dihedral_image(image, quarter, mirror), 32, 4)
                if torch.equal(batch.pixel_values, torch.stack(list(map(to_pixel_values, views)))):
                    assert view_words(grid)[0] in tok().decode(batch.input_ids[0])
                    seen.add(grid)
    assert seen == {(1, 3), (3, 1)}


def test_without_tiles_a_batch_is_what_it_was():
    config = small(tok()).config
    plain = InstructionBatches(examples(), tok(), config, 6).batch(3)
    config.tiles = 4
    tiled = InstructionBatches(examples(), tok(), config, 6).batch(3)  # pictures of one view
    assert all(torch.equal(a, b) for a, b in zip(vars(plain).values(), vars(tiled).values()))


def test_packed_is_unpacked_and_parts_are_the_whole():
    model, losses = small(tok()), []
    model.config.tiles = 4
    for length in (1, 10_000):  # every picture alone; all in one row
        batches = InstructionBatches(large(), tok(), model.config, 6, sequence_length=length)
        losses.append(model(**vars(batches.batch(0))).loss_sum.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    batches = InstructionBatches(large(), tok(), model.config, 6)
    assert error_of_parts(model, batches) < 1e-4


def test_store_pack_and_memory_give_the_same_batches(place):
    config, rendering = tiled_config(), Rendering(tiles=4)
    stored = StoredExamples(InstructionData(place / 'store'), 32, rendering)
    pack(place / 'store', place / 'packed', PackOptions(size=32, rendering=rendering))
    packed = StoredExamples(PackedData(place / 'packed'), 32, rendering)
    memory = large()[:4]
    for e, s, p in zip(memory, stored, packed):
        assert (s.image == fit_picture(e.image, 32, 4)).all() and (p.image == s.image).all()
    every = memory, stored, packed
    made = [InstructionBatches(some, tok(), config, 4, augment=False).batch(0) for some in every]
    for other in made[1:]:
        assert all(torch.equal(a, b) for a, b in zip(vars(made[0]).values(), vars(other).values()))


def test_a_pack_of_other_tiles_is_refused(place):
    pack(place / 'store', place / 'packed', PackOptions(size=32, rendering=Rendering(tiles=4)))
    for tiles in (0, 6):
        with pytest.raises(
            BadInput, match=f'tiles {tiles} instead of 4 is asked for.*pack it for this model'
        ):
            PackedData(place / 'packed').chip(0, 32, Rendering(tiles=tiles))


def test_a_picture_that_cannot_be_read_is_grey_and_no_target(place):
    examples = StoredExamples(InstructionData(place / 'store'), 32, Rendering(tiles=4))
    (place / '0.png').unlink()
    part = InstructionBatches(examples, tok(), tiled_config(), 4, augment=False).part(0)
    assert [name for name, _ in part.unreadable] == ['0.png'] and (part.batch.labels >= 0).any()


def test_a_run_with_tiles_learns_saves_and_answers(place):
    "From the run file to an evaluation of what it left, over files."
    facts = dict(data=str(place / 'store'), steps=2, batch_size=3, device='cpu', progress=False)
    options = RunOptions(out=str(place / 'run'), choices=dict(tiles=4), validate_every=2, **facts)
    said = []
    train(options, say=said.append)
    model, tokenizer = load(place / 'run', 'cpu')
    assert model.config.tiles == 4 and rendering_of(model.config).tiles == 4
    words = tokenizer.encode(' whole, 2 rows of 2 tiles', add_special_tokens=False)
    assert len(words) < 12, 'the tokenizer knows what announces tiles'
    options = dict(progress=False, device='cpu', baselines=True, max_new_tokens=4, say=None)
    rows = place / 'rows.jsonl'
    write_rows((Record(f'{k}.png', e.turns, split='test') for k, e in enumerate(large())), rows)
    found = evaluate_model((model, tokenizer), str(rows), place / 'eval', **options)
    assert found['asked'] and (place / 'eval' / 'report.html').is_file()


def test_evaluation_shows_the_canvas_from_files_and_from_memory(place):
    model = small(tok())
    model.config.tiles = 4
    rendering, shown = rendering_of(model.config), large()
    questions, render = example_questions(shown, rendering)
    rows = place / 'rows.jsonl'
    write_rows((Record(f'{k}.png', e.turns, split='test') for k, e in enumerate(shown)), rows)
    asked, from_files, _ = open_data(str(rows), None, rendering)
    for k, e in enumerate(shown):
        mine = next(q for q in questions if q['image'] == e.name)
        theirs = next(q for q in asked if q['image'] == f'{k}.png')
        canvas = fit_picture(e.image, 32, 4)
        assert (render(mine, 32) == canvas).all() and (from_files(theirs, 32) == canvas).all()
    answers = [
        model_asker(model, tok(), r, max_new_tokens=4)(q)
        for q, r in ((questions, render), (asked, from_files))
    ]
    assert [a['answer'] for a in answers[0]] == [a['answer'] for a in answers[1]]


def test_stopped_and_started_it_learns_the_same(tmp_path):
    found = []
    for folder in ('a', 'b'):
        model = small(tok())
        model.config.tiles = 4
        done = fit(model, tok(), large(), tmp_path / folder, steps=3, **SHORT)
        found.append(done['losses'])
    assert found[0] == found[1] and len(found[0]) == 3


def test_tiles_that_no_sample_is_large_enough_for_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(run, 'open_examples', lambda *given: examples(6))
    with pytest.raises(BadInput, match='samples: no picture is larger than the 64 pixels .* none of 4 tiles'):
        train(RunOptions(data='samples', out=str(tmp_path / 'run'), steps=1, choices=dict(tiles=4)))
