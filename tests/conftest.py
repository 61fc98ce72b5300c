"Settings that every test runs under, and the count of executed notebooks."
import os, sys
from pathlib import Path

os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('MPLBACKEND', 'Agg')
os.environ.setdefault('HF_HUB_OFFLINE', '1')               # nothing here may need a network
sys.path.insert(0, str(Path(__file__).parent.parent/'tools'))
import nb

RAN = set()

def pytest_addoption(parser):
    parser.addoption('--all-notebooks', action='store_true', help='fail unless every notebook of this run was executed')

def pytest_runtest_logreport(report):
    if report.when == 'call' and '::test_notebook_runs[' in report.nodeid: RAN.add(report.nodeid)

def pytest_sessionfinish(session):
    "A notebook that was skipped, lost or deselected is as bad as one that fails."
    config = session.config
    if not config.getoption('--all-notebooks') or hasattr(config, 'workerinput'): return
    slow = config.option.markexpr == 'slow'
    wanted = [p for p in nb.notebooks() if nb.is_slow(p) == slow]
    print(f'\nnotebooks executed: {len(RAN)} of {len(wanted)}')
    if len(RAN) != len(wanted): session.exitstatus = 1
