"The learning rate finder: the model stays as it was, known curves give known rates, a loss that explodes ends the run."

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
import torch.nn as nn
from fixtures_training import examples, small, tokenizer as make_tokenizer
from hypothesis import given, strategies as st

from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.modeling import EarthGPTOutput
from earthgpt_lite.train.lr_finder import local_slope, lr_range_test, short_run, suggest_lr
from earthgpt_lite.train.stages import STAGES, Stage, tune_stage

SCRATCH = STAGES['scratch']


@pytest.fixture(scope='module')
def tok():
    return make_tokenizer()


class Toy(nn.Module):
    "As much of a model as a run needs: two vectors that begin at 0 and belong at 3, whatever the batch says"

    def __init__(self, config, dead=math.inf):
        super().__init__()
        self.config, self.device, self.dead = config, torch.device('cpu'), dead
        self.projector, self.vision_tower = (nn.ParameterDict(dict(w=torch.zeros(4))) for _ in range(2))

    def note_dtypes(self):
        pass

    def forward(self, **batch):
        loss = sum(0.5 * (part['w'] - 3).square().mean() for part in (self.projector, self.vision_tower))
        return EarthGPTOutput(loss=loss if self.projector['w'].abs().max() < self.dead else loss * math.nan)


@pytest.fixture(scope='module')
def config(tok):
    return small(tok).config


# the model that is given


@pytest.mark.parametrize('stage', [SCRATCH, STAGES['project'], tune_stage()], ids=lambda s: s.name)
@pytest.mark.parametrize('training', [True, False])
def test_the_model_stays_as_it_was(tok, stage, training):
    model = small(tok).train(training)
    for n, p in model.named_parameters():
        p.requires_grad = 'norm' in n
    model.projector.eval()
    before, modes = deepcopy(model.state_dict()), [m.training for m in model.modules()]
    torch.manual_seed(7)
    chance = torch.random.get_rng_state()
    lr_range_test(model, tok, examples(), stage, steps=30, batch_size=4)
    assert list(model.state_dict()) == list(before) and all(
        torch.equal(t, before[n]) for n, t in model.state_dict().items()
    )
    assert modes == [m.training for m in model.modules()]
    assert all(p.grad is None and p.requires_grad == ('norm' in n) for n, p in model.named_parameters())
    assert torch.equal(chance, torch.random.get_rng_state()), 'the dice of whoever called were thrown'


def test_the_copy_has_learned_what_the_stage_trains_and_nothing_else(tok):
    model = small(tok)
    copy, losses = short_run(model, tok, examples(), STAGES['project'], [1e-2] * 15, batch_size=6)
    changed = {
        n.split('.')[0]
        for (n, a), b in zip(copy.named_parameters(), model.parameters())
        if not torch.equal(a, b)
    }
    assert changed == {'projector'} and not copy.training and np.mean(losses[-3:]) < np.mean(losses[:3])


def test_the_same_seed_gives_the_same_curve(tok):
    model = small(tok)
    for m in model.language.model.layers:
        m.self_attn.attention_dropout = 0.2

    def curve(seed):
        return lr_range_test(model, tok, examples(), SCRATCH, steps=30, batch_size=4, seed=seed)

    (rates, losses), (_, again), (_, other) = curve(3), curve(3), curve(4)
    assert (losses == again).all() and (losses[: len(other)] != other[: len(losses)]).any()
    assert np.allclose(rates[1:] / rates[:-1], 1e6 ** (1 / 29)) and rates[0] == pytest.approx(1e-6)


# known answers


@given(st.floats(-5, -2), st.floats(2.5, 4), st.integers(0, 99))
def test_the_steepest_place_of_a_known_curve(place, width, seed):
    "A fall in the shape of an S with its middle at a known rate, noise on it, and an explosion behind"
    rates = np.geomspace(1e-7, 1, 100)
    x = np.log10(rates) - place
    losses = (
        6
        - 4 / (1 + np.exp(-width * x))
        + 2 * np.exp(3 * np.minimum(x - 1.5, 1))
        + 0.05 * np.random.default_rng(seed).standard_normal(100)
    )
    assert abs(np.log10(suggest_lr(rates, losses)) - place) < 0.4


def test_a_straight_line_is_its_own_mean_and_slope():
    values, slopes = local_slope(5 - 0.25 * np.arange(30), 11)
    assert (
        len(values) == len(slopes) == 20
        and np.allclose(values, 5 - 0.25 * np.arange(5, 25))
        and np.allclose(slopes, -0.25)
    )


