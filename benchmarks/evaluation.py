"""Evaluation of a model on the samples: answers a second of `evaluate` against asking one by one.

    python benchmarks/evaluation.py [--model runs/quickstart] [--pictures 400] [--alone 150]

One by one: a picture and a question go to the model, the answer is waited for, the next.
`evaluate`: everything from reading the pictures to the written sheet.
Both ask the same model in the same process; one by one is timed before and after.
"""

import argparse
import importlib.metadata
import json
import platform
import sys
import tempfile
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='runs/quickstart')
    parser.add_argument('--pictures', type=int, default=400)
    parser.add_argument('--alone', type=int, default=150, help='questions that are asked one by one')
    args = parser.parse_args()
    import numpy as np
    import torch
    from earthgpt_lite.data.sample.trees import sample_examples
    from earthgpt_lite.eval.runner import evaluate_model
    from earthgpt_lite.eval.questions import model_asker, open_data, sample_evenly
    from earthgpt_lite.model.loading import load

    examples = sample_examples('validation')
    questions, render, _ = open_data(examples)
    questions = sample_evenly(questions, args.pictures)
    model, tokenizer = load(args.model, 'cpu')
    ask = model_asker(model, tokenizer, render)
    some = [questions[i] for i in np.linspace(0, len(questions) - 1, args.alone).astype(int)]
    answers = {}

    def alone():
        start = time.perf_counter()
        for q in some:
            answers[q['image'], q['question']] = ask([q])[0]['answer']
        return len(some) / (time.perf_counter() - start)

    for q in some[:5]:
        ask([q])
    before = alone()
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        settings = dict(limit=args.pictures, baselines=False, progress=False, say=None)
        metrics = evaluate_model((model, tokenizer), examples, folder, **settings)
        whole = time.perf_counter() - start
        with open(f'{folder}/answers.jsonl', encoding='utf-8') as f:
            together = {(r['image'], r['question']): r['answer'] for r in map(json.loads, f)}
    after = alone()
    rate, one = metrics['asked'] / metrics['seconds'], (before + after) / 2
    same = np.mean([together[k] == answer for k, answer in answers.items()])
    packages = {n: importlib.metadata.version(n) for n in ('torch', 'transformers', 'earthgpt-lite')}
    found = dict(
        pictures=metrics['scored']['pictures'],
        answers=metrics['asked'],
        one_by_one=round(one, 1),
        before_after=[round(before, 1), round(after, 1)],
        evaluate=round(rate, 1),
        ratio=round(rate / one, 2),
        scoring_and_report_s=round(whole - metrics['seconds'], 1),
        same_answers=round(float(same), 4),
        threads=torch.get_num_threads(),
        versions={'python': platform.python_version()} | packages,
    )
    print(json.dumps(found))


if __name__ == '__main__':
    sys.exit(main())
