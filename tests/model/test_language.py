"The LLaMA that lesson 4_model/10_language builds is the one of transformers, in numbers; the small LLaMA and the order of its coordinates."

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from earthgpt_lite.model.language import init_coordinate_embeddings, small_llama
from earthgpt_lite.model.tokens import COORDINATES, train_tokenizer
from fixtures_language import from_lesson, real_weights

LESSON = from_lesson(
    '4_model/10_language',
    'RMSNorm',
    'angles',
    'rotate',
    'causal',
    'attend',
    'Attention',
    'CachedAttention',
    'GatedMLP',
    'Block',
    'Llama',
    'neighbours',
)
BASE = dict(
    vocab_size=61,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    initializer_range=0.3,
)
SHAPES = [
    dict(),
    dict(num_key_value_heads=1),
    dict(num_key_value_heads=4),
    dict(head_dim=16),
    dict(tie_word_embeddings=True),
    dict(rms_norm_eps=1e-3),
    dict(rope_parameters=dict(rope_type='default', rope_theta=100_000.0)),
    dict(hidden_size=24, num_attention_heads=3, num_key_value_heads=3),
    dict(num_hidden_layers=6),
]


def both(change, dtype, seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(**BASE | change)
    theirs = AutoModelForCausalLM.from_config(config).to(dtype).eval()
    with torch.no_grad():
        for name, weight in theirs.named_parameters():
            if 'norm' in name:
                weight.uniform_(0.5, 1.5)
    ours = LESSON['Llama'](config).to(dtype)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    return ours, theirs, torch.randint(0, 61, (3, 17))


@torch.no_grad()
def off(ours, theirs, ids):
    expected = theirs(ids).logits
    return ((ours(ids) - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize('change', SHAPES, ids=str)
def test_by_hand_is_the_librarys(change):
    assert off(*both(change, torch.float32)) <= 1e-5
    assert off(*both(change, torch.float64)) <= 1e-9


@pytest.mark.parametrize('part', ['self_attn', 'mlp', 'input_layernorm'])
def test_each_part_by_itself(part):
    ours, theirs, _ = both({}, torch.float64)
    x, places = torch.randn(2, 9, 32).double(), torch.arange(9)[None].expand(2, -1)
    mine, reference = getattr(ours.model['layers'][1], part), getattr(theirs.model.layers[1], part)
    given = (places,) if part == 'self_attn' else ()
    library = (
        dict(position_embeddings=theirs.model.rotary_emb(x, places), attention_mask=None)
        if part == 'self_attn'
        else {}
    )
    expected = reference(x, **library)
    torch.testing.assert_close(
        mine(x, *given), expected[0] if part == 'self_attn' else expected, atol=1e-9, rtol=0
    )


@pytest.mark.parametrize('fault', ['rotate', 'causal', 'angles'])
def test_the_comparison_can_fail(fault, monkeypatch):
    "Pairs of neighbours, an open mask, places that begin at one too few: each is seen"
    wrong = dict(
        rotate=LESSON['neighbours'],
        causal=lambda new, seen: torch.ones(new, seen, dtype=torch.bool),
        angles=lambda places, size, theta: LESSON['_angles'](places * 2, size, theta),
    )
    monkeypatch.setitem(LESSON, '_angles', LESSON['angles'])
    monkeypatch.setitem(LESSON, fault, wrong[fault])
    assert off(*both({}, torch.float64)) > 1e-4


def test_cached_is_uncached():
    ours, theirs, ids = both({}, torch.float64)
    cached = LESSON['Llama'](theirs.config, LESSON['CachedAttention']).double()
    cached.load_state_dict(theirs.state_dict(), strict=True)
    with torch.no_grad():
        steps = [cached(ids[:, :5])] + [cached(ids[:, k : k + 1], k) for k in range(5, 17)]
        torch.testing.assert_close(torch.cat(steps, 1), ours(ids), atol=1e-9, rtol=0)
    kept = [block.self_attn.kept for block in cached.model['layers']]
    assert all(k.shape == v.shape == (3, 2, 17, 8) for k, v in kept)  # two heads are kept, not four


def test_a_score_depends_on_the_distance_alone():
    angles, rotate = LESSON['angles'], LESSON['rotate']
    q, k = torch.randn(2, 1, 1, 1, 16).double()
    at = lambda x, place: rotate(x, angles(torch.tensor([[place]]), 16))
    scores = [(at(q, start + 7) * at(k, start)).sum().item() for start in range(20)]
    assert max(scores) - min(scores) < 1e-5 and abs(scores[0] - (at(q, 9) * at(k, 0)).sum().item()) > 1e-3


@pytest.fixture(scope='module')
def tokenizer():
    return train_tokenizer([' is there a lake?', ' yes', ' [0.10,0.20,0.30,0.40]'] * 5)


def test_small_llama_fits_its_tokenizer(tokenizer):
    config = small_llama(tokenizer, 48, 2, 4)
    model = AutoModelForCausalLM.from_config(config)
    assert config.vocab_size == len(tokenizer) and (
        config.pad_token_id,
        config.bos_token_id,
        config.eos_token_id,
    ) == (0, 1, 2)
    assert model.get_input_embeddings().weight.data_ptr() == model.lm_head.weight.data_ptr()


def test_coordinates_lie_in_order_and_nothing_else_moves(tokenizer):
    model = AutoModelForCausalLM.from_config(small_llama(tokenizer, 64, 1, 4))
    before = model.get_input_embeddings().weight.detach().clone()
    init_coordinate_embeddings(model, tokenizer)
    after = model.get_input_embeddings().weight.detach()
    places = tokenizer.convert_tokens_to_ids(list(COORDINATES))
    others = [i for i in range(len(tokenizer)) if i not in set(places)]
    assert torch.equal(before[others], after[others])
    likeness = torch.nn.functional.cosine_similarity(after[places][:, None], after[places][None], dim=-1)
    assert likeness.diagonal(1).min() > 0.9 and likeness[10, 12] > likeness[10, 20] > likeness[10, 90]
    assert after[places].std().item() == pytest.approx(before.std().item(), rel=0.05)


@pytest.mark.slow
def test_by_hand_is_the_real_smollm2():
    from earthgpt_lite.model.backbones import load_language

    theirs, tokenizer, chat = load_language(real_weights('HuggingFaceTB/SmolLM2-135M-Instruct'))
    assert chat.begin.startswith('<|im_start|>system\nYou are a helpful AI assistant named SmolLM')
    ours = LESSON['Llama'](theirs.config)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    ids = torch.tensor(
        [
            tokenizer(chat.begin, add_special_tokens=False).input_ids
            + chat.encode_question(tokenizer, 'What is the capital of France?')
        ]
    )
    assert off(ours, theirs, ids) <= 1e-5
    said = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    assert 'Paris' in tokenizer.decode(said[0, ids.shape[1] :])
