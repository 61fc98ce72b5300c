"The doctor: it says what is, notices what is broken, and its list of versions is the one we test with."

import json
import re
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path
from types import SimpleNamespace

import pytest

from earthgpt_lite.app import doctor
from earthgpt_lite.app.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope='module')
def found():
    return doctor.diagnose('cpu')


def test_versions_are_those_of_the_constraints():
    pins = dict(line.lower().split('==') for line in (ROOT / 'constraints.txt').read_text().split())
    cfg = ConfigParser(delimiters=['='])
    cfg.read(ROOT / 'settings.ini', encoding='utf-8')
    asked = {
        re.match(r'[\w-]+', w)[0].lower().replace('-', '_') for w in cfg['DEFAULT']['requirements'].split()
    }
    assert doctor.TESTED == {k: v for k, v in pins.items() if k in doctor.TESTED} and asked == set(
        doctor.TESTED
    )


def test_here_all_is_well(found):
    text = doctor.diagnosis_text(found)
    assert doctor.healthy(found) and 'All is well' in text and len(found['tests']) == 4
    assert all(
        word in text for word in ('Python', 'memory', 'device', 'precision', 'disk', 'hub cache', 'network')
    )
    assert str(Path.home()) not in text, 'a pasted text names nobody'


def test_another_version_is_told_and_no_fault(found):
    other = json.loads(json.dumps(found))
    other['versions']['numpy']['installed'] = '1.26.4'
    assert doctor.healthy(other) and 'numpy          1.26.4 (tested with 2.4.6)' in doctor.diagnosis_text(
        other
    )


def test_a_missing_library_is_a_fault(found):
    other = json.loads(json.dumps(found))
    other['versions']['folium']['installed'] = None
    assert (
        not doctor.healthy(other)
        and 'MISSING: pip install' in doctor.diagnosis_text(other)
        and 'Something is wrong' in doctor.diagnosis_text(other)
    )


def test_a_broken_part_ends_the_test_with_its_reason(monkeypatch, tmp_path):
    monkeypatch.setattr('earthgpt_lite.data.sample.world_map.DATA', tmp_path)
    ((name, _, error),) = doctor.self_test('cpu')
    assert name == 'reads a picture' and 'no such file' in error


def test_a_model_that_does_not_learn_is_noticed(monkeypatch):
    monkeypatch.setattr('torch.optim.AdamW.step', lambda self: None)
    assert 'the loss went from' in doctor.self_test('cpu')[-1][2]


def test_memory_of_a_container(monkeypatch):
    numbers = {'/sys/fs/cgroup/memory.max': 10**9, '/sys/fs/cgroup/memory.current': 4 * 10**8}
    machine = SimpleNamespace(total=8 * 10**9, available=9 * 10**8)
    monkeypatch.setattr(doctor, '_number', numbers.get)
    monkeypatch.setattr('psutil.virtual_memory', lambda: machine)
    assert doctor.system_memory() == (10**9, 6 * 10**8)
    del numbers['/sys/fs/cgroup/memory.max']
    assert doctor.system_memory() == (8 * 10**9, 9 * 10**8)
    monkeypatch.setitem(sys.modules, 'psutil', None)  # not installed: unknown, and no error
    assert doctor.system_memory() == (None, None)
    monkeypatch.undo()
    assert doctor._number('/nowhere') is None and doctor._number(__file__) is None


def test_command(capsys, monkeypatch, found):
    monkeypatch.setattr(doctor, 'diagnose', lambda device: found)
    assert main(['doctor', '--device', 'cpu']) == 0 and 'All is well' in capsys.readouterr().out
    assert main(['doctor', '--json']) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed['healthy'] and set(printed) == {'facts', 'presets', 'versions', 'tests', 'healthy'}
    found = json.loads(json.dumps(found))
    found['tests'][1]['error'] = 'by hand'
    monkeypatch.setattr(doctor, 'diagnose', lambda device: found)
    assert main(['doctor']) == 1 and 'failed' in capsys.readouterr().out


@pytest.mark.parametrize(
    'name',
    ['nano', *(pytest.param(n, marks=pytest.mark.slow) for n in ('lite', 'lite-offline', 'base', 'paper'))],
)
def test_needs_are_what_the_scale_says(name):
    from earthgpt_lite.model.memory import weigh

    weighed = weigh(name)
    assert doctor.MEMORY_GB[name] == pytest.approx(
        (weighed['infer_bytes'] / 1e9, weighed['train_bytes'] / 1e9), rel=0.05, abs=0.06
    )


def test_every_preset_has_its_needs_and_a_verdict():
    from earthgpt_lite.model.presets import presets

    assert list(doctor.MEMORY_GB) == presets()
    assert [p['verdict'] for p in doctor.preset_verdicts(8e9).values()] == [
        'fits',
        'fits',
        'fits',
        'can answer here, not train',
        'too large for this machine',
    ]
    assert {p['verdict'] for p in doctor.preset_verdicts(None).values()} == {'unknown'}
    just = 1.05e9 * doctor.MEMORY_GB['base'][1]  # nobody has all memory alone
    assert doctor.preset_verdicts(just)['base']['verdict'] == 'can answer here, not train'


BLIND = "import sys; sys.modules['{0}'] = None; from earthgpt_lite.app.cli import main; sys.exit(main(['doctor', '--device', 'cpu']))"


@pytest.mark.parametrize('library', ['torch', 'rasterio'])
def test_the_doctor_comes_where_a_library_is_broken(library):
    run = subprocess.run(
        [sys.executable, '-c', BLIND.format(library)], capture_output=True, text=True, timeout=120
    )
    assert (
        run.returncode == 1
        and re.search(f"import of {library} halted|'{library}' is not a package", run.stdout)
        and 'Something is wrong' in run.stdout
        and not run.stderr
    )


def test_a_broken_torch_is_a_line_of_the_facts(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torch', None)
    assert 'unknown' in doctor.facts()['device'] and doctor.memory_budget() == doctor.system_memory()[0]
