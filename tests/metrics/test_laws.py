"""Every metric: compiled, batched and merged it is the same metric; what is invalid is an error or NaN, never a figure.

A row of the table is a metric as a function of scores, targets and weights of N examples, with valid arrays for them
and the values that are invalid in each. `None` for weights: the metric takes none, and answers per example.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from fdl import metrics
from fdl.errors import InputError
from fdl.metrics import Calibration, Confusion, Mean, Regression, Statistic

NAN, INF = float("nan"), float("inf")
N, C = 12, 3
RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(N, C)).astype(np.float32)
LABELS = np.arange(N, dtype=np.int32) % C
PREDICTIONS = RANDOM.integers(0, C, N).astype(np.int32)
SCORES = RANDOM.normal(size=N).astype(np.float32)
BITS = np.arange(N, dtype=np.float32) % 2
CONFIDENCE = RANDOM.random(N).astype(np.float32)
WEIGHTS = np.array([1.0, 0.0, 2.0] * (N // 3), np.float32)
WRONG_CLASSES, WRONG_WEIGHTS = [-1, C, -100], [-1.0, -1e-6, NAN, INF]


class Row(NamedTuple):
    """A metric, its arrays, and the values that are invalid; NaN scores are not refused, but give NaN."""

    metric: Callable[..., Any]
    scores: Any
    targets: Any
    wrong_targets: list[Any]
    wrong_scores: list[Any] = []  # noqa: RUF012
    nan_scores: bool = True
    weighted: bool = True


ROWS = {
    "accuracy": Row(lambda s, t, w: metrics.accuracy(s, t), LOGITS, LABELS, WRONG_CLASSES, weighted=False),
    "top_k_accuracy": Row(
        lambda s, t, w: metrics.top_k_accuracy(s, t, 2), LOGITS, LABELS, WRONG_CLASSES, weighted=False
    ),
    "roc_auc": Row(metrics.roc_auc, SCORES, BITS, [-1.0, 0.5, 2.0, NAN]),
    "average_precision": Row(metrics.average_precision, SCORES, BITS, [-1.0, 0.5, 2.0, NAN]),
    "Confusion": Row(
        lambda s, t, w: Confusion.of(s, t, C, w), PREDICTIONS, LABELS, WRONG_CLASSES, WRONG_CLASSES, nan_scores=False
    ),
    "Calibration": Row(
        lambda s, t, w: Calibration.of(s, t, 5, w), CONFIDENCE, BITS, [0.5, -1.0, 2.0, NAN], [-0.1, 1.1, NAN, INF],
        nan_scores=False,
    ),
    "Regression": Row(Regression.of, SCORES, SCORES[::-1].copy(), []),
    "Mean": Row(lambda s, t, w: Mean.of(s, w), SCORES, LABELS, []),
}  # fmt: skip
OF_TEXT = {"bleu", "perplexity"}
rows = pytest.mark.parametrize("name", ROWS)
statistics = pytest.mark.parametrize("name", [name for name in ROWS if name[0].isupper()])


def figures(value: Any) -> list[np.ndarray]:
    """All numbers that follow from a value."""
    return [np.asarray(x) for x in (value.numbers().values() if isinstance(value, Statistic) else [value])]


def with_one(array: np.ndarray, value: Any) -> np.ndarray:
    """The array with an invalid value at index 2, whose weight is not 0."""
    return np.concatenate([array[:2], np.full_like(array[2:3], value), array[3:]])


def test_every_metric_is_here():
    assert set(metrics.__all__) == set(ROWS) | OF_TEXT | {"Statistic"}


@rows
def test_eager_is_compiled_is_batched(name):
    row = ROWS[name]
    arrays = row.scores, row.targets, WEIGHTS
    eager = row.metric(*map(jnp.asarray, arrays))
    compiled = jax.jit(row.metric)(*arrays)
    batched = jax.vmap(row.metric)(*(jnp.stack([array, array[::-1]]) for array in arrays))
    from_numpy = row.metric(*arrays)
    for want, *others in zip(*map(figures, (eager, compiled, from_numpy, batched)), strict=True):
        assert np.isfinite(want).all()
        for got in (*others[:2], others[2][0]):
            np.testing.assert_allclose(got, want, rtol=1e-6)


@rows
def test_an_invalid_target_or_score_is_an_error_or_nan(name):
    row = ROWS[name]
    ones = np.ones(N, np.float32)
    cases = [(with_one(row.scores, value), row.targets) for value in row.wrong_scores]
    cases += [(row.scores, with_one(row.targets, value)) for value in row.wrong_targets]
    compiled = jax.jit(row.metric)
    for scores, targets in cases:
        with pytest.raises(InputError, match="index 2"):
            row.metric(scores, targets, ones)
        got = compiled(scores, targets, ones)
        if not row.weighted:
            assert np.isnan(got).tolist() == [i == 2 for i in range(N)]
            continue
        assert all(np.isnan(figure).all() for figure in figures(got))
        hidden = ones.copy()
        hidden[2] = 0.0
        for each in (row.metric, compiled):
            assert all(np.isfinite(figure).all() for figure in figures(each(scores, targets, hidden)))


@rows
def test_a_score_that_is_nan_gives_nan(name):
    row = ROWS[name]
    if not row.nan_scores:
        return
    scores = with_one(row.scores, NAN)
    for call in (row.metric, jax.jit(row.metric)):
        got = call(scores, row.targets, np.ones(N, np.float32))
        if not row.weighted:
            assert np.isnan(got).tolist() == [i == 2 for i in range(N)]
        else:
            assert all(np.isnan(figure).all() for figure in figures(got)[:3])  # R2 apart, all of them


@rows
def test_an_invalid_weight_is_an_error_or_nan(name):
    row = ROWS[name]
    if not row.weighted:
        return
    for value in WRONG_WEIGHTS:
        weight = with_one(np.ones(N, np.float32), value)
        with pytest.raises(InputError, match="weight .* at index 2"):
            row.metric(row.scores, row.targets, weight)
        assert all(np.isnan(x).all() for x in figures(jax.jit(row.metric)(row.scores, row.targets, weight)))
    with pytest.raises(InputError, match="shape"):
        row.metric(row.scores, row.targets, np.ones((N, 1), np.float32))


@rows
def test_no_example_gives_no_figure(name):
    row = ROWS[name]
    empty = row.metric(row.scores[:0], row.targets[:0], WEIGHTS[:0])
    left_out = row.metric(row.scores, row.targets, np.zeros(N, np.float32))
    if not row.weighted:
        assert empty.shape == (0,)
    elif name == "Mean":  # the engine's rule: of no weight, loss 0 and gradient 0
        assert float(empty.value()) == float(left_out.value()) == 0.0
    else:
        assert all(np.isnan(figure).all() for figure in figures(empty) + figures(left_out))


@statistics
def test_merged_parts_are_the_whole(name):
    row = ROWS[name]
    parts = [row.metric(row.scores[at], row.targets[at], WEIGHTS[at]) for at in (slice(5), slice(5, 11), slice(11, N))]
    merged = functools.reduce(lambda a, b: a.merge(b), parts)
    nothing = jax.tree.map(jnp.zeros_like, merged)
    for value in (merged, nothing.merge(merged), merged.merge(nothing)):
        for got, want in zip(figures(value), figures(row.metric(row.scores, row.targets, WEIGHTS)), strict=True):
            np.testing.assert_allclose(got, want, rtol=2e-6)


@statistics
def test_counting_twice_is_merging_with_itself(name):
    row = ROWS[name]
    one = row.metric(row.scores, row.targets, WEIGHTS)
    for got, want in zip(jax.tree.leaves(one.scaled(jnp.float32(2.0))), jax.tree.leaves(one.merge(one)), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-6)


@statistics
def test_merging_goes_on_counting_beyond_2_to_the_24(name):
    """A float32 total of 12 * 2**24 has no digits for 1: of 4096 small batches merged into it none would be seen."""
    row = ROWS[name]
    one = row.metric(row.scores[:1], row.targets[:1], np.ones(1, np.float32))
    large = row.metric(row.scores, row.targets, np.ones(N, np.float32)).scaled(jnp.float32(2**24))

    @jax.jit
    def merged(large: Any, one: Any) -> Any:
        return lax.scan(lambda total, _: (total.merge(one), None), large, None, length=4097)[0]

    def count(statistic: Any) -> int:
        at = 1 if name == "Mean" else 0  # the others begin with their counts
        parts = jax.tree.leaves(statistic)[at], statistic.rest[at]
        return int(sum(np.asarray(part, np.float64).sum() for part in parts))

    assert count(merged(large, one)) == N * 2**24 + 4097


@pytest.mark.slow
def test_one_call_goes_on_counting_beyond_2_to_the_24():
    zeros = jnp.zeros(2**24 + 2000, jnp.int8)
    assert float(Confusion.of(zeros, zeros, 2).counts[0, 0]) == 2**24 + 2000
    sure = jnp.ones(len(zeros), jnp.float32)
    calibration = Calibration.of(sure, sure, bins=2)
    assert calibration.count.tolist() == calibration.correct.tolist() == [0.0, 2**24 + 2000]


def test_ignored_labels_do_not_count():
    labels = np.array([0, 255, 2, 1], np.uint8)
    predictions = np.array([0, 1, 1, 1])
    kept = labels != 255
    ignored = Confusion.of(predictions, labels, C, ignore_label=255)
    np.testing.assert_array_equal(ignored.counts, Confusion.of(predictions[kept], labels[kept].astype(int), C).counts)
    logits = LOGITS[:4]
    for metric in (metrics.accuracy, functools.partial(metrics.top_k_accuracy, k=1)):
        right = metric(logits, labels, ignore_label=255)
        assert right[1] == 0.0
        np.testing.assert_array_equal(right[kept], metric(logits[kept], labels[kept]))
        with pytest.raises(InputError, match="label 255 at index 1"):
            metric(logits, labels)


def test_infinite_scores_are_compared():
    """Masked classes have logits of -inf."""
    logits = jnp.array([[-INF, 1.0, 0.0], [INF, 5.0, -INF]])
    assert metrics.accuracy(logits, jnp.array([1, 0])).tolist() == [1.0, 1.0]
    assert metrics.top_k_accuracy(logits, jnp.array([0, 2]), 2).tolist() == [0.0, 0.0]
    assert float(metrics.roc_auc(jnp.array([-INF, 0.0, INF]), jnp.array([0, 1, 1]))) == 1.0
    assert float(metrics.average_precision(jnp.array([INF, INF, -INF]), jnp.array([0, 1, 0]))) == 0.5


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1]])
def test_of_one_class_nothing_is_ranked(labels):
    scores = jnp.array([0.3, 0.1, 0.2])
    assert np.isnan(metrics.roc_auc(scores, jnp.array(labels)))
    assert np.isnan(metrics.average_precision(scores, jnp.array(labels))) == (sum(labels) == 0)


def test_constant_targets_have_no_r2_whatever_their_mean_rounds_to():
    """The mean of equal numbers is another number in float32, by rounding: that is no variance."""
    for targets in (jnp.full(7, 0.1), jnp.full(1001, 1e4 / 3)):
        assert np.isnan(Regression.of(targets + 0.5, targets).r2())


REFUSED = [
    (lambda: metrics.perplexity(jnp.ones(3)), "expected a Mean, got"),  # pyright: ignore
    (lambda: metrics.bleu([], []), "at least one candidate"),
    (lambda: metrics.bleu([["a"]], [[["a"]]], max_order=0), "max_order"),
    (lambda: metrics.bleu([[1, 2]], [[1, 2]]), "sentence 0"),  # pyright: ignore
    (lambda: metrics.accuracy(jnp.zeros((2, 0)), jnp.zeros(2, int)), "holds the classes"),
    (lambda: metrics.top_k_accuracy(jnp.zeros((2, 3)), jnp.zeros(2, int), 1.5), "k: expected"),  # pyright: ignore
    (lambda: Calibration.of(jnp.zeros(2), jnp.zeros(2), bins=2.5), "bins: expected a whole number"),  # pyright: ignore
    (lambda: Confusion.of(LABELS, LABELS, 0), "num_classes"),
    (lambda: Confusion.of(LABELS, LABELS, C, ignore_label=0.5), "ignore_label"),  # pyright: ignore
    (lambda: Regression.of(SCORES.astype(complex), SCORES), "complex"),
    (lambda: metrics.roc_auc(SCORES.astype(complex), BITS), "real numbers"),
    (lambda: jax.jit(Calibration.of)(CONFIDENCE.astype(np.complex64), BITS), "real numbers"),
    (lambda: Mean.of(SCORES.astype(complex)), "Mean: expected real numbers"),
    (lambda: metrics.bleu(None, None), "a list of sentences"),  # pyright: ignore
    (lambda: metrics.bleu([["a"]], [None]), "sentence 0"),  # pyright: ignore
    (lambda: metrics.bleu("a b", ["a b"]), "a list of sentences"),
    (lambda: metrics.accuracy(jnp.zeros((2, 1)), jnp.zeros((2, 1), int)), r"\(logits > 0\) == labels"),
    (lambda: metrics.accuracy(jnp.zeros(2), jnp.zeros(2, int)), r"\(logits > 0\) == labels"),
    (lambda: metrics.accuracy(jnp.zeros((2, 3)), jnp.eye(3, dtype=int)[:2]), r"labels.argmax\(-1\)"),
    (lambda: metrics.accuracy(jnp.zeros((2, 3)), jnp.zeros((2, 1), int)), r"labels\[..., 0\]"),
    (lambda: metrics.roc_auc(SCORES, 2 * BITS - 1), "labels > 0"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_the_perplexity_of_no_token_is_no_number():
    assert np.isnan(metrics.perplexity(Mean.of(jnp.zeros(0))))
