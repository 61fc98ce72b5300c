"Rates, optimisers, late starts, open encoders, a loss of one's own: each equal to what it stands for."

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fixtures_research import Smoothed
from fixtures_training import examples, small, tokenizer as make_tokenizer
from transformers import SchedulerType, get_scheduler

from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.efficientnet import EfficientNetLiteConfig
from earthgpt_lite.model.loading import load
from earthgpt_lite.model.modeling import save
from earthgpt_lite.model.parts import part_of
from earthgpt_lite.train.callbacks import Interrupted
from earthgpt_lite.train.dataset import InstructionBatches
from earthgpt_lite.train.fit import fit
from earthgpt_lite.train.module import EarthGPTModule
from earthgpt_lite.train.optimizers import OPTIMIZERS, SCHEDULES, OptimizerOptions, ScheduleOptions, schedule
from earthgpt_lite.train.run_file import RunOptions, StageOptions
from earthgpt_lite.train.stages import STAGES, check_numbers, prepare_stage

SHORT = dict(batch_size=4, device='cpu', precision='32-true', progress=False, augment=False)
ENCODERS = replace(STAGES['full'], encoders=dict(vit='all', cnn='all'))


@pytest.fixture(scope='module')
def tok():
    return make_tokenizer()


def weight():
    return torch.nn.Parameter(torch.ones(2, 2))


def state(model):
    return {n: p.clone() for n, p in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[n], b[n]) for n in a)


def after(tok, steps=6, stage=STAGES['scratch'], folder='run', **changes):
    model = small(tok)
    run = fit(model, tok, examples(), folder, stage, steps=steps, **SHORT | changes)
    return state(model), run


def stop_at(monkeypatch, step):
    start = EarthGPTModule.on_train_batch_start

    def stopping(self, batch, index):
        start(self, batch, index)
        if self.global_step == step:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(EarthGPTModule, 'on_train_batch_start', stopping)


# schedules

OF_LIBRARY = [name for name in SCHEDULES if name != 'warm_cosine']
NEEDS = dict(
    warmup_stable_decay=dict(num_decay_steps=20),
    cosine_with_restarts=dict(num_cycles=2),
    polynomial=dict(power=2.0),
)
FLOORS = dict(
    cosine_with_min_lr='min_lr_rate',
    cosine_warmup_with_min_lr='min_lr_rate',
    warmup_stable_decay='min_lr_ratio',
)


def test_all_schedules_of_the_library_that_follow_the_step_are_known():
    assert {kind.value for kind in SchedulerType} - set(OF_LIBRARY) == {'reduce_lr_on_plateau', 'greedy'}


@pytest.mark.parametrize('name', OF_LIBRARY)
def test_a_schedule_by_name_is_the_librarys(name):
    options, floor = NEEDS.get(name), 0.1 if name in FLOORS else None
    factor = ScheduleOptions(name, warmup=0.1, floor=floor, options=options).factor(1e-3)
    optimizer = torch.optim.AdamW([weight()], lr=1e-3)
    given = dict(options or {}) | ({FLOORS[name]: 0.1} if floor else {})
    theirs = get_scheduler(name, optimizer, 10, 100, given)
    rates = []
    for _ in range(100):
        rates.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        theirs.step()
    assert rates == [1e-3 * factor(step, 100) for step in range(100)]


def test_the_default_is_what_it_was_to_the_bit():
    factor = ScheduleOptions().factor(1e-3)
    for total in (None, 30, 1000):
        assert [factor(s, total) for s in range(200)] == [schedule(s, total) for s in range(200)]
    assert schedule(0, 1000) == 1 / 50 * max(0.02, 1.0) and schedule(1000, 1000) == 0.02
    assert ScheduleOptions(floor=0.5, warmup=1).factor(1)(99, 100) == 0.5


def test_what_a_step_of_the_default_does_is_adamw():
    "As it was before it could be chosen: AdamW with the betas of EarthGPT."
    made = OptimizerOptions().build([weight()], 0.1)
    theirs = torch.optim.AdamW([weight()], lr=0.1, betas=(0.9, 0.95))
    assert type(made) is torch.optim.AdamW and made.defaults == theirs.defaults


@pytest.mark.parametrize(
    'given, total, said',
    [
        (dict(name='cosin'), 10, "no schedule named 'cosin'; is cosine"),
        (dict(name='os.system'), 10, "no schedule named 'os.system'"),
        (dict(name='linear', floor=0.1), 10, 'linear has no floor: take one of warm_cosine'),
        (dict(name='linear', options=dict(power=2)), 10, 'unexpected keyword.*mend schedule.options'),
        (dict(name='polynomial', options=dict(power='x')), 100, 'polynomial: unsupported operand'),
        (dict(options=dict(power=2)), 10, 'options are for the schedules of transformers'),
        (dict(warmup=0.1), None, 'share of the run, and with minutes nobody knows'),
    ],
)
def test_a_wrong_schedule_is_told(given, total, said):
    with pytest.raises(BadInput, match=said):
        ScheduleOptions(**given).factor(1e-3)(3, total)


