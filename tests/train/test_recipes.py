"Recipes for MMRS-1M: the page is what the code computes, its commands exist, its arithmetic is that of its formulas."

import re
import shlex
import sys
from pathlib import Path

import pytest

from earthgpt_lite.app.cli import parse_command_line
from earthgpt_lite.train.run_file import check_keys, find_run, read_run, recipes

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / 'tools'))

import readers_page
import recipes_page

PAGE = (ROOT / 'docs/mmrs1m.md').read_text(encoding='utf-8')


def test_the_page_is_what_the_code_computes():
    assert PAGE == readers_page.page()
    for recipe in recipes_page.RECIPES:
        assert f'| `{recipe.name}` |' in PAGE and recipe.name in recipes()
    for line in recipes_page.table().splitlines()[2:]:
        assert line.count('*arithmetic*') == 3


def commands():
    blocks = re.findall('```text\n(.*?)```', PAGE, re.S)
    return [line for block in blocks for line in block.splitlines() if line.startswith('earthgpt-lite ')]


def test_the_page_has_a_command_for_each_step():
    words = [line.split()[1] for line in commands()]
    assert words.count('data') >= 6 and words.count('train') == len(recipes_page.RECIPES)
    for recipe in recipes_page.RECIPES:
        assert any(f'--config {recipe.name} ' in f'{line} ' for line in commands())


@pytest.mark.parametrize('line', commands())
def test_commands_of_the_page_can_be_parsed(line):
    "Refused words end the parser with a status; what a command would do is not done"
    args = parse_command_line(shlex.split(line)[1:])
    check_keys([word[2:] for word in args.train_words if word.startswith('--') and word != '--config'], line)
    assert callable(args.run)


def test_hours_and_memory_by_hand():
    "Of the recipe without fsdp and without activations that are made again, from the formulas on the page"
    recipe = recipes_page.RECIPES[0]
    keys, c, m = read_run(find_run(recipe.name)), recipes_page.counts(recipe), recipes_page.memory(recipe)
    assert recipes_page.hours(recipe) == pytest.approx(9375 * 64 * c['flops'] / (165e12 * 0.3) / 3600)
    assert keys['steps'] * keys['batch_size'] == 3 * recipes_page.PICTURES
    assert m['weights'] == pytest.approx((16 * c['trained'] + 4 * c['frozen']) / 1e9)
    tokens, text = 32 * (1 + 64 + 5 * 24), c['text']
    inside = 2 * (8 * 576 + 4 * 1536)
    assert (text.hidden_size, text.intermediate_size, c['tokens']) == (576, 1536, 185)
    activations = tokens * 30 * inside + 8 * 32 * 5 * 8 * 49152
    assert m['activations'] == pytest.approx(activations / 1e9)
    assert m['all'] == pytest.approx(m['weights'] + m['activations'] + 1.5)


def test_a_recipe_fits_the_memory_that_it_names():
    for recipe in recipes_page.RECIPES:
        assert recipes_page.memory(recipe)['all'] < 0.9 * recipe.memory, recipe.name
