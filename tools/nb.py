"""Small notebook tools. nbdev exports the modules; these do the rest.

python tools/nb.py readme  index.ipynb README.md    # the front page from its notebook; pictures go to docs/img/<cell id>.png
python tools/nb.py student SRC.ipynb DST.ipynb      # solutions out, outputs out, stubs in; keeps what a learner wrote into DST
python tools/nb.py copies  WAY FOLDER               # of all lessons of the course: WAY is student, solutions or nbgrader
python tools/nb.py check   NB...                    # markers balanced, import cells pure, no stored error, no path of this machine
python tools/nb.py stamp   NB...                    # write the link to Colab and the install cell of this version
python tools/nb.py clean   NB...                    # drop execution counts, metadata, widget state and stderr; keep the outputs
python tools/nb.py run     NB...                    # execute top to bottom in the notebook's folder, store the cleaned outputs
"""

import ast
import base64
import copy
import json
import os
import re
import shutil
import sys
import time
from configparser import ConfigParser
from pathlib import Path

# `make student` and `make readme` need no environment: the package of this clone, which is plain Python so far
sys.path.append(str(Path(__file__).resolve().parent.parent))
from earthgpt_lite.course import copies as course_copies
from earthgpt_lite.course.copies import BEGIN, DIRECTIVE, END, KERNEL
from earthgpt_lite.errors import BadInput
from earthgpt_lite.files import write_whole

ROOT = Path(__file__).resolve().parent.parent
# what a copy of the repository does without
LEFT_OUT = shutil.ignore_patterns(
    '.git',
    '.venv',
    '.*_cache',
    '__pycache__',
    '.ipynb_checkpoints',
    'runs',
    'build',
    'dist',
    'figures',
    'student',
    'solutions',
    'nbgrader',
    '*.egg-info',
)
# a cell that does what a library gives up fails
OUTDATED = 'DeprecationWarning', 'PendingDeprecationWarning', 'FutureWarning'


def load(path):
    return json.loads(Path(path).read_text(encoding='utf-8'))


def lines(cell):
    return ''.join(cell['source']).splitlines(True)


def is_slow(path):
    return bool(re.search(r'^\*\*Slow\*\*', ''.join(load(path)['cells'][0]['source']), re.M))


def notebooks(root=ROOT):
    "The front page and all notebooks, part by part"
    return [
        p
        for p in [Path(root) / 'index.ipynb', *sorted((Path(root) / 'nbs').rglob('[0-9]*.ipynb'))]
        if p.exists()
    ]


def short(path, root=ROOT):
    "A notebook in a few words: '4_model/05_vision'"
    return Path(path).relative_to(root).with_suffix('').as_posix().removeprefix('nbs/')


def dump(nb, path):
    write_whole(path, json.dumps(nb, indent=1, ensure_ascii=False) + '\n')


def split(cell):
    "The directives of a cell and its remaining lines"
    ls, directives = lines(cell), {}
    while ls and (m := DIRECTIVE.match(ls[0])):
        directives[m[1]] = m[2].strip()
        ls.pop(0)
    return directives, ls


# ---- the front page


def picture(cell, k, data, alt, folder):
    "Save one picture of a cell beside the page and return the link to it"
    name = f"docs/img/{cell['id']}{f'-{k}' if k else ''}.png"
    write_whole(folder / name, base64.b64decode(''.join(data)))
    return f'![{alt}]({name})'


def shown(cell, directives, folder):
    "The outputs of a cell as Markdown blocks"
    k = 0
    for o in cell['outputs']:
        data = o.get('data', {})
        if 'image/png' in data:
            yield picture(cell, k, data['image/png'], directives.get('fig-alt', 'figure'), folder)
            k += 1
        elif 'text/markdown' in data:
            yield ''.join(data['text/markdown']).strip()
        elif text := ''.join(o.get('text', data.get('text/plain', []))).rstrip():
            yield f'```text\n{text}\n```'


def readme(src, dst):
    "Markdown from a notebook: `#| hide` drops a cell, `#| echo: false` its code; `#| fig-alt:` names its picture"
    out = [f'<!-- made from {Path(src).name} by `make readme`: edit the notebook, not this file -->']
    for c in load(src)['cells']:
        directives, ls = split(c)
        text = ''.join(ls).strip()
        if not text or 'hide' in directives or directives.get('include') == 'false':
            continue
        if c['cell_type'] != 'code':
            out.append(text)
            continue
        if directives.get('echo') != 'false':
            out.append(f'```python\n{text}\n```')
        out += shown(c, directives, Path(dst).resolve().parent)
    write_whole(dst, '\n\n'.join(out) + '\n')


