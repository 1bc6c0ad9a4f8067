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
