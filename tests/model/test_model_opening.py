"A stranger's folder: named, bounded, finite, or refused in a sentence before it costs anything."

import json
import os
import re
import shutil
import struct
import time
import warnings
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file, save_file

from earthgpt_lite.errors import BadInput
from earthgpt_lite.model import opening
from earthgpt_lite.model.backbones import load_language
from earthgpt_lite.model.config import MODELS
from earthgpt_lite.model.loading import find_model, load
from earthgpt_lite.model.opening import is_hub_name, nearest_path
from earthgpt_lite.model.tokens import encode
from earthgpt_lite.model.weights import find_weights


@pytest.fixture
def folder(tmp_path):
    "A copy of nano to spoil"
    return Path(shutil.copytree(MODELS / 'nano', tmp_path / 'stranger'))


def changed(file, **changes):
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | changes))


def refused(folder, match):
    "Refused by a sentence that names folder or file, quickly and in little memory"
    start, before = time.perf_counter(), psutil.Process().memory_info().rss
    with pytest.raises(BadInput, match=match) as error:
        load(folder, 'cpu')
    assert '\n' not in str(error.value) and 'stranger' in str(error.value)
    assert psutil.Process().memory_info().rss - before < 400e6 and time.perf_counter() - start < 60


# ---- names


PATHS = [
    'runs/quickstart',
    'Runs/x',
    './a',
    './owner/model',
    '../a/b',
    '/a/b',
    '~/model',
    '~me/model',
    'C:/model',
]
PATHS += [
    'C:\\models\\mine',
    'owner\\model',
    'owner/model/',
    'a/b/c',
    'model',
    '',
    'here/model',
    'a b/c',
    'a/b\n',
]
PATHS += ['owner/model.gguf', 'owner/model.safetensors', 'owner/..', Path('owner/model')]


@pytest.mark.parametrize('name', PATHS, ids=repr)
@pytest.mark.parametrize('find', [find_model, load_language, lambda name: find_weights(str(name))])
def test_a_path_is_never_asked_of_the_hub(name, find, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'here').mkdir()
    monkeypatch.setattr(opening, 'snapshot_download', lambda *a, **o: pytest.fail('the hub was asked'))
    if isinstance(name, Path) and 'lambda' in find.__name__:
        return  # find_weights takes text
    assert not is_hub_name(name)
    with pytest.raises(BadInput):
        find(name)


def test_the_nearest_path_is_told(tmp_path):
    (tmp_path / 'runs' / 'quickstart').mkdir(parents=True)
    assert nearest_path(tmp_path / 'rnus' / 'quickstrat') == tmp_path / 'runs' / 'quickstart'
    assert nearest_path(tmp_path / 'runs' / 'zzz') is None


@pytest.mark.parametrize('find', [find_model, load_language])
def test_a_download_is_told_before_it_starts(find, tmp_path, monkeypatch, capsys):
    asked = []

    def download(name, **options):
        asked.append((name, options['local_files_only'], capsys.readouterr().err))
        raise OSError('no network')

    monkeypatch.setattr(opening, 'snapshot_download', download)
    for offline in (False, True):
        monkeypatch.setattr(opening, 'is_offline_mode', lambda: offline)
        with pytest.raises(BadInput, match='somebody/something: no such folder here, and the hub'):
            find('somebody/something')
    (name, local, said), last = asked
    assert (name, local) == ('somebody/something', False) and 'somebody/something' in said and 'hub' in said
    assert last[1:] == (True, '')


# ---- configurations


