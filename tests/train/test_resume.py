"A run that was killed at any moment goes on as if it had not been; what would go on as another run is refused."

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fixtures_training import examples, small, tokenizer as make_tokenizer

from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.loading import load
from earthgpt_lite.model.modeling import EarthGPT, save
from earthgpt_lite.train import callbacks
from earthgpt_lite.train import fit as fitting
from earthgpt_lite.train import module as training
from earthgpt_lite.model.adapter_files import load_adapter
from earthgpt_lite.train.callbacks import Interrupted
from earthgpt_lite.train.dataset import InstructionBatches
from earthgpt_lite.train.fit import fit
from earthgpt_lite.train.optimizers import ScheduleOptions
from earthgpt_lite.train.stages import STAGES, tune_stage

SCRIPT = Path(__file__).parents[1] / 'fixtures_runs.py'
SHORT = dict(batch_size=6, device='cpu', precision='32-true', progress=False)


@pytest.fixture(scope='module')
def tok():
    return make_tokenizer()


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def script(*words, timeout=500):
    env = os.environ | dict(OMP_NUM_THREADS='1', PYTHONPATH=str(SCRIPT.parent.parent))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, words)],
        env=env,
        timeout=timeout,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def killed(folder, seed, points):
    rows = [json.loads(l) for l in script('kill', folder, seed, points).splitlines() if l.startswith('{')]
    assert len(rows) == points
    for r in rows:
        assert r['status'] in (-signal.SIGKILL, 0) and (r['place'] == 'any' or r['status']), r
        assert r['again'] == 0 and r['losses'] and r['weights'], r
        assert not r['kept'] or 'last.ckpt' in r['kept'], r
    return rows


@pytest.mark.unix
def test_killed_at_a_random_moment(tmp_path):
    killed(tmp_path, 1, 1)


@pytest.mark.unix
@pytest.mark.slow
def test_killed_at_ten_random_moments(tmp_path):
    "With 0, 1 and 2 workers, and going on with another number"
    rows = killed(tmp_path, 2, 10)
    assert len({r['place'] for r in rows}) > 2 and sum(r['at'] is not None for r in rows) > 4


# stopped, not killed


@pytest.fixture(scope='module')
def whole(tok, tmp_path_factory):
    model = small(tok)
    return model, fit(model, tok, examples(), tmp_path_factory.mktemp('whole'), steps=8, **SHORT)


def at_step(monkeypatch, at, do):
    step = training.EarthGPTModule.training_step

    def new(self, batch, index):
        if self.global_step == at:
            do()
        return step(self, batch, index)

    monkeypatch.setattr(training.EarthGPTModule, 'training_step', new)


@pytest.mark.parametrize('number', [pytest.param(signal.SIGTERM, marks=pytest.mark.unix), signal.SIGINT])
def test_a_signal_writes_a_checkpoint_at_a_whole_step(tok, whole, tmp_path, monkeypatch, number):
    "The signal comes in the middle of a step; that step is finished, and kept"
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: signal.raise_signal(number))
        with pytest.raises(Interrupted, match='step 4'):
            fit(small(tok), tok, examples(), tmp_path, steps=8, **SHORT)
    assert signal.getsignal(number) == before
    assert (
        torch.load(tmp_path / 'last.ckpt', weights_only=True)['global_step'] == 4
        and (tmp_path / 'model' / 'config.json').exists()
    )
    later = small(tok, 9)
    run = fit(later, tok, examples(), tmp_path, steps=8, resume=True, **SHORT)
    assert run['losses'] == whole[1]['losses'] and same(later, whole[0])


def test_ctrl_c_twice_stops_at_once_and_keeps_the_last_checkpoint(tok, tmp_path, monkeypatch):
    at_step(monkeypatch, 5, lambda: [signal.raise_signal(signal.SIGINT) for _ in range(2)])
    with pytest.raises(Interrupted):
        fit(small(tok), tok, examples(), tmp_path, steps=8, checkpoint_every=2, **SHORT)
    assert torch.load(tmp_path / 'last.ckpt', weights_only=True)['global_step'] == 4


