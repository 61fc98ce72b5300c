"""Put a trained nano into the package: weights in 16 bits, scores on held-out ground, and a model card.

    earthgpt-lite train --config nano            # about an hour
    earthgpt-lite evaluate nano samples --new places --minutes 66 --out runs/places   # six hours
    python tools/release_nano.py runs/nano --places runs/places
    python tools/release_nano.py --places runs/places   # only what is new to the nano that is there

Writes earthgpt_lite/assets/models/nano and earthgpt_lite/assets/results/nano.json. What is scored is the model in 16 bits, as it is shipped.
"""

import argparse
import json
from datetime import date
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from chip_files import cut
from pages import new_markdown

from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.app.quickstart import evaluate, machine, versions
from earthgpt_lite.data.records import Task
from earthgpt_lite.data.sample.sites import RENDERING, SITES, site_examples
from earthgpt_lite.data.sample.synthetic import pointing_examples
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
from earthgpt_lite.raster.reading import read_scene

ROOT = Path(__file__).resolve().parent.parent
CARD = '''---
library_name: earthgpt-lite
license: apache-2.0
pipeline_tag: image-text-to-text
tags: [remote-sensing, sar, infrared, grounding]
---

# nano, trained

An EarthGPT in small: {parameters:.1f} million parameters, from nothing, on the sample data of earthgpt-lite. It reads optical, SAR and thermal chips of
64 x 64 pixels and answers what covers them, what is there and what is larger, captions them, counts up to three trees, and draws boxes around
islands, lakes and trees.

    earthgpt-lite ask nano IMAGE "where is the island?"

**Trained** {date}, {seconds:,.0f} s in {steps:,} steps on {machine}, {images:,} pictures seen with {pairs:,} questions, recipe `nano`
(`earthgpt-lite train --config nano` reproduces it). Data: the training blocks of the sample, more windows around islands and lakes, and drawn islands
(lesson 3_data/16_synthetic). Lesson 5_train/17_pointing tells what boxes took.

**Limits.** It knows the wordings and the places of the sample: Blue Marble at some kilometres a pixel, one Sentinel-2, two Sentinel-1, one Landsat 8 scene,
three aerial pictures. It was trained in English on short questions, each standing alone; it has never seen a dialogue. It writes a box where there is nothing to point at.
Nothing important should be decided by it.

**How it looks at files.** Its `config.json` says how files become chips: {rendering}. Where a file says what its numbers are, a chip has the same
bytes as in training, and so the same answers. A file of counts alone cannot be rendered so, and this is what that costs:

{files}

It also says what it was trained with; `ask` and `survey` warn of other labels, sensors, ground distances and empty pictures, and refuse them with
`--strict`.

**Weights** are Apache-2.0. The imagery they were learned from is named in ATTRIBUTION.md of the package.

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


def release(run: Path, into: Path, scores: Path, on: str):
    record = json.loads((run / 'run.json').read_text(encoding='utf-8'))
    model, tokenizer = load(run, 'cpu')
    model.config.rendering = RENDERING.to_dict()
    model.config.scope = measure_scope(pointing_examples('train'), pixel_of)
    save(model.half(), tokenizer, into)
    model, tokenizer = load(into, 'cpu')
    train = sample_examples('train')
    found = {}
    for split in ('validation', 'test'):
        results, sources, _ = evaluate(model, tokenizer, sample_examples(split), train, progress=True)
        found[split] = dict(results=results, sources=sources)
    facts = {k: record[k] for k in ('seconds', 'steps', 'images', 'pairs', 'precision', 'last_loss')} | dict(
        date=str(date.today()), machine=on
    )
    found['files'] = from_files(model, tokenizer)
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
            rendering=rendering_of(model.config).text,
            files=files_markdown(found['files']),
            validation=results_markdown(found['validation']['results'], found['validation']['sources']),
            test=results_markdown(found['test']['results'], found['test']['sources']),
            sources=results_markdown(found['test']['sources']),
        ),
        encoding='utf-8',
    )


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('run', type=Path, nargs='?', help='folder of the run; none: the nano that is there')
    parser.add_argument('--into', type=Path, default=ROOT / 'earthgpt_lite/assets/models/nano')
    parser.add_argument('--scores', type=Path, default=ROOT / 'earthgpt_lite/assets/results/nano.json')
    parser.add_argument('--machine', default=machine(), help='what it was trained on, in words')
    parser.add_argument('--places', type=Path, help='folder of `evaluate nano samples --new places`')
    args = parser.parse_args()
    if args.run:
        release(args.run, args.into, args.scores, args.machine)
    measure_new(args.into, args.scores, args.places)
