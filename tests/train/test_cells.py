"A training cell whose kernel died goes on from its checkpoint, and from nothing else."

import errno
import os
import random
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fixtures_training import examples, small, tokenizer as make_tokenizer
from lightning.pytorch.callbacks import Callback

from earthgpt_lite.errors import BadInput
from earthgpt_lite.train import cells
from earthgpt_lite.train.cells import cell_folder, fingerprint, resumable
from earthgpt_lite.train.fit import FitOptions
from earthgpt_lite.train.fit_cell import fit_cell
from earthgpt_lite.train.stages import STAGES, tune_stage


@pytest.fixture(autouse=True)
def beside_a_notebook(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cells, 'EVERY', 0)
    monkeypatch.setattr(cells, 'SPARING', 0)


class Died(BaseException):
    "What a kernel does without a word"


def learn(dies_at=None, lr=0.1, steps=12, data=1.0, say=lambda text: None):
    "A loop with everything that a loop may hold, and chance from three generators"
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    losses, sheets = [], {0: ['none']}
    for step in resumable('lesson', steps, model, optimizer, rate, losses, sheets, data=data, say=say):
        if step == dies_at:
            raise Died
        x = torch.randn(8, 3) + np.random.rand() + random.random()
        loss = (model(x) - data).square().mean()
        loss.backward()
        optimizer.step()
        if step % 2 == 0:
            optimizer.zero_grad()  # else the gradient is added to the next one
        rate.step()
        losses.append(loss.item())
        if step % 5 == 0:
            sheets[step] = [f'after {step}']
    return losses, sheets, [p.tolist() for p in model.parameters()], rate.get_last_lr()


def die(**options):
    with pytest.raises(Died):
        learn(**options)


def test_it_goes_on_and_ends_as_if_nothing_had_happened(tmp_path):
    whole, said = learn(), []
    assert not list(tmp_path.iterdir())  # it has ended: nothing is left, and the next one trains again
    die(dies_at=8, say=said.append)
    assert said == [] and len(list(Path('runs/lesson').glob('*/last.ckpt'))) == 1
    assert learn(say=said.append) == whole and list(whole[1]) == [0, 5, 10]
    assert len(said) == 1 and said[0].endswith(': goes on from step 7 of 12')
    assert learn(say=said.append) == whole and len(said) == 1 and not list(tmp_path.iterdir())


def test_it_may_die_twice_and_in_its_first_step():
    whole, said = learn(), []
    die(dies_at=1)
    die(dies_at=5, say=said.append)
    die(dies_at=9, say=said.append)
    assert learn(say=said.append) == whole
    assert [text.split(': ')[1] for text in said] == [
        'goes on from step 4 of 12',
        'goes on from step 8 of 12',
    ]


@pytest.mark.parametrize('change', [dict(lr=0.2), dict(steps=13), dict(data=2.0)], ids=str)
def test_another_training_does_not_go_on_with_it(change):
    die(dies_at=8)
    said = []
    assert learn(say=said.append, **change) == learn(**change)
    assert len(said) == 1 and 'left by other code, data or settings, and not used' in said[0]
    assert learn(say=said.append) == learn() and 'goes on' in said[-1]  # the first one is still there


def test_another_loop_does_not_go_on_with_it():
    "The same name, weights and data: only the body of the loop is another one, or has another comment"
    body = 'losses = []\nfor step in resumable("own", 9, losses, say=said.append):\n    losses.append({})\n'
    source = body + '    if step == dies_at:\n        raise Died\n'

    def run(text, dies_at=None):
        from linecache import cache

        cache['<cell>'] = len(text), None, text.splitlines(True), '<cell>'
        said = []
        names = dict(resumable=resumable, said=said, dies_at=dies_at, Died=Died)
        try:
            exec(compile(text, '<cell>', 'exec'), names)
        except Died:
            pass
        return names['losses'], said

    run(source.format('step'), dies_at=6)
    losses, said = run(source.format('step * 2'))
    assert losses == list(range(2, 20, 2)) and 'not used' in said[0]
    losses, said = run('# a comment\n\n' + source.format('step'))
    assert losses == list(range(1, 10)) and said[0].endswith('goes on from step 5 of 9')