@pytest.mark.parametrize('accumulate', [2, 3])
def test_accumulated_rounds_resume_at_a_whole_step(tok, tmp_path, monkeypatch, accumulate):
    "Stopped between two rounds of a step: the step is done again from its beginning"
    short, want, calls = SHORT | dict(accumulate=accumulate, steps=6), small(tok), []
    run = fit(want, tok, examples(), tmp_path / 'a', **short)

    def stop():
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        at_step(patch, 3, stop)
        with pytest.raises(Interrupted):
            fit(small(tok), tok, examples(), tmp_path / 'b', **short)
    later = small(tok, 9)
    assert fit(later, tok, examples(), tmp_path / 'b', resume=True, **short)['losses'] == run[
        'losses'
    ] and same(later, want)


def test_an_adapter_stage_resumes_and_leaves_its_base_alone(tok, tmp_path, monkeypatch):
    want, stage = small(tok), tune_stage()
    run = fit(want, tok, examples(), tmp_path / 'a', stage, steps=6, **SHORT)
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted):
            fit(small(tok), tok, examples(), tmp_path / 'b', stage, steps=6, **SHORT)
    load_adapter(small(tok), tmp_path / 'b' / 'adapter')  # what was learned until then, on its base
    later = small(tok)
    assert fit(later, tok, examples(), tmp_path / 'b', stage, steps=6, resume=True, **SHORT)['losses'] == run[
        'losses'
    ] and same(later, want)
    base = small(tok).state_dict()
    assert all(torch.equal(v, base[n]) for n, v in want.state_dict().items() if n in base) and not same(
        want, fit_nothing(tok)
    )


def fit_nothing(tok):
    from earthgpt_lite.train.stages import prepare_stage

    model = small(tok)
    prepare_stage(model, tune_stage())
    return model


def test_two_checkpoints_are_kept_while_it_runs_and_one_at_its_end(tok, tmp_path, monkeypatch):
    seen = []
    with monkeypatch.context() as patch:
        at_step(
            patch,
            7,
            lambda: seen.extend(
                (p.name, torch.load(p, weights_only=True)['global_step'])
                for p in sorted(tmp_path.glob('*ckpt*'))
            ),
        )
        fit(small(tok), tok, examples(), tmp_path, steps=8, checkpoint_every=2, **SHORT)
    assert seen == [('before.ckpt', 4), ('last.ckpt', 6)] and [p.name for p in tmp_path.glob('*ckpt*')] == [
        'last.ckpt'
    ]


