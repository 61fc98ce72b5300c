"""The order of the house, measured: parts, modules, imports, lines, and references between notebooks.

python tools/house.py            # what there is and every fault
"""

import ast
import re
import sys
from pathlib import Path

import nb

ROOT = Path(__file__).resolve().parent.parent
LIB = 'earthgpt_lite'
# what each part may import; `train` and `eval` stand side by side. The face of the package, `__init__`,
# is the exception: it names what lies in any of them, and imports it when asked
LEFT_OF = dict(errors=[], texts=['errors'], budget=['errors', 'texts'], files=['errors', 'texts', 'budget'])
LEFT_OF['locks'] = [*LEFT_OF['files'], 'files']
LEFT_OF['outputs'] = [*LEFT_OF['locks'], 'locks']
LEFT_OF['raster'] = [*LEFT_OF['outputs'], 'outputs']
LEFT_OF['boxes'] = [*LEFT_OF['raster'], 'raster']
LEFT_OF['data'] = [*LEFT_OF['boxes'], 'boxes']
LEFT_OF['model'] = [*LEFT_OF['data'], 'data']
LEFT_OF['train'] = LEFT_OF['eval'] = [*LEFT_OF['model'], 'model']
LEFT_OF['app'] = [*LEFT_OF['train'], 'train', 'eval']
LEFT_OF['exercises'] = ['errors']  # opens the judges of a lesson by name, when it is asked
LEFT_OF['course'] = [*LEFT_OF['app'], 'app', 'exercises']
INLINE = (ast.IfExp, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Lambda, ast.NamedExpr)
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)


# ---- modules and notebooks


def modules(root=ROOT):
    "Dotted names below the package, in order: 'errors', 'model.vision', 'model' for a part's own file"
    found = []
    for path in sorted((Path(root) / LIB).rglob('*.py')):
        name = '.'.join(path.relative_to(Path(root) / LIB).with_suffix('').parts)
        if name == '_modidx':
            continue
        if path.name == '__init__.py' and not has_code(path):
            continue
        found.append(name.removesuffix('.__init__'))
    return found


def has_code(path):
    body = ast.parse(Path(path).read_text(encoding='utf-8')).body
    return any(not isinstance(n, ast.Assign) or ast.unparse(n.targets[0])[:2] != '__' for n in body)


def file_of(name, root=ROOT):
    path = Path(root) / LIB / Path(*name.split('.'))
    return path / '__init__.py' if path.is_dir() else path.with_suffix('.py')


def exported(root=ROOT):
    "The notebook of each module: {'model.vision': path}, in the order of the notebooks"
    found = {}
    for path in nb.notebooks(root):
        code = '\n'.join(''.join(c['source']) for c in nb.load(path)['cells'])
        if m := re.search(r'^#\|\s*default_exp\s+(\S+)', code, re.M):
            found[m[1].removesuffix('.__init__')] = path
    return found


def part(name):
    return name.split('.')[0]


# ---- imports


def imported(path, root=ROOT):
    "Modules of the package that a module imports, at its top or inside a function"
    known, package = set(modules(root)), Path(path).relative_to(Path(root) / LIB).parts[:-1]
    for node in ast.walk(ast.parse(Path(path).read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            names = [a.name for a in node.names if a.name.startswith(LIB + '.')]
            yield from (n.removeprefix(LIB + '.') for n in names)
        elif isinstance(node, ast.ImportFrom):
            base = absolute(node, package)
            if base is None:
                continue
            below = {f'{base}.{a.name}'.strip('.') for a in node.names} & known
            yield from below or ({base} if base else ())


def absolute(node, package):
    "What an import names, below the package; None for another package"
    if node.level:
        return '.'.join([*package[: len(package) - node.level + 1], *(node.module or '').split('.')]).strip(
            '.'
        )
    if (node.module or '').split('.')[0] != LIB:
        return None
    return node.module.removeprefix(LIB).strip('.')


def import_faults(root=ROOT):
    "Imports against the order of the parts, or of the notebooks inside a part"
    order = {name: k for k, name in enumerate(exported(root))}
    for name in modules(root):
        if name == '__init__' or part(name) not in LEFT_OF:
            continue
        for other in imported(file_of(name, root), root):
            if part(other) == part(name):
                backwards = order.get(other, -1) >= order.get(name, 10**6)
                if backwards and name not in LEFT_OF:
                    yield f'{name} imports {other}, whose notebook does not come before its own'
            elif part(other) not in LEFT_OF[part(name)]:
                yield f'{name} imports {other}, but {part(name)} may import only {LEFT_OF[part(name)]}'


# ---- lines


def statements(tree):
    return [n for n in ast.walk(tree) if isinstance(n, ast.stmt)]


def inline(statement):
    "How many inline `if`, comprehensions, lambdas and walruses a statement holds, not counting statements in it"
    todo, count = list(ast.iter_child_nodes(statement)), 0
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.stmt, ast.ExceptHandler, ast.match_case)):
            continue
        count += isinstance(node, INLINE)
        todo += ast.iter_child_nodes(node)
    return count


