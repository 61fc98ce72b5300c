"""One million generated records: how long the build takes, how long until the first batch, how much memory.

    python benchmarks/records.py [--records 1000000] [--folder DIR]

The first batch is timed in a fresh process: open the store, take 64 shuffled records. Anonymous memory (RssAnon) is
what counts, for mapped pages belong to the file and can be dropped; it is read from /proc, so on Linux only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LABELS = ('ships', 'planes', 'cars', 'trees', 'bridges', 'harbours', 'tanks', 'courts')


def generated(n):
    from earthgpt_lite.data.records import Record, Task, Turn, sample_question

    tasks = (Task.COUNTING, Task.PRESENCE, Task.GROUNDING)
    for i in range(n):
        label = LABELS[i % len(LABELS)]
        answers = (
            str(i % 97),
            ('yes', 'no')[i % 2],
            f'[0.{i % 40 + 10},0.{i % 30 + 10},0.{i % 40 + 50},0.{i % 30 + 60}]',
        )
        turns = [Turn(sample_question(t, label=label), a, t) for t, a in zip(tasks, answers)]
        yield Record(f'images/{i // 1000:04d}/{i:07d}.png', turns, source='generated', split='train')


def memory_mb(key, process='self'):
    for line in Path(f'/proc/{process}/status').read_text(encoding='utf-8').splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    return float('nan')


def first_batch(folder):
    start, before = time.perf_counter(), memory_mb('RssAnon')
    from earthgpt_lite.data.store import InstructionData

    data = InstructionData(folder)
    opened = time.perf_counter() - start
    batch = next(data.batches(64, seed=0))
    first = time.perf_counter() - start
    start = time.perf_counter()
    n = sum(len(b) for _, b in zip(range(200), data.batches(64, seed=0)))
    rate = n / (time.perf_counter() - start)
    return dict(
        records=len(data),
        opened_s=round(opened, 2),
        first_batch_s=round(first, 2),
        batch=len(batch),
        shuffled_records_per_s=round(rate),
        rss_anon_mb=round(memory_mb('RssAnon')),
        rss_file_mb=round(memory_mb('RssFile')),
        rss_anon_before_mb=round(before),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--records', type=int, default=1_000_000)
    parser.add_argument('--folder', help='where to build; default: a temporary folder, deleted afterwards')
    parser.add_argument('--open', help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.open:
        print(json.dumps(first_batch(args.open)))
        return
    from earthgpt_lite.data.store import InstructionData, validate, write_rows

    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        lines, store = Path(folder) / 'records.jsonl', Path(folder) / 'store'
        out = dict(
            write_jsonl_s=seconds(write_rows, generated(args.records), lines),
            validate_s=seconds(validate, lines),
            build_arrow_s=seconds(InstructionData.build, lines, store),
        )
        out |= jsonl_mb(lines, store) | {'build_rss_anon_mb': round(memory_mb('RssAnon'))}
        told = subprocess.run(
            [sys.executable, __file__, '--open', str(store)], capture_output=True, text=True, check=True
        )
        out |= json.loads(told.stdout)
    print(json.dumps(out, indent=1))
    assert out['first_batch_s'] < 20 and out['rss_anon_mb'] < 1000, (
        'over the bar: first batch within 20 s, RssAnon under 1,000 MB'
    )


def seconds(work, *args):
    start = time.perf_counter()
    work(*args)
    return round(time.perf_counter() - start, 1)


def jsonl_mb(lines, store):
    return {
        'jsonl_mb': round(lines.stat().st_size / 1e6),
        'arrow_mb': round(sum(f.stat().st_size for f in store.glob('*.arrow')) / 1e6),
    }


if __name__ == '__main__':
    main()
