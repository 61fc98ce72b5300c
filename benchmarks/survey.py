"""Survey of a scene of 10,000 x 10,000 pixels: peak memory, and answers a second against tiles in memory.

    python benchmarks/survey.py [--model runs/quickstart] [--size 128] [--side 10000]

The survey runs in a process of its own, so that its peak memory is its own. Both rates are of the same model with
the same labels; the two take turns (after every so many strips the survey waits while tiles in memory are
answered), so that a noisy machine hits both.
"""

import argparse
import json
import subprocess
import sys
import tempfile

WORK = '''
import json, sys, time
import torch
from earthgpt_lite.app.assistant import Assistant
from earthgpt_lite.train.throughput import peak_memory_mb
from earthgpt_lite.data.sample.world_map import COVERS
from earthgpt_lite.raster.sources import read_tiles
from earthgpt_lite.app.survey import survey
scene, out, model, size, batch, every = *sys.argv[1:4], *map(int, sys.argv[4:7])
helper = Assistant.from_pretrained(model, 'cpu')
chips = [t.chip() for _, t in zip(range(2 * batch), read_tiles(scene, size))]
spent = []
def from_memory():
    start = time.time()
    for i in range(0, len(chips), batch):
        helper.classify(chips[i:i + batch], list(COVERS))
    spent.append(time.time() - start)
def tell(done, total):
    if done % every == 0:
        from_memory()
from_memory()
spent.clear()
done = survey(helper, scene, out, classify=list(COVERS), size=size, batch_size=batch, progress=tell)
seconds = done.seconds - sum(spent)
rate, memory = done.tiles / seconds, len(chips) * len(spent) / sum(spent)
row = dict(tiles=done.tiles, features=done.features, seconds=round(seconds, 1), answers_a_second=round(rate, 1))
row |= dict(from_memory=round(memory, 1), share=round(rate / memory, 3))
print(json.dumps(row | dict(peak_mb=round(peak_memory_mb()), threads=torch.get_num_threads())))
'''


def make_scene(path, side):
    "Noise in three bands, written in strips of 500 rows."
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    rng = np.random.default_rng(0)
    place = dict(crs='EPSG:32618', transform=from_origin(3e5, 4e6, 10, 10))
    size = dict(width=side, height=side, count=3, dtype='uint8')
    with rasterio.open(path, 'w', driver='GTiff', **size, **place) as f:
        for row in range(0, side, 500):
            rows = min(500, side - row)
            f.write(rng.integers(1, 255, (3, rows, side), 'uint8'), window=((row, row + rows), (0, side)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='runs/quickstart')
    parser.add_argument('--size', type=int, default=128, help='of a tile, pixels')
    parser.add_argument('--side', type=int, default=10_000, help='of the scene, pixels')
    parser.add_argument('--batch', type=int, default=64)
    parser.add_argument('--every', type=int, default=16, help='strips between two looks at tiles in memory')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scene, out = f'{folder}/scene.tif', f'{folder}/out.geojson'
        make_scene(scene, args.side)
        numbers = map(str, (args.size, args.batch, args.every))
        command = [sys.executable, '-c', WORK, scene, out, args.model, *numbers]
        run = subprocess.run(command, capture_output=True, text=True)
        print(run.stdout.strip() or run.stderr[-2000:])
        return json.loads(run.stdout) if run.returncode == 0 else None


if __name__ == '__main__':
    sys.exit(main() is None)
