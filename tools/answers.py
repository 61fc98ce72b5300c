"""The answer sheet for the instructor, made of the lessons, of what their judges say, and of the notes.

python tools/answers.py run SLUG...   # run lessons and what their notes answer to the open exercise; keep what it prints

Solutions stand in the lessons, wrong answers in the tests of their judges, answers to *Predict* and to open exercises in
`docs/workshop/notes/`. What the code of an open exercise printed is kept in `docs/workshop/open.json`.
"""

import ast
import hashlib
import importlib.util
import json
import os
import re
import sys
import tempfile
from pathlib import Path

import course
import nb
import workshop

from earthgpt_lite.course.contents import LESSONS, find_lesson
from earthgpt_lite.course.copies import BEGIN, CHECK, END, source_of
from earthgpt_lite.errors import BadInput
from earthgpt_lite.exercises import WRONG, find_exercise, verdict
from earthgpt_lite.files import write_json

TESTS = nb.ROOT / 'tests'
OPEN = workshop.FOLDER / 'open.json'
HINTS = re.compile(r'<details>.*?</details>', re.S)


# ---- tasks and their solutions


def tasks(lesson) -> list:  # dicts: task, text, name of the check, solution
    "Blanks and exercises of a lesson in their order; an open one has neither check nor solution."
    cells, found = nb.load(course.book(lesson))['cells'], []
    for k, cell in enumerate(cells):
        told = source_of(cell) if cell['cell_type'] == 'markdown' else ''
        if not (task := course.TASK.search(told)):
            continue
        name, grade = task.groups()
        text = HINTS.sub('', told[task.end() :]).strip()
        row = dict(task=name, grade=grade, text=' '.join(text.split()))
        if grade != 'open':
            row |= dict(check=CHECK.search(source_of(cells[k + 2]))[1], solution=solution(cells[k + 1]))
        found.append(row)
    return found


def solution(cell) -> str:
    "What stands between the marks of a solution, without the indent that all of it has."
    inside, parts = False, []
    for line in source_of(cell).splitlines():
        inside = bool(BEGIN.match(line)) or inside and not END.match(line)
        if inside and not BEGIN.match(line):
            parts.append(line)
    indent = min(len(line) - len(line.lstrip()) for line in parts if line.strip())
    return '\n'.join(line[indent:] for line in parts)


# ---- wrong answers, and what the judge says


