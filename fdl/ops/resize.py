"""Upsampling by whole factors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp

from fdl.errors import InputError, did_you_mean
from fdl.ops.shared import summed_wide
from fdl.ops.window import Sizes, per_axis

METHODS = ("nearest", "bilinear")


def upsample(x: jax.Array, factor: Sizes, method: str = "nearest") -> jax.Array:
    """x [B, *spatial, C] -> [B, *(spatial * factor), C].

    Args:
      factor: an int or one an axis.
      method: "nearest" repeats every pixel; "bilinear" interpolates linearly along each axis (on one or three axes as
        well), pixels seen as squares: output i sits at (i + 1/2) / factor - 1/2, held at the border.

    That is PyTorch's `align_corners=False` (its default), and `jax.image.resize`.

    Raises:
      InputError: an unknown method, or factors that do not fit the rank of x.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([0.0, 4.0]).reshape(1, 2, 1)
    >>> upsample(x, 2).ravel().tolist(), upsample(x, 2, "bilinear").ravel().tolist()
    ([0.0, 0.0, 4.0, 4.0], [0.0, 1.0, 3.0, 4.0])
    """
    x = jnp.asarray(x)
    if x.ndim < 3:
        raise InputError(f"upsample: expected x [B, *spatial, C], three axes or more, got {list(x.shape)}")
    if method not in METHODS:
        raise InputError(f"upsample: unknown method {method!r}{did_you_mean(method, METHODS)}")
    factors = per_axis("upsample", "factor", factor, x.ndim - 2)
    if method == "bilinear":
        sizes = [n * f for n, f in zip(x.shape[1:-1], factors, strict=True)]
        return jax.image.resize(x, (x.shape[0], *sizes, x.shape[-1]), "linear", antialias=False)
    return summed_wide(partial(_repeat, factors=factors), x)


def _repeat(x: jax.Array, factors: Sequence[int]) -> jax.Array:
    for axis, times in enumerate(factors, start=1):
        x = jnp.repeat(x, times, axis)
    return x
