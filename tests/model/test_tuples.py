"Several pictures in one question: every way of computing the same thing gives the same, and nothing leaks."

from copy import deepcopy

import numpy as np
import pytest
import torch

from earthgpt_lite.data.records import Turn
from earthgpt_lite.errors import BadInput
from earthgpt_lite.model.generation import generate_answers, stream_answer
from earthgpt_lite.model.packing import build_sequence, collate, join_sequences
from earthgpt_lite.model.processor import EarthGPTProcessor, picture_prefix, split_pictures, to_pixel_values
from earthgpt_lite.model.tokens import ChatFormat, encode_turns

WORDS = ('before', 'after')
TURNS = [
    Turn('is there any new water?', 'yes'),
    Turn('where is it?', '[0.10,0.20,0.30,0.40]'),
    Turn('what has changed between the first and the second image?', 'a lake.'),
]


@pytest.fixture(scope='module')
def shown(few):
    return torch.stack([to_pixel_values(e.image) for e in few['validation'][:4]])


def rows_of(model, tokenizer, tuples, words=WORDS, shared=True):
    "Rows of each tuple with all its questions, or of one question each, and which pictures they need."
    prefix, chat = picture_prefix(model.config, tokenizer, words), ChatFormat(**model.config.chat)
    pairs = encode_turns(tokenizer, TURNS, chat)
    if shared:
        return [build_sequence(pairs, prefix) for _ in tuples], [i for t in tuples for i in t]
    rows = [build_sequence([pair], prefix) for _ in tuples for pair in pairs]
    return rows, [i for t in tuples for _ in pairs for i in t]


# ---- the prefix


def test_the_prefix_of_one_picture_is_the_old_one(tiny):
    model, tokenizer = tiny
    places = [model.config.image_token_id] * model.config.visual_tokens
    assert picture_prefix(model.config, tokenizer) == [tokenizer.bos_token_id] + places
    assert picture_prefix(model.config, tokenizer, ()) == [tokenizer.bos_token_id]


def test_words_stand_before_their_picture_and_forge_none(tiny):
    model, tokenizer = tiny
    n = model.config.visual_tokens
    ids = picture_prefix(model.config, tokenizer, ('before', '<image><end>', ''))
    assert ids.count(model.config.image_token_id) == 3 * n and tokenizer.eos_token_id not in ids
    text = tokenizer.decode(ids).replace('<image>' * n, '#', 1)
    assert text.startswith('<begin> before#')


def test_what_counts_as_the_pictures_of_a_question():
    assert split_pictures('a') == (('',), ('a',)) and split_pictures(None) == ((), ())
    assert split_pictures(['a', 'b']) == (('', ''), ('a', 'b'))
    assert split_pictures({'before': 'a', 'after': 'b'}) == (('before', 'after'), ('a', 'b'))
    with pytest.raises(BadInput, match='0 images'):
        split_pictures([])


# ---- training rows


@torch.no_grad()
def test_questions_about_a_tuple_share_it_and_see_only_themselves(wild, shown):
    model, tokenizer = wild
    features = model.image_features(shown)
    tuples, found = [(0, 1), (1, 0), (2, 2)], []
    for shared in (True, False):
        rows, indices = rows_of(model, tokenizer, tuples, shared=shared)
        batch = vars(collate(rows, None, 0)) | dict(pixel_values=None)
        found.append(model(**batch, image_features=features[indices]))
    assert int(found[0].target_count) == int(found[1].target_count) > 20
    assert float(found[0].loss) == pytest.approx(float(found[1].loss), rel=1e-5)


@torch.no_grad()
def test_packed_rows_of_unlike_tuples_are_those_alone(wild, shown):
    model, tokenizer = wild
    features, losses = model.image_features(shown), []
    rows, indices = [], []
    for words, some in ((WORDS, [(0, 1)]), (('',), [(2,)]), (('', '', 'last'), [(3, 0, 1)])):
        more, places = rows_of(model, tokenizer, some, words)
        rows, indices = rows + more, indices + places
    for packed in (rows, [join_sequences(rows)]):
        batch = vars(collate(packed, None, 0)) | dict(pixel_values=None)
        losses.append(float(model(**batch, image_features=features[indices]).loss_sum))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@torch.no_grad()
