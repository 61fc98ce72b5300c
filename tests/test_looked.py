"Maps over a picture: weights of the plain attention, falls by hand, models that only seem to look."
import numpy as np
import pytest
import torch

from earthgpt_lite.looked import answer_logp, answer_tokens, attention_maps, cover, deletion_test, occlusion_map, over
from earthgpt_lite.pictures import GREY
from earthgpt_lite.sensors import BadInput

QUESTION, ANSWER = 'what does this image show?', 'mostly water and forest.'


@pytest.fixture(scope='module')
def picture(few): return few['validation'][0].image


def test_weights_are_shares(tiny, picture):
    model, tokenizer = tiny
    before = model.language.config._attn_implementation
    maps = attention_maps(*tiny, picture, QUESTION, ANSWER)
    config = model.config.text_config
    assert maps.shape == (config.num_hidden_layers, config.num_attention_heads, len(answer_tokens(model, tokenizer, QUESTION, ANSWER)), model.config.grid, model.config.grid)
    assert (maps >= 0).all() and 0 < maps.sum((-1, -2)).max() <= 1 + 1e-5 and model.language.config._attn_implementation == before


def test_maps_do_not_depend_on_the_attention_in_use(tiny, picture):
    model = tiny[0]
    before, old = attention_maps(*tiny, picture, QUESTION, ANSWER), model.language.config._attn_implementation
    model.language.set_attn_implementation('sdpa')
    try: assert np.allclose(attention_maps(*tiny, picture, QUESTION, ANSWER), before, atol=1e-5) and model.language.config._attn_implementation == 'sdpa'
    finally: model.language.set_attn_implementation(old)


def test_logp_is_that_of_the_loss(tiny, picture):
    "The mean log-probability equals the loss of the same row in training."
    from earthgpt_lite.instructions import Turn
    from earthgpt_lite.model import picture_prefix, to_pixels
    from earthgpt_lite.tokens import ChatFormat, encode_turns, make_row, stack
    model, tokenizer = tiny
    row = make_row(encode_turns(tokenizer, [Turn(QUESTION, ANSWER)], ChatFormat(**model.config.chat)), picture_prefix(model.config, tokenizer))
    with torch.no_grad(): loss = float(model(**vars(stack([row], to_pixels(picture)[None], tokenizer.pad_token_id))).loss)
    assert answer_logp(model, tokenizer, picture[None], QUESTION, ANSWER)[0] == pytest.approx(-loss, abs=1e-4)


def test_batches_change_nothing(tiny, picture):
    some = np.stack([picture, cover(picture, np.eye(8, dtype=bool)), np.full_like(picture, GREY)])
    assert np.allclose(answer_logp(*tiny, some, QUESTION, ANSWER, 1), answer_logp(*tiny, some, QUESTION, ANSWER, 64), atol=1e-5)


def test_cover_and_over():
    picture = np.arange(10 * 10 * 3, dtype=np.uint8).reshape(10, 10, 3)
    mask = np.zeros((4, 4), bool); mask[0, 3] = True
    covered = cover(picture, mask)
    assert (covered[:3, 8:] == GREY).all() and np.array_equal(covered[3:], picture[3:]) and np.array_equal(covered[:, :7], picture[:, :7])
    assert over(picture, np.full((2, 2), -1.)).shape == picture.shape and over(picture, np.zeros((2, 2))).dtype == np.uint8


def test_occlusion_by_hand(tiny, picture):
    fall = occlusion_map(*tiny, picture, QUESTION, ANSWER, cells=4, reach=0)
    mask = np.zeros((4, 4), bool); mask[1, 2] = True
    a, b = answer_logp(*tiny, np.stack([picture, cover(picture, mask)]), QUESTION, ANSWER)
    assert fall.shape == (4, 4) and fall[1, 2] == pytest.approx(a - b, abs=1e-4)
    grey = np.full_like(picture, GREY)
    assert np.allclose(occlusion_map(*tiny, grey, QUESTION, ANSWER, cells=3), 0, atol=1e-4)      # grey on grey changes nothing


def test_deletion(tiny, picture):
    weights = np.random.default_rng(0).random((8, 8))
    a = deletion_test(*tiny, picture, QUESTION, ANSWER, weights)
    assert a == deletion_test(*tiny, picture, QUESTION, ANSWER, weights) and 0 <= a['better'] <= 1
    every = deletion_test(*tiny, picture, QUESTION, ANSWER, weights, cells=64)
    assert every['named'] == pytest.approx(every['random'], abs=1e-4)      # all covered, by whatever map


def test_an_empty_answer_is_refused(tiny, picture):
    with pytest.raises(BadInput, match='empty'): attention_maps(*tiny, picture, QUESTION, ' ')
