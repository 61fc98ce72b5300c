"The workshop: plans fit their clock and the lessons, answers fit the questions, slides fit a screen, the image's lines run."

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import answers
import course
import nb
import pytest
import slides
import workshop
import yaml

from earthgpt_lite.app.cli import make_parser
from earthgpt_lite.course import copies
from earthgpt_lite.course.contents import LESSONS
from earthgpt_lite.errors import BadInput

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / 'docs/workshop'
EACH = [pytest.param(l, id=l.slug) for l in LESSONS]
CHROME = next((p for p in map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome')) if p), None)


def all_slots(name):
    return [slot for day in workshop.days(workshop.load_plan(name)) for slot in day]


# ---- plans


@pytest.mark.parametrize('name', workshop.PLANS)
def test_a_plan_fits_its_clock(name):
    "Talk, reading, running and tasks fit each slot; days end when they say; nobody sits too long."
    assert workshop.faults(name) == []


@pytest.mark.parametrize('name', workshop.PLANS)
def test_a_plan_has_room_for_code_and_questions(name):
    "A fifth of the lessons' time is spare, and no slot is full to the minute."
    slots = [slot for slot in all_slots(name) if slot.lesson]
    assert sum(s.spare for s in slots) >= 0.2 * sum(s.minutes for s in slots)
    assert min(s.spare for s in slots) >= 5


@pytest.mark.parametrize('name', workshop.PLANS)
def test_a_plan_goes_through_lessons_in_their_order(name):
    numbers = [slot.lesson.number for slot in all_slots(name) if slot.lesson]
    assert numbers == sorted(set(numbers)) and numbers[0] == 0 and numbers[-1] == 12


def test_two_days_are_the_whole_course():
    assert [slot.lesson for slot in all_slots('two_days') if slot.lesson] == list(LESSONS)


def broken_plan(monkeypatch, change):
    plan = workshop.load_plan('half_day')
    change(plan)
    monkeypatch.setattr(workshop, 'load_plan', lambda name: plan)
    return workshop.faults('half_day')


def short_slot(plan):
    plan['slots'][2]['minutes'] -= 20
    plan['slots'][0]['minutes'] += 20


@pytest.mark.parametrize(
    'change, words',
    [
        (short_slot, 'minutes too short'),
        (lambda plan: plan.update(end='12:30'), 'a day ends at 13:00'),
        (lambda plan: plan['slots'].pop(3), 'without a break'),
        (lambda plan: plan['slots'][2].update(read=['file'], late=[]), 'in no stretch that is gone through'),
    ],
)
def test_a_plan_that_cannot_be_kept_is_found(monkeypatch, change, words):
    assert any(words in fault for fault in broken_plan(monkeypatch, change))


def test_a_plan_that_names_what_is_not_there_is_refused(monkeypatch):
    with pytest.raises(BadInput, match='clouds'):
        broken_plan(monkeypatch, lambda plan: plan['slots'][2]['read'].append('clouds'))


@pytest.mark.rare
def test_half_a_day_runs_inside_its_clock_times():
    "All cells of its lessons, in its order: what runs fits beside what is said, read and solved."
    for slot, seconds in workshop.measured('half_day'):
        free = slot.minutes - slot.talk - slot.read - sum(slot.solve.values())
        assert seconds <= 60 * free, f'{slot.what}: ran {seconds:.0f} s, {free} minutes are free'


# ---- what is known of each lesson


@pytest.mark.parametrize('lesson', EACH)
def test_the_notes_fit_the_lesson(lesson):
    "Stretches cover the lesson in order; each says something; predictions and open exercises are answered."
    parts = workshop.stretches(lesson).values()
    assert sum(len(part.cells) for part in parts) == len(nb.load(course.book(lesson))['cells'])
    assert all(part.say for part in parts)
    assert set(workshop.notes(lesson)) <= {'stretches', 'predict', 'slides', 'open'}
    assert len(answers.predictions(lesson)) == len(answers.asked_to_predict(lesson))
    assert ('open' in workshop.notes(lesson)) == (lesson.number > 0)


@pytest.mark.parametrize('lesson', EACH)
def test_a_stretch_is_found_by_what_stands_in_the_notebook(lesson):
    shown = '\n'.join(course.told_cells(lesson))
    for part in list(workshop.stretches(lesson).values())[1:]:
        assert part.title in shown or part.title == 'Exercises', part.title


def numbers(text):
    "The numbers of a text, with how many digits stand behind the point."
    text = re.sub(r'(?<=\d),(?=\d{3})', '', text)
    found = re.findall(r'(?<![\w.])-?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?', text)
    return [(float(n), len(n.partition('.')[2]) if 'e' not in n else None) for n in found]


def seen_after(cells, asked):
    "All numbers that a learner sees in the cell that asks and in the twelve behind it."
    (k,) = [i for i, c in enumerate(cells) if copies.source_of(c) == asked]
    text = []
    for cell in cells[k : k + 13]:
        text.append(copies.source_of(cell))
        for output in cell.get('outputs', []):
            text.append(''.join(output.get('text', output.get('data', {}).get('text/plain', ''))))
    return [value for value, _ in numbers('\n'.join(text))]


@pytest.mark.parametrize('lesson', EACH)
def test_numbers_in_an_answer_stand_in_the_lesson(lesson):
    cells = nb.load(course.book(lesson))['cells']
    for (ask, answer), asked in zip(answers.predictions(lesson), answers.asked_to_predict(lesson)):
        seen = seen_after(cells, asked)
        for value, digits in numbers(answer):
            near = [v for v in seen for v in (v, 100 * v) if digits is None or round(v, digits) == value]
            assert value in seen or near, f'{ask}: {value} does not stand behind it'


@pytest.mark.parametrize('lesson', EACH[1:])
def test_what_an_open_exercise_printed_belongs_to_its_code(lesson):
    kept = answers.stored()[lesson.slug]
    code = workshop.notes(lesson)['open']['code']
    assert kept['of'] == answers.digest(code), f'run: python tools/answers.py run {lesson.slug}'
    assert kept['printed'].strip()


@pytest.mark.rare
@pytest.mark.parametrize('lesson', EACH[1:])
def test_the_answer_to_an_open_exercise_runs(lesson):
    assert answers.run_open(lesson).count('\n') == answers.stored()[lesson.slug]['printed'].count('\n')


@pytest.mark.parametrize('lesson', EACH)
def test_every_task_stands_on_the_answer_sheet(lesson):
    rows = answers.tasks(lesson)
    assert [(r['task'], r['grade']) for r in rows] == course.tasks(lesson)
    wrong = answers.wrong_answers(lesson)
    for row in rows:
        assert row['text'] and 'Hint' not in row['text']
        if row['grade'] != 'open':
            compile(row['solution'].replace('return', 'pass #'), row['check'], 'exec')
            assert len(wrong[row['check'].split('.')[1]]) >= 3


# ---- pages


PAGES = sorted(FOLDER.glob('*.md'))
LINKS = re.compile(r'\]\((?!https?:|LINK)([^)#\s]+)')


@pytest.mark.parametrize('path', PAGES, ids=lambda p: p.name)
def test_links_of_a_page_lead_somewhere(path):
    links = set(LINKS.findall(path.read_text(encoding='utf-8')))
    assert [l for l in links if not (path.parent / l).exists()] == []


def test_the_first_page_leads_to_all_others():
    links = set(LINKS.findall((FOLDER / 'index.md').read_text(encoding='utf-8')))
    assert {p.name for p in PAGES} - {'index.md'} <= links


def test_the_form_asks_about_every_lesson():
    rows = re.findall(
        r'^\| (?:(\d+) )?([^|]+) \| ☐', (FOLDER / 'feedback.md').read_text(encoding='utf-8'), re.M
    )
    assert [int(n or 0) for n, _ in rows] == [l.number for l in LESSONS]
    assert all(l.title.startswith(name) for (_, name), l in zip(rows, LESSONS))


# ---- projects

PROJECTS = 'Own labels on a scene', 'What changed', "Audit of a model's answers"
SHORTER = (  # what a test may leave out
    (r'--steps \d+', '--steps 2'),
    (r'--limit \d+', '--limit 4'),
    (r'(survey runs/mine .*)', r'\1 --size 320'),
)


def blocks(title):
    "(kind, text) of the blocks of code of a project."
    text = (FOLDER / 'projects.md').read_text(encoding='utf-8')
    (part,) = [part for part in re.split(r'^## ', text, flags=re.M) if part.startswith(title)]
    return re.findall(r'^```(\w+)\n(.*?)^```', part, re.S | re.M)


def run_block(kind, text, folder):
    "A block of a project as a person would use it; what a command printed is no command."
    if kind == 'python':
        call([sys.executable, '-c', text], folder)
    elif text.startswith('earthgpt-lite '):
        for pattern, short in SHORTER:
            text = re.sub(pattern, short, text)
        for line in text.splitlines():
            call([Path(sys.executable).parent / 'earthgpt-lite', *shlex.split(line)[1:]], folder)
    elif re.fullmatch(r'(?:[wmscfh]{12}\n){12}', text):
        (folder / 'labels.txt').write_text(text)


def call(command, folder):
    env = os.environ | dict(PYTHONPATH=str(ROOT))
    done = subprocess.run(list(map(str, command)), cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f'{command}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}'


@pytest.mark.parametrize('title', PROJECTS)
def test_commands_of_a_project_are_commands(title):
    "They parse, and there is something to run in each."
    commands = [
        line
        for kind, text in blocks(title)
        for line in text.splitlines()
        if line.startswith('earthgpt-lite ')
    ]
    assert len(commands) >= 3 and any(kind == 'python' for kind, _ in blocks(title))
    for line in commands:
        words = shlex.split(line)[1:]
        if words[0] != 'train':  # which reads its options itself
            make_parser().parse_args(words)


@pytest.mark.slow
@pytest.mark.parametrize('title', PROJECTS)
def test_a_project_runs_as_it_is_written(title, tmp_path):
    for kind, text in blocks(title):
        run_block(kind, text, tmp_path)
    assert len(list(tmp_path.iterdir())) >= 4  # what the blocks say that they write


# ---- slides


REQUEST = re.compile(
    r'(?:src|href|action)="(?!data:|[\w]+\.html"|#)([^"]*)"|url\((?!data:)([^)]*)\)|@import|https?://'
)
NAMES = re.compile(r'xmlns(?::\w+)?="[^"]*"')


def asked_of_others(page):
    return [m[0] for m in REQUEST.finditer(NAMES.sub('', page))]


@pytest.mark.parametrize('lesson', [LESSONS[0], LESSONS[7]], ids=lambda l: l.slug)
def test_slides_hold_everything_inside(lesson):
    page = slides.deck(lesson)
    assert asked_of_others(page) == []
    made = slides.slides(lesson)
    titles = [title for title, _ in made]
    assert titles[0] == lesson.title and page.count('<section>') == len(made)
    assert [t.split(' (')[0] for t in titles[-len(course.tasks(lesson)) :]] == [
        t for t, _ in course.tasks(lesson)
    ]
    assert 'SOLUTION' not in page and 'Hint 1' not in page and '<img' in page
    assert '<math' in page or lesson.slug == 'first_look'


@pytest.mark.parametrize('lesson', EACH)
def test_slides_name_cells_that_are_there(lesson):
    "Few: what is chosen is a handful."
    cells, chosen = nb.load(course.book(lesson))['cells'], workshop.notes(lesson)['slides']
    assert 3 <= len(chosen) <= 7
    for what in (w for row in chosen for w in row['show']):
        ((kind, begin),) = what.items()
        cell = cells[workshop.find_cell(cells, begin)]
        assert kind in slides.KINDS and (cell['cell_type'] == 'markdown') == (kind == 'text')


@pytest.mark.slow
@pytest.mark.skipif(CHROME is None, reason='Chromium is missing (Debian: apt-get install chromium)')
def test_slides_fit_a_screen_without_a_network(tmp_path):
    "Nothing is cut off at 1280 x 720, no picture is broken, a key turns them, and nothing is asked of anybody."
    sync = pytest.importorskip('playwright.sync_api').sync_playwright
    made = slides.write_slides(tmp_path)
    assert all(asked_of_others(path.read_text(encoding='utf-8')) == [] for path in made)
    with sync() as play:
        browser = play.chromium.launch(executable_path=CHROME, args=['--no-sandbox'])
        page = browser.new_page(viewport=dict(width=1280, height=720))
        asked = []
        page.on('request', lambda request: asked.append(request.url))
        for path in made:
            page.goto(path.as_uri())
            assert page.evaluate(OVERFLOW) == [], path.name
            assert page.evaluate('[...document.images].every(i => i.naturalWidth > 0)')
        page.goto(made[1].as_uri())
        page.keyboard.press('ArrowRight')
        page.wait_for_function('Math.round(scrollY / innerHeight) === 1')
        browser.close()
    assert all(url.startswith(('file:', 'data:')) for url in asked)


OVERFLOW = """[...document.querySelectorAll('section')].flatMap((s, k) => {
  const inside = s.querySelector('.inside');
  const cut = inside && (inside.scrollHeight > inside.clientHeight + 1 || inside.scrollWidth > inside.clientWidth + 1);
  return cut || s.scrollHeight > s.clientHeight + 1 ? [k + 1] : [];
})"""


# ---- the image

DOCKER = ROOT / 'tools/docker'


def dockerfile():
    "Its instructions: (name, the rest), lines joined, comments left out."
    text = (DOCKER / 'Dockerfile').read_text(encoding='utf-8').replace('\\\n', ' ')
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith('#')]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def test_what_the_image_copies_is_there():
    for name, rest in dockerfile():
        if name == 'COPY':
            sources = [word for word in rest.split()[:-1] if not word.startswith('--')]
            assert [s for s in sources if not (ROOT / s).exists()] == []


def test_the_image_takes_a_python_that_is_tested():
    (base,) = [rest for name, rest in dockerfile() if name == 'FROM']
    flow = yaml.safe_load((ROOT / '.github/workflows/tests.yml').read_text(encoding='utf-8'))
    assert re.match(r'python:([\d.]+)-slim', base)[1] in flow['jobs']['tests']['strategy']['matrix']['python']


@pytest.mark.unix
def test_the_start_script_copies_lessons_once(tmp_path):
    source, home = tmp_path / 'course', tmp_path / 'home'
    source.mkdir()
    (source / '00_first_look.ipynb').write_text('{"ours": 1}')
    env = os.environ | dict(HOME=str(home), COURSE=str(source))
    start = lambda *words: (
        subprocess.run(
            ['sh', DOCKER / 'start.sh', *words], env=env, check=True, capture_output=True, text=True
        ).stdout
    )
    assert start('echo', 'a b') == 'a b\n'
    copy = home / 'course/00_first_look.ipynb'
    assert json.loads(copy.read_text()) == dict(ours=1)
    copy.write_text('{"theirs": 2}')
    (source / '01_chips.ipynb').write_text('{}')
    start('true')
    assert json.loads(copy.read_text()) == dict(theirs=2) and (home / 'course/01_chips.ipynb').exists()


def index_of_pip():
    done = subprocess.run(
        [sys.executable, '-m', 'pip', 'config', 'get', 'global.index-url'], capture_output=True, text=True
    )
    return done.stdout.strip() or 'https://pypi.org/simple'


@pytest.mark.rare
@pytest.mark.unix
def test_the_lines_of_the_image_run_in_a_bare_folder(tmp_path):
    "COPY and RUN as the file says, in an empty environment; what only root can do is left out. Asks the package index."
    place, env = tmp_path / 'image', tmp_path / 'env'
    place.mkdir()
    subprocess.run([sys.executable, '-m', 'venv', str(env)], check=True)
    args = {n: v for name, rest in dockerfile() if name == 'ARG' for n, _, v in [rest.partition('=')]}
    variables = os.environ | args | dict(TORCH_INDEX=index_of_pip(), PYTHONPATH='', HF_HUB_OFFLINE='1')
    variables |= dict(PATH=f'{env}/bin{os.pathsep}{os.environ["PATH"]}', VIRTUAL_ENV=str(env))
    ran = []
    for name, rest in dockerfile():
        if name == 'COPY' and '--chmod' not in rest:
            *sources, _ = rest.split()
            for source in sources:
                copy = shutil.copytree if (ROOT / source).is_dir() else shutil.copy
                copy(ROOT / source, place / source)
        if name == 'RUN' and not rest.startswith('useradd'):
            command = rest.replace('/opt/course', str(tmp_path / 'course'))
            done = subprocess.run(
                command, shell=True, cwd=place, env=variables, capture_output=True, text=True
            )
            if 'No matching distribution' in done.stderr or 'Could not fetch URL' in done.stderr:
                pytest.skip('not run, for want of a package index')
            assert done.returncode == 0, f'{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}'
            ran.append(command)
    assert len(ran) == 4 and len(list((tmp_path / 'course').glob('*.ipynb'))) == len(LESSONS)
    said = subprocess.run(
        [env / 'bin/jupyterhub-singleuser', '--version'], env=variables, capture_output=True
    )
    assert said.returncode == 0
