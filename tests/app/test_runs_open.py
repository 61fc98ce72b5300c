"What a run leaves is a model, whatever its stage: every command opens it, and it answers as at the end of its training."

import json
import shutil
from copy import deepcopy

import numpy as np
import pytest
import torch
from fixtures_app import raster, refused, run_cli
from fixtures_presets import save_parts, tiny_preset
from fixtures_training import small
from PIL import Image
from rasterio.transform import from_origin

from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.data.store import read_rows
from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.adapter_files import adapter_facts
from earthgpt_lite.model.adapters import added_adapters, merge_adapter
from earthgpt_lite.model.generation import generate_answers
from earthgpt_lite.model.loading import find_model, is_adapter, load, model_files
from earthgpt_lite.model.modeling import model_fingerprint, save
from earthgpt_lite.train import run as module
from earthgpt_lite.train.run import train
from earthgpt_lite.train.run_file import RunOptions, StageOptions

pytest.importorskip('peft')

STAGES = dict(
    scratch=StageOptions('scratch'),
    project=StageOptions('project'),
    align=StageOptions('align'),
    tune=StageOptions('tune', lr=0.05),
    tune_more=StageOptions('tune', lr=0.05, norms=True, projector=True, side='output'),
    lora=StageOptions('lora', lr=0.05, rank=2),
    full=StageOptions('full'),
    preset_tune=StageOptions('tune', lr=0.05),
    preset_lora=StageOptions('lora', lr=0.05, rank=2),
)
ADAPTERS = [name for name in STAGES if 'tune' in name or 'lora' in name]
QUESTION = 'what is it?'


def choice(folder, out, **options):
    given = dict(steps=4, batch_size=4, device='cpu', precision='32-true', progress=False)
    return RunOptions(data=str(folder / 'records.json'), out=str(folder / out), **given | options)


def trained(run):
    "(what was said, the model in memory at the end of the run)"
    said, models = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            module, 'nano', lambda tok: small(tok, image_size=64)
        )  # takes a hundredth of nano's time
        keep = module.save_artifact
        patch.setattr(
            module, 'save_artifact', lambda model, *more: models.append(model) or keep(model, *more)
        )
        train(run, say=said.append)
    return '\n'.join(said), models[0]


def run_in(folder):
    "Records with pictures, a scene, a preset, and a run of each stage in runs; (folder, the models in memory)"
    rng, rows = np.random.default_rng(0), []
    for i in range(9):
        pixels = (rng.integers(0, 60, (32, 40, 3)) + 60 * (i % 3)).astype('uint8')
        Image.fromarray(pixels).save(folder / f'{i}.png')
        said = [('human', QUESTION), ('gpt', 'water sand ice'.split()[i % 3])]
        turns = [{'from': who, 'value': text} for who, text in said]
        rows.append(dict(image=f'{i}.png', conversations=turns, split='train' if i < 7 else 'test'))
    (folder / 'records.json').write_text(json.dumps(rows))
    pixels = rng.integers(0, 255, (3, 64, 64)).astype('uint8')
    raster(folder / 'scene.tif', pixels, crs='EPSG:4326', transform=from_origin(10, 50, 0.01, 0.01))
    (folder / 'parts').mkdir()
    save_parts(folder / 'parts')
    preset, models = tiny_preset(folder, folder / 'parts'), {}
    for name, stage in STAGES.items():
        base = (
            'nano' if name == 'scratch' else preset if 'preset' in name else str(folder / 'runs' / 'scratch')
        )
        models[name] = trained(choice(folder, f'runs/{name}', model=base, stage=stage))[1].eval()
    return models


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('home')
    return folder, run_in(folder)


def pixels_of(folder, model, most=4):
    size = model.config.image_size
    pictures = [np.asarray(Image.open(folder / f'{i}.png').resize((size, size))) for i in range(most)]
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)


def words(folder, model, tokenizer):
    "(text, score) of an answer about each of some pictures"
    pixels = pixels_of(folder, model)
    return generate_answers(model, tokenizer, pixels, [(i, QUESTION) for i in range(len(pixels))], 8)


