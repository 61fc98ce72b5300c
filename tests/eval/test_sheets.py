"Sheets of answers: chunks, cuts at every place, files of somebody else, and several processes."

import json

import pytest

from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval.sheets import AnswerSheet, chunk_by_image, join_shards, shard_sheet, write_answers

DEMO = [dict(image=i, question=f'{q}{i}') for q in 'ab' for i in range(5)]


def echo(asked):
    return [dict(answer=q['question'], score=-len(q['question']) / 3) for q in asked]


def test_portions_keep_pictures_together_and_lose_nothing():
    for size in range(1, 12):
        parts = chunk_by_image(DEMO, size)
        assert sorted(i for p in parts for i in p) == list(range(10)) and all(
            len(p) >= size for p in parts[:-1]
        )
        assert all(
            len({k for k, p in enumerate(parts) for i in p if DEMO[i]['image'] == image}) == 1
            for image in range(5)
        )


def test_any_cut_of_the_file_ends_in_the_same_file(tmp_path):
    whole = write_answers(tmp_path / 'whole.jsonl', DEMO, echo, 'me', 3).read_bytes()
    asked = []
    for cut in range(0, len(whole) + 1, 7):
        (tmp_path / 'part.jsonl').write_bytes(whole[:cut])
        assert (
            write_answers(
                tmp_path / 'part.jsonl', DEMO, lambda a: asked.append(len(a)) or echo(a), 'me', 3
            ).read_bytes()
            == whole
        )
    (tmp_path / 'part.jsonl').write_bytes(whole)
    asked.clear()
    write_answers(tmp_path / 'part.jsonl', DEMO, lambda a: asked.append(len(a)) or echo(a), 'me', 3)
    assert not asked


@pytest.mark.parametrize(
    'spoil',
    [
        lambda rows: rows[0].update(by='another'),
        lambda rows: rows[0].update(question='what?'),
        lambda rows: rows.append(rows[0]),
        lambda rows: rows.reverse(),
    ],
)
def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path, spoil):
    path = write_answers(tmp_path / 'a.jsonl', DEMO, echo, 'me', 3)
    rows = [json.loads(l) for l in path.read_text().splitlines()]
    spoil(rows)
    path.write_text(text := ''.join(json.dumps(r) + '\n' for r in rows))
    with pytest.raises(BadInput, match='--force'):
        write_answers(path, DEMO, echo, 'me', 3)
    assert path.read_text() == text


@pytest.mark.parametrize('processes', [1, 2, 3, 7])
@pytest.mark.parametrize('begun', [0, 2])
def test_shares_put_together_are_the_whole_sheet(tmp_path, processes, begun):
    one = write_answers(tmp_path / 'one.jsonl', DEMO, echo, 'me', 3).read_bytes()
    (tmp_path / 'many.jsonl').write_bytes(b''.join(one.splitlines(True)[: 2 * begun]))
    whole = AnswerSheet(tmp_path / 'many.jsonl', DEMO, 'me', 3)
    for rank in range(processes):
        own = shard_sheet(whole, rank, processes, 3)
        write_answers(own.path, own.questions, echo, 'me', 3)
    join_shards(whole, [shard_sheet(whole, rank, processes, 3) for rank in range(processes)])
    assert (tmp_path / 'many.jsonl').read_bytes() == one and sorted(p.name for p in tmp_path.iterdir()) == [
        'many.jsonl',
        'one.jsonl',
    ]
