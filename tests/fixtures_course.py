"A small lesson with two blanks, and what is made of it."

import copy as copies_of
import re

import pytest

from earthgpt_lite import exercises as checks
from earthgpt_lite.course import copies
from earthgpt_lite.exercises import verdict

HOME = 'https://example.org/nbs'
JUDGES = '''import sys
from types import ModuleType

from earthgpt_lite.exercises import Exercise, check, summary

vision = ModuleType('earthgpt_lite.course.vision')
vision.EXERCISES = {
    'mean': Exercise(lambda x: sum(x) / len(x), lambda f: None if f([1, 3]) == 2 else 'Of 1 and 3?', 2),
    'half': Exercise(0.5, lambda x: None if x == 0.5 else 'It is less than one.'),
}
sys.modules['earthgpt_lite.course.vision'] = vision'''
MEAN = """def mean(numbers):
    "Of a list."
    ### BEGIN SOLUTION
    return sum(numbers) / len(numbers)
    ### END SOLUTION"""
HALF = """half = ...
### BEGIN SOLUTION
half = 1 / 2
### END SOLUTION"""


def cell(id, text, *outputs):
    "Markdown where the text begins with `#` and a space or a star, else code."
    if text.startswith(('# ', '## ', '*')):
        return dict(cell_type='markdown', id=id, metadata={}, source=text.splitlines(True))
    made = dict(cell_type='code', id=id, metadata={}, source=text.splitlines(True))
    return made | dict(outputs=[*outputs], execution_count=None)


def printed(text):
    return dict(output_type='stream', name='stdout', text=[text])


def lesson():
    return dict(
        cells=[
            cell(
                'head',
                '# Means\n\n[Open in Colab](https://example.org/a)\n\nSee [store](../3_data/02_store.ipynb).',
            ),
            cell('dir', '#| default_exp model.means'),
            cell('judges', JUDGES),
            cell('told', '*Blank.* Write `mean`.'),
            cell('mean', MEAN),
            cell('mean-check', "mean = check('vision.mean', mean)", printed('vision.mean: right.\n')),
            cell('use', '#| export\nprint(mean([2, 4]))', printed('3.0\n')),
            cell('half', HALF),
            cell('half-check', "half = check('vision.half', half)", printed('vision.half: right.\n')),
            cell('foot', '## The end'),
            cell('sum', "summary('vision')"),
        ],
        metadata=copies.KERNEL,
        nbformat=4,
        nbformat_minor=5,
    )


def cells(nb=None):
    return copies.plain_cells(nb or lesson(), '4_model/05_vision', HOME)


def student():
    return copies.student_copy(cells())


def with_source(nb, id, text):
    "A notebook in which one cell has another text."
    nb = copies_of.deepcopy(nb)
    (found,) = [c for c in nb['cells'] if c['id'] == id]
    found['source'] = text.splitlines(True)
    return nb


SOLVED = dict(mean='def mean(numbers):\n    return sum(numbers) / len(numbers)', half='half = 2 / 4')
WRONG = dict(mean='def mean(numbers):\n    return sum(numbers)', half='half = 2')


def answered(nb, **answers):
    for id, text in answers.items():
        nb = with_source(nb, id, text)
    return nb


# ---- tests of judges


def blank(*args, **kwargs):
    "A function as it stands in a student copy."
    raise NotImplementedError


class BlankClass:
    "A class as it stands in a student copy."

    __init__ = blank


def left(exercise):
    "What stands in a blank that was left."
    finished = exercise.finished
    if callable(finished):
        return None, ..., BlankClass if isinstance(finished, type) else blank
    return None, ...


def judged(exercises, wrong, right):
    """Four tests of the judges of a lesson, to be named in its test file.

    wrong: (name, what was made, words of what is said); right: (name, what was made), besides the finished piece.
    """

    @pytest.mark.parametrize('name, made, words', wrong)
    def tells_what_is_wrong(name, made, words):
        state, why = verdict(exercises[name], made)
        assert state == checks.WRONG and (words in why or re.search(words, why)), why

    @pytest.mark.parametrize('name, made', [*right, *((name, e.finished) for name, e in exercises.items())])
    def passes_what_is_right(name, made):
        assert verdict(exercises[name], made) == (checks.RIGHT, '')

    @pytest.mark.parametrize('name', exercises)
    def leaves_what_was_left(name):
        assert {verdict(exercises[name], stub)[0] for stub in left(exercises[name])} == {checks.UNSOLVED}

    @pytest.mark.parametrize('name', exercises)
    def was_asked_enough(name):
        assert sum(one == name for one, *_ in wrong) >= 3 and sum(one == name for one, _ in right) >= 2

    return tells_what_is_wrong, passes_what_is_right, leaves_what_was_left, was_asked_enough
