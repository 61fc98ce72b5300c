"""The site: front page, course, parts, how-to, reference, results; built by Sphinx from what is stored, without network.

python tools/make_site.py               # build/site/index.html
python tools/make_site.py --out DIR

Pages are copied beside each other as they lie in the repository, so that their links hold; then Sphinx builds them.
Notebooks are shown with their stored outputs; nothing is run. The pages of the reference are read from the source of the
modules, which is not imported.
"""

import argparse
import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import house
import nb
import slides
from pages import PARTS

from earthgpt_lite.course.contents import LESSONS

ROOT = Path(__file__).resolve().parent.parent
REPOSITORY = 'https://github.com/earthgpt-lite/earthgpt-lite/blob/main'
LINK = re.compile(r'(\]\()([^)#\s]+)([^)]*\))')
HOW_TO = 'install', 'runs', 'several', 'research', 'ecosystem', 'mmrs1m'
FOUND = 'results', 'benchmarks'
WORKSHOP = (
    'index',
    'half_day',
    'one_day',
    'two_days',
    'projects',
    'pacing',
    'room',
    'times',
    'kernels',
    'gpus',
    'hub',
    'feedback',
    'answers',
)
BASE = 'errors in words, files that are whole or not there, locks, texts and memory: what all parts stand on'


# ---- notebooks


def shown(path) -> dict:
    "A notebook for a reader: without directives, hidden cells and the cell that installs; solutions are folded."
    book, cells = nb.load(path), []
    for cell in book['cells']:
        directives, lines = nb.split(cell)
        if cell['id'] == 'install' or {'hide', 'default_exp'} & directives.keys():
            continue
        cell = cell | dict(source=lines, metadata={})
        if any(nb.BEGIN.match(line) for line in lines):
            cell['metadata'] = dict(tags=['hide-input'])
        if cell['cell_type'] == 'markdown':
            cell['source'] = [attached(mended_links(''.join(lines), path), cell)]
        cells.append(cell)
    return book | dict(cells=cells)


def attached(text, cell) -> str:
    "Markdown with the pictures of its cell inside, since Sphinx looks for attachments on the disk."
    for name, kinds in cell.get('attachments', {}).items():
        ((kind, data),) = kinds.items()
        picture = f'<img alt="{name}" src="data:{kind};base64,{"".join(data)}">'
        text = re.sub(rf'!\[[^]]*\]\(attachment:{re.escape(name)}\)', picture, text)
    return text


def mended_links(text, path) -> str:
    "Markdown whose links lead to pages of the site, or to the repository for what has no page."

    def mend(found):
        link = found[2]
        if re.match(r'[a-z]+:', link):
            return found[0]
        target = Path(os.path.normpath(Path(path).parent / link)).relative_to(ROOT)
        if is_page(target) or target.suffix in ('.png', '.jpg', '.svg'):
            return found[0]
        if target.parent.name == 'nbs':
            up = os.path.relpath(ROOT / 'parts' / f'{target.name.partition("_")[2]}.md', Path(path).parent)
            return f'{found[1]}{up}{found[3]}'
        return f'{found[1]}{REPOSITORY}/{target.as_posix()}{found[3]}'

    return LINK.sub(mend, text)


def is_page(target) -> bool:
    "Whether a file of the repository is a page of the site."
    in_notebooks = target.parts[0] == 'nbs' and target.suffix == '.ipynb'
    return in_notebooks or target.parts[0] == 'docs' and target.suffix == '.md'


# ---- the reference, read from the source


def public_names(tree) -> list:
    "The public functions and classes of a module, and what it names in __all__."
    named = [n for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == '__all__']
    return ast.literal_eval(named[0].value) if named else []


def signature(node, source) -> str:
    "How a function or class begins, as it is written: with the comments beside its parameters."
    lines = source.splitlines()
    first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
    body = node.body[0]
    begin = '\n'.join(lines[first - 1 : body.lineno - 1]).rstrip()
    return begin or lines[first - 1].strip()


def fields(node, source) -> str:
    "The fields of a class that has any, as they are written."
    found = [n for n in node.body if isinstance(n, ast.AnnAssign)]
    lines = source.splitlines()
    return '\n'.join('\n'.join(lines[n.lineno - 1 : n.end_lineno]) for n in found)


def entry(node, source, level='##', owner='') -> list:
    "The part of a page about one function or class, and its public methods."
    is_class = isinstance(node, ast.ClassDef)
    code = signature(node, source)
    if is_class and fields(node, source):
        code += f'\n{fields(node, source)}'
    parts = [f'{level} {owner}{node.name}', f'```python\n{code}\n```', ast.get_docstring(node) or '']
    if is_class:
        for inner in node.body:
            if isinstance(inner, house.FUNCTION) and inner.name[0] != '_' and ast.get_docstring(inner):
                parts += entry(inner, source, '###', f'{node.name}.')
    return [part for part in parts if part]


