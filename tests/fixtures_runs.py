"""Training runs in processes of their own, for the tests of resume and of several processes.

    python tests/fixtures_runs.py kill FOLDER SEED POINTS [WORKERS]  # kill runs, resume them; one line of JSON for each; with another number of workers each time, or with this
    python tests/fixtures_runs.py ranks FOLDER DEVICES STEPS  # one run on some processes
    python tests/fixtures_runs.py split FOLDER DEVICES STEPS  # the same with the weights split over them; stopped half-way, where FOLDER/stop is there
    python tests/fixtures_runs.py mixed FOLDER DEVICES STEPS  # stage align over FOLDER/../base, which is in 16 bits; on several processes split, and only the first one reads it
    python tests/fixtures_runs.py tuned FOLDER DEVICES STEPS  # stage tune, activations made again; on several processes the weights are split
    python tests/fixtures_runs.py orphans FOLDER KILLED       # two workers, whose numbers are told; their process is killed (1), or ends while they work (0)

`kill` imports everything once and forks: a child is killed, another goes on. The parent never trains, because a process that has trained cannot be forked.
"""

import json
import multiprocessing
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from lightning.pytorch.callbacks import Callback

sys.path.insert(0, str(Path(__file__).parent))
from fixtures_training import examples, small, tokenizer, tuples

from earthgpt_lite.model.loading import load
from earthgpt_lite.model.modeling import save
from earthgpt_lite.train import checkpoints
from earthgpt_lite.train.callbacks import Interrupted, Validation
from earthgpt_lite.train.module import EarthGPTModule
from earthgpt_lite.train.dataset import InstructionBatches
from earthgpt_lite.train.loader import StepKeys, make_loader
from earthgpt_lite.train.fit import fit
from earthgpt_lite.train.stages import STAGES, tune_stage

STEPS = 14
SHORT = dict(batch_size=6, device='cpu', precision='32-true', progress=False, checkpoint_every=2)


def train(folder, resume=False, seed=0, **options):
    tok = tokenizer()
    model = small(tok, seed)
    model.config.text_config.attention_dropout = 0.2  # chance must come back too
    for layer in model.language.model.layers:
        layer.self_attn.attention_dropout = 0.2
    run = fit(model, tok, examples(), folder, resume=resume, **{'steps': STEPS} | SHORT | options)
    return run['losses'], {n: p.clone() for n, p in model.state_dict().items()}


def child(work):
    "Run in a fork; the way it ended: exit status, or minus the signal"
    pid = os.fork()
    if not pid:
        try:
            work()
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


