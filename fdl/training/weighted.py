"""Statistics as metrics: what counts as one, and how each row of a batch is given its weight."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fdl.errors import InputError
from fdl.metrics.statistic import valid_weight

ELEMENTS = 2**20
"""How many numbers the statistics of single rows may hold at once: one of 1000 classes has a million."""


def is_statistic(value: Any) -> bool:
    """Whether a value merges and has numbers, as `fdl.metrics.Statistic` does."""
    return all(callable(getattr(value, name, None)) for name in ("merge", "numbers")) and not isinstance(value, type)


def weighted(metric: Callable[[Any, Any], Any], predictions: Any, targets: Any, weight: jax.Array) -> Any:
    """The statistic that a metric makes of predictions and targets, each row counted as often as its weight says.

    Args:
      metric: (predictions, targets) -> a statistic, which has `scaled` beside `merge`.
      predictions, targets: arrays, or trees of them, that begin with the axes of the weight.
      weight: [...]; a row of weight 0 leaves the statistic alone, even if it is NaN.

    Raises:
      InputError: arrays that do not begin with the axes of the weight; a statistic that cannot be scaled.
    """
    axes = weight.ndim

    def single(values: Any) -> Any:
        """[rows, 1, ..., 1, ...]: each row as a batch of its own, with as many axes as before."""
        shape = jnp.shape(values)
        if shape[:axes] != weight.shape:
            raise InputError(
                "a statistic with a weight: predictions and targets begin with the axes of the weight, "
                f"{list(weight.shape)}, got {list(shape)}"
            )
        return jnp.reshape(values, (-1, *[1] * axes, *shape[axes:]))

    def one(row: Any) -> Any:
        arrays, count = row
        statistic = metric(*arrays)
        if not hasattr(statistic, "scaled"):
            raise InputError(f"{type(statistic).__name__}: a statistic needs scaled(weight) where rows have weights")
        return jax.tree.map(lambda leaf: jnp.where(count != 0, leaf, 0), statistic.scaled(count))

    rows = jax.tree.map(single, (predictions, targets)), valid_weight("weight", weight).ravel()
    shapes = jax.eval_shape(one, jax.tree.map(lambda leaf: leaf[0], rows))
    block = max(1, min(ELEMENTS // max(1, sum(leaf.size for leaf in jax.tree.leaves(shapes))), weight.size))

    def body(total: Any, rows: Any) -> tuple[Any, None]:
        sums = lax.associative_scan(jax.vmap(lambda mine, its: mine.merge(its)), jax.vmap(one)(rows))
        return total.merge(jax.tree.map(lambda leaf: leaf[-1], sums)), None

    nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    return lax.scan(body, nothing, jax.tree.map(lambda leaf: _split(leaf, block), rows))[0]


def _split(rows: jax.Array, block: int) -> jax.Array:
    """[blocks, block, ...], filled up with zeros: rows of weight 0."""
    padding = [(0, -len(rows) % block)] + [(0, 0)] * (rows.ndim - 1)
    return jnp.pad(rows, padding).reshape(-1, block, *rows.shape[1:])
