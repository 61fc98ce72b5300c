"A model of transformers in every way that its library checks its own: what is saved, generated and trained with it."

import inspect
from copy import deepcopy

import numpy as np
import pytest
import torch
from fixtures_saved import lite_like, nano_like
from fixtures_training import small, tokenizer as make_tokenizer
from transformers import AutoModelForImageTextToText

from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.modeling import save
from earthgpt_lite.model.processor import EarthGPTProcessor
from earthgpt_lite.model.tokens import IGNORE

GREEDY = dict(max_new_tokens=6, do_sample=False)


@pytest.fixture(scope='module', params=[nano_like, lite_like], ids=lambda made: made.__name__)
def kept(request, tmp_path_factory):
    "(model, processor, folder). Copy the model before you change it"
    folder = tmp_path_factory.mktemp('kept') / 'model'
    request.param(folder)
    model = AutoModelForImageTextToText.from_pretrained(folder)
    return model, EarthGPTProcessor.from_pretrained(folder), folder


def picture(seed, side=32):
    return np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype='uint8')


TALKS = [
    [[picture(0), picture(1)], 'is there water?'],
    [[picture(2)], 'what covers this image?'],
    [[], 'where is it?'],
    [[picture(1), picture(0), picture(3)], 'what covers this image, and where is it?'],
]


def messages(pictures, question):
    parts = [dict(type='image', image=image) for image in pictures] + [dict(type='text', text=question)]
    return [dict(role='user', content=parts)]


def inputs_of(processor, talks):
    return processor.apply_chat_template(
        [messages(*talk) for talk in talks], tokenize=True, return_dict=True, add_generation_prompt=True
    )


def said(kept, talks=TALKS, model=None, **options):
    "What is written for each talk, in tokens"
    own, processor, _ = kept
    inputs = inputs_of(processor, talks)
    out = (model or own).generate(**inputs, **(GREEDY | options))
    return out[:, inputs['input_ids'].shape[1] :].tolist()


# ---- what is written


def test_padding_on_the_left_changes_nothing(kept):
    together = said(kept)
    end = kept[0].generation_config.eos_token_id
    for talk, row in zip(TALKS, together):
        (alone,) = said(kept, [talk])
        assert row[: len(alone)] == alone and len({*alone}) > 1, 'a mix-up would show'
        assert len(alone) == GREEDY['max_new_tokens'] or alone[-1] == end
    assert len(set(map(tuple, together))) == len(TALKS)


def test_caches(kept):
    wanted = said(kept)
    assert said(kept, use_cache=False) == wanted
    assert said(kept, cache_implementation='dynamic') == wanted
    assert said(kept, cache_implementation='static', disable_compile=True) == wanted
    with pytest.raises(ImportError, match='quant'):
        said(kept, cache_implementation='quantized')


@pytest.mark.parametrize('way', [dict(num_beams=3), dict(num_beams=3, num_return_sequences=2)])
def test_beams_keep_the_pictures_of_a_row_together(kept, way):
    n = way.get('num_return_sequences', 1)
    together = said(kept, **way)
    for k, talk in enumerate(TALKS):
        alone = said(kept, [talk], **way)
        for one, row in zip(alone, together[k * n : (k + 1) * n]):
            assert row[: len(one)] == one