def test_a_damaged_checkpoint_falls_back_to_the_one_before(tok, whole, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 7, lambda: (_ for _ in ()).throw(ZeroDivisionError))
        with pytest.raises(ZeroDivisionError):
            fit(small(tok), tok, examples(), tmp_path, steps=8, checkpoint_every=2, **SHORT)
    data = (tmp_path / 'last.ckpt').read_bytes()
    (tmp_path / 'last.ckpt').write_bytes(data[: len(data) // 2])
    later = small(tok, 9)
    assert fit(later, tok, examples(), tmp_path, steps=8, resume=True, **SHORT)['losses'] == whole[1][
        'losses'
    ] and same(later, whole[0])
    for p in tmp_path.glob('*.ckpt'):
        p.write_bytes(b'')
    with pytest.raises(BadInput, match='nothing to resume.*damaged'):
        fit(small(tok), tok, examples(), tmp_path, steps=8, resume=True, **SHORT)


def test_a_finished_run_resumes_to_itself(tok, whole, tmp_path):
    fit(small(tok), tok, examples(), tmp_path, steps=8, **SHORT)
    later = small(tok, 9)
    assert fit(later, tok, examples(), tmp_path, steps=8, resume=True, **SHORT)['losses'] == whole[1][
        'losses'
    ] and same(later, whole[0])


def test_a_varied_run_that_was_stopped_is_the_same(tok, tmp_path, monkeypatch):
    ways = dict(augment=['turn', 'jitter', 'words'], steps=5)
    want = small(tok)
    losses = fit(want, tok, examples(), tmp_path / 'a', **SHORT | ways)['losses']
    with monkeypatch.context() as patch:
        at_step(patch, 2, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted):
            fit(small(tok), tok, examples(), tmp_path / 'b', **SHORT | ways)
    later = small(tok, 9)
    again = fit(later, tok, examples(), tmp_path / 'b', resume=True, **SHORT | ways)
    assert again['losses'] == losses and same(later, want)


# another run


@pytest.mark.parametrize(
    'change,words',
    [
        (dict(stage=STAGES['project']), r"stage scratch \(lr 0.001.*not project"),
        (dict(stage=replace(STAGES['scratch'], lr=1e-4)), 'lr 0.001.*lr 0.0001'),
        (dict(examples=examples(19)), 'data .*, not '),
        (dict(seed=5), 'seed 0, not 5'),
        (dict(batch_size=5), 'batch_size 6, not 5'),
        (dict(augment=False), 'augment True, not False'),
        (dict(augment=['turn', 'jitter']), r"augment True, not \['turn', 'jitter'\]"),
        (dict(steps=9), 'total 8, not 9'),
        (dict(sampling_weights=dict(optical=1)), 'sampling_weights None'),
    ],
)
def test_another_run_is_refused_unless_told(tok, tmp_path_factory, change, words):
    folder = kept_run(tok, tmp_path_factory)
    call = dict(examples=examples(), steps=8, resume=True) | SHORT | change
    with pytest.raises(BadInput, match=words + '.*force'):
        fit(small(tok), tok, folder=folder, **call)


_KEPT = []


def kept_run(tok, factory):
    if not _KEPT:
        folder = factory.mktemp('kept')
        with pytest.MonkeyPatch.context() as patch:
            at_step(patch, 3, lambda: signal.raise_signal(signal.SIGINT))
            with pytest.raises(Interrupted):
                fit(small(tok), tok, examples(), folder, steps=8, **SHORT)
        _KEPT.append(folder)
    return _KEPT[0]


def test_told_it_goes_on_with_other_data(tok, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted):
            fit(small(tok), tok, examples(), tmp_path, steps=8, **SHORT)
    run = fit(small(tok, 9), tok, examples(19), tmp_path, steps=8, resume=True, force=True, **SHORT)
    assert [s for s, _ in run['losses']] == list(range(8))


def test_told_more_steps_it_follows_the_longer_schedule(tok, tmp_path, monkeypatch):
    rates, said = {}, []
    monkeypatch.setattr(ScheduleOptions, 'factor', lambda self, lr: lambda step, total: step / (total or 1))
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted):
            fit(small(tok), tok, examples(), tmp_path, steps=5, **SHORT)
    step = training.EarthGPTModule.training_step

    def noting(self, batch, index):
        rates[self.global_step] = self.optimizers().param_groups[0]['lr']
        return step(self, batch, index)

    monkeypatch.setattr(training.EarthGPTModule, 'training_step', noting)
    run = fit(
        small(tok, 9), tok, examples(), tmp_path, steps=10, resume=True, force=True, say=said.append, **SHORT
    )
    assert run['steps'] == 10 and rates[6] == pytest.approx(6e-4) and rates[9] == pytest.approx(9e-4)
    assert said == [
        '10 steps instead of 5: from step 4 on the learning rate follows the schedule of 10, 40% of its full height and not 80%'
    ]


def test_told_another_stage_takes_the_weights_and_begins_anew(tok, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        at_step(patch, 3, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted):
            fit(small(tok), tok, examples(), tmp_path, steps=8, **SHORT)
    weights = torch.load(tmp_path / 'last.ckpt', weights_only=True)['state_dict']
    model = small(tok, 9)
    run = fit(model, tok, examples(), tmp_path, STAGES['project'], steps=2, resume=True, force=True, **SHORT)
    assert [s for s, _ in run['losses']] == [0, 1]
    params = {f'model.{n}': p for n, p in model.named_parameters()}
    moved = {n.split('.')[1] for n, w in weights.items() if not torch.equal(params[n], w)}
    assert moved == {'projector'}


def test_a_folder_holds_one_run_at_a_time(tok, tmp_path, monkeypatch):
    said = []

    def second():
        with pytest.raises(BadInput, match='another run is going on') as e:
            fit(small(tok), tok, examples(), tmp_path, steps=1, **SHORT)
        said.append(str(e.value))

    at_step(monkeypatch, 1, lambda: said or second())
    fit(small(tok), tok, examples(), tmp_path, steps=2, **SHORT)
    assert str(tmp_path) in said[0]
    fit(small(tok), tok, examples(), tmp_path, steps=1, **SHORT)  # free again


# what stops a run, and what does not


class limit:
    "Files of this process may not grow beyond some bytes: a disk that is full"

    def __init__(self, size):
        self.size = size

    def __enter__(self):
        import resource

        self.old = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.old[1]))

    def __exit__(self, *e):
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, self.old)


