"Copies of a lesson hold what they should, and an update loses nothing of a learner's."

import json
import random

import fixtures_course as small
import nb as tool
import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st

from earthgpt_lite.course import copies
from earthgpt_lite.course.contents import LESSONS
from earthgpt_lite.errors import BadInput

SOURCES = [tool.ROOT / 'nbs' / f'{lesson.notebook}.ipynb' for lesson in LESSONS]


def texts(nb):
    return {c['id']: ''.join(c['source']) for c in nb['cells']}


# ---- what a copy holds


@pytest.mark.parametrize(
    'text, left',
    [
        (
            small.MEAN,
            'def mean(numbers):\n    "Of a list."\n    # your code here\n    raise NotImplementedError',
        ),
        (small.HALF, 'half = ...\n# your code here'),
        ('# BEGIN SOLUTION\na, b = 1, 2\n# END SOLUTION\nc = 3', '# your code here\na = ...\nb = ...\nc = 3'),
        ('### BEGIN SOLUTION\ndef f():\n    return 1\n### END SOLUTION', '# your code here\nf = ...'),
        ('### BEGIN SOLUTION\nprint(1)\n### END SOLUTION', '# your code here'),
        ('### BEGIN SOLUTION\nx: int = 1\nx.y = 2\n### END SOLUTION', '# your code here\nx = ...'),
        ('no = 1', 'no = 1'),
    ],
)
def test_a_stub_stands_where_the_solution_stood(text, left):
    assert copies.stub(text) == left


def test_a_student_copy_has_no_solution_no_directive_and_no_output():
    made = small.student()
    said = texts(made)
    assert 'dir' not in said and said['use'] == 'print(mean([2, 4]))'
    assert 'SOLUTION' not in json.dumps(made) and 'sum(numbers)' not in json.dumps(made)
    assert not any(c.get('outputs') for c in made['cells'])
    assert 'Colab' not in said['head'] and f'({small.HOME}/3_data/02_store.ipynb)' in said['head']
    assert [copies.mark_of(c)['kind'] for c in made['cells'] if c['id'].startswith('mean')] == [
        'blank',
        'check',
        'expected',
    ]
    assert '3.0' in said['mean-check-expected'] and 'half-check-expected' not in said


def test_an_expected_picture_is_attached():
    lesson = small.lesson()
    picture = dict(
        output_type='display_data', data={'image/png': 'AAAA\n', 'text/plain': ['<Figure>']}, metadata={}
    )
    lesson['cells'][6]['outputs'] = [picture]
    made = copies.student_copy(small.cells(lesson))
    (note,) = [c for c in made['cells'] if c['id'] == 'mean-check-expected']
    assert note['attachments'] == {'expected.png': {'image/png': 'AAAA'}}
    assert '(attachment:expected.png)' in ''.join(note['source'])


def test_a_solution_copy_has_solutions_without_marks_and_outputs():
    made = copies.solution_copy(small.cells())
    assert 'sum(numbers)' in texts(made)['mean'] and 'SOLUTION' not in json.dumps(made)
    assert [c for c in made['cells'] if c['id'] == 'use'][0]['outputs']


@pytest.mark.parametrize(
    'way', [copies.student_copy, copies.solution_copy, lambda c: copies.assignment(c, lambda n: 1)]
)
@pytest.mark.parametrize('source', SOURCES, ids=tool.short)
def test_copies_are_valid_notebooks(way, source):
    made = way(copies.plain_cells(copies.read_notebook(source), tool.short(source), small.HOME))
    nbformat.validate(nbformat.from_dict(made))
    ids = [c['id'] for c in made['cells']]
    assert len(ids) == len(set(ids))
    for c in made['cells']:
        assert c['cell_type'] != 'code' or not copies.DIRECTIVE.match(''.join(c['source']))