def test_two_latest_of_others_stay_and_a_running_one_is_not_counted():
    for k, lr in enumerate((0.1, 0.2, 0.3, 0.4)):
        die(dies_at=3, lr=lr)
        path = max(Path('runs/lesson').glob('*/last.ckpt'), key=os.path.getmtime)
        os.utime(path, (k, k))
    with cell_folder('lesson', 'mark') as mine:
        (mine / 'last.ckpt').touch()
        said = []
        learn(lr=0.5, say=said.append)
        assert len(said) == 2 and all('not used' in text for text in said)
        assert len(list(Path('runs/lesson').glob('*/last.ckpt'))) == 3
    for lr, kept in ((0.1, False), (0.2, False), (0.3, True), (0.4, True)):
        said.clear()
        learn(lr=lr, say=said.append)
        assert any('goes on' in text for text in said) == kept


def test_two_kernels_in_one_folder_get_their_own_and_both_go_on():
    def loop(say):
        losses = []
        for step in resumable('twice', 6, losses, say=say):
            losses.append(10 * step)
            yield losses

    said = []
    dead = [loop(said.append), loop(said.append)]
    for one in dead * 3:
        next(one)
    assert len(list(Path('runs/twice').glob('*/last.ckpt'))) == 2
    for one in dead:
        one.close()
    again = [loop(said.append), loop(said.append)]
    assert [next(one)[:] for one in again] == [[10, 20, 30]] * 2
    assert [list(one)[-1] for one in again] == [list(range(10, 70, 10))] * 2
    assert sum('goes on from step 2 of 6' in text for text in said) == 2, said
    assert sum('in use by another kernel' in text for text in said) == 2
    assert not Path('runs').exists()


def test_where_nothing_can_be_written_beside_the_notebook(tmp_path, monkeypatch):
    (tmp_path / 'temporary').mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'temporary'))
    Path('runs').touch()  # a file, so there can be no folder
    said = []
    die(dies_at=8, say=said.append)
    assert said[0].startswith(f'{Path("runs/lesson")} cannot be written (') and 'checkpoints go to' in said[0]
    learn(say=said.append)
    assert said[-1].startswith(str(tmp_path / 'temporary')) and said[-1].endswith('from step 7 of 12')
    assert Path('runs').is_file()


@pytest.mark.unix
def test_a_folder_of_another_user_is_left_alone(monkeypatch):
    die(dies_at=8)
    monkeypatch.setattr(os, 'getuid', lambda: 12345)
    said = []
    with pytest.raises(BadInput, match='belongs to another user'):
        learn(say=said.append)  # the temporary folder is not this user's either, as the system says
    assert 'belongs to another user' in said[0] and 'checkpoints go to' in said[0]


def test_a_damaged_checkpoint_is_told_and_not_used():
    whole, said = learn(), []
    die(dies_at=8)
    path = next(Path('runs/lesson').glob('*/last.ckpt'))
    path.write_bytes(path.read_bytes()[:-500])
    assert learn(say=said.append) == whole
    assert 'is damaged' in said[0] and said[0].endswith('the training begins anew')


