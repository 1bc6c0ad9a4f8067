"""Regression: squared and absolute error, and the share of variance explained."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fdl.errors import InputError
from fdl.metrics.mean import Mean
from fdl.ops.norm import widen


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Regression:
    """Sums that MSE, RMSE, MAE and R2 follow from, and that add up over batches.

    Args:
      count: the total weight.
      squared, absolute: sums of the squared and absolute errors.
      mean, scatter: the targets' mean, and the sum of their squared distances from it. Merged as Chan et al. (1979)
        do, because a sum of squares would cancel in float32.

    >>> targets, predictions = jnp.array([3.0, -0.5, 2.0, 7.0]), jnp.array([2.5, 0.0, 2.0, 8.0])
    >>> scores = Regression.of(predictions, targets)
    >>> [round(float(value), 3) for value in (scores.mse(), scores.rmse(), scores.mae(), scores.r2())]
    [0.375, 0.612, 0.5, 0.949]
    """

    count: jax.Array
    squared: jax.Array
    absolute: jax.Array
    mean: jax.Array
    scatter: jax.Array

    @classmethod
    def of(cls, predictions: jax.Array, targets: jax.Array, weight: jax.Array | None = None) -> Regression:
        """Of two arrays of one shape, all elements alike; an element of weight 0 does not count.

        Raises:
          InputError: shapes that differ, (B,) against (B, 1) included.
        """
        if jnp.shape(predictions) != jnp.shape(targets):
            shapes = f"{list(jnp.shape(predictions))} and {list(jnp.shape(targets))}"
            raise InputError(f"Regression: predictions and targets must have the same shape, got {shapes}")
        predictions, targets = widen(jnp.asarray(predictions)), widen(jnp.asarray(targets))
        error = predictions - targets
        squared, absolute = Mean.of(error**2, weight), Mean.of(jnp.abs(error), weight)
        mean = Mean.of(targets, weight).value()
        return cls(squared.count, squared.total, absolute.total, mean, Mean.of((targets - mean) ** 2, weight).total)

    def merge(self, other: Regression) -> Regression:
        """The sums of both."""
        count = self.count + other.count
        share = other.count / jnp.where(count == 0, 1.0, count)
        apart = other.mean - self.mean
        return Regression(
            count,
            self.squared + other.squared,
            self.absolute + other.absolute,
            self.mean + apart * share,
            self.scatter + other.scatter + apart**2 * self.count * share,
        )

    def mse(self) -> jax.Array:
        """Mean squared error."""
        return Mean(self.squared, self.count).value()

    def rmse(self) -> jax.Array:
        """Its root."""
        return jnp.sqrt(self.mse())

    def mae(self) -> jax.Array:
        """Mean absolute error."""
        return Mean(self.absolute, self.count).value()

    def r2(self) -> jax.Array:
        """1 - squared error / scatter of the targets; NaN for constant targets, where it is not defined."""
        return jnp.where(self.scatter > 0, 1.0 - self.squared / self.scatter, jnp.nan)
