"Adapters: what is added begins as the base to the bit, folds in, and goes through files, ours and peft's."

import sys
import warnings
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from fixtures_training import examples, small, tokenizer as make_tokenizer

from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.adapter_files import ADAPTER_FILE, base_fingerprint, load_adapter, save_adapter
from earthgpt_lite.model.adapters import ScaledLinear, add_bias, add_lora, added_adapters, merge_adapter
from earthgpt_lite.model.language import small_llama
from earthgpt_lite.model.loading import load, push
from earthgpt_lite.model.modeling import save
from earthgpt_lite.model.parts import part_of
from earthgpt_lite.train.dataset import InstructionBatches
from earthgpt_lite.train.stages import STAGES, prepare_stage, tune_stage


@pytest.fixture(scope='module')
def tok():
    return make_tokenizer()


@pytest.fixture(scope='module')
def batch(tok):
    return InstructionBatches(examples(6), tok, small(tok).config, 6, augment=False).batch(0)


def logits(model, batch):
    with torch.no_grad():
        return model.eval()(**{k: v for k, v in batch.items() if k != 'labels'}).logits


def shake(model, size=0.3):
    torch.manual_seed(5)
    with torch.no_grad():
        for n, p in model.named_parameters():
            if part_of(n) in ('scale', 'bias', 'lora'):
                p += size * torch.randn_like(p)


# scale and bias


