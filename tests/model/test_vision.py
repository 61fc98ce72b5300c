"Perception: the default path as it was measured, blocks equal to transformers', modes, families, frozen parts, what is refused."

import hashlib
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoBackbone,
    AutoModel,
    CLIPConfig,
    CLIPVisionConfig,
    ConvNextConfig,
    ConvNextModel,
    ConvNextV2Config,
    DeiTConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ViTConfig,
    IJepaConfig,
    LlamaConfig,
    ResNetConfig,
    SiglipVisionConfig,
    SwinConfig,
    ViTConfig,
    ViTMAEConfig,
)
from transformers.models.convnext.modeling_convnext import ConvNextLayer
from transformers.models.dinov2.modeling_dinov2 import Dinov2Layer

from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.blocks import (
    Attention,
    ConvNeXtBlock,
    ViTBlock,
    component_colours,
    copy_block,
    scaled_dot_product_attention,
)
from earthgpt_lite.model.modeling import nano
from earthgpt_lite.model.tokens import train_tokenizer
from earthgpt_lite.model.vision import (
    CLIP,
    CNNFeatures,
    IMAGENET,
    ViTFeatures,
    VisionTower,
    group_norm,
    normalise_pixels,
    to_grid,
)

# nano's
VIT = Dinov2Config(
    hidden_size=192,
    num_hidden_layers=3,
    num_attention_heads=4,
    image_size=64,
    patch_size=8,
    layerscale_value=1.0,
)
CNN = ResNetConfig(
    embedding_size=32, hidden_sizes=[32, 64, 128], depths=[1, 1, 1], layer_type='basic', out_indices=[1, 2, 3]
)
SMALL = dict(
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=64,
    image_size=32,
    patch_size=8,
)
FAMILIES = [
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ViTConfig,
    ViTConfig,
    DeiTConfig,
    SiglipVisionConfig,
    CLIPVisionConfig,
    IJepaConfig,
]
CONVNEXT = dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1])


def random_pixels(n=2, side=64, seed=1):
    return torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(seed)).to(
        torch.uint8
    )


def apart(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def count(module):
    return sum(p.numel() for p in module.parameters())


def shaken(module, seed=0):
    "Every weight random, so that no gain is one and no bias zero by chance"
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * (0.1 if p.dim() > 1 else 0.5))
    return module.eval()


# nano's default path: results of quickstart were measured on it


def test_nanos_default_path_is_as_it_was():
    torch.manual_seed(0)
    model = VisionTower(VIT, CNN, 8, vit_layers=(1, 2, 3))
    names = hashlib.sha256('\n'.join(model.state_dict()).encode()).hexdigest()[:12]
    assert (len(model.state_dict()), names) == (110, 'cc6b91142ad6'), 'saved nano models no longer load'
    assert count(model) == 1_823_712
    with torch.no_grad():
        out = model(random_pixels(3))
    assert out.shape == (3, 64, 768)
    found = [
        out.double().abs().mean().item(),
        out[0, 0, 0].item(),
        out[2, 63, 767].item(),
        out[1, 7, 300].item(),
    ]
    # of the code that quickstart was measured with
    assert found == pytest.approx([0.694719952, -2.049589396, 0.932391130, 0.552303672], rel=1e-4)


def test_nanos_parameters_for_a_seed_are_what_they_were():
    tokenizer = train_tokenizer([' is there any water in this image?', ' yes', ' no', ' forest and snow'])
    torch.manual_seed(0)
    model = nano(tokenizer)
    names = hashlib.sha256('\n'.join(model.state_dict()).encode()).hexdigest()[:12]
    assert (len(tokenizer), len(model.state_dict()), names) == (398, 153, '2d9d0465238f')
    found = {
        name: (count(part), sum(p.double().abs().sum().item() for p in part.parameters()))
        for name, part in model.named_children()
    }
    expected = dict(
        vision_tower=(1_823_712, 40131.22112),
        projector=(148_032, 2549.91661),
        language=(1_847_616, 31046.95500),
    )
    assert {name: n for name, (n, _) in found.items()} == {name: n for name, (n, _) in expected.items()}
    for name, (_, size) in expected.items():
        assert found[name][1] == pytest.approx(size, rel=1e-7), f'{name} no longer starts as it did'


