"""One optimiser step as a pure function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax

from fdl.core import fold
from fdl.errors import InputError
from fdl.metrics import Mean
from fdl.training.task import Outcome, Task

Means = dict[str, Mean]


class TrainState(NamedTuple):
    """What a step changes. Keys and the step number are arguments, never stored."""

    params: Any
    state: Any
    opt_state: Any


def init_state(task: Task, optimizer: Any, key: jax.Array) -> TrainState:
    """The state before step 0."""
    params, state = task.init(fold(key, "init"))
    return strengthen(TrainState(params, state, optimizer.init(params)))


def make_step(
    task: Task, optimizer: Any, augment: Callable[[Any, jax.Array], Any] | None = None
) -> Callable[[TrainState, Any, jax.Array], tuple[TrainState, Means]]:
    """`step(train_state, batch, key) -> (train_state, metrics)`, pure; `key` is that of the step."""
    optimizer = optax.with_extra_args_support(optimizer)

    def step(now: TrainState, batch: Any, key: jax.Array) -> tuple[TrainState, Means]:
        if augment is not None:
            batch = augment(batch, fold(key, "augment"))
        if task.step is not None:
            *new, metrics = task.step(*now, batch, key=key, optimizer=optimizer)
            return _keep_types(TrainState(*new), now), {name: as_mean(name, m) for name, m in metrics.items()}
        return _descend(task, optimizer, now, batch, key)

    return step


def _descend(task: Task, optimizer: Any, now: TrainState, batch: Any, key: jax.Array) -> tuple[TrainState, Means]:
    params, state, opt_state = now

    def total(params: Any) -> tuple[jax.Array, tuple[Means, Any]]:
        outcome = task.objective(params, state, batch, key=key, train=True)  # pyright: ignore[reportOptionalCall]
        means = reduce(outcome)
        return means["loss"].total, (means, state if outcome.state is None else outcome.state)

    (_, (means, state)), grads = jax.value_and_grad(total, has_aux=True)(params)
    # Sums first, one division last: micro-batches of unequal weight then add up to the big batch.
    grads = jax.tree.map(lambda g: g / _nonzero(means["loss"].count).astype(g.dtype), grads)
    updates, opt_state = optimizer.update(
        grads,
        opt_state,
        params,
        value=means["loss"].value(),
        grad=grads,
        value_fn=lambda p: total(p)[1][0]["loss"].value(),
    )
    return _keep_types(TrainState(optax.apply_updates(params, updates), state, opt_state), now), means


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


def _nonzero(count: jax.Array) -> jax.Array:
    return jnp.where(count == 0, jnp.ones_like(count), count)


def strengthen(tree: Any) -> Any:
    """The tree without weak types, which a loop carry would otherwise change after the first step."""
    return jax.tree.map(lambda x: _cast(jnp.asarray(x), jnp.asarray(x).dtype), tree)


def _keep_types(new: TrainState, old: TrainState) -> TrainState:
    """`new` in the dtypes of `old`: a traced float32 learning rate must not widen a bfloat16 network.

    Raises:
      InputError: another tree structure or shape, which no loop could carry.
    """
    shape_of: Mapping[str, Any] = {"params": (new.params, old.params), "state": (new.state, old.state)}
    for name, (mine, before) in shape_of.items():
        described = [jax.tree.map(lambda x: list(jnp.shape(x)), tree) for tree in (before, mine)]
        if described[0] != described[1]:
            raise InputError(f"a step changed the structure of {name}: before {described[0]}, after {described[1]}")
    return jax.tree.map(lambda n, o: _cast(jnp.asarray(n), o.dtype), new, old)


def _cast(x: jax.Array, dtype: Any) -> jax.Array:
    """x in a dtype and without a weak type; a typed random key passes through."""
    return x if jnp.issubdtype(x.dtype, jax.dtypes.extended) else lax.convert_element_type(x, dtype)
