"The list of the lessons, and the figure at their heads."

import io

import pytest
from PIL import Image

from earthgpt_lite.course import figure
from earthgpt_lite.course.contents import LESSONS, find_lesson
from earthgpt_lite.errors import BadInput

SLUGS = [lesson.slug for lesson in LESSONS]


def test_thirteen_lessons_in_their_order():
    assert [lesson.number for lesson in LESSONS] == list(range(13))
    assert len(set(SLUGS)) == len({lesson.notebook for lesson in LESSONS}) == 13
    assert find_lesson('vision').name == '05_vision'


@pytest.mark.parametrize('slug', SLUGS)
def test_the_figure_is_small_and_says_where(slug):
    here = figure.you_are_here(slug)
    assert len(here._repr_png_()) < 15_000
    assert Image.open(io.BytesIO(here.png)).width < 900
    assert find_lesson(slug).title in repr(here)


def test_each_part_of_the_figure_is_somebodys():
    lit = {
        name for slug, names in figure._HERE.items() for name in names if slug not in ('first_look', 'asking')
    }
    assert lit | {'map'} == {*figure._PARTS}
    assert len({figure.you_are_here(slug).png for slug in SLUGS}) == 13


@pytest.mark.parametrize('use', [find_lesson, figure.you_are_here])
def test_no_such_lesson(use):
    with pytest.raises(BadInput, match="no lesson 'cooking': it has first_look, chips"):
        use('cooking')