def test_order_and_words_matter(wild, shown):
    model, tokenizer = wild
    losses = []
    for pair, words in (((0, 1), WORDS), ((1, 0), WORDS), ((0, 1), ('', ''))):
        rows, indices = rows_of(model, tokenizer, [pair], words)
        losses.append(float(model(**vars(collate(rows, shown[indices], 0))).loss))
    assert len({round(loss, 4) for loss in losses}) == 3


# ---- answers

ASKED = [
    ((0, 1), 'what has changed?'),
    (0, 'what does this image show?'),
    (None, 'what is a lake?'),
    ((1, 0), 'what has changed?'),
    ((0, 1), 'is there any new water?'),
    ((2, 3, 1), 'snow?'),
    ((2, 2), 'is there any new water?'),
    (3, 'where is the lake?'),
]
SAID = [WORDS, None, None, WORDS, WORDS, None, ('2016', '2019'), None]


def answered(model, tokenizer, shown, picked=range(len(ASKED)), **options):
    words = [SAID[k] for k in picked]
    return generate_answers(model, tokenizer, shown, [ASKED[k] for k in picked], 10, words=words, **options)


def by_hand(model, tokenizer, shown, k):
    "Greedy answer from full forward passes, with no cache and no library."
    given, question = ASKED[k]
    indices = () if given is None else given if isinstance(given, tuple) else (given,)
    start = picture_prefix(model.config, tokenizer, SAID[k] or ('',) * len(indices))
    start = start + ChatFormat().encode_question(tokenizer, question)
    pixels, new = shown[list(indices)] if indices else None, []
    while len(new) < 10 and new[-1:] != [tokenizer.eos_token_id]:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([start + new]), pixel_values=pixels).logits[0, -1]
        new.append(int(logits.argmax()))
    return tokenizer.decode(new, skip_special_tokens=True).strip()


def test_a_mixed_batch_answers_as_plain_forward_passes_one_at_a_time(wild, shown):
    together = answered(*wild, shown)
    assert [text for text, _ in together] == [by_hand(*wild, shown, k) for k in range(len(ASKED))]
    assert len({text for text, _ in together}) > 5, 'so that a mix-up would show'
    alone = [answered(*wild, shown, [k])[0] for k in range(len(ASKED))]
    few = answered(*wild, shown, batch_size=1)
    for other in (alone, few):
        assert [text for text, _ in other] == [text for text, _ in together]
        assert np.allclose([s for _, s in other], [s for _, s in together], atol=1e-4)


def test_features_and_a_stream_answer_the_same(wild, shown):
    model, tokenizer = wild
    with torch.no_grad():
        features = model.image_features(shown)
    together = answered(model, tokenizer, shown)
    assert [t for t, _ in answered(model, tokenizer, features)] == [t for t, _ in together]
    pieces = stream_answer(model, tokenizer, shown[:2], ASKED[0][1], 10, words=[WORDS])
    assert ''.join(pieces).strip() == together[0][0]


def seen(model, call):
    "How many pictures the encoders saw."
    counts = []
    hook = model.vision_tower.register_forward_pre_hook(lambda tower, given: counts.append(len(given[0])))
    try:
        call()
    finally:
        hook.remove()
    return sum(counts)


def test_each_picture_is_encoded_once(wild, few):
    model, tokenizer = wild
    series = torch.stack([to_pixel_values(e.image) for e in few['train'][:7]])
    about_pair = [((0, 1), turn.question) for turn in TURNS] * 4
    assert seen(model, lambda: generate_answers(model, tokenizer, series[:2], about_pair, 2)) == 2
    pairs = [(a, b) for a in range(7) for b in range(7) if a != b]
    asked, words = [(pair, 'what has changed?') for pair in pairs], [(str(a), str(b)) for a, b in pairs]
    everywhere = dict(words=words, batch_size=2)  # spread over many small batches
    assert seen(model, lambda: generate_answers(model, tokenizer, series, asked, 2, **everywhere)) == 7


