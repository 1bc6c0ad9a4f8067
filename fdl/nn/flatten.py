"""From images to vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax

from fdl.core import Layer, Tree


@dataclass(frozen=True)
class Flatten(Layer):
    """Every example as one vector: x [B, ...] -> [B, product of the rest].

    The order is that of the array, so a channels-last image [B, H, W, C] gives (h, w, c); PyTorch gives (c, h, w).

    >>> import jax.numpy as jnp
    >>> Flatten()({}, jnp.ones((2, 4, 4, 3))).shape
    (2, 48)
    """

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        del params, key, train
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))