CHOICES = dict(
    grid=[0, -1, 10**9, '8', 2.5, True, None, [8]],
    image_size=[0, 10**6, '64', -64, None],
    image_token_id=[-1, '5', None, 2**40, 7],
    chat=[None, 'text', 5, [], dict(end=''), dict(end=5), dict(end='a'), dict(nonsense='x')],
    vit_layers=[[], [0], ['a'], 3, [99], [1.5]],
    cnn_channels=[0, 10**9, '64'],
    pixel_shuffle_factor=[0, 3, '4', True],
    vision_encoders=['none', 1, None],
    projector=['unknown', 1],
    fusion=['x'],
    layer_fusion=[None, 'x'],
    init_scale=['x', -1, 1e300],
    vit_input=['x', dict(size=10**7), dict(std=[0, 1, 1]), dict(mean=['a', 'b', 'c']), dict(other=1)],
    first_coordinate=['x', -4, 3],
    coordinate_loss_weight=['x', -1, None],
    train_encoders=['yes', None],
    text_config=['x', None, {}, dict(model_type='nonsense'), dict(model_type='llama', hidden_size=-1)],
    vit_config=[5, dict(model_type='dinov2', patch_size=0), dict(model_type='dinov2', hidden_act='evil')],
    format=['1', 2, None],
    model_type=['llama', None, 5],
)


@pytest.mark.parametrize('field, value', [(k, v) for k, values in CHOICES.items() for v in values], ids=repr)
def test_a_choice_out_of_range(folder, field, value):
    changed(folder / 'config.json', **{field: value})
    refused(folder, 'config.json|configuration|model of type|newer|' + field)


PARTS = [
    (dict(cnn_config=dict(model_type='timm_backbone', backbone='resnet18')), "config.json.*'timm_backbone'"),
    (dict(vit_config=dict(model_type='timm_wrapper', architecture='hf-hub:x/y')), "config.json.*'timm_wrapper'"),
    (dict(text_config=dict(model_type='rag')), "config.json: text_config has the type 'rag'"),
    (dict(vit_config=dict(model_type='rag')), "config.json: vit_config has the type 'rag'"),
    (dict(cnn_config=dict(model_type='bert')), "config.json: cnn_config has the type 'bert'"),
    (dict(text_config=dict(dtype='complex64')), "config.json: dtype is 'complex64'"),
    (dict(text_config=dict(hidden_act='os.system')), "config.json: hidden_act is 'os.system'"),
    (dict(vit_config=dict(hidden_act=5)), "config.json: hidden_act is '5'"),
    (dict(text_config=dict(hidden_size='x')), "config.json.*'hidden_size' expected int"),
    (dict(text_config=dict(head_dim=0)), 'config.json: head_dim is 0'),
    (dict(text_config=dict(intermediate_size=-3)), 'config.json: intermediate_size is -3'),
    (
        dict(text_config=dict(rope_parameters=dict(rope_type='yarn', factor=2.0, original_max_position_embeddings=0))),
        'config.json: original_max_position_embeddings is 0',
    ),
    (dict(text_config=dict(num_key_value_heads=3)), r'k_proj.weight has the shape \(192, 192\), and by config.json'),
    (dict(text_config=dict(hidden_size=100)), r'by config.json it has \(.*100'),
    (dict(format='1'), "format is '1': it should be a whole number"),
]  # fmt: skip


@pytest.mark.parametrize('changes, said', PARTS, ids=[str(changes)[:60] for changes, _ in PARTS])
def test_a_part_that_is_none_is_named_in_words(folder, changes, said, capfd):
    given = json.loads((folder / 'config.json').read_text())
    for field, value in changes.items():
        old = given.get(field)
        fits = isinstance(value, dict) and value.get('model_type') in (None, old['model_type'])
        given[field] = old | value if fits else value
    (folder / 'config.json').write_text(json.dumps(given))
    refused(folder, said)
    with pytest.raises(BadInput) as error:
        load(folder, 'cpu')
    assert not re.search(r"\b[A-Z]\w*(Error|Exception)\b|<class|ignore_mismatched|You ", str(error.value))
    assert 'MISMATCH' not in ''.join(capfd.readouterr())


