"""Normalisation: running statistics by hand, accuracy of float32, what is refused."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import nn
from fdl.ops import norm

random = np.random.default_rng(0)


def fresh(layer: fdl.Layer) -> tuple[Any, Any]:
    return fdl.init(layer, jax.random.key(0))


def test_running_statistics_by_hand():
    """Values 1, 2, 3, 6: mean 3, biased variance 14/4, unbiased 14/3. From (0, 1), nine tenths are kept each time."""
    layer = nn.BatchNorm(1)
    params, state = fresh(layer)
    x = jnp.array([[1.0], [2.0], [3.0], [6.0]])
    y, state = layer.apply(params, state, x, train=True)
    np.testing.assert_allclose(y[:, 0], (x[:, 0] - 3) / np.sqrt(14 / 4 + 1e-5), rtol=1e-6)
    assert float(state["mean"][0]) == pytest.approx(0.1 * 3)
    assert float(state["var"][0]) == pytest.approx(0.9 * 1 + 0.1 * 14 / 3)
    _, state = layer.apply(params, state, x, train=True)
    assert float(state["mean"][0]) == pytest.approx(0.9 * 0.3 + 0.3)
    assert float(state["var"][0]) == pytest.approx(0.9 * (0.9 + 1.4 / 3) + 1.4 / 3)
    y, after = layer.apply(params, state, jnp.array([[0.57]]))
    assert float(y[0, 0]) == pytest.approx(0.0, abs=1e-6)
    assert after is state


def test_momentum_is_the_share_that_is_kept():
    x = jnp.array([[1.0], [3.0]])
    for momentum, mean in ((0.0, 2.0), (0.25, 1.5), (1.0, 0.0)):
        layer = nn.BatchNorm(1, momentum=momentum)
        _, state = layer.apply(*fresh(layer), x, train=True)
        assert float(state["mean"][0]) == mean


def test_statistics_are_taken_per_channel_over_all_other_axes():
    x = random.normal(size=(2, 3, 4, 2)).astype(np.float32) * [1, 5] + [0, 7]
    layer = nn.BatchNorm(2, momentum=0.0)
    y, state = layer.apply(*fresh(layer), jnp.asarray(x, jnp.float32), train=True)
    flat = x.reshape(-1, 2).astype(np.float64)
    np.testing.assert_allclose(state["mean"], flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(state["var"], flat.var(0, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(np.reshape(y, (-1, 2)), (flat - flat.mean(0)) / flat.std(0), atol=2e-5)


def test_masked_examples_count_for_nothing_even_if_they_are_nan():
    x = jnp.array([[1.0], [5.0], [float("nan")]])
    layer = nn.BatchNorm(1, momentum=0.0)
    y, state = layer.apply(*fresh(layer), x, train=True, mask=jnp.array([True, True, False]))
    assert y[:2, 0].tolist() == pytest.approx([-1.0, 1.0], abs=1e-5)
    assert (float(state["mean"][0]), float(state["var"][0])) == (3.0, 8.0)
    _, unchanged = layer.apply(*fresh(layer), x, train=True, mask=jnp.zeros(3, bool))
    assert (float(unchanged["mean"][0]), float(unchanged["var"][0])) == (0.0, 1.0)
    with pytest.raises(fdl.InputError, match=r"mask \[2\] must be leading axes of x \[3, 1\]"):
        layer.apply(*fresh(layer), x, train=True, mask=jnp.ones(2, bool))


def test_one_value_a_channel_is_refused_in_training_only():
    layer = nn.BatchNorm(3)
    params, state = fresh(layer)
    layer.apply(params, state, jnp.ones((1, 3)))
    layer.apply(params, state, jnp.ones((1, 2, 3)), train=True)
    for shape in ((1, 3), (3,), (1, 1, 1, 3)):
        with pytest.raises(fdl.InputError, match=r"BatchNorm\(3\): training needs at least two values a channel"):
            layer.apply(params, state, jnp.ones(shape), train=True)


def test_missing_state_is_an_error_that_names_init():
    model = nn.Serial(norm=nn.BatchNorm(3))
    params, _ = fresh(model)
    with pytest.raises(fdl.InputError, match=r"BatchNorm\(3\): its running statistics are missing.*fdl\.init") as error:
        model.apply(params, {}, jnp.ones((2, 3)))
    assert error.value.__notes__[0] == "in layer norm"


def test_no_gradient_flows_into_the_running_statistics():
    layer = nn.BatchNorm(2)
    params, state = fresh(layer)
    mean = lambda x: layer.apply(params, state, x, train=True)[1]["mean"].sum()  # noqa: E731
    assert not jax.grad(mean)(jnp.arange(6.0).reshape(3, 2)).any()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_variance_of_n_1000_1_survives_float32(dtype: Any):
    """One pass, E[x^2] - E[x]^2, is off by percents here."""
    x = jnp.asarray(random.normal(1000.0, 1.0, size=(4096, 1)), dtype)
    exact = np.asarray(x, np.float64)
    mean, var = norm.moments(x, 0)
    assert mean.dtype == var.dtype == jnp.float32
    assert float(mean[0, 0]) == pytest.approx(exact.mean(), rel=1e-6)
    assert float(var[0, 0]) == pytest.approx(exact.var(), rel=1e-3)


def test_statistics_of_bfloat16_are_taken_in_float32():
    """4096 ones have mean 1; a bfloat16 sum stops at 256."""
    layer = nn.BatchNorm(1, momentum=0.0)
    params, state = fdl.init(layer, jax.random.key(0), jnp.bfloat16)
    x = jnp.ones((4096, 1), jnp.bfloat16).at[0].set(2.0)
    y, state = layer.apply(params, state, x, train=True)
    assert y.dtype == jnp.bfloat16
    assert state["mean"].dtype == jnp.float32
    assert float(state["mean"][0]) == pytest.approx(4097 / 4096, rel=1e-6)
    assert float(state["var"][0]) == pytest.approx(1 / 4096, rel=1e-3)


@pytest.mark.parametrize("layer", [nn.LayerNorm(64), nn.GroupNorm(1, 64), nn.RMSNorm(64)], ids=repr)
def test_what_is_normalised_has_moments_zero_and_one(layer: fdl.Layer):
    x = jnp.asarray(random.normal(3.0, 5.0, size=(8, 64)), jnp.float32)
    y = np.asarray(layer(fresh(layer)[0], x), np.float64)
    np.testing.assert_allclose(np.square(y).mean(-1), 1.0, rtol=1e-5)
    if not isinstance(layer, nn.RMSNorm):
        np.testing.assert_allclose(y.mean(-1), 0.0, atol=1e-6)
        shifted = layer(fresh(layer)[0], 4.0 * x + 100.0)
        np.testing.assert_allclose(shifted, y, atol=1e-4)


def test_a_constant_has_no_variance_and_no_infinite_gradient():
    layer = nn.LayerNorm(4)
    params, _ = fresh(layer)
    x = jnp.full((2, 4), 7.0)
    assert not layer(params, x).any()
    assert np.isfinite(jax.grad(lambda x: (layer(params, x) ** 2).sum())(x)).all()


@pytest.mark.parametrize("dtype", ["bool", "int32", "float16", "bfloat16", "float32"])
def test_widen_is_float32_or_wider(dtype: str):
    assert norm.widen(jnp.ones(2, dtype)).dtype == jnp.float32
    with jax.enable_x64(True):
        assert norm.widen(jnp.ones(2, "float64")).dtype == jnp.float64
        assert norm.widen(jnp.ones(2, "int64")).dtype == jnp.float32
