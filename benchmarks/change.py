"""Two pictures in one question: painted changes, real forest loss, one ground in two sensors.

    python benchmarks/change.py                      # all three parts, then the table
    python benchmarks/change.py --only synthetic     # one part; the others stay in the table as they are
    python benchmarks/change.py --split validation   # scores for choices; the table holds both splits

synthetic: the packaged nano with a vocabulary for change, trained on changes painted into optical chips of
training blocks, and on every twelfth picture of the sample. Asked on blocks of the other splits, with the
right pictures, those of another pair, with before or after grey, with one picture twice, and in the other order.
loss: real forest loss in Sabah, five folds of blocks, a fresh nano for each: the packaged one has seen that
ground. Every block is tested once, by a model that has seen nothing of it.
sensors: the model of the first part, trained on optical and thermal chips of Alabama, on questions that need both.

A training that was stopped goes on. Intervals: `eval.statistics.mean_interval`, blocks of ground are drawn.
"""

import argparse
import json
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import torch

from earthgpt_lite.app.quickstart import machine, make_tokenizer, predict, versions
from earthgpt_lite.data.records import Task
from earthgpt_lite.data.sample.change import ANYTHING, QUESTIONS, loss_examples, same_twice, swapped
from earthgpt_lite.data.sample.pairs import SAME_GROUND, SOURCES, sensor_pairs, synthetic_pairs
from earthgpt_lite.data.sample.sites import RENDERING
from earthgpt_lite.data.sample.trees import sample_examples
from earthgpt_lite.eval.measures import exact_match
from earthgpt_lite.eval.score import prior_turns
from earthgpt_lite.eval.questions import example_questions
from earthgpt_lite.eval.statistics import mean_interval, prior_predictions, score_with_interval
from earthgpt_lite.files import write_json
from earthgpt_lite.model.loading import load
from earthgpt_lite.model.modeling import nano, save
from earthgpt_lite.train.callbacks import Validation
from earthgpt_lite.train.fit import fit
from earthgpt_lite.train.stages import STAGES

CHOICES = dict(coordinate_loss_weight=20.0, init_scale=0.1, vit_layers=[3], rendering=RENDERING.to_dict())
PAIRS = 600  # painted, of each source and each unlikeness of the two days
JITTERS = 0.0, 0.3, 0.6, 1.0  # in training; pairs whose ground stays alike to the pixel teach to compare
FOLDS = 5


class Progress(Validation):
    "The held-out loss, said aloud."

    def validate(self, trainer, module):
        super().validate(trainer, module)
        step, loss = self.history[-1]
        print(
            f'  {time.strftime("%H:%M:%S")} step {step:5}  held-out loss of yes and no {loss:.3f}', flush=True
        )


# ---- training


def begin_from_packaged(tokenizer):
    "A nano with the weights of the packaged one; words that both vocabularies hold keep their embeddings."
    old, words = load('nano', 'cpu')
    model = nano(tokenizer, **CHOICES)
    table, before = (m.get_input_embeddings().weight.detach().clone() for m in (model, old.float()))
    shared = sorted(set(tokenizer.get_vocab()) & set(words.get_vocab()))
    table[tokenizer.convert_tokens_to_ids(shared)] = before[words.convert_tokens_to_ids(shared)]
    weights = {n: w for n, w in old.state_dict().items() if w.shape != before.shape}
    left = model.load_state_dict(weights, strict=False)
    assert not left.unexpected_keys and len(left.missing_keys) <= 2, left  # the tied table
    model.get_input_embeddings().weight.data.copy_(table)
    return model


def only(examples, *tasks) -> list:
    "The examples with their questions of some tasks."
    kept = [(e, [t for t in e.turns if t.task in tasks]) for e in examples]
    return [replace(e, turns=turns) for e, turns in kept if turns]


