"""Regression: squared and absolute error, and the share of variance explained."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import InputError
from fdl.metrics.mean import Mean
from fdl.metrics.statistic import Statistic, add, ratio, weights
from fdl.ops.norm import widen

DIGITS = 2.0**-22
"""Relative differences of float32 numbers below this are rounding."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Regression(Statistic):
    """Sums that MSE, RMSE, MAE and R2 follow from, and that add up over batches. All are NaN of no example.

    As a metric of an experiment it gives "mse", "rmse", "mae" and "r2".

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
    rest: tuple[jax.Array, ...] = ()

    @classmethod
    def of(cls, predictions: Any, targets: Any, weight: Any = None) -> Regression:
        """Of two arrays of one shape, all elements alike; an element of weight 0 does not count.

        Raises:
          InputError: shapes that differ, (B,) against (B, 1) included; complex numbers; concrete weights that are
            negative or not finite (traced: NaN).
        """
        if jnp.shape(predictions) != jnp.shape(targets):
            shapes = f"{list(jnp.shape(predictions))} and {list(jnp.shape(targets))}"
            raise InputError(f"Regression: predictions and targets must have the same shape, got {shapes}")
        weight = weights("Regression", weight, predictions=predictions, targets=targets)
        predictions, targets = widen(jnp.asarray(predictions)), widen(jnp.asarray(targets))
        error = predictions - targets
        squared, absolute = Mean.of(error**2, weight), Mean.of(jnp.abs(error), weight)
        mean = Mean.of(targets, weight).value()
        mean += Mean.of(targets - mean, weight).value()  # of constant targets it is then the constant
        return cls(squared.count, squared.total, absolute.total, mean, Mean.of((targets - mean) ** 2, weight).total)

    def merge(self, other: Regression) -> Regression:
        """The statistic of the examples of both."""
        mine, its = self._pairs(), other._pairs()
        count, squared, absolute = (add(mine[i], its[i]) for i in range(3))
        share = other.count / jnp.where(count[0] == 0, 1.0, count[0])
        apart = other.mean - self.mean
        mean = add(mine[3], (apart * share, (its[3][1] - mine[3][1]) * share))
        between = apart**2 * self.count * share
        scatter = add(add(mine[4], its[4]), (between, jnp.zeros_like(between)))
        pairs = (count, squared, absolute, mean, scatter)
        return type(self)(*(total for total, _ in pairs), tuple(rest for _, rest in pairs))  # pyright: ignore

    def scaled(self, weight: jax.Array) -> Regression:
        """The statistic with every example counted `weight` times, which moves no mean."""
        scaled = super().scaled(weight)
        return replace(scaled, mean=self.mean, rest=(*scaled.rest[:3], self.rest[3], scaled.rest[4]))

    def mse(self) -> jax.Array:
        """Mean squared error."""
        return ratio(self.squared, self.count)

    def rmse(self) -> jax.Array:
        """Its root."""
        return jnp.sqrt(self.mse())

    def mae(self) -> jax.Array:
        """Mean absolute error."""
        return ratio(self.absolute, self.count)

    def r2(self) -> jax.Array:
        """1 - squared error / scatter of the targets; NaN for constant targets, where it is not defined."""
        rounding = self.count * (DIGITS * self.mean) ** 2
        return jnp.where(self.scatter > rounding, 1.0 - self.squared / self.scatter, jnp.nan)

    def numbers(self) -> dict[str, jax.Array]:
        """`mse`, `rmse`, `mae` and `r2`."""
        return {"mse": self.mse(), "rmse": self.rmse(), "mae": self.mae(), "r2": self.r2()}
