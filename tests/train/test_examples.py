"Examples of a store: asked by index, known as a whole without being opened, grouped, and told where pictures lack."

import json
import pickle
from collections import Counter
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from fixtures_training import small, tokenizer
from PIL import Image

from earthgpt_lite.data.records import Record, Task, Turn
from earthgpt_lite.data.store import InstructionData, write_rows
from earthgpt_lite.errors import BadInput
from earthgpt_lite.raster.chips import Sensor
from earthgpt_lite.train import examples as module
from earthgpt_lite.train.dataset import InstructionBatches, data_fingerprint
from earthgpt_lite.train.examples import INDEX, RecordIndex, StoredExamples, of_split, open_examples
from earthgpt_lite.train.sampling import ExampleColumns

tok = lru_cache(1)(tokenizer)


def records(pictures=6, questions=5):
    "One question a record; every third picture is radar, the last one is for validation, some say nothing"
    for i in range(pictures):
        split = 'val' if i == pictures - 1 else ('train', '')[i % 2]
        for k in range(questions):
            turn = Turn(f'is there water {k}?', ('no', 'yes')[k % 2], (Task.PRESENCE, Task.VQA)[k % 2])
            yield Record(f'{i % 2}/{i}.png', [turn], list(Sensor)[i % 3], 'made', split)


@pytest.fixture
def place(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(6):
        (tmp_path / f'{i % 2}').mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), 'uint8')).save(tmp_path / f'{i % 2}/{i}.png')
    return tmp_path


def built(place, rows, name='store', **k):
    return InstructionData.build(rows, place / name, place, **k)


def test_a_store_gives_what_objects_would(place):
    store = built(place, records(), rows_per_file=7)
    made = StoredExamples(store, 32, group=False)
    chosen = [r for r in records() if r.split in ('train', '')]
    assert [(e.name, e.turns, e.sensor) for e in made] == [(r.image, r.turns, r.sensor) for r in chosen]
    columns, objects = made.columns, ExampleColumns.of(list(made))
    for name in ('sensors', 'turn_tasks', 'turn_starts'):
        assert np.array_equal(getattr(columns, name), getattr(objects, name))
    assert made[-1].name == made[len(made) - 1].name and [e.name for e in made[3:5]] == [
        made[3].name,
        made[4].name,
    ]
    with pytest.raises(IndexError):
        made[len(made)]


def test_a_file_and_a_folder_are_the_same_examples(place):
    write_rows(records(), place / 'r.jsonl')
    write_rows(records(), place / 'r.json')
    found = [open_examples(str(place / name), size=32) for name in ('r.jsonl', 'r.json')]
    found.append(StoredExamples(built(place, records(), rows_per_file=4), 32))
    assert len({e.fingerprint for e in found}) == 1 and {len(e) for e in found} == {5}
    for e in found[1:]:
        assert [x.turns for x in e] == [x.turns for x in found[0]]
        assert all(np.array_equal(x.image, y.image) for x, y in zip(e, found[0]))


def test_a_large_file_is_built_once_beside_it(place, monkeypatch):
    monkeypatch.setattr(module, 'SMALL', 0)
    write_rows(records(), place / 'r.jsonl')
    first = open_examples(str(place / 'r.jsonl'), size=32)
    assert first.store.folder == place / 'r.arrow' and (place / 'r.arrow' / INDEX).exists()
    monkeypatch.setattr(InstructionData, '_build', None)
    assert open_examples(str(place / 'r.jsonl'), size=32).fingerprint == first.fingerprint


