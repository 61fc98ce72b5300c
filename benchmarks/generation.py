"""Answers a second: 64 questions in one batch with remembered pictures, against transformers' plain `generate`, one question at a time.

    python benchmarks/generation.py [--preset nano] [--questions 64] [--pictures 16] [--tokens 24] [--rounds 3]

Same model (an untrained nano, or a preset with its pretrained weights), same questions, same number of new tokens on both sides (no early stop), one run; the
two take turns. Prints both rates, their ratio, and how many answers are the same.
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
from earthgpt_lite.raster.reading import as_chip


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in (('questions', 64), ('pictures', 16), ('tokens', 24), ('rounds', 3)):
        parser.add_argument(f'--{name}', type=int, default=default)
    parser.add_argument('--preset', default='nano')
    args = parser.parse_args()
    examples = [
        e
        for e in global_examples('train', 20 * args.pictures)
        if len(e.turns) * args.pictures >= args.questions
    ][: args.pictures]
    torch.manual_seed(0)
    if args.preset == 'nano':
        model, tokenizer = nano(words := make_tokenizer(examples)).eval(), words
    else:
        model, tokenizer = build(args.preset)
    chat = ChatFormat(**model.config.chat)
    pictures = torch.stack(
        [to_pixel_values(as_chip(e.image, size=model.config.image_size).image) for e in examples]
    )
    questions = [
        (i, t.question)
        for i, e in enumerate(examples)
        for t in e.turns[: -(-args.questions // args.pictures)]
    ][: args.questions]
    prefix, end = (
        picture_prefix(model.config, tokenizer),
        tokenizer(chat.end, add_special_tokens=False).input_ids[-1],
    )
    fixed = dict(max_new_tokens=args.tokens, min_new_tokens=args.tokens, do_sample=False)

    def plain():
        said = []
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
            said.append(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True).strip())
        return said

    def batched():
        return [text for text, _ in generate_answers(model, tokenizer, pictures, questions, **fixed)]

    ways = {'one at a time': plain, 'batched': batched}
    said, seconds = {name: way() for name, way in ways.items()}, {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    print(
        f'{args.preset}: {len(questions)} questions on {len(pictures)} pictures, {args.tokens} new tokens each, {torch.get_num_threads()} threads'
    )
    for name in ways:
        print(f'{name:14} {len(questions) / statistics.median(seconds[name]):7.1f} answers a second')
    ratios = [a / b for a, b in zip(seconds['one at a time'], seconds['batched'])]
    print(
        f'ratio {statistics.median(ratios):.1f} (median of {args.rounds}); {sum(a == b for a, b in zip(*said.values()))} of {len(questions)} answers are the same'
    )


if __name__ == '__main__':
    main()
