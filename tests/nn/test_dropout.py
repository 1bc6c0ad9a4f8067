"""Dropout: what is kept in the mean, the ends of the rate, swept rates."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import nn
from fdl.ops.dropout import dropout

X = jnp.asarray(np.random.default_rng(0).uniform(1.0, 2.0, size=(100, 200)), jnp.float32)


def key(seed: int = 0) -> jax.Array:
    return jax.random.key(seed)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_the_mean_is_kept_and_the_rate_is_the_share_that_is_dropped(rate: float, dtype: Any):
    x = X.astype(dtype)
    y = np.asarray(nn.Dropout(rate)({}, x, key=key(), train=True), np.float64)
    deviation = np.sqrt(rate * (1 - rate) / x.size)
    assert (y == 0).mean() == pytest.approx(rate, abs=4 * deviation)
    exact = np.asarray(x, np.float64)
    tolerance = 4 * deviation / (1 - rate) + (0.005 if dtype == jnp.bfloat16 else 0)
    assert y.mean() / exact.mean() == pytest.approx(1.0, abs=tolerance)
    np.testing.assert_allclose(y[y != 0], exact[y != 0] / (1 - rate), rtol=1e-2 if dtype == jnp.bfloat16 else 1e-6)


def test_rate_zero_is_the_identity_and_needs_no_key():
    for rate in (0.0, 0):
        assert nn.Dropout(rate)({}, X, train=True) is X
    np.testing.assert_array_equal(dropout(X, 0.0, key()), X)


def test_rate_one_is_zero_with_gradient_zero():
    assert not nn.Dropout(1.0)({}, X, key=key(), train=True).any()
    gradient = jax.grad(lambda x, rate: dropout(x, rate, key()).sum(), argnums=(0, 1))(X, 1.0)
    assert not np.asarray(gradient[0]).any()
    assert float(gradient[1]) == 0.0


@pytest.mark.parametrize("layer", [nn.Dropout, nn.FeatureDropout, nn.DropPath])
@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
def test_a_rate_that_is_no_probability_is_refused(layer: Any, rate: float):
    with pytest.raises(fdl.InputError, match=rf"{layer.__name__}: rate is the probability of dropping.*got {rate}"):
        layer(rate)


def dropped(rate: Any) -> jax.Array:
    return nn.Dropout(rate)({}, X, key=key(), train=True)


swept = jax.jit(dropped)


@pytest.mark.parametrize("rate", [0.1, 0.37, 0.9, 0.999])
def test_a_traced_rate_is_the_python_float_bit_for_bit(rate: float):
    """Solo run and member of a sweep must drop the same elements and scale the rest alike."""
    want = np.asarray(dropped(rate))
    np.testing.assert_array_equal(swept(rate), want)
    np.testing.assert_array_equal(jax.vmap(swept)(np.array([0.25, rate], np.float32))[1], want)
    np.testing.assert_array_equal(jax.jit(lambda: dropped(rate))(), want)
    np.testing.assert_array_equal(jax.jit(lambda x: nn.Dropout(rate)({}, x, key=key(), train=True))(X), want)


def test_a_traced_rate_does_not_widen_bfloat16():
    half = jax.eval_shape(lambda rate: nn.Dropout(rate)({}, X.astype(jnp.bfloat16), key=key(), train=True), 0.5)
    assert half.dtype == jnp.bfloat16


def test_a_traced_rate_needs_a_key_as_well():
    with pytest.raises(fdl.InputError, match="train=True needs randomness; pass key="):
        jax.eval_shape(lambda rate: nn.Dropout(rate)({}, X, train=True), 0.0)


def test_what_is_dropped_together():
    x = jnp.ones((50, 4, 4, 8))
    features = np.asarray(nn.FeatureDropout(0.5)({}, x, key=key(), train=True))
    np.testing.assert_array_equal(features, np.broadcast_to(features[:, :1, :1], x.shape))
    assert 100 < (features[:, 0, 0] == 0).sum() < 300
    paths = np.asarray(nn.DropPath(0.5)({}, x, key=key(), train=True))
    np.testing.assert_array_equal(paths, np.broadcast_to(paths[:, :1, :1, :1], x.shape))
    assert 10 < (paths[:, 0, 0, 0] == 0).sum() < 40


def test_every_layer_of_a_model_draws_its_own_mask():
    model = nn.Serial(nn.Dropout(0.5), nn.Dropout(0.5))
    y = np.asarray(model({}, X, key=key(), train=True))
    assert set(np.unique(np.round(y / np.asarray(X), 3))) == {0.0, 4.0}
    assert (y == 0).mean() == pytest.approx(0.75, abs=0.02)
