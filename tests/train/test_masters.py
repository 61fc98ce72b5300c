"What trains is float32, a checkpoint holds what trains, and what is given back is what was saved."

import shutil
import signal
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from fixtures_training import examples, small, tokenizer as make_tokenizer

from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.generation import generate_answers
from earthgpt_lite.model.loading import load
from earthgpt_lite.model.modeling import nano, save
from earthgpt_lite.model.parts import part_of
from earthgpt_lite.model.processor import to_pixel_values
from earthgpt_lite.train import callbacks, checkpoints, throughput
from earthgpt_lite.train import module as training
from earthgpt_lite.train.callbacks import CheckpointWriter, Interrupted
from earthgpt_lite.train.checkpoints import parse_interval
from earthgpt_lite.train.fit import fit
from earthgpt_lite.train.stages import STAGES, prepare_stage, tune_stage

SHORT = dict(batch_size=6, device='cpu', precision='bf16-mixed', progress=False)
SLOW = replace(STAGES['align'], lr=2e-5)


@pytest.fixture(scope='module')
def tok():
    return make_tokenizer()


def half(tok, seed=0):
    "A base in 16 bits, as `build` makes it: tables of positions keep their type"
    model = small(tok, seed)
    for p in model.parameters():
        p.data = p.data.bfloat16()
    return model


def types(model, trains):
    return {p.dtype for p in model.parameters() if p.requires_grad == trains}


@pytest.mark.parametrize('name', ['align', 'tune', 'lora', 'full', 'project'])
def test_what_trains_is_float32_and_what_is_frozen_keeps_its_type(tok, name):
    model = half(tok)
    before = {n: p.clone() for n, p in model.named_parameters()}
    prepare_stage(model, STAGES[name])
    assert types(model, True) == {torch.float32} and types(model, False) == {torch.bfloat16}
    assert model.language.lm_head.weight is model.language.model.embed_tokens.weight
    now = dict(model.named_parameters())
    assert all(torch.equal(now[n].bfloat16(), p) for n, p in before.items() if n in now)


def test_at_a_small_rate_all_of_the_attention_moves(tok, tmp_path):
    "In bfloat16 weights one number in twenty would"
    model = half(tok)
    before = {n: p.float() for n, p in model.named_parameters()}
    run = fit(model, tok, examples(), tmp_path, SLOW, steps=60, **SHORT)
    after = {n: p for n, p in model.named_parameters() if part_of(n) == 'attention'}
    moved = [(p != before[n]).float().mean() for n, p in after.items()]
    assert run['precision'] == 'bf16-mixed' and len(moved) == 8 and min(moved) >= 0.99
    rounded = [(p.bfloat16().float() != before[n]).float().mean() for n, p in after.items()]
    assert max(rounded) < 0.95, 'saved in bfloat16, some of it would be lost again'


def test_a_model_of_two_types_answers_as_it_was_trained_to(tok, tmp_path):
    "After training, outside of any trainer, in the type of its base"
    model = half(tok)
    fit(model, tok, examples(), tmp_path, STAGES['align'], steps=2, **SHORT)
    assert model.base_dtype == torch.bfloat16 and types(model.eval(), True) == {torch.float32}
    pixels = torch.stack([to_pixel_values(e.image) for e in examples(2)])
    asked = [(0, 'is there water?'), (1, 'where is it?')]
    answers = generate_answers(model, tok, pixels, asked, 4)
    whole = generate_answers(small(tok).float(), tok, pixels, asked, 4)
    assert len(answers) == len(whole) == 2
    model.float()
    assert model.base_dtype is None
    for (_, score), (_, exact) in zip(answers, generate_answers(model, tok, pixels, asked, 4)):
        assert score == pytest.approx(exact, abs=0.1)


def test_in_32_bits_the_frozen_base_is_cast_up_and_all_is_exact(tok, tmp_path):
    one, other = half(tok), half(tok).float()
    short = SHORT | dict(precision='32-true', steps=4)
    a = fit(one, tok, examples(), tmp_path / 'a', STAGES['align'], **short)['losses']
    b = fit(other, tok, examples(), tmp_path / 'b', STAGES['align'], **short)['losses']
    assert a == b and {p.dtype for p in one.parameters()} == {torch.float32}