# ---- copies for those who learn


def home(root=ROOT):
    "The address of nbs/ in the repository, at the tag of this version"
    about = settings(root)
    return f'{about["git_url"]}/blob/v{about["version"]}/nbs'


def student(src, dst):
    "One notebook without its solutions; what a learner wrote into `dst` stays"
    place = short(Path(src).resolve())
    cells = course_copies.plain_cells(load(src), place, home())
    dump(course_copies.with_learners(dst, course_copies.student_copy(cells)), dst)


def copies(way, folder):
    "Copies of all lessons of the course"
    written = course_copies.make_copies(ROOT / 'nbs', folder, way, home())
    print(f'{folder}: {len(written)} notebooks written, all others as they were')


# ---- what a notebook brings that is opened alone


INSTALL = '''#| hide
# does nothing where the package is installed
try:
    import {module}
except ImportError:
    %pip install -q "{package}=={version}"'''
COLAB_LINK = '[Open in Colab]({link})'  # words: a picture of it would be asked of the network
COLAB = 'https://colab.research.google.com/github'


def settings(root=ROOT):
    found = ConfigParser(delimiters=['='])
    found.read(Path(root) / 'settings.ini', encoding='utf-8')
    return found['DEFAULT']


def extras(nb):
    "The extras that the head of a notebook names, as in `earthgpt-lite[lora]`"
    named = re.findall(r'earthgpt-lite\[([\w,]+)\]', ''.join(nb['cells'][0]['source']))
    return sorted({e for names in named for e in names.split(',')})


def install_cell(nb, about):
    "The cell that installs the package of this version, with the extras of the lesson, where it is missing"
    named = f'[{",".join(extras(nb))}]' if extras(nb) else ''
    text = INSTALL.format(
        module=about['lib_path'], package=about['lib_name'] + named, version=about['version']
    )
    cell = dict(cell_type='code', execution_count=None, id='install', metadata={}, outputs=[])
    return cell | dict(source=text.splitlines(True))


def stamped(path, root=ROOT):
    "The notebook with the link to Colab below its title and the install cell before all other code"
    nb, about = load(path), settings(root)
    cells = [c for c in nb['cells'] if c['id'] != 'install']
    before = next(i for i, c in enumerate(cells) if c['cell_type'] == 'code')
    cells.insert(before, install_cell(nb, about))
    title = next(c for c in cells if c['cell_type'] == 'markdown')
    place = Path(path).resolve().relative_to(Path(root).resolve()).as_posix()
    repository = about['git_url'].removeprefix('https://github.com/')
    link = COLAB_LINK.format(link=f'{COLAB}/{repository}/blob/v{about["version"]}/{place}')
    text = re.sub(r'^\[Open in Colab\].*\n*', '', ''.join(lines(title)), flags=re.M)
    first, _, rest = text.partition('\n')
    title['source'] = f'{first}\n\n{link}\n\n{rest.lstrip()}'.rstrip().splitlines(True)
    return nb | dict(cells=cells)


def stamp(*paths):
    for p in paths:
        if load(p) != (new := stamped(p)):
            dump(new, p)
            print('stamped', p)


# ---- checks


def impure(cell):
    "True where imports share a cell with other code"
    directives, rest = split(cell)
    try:
        body = ast.parse(''.join(rest)).body
    except SyntaxError:
        return False  # a magic
    imports = [isinstance(n, (ast.Import, ast.ImportFrom)) for n in body]
    return any(imports) and not all(imports) and 'hide' not in directives


LINK = re.compile(r'\]\((?!https?:|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)')


def left_behind(path, cell):
    "Files that a cell links to and that do not travel: neither notebooks nor attachments; the front page stays at home"
    attached = [f'attachment:{name}' for name in cell.get('attachments', ())]
    links = [l for l in LINK.findall(''.join(cell['source'])) if not l.endswith('.ipynb')]
    return [l for l in links if l not in attached and Path(path).name != 'index.ipynb']


def faults(path):
    "What is wrong with a notebook as it is stored, one sentence each"
    for i, c in enumerate(load(path)['cells']):
        ls, where = lines(c), f'{Path(path).name} cell {i}'
        if c['cell_type'] == 'markdown':
            for link in left_behind(path, c):
                yield f'{where}: a link to {link}, which a notebook that is opened alone has not: attach it'
        b, e = sum(bool(BEGIN.match(l)) for l in ls), sum(bool(END.match(l)) for l in ls)
        if b != e:
            yield f'{where}: {b} BEGIN SOLUTION, {e} END SOLUTION'
        if c['cell_type'] != 'code':
            continue
        if any(o['output_type'] == 'error' for o in c['outputs']):
            yield f'{where}: a stored error'
        if f'{ROOT}{os.sep}' in json.dumps([c['source'], c['outputs']]):
            yield f'{where}: a path of this machine'
        if impure(c):
            yield f'{where}: imports mixed with other code; give the imports a cell of their own'


