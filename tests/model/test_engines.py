"What vLLM and SGLang ask of a model of transformers, step by step as they ask it; neither of them was run."

import re
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from fixtures_saved import lite_like, nano_like, speaking
from fixtures_training import small, tokenizer as make_tokenizer
from PIL import Image
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText
from transformers import AttentionInterface, Gemma2Config, LlamaConfig, Qwen2Config, Qwen3Config

from earthgpt_lite.model.engines import register
from earthgpt_lite.model.loading import load
from earthgpt_lite.model.modeling import EarthGPT, save
from earthgpt_lite.model.processor import EarthGPTProcessor

SEEN = []


def engine_attention(module, query, key, value, attention_mask, scaling, attention_instances=None, **kwargs):
    "As an engine's: it gets no mask, keeps keys and values itself, and knows the layer by its number"
    SEEN.append((module.layer_idx, attention_mask is None, kwargs.get('of_the_caller')))
    kept = attention_instances[module.layer_idx]
    kept.append((key, value))
    key, value = (torch.cat(part, 2) for part in zip(*kept))
    group = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scores = scaling * query @ key.mT
    ahead = torch.ones_like(scores, dtype=torch.bool).triu(1 + key.shape[2] - query.shape[2])
    return (scores.masked_fill(ahead, -torch.inf).softmax(-1) @ value).transpose(1, 2), None


AttentionInterface.register('engine', engine_attention)


def with_tiles(folder):
    tokenizer = make_tokenizer()
    save(speaking(small(tokenizer, init_scale=1.0, rendering=dict(tiles=4))), tokenizer, folder)


MADE = [nano_like, with_tiles, lite_like]


@pytest.fixture(scope='module', params=MADE, ids=lambda made: made.__name__)
def kept(request, tmp_path_factory):
    "(model, processor, folder)"
    folder = tmp_path_factory.mktemp('kept') / 'model'
    request.param(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    return model, EarthGPTProcessor.from_pretrained(folder), folder


def picture(seed, width=32, height=32):
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype='uint8')
    return Image.fromarray(pixels)


def asked(*parts):
    kinds = [dict(type='text', text=p) if isinstance(p, str) else dict(type='image', image=p) for p in parts]
    return [dict(role='user', content=kinds)]


TALKS = dict(
    one=[picture(0), 'is there water?'],
    several=[picture(0), picture(1), picture(2), 'what covers this image?'],
    wide=[picture(3, 96, 40), picture(4, 20, 77), 'where is it?'],
    dates=['before', picture(5), 'after', picture(6), 'what changed?'],
    announced_tiles=['before', picture(7, 70, 60), 'after', picture(8, 64, 32), 'what changed?'],
    none=['where is it?'],
)


# ---- the model without a head


def built_as_vllm_does(folder, processor):
    "(headless model, its last layer) with the weights of a folder, under the names that vLLM gives them"
    from safetensors.torch import load_file
    from transformers.conversion_mapping import WeightRenaming, get_model_conversion_mapping

    config = AutoConfig.from_pretrained(folder)
    config.get_text_config()._attn_implementation = 'engine'
    model = AutoModel.from_config(config).eval()
    children = '|'.join(name for name, _ in model.named_children())
    renamings, weights = get_model_conversion_mapping(model), {}
    renamings = [one for one in renamings if isinstance(one, WeightRenaming)]  # vLLM knows no other
    for name, weight in load_file(folder / 'model.safetensors').items():
        for renaming in renamings:
            name, _ = renaming.rename_source_key(name)
        name = re.sub(rf'^(?!model\.)(({children}).*)', r'model.\1', name)
        weights[re.sub(r'^model\.(.+\.)*(lm_head.+)', r'\2', name)] = weight
    text = config.get_text_config()
    head = weights.pop('lm_head.weight', None)
    if text.tie_word_embeddings:
        head = weights['model.language.model.embed_tokens.weight']
    own = {f'model.{name}': p for name, p in model.state_dict().items()}
    assert own.keys() == weights.keys(), own.keys() ^ weights.keys()
    loadable = {f'model.{name}' for name, _ in model.named_parameters()}
    for name in own.keys() - loadable:
        assert name.rsplit('.', 1)[1] in ('running_mean', 'running_var', 'num_batches_tracked'), name
    table = nn.Embedding(text.vocab_size, text.hidden_size)
    model.set_input_embeddings(table)
    with torch.no_grad():
        own = {f'model.{name}': p for name, p in model.state_dict().items()}
        for name, weight in weights.items():
            own[name].copy_(weight)
    return model, head.float()


