"The plug-in of lmms-eval: its contract as the kit writes it down, numbers that are ours, and the kit itself."

import abc
import importlib
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import numpy as np
import pytest
import yaml
from PIL import Image

from earthgpt_lite.app import lmms_model
from earthgpt_lite.data.sample.trees import sample_examples
from earthgpt_lite.errors import BadInput
from earthgpt_lite.eval import lmms_tasks
from earthgpt_lite.eval.lmms_tasks import KINDS, LMMS_TASKS, doc_to_text, doc_to_visual, process_results
from earthgpt_lite.eval.runner import evaluate_model
from earthgpt_lite.eval.score import score_files

ROOT = Path(__file__).parents[2]
SPLIT = [{'split': 'test'}]


class Function(str):
    "The name of a function in a YAML of the kit"


@pytest.fixture(scope='module')
def tasks():
    "What the kit reads of each task, without what they share"

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor('!function', lambda loader, node: Function(loader.construct_scalar(node)))
    read = {path.name: yaml.load(path.read_text(), Loader) for path in LMMS_TASKS.iterdir()}
    shared = read.pop('_shared.yaml')
    read.pop('sample.json')
    assert {task.pop('include') for task in read.values()} == {'_shared.yaml'}
    return {name.removesuffix('.yaml'): shared | task for name, task in read.items()}


def named(function):
    "As the kit finds a function: a module, a dot, a name"
    module, _, name = function.rpartition('.')
    assert not (LMMS_TASKS / f'{module}.py').exists()
    return getattr(importlib.import_module(module), name)


# ---- the six tasks


def test_six_tasks_name_functions_that_are_there(tasks):
    assert {task['task'] for task in tasks.values()} == {f'earthgpt_{name}' for name in KINDS}
    assert {task['tag'] for task in tasks.values()} == {'earthgpt'}
    for name, task in tasks.items():
        functions = [value for value in task.values() if isinstance(value, Function)]
        functions += [metric['aggregation'] for metric in task['metric_list']]
        assert len(functions) >= 5 and all(callable(named(function)) for function in functions)
        docs = named(task['process_docs'])(SPLIT)
        assert {*docs['task']} == {*KINDS[name]} and {'image', task['doc_to_target']} <= {*docs.features}
        kept = {
            metric for kind in KINDS[name] for metric in process_results(dict(task=kind, truth='1'), ['1'])
        }
        assert {metric['metric'] for metric in task['metric_list']} == kept
    (files,) = tasks['vqa']['dataset_kwargs']['data_files'].values()
    assert json.loads((LMMS_TASKS / files).read_text()) == SPLIT


def test_another_model_is_told_the_form_of_an_answer(tasks):
    classes = {t.answer for e in sample_examples('test') for t in e.turns if t.task == 'classification'}
    for name, task in tasks.items():
        known = task['lmms_eval_specific_kwargs']
        doc = dict(question='what is it?')
        assert doc_to_text(doc, known['earthgpt_lite']) == 'what is it?' == doc_to_text(doc)
        assert re.fullmatch(r'what is it\?\n\w.*\.', doc_to_text(doc, known['default']))
    listed = tasks['classification']['lmms_eval_specific_kwargs']['default']['post_prompt']
    assert {*re.sub('.*: |\\.$', '', listed.strip()).split(', ')} == classes


def test_every_question_of_the_split_is_asked_once(tasks):
    docs = [
        doc for task in tasks.values() for doc in named(task['process_docs'])(SPLIT).remove_columns('image')
    ]
    asked = Counter((doc['name'], doc['question'], doc['truth'], doc['task']) for doc in docs)
    examples = sample_examples('test')
    assert asked == Counter((e.name, t.question, t.answer, str(t.task)) for e in examples for t in e.turns)
    picture = doc_to_visual(lmms_tasks.grounding_docs(SPLIT)[0])[0]
    assert any(np.array_equal(np.asarray(picture), e.image) for e in examples) and picture.mode == 'RGB'


# ---- the model, beside a base class as the kit's


class lmms(abc.ABC):
    "lmms_eval.api.model.lmms of 0.7, without what is not used"

    is_simple = True

    def __init__(self):
        self._rank, self._world_size, self.task_dict = 0, 1, {}

    @abc.abstractmethod
    def loglikelihood(self, requests): ...

    @abc.abstractmethod
    def generate_until(self, requests): ...

    @abc.abstractmethod
    def generate_until_multi_round(self, requests): ...


@dataclass(frozen=True)
class ModelManifest:
    model_id: str
    simple_class_path: str | None = None
    chat_class_path: str | None = None
    aliases: tuple = ()