@pytest.mark.unix
@pytest.mark.parametrize('told', ['go on', 'stop'])
def test_a_full_disk_keeps_the_last_good_checkpoint(tok, whole, tmp_path, monkeypatch, told):
    said, save = [], fitting.AtomicCheckpointIO.save_checkpoint

    def full(self, checkpoint, path, storage_options=None):
        if checkpoint['global_step'] in (4, 8):
            with limit(20_000):
                return save(self, checkpoint, path)
        return save(self, checkpoint, path)

    monkeypatch.setattr(fitting.AtomicCheckpointIO, 'save_checkpoint', full)
    model = small(tok)

    def go():
        return fit(
            model,
            tok,
            examples(),
            tmp_path,
            steps=8,
            checkpoint_every=2,
            full_disk=told,
            say=said.append,
            **SHORT,
        )

    if told == 'stop':
        with pytest.raises(
            BadInput,
            match='no checkpoint at step 4: .*last.ckpt cannot be written: File too large; the last good one is kept. Make room and resume',
        ):
            go()
    else:
        assert go()['losses'] == whole[1]['losses'] and [
            f'at step {k}' in s for s, k in zip(said, (4, 8))
        ] == [True, True]
    kept = torch.load(tmp_path / 'last.ckpt', weights_only=True)
    assert kept['global_step'] == (2 if told == 'stop' else 6) and not list(tmp_path.glob('*.part'))


def test_a_loss_that_is_no_number_names_the_record_and_keeps_the_checkpoint(tok, tmp_path, monkeypatch):
    data = examples()
    data[7] = replace(data[7], image=data[7].image * 0 + 255)
    forward = EarthGPT.image_features

    def sick(self, pixels):
        out = forward(self, pixels)
        # no gradient comes back from there
        return out.masked_fill((pixels == 255).flatten(1).all(1)[:, None, None], float('nan'))

    monkeypatch.setattr(EarthGPT, 'image_features', sick)
    batches = InstructionBatches(data, tok, small(tok).config, 3)
    step = next(k for k in range(9) if 7 in batches.indices(k))
    with pytest.raises(BadInput, match=f'loss is nan at step {step}, in place/7: lower'):
        fit(small(tok), tok, data, tmp_path, steps=9, checkpoint_every=1, **SHORT | dict(batch_size=3))
    kept = (
        torch.load(tmp_path / 'last.ckpt', weights_only=True) if step else dict(global_step=0, state_dict={})
    )
    assert kept['global_step'] == step and all(torch.isfinite(v).all() for v in kept['state_dict'].values())


