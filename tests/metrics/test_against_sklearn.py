"""Metrics equal scikit-learn's on random data, whole or merged from parts, with weights that leave rows out."""

from __future__ import annotations

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl import InputError
from fdl.metrics import Calibration, Confusion, Mean, Regression, average_precision, bleu, perplexity, roc_auc
from fdl.metrics import top_k_accuracy as top_k

sklearn = pytest.importorskip("sklearn.metrics")

RANDOM = np.random.default_rng(0)
N, C = 97, 4
LABELS = RANDOM.choice([0, 1, 3], N)  # class 2 never occurs
PREDICTIONS = RANDOM.choice([0, 1, 2], N)  # class 3 is never predicted
SCORES = np.round(RANDOM.normal(size=N), 1).astype(np.float32)  # rounded: many ties
BINARY = (SCORES + RANDOM.normal(size=N) > 0).astype(np.int32)
KEPT = RANDOM.random(N) < 0.7


def in_parts(of, *arrays):
    """The statistic of each batch of 10, merged: the last batch is partial."""
    parts = [of(*(jnp.asarray(a[i : i + 10]) for a in arrays)) for i in range(0, N, 10)]
    return functools.reduce(lambda a, b: a.merge(b), parts)


def test_confusion_and_what_follows_from_it():
    confusion = in_parts(lambda p, y: Confusion.of(p, y, C), PREDICTIONS, LABELS)
    np.testing.assert_array_equal(confusion.counts, sklearn.confusion_matrix(LABELS, PREDICTIONS, labels=range(C)))
    scores = sklearn.precision_recall_fscore_support(LABELS, PREDICTIONS, labels=range(C), zero_division=0)
    for got, want in zip((confusion.precision(), confusion.recall(), confusion.f1()), scores[:3], strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6)
    assert float(confusion.accuracy()) == pytest.approx((LABELS == PREDICTIONS).mean())
    micro = sklearn.f1_score(LABELS, PREDICTIONS, average="micro")
    assert float(confusion.accuracy()) == pytest.approx(micro)


def test_weights_leave_rows_out_of_the_confusion():
    weighted = Confusion.of(jnp.asarray(PREDICTIONS), jnp.asarray(LABELS), C, jnp.asarray(KEPT))
    kept = Confusion.of(jnp.asarray(PREDICTIONS[KEPT]), jnp.asarray(LABELS[KEPT]), C)
    np.testing.assert_array_equal(weighted.counts, kept.counts)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(roc_auc, sklearn.roc_auc_score), (average_precision, sklearn.average_precision_score)]
)
def test_ranking_with_ties_and_weights(ours, theirs):
    scores, labels, kept = jnp.asarray(SCORES), jnp.asarray(BINARY), jnp.asarray(KEPT)
    assert float(jax.jit(ours)(scores, labels)) == pytest.approx(theirs(BINARY, SCORES), rel=1e-5)
    assert float(ours(scores, labels, kept)) == pytest.approx(theirs(BINARY[KEPT], SCORES[KEPT]), rel=1e-5)
    assert np.isnan(float(ours(scores, jnp.zeros_like(labels))))


def test_scores_that_are_all_equal_rank_nothing():
    assert float(roc_auc(jnp.ones(5), jnp.array([1, 0, 1, 0, 0]))) == 0.5
    assert float(average_precision(jnp.ones(5), jnp.array([1, 0, 1, 0, 0]))) == pytest.approx(0.4)


def test_regression_from_parts_also_far_from_zero():
    """Targets around 1e4: a sum of squares in float32 would leave an R2 of noise."""
    targets = (RANDOM.normal(size=N) + 1e4).astype(np.float32)
    predictions = targets + RANDOM.normal(size=N).astype(np.float32) * 0.5
    scores = in_parts(Regression.of, predictions, targets)
    assert float(scores.mse()) == pytest.approx(sklearn.mean_squared_error(targets, predictions), rel=1e-5)
    assert float(scores.rmse()) == pytest.approx(sklearn.root_mean_squared_error(targets, predictions), rel=1e-5)
    assert float(scores.mae()) == pytest.approx(sklearn.mean_absolute_error(targets, predictions), rel=1e-5)
    assert float(scores.r2()) == pytest.approx(sklearn.r2_score(targets, predictions), rel=1e-3)
    assert np.isnan(float(Regression.of(jnp.zeros(3), jnp.ones(3)).r2()))


