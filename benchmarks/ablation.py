"""What the eyes are worth: nano with ViT only, CNN only and both; with all ViT layers and with the last only.

    python benchmarks/ablation.py [--seconds 40] [--seeds 0 1 2] [--every 2] [--out runs/ablation] [--table docs/ablation.json]

Each run trains a fresh nano for the same time on the training pictures of `earthgpt-lite quickstart` and answers the same
validation questions. Runs that lie in --out are not repeated, so that the work can be done in pieces (one seed at a time, on a
quiet machine). When all runs are there the table is written. An interval is 95 % of 2,000 resamples, in which blocks of
10 degrees and seeds are both drawn with replacement.
"""
import argparse
import json
import os
import tempfile
from datetime import date
from pathlib import Path

import numpy as np
import torch

from earthgpt_lite.language import order_coordinates
from earthgpt_lite.measures import measure
from earthgpt_lite.model import EarthGPT, nano_config
from earthgpt_lite.quickstart import machine, make_tokenizer, picture_features, predict, versions
from earthgpt_lite.things import optical_examples
from earthgpt_lite.training import fit

VARIANTS = {   # name: fields of EarthGPTConfig
    'ViT and CNN, layers 1 2 3': dict(perception='both', vit_layers=(1, 2, 3)),
    'ViT and CNN, layer 3': dict(perception='both', vit_layers=(3,)),
    'ViT only, layers 1 2 3': dict(perception='vit', vit_layers=(1, 2, 3)),
    'ViT only, layer 3': dict(perception='vit', vit_layers=(3,)),
    'CNN only': dict(perception='cnn'),
}
METRICS = dict(classification='accuracy', presence='accuracy', comparison='accuracy', grounding='meanIoU')


def variant(tokenizer, fields) -> EarthGPT:
    "A fresh nano with some fields of its config changed."
    config = nano_config(tokenizer)
    for name, value in fields.items(): setattr(config, name, value)
    model = EarthGPT(config)
    model.projector.start()
    order_coordinates(model.language, tokenizer)
    model.language.set_attn_implementation('eager')
    return model

def one_run(fields, seed, seconds, train, held_out, tokenizer) -> dict:
    "Train and ask: settings and the answers, as far as they are scored."
    torch.manual_seed(seed)
    model = variant(tokenizer, fields)
    with tempfile.TemporaryDirectory() as folder: run = fit(model, tokenizer, train, folder, minutes=seconds / 60, seed=seed, device='cpu', augment=False, progress=False)
    rows = [p for p in predict(model, tokenizer, held_out, picture_features(model, held_out)) if p['task'] in METRICS]
    return dict(seconds=run['seconds'], steps=run['steps'], pairs=run['pairs'], precision=run['precision'], parameters=model.num_parameters(),
                loss=float(np.mean([l for _, l in run['losses'][-20:]])), rows=[{k: p[k] for k in ('task', 'group', 'truth', 'answer')} for p in rows])

def draws_of(task, runs, repeats=2000):
    "Score of each run on a task, and of the mean over runs for each resample of blocks and runs."
    names = sorted({p['group'] for r in runs for p in r['rows']})
    place, rng = {n: i for i, n in enumerate(names)}, np.random.default_rng(0)
    weights = np.array([np.bincount(rng.integers(0, len(names), len(names)), minlength=len(names)) for _ in range(repeats)], float)
    own = [[p for p in r['rows'] if p['task'] == task] for r in runs]
    asks = [measure(METRICS[task], rows + [rows[0]], np.array([place[p['group']] for p in rows] + [len(names)])) for rows in own]   # the last place has weight 0
    pad = lambda w: np.concatenate([w, np.zeros((len(w), 1))], 1)
    scores = np.array([ask(pad(np.ones((1, len(names)))))[0] for ask in asks])
    drawn = np.stack([ask(pad(weights)) for ask in asks])                       # (runs, repeats)
    chosen = rng.integers(0, len(runs), (repeats, len(runs)))
    return scores, np.take_along_axis(drawn.T, chosen, 1).mean(1), len(own[0])

def table(found, settings) -> dict:
    "Rows of the table from the runs: {variant: [run of each seed]}."
    rows = []
    for name, runs in found.items():
        row = dict(variant=name, parameters=runs[0]['parameters'], steps=[r['steps'] for r in runs], scores={})
        for task, metric in METRICS.items():
            scores, drawn, n = draws_of(task, runs)
            row['scores'][task] = dict(metric=metric, n=n, score=float(scores.mean()), seeds=scores.round(4).tolist(), interval=np.quantile(drawn, [.025, .975]).tolist())
        rows.append(row)
    return settings | dict(rows=rows)

def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + '.part')
    part.write_text(json.dumps(data, indent=1), encoding='utf-8')
    os.replace(part, path)

def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--seconds', type=float, default=40, help='of training, each run')
    parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='to run now; the table needs all of 0 1 2')
    parser.add_argument('--every', type=int, default=2, help='ask about every so many validation pictures')
    parser.add_argument('--out', type=Path, default=Path('runs/ablation'))
    parser.add_argument('--table', type=Path, default=Path('docs/ablation.json'))
    args = parser.parse_args()
    settings = dict(seconds=args.seconds, every=args.every)
    name_of = lambda name, seed: args.out / f'{name.replace(",", "").replace(" ", "-").lower()}-{seed}.json'
    train, held_out = optical_examples('train'), optical_examples('validation')[::args.every]
    tokenizer = make_tokenizer(train)
    for seed in args.seeds:
        for name, fields in VARIANTS.items():
            path = name_of(name, seed)
            if path.exists() and json.loads(path.read_text())['settings'] == settings: continue
            run = one_run(fields, seed, args.seconds, train, held_out, tokenizer)
            write(path, dict(settings=settings, date=str(date.today()), machine=machine(), threads=torch.get_num_threads(), versions=versions()) | run)
            print(f'{name:26} seed {seed}  {run["steps"]:4} steps  loss {run["loss"]:.3f}', flush=True)
    paths = {name: [name_of(name, seed) for seed in (0, 1, 2)] for name in VARIANTS}
    lacking = [str(p) for ps in paths.values() for p in ps if not p.exists()]
    if lacking: return print(f'{len(lacking)} runs are still to be made: give the other seeds')
    found = {name: [json.loads(p.read_text()) for p in ps] for name, ps in paths.items()}
    if any(r['settings'] != settings for rs in found.values() for r in rs): raise SystemExit(f'{args.out} holds runs with other settings: make them again, or give another --out')
    first = next(iter(found.values()))[0]
    write(args.table, table(found, settings | {k: first[k] for k in ('date', 'machine', 'threads', 'precision', 'versions')} | dict(seeds=[0, 1, 2], training=len(train), pictures=len(held_out))))
    print(f'written: {args.table}')


if __name__ == '__main__':
    main()
