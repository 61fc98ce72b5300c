"Training: the schedule, a run that can be made again, and a run that was stopped goes on as if it had not been."

from copy import deepcopy

import pytest
import torch
from hypothesis import given, strategies as st

from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.loading import load
from earthgpt_lite.model.modeling import nano
from earthgpt_lite.train import callbacks
from earthgpt_lite.train import module as training
from earthgpt_lite.train.callbacks import Interrupted
from earthgpt_lite.train.dataset import InstructionBatches
from earthgpt_lite.train.fit import fit
from earthgpt_lite.train.optimizers import schedule
from earthgpt_lite.train.stages import STAGES, Stage, freeze_map


# schedule


def test_schedule_by_hand():
    assert (
        schedule(0, 1000) == pytest.approx(1 / 50, rel=1e-4)
        and schedule(24, None) == 0.5
        and schedule(500, None) == 1
    )
    assert schedule(500, 1000) == pytest.approx(0.5) and schedule(1000, 1000) == schedule(5000, 1000) == 0.02


@given(st.integers(1, 5000), st.integers(0, 6000))
def test_schedule_stays_between_and_falls_after_the_warm_up(total, step):
    assert 0 < schedule(step, total) <= 1
    if step >= 50:
        assert schedule(step + 1, total) <= schedule(step, total)


# fit

SHORT = dict(batch_size=2, device='cpu', precision='32-true', progress=False)


def fresh(tokenizer, seed=0):
    torch.manual_seed(seed)
    return nano(tokenizer)


@pytest.fixture(scope='module')
def whole(tiny, few, tmp_path_factory):
    "Six steps without interruption"
    model = fresh(tiny[1])
    return model, fit(model, tiny[1], few['train'], tmp_path_factory.mktemp('whole'), steps=6, **SHORT)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_what_a_fit_reports(whole, tiny, few):
    model, run = whole
    assert (
        run['steps'] == 6
        and run['images'] == 12
        and [s for s, _ in run['losses']] == list(range(6))
        and not model.training
    )
    batches = InstructionBatches(few['train'], tiny[1], model.config, 2)
    assert run['pairs'] == sum(int((batches.batch(k).input_ids == 3).sum()) for k in range(6))
    assert run['seconds'] > 0 and run['peak_memory_mb'] > 100 and run['precision'] == '32-true'


def test_the_same_seed_gives_the_same_run_and_another_does_not(whole, tiny, few, tmp_path):
    again, other = fresh(tiny[1]), fresh(tiny[1])
    assert fit(again, tiny[1], few['train'], tmp_path / 'a', steps=6, **SHORT)['losses'] == whole[1][
        'losses'
    ] and same(again, whole[0])
    assert (
        fit(other, tiny[1], few['train'], tmp_path / 'b', steps=1, seed=1, **SHORT)['losses'][0]
        != whole[1]['losses'][0]
    )


def interrupt(monkeypatch, at, error=KeyboardInterrupt):
    step = training.EarthGPTModule.training_step

    def stopping(self, batch, index):
        if self.global_step == at:
            raise error
        return step(self, batch, index)

    monkeypatch.setattr(training.EarthGPTModule, 'training_step', stopping)


@pytest.mark.parametrize('at', [1, 4])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(whole, tiny, few, tmp_path, monkeypatch, at):
    model = fresh(tiny[1])
    with monkeypatch.context() as patch:
        interrupt(patch, at)
        with pytest.raises(Interrupted, match=f'step {at}'):
            fit(model, tiny[1], few['train'], tmp_path, steps=6, **SHORT)
    assert (tmp_path / 'last.ckpt').is_file()
    kept, _ = load(tmp_path)
    assert same(kept, model) and not same(kept, fresh(tiny[1]))
    later = fresh(tiny[1], seed=9)  # another start: all must come from the checkpoint
    run = fit(later, tiny[1], few['train'], tmp_path, steps=6, resume=True, **SHORT)
    assert run['steps'] == 6 and run['losses'] == whole[1]['losses'] and same(later, whole[0])


def test_minutes_fix_the_steps_and_an_interrupted_run_keeps_them(tiny, few, tmp_path, monkeypatch):
    model = fresh(tiny[1])
    with monkeypatch.context() as patch:
        interrupt(patch, 17)
        with pytest.raises(Interrupted):
            fit(model, tiny[1], few['train'], tmp_path, minutes=0.2, **SHORT)
    kept = torch.load(tmp_path / 'last.ckpt', weights_only=False)['run']
    assert kept['total'] > 17 and len(kept['losses']) == 17
    # no limit by the clock
    monkeypatch.setattr(
        callbacks.TimeBudget,
        'on_train_start',
        lambda self, trainer, module: (setattr(self, 'start', float('inf')), setattr(self, 'timed_from', 0)),
    )
    monkeypatch.setattr(
        training.EarthGPTModule,
        'on_load_checkpoint',
        lambda self, c: (setattr(self, 'total', 20), setattr(self, 'losses', c['run']['losses'])),
    )
    assert fit(model, tiny[1], few['train'], tmp_path, minutes=0.2, resume=True, **SHORT)['steps'] == 20


