"Callbacks: minutes hold whatever the rounds, nothing is logged in silence, held-out examples are looked at exactly."

import csv
import signal
from types import SimpleNamespace

import matplotlib.pyplot as plt
import pytest
import torch
from fixtures_training import examples, small, tokenizer as make_tokenizer
from hypothesis import given, strategies as st

from earthgpt_lite.errors import BadInput
from earthgpt_lite.train import callbacks
from earthgpt_lite.train import module as training
from earthgpt_lite.train.callbacks import Interrupted, TimeBudget, make_loggers
from earthgpt_lite.train.dataset import InstructionBatches
from earthgpt_lite.train.fit import fit

SHORT = dict(batch_size=6, device='cpu', precision='32-true', progress=False)


@pytest.fixture(scope='module')
def tok():
    return make_tokenizer()


@pytest.fixture(scope='module')
def whole(tok, tmp_path_factory):
    model = small(tok)
    return model, fit(model, tok, examples(), tmp_path_factory.mktemp('whole'), steps=8, **SHORT)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def at_step(monkeypatch, at, do):
    step = training.EarthGPTModule.training_step

    def new(self, batch, index):
        if self.global_step == at:
            do()
        return step(self, batch, index)

    monkeypatch.setattr(training.EarthGPTModule, 'training_step', new)


def log_of(folder):
    with open(folder / 'log' / 'metrics.csv') as f:
        return list(csv.DictReader(f))


# how long


