"""Put a trained nano into the package: weights in 16 bits, scores on held-out ground, and a model card.

    earthgpt-lite train --config nano            # about an hour
    python tools/release_nano.py runs/nano

Writes earthgpt_lite/assets/models/nano and earthgpt_lite/assets/results/nano.json. What is scored is the model in 16 bits, as it is shipped.
"""

import argparse
import json
from datetime import date
from pathlib import Path

from earthgpt_lite.app.quickstart import evaluate, machine, versions
from earthgpt_lite.data.sample.trees import sample_examples
from earthgpt_lite.eval.report import results_markdown
from earthgpt_lite.model.modeling import load, save

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
(lesson 3_data/15_synthetic). Lesson 5_train/15_pointing tells what boxes took.

**Limits.** It knows the wordings and the places of the sample: Blue Marble at some kilometres a pixel, one Sentinel-2, two Sentinel-1, one Landsat 8 scene,
three aerial pictures. It was trained in English on short questions, each standing alone; it has never seen a dialogue. It writes a box where there is nothing to point at.
Nothing important should be decided by it.

**Weights** are Apache-2.0. The imagery they were learned from is named in ATTRIBUTION.md of the package.

## Validation blocks

{validation}

## Test blocks

{test}

By source, test blocks:

{sources}
'''


def release(run: Path, into: Path, scores: Path, on: str):
    record = json.loads((run / 'run.json').read_text(encoding='utf-8'))
    model, tokenizer = load(run, 'cpu')
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
            validation=results_markdown(found['validation']['results'], found['validation']['sources']),
            test=results_markdown(found['test']['results'], found['test']['sources']),
            sources=results_markdown(found['test']['sources']),
        ),
        encoding='utf-8',
    )


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('run', type=Path, help='folder of the run')
    parser.add_argument('--into', type=Path, default=ROOT / 'earthgpt_lite/assets/models/nano')
    parser.add_argument('--scores', type=Path, default=ROOT / 'earthgpt_lite/assets/results/nano.json')
    parser.add_argument('--machine', default=machine(), help='what it was trained on, in words')
    args = parser.parse_args()
    release(args.run, args.into, args.scores, args.machine)
