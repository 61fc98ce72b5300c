"Backbones by name alone: configuration, size and colours out of their folders, numbers equal to the library's."

import inspect
import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from fixtures_language import family_tokenizers, from_lesson
from transformers import (
    AutoBackbone,
    AutoModel,
    AutoModelForCausalLM,
    CLIPConfig,
    CLIPVisionConfig,
    ConvNextConfig,
    ConvNextV2Config,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    DINOv3ConvNextConfig,
    DINOv3ViTConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3Config,
    SiglipConfig,
    SiglipVisionConfig,
    SmolLM3Config,
    SwinConfig,
    Swinv2Config,
    ViTConfig,
)

from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.backbones import check_language, load_language
from earthgpt_lite.model.loading import load
from earthgpt_lite.model.modeling import save, set_image_size
from earthgpt_lite.model.presets import preset_config
from earthgpt_lite.model.templates import FAMILIES
from earthgpt_lite.model.weights import build
from earthgpt_lite.train.stages import STAGES, prepare_stage
from earthgpt_lite.model.parts import part_of

VIT = dict(
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=2,
    intermediate_size=64,
    image_size=32,
    patch_size=8,
)
READER = dict(
    vocab_size=99,
    hidden_size=32,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=64,
    max_position_embeddings=32,
    eos_token_id=2,
)
VITS = dict(
    vit=ViTConfig(**VIT),
    siglip=SiglipVisionConfig(**VIT),
    siglip_two=SiglipConfig(text_config=READER, vision_config=VIT),
    clip=CLIPVisionConfig(**VIT),
    clip_two=CLIPConfig(text_config=READER, vision_config=VIT),
    dinov2=Dinov2Config(**VIT),
    registers=Dinov2WithRegistersConfig(**VIT),
    dinov3=DINOv3ViTConfig(**VIT, num_register_tokens=4),
)
STAGED = dict(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1])
WINDOWS = dict(embed_dim=8, depths=[1, 1, 2, 1], num_heads=[1, 1, 2, 2], window_size=4, image_size=64)
CNNS = dict(
    convnext=ConvNextConfig(**STAGED),
    convnextv2=ConvNextV2Config(**STAGED),
    swin=SwinConfig(**WINDOWS),
    swinv2=Swinv2Config(**WINDOWS),
    dinov3_convnext=DINOv3ConvNextConfig(**STAGED),
)
WORDS = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
)
GEMMA = """{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %}{% set role = 'model' %}\
{% else %}{% set role = m['role'] %}{% endif %}{{ '<start_of_turn>' + role + '\n' + m['content'] | trim + \
'<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""
SMOLLM3 = """{{ '<|im_start|>system\nYou answer.<|im_end|>\n' }}{% for m in messages %}\
{% if m['role'] == 'user' %}{{ '<|im_start|>user\n' + m['content'] + '<|im_end|>\n' }}{% else %}\
{{ '<|im_start|>assistant\n<think>\n\n</think>\n' + m['content'] + '<|im_end|>\n' }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n\n</think>\n' }}{% endif %}"""
LANGUAGES = dict(
    llama=(LlamaConfig, 'llama3', 'llama3', {}),
    smollm2=(LlamaConfig, 'smollm2', 'chatml', dict(tie_word_embeddings=True)),
    smollm3=(SmolLM3Config, 'smollm3', 'smollm3', dict(tie_word_embeddings=True, pad_token_id=0)),
    qwen25=(Qwen2Config, 'qwen2', 'chatml', dict(tie_word_embeddings=False)),
    qwen3=(Qwen3Config, 'qwen3', 'qwen3', dict(head_dim=16, tie_word_embeddings=True)),
    gemma=(GemmaConfig, 'gemma', 'gemma', dict(head_dim=8)),
    gemma2=(
        Gemma2Config,
        'gemma',
        'gemma',
        dict(head_dim=8, final_logit_softcapping=0.05, sliding_window=16),
    ),
    gemma3=(Gemma3TextConfig, 'gemma', 'gemma', dict(head_dim=8, sliding_window=16)),
    mistral=(MistralConfig, 'llama2', 'llama2', dict(sliding_window=16)),
)


def tokenizers():
    made, found = from_lesson('4_model/04_templates', 'WORDS', 'tiny'), family_tokenizers()
    tiny = made['tiny']
    marks = ['<|im_start|>', '<|im_end|>', '<think>', '</think>', '<pad>']
    found['smollm3'] = tiny(marks, SMOLLM3, eos_token='<|im_end|>', pad_token='<pad>')
    marks = ['<bos>', '<pad>', '<start_of_turn>', '<end_of_turn>']
    found['gemma'] = tiny(marks, GEMMA, bos_token='<bos>', eos_token='<end_of_turn>', pad_token='<pad>')
    return found


def shaken(model, seed=0):
    "Every weight random, so that no gain is one and no bias zero by chance."
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * (0.1 if p.dim() > 1 else 0.5))
    return model.eval()


