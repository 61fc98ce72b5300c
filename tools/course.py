"""The course as a text: its terms, its minutes and its heads.

python tools/course.py                # minutes of each lesson, and terms that are used before they are told
python tools/course.py heads          # write place in the course, minutes and the figure into the heads of the lessons
"""

import base64
import os
import re
import sys

import nb
import yaml

from earthgpt_lite.course.contents import LESSONS
from earthgpt_lite.course.figure import you_are_here
from earthgpt_lite.course.measure import COLUMNS, read_times
from earthgpt_lite.errors import BadInput

ROOT = nb.ROOT
ASSETS = ROOT / 'earthgpt_lite/assets/course'
PACE = 220  # words a minute
GRADES = dict(easy=5, medium=10, open=20)  # minutes
TASK = re.compile(r'\*\*(Blank|Exercise \d+) \((easy|medium|open)\)\.\*\*')
ENGINE_ROOM = '*Engine room: as tested and as readable as the course, and nobody must read it*'


def book(lesson):
    return ROOT / 'nbs' / f'{lesson.notebook}.ipynb'


def told_cells(lesson):
    "The Markdown of a lesson, cell by cell"
    return [''.join(c['source']) for c in nb.load(book(lesson))['cells'] if c['cell_type'] == 'markdown']


# ---- words of a lesson

FENCE, CODE = re.compile(r'```.*?```', re.S), re.compile(r'`[^`\n]*`')
DETAILS = re.compile(r'<details>.*?</details>', re.S)
LINKED = re.compile(r'!?\[([^\]]*)\]\([^)]*\)')
TAG, FORMULA = re.compile(r'<[^>]*>'), re.compile(r'\$\$.*?\$\$|\$[^$\n]+\$', re.S)
QUOTED = re.compile(r'"[^"\n]*"|“[^”\n]*”')
NAVIGATION = re.compile(r'^(\[Open in Colab\]|\*Course, |\*Engine room|\*\*Time\*\*).*$', re.M)


def prose(lesson, cells=None):
    """What is read before and between the cells, or those Markdown cells of it that are given.

    No exercise, no hint, no line of the head that only leads elsewhere"""
    cells = [cell for cell in (told_cells(lesson) if cells is None else cells) if not TASK.search(cell)]
    text = NAVIGATION.sub('', '\n\n'.join(cells))
    for pattern in (DETAILS, FENCE, TAG):
        text = pattern.sub(' ', text)
    return LINKED.sub(r'\1', text)


def word_count(text):
    return sum(any(c.isalnum() for c in word) for word in text.split())


# ---- minutes


def tasks(lesson):
    "(name, grade) of the blanks and exercises of a lesson"
    return TASK.findall('\n'.join(told_cells(lesson)))


def times():
    "Seconds that each lesson runs on two CPU cores, as `earthgpt-lite course measure` stored them"
    rows = read_times()[COLUMNS[0]]['rows']
    return {lesson.slug: rows[lesson.slug]['seconds'] for lesson in LESSONS if lesson.slug in rows}


def minutes(lesson):
    "Whole minutes of reading, running and exercises"
    return dict(
        reading=max(1, round(word_count(prose(lesson)) / PACE)),
        running=round(times().get(lesson.slug, 0) / 60),
        exercises=sum(GRADES[grade] for _, grade in tasks(lesson)),
    )


def minutes_text(parts):
    said = ', '.join(f'{name} {n}' for name, n in parts.items() if n)
    return f'{sum(parts.values())} minutes ({said})'


def course_minutes():
    "The minutes of all lessons, part by part, rounded once and not for each lesson as in the heads"
    return dict(
        reading=round(sum(word_count(prose(lesson)) for lesson in LESSONS) / PACE),
        running=round(sum(times().values()) / 60),
        exercises=sum(minutes(lesson)['exercises'] for lesson in LESSONS),
    )


def course_time_text():
    parts = course_minutes()
    hours, rest = divmod(sum(parts.values()), 60)
    said = ', '.join(f'{name} {n}' for name, n in parts.items())
    return f'All of it takes {hours} hours and {rest} minutes ({said} minutes).'


# ---- heads


def link(lesson, other):
    "A link from one lesson to another"
    return f'[{other.title}]({os.path.relpath(book(other), book(lesson).parent).replace(os.sep, "/")})'


def course_line(lesson):
    "Where a lesson stands in the course"
    parts = [f'Course, lesson {lesson.number} of 12' if lesson.number else 'Course, the first look']
    if lesson.number:
        parts.append(f'before it {link(lesson, LESSONS[lesson.number - 1])}')
    if lesson.number < 12:
        parts.append(f'next {link(lesson, LESSONS[lesson.number + 1])}')
    return f'*{" · ".join(parts)}*'


def headed(path):
    "A notebook whose head says where it stands in the course, and how long it takes"
    stored = nb.load(path)
    lesson = next((l for l in LESSONS if book(l) == path), None)
    line = course_line(lesson) if lesson else ENGINE_ROOM
    cell = stored['cells'][0]
    text = re.sub(r'^\*Course, .*\*$', lambda m: line, ''.join(cell['source']), flags=re.M)
    if lesson:
        taken = f'**Time** {minutes_text(minutes(lesson))}'
        text = re.sub(r'\*\*Time\*\* \d+ minutes?(?: \([^)]*\))?', lambda m: taken, text)
    cell['source'] = text.splitlines(True)
    if lesson and not any('you_are_here(' in ''.join(c['source']) for c in stored['cells']):
        first = next(k for k, c in enumerate(stored['cells']) if c['id'] == 'install') + 1
        stored['cells'][first:first] = figure_cells(lesson)
    return stored