def reference_page(name, notebook) -> str:
    "The page of one module."
    source = house.file_of(name, ROOT).read_text(encoding='utf-8')
    tree = ast.parse(source)
    nodes = {n.name: n for n in tree.body if isinstance(n, (*house.FUNCTION, ast.ClassDef))}
    way = os.path.relpath(notebook, ROOT / 'reference')
    parts = [f'# {name}', f'Built in [{nb.short(notebook)}]({way}).']
    plain = []
    for public in public_names(tree):
        if public in nodes:
            parts += entry(nodes[public], source)
        else:
            plain.append(f'`{public}`')
    if plain:
        parts.append(f'## Constants\n\n{", ".join(plain)}')
    return '\n\n'.join(parts)


def command_page() -> str:
    "The help of every command, as the command line prints it."
    from earthgpt_lite.app.cli import make_parser

    parser = make_parser()
    parts = ['# The command line', f'```text\n{parser.format_help()}\n```']
    for action in parser._subparsers._group_actions:
        for name, command in action.choices.items():
            parts += [f'## earthgpt-lite {name}', f'```text\n{command.format_help()}\n```']
    return '\n\n'.join(parts)


# ---- pages that lead to pages


def tree_of(entries, caption='', hidden=False, depth=1) -> str:
    options = [f':caption: {caption}'] * bool(caption) + [':hidden:'] * hidden + [f':maxdepth: {depth}']
    return '\n'.join(['```{toctree}', *options, '', *entries, '```'])


def part_of(book) -> str:
    "The part of a notebook; `base` of those that stand before all parts."
    return book.parent.name.partition('_')[2] or 'base'


def part_page(part, books) -> str:
    "A part: what it is for, and its notebooks."
    names = [f'../{book.relative_to(ROOT).with_suffix("").as_posix()}' for book in books]
    about = PARTS.get(part, BASE)
    about = about[0].upper() + about[1:]
    return f'# {part}\n\n{about}.\n\n{tree_of(names)}'


def front_page() -> str:
    "The front page of the repository, with the ways into the site below it."
    text = mended_links((ROOT / 'README.md').read_text(encoding='utf-8'), ROOT / 'README.md')
    course = [f'nbs/{lesson.notebook}' for lesson in LESSONS]
    found = {p.stem for p in (ROOT / 'docs').glob('workshop/*.md')}
    workshop = [
        f'docs/workshop/{name}' for name in (*WORKSHOP, *sorted(found - {*WORKSHOP})) if name in found
    ]
    trees = [
        tree_of([f'First look <{course[0]}>', *course[1:]], 'Course', hidden=True),
        tree_of([f'parts/{part}' for part in ('base', *PARTS)], 'Parts', hidden=True),
        tree_of([f'docs/{name}' for name in HOW_TO], 'How to', hidden=True),
        tree_of(['reference/index', 'reference/command_line'], 'Reference', hidden=True),
        tree_of([f'docs/{name}' for name in (*FOUND, 'lessons')], 'Found out', hidden=True),
    ]
    trees.append(tree_of(workshop, 'Workshop', hidden=True))
    trees.append(tree_of(['docs/glossary', 'changes'], 'More', hidden=True))
    return '\n\n'.join([text, *trees])


# ---- all of it


def write_sources(folder):
    "Everything that Sphinx reads, laid out as in the repository."
    write = lambda name, text: nb.write_whole(folder / name, text)
    books = [p for p in nb.notebooks(ROOT) if p.name != 'index.ipynb']
    for path in books:
        write(path.relative_to(ROOT), json.dumps(shown(path), ensure_ascii=False))
    for path in sorted((ROOT / 'docs').rglob('*.md')):
        write(path.relative_to(ROOT), mended_links(path.read_text(encoding='utf-8'), path))
    changes = ROOT / 'CHANGELOG.md'
    write('changes.md', mended_links(changes.read_text(encoding='utf-8'), changes))
    shutil.copytree(ROOT / 'docs/img', folder / 'docs/img')
    write('index.md', front_page())
    exported = house.exported(ROOT)
    for part in ('base', *PARTS):
        write(f'parts/{part}.md', part_page(part, [p for p in books if part_of(p) == part]))
    for name, path in exported.items():
        write(f'reference/{name}.md', reference_page(name, path))
    write('reference/index.md', '# Modules\n\n' + tree_of(sorted(exported)))
    write('reference/command_line.md', command_page())
    shutil.copy(ROOT / 'tools/site/conf.py', folder / 'conf.py')
    write('_static/site.css', (ROOT / 'tools/site/site.css').read_text(encoding='utf-8'))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', type=Path, default=ROOT / 'build/site')
    args = parser.parse_args()
    start, sources = time.time(), ROOT / 'build/site-source'
    for folder in (sources, args.out):
        shutil.rmtree(folder, ignore_errors=True)
    write_sources(sources)
    command = [sys.executable, '-m', 'sphinx', '-q', '-b', 'html', '-W', '--keep-going', '-j', 'auto']
    done = subprocess.run([*command, str(sources), str(args.out)])
    if done.returncode:
        sys.exit(done.returncode)
    slides.write_slides(args.out / 'slides')
    print(f'{args.out / "index.html"}: {time.time() - start:.0f} s')


if __name__ == '__main__':
    main()
