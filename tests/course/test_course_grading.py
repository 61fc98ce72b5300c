"nbgrader takes our assignments: solved gets all points, blank none, half the points of its half."

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import fixtures_course as small
import nb
import pytest

from earthgpt_lite.course import copies
from earthgpt_lite.course.contents import LESSONS, find_lesson
from earthgpt_lite.exercises import find_exercise

ROOT = Path(__file__).parent.parent.parent
POINTS = {'vision.mean': 2, 'vision.half': 1}
STUDENTS = dict(ada=(small.SOLVED, 3), ben=({}, 0), cy=(dict(mean=small.SOLVED['mean'], half='half = 3'), 2))
SCORES = """
import sys
from nbgrader.api import Gradebook
with Gradebook('sqlite:///gradebook.db') as book:
    for s in book.assignment_submissions(sys.argv[1]):
        print(s.student.id, s.score, s.max_score)
"""


def grader(folder, *words):
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ.get("PATH", "")}'
    settings = dict(cwd=folder, capture_output=True, text=True, env=os.environ | dict(PATH=path))
    done = subprocess.run([sys.executable, *words], **settings)
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout


def graded(folder, lesson, assignment, submissions) -> dict:  # (points, most) of each student
    "What nbgrader gives; a submission is a function that fills a released copy."
    path = folder / f'source/{lesson.slug}/{lesson.name}.ipynb'
    nb.dump(assignment, path)
    copies._configure(folder)
    grader(folder, '-m', 'nbgrader', 'generate_assignment', lesson.slug)
    released = folder / f'release/{lesson.slug}/{lesson.name}.ipynb'
    assert 'SOLUTION' not in released.read_text(encoding='utf-8')
    for who, fill in submissions.items():
        copy = copies.read_notebook(released)
        nb.dump(fill(copy), folder / f'submitted/{who}/{lesson.slug}/{lesson.name}.ipynb')
    grader(folder, '-m', 'nbgrader', 'autograde', lesson.slug)
    lines = [line.split() for line in grader(folder, '-c', SCORES, lesson.slug).splitlines()]
    return {who: (float(score), float(most)) for who, score, most in lines}


@pytest.mark.rare
def test_solved_blank_and_half_get_their_points(tmp_path):
    pytest.importorskip('nbgrader')
    assignment = copies.assignment(small.cells(), POINTS.get)
    answers = {who: partial(small.answered, **given) for who, (given, _) in STUDENTS.items()}
    found = graded(tmp_path, find_lesson('vision'), assignment, answers)
    assert found == {who: (points, 3) for who, (_, points) in STUDENTS.items()}


def filled(copy, solutions, most):
    "A copy whose first `most` blanks are solved."
    blanks = [cell for cell in copy['cells'] if cell['id'] in solutions]
    for cell in blanks[:most]:
        cell['source'] = solutions[cell['id']].splitlines(True)
    return copy


@pytest.mark.rare
@pytest.mark.parametrize('lesson', LESSONS, ids=lambda lesson: lesson.slug)
def test_every_lesson_is_graded(lesson, tmp_path):
    "Solved all points, blank none, and with the first blank alone the points of that one."
    pytest.importorskip('nbgrader')
    cells = copies.plain_cells(nb.load(ROOT / f'nbs/{lesson.notebook}.ipynb'), lesson.notebook, small.HOME)
    assignment = copies.assignment(cells, copies._exercise_points)
    blanks = [c for c in assignment['cells'] if copies.mark_of(c)['kind'] == 'blank']
    solutions = {c['id']: copies.solved(copies.source_of(c)) for c in blanks}
    names = [name for c in assignment['cells'] for name in copies.CHECK.findall(copies.source_of(c))]
    points = [find_exercise(name).points for name in dict.fromkeys(names)]
    fill = partial(filled, solutions=solutions)
    students = dict(ada=partial(fill, most=None), ben=partial(fill, most=0), cy=partial(fill, most=1))
    most = sum(points)
    assert graded(tmp_path, lesson, assignment, students) == dict(
        ada=(most, most), ben=(0, most), cy=(points[0], most)
    )


def test_the_configuration_of_an_instructor_stays(tmp_path):
    (tmp_path / 'nbgrader_config.py').write_text('mine')
    copies._configure(tmp_path)
    assert (tmp_path / 'nbgrader_config.py').read_text() == 'mine'
