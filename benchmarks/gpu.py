"""The page that a GPU fills by itself: how fast, how full, how much memory, and whether several agree with one.

    python benchmarks/gpu.py                       # one GPU or all of this machine, under ten minutes, no network
    python benchmarks/gpu.py --models lite base    # fewer sizes
    python benchmarks/gpu.py --toy --page page.md  # tiny sizes, on a CPU too: only to see that it runs

It writes the section between `<!-- gpu: begin -->` and `<!-- gpu: end -->` of docs/benchmarks.md anew, and nothing
else. Weights are random, of the sizes of the presets; pictures are JPEGs of 800 pixels in a temporary folder, ten
questions each. A ladder is climbed rung by rung through `train.fit.fit`, each rung for the same time, with about the
same number of tokens a step:

    naive           one question a row, rows padded, pictures decoded by the training process
    workers         pictures decoded by processes of their own
    packing         rows packed into rows of the best length
    shared prefix   all questions of a picture behind one picture
    compile         the repeated blocks compiled
    flash           flash attention
    flex            FlexAttention, which leaves out blocks that nobody may see

A rung that does not run says why. MFU counts what the maths needs: vision included, attention over allowed pairs
alone, no padding, as a share of the peak of the GPU in 16 bits. `data` is the share of the time in which the GPU waits
for a batch. Then small runs: fp16 with its scaler, ddp against one process, fsdp that saves and is loaded again. They
start their processes as Lightning does, all GPUs of this machine.
"""

import argparse
import gc
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, fields, replace
from datetime import date
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import Callback
from PIL import Image

from earthgpt_lite.app.quickstart import machine, versions
from earthgpt_lite.data.records import Sensor, Task, Turn
from earthgpt_lite.files import write_whole
from earthgpt_lite.model.modeling import EarthGPT
from earthgpt_lite.model.packing import prefix_causal_mask
from earthgpt_lite.model.presets import preset_config, read_preset
from earthgpt_lite.model.tokens import train_tokenizer
from earthgpt_lite.train.fit import FitOptions, fit
from earthgpt_lite.train.stages import STAGES
from earthgpt_lite.train.throughput import (
    peak_flops,
    peak_memory_mb,
    pick_precision,
    picture_flops,
    step_flops,
)

BEGIN, END = '<!-- gpu: begin -->', '<!-- gpu: end -->'
PAGE = Path(__file__).parents[1] / 'docs' / 'benchmarks.md'
PICTURES = dict(nano=64, lite=32, base=8)  # of a step in which the questions of a picture are together
QUESTIONS, SIDE = 10, 800
WARM = 4  # steps that are not timed


@dataclass(frozen=True)
class Rung:
    "One step of the ladder: what of `fit` and of the data it changes."

    alone: bool = False  # one question a row
    packed: bool = True
    workers: bool = True
    compile: bool = False
    attention: str = 'sdpa'


LADDER = {
    'naive': Rung(alone=True, packed=False, workers=False),
    'workers': Rung(alone=True, packed=False),
    'packing': Rung(alone=True),
    'shared prefix': Rung(),
    'compile': Rung(compile=True),
    'flash': Rung(attention='flash_attention_2'),
    'flex': Rung(attention='flex_attention'),
}


class Photo:
    "An example whose picture is decoded when it is asked for."

    split, sensor = 'train', Sensor.OPTICAL

    def __init__(self, file, side, turns, name):
        self.file, self.side, self.turns, self.name = file, side, turns, name
        self.signature, self.place = str(name), {}

    @property
    def image(self):  # (side, side, 3) uint8
        with Image.open(self.file) as picture:
            picture.draft('RGB', (self.side, self.side))
            return np.asarray(picture.resize((self.side, self.side)))