@pytest.fixture
def kit(monkeypatch):
    "A kit of which only these two are there"
    for name, facts in {
        'lmms_eval': {},
        'lmms_eval.api': {},
        'lmms_eval.api.model': dict(lmms=lmms),
        'lmms_eval.models': {},
        'lmms_eval.models.registry_v2': dict(ModelManifest=ModelManifest),
    }.items():
        module = ModuleType(name)
        vars(module).update(facts, __path__=[])
        monkeypatch.setitem(sys.modules, name, module)
    lmms_model.lmms_class.cache_clear()
    yield
    lmms_model.lmms_class.cache_clear()


@pytest.fixture
def model(kit):
    "The class as the kit gets it, from the entry point that setup.py announces"
    (entry,) = entry_points()['lmms_eval.models']
    name, _, place = entry.partition(' = ')
    module, _, attribute = place.partition(':')
    manifest = getattr(importlib.import_module(module), attribute)()
    assert manifest.model_id == name == 'earthgpt_lite' and manifest.chat_class_path is None
    module, _, attribute = manifest.simple_class_path.rpartition('.')
    found = getattr(importlib.import_module(module), attribute)
    assert issubclass(found, lmms) and found.is_simple and not found.__abstractmethods__
    return found(pretrained='nano', batch_size=8, device='cpu', max_batch_size=None)


def entry_points():
    "Those that setup.py hands to setuptools"
    given = {}
    stand_in = ModuleType('setuptools')
    stand_in.setup, stand_in.find_packages = given.update, lambda **_: []
    with patch.dict(sys.modules, setuptools=stand_in):
        exec((ROOT / 'setup.py').read_text(encoding='utf-8'), {'__file__': str(ROOT / 'setup.py')})
    return given['entry_points']


def request(text, how, place, task='t', visual=doc_to_visual):
    return SimpleNamespace(args=(text, how, visual, place, task, 'test'), task_name=task)


HOW = dict(max_new_tokens=64, temperature=0.0, do_sample=False, until=[])


def test_the_numbers_are_those_of_evaluate(model, tasks, tmp_path):
    "The kit's order by hand: documents, requests, answers, what is kept, aggregation; each row of `evaluate`"
    examples = sample_examples('test')
    wanted = [
        e for e in examples if {'detection', 'counting', 'vqa', 'grounding'} & {str(t.task) for t in e.turns}
    ]
    some = [*wanted[::16], *examples[::120]]
    some = list({e.name: e for e in some}.values())
    settings = dict(baselines=False, progress=False, say=None)
    pair = model.asker.model, model.asker.tokenizer
    expected = evaluate_model(pair, some, tmp_path / 'out', **settings)['results']
    names, found = {e.name for e in some}, {}
    for task in tasks.values():
        docs = named(task['process_docs'])(SPLIT)
        docs = docs.select([k for k, name in enumerate(docs['name']) if name in names])
        model.task_dict[task['task']] = {'test': docs}
        how = task['generation_kwargs']
        requests = [request(doc_to_text(doc), how, k, task['task']) for k, doc in enumerate(docs)]
        kept = [process_results(doc, [a]) for doc, a in zip(docs, model.generate_until(requests))]
        for metric in task['metric_list']:
            name, groups = metric['metric'], defaultdict(list)
            for kind, sensor, row in zip(docs['task'], docs['sensor'], kept):
                if name in row:
                    groups[kind, sensor].append(row[name])
            for (kind, sensor), items in groups.items():
                ours = 'accuracy' if name == kind else name
                found[kind, sensor, ours] = len(items), named(metric['aggregation'])(items)
    compared = {(r['task'], r['sensor'], r['metric']): r for r in expected}
    assert (
        {*found} <= {*compared}
        and len(found) > 20
        and {kind for kind, *_ in found} == {*sum(KINDS.values(), ())}
    )
    for key, (count, score) in found.items():
        assert (count, score) == (compared[key]['n'], pytest.approx(compared[key]['score'], abs=1e-12)), key
    assert 30 <= len(some) and 0.3 < np.mean([score for _, score in found.values() if score < 1])


def test_answers_keep_their_order_whatever_is_asked_together(model):
    docs = lmms_tasks.grounding_docs(SPLIT).select(range(12))
    model.task_dict['t'] = {'test': docs}
    hows = [HOW, dict(HOW, until=[',']), dict(HOW, max_new_tokens=3)]
    requests = [request(doc['question'], hows[k % 3], k) for k, doc in enumerate(docs)]
    found = model.generate_until(requests)
    alone = [model.asker.ask(doc['image'], doc['question']).text for doc in docs]
    assert found[::3] == alone[::3] and len({*alone}) > 6
    assert found[1::3] == [text.partition(',')[0] for text in alone[1::3]]
    assert all(
        short and text.startswith(short) and short != text for short, text in zip(found[2::3], alone[2::3])
    )
    model.batch_size = 1
    assert model.generate_until(requests) == found and model.generate_until([]) == []


