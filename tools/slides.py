"""Slides of the lessons, for a room without network: one HTML file a lesson, with everything inside.

python tools/slides.py               # build/slides/index.html
python tools/slides.py --out DIR

A title, what the notes of the lesson choose (`slides` in `docs/workshop/notes/`), and a slide for each blank and exercise.
Text, code and stored outputs come out of the notebooks through nbconvert; nothing is run.
"""

import argparse
import html
import json
import re
import shutil
import time
from functools import lru_cache
from pathlib import Path

import course
import nb
import nbformat
import workshop
from latex2mathml.converter import convert
from nbconvert import HTMLExporter

from earthgpt_lite.course.contents import LESSONS
from earthgpt_lite.course.copies import source_of, without_directives
from earthgpt_lite.errors import BadInput

FOLDER = nb.ROOT / 'tools/site'
HINTS = re.compile(r'<details>.*?</details>', re.S)
MATH = re.compile(r'\$\$(.+?)\$\$|\$([^$\n]+)\$', re.S)
KINDS = 'text', 'code', 'output', 'picture'


# ---- what stands on a slide


def told(text, begin) -> str:
    "What a cell tells in the part that begins so: to the next heading or task, without a line that leads to the code."
    parts = re.split(r'^#+ .*$', text, flags=re.M)
    (part,) = [part for part in parts if f'\n{begin}' in f'\n{part}']
    part = course.TASK.split(part)[0].strip()
    *before, last = part.split('\n\n')
    return '\n\n'.join(before if before and last.endswith(':') else [*before, last])


def plain(text) -> str:
    "Markdown without hints and links, which lead nowhere from a slide."
    return course.LINKED.sub(r'\1', HINTS.sub('', text)).strip()


def with_formulas(text) -> tuple:  # (Markdown, {mark: MathML})
    "Formulas leave the text before Markdown is read, and come back as MathML."
    kept = {}

    def keep(found):
        mark = f'FORMULA{len(kept)}Z'
        kept[mark] = convert(found[1] or found[2], display='block' if found[1] else 'inline')
        return mark

    return MATH.sub(keep, text), kept


@lru_cache
def exporter(**options):
    return HTMLExporter(
        template_name='basic', exclude_input_prompt=True, exclude_output_prompt=True, **options
    )


def rendered(cell, **options) -> str:
    "One cell as HTML."
    text, formulas = source_of(cell), {}
    if cell['cell_type'] == 'markdown':
        text, formulas = with_formulas(plain(text))
    else:
        text = without_directives(text)
    whole = dict(cells=[cell | dict(source=text, metadata={})], metadata={}, nbformat=4, nbformat_minor=5)
    made, _ = exporter(**options).from_notebook_node(nbformat.reads(json.dumps(whole), 4))
    for mark, formula in formulas.items():
        made = made.replace(mark, formula)
    return made


def shown(lesson, cells, what) -> str:
    """A cell that the notes name, as text, as code, or as what it gave, all of it or its pictures.

    Raises BadInput where it is named wrongly."""
    ((kind, begin),) = what.items()
    if kind not in KINDS:
        raise BadInput(f'{lesson.name}: {kind!r} is none of {", ".join(KINDS)}')
    cell = cells[workshop.find_cell(cells, begin)]
    if (cell['cell_type'] == 'markdown') != (kind == 'text'):
        raise BadInput(f'{lesson.name}: {begin!r} begins a cell of {cell["cell_type"]}, not of {kind}')
    if kind == 'text':
        cell = cell | dict(source=told(source_of(cell), begin))
    if kind == 'picture':
        drawn = [o for o in cell['outputs'] if any(k.startswith('image') for k in o.get('data', {}))]
        cell = cell | dict(outputs=drawn)
    if kind in ('output', 'picture') and not cell['outputs']:
        raise BadInput(f'{lesson.name}: {begin!r} begins a cell without {kind}')
    return rendered(cell, exclude_input=kind != 'code', exclude_output=kind == 'code')


def title_slide(lesson, cells) -> tuple:
    "What is built, how long it takes, the question of the lesson, and where it stands among the others."
    head = source_of(cells[0])
    built = re.search(r'\*\*You will build\*\* (.*)', head)[1]
    question = re.split(r'\n\*\*Time\*\*.*\n\n', head)[1].partition('\n\nThese are the parts')[0]
    about = f'Lesson {lesson.number} of 12' if lesson.number else 'Before the first lesson'
    text = f'{about}. You will build {built}\n\n{question}'
    words = rendered(dict(cell_type='markdown', source=text, metadata={}, id='head'))
    return lesson.title, words + shown(lesson, cells, dict(output=f"you_are_here('{lesson.slug}')"))


def task_slides(cells):
    "A slide for each blank and exercise, without its hints."
    for cell in cells:
        found = course.TASK.search(source_of(cell)) if cell['cell_type'] == 'markdown' else None
        if found:
            text = source_of(cell)[found.end() :]
            yield (
                f'{found[1]} ({found[2]})',
                rendered(dict(cell_type='markdown', source=text, metadata={}, id='t')),
            )


def slides(lesson) -> list:  # of (title, HTML)
    "All slides of a lesson."
    cells = nb.load(course.book(lesson))['cells']
    chosen = workshop.notes(lesson)['slides']
    made = [(row['title'], '\n'.join(shown(lesson, cells, what) for what in row['show'])) for row in chosen]
    return [title_slide(lesson, cells), *made, *task_slides(cells)]


# ---- pages

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{style}</style></head>
<body>{body}<script>{script}</script></body></html>
"""


def page(title, body, script='') -> str:
    from pygments.formatters import HtmlFormatter

    style = (FOLDER / 'slides.css').read_text(encoding='utf-8')
    colours = HtmlFormatter(style='friendly', nobackground=True).get_style_defs('.highlight')
    return PAGE.format(title=html.escape(title), style=style + colours, body=body, script=script)


def deck(lesson) -> str:
    "The slides of a lesson as one page."
    parts = [
        f'<section><h2>{html.escape(title)}</h2><div class="inside">{inside}</div></section>'
        for title, inside in slides(lesson)
    ]
    return page(lesson.title, '\n'.join(parts), (FOLDER / 'slides.js').read_text(encoding='utf-8'))


def contents() -> str:
    "The page that leads to all of them."
    links = [f'<li><a href="{l.name}.html">{html.escape(l.title)}</a></li>' for l in LESSONS]
    keys = 'Arrow keys or space turn the slides; Home and End lead to first and last.'
    listed = (
        f'<section><h2>earthgpt-lite: slides</h2><ol start="0">{"".join(links)}</ol><p>{keys}</p></section>'
    )
    return page('Slides', listed)


def write_slides(folder) -> list:  # of paths
    "Slides of all lessons into a folder, and the page that leads to them."
    made = {f'{lesson.name}.html': deck(lesson) for lesson in LESSONS} | {'index.html': contents()}
    for name, text in made.items():
        nb.write_whole(Path(folder) / name, text)
    return [Path(folder) / name for name in made]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=nb.ROOT / 'build/slides')
    args, start = parser.parse_args(), time.time()
    shutil.rmtree(args.out, ignore_errors=True)
    made = write_slides(args.out)
    size = sum(path.stat().st_size for path in made) / 1e6
    print(f'{args.out / "index.html"}: {len(made)} files, {size:.1f} MB, {time.time() - start:.0f} s')


if __name__ == '__main__':
    main()
