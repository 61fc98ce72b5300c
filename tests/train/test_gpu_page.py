"The page that a GPU fills: its ladder runs at toy size on a CPU, its counts are those by hand, its section replaces itself."

import sys
from pathlib import Path

import pytest
import torch
from fixtures_training import examples, small, tokenizer

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'benchmarks'))

import gpu

from earthgpt_lite.model.packing import build_sequence, collate
from earthgpt_lite.train.stages import STAGES, prepare_stage
from earthgpt_lite.train.throughput import picture_flops, step_flops


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, 'argv', ['gpu.py', *map(str, words)])
    gpu.main()


def test_the_ladder_runs_at_toy_size_and_says_why_a_rung_does_not(tmp_path, monkeypatch):
    page = tmp_path / 'page.md'
    page.write_text('# Numbers\n\nOld ones.\n', encoding='utf-8')
    monkeypatch.setattr(gpu, 'WARM', 1)
    toy = ['--toy', '--device', 'cpu', '--page', page, '--models', 'nano', '--seconds', 0.01, '--checks']
    run(monkeypatch, *toy, '--rungs', 'naive', 'packing', 'shared prefix', 'flash', 'flex')
    text = page.read_text(encoding='utf-8')
    assert text.startswith('# Numbers\n\nOld ones.\n') and text.count(gpu.BEGIN) == text.count(gpu.END) == 1
    rows = [line.split('|')[1:-1] for line in text.splitlines() if line.startswith('| nano |')]
    assert [len(row) for row in rows] == 5 * [len(gpu.HEAD.split('|')) - 2]
    for row in rows[:3]:
        assert float(row[3].replace(',', '')) > 0 and row[6].strip().endswith('%')
    assert 'no mask of segments' in rows[3][3] and 'CUDA alone' in rows[4][3]
    assert 'counted in operations' in text and 'no GPU' in text and 'fp16' not in text


def test_a_rung_that_breaks_is_a_row_and_not_the_end(monkeypatch, tmp_path):
    def broken(*a, **k):
        raise RuntimeError('no kernel\nfor this')

    monkeypatch.setattr(gpu, 'run_fit', broken)
    toy = ['--toy', '--device', 'cpu', '--page', tmp_path / 'p.md', '--models', 'nano', '--checks']
    run(monkeypatch, *toy, '--rungs', 'shared prefix')
    assert 'does not run: no kernel |' in (tmp_path / 'p.md').read_text(encoding='utf-8')


def test_where_memory_is_too_small_half_the_batch_is_tried(monkeypatch, tmp_path):
    class Args:
        toy, minutes = True, 9

    bench, seen = gpu.Bench(Args, 'cpu', tmp_path), []

    def measure(name, rung, photos, tokenizer, batch):
        seen.append(batch)
        if batch > 2:
            raise torch.OutOfMemoryError
        return dict(batch=batch)

    monkeypatch.setattr(bench, 'measure', measure)
    assert bench.tried('nano', gpu.Rung(), [], None, 8) == dict(batch=2) and seen == [8, 4, 2]
    bench.end = 0
    assert bench.tried('nano', gpu.Rung(), [], None, 8) == dict(why='no time was left')


def test_the_section_is_replaced_and_nothing_else(tmp_path):
    page = tmp_path / 'page.md'
    page.write_text(f'before\n\n{gpu.BEGIN}\nold\n{gpu.END}\n\nbehind\n', encoding='utf-8')
    for text in ('first', 'second', 'second'):
        gpu.write_section(page, text)
        want = f'before\n\n{gpu.BEGIN}\n{text}\n{gpu.END}\n\nbehind\n'
        assert page.read_text(encoding='utf-8') == want


def test_the_page_of_the_repository_has_one_section_for_it():
    text = gpu.PAGE.read_text(encoding='utf-8')
    assert text.count(gpu.BEGIN) == text.count(gpu.END) == 1


def test_without_a_gpu_the_page_of_the_repository_is_refused(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, '--device', 'cpu')
    assert 'docs/benchmarks.md is for GPUs' in capsys.readouterr().err


def test_needed_operations_count_allowed_pairs_alone():
    "By hand: a picture of p tokens and questions of n tokens allow p (p + 1) / 2 + n (n + 1) / 2 + n p pairs"
    tok = tokenizer()
    model = small(tok)
    prepare_stage(model, STAGES['scratch'])
    p, lengths = 17, (5, 9)
    row = build_sequence([([7] * (n - 2), [8, 9]) for n in lengths], [1] + [5] * (p - 1))
    batch = collate([row], torch.zeros(1, 3, 32, 32, dtype=torch.uint8), 0, multiple=32)
    allowed = p * (p + 1) // 2 + sum(n * (n + 1) // 2 + n * p for n in lengths)
    picture, text = picture_flops(model), model.config.text_config
    pair = 4 * text.num_hidden_layers * text.hidden_size * 3  # forward, and backward twice
    want = step_flops(model, picture, batch) - pair * ((p + sum(lengths)) * 32 - allowed)
    assert gpu.needed_flops(model, picture, batch) == pytest.approx(want)


def test_one_question_a_row_needs_more_operations():
    "The bound of sharing is above one, and grows with the questions"
    from earthgpt_lite.train.dataset import InstructionBatches

    tok, each = tokenizer(), {}
    model = small(tok)
    prepare_stage(model, STAGES['scratch'])
    picture = picture_flops(model)
    for count in (1, 2, 3):
        some = [e for e in examples() if len(e.turns) == count][:4]
        batch = InstructionBatches(some, tok, model.config, len(some), augment=False).batch(0)
        each[count] = gpu.needed_flops(model, picture, batch) / (count * len(some))
    assert each[1] > 1.5 * each[2] > 1.5 * each[3]


@pytest.mark.slow
@pytest.mark.parametrize('name', ['ddp', 'fsdp', 'fp16'])
def test_checks_of_several_processes_run_on_a_cpu(name, tmp_path, monkeypatch):
    class Args:
        toy, device = True, 'cpu'

    said = gpu.check(name, Args, tmp_path, 2)
    if name == 'fp16':
        assert said == 'does not run: its scaler is for CUDA'
    else:
        assert said.startswith('2 processes') and float(said.split()[-3]) < 1e-4