@pytest.mark.parametrize('side', ['input', 'output'])
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_an_untrained_wrap_is_the_same_to_the_bit(tok, batch, side, dtype):
    base = small(tok).eval()
    wrapped = deepcopy(base)
    add_bias(wrapped, side)
    with torch.autocast('cpu', torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert torch.equal(logits(wrapped, batch), logits(base, batch))


@pytest.mark.parametrize('side', ['input', 'output'])
def test_merged_is_equal_and_loads_as_a_plain_model(tok, batch, side, tmp_path):
    model = small(tok)
    add_bias(model, side)
    shake(model)
    want = logits(model, batch)
    assert (want - logits(small(tok), batch)).abs().max() > 0.01 * want.abs().max()
    merge_adapter(model)
    assert added_adapters(model) == '' and not any(isinstance(m, ScaledLinear) for m in model.modules())
    assert (logits(model, batch) - want).abs().max() <= 1e-5 * want.abs().max()
    save(model, tok, tmp_path / 'model')
    again, _ = load(tmp_path / 'model', 'cpu')
    assert torch.equal(logits(again, batch), logits(model, batch))


def test_the_formulas_by_hand():
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(5, 3), torch.randn(7, 5)
    for side in ('input', 'output'):
        layer = ScaledLinear(linear, side)
        with torch.no_grad():
            layer.tune_scale.uniform_(0.5, 2)
            layer.tune_bias.normal_()
        s, b, W, own = layer.tune_scale, layer.tune_bias, linear.weight, linear.bias
        want = (x * s) @ W.T + own + b if side == 'input' else s * (x @ W.T + own + b)
        assert torch.allclose(layer(x), want, atol=1e-6) and torch.allclose(
            layer.folded()(x), want, atol=1e-6
        )


def test_the_count_of_llama_2_13b():
    "3,911,680, as counted by hand from width 5120, feed-forward 13824 and 40 blocks; nothing is allocated"
    from types import SimpleNamespace
    from transformers import AutoModelForCausalLM, LlamaConfig

    with torch.device('meta'):
        language = AutoModelForCausalLM.from_config(
            LlamaConfig(
                vocab_size=32000,
                hidden_size=5120,
                intermediate_size=13824,
                num_hidden_layers=40,
                num_attention_heads=40,
                num_key_value_heads=40,
            )
        )
    model = SimpleNamespace(language=language, named_parameters=language.named_parameters)
    add_bias(model)
    assert (
        sum(p.numel() for n, p in language.named_parameters() if part_of(n) in ('scale', 'bias')) == 3_911_680
    )


def test_a_model_without_room_for_biases_is_not_merged(tok, batch):
    from transformers import Qwen2Config

    model = small(
        tok,
        text_config=Qwen2Config(
            vocab_size=len(tok),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=2,
            max_position_embeddings=512,
        ),
    )
    add_bias(model)
    shake(model)
    want = logits(model, batch)
    with pytest.raises(
        BadInput, match='qwen2 has no place for a bias in o_proj.*leave merge_adapter away.*lora'
    ):
        merge_adapter(model)
    assert torch.equal(logits(model, batch), want) and added_adapters(model) == 'bias'


def test_wrong_uses_of_additions(tok):
    model = small(tok)
    with pytest.raises(BadInput, match='nothing to merge'):
        merge_adapter(model)
    with pytest.raises(BadInput, match='no side'):
        add_bias(small(tok), 'left')
    add_bias(model)
    with pytest.raises(BadInput, match='has its bias already'):
        add_bias(model)
    with pytest.raises(BadInput, match='has its bias already'):
        prepare_stage(model, STAGES['lora'])
    from transformers import GPT2Config

    other = small(tok, text_config=GPT2Config(vocab_size=len(tok), n_embd=32, n_layer=1, n_head=2))
    with pytest.raises(BadInput, match='gpt2 has no linear layers'):
        add_bias(other)


# adapters


@pytest.mark.parametrize('kind', ['bias', 'lora'])
def test_an_adapter_comes_back_to_the_bit(tok, batch, tmp_path, kind):
    if kind == 'lora':
        pytest.importorskip('peft')
    model, again = small(tok), small(tok)
    prepare_stage(model, tune_stage(norms=True, projector=True) if kind == 'bias' else STAGES['lora'])
    shake(model, 0.05)
    with torch.no_grad():
        for n, p in model.named_parameters():
            if part_of(n) in ('norms', 'projector') and p.requires_grad:
                p.mul_(1.1)
    save_adapter(model, tmp_path / 'a', 'runs/base')
    about = load_adapter(again, tmp_path / 'a')
    assert about['base'] == 'runs/base' and about['kind'] == kind
    written = {p.name for p in (tmp_path / 'a').iterdir()}
    assert written == {ADAPTER_FILE} | ({'adapter_config.json'} if kind == 'lora' else set())
    assert [p.name for p in tmp_path.iterdir()] == ['a']
    assert torch.equal(logits(model, batch), logits(again, batch))
    held = lambda m: {n for n, p in m.named_parameters() if p.requires_grad}
    assert held(again) == held(model), 'what the file holds can train, and nothing else'


def test_what_came_with_an_adapter_is_saved_again_though_it_trains_no_more(tok, batch, tmp_path):
    model, again = small(tok), small(tok)
    prepare_stage(model, tune_stage(projector=True))
    shake(model, 0.05)
    with torch.no_grad():
        model.projector.norm.weight.mul_(1.1)
    save_adapter(model, tmp_path / 'a')
    load_adapter(again, tmp_path / 'a')
    prepare_stage(again, tune_stage())
    save_adapter(again, tmp_path / 'b')
    third = small(tok)
    load_adapter(third, tmp_path / 'b')
    assert torch.equal(logits(third, batch), logits(model, batch))


def test_a_model_with_an_adapter_is_not_saved_as_a_whole_one(tok, tmp_path):
    model = small(tok)
    add_bias(model)
    with pytest.raises(BadInput, match='merge_adapter, or keep it with save_adapter'):
        save(model, tok, tmp_path / 'a')
    with pytest.raises(BadInput, match='merge_adapter, or keep it with save_adapter'):
        push(model, tok, 'me/mine')
    assert not list(tmp_path.iterdir())


def test_an_adapter_is_refused_on_another_base(tok, batch, tmp_path):
    model, path = small(tok), tmp_path / 'a'
    prepare_stage(model, STAGES['tune'])
    shake(model)
    save_adapter(model, path, 'runs/base')
    for other in (small(tok, seed=1), small(tok, text_config=small_llama(tok, 32, 1, 2))):
        want = logits(other, batch)
        with pytest.raises(BadInput, match='made for runs/base'):
            load_adapter(other, path)
        assert torch.equal(logits(other, batch), want) and not added_adapters(other)
    small_change = small(tok)
    with torch.no_grad():
        small_change.language.model.layers[1].mlp.up_proj.weight[0, 0] += 0.1
    with pytest.raises(BadInput, match='another one or has been trained since'):
        load_adapter(small_change, path)
    carries = small(tok)
    add_bias(carries)
    with pytest.raises(BadInput, match='already'):
        load_adapter(carries, path)
    load_adapter(small(tok).bfloat16(), path)  # the same base in another precision is the same base


def test_bad_adapter_files(tok, tmp_path):
    from safetensors.torch import save_file

    for name in ('plain', 'cut'):
        (tmp_path / name).mkdir()
    save_file({'a': torch.zeros(2)}, tmp_path / 'plain' / ADAPTER_FILE)
    (tmp_path / 'cut' / ADAPTER_FILE).write_bytes(b'12345')
    for name, words in dict(
        gone='cannot be read .*: give the folder', plain='is no adapter', cut='no whole safetensors'
    ).items():
        with pytest.raises(BadInput, match=words):
            load_adapter(small(tok), tmp_path / name)
    with pytest.raises(BadInput, match='give the folder'):
        load_adapter(small(tok), tmp_path / 'plain' / ADAPTER_FILE)
    with pytest.raises(BadInput, match='no adapter to save'):
        save_adapter(small(tok), tmp_path / 'x')


def test_an_adapter_takes_the_place_of_another_kind(tok, tmp_path):
    pytest.importorskip('peft')
    for stage, files in ((STAGES['lora'], 2), (STAGES['tune'], 1)):
        model = small(tok)
        prepare_stage(model, stage)
        save_adapter(model, tmp_path / 'a')
        assert len(list((tmp_path / 'a').iterdir())) == files
    assert load_adapter(small(tok), tmp_path / 'a')['kind'] == 'bias'


def test_the_fingerprint_sees_every_tensor(tok):
    model = small(tok)
    want = base_fingerprint(model)
    assert base_fingerprint(small(tok)) == want != base_fingerprint(small(tok, seed=1))
    for _, p in list(model.named_parameters())[::9]:
        with torch.no_grad():
            for i in (0, p.numel() // 2 - 1, -1):
                kept = p.view(-1)[i].clone()
                p.view(-1)[i] += 1
                assert base_fingerprint(model) != want
                p.view(-1)[i] = kept
    model = small(tok)
    add_bias(model)
    shake(model)
    assert base_fingerprint(model) == want


# LoRA


def test_lora_begins_as_the_base_and_merges(tok, batch):
    pytest.importorskip('peft')
    model, want = small(tok), logits(small(tok), batch)
    add_lora(model, 2, 4)
    assert torch.equal(logits(model, batch), want)
    # larger numbers than training makes: rounding grows with them
    shake(model, 0.1)
    want = logits(model, batch)
    merge_adapter(model)
    assert (logits(model, batch) - want).abs().max() <= 1e-5 * want.abs().max() and set(
        dict(model.named_parameters())
    ) == set(dict(small(tok).named_parameters()))


def test_merged_lora_leaves_nothing_of_peft_behind(tok):
    pytest.importorskip('peft')
    model = small(tok)
    add_lora(model, 2, 4)
    merge_adapter(model)
    assert not hasattr(model, 'peft_config') and added_adapters(model) == ''
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)  # peft's word for a second adapter
        add_lora(model, 2, 4)


@pytest.mark.parametrize('beside', [(), ('projector',), ('projector', 'norms', 'fusion')])
def test_peft_reads_what_we_save(tok, batch, tmp_path, beside):
    "Also what trained beside the LoRA"
    peft = pytest.importorskip('peft')
    model = small(tok)
    prepare_stage(model, replace(STAGES['lora'], trainable=('lora', *beside)))
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p) * p.requires_grad
    save_adapter(model, tmp_path / 'adapter')
    want = logits(model, batch)
    assert (want - logits(small(tok), batch)).abs().max() > 0.01 * want.abs().max()
    assert torch.equal(logits(peft.PeftModel.from_pretrained(small(tok), tmp_path / 'adapter'), batch), want)