def test_sampling(kept):
    model, processor, _ = kept
    inputs, found = inputs_of(processor, TALKS), []
    for _ in range(2):
        torch.manual_seed(5)
        found.append(model.generate(**inputs, max_new_tokens=4, do_sample=True, num_return_sequences=2))
    assert torch.equal(*found) and len(found[0]) == 2 * len(TALKS)
    # very cold, each of two samples is the greedy answer: pictures stay with their rows
    cold = said(kept, do_sample=True, temperature=1e-4, num_return_sequences=2)
    greedy = said(kept)
    for k, row in enumerate(cold):
        assert row[: len(greedy[k // 2])] == greedy[k // 2]


def test_embeddings_instead_of_ids(kept):
    model, processor, _ = kept
    for talk in TALKS:
        inputs = inputs_of(processor, [talk])
        pixels = inputs.pop('pixel_values', None)
        with torch.no_grad():
            features = None if pixels is None else model.image_features(pixels)
            embeds = model._embed(inputs['input_ids'], features)
            given = dict(inputs_embeds=embeds, attention_mask=inputs['attention_mask'])
            logits = model(**given).logits
            assert torch.equal(logits, model(**inputs, pixel_values=pixels).logits)
        assert model.generate(**given, **GREEDY).tolist() == said(kept, [talk])
        beams = model.generate(**given, **GREEDY, num_beams=2)
        assert beams.tolist() == said(kept, [talk], num_beams=2)


def test_assisted_generation_writes_the_same(kept):
    model = kept[0]
    for talk in TALKS:
        wanted = said(kept, [talk])
        assert said(kept, [talk], prompt_lookup_num_tokens=2) == wanted
        assert said(kept, [talk], assistant_model=deepcopy(model)) == wanted
        other = deepcopy(model)
        with torch.no_grad():
            other.language.model.layers[0].mlp.down_proj.weight.neg_()
        assert said(kept, [talk], assistant_model=other) == wanted


def test_a_prompt_in_chunks_is_refused(kept):
    with pytest.raises(ValueError, match='cannot split the raw multimodal inputs'):
        said(kept, TALKS[:1], prefill_chunk_size=8)


# ---- outputs


def test_states_and_attentions(kept):
    model, processor, _ = kept
    model = deepcopy(model)
    model.set_attn_implementation('eager')
    inputs = inputs_of(processor, TALKS)
    rows, length = inputs['input_ids'].shape
    layers, heads = model.config.text_config.num_hidden_layers, model.config.text_config.num_attention_heads
    with torch.no_grad():
        plain = model(**inputs)
        full = model(**inputs, output_hidden_states=True, output_attentions=True)
        parts = model(**inputs, return_dict=False)
    assert plain.hidden_states is None and plain.attentions is None
    assert len(full.hidden_states) == layers + 1 and len(full.attentions) == layers
    assert full.hidden_states[-1].shape == (rows, length, model.config.text_config.hidden_size)
    assert full.attentions[0].shape == (rows, heads, length, length)
    assert torch.equal(plain.logits, full.logits)
    assert isinstance(parts, tuple) and torch.equal(parts[0], plain.logits)
    out = model.generate(
        **inputs, **GREEDY, return_dict_in_generate=True, output_hidden_states=True, output_scores=True
    )
    assert len(out.hidden_states) == len(out.scores)


def test_the_last_logits_alone(kept):
    model, processor, _ = kept
    inputs = inputs_of(processor, TALKS)
    with torch.no_grad():
        logits = model(**inputs).logits
        assert torch.equal(model(**inputs, logits_to_keep=1).logits, logits[:, -1:])
        some = torch.tensor([0, logits.shape[1] - 2])
        assert torch.allclose(model(**inputs, logits_to_keep=some).logits, logits[:, some], atol=1e-4)


@pytest.mark.parametrize('way', ['eager', 'sdpa', 'lean', dict(text_config='eager')])
def test_attentions_agree(kept, way):
    model, _, folder = kept
    wanted = said(kept)
    opened = AutoModelForImageTextToText.from_pretrained(folder, attn_implementation=way)
    assert said(kept, model=opened) == wanted
    changed = deepcopy(model)
    changed.set_attn_implementation(way)
    assert said(kept, model=changed) == wanted
    name = way if isinstance(way, str) else way['text_config']
    for made in (opened, changed):
        assert made.language.config._attn_implementation == name


@pytest.mark.parametrize('way', ['flex_attention', 'flash_attention_2'])
def test_attentions_that_take_no_mask_of_ours_are_refused(kept, way):
    with pytest.raises(ValueError, match='EarthGPT does not support'):
        AutoModelForImageTextToText.from_pretrained(kept[2], attn_implementation=way)


# ---- saving, types, embeddings


def equal(model, other):
    a, b = model.state_dict(), other.state_dict()
    return set(a) == set(b) and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize('options', [{}, dict(max_shard_size='20kB')], ids=['whole', 'in pieces'])
def test_saved_and_opened_again(kept, tmp_path, options):
    model = kept[0]
    model.save_pretrained(tmp_path, **options)
    again, info = AutoModelForImageTextToText.from_pretrained(tmp_path, output_loading_info=True)
    assert equal(model, again) and not any(info.values())
    assert (len([*tmp_path.glob('*.safetensors')]) > 2) == bool(options)
    assert again.generation_config.eos_token_id == model.generation_config.eos_token_id is not None


def test_a_map_of_devices_and_a_state_dict(kept):
    model, _, folder = kept
    assert equal(model, AutoModelForImageTextToText.from_pretrained(folder, device_map='cpu'))
    again = type(model).from_pretrained(None, config=model.config, state_dict=model.state_dict())
    assert equal(model, again)


def test_words_in_and_out_are_tied_where_the_configuration_says_so(kept, tmp_path):
    model = deepcopy(kept[0])
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    tied = model.config.text_config.tie_word_embeddings
    assert (table.weight is head.weight) == tied
    model.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert (again.get_input_embeddings().weight is again.get_output_embeddings().weight) == tied


def test_embeddings_are_resized_and_exchanged(kept, tmp_path):
    model = deepcopy(kept[0])
    wanted, size = said(kept), model.get_input_embeddings().num_embeddings
    model.resize_token_embeddings(size + 7)
    assert model.config.text_config.vocab_size == size + 7
    assert model.get_output_embeddings().weight.shape[0] == size + 7
    with torch.no_grad():
        model.get_output_embeddings().weight[size:] = 0
    assert said(kept, model=model) == wanted
    model.save_pretrained(tmp_path)
    assert said(kept, model=AutoModelForImageTextToText.from_pretrained(tmp_path)) == wanted
    table = torch.nn.Embedding(size + 7, model.config.text_config.hidden_size)
    model.set_input_embeddings(table)
    assert model.get_input_embeddings() is table and model.language.get_input_embeddings() is table
    head = torch.nn.Linear(model.config.text_config.hidden_size, size + 7, bias=False)
    model.set_output_embeddings(head)
    assert model.get_output_embeddings() is head


@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16, torch.float64])
def test_other_types(kept, dtype):
    model, processor, folder = kept
    opened = AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype)
    moved = deepcopy(model).to(dtype)
    inputs = inputs_of(processor, TALKS)
    with torch.no_grad():
        wanted = model(**inputs).logits
        for other in (opened, moved):
            assert other.dtype == dtype and {p.dtype for p in other.parameters()} == {dtype}
            logits = other(**inputs).logits
            assert logits.dtype == dtype
            rounding = 60 * max(torch.finfo(dtype).eps, torch.finfo(torch.float32).eps)
            assert (logits - wanted).abs().max() < rounding * wanted.abs().max()
        assert len(said(kept, model=opened)) == len(TALKS)


