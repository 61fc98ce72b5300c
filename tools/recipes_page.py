"""The part of docs/mmrs1m.md about training: commands, and hours and memory by arithmetic. `tools/readers_page.py` writes it."""

from dataclasses import dataclass
from functools import cache
from math import ceil

import torch

from earthgpt_lite.model.packing import build_sequence, collate
from earthgpt_lite.model.presets import on_meta, preset_config, read_preset
from earthgpt_lite.train.run_file import RunOptions, StageOptions, find_run, read_run
from earthgpt_lite.train.stages import prepare_stage
from earthgpt_lite.train.throughput import PEAKS, picture_flops, step_flops

PAIRS, PICTURES = 1_005_842, 200_000  # of MMRS-1M: published; assumed
WORDS, TARGETS = 24, 8  # tokens of a question with its answer, and of the answer: assumed
MFU = 0.3  # share of the peak of a GPU: assumed
RUNTIME = 1.5e9  # bytes that CUDA and PyTorch take for themselves: assumed


@dataclass(frozen=True)
class Recipe:
    "A recipe and the GPUs that it is meant for."

    name: str
    preset: str
    gpu: str  # a name in PEAKS
    memory: int  # GB of one


RECIPES = (
    Recipe('lite-mmrs', 'lite', 'RTX 4090', 24),
    Recipe('base-mmrs', 'base', 'H100', 80),
    Recipe('paper-align', 'paper', 'H100', 80),
    Recipe('paper-tune', 'paper', 'H100', 80),
)


@cache
def settings(name) -> dict:
    "Keys of a recipe with the defaults of those that it leaves out."
    given = dict(read_run(find_run(name)))
    stage = StageOptions(**given.pop('stage')).stage()
    return vars(RunOptions(**given)) | dict(stage=stage)


@cache
def counts(recipe: Recipe) -> dict:
    "Trained and frozen numbers of a recipe, and FLOPs of a picture with its questions."
    model = on_meta(preset_config(recipe.preset))
    with torch.device('meta'):
        prepare_stage(model, settings(recipe.name)['stage'])
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    every = sum(p.numel() for p in model.parameters())
    config, questions = model.config, PAIRS / PICTURES
    pairs = [([7] * (WORDS - TARGETS), [7] * TARGETS)] * round(questions)
    row = build_sequence(pairs, [7] * (1 + config.visual_tokens))
    batch = collate([row], torch.zeros(1, 3, 1, 1, dtype=torch.uint8), 0)
    picture = picture_flops(model)
    return dict(
        trained=trained,
        frozen=every - trained,
        tokens=len(row['input_ids']),
        targets=round(questions) * TARGETS,
        vision=sum(picture.values()),
        flops=step_flops(model, picture, batch),
        text=config.text_config,
    )


def hours(recipe: Recipe) -> float:
    "steps x pictures x FLOPs of a picture / (GPUs x peak x MFU); activations that are made again cost a third more."
    s, c = settings(recipe.name), counts(recipe)
    again = 4 / 3 if s['gradient_checkpointing'] else 1
    work = s['steps'] * s['batch_size'] * (c['vision'] + (c['flops'] - c['vision']) * again)
    return work / (s['devices'] * s['nodes'] * PEAKS[recipe.gpu] * 1e12 * MFU) / 3600


def part(recipe: Recipe) -> int:
    "Pictures that a GPU holds at once."
    s = settings(recipe.name)
    return ceil(s['batch_size'] / (s['accumulate'] * s['devices'] * s['nodes']))


def memory(recipe: Recipe) -> dict:
    "GB of one GPU: weights and optimiser, activations, all with what CUDA takes."
    s, c = settings(recipe.name), counts(recipe)
    shares = s['devices'] * s['nodes'] if s['strategy'] == 'fsdp' else 1
    frozen_bytes = 2 if read_preset(recipe.preset).dtype == 'bfloat16' else 4
    weights = (16 * c['trained'] + frozen_bytes * c['frozen']) / shares
    text, tokens = c['text'], part(recipe) * c['tokens']
    inside = 2 * (8 * text.hidden_size + 4 * text.intermediate_size)  # bytes of a token in a block
    layers = text.num_hidden_layers
    if s['gradient_checkpointing']:
        activations = tokens * (2 * text.hidden_size * layers + inside)
    else:
        activations = tokens * inside * layers
    activations += 8 * part(recipe) * c['targets'] * text.vocab_size
    found = dict(weights=weights, activations=activations, all=weights + activations + RUNTIME)
    return {name: size / 1e9 for name, size in found.items()}


def pictures_s(recipe: Recipe) -> float:
    "Pictures a second that the disks and processors of all GPUs must feed."
    s = settings(recipe.name)
    return s['steps'] * s['batch_size'] / hours(recipe) / 3600