def test_the_index_is_believed_only_where_it_fits(place, monkeypatch):
    store, made = built(place, records()), []
    real = module._make_index
    monkeypatch.setattr(module, '_make_index', lambda store: made.append(1) or real(store))
    want, file = RecordIndex.of(store), place / 'store' / INDEX
    good = file.read_bytes()

    def same():
        return all(
            np.array_equal(a, b) for a, b in zip(vars(want).values(), vars(RecordIndex.of(store)).values())
        )

    assert same() and len(made) == 1
    parts = dict(np.load(file))
    for spoil in (
        lambda: file.write_bytes(good[: len(good) // 2]),
        lambda: file.write_bytes(b''),
        lambda: np.savez(file, **parts | dict(pictures=parts['pictures'] + 5)),
        lambda: np.savez(file, **parts | dict(pictures=parts['pictures'] - 1)),
        lambda: np.savez(file, **parts | dict(turn_counts=parts['turn_counts'][:-1])),
        lambda: np.savez(file, **parts | dict(key=np.array('another'))),
        lambda: np.savez(file, **parts | dict(pictures=np.array([{}] * 30, object))),
        file.unlink,
    ):
        spoil()
        before = len(made)
        assert same() and len(made) == before + 1 and same() and len(made) == before + 1
    other = InstructionData(place / 'store', place / '0')  # pictures elsewhere
    assert (RecordIndex.of(other).sizes == -1).all() and len(made) == before + 2


def test_a_folder_that_cannot_be_written_is_read_all_the_same(place, monkeypatch):
    from contextlib import contextmanager

    store = built(place, records())

    @contextmanager
    def refused(path):
        raise module.NotWritten(path, 'read-only')
        yield

    monkeypatch.setattr(module, 'whole_file', refused)
    assert len(RecordIndex.of(store).pictures) == 30 and not (place / 'store' / INDEX).exists()


def test_the_hash_sees_texts_order_pictures_and_choice_but_not_files(place):
    rows = list(records())
    want = StoredExamples(built(place, rows), 32).fingerprint
    assert StoredExamples(built(place, rows, 'b', rows_per_file=3), 32).fingerprint == want
    moved = [replace(r, turns=[replace(r.turns[0], question=r.turns[0].question + ' ')]) for r in rows[:1]]
    shifted = [
        replace(rows[0], turns=[replace(rows[0].turns[0], question='ab', answer='c')]),
        replace(rows[0], turns=[replace(rows[0].turns[0], question='a', answer='bc')]),
    ]
    seen = {want, StoredExamples(built(place, rows, 'b', rows_per_file=3), 32, group=False).fingerprint}
    for k, changed in enumerate((moved + rows[1:], rows[::-1], rows[:-6] + rows[-5:])):
        seen.add(StoredExamples(built(place, changed, f'c{k}'), 32).fingerprint)
    for k, row in enumerate(shifted):
        seen.add(StoredExamples(built(place, [row, *rows[1:]], f'd{k}'), 32).fingerprint)
    Image.fromarray(np.zeros((9, 9, 3), 'uint8')).save(place / '0/0.png')
    seen.add(StoredExamples(built(place, rows, 'e'), 32).fingerprint)
    assert len(seen) == 8 and data_fingerprint(StoredExamples(built(place, rows, 'e'), 32)) in seen


def test_groups_hold_each_record_once_and_one_picture_each(place):
    rng = np.random.default_rng(1)
    rows = []
    for i in rng.permutation(np.repeat(np.arange(6), 20)).tolist():
        tasks = [Task.VQA] * int(rng.integers(1, 4)) + [Task.DIALOGUE] * (rng.uniform() < 0.2)
        turns = [Turn(f'{len(rows)}, {k}?', 'yes', task) for k, task in enumerate(tasks)]
        rows.append(Record(f'{i % 2}/{i}.png', turns, list(Sensor)[int(rng.integers(2))], split='train'))
    made = StoredExamples(built(place, rows), 32)
    asked = [t.question for e in made for t in e.turns]
    assert sorted(asked) == sorted(t.question for r in rows for t in r.turns) and len(made) < len(rows) / 2
    wanted = {t.question: (r.image, r.sensor) for r in rows for t in r.turns}
    talks = [[t.question for t in r.turns] for r in rows if any(t.task == Task.DIALOGUE for t in r.turns)]
    for e in made:
        assert {wanted[t.question] for t in e.turns} == {(e.name, e.sensor)} and len(e.turns) <= 16 + 3
        numbers = [int(t.question.split(',')[0]) for t in e.turns]
        assert numbers == sorted(numbers)
        if any(t.task == Task.DIALOGUE for t in e.turns):
            assert [t.question for t in e.turns] in talks
    firsts = [min(int(t.question.split(',')[0]) for t in e.turns) for e in made]
    sizes = Counter((e.name, e.sensor) for e in made if len(e.turns) > 4)
    assert len(talks) > 5 and max(sizes.values()) > 1 and firsts[0] == 0
    objects, columns = ExampleColumns.of(list(made)), made.columns
    assert np.array_equal(objects.turn_tasks, columns.turn_tasks)
    assert np.array_equal(objects.turn_starts, columns.turn_starts)
    assert np.array_equal(objects.sensors, columns.sensors)


def test_each_question_has_the_same_loss_grouped_or_not(place):
    store, model = built(place, records()), small(tok()).double().eval()

    def losses(group):
        examples, found = StoredExamples(store, 32, group=group), {}
        b = InstructionBatches(examples, tok(), model.config, 1, augment=False, sequence_length=1)
        for step in range(len(examples)):
            (i,), batch = b.indices(step), b.batch(step)
            for k, turn in enumerate(examples[i].turns):
                mine = batch.segment_ids == k + 2
                labels = torch.where(mine, batch.labels, -100)
                with torch.no_grad():
                    loss = model(**vars(batch) | dict(labels=labels)).loss.item()
                found[examples[i].name, turn.question] = loss
        return found

    together, apart = losses(True), losses(False)
    assert len(together) == 25 and together.keys() == apart.keys()
    assert max(abs(together[k] - apart[k]) for k in apart) < 1e-5


def test_splits(place):
    store = built(place, records())
    train, val = StoredExamples(store, 32), StoredExamples(store, 32, split='validation')
    assert [len(e) for e in (train, val, of_split(train, 'train'), of_split(val, 'validation'))] == [
        5,
        3,
        3,
        1,
    ]
    assert of_split(val, 'validation')[0].split == 'validation' and not len(of_split(val, 'test'))


def test_missing_pictures_are_few_or_refused(place):
    for path in place.glob('?/[24].png'):
        path.unlink()
    write_rows(records(), place / 'r.jsonl')
    with pytest.raises(BadInput, match='r.jsonl: record 10 names an image.*; 10 of 25 records .* 1.0%.*root'):
        open_examples(str(place / 'r.jsonl'), size=32)
    found = open_examples(str(place / 'r.jsonl'), size=32, max_unreadable=0.5)
    assert found.missing().tolist() == [*range(10, 15), *range(20, 25)] and len(found) == 5
    with pytest.raises(BadInput, match='record 10 names an image that is not there'):
        found[2].image


@pytest.mark.unix
def test_a_picture_behind_a_link_out_of_the_root_is_not_there(place, tmp_path_factory):
    other = tmp_path_factory.mktemp('other')
    (place / '0/0.png').rename(other / '0.png')
    (place / '0/0.png').symlink_to(other / '0.png')
    (place / '0/2.png').rename(place / '0/moved.png')
    (place / '0/2.png').symlink_to(place / '0/moved.png')
    (place / '1').rename(other / '1')
    (place / '1').symlink_to(other / '1')
    sizes = RecordIndex.of(built(place, records())).sizes
    assert (sizes[[0, 1, 3, 5]] == -1).all() and (sizes[[2, 4]] > 0).all()


def test_words_are_learned_from_some_of_very_many(place):
    examples = StoredExamples(built(place, records()), 32)
    assert list(examples.texts()) == [
        text for e in examples for t in e.turns for text in (t.question, t.answer)
    ]
    assert len(list(examples.texts(most=5))) == 2 * 5


def test_a_worker_gets_records_and_no_index(place):
    write_rows(records(), place / 'r.jsonl')
    examples = open_examples(str(place / 'r.jsonl'), size=32)
    room = examples.store.room.folder
    copied = pickle.loads(pickle.dumps(examples))
    assert copied[3].turns == examples[3].turns and np.array_equal(copied[3].image, examples[3].image)
    assert not hasattr(copied, 'known')
    from pathlib import Path

    del copied
    assert Path(room).exists()
    del examples
    assert not Path(room).exists()


def test_bad_records_are_named(place):
    (place / 'bad.json').write_text(json.dumps([r.to_json() for r in records()][:3] + [{'image': 'x'}]))
    with pytest.raises(BadInput, match="record 3: the record has no key 'conversations'"):
        open_examples(str(place / 'bad.json'))
    for data, said in (('none.json', 'no such file'), ('bad', 'no such file')):
        with pytest.raises(BadInput, match=said):
            open_examples(str(place / data))


def test_a_run_over_a_few_bad_pictures_says_so(place):
    from earthgpt_lite.train.run import RunOptions, train

    (place / '0/2.png').unlink()
    (place / '0/4.png').write_bytes((place / '0/4.png').read_bytes()[:200])
    write_rows(records(), place / 'r.jsonl')
    run = dict(data=str(place / 'r.jsonl'), steps=4, batch_size=5, device='cpu', progress=False)
    said = []
    record = train(RunOptions(out=str(place / 'run'), max_unreadable=0.5, **run), say=said.append)
    assert record['unreadable']['count'] == 2 and set(record['unreadable']['first']) == {'0/2.png', '0/4.png'}
    assert '5 records have no picture and will be skipped; the first is record 10' in said
    assert sum('is skipped: ' in text for text in said) == 2
    assert '2 pictures could not be read and were skipped' in said[-1] and record['pairs'] == 100
    with pytest.raises(BadInput, match='more than the 1.0% that may be skipped'):
        train(RunOptions(out=str(place / 'b'), **run), say=said.append)
    alone = train(RunOptions(out=str(place / 'c'), max_unreadable=1.0, group=False, **run), say=said.append)
    assert alone['pairs'] == 20


def test_counts_of_several_processes_are_put_together(monkeypatch):
    from types import SimpleNamespace

    from earthgpt_lite.train.loader import UnreadablePictures

    count = UnreadablePictures(0.5, 100)
    count.names = {'a': 'gone'}

    def gather(found, own):
        found[:] = [own, {'b': 'cut', 'a': 'gone'}]

    monkeypatch.setattr(torch.distributed, 'all_gather_object', gather)
    count.on_train_end(SimpleNamespace(world_size=2), None)
    assert count.summary(1) == dict(count=2, first={'a': 'gone'})


def test_packed_records_are_the_same_examples(place):
    from earthgpt_lite.data.shards import PackOptions, pack

    write_rows(records(), place / 'r.jsonl')
    pack(place / 'r.jsonl', place / 'packed', PackOptions(size=32))
    plain, packed = (open_examples(str(place / name), size=32) for name in ('r.jsonl', 'packed'))
    assert [e.turns for e in packed] == [e.turns for e in plain] and packed.fingerprint != plain.fingerprint
    assert all(np.abs(x.image.astype(int) - y.image).mean() < 9 for x, y in zip(packed, plain))
    assert (place / 'packed' / INDEX).exists() and not len(packed.missing())
    again = pickle.loads(pickle.dumps(packed))
    assert np.array_equal(again[1].image, packed[1].image)
    with pytest.raises(BadInput, match='packed for chips of 32 pixels'):
        open_examples(str(place / 'packed'), size=64)
