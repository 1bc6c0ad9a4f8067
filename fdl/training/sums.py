"""What an objective returns as sums over its real rows, which add up across micro-batches, batches and devices.

The host makes means of them. A metric that is a statistic already goes through as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fdl.errors import InputError
from fdl.metrics.mean import Mean
from fdl.shapes import check_range
from fdl.training.task import Outcome
from fdl.training.weighted import is_statistic

Sums = dict[str, Any]
"""Name -> `Mean` of the rows, or a statistic of the whole batch."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class OfBatch(Mean):
    """A mean that the objective took over its batch, the rows of the padding included: no mask takes those out."""


def of_batch(sums: Any) -> bool:
    """Whether sums are of a whole batch, as the objective saw it."""
    return isinstance(sums, OfBatch) or not isinstance(sums, Mean)


def reduce(outcome: Outcome, mask: jax.Array | None = None) -> Sums:
    """The sums of an outcome's loss and metrics over its real rows.

    Args:
      outcome: what an objective returned.
      mask: [B] booleans, False = padding; None = every row is real.

    Raises:
      InputError: a loss that is no longer per example, shapes that do not match exactly; a concrete weight that is
        negative or not finite (a traced one gives NaN).
    """
    if not isinstance(outcome, Outcome):
        raise InputError(f"an objective returns an fdl.Outcome, got {type(outcome).__name__}")
    loss = _numbers("loss", outcome.loss)
    if loss.ndim == 0 or (mask is not None and loss.shape[0] != mask.shape[0]):
        rows = "B" if mask is None else mask.shape[0]
        raise InputError(
            f"loss: expected one value per example, [{rows}, ...], got {list(loss.shape)}; "
            "return the losses themselves, without mean or sum: the engine averages them, and knows the padding"
        )
    if outcome.weight is not None and jnp.shape(outcome.weight) != loss.shape:
        got = list(jnp.shape(outcome.weight))
        raise InputError(f"weight: expected the shape of the loss, {list(loss.shape)}, got {got}")
    check_range("Outcome", "weight", 1 if outcome.weight is None else outcome.weight, 0, math.inf)
    weight = jnp.ones(loss.shape, jnp.float32) if outcome.weight is None else lax.stop_gradient(outcome.weight)
    weight = _masked(weight, mask)
    sums: Sums = {"loss": Mean.of(loss, weight)}
    if outcome.metrics is not None and not isinstance(outcome.metrics, Mapping):
        got = type(outcome.metrics).__name__
        raise InputError(f"Outcome: metrics: expected a dict, name -> array or statistic, got {got}")
    for name, value in (outcome.metrics or {}).items():
        if not isinstance(name, str) or not name:
            raise InputError(f"metrics: the name of a metric is a word, got {name!r}")
        if name == "loss":
            raise InputError('metrics: "loss" is the loss itself; choose another name')
        sums[name] = as_sums(name, value, mask, weight)
    return sums


def as_sums(name: str, value: Any, mask: jax.Array | None = None, weight: jax.Array | None = None) -> Any:
    """A metric as sums: per example (with the loss's weight where it has its shape), weighted, a scalar, a statistic.

    Raises:
      InputError: shapes that do not match exactly, values that are no numbers, a concrete weight that is negative.
    """
    if isinstance(value, Mean):
        return OfBatch(value.total, value.count, value.rest)
    if is_statistic(value):
        if jax.tree.structure(value).num_nodes == 1:
            kind = type(value).__name__
            raise InputError(f"metric {name!r}: {kind} is no pytree; decorate it with jax.tree_util.register_dataclass")
        return value
    what = f"metric {name!r}"
    if isinstance(value, tuple):
        if len(value) != 2:
            raise InputError(f"{what}: a tuple is (values, their weights), got one of {len(value)}")
        value, mine = _numbers(what, value[0]), value[1]
        if jnp.shape(mine) != jnp.shape(value):
            raise InputError(
                f"metric {name!r}: value {list(jnp.shape(value))} and weight {list(jnp.shape(mine))} differ"
            )
        check_range(what, "weight", mine, 0, math.inf)
        return Mean.of(value, _masked(jnp.asarray(mine), mask))
    value = _numbers(what, value)
    if value.ndim == 0:
        rows = jnp.float32(1) if mask is None else mask.sum(dtype=jnp.float32)
        return OfBatch(value * rows, rows)
    if weight is not None and value.shape == weight.shape:
        return Mean.of(value, weight)
    if mask is not None and value.shape[0] != mask.shape[0]:
        raise InputError(f"metric {name!r}: expected [{mask.shape[0]}, ...] or a scalar, got {list(value.shape)}")
    return Mean.of(value, _masked(jnp.ones(value.shape, jnp.float32), mask))


def _numbers(what: str, value: Any) -> jax.Array:
    """An array of real numbers.

    Raises:
      InputError: the value is not numeric.
    """
    got = type(value).__name__
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: expected an array of numbers or, of a metric, a statistic, got {got}") from error
    if jnp.iscomplexobj(array):
        raise InputError(f"{what}: expected real numbers, got {array.dtype}; jnp.abs(...), perhaps?")
    return array


def _masked(weight: jax.Array, mask: jax.Array | None) -> jax.Array:
    if mask is None:
        return weight
    return jnp.where(mask.reshape(mask.shape + (1,) * (weight.ndim - 1)), weight, jnp.zeros_like(weight))


def added(one: Any, other: Any) -> Any:
    """Two trees of arrays and statistics as one: arrays are added, statistics merged."""

    def both(mine: Any, its: Any) -> Any:
        # Means are added like arrays: within a batch there is nothing to gain from their rests.
        statistic = is_statistic(mine) and not isinstance(mine, Mean)
        return mine.merge(its) if statistic else jax.tree.map(jnp.add, mine, its)

    return jax.tree.map(both, one, other, is_leaf=is_statistic)


def numbers(sums: Sums) -> dict[str, jax.Array]:
    """The scalars that sums say, by name: a mean its value under its own, "conf" the accuracy under "conf/accuracy".

    Raises:
      InputError: a name that two metrics give; a statistic whose numbers are no scalars.
    """
    found: dict[str, jax.Array] = {}
    for name, each in sums.items():
        for part, value in ({"": each.value()} if isinstance(each, Mean) else each.numbers()).items():
            full = f"{name}/{part}" if part else name
            if full in found:
                raise InputError(f"metrics: two metrics have the name {full!r}")
            if jnp.ndim(value):
                raise InputError(
                    f"metric {full!r}: expected a scalar, got {list(jnp.shape(value))}; its mean, perhaps?"
                )
            found[full] = jnp.asarray(value)
    return found


def means(sums: Any) -> np.ndarray:
    """[..., batches, names, 2], totals and counts -> [..., names], added in float64."""
    added = np.asarray(sums, np.float64).sum(-3)
    return added[..., 0] / np.where(added[..., 1] == 0, 1.0, added[..., 1])