@given(st.integers(1, 12), st.floats(0.1, 20), st.floats(5, 60))
def test_minutes_hold_whatever_the_rounds(rounds, each, minutes):
    "A trainer of cardboard and a clock by hand: the run ends within its minutes, and uses them"
    now, trainer = (
        [0.0],
        SimpleNamespace(
            global_step=0,
            world_size=1,
            should_stop=False,
            fit_loop=SimpleNamespace(epoch_loop=SimpleNamespace(max_steps=-1)),
        ),
    )
    module, clock = SimpleNamespace(total=None), TimeBudget(minutes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(callbacks.time, 'perf_counter', lambda: now[0])
        clock.on_train_start(trainer, module)
        while module.total is None or trainer.global_step < module.total and not trainer.should_stop:
            for r in range(rounds):
                now[0] += each
                trainer.global_step += r == rounds - 1
                clock.on_train_batch_end(trainer, module, None, None, r)
                assert r == rounds - 1 or not trainer.should_stop, 'stopped between two rounds of a step'
    step = each * rounds
    # the clock adds up small numbers
    assert 0.97 * 60 * minutes - 1.5 * step <= now[0] <= max(60 * minutes, 2 * step) + 1e-9 * now[0]


# loggers


def test_tensorboard_only_if_asked(tok, tmp_path, monkeypatch):
    fit(small(tok), tok, examples(), tmp_path / 'a', steps=1, **SHORT)
    assert not list((tmp_path / 'a').rglob('events*'))
    with pytest.raises(BadInput, match="no logger 'paper': choose csv, tensorboard or wandb"):
        make_loggers(tmp_path, 'paper')
    import lightning.pytorch.loggers as loggers

    def missing(*a, **k):
        raise ModuleNotFoundError('tensorboard')

    with monkeypatch.context() as patch:
        patch.setattr(loggers, 'TensorBoardLogger', missing)
        patch.setattr(loggers, 'WandbLogger', missing)
        with pytest.raises(BadInput, match='tensorboard needs its package: pip install "earthgpt-lite.log."'):
            fit(small(tok), tok, examples(), tmp_path / 'b', steps=1, logger='tensorboard', **SHORT)
        with pytest.raises(BadInput, match='wandb needs its package: pip install wandb'):
            make_loggers(tmp_path, 'wandb')


def test_tensorboard_gets_what_the_file_gets(tok, tmp_path):
    pytest.importorskip('tensorboard')
    fit(small(tok), tok, examples(), tmp_path, steps=10, logger='tensorboard', **SHORT)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = EventAccumulator(str(tmp_path / 'log')).Reload()
    assert seen.Scalars('loss')[-1].value == pytest.approx(float(log_of(tmp_path)[-1]['loss']), rel=1e-5)


# held-out examples


def test_validation_is_the_exact_mean_and_changes_nothing(tok, whole, tmp_path):
    "One by one or in batches, the mean over all graded tokens; the run beside it is the same to the bit"
    held, model = callbacks.Validation(examples(7, seed=3), tok, validate_every=3, batch_size=3), small(tok)
    run = fit(model, tok, examples(), tmp_path, steps=8, callbacks=[held], **SHORT)
    assert (
        run['losses'] == whole[1]['losses']
        and same(model, whole[0])
        and [s for s, _ in held.history] == [3, 6, 8]
    )
    sums = torch.zeros(2, dtype=torch.float64)
    with torch.no_grad():
        for e in examples(7, seed=3):
            out = model(**vars(InstructionBatches([e], tok, model.config, 1, augment=False).batch(0)))
            sums += torch.stack([out.loss_sum.double(), out.target_count.double()])
    assert held.history[-1][1] == pytest.approx((sums[0] / sums[1]).item(), abs=1e-5)
    assert (
        'held_out' in (tmp_path / 'log' / 'metrics.csv').read_text()
        and (tmp_path / 'best' / 'model' / 'config.json').exists()
    )


def test_a_run_that_gets_no_better_stops(tok, tmp_path, monkeypatch):
    losses = iter([3.0, 2.0, 2.5, 2.4, 1.0])
    monkeypatch.setattr(callbacks.Validation, 'loss', lambda self, module, trainer: next(losses))
    said, held = [], None
    held = callbacks.Validation(
        examples(2, seed=3), tok, validate_every=2, patience=2, show=1, say=said.append
    )
    run = fit(small(tok), tok, examples(), tmp_path, steps=20, callbacks=[held], **SHORT)
    assert [s for s, _ in held.history][:4] == [2, 4, 6, 8] and run['steps'] <= 9 and '->' in said[0]


def test_answers_are_pictures_in_a_notebook_and_words_elsewhere(tok, tmp_path, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(plt, 'show', lambda: shown.append([ax.get_title() for ax in plt.gcf().axes]))

    def look(name):
        fit(
            small(tok),
            tok,
            examples(),
            tmp_path / name,
            steps=2,
            callbacks=[callbacks.Validation(examples(4, seed=3), tok, validate_every=9, show=2)],
            **SHORT,
        )

    look('a')
    assert capsys.readouterr().out.count('->') == 2 and not shown
    monkeypatch.setattr(
        callbacks.builtins, 'get_ipython', lambda: SimpleNamespace(kernel=None), raising=False
    )
    look('b')
    plt.close('all')
    asked = [e.turns[0] for e in examples(4, seed=3)[::2]]
    assert '->' not in capsys.readouterr().out and [t.splitlines()[-1] for t in shown[0]] == [
        f'({t.answer})' for t in asked
    ]
    assert len(shown) == 1 and all(
        title.split()[0] == turn.question.split()[0] for title, turn in zip(shown[0], asked)
    )


def test_validation_goes_on_with_the_run(tok, tmp_path, monkeypatch):
    def watch():
        return callbacks.Validation(examples(3, seed=3), tok, validate_every=2)

    one, first, second = watch(), watch(), watch()
    fit(small(tok), tok, examples(), tmp_path / 'a', steps=8, callbacks=[one], **SHORT)
    with monkeypatch.context() as patch:
        at_step(patch, 5, lambda: signal.raise_signal(signal.SIGINT))
        with pytest.raises(Interrupted):
            fit(small(tok), tok, examples(), tmp_path / 'b', steps=8, callbacks=[first], **SHORT)
    fit(small(tok, 9), tok, examples(), tmp_path / 'b', steps=8, resume=True, callbacks=[second], **SHORT)
    assert second.history == one.history and [s for s, _ in one.history] == [2, 4, 6, 8]
