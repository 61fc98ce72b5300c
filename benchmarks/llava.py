"""Question-answers a second of training: nano with shared pictures against transformers' own Llava and its Trainer.

    python benchmarks/llava.py                                # under ten minutes on two quiet cores
    python benchmarks/llava.py --against ../before            # also this package as it is in another checkout
    python benchmarks/llava.py --counts 1 2 4 8               # other numbers of questions a picture
    python benchmarks/llava.py --rounds 1 --answers 256       # a quick look

Ours: `train.fit.fit` with its defaults (24 pictures a step, the best length of packed rows for each batch), all
questions of a picture on one prefix. Theirs: `LlavaForConditionalGeneration` with the same ViT (three layers
tapped), the same LLaMA, 64 visual tokens, driven by `Trainer` with `group_by_length`, labels on the answers only,
texts tokenised and pictures cut beforehand. It comes in two forms:

    one a row   one question a row, as transformers' examples train
    turns       all questions of a picture as turns of one row, as LLaVA and nanoVLM train; each turn sees the
                answers before it, which ours does not (`benchmarks/leak.py` measures what that is worth)

Same pictures, questions, processor, threads, precision; AdamW and clipping on all sides. Nano runs a CNN beside its
ViT, Llava has none: `ViT only` is nano without it, for equal eyes. Theirs takes its best of several batch sizes and
of two attentions (sdpa, as it comes, and eager, which is faster for short rows on a CPU); ours keeps its defaults.
Timed from the second step to the last, data and optimiser
included; an answer is counted by its end mark among the labels. Nothing is downloaded. Needs `accelerate` (in the
extra dev), which Trainer asks for.
"""

import argparse
import json
import logging
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from datetime import date
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)
from transformers.utils import logging as transformers_logging

from earthgpt_lite.app.quickstart import machine, make_tokenizer, versions
from earthgpt_lite.data.sample.world_map import global_examples
from earthgpt_lite.model.config import nano_config
from earthgpt_lite.model.modeling import nano
from earthgpt_lite.model.packing import build_sequence
from earthgpt_lite.model.processor import picture_prefix, to_pixel_values
from earthgpt_lite.model.tokens import ChatFormat, IGNORE, encode_turns
from earthgpt_lite.model.vision import normalise_pixels
from earthgpt_lite.train.fit import fit
from earthgpt_lite.train.throughput import pick_precision

ROWS = {'one a row': (16, 32, 64), 'turns': (12, 24, 48)}  # batch sizes that theirs may choose from
ATTENTIONS = ('sdpa', 'eager')


class Clock:
    "Counts learned answers and tokens of a model's calls, and the time between the second and the last."

    now = staticmethod(time.perf_counter)

    def __init__(self, model, end):
        self.end, self.at, self.answers, self.real, self.all = end, [], [], 0, 0
        model.register_forward_pre_hook(self.note, with_kwargs=True)

    def note(self, model, args, inputs):
        used = inputs['segment_ids'] if 'segment_ids' in inputs else inputs['attention_mask']
        self.at.append(self.now())
        self.answers.append(int((inputs['labels'] == self.end).sum()))
        self.real += int((used > 0).sum())
        self.all += used.numel()

    def result(self) -> dict:
        return dict(rate=sum(self.answers[1:-1]) / (self.at[-1] - self.at[1]), fill=self.real / self.all)


def cut(examples, count, seed=0):
    "Each picture with `count` of its questions, 4 to 6 of them for 'sample'."
    rng = random.Random(seed)
    shorter = []
    for example in examples:
        wanted = rng.randint(4, 6) if count == 'sample' else int(count)
        shorter.append(replace(example, turns=rng.sample(example.turns, wanted)))
    return shorter


def ours(examples, tokenizer, answers, precision, vision_encoders='both', **options) -> dict:
    "Nano through `fit` with its defaults."
    torch.manual_seed(0)
    model = nano(tokenizer, vision_encoders=vision_encoders)
    clock = Clock(model, tokenizer.eos_token_id)
    each = sum(len(e.turns) for e in examples) / len(examples)
    steps = max(4, round(answers / each / options.get('batch_size', 24)) + 2)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            tokenizer,
            examples,
            folder,
            steps=steps,
            device='cpu',
            precision=precision,
            augment=False,
            progress=False,
            **options,
        )
    return clock.result()


