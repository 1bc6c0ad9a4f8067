"""Segment reductions against a loop in numpy, at their edges, and in their gradients."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.test_util import check_grads

from fdl.errors import InputError
from fdl.ops.segment import gather, segment_max, segment_mean, segment_softmax, segment_sum

REDUCTIONS = {segment_sum: np.sum, segment_mean: np.mean, segment_max: np.max}


def loop(reduce, x, ids, num_segments):
    """One segment at a time, 0 where it is empty."""
    rows = [x[ids == s] for s in range(num_segments)]
    return np.stack([reduce(r, 0) if len(r) else np.zeros(x.shape[1:], x.dtype) for r in rows])


@pytest.mark.parametrize("function", REDUCTIONS, ids=lambda f: f.__name__)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_reductions_are_those_of_a_loop(function, data):
    """With empty segments, unsorted ids and rows that belong nowhere."""
    ids = np.array(data.draw(st.lists(st.integers(-1, 4), min_size=8, max_size=8)), np.int32)
    x = np.random.default_rng(abs(ids).sum()).normal(size=(len(ids), 2)).astype(np.float32)
    np.testing.assert_allclose(function(x, ids, 5), loop(REDUCTIONS[function], x, ids, 5), rtol=1e-6, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(ids=st.lists(st.integers(-1, 3), min_size=8, max_size=8))
def test_softmax_is_that_of_each_segment(ids):
    ids = np.array(ids, np.int32)
    logits = 5 * np.random.default_rng(abs(ids).sum()).normal(size=(len(ids), 2)).astype(np.float32)
    got = np.asarray(segment_softmax(jnp.asarray(logits), jnp.asarray(ids), 4))
    for s in set(ids[ids >= 0].tolist()):
        exp = np.exp(logits[ids == s])
        np.testing.assert_allclose(got[ids == s], exp / exp.sum(0), rtol=1e-5)
    np.testing.assert_array_equal(got[ids == -1], 0)


@pytest.mark.parametrize("function", [*REDUCTIONS, segment_softmax], ids=lambda f: f.__name__)
def test_nothing_gives_nothing(function):
    """No rows, no segments, or no row that belongs to one: zeros of the right shape."""
    rows = function is segment_softmax
    none = jnp.zeros(0, jnp.int32)
    assert function(jnp.zeros((0, 3)), none, 2).tolist() == ([] if rows else [[0.0] * 3] * 2)
    assert function(jnp.zeros((0, 3)), none, 0).shape == (0, 3)
    outside = function(jnp.full((4, 3), 7.0), jnp.full(4, -1), 2)
    np.testing.assert_array_equal(outside, np.zeros((4 if rows else 2, 3)))


def test_sums_of_bfloat16_are_added_in_float32():
    """In bfloat16 a running sum of ones stops at 256, where 256 + 1 rounds to 256."""
    ones, ids = jnp.ones(4096, jnp.bfloat16), jnp.zeros(4096, jnp.int32)
    with jax.numpy_dtype_promotion("strict"):
        total, mean = segment_sum(ones, ids, 1), segment_mean(ones * 3, ids, 1)
        assert (total.dtype, mean.dtype) == (jnp.bfloat16, jnp.bfloat16)
        assert (float(total[0]), float(mean[0])) == (4096.0, 3.0)
        assert segment_softmax(ones, ids, 1).dtype == jnp.bfloat16


def test_integers_and_booleans_are_counted_exactly():
    big = jnp.array([2**24, 1, -5], jnp.int32)  # 2**24 + 1 is no float32
    assert segment_sum(big, jnp.array([0, 0, 1]), 2).tolist() == [2**24 + 1, -5]
    assert segment_sum(jnp.array([True, True, False]), jnp.array([1, 1, 1]), 2).tolist() == [0, 2]
    assert segment_max(big, jnp.array([0, 2, 2]), 3).tolist() == [2**24, 0, 1]


def test_a_maximum_keeps_infinities_and_nan():
    x = jnp.array([-jnp.inf, jnp.nan, 1.0, jnp.inf])
    np.testing.assert_array_equal(segment_max(x, jnp.array([0, 1, 1, 2]), 4), [-np.inf, np.nan, np.inf, 0])


def test_rows_that_tie_for_the_maximum_share_its_gradient():
    ids = jnp.array([0, 0, 0, 1, -1])
    gradient = jax.grad(lambda x: (segment_max(x, ids, 3) * jnp.array([1.0, 10.0, 100.0])).sum())
    assert gradient(jnp.array([2.0, 2.0, 1.0, 0.0, 9.0])).tolist() == [0.5, 0.5, 0.0, 10.0, 0.0]


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e4, 1e38])
def test_softmax_stays_finite_with_its_gradient(scale):
    """Segments: ordinary, one row, empty, nothing but -inf; a huge row outside all of them."""
    logits = jnp.array([1.0, -1.0, 2.0, -jnp.inf, -jnp.inf, 3.0]) * scale
    ids = jnp.array([0, 0, 1, 3, 3, -1])
    weights = jnp.arange(1.0, 7.0)
    value, gradient = jax.value_and_grad(lambda x: segment_softmax(x, ids, 4) @ weights)(logits)
    want = jax.nn.softmax(logits[:2]) @ weights[:2] + weights[2]
    np.testing.assert_allclose(value, want, rtol=1e-6)
    assert jnp.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[2:], 0)


@pytest.mark.parametrize(
    "function", [segment_sum, segment_mean, segment_max, segment_softmax], ids=lambda f: f.__name__
)
def test_gradients_agree_with_finite_differences(function):
    with jax.enable_x64(True):
        ids = jnp.array([2, 0, 2, 2, -1, 0])
        x, weights = jax.random.normal(jax.random.key(0), (2, 6, 2), jnp.float64)
        check_grads(lambda x: function(x, ids, 4)[:4] * weights[:4], (x,), 1, ["fwd", "rev"], rtol=1e-6)


def test_gather_reads_zero_for_padding_and_sends_no_gradient_there():
    ids = jnp.array([1, -1, 1])
    np.testing.assert_array_equal(gather(jnp.array([[1.0], [2.0]]), ids), [[2], [0], [2]])
    assert jax.grad(lambda x: gather(x, ids).sum())(jnp.ones(2)).tolist() == [0.0, 2.0]
    assert gather(jnp.zeros((0, 2)), jnp.array([-1])).tolist() == [[0.0, 0.0]]
    assert gather(jnp.array([4, 5]), ids).tolist() == [5, 0, 5]


def test_padding_is_never_multiplied_by_a_nan_that_it_does_not_read():
    x = jnp.array([jnp.nan, 1.0])
    gradient = jax.grad(lambda w: (gather(x, jnp.array([1, -1])) * w).sum())(jnp.ones(2))
    assert gradient.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("bad", [3, -2, 1000])
def test_an_id_out_of_range_is_an_error_where_it_can_be_seen(bad):
    ids = jnp.array([0, bad])
    for function in (segment_sum, segment_mean, segment_max, segment_softmax):
        with pytest.raises(InputError, match=rf"{function.__name__}: id {bad} at 1 is outside 0\.\.2"):
            function(jnp.ones(2), ids, 3)
    with pytest.raises(InputError, match="counted from 1"):
        gather(jnp.ones(3), ids)


@pytest.mark.parametrize("bad", [3, -2, 1000])
def test_an_id_out_of_range_in_a_compiled_program_is_left_out_or_nan(bad):
    """Left out where it is written, NaN where it is read: never another row's."""
    x, ids = jnp.array([1.0, 2.0]), jnp.array([0, bad])
    for function in (segment_sum, segment_mean, segment_max):
        np.testing.assert_array_equal(jax.jit(function, static_argnums=2)(x, ids, 3), [1, 0, 0])
    np.testing.assert_array_equal(jax.jit(segment_softmax, static_argnums=2)(x, ids, 3), [1, 0])
    np.testing.assert_array_equal(jax.jit(gather)(jnp.array([1.0, 2.0, 3.0]), ids), [1, np.nan])


