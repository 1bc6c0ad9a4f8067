"""Which evaluation was the best so far, and whether to go on: decided on the device, for every run by itself."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

MODES = ("min", "max")


class Selection(NamedTuple):
    """The best evaluation so far, with its parameters, and how many since then were not better."""

    value: jax.Array
    step: jax.Array
    worse: jax.Array
    stopped: jax.Array
    params: Any
    state: Any


def start(params: Any, state: Any, mode: str) -> Selection:
    """Before the first evaluation: anything that is a number is better."""
    worst = jnp.float32(jnp.inf if mode == "min" else -jnp.inf)
    copies = jax.tree.map(jnp.copy, (params, state))
    return Selection(worst, jnp.int32(0), jnp.int32(0), jnp.bool_(False), *copies)


def select(
    best: Selection,
    value: jax.Array,
    step: jax.Array,
    params: Any,
    state: Any,
    mode: str,
    patience: int | None,
    min_delta: float,
) -> Selection:
    """`best` after an evaluation gave `value` at `step`; NaN is never better.

    A value counts as better where it beats the best by more than `min_delta`. After `patience` evaluations that do not,
    the run is stopped, and nothing changes any more.
    """
    value = value.astype(jnp.float32)
    better = value < best.value - min_delta if mode == "min" else value > best.value + min_delta
    better = (better | (best.step == 0) & jnp.isfinite(value)) & ~best.stopped
    worse = jnp.where(better, 0, best.worse + 1)
    stopped = best.stopped | (False if patience is None else worse >= patience)
    now = Selection(value, step.astype(jnp.int32), worse, stopped, params, state)
    chosen = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, best)
    return chosen._replace(worse=jnp.where(best.stopped, best.worse, worse), stopped=stopped)


def halve(best: Selection, keep: Any, members: Any, mode: str) -> Selection:
    """Stops all runs but the `keep` best of the first `members`: one rung of successive halving.

    All arrays have a leading axis for the runs; those that have stopped already, or never had a number, come last, and
    of equal ones the first is kept.

    Reference: Jamieson & Talwalkar, Non-stochastic best arm identification and hyperparameter optimization, 2016.
    """
    value = best.value if mode == "min" else -best.value
    counted = ~best.stopped & (best.step > 0) & (jnp.arange(len(value)) < members)
    rank = jnp.argsort(jnp.argsort(jnp.where(counted, value, jnp.inf), stable=True))
    return best._replace(stopped=best.stopped | ~counted | (rank >= keep))
