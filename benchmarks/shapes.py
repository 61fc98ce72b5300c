"""How long shapes on a map take to become records: many tiles, and one file with many shapes.

    python benchmarks/shapes.py                  # 200 tiles of 512 pixels, 50,000 houses
    python benchmarks/shapes.py --tiles 40 --shapes 1000

Tiles lie side by side, twenty in a row, in UTM, a metre a pixel; houses of 9 by 7 metres are strewn over them.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from earthgpt_lite.data.convert import read

SIDE, ROW, LEFT, TOP = 512, 20, 500_000, 5_000_000


def write_tile(path, number):
    x, y = LEFT + SIDE * (number % ROW), TOP - SIDE * (number // ROW)
    profile = dict(driver='GTiff', width=SIDE, height=SIDE, count=1, dtype='uint8', crs='EPSG:32631')
    with rasterio.open(path, 'w', transform=Affine(1, 0, x, 0, -1, y), **profile) as file:
        file.write(np.zeros((1, SIDE, SIDE), 'uint8'))


def house(x, y):
    ring = [(x, y), (x + 9, y), (x + 9, y - 7), (x, y - 7), (x, y)]
    geometry = {'type': 'Polygon', 'coordinates': [ring]}
    return {'type': 'Feature', 'properties': {'label': 'house'}, 'geometry': geometry}


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--tiles', type=int, default=200)
    parser.add_argument('--shapes', type=int, default=50_000)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.tiles):
            write_tile(Path(folder) / f'{number}.tif', number)
        size = SIDE * min(ROW, args.tiles), SIDE * -(-args.tiles // ROW)
        places = rng.uniform((LEFT, TOP - size[1]), (LEFT + size[0], TOP), (args.shapes, 2))
        crs = {'type': 'name', 'properties': {'name': 'EPSG:32631'}}
        features = [house(x, y) for x, y in places.tolist()]
        text = json.dumps({'type': 'FeatureCollection', 'crs': crs, 'features': features})
        (Path(folder) / 'houses.geojson').write_text(text, encoding='utf-8')
        start = time.perf_counter()
        records = list(read('geojson', folder, most=args.shapes))
        print(f'{len(records)} records of {args.shapes} shapes in {time.perf_counter() - start:.1f} s')


if __name__ == '__main__':
    main()
