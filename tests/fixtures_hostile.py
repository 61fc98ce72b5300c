"Small files that describe much: a header is all they need. build(folder): {name: path}, each below 1 MB."

import struct
import warnings
import zlib

import numpy as np
import rasterio
from PIL import Image


def tiff(path, *directories, data=b''):
    "A little-endian TIFF of directories, {tag: number or list of 32-bit numbers}; `data` are at byte 8."
    body, at = b'II*\0' + bytes(4) + data, []
    for tags in directories:
        body += bytes(len(body) % 2)
        rows = b''
        for tag, values in sorted(tags.items()):
            values = [values] if isinstance(values, int) else values
            where = values[0] if len(values) == 1 else len(body)
            if len(values) > 1:
                body += struct.pack(f'<{len(values)}I', *values)
            rows += struct.pack('<HHII', tag, 4, len(values), where)
        at.append(len(body))
        body += struct.pack('<H', len(tags)) + rows + bytes(4)
    for here, following in zip(at, at[1:]):
        count = struct.unpack_from('<H', body, here)[0]
        link = here + 2 + 12 * count
        body = body[:link] + struct.pack('<I', following) + body[link + 4 :]
    path.write_bytes(body[:4] + struct.pack('<I', at[0]) + body[8:])
    return path


def directory(width, height, rows, compression=8, size=0, **more):
    "Tags of a grey 8-bit picture in strips, all of them at byte 8."
    strips = -(-height // rows) if rows < 2**31 else 1
    tags = {256: width, 257: height, 258: 8, 259: compression, 262: 1, 277: 1, 278: rows}
    tags |= {273: [8] * min(strips, 1000), 279: [size] * min(strips, 1000)}
    return tags | {int(tag[1:]): value for tag, value in more.items()}


def png(path, width, height, colour=0, interlaced=0, extra=b'', rows=None):
    "A black PNG; unpacked it has width x height pixels, or fewer rows than its header says."
    row = width * {0: 1, 2: 3}[colour] + 1
    packer = zlib.compressobj(9)
    packed = [packer.compress(bytes(row)) for _ in range(rows or height)] + [packer.flush()]
    head = struct.pack('>IIBBBBB', width, height, 8, colour, 0, 0, interlaced)
    path.write_bytes(
        b'\x89PNG\r\n\x1a\n'
        + _chunk(b'IHDR', head)
        + extra
        + _chunk(b'IDAT', b''.join(packed))
        + _chunk(b'IEND', b'')
    )
    return path


def _chunk(kind, data):
    return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def raster(path, width, height, count=1, dtype='uint8', driver='GTiff', **options):
    "Zeros, most of them not even written."
    if driver == 'GTiff':
        options = dict(compress='deflate', sparse_ok=True) | options
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        shape = dict(width=width, height=height, count=count, dtype=dtype)
        with rasterio.open(path, 'w', driver=driver, **shape, **options) as f:
            if count > 3:
                f.descriptions = ('red', 'green', 'blue', *f.descriptions[3:])
            f.write(np.ones((count, 1, min(width, 64)), dtype), window=((0, 1), (0, min(width, 64))))
    return path


def patched(path, find, offset, patch, **options):
    "A small picture whose header says another size."
    Image.new(options.pop('mode', 'RGB'), (16, 16)).save(path, **options)
    data = bytearray(path.read_bytes())
    at = (data.index(find) if find else 0) + offset
    data[at : at + len(patch)] = patch
    path.write_bytes(data)
    return path


def jpeg2000(path, side, **options):
    "A JPEG 2000 of 1024 x 1024 whose headers say another size; without tile_size all is one tile."
    Image.new('RGB', (1024, 1024)).save(path, **options)
    data, size = bytearray(path.read_bytes()), struct.pack('>II', side, side)
    for mark, offset in ((b'ihdr', 4), (b'\xff\x51', 6), *([(b'\xff\x51', 22)] * (not options))):
        at = data.index(mark) + offset
        data[at : at + 8] = size
    path.write_bytes(data)
    return path


def build(folder):
    zeros = zlib.compress(bytes(64 * 64))
    small = directory(64, 64, 64, size=len(zeros))
    big_tile = {322: 65_536, 323: 65_536, 324: 8, 325: len(zeros)}
    mask = {k: v for k, v in small.items() if k not in (273, 278, 279)} | {254: 4, 262: 4, 258: 1} | big_tile
    coarse = {k: v for k, v in small.items() if k not in (273, 278, 279)} | {254: 1, 256: 32, 257: 32}
    text = b'Comment\0\0' + zlib.compress(bytes(200_000_000), 9)
    made = [
        raster(folder / 'line.tif', 65_535, 1),
        raster(folder / 'column.tif', 1, 65_535),
        raster(folder / 'thin.tif', 20_000, 1),
        raster(folder / 'bands.tif', 900, 800, 2000, 'uint16', interleave='pixel'),
        raster(folder / 'planes.tif', 64, 64, 5000, 'uint8', interleave='band'),
        raster(folder / 'wide_numbers.tif', 9000, 9000, 4, 'float64', tiled=True),
        raster(folder / 'complex.tif', 7000, 7000, 1, 'complex128', tiled=True),
        tiff(folder / 'tile.tif', coarse | big_tile | {254: 0}, data=zeros),
        raster(folder / 'scene.tif', 60_000, 60_000, tiled=True, blockxsize=4096, blockysize=4096),
        tiff(folder / 'strip.tif', directory(60_000, 60_000, 60_000, size=len(zeros)), data=zeros),
        tiff(folder / 'claim.tif', directory(10**9, 10**9, 1, size=len(zeros)), data=zeros),
        tiff(folder / 'claim_tiles.tif', {**small, 256: 10**9, 257: 10**9, 322: 256, 323: 256}, data=zeros),
        tiff(folder / 'mask.tif', small, mask, data=zeros),
        tiff(folder / 'coarse.tif', small, coarse | big_tile, data=zeros),
        png(folder / 'black.png', 11_000, 11_000),
        png(folder / 'colour.png', 6500, 6500, colour=2),
        png(folder / 'thin.png', 200_000, 1),
        png(folder / 'interlaced.png', 24_000, 24_000, interlaced=1, rows=99),
        png(folder / 'text.png', 64, 64, extra=_chunk(b'zTXt', text)),
        patched(folder / 'progressive.jpg', b'\xff\xc2', 5, b'\xfd\xe8\xfd\xe8', progressive=True),
        patched(folder / 'baseline.jpg', b'\xff\xc0', 5, b'\xfd\xe8\xfd\xe8'),
        patched(folder / 'lossless.webp', b'\x2f', 1, b'\xff\xff\xff\x0f', lossless=True),
        patched(folder / 'flat.gif', b',\0\0\0\0', 5, b'\x0f\x27\x0f\x27', mode='P'),
        jpeg2000(folder / 'tile.jp2', 60_000),
        jpeg2000(folder / 'tiles.jp2', 60_000, tile_size=(1024, 1024)),
        patched(folder / 'plain.bmp', None, 18, struct.pack('<ii', 60_000, 60_000)),
    ]
    return {path.name: path for path in made}