def row_of(processor, talk):
    "(ids, pixel values): the rendered prompt, in which each image token is replaced by what the processor said"
    images = [part for part in talk if not isinstance(part, str)]
    shown = [p if isinstance(p, str) else 'an image' for p in talk]
    kinds = [dict(type='image') if p == 'an image' else dict(type='text', text=p) for p in shown]
    prompt = processor.apply_chat_template([dict(role='user', content=kinds)], add_generation_prompt=True)
    ids = processor.tokenizer.encode(prompt, add_special_tokens=False)
    if not images:
        return ids, None
    dummy = processor.image_token * len(images)
    found = processor(text=dummy, images=images, return_text_replacement_offsets=True, return_tensors='pt')
    texts = [offset['replacement'] for offset in found['text_replacement_offsets'][0]]
    encode = lambda text: processor.tokenizer.encode(text, add_special_tokens=False)
    replaced, texts = [], iter(texts)
    for i in ids:
        replaced += encode(next(texts)) if i == processor.image_token_id else [i]
    return replaced, found['pixel_values']


@torch.no_grad()
def written(model, head, ids, pixels, count=6):
    "Greedy tokens, computed as engines compute: embeddings in, hidden states out, one token at a time"
    layers = model.config.get_text_config().num_hidden_layers
    instances, tokens, start = {k: [] for k in range(layers)}, [], 0
    is_image = torch.tensor(ids) == model.config.image_token_id
    read = model.get_input_embeddings()(torch.tensor(ids))
    if pixels is not None:
        features = model.get_image_features(pixels, num_image_patches=torch.ones(1)).pooler_output
        read[is_image] = features.flatten(0, 1)
    for _ in range(count):
        positions = torch.arange(start, start + len(read))[None]
        how = dict(use_cache=False, return_dict=False, attention_instances=instances, of_the_caller='mine')
        hidden = model(input_ids=None, inputs_embeds=read[None], position_ids=positions, **how)[0]
        start += len(read)
        tokens.append(int((hidden[0, -1] @ head.T).argmax()))
        read = model.get_input_embeddings()(torch.tensor(tokens[-1:]))
    return tokens


def test_an_attention_of_ones_own_gets_what_was_given_and_writes_the_same_tokens(kept):
    model, processor, folder = kept
    engine, head = built_as_vllm_does(folder, processor)
    layers, found = range(model.config.text_config.num_hidden_layers), set()
    for name, talk in TALKS.items():
        if name == 'announced_tiles' and processor.tiles:
            continue  # a comma is missing there
        ids, pixels = row_of(processor, talk)
        inputs = processor.apply_chat_template(
            asked(*talk), tokenize=True, return_dict=True, add_generation_prompt=True
        )
        assert ids == inputs['input_ids'][0].tolist(), name
        wanted = model.generate(**inputs, max_new_tokens=6, do_sample=False)[0, len(ids) :].tolist()
        SEEN.clear()
        assert written(engine, head, ids, pixels)[: len(wanted)] == wanted, name
        assert SEEN == [(k, True, 'mine') for _ in range(6) for k in layers]
        found.add(tuple(wanted))
    assert len(found) > 3, 'a mix-up would show'