def test_what_is_kept_in_16_bits_is_computed_in_32(kept, tmp_path):
    model, processor, _ = kept
    save(deepcopy(model).half(), processor.tokenizer, tmp_path / 'half')
    assert AutoModelForImageTextToText.from_pretrained(tmp_path / 'half', dtype='auto').dtype == torch.float32


# ---- training


def labelled(processor):
    "Two rows with targets at their ends, not the same number in each"
    inputs = inputs_of(processor, TALKS[:2])
    labels = torch.full_like(inputs['input_ids'], IGNORE)
    labels[0, -3:], labels[1, -5:] = inputs['input_ids'][0, -3:], inputs['input_ids'][1, -5:]
    return {**inputs, 'labels': labels}


def test_the_loss_is_that_of_the_logits_and_of_so_many_items(kept):
    model, processor, _ = kept
    batch = labelled(processor)
    labels = batch.pop('labels')
    with torch.no_grad():
        logits = model(**batch).logits[:, :-1]
        wanted = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE, reduction='sum'
        )
        assert float(model(**batch, labels=labels).loss) == pytest.approx(float(wanted) / 8, rel=1e-5)
        whole = model(**batch, labels=labels, num_items_in_batch=torch.tensor(20)).loss
    assert float(whole) == pytest.approx(float(wanted) / 20, rel=1e-5)
    assert 'num_items_in_batch' in inspect.signature(type(model).forward).parameters


