"Stages and adapters: what trains, what stays the same to the bit, what is refused."

from dataclasses import replace

import pytest
import torch
from fixtures_training import examples, small, tokenizer as make_tokenizer

from earthgpt_lite.errors import BadInput
from earthgpt_lite.train.stages import prepare_stage
from earthgpt_lite.train.dataset import InstructionBatches
from earthgpt_lite.model.parts import PARTS, part_of
from earthgpt_lite.train.stages import STAGES, Stage, freeze_map, freeze_table, tune_stage


@pytest.fixture(scope='module')
def tok():
    return make_tokenizer()


@pytest.fixture(scope='module')
def batch(tok):
    return InstructionBatches(examples(6), tok, small(tok).config, 6, augment=False).batch(0)


def free(model):
    return {n for n, p in model.named_parameters() if p.requires_grad}


# parts and stages


@pytest.mark.parametrize(
    'name,part',
    [
        ('vision_tower.vit.vit.encoder.layer.0.attention.attention.query.weight', 'vit'),
        ('vision_tower.cnn.cnn.encoder.stages.0.layers.0.layer.0.convolution.weight', 'cnn'),
        ('vision_tower.vit.norms.1.weight', 'fusion'),
        ('vision_tower.cnn.lateral.0.weight', 'fusion'),
        ('vision_tower.cnn.blocks.0.1.bias', 'fusion'),
        ('projector.norm.weight', 'projector'),
        ('language.model.layers.3.self_attn.o_proj.weight', 'attention'),
        ('language.model.layers.3.post_attention_layernorm.weight', 'norms'),
        ('language.model.norm.weight', 'norms'),
        ('language.model.layers.3.mlp.gate_proj.weight', 'feedforward'),
        ('language.model.embed_tokens.weight', 'embeddings'),
        ('language.lm_head.weight', 'embeddings'),
        ('language.transformer.h.0.ln_1.weight', 'norms'),
        ('language.transformer.h.0.attn.c_attn.weight', 'attention'),
        ('language.transformer.wte.weight', 'embeddings'),
        ('language.model.layers.0.self_attn.q_norm.weight', 'norms'),
        ('language.model.layers.0.mlp.up_proj.tune_scale', 'scale'),
        ('language.model.layers.0.mlp.up_proj.tune_bias', 'bias'),
        ('language.model.layers.0.self_attn.q_proj.bias', 'attention'),
        ('language.model.layers.0.self_attn.q_proj.lora_A.default.weight', 'lora'),
        ('language.model.layers.0.self_attn.q_proj.base_layer.weight', 'attention'),
    ],
)
def test_part_of(name, part):
    assert part_of(name) == part and part in PARTS


def test_what_each_stage_trains(tok):
    want = dict(
        scratch={'vit', 'cnn', 'fusion', 'projector', 'attention', 'feedforward', 'norms', 'embeddings'},
        project={'projector'},
        align={'fusion', 'projector', 'attention', 'norms'},
        tune={'scale', 'bias'},
        lora={'lora'},
    )
    want['full'] = want['scratch']
    assert set(want) == set(STAGES)
    for name, parts in want.items():
        model = small(tok)
        if name == 'lora':
            pytest.importorskip('peft')
        prepare_stage(model, STAGES[name])
        assert {part_of(n) for n in free(model)} == parts, name


def test_every_free_parameter_gets_a_gradient_and_no_other_does(tok, batch):
    "What gets none would stop a run on several processes; what gets one though frozen would cost memory."
    for name in ('scratch', 'align', 'tune'):
        model = small(tok)
        prepare_stage(model, STAGES[name])
        model(**vars(batch)).loss.backward()
        assert {n for n, p in model.named_parameters() if p.grad is not None} == free(model), name


def test_encoders_that_the_model_freezes_stay_frozen_in_every_stage(tok, batch):
    model = small(tok, train_encoders=False)
    STAGES['full'].freeze(model)
    assert not {'vit', 'cnn'} & {part_of(n) for n in free(model)} and 'fusion' in {
        part_of(n) for n in free(model)
    }
    model(**vars(batch)).loss.backward()
    assert {n for n, p in model.named_parameters() if p.grad is not None} == free(model)


@pytest.mark.parametrize('switch,part', [(dict(norms=True), 'norms'), (dict(projector=True), 'projector')])
def test_switches_of_tune(tok, switch, part):
    model = small(tok)
    prepare_stage(model, tune_stage(**switch))
    assert {part_of(n) for n in free(model)} == {'scale', 'bias', part}


def test_a_stage_refuses(tok):
    model = small(tok)
    with pytest.raises(
        BadInput, match="'x' trains nothing.*projecter.*parts are vision_tower, projector, language"
    ):
        Stage('x', ('projecter',)).freeze(model)
    with pytest.raises(BadInput, match="names what is not there.*atention"):
        Stage('x', ('projector', 'atention')).freeze(model)
    with pytest.raises(BadInput, match="'tune' trains nothing.*prepare_stage"):
        STAGES['tune'].freeze(model)
    with pytest.raises(BadInput, match="wants the adapter 'prompts': choose bias, lora"):
        prepare_stage(model, Stage('x', adapter='prompts'))
    assert all(p.requires_grad for p in model.parameters()), 'a refused stage changes nothing'


def test_groups_hold_every_free_parameter_once_and_scales_are_never_decayed(tok):
    model = small(tok)
    stage = replace(tune_stage(norms=True, projector=True), rates=dict(projector=1e-4))
    prepare_stage(model, stage)
    groups, names = stage.param_groups(model), {id(p): n for n, p in model.named_parameters()}
    held = [id(p) for g in groups for p in g['params']]
    assert len(held) == len(set(held)) == len(free(model)) and {names[i] for i in held} == free(model)
    for g in groups:
        parts = {part_of(names[id(p)]) for p in g['params']}
        if parts & {'scale', 'bias', 'norms'}:
            assert g['weight_decay'] == 0
        assert all((g['lr'] == 1e-4) == (part_of(names[id(p)]) == 'projector') for p in g['params'])


def test_decay_leaves_a_scale_without_gradient_at_one(tok):
    model = small(tok)
    prepare_stage(model, STAGES['tune'])
    optimizer = torch.optim.AdamW(replace(STAGES['tune'], weight_decay=0.5).param_groups(model), lr=0.1)
    for p in model.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    for _ in range(20):
        optimizer.step()
    assert all((p == 1).all() for n, p in model.named_parameters() if part_of(n) == 'scale')


def test_freeze_map_adds_up(tok):
    model = small(tok)
    prepare_stage(model, STAGES['tune'])
    rows = freeze_map(model)
    assert sum(r[1] for r in rows) == model.num_parameters() and sum(r[2] for r in rows) == sum(
        p.numel() for p in model.parameters() if p.requires_grad
    )
    assert all(r[3] == 8 * r[2] for r in rows) and f'{model.num_parameters():,}' in freeze_table(model)
    optimizer = torch.optim.AdamW(STAGES['tune'].param_groups(model))
    for p in model.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    optimizer.step()
    assert sum(v.nbytes for s in optimizer.state.values() for k, v in s.items() if k != 'step') == sum(
        r[3] for r in rows
    )