def make_photos(folder, count, side, questions) -> list:
    "Photos with as many questions each as are asked for."
    rng, words = (
        np.random.default_rng(0),
        'river harbour field forest runway ship bridge road lake dune'.split(),
    )
    photos = []
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (25, 25, 3), dtype=np.uint8))
        coarse.resize((SIDE, SIDE)).save(folder / f'{i}.jpg', quality=90)
        turns = []
        for k in range(questions):
            word, other = rng.choice(words, 2)
            asked = f'is there a {word} beside the {other} in the part number {k} of this image?'
            turns.append(Turn(asked, f'yes, one {word}' if k % 2 else 'no', Task.PRESENCE))
        photos.append(Photo(folder / f'{i}.jpg', side, turns, f'photo/{i}'))
    return photos


def one_by_one(photos) -> list:
    "The same, each question an example of its own."
    return [Photo(p.file, p.side, [t], f'{p.name}/{k}') for p in photos for k, t in enumerate(p.turns)]


def make_tokenizer(photos):
    return train_tokenizer([f' {text}' for p in photos for t in p.turns for text in (t.question, t.answer)])


def make_model(name, tokenizer, device, toy=False):
    "A model of a preset's sizes with random weights; the tokenizer's words are the first of its vocabulary."
    preset = read_preset(name)
    words = preset.config['text_config']['vocab_size'] if preset.weights.get('text') else len(tokenizer)
    config = preset_config(replace(preset, weights={}), tokenizer)
    config.text_config.vocab_size = max(words, len(tokenizer))
    if toy:
        config.text_config.num_hidden_layers, config.vit_layers = 1, [1]
    torch.manual_seed(0)
    with torch.device(device):
        model = EarthGPT(config).to(getattr(torch, preset.dtype))
    model.projector.start()
    return model


def needed_flops(model, picture, batch) -> float:
    "`step_flops`, but attention over allowed pairs alone."
    tokens, length = int((batch.segment_ids > 0).sum()), batch.segment_ids.shape[1]
    seen = prefix_causal_mask(batch.segment_ids, batch.prefix_ids)
    allowed = int(seen[batch.segment_ids > 0].sum())
    full = step_flops(model, picture, batch)
    twice = step_flops(model, picture, replace(batch, segment_ids=F.pad(batch.segment_ids, (0, length))))
    attention = twice - full  # it grows with the length of a row, and nothing else does
    return full - attention * (1 - allowed / (tokens * length))


class Meter(Callback):
    "Time, waiting and counts of the steps behind the first ones; ends the run when its time is over."

    def __init__(self, model, seconds):
        self.picture, self.most = picture_flops(model), seconds
        self.steps = self.pictures = self.questions = self.tokens = 0
        self.seconds, self.waited, self.flops, self.counted = 0.0, 0.0, 0.0, 0

    def on_train_batch_start(self, trainer, module, batch, index):
        self.begun = time.perf_counter()

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if module.device.type == 'cuda':
            torch.cuda.synchronize()
        now = time.perf_counter()
        if trainer.global_step > WARM:
            self.steps += 1
            self.seconds += now - self.last
            self.waited += self.begun - self.last
            self.pictures += len(batch.pixel_values)
            self.questions += self._questions(batch)
            self.tokens += int((batch.segment_ids > 0).sum())
            if self.counted < 3:  # the rest is alike
                self.flops += needed_flops(module.model, self.picture, batch) / self._questions(batch)
                self.counted += 1
        trainer.should_stop = self.steps > 1 and self.seconds > self.most
        self.last = time.perf_counter()

    def _questions(self, batch):  # each picture is a segment, and so is each question
        return int(batch.segment_ids.amax(1).sum()) - len(batch.pixel_values)

    def result(self, peak) -> dict:
        each = self.flops / self.counted
        return dict(
            questions_s=self.questions / self.seconds,
            pictures_s=self.pictures / self.seconds,
            tokens_s=self.tokens / self.seconds,
            step_ms=1e3 * self.seconds / self.steps,
            data=self.waited / self.seconds,
            flops=each,
            mfu=each * self.questions / self.seconds / peak if peak else None,
        )