def test_a_text_at_which_the_tokenizer_breaks_is_told(folder):
    state = json.loads((folder / 'tokenizer.json').read_text())
    split = dict(type='Split', pattern=dict(Regex='(a|aa|b|bb|ab)+$'), behavior='Isolated', invert=False)
    state['pre_tokenizer'] = dict(type='Sequence', pretokenizers=[split, state['pre_tokenizer']])
    (folder / 'tokenizer.json').write_text(json.dumps(state))
    _, tokenizer = load(folder, 'cpu')
    with pytest.raises(BadInput, match='stranger: its tokenizer cannot read .*ask it shorter'):
        encode(tokenizer, 'ab' * 20_000 + '!c?')


@pytest.mark.parametrize('number', ['NaN', '1e999', '-Infinity', '9' * 5000, '{"__float__": "NaN"}'])
def test_numbers_that_are_none(folder, number):
    text = (folder / 'config.json').read_text()
    (folder / 'config.json').write_text(text.replace('"init_scale": 0.1', f'"init_scale": {number}'))
    refused(folder, 'config.json')


def test_a_file_that_is_too_deep(folder):
    (folder / 'config.json').write_text('[' * 10**5)
    refused(folder, 'config.json')


@pytest.mark.parametrize('text', ['', '[]', 'null', '{', '\x00', '"text"', '{"a": 1} x'])
@pytest.mark.parametrize('name', ['config.json', 'tokenizer_config.json', 'generation_config.json'])
def test_files_that_are_no_settings(folder, name, text):
    (folder / name).write_text(text)
    refused(folder, name)


@pytest.mark.parametrize('depth', [60, 500, 900])
@pytest.mark.parametrize('name', ['config.json', 'tokenizer_config.json', 'generation_config.json'])
def test_settings_that_are_too_deep(folder, name, depth):
    text = (folder / name).read_text()
    (folder / name).write_text(text.replace('{', '{"deep": ' + '[' * depth + ']' * depth + ',', 1))
    refused(folder, f'{name}.* deep')


@pytest.mark.parametrize('name', ['tokenizer.json', 'tokenizer_config.json', 'model.safetensors.index.json'])
def test_a_pipe_is_not_waited_for(folder, name):
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    refused(folder, f'{name} is no file')


def text_config(folder, **changes):
    text = json.loads((folder / 'config.json').read_text())['text_config']
    changed(folder / 'config.json', text_config=text | changes)


LARGE = [
    dict(num_hidden_layers=10**6),
    dict(num_hidden_layers=60_000),
    dict(num_hidden_layers=60_000, hidden_size=8, intermediate_size=8, head_dim=2),
    dict(num_labels=10**9),
    dict(vocab_size=10**9),
    dict(vocab_size=10**13),
    dict(hidden_size=10**6, head_dim=48),
    dict(intermediate_size=10**9),
    dict(num_attention_heads=10**9),
]


@pytest.mark.parametrize('changes', LARGE, ids=repr)
def test_a_size_that_the_files_do_not_hold(folder, changes):
    text_config(folder, **changes)
    refused(folder, 'stranger')


def test_a_size_that_memory_does_not_hold(folder, monkeypatch):
    monkeypatch.setenv('EARTHGPT_LITE_MEMORY', '4M')
    refused(folder, 'may be taken here.*EARTHGPT_LITE_MEMORY')
    monkeypatch.setenv('EARTHGPT_LITE_MEMORY', '100M')
    load(folder, 'cpu')


def test_a_language_model_and_an_encoder_are_bounded_too(tmp_path):
    from transformers import Dinov2Config, Dinov2Model, LlamaConfig, LlamaForCausalLM

    from earthgpt_lite.model.weights import load_encoder

    size = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    LlamaForCausalLM(LlamaConfig(vocab_size=700, intermediate_size=16, **size)).save_pretrained(
        tmp_path / 'text'
    )
    Dinov2Model(Dinov2Config(image_size=28, **size)).save_pretrained(tmp_path / 'vit')
    for name, opened in (('text', load_language), ('vit', load_encoder)):
        for layers, said in ((10**6, 'num_hidden_layers is 1,000,000'), (60_000, 'different models')):
            changed(tmp_path / name / 'config.json', num_hidden_layers=layers)
            with pytest.raises(BadInput, match=said):
                opened(tmp_path / name)