def parameters(function):
    a = function.args
    names = [x.arg for x in a.posonlyargs + a.args + a.kwonlyargs]
    return len(names) - (names[:1] in (['self'], ['cls']))


def line_measures(root=ROOT):
    "The figures of the package: {name: [(where, value)]}, each list with the worst last"
    found = {k: [] for k in ('two statements', 'inline', 'length', 'function', 'parameters')}
    for name in modules(root):
        path = file_of(name, root)
        text = path.read_text(encoding='utf-8')
        tree = ast.parse(text)
        first = {}
        for s in statements(tree):
            first[s.lineno] = first.get(s.lineno, 0) + 1
            found['inline'].append((f'{name}:{s.lineno}', inline(s)))
            if isinstance(s, FUNCTION):
                found['function'].append((f'{name}.{s.name}', s.end_lineno - s.lineno + 1))
                found['parameters'].append((f'{name}.{s.name}', parameters(s)))
        found['two statements'] += [(f'{name}:{i}', n) for i, n in first.items() if n > 1]
        code = [(i, l) for i, l in enumerate(text.splitlines(), 1) if l.strip() and not l.startswith('#')]
        found['length'] += [(f'{name}:{i}', len(l)) for i, l in code if not l.startswith('__all__')]
    return {k: sorted(v, key=lambda pair: pair[1]) for k, v in found.items()}


# ---- references


LESSON = re.compile(r'\b\d_[a-z]+/\d\d_\w+|\b0_\w+(?=\.ipynb)')
OLD_LESSON = re.compile(r'\blessons? \d\d?[a-z]?\b(?! of 12)')


def texts(root=ROOT):
    "(file, cell or nothing, text, is it Markdown) of everything that a reader reads"
    root = Path(root)
    for path in nb.notebooks(root):
        for i, cell in enumerate(nb.load(path)['cells']):
            yield path, f' cell {i}', ''.join(cell['source']), cell['cell_type'] == 'markdown'
    pages = [*root.glob('*.md'), *(root / 'docs').rglob('*.md'), *(root / LIB / 'assets').rglob('*.md')]
    scripts = [p for folder in ('tests', 'tools', 'benchmarks') for p in (root / folder).rglob('*.py')]
    for path in [*pages, *scripts]:
        yield path, '', path.read_text(encoding='utf-8'), path.suffix == '.md'


def reference_faults(root=ROOT):
    "Links to files that are not there, lessons that are not there, and lessons under their old numbers"
    root = Path(root)
    names = {p.relative_to(root / 'nbs').with_suffix('').as_posix() for p in nb.notebooks(root)[1:]}
    for path, where, text, is_markdown in texts(root):
        place = f'{path.relative_to(root)}{where}'
        if is_markdown:
            for link in nb.LINK.findall(text):
                if not link.startswith('attachment:') and not (path.parent / link).exists():
                    yield f'{place}: a link to {link}, which is not there'
        if path.name in ('house.py', 'test_house.py', 'test_frame_can_fail.py', 'CHANGELOG.md'):
            continue
        for name in LESSON.findall(text):
            if name not in names:
                yield f'{place}: lesson {name} is not there'
        if 'workshop' in path.parts:  # its pages count the lessons of the course
            continue
        for old in OLD_LESSON.findall(text):
            yield f'{place}: {old!r} names a lesson by a number that no lesson has'


def main():
    m = line_measures()
    print(f'{len(modules())} modules, {len(nb.notebooks())} notebooks')
    inlined = [n for _, n in m['inline']]
    print(f"lines with two statements: {len(m['two statements'])}")
    print(
        f'statements with three or more inline: {sum(n > 2 for n in inlined)}, with two: {inlined.count(2)}'
    )
    long = [n for _, n in m['length']]
    print(f'lines over 110: {sum(n > 110 for n in long) / len(long):.2%} of {len(long)}, longest {long[-1]}')
    print('longest functions', m['function'][-3:], 'most parameters', m['parameters'][-3:])
    faults = [*import_faults(), *reference_faults()]
    print('\n'.join(faults) or 'imports and references: no fault')
    return bool(faults)


if __name__ == '__main__':
    sys.exit(main())
