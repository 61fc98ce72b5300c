"A quickstart in small: what it writes, and what it never writes over."

import json
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch

from earthgpt_lite.app import quickstart as module
from earthgpt_lite.app.quickstart import quickstart
from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval.report import stages_table
from earthgpt_lite.model.loading import load
from earthgpt_lite.train import module as training
from earthgpt_lite.train.callbacks import Interrupted


@pytest.fixture(scope='module')
def few(few):
    "A few pictures of the whole Earth, of a radar scene and of trees"
    from earthgpt_lite.data.sample.sites import site_examples
    from earthgpt_lite.data.sample.trees import tree_examples

    return {
        split: [
            e
            for e in few[split][::2] + site_examples('florida', split, 40)[:6] + tree_examples(split, 60)[:6]
            if e.turns
        ]
        for split in few
    }


def only(few, patch):
    "On few pictures, and in steps so small that several fit into the seconds of a busy machine"
    patch.setattr(module, 'sample_examples', lambda split, *a, **k: few[split])
    patch.setattr(module, 'fit', partial(module.fit, batch_size=4))


@pytest.fixture
def little(few, monkeypatch):
    "A run that asks hardly anything: an untrained model takes each answer to its end"
    only({split: examples[::6] for split, examples in few.items()}, monkeypatch)


SMALL = dict(minutes=0.08, device='cpu', say=lambda text: None, progress=False)


@pytest.fixture(scope='module')
def done(few, tmp_path_factory):
    "(folder, metrics) of a finished run"
    out = tmp_path_factory.mktemp('runs') / 'quickstart'
    with pytest.MonkeyPatch.context() as patch:
        only(few, patch)
        return out, quickstart(out, **SMALL)


def test_files(done):
    out, _ = done
    assert {'model', 'metrics.json', 'report.html'} <= {p.name for p in out.iterdir()} and not (
        out / 'last.ckpt'
    ).exists()
    assert not [p for p in out.rglob('*') if p.name.endswith('.part') or p.name.startswith('.')]
    assert {'config.json', 'model.safetensors', 'tokenizer.json'} <= {
        p.name for p in (out / 'model').iterdir()
    }
    assert not load(out)[0].training


def test_metrics_as_promised(done, few):
    out, returned = done
    metrics = json.loads((out / 'metrics.json').read_text())
    assert metrics == json.loads(json.dumps(returned)) and set(metrics) == {
        'train',
        'results',
        'sources',
        'test',
        'test_sources',
        'stages',
        'versions',
        'machine',
    }
    # no count of unreadable pictures: its pictures are in memory
    assert all(not isinstance(value, dict) for value in metrics['train'].values())
    assert {'seconds', 'images', 'pairs', 'peak_memory_mb'} <= set(metrics['train']) and all(
        metrics['train'][k] > 0 for k in ('seconds', 'images', 'pairs', 'peak_memory_mb')
    )
    for split, rows in (('validation', metrics['results']), ('test', metrics['test'])):
        assert {(r['task'], r['sensor']) for r in rows} == {
            (str(t.task), str(e.sensor)) for e in few[split] for t in e.turns
        }
        for r in rows:
            assert {
                'task',
                'sensor',
                'metric',
                'n',
                'score',
                'interval',
                'prior',
                'shuffled',
                'blind',
            } <= set(r)
            assert r['n'] == sum(
                t.task == r['task'] for e in few[split] if e.sensor == r['sensor'] for t in e.turns
            )
            (low, high), top = r['interval'], 10 if r['metric'] in ('CIDEr', 'MAE') else 1
            assert (
                0 <= low <= r['score'] + 1e-9
                and r['score'] - 1e-9 <= high <= top
                and all(0 <= r[b] <= top for b in ('prior', 'shuffled', 'blind'))
            )
    for rows, pooled, split in (
        (metrics['sources'], metrics['results'], 'validation'),
        (metrics['test_sources'], metrics['test'], 'test'),
    ):
        assert (
            {r['source'] for r in rows}
            == {e.place.get('site', 'global') for e in few[split]}
            == {'global', 'florida', 'trees'}
        )
        assert sum(r['n'] for r in rows) == sum(r['n'] for r in pooled)
    assert len({r['sensor'] for r in metrics['results']}) >= 2
    metric = {(r['task'], r['metric']) for r in metrics['results']}
    assert {
        ('classification', 'accuracy'),
        ('presence', 'accuracy'),
        ('comparison', 'accuracy'),
        ('grounding', 'meanIoU'),
        ('grounding', 'Pr@0.5'),
    } <= metric
    assert {'caption', 'region_caption', 'grounding', 'classification', 'presence', 'comparison'} <= {
        t for t, _ in metric
    }
    assert {'python', 'torch', 'lightning', 'transformers', 'earthgpt-lite'} <= set(
        metrics['versions']
    ) and metrics['machine']


