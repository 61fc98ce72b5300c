"""What independence of questions is worth: the same questions with and without earlier answers in sight.

    python benchmarks/leak.py                   # some ten minutes on two quiet cores
    python benchmarks/leak.py --steps 40 --pictures 50

Two nano models are trained on the same pictures, questions and steps. One sees the questions of a picture apart, each
behind the picture alone, as this package trains; one sees them as turns of a talk, each with the answers before it, as
LLaVA and nanoVLM train. Both are then asked the same questions of validation pictures (other places of the Earth) in
both forms. For each question: the loss of its answer, and whether every token of it would have been said. A bootstrap
over pictures gives 95 % intervals. Printed by place: the first question of a picture has no answer before it.
"""

import argparse
import random
import tempfile
from dataclasses import replace
from datetime import date

import numpy as np
import torch
from torch.nn import functional as F

from earthgpt_lite.app.quickstart import machine, make_tokenizer, versions
from earthgpt_lite.data.records import Task
from earthgpt_lite.data.sample.world_map import global_examples
from earthgpt_lite.model.modeling import nano
from earthgpt_lite.model.packing import build_sequence, collate
from earthgpt_lite.model.processor import picture_prefix, to_pixel_values
from earthgpt_lite.model.tokens import ChatFormat, IGNORE, encode_turns
from earthgpt_lite.train.fit import fit

FORMS = {'apart': True, 'turns': False}  # whether each question sees the picture and itself alone


def shuffled(examples, seed):
    "Questions of each picture in some order."
    rng = random.Random(seed)
    return [replace(e, turns=rng.sample(e.turns, len(e.turns))) for e in examples]


def as_talk(examples):
    "The same questions as turns of a talk."
    return [replace(e, turns=[replace(t, task=Task.DIALOGUE) for t in e.turns]) for e in examples]


def train(examples, tokenizer, form, steps, seed):
    torch.manual_seed(seed)
    model = nano(tokenizer)
    given = examples if FORMS[form] else as_talk(examples)
    with tempfile.TemporaryDirectory() as folder:
        options = dict(steps=steps, device='cpu', progress=False, seed=seed)
        fit(model, tokenizer, given, folder, say=lambda text: None, **options)
    return model


@torch.no_grad()
def ask(model, tokenizer, examples, form) -> np.ndarray:  # (questions, 4): picture, place, loss, right
    "Loss of each answer, a mean over its tokens, and whether all its tokens come first."
    prefix, found = picture_prefix(model.config, tokenizer), []
    for i, e in enumerate(examples):
        pairs = encode_turns(tokenizer, e.turns, ChatFormat(), e.name, dialogue=not FORMS[form])
        row = build_sequence(pairs, prefix, shared=FORMS[form])
        batch = collate([row], to_pixel_values(e.image)[None], tokenizer.pad_token_id)
        inputs = {k: v for k, v in batch.items() if k != 'labels'}
        logits, labels = model(**inputs).logits[0, :-1].float(), batch.labels[0, 1:]
        loss = F.cross_entropy(logits, labels, ignore_index=IGNORE, reduction='none')
        right, at = logits.argmax(-1) == labels, (labels != IGNORE).nonzero()[:, 0]
        for place, some in enumerate(at.split([len(answer) for _, answer in pairs])):
            found.append((i, place, loss[some].mean().item(), right[some].all().item()))
    return np.array(found, float)


def interval(found, column, rng, draws=1000):
    "Mean of a column, and 95 % from draws of pictures."
    sums = np.bincount(found[:, 0].astype(int), found[:, column])
    counts = np.bincount(found[:, 0].astype(int))
    drawn = rng.integers(len(counts), size=(draws, len(counts)))
    means = sums[drawn].sum(1) / counts[drawn].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return f'{sums.sum() / counts.sum():.3f} [{low:.3f}, {high:.3f}]'


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--steps', type=int, default=500)
    parser.add_argument('--pictures', type=int, default=300, help='of validation')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()
    training = shuffled(global_examples('train', 4000, per_picture=4), args.seed)
    validation = [
        e for e in global_examples('validation', 2 * args.pictures, per_picture=4) if len(e.turns) > 3
    ]
    validation = shuffled(validation, 1)[: args.pictures]
    tokenizer, rng = make_tokenizer(training), np.random.default_rng(0)
    used = ', '.join(f'{k} {v}' for k, v in versions().items() if k in ('python', 'torch', 'transformers'))
    print(f'{date.today()}, {machine()}, {used}; {args.steps} steps of 24 pictures, seed {args.seed}')
    print('\n| trained | asked | first question: loss | right | later questions: loss | right |')
    print('| --- | --- | --- | --- | --- | --- |')
    for trained in FORMS:
        model = train(training, tokenizer, trained, args.steps, args.seed)
        for asked in FORMS:
            found = ask(model, tokenizer, validation, asked)
            cells = []
            for some in (found[found[:, 1] == 0], found[found[:, 1] > 0]):
                cells += [interval(some, 2, rng), interval(some, 3, rng)]
            print(f'| {trained} | {asked} | {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
    main()
