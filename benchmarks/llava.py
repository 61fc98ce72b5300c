"""Question-answers a second of training: nano with shared pictures.

Against transformers' own Llava and its Trainer.

    python benchmarks/llava.py                                       # about twelve minutes on two quiet cores
    python benchmarks/llava.py --precision 32-true --rounds 1        # float32, one round
    python benchmarks/llava.py --answers 256 --rounds 1 --counts 4   # a quick look

Ours: `train.fit.fit`, all questions of a picture on one prefix, rows packed. Theirs:
`LlavaForConditionalGeneration` with the same ViT (three layers tapped), the same LLaMA, 64 visual tokens,
driven by `Trainer` with `group_by_length`, one question a row, labels on the answers only, texts tokenised
and pictures cut beforehand. Same pictures, questions, processor, threads, precision; AdamW and clipping on
both sides. Nano runs a CNN beside its ViT, Llava has none: `ViT only` is nano without it, for equal eyes.
Each side takes its best batch size. Theirs is timed twice: as it comes (sdpa), and with the attention that is
faster for short rows on a CPU (eager). Timed from the second step to the last, data and optimiser included;
an answer is counted by its end mark among the labels. Nothing is downloaded. Needs `accelerate` (in the extra
dev), which Trainer asks for.
"""

import argparse
import json
import logging
import random
import statistics
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
from earthgpt_lite.model.processor import picture_prefix, to_pixel_values
from earthgpt_lite.model.tokens import ChatFormat, IGNORE, encode_turns
from earthgpt_lite.model.vision import normalise_pixels
from earthgpt_lite.train.fit import fit
from earthgpt_lite.train.throughput import pick_precision

OURS, THEIRS = (12, 24, 48), (16, 32, 64)  # batch sizes tried: pictures, rows


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


def ours(examples, tokenizer, answers, batch, precision, vision_encoders='both', sequence_length=256) -> dict:
    "Nano through `fit`."
    torch.manual_seed(0)
    model = nano(tokenizer, vision_encoders=vision_encoders)
    clock = Clock(model, tokenizer.eos_token_id)
    each = sum(len(e.turns) for e in examples) / len(examples)
    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            tokenizer,
            examples,
            folder,
            steps=max(4, round(answers / each / batch) + 2),
            batch_size=batch,
            device='cpu',
            precision=precision,
            sequence_length=sequence_length,
            augment=False,
            progress=False,
        )
    return clock.result()


class Rows(torch.utils.data.Dataset):
    "One question a row, tokenised; and the collator that pads a batch and brings its pictures."

    def __init__(self, examples, tokenizer, config, answers):
        self.pictures = [to_pixel_values(e.image) for e in examples]
        self.pad = tokenizer.pad_token_id
        prefix = picture_prefix(config, tokenizer)
        rows = []
        for i, e in enumerate(examples):
            for question, answer in encode_turns(tokenizer, e.turns, ChatFormat(), e.name):
                prompt = prefix + question
                labels = [IGNORE] * len(prompt) + answer
                rows.append(dict(input_ids=prompt + answer, labels=labels, picture=i))
        random.Random(0).shuffle(rows)
        self.rows = rows[:answers]

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


def theirs(examples, tokenizer, answers, batch, precision, attention='sdpa') -> dict:
    "Llava of the same sizes through Trainer, for one epoch of so many questions."
    torch.manual_seed(0)
    config = nano_config(tokenizer)
    llava = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=config.vit_config,
            text_config=config.text_config,
            image_token_id=config.image_token_id,
            image_seq_length=config.visual_tokens,
            vision_feature_layer=[1, 2, 3],
            vision_feature_select_strategy='default',
        )
    )
    llava.set_attn_implementation(attention)
    clock = Clock(llava, tokenizer.eos_token_id)
    rows = Rows(examples, tokenizer, config, answers)
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
        trainer = Trainer(llava, args, data_collator=rows.batch, train_dataset=rows)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock.result()


def best(side, options, *args) -> dict:
    "The options with the highest rate."
    rates = {}
    for name, chosen in options.items():
        rates[name] = side(*args, **chosen)['rate']
        print(f'    {side.__name__:7}{name:22}{rates[name]:7.0f} question-answers a second', flush=True)
    return options[max(rates, key=rates.get)]


