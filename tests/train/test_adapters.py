"A stranger's adapter is looked over whole before the model is touched."

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.modeling import nano
from earthgpt_lite.model.tokens import train_tokenizer
from earthgpt_lite.train.adapters import load_adapter, prepare_stage, read_adapter, save_adapter
from earthgpt_lite.train.stages import STAGES


@pytest.fixture(scope='module')
def base():
    torch.manual_seed(0)
    return nano(train_tokenizer(['where is the lake?']))


def saved(base, path, kind):
    "An adapter that has learned something"
    if kind == 'lora':
        pytest.importorskip('peft')
    model = copy.deepcopy(base)
    prepare_stage(model, STAGES['tune' if kind == 'bias' else 'lora'])
    for p in model.parameters():
        if p.requires_grad:
            p.data += 0.01
    save_adapter(model, path, exact=True)
    return model


def first(tensors, word):
    return next(name for name in sorted(tensors) if word in name)


def spoil(path, change):
    about, tensors = read_adapter(path)
    change(about, tensors)
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
    options=(says(options=dict(rank='x')), 'options'),
    rank=(says(options=dict(rank=10**9, alpha=1)), 'options'),
    none=(says(options={}), 'options'),
    other=(says(options=dict(side='input', target_modules='.*')), 'options'),
    exact=(says(exact='yes'), 'exact'),
    fingerprint=(says(fingerprint=5), 'fingerprint'),
    base=(says(base=dict(a=1)), 'base'),
    another=(says(fingerprint='0' * 16), 'is another one'),
)


@pytest.mark.parametrize('name', SPOILED)
@pytest.mark.parametrize('kind', ['bias', 'lora'])
def test_a_spoiled_adapter_leaves_the_model_as_it_was(base, tmp_path, kind, name):
    change, match = SPOILED[name]
    saved(base, tmp_path / 'a.safetensors', kind)
    spoil(tmp_path / 'a.safetensors', change)
    model = copy.deepcopy(base)
    with pytest.raises(BadInput, match=match) as error:
        load_adapter(model, tmp_path / 'a.safetensors')
    assert 'a.safetensors' in str(error.value) and '\n' not in str(error.value)
    kept, now = base.state_dict(), model.state_dict()
    assert list(kept) == list(now) and all(torch.equal(kept[n], now[n]) for n in kept)
    assert [(n, p.requires_grad) for n, p in model.named_parameters()] == [
        (n, p.requires_grad) for n, p in base.named_parameters()
    ]


@pytest.mark.parametrize('text', ['', '{', '[]', 'null', '5', '[' * 10**5, '{}'])
def test_what_says_nothing_of_itself(tmp_path, text):
    save_file({'a': torch.ones(1)}, tmp_path / 'a.safetensors', {'earthgpt_adapter': text})
    with pytest.raises(BadInput, match='a.safetensors says of itself'):
        read_adapter(tmp_path / 'a.safetensors')


@pytest.mark.parametrize('kind', ['bias', 'lora'])
def test_a_good_one_is_put_on_whole(base, tmp_path, kind):
    made, model = saved(base, tmp_path / 'a.safetensors', kind), copy.deepcopy(base)
    load_adapter(model, tmp_path / 'a.safetensors')
    own = dict(model.named_parameters())
    assert all(torch.equal(t, own[n]) for n, t in load_file(tmp_path / 'a.safetensors').items())
    assert all(torch.equal(a, b) for a, b in zip(made.state_dict().values(), model.state_dict().values()))