def test_two_stages(done, few):
    "scratch, then scale and bias alone: both are kept, the second one changed the answers' logits and nothing but what it may, and both tables are there"
    out, metrics = done
    assert [s['stage'] for s in metrics['stages']] == ['scratch', 'tune'] and metrics['stages'][1][
        'results'
    ] == metrics['results']
    assert [(r['task'], r['sensor'], r['metric'], r['n']) for r in metrics['stages'][0]['results']] == [
        (r['task'], r['sensor'], r['metric'], r['n']) for r in metrics['results']
    ]
    (base, words), (last, _) = load(out / 'scratch', 'cpu'), load(out, 'cpu')
    before, after = base.state_dict(), last.state_dict()
    assert set(before) < set(after) and all(n.endswith('_proj.bias') for n in set(after) - set(before))
    moved = {n for n in before if not torch.equal(before[n], after[n])}
    assert moved and all('.layers.' in n and n.endswith('_proj.weight') for n in moved)
    record = json.loads((out / 'scratch' / 'run.json').read_text())
    assert metrics['train']['steps'] > record['steps'] > 0 and metrics['train']['seconds'] > record['seconds']
    assert (
        stages_table(metrics['stages']).splitlines()[-1].startswith('tune made')
        and 'After each stage' in (out / 'report.html').read_text()
    )


def test_the_report_stands_alone(done):
    page = (done[0] / 'report.html').read_text()
    assert not re.search(
        r'''(?:src|href|action|data|poster)\s*=\s*["']?(?!data:|["'])|url\(|@import|<script|<link|<iframe''',
        page,
    )
    assert page.count('data:image/png') > 10 and '<svg' in page and 'turn wrong' in page and '95 %' in page
    for word in ('prior', 'shuffled', 'blind', 'grounding', 'comparison'):
        assert word in page


def test_a_finished_run_is_never_written_over(done, little):
    out = done[0]
    before = {p: p.stat().st_mtime_ns for p in out.rglob('*')}
    with pytest.raises(BadInput, match=f'{out} holds a finished run.*--out.*--force'):
        quickstart(out, **SMALL)
    with pytest.raises(BadInput, match='finished run.*nothing to go on'):
        quickstart(out, resume=True, **SMALL)
    assert {p: p.stat().st_mtime_ns for p in out.rglob('*')} == before


def test_force_writes_anew(done, little, tmp_path):
    out = Path(shutil.copytree(done[0], tmp_path / 'again'))
    (out / 'metrics.json').write_text('{"old": 1}')
    quickstart(out, force=True, **SMALL | dict(minutes=0.01))
    assert json.loads((out / 'metrics.json').read_text())['train']['minutes'] == 0.01


def test_an_interrupted_run_is_kept_usable_and_goes_on(little, tmp_path, monkeypatch):
    longer = SMALL | dict(minutes=0.1)  # room for a second step on a busy machine
    out, step = tmp_path / 'run', training.EarthGPTModule.training_step

    def stopping(self, batch, index):
        if self.global_step == 1:
            raise KeyboardInterrupt
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(training.EarthGPTModule, 'training_step', stopping)
        with pytest.raises(Interrupted):
            quickstart(out, **longer)
    assert (out / 'last.ckpt').exists() and not (out / 'metrics.json').exists() and load(out)
    with pytest.raises(BadInput, match='interrupted run: go on with --resume'):
        quickstart(out, **longer)
    metrics = quickstart(out, resume=True, **longer)
    assert (
        metrics['train']['steps'] > 1 and (out / 'metrics.json').exists() and not (out / 'last.ckpt').exists()
    )


def test_a_run_that_is_stopped_in_its_last_stage_goes_on_from_there(little, tmp_path, monkeypatch):
    longer, step = SMALL | dict(minutes=0.1), training.EarthGPTModule.training_step
    out, begun = tmp_path / 'run', []

    def stopping(self, batch, index):
        begun.append(self.stage.name)
        if self.stage.name == 'tune':
            raise KeyboardInterrupt
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(training.EarthGPTModule, 'training_step', stopping)
        with pytest.raises(Interrupted):
            quickstart(out, **longer)
        assert begun[-1] == 'tune' and load(out) and (out / 'tune' / 'last.ckpt').exists()
    weights = load(out / 'scratch', 'cpu')[0].state_dict()
    begun.clear()
    with monkeypatch.context() as patch:
        patch.setattr(
            training.EarthGPTModule,
            'training_step',
            lambda self, batch, index: begun.append(self.stage.name) or step(self, batch, index),
        )
        metrics = quickstart(out, resume=True, **longer)
    assert (
        set(begun) <= {'tune'}
        and (out / 'metrics.json').exists()
        and not (out / 'tune' / 'last.ckpt').exists()
    )
    assert all(torch.equal(w, weights[n]) for n, w in load(out / 'scratch', 'cpu')[0].state_dict().items())
    assert metrics['train']['steps'] > json.loads((out / 'scratch' / 'run.json').read_text())['steps']


def test_other_minutes_are_told_in_the_words_of_the_quickstart(little, tmp_path, monkeypatch):
    step = training.EarthGPTModule.training_step

    def stopping(self, batch, index):
        if self.global_step == 1:
            raise KeyboardInterrupt
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(training.EarthGPTModule, 'training_step', stopping)
        with pytest.raises(Interrupted):
            quickstart(tmp_path / 'run', **SMALL | dict(minutes=0.2))
    with pytest.raises(BadInput, match='another --minutes or --seed: give the same'):
        quickstart(tmp_path / 'run', resume=True, **SMALL | dict(minutes=20))


def test_nothing_to_resume(little, tmp_path):
    with pytest.raises(BadInput, match='no interrupted run'):
        quickstart(tmp_path / 'none', resume=True, **SMALL)
    assert not (tmp_path / 'none').exists()


@pytest.mark.parametrize('minutes', [0, -1, float('nan')])
def test_a_time_that_is_none(little, tmp_path, minutes):
    with pytest.raises(BadInput, match='--minutes'):
        quickstart(tmp_path / 'x', **SMALL | dict(minutes=minutes))
