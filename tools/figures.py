"""All stored figures of all notebooks on contact sheets, to be looked at.

python tools/figures.py [FOLDER [NB...]]    # PNG sheets into FOLDER; without it into figures/, which git ignores

Each figure stands in its own size under the notebook and the cell that drew it; those of docs/img come last.
"""

import base64
import io
import sys
from pathlib import Path

from nb import ROOT, load, notebooks, short
from PIL import Image, ImageDraw, ImageFont

PAGE = 1500, 1000  # pixels
GAP, HEAD = 16, 20  # around a figure, above it


def stored(path):
    "The figures that a notebook holds: (cell number, cell id, picture)"
    for i, cell in enumerate(load(path)['cells']):
        for output in cell.get('outputs', ()):
            for kind in ('image/png', 'image/jpeg'):
                if data := output.get('data', {}).get(kind):
                    yield (
                        i,
                        cell['id'],
                        Image.open(io.BytesIO(base64.b64decode(''.join(data)))).convert('RGB'),
                    )


def labelled(paths):
    "Figures with the words that stand above them"
    for path in paths:
        path = Path(path).resolve()
        if path.suffix == '.png':
            yield path.name, Image.open(path).convert('RGB')
            continue
        for i, cell, picture in stored(path):
            yield f'{short(path)} · {i} · {cell} · {picture.width} x {picture.height}', picture


def tile(words, picture):
    "A figure under its words, at most as large as a page"
    picture.thumbnail((PAGE[0], PAGE[1] - HEAD))
    font = ImageFont.load_default(13)
    width = min(PAGE[0], max(picture.width + 1, int(font.getlength(words))))
    res = Image.new('RGB', (width, picture.height + HEAD + 1), 'white')
    pen = ImageDraw.Draw(res)
    pen.text((0, 1), words, 'black', font)
    res.paste(picture, (0, HEAD))
    pen.rectangle((0, HEAD, picture.width, picture.height + HEAD), outline='#bbbbbb')
    return res


def sheets(tiles):
    "Sheets filled row by row"
    sheet, x, y, row = None, 0, 0, 0
    for t in tiles:
        if x + t.width > PAGE[0]:
            x, y, row = 0, y + row + GAP, 0
        if sheet and y + t.height > PAGE[1]:
            yield sheet
            sheet = None
        if not sheet:
            sheet, x, y, row = Image.new('RGB', PAGE, '#eeeeee'), 0, 0, 0
        sheet.paste(t, (x, y))
        x, row = x + t.width + GAP, max(row, t.height)
    if sheet:
        yield sheet


def main(folder=ROOT / 'figures', *paths):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob('sheet-*.png'):
        old.unlink()
    paths = paths or [*notebooks(), *sorted((ROOT / 'docs' / 'img').glob('*.png'))]
    tiles = [tile(*figure) for figure in labelled(paths)]
    for n, sheet in enumerate(sheets(tiles), 1):
        sheet.save(folder / f'sheet-{n:02}.png')
    print(f'{len(tiles)} figures on {n} sheets in {folder}')


if __name__ == '__main__':
    main(*sys.argv[1:])
