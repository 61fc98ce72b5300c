"""The workshop: plans with clock times, and what an instructor knows of each lesson.

python tools/workshop.py          # each plan with its minutes, and what is wrong with it
python tools/workshop.py half_day # run all cells of a plan in its order, and hold its slots against the clock

A plan (`docs/workshop/plans/NAME.yaml`) is a list of slots. A slot of a lesson says which stretches of it are gone through
and which tasks are solved; the stretches, what to say at each and where people get stuck stand in the notes of the
lesson (`docs/workshop/notes/NN_lesson.yaml`). A stretch goes from the cell in which a line begins as `from` says to the
next stretch. All cells before the last stretch of a slot are run, read or not.
"""

import math
import re
import sys
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache

import course
import nb
import yaml

from earthgpt_lite.course.contents import LESSONS, find_lesson
from earthgpt_lite.course.copies import source_of
from earthgpt_lite.errors import BadInput

FOLDER = nb.ROOT / 'docs/workshop'
PLANS = 'half_day', 'one_day', 'two_days'


# ---- stretches of a lesson


def notes(lesson) -> dict:
    "What an instructor knows of a lesson: stretches, predict, slides, open."
    return yaml.safe_load((FOLDER / f'notes/{lesson.name}.yaml').read_text(encoding='utf-8'))


def find_cell(cells, begin) -> int:
    "The place of the one cell that has a line, or lines, beginning so. Raises BadInput where there is not one."
    found = [i for i, cell in enumerate(cells) if f'\n{begin}' in f'\n{source_of(cell)}']
    if len(found) != 1:
        raise BadInput(
            f'{len(found)} cells have a line that begins with {begin!r}: give the beginning of one'
        )
    return found[0]


@dataclass
class Stretch:
    "Some cells of a lesson in a row, and what is said about them."

    name: str
    title: str  # by which a person finds it in the notebook
    cells: list
    say: str = ''
    stuck: str = ''

    @property
    def words(self):
        told = [source_of(c) for c in self.cells if c['cell_type'] == 'markdown']
        return course.word_count(course.prose(None, told))

    @property
    def code_lines(self):
        "Lines that a learner sees, without imports and directives."
        code = [source_of(c).splitlines() for c in self.cells if c['cell_type'] == 'code' and not imports(c)]
        return sum(bool(line.strip()) and not line.startswith('#|') for lines in code for line in lines)

    @property
    def tasks(self):
        "(name, minutes) of its blanks and exercises."
        told = '\n'.join(source_of(c) for c in self.cells if c['cell_type'] == 'markdown')
        return [(name, course.GRADES[grade]) for name, grade in course.TASK.findall(told)]


def imports(cell):
    return source_of(cell).removeprefix('#| export\n').startswith(('from ', 'import '))


def title_of(note, place) -> str:
    "A heading as it stands in the notebook, or what is written in its place."
    begin = note['from']
    if 'name' in note or not place:
        return note.get('name', 'The beginning')
    if begin.startswith('**Exercise'):
        return 'Exercises'
    return begin.strip('# ').split(':')[0] if begin[0] != '#' else begin.strip('# ')


@lru_cache
def stretches(lesson) -> dict:  # name: Stretch
    "A lesson cut into stretches, by its notes. Raises BadInput where they do not fit the notebook."
    cells, found = nb.load(course.book(lesson))['cells'], notes(lesson)['stretches']
    begins = [find_cell(cells, note['from']) for note in found.values()]
    if begins != sorted(set(begins)) or begins[0]:
        raise BadInput(
            f'{lesson.name}: its stretches begin at cells {begins}: order them, the first at cell 0'
        )
    cut = {}
    for (name, note), start, end in zip(found.items(), begins, [*begins[1:], len(cells)]):
        title = title_of(note, start)
        cut[name] = Stretch(name, title, cells[start:end], note.get('say', ''), note.get('stuck', ''))
    return cut


def task_minutes(parts) -> dict:
    "{'Blank': 5, 'Exercise 1': 5, ...}; where there are several blanks they are numbered."
    found = [task for part in parts for task in part.tasks]
    blanks = sum(name == 'Blank' for name, _ in found)
    named, k = {}, 0
    for name, minutes in found:
        k += name == 'Blank'
        named[f'Blank {k}' if name == 'Blank' and blanks > 1 else name] = minutes
    return named


# ---- plans