def figure_cells(lesson):
    "Two cells that show where a lesson stands, with what they show"
    here = you_are_here(lesson.slug)
    png = base64.b64encode(here.png).decode()
    shown = dict(output_type='execute_result', execution_count=None, metadata={})
    shown['data'] = {'image/png': png, 'text/plain': [repr(here)]}
    texts = ['from earthgpt_lite.course.figure import you_are_here', f"you_are_here('{lesson.slug}')"]
    common = dict(cell_type='code', execution_count=None, metadata={})
    return [
        common | dict(id=f'here{k}', outputs=[shown] if k else [], source=[text])
        for k, text in enumerate(texts)
    ]


def write_heads():
    for path in nb.notebooks()[1:]:
        if (new := headed(path)) != nb.load(path):
            nb.dump(new, path)
            print('head of', nb.short(path))


# ---- terms


def terms_file(lesson):
    return ASSETS / f'{lesson.name}.yaml'


def terms(lesson):
    "What a lesson tells: dicts of term, also, meaning, and everyday where the word is also one of daily life"
    path = terms_file(lesson)
    rows = yaml.safe_load(path.read_text(encoding='utf-8'))['terms']
    for row in rows:
        odd = row.keys() - {'term', 'also', 'meaning', 'everyday'}
        if odd or not (isinstance(row.get('term'), str) and isinstance(row.get('meaning'), str)):
            raise BadInput(f'{path.name}: {row}: a term has term, meaning, and perhaps also and everyday')
    return rows


def told():
    "Each term by its name, with the lessons that tell it, in the order of the course: {name: (row, [lessons])}"
    found = {}
    for lesson in LESSONS:
        for row in terms(lesson):
            found.setdefault(row['term'].casefold(), (row, []))[1].append(lesson)
    return found


def forms(row):
    return [row['term'], *row.get('also', [])]


def pattern(form):
    "A word in both numbers; its letters count where it is written with capitals inside or in none but capitals"
    stem = re.escape(form).replace(r'\ ', r'\s+')
    end = '(?:ies|y)' if form.endswith('y') else '(?:s|es)?'
    stem = stem.removesuffix('y') if form.endswith('y') else stem
    exact = form[1:] != form[1:].lower() or (form[0].isupper() and len(form.split()[0]) < 2)
    return re.compile(rf'(?<![\w-]){stem}{end}(?![\w-])', 0 if exact else re.I)


def searched(lesson):
    "The words of a lesson in which terms are looked for: no code, no formula, no name of a link, nothing quoted"
    text = NAVIGATION.sub('', '\n\n'.join(told_cells(lesson)))
    for what in (FENCE, CODE, FORMULA, LINKED, QUOTED, TAG):
        text = what.sub(' ¶ ', text)
    return text


def early_uses():
    "Terms that are used in a lesson before the one that tells them, one sentence each"
    known = told()
    words = [(pattern(form), name) for name, (row, _) in known.items() for form in forms(row)]
    words.sort(key=lambda pair: -len(pair[0].pattern))
    for lesson in LESSONS:
        text = searched(lesson)
        for find, name in words:
            row, lessons = known[name]
            if lesson.number < lessons[0].number and not row.get('everyday') and (m := find.search(text)):
                around = ' '.join(text[max(0, m.start() - 30) : m.end() + 20].split())
                yield f'{lesson.slug}: {m[0]!r} is told in lesson {lessons[0].slug} first: ... {around} ...'
            text = find.sub(' ¶ ', text)


def unused_terms():
    "Terms that the lesson which tells them never says"
    for lesson in LESSONS:
        text = LINKED.sub(r'\1', '\n'.join(told_cells(lesson)))
        for row in terms(lesson):
            if not any(pattern(form).search(text) for form in forms(row)):
                yield f'{lesson.slug}: {row["term"]!r} stands in {terms_file(lesson).name} and not in the lesson'


def glossary_page():
    lines = ['# Glossary', '', 'Every term of the course, and the lesson that tells it first.', '']
    for _, (row, lessons) in sorted(told().items()):
        also = f' ({", ".join(row["also"])})' if row.get('also') else ''
        links = ', '.join(f'[{l.title}](../nbs/{l.notebook}.ipynb)' for l in lessons)
        lines.append(f'- **{row["term"]}**{also}: {row["meaning"].strip()} {links}')
    return '\n'.join([*lines, '', '*This page is written by `tools/pages.py`.*', ''])


def main():
    for lesson in LESSONS:
        print(f'{lesson.name:16}{word_count(prose(lesson)):5} words  {minutes_text(minutes(lesson))}')
    print(course_time_text())
    faults = [*early_uses(), *unused_terms()]
    print('\n'.join(faults) or 'terms: no fault')


if __name__ == '__main__':
    command, *rest = sys.argv[1:] or ['']
    commands = {'': main, 'heads': write_heads}
    if command not in commands:
        sys.exit(__doc__)
    commands[command](*rest)
