"Progress reads what the checks of a copy have printed, and tells broken files in a sentence."

import json

import fixtures_course as small
import nb
import pytest

from earthgpt_lite.app.cli import main
from earthgpt_lite.course import progress
from earthgpt_lite.errors import BadInput


def ran(**states):
    "A copy in which checks have said something"
    made = small.student()
    for c in made['cells']:
        name = c['id'].removesuffix('-check')
        if c['id'].endswith('-check') and name in states:
            c['outputs'] = [small.printed(f'vision.{name}: {states[name]}.\n')]
    return made


@pytest.fixture
def people(tmp_path):
    "A class of three: one is done, one is wrong, one has not begun"
    half = dict(mean='right', half='not right yet. Less. (the lesson goes on with the finished piece)')
    for who, states in dict(Ada=dict(mean='right', half='right'), Ben=half, Cy={}).items():
        nb.dump(ran(**states), tmp_path / f'class/{who}/05_vision.ipynb')
    return tmp_path / 'class'


def test_solved_wrong_and_blank_copies(people):
    rows = progress.progress_rows(progress.read_progress(people)[0])
    assert [tuple(row.values()) for row in rows] == [
        ('Ada', 'vision', 2, 0, 0),
        ('Ben', 'vision', 1, 1, 0),
        ('Cy', 'vision', 0, 0, 2),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    'answers, counts',
    [
        (small.SOLVED, (2, 0, 0)),
        (small.WRONG, (0, 2, 0)),
        ({}, (0, 0, 2)),
        (dict(half='half = .5'), (1, 0, 1)),
    ],
)
def test_copies_that_were_run(tmp_path, answers, counts):
    path = tmp_path / 'me/05_vision.ipynb'
    nb.dump(small.answered(small.student(), **answers), path)
    done, bad = nb.execute(path)
    assert not bad
    nb.dump(json.loads(json.dumps(done)), path)
    (row,) = progress.progress_rows(progress.read_progress(path.parent)[0])
    assert tuple(row.values()) == ('me', 'vision', *counts)


def test_the_last_word_of_a_check_counts(people):
    made = ran(mean='right')
    made['cells'].append(
        small.cell(
            'again', "mean = check('vision.mean', None)", small.printed('vision.mean: not solved yet.\n')
        )
    )
    assert progress.verdicts(made)['vision.mean'] == 'not solved yet'
    made['cells'].append(
        small.cell('other', "print('vision.half: right.')", small.printed('vision.half: right.\n'))
    )
    assert progress.verdicts(made)['vision.half'] == 'not solved yet'


def test_two_copies_of_one_person_count_by_the_better(people):
    nb.dump(ran(half='right'), people / 'Ben/old/05_vision.ipynb')
    nb.dump(ran(half='right', mean='right'), people / 'Cy/.ipynb_checkpoints/05_vision.ipynb')
    found, _ = progress.read_progress(people)
    assert set(found['Ben'].values()) == {'right'} and set(found['Cy'].values()) == {'not solved yet'}


@pytest.mark.parametrize(
    'text',
    [
        '',
        '{',
        '[]',
        '{"cells": {}}',
        '{"cells": [{"source": "x"}]}',
        '{"cells": [{"cell_type": "code", "source": 1}]}',
    ],
)
def test_a_broken_file_is_named_and_hides_nobody(people, text, capsys):
    (people / 'Ben/torn.ipynb').write_text(text)
    found, (fault,) = progress.read_progress(people)
    assert len(found) == 3 and 'torn.ipynb' in fault and '\n' not in fault
    assert main(['course', 'progress', str(people)]) == 0
    told = capsys.readouterr()
    assert 'left out' in told.err and told.out.splitlines()[1].split() == ['Ada', 'vision', '2', '0', '0']


@pytest.mark.parametrize(
    'outputs',
    [
        [{}],
        [{'output_type': 'stream'}],
        [{'output_type': 'stream', 'text': 3}],
        [{'output_type': 'stream', 'text': [3]}],
    ],
)
def test_odd_outputs_say_nothing(outputs):
    made = ran()
    made['cells'][4]['outputs'] = outputs
    assert set(progress.verdicts(made).values()) == {'not solved yet'}


def test_a_folder_without_copies_is_refused(tmp_path, capsys):
    nb.dump(dict(cells=[small.cell('a', 'x = 1')]), tmp_path / 'mine.ipynb')
    for folder in (tmp_path, tmp_path / 'nowhere', tmp_path / 'mine.ipynb'):
        with pytest.raises(BadInput) as e:
            progress.read_progress(folder)
        assert str(folder) in str(e.value) and '\n' not in str(e.value)
        assert main(['course', 'progress', str(folder)]) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize('name, begin', [('a.png', b'\x89PNG'), ('a.html', b'<!doctype html>')])
def test_progress_is_drawn(people, tmp_path, name, begin):
    out = tmp_path / name
    command = ['course', 'progress', str(people), '--out', str(out)]
    assert main(command) == 0 and out.read_bytes().startswith(begin)
    assert main(command) == 2 and main([*command, '--force']) == 0


def test_progress_for_programs(people, capsys):
    assert main(['course', 'progress', str(people), '--json']) == 0
    assert json.loads(capsys.readouterr().out)[1] == dict(
        who='Ben', lesson='vision', right=1, wrong=1, left=0
    )


def test_another_ending_is_refused(people, tmp_path, capsys):
    assert main(['course', 'progress', str(people), '--out', str(tmp_path / 'a.pdf')]) == 2
    assert '.png or .html' in capsys.readouterr().err


def test_names_steer_neither_terminal_nor_page(tmp_path):
    nb.dump(ran(), tmp_path / 'class/<b>$x$\x1b[31m/05_vision.ipynb')
    rows = progress.progress_rows(progress.read_progress(tmp_path / 'class')[0])
    assert '\x1b' not in progress.progress_text(rows)
    page = progress.progress_page(rows)
    assert '<b>' not in page and '\x1b' not in page
    assert progress.progress_png(rows)[:4] == b'\x89PNG'


def test_a_large_class_is_a_table_not_a_picture():
    rows = [dict(who=f'p{k}', lesson='vision', right=1, wrong=0, left=0) for k in range(201)]
    with pytest.raises(BadInput, match='201 people'):
        progress.progress_figure(rows)
    assert progress.progress_page(rows).count('<tr>') == 202
