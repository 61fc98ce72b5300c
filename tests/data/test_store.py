"Files of records: read piece by piece, written whole, checked whole, mapped."

import itertools
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthgpt_lite.data.records import Record, Task, Turn
from earthgpt_lite.data.store import InstructionData, drop_invalid, read_rows, validate, write_rows
from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.chips import Sensor


def records(n):
    for i in range(n):
        yield Record(
            f'images/{i}.png',
            [
                Turn('how many ships are there in this image?', str(i), Task.COUNTING),
                Turn('where is the ship?', '[0.10,0.20,0.30,0.40]', Task.GROUNDING),
            ],
            Sensor.SAR,
            'made',
            'train',
        )


def put(key, value):
    return lambda r: {**r, key: value}


def say(i, **new):
    return lambda r: {
        **r,
        'conversations': [{**t, **new} if j == i else t for j, t in enumerate(r['conversations'])],
    }


SPOIL = {
    "no key 'conversations'": lambda r: {k: v for k, v in r.items() if k != 'conversations'},
    "unknown key 'id'": put('id', 3),
    'climbs out': put('image', '../../x.png'),
    'absolute image path': put('image', '/x.png'),
    'not there': put('image', 'gone.png'),
    'unknown sensor': put('sensor', 'lidar'),
    'unknown task': put('task', 'guessing'),
    '1 tasks for 2 turns': put('task', ['vqa']),
    "must be 'gpt'": say(1, **{'from': 'human'}),
    'empty message': say(2, value=' '),
    '3 messages': lambda r: {**r, 'conversations': r['conversations'][:3], 'task': 'vqa'},
    'is no text': say(0, value=7),
    '<image> tokens': say(0, value='<image> <image>\nwhere?'),
    'no area': say(3, value='[0.10,0.20,0.10,0.40]'),
    'beyond the frame': say(3, value='[0.10,0.20,1.10,0.40]'),
    'not a number': say(3, value='[nan,0.2,0.3,0.4]'),
    'but of type int': lambda r: 7,
}


def test_all_fifty_of_a_thousand_are_reported_with_the_true_reason(tmp_path):
    (tmp_path / 'images').mkdir()
    rows = [r.to_json() for r in records(1000)]
    for r in rows:
        (tmp_path / r['image']).touch()
    chosen = np.random.default_rng(0).choice(1000, 51, replace=False)
    where = dict(zip(map(int, chosen), itertools.cycle(SPOIL)))
    for i, way in where.items():
        rows[i] = SPOIL[way](rows[i])
    write_rows(rows, tmp_path / 'rows.json')
    report = validate(tmp_path / 'rows.json', tmp_path)
    assert report.total == 1000 and report.bad == sorted(where) and len(report.problems) == 51
    assert all(where[i] in reason for i, reason in report.problems)
    again = drop_invalid(tmp_path / 'rows.json', tmp_path / 'good.jsonl', tmp_path)
    assert again.bad == report.bad
    assert list(read_rows(tmp_path / 'good.jsonl')) == [r for i, r in enumerate(rows) if i not in where]


