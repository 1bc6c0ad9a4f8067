"""Monitors: scalars of a step for the history, beside the metrics of the objective."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fdl.rules import path_of


def norms(params: Any, grads: Any, updates: Any, opt_state: Any) -> dict[str, jax.Array]:
    """The Euclidean norms of every parameter, its gradient and its update, by path: `"grad_norm/head/kernel"`.

    For `Experiment(monitor=fdl.norms)`: the history then has "train/grad_norm/head/kernel", one value a step, and so
    on, and the norms of all of them together as "train/grad_norm".

    >>> float(norms({"b": jnp.array([3.0, 4.0])}, {"b": jnp.ones(2)}, {"b": jnp.zeros(2)}, ())["param_norm/b"])
    5.0
    """
    del opt_state
    found: dict[str, jax.Array] = {}
    for name, tree in (("param_norm", params), ("grad_norm", grads), ("update_norm", updates)):
        squares = {path_of(path): _square(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        found[name] = jnp.sqrt(sum(squares.values(), jnp.float32(0)))
        found |= {f"{name}/{path}": jnp.sqrt(square) for path, square in squares.items() if path}
    return found


def _square(x: jax.Array) -> jax.Array:
    return jnp.square(jnp.abs(x).astype(jnp.float32)).sum()
