"""Dropout as a layer."""

from __future__ import annotations

from dataclasses import dataclass

import jax
from jax.core import Tracer

from fdl.core import Layer, Tree
from fdl.errors import InputError
from fdl.ops.dropout import dropout


@dataclass(frozen=True)
class Dropout(Layer):
    """y = x * m / (1 - rate) in training, m ~ Bernoulli(1 - rate); y = x otherwise.

    Args:
      rate: the probability of *dropping* an element, as in PyTorch and Flax. A swept rate is a traced scalar.
    Call: x of any shape; `train=True` needs `key`.

    Raises:
      InputError: a rate outside 0..1; training without a key.

    Reference: Srivastava et al., Dropout, 2014.

    >>> import jax.numpy as jnp
    >>> Dropout(0.5)({}, jnp.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """

    rate: float

    def __post_init__(self) -> None:
        if not isinstance(self.rate, Tracer) and not 0.0 <= self.rate <= 1.0:
            raise InputError(f"Dropout: rate is the probability of dropping, expected 0..1, got {self.rate}")

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        del params
        if not train or (isinstance(self.rate, float | int) and self.rate == 0):
            return x
        if key is None:
            raise InputError(f"{self!r}: train=True needs randomness; pass key=")
        return dropout(x, self.rate, key)