def test_a_record_that_cannot_be_learned_from_stops_the_run_by_name(tok, tmp_path):
    data = examples()
    data[7] = replace(data[7], turns=[replace(data[7].turns[0], answer='  ')])
    with pytest.raises(BadInput, match='place/7.*nothing to learn'):
        fit(small(tok), tok, data, tmp_path, steps=9, checkpoint_every=1, **SHORT | dict(batch_size=3))
    narrow = small(tok)
    narrow.config.text_config.vocab_size = 300  # the words know more than the model
    with pytest.raises(BadInput, match=r'place/\d+: token 3\d\d .* beyond the 300 words'):
        fit(narrow, tok, examples(), tmp_path / 'b', steps=1, **SHORT)
    short = small(tok)
    short.config.text_config.max_position_embeddings = 20
    with pytest.raises(BadInput, match=r'place/\d+: \d+ tokens'):
        fit(short, tok, examples(), tmp_path / 'c', steps=1, **SHORT)


# several parts, several processes


@pytest.mark.parametrize('accumulate', [2, 3, 6])
def test_rounds_equal_one_step(tok, tmp_path, accumulate):
    one, many = small(tok), small(tok)
    a = fit(one, tok, examples(), tmp_path / 'a', steps=6, **SHORT)['losses']
    b = fit(many, tok, examples(), tmp_path / 'b', steps=6, accumulate=accumulate, **SHORT)['losses']
    assert max(abs(x - y) for (_, x), (_, y) in zip(a, b)) < 1e-4 and len(a) == len(b)
    assert max((p - q).abs().max() for p, q in zip(one.parameters(), many.parameters())) < 1e-4


def test_more_parts_than_pictures_are_refused(tok, tmp_path):
    with pytest.raises(BadInput, match='6 pictures in a step cannot be dealt to 7'):
        fit(small(tok), tok, examples(), tmp_path, steps=1, accumulate=7, **SHORT)
    with pytest.raises(BadInput, match='3 examples in all cannot be dealt to 4'):
        fit(small(tok), tok, examples(3), tmp_path, steps=1, devices=4, **SHORT)


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    for n in (1, 2):
        (tmp_path / str(n)).mkdir()
        script('ranks', tmp_path / str(n), n, 20)
    (one, a), (two, b) = (torch.load(tmp_path / str(n) / 'result.pt') for n in (1, 2))
    assert [s for s, _ in two] == list(range(20)) and max(
        abs(x - y) for (_, x), (_, y) in zip(one, two)
    ) < 1e-4
    assert max((a[n] - b[n]).abs().max() for n in a) < 1e-4
    assert one != two, 'the second run was not dealt to two'


