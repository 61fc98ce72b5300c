"Any causal language model loads with its numbers, from a folder or a GGUF file; all else gets one sentence."

import json
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    MambaConfig,
    Qwen2Config,
    Qwen3Config,
    T5Config,
    ViTConfig,
)

from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.backbones import check_language, load_language
from earthgpt_lite.model.opening import check_files
from earthgpt_lite.model.templates import FAMILIES
from fixtures_language import family_tokenizers, from_lesson

SIZE = dict(
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
)
KINDS = dict(
    smollm2=(LlamaConfig, dict(tie_word_embeddings=True)),
    llama2=(LlamaConfig, dict(num_key_value_heads=4)),
    llama3=(LlamaConfig, {}),
    qwen2=(Qwen2Config, {}),
    qwen3=(Qwen3Config, dict(head_dim=128)),
)
IDS = torch.randint(10, 200, (2, 9), generator=torch.Generator().manual_seed(0))


def build(config, seed=0):
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).eval()
    for name, weight in model.named_parameters():
        if 'norm' in name or 'bias' in name:
            weight.data.uniform_(0.5, 1.5)
    return model


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    "Of each family (model, tokenizer, folder); do not change them"
    made, place = {}, tmp_path_factory.mktemp('models')
    tokenizers = family_tokenizers()
    for name, (kind, more) in KINDS.items():
        model = build(
            kind(**SIZE | more, vocab_size=len(tokenizers[name]), eos_token_id=tokenizers[name].eos_token_id)
        )
        model.save_pretrained(place / name)
        tokenizers[name].save_pretrained(place / name)
        made[name] = model, tokenizers[name], place / name
    return made


@pytest.fixture
def folder(models, tmp_path):
    return shutil.copytree(models['smollm2'][2], tmp_path / 'model')


@torch.no_grad()
def logits(model):
    return model(IDS).logits


@pytest.mark.parametrize('name', KINDS)
def test_a_saved_model_loads_with_its_numbers(models, name):
    original, _, folder = models[name]
    model, tokenizer, chat = load_language(folder)
    assert (
        torch.equal(logits(model), logits(original)) and not model.training and model.dtype == torch.float32
    )
    assert chat.between == FAMILIES[{'smollm2': 'chatml', 'qwen2': 'chatml'}.get(name, name)].between
    assert tokenizer.pad_token_id < original.config.vocab_size <= tokenizer.convert_tokens_to_ids('<image>')


@pytest.mark.parametrize('name', ('smollm2', 'qwen3'))
def test_what_was_loaded_can_be_saved_and_loaded(models, name, tmp_path):
    model, tokenizer, chat = load_language(models[name][2])
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    again, tokenizer_again, chat_again = load_language(str(tmp_path))
    assert (
        torch.equal(logits(again), logits(model))
        and chat_again == chat
        and len(tokenizer_again) == len(tokenizer)
    )


def test_precision_is_ours_to_choose(models, tmp_path):
    original, tokenizer, _ = models['llama3']
    build(original.config).to(torch.bfloat16).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert (
        load_language(tmp_path)[0].dtype == torch.float32
        and load_language(tmp_path, dtype=torch.bfloat16)[0].dtype == torch.bfloat16
    )


def test_several_files_load_and_a_lost_one_is_named(models, tmp_path):
    original, tokenizer, _ = models['llama3']
    original.save_pretrained(tmp_path, max_shard_size='40KB')
    tokenizer.save_pretrained(tmp_path)
    assert len(list(tmp_path.glob('*.safetensors'))) > 1 and torch.equal(
        logits(load_language(tmp_path)[0]), logits(original)
    )
    lost = sorted(tmp_path.glob('*.safetensors'))[0]
    lost.unlink()
    with pytest.raises(BadInput, match=f'1 of the files.*{lost.name}'):
        load_language(tmp_path)


