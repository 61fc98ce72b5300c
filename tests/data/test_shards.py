"Shards: packed is to the bit what is not packed; what is missing, cut or lies is told; an address is asked once for each part."

import http.server
import json
import shutil
import threading
from functools import partial

import numpy as np
import pytest
import torch
from fixtures_training import small, tokenizer
from PIL import Image

from earthgpt_lite.data import shards
from earthgpt_lite.data.records import Record, Task, Turn
from earthgpt_lite.data.shards import PackedData, PackOptions, is_packed, pack, read_shard
from earthgpt_lite.data.store import InstructionData, write_rows
from earthgpt_lite.errors import BadInput
from earthgpt_lite.files import NotWritten
from earthgpt_lite.raster.chips import Sensor
from earthgpt_lite.raster.rendering import Rendering, SensorRendering
from earthgpt_lite.train.dataset import InstructionBatches
from earthgpt_lite.train.examples import StoredExamples

SMALL = PackOptions(size=64, shard_pictures=3)


@pytest.fixture(scope='module')
def source(tmp_path_factory):
    "Ten records on seven pictures, JPEG and PNG, of two sensors, in a file beside their pictures"
    folder, rng = tmp_path_factory.mktemp('source'), np.random.default_rng(0)
    for k in range(7):
        noise = rng.integers(0, 256, (9, 12, 3), 'uint8').repeat(12, 0).repeat(12, 1)
        Image.fromarray(noise).save(folder / f'{k}.{"jpg" if k % 2 else "png"}')
    rows = []
    for i in (0, 1, 2, 3, 4, 5, 6, 1, 0, 3):
        name, sensor = f'{i}.{"jpg" if i % 2 else "png"}', Sensor.SAR if i == 3 else Sensor.OPTICAL
        rows.append(Record(name, [Turn('what is this?', f'picture {i}'), Turn('where?', 'here')], sensor))
    write_rows(rows, folder / 'records.jsonl')
    return folder / 'records.jsonl'


@pytest.fixture(scope='module')
def packed(source, tmp_path_factory):
    folder = tmp_path_factory.mktemp('packed') / 'all'
    pack(source, folder, SMALL)
    return folder


@pytest.fixture
def copy(packed, tmp_path):
    return shutil.copytree(packed, tmp_path / 'copy')


def files_of(folder):
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob('*')
        if p.suffix in ('.arrow', '.npy')
    }


# ---- the same


def test_packed_is_to_the_bit_what_is_not(source, packed, tmp_path):
    store, found = InstructionData.build(source, tmp_path / 'store'), PackedData(packed)
    assert is_packed(packed) and not is_packed(tmp_path / 'store') and len(found) == len(store) == 10
    assert [found[i] for i in range(10)] == [store[i] for i in range(10)]
    assert found.info['pictures'] == 7 and len(found.info['shards']) == 3
    for i in range(10):
        assert np.array_equal(found.chip(i, 64), store.chip(i, 64))
        assert found.image(i) == store[i].image
    tok = tokenizer()
    both = [InstructionBatches(StoredExamples(s, 64), tok, small(tok).config, 4) for s in (store, found)]
    for step in range(4):
        for a, b in zip(*(batches.batch(step).items() for batches in both)):
            assert a[0] == b[0] and torch.equal(a[1], b[1])


def test_any_number_of_workers_writes_the_same(source, packed, tmp_path):
    pack(source, tmp_path / 'two', SMALL, workers=2)
    assert files_of(tmp_path / 'two') == files_of(packed)


@pytest.mark.parametrize('end', [1, 3, 5])
def test_an_interrupted_packing_goes_on(source, packed, tmp_path, monkeypatch, end):
    made, one = [], shards._pack_picture
    for stop in (True, False):

        def count(root, options, picture, stop=stop):
            if stop and len(made) == end:
                raise KeyboardInterrupt
            made.append(picture)
            return one(root, options, picture)

        monkeypatch.setattr(shards, '_pack_picture', count)
        if stop:
            with pytest.raises(KeyboardInterrupt):
                pack(source, tmp_path / 'new', SMALL)
            with pytest.raises(BadInput, match='nothing packed'):
                PackedData(tmp_path / 'new')
        else:
            pack(source, tmp_path / 'new', SMALL)
    assert len(made) == 7 + end % 3  # those of a shard that was not whole are made twice
    assert files_of(tmp_path / 'new') == files_of(packed)
    assert not (tmp_path / 'new' / 'work').exists()


def test_what_is_finished_is_compared_and_not_made_again(source, copy, monkeypatch):
    monkeypatch.setattr(shards, '_pack_picture', None)
    assert pack(source, copy, SMALL) == PackedData(copy).info
    data = bytearray((copy / 'pictures-00001.arrow').read_bytes())
    data[-3000] ^= 1
    (copy / 'pictures-00001.arrow').write_bytes(data)
    with pytest.raises(BadInput, match='pictures-00001.arrow is not what was packed'):
        pack(source, copy, SMALL)
    with pytest.raises(BadInput, match='something else'):
        pack(source, copy, PackOptions(size=65, shard_pictures=3))


