"""The pages that are made: the tables of the front page, docs/results.md, docs/lessons.md, docs/glossary.md and of the workshop.

python tools/pages.py            # write the tables into index.ipynb, the pages, and the picture of the parts
"""

import json
import re
from functools import partial
from pathlib import Path

import answers
import course
import nb
import workshop

from earthgpt_lite.course.contents import LESSONS
from earthgpt_lite.course.measure import read_times, times_rows
from earthgpt_lite.eval.report import results_markdown
from earthgpt_lite.eval.shift import shift_table
from earthgpt_lite.files import write_whole

ROOT = Path(__file__).resolve().parent.parent
PARTS = dict(
    raster='files, URLs and arrays become a `Scene`, a `Scene` becomes the `Chip` that a model sees',
    boxes='boxes in words, overlap, angles, tiles',
    data='records, stores, readers of some sixty data sets and forms, and the sample in the package',
    model='tokens, two encoders, a projector, a language model; presets and real weights',
    train='stages, adapters, batches, Lightning, checkpoints, runs from a file',
    eval='scores of the field with intervals and baselines, one report page',
    app='assistant, survey, maps, studio, command line',
    course='what stands behind the lessons: who checks the blanks, copies for learners, progress',
)
TASKS = {  # one number a task: metric, and what it is called
    'presence': ('accuracy', 'is there any ...?'),
    'comparison': ('accuracy', 'more ... than ...?'),
    'classification': ('accuracy', 'what covers most?'),
    'vqa': ('accuracy', 'more than n trees?'),
    'counting': ('accuracy', 'how many trees?'),
    'caption': ('CIDEr', 'describe'),
    'region_caption': ('CIDEr', 'what is in this box?'),
    'grounding': ('Pr@0.5', 'where is the island?'),
    'detection': ('F1', 'find all trees'),
}


def load(name):
    "Measured results, which travel with the package"
    return json.loads((ROOT / 'earthgpt_lite/assets/results' / name).read_text(encoding='utf-8'))


def table(head, rows, right=()):
    "A Markdown table; columns named in `right` are aligned to the right"
    rule = ['---:' if h in right else '---' for h in head]
    return '\n'.join('| ' + ' | '.join(map(str, row)) + ' |' for row in [head, rule, *rows])


# ---- lessons


def head(path):
    "Title, what is built, and minutes, out of the first cell of a notebook"
    text = ''.join(nb.load(path)['cells'][0]['source'])
    found = []
    for pattern in (r'^# (.+)', r'^\*\*You will build\*\*\s*(.+)', r'\*\*Time\*\* (\d+)'):
        m = re.search(pattern, text, re.M)
        if not m:
            raise ValueError(f'{path}: its first cell has nothing like {pattern!r}')
        words = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', m[1])  # a link would lead astray from here
        found.append(words.strip().rstrip('.'))
    return found


def book(name):
    return ROOT / 'nbs' / f'{name}.ipynb'


def course_table(base='nbs'):
    "Thirteen rows: the lessons of the course with their minutes"
    rows = []
    for lesson in LESSONS:
        link = f'[{lesson.title}]({base}/{lesson.notebook}.ipynb)'
        rows.append((lesson.number or '', link, head(book(lesson.notebook))[2]))
    return table(['', 'lesson', 'minutes'], rows, ['minutes'])


def parts_table(base='nbs'):
    rows = [
        (f'[`{name}`]({base}/{k}_{name})', what, len(list((ROOT / f'nbs/{k}_{name}').glob('[0-9]*.ipynb'))))
        for k, (name, what) in enumerate(PARTS.items(), 1)
    ]
    return table(['part', 'what', 'notebooks'], rows, ['notebooks'])


TAKEN = (
    f'Reading is counted at {course.PACE} words a minute, running as it was measured on two CPU cores, '
    'a blank or an exercise at 5, 10 or 20 minutes: easy, medium, open. Each head is rounded to whole minutes, the sum once.'
)


COPIES = """For those who learn and those who teach, in a clone of the repository:

- `make student` writes `student/`, the lessons without solutions. Run again after an update, it renews our cells and keeps
  all that was written into a copy. A copy runs wherever the package is installed.
- `make solutions` writes `solutions/`, the same lessons solved.
- `make nbgrader` writes `nbgrader/`, assignments for nbgrader (`pip install "earthgpt-lite[grading]"`).
- `earthgpt-lite course progress FOLDER` reads saved copies, of one person or of a folder for each, and shows who has solved
  what; `--out class.html` draws it.
"""


