"""Metrics as (total, count) pairs, which add up to the same figure whatever the batch size."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fdl.errors import InputError
from fdl.ops.norm import widen


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mean:
    """A mean that can still be added to: `total / count`.

    >>> a, b = Mean(jnp.float32(3), jnp.float32(2)), Mean(jnp.float32(1), jnp.float32(2))
    >>> float(a.merge(b).value())
    1.0
    """

    total: jax.Array
    count: jax.Array

    @classmethod
    def of(cls, values: jax.Array, weight: jax.Array | None = None) -> Mean:
        """The (weighted) mean of an array; an element of weight 0 does not count, not even if it is NaN."""
        weight = jnp.ones(values.shape, jnp.float32) if weight is None else weight
        if weight.shape != values.shape:
            raise InputError(
                f"Mean: weight {list(weight.shape)} must have the shape of the values {list(values.shape)}"
            )
        values = widen(values)
        weight = weight.astype(values.dtype)
        values = jnp.where(weight != 0, values, 0)
        return cls((values * weight).sum(), weight.sum())

    def merge(self, other: Mean) -> Mean:
        """The mean of both."""
        return Mean(self.total + other.total, self.count + other.count)

    def packed(self) -> jax.Array:
        """[total, count] as float32 [2]."""
        return jnp.stack([self.total, self.count]).astype(jnp.float32)

    def value(self) -> jax.Array:
        """total / count; 0 where the count is 0."""
        return self.total / jnp.where(self.count == 0, jnp.ones_like(self.count), self.count)


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """1 where the largest logit is that of the label, else 0, per example.

    Args:
      logits: [..., C].
      labels: integers [...].

    Returns:
      float32 [...]; its mean is the accuracy.

    Raises:
      InputError: shapes that do not fit, or labels that are no integers.

    >>> accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1])).tolist()
    [1.0, 0.0]
    """
    if jnp.shape(labels) != jnp.shape(logits)[:-1]:
        want, got = list(jnp.shape(logits)[:-1]), list(jnp.shape(labels))
        raise InputError(f"accuracy: logits {list(jnp.shape(logits))} need labels {want}, got {got}")
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise InputError(f"accuracy: expected integer labels, got {jnp.result_type(labels)}")
    predictions = jnp.argmax(logits, -1)
    return (predictions == jnp.asarray(labels).astype(predictions.dtype)).astype(jnp.float32)
