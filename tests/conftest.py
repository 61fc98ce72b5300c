"Settings that every test runs under, and the count of executed notebooks."

import os
import re
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# a test that is slow because the machine is busy is no fault of the code
settings.register_profile('patient', deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile('patient')
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MPLBACKEND', 'Agg')
os.environ.setdefault('HF_HUB_OFFLINE', '1')  # nothing here may need a network
sys.path.insert(0, str(Path(__file__).parent.parent / 'tools'))
import nb

RAN = set()


def pytest_addoption(parser):
    parser.addoption(
        '--all-notebooks', action='store_true', help='fail unless every notebook of this run was executed'
    )


def pytest_collection_modifyitems(items):
    if sys.platform == 'win32':
        for item in items:
            if item.get_closest_marker('unix'):
                item.add_marker(pytest.mark.skip(reason='what only Linux and macOS can do'))


@pytest.hookimpl(trylast=True, specname='pytest_collection_modifyitems')
def notebooks_first(config, items):
    "Two workers begin with a half each and steal from the other's end: the long notebooks come first in both halves"
    if not hasattr(config, 'workerinput'):
        return
    books = [item for item in items if '::test_notebook_runs[' in item.nodeid]
    rest = [item for item in items if item not in books]
    half = len(rest) // 2
    items[:] = books[::2] + rest[:half] + books[1::2] + rest[half:]


def pytest_runtest_logreport(report):
    if report.when == 'call' and '::test_notebook_runs[' in report.nodeid:
        RAN.add(report.nodeid)


def pytest_sessionfinish(session):
    "A notebook that was skipped, lost or deselected is as bad as one that fails."
    config = session.config
    if not config.getoption('--all-notebooks') or hasattr(config, 'workerinput'):
        return
    slow = config.option.markexpr == 'slow'
    wanted = [p for p in nb.notebooks() if nb.is_slow(p) == slow]
    print(f'\nnotebooks executed: {len(RAN)} of {len(wanted)}')
    if len(RAN) != len(wanted):
        session.exitstatus = 1


# what a skipped test lacks, and the command that brings it
BRINGS = {
    'Chromium': 'apt-get install chromium   (or Chrome from google.com/chrome)',
    'bash': 'apt-get install bash',
    'nbgrader': "pip install -c constraints.txt -e '.[grading]'",
    'QGIS': 'apt-get install --no-install-recommends python3-qgis   (a gigabyte)',
    'playwright|peft|tensorboard|gguf|onnx|accelerate|anywidget|pyproj|geopandas|pycocotools|pycocoevalcap|openai|fastapi|uvicorn|mcp': (
        "pip install -c constraints.txt -e '.[dev]'"
    ),
    'not run, for want of': 'a machine that reaches the Python package index, once',
}


def pytest_terminal_summary(terminalreporter):
    "What was skipped, and how to have it run: a skipped test is an untested promise"
    skipped = terminalreporter.stats.get('skipped', [])
    if not skipped:
        return
    terminalreporter.section('skipped')
    for report in skipped:
        reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        command = next((c for words, c in BRINGS.items() if re.search(words, reason)), '')
        terminalreporter.line(f'{report.nodeid}: {reason}' + (f'\n    run: {command}' if command else ''))


@pytest.fixture(autouse=True)
def no_figures_left():
    "Figures that a test leaves open would add up until matplotlib warns"
    yield
    pyplot = sys.modules.get('matplotlib.pyplot')
    if pyplot:
        pyplot.close('all')


@pytest.fixture(scope='session')
def few():
    "A few real pictures of each split, of the whole Earth and of its lakes and islands"
    from earthgpt_lite.data.sample.objects import lakes_and_islands, object_examples
    from earthgpt_lite.data.sample.world_map import global_examples
    import earthgpt_lite.data.sample.objects as module

    all_things = lakes_and_islands()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'lakes_and_islands', lambda: all_things[::8])
        return {
            split: [e for e in global_examples(split, 24) + object_examples(split, 1)[:12] if e.turns]
            for split in ('train', 'validation', 'test')
        }


@pytest.fixture(scope='session')
def tiny(few):
    "(model, tokenizer): a nano that has seen a few batches, so that it says words and ends them. Copy it before you change it"
    import torch
    from earthgpt_lite.app.quickstart import make_tokenizer
    from earthgpt_lite.model.modeling import nano
    from earthgpt_lite.train.dataset import InstructionBatches

    tokenizer = make_tokenizer(few['train'])
    torch.manual_seed(0)
    model = nano(tokenizer)
    batches, optimizer = (
        InstructionBatches(few['train'], tokenizer, model.config, 6),
        torch.optim.AdamW(model.parameters(), 2e-3),
    )
    for step in range(45):
        model(**vars(batches.batch(step))).loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return model.eval(), tokenizer


@pytest.fixture(scope='session')
def saved(tiny, tmp_path_factory):
    "A run folder that holds the tiny model. Copy it before you change it"
    from earthgpt_lite.model.modeling import save

    run = tmp_path_factory.mktemp('run')
    save(*tiny, run / 'model')
    return run


@pytest.fixture(scope='session')
def wild(tiny):
    "An untrained model with large weights: it says long, odd things that depend on every word and on every picture. Copy it before you change it"
    import torch
    from earthgpt_lite.model.modeling import nano

    torch.manual_seed(3)
    model = nano(tiny[1]).eval()
    with torch.no_grad():
        for name, p in model.language.named_parameters():
            if p.dim() > 1 and 'embed' not in name:
                p *= 4
        model.projector.norm.weight *= 3
    return model, tiny[1]
