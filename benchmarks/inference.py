"""Inference: numbers of 16 and of 8 bits against 32, and what `evaluate` takes of memory.

    python benchmarks/inference.py rate --model lite-offline   # or a run, a saved model; about 5 minutes on two cores
    python benchmarks/inference.py rate --model nano --pictures 60
    python benchmarks/inference.py memory                      # about 6 minutes

rate: the same questions on evenly drawn validation pictures, all kinds in turns in one process, in batches and one by
one. An answer is equal where its text is that of float32. `--processor` counts the processor time of this process,
for a machine that is not quiet; with it, give OMP_NUM_THREADS=1.

memory: `evaluate` of pictures in files, one question each, in a process of its own for each line; its peak.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from earthgpt_lite.boxes.layout import fit_picture
from earthgpt_lite.data.sample.world_map import global_examples
from earthgpt_lite.eval.runner import evaluate_model
from earthgpt_lite.model.generation import generate_answers
from earthgpt_lite.model.loading import is_built, load
from earthgpt_lite.model.precision import DTYPES, cast, computes, quantize_blocks
from earthgpt_lite.model.processor import to_pixel_values
from earthgpt_lite.model.weights import build
from earthgpt_lite.train.throughput import peak_memory_mb


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('what', choices=('rate', 'memory', 'evaluate'))
    parser.add_argument('--model', default='nano')
    parser.add_argument('--kinds', nargs='+', default=['float32', 'bf16', 'fp16', 'int8', 'int8 bf16'])
    parser.add_argument('--pictures', type=int, nargs='+', default=None)
    parser.add_argument('--batch-sizes', type=int, nargs='+', default=[32, 128])
    parser.add_argument('--alone', type=int, default=12, help='questions that are asked one by one')
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--processor', action='store_true')
    return parser.parse_args()


def asked_about(count, size):
    "Pictures, and all their questions: [(index of the picture, question)]."
    examples = global_examples('validation', None)
    chosen = [examples[i] for i in np.linspace(0, len(examples) - 1, count).astype(int)]
    pixels = [to_pixel_values(fit_picture(e.image, size)) for e in chosen]
    return pixels, [(k, turn.question) for k, e in enumerate(chosen) for turn in e.turns]


def as_kind(model, kind):
    "A copy of the model that keeps its numbers so."
    model = deepcopy(model)
    for word in kind.split():
        if word == 'int8':
            quantize_blocks(model)
        else:
            cast(model, DTYPES[word])
    return model


def rates(args):
    "Answers a second of each kind, in turns, and how many are those of float32."
    clock = time.process_time if args.processor else time.perf_counter
    model, tokenizer = build(args.model) if is_built(args.model) else load(args.model, 'cpu', dtype='float32')
    count = (args.pictures or [40])[0]
    pixels, questions = asked_about(count, model.config.image_size)
    able = [
        kind for kind in args.kinds if all(computes('cpu', DTYPES[w]) for w in kind.split() if w in DTYPES)
    ]
    models = {kind: as_kind(model, kind) for kind in able}

    def together(kind):
        return generate_answers(models[kind], tokenizer, pixels, questions)

    def alone(kind):
        few = questions[:: max(1, len(questions) // args.alone)][: args.alone]
        return [generate_answers(models[kind], tokenizer, pixels, [q])[0] for q in few]

    for way in (together, alone):
        answers = {kind: way(kind) for kind in able}  # the first time is not timed
        seconds = {kind: [] for kind in able}
        for _ in range(args.rounds):
            for kind in able:
                start = clock()
                way(kind)
                seconds[kind].append(clock() - start)
        tell(args, way.__name__, answers, seconds)


def tell(args, way, answers, seconds):
    plain, slow = answers['float32'], seconds['float32']
    print(f'{args.model}, {way}: {len(plain)} questions, {torch.get_num_threads()} threads', end='')
    print(', processor time' if args.processor else '')
    for kind, found in answers.items():
        rate = len(plain) / statistics.median(seconds[kind])
        ratio = statistics.median(a / b for a, b in zip(slow, seconds[kind]))
        same = sum(a[0] == b[0] for a, b in zip(plain, found)) / len(plain)
        off = statistics.median(abs(a[1] - b[1]) for a, b in zip(plain, found))
        print(
            f'{kind:10} {rate:8.2f} a second  {ratio:5.2f} times  {same:7.1%} equal  scores off {off:.1e}',
            flush=True,
        )


def write_records(folder, count):
    "Pictures in files, a question each."
    rng, rows = np.random.default_rng(0), []
    for k in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        coarse.resize((64, 64)).save(folder / f'{k}.png')
        asked = dict(**{'from': 'human'}, value='<image>\nwhat does most of this image show?')
        told = dict(**{'from': 'gpt'}, value='water')
        rows.append(dict(image=f'{k}.png', conversations=[asked, told]))
    (folder / 'records.json').write_text(json.dumps(rows), encoding='utf-8')


def evaluate(args):
    "One evaluation, in this process, and its peak."
    with tempfile.TemporaryDirectory() as home:
        home = Path(home)
        write_records(home, args.pictures[0])
        quiet = dict(baselines=False, progress=False, say=None, batch_size=args.batch_sizes[0])
        metrics = evaluate_model(args.model, home / 'records.json', home / 'out', device='cpu', **quiet)
    print(json.dumps(dict(peak=peak_memory_mb(), seconds=metrics['seconds'])))


def memory(args):
    "The peak of the process over pictures and batch sizes."
    print('pictures  at a time  peak, MB  seconds', flush=True)
    for count in args.pictures or (250, 1000, 2000):
        for size in args.batch_sizes:
            words = ['evaluate', '--model', args.model, '--pictures', str(count), '--batch-sizes', str(size)]
            out = subprocess.run(
                [sys.executable, '-W', 'ignore', __file__, *words], stdout=subprocess.PIPE, check=True
            )
            found = json.loads(out.stdout.splitlines()[-1])
            print(f'{count:8,}  {size:9}  {found["peak"]:8,.0f}  {found["seconds"]:7.1f}', flush=True)


if __name__ == '__main__':
    args = arguments()
    dict(rate=rates, memory=memory, evaluate=evaluate)[args.what](args)
