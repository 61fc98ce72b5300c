"A run from a file: every key known, YAML equal to the command line equal to Python, data read when it is wanted."

import json
import os
import string
import time
from dataclasses import replace

import lightning as L
import numpy as np
import pytest
from lightning.pytorch.utilities import rank_zero_only
import yaml
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image

from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.loading import load
from earthgpt_lite.train import run as module
from earthgpt_lite.model.adapter_files import load_adapter
from earthgpt_lite.train.module import EarthGPTModule
from earthgpt_lite.train.examples import open_examples
from earthgpt_lite.train.run import make_train_parser, train, train_command
from earthgpt_lite.train.run_file import (
    GROUPS,
    RunOptions,
    StageOptions,
    known_keys,
    read_run,
    recipes,
    value_words,
)
from earthgpt_lite.train.stages import STAGES


@pytest.fixture(autouse=True)
def light(monkeypatch):
    "A nano that takes a hundredth of its time"
    from fixtures_training import small

    monkeypatch.setattr(module, 'nano', lambda tok: small(tok, image_size=64))


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(9):
        Image.fromarray((rng.integers(0, 60, (32, 40, 3)) + 60 * (i % 3)).astype('uint8')).save(
            tmp_path / f'{i}.png'
        )
        rows.append(
            {
                'image': f'{i}.png',
                'conversations': [
                    {'from': 'human', 'value': 'what is it?'},
                    {'from': 'gpt', 'value': 'water sand ice'.split()[i % 3]},
                ],
                'split': 'train' if i < 8 else 'test',
            }
        )
    (tmp_path / 'records.json').write_text(json.dumps(rows))
    return tmp_path


def choice(data, **k):
    return RunOptions(
        **dict(
            data=str(data / 'records.json'),
            out=str(data / 'run'),
            steps=3,
            batch_size=4,
            device='cpu',
            precision='32-true',
            progress=False,
        )
        | k
    )


def test_every_key_is_documented():
    page = make_train_parser().format_help().partition('\noptions:')[2]
    assert not set(page) - set(string.printable), 'a control character'
    for key in known_keys():
        if key in GROUPS:
            continue
        line = page.split(f'--{key} ')[1].split('\n  --')[0].partition('(type')[0]
        assert len(line.split()) > 3, f'{key} is not explained'


@pytest.mark.parametrize(
    'key,near',
    [
        ('batchsize', 'batch_size'),
        ('stage.wieght_decay', 'stage.weight_decay'),
        ('lr', 'stage.lr'),
        ('step', 'steps'),
        ('stage.nmae', 'stage.name'),
        ('stage.learning_rate', 'stage.lr'),
        ('epochs', 'steps'),
        ('optimizer.beta', 'optimizer.betas'),
        ('schedule.warm_up', 'schedule.warmup'),
        ('max_grad_norm', 'optimizer.clip'),
    ],
)
def test_a_misspelt_key_is_named_and_the_nearest_offered(data, key, near):
    with pytest.raises(BadInput, match=f"there is no '{key}'; is '{near}' meant"):
        train_command([f'--{key}', '1'])
    top, _, sub = key.rpartition('.')
    (data / 'run.yaml').write_text(yaml.safe_dump({'steps': 1, **({top: {sub: 1}} if top else {key: 1})}))
    with pytest.raises(BadInput, match=f"run.yaml: there is no '{key}'; is '{near}' meant"):
        train_command(['--config', str(data / 'run.yaml')])


@pytest.mark.parametrize(
    'words,said',
    [
        (['--steps', 'many'], 'steps'),
        (['--stage.name', 'tunes', '--steps', '1'], 'tunes'),
        (['--augment', 'maybe', '--steps', '1'], 'augment'),
        ([], 'minutes or --steps'),
        (['--steps', '1', '--minutes', '1'], 'minutes or --steps'),
        (['--config', 'nowhere.yaml'], 'nowhere.yaml: No such file'),
    ],
)
def test_wrong_values_are_refused(words, said):
    with pytest.raises(BadInput, match=said):
        train_command(words)


