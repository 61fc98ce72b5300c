"""Answers a second: 64 questions in one batch with cached pictures, against transformers' plain `generate`.

    python benchmarks/generation.py [--preset nano] [--questions 64] [--pictures 16]
                                    [--tokens 24] [--rounds 3]

Plain is one question at a time. Same model (an untrained nano, or a preset with its pretrained weights), same
questions, same number of new tokens on both sides (no early stop), one run; the two take turns. Prints both
rates, their ratio, and how many answers are the same.
"""

import argparse
import statistics
import time

import torch

from earthgpt_lite.app.quickstart import make_tokenizer
from earthgpt_lite.data.sample.world_map import global_examples
from earthgpt_lite.model.generation import generate_answers
from earthgpt_lite.model.modeling import nano
from earthgpt_lite.model.processor import picture_prefix, to_pixel_values
from earthgpt_lite.model.tokens import ChatFormat
from earthgpt_lite.model.weights import build
from earthgpt_lite.raster.sources import as_chip


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (('questions', 64), ('pictures', 16), ('tokens', 24), ('rounds', 3)):
        parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--preset', default='nano')
    return parser.parse_args()


def asked_about(count, questions):
    "So many pictures that have enough questions, and the questions: [(index of the picture, question)]."
    enough = [e for e in global_examples('train', 20 * count) if len(e.turns) * count >= questions]
    examples, each = enough[:count], -(-questions // count)
    asked = [(i, turn.question) for i, e in enumerate(examples) for turn in e.turns[:each]]
    return examples, asked[:questions]


def load_model(preset, examples):
    torch.manual_seed(0)
    if preset != 'nano':
        return build(preset)
    tokenizer = make_tokenizer(examples)
    return nano(tokenizer).eval(), tokenizer


def answer_plainly(model, tokenizer, pictures, questions, fixed):
    "One question at a time, its picture in its row"
    chat = ChatFormat(**model.config.chat)
    prefix = picture_prefix(model.config, tokenizer)
    end = tokenizer(chat.end, add_special_tokens=False).input_ids[-1]
    answers = []
    for i, question in questions:
        ids = torch.tensor([prefix + chat.encode_question(tokenizer, question)])
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=pictures[i : i + 1],
            eos_token_id=end,
            pad_token_id=tokenizer.pad_token_id,
            **fixed,
        )
        answers.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip())
    return answers


def answer_batched(model, tokenizer, pictures, questions, fixed):
    return [text for text, _ in generate_answers(model, tokenizer, pictures, questions, **fixed)]


def main():
    args = arguments()
    examples, questions = asked_about(args.pictures, args.questions)
    model, tokenizer = load_model(args.preset, examples)
    chips = [as_chip(e.image, size=model.config.image_size) for e in examples]
    pictures = torch.stack([to_pixel_values(chip.image) for chip in chips])
    fixed = dict(max_new_tokens=args.tokens, min_new_tokens=args.tokens, do_sample=False)
    given = (model, tokenizer, pictures, questions, fixed)
    sides = {'one at a time': answer_plainly, 'batched': answer_batched}
    answers = {name: side(*given) for name, side in sides.items()}
    seconds = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            side(*given)
            seconds[name].append(time.perf_counter() - start)
    print(f'{args.preset}: {len(questions)} questions on {len(pictures)} pictures, ', end='')
    print(f'{args.tokens} new tokens each, {torch.get_num_threads()} threads')
    for name in sides:
        print(f'{name:14} {len(questions) / statistics.median(seconds[name]):7.1f} answers a second')
    ratios = [a / b for a, b in zip(seconds['one at a time'], seconds['batched'])]
    same = sum(a == b for a, b in zip(*answers.values()))
    print(f'ratio {statistics.median(ratios):.1f} (median of {args.rounds}); ', end='')
    print(f'{same} of {len(questions)} answers are the same')


if __name__ == '__main__':
    main()
