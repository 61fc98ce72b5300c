"Pages that are made are what the tool makes of today's notebooks and results."

import sys
import subprocess
import re
from pathlib import Path

import nb
import pages
import pytest

from earthgpt_lite.course.contents import LESSONS

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize('name', pages.PAGES)
def test_page_is_made(name):
    assert (ROOT / name).read_text(encoding='utf-8') == pages.PAGES[name](), 'run: make pages'


def test_front_page_holds_the_tables_of_today():
    made = pages.front_page()
    assert nb.load(ROOT / 'index.ipynb') == made, 'run: make pages'
    assert pages.TABLES.keys() <= {c['id'] for c in made['cells']}


def test_the_course_has_a_first_look_and_twelve_lessons():
    assert len(LESSONS) == 13
    assert all(path.exists() for path in COURSE)


def test_front_page_fits_a_screen():
    "At most 160 lines, with a picture among the first 15."
    lines = (ROOT / 'README.md').read_text(encoding='utf-8').splitlines()
    assert len(lines) <= 160
    assert any(l.startswith('![') for l in lines[:15])


# ---- what the course shows


COURSE = [pages.book(lesson.notebook) for lesson in LESSONS]
REPEATED = re.compile(r'([A-Za-z]{2,12})(?: ?\1){3,}|([A-Za-z])\2{5,}')


def head_of(path):
    return ''.join(nb.load(path)['cells'][0]['source'])


@pytest.mark.parametrize('path', COURSE, ids=nb.short)
def test_a_course_lesson_needs_course_lessons_only(path):
    "Nobody must read an engine room, so no lesson of the course may ask for one."
    (before,) = re.findall(r'\*\*Before\*\* (.*)', head_of(path))
    asked = [(path.parent / link).resolve() for link in re.findall(r'\]\(([^)]+)\)', before)]
    assert asked or before == 'nothing'
    assert set(asked) <= {p.resolve() for p in COURSE[: COURSE.index(path)]}


def is_babble(text):
    "Broken characters, or one piece of a word again and again: no trained model writes so."
    return '\ufffd' in text or bool(REPEATED.search(text))


def unexplained_babble(cells):
    "Ids of cells that stored babble, where neither the prose before nor behind calls it so."
    texts = [''.join(c['source']) if c['cell_type'] == 'markdown' else '' for c in cells]
    found = []
    for k, cell in enumerate(cells):
        shown = ''.join(map(output_text, cell.get('outputs', [])))
        around = [next(filter(None, side), '') for side in (texts[k::-1], texts[k:])]
        if is_babble(shown) and not any('babble' in text for text in around):
            found.append(cell['id'])
    return found


def output_text(output):
    return ''.join(output.get('text', '')) + ''.join(output.get('data', {}).get('text/plain', ''))


@pytest.mark.parametrize('path', nb.notebooks(), ids=nb.short)
def test_no_stored_answer_is_babble(path):
    "Words only: the titles in a stored picture are for the eye."
    assert unexplained_babble(nb.load(path)['cells']) == []


@pytest.mark.parametrize('answer', ['\ufffd\ufffdDDDal', 'nononono', 'KKKKKKKK', 'sce sce sce sce'])
def test_babble_is_found(answer):
    shown = dict(cell_type='code', id='a', source=[], outputs=[dict(text=[f"'{answer}'\n"])])
    prose = dict(cell_type='markdown', id='b', source=['The answers.'])
    assert unexplained_babble([prose, shown, prose]) == ['a']
    assert unexplained_babble([prose, shown, prose | dict(source=['Untrained, so it babbles.'])]) == []


@pytest.mark.parametrize('answer', ['mostly water and forest.', '[0.41,0.17,0.91,0.97]', 'no', 'yes, yes'])
def test_an_answer_is_no_babble(answer):
    assert not is_babble(answer)


def test_copies_are_made_without_an_environment(tmp_path):
    "`make student` and `make readme` run with any Python, before anything is installed"
    for words in (
        ['student', ROOT / 'nbs/0_errors.ipynb', tmp_path / 'copy.ipynb'],
        ['readme', ROOT / 'index.ipynb', tmp_path / 'README.md'],
    ):
        command = [sys.executable, '-I', '-S', str(ROOT / 'tools/nb.py'), *map(str, words)]
        subprocess.run(command, check=True, cwd=tmp_path)
        assert words[-1].is_file()
