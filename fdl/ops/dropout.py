"""Dropout as a bare function."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float | jax.Array, key: jax.Array, shared: Sequence[int] = ()) -> jax.Array:
    """y = x * m / (1 - rate), m ~ Bernoulli(1 - rate), so that E[y] = x (Srivastava et al., 2014, section 10).

    Args:
      x: any shape.
      rate: the probability of dropping, 0 to 1; at 1 everything is 0. May be traced.
      key: draws the mask.
      shared: axes along which all elements are kept or dropped together.
    """
    keep = 1.0 - jnp.asarray(rate)  # as an array: a Python float is subtracted in double, a traced one is not
    axes = {axis % x.ndim for axis in shared}
    mask = jax.random.bernoulli(key, keep, [1 if i in axes else n for i, n in enumerate(x.shape)])
    # where() on the divisor too: a zero divisor would make the gradient NaN even under a mask that drops all.
    # Not x / keep: XLA turns that into this product where keep is a constant, and a swept rate would differ in a bit.
    scale = 1.0 / jnp.where(keep > 0.0, keep, 1.0)
    return jnp.where(mask, x * scale.astype(x.dtype), jnp.zeros_like(x))