HEAD = (
    'recipe',
    'GPUs',
    'steps',
    'pictures a step (at once on a GPU)',
    'trained numbers',
    'TFLOPs a picture',
    'hours',
    'memory of a GPU: weights + activations, all',
    'pictures a second to be fed',
)


def row(recipe: Recipe) -> str:
    s, c, m = settings(recipe.name), counts(recipe), memory(recipe)
    cells = (
        f'`{recipe.name}`',
        f'{s["devices"] * s["nodes"]} x {recipe.gpu}, {recipe.memory} GB',
        f'{s["steps"]:,}',
        f'{s["batch_size"]} ({part(recipe)})',
        f'{c["trained"] / 1e6:,.1f} M of {(c["trained"] + c["frozen"]) / 1e6:,.0f} M',
        f'{c["flops"] / 1e12:.2f}',
        f'{hours(recipe):,.1f}, *arithmetic*',
        f'{m["weights"]:.1f} + {m["activations"]:.1f}, {m["all"]:.1f} GB, *arithmetic*',
        f'{pictures_s(recipe):,.0f}, *arithmetic*',
    )
    return f'| {" | ".join(cells)} |'


def table() -> str:
    lines = [f'| {" | ".join(HEAD)} |', f'| --- | --- | {" | ".join(["---:"] * (len(HEAD) - 2))} |']
    return '\n'.join([*lines, *map(row, RECIPES)]) + '\n'


TEXT = """## From the downloads to a trained model

Nobody has run these recipes with this package yet. **Every number of hours and memory below is arithmetic**, by the
formulas behind the table; when one is measured, it will say so.

### Data

```text
earthgpt-lite data convert mmrs1m MMRS-1M runs/mmrs
earthgpt-lite data check runs/mmrs
earthgpt-lite data show runs/mmrs
earthgpt-lite data pack runs/mmrs /fast/mmrs-lite --model lite --workers 16
earthgpt-lite data pack runs/mmrs /fast/mmrs-base --model base --workers 16
earthgpt-lite data pack runs/mmrs /fast/mmrs-paper --model paper --workers 16
```

`MMRS-1M` is the folder of the release, with `data/json` in it. `convert` leaves pictures where they are; `check` opens
every one; `pack` puts them into a few large files, at the size that the model looks at. One of the three packings is
enough. A command that was interrupted goes on when it is given again. For captions of any kind, which the paper's second
step wants, in LLaVA's form:

```text
earthgpt-lite data convert llava CAPTIONS runs/captions
earthgpt-lite data pack runs/captions /fast/captions-paper --model paper --workers 16
```

### Training

```text
earthgpt-lite train --config lite-mmrs --data /fast/mmrs-lite
earthgpt-lite train --config base-mmrs --data /fast/mmrs-base
earthgpt-lite train --config paper-align --data /fast/captions-paper
earthgpt-lite train --config paper-tune --data /fast/mmrs-paper
```

For several machines see [several](several.md). A run that was stopped goes on with `--resume`.

### Hours and memory, by arithmetic

{table}
What goes in: {pairs:,} pairs (published) on {pictures:,} pictures (**assumed**: the number of different pictures is in no
source that we know; `data check` counts yours), so {questions:.0f} questions a picture, of {words} tokens each with
the answer, {targets} of them graded (**assumed**). An MFU of {mfu:.0%} of the peak of the GPU's maker in 16 bits
(**assumed**). For `paper-align` the same numbers of questions and words are taken, captions may differ.

- FLOPs of a picture: what one picture costs in the encoders, counted by torch on the meta device, and two for each weight
  and token of the language model, once forward and up to twice backward (`step_flops`, lesson
  [throughput](../nbs/5_train/09_throughput.ipynb)).
- hours = steps x pictures of a step x FLOPs of a picture / (GPUs x peak x MFU); where activations are made again, what
  lies behind the encoders counts four thirds.
- weights = 16 bytes for each trained number (float32: weight, gradient, two of AdamW) + for each frozen one 2 bytes, 4 in `lite`,
  whose preset is float32; with fsdp divided by the number of GPUs.
- activations = tokens at once x layers x 2 x (8 width + 4 inner width) bytes; where they are made again, tokens x (layers x
  2 width + 2 x (8 width + 4 inner width)); and 8 bytes for each graded token and word of the vocabulary.
- all = both + {runtime:.1f} GB for CUDA and PyTorch (**assumed**).
- pictures a second to be fed = pictures of all steps / seconds. `benchmarks/feed.py` measures what your disks and
  processors give.
"""


def page_part() -> str:
    "The part of the page."
    return TEXT.format(
        table=table(),
        pairs=PAIRS,
        pictures=PICTURES,
        questions=PAIRS / PICTURES,
        words=WORDS,
        targets=TARGETS,
        mfu=MFU,
        runtime=RUNTIME / 1e9,
    )


if __name__ == '__main__':
    print(page_part())
