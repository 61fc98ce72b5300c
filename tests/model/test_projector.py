"Projector: merging there and back, marks, counted cost, what is refused."

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig

from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.projector import (
    Projector,
    count_operations,
    pixel_shuffle,
    token_budget,
    undo_pixel_shuffle,
    visual_tokens,
)

LM = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=100)


@given(st.sampled_from([1, 4, 16]), st.integers(1, 4), st.integers(1, 3), st.integers(1, 5))
@settings(max_examples=40)
def test_merging_there_and_back(pixel_shuffle_factor, squares, batch, channels):
    grid = squares * int(pixel_shuffle_factor**0.5)
    x = torch.randn(batch, grid**2, channels)
    merged = pixel_shuffle(x, pixel_shuffle_factor)
    assert merged.shape == (batch, grid**2 // pixel_shuffle_factor, channels * pixel_shuffle_factor)
    assert torch.equal(undo_pixel_shuffle(merged, pixel_shuffle_factor), x)
    # nothing lost, nothing made up
    assert torch.equal(merged.sort(-1).values.flatten().sort().values, x.flatten().sort().values)


@pytest.mark.parametrize('pixel_shuffle_factor', [4, 16])
def test_merged_are_squares_as_torch_makes_them(pixel_shuffle_factor):
    r, x = int(pixel_shuffle_factor**0.5), torch.randn(2, 64, 5)
    theirs = F.pixel_unshuffle(x.transpose(1, 2).unflatten(2, (8, 8)), r).flatten(2).transpose(1, 2)
    assert torch.equal(
        theirs.unflatten(2, (5, pixel_shuffle_factor)).transpose(2, 3).flatten(2),
        pixel_shuffle(x, pixel_shuffle_factor),
    )


def test_first_square_by_hand():
    x = torch.arange(64.0).view(1, 64, 1)
    assert pixel_shuffle(x, 4)[0, 0].tolist() == [0, 1, 8, 9] and pixel_shuffle(x, 4)[0, 5].tolist() == [
        18,
        19,
        26,
        27,
    ]
    assert pixel_shuffle(x, 16)[0, 3].tolist() == [
        36,
        37,
        38,
        39,
        44,
        45,
        46,
        47,
        52,
        53,
        54,
        55,
        60,
        61,
        62,
        63,
    ]


def test_merging_keeps_the_gradient_of_every_token():
    x = torch.randn(1, 64, 3, requires_grad=True)
    pixel_shuffle(x, 16).square().sum().backward()
    assert torch.equal(x.grad, 2 * x.detach())


@pytest.mark.parametrize('kind', ['linear', 'mlp'])
@pytest.mark.parametrize('pixel_shuffle_factor', [1, 4, 16])
@pytest.mark.parametrize('boundary_tokens', [False, True])
def test_shapes_and_counts(kind, pixel_shuffle_factor, boundary_tokens):
    model = Projector(6, 16, kind, 0.1, pixel_shuffle_factor, boundary_tokens)
    out = model(torch.randn(3, 64, 6))
    assert (
        out.shape == (3, visual_tokens(8, pixel_shuffle_factor, boundary_tokens), 16)
        and visual_tokens(8, pixel_shuffle_factor, boundary_tokens)
        == 64 // pixel_shuffle_factor + 2 * boundary_tokens
    )
    expected = (
        6 * pixel_shuffle_factor * 16
        + 16
        + (16 * 16 + 16) * (kind == 'mlp')
        + 2 * 16
        + 2 * 16 * boundary_tokens
    )
    assert sum(p.numel() for p in model.parameters()) == expected


def test_default_has_the_names_and_the_start_that_saved_models_have():
    torch.manual_seed(0)
    model = Projector(768, 192, scale=1.0)
    assert list(model.state_dict()) == ['map.weight', 'map.bias', 'norm.weight', 'norm.bias']
    torch.manual_seed(0)
    # nothing else draws a number before it
    assert torch.equal(model.map.weight, torch.nn.Linear(768, 192).weight)
    assert not isinstance(Projector(8, 4).norm, torch.nn.LayerNorm)


def test_marks_stand_around_every_picture_and_learn():
    model, x = Projector(6, 16, scale=0.1, boundary_tokens=True), torch.randn(3, 4, 6)
    out = model(x)
    assert torch.equal(out[:, 0], model.boundary_tokens[0].expand(3, -1)) and torch.equal(
        out[:, -1], model.boundary_tokens[1].expand(3, -1)
    )
    plain = Projector(6, 16, scale=0.1)
    plain.load_state_dict({n: w for n, w in model.state_dict().items() if n != 'boundary_tokens'})
    assert torch.equal(out[:, 1:-1], plain(x))
    out[:, [0, -1]].sum().backward()
    assert model.boundary_tokens.grad.eq(3).all() and model.map.weight.grad.abs().sum() == 0


def test_marks_are_near_the_words_in_size():
    torch.manual_seed(0)
    assert Projector(4, 1000, boundary_tokens=True).boundary_tokens.std().item() == pytest.approx(
        0.02, rel=0.1
    )


def test_start_sets_the_gain():
    model = Projector(6, 64, scale=0.02)
    model.start()
    assert model(torch.randn(5, 9, 6)).std().item() == pytest.approx(0.02, rel=0.05)


def test_a_projector_in_half_precision_keeps_its_type():
    model = Projector(6, 16, 'mlp', 0.1, 4, True).to(torch.bfloat16)
    assert model(torch.randn(1, 16, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16


@pytest.mark.parametrize('kv', [4, 2])
def test_counted_operations_by_hand(kv):
    config, n = LlamaConfig(**LM, num_key_value_heads=kv), 24
    weights = 2 * (2 * 64 * 64 + 2 * 64 * 16 * kv + 3 * 64 * 96)
    assert count_operations(config, n) == 2 * n * weights + 2 * 4 * 64 * n * n + 2 * 64 * 100


def test_budget():
    rows = token_budget(8, LlamaConfig(**LM, num_key_value_heads=2), words=10)
    assert [(r['pixel_shuffle_factor'], r['tokens']) for r in rows] == [(1, 64), (4, 16), (16, 4)]
    # tokens, keys and values, layers, heads, size of a head, bytes
    assert rows[0]['cache'] == 64 * 2 * 2 * 2 * 16 * 2
    assert rows[0]['operations'] > rows[1]['operations'] > rows[2]['operations']
    assert [r['pixel_shuffle_factor'] for r in token_budget(6, LlamaConfig(**LM))] == [1, 4]


@pytest.mark.parametrize(
    'make, match',
    [
        (lambda: Projector(8, 8, 'conv'), "no projector named 'conv': choose linear or mlp"),
        (lambda: Projector(8, 8, pixel_shuffle_factor=2), 'pixel_shuffle_factor 2: choose 1, 4 or 16'),
        (lambda: visual_tokens(7, 4), '49 visual tokens are no square grid whose side 2 divides'),
        (lambda: pixel_shuffle(torch.zeros(1, 8, 3), 4), '8 visual tokens are no square grid'),
        (lambda: pixel_shuffle(torch.zeros(1, 36, 3), 16), 'needs a grid such as 4 x 4'),
        (lambda: Projector(8, 8, pixel_shuffle_factor=4)(torch.zeros(1, 25, 8)), '25 visual tokens'),
    ],
)
def test_refused_with_a_sentence(make, match):
    with pytest.raises(BadInput, match=match):
        make()