@dataclass
class Slot:
    "A piece of the day; of a lesson, or something else with a name."

    at: datetime
    minutes: int
    what: str
    say: str = ''
    late: object = ''  # a sentence; of a lesson: names of tasks and stretches
    lesson: object = None
    talk: int = 0
    parts: list = field(default_factory=list)  # of the lesson, those that are gone through
    unread: list = field(default_factory=list)  # run, not gone through
    solve: dict = field(default_factory=dict)  # task: minutes
    all_parts: dict = field(default_factory=dict)

    @property
    def ends(self):
        return self.at + timedelta(minutes=self.minutes)

    @property
    def read(self):
        return math.ceil(sum(part.words for part in self.parts) / course.PACE)

    @property
    def run(self):
        "Minutes that the whole lesson takes on two cores, whatever part of it is run."
        return math.ceil(course.times().get(self.lesson.slug, 0) / 60) if self.lesson else 0

    @property
    def spare(self):
        return (
            self.minutes - self.talk - self.read - self.run - sum(self.solve.values()) if self.lesson else 0
        )

    @property
    def code_lines(self):
        return sum(part.code_lines for part in self.parts)


def clock(time):
    return f'{time:%H:%M}'


def of_lesson(row, at) -> Slot:
    "A slot of a lesson. Raises BadInput for a stretch or task that the lesson has not."
    lesson = find_lesson(row['lesson'])
    found = stretches(lesson)
    known = task_minutes(found.values())
    lost = [n for n in row['read'] if n not in found] + [n for n in row['solve'] if n not in known]
    lost += [n for n in row['late'] if n not in (*row['read'], *row['solve'])]
    if lost:
        raise BadInput(f'{lesson.name} has no {lost}: it has {", ".join([*found, *known])}')
    names = list(found)
    last = max(map(names.index, row['read']))
    unread = [found[name] for name in names[:last] if name not in row['read']]
    read = [found[name] for name in names if name in row['read']]
    solve = {name: known[name] for name in row['solve']}
    slot = Slot(at, row['minutes'], lesson.title, row.get('say', ''), row['late'], lesson, row['talk'])
    slot.parts, slot.unread, slot.solve, slot.all_parts = read, unread, solve, found
    return slot


def load_plan(name) -> dict:
    "A plan as it is stored."
    return yaml.safe_load((FOLDER / f'plans/{name}.yaml').read_text(encoding='utf-8'))


def days(plan) -> list:  # of lists of Slots
    "The slots of each day, with their clock times."
    found, at = [[]], datetime.strptime(plan['start'], '%H:%M')
    for row in plan['slots']:
        if 'day' in row:
            at = datetime.strptime(row['day'], '%H:%M')
            found.append([])
        if 'lesson' in row:
            slot = of_lesson(row, at)
        else:
            slot = Slot(at, row['minutes'], row['what'], row.get('say', ''), row.get('late', ''))
        found[-1].append(slot)
        at = slot.ends
    return found


LONGEST_SITTING = 125  # minutes without a break


def faults(name) -> list:
    "What is wrong with a plan, a sentence each."
    plan = load_plan(name)
    found = []
    for day in days(plan):
        if clock(day[-1].ends) != plan['end']:
            found.append(f'a day ends at {clock(day[-1].ends)} and not at {plan["end"]}')
        sitting = 0
        for slot in day:
            sitting = 0 if slot.what in ('Break', 'Lunch') else sitting + slot.minutes
            if sitting > LONGEST_SITTING:
                found.append(f'{clock(slot.at)} {slot.what}: {sitting} minutes without a break')
            if slot.spare < 0:
                found.append(f'{clock(slot.at)} {slot.what}: {-slot.spare} minutes too short')
            missing = set(slot.solve) - task_minutes_of(slot)
            if missing:
                found.append(
                    f'{clock(slot.at)} {slot.what}: {missing} lie in no stretch that is gone through'
                )
    return found


def task_minutes_of(slot) -> set:
    "Names of the tasks in the stretches that are gone through."
    if not slot.lesson:
        return set()
    named, k = set(), 0
    several = 'Blank 2' in task_minutes(slot.all_parts.values())
    for part in slot.all_parts.values():
        for name, _ in part.tasks:
            k += name == 'Blank'
            if part in slot.parts:
                named.add(f'Blank {k}' if name == 'Blank' and several else name)
    return named


# ---- a page of a plan


def minutes_row(slot):
    named = f'[{slot.what}](../../nbs/{slot.lesson.notebook}.ipynb)' if slot.lesson else slot.what
    solve = sum(slot.solve.values())
    numbers = (slot.talk, slot.read, slot.run, solve, slot.spare) if slot.lesson else ('',) * 5
    code = slot.code_lines if slot.lesson else ''
    return (f'{clock(slot.at)}', named, slot.minutes, *numbers, code)


HEAD = ['clock', 'what', 'minutes', 'talk', 'read', 'run', 'solve', 'spare', 'lines of code']
COLUMNS = """*Read* is counted at 220 words a minute. *Run* is what the whole lesson takes on two cores, in whole minutes. *Solve*
counts a blank or an exercise at 5 minutes where it is easy and at 10 where it is medium. Code is not counted: *spare*
is for reading it, for questions, and for those who are slower."""


def numbered(names):
    return ', '.join(f'*{name}*' for name in names)