def test_links_of_copies_lead_to_copies_or_to_the_repository():
    names = {f'{lesson.name}.ipynb' for lesson in LESSONS}
    for lesson, source in zip(LESSONS, SOURCES):
        cells = copies.plain_cells(copies.read_notebook(source), lesson.notebook, small.HOME)
        text = '\n'.join(copies.source_of(c) for c in cells if c['cell_type'] == 'markdown')
        for link in tool.LINK.findall(text):
            assert link in names or link.startswith('attachment:'), (lesson.slug, link)


# ---- update


def test_an_update_without_news_changes_nothing():
    assert copies.updated(small.student(), small.student()) == small.student()


def test_answers_stay_and_our_cells_are_renewed():
    theirs = small.answered(small.student(), **small.SOLVED)
    theirs['cells'][4]['outputs'] = [small.printed('seen')]
    lesson = small.lesson()
    lesson['cells'][0]['source'] = ['# Better']
    now = texts(copies.updated(theirs, copies.student_copy(small.cells(lesson))))
    assert now['head'] == '# Better'
    assert {k: now[k] for k in small.SOLVED} == small.SOLVED


def test_results_stay_where_the_cell_is_the_same():
    theirs = small.student()
    theirs['cells'][4]['outputs'] = [small.printed('vision.mean: right.\n')]
    assert copies.updated(theirs, small.student())['cells'][4]['outputs'] == theirs['cells'][4]['outputs']


def test_a_blank_that_was_left_is_renewed():
    lesson = small.lesson()
    lesson['cells'][4]['source'] = small.MEAN.replace('Of a list', 'Of numbers').splitlines(True)
    now = copies.updated(small.student(), copies.student_copy(small.cells(lesson)))
    assert 'Of numbers' in texts(now)['mean']


def test_added_cells_stay_behind_what_they_stood_behind():
    theirs = small.student()
    theirs['cells'].insert(4, small.cell('mine', 'print("note")'))
    theirs['cells'].insert(0, small.cell('first', '# My notes'))
    now = [c['id'] for c in copies.updated(theirs, small.student())['cells']]
    assert now[0] == 'first' and now[now.index('mine') - 1] == [c['id'] for c in small.student()['cells']][3]


def test_a_changed_cell_of_ours_stays_below_the_new_one():
    theirs = small.with_source(small.student(), 'use', 'print(mean([2, 4]), "mine")')
    now = copies.updated(theirs, small.student())['cells']
    k = [c['id'] for c in now].index('use')
    assert ''.join(now[k]['source']) == 'print(mean([2, 4]))'
    assert ''.join(now[k + 1]['source']).endswith('"mine")') and not copies.mark_of(now[k + 1])
    assert copies.updated(dict(small.student(), cells=now), small.student())['cells'] == now


def test_an_answer_whose_blank_is_gone_stays():
    theirs = small.answered(small.student(), **small.SOLVED)
    lesson = small.lesson()
    lesson['cells'] = [c for c in lesson['cells'] if c['id'] not in ('half', 'half-check')]
    now = texts(copies.updated(theirs, copies.student_copy(small.cells(lesson))))
    assert small.SOLVED['half'] in now.values() and 'half-check' not in now


def test_a_pasted_copy_of_our_cell_is_the_learners():
    theirs = small.student()
    pasted = json.loads(json.dumps(theirs['cells'][4])) | dict(id='pasted')
    theirs['cells'].insert(6, pasted)
    now = copies.updated(theirs, small.student())
    assert 'pasted' in texts(now) and len(now['cells']) == len(small.student()['cells']) + 1


def test_cells_without_ids_are_known_by_their_marks():
    theirs = small.answered(small.student(), **small.SOLVED)
    for c in theirs['cells']:
        del c['id']
    now = copies.updated(theirs, small.student())
    assert len(now['cells']) == len(small.student()['cells']) and texts(now)['half'] == small.SOLVED['half']