def test_programs_of_the_hub_are_not_named(folder):
    text_config(folder, attn_implementation='kernels-community/flash-attn')
    refused(folder, 'attn_implementation names the program')


# ---- weights


@pytest.mark.parametrize('value', [float('nan'), float('inf')])
def test_weights_that_are_no_numbers(folder, value):
    weights = load_file(folder / 'model.safetensors')
    name = sorted(weights)[-1]
    weights[name].view(-1)[-1] = value
    save_file(weights, folder / 'model.safetensors', {'format': 'pt'})
    refused(folder, f'the weight {name} holds NaN or infinity')


@pytest.mark.parametrize('kind', [torch.int8, torch.bool, torch.complex64, torch.float8_e4m3fn])
def test_weights_that_are_no_real_numbers(folder, kind):
    weights = load_file(folder / 'model.safetensors')
    name = next(name for name in weights if name.endswith('weight'))
    save_file(weights | {name: weights[name].to(kind)}, folder / 'model.safetensors', {'format': 'pt'})
    refused(folder, f'model.safetensors: {name} holds .*, no real numbers')


def test_weights_too_large_to_compute_with(folder):
    weights = load_file(folder / 'model.safetensors')
    text = {n: torch.full(w.shape, 1e37) if 'proj' in n else w for n, w in weights.items()}
    save_file(text, folder / 'model.safetensors', {'format': 'pt'})
    from earthgpt_lite.model.generation import generate_answers

    with pytest.raises(BadInput, match='gives NaN'):
        generate_answers(*load(folder, 'cpu'), None, [(None, 'what is a lake?')], max_new_tokens=2)


def header(text, body=b''):
    raw = json.dumps(text).encode()
    return struct.pack('<Q', len(raw)) + raw + body


SHORT = dict(dtype='F32', shape=[4], data_offsets=[0, 16])
HEADERS = dict(
    length=struct.pack('<Q', 2**62) + b'{}',
    overlapping=header(dict(a=SHORT, b=dict(SHORT, data_offsets=[8, 24])), b'0' * 24),
    beyond=header(dict(a=dict(SHORT, data_offsets=[0, 2**50], shape=[2**48]))),
    text=b'{"not": "safetensors"}',
    empty=b'',
)


@pytest.mark.parametrize('kind', HEADERS)
def test_headers_of_nonsense(folder, kind):
    (folder / 'model.safetensors').write_bytes(HEADERS[kind])
    refused(folder, 'model.safetensors is no whole safetensors file')


def test_an_index_does_not_lead_outside(folder):
    shutil.copy(folder / 'model.safetensors', folder.parent / 'outside.safetensors')
    names = load_file(folder / 'model.safetensors')
    (folder / 'model.safetensors').rename(folder / 'model-00001-of-00002.safetensors')
    for listed in (dict.fromkeys(names, '../outside.safetensors'), 5, ['x'], {'a': 5}):
        changed(folder / 'model.safetensors.index.json', weight_map=listed)
        refused(folder, 'model.safetensors.index.json')


@pytest.mark.parametrize('name', ['model.safetensors', 'tokenizer.json', 'config.json'])
def test_links_do_not_lead_outside(folder, name):
    (folder / name).rename(folder.parent / 'outside')
    (folder / name).symlink_to('../outside')
    refused(folder, f'{name} is a link')


def test_the_links_of_the_hubs_cache_are_its_own(folder):
    repository = folder.parent / 'models--owner--stranger'
    (repository / 'snapshots').mkdir(parents=True)
    snapshot, blobs = folder.rename(repository / 'snapshots' / 'abc'), repository / 'blobs'
    blobs.mkdir()
    for file in list(snapshot.iterdir()):
        file.rename(blobs / file.name)
        file.symlink_to(f'../../blobs/{file.name}')
    load(snapshot, 'cpu')


