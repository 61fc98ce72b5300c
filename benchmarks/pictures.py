"""From picture files to chips: the old path against the new one, one worker against two, packed against not packed.

    python benchmarks/pictures.py [--pictures 24] [--side 800] [--size 448] [--rounds 5]

The old path is rasterio for the pixels and their masks, and Pillow for shrinking the padded square. It opens files as
the new one does, so what was saved there is on both sides. Processor time of one process, in turns, the least of all
rounds; with workers wall time, which only means something on idle cores. Prints the table of docs/benchmarks.md.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from earthgpt_lite.data.records import Record, Turn
from earthgpt_lite.data.sample.world_map import DATA
from earthgpt_lite.data.shards import PackedData, PackOptions, pack
from earthgpt_lite.data.store import InstructionData
from earthgpt_lite.raster import reading
from earthgpt_lite.raster.chips import GREY
from earthgpt_lite.raster.reading import read_scene
from earthgpt_lite.raster.sources import as_chip

SOURCES = ('global_optical.tif', 'sentinel2_virginia.tif')


def write_pictures(folder, count, side):  # windows of the sample scenes, each as JPEG and PNG
    rng, scenes = np.random.default_rng(0), [read_scene(DATA / name).chip() for name in SOURCES]
    for k in range(count):
        chip = scenes[k % len(scenes)]
        frame = chip.frame
        inside = chip.image[frame.pad_y :, frame.pad_x :][: frame.height, : frame.width]
        row, column = (rng.integers(0, edge - side + 1) for edge in inside.shape[:2])
        picture = Image.fromarray(np.ascontiguousarray(inside[row : row + side, column : column + side]))
        picture.save(folder / f'{k:03d}.jpg', quality=90)
        picture.save(folder / f'{k:03d}.png')
    os.utime(folder, (1, 1))  # a folder at rest, as that of a data set


def old_chip_of(path, size):
    no_mask = patch.object(reading, 'MaskFlags', SimpleNamespace(all_valid=None))  # each is read
    with patch.object(reading, 'decode_photo', lambda file: None), no_mask:
        scene = read_scene(path, 'optical', allow_vrt=None)
    image = np.where(scene.valid[..., None], np.moveaxis(scene.pixels[[0, 1, 2]], 0, -1), np.uint8(GREY))
    frame = scene.frame
    square = np.full((frame.side, frame.side, 3), GREY, np.uint8)
    square[frame.pad_y : frame.pad_y + frame.height, frame.pad_x : frame.pad_x + frame.width] = image
    return np.asarray(Image.fromarray(square).resize((size, size), Image.BICUBIC))


def chip_of(path, size):
    return as_chip(path, 'optical', size, None).image


def in_turns(
    ways, count, rounds
):  # seconds of processor time of `count` pictures; of each the least of all rounds
    least = {name: np.full(count, np.inf) for name in ways}
    for _ in range(rounds):
        for i in range(count):
            for name, way in ways.items():
                start = time.process_time()
                way(i)
                least[name][i] = min(least[name][i], time.process_time() - start)
    return {name: times.sum() for name, times in least.items()}


class Pictures(torch.utils.data.Dataset):
    def __init__(self, paths, size):
        self.paths, self.size = paths, size

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, i):
        return torch.from_numpy(np.ascontiguousarray(chip_of(self.paths[i], self.size)))


def with_workers(paths, size, workers):  # pictures a second by the clock, once they are at work
    loader = iter(DataLoader(Pictures(paths * 20, size), batch_size=8, num_workers=workers))
    for _ in range(2 * workers):
        next(loader)
    start, done = time.perf_counter(), 0
    for batch in loader:
        done += len(batch)
    return done / (time.perf_counter() - start)


def rows_of_paths(folder, size, rounds):  # (what, pictures a second: old, new, and by how much they differ)
    for ending in ('jpg', 'png'):
        paths = sorted(folder.glob(f'*.{ending}'))

        def old(i):
            return old_chip_of(paths[i], size)

        def new(i):
            return chip_of(paths[i], size)

        apart = [np.abs(old(i).astype(int) - new(i)) for i in range(len(paths))]
        spent = in_turns(dict(old=old, new=new), len(paths), rounds)
        told = f'{np.mean(apart):.3f}, largest {np.max(apart)}'
        yield ending, len(paths) / spent['old'], len(paths) / spent['new'], told


def rows_of_shards(folder, size, rounds):  # (what, pictures a second, kB a picture)
    paths = sorted(folder.glob('*.jpg'))
    records = [Record(path.name, [Turn('what is this?', 'ground')]) for path in paths]
    store = InstructionData.build(records, folder / 'store', folder)
    stores = {'JPEG files': store}
    for name, jpeg in (('packed, WebP without loss', None), ('packed, JPEG 95', 95)):
        pack(folder / 'store', folder / name, PackOptions(size, jpeg=jpeg))
        stores[name] = PackedData(folder / name)
    ways = {name: lambda i, s=s: s.chip(i, size) for name, s in stores.items()}
    spent = in_turns(ways, len(paths), rounds)
    for name in stores:
        files = paths if name == 'JPEG files' else list((folder / name).glob('pictures*'))
        yield name, len(paths) / spent[name], sum(f.stat().st_size for f in files) / len(paths) / 1000


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--pictures', type=int, default=24)
    parser.add_argument('--side', type=int, default=800, help='of the pictures, pixels')
    parser.add_argument('--size', type=int, default=448, help='of the chips, pixels')
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_pictures(folder, args.pictures, args.side)
        print(
            '| pictures a second and core | old | new | times | chips differ by, of 255 |\n|---|---|---|---|---|'
        )
        for what, old, new, apart in rows_of_paths(folder, args.size, args.rounds):
            print(
                f'| {what} of {args.side} to {args.size} | {old:.0f} | {new:.0f} | {new / old:.1f} | {apart} |'
            )
        print('\n| new path, by the clock | pictures a second |\n|---|---|')
        paths, best = sorted(folder.glob('*.jpg')), {}
        for _ in range(args.rounds):
            for workers in (1, 2):
                best[workers] = max(best.get(workers, 0), with_workers(paths, args.size, workers))
        print(
            f'| one worker | {best[1]:.0f} |\n| two workers | {best[2]:.0f}, {best[2] / best[1]:.2f} times |'
        )
        print('\n| the same chips from | pictures a second and core | kB a picture |\n|---|---|---|')
        for what, rate, size in rows_of_shards(folder, args.size, args.rounds):
            print(f'| {what} | {rate:.0f} | {size:.0f} |')


if __name__ == '__main__':
    main()