@pytest.mark.parametrize('suffix', ['json', 'jsonl'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig'])
def test_read_what_json_wrote(tmp_path, suffix, encoding):
    rows = [{**r.to_json(), 'source': 'été 海'} for r in records(500)]
    text = (
        json.dumps(rows, indent=1, ensure_ascii=False)
        if suffix == 'json'
        else '\n\n'.join(json.dumps(r) for r in rows)
    )
    (tmp_path / f'a.{suffix}').write_text(text, encoding=encoding)
    assert list(read_rows(tmp_path / f'a.{suffix}')) == rows


@given(
    st.lists(
        st.dictionaries(st.text(max_size=3), st.text(max_size=30) | st.integers() | st.none(), max_size=3),
        max_size=8,
    ),
    st.integers(1, 40),
)
def test_array_in_pieces_of_any_size(rows, chunk):
    import io

    from earthgpt_lite.data.store import _array_rows

    for text in (json.dumps(rows), json.dumps(rows, indent=2, ensure_ascii=False)):
        assert list(_array_rows(io.StringIO(text), chunk)) == rows


def test_broken_json_is_named(tmp_path):
    rows = [r.to_json() for r in records(3)]
    (tmp_path / 'cut.json').write_text(json.dumps(rows)[:-40])
    report = validate(tmp_path / 'cut.json')
    assert report.total == 3 and report.bad == [2] and 'the file ends within it' in report.problems[0][1]
    (tmp_path / 'b.jsonl').write_text('\n'.join([json.dumps(rows[0]), '{oops', json.dumps(rows[1])]))
    report = validate(tmp_path / 'b.jsonl')
    assert report.total == 3 and report.bad == [1] and '(line 2)' in report.problems[0][1]
    (tmp_path / 'deep.json').write_text('[' * 200_000)
    assert validate(tmp_path / 'deep.json').bad == [0]
    (tmp_path / 'latin.json').write_bytes(b'[{"image": "\xe9t\xe9"}]')
    with pytest.raises(BadInput, match='UTF-8'):
        validate(tmp_path / 'latin.json')
    with pytest.raises(BadInput, match='no such|cannot be read'):
        validate(tmp_path / 'none.json')
    with pytest.raises(BadInput, match='cannot be read'):
        validate(tmp_path)


def test_an_error_in_the_middle_does_not_swallow_the_file(tmp_path):
    rows = [json.dumps(r.to_json()) for r in records(4000)]
    rows[10] = rows[10].replace('"image":', 'image:')
    (tmp_path / 'a.json').write_text('[' + ','.join(rows) + ']')
    report = validate(tmp_path / 'a.json')
    assert report.bad == [10] and 'is not JSON' in report.problems[0][1]


def interrupted(n, at):
    for i, r in enumerate(records(n)):
        if i == at:
            raise KeyboardInterrupt
        yield r


def test_interrupted_writing_leaves_no_file_and_goes_on(tmp_path):
    path = tmp_path / 'a.jsonl'
    with pytest.raises(KeyboardInterrupt):
        write_rows(interrupted(50, 20), path, resume=True)
    assert not path.exists()
    part = tmp_path / 'a.jsonl.part'
    part.write_bytes(part.read_bytes() + b'{"torn": ')
    seen = []
    assert write_rows((seen.append(1) or r for r in records(50)), path, resume=True) == 50
    assert [Record.from_json(r) for r in read_rows(path)] == list(records(50)) and not part.exists()


def test_half_characters_survive_and_are_reported(tmp_path):
    row = next(records(1)).to_json()
    row['conversations'][0]['value'] = 'cut \ud83d'
    write_rows([row], tmp_path / 'a.jsonl')
    assert list(read_rows(tmp_path / 'a.jsonl')) == [row]
    assert 'half a character' in validate(tmp_path / 'a.jsonl').problems[0][1]


@pytest.fixture(scope='module')
def store(tmp_path_factory):
    room = tmp_path_factory.mktemp('store')
    write_rows(records(1003), room / 'rows.jsonl')
    return InstructionData.build(room / 'rows.jsonl', room / 'store', rows_per_file=300)


def test_store_gives_back_the_records(store):
    assert len(store) == 1003 and len(store.info['files']) == 4
    assert [store[i] for i in (0, 299, 300, 1002)] == [
        r for i, r in enumerate(records(1003)) if i in (0, 299, 300, 1002)
    ]
    assert [r for b in store.batches(64) for r in b] == list(records(1003))
    assert len(pickle.loads(pickle.dumps(store))) == 1003


@pytest.mark.parametrize('world', [1, 2, 3, 4])
def test_shares_are_equal_and_apart(store, world):
    shares = [
        [r.image for b in store.batches(50, seed=3, rank=k, world=world) for r in b] for k in range(world)
    ]
    assert {len(s) for s in shares} == {1003 // world}
    together = list(itertools.chain(*shares))
    assert len(set(together)) == len(together) and together != sorted(together)
    streams = [[r.image for r in store.stream(k, world, seed=1)] for k in range(world)]
    assert sorted(itertools.chain(*streams)) == sorted(r.image for r in records(1003))


def test_same_seed_same_order(store):
    take = lambda seed: [r.image for b in store.batches(64, seed=seed) for r in b]
    assert take(1) == take(1) != take(2)


def test_interrupted_build_goes_on_and_is_never_taken_for_whole(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        InstructionData.build(interrupted(100, 75), tmp_path / 's', rows_per_file=30)
    with pytest.raises(BadInput, match='no finished records'):
        InstructionData(tmp_path / 's')
    data = InstructionData.build(records(100), tmp_path / 's', rows_per_file=30)
    assert [data[i] for i in range(100)] == list(records(100))
    assert not list((tmp_path / 's').glob('*.part'))


def test_build_refuses_other_sources_full_folders_and_bad_rows(tmp_path):
    for name in ('a', 'b'):
        write_rows(records(10), tmp_path / f'{name}.jsonl')
    InstructionData.build(tmp_path / 'a.jsonl', tmp_path / 's')
    with pytest.raises(BadInput, match='something else'):
        InstructionData.build(tmp_path / 'b.jsonl', tmp_path / 's')
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/thesis.txt').touch()
    with pytest.raises(BadInput, match='not empty'):
        InstructionData.build(tmp_path / 'a.jsonl', tmp_path / 'mine')
    rows = [r.to_json() for r in records(10)]
    rows[7]['sensor'] = 'lidar'
    write_rows(rows, tmp_path / 'c.jsonl')
    with pytest.raises(BadInput, match='record 7.*unknown sensor'):
        InstructionData.build(tmp_path / 'c.jsonl', tmp_path / 't')
    write_rows([], tmp_path / 'd.jsonl')
    with pytest.raises(BadInput, match='no records'):
        InstructionData.build(tmp_path / 'd.jsonl', tmp_path / 'u')


def test_image_of_a_record_is_named_with_it(store):
    with pytest.raises(BadInput, match='record 5 names an image that is not there'):
        store.image(5)


@pytest.mark.parametrize('name', ['/etc/passwd', '../other.arrow', 'a.txt', '', '.arrow/..', 'gone.arrow'])
def test_a_list_of_files_does_not_lead_outside(tmp_path, name):
    (tmp_path / 'other.arrow').write_text('x')
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a' / 'info.json').write_text(json.dumps(dict(records=1, root='.', files=[name])))
    with pytest.raises(BadInput, match='build .*again|build it again'):
        InstructionData(tmp_path / 'a')


def test_a_file_of_the_store_that_is_none(tmp_path):
    import pyarrow as pa

    (tmp_path / 'info.json').write_text(json.dumps(dict(records=1, root='.', files=['a.arrow'])))
    table = pa.table(dict(image=['a.png']))
    with pa.OSFile(str(tmp_path / 'a.arrow'), 'wb') as sink, pa.ipc.new_stream(sink, table.schema) as out:
        out.write_table(table)
    with pytest.raises(BadInput, match='a.arrow holds no records'):
        InstructionData(tmp_path)
    for raw in (b'root:x:0:0:' * 99, (tmp_path / 'a.arrow').read_bytes()[:50]):
        (tmp_path / 'a.arrow').write_bytes(raw)
        with pytest.raises(BadInput, match='a.arrow (is damaged|holds no records)'):
            InstructionData(tmp_path)


@pytest.mark.unix
def test_rows_that_grow_go_through_no_link(tmp_path):
    (tmp_path / 'mine').write_text('mine')
    (tmp_path / 'a.jsonl.part').symlink_to('mine')
    with pytest.raises(BadInput, match='it is a link'):
        write_rows([], tmp_path / 'a.jsonl', resume=True)
    assert (tmp_path / 'mine').read_text() == 'mine'


@pytest.fixture
def pictured(tmp_path):
    "Three records over two splits and none: a JPEG, a PNG of 16 bits, and a raster of 16 bits"
    import rasterio
    from PIL import Image

    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (30, 50, 3), 'uint8')).save(tmp_path / 'a.jpg')
    Image.fromarray(rng.integers(0, 60_000, (30, 50), 'uint16')).save(tmp_path / 'b.png')
    kind = dict(driver='GTiff', width=50, height=30, count=3, dtype='uint16', crs='EPSG:32631')
    with rasterio.open(
        tmp_path / 'c.tif', 'w', transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6), **kind
    ) as f:
        f.write(rng.integers(0, 3000, (3, 30, 50), 'uint16'))
    rows = [
        Record(
            name,
            [Turn('what?', name, Task.VQA), Turn('sea?', 'no', Task.PRESENCE)],
            Sensor.OPTICAL,
            'own',
            split,
        )
        for name, split in (('a.jpg', 'train'), ('b.png', ''), ('c.tif', 'val'))
    ]
    return InstructionData.build(rows, tmp_path / 'store', tmp_path), rows


def test_what_goes_to_the_hub_is_read_by_datasets(pictured, tmp_path):
    from datasets import Image, load_dataset

    data, rows = pictured
    made = data.with_pictures(block=1)
    assert {split: part.num_shards for split, part in made.items()} == {'train': 2, 'validation': 1}
    files = {split: str(tmp_path / f'{split}.parquet') for split in made}
    for split, part in made.items():
        part.to_parquet(files[split])
    (tmp_path / 'c.tif').unlink()  # the files stand alone
    back = load_dataset(
        'parquet', data_files=files, features=made['train'].features, cache_dir=str(tmp_path / 'cache')
    )
    assert isinstance(back['train'].features['image'], Image)
    sizes = {row['image_path']: row['image'].size for part in back.values() for row in part}
    assert sizes == {'a.jpg': (50, 30), 'b.png': (50, 50), 'c.tif': (50, 50)}
    told = [
        (split, row['image_path'], row['question'], row['answer'], row['task'], row['sensor'], row['source'])
        for split, part in back.items()
        for row in part
    ]
    assert sorted(told) == sorted(
        (
            r.split or 'train',
            r.image,
            [t.question for t in r.turns],
            [t.answer for t in r.turns],
            [str(t.task) for t in r.turns],
            'optical',
            'own',
        )
        for r in rows
    )


def test_push_is_private_unless_told(pictured, monkeypatch):
    from datasets import IterableDatasetDict

    sent = []
    monkeypatch.setattr(
        IterableDatasetDict, 'push_to_hub', lambda self, name, **options: sent.append((self, name, options))
    )
    data, _ = pictured
    data.push_to_hub('me/mine', token='x')
    assert sent[0][1:] == ('me/mine', dict(private=True, token='x')) and list(sent[0][0]) == [
        'train',
        'validation',
    ]
    (data.root / 'a.jpg').unlink()
    with pytest.raises(BadInput, match='names an image that is not there'):
        next(iter(sent[0][0]['train']))