def saved(kind, config, folder, size=None):
    model = shaken(kind.from_config(config))
    model.save_pretrained(folder)
    if size:
        said = dict(image_mean=[0.1, 0.2, 0.3], image_std=[0.4, 0.5, 0.6], do_normalize=True, size=size)
        (folder / 'preprocessor_config.json').write_text(json.dumps(said))
    return model


@pytest.fixture(scope='module')
def places(tmp_path_factory):
    "Folders of a tiny model of each family, with random weights."
    place, words, models = tmp_path_factory.mktemp('places'), tokenizers(), {}
    for name, config in VITS.items():
        models[name] = saved(AutoModel, config, place / name, dict(height=32, width=32))
    for name, config in CNNS.items():
        models[name] = saved(AutoModel, config, place / name, dict(shortest_edge=64))
    for name, (kind, tokenizer, _, more) in LANGUAGES.items():
        told = words[tokenizer]
        config = kind(**WORDS | dict(vocab_size=len(told), eos_token_id=told.eos_token_id) | more)
        models[name] = saved(AutoModelForCausalLM, config, place / name)
        told.save_pretrained(place / name)
    return place, models


def named(places, tmp_path, vit=None, cnn=None, text='smollm2', **model):
    "A preset of three names, built."
    place = places[0]
    weights = ''.join(f'{k} = "{place / v}"\n' for k, v in dict(vit=vit, cnn=cnn, text=text).items() if v)
    if not (vit and cnn):
        model['vision_encoders'] = 'vit' if vit else 'cnn'
    choices = ''.join(f'{k} = {json.dumps(v)}\n' for k, v in model.items())
    (tmp_path / 'mine.toml').write_text(f'[weights]\n{weights}[model]\n{choices}')
    return build(str(tmp_path / 'mine.toml'), say=lambda text: None)


def pixels(side, n=2):
    return torch.randint(0, 256, (n, 3, side, side), generator=torch.Generator().manual_seed(1)).to(
        torch.uint8
    )


def normalised(x):
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.1, 0.2, 0.3], [0.4, 0.5, 0.6]))
    return (x.float() / 255 - mean) / std


