"""What Windows lacks, taken away from this process; then every module is imported, and a run is stopped and resumed.

python tests/fixtures_systems.py FOLDER   # one line of JSON: what was not imported and why; the losses, and whether all is equal
"""

import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

MODULES = ('fcntl', 'resource', 'termios', 'tty', 'pwd', 'grp', 'pty')
OF_OS = ('fork', 'forkpty', 'sched_getaffinity', 'sysconf', 'getuid', 'killpg', 'mkfifo', 'O_DIRECTORY')
# SIGUSR1 stays: where it is not Windows, Lightning asks for it
SIGNALS = ('SIGUSR2', 'SIGHUP', 'SIGALRM', 'SIGQUIT', 'SIGCHLD', 'alarm', 'pause')


class Absent:
    "A finder of modules that finds none of these."

    def find_spec(self, name, path=None, target=None):
        if name in MODULES:
            raise ModuleNotFoundError(f'No module named {name!r}', name=name)


def take_away():
    import psutil  # on Linux it asks for `resource` itself, on Windows for nothing of these

    with suppress(ImportError):
        import mcp  # and this for `fcntl`

    for name in MODULES:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, Absent())
    for module, names in ((os, OF_OS), (signal, SIGNALS)):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)


def import_all():
    import importlib

    lib, failed = Path(__file__).parent.parent / 'earthgpt_lite', {}
    paths = sorted(lib.rglob('*.py'))
    for path in paths:
        name = '.'.join(path.relative_to(lib.parent).with_suffix('').parts).removesuffix('.__init__')
        try:
            importlib.import_module(name)
        except BaseException as e:
            failed[name] = f'{type(e).__name__}: {e}'
    return dict(modules=len(paths), failed=failed)


def train(folder):
    import torch
    from fixtures_training import examples, small, tokenizer

    from earthgpt_lite.train import fit as module
    from earthgpt_lite.train.callbacks import Interrupted

    short = dict(steps=5, batch_size=6, device='cpu', precision='32-true', progress=False)
    tok, stopped = tokenizer(), False
    model = small(tok)
    whole = module.fit(model, tok, examples(), Path(folder, 'whole'), **short)
    step = module.EarthGPTModule.training_step

    def stop_once(self, batch, index):
        if self.global_step == 2:
            signal.raise_signal(signal.SIGINT)
        return step(self, batch, index)

    module.EarthGPTModule.training_step = stop_once
    try:
        module.fit(small(tok), tok, examples(), Path(folder, 'parts'), **short)
    except Interrupted:
        stopped = True
    module.EarthGPTModule.training_step = step
    later = small(tok, 9)
    again = module.fit(later, tok, examples(), Path(folder, 'parts'), resume=True, **short)
    pairs = zip(model.state_dict().values(), later.state_dict().values(), strict=True)
    equal = again['losses'] == whole['losses'] and all(torch.equal(a, b) for a, b in pairs)
    return dict(losses=whole['losses'], stopped=stopped, equal=equal, memory=whole['peak_memory_mb'])


if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).parent))
    take_away()
    print(json.dumps(import_all() | train(sys.argv[1])))