@pytest.mark.parametrize(
    ("x", "ids", "message"),
    [
        (np.ones(3), np.zeros(2, int), r"one id a row, \[3\], got \[2\]"),
        (np.ones(3), np.zeros((3, 1), int), r"got \[3, 1\]"),
        (np.ones(3), np.zeros(3), "integers, got float"),
        (np.ones(()), np.zeros(1, int), "one id a row"),
    ],
)
def test_ids_are_one_integer_a_row(x, ids, message):
    with pytest.raises(InputError, match=message):
        segment_sum(x.astype(np.float32), ids.astype(np.float32 if ids.dtype.kind == "f" else np.int32), 4)


def test_means_and_softmax_need_floats():
    for function in (segment_mean, segment_softmax):
        with pytest.raises(InputError, match="floating-point"):
            function(jnp.ones(2, jnp.int32), jnp.zeros(2, jnp.int32), 1)


def test_vmap_is_a_loop():
    x = jax.random.normal(jax.random.key(0), (3, 6, 2))
    ids = jax.random.randint(jax.random.key(1), (3, 6), -1, 4)
    for function in (segment_sum, segment_mean, segment_max, segment_softmax):
        got = jax.vmap(lambda x, i, f=function: f(x, i, 4))(x, ids)
        want = jnp.stack([function(a, i, 4) for a, i in zip(x, ids, strict=True)])
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)