def test_a_full_disk_stops_no_lesson(monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    whole, said = learn(), []
    monkeypatch.setattr(os, 'fsync', full)
    assert learn(say=said.append) == whole
    assert said[0].startswith('no checkpoint at step 1: ') and said[0].endswith('the training goes on')


def test_a_quick_loop_writes_nothing(monkeypatch):
    monkeypatch.setattr(cells, 'EVERY', 60)
    die(dies_at=8)
    assert not list(Path('runs').rglob('last.ckpt'))


def test_a_slow_disk_is_written_to_more_seldom(monkeypatch):
    clock, written = [0.0], []

    def slow(folder, step, states, say):
        written.append(step)
        clock[0] += 2

    monkeypatch.setattr(cells, 'EVERY', 3)
    monkeypatch.setattr(cells, 'SPARING', 20)
    monkeypatch.setattr(cells, '_save', slow)
    monkeypatch.setattr(cells.time, 'monotonic', lambda: clock[0])
    for _ in resumable('slow', 100, []):
        clock[0] += 1
    assert written == [3, 43, 83]


@pytest.mark.parametrize('state', [3, torch.zeros(2), (1, 2), None], ids=repr)
def test_what_cannot_be_kept_is_refused(state):
    with pytest.raises(BadInput, match=f'{type(state).__name__} cannot be kept'):
        resumable('lesson', 3, state)


@pytest.mark.parametrize('name', ['', '..', 'a/b', 'a b', '.hidden'])
def test_a_name_that_is_a_path_is_refused(name):
    with pytest.raises(BadInput, match='is no name for a training'), cell_folder(name, 'mark'):
        pass


def test_a_fingerprint_is_of_what_values_hold():
    same = [
        dict(a=[1, 'x'], b=torch.arange(3), c=np.eye(2), d={'p', 'q'}, e=None, f=tune_stage(), g=b'1'),
        dict(a=[1, 'x'], b=torch.arange(3), c=np.eye(2), d={'q', 'p'}, e=None, f=tune_stage(), g=b'1'),
    ]
    assert fingerprint(same[0]) == fingerprint(same[1])
    others = [
        same[0] | change
        for change in (
            dict(a=[1, 'y']),
            dict(a=[[1], 'x']),
            dict(b=torch.arange(3).float()),
            dict(b=torch.arange(3)[None]),
            dict(c=np.eye(2, dtype='float32')),
            dict(c=np.array([None, 'x'], object)),
            dict(d={'p'}),
            dict(f=tune_stage(lr=0.1)),
            dict(g=b'2'),
            dict(b=torch.arange(3).bfloat16()),
            dict(e=torch.tensor(1)),
        )
    ]
    assert len({fingerprint(value) for value in (same[0], *others)}) == len(others) + 1
    assert fingerprint(object()) == fingerprint(object())  # not where they lie in memory


# ---- fit, in a cell


@pytest.fixture(scope='module')
def tok():
    return make_tokenizer()


class Stops(Callback):
    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == 5:
            raise Died


SHORT = FitOptions(steps=8, batch_size=6, device='cpu', precision='32-true', progress=False)


def fit_small(tok, said, dies=False, seed=0, stage=STAGES['scratch'], rows=None, **changes):
    changes |= dict(say=said.append, callbacks=[Stops()] * dies, checkpoint_every=2)
    model = small(tok, seed)
    run = fit_cell('lesson', model, tok, rows or examples(), stage, SHORT, **changes)
    return run['losses'], [p.tolist() for p in model.parameters()]


def fit_dies(tok, **options):
    with pytest.raises(Died):
        fit_small(tok, [], dies=True, **options)


def test_fit_cell_goes_on(tok, tmp_path):
    said = []
    whole = fit_small(tok, said)
    fit_dies(tok)
    assert said == [] and fit_small(tok, said) == whole
    assert len(said) == 1 and said[0].endswith(': goes on from step 4 of 8')
    assert not list(tmp_path.iterdir())
    assert fit_small(tok, said) == whole and len(said) == 1  # trained again


@pytest.mark.parametrize(
    'change',
    [
        dict(seed=1),
        dict(steps=9),
        dict(batch_size=5),
        dict(stage=tune_stage()),
        dict(rows=examples(seed=1)),
        dict(augment=False),
    ],
    ids=lambda change: next(iter(change)),
)
def test_fit_cell_begins_anew_where_something_was_changed(tok, change):
    fit_dies(tok)
    said = []
    losses, _ = fit_small(tok, said, **change)
    assert len(losses) == change.get('steps', 8) and not any('goes on' in text for text in said)
    assert any('not used' in text for text in said)


def test_fit_cell_tells_of_a_damaged_checkpoint(tok):
    said = []
    whole = fit_small(tok, said)
    fit_dies(tok)
    for path in Path('runs/lesson').glob('*/*.ckpt'):
        path.write_bytes(b'half')
    assert fit_small(tok, said) == whole
    assert 'is damaged' in said[0] and said[0].endswith('the training begins anew')
