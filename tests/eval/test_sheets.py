"Sheets of answers: chunks, cuts at every place, files of somebody else, and several processes."

import json
import os

import pytest

from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval.sheets import AnswerSheet, chunk_by_image, fill_sheet, join_shards, shard_sheet
from earthgpt_lite.eval.sheets import write_answers

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


def respell(lines, **facts):
    "A line that says other things."
    lines[1] = json.dumps(json.loads(lines[1]) | facts).encode() + b'\n'


@pytest.mark.parametrize(
    'spoil',
    [
        lambda lines: lines.append(lines[0]),
        lambda lines: lines.insert(3, lines[1]),
        lambda lines: lines.reverse(),
        lambda lines: lines.pop(1),
        lambda lines: lines.pop(0),
        lambda lines: lines.__setitem__(2, b'\0' * 30 + b'\n'),
        lambda lines: lines.extend(lines[::-1]),
        lambda lines: lines.__setitem__(slice(1, None), [lines[2], lines[4][:20]]),
        lambda lines: respell(lines, answer=5),
        lambda lines: respell(lines, answer=['a farm']),
        lambda lines: respell(lines, answer=None),
        lambda lines: respell(lines, score='high'),
        lambda lines: respell(lines, score=float('nan')),
        lambda lines: respell(lines, score=[1.0, True]),
    ],
)
def test_doubled_missing_and_disordered_answers_are_mended(tmp_path, spoil):
    "As two evaluations at once would leave them"
    path = write_answers(tmp_path / 'a.jsonl', DEMO, echo, 'me', 3)
    whole = path.read_bytes()
    lines = whole.splitlines(True)
    spoil(lines)
    path.write_bytes(b''.join(lines))
    assert path.read_bytes() != whole
    assert write_answers(path, DEMO, echo, 'me', 3).read_bytes() == whole


@pytest.mark.parametrize('text', ['bought answers', 'bought answers\n', '{"image": "a"}\n', '[1]\n'])
def test_a_file_that_is_no_sheet_stays(tmp_path, text):
    path = tmp_path / 'a.jsonl'
    path.write_text(text)
    with pytest.raises(BadInput, match='--force'):
        write_answers(path, DEMO, echo, 'me', 3)
    assert path.read_text() == text


@pytest.mark.unix
def test_a_pipe_is_no_sheet(tmp_path):
    os.mkfifo(tmp_path / 'a.jsonl')
    with pytest.raises(BadInput, match='a.jsonl: cannot be read .*pipe'):
        write_answers(tmp_path / 'a.jsonl', DEMO, echo, 'me', 3)


def test_only_shards_are_deleted_when_they_are_joined(tmp_path):
    other = tmp_path / 'a.best_of_all.jsonl'
    other.write_text('bought')
    sheet = AnswerSheet(tmp_path / 'a.jsonl', DEMO, 'me', 3)
    shards = [shard_sheet(sheet, rank, 2, 3) for rank in (0, 1)]
    for shard in shards:
        fill_sheet(shard, echo)
    whole = write_answers(tmp_path / 'whole.jsonl', DEMO, echo, 'me', 3)
    assert join_shards(sheet, shards).read_bytes() == whole.read_bytes()
    assert other.read_text() == 'bought' and len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(
    'spoil',
    [
        lambda rows: rows[0].update(by='another'),
        lambda rows: rows[0].update(question='what?'),
        lambda rows: rows[0].update(index=99),
        lambda rows: rows[0].pop('index'),
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
        fill_sheet(own, echo)
    join_shards(whole, [shard_sheet(whole, rank, processes, 3) for rank in range(processes)])
    assert (tmp_path / 'many.jsonl').read_bytes() == one and sorted(p.name for p in tmp_path.iterdir()) == [
        'many.jsonl',
        'one.jsonl',
    ]


@pytest.mark.unix
def test_a_sheet_is_no_link(tmp_path):
    (tmp_path / 'mine').write_text('')
    (tmp_path / 'a.jsonl').symlink_to('mine')
    with pytest.raises(BadInput, match='it is a link'):
        write_answers(tmp_path / 'a.jsonl', DEMO, echo, 'me', 3)
    assert (tmp_path / 'mine').read_text() == ''