@pytest.mark.parametrize('share', [0, 0.001, 0.5, 0.999])
def test_truncated_safetensors(folder, share):
    file = folder / 'model.safetensors'
    data = file.read_bytes()
    file.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BadInput, match='model.safetensors is no whole safetensors file.*download it again'):
        load_language(folder)


def test_pickles_are_not_opened(folder):
    (folder / 'model.safetensors').unlink()
    (folder / 'pytorch_model.bin').write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(BadInput, match='pytorch_model.bin is a pickle'):
        load_language(folder)
    (folder / 'pytorch_model.bin').unlink()
    with pytest.raises(BadInput, match='weights are missing'):
        check_files(folder)


@pytest.mark.parametrize(
    'change, said',
    [
        (
            lambda w: w.pop('model.layers.1.mlp.up_proj.weight'),
            'not whole, missing: model.layers.1.mlp.up_proj.weight',
        ),
        (lambda w: w.update(extra=torch.zeros(3)), 'not whole, unexpected: extra'),
        (lambda w: w.update({'model.norm.weight': torch.ones(31)}), r'norm.weight has the shape \(31,\)'),
    ],
)
def test_weights_that_are_not_the_models(folder, change, said):
    weights = load_file(folder / 'model.safetensors')
    change(weights)
    save_file(weights, folder / 'model.safetensors', metadata=dict(format='pt'))
    with pytest.raises(BadInput, match=said):
        load_language(folder)


@pytest.mark.parametrize(
    'config, said', [(ViTConfig(), "type 'vit', not a causal"), (T5Config(), "type 't5', not a causal")]
)
def test_another_kind_of_model(folder, config, said):
    config.save_pretrained(folder)
    with pytest.raises(BadInput, match=said):
        load_language(folder)


@pytest.mark.parametrize(
    'text, said',
    [
        ('{', 'config.json is no JSON'),
        ('{"model_type": "nonsense"}', 'no language model'),
        ('{}', 'no language model'),
    ],
)
def test_a_broken_config(folder, text, said):
    (folder / 'config.json').write_text(text)
    with pytest.raises(BadInput, match=said):
        load_language(folder)


SMALL = dict(vocab_size=200, hidden_size=32, num_hidden_layers=2)


@pytest.mark.parametrize(
    'config, said',
    [
        (BertConfig(**SMALL, num_attention_heads=4, intermediate_size=48), 'bert.*reads ahead'),
        (MambaConfig(**SMALL, state_size=4), 'mamba'),
    ],
)
def test_what_is_asked_of_a_model(config, said):
    with pytest.raises(BadInput, match=said):
        check_language(AutoModelForCausalLM.from_config(config).eval(), 'it')


def test_a_model_that_ignores_the_mask():
    model = build(LlamaConfig(**SIZE, vocab_size=50))
    forward = model.forward
    model.forward = lambda attention_mask=None, **k: forward(**k)
    with pytest.raises(BadInput, match='does not obey a mask'):
        check_language(model)


def test_other_causal_families_pass():
    check_language(build(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=64)))
    check_language(build(LlamaConfig(**SIZE, vocab_size=50)).to(torch.bfloat16))


def test_tokenizers_that_do_not_belong(folder, models, tmp_path):
    models['llama3'][1].save_pretrained(folder)
    config = json.loads((folder / 'config.json').read_text())
    small = build(LlamaConfig(**SIZE, vocab_size=100))
    small.save_pretrained(tmp_path / 'small')
    models['smollm2'][1].save_pretrained(tmp_path / 'small')
    assert config['vocab_size'] > 100
    with pytest.raises(BadInput, match='tokens that the model does not know'):
        load_language(tmp_path / 'small')
    for f in (tmp_path / 'small').glob('token*'):
        f.unlink()
    with pytest.raises(BadInput, match='no tokenizer that can be read'):
        load_language(tmp_path / 'small')