class Bench:
    "What all rungs share."

    def __init__(self, args, device, folder):
        self.args, self.device, self.folder = args, device, folder
        self.peak = peak_flops(torch.cuda.get_device_name()) if device == 'cuda' else None
        self.workers = min(8, max(1, (os.cpu_count() or 2) - 1))
        self.end = time.monotonic() + 60 * args.minutes

    @cached_property
    def questions(self):
        return 3 if self.args.toy else QUESTIONS

    def climb(self, name) -> list:
        "The rows of a model, one for each rung."
        side = read_preset(name).config.get('image_size', 64)
        photos = make_photos(self.folder, 8 if self.args.toy else 96, side, self.questions)
        tokenizer, rows = make_tokenizer(photos), []
        for title in self.args.rungs:
            rung, start = LADDER[title], time.monotonic()
            batch = 2 if self.args.toy else self.args.batch or PICTURES.get(name, 8)
            row = self.tried(name, rung, photos, tokenizer, batch)
            rows.append(dict(model=name, rung=title, took=time.monotonic() - start) | row)
            print(row_text(rows[-1]), flush=True)
        return rows

    def tried(self, name, rung, photos, tokenizer, batch) -> dict:
        "The numbers of a rung, or why there are none. Where memory is too small, half the batch."
        if time.monotonic() > self.end:
            return dict(why='no time was left')
        if rung.workers and not any(f.name == 'workers' for f in fields(FitOptions)):
            rung = replace(rung, workers=False)
        try:
            return self.measure(name, rung, photos, tokenizer, batch)
        except torch.OutOfMemoryError:
            pass
        except Exception as e:
            return dict(why=first_words(e))
        self.forget()
        if batch == 1:
            return dict(why='one picture at a time does not fit')
        return self.tried(name, rung, photos, tokenizer, batch // 2)

    def measure(self, name, rung, photos, tokenizer, batch) -> dict:
        model = make_model(name, tokenizer, self.device, self.args.toy)
        if rung.attention.startswith('flash') and not EarthGPT._supports_flash_attn:
            raise ValueError('flash attention takes no mask of segments')
        model.language.set_attn_implementation(rung.attention)
        if rung.attention == 'flex_attention' and self.device == 'cpu':
            raise ValueError('FlexAttention trains on CUDA alone')
        if rung.alone:  # as many tokens a step
            visual, words = model.config.visual_tokens, 20
            batch = max(1, round(batch * (visual + self.questions * words) / (visual + words)))
            photos = one_by_one(photos)
        meter = Meter(model, self.args.seconds)
        options = dict(compile=rung.compile, sequence_length=None if rung.packed else 1)
        if any(f.name == 'workers' for f in fields(FitOptions)):
            options['workers'] = self.workers if rung.workers else 0
        if self.device == 'cuda':
            torch.cuda.reset_peak_memory_stats()
        stage = STAGES['scratch' if name == 'nano' else 'align']
        run_fit(model, tokenizer, photos, self.device, stage, batch, callbacks=[meter], **options)
        memory = torch.cuda.max_memory_allocated() / 1e6 if self.device == 'cuda' else peak_memory_mb()
        del model
        self.forget()
        return meter.result(self.peak) | dict(memory_mb=memory, batch=batch)

    def forget(self):
        gc.collect()
        torch._dynamo.reset()
        if self.device == 'cuda':
            torch.cuda.empty_cache()


def run_fit(model, tokenizer, photos, device, stage, batch, folder=None, steps=10_000, **options):
    "`fit` without a word."
    options = dict(device=device, batch_size=batch, steps=steps, progress=False, augment=False) | options
    with tempfile.TemporaryDirectory() as spare:
        return fit(model, tokenizer, photos, folder or spare, stage, say=lambda text: None, **options)


def first_words(error) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0][:150]


# small runs: do several processes agree with one, does fp16 learn, is what fsdp saved read again


class Stop(Callback):
    "Ends a run behind a step."

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        trainer.should_stop = trainer.global_step >= self.step


class Scale(Callback):
    "The scale of fp16 behind the last step."

    value = None

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        scaler = getattr(trainer.precision_plugin, 'scaler', None)
        self.value = scaler.get_scale() if scaler else None


