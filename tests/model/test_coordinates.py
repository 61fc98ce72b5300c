"The distance beside cross entropy: its value, its gradient, where it counts, and that it is nothing unless asked for."

import pytest
import torch
import torch.nn.functional as F

from earthgpt_lite.data.records import Task, Turn
from earthgpt_lite.model.coordinates import coordinate_loss, expected_coordinate, init_position_scale
from earthgpt_lite.model.modeling import nano
from earthgpt_lite.model.packing import build_sequence, collate
from earthgpt_lite.model.processor import picture_prefix
from earthgpt_lite.model.tokens import ChatFormat, IGNORE, encode_turns, train_tokenizer


def test_expected_coordinate_is_the_mean():
    logits = torch.randn(7, 101, dtype=torch.float64)
    by_hand = sum(p * i / 100 for i, p in enumerate(logits.softmax(-1).T))
    assert torch.allclose(expected_coordinate(logits), by_hand, atol=1e-12)


def test_distance_by_hand_and_only_of_coordinates():
    logits, target = torch.randn(5, 120), torch.tensor([3, 10, 110, 111, 60])  # coordinates are 10 to 110
    rows = [(r, t - 10) for r, t in enumerate(target.tolist()) if 10 <= t <= 110]
    by_hand = sum(
        abs((logits[r, 10:111].softmax(-1) * torch.arange(101) / 100).sum().item() - t / 100) for r, t in rows
    )
    assert len(rows) == 3 and coordinate_loss(logits, target, 10).item() == pytest.approx(by_hand, abs=1e-5)
    logits.requires_grad_()
    coordinate_loss(logits, target, 10).backward()
    assert (
        not logits.grad[[0, 3]].any()
        and not logits.grad[:, :10].any()
        and not logits.grad[:, 111:].any()
        and logits.grad[[1, 2, 4]].abs().sum() > 0
    )


def test_a_step_downhill_brings_the_mean_nearer():
    logits = torch.zeros(1, 101, requires_grad=True)
    before = coordinate_loss(logits, torch.tensor([20]), 0)
    before.backward()
    assert coordinate_loss(logits - 5 * logits.grad, torch.tensor([20]), 0) < before


@pytest.fixture(scope='module')
def tokenizer():
    return train_tokenizer([' where is the island? yes no [0.10,0.20,0.30,0.40]'] * 3)


def _batch(model, tokenizer, answer):
    row = build_sequence(
        encode_turns(tokenizer, [Turn('where is the island?', answer, Task.GROUNDING)], ChatFormat()),
        picture_prefix(model.config, tokenizer),
    )
    return collate(
        [row],
        torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)),
        tokenizer.pad_token_id,
    )


@pytest.mark.parametrize('answer, counted', [('[0.10,0.20,0.30,0.40]', 4), ('yes', 0)])
def test_the_loss_of_the_model_is_cross_entropy_and_the_distance(tokenizer, answer, counted):
    torch.manual_seed(0)
    model = nano(tokenizer, coordinate_loss_weight=7.0).eval()
    batch = _batch(model, tokenizer, answer)
    with torch.no_grad():
        whole = model(**vars(batch))
        logits = model(**{k: v for k, v in batch.items() if k != 'labels'}).logits[:, :-1]
        model.config.coordinate_loss_weight = 0.0
        plain = model(**vars(batch))
    target = batch.labels[:, 1:]
    graded = target != IGNORE
    first = tokenizer.convert_tokens_to_ids('0.00')
    assert plain.loss_sum.item() == pytest.approx(
        F.cross_entropy(logits[graded], target[graded], reduction='sum').item(), rel=1e-5
    )
    assert (whole.loss_sum - plain.loss_sum).item() == pytest.approx(
        7 * coordinate_loss(logits[graded], target[graded], first).item(), rel=1e-4, abs=1e-4
    )
    assert (
        (whole.loss_sum > plain.loss_sum) == (counted > 0)
        and model.config.first_coordinate == first
        and tokenizer.convert_tokens_to_ids('1.00') == first + 100
    )


def test_loud_positions_only_where_there_are_some(tokenizer):
    torch.manual_seed(0)
    quiet, loud = nano(tokenizer, coordinate_loss_weight=0.0), nano(tokenizer, coordinate_loss_weight=1.0)
    spread = lambda m: m.vision_tower.encoders['vit'].embeddings.position_embeddings.std().item()
    assert spread(quiet) < 0.05 and abs(spread(loud) - 0.3) < 0.02
    init_position_scale(nano(tokenizer, vision_encoders='cnn').vision_tower)  # nothing to do, nothing broken
    init_position_scale(nano(tokenizer, vision_encoders='vit').vision_tower)


def test_the_choice_is_saved_and_comes_back(tokenizer, tmp_path):
    from earthgpt_lite.model.loading import load
    from earthgpt_lite.model.modeling import save

    model = nano(tokenizer, coordinate_loss_weight=3.0, init_scale=0.1)
    save(model, tokenizer, tmp_path / 'm')
    again, _ = load(tmp_path / 'm')
    assert (
        again.config.coordinate_loss_weight == 3.0
        and again.config.first_coordinate == model.config.first_coordinate
    )
