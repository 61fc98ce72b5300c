"Every notebook runs from top to bottom, and every picture in it draws."

import shutil
from pathlib import Path
import pytest
import nb

ROOT = Path(__file__).parent.parent
BOOKS = [
    pytest.param(p, id=nb.short(p), marks=[pytest.mark.slow] if nb.is_slow(p) else [])
    for p in nb.notebooks(ROOT)
]


@pytest.fixture(scope='session')
def copy(tmp_path_factory):
    "A copy of the repository, so that lessons which write files leave no trace"
    return shutil.copytree(ROOT, tmp_path_factory.mktemp('repo') / 'copy', ignore=nb.LEFT_OUT)


@pytest.mark.parametrize('path', BOOKS)
def test_notebook_runs(path, copy, tmp_path):
    homes = {k: str(tmp_path / k.lower()) for k in ('IPYTHONDIR', 'JUPYTER_RUNTIME_DIR', 'MPLCONFIGDIR')}
    fast = {} if nb.is_slow(path) else {'EARTHGPT_LITE_FAST': '1'}
    _, bad = nb.execute(copy / path.relative_to(ROOT), PYTHONPATH=str(copy), **fast, **homes)
    assert not bad, '\n'.join(bad)