def small_run(args, folder, strategy, devices, precision, stop=None, resume=False) -> dict:
    "Eight steps of a small model, all processes together; losses, and the scale of fp16."
    device = pick(args)
    shared = folder / 'photos'
    shared.mkdir(exist_ok=True)
    photos = make_photos(shared, 16, 64, 3)
    tokenizer, scale = make_tokenizer(photos), Scale()
    model = make_model('nano', tokenizer, 'cpu', args.toy)
    found = run_fit(
        model,
        tokenizer,
        photos,
        device,
        STAGES['scratch'],
        8,
        folder=folder / strategy,
        steps=8,
        strategy=strategy,
        devices=devices,
        precision=precision,
        checkpoint_every=4,
        resume=resume,
        callbacks=[scale, *([Stop(stop)] if stop else [])],
    )
    return dict(losses=[loss for _, loss in found['losses']], scale=scale.value)


def in_own_process(args, folder, *words) -> dict:
    "A small run in a process of its own, from which Lightning starts the others."
    out = folder / 'result.json'
    out.unlink(missing_ok=True)
    toy = ['--toy'] if args.toy else []
    call = [
        sys.executable,
        __file__,
        '--small',
        *map(str, words),
        '--device',
        args.device,
        '--out',
        str(folder),
    ]
    done = subprocess.run(call + toy, capture_output=True, text=True, timeout=240)
    if done.returncode or not out.is_file():
        lines = done.stderr.strip().splitlines() or ['nothing was said']
        raise RuntimeError(lines[-1][:150])
    return json.loads(out.read_text(encoding='utf-8'))


def apart(a, b) -> float:
    return max(abs(x - y) for x, y in zip(a, b, strict=True))


def check_fp16(args, folder, devices) -> str:
    if pick(args) != 'cuda':
        return 'does not run: its scaler is for CUDA'
    half = in_own_process(args, folder, 'auto', 1, '16-mixed', 0, 0)
    full = in_own_process(args, folder / 'full', 'auto', 1, '32-true', 0, 0)
    off = apart(half['losses'], full['losses'])
    return f'losses of 8 steps differ from 32 bits by {off:.1e} at most, scale {half["scale"]:,.0f}'


def check_ddp(args, folder, devices) -> str:
    one = in_own_process(args, folder, 'auto', 1, '32-true', 0, 0)
    many = in_own_process(args, folder, 'ddp', devices, '32-true', 0, 0)
    off = apart(one['losses'], many['losses'])
    return f'{devices} processes against one: losses of 8 steps differ by {off:.1e} at most'


def check_fsdp(args, folder, devices) -> str:
    whole = in_own_process(args, folder / 'whole', 'fsdp', devices, '32-true', 0, 0)
    in_own_process(args, folder, 'fsdp', devices, '32-true', 4, 0)
    again = in_own_process(args, folder, 'fsdp', devices, '32-true', 0, 1)
    off = apart(whole['losses'], again['losses'])
    return f'{devices} processes, saved at step 4 and loaded: losses of 8 steps differ by {off:.1e} at most'


CHECKS = {'fp16': check_fp16, 'ddp': check_ddp, 'fsdp': check_fsdp}


def check(name, args, folder, devices) -> str:
    "What a check found, in words, or why it does not run."
    for place in (folder / name, folder / name / 'full', folder / name / 'whole'):
        place.mkdir(exist_ok=True)
    try:
        return CHECKS[name](args, folder / name, devices)
    except Exception as e:
        return f'does not run: {first_words(e)}'


# the page

HEAD = '| model | rung | pictures a step | questions a second | tokens a second | a step, ms | data | peak memory, MB | MFU |'


def row_text(row) -> str:
    "A rung as a row of the table."
    if 'why' in row:
        return f'| {row["model"]} | {row["rung"]} | | does not run: {row["why"]} | | | | | |'
    mfu = f'{row["mfu"]:.1%}' if row['mfu'] else 'peak not known'
    numbers = [f'{row[k]:,.0f}' for k in ('questions_s', 'tokens_s', 'step_ms')]
    cells = [row['model'], row['rung'], str(row['batch']), *numbers, f'{row["data"]:.1%}']
    cells += [f'{row["memory_mb"]:,.0f}', mfu]
    return f'| {" | ".join(cells)} |'


