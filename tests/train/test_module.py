"Training: boxes turn with their picture, every step can be made again, and a run that was stopped goes on as if it had not been."

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from earthgpt_lite.boxes.iou import dihedral_boxes
from earthgpt_lite.boxes.text import format_box, parse_boxes
from earthgpt_lite.data.records import Task
from earthgpt_lite.data.sample.world_map import Example
from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.modeling import load, nano
from earthgpt_lite.raster.chips import dihedral_image
from earthgpt_lite.train import callbacks
from earthgpt_lite.train import module as training
from earthgpt_lite.train.augment import SIDES, dihedral_text
from earthgpt_lite.train.callbacks import Interrupted
from earthgpt_lite.train.dataset import InstructionBatches
from earthgpt_lite.train.module import fit, schedule
from earthgpt_lite.train.stages import STAGES, Stage, freeze_map

ways = st.tuples(st.integers(0, 3), st.booleans())


@st.composite
def whole_boxes(draw, side=20):
    x, y = (sorted(draw(st.sets(st.integers(0, side), min_size=2, max_size=2))) for _ in range(2))
    return [x[0], y[0], x[1], y[1]]


# mirrored turns undo themselves
def undone(quarter, mirror):
    return (quarter, True) if mirror else (-quarter % 4, False)


# schedule


def test_schedule_by_hand():
    assert (
        schedule(0, 1000) == pytest.approx(1 / 50, rel=1e-4)
        and schedule(24, None) == 0.5
        and schedule(500, None) == 1
    )
    assert schedule(500, 1000) == pytest.approx(0.5) and schedule(1000, 1000) == schedule(5000, 1000) == 0.02


@given(st.integers(1, 5000), st.integers(0, 6000))
def test_schedule_stays_between_and_falls_after_the_warm_up(total, step):
    assert 0 < schedule(step, total) <= 1
    if step >= 50:
        assert schedule(step + 1, total) <= schedule(step, total)


# turned boxes


@given(whole_boxes(), ways)
def test_a_box_turns_with_its_picture(box, way):
    x1, y1, x2, y2 = box
    picture = np.zeros((20, 20, 1), 'uint8')
    picture[y1:y2, x1:x2] = 1
    rows, columns = np.nonzero(dihedral_image(picture, *way)[..., 0])
    assert np.allclose(
        dihedral_boxes(np.array([box]) / 20, *way)[0] * 20,
        [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1],
    )


@given(st.lists(whole_boxes(100), min_size=1, max_size=3), ways)
def test_turning_there_and_back(boxes, way):
    boxes = np.array(boxes) / 100
    assert np.allclose(dihedral_boxes(dihedral_boxes(boxes, *way), *undone(*way)), boxes)
    picture = np.arange(75, dtype='uint8').reshape(5, 5, 3)
    assert (dihedral_image(dihedral_image(picture, *way), *undone(*way)) == picture).all()
    text = 'a lake at ' + ' and '.join(map(format_box, boxes)) + '?'
    moved = dihedral_text(text, *way)
    assert dihedral_text(moved, *undone(*way)) == text
    assert np.allclose([b.box for b in parse_boxes(moved).boxes], dihedral_boxes(boxes, *way), atol=1e-9)


def test_words_without_boxes_stay():
    for text in ('is there more water than forest?', 'scene [a, b]', ''):
        assert dihedral_text(text, 1, True) == text


@pytest.mark.parametrize(
    'text',
    [
        'the lake [0.1, 0.2, 0.3, 0.4]',
        '[0.100,0.200,0.300,0.400]',
        'a ship [0.10,0.20,0.30,0.20,0.30,0.40,0.10,0.40]',
        '[0.1 0.2 0.3 0.4]',
        '[1e-1,+0.20,.3,0.400]',
    ],
)
def test_a_box_in_another_writing_turns_too(text):
    moved = dihedral_text(text, 1, False)
    assert dihedral_text(text, 0, False) == text == dihedral_text(text, 4, False)
    box = np.array(parse_boxes(moved).boxes[0].box).reshape(-1, 2)
    assert np.allclose([*box.min(0), *box.max(0)], dihedral_boxes([0.1, 0.2, 0.3, 0.4], 1, False)[0])