@pytest.mark.parametrize('name', STAGES)
def test_a_run_is_opened_as_it_was_at_the_end_of_its_training(runs, name):
    folder, models = runs
    run = folder / 'runs' / name
    opened, tokenizer = load(run, 'cpu')
    adapter = name in ADAPTERS
    assert is_adapter(find_model(run)) == adapter and bool(added_adapters(opened)) == adapter
    assert not opened.training
    want, got = models[name].state_dict(), opened.state_dict()
    assert list(want) == list(got) and all(torch.equal(got[n].float(), w.float()) for n, w in want.items())
    told, again = words(folder, models[name], tokenizer), words(folder, opened, tokenizer)
    assert [text for text, _ in told] == [text for text, _ in again]
    assert [s for _, s in again] == pytest.approx([s for _, s in told], rel=1e-5)


@pytest.mark.parametrize('name', ADAPTERS)
def test_merged_is_unmerged(runs, name):
    folder, _ = runs
    opened, tokenizer = load(folder / 'runs' / name, 'cpu')
    whole = deepcopy(opened)
    merge_adapter(whole)
    assert not added_adapters(whole) and whole.config._name_or_path == ''
    told, again = words(folder, opened, tokenizer), words(folder, whole, tokenizer)
    assert [text for text, _ in told] == [text for text, _ in again]
    assert [s for _, s in again] == pytest.approx([s for _, s in told], rel=1e-5)


def test_who_answers_is_another_with_an_adapter(runs):
    folder, _ = runs
    names = 'scratch', 'tune', 'tune_more', 'lora'
    assert len({model_fingerprint(*load(folder / 'runs' / name, 'cpu')) for name in names}) == 4


@pytest.mark.parametrize('name', STAGES)
def test_every_command_opens_it(runs, name, run_cli, tmp_path, monkeypatch):
    folder, models = runs
    run, picture, records = folder / 'runs' / name, folder / '1.png', folder / 'records.json'
    _, tokenizer = load(run, 'cpu')
    helper = Assistant.from_pretrained(run, 'cpu')
    want = Assistant(models[name], tokenizer).ask(picture, QUESTION)
    got = helper.ask(picture, QUESTION)
    assert got.text == want.text and got.score == pytest.approx(want.score, rel=1e-5)
    status, out, err = run_cli('ask', run, picture, QUESTION, '--json')
    assert status == 0 and json.loads(out)['text'] == want.text, err
    status, out, err = run_cli(
        'evaluate', run, records, '--out', tmp_path / 'e', '--device', 'cpu', '--no-baselines'
    )
    assert status == 0, err
    answered = {row['image']: row for row in read_rows(tmp_path / 'e' / 'answers.jsonl')}
    assert set(answered) == {'7.png', '8.png'}
    assert answered['7.png']['answer'] == helper.ask(folder / '7.png', QUESTION).text
    status, out, err = run_cli(
        'survey',
        run,
        folder / 'scene.tif',
        '--ask',
        QUESTION,
        '--out',
        tmp_path / 's.geojson',
        '--device',
        'cpu',
    )
    assert status == 0 and json.loads((tmp_path / 's.geojson').read_text())['features'], err
    status, out, err = run_cli('data', 'tokens', records, '--model', run)
    assert status == 0, err
    words = ['--data', records, '--steps', 1, '--device', 'cpu', '--progress', 'false', '--batch_size', 2]
    status, out, err = run_cli(
        'train', '--model', run, '--stage.name', 'align', '--out', tmp_path / 'align', *words
    )
    assert status == 0 and ('is folded in' in out) == (name in ADAPTERS), err
    assert added_adapters(load(tmp_path / 'align', 'cpu')[0]) == ''


@pytest.mark.parametrize('name', ADAPTERS)
def test_the_same_stage_goes_on_with_the_adapter(runs, name, tmp_path):
    folder, models = runs
    first = folder / 'runs' / name
    said, model = trained(choice(folder, tmp_path / 'on', model=str(first), stage=STAGES[name]))
    assert 'goes on with the adapter that the model brings' in said
    facts, before = adapter_facts(tmp_path / 'on' / 'adapter'), adapter_facts(first / 'adapter')
    assert (facts['base'], facts['fingerprint']) == (before['base'], before['fingerprint'])
    again = load(tmp_path / 'on', 'cpu')[0].state_dict()
    assert all(torch.equal(again[n], w) for n, w in model.state_dict().items())
    changed = [n for n, w in models[name].state_dict().items() if not torch.equal(again[n], w)]
    assert changed and any('tune_' in n or 'lora_' in n for n in changed)


