"""How much main memory a machine needs to train with the weights split over its processes (strategy fsdp).

    python benchmarks/split_memory.py                          # lite-offline, stage project, two processes on the CPU
    python benchmarks/split_memory.py --stage align --model runs/mine

Each process is asked every few milliseconds how much memory of its own it holds (RssAnon, so Linux only; pages of
files that are mapped do not count, the system takes them back when it likes). The sums are told by phase, less what
the same run takes with nano, as multiples of the weights. On a GPU the
shares, and all that a step makes, lie on the devices, and main memory is asked for opening and putting together
alone; here, on the CPU, shares count as well.
"""

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import torch
from lightning.pytorch.callbacks import Callback

from earthgpt_lite.data.sample.world_map import global_examples
from earthgpt_lite.train.checkpoints import is_first, save_artifact
from earthgpt_lite.train.fit import fit
from earthgpt_lite.train.run import open_model
from earthgpt_lite.train.stages import STAGES, prepare_stage

PHASES = dict(
    imported='before there is a model',
    opened='the first process opens it',
    dealt='shares are dealt',
    stepped='two steps, their last checkpoint',
    together='put together',
    saved='saved',
)


class Marks(Callback):
    def __init__(self, mark):
        self.mark = mark

    def on_train_start(self, trainer, module):
        self.mark('dealt')


def work(folder, name, stage):
    "One run, in each of its processes; what it reaches is noted with the time."

    def mark(phase):
        if is_first():
            with open(folder / 'marks', 'a', encoding='utf-8') as f:
                f.write(json.dumps([phase, time.time()]) + '\n')

    torch.set_num_threads(1)
    time.sleep(0.2)
    mark('imported')
    model, tokenizer = open_model(name, [], fresh=False, meta=not is_first())
    prepare_stage(model, STAGES[stage])
    if is_first():
        (folder / 'bytes').write_text(str(sum(p.nbytes for p in model.parameters())), encoding='utf-8')
    mark('opened')
    ended = []

    class Timed(Marks):
        def on_train_end(self, trainer, module):
            ended.append(True)

        def teardown(self, trainer, module, stage):
            if ended:  # what the steps have let go of is given back: on a GPU it never was main memory
                gc.collect()
                ctypes.CDLL(None).malloc_trim(0)
                self.mark('stepped')

    options = dict(steps=2, batch_size=2, devices=2, strategy='fsdp', device='cpu', progress=False)
    fit(
        model,
        tokenizer,
        global_examples('train', 20),
        folder,
        STAGES[stage],
        callbacks=[Timed(mark)],
        **options,
    )
    mark('together')
    if is_first():
        save_artifact(model, tokenizer, folder, STAGES[stage])
    mark('saved')


def held(pid):
    try:
        with open(f'/proc/{pid}/status', encoding='utf-8') as f:
            return 1024 * sum(int(line.split()[1]) for line in f if line.startswith(('RssAnon', 'RssShmem')))
    except (OSError, ValueError):
        return 0


def watch(command):
    "(time, bytes of all processes) while a command runs."
    # without a heap that keeps what was let go of, glibc gives every tensor back at once
    env = os.environ | dict(OMP_NUM_THREADS='1', MALLOC_MMAP_THRESHOLD_='131072')
    found, process = [], subprocess.Popen(command, env=env)
    top = psutil.Process(process.pid)
    while process.poll() is None:
        try:
            pids = [top.pid, *(p.pid for p in top.children(recursive=True))]
        except psutil.Error:
            break
        found.append((time.time(), sum(map(held, pids))))
        time.sleep(0.01)
    if process.wait():
        sys.exit(process.returncode)
    return found


def peaks(name, stage):
    "(bytes of the weights, {phase: the most that all processes held})."
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        seen = watch([sys.executable, __file__, '--model', name, '--stage', stage, '--work', str(folder)])
        marks = [json.loads(line) for line in (folder / 'marks').read_text(encoding='utf-8').splitlines()]
        size = int((folder / 'bytes').read_text(encoding='utf-8'))
    found, begin = {}, 0
    for phase, end in marks:
        found[phase] = max((most for t, most in seen if begin < t <= end), default=0)
        begin = end
    return size, found


def measure(name, stage):
    small, base = peaks('nano', stage)
    size, found = peaks(name, stage)
    print(f'{name}, stage {stage}: weights {size / 1e6:,.0f} MB')
    print('| phase | most of both processes | with nano | copies of the weights |')
    print('| --- | ---: | ---: | ---: |')
    for phase, most in found.items():
        copies = (most - base[phase] + (small if phase != 'imported' else 0)) / size
        print(f'| {PHASES[phase]} | {most / 1e6:,.0f} MB | {base[phase] / 1e6:,.0f} MB | {copies:.2f} |')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--model', default='lite-offline')
    parser.add_argument('--stage', default='project')
    parser.add_argument('--work', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(Path(args.work), args.model, args.stage)
    else:
        measure(args.model, args.stage)
