"""Dropout layers: of elements, of whole features, of whole residual branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
from jax.core import Tracer

from fdl.core import Layer, Tree
from fdl.errors import InputError
from fdl.fields import DropRate
from fdl.ops.dropout import dropout
from fdl.records import short


def drops(rate: float) -> bool:
    """Whether a model needs dropout of this rate: not for a plain 0, but for a swept one, whose value is not known."""
    return isinstance(rate, Tracer) or rate != 0


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

    rate: DropRate

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        return _drop(self, x, self.rate, (), key, train)


@dataclass(frozen=True)
class FeatureDropout(Layer):
    """Dropout of whole features: a channel of an example is kept or dropped at all its positions.

    Neighbouring pixels say nearly the same, so that dropping single ones regularises little.

    Args:
      rate: the probability of dropping a feature.
    Call: x [B, ..., C]; `train=True` needs `key`.

    PyTorch: `Dropout2d`, channels first.

    Reference: Tompson et al., Efficient object localization, 2015, section 3.2.
    """

    rate: DropRate

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        return _drop(self, x, self.rate, range(1, x.ndim - 1), key, train)


@dataclass(frozen=True)
class DropPath(Layer):
    """Stochastic depth: a residual branch is kept or dropped for each example as a whole.

    Args:
      rate: the probability of dropping the branch.
    Call: x [B, ...]; put it last in the block of a `Residual`. `train=True` needs `key`.

    Reference: Huang et al., Deep networks with stochastic depth, 2016; scaled in training rather than in evaluation.
    """

    rate: DropRate

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        return _drop(self, x, self.rate, range(1, x.ndim), key, train)


def _drop(
    layer: Layer, x: jax.Array, rate: float, shared: Sequence[int], key: jax.Array | None, train: bool
) -> jax.Array:
    if not train or (isinstance(rate, float | int) and rate == 0):
        return x
    if key is None:
        raise InputError(f"{short(layer)}: train=True needs randomness; pass key=")
    return dropout(x, rate, key, shared)
