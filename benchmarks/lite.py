"""EarthGPT's order with real weights: lite-offline through `align`, then `tune`, a table after each, nano beside it.

    python benchmarks/lite.py       # about 18 minutes on two quiet cores; writes earthgpt_lite/assets/results/lite.json
    python benchmarks/lite.py --steps 4 2 --pictures 8 --into /tmp/lite.json   # does it run

Both stages are the recipes lite-offline-align and lite-offline-tune. Pictures are evenly drawn validation chips of
the whole Earth, asked for their dominant cover and what is present, and in the end as many of the test blocks;
prior, shuffled and blind as everywhere. Perplexity is of `perplexity.PLAIN`, against the untouched SmolLM2. CPU
seconds are of this process, so that other work on the machine counts little. A stage that is finished in its folder
is not trained again.
"""

import argparse
import json
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch

from earthgpt_lite.app.quickstart import evaluate, machine, versions
from earthgpt_lite.data.records import Task
from earthgpt_lite.data.sample.world_map import global_examples
from earthgpt_lite.data.store import write_json
from earthgpt_lite.eval.perplexity import perplexity
from earthgpt_lite.eval.report import results_table
from earthgpt_lite.model.loading import load
from earthgpt_lite.model.weights import build
from earthgpt_lite.train.run import train_command

TASKS = Task.CLASSIFICATION, Task.PRESENCE


def asked(examples, n):
    "Evenly drawn examples with their questions of TASKS only."
    kept = []
    for e in examples:
        turns = [t for t in e.turns if t.task in TASKS]
        if turns:
            kept.append(replace(e, turns=turns))
    return kept[:: max(1, len(kept) // n)][:n] if n else kept


def stage(name, out, steps, held_out, train, extra):
    "One recipe, trained if it is not there yet, and what it made."
    folder, cpu = out / name, time.process_time()
    if not (folder / 'run.json').exists():
        words = ['--config', name, '--out', str(folder), '--progress', 'false', *extra]
        if steps:
            words += ['--steps', str(steps)]
        train_command(words)
        record = json.loads((folder / 'run.json').read_text(encoding='utf-8')) | dict(
            cpu_seconds=round(time.process_time() - cpu)
        )
        write_json(record, folder / 'run.json')
    record = json.loads((folder / 'run.json').read_text(encoding='utf-8'))
    model, tokenizer = load(folder, 'cpu')
    rows = evaluate(model, tokenizer, held_out, train)[0]
    print(name, f'perplexity {perplexity(model, tokenizer):.2f}', results_table(rows), sep='\n', flush=True)
    keep = ('steps', 'images', 'pairs', 'seconds', 'cpu_seconds', 'last_loss', 'precision', 'peak_memory_mb')
    run = record['run']
    return dict(
        name=name,
        stage={k: run['stage'][k] for k in ('name', 'lr', 'rates')},
        batch_size=run['batch_size'],
        perplexity=perplexity(model, tokenizer),
        results=rows,
        **{k: record.get(k) for k in keep},
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', default='runs/lite-offline')
    parser.add_argument('--into', default='earthgpt_lite/assets/results/lite.json')
    parser.add_argument(
        '--steps', type=int, nargs=2, default=(0, 0), help='of the two stages; 0: as the recipes say'
    )
    parser.add_argument('--pictures', type=int, default=200, help='validation chips; 0: all')
    parser.add_argument('--nano', default='runs/quickstart', help='a nano to hold beside it')
    args = parser.parse_args()
    out, train = Path(args.out), global_examples('train')
    held_out = asked(global_examples('validation'), args.pictures)
    print(f'{len(held_out)} pictures, {sum(len(e.turns) for e in held_out)} questions', flush=True)
    found = dict(
        date=str(date.today()),
        machine=machine(),
        threads=torch.get_num_threads(),
        versions=versions(),
        pictures=len(held_out),
    )
    if (Path(args.nano) / 'run.json').exists() or (Path(args.nano) / 'model').exists():
        model, tokenizer = load(args.nano, 'cpu')
        found['nano'] = dict(
            model=Path(args.nano).name, results=evaluate(model, tokenizer, held_out, train)[0]
        )
        print('nano', results_table(found['nano']['results']), sep='\n', flush=True)
    model, tokenizer = build('lite-offline')
    found['untouched'] = perplexity(model, tokenizer)
    print(f'untouched: perplexity {found["untouched"]:.2f}', flush=True)
    del model
    first = stage('lite-offline-align', out, args.steps[0], held_out, train, [])
    second = stage(
        'lite-offline-tune', out, args.steps[1], held_out, train, ['--model', str(out / 'lite-offline-align')]
    )
    found['stages'] = [first, second]
    unseen = asked(global_examples('test'), args.pictures)  # nothing was chosen on these
    found['test'] = evaluate(*load(out / 'lite-offline-tune', 'cpu'), unseen, train)[0]
    if 'nano' in found:
        found['nano']['test'] = evaluate(*load(args.nano, 'cpu'), unseen, train)[0]
    for name, rows in (('lite-offline-tune', found['test']), ('nano', found.get('nano', {}).get('test'))):
        if rows:
            print(name, 'on test blocks', results_table(rows), sep='\n')
    write_json(found, args.into)


if __name__ == '__main__':
    main()
