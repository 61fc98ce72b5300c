"What can be looked at: large files by their blocks, addresses, STAC items, arrays of any kind."

import http.server
import json
import subprocess
import sys
import threading
import traceback
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from PIL import Image

from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster import opening
from earthgpt_lite.raster.opening import open_raster
from earthgpt_lite.raster.reading import read_scene, scene_files
from earthgpt_lite.raster.sources import LARGE, as_chip, read_stac, read_tiles

UTM = dict(crs='EPSG:32618', transform=Affine(10, 0, 5e5, 0, -10, 4e6))


def write(path, pixels, names=(), tags=None, **options):
    c, h, w = pixels.shape
    shape = dict(driver='GTiff', width=w, height=h, count=c, dtype=pixels.dtype)
    with rasterio.open(path, 'w', **{**shape, **UTM, **options}) as f:
        f.write(pixels)
        f.update_tags(**tags or {})
        if names:
            f.descriptions = names
    return path


# ---- large files


@pytest.fixture(scope='module')
def large(tmp_path_factory):
    "Twelve bands of Sentinel-2, 216 MB unpacked: red is a ramp with noise, the upper left has no data"
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 500, (600, 600), 'uint16').repeat(5, 0).repeat(5, 1)
    pixels = np.stack([noise + 100 * k for k in range(12)])
    pixels[3] += (np.arange(3000, dtype='uint16') // 2)[:, None]
    pixels[:, :300, :300] = 0
    path = tmp_path_factory.mktemp('large') / 'S2A_MSIL2A_20240108T101401_N0510_R022_T33UWP.tif'
    options = dict(tiled=True, compress='deflate', zlevel=1, nodata=0)
    return write(path, pixels, **options), pixels


PEAK = '''
import sys
import threading
import traceback
from types import SimpleNamespace
import torch  # what shrinks; a library, and none of the file
from earthgpt_lite.raster.sources import as_chip
def peak(): return int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1]) / 1e3
before = peak()
chip = as_chip(sys.argv[1], size=64)
print(peak() - before, *chip.image.shape)
'''


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
def test_a_chip_of_a_large_file_takes_little_memory(large):
    done = subprocess.run(
        [sys.executable, '-c', PEAK, str(large[0])], capture_output=True, text=True, check=True
    )
    grown, *shape = done.stdout.split()
    print(f'{float(grown):.0f} MB')
    assert float(grown) < 40 and shape == ['64', '64', '3']


def test_a_large_file_is_averaged_and_keeps_its_frame(large):
    path, pixels = large
    assert pixels.nbytes > LARGE
    chip, red = as_chip(path, size=300), pixels[3].astype(float)
    assert (chip.frame.width, chip.about['gsd'], chip.frame.transform) == (3000, 10, UTM['transform'])
    assert (chip.image[:30, :30] == 127).all()  # no data
    means, valid = red.reshape(300, 10, 300, 10).mean((1, 3)), np.ones((300, 300), bool)
    valid[:30, :30] = False
    low, high = np.percentile(means[valid], (2, 98))
    wanted = (means - low).clip(0, high - low) * 255 / (high - low)
    assert np.abs(wanted - chip.image[..., 0])[valid].mean() < 1


def test_means_leave_out_what_is_no_data(tmp_path, monkeypatch):
    pixels = np.full((1, 600, 600), 200, 'int16')
    pixels[:, ::2] = -9999
    path = write(tmp_path / 'a.tif', pixels)
    monkeypatch.setattr('earthgpt_lite.raster.sources.LARGE', 1000)
    chip = as_chip(path, size=64, nodata=-9999)
    assert len(np.unique(chip.image)) == 1  # one value, so one grey


def test_classes_count_by_the_most_frequent(tmp_path, monkeypatch):
    monkeypatch.setattr('earthgpt_lite.raster.sources.LARGE', 1000)
    classes = np.full((1, 900, 900), 1, 'uint8')
    classes[:, :, ::3] = 3
    path = write(tmp_path / 'a.tif', classes)
    with rasterio.open(path, 'r+') as file:
        file.write_colormap(1, {1: (0, 0, 255, 255), 2: (200, 200, 0, 255), 3: (0, 100, 0, 255)})
    assert (as_chip(path, size=64).image == (0, 0, 255)).all()
    named = write(tmp_path / 'b.tif', classes * 50, ('SCL',))
    assert (as_chip(named, size=64).image == 50).all()
    plain = as_chip(write(tmp_path / 'c.tif', classes * 50), size=64).image
    assert abs(plain.astype(int) - 83).max() <= 1


def test_echoes_of_complex_numbers_are_averaged_as_power(tmp_path, monkeypatch):
    monkeypatch.setattr('earthgpt_lite.raster.sources.LARGE', 1000)
    turns = np.exp(2j * np.pi * np.random.default_rng(0).random((1, 512, 512))).astype('c8')
    turns[:, :, 256:] *= 10
    path = write(tmp_path / 'a.tif', turns)
    image = as_chip(path, size=64, sensor='sar').image
    assert image[:, :31].std() < 2 < image[:, 33:].mean() - image[:, :31].mean()


# ---- addresses


@pytest.fixture
def server(tmp_path):
    "Gives ranges of the files in a folder and counts the bytes; `stop_after` requests it hangs up"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            web.asked.append(self.path)
            path = tmp_path / self.path.split('?')[0].lstrip('/')
            if web.stop_after is not None and len(web.asked) > web.stop_after:
                return self.connection.close()
            if not path.is_file():
                return self.send_error(404)
            size, wanted = path.stat().st_size, self.headers.get('Range')
            start, _, stop = (wanted or 'bytes=0-').removeprefix('bytes=').partition('-')
            start, stop = int(start), min(int(stop or size - 1), size - 1)
            self.send_response(206 if wanted else 200)
            self.send_header('Accept-Ranges', 'bytes')
            self.send_header('Content-Length', str(stop + 1 - start))
            if wanted:
                self.send_header('Content-Range', f'bytes {start}-{stop}/{size}')
            self.end_headers()
            if self.command == 'GET':
                with path.open('rb') as file:
                    file.seek(start)
                    self.wfile.write(file.read(stop + 1 - start))
                    web.sent += stop + 1 - start

        do_HEAD = do_GET
        log_message = lambda *_: None

    web = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    web.asked, web.sent, web.stop_after = [], 0, None
    web.url = f'http://127.0.0.1:{web.server_address[1]}'
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    yield web
    web.shutdown()
    web.server_close()


def cog(path, side, count=4):
    "A file in tiles with a coarse copy; only its middle is written"
    options = dict(driver='GTiff', width=side, height=side, count=count, dtype='uint8', tiled=True, **UTM)
    options |= dict(blockxsize=512, blockysize=512, compress='deflate', zlevel=1, sparse_ok=True)
    pixels = np.random.default_rng(0).integers(1, 255, (count, 1024, 1024), 'uint8')
    with rasterio.open(path, 'w', **options) as file:
        middle = side // 1024 * 512
        file.write(pixels, window=rasterio.windows.Window(middle, middle, 1024, 1024))
        file.descriptions = ('red', 'green', 'blue', 'nir')[:count]
    with rasterio.open(path, 'r+') as file:
        file.build_overviews([16], rasterio.enums.Resampling.nearest)
    return path


def test_of_a_large_file_only_the_blocks_that_are_shown_are_read(tmp_path, server):
    path, window = cog(tmp_path / 'a.tif', 10_000), (4700, 4700, 64, 64)
    address = f'{server.url}/a.tif'
    scene = read_scene(address, window=window)
    assert as_chip(scene).image.shape == (64, 64, 3) and scene.path == address
    print(f'{server.sent:,} bytes, {len(server.asked)} requests')
    assert 64**2 < server.sent < 3e6
    assert scene.pixels.any() and (scene.pixels == read_scene(path, window=window).pixels).all()
    server.sent = 0
    chip = as_chip(address, size=64)
    assert chip.frame.width == 10_000 and server.sent < 3e6
    assert set(server.asked) == {'/a.tif'}


def test_a_signature_is_told_to_nobody(tmp_path, server, caplog):
    caplog.set_level('DEBUG')
    write(tmp_path / 'a.tif', np.random.default_rng(0).integers(1, 255, (3, 64, 64), 'uint8'))
    (tmp_path / 'b.tif').write_text('no picture')
    for name in ('a.tif', 'b.tif', 'missing.tif'):
        address = f'{server.url.replace("//", "//user:word@")}/{name}?sig=SECRET#part'
        try:
            chip = as_chip(address)
            assert chip.name == 'a.tif' and 'SECRET' not in repr(chip)
            assert scene_files(address) == [f'{server.url}/a.tif']
        except BadInput as error:
            assert name != 'a.tif' and f'{server.url}/{name}: ' in str(error)
            told = ''.join(traceback.format_exception(error))
            assert 'SECRET' not in told and 'word' not in told
    assert 'sig=SECRET' in ''.join(server.asked)
    assert 'SECRET' not in caplog.text and 'user:word' not in caplog.text


def test_a_server_that_stops_answering_is_one_sentence(tmp_path, server, monkeypatch):
    monkeypatch.setitem(opening._WAIT, 'GDAL_HTTP_MAX_RETRY', 0)
    cog(tmp_path / 'a.tif', 2000)
    with open_raster(f'{server.url}/a.tif?sig=SECRET') as file:
        server.stop_after = len(server.asked)
        with pytest.raises(BadInput, match='a.tif: the server .* stopped answering'):
            file.read(1)
    with pytest.raises(BadInput, match='no such file|not an image'):
        read_scene(f'{server.url}/a.tif', allow_vrt=None)  # a record's picture, which nobody named


# ---- items of a catalogue, and a file for each band


@pytest.fixture
def item(tmp_path):
    "An item of Sentinel-2 with a file for each of three bands, blue also at 20 m, and its counts"
    counts = np.random.default_rng(0).integers(1200, 5000, (3, 64, 64), 'uint16')
    assets = dict(visual=dict(href='tci.tif', type='image/tiff', roles=['visual']))
    for name, band, pixels in zip(('red', 'green', 'blue'), ('B04', 'B03', 'B02'), counts):
        write(tmp_path / f'{band}.tif', pixels[None])
        bands = [dict(name=band, common_name=name)]
        values = [dict(scale=1e-4, offset=-0.1, nodata=0, spatial_resolution=10)]
        assets[name] = dict(href=f'./{band}.tif', type='image/tiff', roles=['data'])
        assets[name] |= {'eo:bands': bands, 'raster:bands': values}
    coarse = [dict(scale=1e-4, offset=-0.1, nodata=0, spatial_resolution=20)]
    assets['blue_20m'] = {**assets['blue'], 'href': 'missing.tif', 'raster:bands': coarse}
    properties = dict(
        datetime='2024-01-08T10:14:01.024Z', created='2025-01-01T00:00:00Z', platform='sentinel-2a'
    )
    return dict(type='Feature', id='S2A_one', properties=properties, assets=assets), counts


def test_an_item_is_a_scene(tmp_path, item):
    item, counts = item
    (tmp_path / 'item.json').write_text(json.dumps(item))
    scene = read_stac(tmp_path / 'item.json')
    assert scene.bands == ('red', 'green', 'blue') and scene.unit == 'reflectance'
    assert np.allclose(scene.pixels, counts * 1e-4 - 0.1, atol=1e-6)
    assert (scene.datetime, scene.platform, scene.gsd) == ('2024-01-08T10:14:01Z', 'sentinel-2', 10)
    chip = as_chip(tmp_path / 'item.json', size=64)
    assert chip.frame.transform == UTM['transform'] and chip.about['unit'] == 'reflectance'
    for asset in item['assets'].values():
        asset['href'] = str(tmp_path / asset['href'])
    assert (as_chip(item, size=64).image == chip.image).all()
    item['properties']['earthsearch:boa_offset_applied'] = True
    assert np.allclose(read_stac(item).pixels, counts * 1e-4, atol=1e-6)
    assert read_stac(item['assets']['red']).pixels.shape == (1, 64, 64)
    assert read_stac(item, ['B04', 'green']).bands == ('red', 'green')


def test_an_item_of_a_server(tmp_path, server, item):
    (tmp_path / 'item.json').write_text(json.dumps(item[0]))
    scene = read_stac(f'{server.url}/item.json?sig=SECRET')
    assert np.allclose(scene.pixels, item[1] * 1e-4 - 0.1, atol=1e-6) and 'SECRET' not in repr(scene)
    item[0]['assets']['red']['href'] = '/etc/red.tif'
    (tmp_path / 'item.json').write_text(json.dumps(item[0]))
    with pytest.raises(BadInput, match='cannot be read|no image'):
        read_stac(f'{server.url}/item.json')


def test_items_without_a_usable_asset(tmp_path, item):
    item, _ = item
    with pytest.raises(
        BadInput, match='S2A_one: no asset with the bands nir that can be read; its assets are'
    ):
        read_stac(item, ['nir'])
    item['assets']['red']['href'] = 's3://bucket/B04.tif'
    with pytest.raises(BadInput, match='S2A_one: its asset s3://bucket/B04.tif cannot be read'):
        read_stac(item)
    with pytest.raises(BadInput, match='S2A_two: no asset with the image'):
        as_chip(dict(id='S2A_two', assets={}))
    (tmp_path / 'bad.json').write_text('{')
    with pytest.raises(BadInput, match='bad.json: no STAC item'):
        as_chip(tmp_path / 'bad.json')
    item['assets']['red'] |= {'href': str(tmp_path / 'B04.tif'), 'raster:bands': [dict(scale=0, offset=0)]}
    with pytest.raises(BadInput, match='a scale of 0; correct it'):
        read_stac(item, ['red'])


def test_files_of_one_scene(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 5000, (3, 64, 64), 'uint16')
    paths = [write(tmp_path / f'{n}.tif', p[None], (n,)) for n, p in zip(('red', 'green', 'blue'), pixels)]
    whole = write(tmp_path / 'all.tif', pixels, ('red', 'green', 'blue'))
    assert (as_chip(paths).image == as_chip(whole).image).all()
    with pytest.raises(BadInput, match='the band red comes twice'):
        as_chip([*paths[:2], paths[0]])
    moved = write(tmp_path / 'moved.tif', pixels[:1], ('nir',), transform=Affine(10, 0, 6e5, 0, -10, 4e6))
    with pytest.raises(BadInput, match='moved.tif lies on another grid than red.tif'):
        as_chip([paths[0], moved])


# ---- arrays


def test_arrays_of_any_order_are_one_picture():
    pixels = np.random.default_rng(0).integers(0, 255, (40, 50, 3), 'uint8')
    image = as_chip(pixels).image
    for same in (pixels.transpose(2, 0, 1), Image.fromarray(pixels), torch.from_numpy(pixels.copy())):
        assert (as_chip(same).image == image).all()
    assert (as_chip(torch.from_numpy(pixels.transpose(2, 0, 1).copy())).image == image).all()
    reflectance = pixels.astype('f4') / 255 * 0.3
    assert (as_chip(reflectance).image == as_chip(reflectance.transpose(2, 0, 1)).image).all()


def test_an_array_of_xarray_keeps_its_place():
    pixels = np.random.default_rng(0).integers(1, 4000, (3, 40, 50), 'uint16')
    pixels[:, :10, :10] = 0
    crs = rasterio.CRS.from_epsg(32618)
    place = SimpleNamespace(crs=crs, transform=lambda: UTM['transform'], nodata=0)
    array = SimpleNamespace(values=pixels, dims=('band', 'y', 'x'), coords={}, attrs={}, rio=place)
    chip = as_chip(array)
    assert (chip.frame.crs, chip.frame.transform) == (crs, UTM['transform'])
    assert abs(chip.about['gsd'] - 10) < 0.01
    assert (chip.image[5:15, :10] == 127).all() and chip.image.std() > 20
    del array.rio
    assert as_chip(array).frame.crs is None


def test_where_an_item_is_not_taken_its_assets_are(tmp_path):
    (tmp_path / 'item.json').write_text('{"assets": {}}', encoding='utf-8')
    with pytest.raises(BadInput, match='item.json: not an image .*STAC.* otherwise name one asset'):
        next(read_tiles(tmp_path / 'item.json'))