def test_features_are_forgotten_when_nothing_needs_them(wild, shown, monkeypatch):
    from earthgpt_lite.model import generation

    most, encoded = [], generation._Encoded

    class Watched(encoded):
        def of(self, indices):
            found = super().of(indices)
            most.append(len(self.kept))
            return found

    monkeypatch.setattr(generation, '_Encoded', Watched)
    chain = [((i, i + 1), 'what has changed?') for i in range(3)]
    generate_answers(*wild, shown, chain, 2, batch_size=1)
    assert most == [1, 1, 0]


# ---- the processor


def test_the_processor_takes_tuples(wild, few):
    model, tokenizer = wild
    a, b = (e.image for e in few['validation'][:2])
    processor = EarthGPTProcessor.of(model.config, tokenizer)
    n = model.config.visual_tokens
    places = lambda inputs: (inputs['input_ids'] == model.config.image_token_id).sum(1).tolist()
    pair = processor(images=[[a, b]], text=['what has changed?'])
    assert places(pair) == [2 * n] and len(pair['pixel_values']) == 2
    two = processor(images=[a, b], text=['what is this?', 'where?'])
    assert places(two) == [n, n] and len(two['pixel_values']) == 2
    mixed = processor(images=[[a, b], None, a], text=['what has changed?', 'what is snow?', 'snow?'])
    assert places(mixed) == [2 * n, 0, n] and len(mixed['pixel_values']) == 3
    single = processor(images=[a, b], text='what has changed?')
    assert single['input_ids'].equal(pair['input_ids'])
    shared = processor(images=[{'before': a, 'after': b}], text=['what has changed?', 'where?'])
    assert places(shared) == [2 * n] * 2 and ' before<image>' in tokenizer.decode(shared['input_ids'][0])
    with torch.no_grad():
        ids = model.generate(**shared, max_new_tokens=8, do_sample=False, pad_token_id=0, eos_token_id=2)
    pixels = torch.stack([to_pixel_values(x) for x in (a, b)])
    words = [('before', 'after')] * 2
    said = generate_answers(
        model, tokenizer, pixels, [((0, 1), 'what has changed?'), ((0, 1), 'where?')], 8, words=words
    )
    length = shared['input_ids'].shape[1]
    texts = tokenizer.batch_decode(ids[:, length:], skip_special_tokens=True)
    assert [text.strip() for text in texts] == [text for text, _ in said]


# ---- refusals


def test_a_tuple_longer_than_the_context_is_refused_with_the_numbers(tiny, shown):
    many = tuple(k % 4 for k in range(20))
    with pytest.raises(BadInput, match=r'pair 7: 1,\d+ tokens with 20 pictures, \d+ more than the 1,024'):
        generate_answers(*tiny, shown, [(many, 'snow?')], names=['pair 7'])
    processor = EarthGPTProcessor.of(tiny[0].config, tiny[1])
    with pytest.raises(BadInput, match='20 pictures.*fewer pictures'):
        processor([[picture.permute(1, 2, 0).numpy() for picture in shown] * 5], ['snow?'])


def test_what_does_not_match_is_refused(tiny, shown):
    with pytest.raises(BadInput, match='question 1 asks about picture 4, but there are 4'):
        generate_answers(*tiny, shown, [((0, 4), 'snow?')])
    with pytest.raises(BadInput, match='question 2 has 1 words to announce 2 pictures'):
        generate_answers(*tiny, shown, [(0, 'a?'), ((0, 1), 'b?')], words=[None, ('before',)])


def test_a_model_in_float64_gives_the_same_for_a_pair_as_for_a_packed_one(wild, shown):
    "To eight digits, gradients with it: shared rows against one question a row."
    model, tokenizer = wild
    double, found = deepcopy(model).double(), []
    with torch.no_grad():
        features = model.image_features(shown).double()
    for shared in (True, False):
        rows, indices = rows_of(model, tokenizer, [(0, 1), (3, 2)], shared=shared)
        batch = vars(collate(rows, None, 0)) | dict(pixel_values=None)
        double.zero_grad()
        loss = double(**batch, image_features=features[indices]).loss
        loss.backward()
        found.append((loss.item(), torch.cat([p.grad.flatten() for p in double.language.parameters()])))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-8)
    assert (found[0][1] - found[1][1]).norm() < 1e-6 * found[0][1].norm()