@pytest.mark.parametrize(
    'text,said', [('a: [1', 'is no YAML'), ('- 1', 'holds no keys'), ('stage: 3', 'stage is a group of keys')]
)
def test_wrong_files_are_refused(tmp_path, text, said):
    (tmp_path / 'run.yaml').write_text(text)
    with pytest.raises(BadInput, match=said):
        train_command(['--config', str(tmp_path / 'run.yaml'), '--steps', '1'])


def test_yaml_command_line_and_python_are_one(data, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(module, 'train', lambda run, resume, force: seen.append(run))
    want = choice(
        data,
        stage=StageOptions('tune', lr=2e-3, norms=True),
        sampling_weights=dict(optical=1.0),
        sequence_length=None,
    )
    from dataclasses import asdict

    (data / 'run.yaml').write_text(yaml.safe_dump(asdict(want)))
    train_command(['--config', str(data / 'run.yaml')])
    train_command(['--config', str(data / 'run.yaml'), '--stage.lr', '1e-5', '--steps=7'])
    words = [
        '--stage.name',
        'tune',
        '--stage.lr',
        '0.002',
        '--stage.norms',
        'true',
        '--sampling_weights.optical',
        '1',
        '--sequence_length',
        'null',
        '--progress',
        'false',
    ]
    for k in ('data', 'out', 'steps', 'batch_size', 'device', 'precision'):
        words += [f'--{k}', str(getattr(want, k))]
    train_command(words)
    assert seen[0] == want == seen[2] and seen[1] == choice(
        data,
        stage=StageOptions('tune', lr=1e-5, norms=True),
        sampling_weights=dict(optical=1.0),
        sequence_length=None,
        steps=7,
    )
    with pytest.raises(SystemExit):
        train_command(['--config', str(data / 'run.yaml'), '--print_config'])
    (data / 'again.yaml').write_text(capsys.readouterr().out)
    train_command(['--config', str(data / 'again.yaml')])
    assert seen[3] == want


def test_two_stages_one_after_the_other(data, capsys):
    record = train(choice(data))
    assert (
        record['made'] == 'model'
        and {'model', 'run.json', 'run.yaml', 'log'} <= set(os.listdir(data / 'run'))
        and not list((data / 'run').glob('*.ckpt'))
    )
    assert 'projector' in (page := capsys.readouterr().out) and 'trained' in page
    assert read_run(data / 'run' / 'run.yaml')['steps'] == 3
    second = train(
        choice(data, model=str(data / 'run'), out=str(data / 'two'), stage=StageOptions('tune')),
        say=lambda s: None,
    )
    base, _ = load(data / 'run', 'cpu')
    assert second['made'] == 'adapter' and load_adapter(base, data / 'two' / 'adapter')['stage'] == 'tune'
    merged = train(
        choice(
            data,
            model=str(data / 'run'),
            out=str(data / 'three'),
            stage=StageOptions('tune'),
            merge_adapter=True,
        ),
        say=lambda s: None,
    )
    assert merged['made'] == 'model' and load(data / 'three', 'cpu')


def test_only_the_first_process_writes(data, monkeypatch, capsys):
    "As SLURM counts: neither RANK nor LOCAL_RANK is set there"
    monkeypatch.setattr(rank_zero_only, 'rank', 1)
    for name in ('RANK', 'LOCAL_RANK'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, 'fit', lambda *a, **k: dict(steps=1, losses=[]))
    assert train(choice(data))['steps'] == 1
    assert not (data / 'run').exists() and not capsys.readouterr().out


def test_a_look_at_held_out_records_beside_the_run(data, monkeypatch):
    "Only records that say they are held out are looked at; the best model is kept; without a better one the run ends"
    rows = json.loads((data / 'records.json').read_text())
    (data / 'held.json').write_text(
        json.dumps([r | ({'split': 'validation'} if i in (1, 2) else {}) for i, r in enumerate(rows)])
    )
    said, held = [], replace(choice(data, validate_every=2, steps=5), data=str(data / 'held.json'))
    record = train(held, say=said.append)
    assert [s for s, _ in record['held_out']] == [2, 4, 5] and record['pairs'] == 20
    best = min(record['held_out'], key=lambda s: s[1])
    assert (
        f'held-out loss {best[1]:.3f} at step {best[0]}' in said[-1] and sum(' -> ' in x for x in said) == 6
    )
    model, tok = load(data / 'run' / 'best', 'cpu')
    shown = module.Validation(
        [e for e in open_examples(held.data, split='validation') if e.split == 'validation'], tok
    )
    alone = L.Trainer(accelerator='cpu', logger=False, enable_checkpointing=False, enable_progress_bar=False)
    assert shown.loss(EarthGPTModule(model, STAGES['scratch']), alone) == pytest.approx(best[1], abs=1e-5)
    losses = iter([2.0, 3.0, 4.0])
    monkeypatch.setattr(module.Validation, 'loss', lambda self, of, trainer: next(losses))
    assert (
        train(replace(held, out=str(data / 'b'), validate_every=1, patience=1, steps=30), say=said.append)[
            'steps'
        ]
        <= 3
    )
    with pytest.raises(BadInput, match="records.json holds no records of the split 'validation'"):
        train(choice(data, out=str(data / 'c'), validate_every=2))
    (data / 'unsplit.json').write_text(
        json.dumps([{k: v for k, v in r.items() if k != 'split'} for r in rows])
    )
    with pytest.raises(BadInput, match='no record says that it is of the split validation.*validate_every'):
        train(replace(held, data=str(data / 'unsplit.json'), out=str(data / 'c')))
    with pytest.raises(BadInput, match='patience counts looks.*validate_every'):
        train(choice(data, out=str(data / 'c'), patience=2))
    assert not (data / 'c').exists()


def test_the_second_run_in_a_folder_is_refused(data):
    train(choice(data, steps=1), say=lambda s: None)
    with pytest.raises(BadInput, match='holds a finished run'):
        train(choice(data, steps=1))
    (data / 'four').mkdir()
    (data / 'four' / 'last.ckpt').write_bytes(b'x')
    with pytest.raises(BadInput, match='interrupted run.*--resume'):
        train(choice(data, out=str(data / 'four')))


@pytest.mark.unix
def test_a_stopped_run_says_how_to_go_on(data, monkeypatch, capsys):
    import signal
    from earthgpt_lite.train.module import EarthGPTModule

    step = EarthGPTModule.training_step
    with monkeypatch.context() as patch:
        patch.setattr(
            EarthGPTModule,
            'training_step',
            lambda self, b, i: (
                os.kill(os.getpid(), signal.SIGTERM) if self.global_step == 1 else None,
                step(self, b, i),
            )[1],
        )
        words = [
            '--data',
            str(data / 'records.json'),
            '--out',
            str(data / 'run'),
            '--steps',
            '4',
            '--batch_size',
            '4',
            '--device',
            'cpu',
            '--progress',
            'false',
        ]
        assert train_command(words) == 130
    said = capsys.readouterr().out
    assert 'Go on: earthgpt-lite train --config' in said and '--resume' in said
    assert (
        train_command(['--config', str(data / 'run' / 'run.yaml'), '--resume']) == 0
        and json.loads((data / 'run' / 'run.json').read_text())['steps'] == 4
    )


def test_records_are_read_when_wanted(data):
    found = open_examples(str(data / 'records.json'), size=16)
    assert (
        len(found) == 8
        and found[3].image.shape == (16, 16, 3)
        and len(open_examples(str(data / 'records.json'), split='test')) == 1
    )
    (data / '3.png').unlink()
    with pytest.raises(BadInput, match='record 3 names an image that is not there: 3.png'):
        found[3].image
    with pytest.raises(BadInput, match='record 3 names an image that is not there'):
        open_examples(str(data / 'records.json'))
    for bad, said in ((data / 'no.json', 'no such file'), (data / 'records.json', 'no records of the split')):
        with pytest.raises(BadInput, match=said):
            open_examples(str(bad), split='x')


def test_a_picture_that_goes_in_the_middle_of_a_run_stops_it_by_name(data, monkeypatch):
    from earthgpt_lite.train.module import EarthGPTModule

    step = EarthGPTModule.training_step

    def losing(self, batch, index):
        if self.global_step == 1:
            [p.unlink() for p in data.glob('[0-9].png')]
        return step(self, batch, index)

    monkeypatch.setattr(EarthGPTModule, 'training_step', losing)
    with pytest.raises(
        BadInput, match=r'\d.png: .* not there.* 1.0%.*put them back or mend them, and resume'
    ):
        train(choice(data, checkpoint_every=1, steps=9), say=lambda s: None)
    assert (data / 'run' / 'last.ckpt').exists()


@pytest.mark.parametrize('name', recipes())
def test_recipes_can_be_read(name, monkeypatch):
    seen = []
    monkeypatch.setattr(module, 'train', lambda run, resume, force: seen.append(run))
    assert (
        train_command(['--config', name]) == 0
        and name.startswith(seen[0].out.removeprefix('runs/'))
        and seen[0].stage.name == name.removeprefix('nano').rpartition('-')[2]
        or (name, seen[0].stage.name) == ('nano', 'scratch')
        or (name.rpartition('-')[2], seen[0].stage.name) == ('mmrs', 'align')
    )
    from earthgpt_lite.model.presets import presets

    assert seen[0].model in presets() or seen[0].model.removeprefix('runs/') in recipes(), (
        'a recipe begins with a preset or with what another recipe made'
    )


def test_samples_of_one_source(few, monkeypatch):
    from earthgpt_lite.train import examples

    monkeypatch.setattr(examples, 'sample_examples', lambda split: few[split])
    found = open_examples('samples/global')
    assert found == [e for e in few['train'] if e.name.startswith('global/')] and 0 < len(found) < len(
        few['train']
    ) == len(open_examples('samples'))
    with pytest.raises(BadInput, match="samples/mars: the samples have no source 'mars'; they are global, "):
        open_examples('samples/mars')


def test_parts_at_their_own_rates(data):
    given = choice(data, stage=StageOptions('align', lr=1e-3, rates=dict(attention=2e-5)))
    assert given.stage.stage().rates == dict(attention=2e-5) and STAGES['align'].rates == {}
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'train', lambda run, resume, force: seen.append(run))
        train_command(
            ['--steps', '1', '--stage.name', 'align', '--stage.rates.attention', '2e-5', '--stage.lr', '1e-3']
        )
        (data / 'run.yaml').write_text(
            'steps: 1\nstage:\n  name: align\n  lr: 0.001\n  rates:\n    attention: 0.00002\n'
        )
        train_command(['--config', str(data / 'run.yaml')])
    assert seen[0].stage == seen[1].stage == given.stage
    with pytest.raises(BadInput, match="stage.rates: there is no part 'atention'; parts are vit, "):
        StageOptions('align', rates=dict(atention=1)).stage()