# ---- tokenizers and settings of answers


def test_ids_beyond_the_model(folder):
    state = json.loads((folder / 'tokenizer.json').read_text())
    token = dict(state['added_tokens'][-1], content='<lake>', id=100_000)
    changed(folder / 'tokenizer.json', added_tokens=[*state['added_tokens'], token])
    refused(folder, "1 tokens that the model does not know, such as '<lake>'")


@pytest.mark.parametrize(
    'text', ['', '{}', '{', '[1]', '{"version": "1.0", "model": {"type": "evil"}}', '\x00\x01']
)
def test_tokenizers_that_are_none(folder, text):
    (folder / 'tokenizer.json').write_text(text)
    refused(folder, 'tokenizer')


def test_a_tokenizer_too_large_to_be_one(folder):
    with open(folder / 'tokenizer.json', 'r+b') as f:
        f.truncate(10**9)
    refused(folder, 'tokenizer.json has 1,000 MB')


def test_a_template_does_not_leave_its_sandbox(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    from fixtures_language import family_tokenizers

    tokenizer, marker = family_tokenizers()['smollm2'], tmp_path / 'it ran'
    size = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    config = LlamaConfig(vocab_size=len(tokenizer), **size)
    LlamaForCausalLM(config).save_pretrained(tmp_path / 'model')
    for begin in (
        'messages',
        'raise_exception',
        'cycler',
        "''.__class__.__mro__[1].__subclasses__()",
        'lipsum',
    ):
        tokenizer.chat_template = f"{{{{ {begin}.__init__.__globals__['os'].mkdir('{marker}') }}}}"
        tokenizer.save_pretrained(tmp_path / 'model')
        load_language(tmp_path / 'model')
        assert not marker.exists()


def test_generation_settings_are_reduced(folder):
    wanted = dict(do_sample=True, temperature=0.5, top_p=0.9, eos_token_id=2)
    others = dict(
        num_beams=4, stop_strings=['a'], cache_implementation='offloaded', min_new_tokens=50, use_cache=False
    )
    others |= dict(suppress_tokens=[2], repetition_penalty=9.0, penalty_alpha=0.6, assistant_early_exit=3)
    changed(folder / 'generation_config.json', **wanted, **others)
    with pytest.warns(
        UserWarning, match='generation_config.json: not used here: .*num_beams.*stop_strings'
    ) as warned:
        model, tokenizer = load(folder, 'cpu')
    assert all(name in str(warned[0].message) for name in others)
    settings = model.generation_config
    assert all(getattr(settings, name) == value for name, value in wanted.items())
    assert not any(
        getattr(settings, name) for name in ('stop_strings', 'suppress_tokens', 'cache_implementation')
    )
    from earthgpt_lite.model.generation import generate_answers

    said = [
        generate_answers(*pair, None, [(None, 'what is a lake?')], 8)
        for pair in ((model, tokenizer), load('nano', 'cpu'))
    ]
    assert said[0] == said[1]


@pytest.mark.parametrize(
    'wrong',
    [
        dict(temperature=0),
        dict(temperature='hot'),
        dict(top_p=2),
        dict(do_sample='yes'),
        dict(top_k=-1),
        dict(max_new_tokens=10**12),
        dict(eos_token_id='x'),
        dict(eos_token_id=-4),
        dict(custom_generate='owner/code'),
    ],
    ids=repr,
)
def test_generation_settings_out_of_range(folder, wrong):
    changed(folder / 'generation_config.json', **wrong)
    refused(folder, f'generation_config.json.*{next(iter(wrong))}')


def test_a_good_folder_says_nothing(folder):
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        load(folder, 'cpu')


def test_a_whole_number_is_a_number(folder):
    changed(folder / 'config.json', coordinate_loss_weight=60, init_scale=1)
    model, _ = load(folder, 'cpu')
    assert model.config.coordinate_loss_weight == 60
