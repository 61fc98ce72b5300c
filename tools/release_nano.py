"""Train nano with what makes it answer, and put it into the package: weights in 16 bits, scores, a model card.

    python tools/release_nano.py train                # the recipe nano, about an hour
    python tools/release_nano.py train --without jitter --steps 300 --out runs/no-jitter
    earthgpt-lite evaluate nano samples --new places --minutes 66 --out runs/places   # six hours
    python tools/release_nano.py release runs/nano --places runs/places
    python tools/release_nano.py release --places runs/places   # only what is new to the nano that is there

`train` is `earthgpt-lite train --config nano` with switches: each ingredient can be left out alone, so that an
ablation is one command. `--resume` goes on with an interrupted run. `release` writes earthgpt_lite/assets/models/nano and
earthgpt_lite/assets/results/nano.json. What is scored is the model in 16 bits, as it is shipped.
"""

import argparse
import json
import sys
from dataclasses import asdict
from datetime import date
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from chip_files import cut
from pages import new_markdown

from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.app.quickstart import evaluate, machine, versions
from earthgpt_lite.boxes.iou import iou_matrix
from earthgpt_lite.boxes.text import parse_boxes
from earthgpt_lite.data.dialogues import (
    CANNOT_TELL,
    cannot_tell_rates,
    dialogue_examples,
    unanswerable_examples,
)
from earthgpt_lite.data.records import Task
from earthgpt_lite.data.sample.sites import RENDERING, SITES, site_examples
from earthgpt_lite.data.sample.trees import sample_examples
from earthgpt_lite.data.sample.world_map import DATA
from earthgpt_lite.eval.report import results_markdown
from earthgpt_lite.eval.shift import evaluate_shift
from earthgpt_lite.files import write_json, write_whole
from earthgpt_lite.model.config import rendering_of
from earthgpt_lite.model.generation import generate_answers
from earthgpt_lite.model.loading import load
from earthgpt_lite.model.modeling import save
from earthgpt_lite.model.scope import measure_scope
from earthgpt_lite.model.tokens import ChatFormat
from earthgpt_lite.raster.reading import read_scene
from earthgpt_lite.train.augment import WAYS
from earthgpt_lite.train.examples import MADE, open_examples
from earthgpt_lite.train.run import train
from earthgpt_lite.train.run_file import RunOptions, StageOptions, find_run, read_run

ROOT = Path(__file__).resolve().parent.parent
CARD = '''---
library_name: earthgpt-lite
license: apache-2.0
pipeline_tag: image-text-to-text
tags: [remote-sensing, sar, infrared, grounding]
---

# nano, trained

An EarthGPT in small: {parameters:.1f} million parameters, from nothing, on the sample data of earthgpt-lite. It reads optical, SAR and thermal chips of
64 x 64 pixels and answers what covers them, what is there and what is larger, captions them, counts up to three trees, draws boxes around
islands, lakes and trees, and tells two dates and two sensors apart. It goes on with a talk of two or three turns, and may say that it cannot tell.

    earthgpt-lite ask nano IMAGE "where is the island?"

`import earthgpt_lite.model` makes it known to transformers, and `pipeline('image-text-to-text', model=FOLDER)` opens it then. The folder holds no code.

**Trained** {date}, {seconds:,.0f} s in {steps:,} steps ({sat}) on {machine}, {images:,} pictures seen with {pairs:,} questions, recipe `nano`
(`earthgpt-lite train --config nano` reproduces it). Data: `{data}`, the training blocks of the sample and what is made
of them (notebooks 3_data/16_synthetic, 18_pairs and 20_dialogues), varied by {augment}. Lesson 5_train/18_pointing tells what boxes took.

**Limits.** It knows the places of the sample: Blue Marble at some kilometres a pixel, one Sentinel-2, two Sentinel-1, one Landsat 8 scene,
three aerial pictures. It was trained in English on short questions, in many wordings (notebook 3_data/19_wordings), and on talks of at most three turns.
Nothing important should be decided by it.

**How it looks at files.** Its `config.json` says how files become chips: {rendering}. Where a file says what its numbers are, a chip has the same
bytes as in training, and so the same answers. A file of counts alone cannot be rendered so, and this is what that costs:

{files}

It also says what it was trained with; `ask` and `survey` warn of other labels, sensors, ground distances and empty pictures, and refuse them with
`--strict`.

**Weights** are Apache-2.0. The imagery they were learned from is named in ATTRIBUTION.md of the package.

## Talks, and questions without an answer

{talks}

## Validation blocks

{validation}

## Test blocks

{test}

By source, test blocks:

{sources}
'''


TREES, WORLD = 0.1, 111_200  # metres: a pixel of the aerial pictures, a degree of latitude


def pixel_of(example) -> float | None:  # None: drawn
    "Metres on the ground of a pixel of 64 x 64, as the model sees them."
    place, source = example.place, example.name.split('/')[0]
    if source in SITES:
        file, (_, _, side) = DATA / place['file'], place['window']
        return _scene_gsd(file) * side / 64
    if source == 'trees':
        return TREES * place['window'][2] / 64
    if 'bounds' not in place:
        return None
    return float(place['bounds'][3] - place['bounds'][1]) * WORLD / 64