class Rows(torch.utils.data.Dataset):
    "Tokenised rows of one question or of all turns; and the collator that pads a batch and brings its pictures."

    def __init__(self, examples, tokenizer, config, answers, form, fewest):
        self.pictures = [to_pixel_values(e.image) for e in examples]
        self.pad = tokenizer.pad_token_id
        prefix, rows = picture_prefix(config, tokenizer), []
        for i, e in enumerate(examples):
            pairs = encode_turns(tokenizer, e.turns, ChatFormat(), e.name, form == 'turns')
            for some in [pairs] if form == 'turns' else [[pair] for pair in pairs]:
                row = build_sequence(some, prefix, shared=False)
                rows.append(dict(input_ids=row['input_ids'], labels=row['labels'], picture=i))
        random.Random(0).shuffle(rows)
        each = sum(len(e.turns) for e in examples) / len(rows)  # answers of a row
        self.rows = rows[: max(fewest, round(answers / each))]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]

    def batch(self, rows):
        def padded(key, value):
            return pad_sequence([torch.tensor(r[key]) for r in rows], batch_first=True, padding_value=value)

        ids = padded('input_ids', self.pad)
        pixels = torch.stack([self.pictures[r['picture']] for r in rows])
        return dict(
            input_ids=ids,
            labels=padded('labels', IGNORE),
            attention_mask=(ids != self.pad).long(),
            pixel_values=normalise_pixels(pixels, 64),
        )


def llava(tokenizer, attention):
    "Transformers' Llava with the ViT and the LLaMA of nano."
    torch.manual_seed(0)
    config = nano_config(tokenizer)
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=config.vit_config,
            text_config=config.text_config,
            image_token_id=config.image_token_id,
            image_seq_length=config.visual_tokens,
            vision_feature_layer=[1, 2, 3],
            vision_feature_select_strategy='default',
        )
    )
    model.set_attn_implementation(attention)
    return model, config


def theirs(examples, tokenizer, answers, precision, form, batch, attention) -> dict:
    "Llava of the same sizes through Trainer, for one epoch of so many questions."
    model, config = llava(tokenizer, attention)
    clock = Clock(model, tokenizer.eos_token_id)
    rows = Rows(examples, tokenizer, config, answers, form, 6 * batch)
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder,
            per_device_train_batch_size=batch,
            num_train_epochs=1,
            learning_rate=1e-3,
            use_cpu=True,
            bf16=precision.startswith('bf16'),
            train_sampling_strategy='group_by_length',
            save_strategy='no',
            logging_strategy='no',
            report_to='none',
            disable_tqdm=True,
            remove_unused_columns=False,
            dataloader_drop_last=True,
            dataloader_pin_memory=False,
            warmup_steps=50,
        )
        trainer = Trainer(model, args, data_collator=rows.batch, train_dataset=rows)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock.result()


