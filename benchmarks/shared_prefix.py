"""Question-answers a second of a training step: all questions of a picture on one prefix.

Against one question a row.

    python benchmarks/shared_prefix.py [--precision 32|bf16] [--pictures 32] [--rounds 5]

Same untrained nano model, same questions, pictures encoded once on both sides; the two take turns, so that a
noisy machine hits both. Prints the two losses, both rates and their ratio.
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
    model = nano(tokenizer)
    examples = examples[: args.pictures]
    prefix = picture_prefix(model.config, tokenizer)
    pairs = [encode_turns(tokenizer, e.turns, ChatFormat(), e.name) for e in examples]
    pictures = torch.stack([to_pixel_values(e.image) for e in examples])
    owner = [i for i, several in enumerate(pairs) for _ in several]
    shared = [build_sequence(several, prefix) for several in pairs]
    shared = collate(shared, pictures, tokenizer.pad_token_id)
    alone = [build_sequence([pair], prefix) for several in pairs for pair in several]
    alone = collate(alone, pictures, tokenizer.pad_token_id)

    def step(batch, rows):
        model.zero_grad()
        with torch.autocast('cpu', torch.bfloat16, enabled=args.precision == 'bf16'):
            inputs = {k: v for k, v in batch.items() if k != 'pixel_values'}
            out = model(image_features=model.image_features(pictures)[rows], **inputs)
        out.loss.backward()
        return out.loss.item()

    sides = {'shared prefix': (shared, list(range(len(pairs)))), 'one a row': (alone, owner)}
    losses = {name: step(*side) for name, side in sides.items()}
    seconds = {name: [] for name in sides}
    for _ in range(args.rounds):
        for name, side in sides.items():
            start = time.perf_counter()
            step(*side)
            seconds[name].append(time.perf_counter() - start)
    print(f'{len(owner)} question-answers on {len(pairs)} pictures, ', end='')
    print(f'{args.precision}, {torch.get_num_threads()} threads')
    for name in sides:
        rate = len(owner) / statistics.median(seconds[name])
        print(f'{name:14} loss {losses[name]:.7f}   {rate:7.1f} question-answers a second')
    ratios = [b / a for a, b in zip(seconds['shared prefix'], seconds['one a row'])]
    off = abs(losses['shared prefix'] / losses['one a row'] - 1)
    print(f'ratio {statistics.median(ratios):.2f} (median of {args.rounds}), ', end='')
    print(f'losses differ by {off:.1e} relative')


if __name__ == '__main__':
    main()
