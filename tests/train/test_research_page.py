"Each example of docs/research.md runs, on models and records that are tiny."

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_language import family_tokenizers
from PIL import Image
from transformers import AutoModel, AutoModelForCausalLM, ConvNextV2Config, Qwen3Config, SiglipVisionConfig

from earthgpt_lite.train.run import train_command

PAGE = (Path(__file__).parents[2] / 'docs' / 'research.md').read_text(encoding='utf-8')
BLOCKS = re.findall(r'^```(python|yaml|toml)\n(.*?)^```', PAGE, re.M | re.S)
NAMES = dict(
    vit='google/siglip-base-patch16-224', cnn='facebook/convnextv2-tiny-22k-224', text='Qwen/Qwen3-0.6B'
)


def blocks(kind):
    return [text for name, text in BLOCKS if name == kind]


def short(text):
    "The example with two steps, pictures of 32 pixels, and the tiny preset in the place of `lite`."
    text = re.sub(r'(steps[=:] ?)2000', r'\g<1>2', text).replace('500', '1').replace('warmup=100', 'warmup=1')
    text = text.replace('448', '64').replace('size=224', 'size=32')
    return text.replace("'lite'", "'tiny.toml'").replace('model: lite', 'model: tiny.toml')


def tiny_models(place):
    torch.manual_seed(0)
    tokenizer = family_tokenizers()['qwen3']
    words = dict(vocab_size=len(tokenizer), eos_token_id=tokenizer.eos_token_id, max_position_embeddings=512)
    layers = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    vit = SiglipVisionConfig(**layers | dict(num_hidden_layers=4), image_size=32, patch_size=8)
    cnn = ConvNextV2Config(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1])
    text = Qwen3Config(**layers | words, num_key_value_heads=2, head_dim=8)
    for part, kind, config in (
        ('vit', AutoModel, vit),
        ('cnn', AutoModel, cnn),
        ('text', AutoModelForCausalLM, text),
    ):
        kind.from_config(config).save_pretrained(place / part)
        said = dict(
            size=dict(height=32, width=32), image_mean=[0.5] * 3, image_std=[0.5] * 3, do_normalize=True
        )
        (place / part / 'preprocessor_config.json').write_text(json.dumps(said))
    tokenizer.save_pretrained(place / 'text')


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    "A folder with the records and the preset of the page, in the place of the hub."
    tiny_models(tmp_path)
    text = blocks('toml')[0]
    for part, name in NAMES.items():
        assert name in text, 'the page names another model'
        text = text.replace(name, str(tmp_path / part))
    (tmp_path / 'mine.toml').write_text(text)
    (tmp_path / 'tiny.toml').write_text(text.replace('grid = 8', 'grid = 2'))
    rows = []
    for i in range(6):
        Image.fromarray(np.full((32, 32, 3), 40 * i, 'uint8')).save(tmp_path / f'{i}.png')
        talk = [dict(value='what is it?', **{'from': 'human'}), dict(value='a field', **{'from': 'gpt'})]
        rows.append(json.dumps(dict(image=f'{i}.png', conversations=talk)))
    (tmp_path / 'records.jsonl').write_text('\n'.join(rows))
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize('number', range(len(blocks('yaml'))))
def test_a_run_file_of_the_page_runs(number, capsys):
    text = short(blocks('yaml')[number]) + 'batch_size: 4\ndevice: cpu\nprogress: false\n'
    Path('run.yaml').write_text(text)
    assert train_command(['--config', 'run.yaml']) == 0
    record = json.loads(next(Path('runs').glob('*/run.json')).read_text())
    assert record['steps'] == 2 and np.isfinite(record['last_loss'])
    if 'image_size' in text:
        assert 'pictures of 64 pixels instead of 32' in capsys.readouterr().out


def test_the_python_of_the_page_runs(capsys):
    space, runs = {}, 0
    for text in blocks('python'):
        exec(compile(short(text), 'docs/research.md', 'exec'), space)
        if 'run = fit' in text:
            runs += 1
            assert space['run']['steps'] == 2 and all(np.isfinite(loss) for _, loss in space['run']['losses'])
    assert runs == 5 and space['model'].config.image_size == 64


def test_examples_are_short():
    assert all(len(text.strip().splitlines()) <= 14 for _, text in BLOCKS) and len(BLOCKS) >= 11