LAUGHS = 'a: &a [x, x]\n' + ''.join(
    f'  {b}: &{b} [{f"*{a}, " * 10}]\n' for a, b in zip('abcdefghi', 'bcdefghij')
)


@pytest.mark.parametrize(
    'text, said',
    [
        (f'choices:\n  {LAUGHS}steps: 1\n', r'line 3: \*a stands for another part'),
        ('choices: &a {x: *a}\nsteps: 1\n', r'line 1: \*a'),
        ('a: &a\n  <<: *a\nsteps: 1\n', r'line 2: \*a'),
        ('choices: "&a {x: *a}"\nsteps: 1\n', 'write it out'),
        ('stage: {rates: {vit: "&a [*a]"}}\nsteps: 1\n', 'write it out'),
        ('stage: {rates: {class_path: os.system}}\nsteps: 1\n', 'stage.rates should be a group of names with a number each'),
        ('stage: {name: zzz}\nsteps: 1\n', 'stage.name should be one of scratch, .*, not zzz'),
        ('seed: {a: 1}\nsteps: 1\n', "seed should be a whole number, not {'a': 1}"),
        (f'steps: "{"[" * 3000}"\n', 'steps should be a whole number or null'),
    ],
)  # fmt: skip
def test_a_value_that_is_another_is_told_in_words(text, said, tmp_path):
    (tmp_path / 'r.yaml').write_text(text, encoding='utf-8')
    start = time.process_time()
    with pytest.raises(BadInput, match=said) as error:
        train_command(['--config', str(tmp_path / 'r.yaml'), '--data', 'none.jsonl'])
    assert '<class' not in str(error.value) and time.process_time() - start < 10


