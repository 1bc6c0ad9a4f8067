"""Which values of a schedule an optimizer used, read from its state."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

INNER = ("inner_state", "inner_states", "fast_state", "adv_state", "opt_state")
"""Fields of a wrapper's state, of which those of `optax.contrib.sam` are in the order of the closure of its update."""


def scheduled(opt_state: Any, optimizer: Any) -> dict[str, jax.Array]:
    """The learning rate, and every scheduled value, that the last update used.

    They are in the state of `optax.inject_hyperparams(optax.adam)(learning_rate=schedule)`, of line searches, and (the
    factor "plateau_scale") of `optax.contrib.reduce_on_plateau`. Of a schedule that is given to `optax.adam` itself the
    state has only the count: the function is looked for in the closures of the optimizer. Groups of `optax.partition`
    have their label before the name.

    >>> optimizer = optax.sgd(optax.linear_schedule(1.0, 0.0, 4))
    >>> _, state = optimizer.update(jnp.float32(1.0), optimizer.init(jnp.float32(0.0)))
    >>> _, state = optimizer.update(jnp.float32(1.0), state)
    >>> {name: float(value) for name, value in scheduled(state, optimizer).items()}
    {'learning_rate': 0.75}
    """
    found = list(_found(opt_state, ""))
    counts = [value for name, value in found if isinstance(value, optax.ScaleByScheduleState)]
    schedules = list(_schedules(getattr(optimizer, "update", None), set()))
    paired = iter(schedules if len(schedules) == len(counts) else [None] * len(counts))
    values: dict[str, jax.Array] = {}
    for name, value in found:
        if isinstance(value, optax.ScaleByScheduleState):
            schedule = next(paired)
            if schedule is None:
                continue
            kind, function = schedule
            name, value = name + kind, function(value.count - 1)
        while name in values:
            name += "'"
        values[name] = jnp.asarray(value)
    return values


def _found(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    """Named values in a state, and the states of schedules under the prefix of their group."""
    if isinstance(node, Mapping):
        for label in sorted(node):
            yield from _found(node[label], f"{prefix}{label}/")
    elif isinstance(node, optax.ScaleByScheduleState):
        yield prefix, node
    elif isinstance(node, tuple):
        fields = getattr(node, "_fields", None)
        if fields is None:
            for inner in node:
                yield from _found(inner, prefix)
            return
        if "hyperparams" in fields:
            varying = {"learning_rate", *getattr(node, "hyperparams_states", ())}
            hyperparams = node.hyperparams  # pyright: ignore[reportAttributeAccessIssue]
            yield from ((prefix + n, x) for n, x in hyperparams.items() if n in varying and jnp.ndim(x) == 0)
        elif "learning_rate" in fields:
            yield f"{prefix}learning_rate", node.learning_rate  # pyright: ignore[reportAttributeAccessIssue]
        elif "plateau_count" in fields:
            yield f"{prefix}plateau_scale", node.scale  # pyright: ignore[reportAttributeAccessIssue]
        for name in INNER:
            if name in fields:
                yield from _found(getattr(node, name), prefix)


def _schedules(node: Any, seen: set[int]) -> Iterator[tuple[str, Callable[[Any], Any]]]:
    """(name, schedule) of every `optax.scale_by_schedule` in the closures of an update function, in their order."""
    if isinstance(node, optax.GradientTransformation):
        yield from _schedules(node.update, seen)
    elif isinstance(node, Mapping):
        for label in sorted(node, key=str):
            yield from _schedules(node[label], seen)
    elif isinstance(node, tuple | list):
        for inner in node:
            yield from _schedules(inner, seen)
    elif callable(node) and id(node) not in seen:
        seen.add(id(node))
        variables = closure(node)
        if getattr(node, "__qualname__", "").startswith("scale_by_schedule."):
            own = variables.get("step_size_fn")
            rate = closure(own).get("learning_rate")  # scale_by_learning_rate negates it in a function of its own
            if callable(rate):
                yield "learning_rate", rate
            elif callable(own):
                yield "schedule", own
            return
        for inner in variables.values():
            yield from _schedules(inner, seen)


def closure(function: Any) -> dict[str, Any]:
    """What a function closes over, by name; nothing where it is no function of Python."""
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    if code is None or cells is None:
        return {}
    found = {}
    for name, cell in zip(code.co_freevars, cells, strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
    return found