@given(whole_boxes(), ways)
def test_four_corners_turn_and_keep_their_sense(box, way):
    x1, y1, x2, y2 = np.array(box) / 20
    corners = [x1, y1, x2, y1, x2, y2, x1, y2]  # clockwise
    text = '[' + ','.join(f'{v:.2f}' for v in corners) + ']'
    (found,) = parse_boxes(dihedral_text(text, *way)).boxes
    points = found.box.reshape(4, 2)
    assert np.allclose([*points.min(0), *points.max(0)], dihedral_boxes([x1, y1, x2, y2], *way)[0])
    (a, b), (c, d) = points[1] - points[0], points[2] - points[1]
    assert a * d - b * c > 0, 'clockwise still'


def test_a_box_keeps_all_its_digits():
    assert (
        dihedral_text('[0.1,0.25,0.5,1]', 0, True) == '[0.50,0.25,0.90,1.00]'
        and dihedral_text('[0,0,0.125,1]', 0, True) == '[0.875,0.000,1.000,1.000]'
    )


@pytest.mark.parametrize('text', ['a ship [10,20,30,40]', 'in [2020]', '[0.1,0.2,0.3]', '[0.1,0.2,0.3,x4]'])
def test_what_cannot_be_turned_is_refused_only_where_it_would_be(text):
    with pytest.raises(BadInput, match='four or eight numbers from 0 to 1'):
        dihedral_text(text, 1, False)
    assert dihedral_text(text, 0, False) == text


def test_words_that_do_not_turn():
    for text in (
        'left of it',
        'the pier above the road',
        'below',
        'in front of the hall',
        'the NE corner',
        'ships pointing up',
        'a vertical road',
        'counter-clockwise',
        'behind the dam',
        'the top',
        'northern',
    ):
        assert SIDES.search(text), text
    for text in (
        'made up of houses',
        'a new bridge over water',
        'please give the horizontal bounding box',
        'seen there',
        'in the middle',
    ):
        assert not SIDES.search(text), text


# batches


def test_a_batch_is_a_function_of_its_step(tiny, few):
    config, tokenizer = tiny[0].config, tiny[1]
    a, b = (InstructionBatches(few['train'], tokenizer, config, 5, seed=4) for _ in range(2))
    forward, backward = [a.batch(k) for k in range(9)], [b.batch(k) for k in reversed(range(9))][::-1]
    for x, y in zip(forward, backward):
        assert all(torch.equal(v, w) for (_, v), (_, w) in zip(x.items(), y.items()))
    b.start = 6
    assert torch.equal(next(iter(b)).pixel_values, forward[6].pixel_values)
    other = InstructionBatches(few['train'], tokenizer, config, 5, seed=5).batch(0)
    assert not torch.equal(other.pixel_values, forward[0].pixel_values)


def test_a_pass_shows_every_picture_once_and_the_next_in_another_order(tiny, few):
    n = len(few['train'])
    batches = InstructionBatches(few['train'], tiny[1], tiny[0].config, n, augment=False)
    own = {bytes(e.image.transpose(2, 0, 1).tobytes()) for e in few['train']}
    orders = [[p.numpy().tobytes() for p in batches.batch(k).pixel_values] for k in (0, 1)]
    assert all(set(o) == own for o in orders) and orders[0] != orders[1]