def test_minutes_are_kept_to(tiny, few, tmp_path):
    run = fit(fresh(tiny[1]), tiny[1], few['train'], tmp_path, minutes=0.07, **SHORT)
    assert run['steps'] > 1 and run['seconds'] < 4.2 * 2.5


def test_another_error_is_not_an_interruption(tiny, few, tmp_path, monkeypatch):
    interrupt(monkeypatch, 1, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        fit(fresh(tiny[1]), tiny[1], few['train'], tmp_path, steps=3, **SHORT)
    assert not (tmp_path / 'last.ckpt').exists()


def test_a_loss_that_is_no_number_stops_the_run(tiny, few, tmp_path):
    model = fresh(tiny[1])
    with torch.no_grad():
        model.projector.map.weight[0, 0] = float('nan')
    with pytest.raises(BadInput, match='loss is nan at step 0: lower the learning rate'):
        fit(model, tiny[1], few['train'], tmp_path, steps=3, **SHORT)


@pytest.mark.parametrize('said', [dict(), dict(steps=2, minutes=1.0)])
def test_either_minutes_or_steps(tiny, few, tmp_path, said):
    with pytest.raises(BadInput, match='minutes or steps'):
        fit(tiny[0], tiny[1], few['train'], tmp_path, **said)


def test_nothing_to_resume(tiny, few, tmp_path):
    with pytest.raises(BadInput, match='nothing to resume.*last.ckpt'):
        fit(tiny[0], tiny[1], few['train'], tmp_path, steps=1, resume=True)


@pytest.mark.parametrize('strategy', ['deepspeed_stage_2', 'model_parallel', 'fsdp_cpu_offload'])
def test_a_strategy_that_is_not_built_is_refused(tiny, few, tmp_path, strategy):
    with pytest.raises(BadInput, match=f"strategy '{strategy}' is not built: choose auto, ddp, or fsdp"):
        fit(tiny[0], tiny[1], few['train'], tmp_path / 'no', steps=1, strategy=strategy)
    assert not (tmp_path / 'no').exists()


@pytest.mark.parametrize(
    'more,said',
    [
        (dict(compile=True), 'compile and strategy fsdp'),
        (dict(precision='16-mixed'), 'not in 16-mixed: say precision 32-true'),
    ],
)
def test_what_split_weights_do_not_go_with_is_refused(tiny, few, tmp_path, more, said):
    with pytest.raises(BadInput, match=said):
        fit(tiny[0], tiny[1], few['train'], tmp_path / 'no', steps=1, device='cpu', strategy='fsdp', **more)
    assert not (tmp_path / 'no').exists()


# stages


@pytest.mark.parametrize('trainable', [('head',), ()])
def test_a_stage_that_trains_nothing_is_refused(tiny, few, tmp_path, trainable):
    with pytest.raises(BadInput, match="'mine' trains nothing.*vision_tower, projector, language"):
        fit(deepcopy(tiny[0]), tiny[1], few['train'], tmp_path, Stage('mine', trainable), steps=1, **SHORT)


def test_a_stage_changes_only_what_it_trains(tiny, few, tmp_path):
    before, after = fresh(tiny[1]), fresh(tiny[1])
    fit(after, tiny[1], few['train'], tmp_path, STAGES['project'], steps=2, **SHORT)
    moved = {
        n.split('.')[0]
        for (n, p), q in zip(before.named_parameters(), after.parameters())
        if not torch.equal(p, q)
    }
    assert moved == {'projector'}


def test_decay_is_on_matrices_only_and_every_free_parameter_is_in_one_group(tiny):
    model = deepcopy(tiny[0])
    STAGES['scratch'].freeze(model)
    matrices, vectors = STAGES['scratch'].param_groups(model)
    assert matrices['weight_decay'] > 0 == vectors['weight_decay']
    assert all(p.dim() > 1 for p in matrices['params']) and all(p.dim() < 2 for p in vectors['params'])
    # but DINOv2's mask token
    assert (
        len(matrices['params'] + vectors['params'])
        == sum(p.requires_grad for p in model.parameters())
        == len(list(model.parameters())) - 1
    )


def test_the_map_of_what_is_frozen(tiny):
    model = deepcopy(tiny[0])
    STAGES['project'].freeze(model)
    rows = {name: rest for name, *rest in freeze_map(model)}
    assert sum(r[0] for r in rows.values()) == model.num_parameters() and [
        n for n, r in rows.items() if r[1]
    ] == ['projector']
    assert rows['projector'][2] == 8 * rows['projector'][0]