def learn(model, tokenizer, examples, held_out, folder, steps, batch=24, lr=5e-4):
    "The trained model, or what a run left in the folder; its facts lie in learned.json."
    if (folder / 'learned.json').exists():
        return load(folder / 'model', 'cpu')
    torch.manual_seed(0)
    model.config.max_pictures = 2
    stage = replace(STAGES['scratch'], lr=lr)
    shown = only(held_out, Task.PRESENCE, Task.COMPARISON)
    done = fit(
        model,
        tokenizer,
        examples,
        folder,
        stage,
        steps=steps,
        batch_size=batch,
        callbacks=[Progress(shown, tokenizer, max(1, min(100, steps // 4)))],
        progress=False,
        resume=(folder / 'last.ckpt').exists(),
    )
    save(model, tokenizer, folder / 'model')
    losses = [loss for _, loss in done.pop('losses')]
    facts = {k: done[k] for k in ('seconds', 'steps', 'images', 'pairs', 'precision')}
    write_json(
        facts | dict(loss=float(np.mean(losses[-20:])), examples=len(examples)), folder / 'learned.json'
    )
    return model, tokenizer


def learned(folder) -> dict:
    return json.loads((folder / 'learned.json').read_text(encoding='utf-8'))


# ---- scores


def right(rows):
    return np.array([exact_match(p['answer'], p['truth']) for p in rows], float)


def standing(rows, others) -> dict:
    "Accuracy with its interval over blocks, and how far it lies ahead of other ways to answer."
    mine, groups = right(rows), [p['group'] for p in rows]
    score, interval = mean_interval(mine, groups)
    found = dict(n=len(rows), blocks=len(set(groups)), score=score, interval=list(interval))
    for name, answers in others.items():
        theirs = right(answers)
        ahead, between = mean_interval(mine - theirs, groups)
        found[name] = dict(score=float(theirs.mean()), ahead=ahead, interval=list(between))
    return found


def placed(rows, others) -> dict:
    "Overlap of boxes with its interval, and that of other ways to answer."
    found = dict(n=len(rows))
    for metric in ('meanIoU', 'Pr@0.5'):
        score, interval = score_with_interval(metric, rows)
        found[metric] = dict(score=score, interval=list(interval))
        for name, answers in others.items():
            answers = [p | dict(answer=p.get('answers', {}).get(metric, p['answer'])) for p in answers]
            found[metric][name] = score_with_interval(metric, answers, 0)[0]
    return found


def hidden_by_word(found) -> dict:
    "Answers with before grey, and with after grey, whichever stands first."
    pairs = list(zip(found['first_hidden'], found['last_hidden']))
    first = [p['words'][0] == 'before' for p, _ in pairs]
    return dict(
        before_hidden=[a if f else b for f, (a, b) in zip(first, pairs)],
        after_hidden=[b if f else a for f, (a, b) in zip(first, pairs)],
    )


def asked(model, tokenizer, examples, train, path) -> dict:
    "Predictions of all views, those of the prior with them; kept in a file."
    if not path.exists():
        found = predict(model, tokenizer, examples)
        known = prior_turns(example_questions(train)[0])
        found['prior'] = prior_predictions(known, found['answers'])
        again = lambda change: predict(model, tokenizer, [change(e) for e in examples], baselines=False)
        if 'states' in examples[0].place:
            found |= hidden_by_word(found)
            found |= dict(swapped=again(swapped)['answers'], twice=again(same_twice)['answers'])
        write_json(found, path)
    return json.loads(path.read_text(encoding='utf-8'))


def of(found, names, wanted) -> tuple:
    "(right view, {name: other view}) of the questions that are wanted."
    keep = [i for i, p in enumerate(found['answers']) if wanted(p)]
    pick = lambda name: [found[name][i] for i in keep]
    return pick('answers'), {name: pick(name) for name in names}


def alone(rows, wanted) -> dict:
    return standing([p for p in rows if wanted(p)], {})


# ---- parts

CHANGE = 'prior', 'shuffled', 'blind', 'before_hidden', 'after_hidden'
SENSED = 'prior', 'shuffled', 'blind', 'first_hidden', 'last_hidden'
_KIND = {q: how for hows in QUESTIONS.values() for how, questions in hows.items() for q in questions}


def kind_of(p) -> str:
    "What a yes/no question is about: new, gone, either, second or anything."
    return 'anything' if p['question'] == ANYTHING else _KIND.get(p['question'], '')


def painted(split, n) -> list:
    "Pairs of both sources; those of training are of several degrees of unlikeness."
    jitters = JITTERS if split == 'train' else JITTERS[-1:]
    return [
        e
        for source in SOURCES
        for seed, jitter in enumerate(jitters)
        for e in synthetic_pairs(split, n, seed, source, jitter)
    ]


def change_scores(found) -> dict:
    "The tables of painted changes: all yes/no questions, by kind and by source, controls, boxes."
    yes_no = lambda p: p['task'] == Task.PRESENCE
    scores = dict(all=standing(*of(found, CHANGE, yes_no)))
    for kind in ('either', 'anything', 'new', 'gone', 'second'):
        scores[kind] = standing(*of(found, CHANGE, lambda p: kind_of(p) == kind))
    for source in SOURCES:
        scores[source] = standing(*of(found, CHANGE, lambda p: yes_no(p) and f'/{source}/' in p['image']))
    scores |= dict(swapped=alone(found['swapped'], yes_no), same_twice=alone(found['twice'], yes_no))
    scores['swapped second'] = alone(found['swapped'], lambda p: kind_of(p) == 'second')
    scores['what changed'] = standing(*of(found, CHANGE, lambda p: p['task'] == Task.VQA))
    scores['where'] = placed(*of(found, CHANGE, lambda p: p['task'] == Task.GROUNDING))
    return scores


def some_answers(found, pictures=16) -> list:
    "What was said of some pairs, evenly drawn, to be shown beside their pictures."
    told = [p for p in found['answers'] if p['task'] in (Task.VQA, Task.GROUNDING)]
    images = list(dict.fromkeys(p['image'] for p in told if p['task'] == Task.GROUNDING))
    chosen = {images[i] for i in np.linspace(0, len(images) - 1, min(pictures, len(images))).astype(int)}
    keys = 'image', 'question', 'answer', 'truth'
    return [{k: p[k] for k in keys} for p in told if p['image'] in chosen]


def synthetic(args) -> dict:
    "Changes painted into chips."
    out = args.out / 'synthetic'
    train = painted('train', PAIRS)
    held_out = [e for source in SOURCES for e in synthetic_pairs('validation', 60, 1, source)]
    more = [same_twice(e, i % 2) for i, e in enumerate(train[::8])] + sample_examples('train')[::12]
    model = tokenizer = None
    if not (out / 'learned.json').exists():
        tokenizer = make_tokenizer([*train, *more, *sensor_pairs('train')])
        model = begin_from_packaged(tokenizer)
    model, tokenizer = learn(model, tokenizer, train + more, held_out, out, args.steps, 16)
    scores = {}
    for split in args.split:
        found = asked(model, tokenizer, painted(split, 120), train, out / f'{split}.json')
        scores[split] = change_scores(found)
        if split == 'test':
            scores['shown'] = some_answers(found)
        print(split, json.dumps(brief(scores[split])), flush=True)
    return dict(train=learned(out), **scores)


def loss(args) -> dict:
    "Real forest loss, fold by fold."
    rows = {}
    for fold in range(FOLDS):
        out = args.out / f'loss-{fold}'
        train, test = loss_examples(fold, 'train', FOLDS), loss_examples(fold, 'test', FOLDS)
        model = tokenizer = None
        if not (out / 'learned.json').exists():
            torch.manual_seed(fold)
            tokenizer = make_tokenizer(train)
            model = nano(tokenizer, **CHOICES)
        # the last step counts: nothing is chosen on the fold
        model, tokenizer = learn(model, tokenizer, train, train[:40], out, args.loss_steps, 12, 1e-3)
        found = asked(model, tokenizer, test, train, out / 'test.json')
        for name, predictions in found.items():
            rows.setdefault(name, []).extend(predictions)
        print(f'fold {fold}', json.dumps(brief(loss_scores(found))), flush=True)
    runs = [learned(args.out / f'loss-{fold}') for fold in range(FOLDS)]
    return dict(train=runs, test=loss_scores(rows))


def loss_scores(found) -> dict:
    yes_no = lambda p: p['task'] == Task.PRESENCE
    lost = lambda p: kind_of(p) == 'new'
    return {
        'was forest lost': standing(*of(found, CHANGE, lost)),
        'all': standing(*of(found, CHANGE, yes_no)),
        'swapped': alone(found['swapped'], lost),
        'same_twice': alone(found['twice'], lost),
        'how much': standing(*of(found, CHANGE, lambda p: p['task'] == Task.VQA)),
        'where': placed(*of(found, CHANGE, lambda p: p['task'] == Task.GROUNDING)),
    }


def sensors(args) -> dict:
    "Optical and thermal chips of one ground."
    out, base = args.out / 'sensors', args.out / 'synthetic' / 'model'
    train = sensor_pairs('train')
    model, tokenizer = load(base, 'cpu')
    held_out = sensor_pairs('validation')
    model, tokenizer = learn(model, tokenizer, train, held_out[::4], out, args.sensor_steps, 16)
    scores = {}
    for split in args.split:
        found = asked(model, tokenizer, sensor_pairs(split), train, out / f'{split}.json')
        same = of(found, SENSED, lambda p: p['question'] == SAME_GROUND)
        halves = of(found, SENSED, lambda p: p['task'] == Task.COMPARISON)
        scores[split] = {'same ground': standing(*same), 'halves': standing(*halves)}
        print(split, json.dumps(brief(scores[split])), flush=True)
    return dict(train=learned(out), **scores)


def brief(scores) -> dict:
    "Scores alone, for the eye."
    found = {}
    for name, row in scores.items():
        if 'score' in row:
            others = {k: round(v['score'], 3) for k, v in row.items() if isinstance(v, dict)}
            found[name] = [row['n'], round(row['score'], 3), *[round(x, 3) for x in row['interval']], others]
        else:
            found[name] = {m: round(row[m]['score'], 3) for m in row if m != 'n'}
    return found


PARTS = dict(synthetic=synthetic, loss=loss, sensors=sensors)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--only', nargs='+', choices=list(PARTS), default=list(PARTS))
    parser.add_argument('--split', nargs='+', choices=('validation', 'test'), default=['validation', 'test'])
    parser.add_argument('--steps', type=int, default=2400, help='of the painted changes')
    parser.add_argument('--loss-steps', type=int, default=600, help='of each fold')
    parser.add_argument('--sensor-steps', type=int, default=250)
    parser.add_argument('--out', type=Path, default=Path('runs/change'))
    parser.add_argument('--table', type=Path, default=Path('earthgpt_lite/assets/results/change.json'))
    args = parser.parse_args()
    for name in args.only:
        print(name, flush=True)
        facts = dict(date=str(date.today()), machine=machine(), threads=torch.get_num_threads())
        write_json(facts | dict(versions=versions(), **PARTS[name](args)), args.out / f'{name}.json')
    if len(args.split) == 2:
        table = json.loads(args.table.read_text(encoding='utf-8')) if args.table.exists() else {}
        for name in args.only:
            table[name] = json.loads((args.out / f'{name}.json').read_text(encoding='utf-8'))
        write_json({name: table[name] for name in PARTS if name in table}, args.table)
        print(f'written: {args.table}')


if __name__ == '__main__':
    main()
