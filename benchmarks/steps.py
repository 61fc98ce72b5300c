"""What a training step costs: nano and lite through `fit`, plain, with compiled blocks, with activations made again.

    python benchmarks/steps.py                                 # on a GPU where there is one, else on the CPU
    python benchmarks/steps.py --models nano --ways plain --steps 12
    python benchmarks/steps.py --strategy fsdp --ways plain    # weights split, if only over one process

Every row is a process of its own, so that peak memory is its own. Timed from the sixth step to the last, data and
optimiser included; a token is one that is not padding. Peak memory is what torch allocated on a GPU, or the largest
resident size of the process on a CPU. FLOPs are counted as lesson 5_train/09_throughput does; MFU is their share of what the GPU's
maker promises in 16 bits. Rows are printed as a table for docs/benchmarks.md.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import date

import torch
from lightning.pytorch.callbacks import Callback

from earthgpt_lite.app.quickstart import machine, versions
from earthgpt_lite.data.sample.world_map import global_examples
from earthgpt_lite.model.processor import pick_device
from earthgpt_lite.train.fit import fit
from earthgpt_lite.train.run import open_model
from earthgpt_lite.train.stages import STAGES
from earthgpt_lite.train.throughput import (
    peak_flops,
    peak_memory_mb,
    pick_precision,
    picture_flops,
    step_flops,
)

WAYS = dict(
    plain={},
    compile=dict(compile=True),
    gradient_checkpointing=dict(gradient_checkpointing=True),
    both=dict(compile=True, gradient_checkpointing=True),
)
FIRST = 5  # steps that are not timed


class Steps(Callback):
    "Time, tokens and FLOPs of the steps behind the first ones."

    def __init__(self, model):
        self.picture = picture_flops(model)
        self.seconds, self.flops = 0.0, 0.0
        self.tokens, self.count = 0, 0

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if module.device.type == 'cuda':
            torch.cuda.synchronize()
        now = time.perf_counter()
        if trainer.global_step > FIRST:
            self.seconds, self.count = self.seconds + now - self.last, self.count + 1
            self.tokens += int((batch.segment_ids > 0).sum())
            self.flops += step_flops(module.model, self.picture, batch)
        self.last = time.perf_counter()  # the count of FLOPs is not timed


def measure(name, way, steps, batch, device, strategy) -> dict:
    "One row, in this process."
    examples = global_examples('train', 1200)
    torch.manual_seed(0)
    model, tokenizer = open_model(name, examples)
    counted = Steps(model)
    stage = STAGES['scratch' if name == 'nano' else 'align']
    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            tokenizer,
            examples,
            folder,
            stage,
            steps=steps,
            batch_size=batch,
            device=device,
            augment=False,
            progress=False,
            strategy=strategy,
            callbacks=[counted],
            say=lambda text: None,
            **WAYS[way],
        )
    peak = peak_flops(torch.cuda.get_device_name()) if device == 'cuda' else None
    memory = torch.cuda.max_memory_allocated() / 1e6 if device == 'cuda' else peak_memory_mb()
    return dict(
        model=name,
        stage=stage.name,
        way=way,
        batch=batch,
        ms=1e3 * counted.seconds / counted.count,
        tokens_s=counted.tokens / counted.seconds,
        memory_mb=memory,
        gflops_s=counted.flops / counted.seconds / 1e9,
        mfu=counted.flops / counted.seconds / peak if peak else None,
    )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--models', nargs='+', default=['nano', 'lite-offline'])
    parser.add_argument('--ways', nargs='+', default=list(WAYS), choices=list(WAYS))
    parser.add_argument('--steps', type=int, default=30)
    parser.add_argument('--batch', type=int, default=24, help='pictures of a step')
    parser.add_argument('--device', default='auto')
    parser.add_argument('--strategy', default='auto', choices=('auto', 'fsdp'))
    parser.add_argument('--row', nargs=2, metavar=('MODEL', 'WAY'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.steps <= FIRST + 1:
        parser.error(f'--steps {args.steps}: the first {FIRST} are not timed; give more')
    device = pick_device(args.device)
    if args.row:
        return print(json.dumps(measure(*args.row, args.steps, args.batch, device, args.strategy)))
    shown = ('python', 'torch', 'lightning', 'transformers')
    packages = ', '.join(f'{k} {v}' for k, v in versions().items() if k in shown)
    print(
        f'{date.today()}, {machine()}, {torch.get_num_threads()} threads, {pick_precision(device)}, ', end=''
    )
    print(f'strategy {args.strategy}, {packages}')
    print(f'| {" | ".join(COLUMNS)} |')
    print('| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |')
    for name in args.models:
        for way in args.ways:
            print(f'| {" | ".join(measured_row(name, way, args.batch))} |', flush=True)


COLUMNS = (
    'model',
    'stage',
    'pictures',
    'way',
    'a step, ms',
    'tokens a second',
    'peak memory, MB',
    'GFLOPs a second',
    'MFU',
)


def measured_row(name, way, batch) -> list:
    "The cells of one row, measured in a process of its own with the same options."
    words = [sys.executable, __file__, *sys.argv[1:], '--row', name, way]
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        problem = done.stderr.strip().splitlines()[-1][:120]
        return [name, '', str(batch), way, f'failed: {problem}', '', '', '', '']
    r = json.loads(done.stdout.strip().splitlines()[-1])
    numbers = [f'{r[k]:,.0f}' for k in ('ms', 'tokens_s', 'memory_mb', 'gflops_s')]
    mfu = '' if r['mfu'] is None else f'{r["mfu"]:.1%}'
    return [name, r['stage'], str(r['batch']), way, *numbers, mfu]


if __name__ == '__main__':
    main()