def test_another_adapter_on_top_is_refused_or_both_are_folded_in(runs, tmp_path):
    folder, _ = runs
    tune, lora = str(folder / 'runs' / 'tune'), str(folder / 'runs' / 'lora')
    for model, stage, said in (
        (tune, STAGES['lora'], 'scale and bias, the scale on the input.*on top: say --merge_adapter true'),
        (lora, STAGES['tune'], 'LoRA of rank 2.*on top: say --merge_adapter true'),
        (lora, StageOptions('lora', rank=4), 'give the same stage.rank to go on with it, or say'),
        (tune, StageOptions('tune', side='output'), 'give the same stage.side to go on with it, or say'),
    ):
        with pytest.raises(BadInput, match=said):
            trained(choice(folder, tmp_path / 'x', model=model, stage=stage))
        assert not (tmp_path / 'x' / 'run.yaml').exists()
    options = dict(model=lora, stage=STAGES['tune'], merge_adapter=True)
    said, model = trained(choice(folder, tmp_path / 'both', **options))
    assert 'LoRA of rank 2, is folded in' in said
    opened, _ = load(tmp_path / 'both', 'cpu')
    assert added_adapters(opened) == '' and opened.language.config.attention_bias
    assert all(torch.equal(w, model.state_dict()[n]) for n, w in opened.state_dict().items())


def test_what_cannot_be_merged_is_refused_before_the_first_step(runs, tmp_path, monkeypatch):
    from transformers import Qwen2Config

    folder, _ = runs
    _, tok = load(folder / 'runs' / 'scratch', 'cpu')
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2)
    text = Qwen2Config(vocab_size=len(tok), num_key_value_heads=2, max_position_embeddings=512, **sizes)
    text.pad_token_id, text.bos_token_id, text.eos_token_id = tok.pad_token_id, None, tok.eos_token_id
    save(small(tok, text_config=text, image_size=64), tok, tmp_path / 'qwen')
    options = dict(model=str(tmp_path / 'qwen'), stage=STAGES['tune'])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'fit', None)
        with pytest.raises(
            BadInput, match='qwen2 has no place for a bias in o_proj.*leave merge_adapter away'
        ):
            trained(choice(folder, tmp_path / 'tune', merge_adapter=True, **options))
    assert not list((tmp_path / 'tune').glob('*'))
    trained(choice(folder, tmp_path / 'tune', **options))
    assert added_adapters(load(tmp_path / 'tune', 'cpu')[0]) == 'bias'
    with pytest.raises(BadInput, match='qwen2 has no place for a bias'):
        align = choice(folder, tmp_path / 'align', model=str(tmp_path / 'tune'), stage=STAGES['align'])
        trained(align)
    lora = choice(folder, tmp_path / 'lora', **options | dict(stage=STAGES['lora']), merge_adapter=True)
    trained(lora)
    assert added_adapters(load(tmp_path / 'lora', 'cpu')[0]) == ''


# ---- where the base lies


@pytest.fixture(scope='module')
def moved(runs, tmp_path_factory):
    "A base and a run that tuned it, made in a folder that is called otherwise now"
    folder, home = runs[0], tmp_path_factory.mktemp('moved')
    (home / 'old').mkdir()
    shutil.copytree(folder / 'runs' / 'scratch', home / 'old' / 'base')
    options = dict(model=str(home / 'old' / 'base'), stage=STAGES['tune'])
    trained(choice(folder, home / 'old' / 'tuned', **options))
    return (home / 'old').rename(home / 'new')


@pytest.fixture
def pair(moved, tmp_path):
    return shutil.copytree(moved, tmp_path / 'pair')


def test_two_folders_that_move_together_find_each_other(pair, tmp_path):
    model, _ = load(pair / 'tuned', 'cpu')
    assert added_adapters(model) == 'bias' and model.config._name_or_path == str(pair / 'base')
    assert pair / 'base' / 'model' / 'model.safetensors' in model_files(pair / 'tuned')
    (tmp_path / 'link').symlink_to(pair / 'tuned')
    assert load(tmp_path / 'link', 'cpu')


def test_a_relative_name_is_found_from_another_folder(runs, tmp_path, monkeypatch):
    folder, _ = runs
    shutil.copytree(folder / 'runs' / 'scratch', tmp_path / 'runs' / 'base')
    monkeypatch.chdir(tmp_path)
    trained(choice(folder, tmp_path / 'runs' / 'tuned', model='runs/base', stage=STAGES['tune']))
    assert adapter_facts('runs/tuned/adapter')['base'] == 'runs/base'
    assert load('runs/tuned', 'cpu')[0].config._name_or_path == 'runs/base'
    monkeypatch.chdir(folder)
    assert load(tmp_path / 'runs' / 'tuned', 'cpu')[0].config._name_or_path == str(tmp_path / 'runs' / 'base')


