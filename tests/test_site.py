"The site: every public name has its place, links hold, and nothing is asked of another host."

import ast
import re
import subprocess
import sys
from pathlib import Path

import house
import make_site
import nb
import pytest

ROOT = Path(__file__).parent.parent
EXPORTED = house.exported(ROOT)


@pytest.mark.parametrize('name', EXPORTED)
def test_every_public_name_stands_in_the_reference_with_its_docstring(name):
    tree = ast.parse(house.file_of(name, ROOT).read_text(encoding='utf-8'))
    page = make_site.reference_page(name, EXPORTED[name])
    nodes = {n.name: n for n in tree.body if hasattr(n, 'name')}
    for public in make_site.public_names(tree):
        assert re.search(rf'^## {public}$|`{public}`', page, re.M), public
        assert (ast.get_docstring(nodes[public]) or '') in page if public in nodes else True


def test_a_signature_keeps_the_comments_beside_its_parameters():
    source = 'def f(\n    a: int,  # in pixels\n) -> str:  # a text\n    "What for."\n    return a\n'
    assert (
        make_site.signature(ast.parse(source).body[0], source) == source[: source.index('    "What')].rstrip()
    )


def test_links_lead_to_pages_to_parts_or_to_the_repository():
    mended = lambda text: make_site.mended_links(text, ROOT / 'docs/runs.md')
    for same in ('[a](results.md)', '[a](../nbs/2_boxes/02_text.ipynb#x)', '![a](img/parts.png)', '[a](#b)'):
        assert mended(same) == same
    assert mended('[a](../nbs/2_boxes)') == '[a](../parts/boxes.md)'
    assert mended('[a](../tools/house.py)') == f'[a]({make_site.REPOSITORY}/tools/house.py)'
    assert mended('[a](https://example.org/x)') == '[a](https://example.org/x)'


def test_a_notebook_is_shown_without_its_machinery_and_with_its_outputs():
    path = ROOT / 'nbs/2_boxes/01_iou.ipynb'
    whole, book = nb.load(path), make_site.shown(path)
    text = '\n'.join(''.join(c['source']) for c in book['cells'])
    assert '#|' not in text and '%pip' not in text and 'default_exp' not in text
    outputs = lambda book: [o for c in book['cells'] for o in c.get('outputs', [])]
    assert outputs(book) == outputs(whole)
    folded = [c for c in book['cells'] if 'BEGIN SOLUTION' in ''.join(c['source'])]
    assert folded and all(c['metadata'] == dict(tags=['hide-input']) for c in folded)


RESOURCE = re.compile(
    r'<(?:script|img|iframe|source)[^>]+src="([^"]+)"|<link[^>]+href="([^"]+)"|url\(([^)]+)\)'
)


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The built site. A link or a picture that leads nowhere fails the build."
    out = tmp_path_factory.mktemp('site') / 'html'
    done = subprocess.run(
        [sys.executable, str(ROOT / 'tools/make_site.py'), '--out', str(out)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.slow
def test_nothing_is_asked_of_another_host(site):
    pages = [*site.rglob('*.html'), *site.rglob('*.css')]
    assert len(pages) > 2 * len(EXPORTED)
    for page in pages:
        for found in RESOURCE.findall(page.read_text(encoding='utf-8')):
            link = ''.join(found).strip('\'"')
            assert not re.match(r'(https?:)?//', link), f'{page.name}: {link[:100]}'


@pytest.mark.slow
def test_the_search_knows_lessons_and_the_reference(site):
    index = (site / 'searchindex.js').read_text(encoding='utf-8')
    for name in ('nbs/4_model/05_vision', 'reference/model.vision', 'docs/glossary', 'parts/base'):
        assert f'"{name}"' in index
    assert '<math' in (site / 'nbs/2_boxes/02_text.html').read_text(encoding='utf-8')