def test_what_the_model_cannot_do_is_refused_by_name(model):
    picture = Image.new('RGB', (64, 64))
    model.task_dict['t'] = {'test': [dict(image=picture)]}
    for shown, words in (([], 't: question 0 has no picture'), ([picture] * 2, '2 pictures in one question')):
        with pytest.raises(BadInput, match=words):
            model.generate_until([request('what is it?', HOW, 0, visual=lambda doc: shown)])
    asked = [request('what is it?', HOW, 0)]
    for work in (model.loglikelihood, model.generate_until_multi_round):
        with pytest.raises(BadInput, match='^t .*output_type generate_until'):
            work(asked)
    assert model.generate_until(asked) == [model.asker.ask(picture, 'what is it?').text]


def test_how_an_answer_is_written():
    assert lmms_model.answer_options(dict(until='\n', max_new_tokens=8)) == (dict(max_new_tokens=8), ('\n',))
    how, _ = lmms_model.answer_options(dict(temperature=0.5, top_p=None, num_beams=3, image_aspect_ratio='x'))
    assert how == dict(max_new_tokens=64, do_sample=True, temperature=0.5, top_p=1.0, num_beams=3)
    assert 'do_sample' not in lmms_model.answer_options(dict(temperature=0.5, do_sample=False))[0]


def test_without_the_kit_a_sentence_says_how_it_comes(monkeypatch):
    monkeypatch.setitem(sys.modules, 'lmms_eval', None)
    lmms_model.lmms_class.cache_clear()
    for ask in (lmms_model.manifest, lambda: lmms_model.EarthGPTLite):
        with pytest.raises(BadInput, match='pip install lmms-eval'):
            ask()
    with pytest.raises(AttributeError, match='Other'):
        lmms_model.Other


# ---- the kit itself, as far as it runs beside what is here

KIT = 'lmms-eval==0.7.3 loguru tenacity pytz evaluate sacrebleu portalocker tabulate colorama lxml pytablewriter'
KIT += ' dataproperty mbstrdecoder pathvalidate tabledata tcolorpy typepy chardet'


@pytest.fixture(scope='module')
def unpacked(tmp_path_factory):
    "The wheel of the kit and of what it imports for these tasks; torchvision, wandb and forty more stay away"
    folder = tmp_path_factory.mktemp('kit')
    words = ['install', '-q', '--disable-pip-version-check', '--no-deps', '--target', folder, *KIT.split()]
    done = subprocess.run([sys.executable, '-m', 'pip', *words], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f'not run, for want of lmms-eval: {done.stderr.strip().splitlines()[-1]}')
    about = folder / 'plug_in-1.dist-info'
    about.mkdir()
    (about / 'METADATA').write_text('Metadata-Version: 2.1\nName: plug-in\nVersion: 1\n')
    (about / 'entry_points.txt').write_text(
        '[lmms_eval.models]\n' + entry_points()['lmms_eval.models'][0] + '\n'
    )
    return folder


@pytest.mark.rare
def test_the_kit_runs_the_six_tasks_by_its_own_command(unpacked, tasks, tmp_path):
    "Its results are what our scorer makes of the answers that it logs"
    words = [
        '--model',
        'earthgpt_lite',
        '--model_args',
        'pretrained=nano',
        '--device',
        'cpu',
        '--batch_size',
        '32',
    ]
    words += ['--include_path', LMMS_TASKS, '--tasks', 'earthgpt', '--limit', '60', '--log_samples']
    paths = os.pathsep.join(map(str, (ROOT, unpacked)))
    env = dict(os.environ, PYTHONPATH=paths, HF_HOME=str(tmp_path / 'home'), PYTHONWARNINGS='ignore')
    command = [sys.executable, '-m', 'lmms_eval', *map(str, words), '--output_path', str(tmp_path / 'out')]
    done = subprocess.run(command, capture_output=True, text=True, env=env, cwd=tmp_path, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = (tmp_path / 'out').rglob('*results.json')
    told = json.loads(path.read_text())['results']
    assert {*told} == {task['task'] for task in tasks.values()}
    for name, task in tasks.items():
        (log,) = (tmp_path / 'out').rglob(f'*samples_{task["task"]}.jsonl')
        docs = named(task['process_docs'])(SPLIT).remove_columns('image').select(range(60))
        truth = [dict(doc, doc_id=k, image=doc['name'], sensor='any') for k, doc in enumerate(docs)]
        scored = score_files(log, truth)
        assert not scored['problems']['missing'] and not scored['problems']['wording']
        for row in scored['results']:
            metric = row['task'] if name == 'vqa' and row['metric'] == 'accuracy' else row['metric']
            number = told[task['task']].get(f'{metric},none')
            if number is not None:
                assert number == pytest.approx(row['score'], abs=1e-9), (name, metric)
        assert f'{task["metric_list"][0]["metric"]},none' in told[task['task']]