@lru_cache
def _scene_gsd(path):
    return read_scene(path, window=(0, 0, 8, 8)).gsd


def from_files(model, tokenizer) -> list[dict]:
    "Accuracy of classification on test chips: as trained, as files of their own, as files of counts without units."
    assistant, rows = Assistant(model, tokenizer), []
    with TemporaryDirectory() as folder:
        own = lambda e, units: assistant.chip(
            cut(DATA / e.place['file'], e.place['window'], Path(folder, 'chip.tif'), units), str(e.sensor)
        )
        ways = dict(trained=lambda e: e.image, file=lambda e: own(e, True), counts=lambda e: own(e, False))
        for name in SITES:
            asked = [
                (e, t) for e in site_examples(name, 'test') for t in e.turns if t.task == Task.CLASSIFICATION
            ]
            rows.append(dict(site=name, sensor=str(asked[0][0].sensor), n=len(asked)))
            for way, picture in ways.items():
                pixels = assistant.to_pixel_values([picture(e) for e, _ in asked])
                questions = [(i, t.question) for i, (_, t) in enumerate(asked)]
                said = generate_answers(model, tokenizer, pixels, questions)
                right = [text == t.answer for (text, _), (_, t) in zip(said, asked)]
                rows[-1][way] = sum(right) / len(right)
    return rows


def files_markdown(rows) -> str:
    "What `from_files` found, as a table."
    lines = [
        '| test chips, classification | n | as trained | a file of its own, with units | counts without units |',
        '| --- | ---: | ---: | ---: | ---: |',
    ]
    for r in rows:
        scores = ' | '.join(f'{r[way]:.3f}' for way in ('trained', 'file', 'counts'))
        lines.append(f'| {r["site"]}, {r["sensor"]} | {r["n"]} | {scores} |')
    return '\n'.join(lines)


def talk_scores(assistant, dialogues) -> dict:  # n, in_talk, alone: shares of right last answers
    "The last question of dialogues, asked in the talk with the model's own answers before it, and asked alone."
    right = dict(in_talk=[], alone=[])
    for example in dialogues:
        chat = assistant.chat(example.image, example.sensor)
        said = [chat.ask(turn.question).text for turn in example.turns]
        truth = example.place['alone']
        right['in_talk'].append(is_right(said[-1], truth))
        right['alone'].append(
            is_right(assistant.ask(example.image, truth.question, example.sensor).text, truth)
        )
    return dict(n=len(dialogues)) | {way: sum(found) / len(found) for way, found in right.items()}


def is_right(text, turn) -> bool:
    "The same words; of one box, half its area; of several, as many, each half on one of the truth."
    said, truth = parse_boxes(text).boxes, parse_boxes(turn.answer).boxes
    if not truth:
        return text == turn.answer
    if len(said) != len(truth):
        return False
    overlaps = iou_matrix(np.array([b.box for b in said]), np.array([b.box for b in truth]))
    return bool((overlaps.max(0) >= 0.5).all())


def talks_by_kind(model, tokenizer, split, n=400) -> dict:
    "Right last answers by the task of the last question, and how often the model says that it cannot tell."
    assistant, found = Assistant(model, tokenizer), {}
    for example in dialogue_examples(split, n):
        task = example.place['alone'].task
        if example.place['alone'].answer == CANNOT_TELL:
            task = 'where there is none'
        found.setdefault(str(task), []).append(example)
    scores = {task: talk_scores(assistant, some) for task, some in sorted(found.items())}
    asked = [*unanswerable_examples(split, n), *sample_examples(split)[::7]]
    said = []
    for start in range(0, len(asked), 96):
        some = asked[start : start + 96]
        pixels = assistant.to_pixel_values([e.image for e in some])
        questions = [(i, t) for i, e in enumerate(some) for t in e.turns]
        texts = generate_answers(model, tokenizer, pixels, [(i, t.question) for i, t in questions])
        said += [dict(answer=text, truth=t.answer) for (text, _), (_, t) in zip(texts, questions)]
    return dict(dialogues=scores, cannot_tell=cannot_tell_rates(said))


def talks_markdown(talks) -> str:
    "What `talks_by_kind` found on test blocks, as a table and a sentence."
    lines = ['| last question | n | in the talk | alone |', '| --- | ---: | ---: | ---: |']
    for task, r in talks['dialogues'].items():
        lines.append(f'| {task} | {r["n"]} | {r["in_talk"]:.3f} | {r["alone"]:.3f} |')
    rates = talks['cannot_tell']
    lines += [
        '',
        f'Where a picture has no answer it says *cannot tell* in {rates["found"]:.3f} of the questions; where it has one, '
        f'in {rates["false_alarms"]:.4f}, and that counts as wrong.',
    ]
    return '\n'.join(lines)


INGREDIENTS = (*WAYS, 'fold', 'layers', *(word for word in MADE if word != 'pointing'))