def test_every_key_says_what_it_takes():
    assert all(value_words(key) for key in known_keys())


def test_a_folder_whose_name_is_no_text_is_told_before_the_work(monkeypatch):
    monkeypatch.setattr(module, 'open_examples', None)  # never reached
    with pytest.raises(BadInput, match='the name of the folder holds .* no UTF-8'):
        train(RunOptions(out='runs/r\udcff', steps=1))


def test_a_choice_that_follows_from_the_words_is_refused():
    for choice in ('first_coordinate', 'image_token_id'):
        with pytest.raises(BadInput, match=f'{choice} follows from the words'):
            module.open_model('nano', [], {choice: 5})


@pytest.mark.parametrize('key', ['model', 'data', 'out'])
@pytest.mark.parametrize('value', [None, ''])
def test_a_run_names_its_model_data_and_folder(key, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=f'{key} is (None|\'\'): name one'):
        train(replace(RunOptions(out='x', steps=1), **{key: value}))
    assert not list(tmp_path.iterdir())


def test_a_run_on_several_pictures_says_how_many_it_knows(data):
    turn = [
        {'from': 'human', 'value': 'was <image> now <image> what has changed?'},
        {'from': 'gpt', 'value': 'ice'},
    ]
    rows = [{'image': [f'{i}.png', f'{i + 1}.png'], 'conversations': turn} for i in range(7)]
    (data / 'pairs.json').write_text(json.dumps(rows))
    train(choice(data))
    assert load(data / 'run', 'cpu')[0].config.max_pictures == 1
    pairs = choice(data, model=str(data / 'run'), out=str(data / 'pairs'), stage=StageOptions('tune'))
    train(replace(pairs, data=str(data / 'pairs.json')))
    assert load(data / 'pairs', 'cpu')[0].config.max_pictures == 2, 'an adapter tells it, too'


