"""Pooling equals `lax.reduce_window`, values and gradients, over a table of windows; bins are PyTorch's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import ops

CASES = [
    ((8, 6), 2, None, "VALID"),
    ((7, 6), 3, 2, "SAME"),
    ((7, 6), (2, 3), (1, 2), "VALID"),
    ((7, 6), 3, 1, ((1, 1), (0, 2))),
    ((9,), 4, 3, "SAME"),
    ((4, 5, 3), 2, 1, "SAME"),
    ((90, 5), (45, 2), (3, 1), "SAME"),  # a long window
]


def window_of(case):
    spatial, window, stride, padding = case
    rank = len(spatial)
    every = lambda value: (value,) * rank if isinstance(value, int) else value  # noqa: E731
    stride = window if stride is None else stride
    padding = padding if isinstance(padding, str) else ((0, 0), *padding, (0, 0))
    return (1, *every(window), 1), (1, *every(stride), 1), padding


@pytest.mark.parametrize("case", CASES, ids=str)
def test_max_pool_is_reduce_window(case):
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *case[0], 3)))
        ours = lambda x: jnp.square(ops.max_pool(x, *case[1:])).sum()  # noqa: E731
        theirs = lambda x: jnp.square(jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *window_of(case))).sum()  # noqa: E731
        for got, want in zip(jax.value_and_grad(ours)(x), jax.value_and_grad(theirs)(x), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_avg_pool_is_the_sum_over_the_pixels_there_are(case):
    with jax.enable_x64(True):
        x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *case[0], 3)))
        total = jax.lax.reduce_window(x, 0.0, jax.lax.add, *window_of(case))
        count = jax.lax.reduce_window(jnp.ones_like(x), 0.0, jax.lax.add, *window_of(case))
        np.testing.assert_allclose(ops.avg_pool(x, *case[1:]), total / count, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_of_equal_pixels_the_one_that_xla_takes_receives_the_gradient(case):
    """The first in the order of the array; small integers make ties in most windows, overlapping ones too."""
    x = jnp.asarray(np.random.default_rng(0).integers(3, size=(2, *case[0], 3)), jnp.float32)
    weight = np.random.default_rng(1).normal(size=ops.max_pool(x, *case[1:]).shape).astype(np.float32)
    ours = lambda x: (ops.max_pool(x, *case[1:]) * weight).sum()  # noqa: E731
    theirs = lambda x: (jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, *window_of(case)) * weight).sum()  # noqa: E731
    np.testing.assert_allclose(jax.grad(ours)(x), jax.grad(theirs)(x), rtol=1e-5, atol=1e-6)


def test_a_nan_is_the_maximum_of_every_window_that_sees_it():
    x = jnp.array([1.0, jnp.nan, 2.0, 3.0, 0.0, 1.0]).reshape(1, 6, 1)
    np.testing.assert_array_equal(ops.max_pool(x, 2, 1).ravel(), [np.nan, np.nan, 3.0, 3.0, 1.0])


def test_integers_and_bfloat16():
    """A maximum keeps its type; a mean of integers is no integer; one in bfloat16 is summed in float32."""
    whole = jnp.array([[-3, -1, -2]], jnp.int8).reshape(1, 3, 1)
    assert ops.max_pool(whole, 2, 1, "SAME").ravel().tolist() == [-1, -1, -2]
    assert ops.avg_pool(whole, 2, 1).ravel().tolist() == [-2.0, -1.5]
    ones = jnp.ones((1, 1000, 1), jnp.bfloat16)
    assert ops.avg_pool(ones, 1000).dtype == jnp.bfloat16
    assert ops.avg_pool(ones, 1000).item() == 1.0  # in bfloat16 the sum would stick at 256


def test_no_window_operation_is_left_on_cpu():
    """The gradient of reduce_window (select-and-scatter) alone would double a small network's step."""
    gradient = jax.jit(jax.grad(lambda x: ops.max_pool(x, 3, 2).sum()))
    text = gradient.lower(jnp.ones((2, 9, 9, 3))).as_text()
    assert "select_and_scatter" not in text
    assert "reduce_window" not in text


def test_the_gradient_of_a_maximum_goes_to_one_pixel():
    x = jnp.zeros((1, 2, 2, 1))
    gradient = jax.grad(lambda x: ops.max_pool(x, 2).sum())(x)
    assert gradient.ravel().tolist() == [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(("size", "bins"), [(5, 2), (7, 3), (3, 5), (6, 6), (6, 1)])
def test_adaptive_bins_are_pytorchs(size, bins):
    """Bin i covers floor(i n / m) ... ceil((i + 1) n / m) - 1."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, size, 3)), jnp.float32)
    cut = [x[:, i * size // bins : -(-(i + 1) * size // bins)] for i in range(bins)]
    np.testing.assert_allclose(ops.adaptive_avg_pool(x, bins), np.stack([c.mean(1) for c in cut], 1), rtol=1e-5)
    np.testing.assert_array_equal(ops.adaptive_max_pool(x, bins), np.stack([c.max(1) for c in cut], 1))


def test_global_pools():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 5)), jnp.float32)
    np.testing.assert_allclose(ops.global_avg_pool(x), x.mean((1, 2)), rtol=1e-5)
    np.testing.assert_array_equal(ops.global_max_pool(x), x.max((1, 2)))


def test_a_constant_image_stays_constant_however_it_is_enlarged():
    x = jnp.full((1, 3, 2, 1), 7.0)
    for method in ("nearest", "bilinear"):
        np.testing.assert_allclose(ops.upsample(x, (2, 3), method), jnp.full((1, 6, 6, 1), 7.0))


REFUSED = [
    (lambda: ops.max_pool(jnp.ones((4, 4)), 2), "three axes or more"),
    (lambda: ops.max_pool(jnp.ones((1, 4, 4, 1)), 5), "fits nowhere"),
    (lambda: ops.max_pool(jnp.ones((1, 4, 4, 1)), 2, padding=2), "must be below the window"),
    (lambda: ops.avg_pool(jnp.ones((1, 4, 4, 1)), (2, 2, 2)), "tuple of 2 ints"),
    (lambda: ops.upsample(jnp.ones((1, 4, 1)), 2, "cubic"), "unknown method"),
    (lambda: fdl.nn.Upsample(2, "linear"), "unknown method"),  # pyright: ignore[reportArgumentType]
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_refused(call, message):
    with pytest.raises(fdl.InputError, match=message):
        call()


def test_the_first_of_equal_pixels_has_the_gradient_of_the_maximum():
    x = jnp.array([1.0, 3.0, 3.0]).reshape(1, 3, 1)
    assert jax.grad(lambda x: ops.global_max_pool(x).sum())(x).ravel().tolist() == [0.0, 1.0, 0.0]
