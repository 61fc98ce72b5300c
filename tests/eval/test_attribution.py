"Maps over a picture: weights of the plain attention, falls by hand, models that only seem to look."

import numpy as np
import pytest
import torch

from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval.attribution import (
    answer_logprob,
    answer_tokens,
    attention_maps,
    deletion_masks,
    deletion_test,
    heatmap_overlay,
    mask_cells,
    occlusion_drops,
    occlusion_map,
)
from earthgpt_lite.raster.chips import GREY

QUESTION, ANSWER = 'what does this image show?', 'mostly water and forest.'


@pytest.fixture(scope='module')
def picture(few):
    return few['validation'][0].image


def test_weights_are_shares(tiny, picture):
    model, tokenizer = tiny
    before = model.language.config._attn_implementation
    maps = attention_maps(*tiny, picture, QUESTION, ANSWER)
    config = model.config.text_config
    assert maps.shape == (
        config.num_hidden_layers,
        config.num_attention_heads,
        len(answer_tokens(model, tokenizer, QUESTION, ANSWER)),
        model.config.grid,
        model.config.grid,
    )
    assert (
        (maps >= 0).all()
        and 0 < maps.sum((-1, -2)).max() <= 1 + 1e-5
        and model.language.config._attn_implementation == before
    )


def test_maps_do_not_depend_on_the_attention_in_use(tiny, picture):
    model = tiny[0]
    before, old = attention_maps(*tiny, picture, QUESTION, ANSWER), model.language.config._attn_implementation
    model.language.set_attn_implementation('sdpa')
    try:
        assert (
            np.allclose(attention_maps(*tiny, picture, QUESTION, ANSWER), before, atol=1e-5)
            and model.language.config._attn_implementation == 'sdpa'
        )
    finally:
        model.language.set_attn_implementation(old)


def test_logp_is_that_of_the_loss(tiny, picture):
    "The mean log-probability equals the loss of the same row in training."
    from earthgpt_lite.data.records import Turn
    from earthgpt_lite.model.packing import build_sequence, collate
    from earthgpt_lite.model.processor import picture_prefix, to_pixel_values
    from earthgpt_lite.model.tokens import ChatFormat, encode_turns

    model, tokenizer = tiny
    row = build_sequence(
        encode_turns(tokenizer, [Turn(QUESTION, ANSWER)], ChatFormat(**model.config.chat)),
        picture_prefix(model.config, tokenizer),
    )
    with torch.no_grad():
        loss = float(
            model(**vars(collate([row], to_pixel_values(picture)[None], tokenizer.pad_token_id))).loss
        )
    assert answer_logprob(model, tokenizer, picture[None], QUESTION, ANSWER)[0] == pytest.approx(
        -loss, abs=1e-4
    )


def test_batches_change_nothing(tiny, picture):
    some = np.stack([picture, mask_cells(picture, np.eye(8, dtype=bool)), np.full_like(picture, GREY)])
    assert np.allclose(
        answer_logprob(*tiny, some, QUESTION, ANSWER, 1),
        answer_logprob(*tiny, some, QUESTION, ANSWER, 64),
        atol=1e-5,
    )


def test_cover_and_over():
    picture = np.arange(10 * 10 * 3, dtype=np.uint8).reshape(10, 10, 3)
    mask = np.zeros((4, 4), bool)
    mask[0, 3] = True
    covered = mask_cells(picture, mask)
    assert (
        (covered[:3, 8:] == GREY).all()
        and np.array_equal(covered[3:], picture[3:])
        and np.array_equal(covered[:, :7], picture[:, :7])
    )
    assert (
        heatmap_overlay(picture, np.full((2, 2), -1.0)).shape == picture.shape
        and heatmap_overlay(picture, np.zeros((2, 2))).dtype == np.uint8
    )


def test_occlusion_by_hand(tiny, picture):
    fall = occlusion_map(*tiny, picture, QUESTION, ANSWER, cells=4, radius=0)
    mask = np.zeros((4, 4), bool)
    mask[1, 2] = True
    a, b = answer_logprob(*tiny, np.stack([picture, mask_cells(picture, mask)]), QUESTION, ANSWER)
    assert fall.shape == (4, 4) and fall[1, 2] == pytest.approx(a - b, abs=1e-4)
    grey = np.full_like(picture, GREY)
    # grey on grey changes nothing
    assert np.allclose(occlusion_map(*tiny, grey, QUESTION, ANSWER, cells=3), 0, atol=1e-4)


def test_deletion(tiny, picture):
    weights = np.random.default_rng(0).random((8, 8))
    a = deletion_test(*tiny, picture, QUESTION, ANSWER, weights)
    assert a == deletion_test(*tiny, picture, QUESTION, ANSWER, weights) and 0 <= a['better'] <= 1
    every = deletion_test(*tiny, picture, QUESTION, ANSWER, weights, cells=64)
    assert every['named'] == pytest.approx(every['random'], abs=1e-4)  # all covered, by whatever map


def test_deletion_masks_cover_as_many_cells_and_first_those_that_are_named():
    weights = np.arange(16.0).reshape(4, 4)
    masks = deletion_masks(weights, cells=3, repeats=5, seed=1)
    assert masks.shape == (6, 4, 4) and (masks.sum((1, 2)) == 3).all()
    assert masks[0].ravel().nonzero()[0].tolist() == [13, 14, 15]
    assert np.array_equal(masks, deletion_masks(weights, cells=3, repeats=5, seed=1))


def test_a_misspelt_setting_of_the_deletion_test_is_named(tiny, picture):
    with pytest.raises(TypeError, match='cels'):
        deletion_test(*tiny, picture, QUESTION, ANSWER, np.ones((4, 4)), cels=3)


def test_drops_of_masks_by_hand(tiny, picture):
    masks = np.stack([np.zeros((4, 4), bool), np.ones((4, 4), bool)])
    nothing, everything = occlusion_drops(*tiny, picture, QUESTION, ANSWER, masks)
    clean, grey = answer_logprob(*tiny, np.stack([picture, np.full_like(picture, GREY)]), QUESTION, ANSWER)
    assert nothing == pytest.approx(0, abs=1e-4) and everything == pytest.approx(clean - grey, abs=1e-4)


def test_an_empty_answer_is_refused(tiny, picture):
    with pytest.raises(BadInput, match='empty'):
        attention_maps(*tiny, picture, QUESTION, ' ')
