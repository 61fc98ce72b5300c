"""What each encoder is worth: nano with ViT only, CNN only and both; with all ViT layers and with the last.

    python benchmarks/ablation.py                          # all 15 runs, then the table
    python benchmarks/ablation.py --seeds 0                # in pieces: what lies in --out is not repeated
    python benchmarks/ablation.py --pace                   # only time a step of each, on a quiet machine

Each run trains a fresh nano on the whole-Earth pictures of the sample and their questions on land cover
(classification, presence, comparison; boxes are not learned in a minute), then answers the same validation
questions. Minutes are equal: first a step of each variant is timed, all in turns, and the number of steps
that fills --seconds is fixed and stored; so a busy machine does not matter during the runs. Intervals:
`eval.statistics.mean_interval`, blocks of 10 degrees and seeds both drawn.
"""

import argparse
import json
import os
import tempfile
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import torch

from earthgpt_lite.app.quickstart import machine, make_tokenizer, predict, versions
from earthgpt_lite.data.records import Task
from earthgpt_lite.data.sample.world_map import global_examples
from earthgpt_lite.eval.measures import exact_match
from earthgpt_lite.eval.statistics import mean_interval
from earthgpt_lite.model.config import nano_config
from earthgpt_lite.model.language import init_coordinate_embeddings
from earthgpt_lite.model.modeling import EarthGPT
from earthgpt_lite.train.fit import fit

VARIANTS = {  # name: fields of EarthGPTConfig
    'ViT and CNN, layers 1 2 3': dict(vision_encoders='both', vit_layers=(1, 2, 3)),
    'ViT and CNN, layer 3': dict(vision_encoders='both', vit_layers=(3,)),
    'ViT only, layers 1 2 3': dict(vision_encoders='vit', vit_layers=(1, 2, 3)),
    'ViT only, layer 3': dict(vision_encoders='vit', vit_layers=(3,)),
    'CNN only': dict(vision_encoders='cnn'),
}
TASKS = Task.CLASSIFICATION, Task.PRESENCE, Task.COMPARISON
PICTURES = 12  # in a batch
SEEDS = 0, 1, 2


def pictures(split) -> list:
    "Pictures of a split with their questions on land cover."
    kept = [replace(e, turns=[t for t in e.turns if t.task in TASKS]) for e in global_examples(split)]
    return [e for e in kept if e.turns]


def variant(tokenizer, fields) -> EarthGPT:
    "A fresh nano with some fields of its config changed."
    config = nano_config(tokenizer)
    for name, value in fields.items():
        setattr(config, name, value)
    model = EarthGPT(config)
    model.projector.start()
    init_coordinate_embeddings(model.language, tokenizer)
    model.language.set_attn_implementation('eager')
    return model


def train(fields, seed, steps, examples, tokenizer):
    "(model, what `fit` says, seconds of each step but the first two) after some steps."
    torch.manual_seed(seed)
    model = variant(tokenizer, fields)
    started = []  # when each step began
    hook = model.register_forward_pre_hook(lambda *_: started.append(time.perf_counter()))
    with tempfile.TemporaryDirectory() as folder:
        run = fit(
            model,
            tokenizer,
            examples,
            folder,
            steps=steps,
            batch_size=PICTURES,
            seed=seed,
            device='cpu',
            augment=False,
            progress=False,
        )
    hook.remove()
    return model, run, np.diff(started)[1:]


def paces(examples, tokenizer, rounds=3, steps=18) -> dict:
    "{variant: seconds of a step}, all variants in turns: the median step of a round, and the best round."
    medians = {name: [] for name in VARIANTS}
    for _ in range(rounds):
        for name, fields in VARIANTS.items():
            _, _, seconds = train(fields, 0, steps, examples, tokenizer)
            medians[name].append(float(np.median(seconds)))
    for name, each in medians.items():
        milliseconds = ' '.join(f'{1000 * s:6.0f}' for s in each)
        print(f'{name:26} {milliseconds} ms a step', flush=True)
    return {name: min(each) for name, each in medians.items()}


def one_run(fields, seed, steps, examples, held_out, tokenizer) -> dict:
    "Train and ask: settings and the answers, as far as they are scored."
    model, run, _ = train(fields, seed, steps, examples, tokenizer)
    rows = predict(model, tokenizer, held_out, baselines=False)['answers']
    last_losses = [loss for _, loss in run['losses'][-20:]]
    return dict(
        steps=run['steps'],
        pairs=run['pairs'],
        precision=run['precision'],
        parameters=model.num_parameters(),
        loss=float(np.mean(last_losses)),
        rows=[{k: p[k] for k in ('task', 'group', 'truth', 'answer')} for p in rows],
    )


