"Pages that are made are what the tool makes of today's notebooks and results."

from pathlib import Path

import nb
import pages
import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize('name', pages.PAGES)
def test_page_is_made(name):
    assert (ROOT / name).read_text(encoding='utf-8') == pages.PAGES[name](), 'run: make pages'


def test_front_page_holds_the_tables_of_today():
    made = pages.front_page()
    assert nb.load(ROOT / 'index.ipynb') == made, 'run: make pages'
    assert pages.TABLES.keys() <= {c['id'] for c in made['cells']}


def test_the_course_has_a_first_look_and_twelve_lessons():
    assert len(pages.COURSE) == 13
    assert all(pages.book(n).exists() for _, names in pages.COURSE for n in names)


def test_front_page_fits_a_screen():
    "At most 160 lines, with a picture among the first 15."
    lines = (ROOT / 'README.md').read_text(encoding='utf-8').splitlines()
    assert len(lines) <= 160
    assert any(l.startswith('![') for l in lines[:15])
