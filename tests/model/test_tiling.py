"A picture read in tiles: one to whoever asks, several to the model, and the same whichever way it is computed."

from copy import deepcopy

import numpy as np
import pytest
import torch

from earthgpt_lite.boxes.layout import split_views, view_words
from earthgpt_lite.data.records import Turn
from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.config import check_choices, nano_config, rendering_of
from earthgpt_lite.model.generation import generate_answers
from earthgpt_lite.model.memory import presets_table, weigh
from earthgpt_lite.model.modeling import save
from earthgpt_lite.model.loading import load
from earthgpt_lite.model.packing import build_sequence, collate, join_sequences
from earthgpt_lite.model.processor import EarthGPTProcessor, picture_prefix, picture_views, to_pixel_values
from earthgpt_lite.model.tokens import ChatFormat, encode_turns

TURNS = [Turn('how many trees are there?', '12'), Turn('where is it?', '[0.10,0.20,0.30,0.40]')]
SHAPES = [(128, 128), (64, 40), (100, 230), (64, 64), (300, 90)]  # 4 tiles, none, 3, none, 4


@pytest.fixture(scope='module')
def tiled(wild):
    model, tokenizer = deepcopy(wild[0]), wild[1]
    model.config.tiles = 4
    return model, tokenizer


@pytest.fixture(scope='module')
def pictures():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (*shape, 3), 'uint8') for shape in SHAPES]


ASKED = [
    (0, 'how many trees are there?'),
    (1, 'what does this image show?'),
    ((2, 0), 'what has changed?'),
    (None, 'what is a lake?'),
    (3, 'where is the lake?'),
    (0, 'where is the lake?'),
    (4, 'snow?'),
    ((0, 2), 'what has changed?'),
]
SAID = [None, None, ('before', 'after'), None, None, None, ('2019',), ('', 'after')]


def answered(model, tokenizer, pictures, picked=range(len(ASKED)), **options):
    pixels = [to_pixel_values(image) for image in pictures]
    words = [SAID[k] for k in picked]
    return generate_answers(model, tokenizer, pixels, [ASKED[k] for k in picked], 8, words=words, **options)


def by_hand(model, tokenizer, pictures, k):
    "Greedy answer from full forward passes, with the views cut here."
    given, question = ASKED[k]
    indices = () if given is None else given if isinstance(given, tuple) else (given,)
    words, views = [], []
    for i, announced in zip(indices, SAID[k] or ('',) * len(indices)):
        grid, some = split_views(pictures[i], 64, 4)
        words += view_words(grid, announced)
        views += map(to_pixel_values, some)
    start = picture_prefix(model.config, tokenizer, tuple(words))
    start = start + ChatFormat().encode_question(tokenizer, question)
    pixels, new = torch.stack(views) if views else None, []
    while len(new) < 8 and new[-1:] != [tokenizer.eos_token_id]:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([start + new]), pixel_values=pixels).logits[0, -1]
        new.append(int(logits.argmax()))
    return tokenizer.decode(new, skip_special_tokens=True).strip()


def test_batched_cached_and_alone_are_plain_forward_passes(tiled, pictures):
    together = answered(*tiled, pictures)
    assert [text for text, _ in together] == [by_hand(*tiled, pictures, k) for k in range(len(ASKED))]
    assert len({text for text, _ in together}) > 5, 'so that a mix-up would show'
    alone = [answered(*tiled, pictures, [k])[0] for k in range(len(ASKED))]
    for other in (alone, answered(*tiled, pictures, batch_size=1)):
        assert [text for text, _ in other] == [text for text, _ in together]
        assert np.allclose([s for _, s in other], [s for _, s in together], atol=1e-4)


def test_each_view_is_encoded_once(tiled, pictures):
    model, counts = tiled[0], []
    hook = model.vision_tower.register_forward_pre_hook(lambda tower, given: counts.append(len(given[0])))
    answered(*tiled, pictures)
    hook.remove()
    assert sum(counts) == sum(len(split_views(image, 64, 4)[1]) for image in pictures) == 5 + 1 + 4 + 1 + 5


def test_small_pictures_are_asked_as_without_tiles(tiled, wild, pictures):
    pixels = torch.stack([to_pixel_values(pictures[3])] * 2)
    asked = [(0, 'what is this?'), ((0, 1), 'what has changed?')]
    assert generate_answers(*tiled, pixels, asked, 8) == generate_answers(*wild, pixels, asked, 8)