def of_peft(tok, folder, config):
    "A LoRA that peft made and wrote, and its model"
    peft = pytest.importorskip('peft')
    model = peft.get_peft_model(small(tok), config)
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p) * p.requires_grad
    model.save_pretrained(folder)
    return model


OF_PEFT = dict(
    plain=dict(r=4, target_modules=['q_proj', 'v_proj']),
    regex=dict(
        r=2, target_modules=r'language\..*\.mlp\..*_proj', rank_pattern={'up_proj': 3}, use_rslora=True
    ),
    beside=dict(r=2, target_modules=['o_proj'], modules_to_save=['projector']),
    dora=dict(r=2, target_modules=['q_proj'], use_dora=True),
    bias=dict(r=2, target_modules=['q_proj'], lora_bias=True),
)


# peft warns of layers without a bias, and takes the biases of LoRA for halves of a matrix
PEFT_SAYS_SO = pytest.mark.filterwarnings('ignore::peft.utils.warning.PeftWarning')


@PEFT_SAYS_SO
@pytest.mark.parametrize('kind', OF_PEFT)
def test_we_read_what_peft_saves(tok, batch, tmp_path, kind):
    "Also LoRA in the encoders, and what merges gives the same"
    from peft import LoraConfig

    want = logits(of_peft(tok, tmp_path / 'a', LoraConfig(**OF_PEFT[kind])), batch)
    model = small(tok)
    about = load_adapter(model, tmp_path / 'a')
    assert about['kind'] == added_adapters(model) == 'lora' and torch.equal(logits(model, batch), want)
    if kind == 'bias':
        with pytest.raises(BadInput, match='llama has no place for a bias in q_proj.*keep the adapter'):
            merge_adapter(model)
        assert torch.equal(logits(model, batch), want)
    else:
        merge_adapter(model)
        assert (logits(model, batch) - want).abs().max() <= 1e-5 * want.abs().max()