def late_text(slot):
    "What to leave out of a lesson when late, with what it saves."
    if isinstance(slot.late, str):
        return slot.late
    tasks = [f'*{n}* ({slot.solve[n]} minutes)' for n in slot.late if n in slot.solve]
    parts = [slot.all_parts[n] for n in slot.late if n in slot.all_parts]
    said = [f'leave out {" and ".join(tasks)}'] if tasks else []
    for part in parts:
        size = f'{part.words} words, {part.code_lines} line{"s" * (part.code_lines != 1)} of code'
        said.append(f'run *{part.title}* unread ({size})')
    text = ', then '.join(said)
    return f'{text[0].upper()}{text[1:]}.'


def of_tasks(text, solve):
    "What is said about exercises, without those that are not solved in class."
    pieces = re.split(r'(?=\bExercise \d)', text.strip())
    return ''.join(p for p in pieces if p[:10] in solve or not p.startswith('Exercise ')).strip()


def part_line(part, solve):
    "What to say at a stretch, and where people get stuck."
    stop = '' if part.title.endswith('?') else '.'
    stuck = of_tasks(part.stuck, solve)
    said = [f'- **{part.title}{stop}**', of_tasks(part.say, solve), f'*Stuck:* {stuck}' if stuck else '']
    return ' '.join(filter(None, said))


def slot_text(slot):
    "The part of a page about one slot."
    lines = [f'## {clock(slot.at)} to {clock(slot.ends)}: {slot.what}']
    if slot.say:
        lines.append(slot.say.strip())
    if slot.lesson:
        links = f'[Notebook](../../nbs/{slot.lesson.notebook}.ipynb) · [answers](answers.md)'
        lines.append(f'{links} · solve in class: {numbered(slot.solve)}')
        lines += [part_line(part, slot.solve) for part in slot.parts]
        if slot.unread:
            lines.append(f'Run unread: {numbered(part.title for part in slot.unread)}.')
    if slot.late:
        lines.append(f'**When late:** {late_text(slot).strip()}')
    return '\n\n'.join(lines).replace('\n\n- ', '\n- ').replace('\n- ', '\n\n- ', 1)


def table(rows):
    lines = [HEAD, ['---', '---', *['---:'] * (len(HEAD) - 2)], *rows]
    return '\n'.join('| ' + ' | '.join(map(str, line)) + ' |' for line in lines)


def plan_page(name) -> str:
    "A plan for people: the table, then slot by slot what to do."
    plan, found = load_plan(name), []
    all_days = days(plan)
    parts = [f'# {plan["title"]}', plan['about'].strip()]
    for k, day in enumerate(all_days, 1):
        if len(all_days) > 1:
            parts.append(f'Day {k}:')
        parts.append(table(minutes_row(slot) for slot in day))
        found += [(k, slot) for slot in day]
    parts += [COLUMNS, RUN]
    for k, slot in found:
        if slot.lesson or slot.say:
            text = slot_text(slot)
            parts.append(text.replace('## ', f'## Day {k}, ', 1) if len(all_days) > 1 else text)
    parts.append(
        f'*This page is written by `tools/pages.py` from `plans/{name}.yaml` and the notes on the lessons.*'
    )
    return '\n\n'.join(parts) + '\n'


RUN = """A part is named by its heading. *Run unread*: click into the first cell of the next part and choose *Run, Run All Above
Selected Cell*; later cells need what these make. Times of your machines stand in [times](times.md), what a shared
machine does to them in [the room](room.md)."""


# ---- all cells, in the order of a plan


def measured(name, say=print) -> list:  # of (slot, seconds)
    "Run each lesson of a plan to its end, in its order, and say which slots were long enough."
    found = []
    for slot in (slot for day in days(load_plan(name)) for slot in day if slot.lesson):
        seconds = lesson_seconds(slot.lesson)
        found.append((slot, seconds))
        free = slot.minutes - slot.talk - slot.read - sum(slot.solve.values())
        say(f'{clock(slot.at)} {slot.what}: ran {seconds:.0f} s, {free} minutes are free for it')
    return found


def lesson_seconds(lesson) -> float:
    "How long all cells of a lesson take, without the start of the kernel. Raises BadInput where one fails."
    done, bad = nb.execute(course.book(lesson), timeout=1800)
    if bad:
        raise BadInput(f'{lesson.name}: {bad[0]}')
    when = [c['metadata']['execution'] for c in done['cells'] if 'execution' in c['metadata']]
    read = lambda text: datetime.fromisoformat(text.replace('Z', '+00:00'))
    first, last = read(when[0]['iopub.execute_input']), read(when[-1]['shell.execute_reply'])
    return (last - first).total_seconds()


def main():
    for name in PLANS:
        print(f'\n{name}')
        for day in days(load_plan(name)):
            for slot in day:
                print('  '.join(str(x)[:34].ljust(5) for x in minutes_row(slot)))
        print('\n'.join(faults(name)) or 'no fault')


if __name__ == '__main__':
    for word in sys.argv[1:]:
        measured(word)
    if not sys.argv[1:]:
        main()