# by hand and by the library


@pytest.mark.parametrize('dtype, most', [(torch.float32, 1e-5), (torch.float64, 1e-9)])
@pytest.mark.parametrize('width, heads, ratio', [(384, 6, 4), (96, 4, 2)])
def test_vit_block_is_transformers_block(width, heads, ratio, dtype, most):
    theirs = shaken(
        Dinov2Layer(
            Dinov2Config(
                hidden_size=width, num_attention_heads=heads, mlp_ratio=ratio, attn_implementation='eager'
            )
        )
    )
    ours = copy_block(ViTBlock(width, heads, ratio), theirs).to(dtype)
    x = torch.randn(2, 65, width, dtype=dtype)
    with torch.no_grad():
        assert apart(ours(x), theirs.to(dtype)(x)) < most
        ours.gain1 += 0.01
        assert apart(ours(x), theirs(x)) > 100 * most  # so that the test can fail


@pytest.mark.parametrize('dtype, most', [(torch.float32, 1e-5), (torch.float64, 1e-9)])
def test_convnext_block_is_transformers_block(dtype, most):
    theirs = shaken(ConvNextLayer(ConvNextConfig(), 96))
    ours = copy_block(ConvNeXtBlock(96), theirs).to(dtype)
    x = torch.randn(2, 96, 12, 20, dtype=dtype)
    with torch.no_grad():
        assert apart(ours(x), theirs.to(dtype)(x)) < most
        ours.gain += 0.01
        assert apart(ours(x), theirs(x)) > 100 * most


def test_copy_block_leaves_no_weight_out():
    theirs = shaken(Dinov2Layer(Dinov2Config(hidden_size=32, num_attention_heads=2)))
    assert count(copy_block(ViTBlock(32, 2), theirs)) == count(theirs)
    with pytest.raises((KeyError, RuntimeError)):
        copy_block(ViTBlock(32, 2), ConvNextLayer(ConvNextConfig(), 32))


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 9))
@settings(max_examples=20)
def test_attention_is_torchs(heads, size, n):
    ours, x = Attention(heads * size, heads), torch.randn(2, n, heads * size)
    q, k, v = (part(x).unflatten(2, (heads, size)).transpose(1, 2) for part in (ours.q, ours.k, ours.v))
    expected = ours.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    assert torch.allclose(
        scaled_dot_product_attention(q, k, v), F.scaled_dot_product_attention(q, k, v), atol=1e-5
    ) and torch.allclose(ours(x), expected, atol=1e-5)


def test_pyramid_by_hand():
    torch.manual_seed(0)
    scales, x = CNNFeatures(CNN, 8, 16).eval(), torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        fine, middle, coarse = (l(m) for l, m in zip(scales.lateral, scales.cnn(x).feature_maps))
        double = lambda m: m.repeat_interleave(2, -1).repeat_interleave(2, -2)
        middle = middle + double(coarse)
        fine = fine + double(middle)
        expected = [to_grid(b(m), 8) for b, m in zip(scales.blocks, (fine, middle, coarse))]
        assert apart(scales(x), torch.cat(expected, -1)) < 1e-5


def test_layers_are_the_librarys_hidden_states():
    torch.manual_seed(0)
    features = ViTFeatures(VIT, [1, -1]).eval()
    full, x = AutoModel.from_config(VIT).eval(), torch.randn(2, 3, 64, 64)
    features.load_pretrained(full)
    with torch.no_grad():
        states = full(x, output_hidden_states=True).hidden_states
        expected = [norm(states[l][:, 1:]) for l, norm in zip((1, 3), features.norms)]
        assert apart(features(x), torch.cat(expected, -1)) < 1e-5
        features.norms[1].eps = VIT.layer_norm_eps
        # the last tapped layer is what DINOv2 itself gives
        assert apart(features(x)[..., 192:], full(x).last_hidden_state[:, 1:]) < 1e-5


