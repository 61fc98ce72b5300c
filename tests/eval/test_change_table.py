"The benchmark of questions about pairs: how its tables are made, and what the kept one promises."

import importlib.util
import json
from pathlib import Path

import pytest

from earthgpt_lite.data.sample.change import loss_examples, same_twice, swapped
from earthgpt_lite.eval.questions import example_questions

ROOT = Path(__file__).parents[2]
TABLE = ROOT / 'earthgpt_lite/assets/results/change.json'


@pytest.fixture(scope='module')
def benchmark():
    spec = importlib.util.spec_from_file_location('change_benchmark', ROOT / 'benchmarks/change.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def found(benchmark):
    "What one would say that knows, one that always says yes, and one that marks which picture was hidden."
    examples = loss_examples(0, 'test')
    rows = lambda some, **said: [
        q | dict(answer=q['truth'], score=None) | said for q in example_questions(some)[0]
    ]
    found = dict(answers=rows(examples))
    found |= {name: rows(examples, answer='yes') for name in ('prior', 'shuffled', 'blind')}
    found |= dict(first_hidden=rows(examples, answer='first'), last_hidden=rows(examples, answer='last'))
    found |= dict(swapped=rows(list(map(swapped, examples))), twice=rows(list(map(same_twice, examples))))
    return found | benchmark.hidden_by_word(found)


def test_who_knows_is_right_and_ahead(benchmark, found):
    scores = benchmark.loss_scores(found)
    lost = scores['was forest lost']
    assert lost['score'] == 1 and lost['interval'] == [1, 1] and lost['n'] > 200
    assert lost['prior']['score'] == pytest.approx(0.5) and lost['prior']['interval'][0] > 0
    assert lost['prior']['ahead'] == pytest.approx(0.5)
    assert scores['swapped']['score'] == scores['same_twice']['score'] == 1
    assert scores['where']['meanIoU']['score'] == pytest.approx(1)
    assert scores['where']['Pr@0.5']['prior'] == 0, 'yes is no box'


def test_before_and_after_are_hidden_by_their_words(found):
    for name, word in dict(before_hidden='before', after_hidden='after').items():
        for p in found[name]:
            assert p['answer'] == ('first' if p['words'][0] == word else 'last')
    assert len({p['words'] == ['before', 'after'] for p in found['answers']}) == 2, 'both orders are there'
