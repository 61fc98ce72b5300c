"""A million records and their pictures, fed to a training run: time to the first batch, memory, grouping, idle time.

    python benchmarks/feed.py                      # all of it, in a temporary folder
    python benchmarks/feed.py --only start         # or: grouped, idle
    python benchmarks/feed.py --folder DIR         # keep what is generated there

`start`: a million records, five questions each about 200,000 pictures (links to 64 files). A run of `nano` in
the stage `project` begins in fresh processes: seconds from the start of the process to the first batch, with
nothing cached and with the index beside the records; then RssAnon after 1,000 batches, of one process and of
two (ddp). `grouped`: ten questions a picture, a record for each; answers a second of a training step of nano,
records of one picture put together and not, in turns, by processor time. `idle`: 8 pictures a step, JPEGs of
800 pixels for a model of 448, and a consumer that sleeps 60 ms instead of training: the share of the time that
it waits. `cpu_s` is the processor time of the process: the clock says more than that on a machine that does
other work.

RssAnon is read from /proc, so this runs on Linux only. The pictures' pages are not dropped from the cache of files.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from records import LABELS, memory_mb

STARTED = 'FEED_STARTED'  # the clock of the parent, seconds


# ---- data


def asked(picture, k):
    from earthgpt_lite.data.records import Task, Turn, sample_question

    label = LABELS[(picture + k) % len(LABELS)]
    task = (Task.COUNTING, Task.PRESENCE)[k % 2]
    answer = (str(picture * 7 % 97), ('yes', 'no')[picture % 2])[k % 2]
    return Turn(sample_question(task, label=label), answer, task)


def generated(pictures, questions):
    "A record for each question, as MMRS-1M has them: those of one picture do not stand together"
    from earthgpt_lite.data.records import Record

    for k in range(questions):
        for i in range(pictures):
            yield Record(f'{i % 1000:03d}/{i:06d}.jpg', [asked(i, k)], source='generated', split='train')


def write_pictures(folder, pictures, side, files=64):
    "Links to a few files of noise with structure; links within the folder, so that none leads out of it"
    from PIL import Image

    rng, own = np.random.default_rng(0), folder / 'files'
    own.mkdir()
    for k in range(files):
        coarse = Image.fromarray(rng.integers(0, 255, (side // 8, side // 8, 3), 'uint8'))
        fine = np.asarray(coarse.resize((side, side), Image.BICUBIC)).astype('int16')
        fine = (fine + rng.integers(-12, 12, fine.shape)).clip(0, 255).astype('uint8')
        Image.fromarray(fine).save(own / f'{k}.jpg', quality=90)
    for i in range(1000):
        (folder / f'{i:03d}').mkdir()
    for i in range(pictures):
        os.link(own / f'{i % files}.jpg', folder / f'{i % 1000:03d}' / f'{i:06d}.jpg')


def make_store(folder, pictures, questions, side):
    from earthgpt_lite.data.store import InstructionData

    if (folder / 'store' / 'info.json').exists():
        return folder / 'store'
    folder.mkdir(parents=True)
    write_pictures(folder, pictures, side)
    InstructionData.build(generated(pictures, questions), folder / 'store', folder)
    return folder / 'store'


# ---- from the start of a process to the first batch, and memory


def child(what, *args):
    env = os.environ | {STARTED: str(time.time())}
    done = subprocess.run(
        [sys.executable, __file__, '--child', what, *map(str, args)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{')]


def run_steps(store, out, steps, devices):
    "A run as the command line makes it, but for the model: its step is a sum, for it is not what is measured"
    import psutil
    from lightning.pytorch.callbacks import Callback

    from earthgpt_lite.model.loading import load
    from earthgpt_lite.model.modeling import EarthGPT, EarthGPTOutput
    from earthgpt_lite.train.examples import open_examples
    from earthgpt_lite.train.fit import fit
    from earthgpt_lite.train.stages import STAGES

    class Tell(Callback):
        def on_train_batch_start(self, trainer, module, batch, index):
            if index == 0:
                self.first = time.time() - float(os.environ[STARTED]), time.process_time()

        def on_train_end(self, trainer, module):
            children = psutil.Process().children(recursive=True)
            row = dict(rank=trainer.global_rank, first_batch_s=round(self.first[0], 1))
            row |= dict(first_batch_cpu_s=round(self.first[1], 1), rss_anon_mb=round(memory_mb('RssAnon')))
            others = [memory_mb('RssAnon', p.pid) for p in children if 'forkserver' in ' '.join(p.cmdline())]
            print(json.dumps(row | dict(workers_rss_anon_mb=[round(mb) for mb in others])), flush=True)

    def forward(model, **batch):
        total = sum(p.sum() for p in model.parameters() if p.requires_grad)
        return EarthGPTOutput(loss=total, loss_sum=total * 0 + 1, target_count=1)

    EarthGPT.forward = forward
    examples = open_examples(store, size=64)
    model, tokenizer = load('nano', 'cpu')
    options = dict(batch_size=24, device='cpu', precision='32-true', progress=False, checkpoint_every=10**9)
    options |= dict(devices=int(devices), strategy='ddp' if int(devices) > 1 else 'auto')
    fit(model, tokenizer, examples, out, STAGES['project'], steps=int(steps), callbacks=[Tell()], **options)


def start(folder, pictures=200_000, questions=5, steps=1000):
    from earthgpt_lite.train.examples import INDEX

    begun = time.perf_counter()
    store = make_store(folder / 'start', pictures, questions, side=96)
    out = dict(
        records=pictures * questions, pictures=pictures, generated_s=round(time.perf_counter() - begun)
    )
    for name, count, devices in (('uncached', 3, 1), ('cached', 3, 1), ('long', steps, 1), ('two', steps, 2)):
        if name == 'uncached':
            (store / INDEX).unlink(missing_ok=True)
        with tempfile.TemporaryDirectory() as run:
            out[name] = child('run_steps', store, run, count, devices)
        print(name, out[name], file=sys.stderr, flush=True)
    out['index_mb'] = round((store / INDEX).stat().st_size / 1e6)
    slowest = {name: max(row['first_batch_s'] for row in out[name]) for name in ('uncached', 'cached')}
    most = max(row['rss_anon_mb'] for name in ('long', 'two') for row in out[name])
    return out | dict(held=slowest['uncached'] < 60 and slowest['cached'] < 20 and most < 1000)


# ---- records of one picture together


def grouped(folder, pictures=240, questions=10, rounds=3, steps=4):
    import torch

    from earthgpt_lite.model.loading import load
    from earthgpt_lite.train.dataset import InstructionBatches
    from earthgpt_lite.train.examples import StoredExamples, open_store

    torch.set_num_threads(1)
    store = open_store(make_store(folder / 'grouped', pictures, questions, side=96))
    model, tokenizer = load('nano', 'cpu')
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    sets = {}
    for group in (True, False):
        examples = StoredExamples(store, 64, group=group)
        sets[group] = InstructionBatches(examples, tokenizer, model.config, 24, sequence_length=None)
    seconds, pairs = {True: [], False: []}, {g: b.pair_count(range(1, steps + 1)) for g, b in sets.items()}
    for k in range(rounds + 1):
        for group, batches in sets.items():
            begun = time.process_time()
            for step in range(1, steps + 1):
                model(**vars(batches.batch(step))).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            seconds[group] += [time.process_time() - begun] * (k > 0)  # the first round warms up
    rates = {group: pairs[group] / float(np.median(seconds[group])) for group in sets}
    return dict(
        grouped_answers_s=round(rates[True], 1),
        single_answers_s=round(rates[False], 1),
        times=round(rates[True] / rates[False], 2),
        held=rates[True] >= 2.5 * rates[False],
    )


# ---- a consumer that sleeps


def idle(folder, pictures=4000, steps=150, pause=0.06, workers=None):
    from earthgpt_lite.model.loading import load
    from earthgpt_lite.train.dataset import InstructionBatches
    from earthgpt_lite.train.loader import StepKeys, make_loader
    from earthgpt_lite.train.examples import StoredExamples, open_store

    store = open_store(make_store(folder / 'idle', pictures, 2, side=800))
    model, tokenizer = load('nano', 'cpu')
    examples, out = StoredExamples(store, 448), {}
    batches = InstructionBatches(examples, tokenizer, model.config, 8, sequence_length=None)
    begun = time.process_time()
    for i in range(40):
        examples[i].image
    out['pictures_s_core'] = round(40 / (time.process_time() - begun))
    for count in (0, 1, 2) if workers is None else (workers,):
        loader = iter(make_loader(batches, StepKeys(0, [0]), count))
        for _ in range(1 + 2 * count):  # until every worker has begun
            next(loader)
        waited, begun = 0.0, time.perf_counter()
        for _ in range(steps if count else 20):
            time.sleep(pause)
            asked_at = time.perf_counter()
            next(loader)
            waited += time.perf_counter() - asked_at
        out[f'idle_{count}_workers'] = round(waited / (time.perf_counter() - begun), 3)
        del loader
    return out | dict(held=min(v for k, v in out.items() if k.startswith('idle')) < 0.05)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--only', choices=['start', 'grouped', 'idle'])
    parser.add_argument('--folder', help='where to generate; default: a temporary folder, deleted afterwards')
    parser.add_argument('--child', nargs='+', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return run_steps(*args.child[1:])
    with tempfile.TemporaryDirectory() as room:
        folder, out = Path(args.folder or room), {}
        for work in (start, grouped, idle):
            if args.only in (None, work.__name__):
                out[work.__name__] = work(folder)
        print(json.dumps(out, indent=1))
    missed = [name for name, row in out.items() if not row['held']]
    assert not missed, f'over the bar: {missed}'


if __name__ == '__main__':
    main()