@pytest.mark.parametrize('precision', ['bf16-true', '16-true', 'half', '32'])
def test_other_precisions_are_refused(tok, tmp_path, precision):
    with pytest.raises(
        BadInput, match='choose 32-true, bf16-mixed, 16-mixed; weights that train are float32'
    ):
        fit(small(tok), tok, examples(), tmp_path, steps=1, **SHORT | dict(precision=precision))


def test_no_optimiser_steps_on_16_bits(tok, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, 'prepare_stage', lambda model, stage: model.bfloat16())
    with pytest.raises(BadInput, match='bfloat16 and would train'):
        fit(half(tok), tok, examples(), tmp_path, SLOW, steps=1, **SHORT)


def test_emulated_bfloat16_does_not_count(monkeypatch):
    asked = []

    def supported(including_emulation=True):
        asked.append(including_emulation)
        return including_emulation

    monkeypatch.setattr(throughput.torch.cuda, 'is_bf16_supported', supported)
    assert throughput.pick_precision('cuda') == '16-mixed' and asked == [False]


def specs(model):
    return {n: (t.shape, t.dtype) for n, t in (*model.named_parameters(), *model.named_buffers())}


def test_what_is_loaded_is_what_was_saved(tok, tmp_path):
    "Learned in 32 bits and frozen in 16: to the bit, with or without numbers; all in 32 bits otherwise"
    model = half(tok)
    fit(model, tok, examples(), tmp_path / 'run', STAGES['align'], steps=2, **SHORT)
    save(model, tok, tmp_path / 'saved')
    kept = model.state_dict()
    again, _ = load(tmp_path / 'saved', 'cpu', dtype=None)
    assert specs(again) == specs(model) and again.base_dtype == torch.bfloat16
    assert all(torch.equal(v, kept[n]) for n, v in again.state_dict().items())
    empty, _ = load(tmp_path / 'saved', 'cpu', dtype=None, meta=True)
    assert specs(empty) == specs(model) and {t.device.type for t in empty.state_dict().values()} == {'meta'}
    wide, _ = load(tmp_path / 'saved', 'cpu', dtype='float32')
    assert all(torch.equal(v, kept[n].float()) for n, v in wide.named_parameters())
    assert {p.dtype for p in wide.parameters()} == {torch.float32}


# checkpoints of what trains


def stopped(model, tok, folder, monkeypatch, stage, steps=6, **options):
    step = training.EarthGPTModule.training_step

    def new(self, batch, index):
        if self.global_step == 3:
            signal.raise_signal(signal.SIGINT)
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(training.EarthGPTModule, 'training_step', new)
        with pytest.raises(Interrupted):
            fit(model, tok, examples(), folder, stage, steps=steps, **SHORT | options)
    return torch.load(folder / 'last.ckpt', weights_only=True)


@pytest.mark.parametrize('name', ['align', 'tune', 'lora'])
def test_a_checkpoint_holds_what_trains_and_knows_its_base(tok, tmp_path, monkeypatch, name):
    want = half(tok)
    run = fit(want, tok, examples(), tmp_path / 'a', STAGES[name], steps=6, **SHORT)
    model = half(tok)
    state = stopped(model, tok, tmp_path / 'b', monkeypatch, STAGES[name])
    trained = {f'model.{n}' for n, p in model.named_parameters() if p.requires_grad}
    assert state['state_dict'].keys() == trained and len(state['run']['base']) == 16
    assert {t.dtype for t in state['state_dict'].values()} == {torch.float32}
    later = half(tok)
    again = fit(later, tok, examples(), tmp_path / 'b', STAGES[name], steps=6, resume=True, **SHORT)
    assert again['losses'] == run['losses']
    assert all(torch.equal(v, want.state_dict()[n]) for n, v in later.state_dict().items())