def test_a_fall_after_the_explosion_does_not_count():
    rates = np.geomspace(1e-6, 1, 100)
    losses = np.concatenate(
        [np.full(30, 6.0), np.linspace(6, 4, 30), np.linspace(4, 30, 20), np.linspace(30, 8, 20)]
    )
    assert rates[30] < suggest_lr(rates, losses) < rates[60]


def test_where_it_can_be_computed(tok, config):
    "AdamW moves each number by about the rate, so the way to 3 is done where the sum of all rates is 3: at 3 (q - 1) / q, q from rate to rate"
    rates, losses = lr_range_test(
        Toy(config),
        tok,
        examples(),
        Stage('toy', ('projector', 'vision_tower'), 1.0),
        low=1e-5,
        high=10.0,
        steps=120,
        batch_size=2,
    )
    q = rates[1] / rates[0]
    there = 3 * (q - 1) / q
    assert (
        rates[losses.argmin()] == pytest.approx(there, rel=0.25)
        and there / 6 < suggest_lr(rates, losses) < there
    )


def test_parts_keep_the_ratio_of_their_rates(tok, config):
    "The first step of AdamW is as long as the rate"
    stage = Stage('toy', ('projector', 'vision_tower'), 1e-3, rates=dict(fusion=1e-2))
    copy, _ = short_run(Toy(config), tok, examples(), stage, [0.002], batch_size=2)
    assert torch.allclose(copy.projector['w'], torch.tensor(0.002), rtol=1e-3) and torch.allclose(
        copy.vision_tower['w'], torch.tensor(0.02), rtol=1e-3
    )


# the end


def test_a_loss_that_explodes_ends_the_run(tok):
    rates, losses = lr_range_test(
        small(tok), tok, examples(), SCRATCH, low=1e-3, high=1e3, steps=40, batch_size=4
    )
    assert 5 <= len(losses) == len(rates) < 40 and np.isfinite(losses).all() and rates[-1] < 1e3
    assert (
        len(short_run(small(tok), tok, examples(), SCRATCH, np.geomspace(1e-3, 10, 40), batch_size=4)[1])
        == 40
    ), 'a plain run goes on as long as the loss is a number'


def test_a_loss_that_is_no_number_ends_the_run(tok, config):
    rates, losses = lr_range_test(
        Toy(config, dead=1.0),
        tok,
        examples(),
        Stage('toy', ('projector', 'vision_tower'), 1.0),
        steps=60,
        batch_size=2,
    )
    assert 20 < len(losses) == len(rates) < 60 and np.isfinite(losses).all()


def test_what_is_no_curve_is_refused():
    rates, rng = np.geomspace(1e-6, 1, 60), np.random.default_rng(0)
    with pytest.raises(BadInput, match='7 losses are too few.*begin at a lower rate'):
        suggest_lr(rates[:7], np.ones(7))
    for losses in (np.linspace(2, 9, 60), np.full(60, 3.0), 3 + 0.1 * rng.standard_normal(60)):
        with pytest.raises(BadInput, match='falls at no rate'):
            suggest_lr(rates, losses)
    with pytest.raises(BadInput, match='60 rates and 59 losses'):
        suggest_lr(rates, np.ones(59))


@pytest.mark.parametrize(
    'wrong,message',
    [
        (dict(low=1e-2, high=1e-3), 'from 0.01 to 0.001: give two rates above 0'),
        (dict(low=0.0), 'from 0 to 1'),
        (dict(low=-1.0), 'from -1 to 1'),
        (dict(high=math.inf), 'to inf'),
        (dict(high=math.nan), 'to nan'),
        (dict(low=1e-3, high=1e-3), 'the second larger'),
        (dict(steps=29), '29 steps are too few.*give 30 or more'),
    ],
)
def test_rates_that_make_no_range_are_refused(tok, config, wrong, message):
    with pytest.raises(BadInput, match=message):
        lr_range_test(Toy(config), tok, examples(), SCRATCH, **wrong)


def test_stages_and_data_that_make_no_run_are_refused(tok):
    model = small(tok)
    with pytest.raises(BadInput, match='trains nothing'):
        lr_range_test(model, tok, examples(), Stage('typo', ('projecter',)))
    with pytest.raises(BadInput, match="'still' has no rate above 0"):
        lr_range_test(model, tok, examples(), Stage('still', lr=0.0))
    with pytest.raises(BadInput, match='no examples'):
        lr_range_test(model, tok, [], SCRATCH)