def recipe(without=(), **changes) -> RunOptions:
    "The run of the recipe nano, with some of INGREDIENTS left out."
    given = read_run(find_run('nano')) | {k: v for k, v in changes.items() if v is not None}
    given['data'] = '+'.join(word for word in given['data'].split('+') if word not in without)
    given['augment'] = [way for way in given['augment'] if way not in without]
    if 'fold' in without:
        given['choices']['chat'] = asdict(ChatFormat())
    if 'layers' in without:
        del given['choices']['vit_layers']
    if given.get('steps'):
        given['minutes'] = None
    return RunOptions(**given | dict(stage=StageOptions(**given['stage'])))


NEW = '\n## What is new to it\n'  # the last section of the card


def measure_new(model: Path, scores: Path, places: Path | None):
    "Ask a released model what is new to it, and write that into its scores and its card."
    found = json.loads(scores.read_text(encoding='utf-8'))
    new = found.setdefault('new', {})
    with TemporaryDirectory() as folder:
        for kind in ('words', 'renderings'):
            measured = evaluate_shift(str(model), 'samples:test', kind, folder, device='cpu')
            new[kind] = dict(half=measured['half'], seconds=measured['seconds'], rows=measured['rows'])
    if places:
        new['places'] = json.loads((places / 'places.json').read_text(encoding='utf-8'))
    new['date'] = str(date.today())
    write_json(found, scores)
    card = model / 'README.md'
    text = card.read_text(encoding='utf-8').split(NEW)[0]
    write_whole(card, f'{text.rstrip()}\n{NEW}\n{new_markdown(new)}\n')


def sittings(run: Path) -> list:  # what run.json says of each, the first first
    "A run, and before it those whose model it began with."
    record = json.loads((run / 'run.json').read_text(encoding='utf-8'))
    before = Path(record['run']['model'])
    return [*(sittings(before) if (before / 'run.json').exists() else []), record]


def release(run: Path, into: Path, scores: Path, on: str):
    records = sittings(run)
    record = records[-1]
    model, tokenizer = load(run, 'cpu')
    model.config.rendering = RENDERING.to_dict()
    model.config.scope = measure_scope(open_examples('pointing+scaled'), pixel_of)
    save(model.half(), tokenizer, into)
    model, tokenizer = load(into, 'cpu')
    train = sample_examples('train')
    found = {}
    for split in ('validation', 'test'):
        results, sources, _ = evaluate(model, tokenizer, sample_examples(split), train, progress=True)
        found[split] = dict(results=results, sources=sources)
    facts = {k: sum(r[k] for r in records) for k in ('seconds', 'steps', 'images', 'pairs')}
    facts |= dict(precision=record['precision'], last_loss=record['last_loss'])
    facts |= dict(date=str(date.today()), machine=on, sittings=[r['steps'] for r in records])
    found['files'] = from_files(model, tokenizer)
    found['talks'] = talks_by_kind(model, tokenizer, 'test')
    scores.write_text(
        json.dumps(
            dict(train=facts | dict(parameters=model.num_parameters()), **found, versions=versions()),
            indent=1,
        ),
        encoding='utf-8',
    )
    (into / 'README.md').write_text(
        CARD.format(
            parameters=model.num_parameters() / 1e6,
            **facts,
            sat=' and then '.join(f'{n:,}' for n in facts['sittings']) + ', each with a schedule of its own',
            rendering=rendering_of(model.config).text,
            files=files_markdown(found['files']),
            talks=talks_markdown(found['talks']),
            data=record['run']['data'],
            augment=' and '.join(record['run']['augment']),
            validation=results_markdown(found['validation']['results'], found['validation']['sources']),
            test=results_markdown(found['test']['results'], found['test']['sources']),
            sources=results_markdown(found['test']['sources']),
        ),
        encoding='utf-8',
    )


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='command', required=True)
    one = commands.add_parser('train', help='train as the recipe says')
    one.add_argument('--without', nargs='+', choices=INGREDIENTS, default=[], help='ingredients to leave out')
    one.add_argument('--steps', type=int, help='instead of the minutes of the recipe')
    one.add_argument('--minutes', type=float)
    one.add_argument('--seed', type=int)
    one.add_argument('--out', help='folder of the run')
    one.add_argument('--resume', action='store_true', help='go on with an interrupted run')
    two = commands.add_parser('release', help='put a run into the package')
    two.add_argument('run', type=Path, nargs='?', help='folder of the run; none: the nano that is there')
    two.add_argument('--into', type=Path, default=ROOT / 'earthgpt_lite/assets/models/nano')
    two.add_argument('--scores', type=Path, default=ROOT / 'earthgpt_lite/assets/results/nano.json')
    two.add_argument('--machine', default=machine(), help='what it was trained on, in words')
    two.add_argument('--places', type=Path, help='folder of `evaluate nano samples --new places`')
    args = parser.parse_args()
    if args.command == 'train':
        changes = dict(steps=args.steps, minutes=args.minutes, seed=args.seed, out=args.out)
        train(recipe(args.without, **changes), args.resume)
        sys.exit()
    if args.run:
        release(args.run, args.into, args.scores, args.machine)
    measure_new(args.into, args.scores, args.places)