def test_as_jpeg_it_is_smaller_and_near(source, packed, tmp_path):
    options = PackOptions(size=64, jpeg=95)
    pack(source, tmp_path / 'jpeg', options)
    near, same = PackedData(tmp_path / 'jpeg'), PackedData(packed)
    apart = [np.abs(near.chip(i, 64).astype(int) - same.chip(i, 64)).mean() for i in range(10)]
    assert 0 < max(apart) < 6


# ---- what is refused


def test_another_size_or_rendering_is_refused(packed):
    found = PackedData(packed)
    with pytest.raises(BadInput, match='a size of 65 is asked for'):
        found.chip(0, 65)
    with pytest.raises(BadInput, match='another rendering'):
        found.chip(0, 64, Rendering(optical=SensorRendering(percent=(1, 99))))
    assert np.array_equal(found.chip(0, 64, Rendering(size=64)), found.chip(0, 64))


def test_pictures_that_cannot_be_read_are_counted_and_named(source, packed, tmp_path):
    folder = shutil.copytree(source.parent, tmp_path / 'source')
    (folder / '1.jpg').write_bytes((folder / '1.jpg').read_bytes()[:300])
    with pytest.raises(BadInput, match=r'1 of 3 pictures cannot be packed.*1\.jpg'):
        pack(folder / 'records.jsonl', tmp_path / 'new', SMALL)
    info = pack(
        folder / 'records.jsonl', tmp_path / 'new', PackOptions(64, shard_pictures=3, max_unreadable=0.2)
    )
    assert info['left_out'] == 2 and info['records'] == 8 and [name for name, _ in info['left']] == ['1.jpg']
    whole, found = PackedData(packed), PackedData(tmp_path / 'new').verify()
    kept = [i for i in range(10) if whole[i].image != '1.jpg']
    for k, i in enumerate(kept):
        assert found[k] == whole[i] and np.array_equal(found.chip(k, 64), whole.chip(i, 64))


def test_the_target_lies_outside_of_the_source(source, tmp_path):
    InstructionData.build(source, tmp_path / 'store')
    with pytest.raises(BadInput, match='which is to be packed'):
        pack(tmp_path / 'store', tmp_path / 'store' / 'packed', SMALL)


def test_a_full_disk_is_told_before(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: shutil._ntuple_diskusage(10**9, 10**9, 1000))
    with pytest.raises(NotWritten, match='still to come'):
        pack(source, tmp_path / 'new', SMALL)
    assert not list((tmp_path / 'new').glob('pictures*'))


@pytest.mark.parametrize('part', ['pictures-00001.arrow', 'numbers.npy', 'records/records-00000.arrow'])
def test_a_part_that_is_missing_or_cut_is_named(copy, part):
    data = (copy / part).read_bytes()
    (copy / part).write_bytes(data[:-10])
    with pytest.raises(BadInput, match=f'{part} has .* bytes'):
        PackedData(copy)
    (copy / part).unlink()
    with pytest.raises(BadInput, match=f'{part} is missing'):
        PackedData(copy)


def test_a_spoilt_shard_is_refused_when_it_is_read(copy):
    file = copy / 'pictures-00000.arrow'
    good = file.read_bytes()
    for at in range(0, len(good), len(good) // 40):
        data = bytearray(good)
        data[at] ^= 255
        file.write_bytes(data)
        found = PackedData(copy)
        for i in range(3):
            try:
                assert found.chip(i, 64).shape == (64, 64, 3)
            except BadInput as e:
                assert 'pictures-00000.arrow' in str(e)


@pytest.mark.parametrize(
    'changes',
    [
        dict(kind='other'),
        dict(size=10**9),
        dict(size='64'),
        dict(records=-1),
        dict(records=10**15),
        dict(pictures=10**6),
        dict(per_shard=0),
        dict(form='pickle'),
        dict(files=[]),
        dict(files=['../../secret.arrow']),
        dict(shards=['/etc/passwd']),
        dict(shards=None),
        dict(parts=None),
        dict(parts={'../numbers.npy': dict(bytes=1, sha256='0' * 64)}),
        dict(rendering=[]),
        dict(rendering=dict(optical=dict(percent=[9, 1]))),
    ],
)
def test_a_manifest_that_lies_is_refused(copy, changes):
    info = json.loads((copy / 'info.json').read_text())
    (copy / 'info.json').write_text(json.dumps(info | changes))
    with pytest.raises(BadInput):
        PackedData(copy)


@pytest.mark.parametrize(
    'numbers', [np.zeros(9, 'int32'), np.full(10, 7, 'int32'), np.full(10, -1, 'int32'), np.zeros(10)]
)
def test_numbers_that_do_not_fit_are_refused(copy, numbers):
    np.save(copy / 'numbers.npy', numbers)
    info = json.loads((copy / 'info.json').read_text())
    info['parts']['numbers.npy']['bytes'] = (copy / 'numbers.npy').stat().st_size
    (copy / 'info.json').write_text(json.dumps(info))
    with pytest.raises(BadInput, match='do not fit each other'):
        PackedData(copy)


def test_a_file_that_is_no_shard_is_refused(copy):
    shutil.copy(copy / 'records' / 'records-00000.arrow', copy / 'pictures-00000.arrow')
    with pytest.raises(BadInput, match='is no shard'):
        read_shard(copy / 'pictures-00000.arrow')


# ---- at an address


@pytest.fixture
def served(copy):
    "An address of a packed folder, and the paths that were asked for"
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), partial(Handler, directory=copy)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}', asked
        server.shutdown()