def test_boxes_in_a_batch_fit_their_turned_pictures(tiny):
    "A bright square on dark ground; the answer in the batch must be where it is seen"
    image = np.zeros((64, 64, 3), 'uint8')
    image[6:26, 32:58] = 255
    from earthgpt_lite.data.records import Turn

    example = Example(
        image,
        [Turn('where is the lake?', format_box(np.array([32, 6, 58, 26]) / 64), Task.GROUNDING)],
        'a',
        'train',
    )
    # one picture a row
    batches, seen = InstructionBatches([example], tiny[1], tiny[0].config, 8, sequence_length=1), set()
    for step in range(3):
        batch = batches.batch(step)
        for pixels, labels in zip(batch.pixel_values, batch.labels):
            rows, columns = np.nonzero(pixels[0].numpy())
            (found,) = parse_boxes(tiny[1].decode(labels[labels >= 0], skip_special_tokens=True)).boxes
            assert (
                np.abs(found.box * 64 - [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).max()
                < 0.7
            )
            seen.add(tuple(found.box))
    assert len(seen) > 4


def test_nothing_to_train_on_is_refused(tiny, few):
    with pytest.raises(BadInput, match='no examples'):
        InstructionBatches([], tiny[1], tiny[0].config)
    with pytest.raises(BadInput, match='global/x.*answer'):
        InstructionBatches(
            [
                Example(
                    few['train'][0].image, [type(few['train'][0].turns[0])('what?', '')], 'global/x', 'train'
                )
            ],
            tiny[1],
            tiny[0].config,
        ).batch(0)


# fit

SHORT = dict(batch_size=2, device='cpu', precision='32-true', progress=False)


def fresh(tokenizer, seed=0):
    torch.manual_seed(seed)
    return nano(tokenizer)


@pytest.fixture(scope='module')
def whole(tiny, few, tmp_path_factory):
    "Six steps without interruption"
    model = fresh(tiny[1])
    return model, fit(model, tiny[1], few['train'], tmp_path_factory.mktemp('whole'), steps=6, **SHORT)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


def test_what_a_fit_reports(whole, tiny, few):
    model, run = whole
    assert (
        run['steps'] == 6
        and run['images'] == 12
        and [s for s, _ in run['losses']] == list(range(6))
        and not model.training
    )
    batches = InstructionBatches(few['train'], tiny[1], model.config, 2)
    assert run['pairs'] == sum(int((batches.batch(k).input_ids == 3).sum()) for k in range(6))
    assert run['seconds'] > 0 and run['peak_memory_mb'] > 100 and run['precision'] == '32-true'


def test_the_same_seed_gives_the_same_run_and_another_does_not(whole, tiny, few, tmp_path):
    again, other = fresh(tiny[1]), fresh(tiny[1])
    assert fit(again, tiny[1], few['train'], tmp_path / 'a', steps=6, **SHORT)['losses'] == whole[1][
        'losses'
    ] and same(again, whole[0])
    assert (
        fit(other, tiny[1], few['train'], tmp_path / 'b', steps=1, seed=1, **SHORT)['losses'][0]
        != whole[1]['losses'][0]
    )


def interrupt(monkeypatch, at, error=KeyboardInterrupt):
    step = training.EarthGPTModule.training_step

    def stopping(self, batch, index):
        if self.global_step == at:
            raise error
        return step(self, batch, index)

    monkeypatch.setattr(training.EarthGPTModule, 'training_step', stopping)


@pytest.mark.parametrize('at', [1, 4])
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(whole, tiny, few, tmp_path, monkeypatch, at):
    model = fresh(tiny[1])
    with monkeypatch.context() as patch:
        interrupt(patch, at)
        with pytest.raises(Interrupted, match=f'step {at}'):
            fit(model, tiny[1], few['train'], tmp_path, steps=6, **SHORT)
    assert (tmp_path / 'last.ckpt').is_file()
    kept, _ = load(tmp_path)
    assert same(kept, model) and not same(kept, fresh(tiny[1]))
    later = fresh(tiny[1], seed=9)  # another start: all must come from the checkpoint
    run = fit(later, tiny[1], few['train'], tmp_path, steps=6, resume=True, **SHORT)
    assert run['steps'] == 6 and run['losses'] == whole[1]['losses'] and same(later, whole[0])


def test_minutes_fix_the_steps_and_an_interrupted_run_keeps_them(tiny, few, tmp_path, monkeypatch):
    model = fresh(tiny[1])
    with monkeypatch.context() as patch:
        interrupt(patch, 17)
        with pytest.raises(Interrupted):
            fit(model, tiny[1], few['train'], tmp_path, minutes=0.2, **SHORT)
    kept = torch.load(tmp_path / 'last.ckpt', weights_only=False)['run']
    assert kept['total'] > 17 and len(kept['losses']) == 17
    # no limit by the clock
    monkeypatch.setattr(
        callbacks.TimeBudget,
        'on_train_start',
        lambda self, trainer, module: (setattr(self, 'start', float('inf')), setattr(self, 'mark', 0)),
    )
    monkeypatch.setattr(
        training.EarthGPTModule,
        'on_load_checkpoint',
        lambda self, c: (setattr(self, 'total', 20), setattr(self, 'losses', c['run']['losses'])),
    )
    assert fit(model, tiny[1], few['train'], tmp_path, minutes=0.2, resume=True, **SHORT)['steps'] == 20


def test_minutes_are_kept_to(tiny, few, tmp_path):
    run = fit(fresh(tiny[1]), tiny[1], few['train'], tmp_path, minutes=0.07, **SHORT)
    assert run['steps'] > 1 and run['seconds'] < 4.2 * 2.5


def test_another_error_is_not_an_interruption(tiny, few, tmp_path, monkeypatch):
    interrupt(monkeypatch, 1, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        fit(fresh(tiny[1]), tiny[1], few['train'], tmp_path, steps=3, **SHORT)
    assert not (tmp_path / 'last.ckpt').exists()


def test_a_loss_that_is_no_number_stops_the_run(tiny, few, tmp_path):
    model = fresh(tiny[1])
    with torch.no_grad():
        model.projector.map.weight[0, 0] = float('nan')
    with pytest.raises(BadInput, match='loss is nan at step 0: lower the learning rate'):
        fit(model, tiny[1], few['train'], tmp_path, steps=3, **SHORT)


@pytest.mark.parametrize('said', [dict(), dict(steps=2, minutes=1.0)])
def test_either_minutes_or_steps(tiny, few, tmp_path, said):
    with pytest.raises(BadInput, match='minutes or steps'):
        fit(tiny[0], tiny[1], few['train'], tmp_path, **said)


def test_nothing_to_resume(tiny, few, tmp_path):
    with pytest.raises(BadInput, match='nothing to resume.*last.ckpt'):
        fit(tiny[0], tiny[1], few['train'], tmp_path, steps=1, resume=True)


@pytest.mark.parametrize('strategy', ['deepspeed_stage_2', 'model_parallel', 'fsdp_cpu_offload'])
def test_a_strategy_that_is_not_built_is_refused(tiny, few, tmp_path, strategy):
    with pytest.raises(BadInput, match=f"strategy '{strategy}' is not built: choose auto, ddp, or fsdp"):
        fit(tiny[0], tiny[1], few['train'], tmp_path / 'no', steps=1, strategy=strategy)
    assert not (tmp_path / 'no').exists()


@pytest.mark.parametrize(
    'more,said',
    [
        (dict(compile=True), 'compile and strategy fsdp'),
        (dict(precision='16-mixed'), 'not in 16-mixed: say precision 32-true'),
    ],
)
def test_what_split_weights_do_not_go_with_is_refused(tiny, few, tmp_path, more, said):
    with pytest.raises(BadInput, match=said):
        fit(tiny[0], tiny[1], few['train'], tmp_path / 'no', steps=1, device='cpu', strategy='fsdp', **more)
    assert not (tmp_path / 'no').exists()


# stages


@pytest.mark.parametrize('trains', [('head',), ()])
def test_a_stage_that_trains_nothing_is_refused(tiny, few, tmp_path, trainable):
    with pytest.raises(BadInput, match="'mine' trains nothing.*vision_tower, projector, language"):
        fit(deepcopy(tiny[0]), tiny[1], few['train'], tmp_path, Stage('mine', trainable), steps=1, **SHORT)


def test_a_stage_changes_only_what_it_trains(tiny, few, tmp_path):
    before, after = fresh(tiny[1]), fresh(tiny[1])
    fit(after, tiny[1], few['train'], tmp_path, STAGES['project'], steps=2, **SHORT)
    moved = {
        n.split('.')[0]
        for (n, p), q in zip(before.named_parameters(), after.parameters())
        if not torch.equal(p, q)
    }
    assert moved == {'projector'}


def test_decay_is_on_matrices_only_and_every_free_parameter_is_in_one_group(tiny):
    model = deepcopy(tiny[0])
    STAGES['scratch'].freeze(model)
    matrices, vectors = STAGES['scratch'].groups(model)
    assert matrices['weight_decay'] > 0 == vectors['weight_decay']
    assert all(p.dim() > 1 for p in matrices['params']) and all(p.dim() < 2 for p in vectors['params'])
    # but DINOv2's mask token
    assert (
        len(matrices['params'] + vectors['params'])
        == sum(p.requires_grad for p in model.parameters())
        == len(list(model.parameters())) - 1
    )


def test_the_map_of_what_is_frozen(tiny):
    model = deepcopy(tiny[0])
    STAGES['project'].freeze(model)
    rows = {name: rest for name, *rest in freeze_map(model)}
    assert sum(r[0] for r in rows.values()) == model.num_parameters() and [
        n for n, r in rows.items() if r[1]
    ] == ['projector']
    assert rows['projector'][2] == 8 * rows['projector'][0]
