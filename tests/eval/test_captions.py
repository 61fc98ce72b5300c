"BLEU, ROUGE-L and CIDEr-D against pycocoevalcap 1.2: its values, frozen; and against the package itself where it is installed."

import random

import numpy as np
import pytest
from hypothesis import given, strategies as st

from earthgpt_lite.eval.captions import (
    bleu,
    bleu_counts,
    cider,
    inverse_document_frequency,
    longest_common_subsequence,
    rouge_l,
    tokenize,
)

WORDS = 'a the many planes are parked near an airport harbor with boats green trees and river'.split()


def corpus(seed, n=12):
    "Made-up answers and references: some answers equal a reference, one is empty."
    rng = random.Random(seed)
    refs = [
        [' '.join(rng.choices(WORDS, k=rng.randint(1, 14))) for _ in range(rng.randint(1, 5))]
        for _ in range(n)
    ]
    return [''] + [
        rng.choice([r[0], ' '.join(rng.choices(WORDS, k=rng.randint(1, 14)))]) for r in refs[1:]
    ], refs


def ours(answers, refs):
    words, truths = [a.split() for a in answers], [[r.split() for r in some] for some in refs]
    counts, rare = sum(map(bleu_counts, words, truths)), inverse_document_frequency(truths)
    return np.array(
        [
            *(float(bleu(counts, k)) for k in (1, 2, 3, 4)),
            np.mean(list(map(rouge_l, words, truths))),
            np.mean([cider(w, t, rare) for w, t in zip(words, truths)]),
        ]
    )


FROZEN = {  # seed: BLEU-1..4, ROUGE-L, CIDEr, computed with pycocoevalcap 1.2
    0: [0.703703704, 0.413399892, 0.281946662, 0.232167427, 0.621664154, 1.343887747],
    1: [0.779373101, 0.685896952, 0.661542452, 0.655416142, 0.618296407, 1.47864286],
    2: [0.876267008, 0.800481802, 0.76767337, 0.747640944, 0.774411786, 3.259213732],
}


@pytest.mark.parametrize('seed', FROZEN)
def test_equal_to_frozen_values(seed):
    assert np.allclose(ours(*corpus(seed)), FROZEN[seed], atol=1e-6)


def test_equal_to_pycocoevalcap():
    pytest.importorskip(
        'pycocoevalcap', reason='pycocoevalcap is not installed (104 MB); its frozen values are tested above'
    )
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    for seed in range(20):
        answers, refs = corpus(seed, n=1 + seed)
        res, gts = {i: [a] for i, a in enumerate(answers)}, dict(enumerate(refs))
        theirs = [
            *Bleu(4).compute_score(gts, res, verbose=0)[0],
            Rouge().compute_score(gts, res)[0],
            Cider().compute_score(gts, res)[0],
        ]
        assert np.allclose(ours(answers, refs), theirs, atol=1e-6)


@pytest.mark.parametrize(
    'text, words',
    [
        ('Many planes are parked. ', 'many planes are parked'),
        ("it doesn't melt", "it does n't melt"),
        ('A snow-covered, 3.5 km long island!', 'a snow-covered 3.5 km long island'),
        ("the harbor's boats", "the harbor 's boats"),
        ('', ''),
        (' ... ', ''),
        ('Größe <b>', 'größe b'),
    ],
)
def test_tokenize(text, words):
    assert tokenize(text) == words.split()


@pytest.mark.parametrize(
    'predictor, values',
    [('perfect', (1, 1, 1, 10)), ('empty', (0, 0, 0, 0)), ('shuffled', (0.25, 0, 0.25, 0))],
)
def test_predictors(predictor, values):
    truths = ['ships lie in harbor', 'trees stand in forest', 'sand covers in desert', 'snow melts in spring']
    answers = dict(perfect=truths, empty=[''] * 4, shuffled=truths[1:] + truths[:1])[predictor]
    got = ours(answers, [[t] for t in truths])[[0, 3, 4, 5]]
    assert np.allclose(got, values, atol=1e-6)


def test_rarity_of_one_picture_is_nought():
    truth = [['two', 'ships']]
    assert cider(['two', 'ships'], truth, inverse_document_frequency([truth])) == 0


def test_perfect_two_words_have_almost_no_bleu_4():
    assert float(bleu(bleu_counts(['a', 'b'], [['a', 'b']]), 4)) == pytest.approx(1e-3, rel=1e-3)


words = st.lists(st.sampled_from(WORDS[:5]), max_size=8)


@given(words, words)
def test_common_run_is_symmetric_and_bounded(a, b):
    assert longest_common_subsequence(a, b) == longest_common_subsequence(b, a) <= min(
        len(a), len(b)
    ) and longest_common_subsequence(a, a) == len(a)


@given(st.text(max_size=60), st.lists(st.text(max_size=60), min_size=1, max_size=3))
def test_any_text_gets_finite_scores(answer, truths):
    a, t = tokenize(answer), [tokenize(x) for x in truths]
    got = [
        float(bleu(bleu_counts(a, t))),
        rouge_l(a, t),
        cider(a, t, inverse_document_frequency([t, [['other']]])),
    ]
    assert (
        np.isfinite(got).all()
        and 0 <= got[0] <= 1 + 1e-9
        and 0 <= got[1] <= 1 + 1e-9
        and 0 <= got[2] <= 10 + 1e-9
    )
