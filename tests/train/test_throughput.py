"Throughput and the compiler: FLOPs are those that torch counts, nothing is asked for in silence."

import csv

import pytest
import torch
from fixtures_training import examples, small, tokenizer as make_tokenizer
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from earthgpt_lite.errors import BadInput
from earthgpt_lite.train import throughput
from earthgpt_lite.train.stages import prepare_stage
from earthgpt_lite.train.dataset import InstructionBatches
from earthgpt_lite.train.fit import fit
from earthgpt_lite.train.stages import STAGES, tune_stage
from earthgpt_lite.train.throughput import peak_flops, picture_flops, repeated_blocks, step_flops

SHORT = dict(batch_size=6, device='cpu', precision='32-true', progress=False)


@pytest.fixture(scope='module')
def tok():
    return make_tokenizer()


# arithmetic


@pytest.mark.parametrize(
    'stage',
    [STAGES['scratch'], STAGES['align'], STAGES['project'], tune_stage(), STAGES['lora']],
    ids=lambda s: s.name,
)
def test_what_a_step_needs_is_what_torch_counts_without_the_padding(tok, stage):
    if stage.name == 'lora':
        pytest.importorskip('peft')
    model = small(tok)
    prepare_stage(model, stage)
    batch = InstructionBatches(examples(), tok, model.config, 6, sequence_length=4096).batch(0)
    length = int((batch.segment_ids > 0).sum(1).max())  # without the padding that rounds it up
    for field in ('input_ids', 'labels', 'position_ids', 'segment_ids', 'prefix_ids'):
        setattr(batch, field, getattr(batch, field)[:, :length].contiguous())
    batch.labels[:] = 1  # all of them graded, so that nothing is spared in the last layer
    picture = picture_flops(model)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(**vars(batch)).loss.backward()
    share = step_flops(model, picture, batch) / counter.get_total_flops()
    assert 0.8 < share < 1.05, share


def test_counting_leaves_the_model_as_it_was(tok):
    model = small(tok).train()
    before = {n: t.clone() for n, t in model.state_dict().items()}
    assert (
        picture_flops(model)['cnn'] > 0
        and model.training
        and all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
    )


def test_peaks_by_name():
    assert (
        peak_flops('NVIDIA H100 80GB HBM3') == 989e12 > peak_flops('NVIDIA H100 PCIe')
        and peak_flops('NVIDIA A10') == 125e12 != peak_flops('NVIDIA A100-SXM4-40GB') == 312e12
    )
    assert (
        peak_flops('NVIDIA A10G') is peak_flops('GeForce GTX 1080') is None
        and peak_flops('Tesla T4') == 65e12
    )


def log_of(folder):
    with open(folder / 'log' / 'metrics.csv') as f:
        return list(csv.DictReader(f))


def test_the_share_of_the_peak_is_logged_where_one_is_known(tok, tmp_path):
    fit(small(tok), tok, examples(), tmp_path / 'cpu', steps=10, **SHORT)
    assert 'mfu' not in log_of(tmp_path / 'cpu')[0] and float(log_of(tmp_path / 'cpu')[-1]['tokens_s']) > 0

    class Known(throughput.Throughput):
        def on_train_start(self, trainer, module):
            super().on_train_start(trainer, module)
            self.peak = 1e10

    model = small(tok)
    fit(model, tok, examples(), tmp_path / 'known', steps=10, callbacks=[Known(model)], **SHORT)
    row, b = log_of(tmp_path / 'known')[-1], InstructionBatches(examples(), tok, model.config, 6)
    seconds = sum(len(b.batch(k).pixel_values) for k in range(10)) / float(row['images_s'])
    want = sum(step_flops(model, picture_flops(model), b.batch(k)) for k in range(10)) / seconds / 1e10
    assert float(row['mfu']) == pytest.approx(want, rel=0.1)


# compile


def test_a_missing_compiler_is_told_before_the_run(tok, tmp_path, monkeypatch):
    def nothing(*a, **k):
        raise RuntimeError('No working C++ compiler found')

    monkeypatch.setattr(torch, 'compile', nothing)
    with pytest.raises(
        BadInput, match='compile needs a compiler: .*No working C.. compiler found.*leave compile out'
    ):
        fit(small(tok), tok, examples(), tmp_path, steps=1, compile=True, **SHORT)


def test_compiled_blocks_keep_names_and_losses_and_go_again(tok, tmp_path, monkeypatch):
    "With the tracer alone; the code is as slow as before, but made the same way"
    trace, used = torch.nn.Module.compile, []
    monkeypatch.setattr(torch, 'compile', lambda f, **k: f)

    def eager(self, **options):
        used.append(options)
        from torch._dynamo import optimize

        self._compiled_call_impl = optimize('eager', dynamic=True)(self._call_impl)

    monkeypatch.setattr(torch.nn.Module, 'compile', eager)
    plain, model = small(tok), small(tok)
    names = list(model.state_dict())
    want = fit(plain, tok, examples(), tmp_path / 'a', steps=3, **SHORT)['losses']
    got = fit(model, tok, examples(), tmp_path / 'b', steps=3, compile=True, **SHORT)['losses']
    assert used == [dict(dynamic=True)] * 4 and max(abs(a - b) for (_, a), (_, b) in zip(want, got)) < 1e-5
    assert list(model.state_dict()) == names and all(
        b._compiled_call_impl is None for b in repeated_blocks(model)
    )


@pytest.mark.slow
def test_a_compiled_run_is_the_run(tok, tmp_path):
    plain, model = small(tok), small(tok)
    want = fit(plain, tok, examples(), tmp_path / 'a', steps=3, **SHORT)['losses']
    got = fit(model, tok, examples(), tmp_path / 'b', steps=3, compile=True, **SHORT)['losses']
    assert max(abs(a - b) for (_, a), (_, b) in zip(want, got)) < 1e-4
