"""Normalisations as bare functions. Statistics are taken in float32 (or wider) and in two passes.

One pass, E[x^2] - E[x]^2, cancels: for N(1000, 1) in float32 it returns 1.000 where two passes give 1.019.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

Axes = Sequence[int] | int


def widen(x: jax.Array) -> jax.Array:
    """x in float32, or unchanged where it is wider."""
    x = jnp.asarray(x)
    # not promote_types(): under strict dtype promotion it refuses bfloat16 with float32
    wide = jnp.issubdtype(x.dtype, jnp.inexact) and x.dtype.itemsize >= 4
    return x if wide else x.astype(jnp.float32)


def moments(x: jax.Array, axis: Axes, mask: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
    """Mean and (biased) variance over `axis`, in float32 or x's dtype where that is wider, the axes kept with size 1.

    Where a `mask` (broadcast against x) is False, x does not count, whatever it is; of nothing, both are 0.
    """
    x = widen(x)
    mean = _mean(x, axis, mask)
    return mean, _mean(jnp.square(x - mean), axis, mask)


def _mean(x: jax.Array, axis: Axes, mask: jax.Array | None) -> jax.Array:
    if mask is None:
        return x.mean(axis, keepdims=True)
    mask = jnp.broadcast_to(mask, x.shape)
    count = jnp.maximum(mask.sum(axis, keepdims=True), 1).astype(x.dtype)
    return jnp.where(mask, x, 0).sum(axis, keepdims=True) / count


def inverse_root(square: jax.Array, eps: float = 0.0) -> jax.Array:
    """1 / sqrt(square + eps), and 0, with a gradient of 0, where square + eps is 0."""
    total = square + eps
    if isinstance(eps, float | int) and eps > 0:
        return jax.lax.rsqrt(total)
    # where() on the argument too: the gradient of 1/sqrt(0) would be NaN even where it is not used
    return jnp.where(total == 0, jnp.zeros_like(total), jax.lax.rsqrt(jnp.where(total == 0, 1.0, total)))


def normalize(
    x: jax.Array, mean: jax.Array, var: jax.Array, scale: jax.Array, bias: jax.Array, eps: float
) -> jax.Array:
    """y = (x - mean) / sqrt(var + eps) * scale + bias, computed wide, in x's dtype."""
    wide = widen(x)
    mean, var, scale, bias = (a.astype(wide.dtype) for a in (mean, var, scale, bias))
    return ((wide - mean) * inverse_root(var, eps) * scale + bias).astype(x.dtype)


def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, eps: float = 1e-5) -> jax.Array:
    """Normalises the last axis of x [..., D] (Ba et al., Layer normalization, 2016)."""
    # x is read several times. XLA for CPU would fuse a sum that makes it, such as that of a residual connection, into
    # each of its readers, and so the chain of all sums before it: a GPT's step grew faster than its depth.
    x = jax.lax.optimization_barrier(x) if jax.default_backend() == "cpu" else x
    return normalize(x, *moments(x, -1), scale, bias, eps)


def rms_norm(x: jax.Array, scale: jax.Array, eps: float = 1e-6) -> jax.Array:
    """y = x / sqrt(mean(x^2) + eps) * scale over the last axis of x [..., D] (Zhang & Sennrich, 2019, equation 4)."""
    wide = widen(x)
    square = jnp.square(wide).mean(-1, keepdims=True)
    return (wide * inverse_root(square, eps) * scale.astype(wide.dtype)).astype(x.dtype)


def group_norm(
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    num_groups: int,
    eps: float = 1e-5,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Normalises each group of channels of each example over its channels and all positions (Wu & He, 2018).

    Args:
      x: [B, ..., C], C a multiple of `num_groups`; neighbouring channels form a group.
      scale, bias: [C].
      mask: booleans [B, ...] of the positions; where it is False x counts for no statistic.
    """
    positions = math.prod(x.shape[1:-1])  # reshape(-1) cannot tell the sizes of an empty array
    grouped = x.reshape(x.shape[0], positions, num_groups, x.shape[-1] // num_groups)
    shape = (num_groups, -1)
    counted = None if mask is None else mask.reshape(x.shape[0], positions, 1, 1)
    y = normalize(grouped, *moments(grouped, (1, 3), counted), scale.reshape(shape), bias.reshape(shape), eps)
    return y.reshape(x.shape)