def lessons_page():
    lines = ['# All notebooks', '', 'The course, in its order:', '', course_table('../nbs'), '']
    lines += [f'{course.course_time_text()} {TAKEN} Its terms stand in the [glossary](glossary.md).', '']
    lines += [COPIES]
    lines += ['And every notebook, part by part. A part uses only what stands above it.', '']
    groups = {'errors': sorted((ROOT / 'nbs').glob('[0-9]*.ipynb'))}
    groups |= {n: sorted((ROOT / f'nbs/{k}_{n}').glob('[0-9]*.ipynb')) for k, n in enumerate(PARTS, 1)}
    for name, paths in groups.items():
        if name in PARTS:
            lines += [f'## {name}', '', f'{PARTS[name][0].upper()}{PARTS[name][1:]}.', '']
        rows = []
        for path in paths:
            title, built, minutes = head(path)
            link = path.relative_to(ROOT).as_posix()
            rows.append((path.name.split('_')[0], f'[{title}](../{link})', built, minutes))
        lines += [table(['', 'notebook', 'you will build', 'minutes'], rows, ['minutes']), '']
    return '\n'.join([*lines, '*This page is written by `tools/pages.py`.*', ''])


# ---- time and memory


MEASURED = """Time from the start of the kernel or program to its end, and the most memory that it held with all processes it
started. Each lesson runs as a notebook, alone in an empty folder; of the scenes of the package, the commands take the one
from Sentinel-2. On the machine at hand, one command measures all of it and fills its column:

```sh
earthgpt-lite course measure --out times.json
```"""


def times_page():
    times = read_times()
    head, *rows = times_rows(times)
    parts = ['# Time and memory', MEASURED, table(head, rows, head[1:])]
    for column, about in times.items():
        days = sorted({row['date'] for row in about['rows'].values()} - {None})
        when = f', {" to ".join(dict.fromkeys([days[0], days[-1]]))}' if days else ''
        parts.append(f'{column}: {about["machine"]}, earthgpt-lite {about["version"]}{when}.')
    return '\n\n'.join([*parts, '*This page is written by `tools/pages.py`.*']) + '\n'


# ---- results


def best_baseline(row):
    names = [n for n in ('prior', 'shuffled', 'blind') if row.get(n) is not None]
    return max((row[n] for n in names), default=None)


def small_results():
    "One number a task on optical test places, with the best of the three baselines"
    rows = []
    for task, (metric, question) in TASKS.items():
        for row in load('nano.json')['test']['results']:
            if (row['task'], row['metric'], row['sensor']) == (task, metric, 'optical'):
                figures = f'{row["score"]:.2f}', f'{best_baseline(row):.2f}'
                rows.append((task.replace('_', ' '), question, metric, f'{row["n"]:,}', *figures))
    right = ['n', 'nano', 'best baseline']
    return table(['task', 'question', 'score', 'n', 'nano', 'best baseline'], rows, right)


def listed(words):
    words = list(words)
    return ' and '.join(words) if len(words) < 3 else ', '.join(words[:-1]) + ' and ' + words[-1]


def run_facts(run):
    train = run['train']
    versions = ', '.join(f'{k} {v}' for k, v in run['versions'].items())
    return (
        f"{train['date']}, {run['machine']}. Asked to train for {train['minutes']:g} minutes; training with "
        f"everything around it took {train['seconds'] / 60:.1f}. {train['parameters'] / 1e6:.1f} million "
        f"parameters, {train['images']:,} pictures shown with {train['pairs']:,} pairs of question and answer, "
        f"peak memory {train['peak_memory_mb'] / 1e3:.1f} GB. Data: {train['data']}. Versions: {versions}."
    )


READING = """How to read it. No pixel of a test picture was trained on: the ground is split by place. Questions with
*yes* and *no* are balanced within every wording. The interval is 95 %, drawn over places, not over single questions.
Three ways to score without looking stand beside each score:

- **prior**: the most frequent training answer to the same question; for boxes, the best constant box;
- **shuffled**: the same model, shown a wrong picture;
- **blind**: the same model, shown no picture.

A row is *ahead* if its whole interval is better than the best of the three. Where several sources of data with 100
answers or more make up a row, this must hold for one of them by itself as well: in each source another of the three
may be strong, and in the mix all are weak. A score near *shuffled* was reached without looking at the picture,
however high it is.

These numbers say how well a very small model learns a small world. They cannot be compared with those of the paper,
which are about other data."""


