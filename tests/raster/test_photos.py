"Photos: the fast way to a JPEG gives what the slow one gave, and leaves what is odd to it."

import io
import os
import time

import numpy as np
import pytest
from PIL import Image

from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster import products
from earthgpt_lite.raster.chips import GREY, resize
from earthgpt_lite.raster.opening import open_raster
from earthgpt_lite.raster.photos import decode_chip, decode_photo, encode_chip
from earthgpt_lite.raster.products import metadata_files
from earthgpt_lite.raster.reading import read_scene
from earthgpt_lite.raster.sources import as_chip

NOISE = (
    np.random.default_rng(0).integers(0, 256, (16, 21, 3), 'uint8').repeat(5, 0).repeat(5, 1)
)  # (80, 105, 3)


def saved(path, picture=NOISE, mode='RGB', **options):
    Image.fromarray(picture).convert(mode).save(path, **options)
    return path


def decoded(path):
    with open_raster(path) as file:
        return decode_photo(file)


@pytest.mark.parametrize('size', [(80, 105), (17, 33), (1, 2), (8, 8)])
@pytest.mark.parametrize('mode', ['RGB', 'L'])
@pytest.mark.parametrize(
    'options', [{}, dict(subsampling='4:4:4'), dict(subsampling='4:2:2', progressive=True), dict(quality=30)]
)
def test_a_photo_is_decoded_as_pillow_does(tmp_path, size, mode, options):
    path = saved(tmp_path / 'a.jpg', NOISE[: size[0], : size[1]], mode, **options)
    wanted = np.asarray(Image.open(path)).reshape(*size, -1)
    assert np.array_equal(np.moveaxis(decoded(path), 0, -1), wanted)
    assert np.array_equal(np.moveaxis(read_scene(path).pixels, 0, -1), wanted)


def test_of_all_colours_it_is_what_rasterio_reads(tmp_path):
    path = saved(tmp_path / 'a.jpg', subsampling='4:4:4', quality=95)
    with open_raster(path) as file:
        apart = np.abs(decode_photo(file).astype(int) - file.read())
    assert apart.max() <= 1


@pytest.mark.parametrize('mode', ['CMYK', 'RGB'])
def test_what_is_odd_is_left_to_rasterio(tmp_path, monkeypatch, mode):
    path = saved(tmp_path / 'a.jpg', mode=mode)
    if mode == 'RGB':
        data = path.read_bytes()
        path.write_bytes(data[:20] + b'\0\0\0' + data[20:])  # bytes that no rule allows
    assert decoded(path) is None
    monkeypatch.setattr('earthgpt_lite.raster.reading.decode_photo', lambda file: None)
    slow = as_chip(path, size=64)
    monkeypatch.undo()
    assert np.array_equal(as_chip(path, size=64).image, slow.image)


def test_no_cut_photo_is_taken_for_whole(tmp_path):
    whole = saved(tmp_path / 'a.jpg').read_bytes()
    for end in range(200, len(whole) - 2, len(whole) // 25):
        (tmp_path / 'cut.jpg').write_bytes(whole[:end])
        with pytest.raises(BadInput, match='cut.jpg'):
            as_chip(tmp_path / 'cut.jpg', size=64)


def test_the_mask_beside_a_photo_counts(tmp_path):
    black = NOISE.copy()
    black[:40, :40] = 0
    path = saved(tmp_path / 'a.jpg', black, quality=100, subsampling='4:4:4')
    assert decoded(path) is not None and not (as_chip(path).image[20:40, 8:32] == GREY).any()
    bands = (f'<PAMRasterBand band="{k}"><NoDataValue>0</NoDataValue></PAMRasterBand>' for k in (1, 2, 3))
    (tmp_path / 'a.jpg.aux.xml').write_text(f'<PAMDataset>{"".join(bands)}</PAMDataset>')
    assert decoded(path) is None
    assert (as_chip(path).image[20:40, 8:32] == GREY).all()


def test_place_and_turn_are_as_the_file_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by a quarter; nobody does so today
    path = saved(tmp_path / 'a.jpg', quality=100, subsampling='4:4:4', exif=exif)
    (tmp_path / 'a.wld').write_text('2\n0\n0\n-2\n501\n999\n')
    chip = as_chip(path, size=64)
    assert (chip.frame.width, chip.frame.height) == (105, 80) and chip.frame.transform.a == 2
    assert chip.frame.transform.c == 500 and chip.frame.transform.f == 1000
    assert np.abs(as_chip(path).image[12:92].astype(int) - NOISE).mean() < 2


def test_bands_and_sensors_are_chosen_as_ever(tmp_path):
    path = saved(tmp_path / 'a.jpg', subsampling='4:4:4')
    whole = read_scene(path).pixels
    assert np.array_equal(read_scene(path, bands=[3, 1]).pixels, whole[[2, 0]])
    assert as_chip(path, 'sar').sensor == 'sar'
    assert np.array_equal(as_chip(path, bands=[2]).image[12:92, :, 0], whole[1])
    mask = saved(
        tmp_path / 'mask.jpg', np.eye(2, dtype='uint8').repeat(40, 0).repeat(40, 1), 'L', quality=100
    )
    assert as_chip(mask).image.max() == 255  # 0 and 1 are black and white


def test_a_picture_is_shrunk_as_pillow_does():
    for size in (224, 64, 7):
        noise = np.random.default_rng(size).integers(0, 256, (128, 128, 3), 'uint8')
        wanted = np.asarray(Image.fromarray(noise).resize((size, size), Image.BICUBIC)).astype(int)
        assert np.abs(resize(noise, size) - wanted).max() <= 2
    frozen = noise.copy()
    frozen.flags.writeable = False
    assert np.array_equal(resize(frozen, 50), resize(noise, 50))


def test_a_chip_comes_back_from_the_disk():
    chip = NOISE[:80, :80]
    assert np.array_equal(decode_chip(encode_chip(chip), 80, 'webp'), chip)
    assert np.abs(decode_chip(encode_chip(chip, 95), 80, 'jpeg 95').astype(int) - chip).mean() < 4
    other = io.BytesIO()
    Image.fromarray(chip).save(other, 'PNG')
    for data in (encode_chip(chip[:64, :64]), encode_chip(chip)[:-50], other.getvalue(), b''):
        for form in ('webp', 'jpeg 95'):
            with pytest.raises((ValueError, OSError)):
                decode_chip(data, 80, form)


# ---- a million pictures in one folder


def test_a_folder_is_listed_once(tmp_path, monkeypatch):
    paths = [saved(tmp_path / f'{k}.jpg') for k in range(5)]
    past = time.time() - 100
    os.utime(tmp_path, (past, past))
    listed, scan = [], os.scandir
    monkeypatch.setattr(products.os, 'scandir', lambda folder: listed.append(str(folder)) or scan(folder))
    for path in paths:
        as_chip(path, size=64)
    assert listed.count(str(tmp_path)) == 1


def test_metadata_that_come_later_are_seen(tmp_path):
    path = saved(tmp_path / 'a.jpg')
    assert metadata_files(path) == []
    note = tmp_path / 'a_metadata.xml'
    note.write_text('<a/>')
    assert metadata_files(path) == [str(note)]
    note.unlink()
    assert metadata_files(path) == []
