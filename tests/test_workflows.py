"The workflow files: read as YAML, with the systems we promise and with commands that exist."

import re
import shlex
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / '.github/workflows').glob('*.yml'))


def load(path):
    # YAML 1.1 reads the key `on` as true
    return yaml.safe_load(path.read_text(encoding='utf-8'))


def commands(path):
    "Every line that a step runs, as words"
    steps = [s for job in load(path)['jobs'].values() for s in job['steps'] if 'run' in s]
    return [shlex.split(line) for s in steps for line in s['run'].splitlines() if line.strip()]


def test_three_systems_and_three_pythons():
    (job,) = load(ROOT / '.github/workflows/tests.yml')['jobs'].values()
    matrix = job['strategy']['matrix']
    assert {name.split('-')[0] for name in matrix['os']} == {'ubuntu', 'macos', 'windows'}
    assert matrix['python'] == ['3.11', '3.12', '3.13']  # words: as a number 3.10 would be 3.1
    oldest = re.search(r'^min_python = (\S+)', (ROOT / 'settings.ini').read_text(encoding='utf-8'), re.M)[1]
    assert matrix['python'][0] == oldest


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda p: p.name)
def test_a_workflow_can_run(path):
    "Triggered, on a system, with a limit, allowed to read alone; and what is cached is named by files that are there"
    flow = load(path)
    assert set(flow) >= {'name', True, 'permissions', 'jobs'} and flow['permissions'] == {'contents': 'read'}
    for job in flow['jobs'].values():
        assert job['runs-on'] and job['timeout-minutes'] <= 60
        for step in job['steps']:
            assert ('uses' in step) != ('run' in step)
            for file in step.get('with', {}).get('cache-dependency-path', '').split():
                assert (ROOT / file).is_file()


@pytest.mark.parametrize('path', WORKFLOWS, ids=lambda p: p.name)
def test_commands_exist(path):
    "No shell of one system alone, no make, and only programs that the steps before have brought"
    from earthgpt_lite.app.cli import make_parser

    words = commands(path)
    assert len(words) >= 3
    extras = re.findall(r'^(\w+)_requirements', (ROOT / 'settings.ini').read_text(encoding='utf-8'), re.M)
    markers = (ROOT / 'pytest.ini').read_text(encoding='utf-8')
    for program, *rest in words:
        if program == 'earthgpt-lite':
            make_parser().parse_args(rest)
            continue
        if rest[0].endswith('.py'):
            assert program == 'python' and (ROOT / rest[0]).is_file()
            continue
        assert program == 'python' and rest[0] == '-m' and rest[1] in ('pip', 'pytest')
        if rest[1] == 'pip':
            assert rest[2] == 'install' and (ROOT / rest[rest.index('-c') + 1]).is_file()
            wanted = [e for w in rest if (m := re.search(r'\[(.+)\]', w)) for e in m[1].split(',')]
            assert set(wanted) <= set(extras)
        else:
            assert f"    {rest[rest.index('-m', 1) + 1].removeprefix('not ')}:" in markers


def test_says_that_it_has_not_run_there():
    for path in WORKFLOWS:
        assert path.read_text(encoding='utf-8').startswith('# Not run there yet')