# optimisers


@pytest.mark.parametrize('name', [n for n in OPTIMIZERS if '8bit' not in n])
def test_an_optimiser_by_name_is_torchs(name, tok):
    stage = STAGES['scratch']
    ours, theirs = small(tok), small(tok)
    options = OptimizerOptions(name)
    batch = InstructionBatches(examples(4), tok, ours.config, 4, augment=False).batch(0)
    for model in (ours, theirs):
        prepare_stage(model, stage)
    own = options.build(stage.param_groups(ours), stage.lr)
    betas = dict(betas=(0.9, 0.95)) if 'betas' in own.defaults else {}
    library = getattr(torch.optim, name)(stage.param_groups(theirs), lr=stage.lr, **betas)
    before = state(ours)
    for model, optimizer in ((ours, own), (theirs, library)):
        for _ in range(2):
            model(**vars(batch)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert same(state(ours), state(theirs)) and not same(state(ours), before)


@pytest.mark.parametrize(
    'given, said',
    [
        (dict(name='AdmaW'), "no optimiser named 'AdmaW'; is AdamW"),
        (dict(name='adamw'), 'is AdamW'),
        (dict(name='os.system'), "no optimiser named 'os.system'"),
        (dict(name='torch.optim.SGD'), 'no optimiser named'),
        (dict(name='LBFGS'), 'no optimiser named'),
        (dict(name='SGD', betas=[0.9, 0.99]), 'SGD has none'),
        (dict(name='SGD', options=dict(momentun=0.9)), 'is momentum'),
        (dict(name='SGD', options=dict(lr=0.9)), 'lr has a place of its own'),
        (dict(name='SGD', options=dict(momentum=-1.0)), 'Invalid momentum'),
        (dict(betas=[0.9, 1.0]), 'Invalid beta'),
    ],
)
def test_a_wrong_optimiser_is_told(given, said):
    with pytest.raises(BadInput, match=said):
        OptimizerOptions(**given).build([weight()], 0.1)


def test_eight_bits_ask_for_their_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, 'bitsandbytes', None)
    monkeypatch.setitem(sys.modules, 'bitsandbytes.optim', None)
    with pytest.raises(BadInput, match=r'AdamW8bit needs bitsandbytes.*pip install "earthgpt-lite\[8bit\]"'):
        OptimizerOptions('AdamW8bit').build([weight()], 0.1)


@pytest.mark.parametrize(
    'group, choices, said',
    [
        ('optimizer.', dict(clip=-1.0), 'optimizer.clip is -1'),
        ('optimizer.', dict(betas=[0.9, 2.0]), 'optimizer.betas is 2'),
        ('schedule.', dict(warmup=float('nan')), 'schedule.warmup is nan'),
        ('schedule.', dict(floor=2.0), 'schedule.floor is 2'),
        ('stage.', dict(starts=dict(vit=0.5)), 'stage.starts.vit is 0.5: give a whole number'),
    ],
)
def test_numbers_beyond_their_limits(group, choices, said):
    with pytest.raises(BadInput, match=said):
        check_numbers(choices, group)


class Halved(torch.optim.SGD):
    "One's own, in Python"

    def __init__(self, params, lr):
        super().__init__(params, lr=lr / 2)


def test_in_python_any_class_will_do_and_resume_knows_it(tok, tmp_path, monkeypatch):
    own = OptimizerOptions(Halved)
    whole, _ = after(tok, folder=tmp_path / 'whole', optimizer=own)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(Interrupted):
            after(tok, folder=tmp_path / 'cut', optimizer=own)
    with pytest.raises(BadInput, match='begun with optimizer'):
        after(tok, folder=tmp_path / 'cut', resume=True)
    again, _ = after(tok, folder=tmp_path / 'cut', optimizer=own, resume=True)
    assert same(whole, again)


@pytest.mark.parametrize(
    'change',
    [
        dict(optimizer=OptimizerOptions('SGD', options=dict(momentum=0.9))),
        dict(optimizer=OptimizerOptions(betas=[0.5, 0.9])),
        dict(optimizer=OptimizerOptions(clip=1e-3)),
        dict(schedule=ScheduleOptions('linear', warmup=2)),
        dict(schedule=ScheduleOptions(warmup=2)),
    ],
)
def test_each_setting_reaches_the_run(tok, tmp_path, change):
    plain, _ = after(tok, 3, folder=tmp_path / 'plain')
    other, _ = after(tok, 3, folder=tmp_path / 'other', **change)
    assert not same(plain, other)


