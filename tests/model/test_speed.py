"Speed: each trick gives the numbers that one has without it, and can be seen to work."

import pytest
import torch
from transformers import AutoModelForCausalLM

from earthgpt_lite.model.packing import round_up
from earthgpt_lite.model.speed import (
    before_targets,
    last_layer_parts,
    lean_attention,
    lean_layers,
    target_logits,
    targets_only,
)
from earthgpt_lite.model.tokens import IGNORE


def spoken(kind):
    "A small causal LM of a family, shaken; some thirty tokens and which of them are read"
    from transformers import AutoConfig

    torch.manual_seed(0)
    sizes = dict(
        vocab_size=61, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=256
    )
    model = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(
            kind, **sizes, **({} if kind == 'gpt2' else dict(num_key_value_heads=2, intermediate_size=48))
        )
    )
    # its experts know no double precision
    model = model.eval() if kind == 'mixtral' else model.double().eval()
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn_like(p) * 0.1)
    return model, torch.randint(0, 61, (5, 90)), torch.rand(5, 90) < 0.1


def learned(model, ids, read, parts, mask=None):
    "Loss on the tokens that are read, and all gradients"
    model.zero_grad()
    with targets_only(parts, read):
        hidden = model.base_model(input_ids=ids, use_cache=False, attention_mask=mask).last_hidden_state
    loss = torch.nn.functional.cross_entropy(model.get_output_embeddings()(hidden[read]), ids[read])
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    'kind, parts', [('llama', 3), ('qwen2', 3), ('qwen3', 3), ('mixtral', 2), ('gpt2', 0)]
)
def test_a_last_layer_that_computes_only_what_is_read_learns_the_same(kind, parts):
    model, ids, read = spoken(kind)
    assert len(last_layer_parts(model)) == parts
    (plain, slope), (spared, same) = (
        learned(model, ids, read, []),
        learned(model, ids, read, last_layer_parts(model)),
    )
    assert plain == pytest.approx(spared, rel=1e-6) and (slope - same).abs().max() <= 1e-5 * slope.abs().max()


def test_other_tokens_are_not_computed():
    "So that the test above can fail"
    model, ids, read = spoken('llama')
    with targets_only(last_layer_parts(model), read.roll(7)):
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    plain = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    assert (hidden - plain)[read].abs().max() > 1e-3 and (hidden - plain)[read.roll(7)].abs().max() < 1e-6


def test_nothing_is_left_on_the_layer():
    model, ids, read = spoken('llama')
    with pytest.raises(ZeroDivisionError):
        with targets_only(last_layer_parts(model), read):
            1 / 0
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in last_layer_parts(model))
    with targets_only(last_layer_parts(model), torch.zeros_like(read)):
        assert model.base_model(input_ids=ids).last_hidden_state.isfinite().all()


@pytest.mark.parametrize('kind', ['llama', 'qwen3'])
def test_lean_attention_is_eager_attention(kind):
    "With heads that share keys, and a row filled up on the left"
    model, ids, read = spoken(kind)
    model.float()
    filled, found = torch.ones_like(ids), []
    filled[0, :20] = 0
    for name in ('eager', 'lean'):
        model.set_attn_implementation(name)
        found.append(learned(model, ids, read, [], filled))
    (plain, slope), (lean, same) = found
    assert plain == pytest.approx(lean, rel=1e-5) and (slope - same).abs().max() <= 1e-4 * slope.abs().max()


def loss_and_slope(model, ids, **how):
    model.zero_grad()
    with torch.autocast('cpu', torch.bfloat16, enabled=how.pop('narrow', False)):
        out = model(ids, labels=ids, use_cache=False, **how)
    out.loss.backward()
    return out.loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def both_forms(kind='llama', dtype=torch.float32):
    "A model as transformers has it, and the same with lean layers"
    from copy import deepcopy

    model, ids, _ = spoken(kind)
    lean = deepcopy(model.to(dtype))
    lean_layers(lean)
    return model, lean, ids


def test_lean_norms_and_rotations_are_those_of_transformers():
    "Loss to 1e-6, gradients, with positions that start again; and one frozen norm gets none"
    model, lean, ids = both_forms()
    assert {type(m).__name__ for m in lean.modules()} > {'LeanNorm', 'LeanAttention'}
    assert list(lean.state_dict()) == list(model.state_dict())
    positions = torch.arange(90).remainder(37).repeat(5, 1)
    for how in ({}, dict(position_ids=positions)):
        (plain, slope), (same, same_slope) = (loss_and_slope(m, ids, **how) for m in (model, lean))
        assert same == pytest.approx(plain, rel=1e-6)
        assert (slope - same_slope).abs().max() <= 2e-5 * slope.abs().max()
    for m in (model, lean):
        m.model.norm.weight.requires_grad_(False)
        loss_and_slope(m, ids)
        assert m.model.norm.weight.grad is None and m.model.layers[0].input_layernorm.weight.grad is not None