NEW = dict(
    words=(
        'Other words',
        'Each test question in the ten held-out wordings of the half `test`: long, terse, in capitals, polite, '
        'indirect, without a question mark, with a typing slip.',
    ),
    renderings=(
        'Other brightness',
        'The test questions about the same pictures in the held-out brightness of the half `test`: percentiles, darker, '
        'brighter or of another calibration, hazier or flatter, another colour balance.',
    ),
)
NEW_HOW = (
    '*new* is the mean over the versions, *worst* the worst of them; the interval of the change is 95 %, drawn over '
    'places and versions. Score of a task: accuracy; CIDEr of captions; Pr@0.5 of one box; F1 of all.'
)
NEW_PLACES = (
    'One model for each place, trained as this one but without the place, and asked on its held-out ground what other '
    'places teach; tasks with at least 200 such questions.'
)


def new_markdown(new):
    "What is new to a model, as `release_nano.py` measured it, for its card and for the page"
    parts = []
    for kind, (title, about) in NEW.items():
        if kind in new:
            words = [f'**{title}.**', about, new[kind].get('drawn', ''), '' if parts else NEW_HOW]
            parts += [' '.join(filter(None, words)), shift_table(new[kind]['rows'])]
    if 'places' in new:
        parts += [f'**Other places.** {NEW_PLACES}', results_markdown(new['places']['rows'])]
    return '\n\n'.join(parts)


PAIRS = """By `benchmarks/change.py`, told in [benchmarks](benchmarks.md). *Other pair*: shown the pictures of another
pair; *grey*: one of the two covered. *either*: did it change at all; *new*, *gone*: which way; *second*: by the order of
the pictures. *swapped*: the pictures in the other order; *same twice*: one picture in both places, where *no* is right."""
LOSS = """Real forest loss in Sabah, by radar: five folds, each block tested once by a nano that had seen nothing of it; the interval is drawn over blocks:"""


def results_page():
    run, nano = load('quickstart.json'), load('nano.json')
    train = nano['train']
    about = (
        f"{train['date']}, {train['machine']}: {train['steps']:,} steps in {train['seconds'] / 60:.0f} minutes, "
        f"{train['images']:,} pictures shown with {train['pairs']:,} pairs of question and answer."
    )
    parts = ['# Results', READING, '## The trained nano in the package', about]
    for title, split in (
        ('Test places', 'test'),
        ('Validation places, on which choices were made', 'validation'),
    ):
        found = nano[split]
        parts += [f'{title}:', results_markdown(found['results'], found.get('sources', ()))]
    if 'new' in nano:
        parts += ['### What is new to it', new_markdown(nano['new'])]
    parts += ['## One quickstart', run_facts(run)]
    tables = dict(
        test='Test places, which no choice was made on',
        test_sources='Test places by source',
        results='Validation places',
        sources='Validation places by source',
    )
    by_source = dict(test='test_sources', results='sources')
    for key, title in tables.items():
        if key in run:
            parts += [f'{title}:', results_markdown(run[key], run.get(by_source.get(key), ()))]
    parts += pair_parts()
    return '\n\n'.join([*parts, '*This page is written by `tools/pages.py`.*']) + '\n'


# ---- two pictures in one question

_SIGHTS = dict(  # in change.json, and what it is called
    prior='prior',
    shuffled='other pair',
    before_hidden='before grey',
    after_hidden='after grey',
    first_hidden='optical grey',
    last_hidden='thermal grey',
)


def pair_table(rows):
    "Accuracy of questions about pairs, each with what is right without the pair"
    sights = [name for name in _SIGHTS if any(name in row for row in rows.values())]
    right = ['n', 'right', '95 % interval', *map(_SIGHTS.get, sights)]
    lines = []
    for name, row in rows.items():
        low, high = row['interval']
        others = [f'{row[s]["score"]:.3f}' if s in row else '' for s in sights]
        lines.append((name, f'{row["n"]:,}', f'{row["score"]:.3f}', f'{low:.3f} to {high:.3f}', *others))
    return table(['questions', *right], lines, right)


def pair_boxes(row):
    "One line on boxes around what changed"
    said = []
    for metric in ('meanIoU', 'Pr@0.5'):
        own = row[metric]
        low, high = own['interval']
        rivals = ', '.join(f'{_SIGHTS[s]} {own[s]:.3f}' for s in _SIGHTS if s in own)
        said.append(f'{metric} {own["score"]:.3f} ({low:.3f} to {high:.3f}; {rivals})')
    return f'Where it happened, {row["n"]:,} boxes: {"; ".join(said)}.'


