"""What an objective returns as sums over its real rows, which add up across micro-batches, batches and devices.

The host makes means of them.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fdl.errors import InputError
from fdl.metrics.mean import Mean
from fdl.training.task import Outcome

Means = dict[str, Mean]


def reduce(outcome: Outcome, mask: jax.Array | None = None) -> Means:
    """The sums of an outcome's loss and metrics over its real rows.

    Args:
      outcome: what an objective returned.
      mask: [B] booleans, False = padding; None = every row is real.

    Raises:
      InputError: a loss that is no longer per example, shapes that do not match exactly.
    """
    if not isinstance(outcome, Outcome):
        raise InputError(f"an objective returns an fdl.Outcome, got {type(outcome).__name__}")
    loss = jnp.asarray(outcome.loss)
    if loss.ndim == 0 or (mask is not None and loss.shape[0] != mask.shape[0]):
        rows = "B" if mask is None else mask.shape[0]
        raise InputError(
            f"loss: expected one value per example, [{rows}, ...], got {list(loss.shape)}; "
            "return the losses themselves, without mean or sum: the engine averages them, and knows the padding"
        )
    if outcome.weight is not None and jnp.shape(outcome.weight) != loss.shape:
        got = list(jnp.shape(outcome.weight))
        raise InputError(f"weight: expected the shape of the loss, {list(loss.shape)}, got {got}")
    weight = jnp.ones(loss.shape, jnp.float32) if outcome.weight is None else lax.stop_gradient(outcome.weight)
    weight = _masked(weight, mask)
    means = {"loss": Mean.of(loss, weight)}
    for name, value in (outcome.metrics or {}).items():
        if name == "loss":
            raise InputError('metrics: "loss" is the loss itself; choose another name')
        means[name] = as_mean(name, value, mask, weight)
    return means


def as_mean(name: str, value: Any, mask: jax.Array | None = None, weight: jax.Array | None = None) -> Mean:
    """A metric as a `Mean`: per example (with the loss's weight where it has its shape), weighted, or a scalar."""
    if isinstance(value, Mean):
        return value
    if isinstance(value, tuple):
        value, mine = value
        if jnp.shape(mine) != jnp.shape(value):
            raise InputError(
                f"metric {name!r}: value {list(jnp.shape(value))} and weight {list(jnp.shape(mine))} differ"
            )
        return Mean.of(jnp.asarray(value), _masked(jnp.asarray(mine), mask))
    value = jnp.asarray(value)
    if value.ndim == 0:
        rows = jnp.float32(1) if mask is None else mask.sum(dtype=jnp.float32)
        return Mean(value * rows, rows)
    if weight is not None and value.shape == weight.shape:
        return Mean.of(value, weight)
    if mask is not None and value.shape[0] != mask.shape[0]:
        raise InputError(f"metric {name!r}: expected [{mask.shape[0]}, ...] or a scalar, got {list(value.shape)}")
    return Mean.of(value, _masked(jnp.ones(value.shape, jnp.float32), mask))


def _masked(weight: jax.Array, mask: jax.Array | None) -> jax.Array:
    if mask is None:
        return weight
    return jnp.where(mask.reshape(mask.shape + (1,) * (weight.ndim - 1)), weight, jnp.zeros_like(weight))


def means(sums: Any) -> np.ndarray:
    """[..., batches, names, 2], totals and counts -> [..., names], added in float64."""
    added = np.asarray(sums, np.float64).sum(-3)
    return added[..., 0] / np.where(added[..., 1] == 0, 1.0, added[..., 1])