def test_a_checkpoint_of_tune_on_nano_is_small(tok, tmp_path):
    fit(nano(tok), tok, examples(), tmp_path, tune_stage(), steps=1, **SHORT)
    assert (tmp_path / 'last.ckpt').stat().st_size < 1e6


@pytest.mark.parametrize('stage', [STAGES['align'], tune_stage()])
def test_another_base_under_a_checkpoint_is_told(tok, tmp_path, monkeypatch, stage):
    state = stopped(half(tok), tok, tmp_path, monkeypatch, stage)
    other = half(tok, 9)
    with pytest.raises(
        BadInput, match=rf'last.ckpt .* another base \({state["run"]["base"]}\).*as it was then'
    ):
        fit(other, tok, examples(), tmp_path, stage, steps=6, resume=True, **SHORT)
    told = fit(half(tok, 9), tok, examples(), tmp_path, stage, steps=6, resume=True, force=True, **SHORT)
    assert [step for step, _ in told['losses']] == list(range(6))


def test_another_stage_takes_the_weights_only_onto_the_same_base(tok, tmp_path, monkeypatch):
    stopped(half(tok), tok, tmp_path, monkeypatch, STAGES['align'])
    go = dict(steps=2, resume=True, force=True) | SHORT
    with pytest.raises(BadInput, match='another base'):
        fit(half(tok, 9), tok, examples(), tmp_path, STAGES['project'], **go)
    assert len(fit(half(tok), tok, examples(), tmp_path, STAGES['project'], **go)['losses']) == 2


@pytest.mark.parametrize('told', ['go on', 'stop'])
def test_too_little_room_is_asked_before_it_is_written(tok, tmp_path, monkeypatch, told):
    usage, said = shutil.disk_usage, []

    def room(path):
        full = said or (tmp_path / 'last.ckpt').exists()
        return SimpleNamespace(free=1000) if full else usage(path)

    monkeypatch.setattr(checkpoints.shutil, 'disk_usage', room)
    go = dict(steps=5, checkpoint_every=2, full_disk=told, say=said.append) | SHORT
    message = r'no checkpoint at step 4: .*last.ckpt needs \d+ MB, and 0 MB are free there; the last good one is kept'
    if told == 'stop':
        with pytest.raises(BadInput, match=message + '. Make room and resume'):
            fit(small(tok), tok, examples(), tmp_path, **go)
    else:
        fit(small(tok), tok, examples(), tmp_path, **go)
        assert 'and the run goes on' in said[0]
    assert torch.load(tmp_path / 'last.ckpt', weights_only=True)['global_step'] == 2
    assert sorted(p.name for p in tmp_path.glob('*ckpt*')) == ['last.ckpt']


def test_intervals():
    assert parse_interval(500) == (500, None)
    assert [parse_interval(t) for t in ('10m', '90s', ' 2m')] == [(None, 600), (None, 90), (None, 120)]
    for bad in (0, -1, True, '10', '1h', 'm', '0s', 1.5, None, '9999999m'):
        with pytest.raises(BadInput, match='a number of steps, such as 500, or a time, such as 10m or 90s'):
            parse_interval(bad)


def test_the_clock_runs_from_the_end_of_a_write(tmp_path, monkeypatch):
    "A write that takes longer than the interval leaves as much time to learn"
    clock, written = SimpleNamespace(now=0.0), []

    def save_checkpoint(path):
        written.append(clock.now)
        clock.now += 100

    monkeypatch.setattr(callbacks.time, 'monotonic', lambda: clock.now)
    trainer = SimpleNamespace(global_step=0, world_size=1, save_checkpoint=save_checkpoint)
    module, writer = SimpleNamespace(total=10**6), CheckpointWriter(tmp_path, None, '60s')
    writer.on_train_start(trainer, module)
    try:
        while clock.now < 400:
            clock.now += 1
            trainer.global_step += 1
            writer.on_train_batch_start(trainer, module, None, 0)
    finally:
        writer.teardown(trainer, module, 'fit')
    assert written == [61, 222, 383]