# layers, fusions, families


def test_fusions_of_layers():
    x = torch.randn(2, 3, 64, 64)
    torch.manual_seed(0)
    total = ViTFeatures(VIT, [1, 3], 'sum').eval()
    torch.manual_seed(0)
    mean = ViTFeatures(VIT, [1, 3], 'weights').eval()
    torch.manual_seed(0)
    side = ViTFeatures(VIT, [1, 3]).eval()
    with torch.no_grad():
        assert torch.allclose(total(x), side(x)[..., :192] + side(x)[..., 192:], atol=1e-5)
        assert torch.allclose(2 * mean(x), total(x), atol=1e-5)  # weights start equal
        mean.weights.copy_(torch.tensor([100.0, 0.0]))
        assert torch.allclose(mean(x), side(x)[..., :192], atol=1e-5)
    mean(x).square().sum().backward()
    assert mean.weights.grad is not None and (total.channels, mean.channels, side.channels) == (192, 192, 384)


def test_layers_by_number_from_either_end_and_only_once():
    assert ViTFeatures(VIT, [-1, 1, -3]).layers == [1, 3] and ViTFeatures(VIT, [2]).layers == [2]


def test_blocks_behind_the_last_layer_are_not_built():
    one, three = ViTFeatures(VIT, [1]), ViTFeatures(VIT, [1, 2, 3])
    assert (
        len(one.vit.encoder.layer) == 1 and len(three.vit.encoder.layer) == 3 and VIT.num_hidden_layers == 3
    )


@pytest.mark.parametrize('Config', FAMILIES, ids=lambda C: C.model_type)
@pytest.mark.parametrize('size', [32, 48])
def test_families_of_vits(Config, size):
    torch.manual_seed(0)
    features = ViTFeatures(Config(**SMALL), [1, 3], size=size).eval()
    x = torch.randn(2, 3, size, size)
    with torch.no_grad():
        out = features(x)
    assert out.shape == (2, (size // 8) ** 2, 64) and out.isfinite().all()
    x[:, :, :8, :8] += 3  # the first patch must be the first token
    with torch.no_grad():
        change = (features(x) - out).abs().sum((0, 2))
    assert change.argmax() == 0


def test_every_trained_weight_gets_a_gradient():
    "Blocks, norms and poolers that nobody asks would stop two processes; only DINOv2's mask token is left."
    for Config in FAMILIES:
        features = ViTFeatures(Config(**SMALL), [1, 2]).train()
        features(torch.randn(2, 3, 32, 32)).square().sum().backward()
        idle = [n for n, p in features.named_parameters() if p.grad is None]
        assert all('mask_token' in n or '.head.' in n or 'probe' in n for n in idle), (
            Config.model_type,
            idle,
        )


def test_a_config_of_two_towers_gives_its_eyes():
    clip = CLIPConfig(
        vision_config=SMALL,
        text_config=dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=1, intermediate_size=16),
    )
    assert VisionTower(clip, None, 4, vit_layers=(1,))(random_pixels()).shape == (2, 16, 32)


@pytest.mark.parametrize(
    'config',
    [
        ConvNextConfig(**CONVNEXT, out_indices=[1, 2, 3]),
        ConvNextV2Config(**CONVNEXT, out_indices=[1, 2, 3]),
        CNN,
        SwinConfig(
            image_size=64,
            embed_dim=24,
            depths=[1, 1, 1],
            num_heads=[1, 2, 4],
            window_size=4,
            out_indices=[1, 2, 3],
        ),
    ],
    ids=lambda c: c.model_type,
)
def test_families_of_cnns(config):
    scales = CNNFeatures(config, 8, 16)
    assert scales(torch.randn(2, 3, 64, 64)).shape == (2, 64, 48)


def test_stages_behind_the_last_level_are_not_built_and_change_nothing():
    config = ConvNextConfig(**CONVNEXT, out_indices=[1, 2])
    torch.manual_seed(0)
    full = shaken(AutoBackbone.from_config(config))
    scales, x = CNNFeatures(config, 8).eval(), torch.randn(1, 3, 64, 64)
    left = scales.load_pretrained(full)
    assert left and all(n.startswith(('encoder.stages.2', 'encoder.stages.3')) for n in left)
    assert config.depths == [1, 1, 2, 1] and len(scales.cnn.encoder.stages) == 2
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(scales.cnn(x).feature_maps, full(x).feature_maps))
    scales(x).sum().backward()
    assert not [n for n, p in scales.named_parameters() if p.grad is None]