def apart(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def library_states(model, x, resized):
    model = getattr(model, 'vision_model', model)
    takes = 'interpolate_pos_encoding' in inspect.signature(model.forward).parameters
    given = dict(interpolate_pos_encoding=True) if resized and takes else {}
    return model(normalised(x), output_hidden_states=True, **given)


@torch.no_grad()
@pytest.mark.parametrize('side', [32, 48])
@pytest.mark.parametrize('name', VITS)
def test_layers_of_a_vit_are_the_librarys(places, tmp_path, name, side):
    model, _ = named(
        places, tmp_path, vit=name, vit_layers=[1, 2], **({} if side == 32 else dict(image_size=side))
    )
    patches, tower = (side // 8) ** 2, model.vision_tower
    assert model.config.image_size == side and tower.vit.grid == side // 8
    tokens = tower.vit(tower.normalised(pixels(side))['vit'])  # (b, patches, 2 * 32)
    states = library_states(places[1][name], pixels(side), side != 32).hidden_states
    norm = tower.vit.norms[0]
    wanted = [F.layer_norm(h[:, -patches:], (32,), norm.weight, norm.bias) for h in states[1:3]]
    assert tokens.shape[1] == patches and apart(tokens, torch.cat(wanted, -1)) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize('name', VITS)
def test_the_last_layer_of_a_vit_is_its_outcome(places, tmp_path, name):
    "With the model's own last norm; it may differ from ours in what keeps a division from zero."
    model, _ = named(places, tmp_path, vit=name, vit_layers=[-1])
    out = library_states(places[1][name], pixels(32), False).last_hidden_state[:, -16:]
    if name.startswith('clip'):  # norms only what stands for the whole picture
        out = getattr(places[1][name], 'vision_model', places[1][name]).post_layernorm(out)
    tower = model.vision_tower
    assert apart(tower.vit(tower.normalised(pixels(32))['vit']), out) < 1e-3


@torch.no_grad()
@pytest.mark.parametrize('side', [64, 96])
@pytest.mark.parametrize('name', CNNS)
def test_maps_of_a_cnn_are_the_librarys(places, tmp_path, name, side):
    model, _ = named(places, tmp_path, cnn=name, grid=2, **({} if side == 64 else dict(image_size=side)))
    kind = AutoBackbone._model_mapping[type(CNNS[name])]
    theirs = kind.from_pretrained(places[0] / name, out_indices=[2, 3, 4]).eval()
    tower = model.vision_tower
    maps = tower.cnn.cnn(tower.normalised(pixels(side))['cnn']).feature_maps
    wanted = theirs(normalised(pixels(side))).feature_maps
    assert len(maps) == 3 and all(apart(a, b) < 1e-5 for a, b in zip(maps, wanted))


@pytest.mark.parametrize('name', [*VITS, *CNNS])
def test_every_opened_weight_gets_a_gradient(places, tmp_path, name):
    "What gets none would stop a run on several processes."
    kind = 'vit' if name in VITS else 'cnn'
    model, _ = named(places, tmp_path, **{kind: name}, grid=2)
    assert model.config.train_encoders is False
    for last in ('all', 1):
        prepare_stage(model.train(), replace(STAGES['project'], encoders={kind: last}))
        model.zero_grad()
        model.image_features(pixels(32 if kind == 'vit' else 64)).sin().sum().backward()
        free = {n for n, p in model.named_parameters() if p.requires_grad and part_of(n) == kind}
        silent = [n for n in free if model.get_parameter(n).grad is None]
        assert free and not silent


IDS = torch.randint(10, 200, (2, 40), generator=torch.Generator().manual_seed(0))


@torch.no_grad()
@pytest.mark.parametrize('name', LANGUAGES)
def test_logits_are_the_librarys(places, tmp_path, name):
    "Of words alone, behind a picture, and after saving and loading; longer than a window of Gemma's attention."
    model, tokenizer = named(places, tmp_path, vit='dinov2', text=name, grid=2)
    theirs = AutoModelForCausalLM.from_pretrained(places[0] / name, dtype=torch.float32).eval()
    assert apart(model(IDS).logits, theirs(IDS).logits) < 1e-5
    features = model.image_features(pixels(32))
    image = torch.full((2, features.shape[1]), model.config.image_token_id)
    ours = model(torch.cat([image, IDS], 1), image_features=features).logits
    embedded = torch.cat([features, theirs.get_input_embeddings()(IDS)], 1)
    assert apart(ours, theirs(inputs_embeds=embedded).logits) < 1e-5
    save(model, tokenizer, tmp_path / 'model')
    again, _ = load(tmp_path / 'model', 'cpu')
    assert torch.equal(again(IDS).logits, model(IDS).logits)


@torch.no_grad()
@pytest.mark.parametrize('name', LANGUAGES)
def test_questions_that_share_a_picture_are_as_alone(places, tmp_path, name):
    "Packed into a row that is longer than a window of attention."
    model, _ = named(places, tmp_path, vit='dinov2', text=name, grid=4)
    features = model.image_features(pixels(32, 1))
    image = torch.full((1, 16), model.config.image_token_id)
    asked = [IDS[:1, :9], IDS[1:, :9]]
    alone = [model(torch.cat([image, q], 1), image_features=features).logits[:, 16:] for q in asked]
    row = torch.cat([image, *asked], 1)
    position_ids = torch.cat([torch.arange(25), torch.arange(16, 25)])[None]
    segment_ids = torch.tensor([[1] * 16 + [2] * 9 + [3] * 9])
    prefix_ids = torch.tensor([[0] * 16 + [1] * 18])
    told = dict(position_ids=position_ids, segment_ids=segment_ids, prefix_ids=prefix_ids)
    together = model(row, image_features=features, **told).logits[:, 16:]
    assert apart(together, torch.cat(alone, 1)) < 1e-5


@pytest.mark.parametrize('name', LANGUAGES)
def test_the_tokenizers_own_words_stand_around_a_question(places, name):
    _, tokenizer, chat = load_language(places[0] / name)
    assert chat.between == FAMILIES[LANGUAGES[name][2]].between
    turns = [dict(role='user', content='is there water?')]
    written = tokenizer.apply_chat_template(
        turns, tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert chat.begin + chat.gap + 'is there water?' + chat.between == written


def test_logits_of_a_kind_we_do_not_know_are_refused():
    config = GraniteConfig(**WORDS, vocab_size=300, logits_scaling=8.0)
    with pytest.raises(BadInput, match='something to its logits'):
        check_language(shaken(AutoModelForCausalLM.from_config(config)))


def test_what_is_read_is_what_the_folders_say(places, tmp_path):
    model, _ = named(places, tmp_path, vit='dinov2', cnn='convnext')
    config = model.config
    assert config.vit_input == dict(size=32, mean=[0.1, 0.2, 0.3], std=[0.4, 0.5, 0.6])
    assert config.cnn_input['size'] == 64 == config.image_size and config.cnn_config.out_indices == [2, 3, 4]
    words = model.get_input_embeddings().weight.std().item()
    assert config.init_scale == pytest.approx(words, rel=0.05)
    given, _ = named(places, tmp_path, vit='dinov2', cnn='convnext', init_scale=0.3)
    assert given.config.init_scale == 0.3


def test_what_nobody_says_is_asked_for(places, tmp_path):
    place, models = places
    models['dinov2'].save_pretrained(tmp_path / 'bare')
    text = f'[weights]\nvit = "{tmp_path / "bare"}"\ntext = "{place / "smollm2"}"\n[model]\nvision_encoders = "vit"\n'
    (tmp_path / 'mine.toml').write_text(text)
    with pytest.raises(BadInput, match=r'does not say the mean.*vit_input = \{ size, mean, std'):
        build(str(tmp_path / 'mine.toml'), say=lambda text: None)
    with pytest.raises(BadInput, match='vit and text are read from the weights'):
        preset_config(str(tmp_path / 'mine.toml'))
    said = json.dumps([0.5] * 3)
    (tmp_path / 'mine.toml').write_text(text + f'vit_input = {{ mean = {said}, std = {said} }}\n')
    assert build(str(tmp_path / 'mine.toml'), say=lambda text: None)[0].config.vit_input['size'] == 32


# resolution


@torch.no_grad()
@pytest.mark.parametrize('name', VITS)
def test_another_resolution_is_the_librarys_interpolation(places, tmp_path, name):
    said = []
    model, tokenizer = named(
        places, tmp_path, vit=name, cnn='convnext', vit_layers=[1, 2], image_size=32, grid=4
    )
    set_image_size(model, 64, said.append)
    assert model.config.grid == 8 and model.config.visual_tokens == 64 and model.config.image_size == 64
    assert said == [
        'pictures of 64 pixels instead of 32: 64 visual tokens instead of 16, positions interpolated; '
        'the model was not trained at this size yet'
    ]
    states = library_states(places[1][name], pixels(64), True).hidden_states
    tower = model.vision_tower
    norm = tower.vit.norms[0]
    wanted = [F.layer_norm(h[:, -64:], (32,), norm.weight, norm.bias) for h in states[1:3]]
    assert apart(tower.vit(tower.normalised(pixels(64))['vit']), torch.cat(wanted, -1)) < 1e-5
    features = model.image_features(pixels(64))
    save(model, tokenizer, tmp_path / 'model')
    again, _ = load(tmp_path / 'model', 'cpu')
    assert features.shape[1] == 64 and torch.equal(again.image_features(pixels(64)), features)


def test_a_resolution_that_does_not_fit_is_told(places, tmp_path):
    model, _ = named(places, tmp_path, vit='dinov2', grid=4)
    before = dict(model.config.vit_input)
    with pytest.raises(BadInput, match='image_size 36: this model has 32 pixels; a grid of 4'):
        set_image_size(model, 36, print)
    assert model.vision_tower.vit_input == before and model.config.image_size == 32