def sharing_text(rows) -> list:
    "Shared against unshared, beside the bound that counting operations gives."
    found = {(r['model'], r['rung']): r for r in rows if 'why' not in r}
    lines = []
    for model in dict.fromkeys(r['model'] for r in rows):
        shared, apart_ = (found.get((model, rung)) for rung in ('shared prefix', 'packing'))
        if shared and apart_:
            ratio = shared['questions_s'] / apart_['questions_s']
            bound = apart_['flops'] / shared['flops']
            lines.append(
                f'- {model}: a picture shared by its questions is {ratio:.2f} times as fast as packed rows of '
                f'one question; counted in operations, {bound:.2f} times at most.'
            )
    return lines


def section(rows, checks, where) -> str:
    "The section of the page, in Markdown."
    lines = ['## On a GPU: `benchmarks/gpu.py`', '', where, '', HEAD]
    lines += ['| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |', *map(row_text, rows), '']
    lines += [*sharing_text(rows), *(f'- {name}: {text}.' for name, text in checks.items())]
    return '\n'.join(lines)


def write_section(page, text):
    "Replace what stands between the markers; a page without them gets them at its end."
    page = Path(page)
    old = page.read_text(encoding='utf-8') if page.is_file() else ''
    before, begin, rest = old.partition(BEGIN)
    behind = rest.partition(END)[2] if begin else '\n'
    before = before if begin or not old else f'{old.rstrip()}\n\n'
    write_whole(page, f"{before}{BEGIN}\n{text}\n{END}{behind}")


def pick(args) -> str:
    if args.device != 'auto':
        return args.device
    return 'cuda' if torch.cuda.is_available() else 'cpu'


def where_text(device, devices, args) -> str:
    used = ', '.join(
        f'{k} {v}' for k, v in versions().items() if k in ('python', 'torch', 'lightning', 'transformers')
    )
    gpu = torch.cuda.get_device_name() if device == 'cuda' else 'no GPU: these numbers say only that it runs'
    toy = ', toy sizes' if args.toy else ''
    return f'{date.today()}, {gpu} ({devices}), {machine()}, {pick_precision(device)}{toy}, {used}.'


def arguments():
    parser = argparse.ArgumentParser(
        description=inspect.cleandoc(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add('--models', nargs='+', default=['nano', 'lite', 'base'], choices=list(PICTURES))
    add('--rungs', nargs='+', default=list(LADDER), choices=list(LADDER))
    add('--checks', nargs='*', default=list(CHECKS), choices=list(CHECKS))
    add('--seconds', type=float, default=6, help='timed of each rung')
    add('--minutes', type=float, default=7, help='after which no rung is begun; the checks take two more')
    add('--batch', type=int, help='pictures of a step; left out: by the size of the model')
    add('--device', default='auto', choices=('auto', 'cpu', 'cuda'))
    add('--toy', action='store_true', help='tiny sizes, to see that it runs; needs --page')
    add('--page', type=Path, help='where the section goes; left out: docs/benchmarks.md')
    add('--small', nargs=5, help=argparse.SUPPRESS)  # strategy, devices, precision, stop, resume
    add('--out', type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.small and not args.page and (args.toy or pick(args) != 'cuda'):
        parser.error(
            'there is no GPU here, or --toy was asked for: give --page, docs/benchmarks.md is for GPUs'
        )
    return args


def main():
    args = arguments()
    device = pick(args)
    if args.small:
        strategy, devices, precision, stop, resume = args.small
        found = small_run(args, args.out, strategy, int(devices), precision, int(stop), resume == '1')
        if os.environ.get('LOCAL_RANK', '0') == '0':
            write_whole(args.out / "result.json", json.dumps(found))
        return
    devices = torch.cuda.device_count() if device == 'cuda' else 2
    where = where_text(device, devices, args)
    print(f'{where}\n{HEAD}', flush=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        bench = Bench(args, device, folder)
        rows = [row for name in args.models for row in bench.climb(name)]
        checks = {name: check(name, args, folder, devices) for name in args.checks}
    text = section(rows, checks, where)
    print(text)
    write_section(args.page or PAGE, text)


if __name__ == '__main__':
    main()