def gradients(model, batch):
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_gradient_checkpointing_gives_the_same_gradients(kept):
    model, processor, _ = kept
    model, batch = deepcopy(model).train(), labelled(processor)
    plain = gradients(model, batch)
    model.activation_checkpointing_enable()
    assert model.is_activation_checkpointing
    again = gradients(model, batch)
    assert plain.keys() == again.keys() and len(plain) > 20
    for name, grad in plain.items():
        assert torch.allclose(grad, again[name], rtol=1e-4, atol=1e-6), name


def test_what_the_library_asks_of_a_class(kept):
    model = kept[0]
    assert model.main_input_name == 'input_ids' and model.can_generate()
    assert 'LlamaDecoderLayer' in model._no_split_modules
    assert model.config.get_text_config() is model.config.text_config
    assert model.generation_config.do_sample in (None, False)
    assert model.get_encoder('image') is model.vision_tower
    assert model.num_parameters() == sum(p.numel() for p in model.parameters())
    assert model.config.image_token_id == kept[1].image_token_id


def test_a_prompt_that_was_cut_is_refused(kept):
    model, processor, _ = kept
    inputs = inputs_of(processor, TALKS[:1])
    first = inputs['input_ids'][0].tolist().index(processor.image_token_id)
    cut = {**inputs, **{name: inputs[name][:, first + 1 :] for name in ('input_ids', 'attention_mask')}}
    for options in ({}, dict(num_beams=2)):
        with pytest.raises(BadInput, match='image tokens in 1 rows, but 2 pictures'):
            model.generate(**cut, **GREEDY, **options)


# ---- PEFT


def adapted(model):
    return {name.rsplit('.lora_A', 1)[0] for name, _ in model.named_parameters() if '.lora_A' in name}


def test_lora_goes_by_itself_into_the_language_model_alone(kept, tmp_path):
    peft = pytest.importorskip('peft')
    model, processor, folder = kept
    torch.manual_seed(2)
    tuned = peft.get_peft_model(deepcopy(model), peft.LoraConfig(r=4, init_lora_weights=False))
    layers = model.config.text_config.num_hidden_layers
    names = adapted(tuned)
    assert len(names) == 2 * layers and all('.language.' in name for name in names)
    wanted = said(kept, model=tuned)
    assert wanted != said(kept), 'an adapter that changes nothing proves nothing'
    tuned.save_pretrained(tmp_path / 'adapter')
    opened = peft.PeftModel.from_pretrained(
        AutoModelForImageTextToText.from_pretrained(folder), tmp_path / 'adapter'
    )
    assert said(kept, model=opened) == wanted
    merged = opened.merge_and_unload()
    assert said(kept, model=merged) == wanted
    save(merged, processor.tokenizer, tmp_path / 'merged')
    assert said(kept, model=AutoModelForImageTextToText.from_pretrained(tmp_path / 'merged')) == wanted
    deeper = deepcopy(model)
    deeper.add_adapter(peft.LoraConfig(r=4))
    assert len(adapted(deeper)) == 2 * layers


def test_lora_leaves_a_vit_with_the_same_names_alone():
    peft = pytest.importorskip('peft')
    from transformers import CLIPVisionConfig

    sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    model = small(make_tokenizer(), vit_config=CLIPVisionConfig(**sizes, image_size=32, patch_size=8))
    assert any('vit' in name and name.endswith('q_proj') for name, _ in model.named_modules())
    assert all('.language.' in name for name in adapted(peft.get_peft_model(model, peft.LoraConfig(r=2))))
