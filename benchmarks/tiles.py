"""Trees in whole aerial pictures: read in tiles, as one view, or by a survey that slides over them.

    nice -n 5 python benchmarks/tiles.py                       # some twenty minutes on one core
    nice -n 5 python benchmarks/tiles.py --steps 1200          # an hour
    python benchmarks/tiles.py --steps 4 --pictures 4 --rounds 50    # a quick look
    python benchmarks/tiles.py --out earthgpt_lite/assets/results/tiles.json

Pictures of 256 x 256 pixels (25.6 m), in which most crowns are 20 to 60 pixels wide. Three models begin as the packaged
nano, whose square has 64 pixels, and train for the same steps with the same questions (find all trees, how many are
there) on training ground: one sees the whole and four tiles of 128 pixels, one the whole alone; the third sees windows
of 128 pixels, which `survey` slides over each picture, a quarter of a window shared by neighbours. All three see trees
of the same boxes; answers name them row by row. Asked on test ground, in windows that lie 64 pixels apart: F1 at
IoU 0.5 over all trees, and in how many pictures the number is right, from the question and from the boxes. A bootstrap
over blocks of ground (256 pixels of a strip) gives 95 % intervals, of the differences too. Nothing was chosen on test
ground: `--split validation` is what was looked at before.
"""

import argparse
import json
import random
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.app.quickstart import machine, versions
from earthgpt_lite.app.survey import survey
from earthgpt_lite.boxes.iou import dihedral_boxes, iou
from earthgpt_lite.boxes.layout import fit_picture, picture_grid
from earthgpt_lite.boxes.text import format_detection, parse_boxes
from earthgpt_lite.data.records import Task, Turn, sample_question
from earthgpt_lite.data.sample.trees import TREES, aerial, trees_in
from earthgpt_lite.model.generation import generate_answers
from earthgpt_lite.model.loading import load
from earthgpt_lite.model.processor import to_pixel_values
from earthgpt_lite.raster.chips import dihedral_image
from earthgpt_lite.train.fit import fit
from earthgpt_lite.train.optimizers import ScheduleOptions

SIDE, PART, TILES = 256, 128, 4  # of a picture and of a survey's window, pixels; of a picture
DETECT = sample_question(Task.DETECTION, label='trees')
COUNT = sample_question(Task.COUNTING, label='trees')
ARMS = {'tiles': (SIDE, TILES), 'one view': (SIDE, 0), 'survey': (PART, 0)}  # side of a picture, tiles


@dataclass
class TreePicture:
    "A window of an aerial picture, cut when it is looked at; trees row by row as it is turned."

    file: str
    window: tuple  # column, row, side
    dihedral: tuple
    tiles: int
    split: str = 'train'
    sensor: str = 'optical'

    def __post_init__(self):
        c, r, side = self.window
        self.name = f'{self.file}/{c}-{r}-{side}-{self.dihedral}'
        boxes = dihedral_boxes(trees_in(self.file, self.window)[0], *self.dihedral)
        rows = np.floor((boxes[:, 1] + boxes[:, 3]) / 2 * 4)  # four rows of the picture, from left to right
        self.boxes = boxes[np.lexsort((boxes[:, 0], rows))]
        told = format_detection([('tree', box) for box in self.boxes])
        self.turns = [Turn(DETECT, told, Task.DETECTION), Turn(COUNT, str(len(boxes)), Task.COUNTING)]

    @property
    def image(self):
        c, r, side = self.window
        image = dihedral_image(aerial(self.file)[r : r + side, c : c + side], *self.dihedral)
        return fit_picture(np.ascontiguousarray(image), 64, self.tiles)