def test_an_address_is_asked_once_for_each_part(served, packed, tmp_path):
    address, asked = served
    near, far = PackedData(packed), PackedData(address, tmp_path / 'cache')
    assert is_packed(address) and not [path for path in asked if 'pictures' in path]
    for _ in range(2):
        for i in range(10):
            assert far[i] == near[i] and np.array_equal(far.chip(i, 64), near.chip(i, 64))
    assert len(asked) == len(set(asked)) == 7  # manifest, numbers, two of the records, three shards
    again = PackedData(address, tmp_path / 'cache')
    again.chip(0, 64)
    assert asked[7:] == ['/info.json']


def test_the_cache_is_bounded(served, copy, tmp_path):
    address, asked = served
    size = max(p.stat().st_size for p in copy.glob('pictures*'))
    far = PackedData(address, tmp_path / 'cache', cache_bytes=2 * size)
    for i in range(7):
        far.chip(i, 64)
        assert sum(p.stat().st_size for p in tmp_path.glob('cache/*/pictures*.arrow')) <= 2 * size
    far = PackedData(address, tmp_path / 'cache', cache_bytes=2 * size)
    far.chip(0, 64)
    assert asked.count('/pictures-00000.arrow') == 2


def test_what_comes_from_an_address_is_compared(served, copy, tmp_path):
    address, _ = served
    file = copy / 'pictures-00002.arrow'
    good = file.read_bytes()
    for bad in (good[:-8], good + b'0', good[:-9] + b'0' + good[-8:]):
        file.write_bytes(bad)
        far = PackedData(address, tmp_path / 'cache')
        with pytest.raises(BadInput, match='pictures-00002.arrow'):
            far.chip(6, 64)
        assert not list(tmp_path.glob('cache/*/pictures-00002.arrow'))
    file.unlink()
    with pytest.raises(BadInput, match='cannot be fetched'):
        far.chip(6, 64)


@pytest.mark.parametrize(
    'address', ['ftp://a/b', 'file:///etc', 'simplecache::http://a', 'https://a/b?key=1', 'local://x']
)
def test_other_addresses_are_refused(address, tmp_path):
    with pytest.raises(BadInput, match='give the address of a folder'):
        PackedData(address, tmp_path)


def test_fsspec_reads_from_other_places(packed, tmp_path):
    import fsspec

    disk = fsspec.filesystem('memory')
    for file in packed.rglob('*'):
        if file.is_file():
            disk.pipe(f'/bucket/{file.relative_to(packed).as_posix()}', file.read_bytes())
    far = PackedData('memory://bucket', tmp_path)
    assert np.array_equal(far.chip(9, 64), PackedData(packed).chip(9, 64))


def test_tuples_are_packed_picture_by_picture(tmp_path):
    rng = np.random.default_rng(0)
    for name in 'abc':
        pixels = rng.integers(0, 255, (24, 24, 3), 'uint8')
        Image.fromarray(pixels).save(tmp_path / f'{name}.png')
    turns = [Turn('is there water?', 'yes', Task.PRESENCE)]
    paths = [('a.png', 'b.png'), 'a.png', ('b.png', 'a.png', 'c.png'), ('c.png', 'gone.png'), 'c.png']
    rows = [
        Record(path, turns, words=('now',) * (1 if isinstance(path, str) else len(path))) for path in paths
    ]
    rows.append(Record(('a.png', 'b.png'), turns, (Sensor.OPTICAL, Sensor.SAR)))
    store = InstructionData.build(rows, tmp_path / 'store', tmp_path)
    options = PackOptions(size=32, max_unreadable=0.5)
    info = pack(tmp_path / 'store', tmp_path / 'packed', options)
    assert (info['records'], info['pictures'], info['left_out']) == (5, 5, 1)  # b also as radar; gone.png
    packed, kept = PackedData(tmp_path / 'packed'), [0, 1, 2, 4, 5]
    for i, k in enumerate(kept):
        assert packed[i] == store[k]
        for place in range(len(packed[i].images)):
            assert np.array_equal(packed.chip(i, 32, None, place), store.chip(k, 32, None, place))
    example = StoredExamples(packed, 32, group=False)[2]
    assert len(example.images) == 3 and example.words == ('now',) * 3