def check(*paths):
    bad = [f for p in paths for f in faults(p)]
    print('\n'.join(bad) or f'{len(paths)} notebooks ok')
    return bool(bad)


# ---- cleaning and running


def joined(outputs):
    "Neighbouring prints as one stream; stderr dropped"
    res = []
    for o in outputs:
        if o.get('name') == 'stderr':
            continue
        if res and o['output_type'] == 'stream' == res[-1]['output_type']:
            res[-1]['text'] = ''.join(res[-1]['text']) + ''.join(o['text'])
        else:
            res.append(o)
    return res


def as_lines(x):
    return ''.join(x).splitlines(True)


def cleaned(nb):
    "The notebook without what changes from run to run"
    from nbdev.clean import clean_nb

    nb = copy.deepcopy(nb)
    clean_nb(nb)
    nb['metadata'] = copy.deepcopy(KERNEL)
    for c in nb['cells']:
        c['source'] = as_lines(c['source'])
        if c['cell_type'] != 'code':
            continue
        c['outputs'] = joined(c['outputs'])
        for o in c['outputs']:
            if 'metadata' in o:
                o['metadata'] = {}
            if 'text' in o:
                o['text'] = as_lines(o['text'])
    return nb


def clean(*paths):
    for p in paths:
        if (nb := load(p)) != (new := cleaned(nb)):
            dump(new, p)
            print('cleaned', p)


def failures(nb):
    "Errors in the outputs of an executed notebook: raised, while drawing, in a widget's callback, in a thread"
    for i, c in enumerate(nb['cells']):
        for o in c.get('outputs', []):
            if o['output_type'] == 'error':
                yield f"cell {i}: {o['ename']}: {o['evalue']}"
            if o.get('name') == 'stderr' and 'Traceback' in o['text']:
                yield f"cell {i}: {o['text'][-2000:]}"
    state = (
        nb['metadata']
        .get('widgets', {})
        .get('application/vnd.jupyter.widget-state+json', {})
        .get('state', {})
    )
    for w in state.values():
        for o in w['state'].get('outputs', ()):
            if o['output_type'] == 'error':
                yield f"a widget's output: {o['ename']}: {o['evalue']}"


def execute(path, timeout=900, **env):
    "Run a notebook in its own folder with its own kernel; return it and the list of its failures"
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    nb, bad = nbformat.read(path, 4), []
    for c in nb.cells:
        if c.cell_type == 'code':
            c.outputs = []
    env = {
        **os.environ,
        'PATH': f'{Path(sys.executable).parent}{os.pathsep}{os.environ.get("PATH", "")}',
        **env,
    }
    env.pop('MPLBACKEND', None)  # a kernel draws inline
    env['PYTHONWARNINGS'] = ','.join(f'error::{kind}:__main__' for kind in OUTDATED)
    client = NotebookClient(
        nb,
        timeout=timeout,
        kernel_name='python3',
        resources={'metadata': {'path': str(Path(path).resolve().parent)}},
    )
    try:
        client.execute(env=env)
    except CellExecutionError:
        pass  # stored in the outputs
    except (CellTimeoutError, DeadKernelError) as e:
        bad.append(str(e))
    return nb, bad + list(failures(nb))


def run(*paths):
    from nbformat import writes

    for p in paths:
        start = time.time()
        nb, bad = execute(p)
        if bad:
            print(f'{p}: not stored\n' + '\n'.join(bad))
            return True
        new = cleaned(json.loads(writes(nb)))
        dump(new, p)
        words = sum(len(''.join(c['source']).split()) for c in new['cells'] if c['cell_type'] == 'markdown')
        print(
            f"{p}: {time.time() - start:.0f} s, {Path(p).stat().st_size / 1e3:.0f} kB, {len(new['cells'])} cells, {words} words"
        )


if __name__ == '__main__':
    commands = dict(
        readme=readme, student=student, copies=copies, check=check, stamp=stamp, clean=clean, run=run
    )
    if len(sys.argv) < 3 or sys.argv[1] not in commands:
        sys.exit(__doc__)
    try:
        sys.exit(commands[sys.argv[1]](*sys.argv[2:]))
    except BadInput as e:
        sys.exit(str(e))