def table(found, settings) -> dict:
    "Rows of the table from the runs: {variant: [run of each seed]}."
    rows = []
    for name, runs in found.items():
        row = dict(
            variant=name,
            parameters=runs[0]['parameters'],
            steps=runs[0]['steps'],
            pairs=[r['pairs'] for r in runs],
            scores={},
        )
        for task in TASKS:
            row['scores'][str(task)] = task_score(task, runs)
        rows.append(row)
    return settings | dict(rows=rows)


def task_score(task, runs) -> dict:
    "Accuracy over all seeds with its interval, and that of each seed."
    answers = [[p for p in run['rows'] if p['task'] == task] for run in runs]
    scores = np.array([[exact_match(p['answer'], p['truth']) for p in rows] for rows in answers])
    mean, interval = mean_interval(scores, [p['group'] for p in answers[0]])
    return dict(
        metric='accuracy',
        n=len(answers[0]),
        score=mean,
        seeds=scores.mean(1).round(4).tolist(),
        interval=list(interval),
    )


def write(path, data):
    "Write json whole or not at all."
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + '.part')
    part.write_text(json.dumps(data, indent=1), encoding='utf-8')
    os.replace(part, path)


def run_path(out, name, seed):
    return out / f'{name.replace(",", "").replace(" ", "-").lower()}-{seed}.json'


def read_run(out, name, seed) -> dict:
    return json.loads(run_path(out, name, seed).read_text(encoding='utf-8'))


def runs_to_do(out, seeds) -> list:
    "(variant, seed) of the runs that do not lie in the folder yet."
    return [(name, seed) for seed in seeds for name in VARIANTS if not run_path(out, name, seed).exists()]


def finish(args):
    "The table, if all runs are there."
    todo = runs_to_do(args.out, SEEDS)
    if todo:
        return print(f'{len(todo)} runs are still to be made: give the other seeds')
    pace = json.loads((args.out / 'pace.json').read_text(encoding='utf-8'))
    found = {name: [read_run(args.out, name, seed) for seed in SEEDS] for name in VARIANTS}
    for runs in found.values():
        if len({run['steps'] for run in runs}) > 1:
            raise SystemExit(
                f'{args.out} holds runs of unequal length: make them again, or give another --out'
            )
    first = next(iter(found.values()))[0]
    kept = ('date', 'precision', 'versions', 'training', 'pictures')
    settings = {k: pace[k] for k in ('seconds', 'machine', 'threads')} | dict(
        seeds=SEEDS, batch=PICTURES, milliseconds={n: round(1000 * s, 1) for n, s in pace['each'].items()}
    )
    write(args.table, table(found, settings | {k: first[k] for k in kept}))
    print(f'written: {args.table}')


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--seconds', type=float, default=60, help='of training, each run, at the pace of a quiet machine'
    )
    parser.add_argument(
        '--seeds', type=int, nargs='+', default=list(SEEDS), help='to run now; the table needs all of 0 1 2'
    )
    parser.add_argument('--pace', action='store_true', help='only time the steps')
    parser.add_argument('--out', type=Path, default=Path('runs/ablation'))
    parser.add_argument('--table', type=Path, default=Path('earthgpt_lite/assets/results/ablation.json'))
    args = parser.parse_args()
    todo = runs_to_do(args.out, args.seeds)
    pace = args.out / 'pace.json'
    if todo or not pace.exists():
        examples, held_out = pictures('train'), pictures('validation')
        tokenizer = make_tokenizer(examples)
        facts = dict(
            date=str(date.today()),
            machine=machine(),
            threads=torch.get_num_threads(),
            versions=versions(),
            training=len(examples),
            pictures=len(held_out),
        )
    if not pace.exists():
        each = paces(examples, tokenizer)
        steps = {name: round(args.seconds / s) for name, s in each.items()}
        settings = dict(seconds=args.seconds, machine=machine(), threads=torch.get_num_threads())
        write(pace, settings | dict(each=each, steps=steps))
    if args.pace:
        return
    steps = json.loads(pace.read_text(encoding='utf-8'))['steps']
    for name, seed in todo:
        run = one_run(VARIANTS[name], seed, steps[name], examples, held_out, tokenizer)
        write(run_path(args.out, name, seed), facts | run)
        print(f'{name:26} seed {seed}  {run["steps"]:4} steps  loss {run["loss"]:.3f}', flush=True)
    finish(args)


if __name__ == '__main__':
    main()