@PEFT_SAYS_SO
@pytest.mark.parametrize('kind', ['plain', 'dora', 'bias'])
def test_what_peft_saved_is_saved_again(tok, batch, tmp_path, kind):
    from peft import LoraConfig

    want = logits(of_peft(tok, tmp_path / 'a', LoraConfig(**OF_PEFT[kind])), batch)
    model, again = small(tok), small(tok)
    load_adapter(model, tmp_path / 'a')
    save_adapter(model, tmp_path / 'b')
    load_adapter(again, tmp_path / 'b')
    assert torch.equal(logits(again, batch), want)


def test_what_peft_made_for_another_model_is_refused(tok, batch, tmp_path):
    from peft import IA3Config, LoraConfig

    of_peft(tok, tmp_path / 'a', LoraConfig(r=4, target_modules=['q_proj']))
    wider = small(tok, text_config=small_llama(tok, 64, 2, 2))
    want = logits(wider, batch)
    with pytest.raises(BadInput, match='does not fit: .* has the shape'):
        load_adapter(wider, tmp_path / 'a')
    assert torch.equal(logits(wider, batch), want) and not added_adapters(wider)
    config = tmp_path / 'a' / 'adapter_config.json'
    whole = config.read_text()
    for change, words in (
        (whole.replace('q_proj', 'nowhere'), 'does not fit: Target modules'),
        (whole.replace('LORA', 'NONE'), 'only LoRA is read here'),
        (whole[:50], 'no JSON that can be read'),
    ):
        config.write_text(change)
        with pytest.raises(BadInput, match=words):
            load_adapter(small(tok), tmp_path / 'a')
    of_peft(tok, tmp_path / 'b', IA3Config(target_modules=['q_proj'], feedforward_modules=[]))
    with pytest.raises(BadInput, match="only LoRA is read here, not 'IA3'"):
        load_adapter(small(tok), tmp_path / 'b')
    model = small(tok)
    add_lora(model)
    save_adapter(model, tmp_path / 'c')
    (tmp_path / 'c' / 'adapter_config.json').unlink()
    with pytest.raises(BadInput, match='adapter_config.json is missing'):
        load_adapter(small(tok), tmp_path / 'c')


def test_lora_without_peft_is_asked_for_by_name(tok, monkeypatch):
    monkeypatch.setitem(sys.modules, 'peft', None)
    with pytest.raises(BadInput, match=r'pip install "earthgpt-lite\[lora\]"'):
        prepare_stage(small(tok), STAGES['lora'])