# the grid


@given(st.sampled_from([1, 2, 4, 8, 16]), st.sampled_from([1, 2, 4, 8]))
@settings(max_examples=20)
def test_to_grid_keeps_places(side, grid):
    rows = torch.arange(float(side)).view(1, 1, side, 1).expand(1, 1, side, side) / side
    out = to_grid(torch.cat([rows, rows.transpose(2, 3)], 1), grid)
    assert out.shape == (1, grid * grid, 2)
    r, c = out[0].view(grid, grid, 2).unbind(-1)
    assert (
        torch.allclose(r, c.T, atol=1e-6)
        and (r.diff(dim=0) >= -1e-6).all()
        and torch.allclose(r, r[:, :1].expand_as(r), atol=1e-6)
    )


def test_vit_and_cnn_tokens_lie_on_the_same_places():
    torch.manual_seed(0)
    model = VisionTower(VIT, CNN, 8, vit_layers=(1, 2, 3)).eval()
    dark = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    for row, column in ((0, 6), (5, 1)):
        lit = dark.clone()
        lit[..., row * 8 : row * 8 + 8, column * 8 : column * 8 + 8] = 255
        with torch.no_grad():
            change = (model(lit) - model(dark))[0].abs()
        assert change[:, :576].sum(1).argmax() == row * 8 + column
        strongest = int(change[:, 576:640].sum(1).argmax())
        assert max(abs(strongest // 8 - row), abs(strongest % 8 - column)) <= 1


def test_another_grid_than_the_vits():
    assert VisionTower(VIT, CNN, 4)(random_pixels()).shape == (2, 16, 384) and VisionTower(VIT, None, 16)(
        random_pixels()
    ).shape == (2, 256, 192)


# modes and inputs


@pytest.mark.parametrize(
    'vit, cnn, fusion, channels',
    [
        (VIT, CNN, 'concat', 384),
        (VIT, None, 'concat', 192),
        (None, CNN, 'concat', 192),
        (VIT, CNN, 'sum', 192),
        (VIT, None, 'sum', 192),
    ],
)
def test_modes(vit, cnn, fusion, channels):
    model = VisionTower(vit, cnn, 8, fusion=fusion)
    assert model(random_pixels()).shape == (2, 64, channels) == (2, 64, model.channels)
    assert set(model.encoders) == {n for n, c in (('vit', vit), ('cnn', cnn)) if c}


def test_sum_is_the_sum():
    torch.manual_seed(0)
    model, pixels = VisionTower(VIT, CNN, 8, fusion='sum').eval(), random_pixels()
    x = model.normalised(pixels)
    with torch.no_grad():
        assert torch.allclose(
            model(pixels), model.vit(x['vit']) + model.match(model.cnn(x['cnn'])), atol=1e-5
        )


def test_each_encoder_gets_its_own_size_and_normalisation():
    model, pixels = (
        VisionTower(VIT, CNN, 8, vit_input=dict(size=56, **IMAGENET), cnn_input=dict(size=96, **CLIP)),
        random_pixels(1, 80),
    )
    x = model.normalised(pixels)
    assert x['vit'].shape[-1] == 56 and x['cnn'].shape[-1] == 96 and model(pixels).shape == (1, 64, 384)
    resized = F.interpolate(pixels.float() / 255, size=(96, 96), mode='bicubic', antialias=True).clamp(0, 1)
    expected = (resized - torch.tensor(CLIP['mean'])[:, None, None]) / torch.tensor(CLIP['std'])[
        :, None, None
    ]
    assert torch.allclose(x['cnn'], expected, atol=1e-5)


def test_prepare_of_one_colour():
    grey = torch.full((1, 3, 8, 8), 51, dtype=torch.uint8)
    assert torch.allclose(normalise_pixels(grey, 8), torch.tensor(-0.6)) and torch.allclose(
        normalise_pixels(grey, 20), torch.tensor(-0.6), atol=1e-5
    )
    assert torch.allclose(
        normalise_pixels(grey, 8, **IMAGENET)[0, :, 0, 0],
        (torch.tensor(0.2) - torch.tensor(IMAGENET['mean'])) / torch.tensor(IMAGENET['std']),
    )


def test_a_model_in_float64_takes_bytes():
    assert VisionTower(VIT, CNN, 8).double()(random_pixels()).dtype == torch.float64


def test_a_picture_does_not_depend_on_its_neighbours():
    torch.manual_seed(0)
    model, pixels = VisionTower(VIT, CNN, 8).train(), random_pixels(4)
    with torch.no_grad():
        assert apart(model(pixels)[:1], model(pixels[:1])) < 1e-5
    with_batch_norm = AutoBackbone.from_config(CNN).train()
    x = normalise_pixels(pixels, 64)
    with torch.no_grad():
        assert apart(with_batch_norm(x).feature_maps[-1][:1], with_batch_norm(x[:1]).feature_maps[-1]) > 0.1
    assert not [m for m in group_norm(with_batch_norm).modules() if isinstance(m, torch.nn.BatchNorm2d)]


# frozen parts and given weights


def test_frozen_encoders_get_no_gradient_and_stay_in_eval():
    shaky = deepcopy(VIT)
    shaky.hidden_dropout_prob = 0.5
    model, pixels = (
        VisionTower(shaky, CNN, 8, vit_layers=(1, 3), layer_fusion='weights', train_encoders=False).train(),
        random_pixels(),
    )
    before = deepcopy({n: b for n, b in model.named_buffers()})
    model.requires_grad_(True)  # as a stage that trains the whole vision tower does
    out = model(pixels)
    assert torch.equal(out, model(pixels))  # no dropout, no batch statistics
    out.square().sum().backward()
    got = {n for n, p in model.named_parameters() if p.grad is not None}
    assert not any(n.startswith(('vit.vit.', 'cnn.cnn.')) for n in got)
    assert got == {n for n, _ in model.named_parameters() if not n.startswith(('vit.vit.', 'cnn.cnn.'))}
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers()) and before, (
        'statistics of a frozen batch norm have moved'
    )
    assert (
        not model.vit.vit.training
        and not model.cnn.cnn.training
        and model.cnn.blocks.training
        and not deepcopy(model).train().vit.vit.training
    )


def test_frozen_encoders_are_in_eval_as_built():
    for model in (
        VisionTower(VIT, CNN, 8, train_encoders=False),
        ViTFeatures(VIT, [1, 3], trained=False),
        CNNFeatures(CNN, 8, trained=False),
    ):
        frozen = (
            model.encoders.values()
            if isinstance(model, VisionTower)
            else [getattr(model, 'vit', None) or model.cnn]
        )
        assert model.training and not any(m.training for encoder in frozen for m in encoder.modules())
    pyramid = CNNFeatures(CNN, 8, trained=False)
    before = {n: b.clone() for n, b in pyramid.named_buffers()}
    pyramid(torch.randn(2, 3, 64, 64))
    assert before and all(torch.equal(b, before[n]) for n, b in pyramid.named_buffers()), (
        'a fresh frozen batch norm has learned from what it saw'
    )


def test_trained_encoders_get_gradients_and_train():
    model = VisionTower(VIT, CNN, 8).train()
    model(random_pixels()).square().sum().backward()
    assert {n for n, p in model.named_parameters() if p.grad is None} == {
        'vit.vit.embeddings.mask_token'
    } and model.vit.vit.training


def test_take_says_what_is_left_and_uses_the_final_norm():
    full = shaken(AutoModel.from_config(VIT))
    features = ViTFeatures(VIT, [1, 2])
    # as a checkpoint of a bigger model names them
    left = features.load_pretrained({f'dinov2.{n}': w for n, w in full.state_dict().items()})
    assert left and all(n.startswith('encoder.layer.2.') for n in left)
    assert all(
        torch.equal(norm.weight, full.layernorm.weight) and torch.equal(norm.bias, full.layernorm.bias)
        for norm in features.norms
    )
    assert torch.equal(features.vit.encoder.layer[1].mlp.fc1.weight, full.encoder.layer[1].mlp.fc1.weight)
    assert ViTFeatures(VIT, [-1]).load_pretrained(full) == []


def test_take_refuses_what_does_not_fit():
    full = AutoModel.from_config(VIT).state_dict()
    with pytest.raises(BadInput, match='do not fit the dinov2: missing: embeddings.cls_token'):
        ViTFeatures(VIT, [1]).load_pretrained({n: w for n, w in full.items() if 'cls_token' not in n})
    with pytest.raises(BadInput, match='of another shape'):
        ViTFeatures(VIT, [1]).load_pretrained(full | {'embeddings.cls_token': torch.zeros(1, 1, 7)})
    with pytest.raises(BadInput, match='do not fit the resnet'):
        CNNFeatures(CNN, 8).load_pretrained(full)


def test_the_plain_models_weights_fit_the_backbone():
    config = ConvNextConfig(**CONVNEXT, out_indices=[1, 2, 3, 4])
    assert CNNFeatures(config, 8, trained=False).load_pretrained(shaken(ConvNextModel(config))) == [
        'layernorm.weight',
        'layernorm.bias',
    ]


# what is refused


@pytest.mark.parametrize(
    'make, match',
    [
        (lambda: VisionTower(None, None, 8), 'blind'),
        (
            lambda: VisionTower(LlamaConfig(), None, 8),
            'llama is no vision transformer: its config has no patch_size',
        ),
        (lambda: VisionTower(ResNetConfig(), None, 8), 'resnet gives a pyramid of maps.*give it as the CNN'),
        (lambda: VisionTower(None, LlamaConfig(), 8), 'llama gives no maps'),
        (
            lambda: VisionTower(VIT, CNN, 8, fusion='product'),
            "no fusion of ViT and CNN named 'product': choose concat or sum",
        ),
        (lambda: VisionTower(VIT, CNN, 8, layer_fusion='mean'), "no fusion of layers named 'mean'"),
        (lambda: ViTFeatures(VIT, [4]), 'this ViT has layers 1 to 3'),
        (lambda: ViTFeatures(VIT, [0]), 'this ViT has layers 1 to 3'),
        (lambda: ViTFeatures(VIT, [-4]), 'this ViT has layers 1 to 3'),
        (lambda: ViTFeatures(VIT, []), 'this ViT has layers 1 to 3'),
        (lambda: ViTFeatures(VIT, [1], size=5), 'smaller than one patch'),
        (lambda: ViTFeatures(ViTMAEConfig(**SMALL), [1])(torch.zeros(1, 3, 32, 32)), 'cannot serve as ViT'),
    ],
)
def test_refused_with_a_sentence(make, match):
    with pytest.raises(BadInput, match=match):
        make()


# colours of tokens


def test_component_colours_separate_two_kinds_and_are_the_main_directions():
    torch.manual_seed(0)
    which = torch.arange(64) % 8 > 3
    tokens = torch.randn(2, 16)[which.long()][None].repeat(2, 1, 1) + 0.02 * torch.randn(2, 64, 16)
    shown = component_colours(tokens)
    assert shown.shape == (2, 8, 8, 3) and shown.min() >= 0 and shown.max() <= 1
    first = shown[..., 0].flatten(1)
    assert (first[:, which].mean() - first[:, ~which].mean()).abs() > 0.8
    centred = (tokens.flatten(0, 1) - tokens.flatten(0, 1).mean(0)).numpy()
    main = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    assert abs(np.corrcoef(centred @ main, first.flatten())[0, 1]) > 0.99
