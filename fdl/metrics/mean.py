"""Metrics as (total, count) pairs, which add up to the same figure whatever the batch size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import InputError
from fdl.metrics.statistic import Statistic, valid_weight
from fdl.ops.norm import widen


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Mean(Statistic):
    """A mean that can still be added to: `total / count`. Counts are exact to 2**48 (see `Statistic`).

    >>> a, b = Mean(jnp.float32(3), jnp.float32(2)), Mean(jnp.float32(1), jnp.float32(2))
    >>> float(a.merge(b).value())
    1.0
    """

    total: jax.Array
    count: jax.Array
    rest: tuple[jax.Array, ...] = ()

    @classmethod
    def of(cls, values: Any, weight: Any = None) -> Mean:
        """The (weighted) mean of an array; an element of weight 0 does not count, not even if it is NaN.

        Raises:
          InputError: complex values; a weight of another shape; a concrete weight that is negative or not finite
            (traced: NaN).
        """
        if jnp.iscomplexobj(values):
            raise InputError(f"Mean: expected real numbers, got {jnp.result_type(values)}")
        values = widen(values)
        weight = jnp.ones(values.shape, jnp.float32) if weight is None else weight
        if jnp.shape(weight) != values.shape:
            raise InputError(
                f"Mean: weight {list(jnp.shape(weight))} must have the shape of the values {list(values.shape)}"
            )
        weight = valid_weight("Mean", weight).astype(values.dtype)
        values = jnp.where(weight != 0, values, 0)
        return cls((values * weight).sum(), weight.sum())

    def packed(self) -> jax.Array:
        """[total, count] as float32 [2]."""
        return jnp.stack([self.total, self.count]).astype(jnp.float32)

    def value(self) -> jax.Array:
        """total / count; 0 where the count is 0."""
        return self.total / jnp.where(self.count == 0, jnp.ones_like(self.count), self.count)

    def numbers(self) -> dict[str, jax.Array]:
        """The mean, as a number of no further name."""
        return {"": self.value()}
