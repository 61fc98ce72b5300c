"""Survey of a scene of 10,000 x 10,000 pixels: peak memory, and answers a second against tiles that are in memory already.

    python benchmarks/survey.py [--model runs/quickstart] [--size 128] [--side 10000]

The survey runs in a process of its own, so that its peak memory is its own. Both rates are of the same model with the same labels.
"""
import argparse
import json
import subprocess
import sys
import tempfile

WORK = '''
import json, resource, sys, time
import torch
from earthgpt_lite.assistant import Assistant
from earthgpt_lite.samples import COVERS
from earthgpt_lite.sensors import tiles
from earthgpt_lite.survey import survey
scene, out, model, size, batch = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
helper = Assistant.from_pretrained(model, 'cpu')
views = [t.view() for _, t in zip(range(512), tiles(scene, size))]
def from_memory():
    start = time.time()
    for i in range(0, len(views), batch): helper.classify(views[i:i + batch], list(COVERS))
    return len(views) / (time.time() - start)
from_memory()
before = from_memory()
done = survey(helper, scene, out, classify=list(COVERS), size=size, batch_size=batch, progress=False)
rate, after = done.tiles / done.seconds, from_memory()
memory = (before + after) / 2
print(json.dumps(dict(tiles=done.tiles, seconds=round(done.seconds, 1), answers_a_second=round(rate, 1), from_memory=round(memory, 1), share=round(rate / memory, 3),
                      peak_mb=round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))))
'''

def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', default='runs/quickstart')
    parser.add_argument('--size', type=int, default=128, help='of a tile, pixels')
    parser.add_argument('--side', type=int, default=10_000, help='of the scene, pixels')
    parser.add_argument('--batch', type=int, default=64)
    args = parser.parse_args()
    import numpy as np
    import rasterio
    from rasterio.transform import from_origin
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        with rasterio.open(f'{folder}/scene.tif', 'w', driver='GTiff', width=args.side, height=args.side, count=3, dtype='uint8', crs='EPSG:32618', transform=from_origin(3e5, 4e6, 10, 10)) as f:
            for row in range(0, args.side, 500):
                rows = min(500, args.side - row)
                f.write(rng.integers(1, 255, (3, rows, args.side), 'uint8'), window=((row, row + rows), (0, args.side)))
        run = subprocess.run([sys.executable, '-c', WORK, f'{folder}/scene.tif', f'{folder}/out.geojson', args.model, str(args.size), str(args.batch)], capture_output=True, text=True)
        print(run.stdout.strip() or run.stderr[-2000:])
        return json.loads(run.stdout) if run.returncode == 0 else None

if __name__ == '__main__': sys.exit(main() is None)