def test_the_packaged_nano_passes_kwargs_through_its_lean_layers():
    model, _ = load('nano', 'cpu')
    model.set_attn_implementation(dict(text_config='engine'))
    layers = range(model.config.text_config.num_hidden_layers)
    SEEN.clear()
    with torch.no_grad():
        ids = torch.tensor([[1, 3, 40, 41, 4]])
        model(ids, attention_instances={k: [] for k in layers}, of_the_caller='mine')
    assert SEEN == [(k, True, 'mine') for k in layers]


SIZES = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
SIZES |= dict(num_key_value_heads=1, vocab_size=120, head_dim=8, pad_token_id=0)
FAMILIES = [LlamaConfig, Qwen2Config, Qwen3Config, Gemma2Config]


@pytest.mark.parametrize('family', FAMILIES, ids=lambda family: family.model_type)
def test_kwargs_reach_each_layer_of_other_language_models(family):
    tokenizer = make_tokenizer()
    config = small(tokenizer).config
    config.text_config = family(**SIZES)
    config.text_config._attn_implementation = 'engine'
    language = AutoModelForCausalLM.from_config(config.text_config)
    SEEN.clear()
    with torch.no_grad():
        EarthGPT(config, language).eval()(
            torch.tensor([[1, 3, 40]]), attention_instances={0: [], 1: []}, of_the_caller='mine'
        )
    assert [(layer, mine) for layer, _, mine in SEEN] == [(0, 'mine'), (1, 'mine')]


def test_encoders_do_not_get_the_engines_attention(kept):
    engine, _ = built_as_vllm_does(kept[2], kept[1])
    kinds = {encoder.config._attn_implementation for encoder in engine.vision_tower.encoders.values()}
    assert 'engine' not in kinds and engine.language_model.config._attn_implementation == 'engine'
    assert engine.get_encoder('image') is engine.vision_tower and engine.get_encoder('audio') is engine
    assert engine.get_decoder() is engine.language.model
    assert type(engine.get_decoder()).__name__ == 'LlamaModel'


def test_a_placeholder_beyond_the_words_may_be_looked_up(kept):
    engine, _ = built_as_vllm_does(kept[2], kept[1])
    beyond = torch.tensor([engine.config.text_config.vocab_size, 3])
    rows = engine.get_input_embeddings()(beyond)
    assert torch.equal(rows[1], engine.get_input_embeddings().weight[3])


def test_features_have_the_form_of_the_library(kept):
    model, processor, _ = kept
    pixels = processor.image_processor([picture(0), picture(1)])['pixel_values']
    with torch.no_grad():
        features = model.image_features(pixels)
        assert torch.equal(model.get_image_features(pixels).pooler_output, features)
        assert torch.equal(model.get_image_features(pixels, return_dict=False)[0], features)


def test_a_plug_in_puts_the_class_where_engines_look(monkeypatch):
    monkeypatch.setattr(transformers, 'EarthGPT', None, raising=False)
    setup = (Path(__file__).parents[2] / 'setup.py').read_text(encoding='utf-8')
    (target,) = re.findall(r"'vllm.general_plugins': \[f\".* = \{c\['lib_path'\]\}\.(.*?)\"\]", setup)
    module, function = target.split(':')
    getattr(import_module(f'earthgpt_lite.{module}'), function)()
    assert transformers.EarthGPT is EarthGPT and EarthGPT.is_backend_compatible()
    config = small(make_tokenizer()).config
    assert AutoModel._model_mapping[type(config)].__name__ == 'EarthGPTModel'
    assert config.get_text_config() is not config


# ---- the processor's side