@pytest.mark.slow
def test_split_weights_equal_one_process(tok, tmp_path):
    "fsdp on two processes: the same losses and weights, each process with half of the weights; the saved model is a plain one"
    for name, what, n in (('one', 'ranks', 1), ('split', 'split', 2)):
        (tmp_path / name).mkdir()
        script(what, tmp_path / name, n, 20)
    (one, a), (two, b) = (torch.load(tmp_path / name / 'result.pt') for name in ('one', 'split'))
    assert [s for s, _ in two] == list(range(20)) and max(
        abs(x - y) for (_, x), (_, y) in zip(one, two)
    ) < 1e-4
    assert a.keys() == b.keys() and max((a[n] - b[n]).abs().max() for n in a) < 1e-4
    assert [float((tmp_path / 'split' / f'share-{r}').read_text()) for r in (0, 1)] == pytest.approx(
        [0.5, 0.5], abs=0.05
    )
    model, _ = load(tmp_path / 'split' / 'saved', 'cpu')
    assert all(torch.equal(v, b[n]) for n, v in model.state_dict().items())
    held = callbacks.Validation(examples(5, seed=3), tok, batch_size=2)
    alone = training.L.Trainer(
        accelerator='cpu', logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    assert json.loads((tmp_path / 'split' / 'held').read_text())[-1] == [
        20,
        pytest.approx(held.loss(training.EarthGPTModule(model, STAGES['scratch']), alone), abs=1e-5),
    ]


@pytest.mark.slow
def test_split_weights_with_a_frozen_base(tmp_path):
    "Scale and bias train, all else is frozen, activations are made again"
    for n in (1, 2):
        (tmp_path / str(n)).mkdir()
        script('tuned', tmp_path / str(n), n, 8)
    (one, a), (two, b) = (torch.load(tmp_path / str(n) / 'result.pt') for n in (1, 2))
    assert (
        len(two) == 8
        and max(abs(x - y) for (_, x), (_, y) in zip(one, two)) < 1e-4
        and max((a[n] - b[n]).abs().max() for n in a) < 1e-4
    )
    assert any('scale' in n and (v != 1).any() for n, v in b.items())


@pytest.mark.slow
@pytest.mark.parametrize('again', ['split', 'ranks'])
def test_split_weights_stopped_and_resumed(tmp_path, again):
    "Stopped half-way under fsdp, gone on under fsdp, or in one plain process"
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
    script('ranks', tmp_path / 'one', 1, 12)
    (tmp_path / 'two' / 'stop').touch()
    script('split', tmp_path / 'two', 2, 12)
    assert torch.load(tmp_path / 'two' / 'last.ckpt', weights_only=True)['global_step'] == 6
    load(tmp_path / 'two' / 'model', 'cpu')
    script(again, tmp_path / 'two', *((2, 12) if again == 'split' else (1, 12)))
    (one, a), (two, b) = (torch.load(tmp_path / name / 'result.pt') for name in ('one', 'two'))
    assert [s for s, _ in two] == list(range(12)) and max(
        abs(x - y) for (_, x), (_, y) in zip(one, two)
    ) < 1e-4
    assert max((a[n] - b[n]).abs().max() for n in a) < 1e-4


@pytest.mark.slow
def test_split_weights_over_a_base_in_16_bits(tok, tmp_path):
    """Begun in one process, gone on with the weights split over two, of which only the first reads the base: as in
    one. What trains is float32 in each share, what is frozen stays as it is"""
    base = small(tok)
    for p in base.parameters():
        p.data = p.data.bfloat16()
    save(base, tok, tmp_path / 'base')
    for name in ('one', 'two'):
        (tmp_path / name).mkdir()
    (tmp_path / 'two' / 'stop').touch()
    script('mixed', tmp_path / 'one', 1, 12)
    script('mixed', tmp_path / 'two', 1, 12)
    begun = torch.load(tmp_path / 'two' / 'last.ckpt', weights_only=True)
    script('mixed', tmp_path / 'two', 2, 12)
    one, two = (torch.load(tmp_path / name / 'result.pt') for name in ('one', 'two'))
    assert begun['global_step'] == 6 and [s for s, _ in two] == list(range(12))
    assert max(abs(x - y) for (_, x), (_, y) in zip(one, two)) < 0.02 and one[:6] == two[:6] and one != two
    for rank in (0, 1):
        types = (tmp_path / 'two' / f'types-{rank}').read_text().splitlines()
        assert types == ['torch.bfloat16 False DTensor', 'torch.float32 True DTensor']
    assert [(tmp_path / 'two' / f'device-{rank}').read_text() for rank in (0, 1)] == ['cpu', 'meta']
    (a, _), (b, _) = (load(tmp_path / name / 'saved', 'cpu', dtype=None) for name in ('one', 'two'))
    kept, start = b.state_dict(), base.state_dict()
    assert all(v.dtype == kept[n].dtype for n, v in a.state_dict().items())
    assert max((v.float() - kept[n].float()).abs().max() for n, v in a.state_dict().items()) < 2e-3
    frozen = [n for n, p in b.named_parameters() if p.dtype == torch.bfloat16]
    assert frozen and all(torch.equal(kept[n], start[n]) for n in frozen)


def test_a_checkpoint_that_fails_without_a_word_is_named(tmp_path, monkeypatch):
    from earthgpt_lite.train import checkpoints

    (tmp_path / 'last.ckpt').write_bytes(b'x')
    monkeypatch.setattr(checkpoints.torch, 'load', lambda *a, **k: (_ for _ in ()).throw(EOFError()))
    with pytest.raises(BadInput, match='damaged .EOFError'):
        checkpoints.find_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ('spoil', 'said'),
    [
        (
            lambda state: state['state_dict'].update({next(iter(state['state_dict'])): torch.zeros(1)}),
            'another model',
        ),
        (lambda state: state['state_dict'].pop(next(iter(state['state_dict']))), 'another model'),
        (lambda state: state.update(optimizer_states=[dict(a=1)]), 'no param_groups'),
        (lambda state: state.update(optimizer_states=[1]), 'no param_groups'),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_told(tok, tmp_path, monkeypatch, spoil, said):
    at_step(monkeypatch, 3, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted):
        fit(small(tok), tok, examples(), tmp_path, steps=6, **SHORT)
    (tmp_path / 'before.ckpt').unlink(missing_ok=True)
    state = torch.load(tmp_path / 'last.ckpt', weights_only=True)
    spoil(state)
    torch.save(state, tmp_path / 'last.ckpt')
    with pytest.raises(BadInput, match=said):
        fit(small(tok), tok, examples(), tmp_path, steps=6, resume=True, **SHORT)


# workers


@pytest.mark.unix
@pytest.mark.slow
@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGKILL])
def test_signals_to_workers(tok, tmp_path, monkeypatch, number):
    "Ctrl-C reaches them too, and they go on; one that is killed is told of, and nothing is lost"
    import multiprocessing

    def hit():
        for process in multiprocessing.active_children():
            os.kill(process.pid, number)
        if number == signal.SIGINT:
            signal.raise_signal(number)

    short, want = SHORT | dict(steps=30, checkpoint_every=2), small(tok)
    run = fit(want, tok, examples(), tmp_path / 'whole', **short)
    error, said = Interrupted, 'step 4'
    if number == signal.SIGKILL:
        error, said = BadInput, 'a worker that reads pictures died.*--resume and fewer --workers'
    with monkeypatch.context() as patch:
        at_step(patch, 3, hit)
        with pytest.raises(error, match=said):
            fit(small(tok), tok, examples(), tmp_path / 'cut', workers=2, **short)
    assert torch.load(tmp_path / 'cut' / 'last.ckpt', weights_only=True)['global_step'] < 16
    later = small(tok, 9)
    again = fit(later, tok, examples(), tmp_path / 'cut', workers=1, resume=True, **short)
    assert again['losses'] == run['losses'] and same(later, want)


def test_an_error_in_a_worker_keeps_its_words(tok, tmp_path):
    data = examples()
    data[7] = replace(data[7], turns=[replace(data[7].turns[0], answer='  ')])
    with pytest.raises(BadInput, match='^place/7.*nothing to learn') as error:
        fit(small(tok), tok, data, tmp_path, steps=9, **SHORT | dict(batch_size=3, workers=1))
    assert 'Traceback' not in str(error.value)


@pytest.mark.unix
@pytest.mark.slow
@pytest.mark.parametrize('killed', [0, 1])
def test_workers_end_with_their_program(killed):
    import time

    import psutil

    env = os.environ | dict(OMP_NUM_THREADS='1', PYTHONPATH=str(SCRIPT.parent.parent))
    done = subprocess.run(
        [sys.executable, str(SCRIPT), 'orphans', '.', str(killed)],
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL * killed, done.stderr[-3000:]
    workers, end = json.loads(done.stdout), time.monotonic() + 60
    while any(map(psutil.pid_exists, workers)) and time.monotonic() < end:
        time.sleep(0.1)
    assert len(workers) == 2 and not any(map(psutil.pid_exists, workers))