class Before:
    "Ours as it is in another checkout: a process of its own, asked line by line."

    def __init__(self, folder, processor):
        words = [sys.executable, __file__, '--answer-lines', *(['--processor'] if processor else [])]
        pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.process = subprocess.Popen(words, env=os.environ | dict(PYTHONPATH=str(folder)), **pipes)

    def ask(self, count, answers, precision) -> dict:
        print(json.dumps([count, answers, precision]), file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith('{'):
                return json.loads(line)
        raise SystemExit('the package of --against could not be run: see above')


def answer_lines():
    "What the other process does: runs ours for each line, with the package that it finds."
    examples, tokenizer = data()
    for line in sys.stdin:
        count, answers, precision = json.loads(line)
        print(json.dumps(ours(cut(examples, count), tokenizer, answers, precision)), flush=True)


def best(examples, tokenizer, answers, precision, form, attention) -> dict:
    "The batch size with which theirs is fastest, with form and attention."
    rates = {}
    for batch in ROWS[form]:
        options = dict(form=form, attention=attention, batch=batch)
        rates[batch] = theirs(examples, tokenizer, answers, precision, **options)['rate']
        print(f'    {form}, {attention}, {batch} rows: {rates[batch]:.0f} a second', flush=True)
    return dict(form=form, attention=attention, batch=max(rates, key=rates.get))


def compare(count, examples, tokenizer, args, precision, before) -> dict:
    "All sides in turns at so many questions a picture; theirs with the best batch size."
    common = (examples, tokenizer)
    sides = {
        'ours': lambda: ours(*common, 3 * args.answers, precision),
        'ours, ViT only': lambda: ours(*common, 3 * args.answers, precision, 'vit'),
    }
    if before:
        sides['ours, before'] = lambda: before.ask(count, 3 * args.answers, precision)
    chosen = {}
    for form in ROWS:
        for attention in ATTENTIONS:
            name, many = f'{form}, {attention}', args.answers * (3 if form == 'turns' else 1)
            chosen[name] = best(*common, many // 2, precision, form, attention)
            sides[name] = lambda o=chosen[name], m=many: theirs(*common, m, precision, **o)
    runs = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, side in sides.items():
            runs[name].append(side())
    rates = {name: [run['rate'] for run in some] for name, some in runs.items()}
    return dict(questions=count, theirs=chosen, rates=rates, fill={n: r[0]['fill'] for n, r in runs.items()})


def show(row):
    "The rates of one number of questions, and ours divided by each of theirs: medians over the rounds."
    rates = row['rates']
    mine = [name for name in rates if name.startswith('ours')]
    questions = '4 to 6' if row['questions'] == 'sample' else row['questions']
    print(
        f'\n| {questions} questions a picture | a second | fill | {" | ".join(f"{m} / it" for m in mine)} |'
    )
    print(f'| --- | ---: | ---: | {" | ".join("---:" for _ in mine)} |')
    for name, some in rates.items():
        ratios = ['' for _ in mine]
        if name not in mine:
            ratios = [f'{statistics.median(a / b for a, b in zip(rates[m], some)):.2f}' for m in mine]
            name = f'{name}, {row["theirs"][name]["batch"]} rows'
        fill = row['fill'][name.rsplit(',', 1)[0] if name not in rates else name]
        print(f'| {name} | {statistics.median(some):.0f} | {fill:.2f} | {" | ".join(ratios)} |')
    print(flush=True)


def data():
    "Pictures with eight questions or more, and a tokenizer."
    examples = [e for e in global_examples('train', 2400, per_picture=4) if len(e.turns) >= 8]
    return examples, make_tokenizer(examples)


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        '--precision',
        choices=('32-true', 'bf16-mixed'),
        help='of all sides; left out: what the processor computes fast',
    )
    add(
        '--answers',
        type=int,
        default=768,
        help='of a timed run of one question a row; the others run through three times as many',
    )
    add('--rounds', type=int, default=3, help='the sides take turns')
    add(
        '--counts',
        nargs='+',
        default=['sample', '7'],
        help='questions a picture: 1 to 8, or sample for 4 to 6',
    )
    add('--against', type=Path, metavar='FOLDER', help='another checkout of this package, to be timed too')
    add(
        '--processor',
        action='store_true',
        help='count the seconds that the processor works for this process, on a machine that is busy with '
        'other work; with one thread',
    )
    add('--json', type=Path, help='write the numbers there too')
    add('--answer-lines', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args()
    bad = [c for c in args.counts if c != 'sample' and c not in map(str, range(1, 9))]
    if bad:
        parser.error(f'--counts {bad[0]}: give 1 to 8, or sample')
    if args.against and not (args.against / 'earthgpt_lite').is_dir():
        parser.error(f'--against {args.against}: no earthgpt_lite in it; give the folder of a checkout')
    return args


def quiet():
    for name in ('accelerate', 'lightning.pytorch'):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter('ignore')
    transformers_logging.set_verbosity_error()


def say_where(args, precision):
    wanted = ('python', 'torch', 'lightning', 'transformers')
    used = ', '.join(f'{name} {version}' for name, version in versions().items() if name in wanted)
    seconds = 'processor' if args.processor else 'clock'
    threads = torch.get_num_threads()
    print(f'{date.today()}, {machine()}, {threads} threads, {precision}, {seconds} seconds, {used}')


def main():
    args = arguments()
    if args.processor:
        Clock.now = staticmethod(time.process_time)
    quiet()
    if args.answer_lines:
        return answer_lines()
    precision = args.precision or pick_precision('cpu')
    before = Before(args.against.resolve(), args.processor) if args.against else None
    examples, tokenizer = data()
    say_where(args, precision)
    print(f'{len(examples)} pictures')
    rows = []
    for count in args.counts:
        few = cut(examples, count)
        rows.append(compare(count, few, tokenizer, args, precision, before))
        show(rows[-1])
    if args.json:
        found = dict(
            date=str(date.today()),
            machine=machine(),
            threads=torch.get_num_threads(),
            processor=args.processor,
            precision=precision,
            versions=versions(),
            rows=rows,
        )
        args.json.write_text(json.dumps(found, indent=1), encoding='utf-8')


if __name__ == '__main__':
    main()