def ended(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def whole(folder, **options):
    torch.save(train(folder, **options), folder / 'result.pt')


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def arm(place, step):
    "Let this process kill itself at a place of a step"

    def at(owner, name, reached):
        old = getattr(owner, name)

        def new(self, *a, **k):
            if reached(self):
                die()
            return old(self, *a, **k)

        setattr(owner, name, new)

    if place == 'forward':
        at(EarthGPTModule, 'training_step', lambda m: m.global_step == step)
    if place == 'update':  # half of the weights have moved
        old = torch.optim.AdamW.step

        def new(self, closure=None):
            if closure:
                closure()
            if self.state and int(next(iter(self.state.values()))['step']) == step:
                for g in self.param_groups[:1]:
                    for p in g['params']:
                        p.data += 1
                die()
            return old(self)

        torch.optim.AdamW.step = new
    if place == 'write':  # half of the checkpoint is on the disk
        save, count = torch.save, [0]

        def new(state, f):
            count[0] += 1
            if count[0] > step // 2 and hasattr(f, 'write'):
                f.write(b'half')
                f.flush()
                die()
            save(state, f)

        checkpoints.torch.save = new
    if place == 'rename':
        second = checkpoints._keep_previous
        checkpoints._keep_previous = lambda *a: (second(*a), die())


def kill(folder, seed, points, workers=None):
    rng = random.Random(seed)
    (folder / 'whole').mkdir(parents=True)
    start = time.time()
    assert ended(child(lambda: whole(folder / 'whole'))) == 0
    took = time.time() - start
    losses, state = torch.load(folder / 'whole' / 'result.pt')
    for k in range(points):
        place, step = (
            rng.choice(('forward', 'update', 'write', 'rename', 'any', 'any')),
            rng.randrange(1, STEPS - 1),
        )
        here = folder / str(k)
        here.mkdir()
        before, after = (k % 3, (k + 1) % 3) if workers is None else (workers, workers)
        pid = child(lambda: (arm(place, step), whole(here, workers=before)))
        if place == 'any':
            time.sleep(rng.uniform(0.2, 1) * took)
            os.kill(pid, signal.SIGKILL)
        status, kept = ended(pid), sorted(p.name for p in here.glob('*.ckpt'))
        at = (
            torch.load(here / 'last.ckpt', weights_only=False)['global_step'] if 'last.ckpt' in kept else None
        )
        again = ended(
            child(
                lambda: whole(
                    here, resume='last.ckpt' in kept, seed=9 if 'last.ckpt' in kept else 0, workers=after
                )
            )
        )
        new, weights = torch.load(here / 'result.pt') if again == 0 else ([], {})
        print(
            json.dumps(
                dict(
                    place=place,
                    step=step,
                    status=status,
                    kept=kept,
                    at=at,
                    again=again,
                    losses=new == losses,
                    weights=bool(weights) and all(torch.equal(weights[n], state[n]) for n in state),
                )
            ),
            flush=True,
        )


def ranks(folder, devices, steps, strategy=None, data=None, **options):
    tok = tokenizer()
    model = small(tok)
    run = fit(
        model,
        tok,
        data or examples(23),
        folder,
        steps=steps,
        batch_size=7,
        device='cpu',
        precision='32-true',
        progress=False,
        devices=devices,
        strategy=strategy or ('ddp' if devices > 1 else 'auto'),
        **dict(resume=(folder / 'last.ckpt').exists()) | options,
    )
    if int(os.environ.get('LOCAL_RANK', 0)) == 0:
        torch.save((run['losses'], model.state_dict()), folder / 'result.pt')
    return model, tok


def several(folder, devices, steps):
    ranks(folder, devices, steps, data=tuples(23))


def tuned(folder, devices, steps):
    ranks(
        folder,
        devices,
        steps,
        'fsdp' if devices > 1 else None,
        stage=tune_stage(),
        gradient_checkpointing=True,
    )


class Look(Callback):
    "What share of the weights each process holds; stops the run where it is told to."

    def __init__(self, folder, stop):
        self.folder, self.stop = folder, stop

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        held = sum(p.to_local().numel() for p in module.model.parameters()) / sum(
            p.numel() for p in module.model.parameters()
        )
        (self.folder / f'share-{trainer.global_rank}').write_text(f'{held}')
        if trainer.global_step == self.stop:
            raise KeyboardInterrupt


class Stop(Callback):
    "Ends a run at a step; notes in which types a process holds its share."

    def __init__(self, folder, stop):
        self.folder, self.stop = folder, stop

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        held = sorted({f'{p.dtype} {p.requires_grad} {type(p).__name__}' for p in module.model.parameters()})
        (self.folder / f'types-{trainer.global_rank}').write_text('\n'.join(held))
        if trainer.global_step == self.stop:
            raise KeyboardInterrupt


def mixed(folder, devices, steps):
    rank = int(os.environ.get('LOCAL_RANK', 0))
    model, tok = load(folder.parent / 'base', 'cpu', dtype=None, meta=rank > 0)
    stop = (folder / 'stop').exists() and not (folder / 'last.ckpt').exists()
    try:
        run = fit(
            model,
            tok,
            examples(23),
            folder,
            STAGES['align'],
            steps=steps,
            batch_size=7,
            device='cpu',
            precision='bf16-mixed',
            progress=False,
            devices=devices,
            strategy='fsdp' if devices > 1 else 'auto',
            resume=(folder / 'last.ckpt').exists(),
            callbacks=[Stop(folder, steps // 2 if stop else -1)],
        )
    except Interrupted:
        return
    (folder / f'device-{rank}').write_text(model.device.type)
    if rank == 0:
        save(model, tok, folder / 'saved')
        torch.save(run['losses'], folder / 'result.pt')


def split(folder, devices, steps):
    stop = (folder / 'stop').exists() and not (folder / 'last.ckpt').exists()
    held = Validation(
        examples(5, seed=3), tokenizer(), validate_every=8, batch_size=2, show=1, say=lambda text: None
    )
    try:
        model, tok = ranks(
            folder, devices, steps, 'fsdp', callbacks=[Look(folder, steps // 2 if stop else -1), held]
        )
    except Interrupted:
        return
    if int(os.environ.get('LOCAL_RANK', 0)) == 0:
        save(model, tok, folder / 'saved')
        (folder / 'held').write_text(json.dumps(held.history))


def orphans(folder, killed):
    global left
    tok = tokenizer()
    batches = InstructionBatches(examples(), tok, small(tok).config, 6)
    left = iter(make_loader(batches, StepKeys(0, [0]), workers=2))
    next(left)
    print([process.pid for process in multiprocessing.active_children()], flush=True)
    if killed:
        die()


if __name__ == '__main__':
    what, folder, *numbers = sys.argv[1:]
    torch.set_num_threads(1)
    known = dict(kill=kill, orphans=orphans, ranks=ranks, tuned=tuned, split=split, mixed=mixed)
    known['several'] = several
    known[what](Path(folder), *map(int, numbers))
