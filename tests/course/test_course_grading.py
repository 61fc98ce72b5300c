"nbgrader takes our assignments: solved gets all points, blank none, half the points of its half."

import os
import subprocess
import sys
from pathlib import Path

import fixtures_course as small
import nb
import pytest

from earthgpt_lite.course import copies

POINTS = {'vision.mean': 2, 'vision.half': 1}
STUDENTS = dict(ada=(small.SOLVED, 3), ben=({}, 0), cy=(dict(mean=small.SOLVED['mean'], half='half = 3'), 2))
SCORES = """
from nbgrader.api import Gradebook
with Gradebook('sqlite:///gradebook.db') as book:
    for s in book.assignment_submissions('vision'):
        print(s.student.id, s.score, s.max_score)
"""


def grader(folder, *words):
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ.get("PATH", "")}'
    settings = dict(cwd=folder, capture_output=True, text=True, env=os.environ | dict(PATH=path))
    done = subprocess.run([sys.executable, *words], **settings)
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout


@pytest.mark.rare
def test_solved_blank_and_half_get_their_points(tmp_path):
    pytest.importorskip('nbgrader')
    source = tmp_path / 'source/vision/05_vision.ipynb'
    nb.dump(copies.assignment(small.cells(), POINTS.get), source)
    copies._configure(tmp_path)
    grader(tmp_path, '-m', 'nbgrader', 'generate_assignment', 'vision')
    released = tmp_path / 'release/vision/05_vision.ipynb'
    assert 'SOLUTION' not in released.read_text() and 'sum(numbers)' not in released.read_text()
    for who, (answers, _) in STUDENTS.items():
        handed_in = small.answered(copies.read_notebook(released), **answers)
        nb.dump(handed_in, tmp_path / f'submitted/{who}/vision/05_vision.ipynb')
    grader(tmp_path, '-m', 'nbgrader', 'autograde', 'vision')
    lines = [line.split() for line in grader(tmp_path, '-c', SCORES).splitlines()]
    assert {who: (float(score), float(most)) for who, score, most in lines} == {
        who: (points, 3) for who, (_, points) in STUDENTS.items()
    }


def test_the_configuration_of_an_instructor_stays(tmp_path):
    (tmp_path / 'nbgrader_config.py').write_text('mine')
    copies._configure(tmp_path)
    assert (tmp_path / 'nbgrader_config.py').read_text() == 'mine'