def test_a_library_schedule_resumes_to_the_bit(tok, tmp_path, monkeypatch):
    own = dict(schedule=ScheduleOptions('cosine', warmup=2), optimizer=OptimizerOptions('Adafactor'))
    whole, _ = after(tok, folder=tmp_path / 'whole', **own)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(Interrupted):
            after(tok, folder=tmp_path / 'cut', **own)
    again, _ = after(tok, folder=tmp_path / 'cut', resume=True, **own)
    assert same(whole, again)


# encoders


def frozen(tok, **changes):
    return small(tok, train_encoders=False, **changes)


def free(model):
    return {n for n, p in model.named_parameters() if p.requires_grad}


def batch_of(tok, model):
    return InstructionBatches(examples(4), tok, model.config, 4, augment=False).batch(0)


def test_named_encoders_train_although_the_model_froze_them(tok):
    model = frozen(tok)
    prepare_stage(model, ENCODERS)
    assert {'vit', 'cnn'} < {part_of(n) for n in free(model)}
    model.train()(**vars(batch_of(tok, model))).loss.backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == free(model)
    prepare_stage(model, STAGES['full'])
    assert not {'vit', 'cnn'} & {part_of(n) for n in free(model)} and not model.vision_tower.vit.trained


def test_the_last_blocks_alone(tok):
    model = frozen(tok)
    prepare_stage(model, replace(STAGES['align'], encoders=dict(vit=1)))
    opened = {n for n in free(model) if part_of(n) == 'vit'}
    assert opened and all('.layer.1.' in n for n in opened) and 'cnn' not in {part_of(n) for n in free(model)}
    model.train()(**vars(batch_of(tok, model))).loss.backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == free(model)


def lite(tok):
    "A frozen EfficientNet, which has batch norms with statistics of its own."
    cnn = EfficientNetLiteConfig(
        embedding_size=8,
        depths=[1, 1],
        hidden_sizes=[8, 8],
        kernels=[3, 3],
        strides=[1, 2],
        expansions=[1, 2],
        out_indices=[1, 2],
    )
    model = frozen(tok, cnn_config=cnn)
    for name, buffer in model.named_buffers():
        if 'running' in name:
            buffer.uniform_(0.5, 1.5)
    return model


def test_batch_norms_never_train(tok, tmp_path):
    model = lite(tok)
    before = {n: w for n, w in state(model).items() if '.norm.' in n and '.cnn.cnn.' in n}
    fit(model, tok, examples(), tmp_path / 'run', ENCODERS, steps=3, **SHORT)
    now = state(model)
    assert before and same(before, now)
    conv = next(n for n in now if n.endswith('conv.weight'))
    assert not torch.equal(now[conv], lite(tok).state_dict()[conv])


def test_a_model_whose_encoders_trained_is_saved_and_loaded(tok, tmp_path):
    model = lite(tok)
    fit(model, tok, examples(), tmp_path / 'run', ENCODERS, steps=2, **SHORT)
    save(model, tok, tmp_path / 'model')
    assert same(state(model), state(load(tmp_path / 'model', 'cpu')[0]))


@pytest.mark.parametrize(
    'given, said',
    [
        (dict(encoders=dict(vit=9)), 'last 9 blocks are to train: dinov2 has 2'),
        (dict(encoders=dict(vit=0)), 'last 0 blocks'),
        (dict(encoders=dict(eye='all')), 'name vit or cnn'),
        (dict(encoders=dict(vit='some')), 'all or a number'),
    ],
)
def test_wrong_encoders_are_told(tok, given, said):
    with pytest.raises(BadInput, match=said):
        prepare_stage(frozen(tok), replace(STAGES['full'], **given))
    with pytest.raises(BadInput, match="no encoder 'cnn': this model has vit"):
        prepare_stage(frozen(tok, vision_encoders='vit'), replace(STAGES['full'], encoders=dict(cnn='all')))


def test_the_words_of_a_run_file():
    stage = StageOptions('full', encoders=2, starts=dict(vit=5), rates=dict(vit=1e-5)).stage()
    assert stage.encoders == dict(vit=2, cnn=2) and stage.starts == dict(vit=5)
    assert StageOptions('full', encoders='all').stage().encoders == dict(vit='all', cnn='all')
    assert StageOptions('full').stage() == STAGES['full'] and RunOptions().optimizer == OptimizerOptions()
    with pytest.raises(BadInput, match='stage.encoders is .some.: say all'):
        StageOptions('full', encoders='some').stage()
    with pytest.raises(BadInput, match="stage.starts: there is no part 'eye'"):
        StageOptions('full', starts=dict(eye=1)).stage()


