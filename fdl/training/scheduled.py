"""Which values of a schedule an optimizer used, read from its state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp


def scheduled(opt_state: Any) -> dict[str, jax.Array]:
    """The learning rate, and every scheduled value, that the last update used.

    They are in the state of `optax.inject_hyperparams(optax.adam)(learning_rate=schedule)`, of line searches, and (the
    factor "plateau_scale") of `optax.contrib.reduce_on_plateau`. A schedule given to `optax.adam` directly is a
    closure that leaves only a count behind. Groups of `optax.partition` have their label before the name.
    """
    return dict(_found(opt_state, ""))


def _found(node: Any, prefix: str) -> Iterator[tuple[str, jax.Array]]:
    if isinstance(node, Mapping):
        for label, inner in node.items():
            yield from _found(inner, f"{prefix}{label}/")
        return
    if not isinstance(node, tuple):
        return
    fields = getattr(node, "_fields", None)
    if fields is None:
        for inner in node:
            yield from _found(inner, prefix)
        return
    if "hyperparams" in fields:
        varying = {"learning_rate", *getattr(node, "hyperparams_states", ())}
        for name, value in node.hyperparams.items():  # pyright: ignore[reportAttributeAccessIssue]
            if name in varying and jnp.ndim(value) == 0:
                yield prefix + name, jnp.asarray(value)
    elif "learning_rate" in fields:
        yield f"{prefix}learning_rate", jnp.asarray(node.learning_rate)  # pyright: ignore[reportAttributeAccessIssue]
    elif "plateau_count" in fields:
        yield f"{prefix}plateau_scale", jnp.asarray(node.scale)  # pyright: ignore[reportAttributeAccessIssue]
    for name in fields:
        if name in ("inner_state", "inner_states"):
            yield from _found(getattr(node, name), prefix)