def test_a_base_that_is_gone_is_named_with_its_fingerprint(pair, run_cli, tmp_path, runs):
    folder, _ = runs
    mark = adapter_facts(pair / 'tuned' / 'adapter')['fingerprint']
    (pair / 'base').rename(tmp_path / 'elsewhere')
    picture, records, scene = folder / '1.png', folder / 'records.json', folder / 'scene.tif'
    cpu = ['--device', 'cpu']
    commands = [
        ['ask', pair / 'tuned', picture, QUESTION],
        ['chat', pair / 'tuned', picture],
        ['evaluate', pair / 'tuned', records, '--out', tmp_path / 'e', '--no-baselines', *cpu],
        ['survey', pair / 'tuned', scene, '--ask', QUESTION, '--out', tmp_path / 's.json', *cpu],
        ['data', 'tokens', records, '--model', pair / 'tuned'],
        ['train', '--model', pair / 'tuned', '--data', records, '--stage.name', 'tune', *cpu]
        + ['--steps', 1, '--out', tmp_path / 'on', '--progress', 'false'],
    ]
    for command in commands:
        refused(run_cli(*command), f'{pair / "tuned" / "adapter"} is an adapter', 'old/base')
        refused(run_cli(*command), f'fingerprint {mark}', 'no such folder', '--base')
    for command in commands:
        if command[0] != 'chat':
            status, out, err = run_cli(*command, '--base', tmp_path / 'elsewhere')
            assert status == 0, (command, err)
    assert load(tmp_path / 'on', 'cpu')[0].config._name_or_path == str(tmp_path / 'elsewhere')


def test_a_base_that_changed_is_told(pair, run_cli, runs):
    folder, _ = runs
    model, tokenizer = load(pair / 'base', 'cpu')
    with torch.no_grad():
        model.projector.norm.weight += 0.1
    save(model, tokenizer, pair / 'base' / 'model')
    mark = adapter_facts(pair / 'tuned' / 'adapter')['fingerprint']
    refused(
        run_cli('ask', pair / 'tuned', folder / '1.png', QUESTION), 'has been trained since', mark, '--base'
    )
    with pytest.raises(BadInput, match=f'{mark}, and .*base with [0-9a-f]{{16}} is another one'):
        load(pair / 'tuned', 'cpu')


def test_a_base_that_is_no_whole_model_is_told(pair, tmp_path):
    with pytest.raises(BadInput, match='tuned is an adapter itself.*merge_adapter: true'):
        load(pair / 'tuned', 'cpu', base=pair / 'tuned')
    with pytest.raises(BadInput, match='is a whole model, which needs no base'):
        load(pair / 'base', 'cpu', base='nano')
    with pytest.raises(BadInput, match='nano with [0-9a-f]{16} is another one'):
        load(pair / 'tuned', 'cpu', base='nano')


def test_a_model_of_the_package_is_a_base_by_its_name(tmp_path, monkeypatch):
    model, tokenizer = load('nano', 'cpu')
    folder = tmp_path / 'run' / 'adapter'
    from earthgpt_lite.model.adapter_files import save_adapter
    from earthgpt_lite.model.adapters import add_bias

    add_bias(model)
    model.requires_grad_(False)
    save_adapter(model, folder)
    facts = adapter_facts(folder)
    assert (facts['base'], facts['beside']) == ('nano', '')
    again, _ = load(folder.parent, 'cpu')
    assert all(torch.equal(w, again.state_dict()[n]) for n, w in model.state_dict().items())


def test_a_model_of_the_hub_is_a_base_by_its_name(pair, tmp_path, monkeypatch):
    from earthgpt_lite.model import loading
    from earthgpt_lite.model.adapter_files import save_adapter

    whole, asked = pair / 'base' / 'model', []
    monkeypatch.setattr(loading, 'download', lambda name: asked.append(name) or whole)
    model, _ = load(pair / 'tuned', 'cpu')
    save_adapter(model, tmp_path / 'a', base='owner/model')
    opened, _ = load(tmp_path / 'a', 'cpu')
    assert asked == ['owner/model'] and opened.config._name_or_path == 'owner/model'
    assert model_files(tmp_path / 'a') == [tmp_path / 'a' / 'adapter_model.safetensors']
    (tmp_path / 'b').mkdir()
    monkeypatch.setattr(loading, 'download', lambda name: pair / 'tuned' / 'adapter')
    assert added_adapters(load('owner/adapter', 'cpu', base=pair / 'base')[0]) == 'bias'


