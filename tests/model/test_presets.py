"Presets: the files say what is published, and the scale tells the truth."

import subprocess
import sys
from dataclasses import replace
from importlib.resources import files

import pytest
import torch

from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.config import nano_config
from earthgpt_lite.model.memory import Ledger, begin_training, presets_table, weigh
from earthgpt_lite.model.modeling import EarthGPT
from earthgpt_lite.model.presets import on_meta, preset_config, presets, published, read_preset


def test_the_five_presets_are_there():
    assert presets() == ['nano', 'lite', 'lite-offline', 'base', 'paper']


def test_the_paper_has_the_published_counts():
    assert published(preset_config('paper')) == dict(vit=304_368_640, cnn=196_230_336, text=13_015_864_320)


def test_the_language_model_of_lite_has_the_published_count():
    assert (
        published(preset_config('lite'))['text']
        == published(preset_config('lite-offline'))['text']
        == 134_515_008
    )


def test_nano_is_the_nano_of_the_model(tiny):
    assert preset_config('nano', tiny[1]).to_dict() == nano_config(tiny[1]).to_dict()


def test_nano_on_meta_counts_as_the_real_one(tiny):
    config = preset_config('nano', tiny[1])
    assert sum(p.numel() for p in on_meta(config).parameters()) == sum(
        p.numel() for p in EarthGPT(config).parameters()
    )


def test_parts_add_up_and_frozen_encoders_are_not_trained():
    row = weigh('lite-offline', pictures=1, words=16, target_tokens=4)
    assert sum(row['parameters'].values()) == row['total'] and row['visual_tokens'] == 64
    assert (
        row['parameters']['projector']
        < row['trained']
        < row['total'] - row['parameters']['vit'] - row['parameters']['cnn']
    )
    assert row['train_bytes'] > row['infer_bytes'] > 4 * row['total']


@pytest.mark.parametrize('name', ['nano', 'lite', 'lite-offline', 'base', 'paper'])
def test_what_is_weighed_is_what_the_stage_align_trains(name):
    from earthgpt_lite.train.stages import STAGES

    model = on_meta(preset_config(name))
    names = STAGES['align'].trainable_names(model)
    begin_training(model)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == names


def test_masters_are_counted():
    "A base in 16 bits: what trains takes 4 bytes, its copy 2, its gradient 4 and AdamW 8 more"
    whole, half = (
        weigh(replace(read_preset('lite-offline'), dtype=dtype), pictures=1, words=16, target_tokens=4)
        for dtype in ('float32', 'bfloat16')
    )
    assert whole['trained'] == half['trained'] and half['infer_bytes'] < whole['infer_bytes']
    saved = whole['train_bytes'] - half['train_bytes']
    assert 0 < saved < 2.6 * (whole['total'] - whole['trained'])
    with torch.device('meta'):
        layer = torch.nn.ModuleDict(
            dict(language=torch.nn.ModuleDict(dict(attn=torch.nn.Linear(3, 2).bfloat16())))
        )
    begin_training(layer)
    types = {p.dtype for p in layer.parameters()}
    assert types == {torch.float32} and layer.language.attn.weight.dtype == torch.bfloat16


def test_the_ledger_knows_a_case_that_can_be_counted():
    with Ledger() as ledger:
        x = torch.zeros(1000, 250, device='meta')
        y = x + 1
        del x
        z = y.view(250, 1000)
    assert ledger.now == 1e6 and ledger.most == 2e6 and z.shape == (250, 1000)


def test_the_table_has_a_line_for_each():
    assert [
        l.split()[0] for l in presets_table(['nano'], pictures=1, words=8, target_tokens=4).splitlines()[:2]
    ] == ['preset', 'nano']


def test_a_file_of_ones_own_and_what_is_no_preset(tmp_path):
    mine = tmp_path / 'mine.toml'
    with pytest.raises(BadInput, match='nano, lite'):
        read_preset('huge')
    with pytest.raises(BadInput, match='cannot be read'):
        read_preset(str(mine))
    mine.write_text('about = "x"\n[vit]\n[cnn]\n')
    with pytest.raises(BadInput, match=r'no section \[text\] and no \[model\]'):
        read_preset(str(mine))
    mine.write_text('a = = 1')
    with pytest.raises(BadInput, match='cannot be read'):
        read_preset(str(mine))


def changed(old, new, path, preset='lite-offline'):
    path.write_text(
        (files('earthgpt_lite') / 'assets' / 'presets' / f'{preset}.toml').read_text().replace(old, new)
    )
    return str(path)