def compare(count, examples, tokenizer, answers, rounds, theirs_is, precision) -> dict:
    "All sides in turns at so many questions a picture; our batch size is chosen anew."
    tried = {f'{b} pictures': dict(batch=b, precision=precision) for b in OURS}
    fitted = dict(batch=OURS[-1], precision=precision, sequence_length=None)
    tried[f'{OURS[-1]} pictures, fitted'] = fitted
    mine = best(ours, tried, examples, tokenizer, answers)
    sides = {
        'ours': (ours, 3 * answers, mine),
        'ours, ViT only': (ours, 3 * answers, mine | dict(vision_encoders='vit')),
    }
    sides |= {f'theirs, {a}': (theirs, answers, chosen) for a, chosen in theirs_is.items()}
    found = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (side, many, options) in sides.items():
            found[name].append(side(examples, tokenizer, many, **options))
    rates = {name: [run['rate'] for run in runs] for name, runs in found.items()}

    def ratio(a, b):
        return statistics.median(x / y for x, y in zip(rates[a], rates[b]))

    rate = {name: statistics.median(some) for name, some in rates.items()}
    fill = {name: runs[0]['fill'] for name, runs in found.items()}
    our_sides, their_sides = list(sides)[:2], list(sides)[2:]
    ratios = {f'{a} / {b}': ratio(a, b) for a in our_sides for b in their_sides}
    return dict(questions=count, batch=mine['batch'], rate=rate, fill=fill, ratio=ratios)


def show(row):
    questions = '4 to 6' if row['questions'] == 'sample' else row['questions']
    print(f"{questions} questions a picture, {row['batch']} pictures a batch")
    for name, rate in row['rate'].items():
        print(f"    {name:18}{rate:6.0f} question-answers a second, fill {row['fill'][name]:.2f}")
    for name, ratio in row['ratio'].items():
        print(f'    {name:34}{ratio:6.2f}')


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        '--precision',
        choices=('32-true', 'bf16-mixed'),
        help='of both sides; left out: what the processor computes fast',
    )
    add(
        '--answers',
        type=int,
        default=768,
        help='of a timed run of theirs; ours runs through three times as many',
    )
    add('--rounds', type=int, default=3, help='both sides take turns')
    add(
        '--counts',
        nargs='+',
        default=['sample', '1', '2', '4', '8'],
        help='questions a picture: 1 to 8, or sample for 4 to 6',
    )
    add(
        '--processor',
        action='store_true',
        help='count the seconds that the processor works for this process, on a machine that is busy with '
        'other work; with one thread',
    )
    add('--json', type=Path, help='write the numbers there too')
    args = parser.parse_args()
    bad = [c for c in args.counts if c != 'sample' and c not in map(str, range(1, 9))]
    if bad:
        parser.error(f'--counts {bad[0]}: give 1 to 8, or sample')
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
    precision = args.precision or pick_precision('cpu')
    examples = [e for e in global_examples('train', 2400, per_picture=4) if len(e.turns) >= 8]
    tokenizer = make_tokenizer(examples)
    say_where(args, precision)
    print(f'{len(examples)} pictures')
    sample, enough = cut(examples, 'sample'), max(256, args.answers // 2)
    theirs_is = {}
    for attention in ('sdpa', 'eager'):
        common = dict(attention=attention, precision=precision)
        options = {f'{b} rows, {attention}': dict(batch=b, **common) for b in THEIRS}
        theirs_is[attention] = best(theirs, options, sample, tokenizer, enough)
    rows = []
    for count in args.counts:
        few = cut(examples, count)
        rows.append(compare(count, few, tokenizer, args.answers, args.rounds, theirs_is, precision))
        show(rows[-1])
    if args.json:
        found = dict(
            date=str(date.today()),
            machine=machine(),
            threads=torch.get_num_threads(),
            processor=args.processor,
            precision=precision,
            versions=versions(),
            theirs=theirs_is,
            rows=rows,
        )
        args.json.write_text(json.dumps(found, indent=1), encoding='utf-8')


if __name__ == '__main__':
    main()