@torch.no_grad()
def test_shared_packed_and_alone_give_one_loss(tiled, pictures):
    model, tokenizer = tiled
    chat, losses = ChatFormat(**model.config.chat), []
    pairs = encode_turns(tokenizer, TURNS, chat)
    tuples = [((0,), ('',)), ((3,), ('',)), ((1, 2), ('before', 'after'))]
    seen = [picture_views(model.config, [pictures[i] for i in some], words) for some, words in tuples]
    prefixes = [picture_prefix(model.config, tokenizer, words) for words, _ in seen]
    views = [v for _, some in seen for v in some]
    shared = [build_sequence(pairs, prefix) for prefix in prefixes]
    single = [build_sequence([pair], prefix) for prefix in prefixes for pair in pairs]
    twice = [v for _, some in seen for _ in pairs for v in some]
    packed = [join_sequences(shared)]
    for rows, pixels in ((shared, views), (single, twice), (packed, views)):
        out = model(**vars(collate(rows, torch.stack(pixels), 0)))
        losses.append(float(out.loss_sum))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5) and losses[0] == pytest.approx(losses[2], rel=1e-5)


def test_the_processor_gives_what_generation_reads(tiled, pictures, tmp_path):
    model, tokenizer = tiled
    processor = EarthGPTProcessor.of(model.config, tokenizer)
    processor.save_pretrained(tmp_path)
    n, image = model.config.visual_tokens, model.config.image_token_id
    for p in (processor, EarthGPTProcessor.from_pretrained(tmp_path)):
        assert p.tiles == 4
        inputs = p(
            [pictures[0], None, pictures[1]], ['how many trees are there?', 'what is a lake?', 'snow?']
        )
        assert (inputs['input_ids'] == image).sum(1).tolist() == [5 * n, 0, n]
        assert inputs['pixel_values'].shape == (6, 3, 64, 64)
    one = processor(pictures[0], 'how many trees are there?')
    with torch.no_grad():
        ids = model.generate(**one, max_new_tokens=8, do_sample=False, pad_token_id=0, eos_token_id=2)
    said = tokenizer.decode(ids[0, one['input_ids'].shape[1] :], skip_special_tokens=True).strip()
    assert said == answered(model, tokenizer, pictures, [0])[0][0]
    pair = processor({'before': pictures[2], 'after': pictures[0]}, 'what has changed?')
    text = tokenizer.decode(pair['input_ids'][0])
    assert (
        ' before, whole, 1 row of 3 tiles<image>' in text
        and ' after, whole, 2 rows of 2 tiles<image>' in text
    )


def test_tiles_are_saved_with_the_model_and_without_them_nothing_is_new(tiled, tiny, tmp_path):
    save(*tiled, tmp_path / 'tiled')
    again, _ = load(tmp_path / 'tiled', 'cpu')
    assert again.config.tiles == 4 and rendering_of(again.config).tiles == 4
    assert tiny[0].config.tiles == 0 and rendering_of(tiny[0].config) is None
    assert EarthGPTProcessor.of(tiny[0].config, tiny[1]).rendering is None


def test_more_tiles_than_the_context_holds_are_refused_with_the_mend(tiny):
    tokenizer = tiny[1]
    assert nano_config(tokenizer, tiles=14).tiles == 14
    with pytest.raises(
        BadInput, match='tiles is 15: 16 views of 64 visual tokens are 1,024.* reads 1,024; take at most 14'
    ):
        nano_config(tokenizer, tiles=15)
    assert nano_config(tokenizer, tiles=60, pixel_shuffle_factor=4).tiles == 60
    with pytest.raises(BadInput, match='nano: tiles is 20.*at most 14'):
        weigh('nano', 20)


def test_tiles_that_no_picture_can_use_are_refused():
    check_choices(dict(tiles=0), 'x')
    check_choices(dict(tiles=2), 'x')
    for wrong in (1, -1, 2.0, True, '4', 1000):
        with pytest.raises(BadInput, match='x: tiles is .*0 for none, or 2 to 256'):
            check_choices(dict(tiles=wrong), 'x')


def test_a_pair_of_tiled_pictures_longer_than_the_context_says_so(tiled, pictures):
    with pytest.raises(BadInput, match=r'question 1: 1,\d+ tokens with 20 pictures'):
        pixels = [to_pixel_values(pictures[0])]
        generate_answers(*tiled, pixels, [((0,) * 4, 'what has changed?')], 8)


def test_the_scale_weighs_tiles():
    plain, nine = weigh('nano'), weigh('nano', 9)
    assert plain['tiles'] == 0 and plain['visual_tokens'] == 64 and nine['visual_tokens'] == 640
    assert nine['train_bytes'] > plain['train_bytes'] and nine['infer_bytes'] > plain['infer_bytes']
    table = presets_table(['nano'], 9)
    assert '  640  ' in table and '10 views, the whole and 9 tiles' in table
    assert 'views' not in presets_table(['nano'])