@pytest.mark.parametrize(
    'name, said',
    [
        ('missing/folder/x', 'no such folder'),
        ('./nowhere', 'no such folder'),
        ('nowhere.gguf', 'no such file'),
        ('somebody/no-such-model', 'the hub gives no such model'),
    ],
)
def test_names_that_lead_nowhere(name, said):
    with pytest.raises(BadInput, match=said):
        load_language(name)


def test_an_empty_folder(tmp_path):
    with pytest.raises(BadInput, match='neither config.json nor a GGUF'):
        load_language(tmp_path)


@pytest.fixture
def write():
    pytest.importorskip('accelerate')
    gguf = pytest.importorskip('gguf')

    def write(model, tokenizer, path, **more):
        space = from_lesson(
            '4_model/11_backbones',
            'NAMES',
            'gguf_name',
            'neighbours',
            'write_gguf',
            gguf=gguf,
            tokenizer=tokenizer,
            bpe=tokenizer.backend_tokenizer,
        )
        space['write_gguf'](model, path, **more)

    return write


@pytest.mark.parametrize(
    'name, kind', [('smollm2', 'llama'), ('llama3', 'llama'), ('qwen2', 'qwen2'), ('qwen3', 'qwen3')]
)
def test_gguf_has_the_same_numbers(models, write, tmp_path, name, kind):
    original, tokenizer, folder = models[name]
    write(original, tokenizer, tmp_path / 'model.gguf', kind=kind)
    model, found, chat = load_language(tmp_path / 'model.gguf')
    assert torch.equal(logits(model), logits(original)) and type(model) is type(original)
    assert found.get_vocab().items() >= tokenizer.get_vocab().items()
    assert torch.equal(logits(load_language(tmp_path)[0]), logits(original))  # the only GGUF in a folder
    model.save_pretrained(tmp_path / 'saved')
    found.save_pretrained(tmp_path / 'saved')
    assert (
        torch.equal(logits(load_language(tmp_path / 'saved')[0]), logits(original))
        and 'quantization_config' not in (tmp_path / 'saved/config.json').read_text()
    )


def test_gguf_with_rows_unswapped_is_another_model(models, write, tmp_path):
    original, tokenizer, _ = models['smollm2']
    write(original, tokenizer, tmp_path / 'model.gguf', swap=False)
    assert (logits(load_language(tmp_path)[0]) - logits(original)).abs().max() > 1e-4 * logits(
        original
    ).abs().max()


def test_gguf_of_another_architecture(models, write, tmp_path):
    write(models['smollm2'][0], models['smollm2'][1], tmp_path / 'model.gguf', kind='bert')
    with pytest.raises(BadInput, match="model.gguf.*architecture 'bert'"):
        load_language(tmp_path / 'model.gguf')


@pytest.mark.parametrize('share', [0, 0.0001, 0.2, 0.9])
def test_gguf_that_was_cut(models, write, tmp_path, share):
    write(models['smollm2'][0], models['smollm2'][1], tmp_path / 'model.gguf')
    data = (tmp_path / 'model.gguf').read_bytes()
    (tmp_path / 'model.gguf').write_bytes(data[: int(len(data) * share)])
    with pytest.raises(BadInput, match='no whole GGUF file'):
        load_language(tmp_path / 'model.gguf')


def test_two_gguf_files_must_be_named(models, write, tmp_path):
    for name in 'ab':
        write(models['smollm2'][0], models['smollm2'][1], tmp_path / f'{name}.gguf')
    with pytest.raises(BadInput, match='a.gguf, b.gguf.*name the file'):
        load_language(tmp_path)
    assert load_language(tmp_path, 'b.gguf')[0].config.vocab_size == models['smollm2'][0].config.vocab_size


def test_the_extra_is_asked_for_by_name(tmp_path, monkeypatch):
    (tmp_path / 'model.gguf').write_bytes(b'GGUF')
    monkeypatch.setitem(sys.modules, 'gguf', None)
    with pytest.raises(BadInput, match=r'pip install "earthgpt-lite\[gguf\]"'):
        load_language(tmp_path / 'model.gguf')
