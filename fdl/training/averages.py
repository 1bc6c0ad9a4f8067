"""Averages of the parameters along a run, kept in the optimiser's state."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from fdl.errors import InputError
from fdl.training.hyperparameters import check_transformation
from fdl.training.transformations import paired


class EmaState(NamedTuple):
    """The state of the optimizer within, the average, and how many updates it has seen."""

    inner_state: Any
    average: Any
    count: jax.Array


def with_ema(optimizer: optax.GradientTransformation, decay: float = 0.999) -> optax.GradientTransformationExtraArgs:
    """The optimizer, with an exponential moving average of the parameters beside it.

    average = d average + (1 - d) params after every update, d = min(decay, (1 + n) / (10 + n)) after n updates: the
    average leaves its start quickly (TensorFlow's `ExponentialMovingAverage` has the same rule). It is kept in float32
    or wider. For `Experiment(optimizer=fdl.with_ema(optax.adam(1e-3)), eval_params=fdl.ema_params)`.

    Args:
      optimizer: any Optax transformation; it sees exactly what it would see alone.
      decay: d in the end, 0 <= decay < 1.

    Raises:
      InputError: decay out of range.

    >>> optimizer = with_ema(optax.sgd(1.0), decay=0.5)
    >>> state = optimizer.init(jnp.float32(4.0))
    >>> _, state = optimizer.update(jnp.float32(1.0), state, jnp.float32(4.0))  # params become 3, d is 0.1
    >>> round(float(state.average), 3)
    3.1
    """
    if not isinstance(decay, Tracer) and not 0 <= decay < 1:
        raise InputError(f"with_ema: decay: expected 0 <= decay < 1, got {decay!r}")
    check_transformation("with_ema: optimizer", optimizer)
    inner = paired(optimizer)

    def init(params: Any) -> EmaState:
        return EmaState(inner.init(params), jax.tree.map(_wide, params), jnp.int32(0))

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple[Any, EmaState]:
        updates, inner_state = inner.update(updates, state.inner_state, params, **extra)
        now = optax.apply_updates(params, updates)
        n = state.count.astype(jnp.float32)
        d = jnp.minimum(decay, (1 + n) / (10 + n))
        average = jax.tree.map(lambda mean, x: d * mean + (1 - d) * _wide(x), state.average, now)
        average = jax.tree.map(lambda new, old: new.astype(old.dtype), average, state.average)
        return updates, EmaState(inner_state, average, state.count + 1)

    return optax.GradientTransformationExtraArgs(init, update)


def ema_params(params: Any, opt_state: Any) -> Any:
    """The averages that `with_ema` keeps, in the dtypes of params; frozen parameters are themselves.

    Raises:
      InputError: an optimiser state without an average.
    """
    found = [node for node in jax.tree.leaves(opt_state, is_leaf=_is_ema) if _is_ema(node)]
    if len(found) != 1:
        raise InputError(f"ema_params: expected an optimizer made by fdl.with_ema, found {len(found)} averages")
    return jax.tree.map(
        lambda x, mean: x if isinstance(mean, optax.MaskedNode) else mean.astype(x.dtype), params, found[0].average
    )


def _is_ema(node: Any) -> bool:
    return isinstance(node, EmaState)


def _wide(x: Any) -> jax.Array:
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)) if jnp.issubdtype(x.dtype, jnp.floating) else x
