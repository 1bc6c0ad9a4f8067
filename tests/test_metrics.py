"""Means that merge, and accuracy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fdl
from fdl.metrics import Mean, accuracy

NAN = float("nan")
# Whole numbers and quarters: sums of them are exact in float32, so that the laws hold to the bit.
rows = st.lists(st.tuples(st.integers(-1000, 1000), st.sampled_from([0.0, 0.25, 1.0, 3.0])), max_size=12)
few = settings(max_examples=25, deadline=None)


def mean(rows: list[tuple[int, float]]) -> Mean:
    """In numpy arrays of one padded size: a new shape compiles anew. Padding has weight 0 and the value NaN."""
    padded = [*rows, *[(NAN, 0.0)] * (24 - len(rows))]
    values, weight = np.asarray(padded, np.float32).T
    return Mean.of(jnp.asarray(values), jnp.asarray(weight))


def pair(mean: Mean) -> tuple[float, float]:
    return float(mean.total), float(mean.count)


NOTHING = Mean(jnp.float32(0), jnp.float32(0))


@few
@given(rows, rows, rows)
def test_merging_is_adding_in_any_order(a: list, b: list, c: list):
    merged = mean(a).merge(mean(b)).merge(mean(c))
    assert pair(merged) == pair(mean(a).merge(mean(b).merge(mean(c))))
    assert pair(mean(a).merge(mean(b))) == pair(mean(b).merge(mean(a)))
    assert pair(mean(a).merge(NOTHING)) == pair(mean(a))


@few
@given(rows, rows)
def test_the_merged_mean_is_the_mean_of_all(a: list, b: list):
    merged = mean(a).merge(mean(b))
    assert pair(merged) == pair(mean(a + b))
    values, weight = np.array(a + b, np.float64).reshape(-1, 2).T
    want = np.average(values, weights=weight) if weight.sum() else 0.0
    assert float(merged.value()) == pytest.approx(want, rel=1e-6)


def test_weight_zero_hides_whatever_is_there():
    values = jnp.array([1.0, NAN, float("inf"), 3.0])
    weight = jnp.array([1.0, 0.0, 0.0, 1.0])
    assert float(Mean.of(values, weight).value()) == 2.0
    gradient = jax.grad(lambda v: Mean.of(v, weight).value())(values)
    assert gradient.tolist() == [0.5, 0.0, 0.0, 0.5]


def test_the_mean_of_nothing_is_zero_and_has_gradient_zero():
    values, weight = jnp.array([5.0, NAN]), jnp.zeros(2)
    assert float(Mean.of(values, weight).value()) == 0.0
    assert jax.grad(lambda v: Mean.of(v, weight).value())(values).tolist() == [0.0, 0.0]
    assert float(NOTHING.value()) == 0.0


def test_counts_and_flags_are_averaged_in_float32():
    for values in (jnp.array([True, False]), jnp.array([1, 0], jnp.uint8), jnp.array([1, 0], jnp.bfloat16)):
        got = Mean.of(values)
        assert got.total.dtype == got.count.dtype == jnp.float32
        assert pair(got) == (1.0, 2.0)
    many = Mean.of(jnp.ones(1000, jnp.bfloat16))  # bfloat16 counts to 256
    assert pair(many) == (1000.0, 1000.0)
    assert pair(Mean.of(jnp.array([1.0, 2.0]), jnp.array([True, False]))) == (1.0, 1.0)


def test_a_mean_is_a_pytree():
    doubled = jax.jit(lambda mean: jax.tree.map(lambda a: 2 * a, mean))(mean([(3, 1.0)]))
    assert isinstance(doubled, Mean)
    assert pair(doubled) == (6.0, 2.0)


def test_a_weight_of_another_shape_is_refused():
    with pytest.raises(fdl.InputError, match=r"weight \[1\] must have the shape of the values \[3\]"):
        Mean.of(jnp.ones(3), jnp.ones(1))


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int8"])
def test_accuracy_is_one_where_the_largest_logit_is_that_of_the_label(dtype: str):
    logits = jnp.array([[[0.1, 0.9, 0.0], [2.0, 1.0, 1.5]], [[0.0, 0.0, 0.5], [-3.0, -2.0, -4.0]]])
    labels = jnp.array([[1, 1], [2, 1]], dtype)
    got = accuracy(logits, labels)
    assert got.dtype == jnp.float32
    assert got.tolist() == [[1.0, 0.0], [1.0, 1.0]]
    assert accuracy(logits.astype(jnp.bfloat16), labels).tolist() == got.tolist()
    assert float(accuracy(logits[0, 0], labels[0, 0])) == 1.0


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (jnp.zeros((4, 1), int), r"logits \[4, 3\] need labels \[4\], got \[4, 1\]"),
        (jnp.zeros((4, 3)), r"need labels \[4\], got \[4, 3\]"),
        (jnp.zeros(4), "integer"),
        (jnp.zeros(4, bool), "integer"),
    ],
)
def test_accuracy_refuses_what_would_broadcast(labels: jax.Array, message: str):
    with pytest.raises(fdl.InputError, match=message):
        accuracy(jnp.zeros((4, 3)), labels)
