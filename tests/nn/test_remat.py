"""Remat: the same numbers in less memory."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import fdl
from fdl import nn


def test_it_keeps_one_activation_a_block():
    """Of a block Linear, LayerNorm, gelu nine arrays of the size of x are kept otherwise."""
    block = nn.Serial(nn.Linear(64, 64), nn.LayerNorm(64), jax.nn.gelu)
    x = np.random.default_rng(0).normal(size=(256, 64)).astype(np.float32)
    kept, gradients = [], []
    for model in (nn.Serial(*[block] * 16), nn.Serial(*[nn.Remat(block)] * 16)):
        params, _ = fdl.init(model, jax.random.key(0))
        loss = lambda params, x, model=model: jnp.square(model(params, x)).sum()  # noqa: E731
        _, backward = jax.vjp(loss, params, x)
        own = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
        kept.append((sum(leaf.nbytes for leaf in jax.tree.leaves(backward)) - own) / x.nbytes)
        gradients.append(jax.jit(jax.grad(loss))(params, x))
    assert kept[0] > 8 * 16
    assert kept[1] < 16 + 3
    for a, b in zip(*map(jax.tree.leaves, gradients), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_keywords_reach_the_block():
    layer = nn.Remat(nn.Attention(4, 2))
    params, _ = fdl.init(layer, jax.random.key(0))
    x, mask = jnp.ones((1, 3, 4)), jnp.array([[True, True, False]])
    np.testing.assert_array_equal(layer(params, x, mask=mask), layer.block(params, x, mask=mask))