@pytest.mark.parametrize('name', TALKS)
def test_as_many_placeholders_as_were_foretold(kept, name):
    _, processor, _ = kept
    images = [part for part in TALKS[name] if not isinstance(part, str)]
    inputs = processor.apply_chat_template(
        asked(*TALKS[name]),
        tokenize=True,
        return_dict=True,
        add_generation_prompt=True,
        processor_kwargs=dict(return_mm_token_type_ids=True),
    )
    foretold = processor._get_num_multimodal_tokens(image_sizes=[(i.height, i.width) for i in images])
    ids, kinds = inputs['input_ids'][0], inputs['mm_token_type_ids'][0]
    assert ids.shape == kinds.shape and int(kinds.sum()) == sum(foretold['num_image_tokens'])
    is_image = torch.isin(ids, torch.tensor(processor.image_token_ids))
    assert kinds[is_image].all(), 'each placeholder is marked'
    assert int(is_image.sum()) == sum(foretold['num_image_patches']) * processor.visual_tokens
    assert len(inputs.get('pixel_values', [])) == sum(foretold['num_image_patches'])
    places, start = torch.where(kinds == 1)[0], 0
    for tokens, views in zip(foretold['num_image_tokens'], foretold['num_image_patches']):
        run = places[start : start + tokens]
        assert run[-1] - run[0] == tokens - 1, 'the run of a picture has no gap'
        assert int(is_image[run].sum()) == views * processor.visual_tokens and is_image[run[-1]]
        start += tokens
    if processor.tiles and name in ('wide', 'announced_tiles'):
        assert max(foretold['num_image_patches']) > 1, 'tiles there were'


def test_offsets_say_what_stands_for_each_image(kept):
    _, processor, _ = kept
    images = [picture(3, 96, 40), picture(4), picture(5, 40, 70)]
    prompt = processor.apply_chat_template(asked(*images, 'where?'), add_generation_prompt=True)
    found = processor(text=[prompt], images=images, return_text_replacement_offsets=True, return_tensors='pt')
    (offsets,) = found['text_replacement_offsets']
    counts = processor._get_num_multimodal_tokens(image_sizes=[(i.height, i.width) for i in images])
    expanded = prompt
    for offset in reversed(offsets):
        start, end = offset['span']
        assert prompt[start:end] == offset['text'] == processor.image_token
        expanded = expanded[:start] + offset['replacement'] + expanded[end:]
    lengths = []
    for offset in offsets:
        start, end = offset['new_span']
        assert expanded[start:end] == offset['replacement'] and offset['type'] == 'image'
        lengths.append(len(processor.tokenizer.encode(offset['replacement'], add_special_tokens=False)))
    assert lengths == counts['num_image_tokens']
    ids = processor.tokenizer.encode(expanded, add_special_tokens=False)
    assert ids == found['input_ids'][0].tolist()


def test_no_sizes_no_counts(kept):
    assert kept[1]._get_num_multimodal_tokens().num_image_tokens is None
    assert kept[1]._get_num_multimodal_tokens(image_sizes=[])['num_image_tokens'] == []


def test_sglang_gives_rendered_text_without_saying_so(kept, monkeypatch):
    _, processor, _ = kept
    talk = TALKS['several']
    images = [part for part in talk if not isinstance(part, str)]
    prompt = processor.apply_chat_template(asked(*talk), add_generation_prompt=True)
    wanted = processor(text=[prompt], images=images, add_special_tokens=False)['input_ids']
    assert not torch.equal(processor(text=prompt, images=images, return_tensors='pt')['input_ids'], wanted)
    monkeypatch.setattr(EarthGPTProcessor, 'reads_prompts', False)
    register(prompts=True)
    assert torch.equal(processor(text=prompt, images=images, return_tensors='pt')['input_ids'], wanted)


def test_choosing_an_attention_logs_nothing(kept, caplog):
    from transformers.utils import logging

    model = AutoModelForImageTextToText.from_pretrained(kept[2])
    logging.enable_propagation()
    try:
        for way in ('eager', 'sdpa', dict(text_config='eager'), dict(vit_config='eager')):
            model.set_attn_implementation(way)
    finally:
        logging.disable_propagation()
    assert not caplog.records
    assert model.vision_tower.encoders['vit'].config._attn_implementation == 'eager'
    assert model.vision_tower.encoders['cnn'].config._attn_implementation == 'sdpa'
    assert model.language.config._attn_implementation == 'eager'