def pair_parts():
    "The tables of `benchmarks/change.py`"
    found = load('change.json')
    parts = ['## Two pictures in one question', PAIRS]
    for split, title in (('test', 'Test places'), ('validation', 'Validation places')):
        painted = found['synthetic'][split]
        parts += [
            f'Painted changes, {title.lower()}:',
            pair_table({k: v for k, v in painted.items() if 'score' in v}),
        ]
        parts.append(pair_boxes(painted['where']))
    lost = found['loss']['test']
    parts += [LOSS, pair_table({k: v for k, v in lost.items() if 'score' in v}), pair_boxes(lost['where'])]
    for split, title in (('test', 'test places'), ('validation', 'validation places')):
        parts += [f'Two sensors, {title}:', pair_table(found['sensors'][split])]
    return parts


# ---- the picture of the parts


INSIDE = dict(
    raster='chips, bands,\nreading,\nradiometry,\ngeoref',
    boxes='iou, text,\noriented,\ntiles',
    data='records, store,\nformats,\nregistry, convert;\nsample',
    model='tokens, packing,\nvision, projector,\nlanguage,\nmodeling, generation',
    train='stages, adapters,\ndataset, module, run',
    eval='captions, detections,\nstatistics, score',
    app='assistant,\nsurvey, maps,\nstudio, cli',
)
SPOTS = dict(  # middle, width, height
    raster=(9, 10, 15, 15),
    boxes=(26, 10, 13, 15),
    data=(43, 10, 15, 15),
    model=(61.5, 10, 18, 15),
    train=(83, 15.5, 20, 8),
    eval=(83, 4.5, 20, 8),
    app=(103, 10, 13, 15),
)


def parts_picture(path):
    "Seven boxes from left to right; an arrow says who may import whom"
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyBboxPatch

    fig, ax = plt.subplots(figsize=(10, 2.3), dpi=130)
    ax.set(xlim=(0, 111), ylim=(-3, 20.5))
    ax.axis('off')
    style = dict(boxstyle='round,pad=0,rounding_size=1', fc='#eef3f8', ec='#7b8fa6')
    for name, (x, y, w, h) in SPOTS.items():
        ax.add_patch(FancyBboxPatch((x - w / 2, y - h / 2), w, h, **style))
        ax.text(x, y + h / 2 - 1.7, name, ha='center', va='center', size=10, weight='bold')
        ax.text(x, y - 1.2, INSIDE[name], ha='center', va='center', size=7.5, color='#333333')
    arrow = dict(arrowstyle='-|>', color='#555555', shrinkA=0, shrinkB=0)
    for (x1, y1), (x2, y2) in (
        ((16.5, 10), (19.5, 10)),
        ((32.5, 10), (35.5, 10)),
        ((50.5, 10), (52.5, 10)),
        ((70.5, 12), (73, 15.5)),
        ((70.5, 8), (73, 4.5)),
        ((93, 15.5), (96.5, 12)),
        ((93, 4.5), (96.5, 8)),
    ):
        ax.annotate('', (x1, y1), (x2, y2), arrowprops=arrow)
    ax.text(
        55,
        -1.5,
        'errors lies below them all, course behind them. An arrow points at what a part may import; whatever lies further '
        'left is open too.',
        ha='center',
        va='center',
        size=8,
        color='#555555',
    )
    fig.savefig(path, bbox_inches='tight', metadata={'Software': None})
    plt.close(fig)


# ---- what is written


# cell of the front page -> what makes it
TABLES = dict(ea7d4ec6=course_table, ad8e5507=parts_table, c7b4a05e=small_results)
PAGES = {
    'docs/results.md': results_page,
    'docs/lessons.md': lessons_page,
    'docs/glossary.md': course.glossary_page,
    'docs/workshop/times.md': times_page,
    **{f'docs/workshop/{name}.md': partial(workshop.plan_page, name) for name in workshop.PLANS},
    'docs/workshop/answers.md': answers.answers_page,
}


def front_page():
    "index.ipynb with the tables of today"
    index = nb.load(ROOT / 'index.ipynb')
    for cell in index['cells']:
        if make := TABLES.get(cell['id']):
            cell['source'] = make().splitlines(True)
    return index


if __name__ == '__main__':
    nb.dump(front_page(), ROOT / 'index.ipynb')
    for name, make in PAGES.items():
        write_whole(ROOT / name, make())
        print(name)
    parts_picture(ROOT / 'docs/img/parts.png')
