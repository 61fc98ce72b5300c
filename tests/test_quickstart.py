"A quickstart in small: what it writes, and what it never writes over."
import json
import re
import shutil
from pathlib import Path

import pytest

from earthgpt_lite import quickstart as module, training
from earthgpt_lite.model import load
from earthgpt_lite.quickstart import quickstart, wrong_pictures
from earthgpt_lite.sensors import BadInput
from earthgpt_lite.training import Interrupted

TASKS = {'classification', 'presence', 'comparison', 'caption', 'region_caption', 'grounding'}

def only(few, patch):
    for name in ('sample_examples', 'optical_examples'): patch.setattr(module, name, lambda split, *a, **k: few[split], raising=False)

@pytest.fixture
def little(few, monkeypatch): only(few, monkeypatch)

SMALL = dict(minutes=.08, device='cpu', say=lambda text: None, progress=False)

@pytest.fixture(scope='module')
def done(few, tmp_path_factory):
    "(folder, metrics) of a finished run"
    out = tmp_path_factory.mktemp('runs')/'quickstart'
    with pytest.MonkeyPatch.context() as patch:
        only(few, patch)
        return out, quickstart(out, **SMALL)

def test_files(done):
    out, _ = done
    assert {'model', 'metrics.json', 'report.html'} <= {p.name for p in out.iterdir()} and not (out/'last.ckpt').exists()
    assert not [p for p in out.rglob('*') if p.name.endswith('.part') or p.name.startswith('.')]
    assert {'config.json', 'model.safetensors', 'tokenizer.json'} <= {p.name for p in (out/'model').iterdir()}
    assert not load(out)[0].training

def test_metrics_as_promised(done, few):
    out, returned = done
    metrics = json.loads((out/'metrics.json').read_text())
    assert metrics == json.loads(json.dumps(returned)) and set(metrics) == {'train', 'results', 'sources', 'test', 'versions', 'machine'}
    assert {'seconds', 'images', 'pairs', 'peak_memory_mb'} <= set(metrics['train']) and all(metrics['train'][k] > 0 for k in ('seconds', 'images', 'pairs', 'peak_memory_mb'))
    for split, rows in (('validation', metrics['results']), ('test', metrics['test'])):
        assert {r['task'] for r in rows} == {str(t.task) for e in few[split] for t in e.turns} <= TASKS
        for r in rows:
            assert {'task', 'sensor', 'metric', 'n', 'score', 'interval', 'prior', 'shuffled', 'blind'} <= set(r) and r['sensor'] == 'optical'
            assert r['n'] == sum(t.task == r['task'] for e in few[split] for t in e.turns)
            (low, high), top = r['interval'], 10 if r['metric'] == 'CIDEr' else 1
            assert 0 <= low <= r['score'] + 1e-9 and r['score'] - 1e-9 <= high <= top and all(0 <= r[b] <= top for b in ('prior', 'shuffled', 'blind'))
    assert {r['source'] for r in metrics['sources']} == {e.place.get('site', 'global') for e in few['validation']}
    assert sum(r['n'] for r in metrics['sources']) == sum(r['n'] for r in metrics['results'])
    metric = {(r['task'], r['metric']) for r in metrics['results']}
    assert {('classification', 'accuracy'), ('presence', 'accuracy'), ('comparison', 'accuracy'), ('grounding', 'meanIoU'), ('grounding', 'Pr@0.5')} <= metric
    assert {'caption', 'region_caption', 'grounding', 'classification', 'presence', 'comparison'} == TASKS == {t for t, _ in metric}
    assert {'python', 'torch', 'lightning', 'transformers', 'earthgpt-lite'} <= set(metrics['versions']) and metrics['machine']

def test_the_report_stands_alone(done):
    page = (done[0]/'report.html').read_text()
    assert not re.search(r'''(?:src|href|action|data|poster)\s*=\s*["']?(?!data:|["'])|url\(|@import|<script|<link|<iframe''', page)
    assert page.count('data:image/png') > 10 and '<svg' in page and 'turn wrong' in page and '95 %' in page
    for word in ('prior', 'shuffled', 'blind', 'grounding', 'comparison'): assert word in page

def test_a_finished_run_is_never_written_over(done, little):
    out = done[0]
    before = {p: p.stat().st_mtime_ns for p in out.rglob('*')}
    with pytest.raises(BadInput, match=f'{out} holds a finished run.*--out.*--force'): quickstart(out, **SMALL)
    with pytest.raises(BadInput, match='finished run.*nothing to go on'): quickstart(out, resume=True, **SMALL)
    assert {p: p.stat().st_mtime_ns for p in out.rglob('*')} == before

def test_force_writes_anew(done, little, tmp_path):
    out = Path(shutil.copytree(done[0], tmp_path/'again'))
    (out/'metrics.json').write_text('{"old": 1}')
    quickstart(out, force=True, **SMALL | dict(minutes=.01))
    assert json.loads((out/'metrics.json').read_text())['train']['minutes'] == .01

def test_an_interrupted_run_is_kept_usable_and_goes_on(little, tmp_path, monkeypatch):
    longer = SMALL | dict(minutes=.1)   # room for a second step on a busy machine
    out, step = tmp_path/'run', training.Tuner.training_step
    def stopping(self, batch, index):
        if self.global_step == 1: raise KeyboardInterrupt
        return step(self, batch, index)
    with monkeypatch.context() as patch:
        patch.setattr(training.Tuner, 'training_step', stopping)
        with pytest.raises(Interrupted): quickstart(out, **longer)
    assert (out/'last.ckpt').exists() and not (out/'metrics.json').exists() and load(out)
    with pytest.raises(BadInput, match='interrupted run: go on with --resume'): quickstart(out, **longer)
    metrics = quickstart(out, resume=True, **longer)
    assert metrics['train']['steps'] > 1 and (out/'metrics.json').exists() and not (out/'last.ckpt').exists()

def test_nothing_to_resume(little, tmp_path):
    with pytest.raises(BadInput, match='no interrupted run'): quickstart(tmp_path/'none', resume=True, **SMALL)
    assert not (tmp_path/'none').exists()

@pytest.mark.parametrize('minutes', [0, -1, float('nan')])
def test_a_time_that_is_none(little, tmp_path, minutes):
    with pytest.raises(BadInput, match='--minutes'): quickstart(tmp_path/'x', **SMALL | dict(minutes=minutes))

def test_a_wrong_picture_is_never_the_own_and_of_the_same_kind(few):
    for seed in range(3):
        examples, shown = few['validation'], wrong_pictures(few['validation'], seed)
        assert sorted(shown) == list(range(len(examples)))
        kind = lambda i: examples[i].name.split('/')[0]
        assert all(i != j and kind(i) == kind(j) for i, j in enumerate(shown) if sum(kind(k) == kind(i) for k in range(len(examples))) > 1)
