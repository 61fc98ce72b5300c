"""Question-answers a second of a training step: all questions of a picture on one prefix, against one question a row.

    python benchmarks/shared_prefix.py [--precision 32|bf16] [--pictures 32] [--rounds 5]

Same untrained nano model, same questions, pictures encoded once on both sides; the two take turns, so that a noisy machine
hits both. Prints the two losses, both rates and their ratio.
"""

import argparse
import statistics
import time

import torch

from earthgpt_lite.app.quickstart import make_tokenizer
from earthgpt_lite.data.sample.world_map import global_examples
from earthgpt_lite.model.modeling import nano
from earthgpt_lite.model.packing import build_sequence, collate
from earthgpt_lite.model.processor import picture_prefix, to_pixel_values
from earthgpt_lite.model.tokens import ChatFormat, encode_turns


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--precision', default='32', choices=('32', 'bf16'))
    parser.add_argument('--pictures', type=int, default=32)
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    examples = [e for e in global_examples('train', 20 * args.pictures) if e.turns]
    tokenizer = make_tokenizer(examples)
    torch.manual_seed(0)
    model, examples = nano(tokenizer), examples[: args.pictures]
    prefix = picture_prefix(model.config, tokenizer)
    pairs = [encode_turns(tokenizer, e.turns, ChatFormat(), e.name) for e in examples]
    pictures = torch.stack([to_pixel_values(e.image) for e in examples])
    owner = [i for i, p in enumerate(pairs) for _ in p]
    shared = collate([build_sequence(p, prefix) for p in pairs], pictures, tokenizer.pad_token_id)
    alone = collate([build_sequence([q], prefix) for p in pairs for q in p], pictures, tokenizer.pad_token_id)

    def step(batch, rows):
        model.zero_grad()
        with torch.autocast('cpu', torch.bfloat16, enabled=args.precision == 'bf16'):
            inputs = {k: v for k, v in batch.items() if k != 'pixel_values'}
            out = model(image_features=model.image_features(pictures)[rows], **inputs)
        out.loss.backward()
        return out.loss.item()

    ways = {'shared prefix': (shared, list(range(len(pairs)))), 'one a row': (alone, owner)}
    losses, seconds = {name: step(*way) for name, way in ways.items()}, {name: [] for name in ways}
    for _ in range(args.rounds):
        for name, way in ways.items():
            start = time.perf_counter()
            step(*way)
            seconds[name].append(time.perf_counter() - start)
    print(
        f'{len(owner)} question-answers on {len(pairs)} pictures, {args.precision}, {torch.get_num_threads()} threads'
    )
    for name in ways:
        print(
            f'{name:14} loss {losses[name]:.7f}   {len(owner) / statistics.median(seconds[name]):7.1f} question-answers a second'
        )
    ratios = [b / a for a, b in zip(seconds['shared prefix'], seconds['one a row'])]
    print(
        f'ratio {statistics.median(ratios):.2f} (median of {args.rounds}), losses differ by {abs(losses["shared prefix"] / losses["one a row"] - 1):.1e} relative'
    )


if __name__ == '__main__':
    main()