def training_pictures(side, tiles, count=20_000, seed=0):
    "Windows of training ground, an eighth larger or smaller, by area; the largest strips most."
    rng, found = random.Random(seed), []
    strips = [(name, part) for name, parts in TREES.items() for part in parts['train']]
    areas = [(x2 - x1) * (y2 - y1) for _, (x1, y1, x2, y2) in strips]
    for name, (x1, y1, x2, y2) in rng.choices(strips, areas, k=count):
        own = rng.randint(side * 7 // 8, side * 9 // 8)
        window = rng.randint(x1, x2 - own), rng.randint(y1, y2 - own), own
        found.append((name, window, (rng.randrange(4), rng.random() < 0.5), tiles))
    return Lazy(found)


class Lazy(list):
    "Examples that are made when they are asked for."

    fingerprint = 'drawn'

    def __getitem__(self, i):
        found = super().__getitem__(i)
        return [TreePicture(*f) for f in found] if isinstance(i, slice) else TreePicture(*found)

    def __iter__(self):
        return (self[i] for i in range(len(self)))


def whole_pictures(split, step=64):
    "(file, window, block) of held-out ground."
    for name, parts in TREES.items():
        for x1, y1, x2, y2 in parts.get(split, ()):
            for r in [*range(y1, y2 - SIDE, step), y2 - SIDE]:
                for c in range(x1, x2 - SIDE + 1, step):
                    yield name, (c, r, SIDE), f'{name}-{c // SIDE}'


def train(arm, steps, batch, seed, folder):
    side, tiles = ARMS[arm]
    torch.manual_seed(seed)
    model, tokenizer = load('nano', 'cpu')
    model.config.tiles = tiles
    pictures, start = training_pictures(side, tiles, 24 * steps), time.process_time()
    options = dict(steps=steps, batch_size=batch, device='cpu', progress=False, seed=seed, augment=False)
    options['schedule'] = ScheduleOptions(warmup=0.05)
    done = fit(model, tokenizer, pictures, Path(folder) / arm, say=lambda text: None, **options)
    loss = float(np.mean([loss for _, loss in done['losses'][-20:]]))
    return model.eval(), tokenizer, dict(loss=loss, train_seconds=time.process_time() - start)


def asked(model, tokenizer, pictures):
    "(boxes in pixels, number that was said) of each picture."
    shown = [to_pixel_values(TreePicture(n, w, (0, False), model.config.tiles).image) for n, w, _ in pictures]
    questions = [(k, q) for q in (DETECT, COUNT) for k in range(len(shown))]
    said = generate_answers(model, tokenizer, shown, questions, 400, batch_size=32)
    boxes = [[box.box for box in parse_boxes(text, repair=True).boxes] for text, _ in said[: len(shown)]]
    counts = [int(text) if text.isdecimal() else -1 for text, _ in said[len(shown) :]]
    return [np.array(found).reshape(-1, 4) * SIDE for found in boxes], counts


def surveyed(model, tokenizer, pictures):
    "The same by a survey of each picture; the number is that of the boxes."
    helper, found = Assistant(model, tokenizer), []
    with tempfile.TemporaryDirectory() as folder:
        for k, (name, (c, r, side), _) in enumerate(pictures):
            file, out = f'{folder}/{k}.png', f'{folder}/{k}.json'
            Image.fromarray(aerial(name)[r : r + side, c : c + side]).save(file)
            survey(helper, file, out, detect='tree', size=PART, progress=False)
            corners = [
                np.array(a['polygon']) for a in json.loads(Path(out).read_text(encoding="utf-8"))['answers']
            ]
            found.append(np.array([[*ring.min(0), *ring.max(0)] for ring in corners]).reshape(-1, 4))
    return found, [len(boxes) for boxes in found]


def run_arm(arm, args, pictures):
    "(boxes, numbers, facts) of one model, trained and asked in a process of its own."
    with tempfile.TemporaryDirectory() as folder:
        model, tokenizer, facts = train(arm, args.steps, args.batch, args.seed, folder)
    start = time.process_time()
    boxes, counts = (surveyed if arm == 'survey' else asked)(model, tokenizer, pictures)
    rows, columns = picture_grid(SIDE, SIDE, 64, ARMS[arm][1])
    views = 1 + rows * columns if rows * columns > 1 else 1
    facts |= dict(ask_seconds=time.process_time() - start, visual_tokens=64 * views)
    print(arm, facts, flush=True)
    return boxes, counts, facts


def matched(boxes, truth):
    "(pairs at IoU 0.5, boxes, trees): each tree takes its best box that no better pair has taken."
    overlaps = iou(boxes[:, None], truth[None]) if len(boxes) and len(truth) else np.zeros((0, 0))
    pairs = 0
    while overlaps.size and overlaps.max() >= 0.5:
        i, j = np.unravel_index(overlaps.argmax(), overlaps.shape)
        overlaps[i], overlaps[:, j] = 0, 0
        pairs += 1
    return pairs, len(boxes), len(truth)


def measures(rows):  # (n, 5): pairs, boxes, trees, right number said, right number of boxes
    pairs, boxes, trees, said, boxed = np.asarray(rows, float).T
    f1 = 2 * pairs.sum() / max(1, boxes.sum() + trees.sum())
    precision, recall = pairs.sum() / max(1, boxes.sum()), pairs.sum() / max(1, trees.sum())
    return dict(f1=f1, precision=precision, recall=recall, count=said.mean(), count_of_boxes=boxed.mean())


def intervals(rows, blocks, rounds, seed=0):
    "Each arm's measures with 95 % intervals, and of each its lead over one view; whole blocks are drawn."
    rng, names = np.random.default_rng(seed), sorted(set(blocks))
    members = [np.flatnonzero(np.array(blocks) == name) for name in names]
    draws = [
        np.concatenate([members[i] for i in rng.integers(0, len(names), len(names))]) for _ in range(rounds)
    ]
    drawn = {arm: [measures(np.array(r)[d]) for d in draws] for arm, r in rows.items()}
    table = {}
    for arm, r in rows.items():
        table[arm] = {}
        for key, value in measures(r).items():
            own = [m[key] for m in drawn[arm]]
            lead = [a[key] - b[key] for a, b in zip(drawn[arm], drawn['one view'])]
            table[arm][key] = [value, *np.percentile(own, [2.5, 97.5])]
            table[arm][f'{key}_lead'] = [
                value - measures(rows['one view'])[key],
                *np.percentile(lead, [2.5, 97.5]),
            ]
    return {arm: {k: [round(float(x), 3) for x in v] for k, v in t.items()} for arm, t in table.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--steps', type=int, default=400)
    parser.add_argument('--batch', type=int, default=12, help='pictures of a step')
    parser.add_argument('--pictures', type=int, help='at most so many, evenly')
    parser.add_argument('--processes', type=int, default=1, help='models at a time')
    parser.add_argument('--split', default='test')
    parser.add_argument('--rounds', type=int, default=2000, help='of the bootstrap')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', help='a .json file for the table')
    args = parser.parse_args()
    pictures = list(whole_pictures(args.split))
    if args.pictures:
        pictures = pictures[:: max(1, len(pictures) // args.pictures)]
    truth = [trees_in(name, window)[0] * SIDE for name, window, _ in pictures]
    rows, facts = {}, {}
    with ProcessPoolExecutor(args.processes, get_context('spawn')) as pool:
        for arm, done in zip(ARMS, pool.map(run_arm, ARMS, repeat(args), repeat(pictures))):
            boxes, counts, facts[arm] = done
            rows[arm] = []
            for b, n, t in zip(boxes, counts, truth):
                rows[arm].append((*matched(b, t), n == len(t), len(b) == len(t)))
    table = intervals(rows, [block for *_, block in pictures], args.rounds)
    for arm in ARMS:
        table[arm] |= {k: round(v, 3) for k, v in facts[arm].items()}
    about = dict(split=args.split, pictures=len(pictures), blocks=len({b for *_, b in pictures}))
    about |= dict(trees=sum(map(len, truth)), steps=args.steps, batch=args.batch, seed=args.seed)
    found = about | dict(day=str(date.today()), machine=machine(), versions=versions(), arms=table)
    print(json.dumps(found, indent=1))
    if args.out:
        Path(args.out).write_text(json.dumps(found, indent=1) + '\n', encoding='utf-8')


if __name__ == '__main__':
    main()
