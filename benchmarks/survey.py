"""Survey of a scene of 10,000 x 10,000 pixels: peak memory, and answers a second against tiles that are in memory already.

    python benchmarks/survey.py [--model runs/quickstart] [--size 128] [--side 10000]

The survey runs in a process of its own, so that its peak memory is its own. Both rates are of the same model with the same labels;
the two take turns (after every so many strips the survey waits while tiles in memory are answered), so that a noisy machine hits both.
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
from earthgpt_lite.raster.reading import read_tiles
from earthgpt_lite.app.survey import survey
scene, out, model, size, batch, every = *sys.argv[1:4], *map(int, sys.argv[4:7])
helper = Assistant.from_pretrained(model, 'cpu')
views = [t.chip() for _, t in zip(range(2 * batch), read_tiles(scene, size))]
spent = []
def from_memory():
    start = time.time()
    for i in range(0, len(views), batch): helper.classify(views[i:i + batch], list(COVERS))
    spent.append(time.time() - start)
def tell(done, total):
    if done % every == 0: from_memory()
from_memory(); spent.clear()
done = survey(helper, scene, out, classify=list(COVERS), size=size, batch_size=batch, progress=tell)
seconds, memory = done.seconds - sum(spent), len(views) * len(spent) / sum(spent)
print(json.dumps(dict(tiles=done.tiles, features=done.features, seconds=round(seconds, 1), answers_a_second=round(done.tiles / seconds, 1), from_memory=round(memory, 1),
                      share=round(done.tiles / seconds / memory, 3), peak_mb=round(peak_memory_mb()), threads=torch.get_num_threads())))
'''


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='runs/quickstart')
    parser.add_argument('--size', type=int, default=128, help='of a tile, pixels')
    parser.add_argument('--side', type=int, default=10_000, help='of the scene, pixels')
    parser.add_argument('--batch', type=int, default=64)
    parser.add_argument('--every', type=int, default=16, help='strips between two looks at tiles in memory')
    args = parser.parse_args()
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin

    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        with rasterio.open(
            f'{folder}/scene.tif',
            'w',
            driver='GTiff',
            width=args.side,
            height=args.side,
            count=3,
            dtype='uint8',
            crs='EPSG:32618',
            transform=from_origin(3e5, 4e6, 10, 10),
        ) as f:
            for row in range(0, args.side, 500):
                rows = min(500, args.side - row)
                f.write(
                    rng.integers(1, 255, (3, rows, args.side), 'uint8'),
                    window=((row, row + rows), (0, args.side)),
                )
        run = subprocess.run(
            [
                sys.executable,
                '-c',
                WORK,
                f'{folder}/scene.tif',
                f'{folder}/out.geojson',
                args.model,
                str(args.size),
                str(args.batch),
                str(args.every),
            ],
            capture_output=True,
            text=True,
        )
        print(run.stdout.strip() or run.stderr[-2000:])
        return json.loads(run.stdout) if run.returncode == 0 else None


if __name__ == '__main__':
    sys.exit(main() is None)
