# pyright: reportArgumentType=false
"""RMS, group, instance, spectral and weight normalisation; batch normalisation under a mask."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import nn

KEY = jax.random.key(0)
X = (np.random.default_rng(0).normal(size=(4, 3, 5, 6)) * 3 + 2).astype(np.float32)


def apply(layer, x=X, **keywords):
    params, state = fdl.init(layer, KEY)
    return layer.apply(params, state, x, **keywords)


def test_each_norm_removes_the_statistics_it_names():
    def moments(y, axes):
        return np.mean(y, axes), np.var(y, axes)

    for layer, reshape, axes in (
        (nn.InstanceNorm(6), X.shape, (1, 2)),
        (nn.GroupNorm(2, 6), (4, 15, 2, 3), (1, 3)),
        (nn.GroupNorm(1, 6), X.shape, (1, 2, 3)),
        (nn.LayerNorm(6), X.shape, (3,)),
    ):
        mean, var = moments(np.asarray(apply(layer)[0]).reshape(reshape), axes)
        np.testing.assert_allclose(mean, 0, atol=1e-5)
        np.testing.assert_allclose(var, 1, atol=1e-3)
    np.testing.assert_allclose(np.square(apply(nn.RMSNorm(6))[0]).mean(-1), 1, rtol=1e-4)


def test_statistics_survive_a_large_mean():
    """One pass in float32 would lose the variance of N(1000, 1) beside its mean."""
    x = (np.random.default_rng(1).normal(size=(2, 64, 1)) + 1000).astype(np.float32)
    want = (x - x.astype(np.float64).mean(1, keepdims=True)) / x.astype(np.float64).std(1, keepdims=True)
    np.testing.assert_allclose(apply(nn.InstanceNorm(1), x)[0], want, atol=2e-4)


def test_batch_norm_under_a_mask_is_batch_norm_of_the_rest():
    """What the mask hides, NaN here, reaches neither the other rows, nor the statistics, nor the gradient."""
    layer = nn.BatchNorm(6)
    params, state = fdl.init(layer, KEY)
    mask = np.array([[True, True, False], [True, False, False], [True, True, True], [False, False, False]])
    x = np.where(mask[..., None, None], X, np.nan).astype(np.float32)
    y, new = layer.apply(params, state, x, train=True, mask=jnp.asarray(mask))
    want, expected = layer.apply(params, state, X[mask], train=True)
    np.testing.assert_allclose(np.asarray(y)[mask], want, rtol=1e-4, atol=1e-5)
    for name in ("mean", "var"):
        np.testing.assert_allclose(new[name], expected[name], rtol=1e-5)

    def loss(x):
        y = layer.apply(params, state, x, train=True, mask=jnp.asarray(mask))[0]
        return jnp.where(mask[..., None, None], y**3, 0).sum()

    assert np.isfinite(np.asarray(jax.grad(loss)(jnp.asarray(X)))).all()


def test_a_batch_that_is_all_padding_moves_nothing():
    layer = nn.BatchNorm(6)
    params, state = fdl.init(layer, KEY)
    y, new = layer.apply(params, state, X, train=True, mask=jnp.zeros(4, bool))
    jax.tree.map(np.testing.assert_array_equal, new, state)
    assert np.isfinite(np.asarray(y)).all()


def test_spectral_norm_divides_by_the_largest_singular_value():
    layer = nn.SpectralNorm(nn.Linear(6, 4, use_bias=False))
    params, state = fdl.init(layer, KEY)
    for _ in range(200):
        _, state = layer.apply(params, state, X, train=True)
    kernel = np.asarray(params["layer"]["kernel"])
    want = X @ (kernel / np.linalg.svd(kernel, compute_uv=False)[0])
    np.testing.assert_allclose(layer.apply(params, state, X)[0], want, rtol=1e-4, atol=1e-5)
    _, unchanged = layer.apply(params, state, X)
    np.testing.assert_array_equal(unchanged["u"], state["u"])


def test_spectral_norm_keeps_the_statistics_of_the_layer_inside():
    """A layer with a kernel and running statistics: both states live under their names."""
    layer = nn.SpectralNorm(nn.Linear(6, 4))
    _, state = fdl.init(layer, KEY)
    assert set(state) == {"u"}
    y, new = apply(layer, train=True)
    assert set(new) == {"u"}
    assert y.shape == (4, 3, 5, 4)


def test_weight_norm_separates_length_from_direction():
    layer = nn.WeightNorm(nn.Linear(6, 4, use_bias=False))
    params, _ = fdl.init(layer, KEY)
    params["scale"] = jnp.array([1.0, 2.0, 3.0, 4.0])
    longer = {"layer": {"kernel": params["layer"]["kernel"] * 7}, "scale": params["scale"]}
    np.testing.assert_allclose(layer(params, X), layer(longer, X), rtol=1e-5, atol=1e-5)
    kernel = np.asarray(params["layer"]["kernel"])
    np.testing.assert_allclose(
        layer(params, X), X @ (kernel / np.linalg.norm(kernel, axis=0) * [1, 2, 3, 4]), rtol=1e-4, atol=1e-5
    )


REFUSED = [
    (lambda: nn.GroupNorm(4, 6), "4 groups do not divide 6"),
    (lambda: apply(nn.GroupNorm(2, 6), X[..., :5]), "features=6"),
    (lambda: apply(nn.InstanceNorm(6), X[:, 0, 0]), r"\[B, P, ..., features=6\]"),
    (lambda: apply(nn.SpectralNorm(nn.LayerNorm(6))), "with a kernel of its own"),
    (
        lambda: nn.SpectralNorm(nn.Linear(6, 4)).apply(fdl.init(nn.SpectralNorm(nn.Linear(6, 4)), KEY)[0], {}, X),
        "missing",
    ),
    (lambda: apply(nn.BatchNorm(6), train=True, mask=jnp.ones((4, 5), bool)), "leading axes"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_refused(call, message):
    with pytest.raises(fdl.InputError, match=message):
        call()
