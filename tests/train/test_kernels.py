"Two kernels on one machine are killed in the middle of a training cell; run again, both go on, and end as if nothing had been."

import json
import os
import re
import signal
import time
from pathlib import Path

import nb
import pytest
from jupyter_client.manager import KernelManager

ROOT = Path(__file__).parents[2]
# checkpoints at each step, so that the test need not wait for them
OFTEN = """
import earthgpt_lite.train.cells as c, earthgpt_lite.train.fit_cell as f
c.EVERY, c.SPARING, f.EVERY = 0, 0, 1
"""
LOOP = [
    'import time, torch\nfrom earthgpt_lite.train.cells import resumable\ntorch.manual_seed(0)',
    'model = torch.nn.Linear(3, 1)\noptimizer = torch.optim.AdamW(model.parameters())\nlosses = []',
    """for step in resumable('loop', 30, model, optimizer, losses):
    loss = model(torch.randn(4, 3)).square().mean()
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
    time.sleep(SLEEP)""",
]
FIT = [
    f'import sys, time\nsys.path.insert(0, {str(ROOT / "tests")!r})\nimport fixtures_training as t',
    'from lightning.pytorch.callbacks import Callback\nfrom earthgpt_lite.train.fit_cell import fit_cell',
    'class Slow(Callback):\n    def on_train_batch_end(self, *args):\n        time.sleep(SLEEP)',
    "tok = t.tokenizer()\noptions = dict(steps=30, batch_size=4, device='cpu', progress=False)",
    """done = fit_cell('fitted', t.small(tok), tok, t.examples(), callbacks=[Slow()], **options)
losses = [loss for _, loss in done['losses']]""",
]


class Kernel:
    "A kernel in a folder, which runs cells and is killed or ended"

    def __init__(self, folder):
        self.manager = KernelManager(kernel_name='python3')
        variables = os.environ | dict(PYTHONPATH=str(ROOT), OMP_NUM_THREADS='1')
        self.manager.start_kernel(cwd=str(folder), env=variables)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=300)

    def begin(self, code):
        self.client.execute(code)

    def run(self, code):  # what is printed
        printed = []

        def hear(message):
            if message['msg_type'] == 'stream' and message['content']['name'] == 'stdout':
                printed.append(message['content']['text'])

        reply = self.client.execute_interactive(code, timeout=3000, output_hook=hear)['content']
        assert reply['status'] == 'ok', '\n'.join(reply.get('traceback', []))
        return ''.join(printed)

    def kill(self):
        os.kill(self.manager.provisioner.pid, signal.SIGKILL)

    def end(self):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)


def run_twice(folder, cells):
    "A notebook from the top, two times in a kernel of its own: what is printed, and the losses"
    kernel = Kernel(folder)
    try:
        kernel.run('SLEEP = 0')
        for _ in range(2):
            printed = ''.join(map(kernel.run, cells))
            yield printed, json.loads(kernel.run('import json\nprint(json.dumps(losses))'))
    finally:
        kernel.end()


def kernel_before_last(folder, cells, sleep):
    kernel = Kernel(folder)
    kernel.run(f'{OFTEN}\nSLEEP = {sleep}')
    for cell in cells[:-1]:
        kernel.run(cell)
    return kernel


def kill_in_the_middle(folder, running):
    "Each kernel when it has a checkpoint, those with one notebook together"
    end = time.monotonic() + 600
    for name in sorted({name for name, _ in running}):
        mine = [kernel for other, kernel in running if other == name]
        while len(list(folder.glob(f'runs/{name}/*/last.ckpt'))) < len(mine):
            assert time.monotonic() < end, f'no checkpoint of {name}'
            time.sleep(0.05)
        for kernel in mine:
            kernel.kill()


def killed_and_run_again(folder, books, sleep=0.0):
    running = [(name, kernel_before_last(folder, cells, sleep)) for name, cells in books]
    try:
        for (_, kernel), (_, cells) in zip(running, books):
            kernel.begin(cells[-1])
        kill_in_the_middle(folder, running)
    finally:
        for _, kernel in running:
            kernel.end()
    both = [run_twice(folder, cells) for _, cells in books]
    again, whole = [next(one) for one in both], [next(one) for one in both]
    for (name, _), (printed, losses), (silent, untouched) in zip(books, again, whole):
        found = re.search(rf'^runs/{name}/\S+: goes on from step (\d+) of (\d+)$', printed, re.M)
        assert found, printed
        assert 0 < int(found[1]) < int(found[2]) and len(losses) == int(found[2])
        assert 'goes on' not in silent and losses == untouched  # the second time from the beginning
    for one in both:
        one.close()
    assert not (folder / 'runs').exists()


@pytest.mark.slow
@pytest.mark.unix
def test_two_kernels_are_killed_in_a_loop_and_in_fit(tmp_path):
    killed_and_run_again(tmp_path, [('loop', LOOP), ('fitted', FIT)], sleep=5)


@pytest.mark.slow
@pytest.mark.unix
def test_two_kernels_with_one_notebook_in_one_folder(tmp_path):
    killed_and_run_again(tmp_path, [('loop', LOOP), ('loop', LOOP)], sleep=5)


def cells_until(notebook, text, last):
    "The code cells of a lesson up to the one that trains; the losses are put under one name"
    cells = [c for c in nb.load(ROOT / 'nbs' / notebook)['cells'] if c['cell_type'] == 'code']
    code = [''.join(c['source']) for c in cells if c['id'] != 'install']
    end = next(k for k, source in enumerate(code) if text in source)
    return ['import matplotlib\nmatplotlib.use("agg")', *code[:end], f'{code[end]}\n{last}']


@pytest.mark.rare
@pytest.mark.unix
def test_two_lessons_are_killed_while_they_train(tmp_path):
    losses = "losses = [loss for _, loss in watched['losses']]"
    first = cells_until('0_first_look.ipynb', "resumable('first_look'", '')
    training = cells_until('5_train/11_module.ipynb', "fit_cell('training'", losses)
    killed_and_run_again(tmp_path, [('first_look', first), ('training', training)])