@given(st.integers(0, 10**6))
def test_whatever_a_learner_does_no_word_of_theirs_is_lost(seed):
    "Cells added, changed, deleted, moved and pasted at random; a lesson that changed as well."
    dice = random.Random(seed)
    theirs, words = small.student(), []
    for k in range(dice.randrange(8)):
        c = dice.choice(theirs['cells']) if theirs['cells'] else None
        what = dice.choice(('add', 'change', 'delete', 'move', 'paste'))
        word = f'word{k}'
        if what == 'add' or c is None:
            theirs['cells'].insert(dice.randrange(len(theirs['cells']) + 1), small.cell(f'new{k}', word))
            words.append(word)
        elif what == 'change':
            c['source'] = [*c['source'], f'\n# {word}']
            words.append(word)
        elif what == 'paste':
            theirs['cells'].append(json.loads(json.dumps(c)) | dict(id=f'pasted{k}'))
        elif not any(w in ''.join(c['source']) for w in words):
            theirs['cells'].remove(c)
            if what == 'move':
                theirs['cells'].insert(dice.randrange(len(theirs['cells']) + 1), c)
    lesson = small.lesson()
    for c in dice.sample(lesson['cells'], 3):
        c['source'] = [*c['source'], '\n# news']
    lesson['cells'].pop(dice.randrange(2, len(lesson['cells'])))
    new = copies.student_copy(small.cells(lesson))
    now = copies.updated(theirs, new)
    said = '\n'.join(texts(now).values())
    assert all(word in said for word in words)
    ids = [c['id'] for c in now['cells']]
    assert len(ids) == len(set(ids)) and {c['id'] for c in new['cells']} <= set(ids)
    assert copies.updated(now, new) == now


# ---- folders


@pytest.fixture
def nbs(tmp_path, monkeypatch):
    "A course of one lesson"
    monkeypatch.setattr(copies, 'LESSONS', [lesson for lesson in LESSONS if lesson.slug == 'vision'])
    tool.dump(small.lesson(), tmp_path / 'nbs/4_model/05_vision.ipynb')
    return tmp_path / 'nbs'


def test_copies_are_made_once_and_kept(nbs, tmp_path):
    target = tmp_path / 'student'
    (path,) = copies.make_copies(nbs, target, 'student', small.HOME)
    assert path == target / '05_vision.ipynb'
    assert copies.make_copies(nbs, target, 'student', small.HOME) == []
    tool.dump(small.answered(copies.read_notebook(path), **small.SOLVED), path)
    before = path.read_bytes()
    assert copies.make_copies(nbs, target, 'student', small.HOME) == [] and path.read_bytes() == before


@pytest.mark.parametrize(
    'there, said',
    [
        ('{"cells": [', 'is not JSON'),
        ('{"cells": 3}', 'is no notebook'),
        ('{"cells": [{"cell_type": "code", "source": 3}]}', 'is no notebook'),
        (
            '{"cells": [{"cell_type": "code", "source": "x", "metadata": {"earthgpt_lite": 3}}]}',
            'is no copy of this',
        ),
        ('[]', 'should begin with {'),
        ('', 'it is empty'),
    ],
)
def test_what_is_no_copy_stays_as_it_is(nbs, tmp_path, there, said):
    path = tmp_path / 'student/05_vision.ipynb'
    path.parent.mkdir()
    path.write_text(there)
    with pytest.raises(BadInput, match=said) as e:
        copies.make_copies(nbs, path.parent, 'student', small.HOME)
    assert path.read_text() == there and '05_vision.ipynb' in str(e.value) and '\n' not in str(e.value)


def test_an_assignment_has_the_metadata_of_nbgrader():
    made = copies.assignment(small.cells(), {'vision.mean': 2, 'vision.half': 1}.get)
    known = {c['id']: c['metadata'].get('nbgrader') for c in made['cells']}
    assert known['mean']['solution'] and not known['mean']['grade'] and not known['mean']['locked']
    assert known['mean-check-grade']['points'] == 2 and known['half-check-grade']['points'] == 1
    assert known['mean-check-grade']['locked'] and known['mean-check-grade']['grade']
    assert known['head'] is None and all(k['schema_version'] == 3 for k in known.values() if k)
    assert 'BEGIN SOLUTION' in texts(made)['mean']
    ids = [k['grade_id'] for k in known.values() if k]
    assert len(ids) == len(set(ids)) == 6
