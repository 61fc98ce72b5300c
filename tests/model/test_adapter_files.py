"A stranger's adapter is looked over whole before the model is touched."

import copy
import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.modeling import nano
from earthgpt_lite.model.tokens import train_tokenizer
from earthgpt_lite.model.adapter_files import ADAPTER_FILE, load_adapter, read_adapter, save_adapter
from earthgpt_lite.train.stages import prepare_stage
from earthgpt_lite.train.stages import STAGES


@pytest.fixture(scope='module')
def base():
    torch.manual_seed(0)
    return nano(train_tokenizer(['where is the lake?']))


def saved(base, path, kind):
    "An adapter that has learned something"
    model = copy.deepcopy(base)
    prepare_stage(model, STAGES['tune' if kind == 'bias' else 'lora'])
    for p in model.parameters():
        if p.requires_grad:
            p.data += 0.01
    save_adapter(model, path)
    return model


def first(tensors, word):
    return next(name for name in sorted(tensors) if word in name)


def spoil(folder, change):
    "Change the head and the tensors of an adapter's file; for LoRA also peft's configuration"
    path, settings = folder / ADAPTER_FILE, folder / 'adapter_config.json'
    with safe_open(path, 'pt') as f:
        about = json.loads(f.metadata()['earthgpt_adapter'])
    about['peft'] = json.loads(settings.read_text()) if settings.exists() else None
    tensors = load_file(path)
    change(about, tensors)
    config = about.pop('peft')
    if config:
        settings.write_text(json.dumps(config))
    save_file(tensors, path, {'earthgpt_adapter': json.dumps(about)})


def one_element(about, tensors):
    name = first(tensors, 'tune_bias' if about['kind'] == 'bias' else 'lora_A')
    tensors[name] = torch.ones(1)


def not_a_number(value):
    def change(about, tensors):
        tensors[sorted(tensors)[-1]].view(-1)[-1] = value

    return change


def lost(about, tensors):
    del tensors[sorted(tensors)[-1]]


def strange(about, tensors):
    tensors['language.model.layers.99.mlp.up_proj.tune_scale'] = torch.ones(4)


def whole_numbers(about, tensors):
    name = sorted(tensors)[0]
    tensors[name] = tensors[name].int()


def says(**changes):
    return lambda about, tensors: about.update(changes)


def config_says(**changes):
    return lambda about, tensors: about['peft'].update(changes)


SPOILED = dict(
    one_element=(one_element, r'has the shape \(1,\), not'),
    nan=(not_a_number(float('nan')), 'NaN'),
    infinity=(not_a_number(float('inf')), 'infinity'),
    lost=(lost, 'is missing'),
    strange=(strange, 'layers.99.mlp.up_proj.tune_scale has no place'),
    integers=(whole_numbers, 'no real numbers'),
    kind=(says(kind='evil'), 'kind'),
    no_kind=(says(kind=None), 'kind'),
    a_list=(says(kind=['bias']), 'kind'),
    beside=(says(beside=['..']), 'beside'),
    stage=(says(stage=None), 'stage'),
    rendering=(says(rendering=dict(a=1)), 'rendering'),
    fingerprint=(says(fingerprint=5), 'fingerprint'),
    base=(says(base=dict(a=1)), 'base'),
    another=(says(fingerprint='0' * 16), 'is another one'),
)
CASES = [(kind, name, *SPOILED[name]) for name in SPOILED for kind in ('bias', 'lora')]
CASES += [
    ('bias', 'options', says(options=dict(side='left')), 'options'),
    ('bias', 'no options', says(options={}), 'options'),
    ('bias', 'more options', says(options=dict(side='input', target_modules='.*')), 'options'),
    ('bias', 'another kind', says(kind='lora'), 'adapter_config.json is missing'),
    ('lora', 'another kind', says(kind='bias'), 'kind'),
    ('lora', 'rank', config_says(r='x'), 'adapter_config.json: r '),
    ('lora', 'large rank', config_says(r=10**9), 'adapter_config.json: r '),
    ('lora', 'rank of one', config_says(rank_pattern=dict(q_proj=10**9)), 'adapter_config.json: r '),
    ('lora', 'alpha', config_says(lora_alpha=float('nan')), 'adapter_config.json'),
    (
        'lora',
        'imports',
        config_says(megatron_config=dict(a=1), megatron_core='antigravity'),
        'megatron_config',
    ),
    ('lora', 'another method', config_says(peft_type='VERA'), 'only LoRA is read here'),
    ('lora', 'no pattern', config_says(target_modules='('), 'does not fit'),
]


@pytest.mark.parametrize(
    'kind, change, match', [c[:1] + c[2:] for c in CASES], ids=[f'{c[0]}-{c[1]}' for c in CASES]
)
def test_a_spoiled_adapter_leaves_the_model_as_it_was(base, tmp_path, kind, change, match):
    saved(base, tmp_path / 'a', kind)
    spoil(tmp_path / 'a', change)
    model = copy.deepcopy(base)
    with pytest.raises(BadInput, match=match) as error:
        load_adapter(model, tmp_path / 'a')
    assert str(tmp_path / 'a') in str(error.value) and '\n' not in str(error.value)
    kept, now = base.state_dict(), model.state_dict()
    assert list(kept) == list(now) and all(torch.equal(kept[n], now[n]) for n in kept)
    assert [(n, p.requires_grad) for n, p in model.named_parameters()] == [
        (n, p.requires_grad) for n, p in base.named_parameters()
    ]


def test_a_beginning_that_changes_the_base_does_not(base, tmp_path):
    made, model = saved(base, tmp_path / 'a', 'lora'), copy.deepcopy(base)
    spoil(tmp_path / 'a', config_says(init_lora_weights='pissa'))
    load_adapter(model, tmp_path / 'a')
    assert all(torch.equal(a, b) for a, b in zip(made.state_dict().values(), model.state_dict().values()))


@pytest.mark.parametrize('text', ['', '{', '[]', 'null', '5', '[' * 10**5, '{}'])
def test_what_says_nothing_of_itself(tmp_path, text):
    save_file({'a': torch.ones(1)}, tmp_path / ADAPTER_FILE, {'earthgpt_adapter': text})
    with pytest.raises(BadInput, match=f'{ADAPTER_FILE} says of itself'):
        read_adapter(tmp_path)


@pytest.mark.parametrize('kind', ['bias', 'lora'])
def test_a_good_one_is_put_on_whole(base, tmp_path, kind):
    made, model = saved(base, tmp_path / 'a', kind), copy.deepcopy(base)
    load_adapter(model, tmp_path / 'a')
    assert not torch.equal(
        torch.cat([p.flatten() for p in made.parameters()]),
        torch.cat([p.flatten() for p in base.parameters()]),
    )
    assert list(made.state_dict()) == list(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(made.state_dict().values(), model.state_dict().values()))


@pytest.mark.unix
def test_a_pipe_is_no_adapter(tmp_path):
    os.mkfifo(tmp_path / ADAPTER_FILE)
    with pytest.raises(BadInput, match='cannot be read .*pipe'):
        read_adapter(tmp_path)