@pytest.mark.parametrize(
    'old, new, match',
    [
        ('init_scale', 'init_scal', r"\[model\] has no 'init_scal': did you mean 'init_scale'"),
        ('vit_layers', 'vitlayers', "'vit_layers'"),
        ('dtype', 'dtyp', "has no 'dtyp': did you mean 'dtype'"),
        ('[weights]', '[weight]', "'weights'"),
    ],
)
def test_a_misspelt_key_is_refused_and_the_nearest_named(tmp_path, old, new, match):
    with pytest.raises(BadInput, match=match):
        read_preset(changed(old, new, tmp_path / 'mine.toml'))


@pytest.mark.parametrize('alone, other', [('vit', 'cnn'), ('cnn', 'vit')])
def test_a_preset_with_one_encoder_is_weighed(tmp_path, alone, other):
    path = changed('[model]\n', f'[model]\nvision_encoders = "{alone}"\n', tmp_path / 'mine.toml', 'nano')
    row, both = (
        weigh(path, pictures=1, words=16, target_tokens=4),
        weigh('nano', pictures=1, words=16, target_tokens=4),
    )
    assert (
        row['parameters'][other] == 0
        and row['parameters'][alone] == both['parameters'][alone]
        and sum(row['parameters'].values()) == row['total'] < both['total']
    )
    assert set(published(preset_config(path))) == {alone, 'text'} and 'mine.toml' in presets_table(
        [path], pictures=1, words=8, target_tokens=4
    )


def test_the_section_of_an_encoder_that_is_not_used_may_lack(tmp_path):
    text = (files('earthgpt_lite') / 'assets' / 'presets' / 'nano.toml').read_text()
    mine = tmp_path / 'mine.toml'
    mine.write_text(
        text[: text.index('[cnn]')]
        + text[text.index('[text]') :].replace('[model]', '[model]\nvision_encoders = "vit"')
    )
    assert weigh(str(mine), pictures=1, words=8, target_tokens=4)['parameters']['cnn'] == 0
    mine.write_text(
        mine.read_text().replace('"vit"', '"vti"').replace('[text]', '[cnn]\nmodel_type = "resnet"\n[text]')
    )
    with pytest.raises(
        BadInput, match="mine.toml: vision_encoders is 'vti': it should be one of both, vit, cnn"
    ):
        preset_config(str(mine))


@pytest.mark.parametrize(
    'line', ['num_hidden_layers = 1_000_000', 'num_labels = 1_000_000_000', 'image_size = nan']
)
def test_a_preset_of_a_stranger_is_bounded(tmp_path, line):
    text = (files('earthgpt_lite') / 'assets' / 'presets' / 'nano.toml').read_text()
    name = line.split()[0]
    kept = [row for row in text.splitlines() if not row.startswith(f'{name} ')]
    (tmp_path / 'mine.toml').write_text('\n'.join(kept).replace('[text]', f'[text]\n{line}'))
    with pytest.raises(BadInput, match=f'mine.toml: {name} is'):
        weigh(str(tmp_path / 'mine.toml'))


REAL = '''
import sys
from pathlib import Path
from earthgpt_lite.model.modeling import EarthGPT
from earthgpt_lite.model.memory import begin_training, run_once
from earthgpt_lite.model.presets import preset_config, read_preset
preset = read_preset(sys.argv[1])
model = EarthGPT(preset_config(preset)).eval()
model.language.set_attn_implementation(preset.attention)
begin_training(model, everything=not preset.weights)
run_once(model, sys.argv[2] == 'train')
peak = next(l for l in Path('/proc/self/status').read_text().splitlines() if l.startswith('VmHWM'))   # ru_maxrss of a child begins at its parent's
print(int(peak.split()[1]) * 1024)
'''


def measured(name, what):
    return int(
        subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', REAL, name, what],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()[-1]
    )


LARGE = [pytest.param(name, marks=pytest.mark.rare) for name in ('lite-offline', 'lite')]


@pytest.mark.skipif(not sys.platform.startswith('linux'), reason='the peak is read from /proc')
@pytest.mark.parametrize('name', [pytest.param('nano', marks=pytest.mark.slow), *LARGE])
def test_estimated_memory_is_within_a_fifth_of_what_a_process_takes(name):
    row = weigh(name)
    for what, estimate in (('train', row['train_bytes']), ('answer', row['infer_bytes'])):
        real = measured(name, what)
        print(
            f'{name} {what}: estimated {estimate / 1e6:,.0f} MB, measured {real / 1e6:,.0f} MB, ratio {estimate / real:.3f}'
        )
        assert 0.8 * real <= estimate <= 1.2 * real