def test_lean_layers_in_mixed_precision_err_as_transformers_do():
    "Not farther from single precision than transformers' own layers, within a tenth"
    model, lean, ids = both_forms()
    exact, slope = loss_and_slope(model, ids)
    off = []
    for m in (model, lean):
        loss, other = loss_and_slope(m, ids, narrow=True)
        off.append([abs(loss - exact), (other - slope).norm() / slope.norm()])
    assert off[1][0] <= 2 * off[0][0] + 1e-3 and off[1][1] <= 1.1 * off[0][1]


def test_lean_layers_answer_with_a_cache_as_transformers_do():
    model, lean, ids = both_forms()
    answers = [m.generate(ids[:1, :12], max_new_tokens=12, do_sample=False) for m in (model, lean)]
    assert torch.equal(*answers)


def test_lean_layers_leave_other_families_alone():
    model, lean, ids = both_forms('qwen3')
    assert [type(m) for m in lean.modules()] == [type(m) for m in model.modules()]


# torch's tracer makes an instance of an autograd function, and torch warns of it
@pytest.mark.filterwarnings('ignore:.*should not be instantiated:DeprecationWarning')
@pytest.mark.parametrize('how', ['plain', 'checkpointing', 'compiled'])
def test_lean_layers_learn_the_same_in_a_step_of_earthgpt(how):
    "Also where activations are made again, and where a compiler traces the layers"
    from fixtures_training import examples, small, tokenizer

    from earthgpt_lite.train.dataset import InstructionBatches

    tok, found = tokenizer(), []
    for lean in (False, True):
        model = small(tok).train()
        batch = InstructionBatches(examples(), tok, model.config, 6, augment=False).batch(0)
        if lean:
            lean_layers(model.language)
        if lean and how == 'checkpointing':
            model.activation_checkpointing_enable()
        if lean and how == 'compiled':
            for layer in model.language.model.layers:
                layer._compiled_call_impl = torch._dynamo.optimize('aot_eager', dynamic=True)(
                    layer._call_impl
                )
        loss = model(**vars(batch)).loss
        loss.backward()
        grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        found.append((loss.item(), torch.cat(grads)))
    (plain, slope), (same, same_slope) = found
    assert same == pytest.approx(plain, rel=1e-6) and (slope - same_slope).norm() <= 1e-5 * slope.norm()


def test_lean_attention_in_half_precision_survives_a_row_that_sees_nothing():
    q, k, v = torch.randn(3, 1, 2, 6, 8).bfloat16()
    mask = torch.full((1, 1, 6, 6), torch.finfo(torch.float32).min).triu(1)
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v, mask.bfloat16()).transpose(1, 2)
    torch.testing.assert_close(
        lean_attention(torch.nn.Module(), q, k, v, mask)[0], plain, atol=3e-2, rtol=3e-2
    )
    mask[:, :, 2] = torch.finfo(torch.float32).min
    assert lean_attention(torch.nn.Module(), q, k, v, mask)[0].isfinite().all()


def test_a_step_of_earthgpt_learns_the_same_with_and_without(tiny, few, monkeypatch):
    from copy import deepcopy

    from earthgpt_lite.train.dataset import InstructionBatches

    model, found = deepcopy(tiny[0]).double().train(), []
    batch = InstructionBatches(few['train'][:8], tiny[1], model.config, 8).batch(0)
    for parts in (last_layer_parts, lambda language: []):
        monkeypatch.setattr('earthgpt_lite.model.speed.last_layer_parts', parts)
        model.zero_grad()
        loss = model(**vars(batch)).loss
        loss.backward()
        found.append(
            (loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        )
    monkeypatch.setattr('earthgpt_lite.model.speed.last_layer_parts', last_layer_parts)
    # the layer is run a second time, when nothing says any more what is read
    model.activation_checkpointing_enable()
    model.zero_grad()
    model(**vars(batch)).loss.backward()
    again = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    assert (again - found[1][1]).norm() < 1e-6 * found[1][1].norm()
    assert (
        found[0][0] == pytest.approx(found[1][0], rel=1e-7)
        and (found[0][1] - found[1][1]).norm() < 1e-6 * found[1][1].norm()
    )


def test_logits_of_the_targets_are_those_of_all():
    "For no target, few and more than 128 of them; the rest of the rows is IGNORE"
    model, ids, _ = spoken('llama')
    hidden = model.base_model(input_ids=ids).last_hidden_state
    for share in (0.0, 0.1, 0.5):
        labels = ids.masked_fill(torch.rand(ids.shape) >= share, IGNORE)
        logits, targets = target_logits(model.get_output_embeddings(), hidden, labels)
        count = int((labels[:, 1:] != IGNORE).sum())
        assert len(logits) == len(targets) == round_up(count) and len(logits) % 128 == 0
        assert (targets[count:] == IGNORE).all() and torch.equal(
            targets[:count], labels[:, 1:][labels[:, 1:] != IGNORE]
        )
        everywhere = model.get_output_embeddings()(hidden)[:, :-1][labels[:, 1:] != IGNORE]
        torch.testing.assert_close(logits[:count], everywhere, atol=1e-12, rtol=0)
        assert int(before_targets(labels).sum()) == count