def test_what_is_drawn_anew_travels_with_the_adapter(runs):
    folder, models = runs
    opened, _ = load(folder / 'runs' / 'preset_tune', 'cpu')
    held = {n.split('.')[0] for n in opened.beyond_base}
    assert held == {'vision_tower', 'projector'} and opened.beyond_base == models['preset_tune'].beyond_base
    assert torch.equal(opened.projector.norm.weight, models['preset_tune'].projector.norm.weight)
    assert opened.config.rendering == models['preset_tune'].config.rendering is not None


def test_new_parts_that_stay_as_they_were_drawn_are_told(runs, tmp_path):
    folder, _ = runs
    options = dict(model=str(folder / 'mine.toml'), steps=1)
    said, _ = trained(choice(folder, tmp_path / 'a', stage=STAGES['tune'], **options))
    assert 'fusion and projector are new, and this stage leaves them as they were drawn' in said
    said, _ = trained(choice(folder, tmp_path / 'b', stage=STAGES['align'], **options))
    assert 'as they were drawn' not in said


def test_an_adapter_that_peft_made_of_our_model_opens(runs, tmp_path, run_cli):
    peft = pytest.importorskip('peft')
    folder, _ = runs
    base, tokenizer = load(folder / 'runs' / 'scratch', 'cpu')
    model = peft.get_peft_model(base, peft.LoraConfig(r=2, target_modules=['q_proj', 'v_proj']))
    with torch.no_grad():
        for n, p in model.named_parameters():
            p += 0.5 * torch.randn_like(p) * ('lora_B' in n)
    model.save_pretrained(tmp_path / 'theirs')
    opened, _ = load(tmp_path / 'theirs', 'cpu')
    assert words(folder, model.eval().base_model.model, tokenizer) == words(folder, opened, tokenizer)
    status, out, err = run_cli('ask', tmp_path / 'theirs', folder / '1.png', QUESTION, '--json')
    assert status == 0, err
    said = json.loads((tmp_path / 'theirs' / 'adapter_config.json').read_text())
    (tmp_path / 'theirs' / 'adapter_config.json').write_text(
        json.dumps(said | dict(base_model_name_or_path=None))
    )
    refused(run_cli('ask', tmp_path / 'theirs', folder / '1.png', QUESTION), 'does not say which', '--base')


@pytest.mark.parametrize('name', ['lora', 'preset_lora'])
def test_peft_reads_what_a_run_left(runs, name):
    peft = pytest.importorskip('peft')
    folder, models = runs
    base = folder / 'mine.toml' if 'preset' in name else folder / 'runs' / 'scratch'
    if 'preset' in name:
        from earthgpt_lite.model.loading import build_base

        base, tokenizer = build_base(str(base), say=lambda line: None)  # with parts drawn anew
    else:
        base, tokenizer = load(base, 'cpu')
    theirs = peft.PeftModel.from_pretrained(base, folder / 'runs' / name / 'adapter').base_model.model
    assert words(folder, theirs, tokenizer) == words(
        folder, load(folder / 'runs' / name, 'cpu')[0], tokenizer
    )


@pytest.mark.parametrize(
    'base', ['', '\0', 'x' * 5000, '../../../../..', '/dev/zero', 'a\x1b[31m/b', 'owner/model']
)
@pytest.mark.parametrize('field', ['base', 'beside'])
def test_an_odd_name_of_a_base_is_refused(pair, field, base, tmp_path, run_cli, runs):
    from safetensors import safe_open
    from safetensors.torch import save_file

    file = pair / 'tuned' / 'adapter' / 'adapter_model.safetensors'
    with safe_open(file, 'pt') as f:
        about = json.loads(f.metadata()['earthgpt_adapter'])
        tensors = {n: f.get_tensor(n) for n in f.keys()}
    about |= dict(base='gone', beside='gone') | {field: base}
    save_file(tensors, file, dict(earthgpt_adapter=json.dumps(about)))
    status, out, err = run_cli('ask', pair / 'tuned', runs[0] / '1.png', QUESTION)
    assert status == 2 and str(pair / 'tuned' / 'adapter') in err and '\x1b' not in err
    assert len(err.splitlines()) <= 1 and model_files(pair / 'tuned') == [file]