def judge_tests(lesson):
    "The tests of the judges of a lesson: their text and the module."
    path = TESTS / f'course/test_course_{lesson.slug}.py'
    if str(TESTS) not in sys.path:
        sys.path.insert(0, str(TESTS))
    spec = importlib.util.spec_from_file_location(f'judges_of_{lesson.slug}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return path.read_text(encoding='utf-8'), module


def in_words(node, text, tree) -> str:
    "A wrong answer as code where it is short, else the name of the function that gives it."
    if isinstance(node, ast.Name):
        made = next((n for n in tree.body if getattr(n, 'name', '') == node.id), None)
        body = getattr(made, 'body', [])
        short = len(body) == 1 and isinstance(body[0], ast.Return)
        code = ast.get_source_segment(text, body[0].value) if short else ''
        return (
            f'`{code}`' if 0 < len(code) <= 90 and '\n' not in code else node.id.strip('_').replace('_', ' ')
        )
    inner = node.body if isinstance(node, ast.Lambda) else node
    return f'`{" ".join(ast.get_source_segment(text, inner).split())}`'


def wrong_answers(lesson) -> dict:  # name of an exercise: [(what the judge says, what was written)]
    "Every wrong answer of the tests, with what is said of it; each sentence once."
    text, module = judge_tests(lesson)
    tree = ast.parse(text)
    (listed,) = [
        n for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == 'WRONG_ANSWERS'
    ]
    found = {}
    for node, (name, made, _) in zip(listed.value.elts, module.WRONG_ANSWERS, strict=True):
        state, said = verdict(find_exercise(f'{lesson.slug}.{name}'), made)
        assert state == WRONG, (lesson.slug, name)
        said = re.sub(r'^(It raises \w+): .*', r'\1, with its message.', said)  # which other libraries word
        found.setdefault(name, {}).setdefault(said, in_words(node.elts[1], text, tree))
    return {name: list(rows.items()) for name, rows in found.items()}


# ---- predictions


def asked_to_predict(lesson) -> list:
    "The cells of a lesson that ask for a prediction, in their order."
    return [text for text in course.told_cells(lesson) if re.search(r'\*Predict\b', text)]


def predictions(lesson) -> list:  # (question, answer)
    "What is to be predicted, and what comes out. Raises BadInput where notes and lesson differ."
    known, told = workshop.notes(lesson)['predict'], asked_to_predict(lesson)
    if len(known) != len(told):
        raise BadInput(f'{lesson.name} asks for {len(told)} predictions, its notes answer {len(known)}')
    for note, text in zip(known, told):
        if note['ask'] not in ' '.join(text.split()):
            raise BadInput(f'{lesson.name}: {note["ask"]!r} does not stand in {text[-80:]!r}')
    questions = [re.search(r'\*(Predict[^*]*(?:\*[^*]+\*[^*]*)??[.?:])\*', ' '.join(t.split())) for t in told]
    return [(q[1] if q else note['ask'], note['answer'].strip()) for q, note in zip(questions, known)]


# ---- open exercises


def digest(code) -> str:
    return hashlib.sha256(code.encode()).hexdigest()[:12]


def stored() -> dict:
    return json.loads(OPEN.read_text(encoding='utf-8')) if OPEN.exists() else {}


def run_open(lesson) -> str:
    "Run a lesson to its open exercise, and there the answer of the notes; return what that prints."
    book, code = nb.load(course.book(lesson)), workshop.notes(lesson)['open']['code']
    last = next(k for k, c in enumerate(book['cells']) if '(open).**' in source_of(c))
    imports, _, rest = code.partition('\n\n') if code.startswith('from ') else ('', '', code)
    for text in filter(None, (imports, rest)):
        cell = dict(cell_type='code', execution_count=None, id=digest(text), metadata={}, outputs=[])
        last += 1
        book['cells'].insert(last, cell | dict(source=text.splitlines(True)))
    book['cells'] = book['cells'][: last + 1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f'{lesson.name}.ipynb'
        nb.dump(book, path)
        done, bad = nb.execute(path, timeout=1800)
    if bad:
        raise BadInput(f'{lesson.name}: {bad[0]}')
    printed = [o['text'] for o in done['cells'][-1]['outputs'] if o.get('name') == 'stdout']
    return ''.join(map(''.join, printed))


def run(*slugs):
    for slug in slugs:
        lesson, kept = find_lesson(slug), stored()
        code = workshop.notes(lesson)['open']['code']
        kept[slug] = dict(of=digest(code), printed=run_open(lesson))
        write_json({l.slug: kept[l.slug] for l in LESSONS if l.slug in kept}, OPEN)
        print(f'{slug}:\n{kept[slug]["printed"]}')


# ---- the page

ABOUT = """# Answers

For the instructor: what each *Predict* of the course comes to, how each blank and exercise may be solved, and what `check`
says to wrong answers. A judge accepts every way to the right result. The last column shows what somebody may have written
who is told this; many other mistakes are told the same.

`make solutions` writes the lessons with all solutions, to be run."""


def escaped(text):
    return text.replace('|', r'\|').replace('\n', ' ')


def judged_table(rows):
    lines = ['| `check` says | after, for example |', '| --- | --- |']
    return '\n'.join(lines + [f'| {escaped(said)} | {escaped(made)} |' for said, made in rows])


def from_here(text, lesson):
    "The text of a lesson with its links as they are from the page."
    folder = Path('../../nbs', lesson.notebook).parent
    return nb.LINK.sub(lambda m: m[0].replace(m[1], os.path.normpath(folder / m[1])), text)


def task_text(lesson, row, wrong):
    "The part of the sheet about one task."
    named = f' `{row["check"]}`' if 'check' in row else ''
    parts = [f'### {row["task"]} ({row["grade"]}){named}', from_here(row['text'], lesson)]
    if 'check' in row:
        parts += [f'```python\n{row["solution"]}\n```', judged_table(wrong[row['check'].split('.')[1]])]
        return '\n\n'.join(parts)
    answer = workshop.notes(lesson)['open']
    parts += [f'One way:\n\n```python\n{answer["code"].strip()}\n```']
    parts += [
        f'It printed:\n\n```text\n{stored()[lesson.slug]["printed"].strip()}\n```',
        answer['say'].strip(),
    ]
    return '\n\n'.join(parts)


def answers_page() -> str:
    "All lessons, one after the other."
    parts = [ABOUT]
    for lesson in LESSONS:
        wrong = wrong_answers(lesson)
        parts.append(f'## [{lesson.title}](../../nbs/{lesson.notebook}.ipynb)')
        parts.append('\n'.join(f'- *{ask}* {answer}' for ask, answer in predictions(lesson)))
        parts += [task_text(lesson, row, wrong) for row in tasks(lesson)]
    parts.append(
        '*This page is written by `tools/pages.py`; what open exercises print is stored by `tools/answers.py`.*'
    )
    return '\n\n'.join(parts) + '\n'


if __name__ == '__main__':
    if sys.argv[1:2] != ['run']:
        sys.exit(__doc__)
    run(*sys.argv[2:] or [l.slug for l in LESSONS if l.number])