def test_weights_leave_rows_out_of_a_regression():
    weighted = Regression.of(jnp.asarray(SCORES), jnp.asarray(SCORES[::-1].copy()), jnp.asarray(KEPT, jnp.float32))
    kept = Regression.of(jnp.asarray(SCORES[KEPT]), jnp.asarray(SCORES[::-1][KEPT]))
    for got, want in zip(jax.tree.leaves(weighted), jax.tree.leaves(kept), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("k", [1, 2, C - 1])
def test_top_k(k):
    logits = RANDOM.normal(size=(N, C)).astype(np.float32)
    want = sklearn.top_k_accuracy_score(LABELS, logits, k=k, labels=range(C))
    assert float(top_k(jnp.asarray(logits), jnp.asarray(LABELS), k).mean()) == pytest.approx(want)


def test_calibration_error_by_hand_and_from_parts():
    """Transcription of Guo et al. (2017), equation 3, in NumPy."""
    confidence, correct = RANDOM.random(N).astype(np.float32), (RANDOM.random(N) < 0.5).astype(np.float32)
    want = 0.0
    for low, high in itertools.pairwise(np.linspace(0, 1, 16)):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            want += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    got = in_parts(Calibration.of, confidence, correct).error()
    assert float(got) == pytest.approx(want, rel=1e-5)
    assert float(Calibration.of(jnp.array([0.0, 1.0]), jnp.array([0.0, 1.0])).error()) == 0.0


def test_perplexity_of_a_uniform_guess_is_the_vocabulary():
    assert float(perplexity(Mean.of(jnp.full(7, jnp.log(50.0))))) == pytest.approx(50.0)


SENTENCES = [
    (
        "the quick brown fox jumped over the lazy dog today",
        ["the quick brown fox jumps over the lazy dog today", "a fox"],
    ),
    (
        "it is a guide to action which ensures that the military",
        ["it is a guide to action that ensures that the military"],
    ),
    ("one more short one here", ["one more rather short one is here"]),
]


def test_bleu_is_sacrebleus():
    sacrebleu = pytest.importorskip("sacrebleu")
    longest = max(len(references) for _, references in SENTENCES)
    transposed = [[(r + [None] * longest)[i] for _, r in SENTENCES] for i in range(longest)]
    theirs = sacrebleu.corpus_bleu([c for c, _ in SENTENCES], transposed, tokenize="none", smooth_method="none").score
    ours = bleu([c.split() for c, _ in SENTENCES], [[r.split() for r in references] for _, references in SENTENCES])
    assert 0.3 < ours < 0.9
    assert ours == pytest.approx(theirs / 100, rel=1e-9)


def test_bleu_by_hand():
    """Precisions 5/6, 3/5, 1/4 without brevity penalty; the geometric mean is (1/8)^(1/3) = 0.5 at order 3."""
    candidate, reference = list("abcxde"), list("abcyde")
    assert bleu([candidate], [[reference]], max_order=3) == pytest.approx((5 / 6 * 3 / 5 * 1 / 4) ** (1 / 3))
    assert bleu([candidate], [[reference]]) == 0.0
    short = bleu([candidate[:3]], [[reference]], max_order=2)
    assert short == pytest.approx(np.exp(1 - 6 / 3))


REFUSED = [
    (lambda: Confusion.of(jnp.array([0.5]), jnp.array([0]), 2), "expected class numbers"),
    (lambda: Confusion.of(jnp.array([2]), jnp.array([0]), 2), "predictions 2 at index 0 is outside 0..1"),
    (lambda: Confusion.of(jnp.array([1]), jnp.array([0, 1]), 2), "differ in shape"),
    (lambda: roc_auc(jnp.ones((3, 1)), jnp.ones(3, jnp.int32)), "one shape"),
    (lambda: Regression.of(jnp.ones((3, 1)), jnp.ones(3)), "same shape"),
    (lambda: top_k(jnp.ones((2, 3)), jnp.array([0, 1]), 4), "expected 1..3, got 4"),
    (lambda: Calibration.of(jnp.ones(2), jnp.ones(3)), "differ in shape"),
    (lambda: bleu(["a b"], [["a b"]]), "split strings first"),
    (lambda: bleu([["a"]], []), "1 candidates but 0"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