def test_a_part_that_starts_late_is_training_that_begins_there(tok, tmp_path):
    "By hand: three steps with frozen encoders, then the encoders join with moments of their own from nothing."
    stage = replace(ENCODERS, starts=dict(vit=3, cnn=3), rates=dict(vit=3e-4))
    model = frozen(tok)
    fit(model, tok, examples(), tmp_path / 'run', stage, steps=6, **SHORT)

    hand = frozen(tok)
    batches = InstructionBatches(examples(), tok, hand.config, 4, augment=False)
    prepare_stage(hand, stage)
    late = {n for n in free(hand) if part_of(n) in ('vit', 'cnn')}
    rate = lambda n: 3e-4 if part_of(n) == 'vit' else stage.lr
    groups = [
        dict(params=[p], base=rate(n), weight_decay=stage.weight_decay if p.dim() > 1 else 0.0)
        for n, p in hand.named_parameters()
        if n in free(hand)
    ]
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95))
    hand.train()
    for step in range(6):
        for group in optimizer.param_groups:
            group['lr'] = group['base'] * schedule(step, 6)
        hand(**vars(batches.batch(step))).loss.backward()
        if step < 3:
            for n, p in hand.named_parameters():
                p.grad = None if n in late else p.grad
        torch.nn.utils.clip_grad_norm_([p for p in hand.parameters() if p.grad is not None], 1.0)
        optimizer.step()
        optimizer.zero_grad()
    found, wanted = state(model), state(hand)
    assert max((found[n] - wanted[n]).abs().max().item() for n in found) < 1e-6
    start = frozen(tok).state_dict()
    moved = [n for n in late if not torch.equal(found[n], start[n])]
    assert len(moved) > len(late) / 2, 'they never joined'


@pytest.mark.parametrize('stop', [2, 3, 4])
def test_a_late_start_resumes_to_the_bit(tok, tmp_path, monkeypatch, stop):
    stage = replace(ENCODERS, starts=dict(vit=3, cnn=3))

    def run(folder, **changes):
        model = frozen(tok)
        fit(model, tok, examples(), folder, stage, steps=6, **SHORT | changes)
        return state(model)

    whole = run(tmp_path / 'whole')
    with monkeypatch.context() as patch:
        stop_at(patch, stop)
        with pytest.raises(Interrupted):
            run(tmp_path / 'cut')
    assert same(whole, run(tmp_path / 'cut', resume=True))


# a loss of one's own


class NotSmoothed(Smoothed):
    smoothing = 0.0


def losses(run):
    return [loss for _, loss in run['losses']]


def test_a_loss_of_ones_own(tok, tmp_path):
    _, plain = after(tok, 4, folder=tmp_path / 'plain')
    _, zero = after(tok, 4, folder=tmp_path / 'zero', module=NotSmoothed)
    _, tenth = after(tok, 4, folder=tmp_path / 'tenth', module=Smoothed)
    assert losses(zero) == pytest.approx(losses(plain), rel=1e-5)
    assert losses(tenth) != pytest.approx(losses(plain), rel=5e-5)


def test_a_loss_of_ones_own_in_rounds_and_resumed(tok, tmp_path, monkeypatch):
    whole, one = after(tok, folder=tmp_path / 'one', module=Smoothed)
    _, two = after(tok, folder=tmp_path / 'two', module=Smoothed, accumulate=2)
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        with pytest.raises(Interrupted):
            after(tok, folder=tmp_path / 'cut', module=Smoothed)
    with pytest.raises(BadInput, match='begun with module Smoothed, not EarthGPTModule'):
        after(tok, folder=tmp_path / 'cut', resume=True)
    again, _ = after(tok, folder=tmp_path / 'cut', module=Smoothed, resume=True)
    assert same(whole, again)


def test_a_function_may_make_the_module(tok, tmp_path):
    made = []

    def make(*given):
        made.append(Smoothed(*given))
        return made[0]

    after(tok, 1, folder=tmp_path / 'run', module=make)
    assert made[0].global_step == 1


SCRIPT = Path(__file__).parents[1] / 'fixtures_research.py'


@pytest.mark.slow
def test_all_of_it_on_two_processes_equals_one(tmp_path):
    found = []
    for n in (1, 2):
        (tmp_path / str(n)).mkdir()
        env = os.environ | dict(OMP_NUM_THREADS='1', PYTHONPATH=str(SCRIPT.parents[1]))
        words = [sys.executable, str(SCRIPT), str(tmp_path / str(n)), str(n)]
        done = subprocess.run(words, env=env, timeout=500, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(torch.load(tmp_path / str(n) / 'result.pt'))
    (one, a), (two, b) = found
    assert [s for s, _ in two] == list(range(8))
    assert max(abs(x - y) for (_, x), (_, y) in zip(one, two)) < 1e-4
    assert max((a[n] - b[n]).abs().max() for n in a) < 1e-4 and one != two