def test_a_run_on_packed_records_takes_their_rendering(data):
    "Also a fresh nano, to which nobody said one; what it was trained with is saved with it"
    from earthgpt_lite.data.shards import PackOptions, pack
    from earthgpt_lite.model.config import rendering_of
    from earthgpt_lite.train.run import model_rendering

    of_nano = model_rendering('nano', fresh=False)
    pack(data / 'records.json', data / 'packed', options=PackOptions(size=64, rendering=of_nano))
    for name, stage in (('fresh', 'scratch'), ('tuned', 'align')):
        run = choice(data, out=str(data / name), stage=StageOptions(stage), steps=1)
        train(replace(run, data=str(data / 'packed')), say=lambda s: None)
        assert rendering_of(load(data / name, 'cpu')[0].config) == of_nano


def test_parts_beside_those_of_a_stage():
    from earthgpt_lite.train.run_file import StageOptions

    stage = StageOptions('lora', also=['fusion', 'projector'], rank=16).stage()
    assert stage.trainable == ('lora', 'fusion', 'projector') and stage.options['rank'] == 16
    assert StageOptions('lora').stage().trainable == ('lora',)
    with pytest.raises(BadInput, match="stage.also: there is no part 'eyes'; parts are vit, cnn, "):
        StageOptions('lora', also=['eyes']).stage()
