"""A run between two chunks as arrays by path, and a run put back where it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.errors import InputError
from fdl.rules import path_of
from fdl.training.experiment import Experiment
from fdl.training.optimizer_facts import changes, facts_of

History = Mapping[str, Sequence[tuple[np.ndarray, np.ndarray]]]
"""name -> pieces of (steps [n], values [..., n]), as they came."""

LINES = 10  # of a table of differences


def flat(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a tree by path, copied to the host; a random key as its data."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {path_of(path): np.array(_plain(leaf)) for path, leaf in leaves}  # a copy: the next chunk takes the buffer


def facts_at(experiment: Experiment, history: History, step: int) -> dict[str, Any]:
    """What a checkpoint says of a run beside its arrays: names, the optimizer, what it is selected by."""
    facts: dict[str, Any] = {"names": list(history), "optimizer": facts_of(experiment.optimizer)}
    if experiment.select is not None and experiment.select in history:
        steps, values = history[experiment.select][-1]
        if steps[-1] == step and values.shape == (1,) and np.isfinite(values[0]):  # of a run, evaluated just now
            score = float(values[0]) * (1 if experiment.mode == "min" else -1)
            facts |= {"score": score, "selected": {experiment.select: float(values[0])}}
    return facts


def put(tree: Any, arrays: Mapping[str, np.ndarray], where: str) -> Any:
    """The tree with these arrays in place of its leaves, on the same devices.

    Raises:
      InputError: a table of paths that are missing (-), not expected (+), or of another shape or dtype (!).
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    expected = {path_of(path): leaf for path, leaf in leaves}
    problems = differences({path: _plain(leaf) for path, leaf in expected.items()}, arrays)
    if problems:
        raise InputError(table(f"{where} does not fit this experiment:", problems))
    return jax.tree.unflatten(structure, [_placed(arrays[path], leaf) for path, leaf in expected.items()])


def same_optimizer(saved: Mapping[str, Any], optimizer: Any, where: str) -> None:
    """Refuses the state of another optimizer, which may have the same shapes.

    Args:
      saved: what the checkpoint says of the run; one that says nothing of its optimizer passes.

    Raises:
      InputError: what was, and what is.
    """
    now = facts_of(optimizer)
    if problems := changes(saved.get("optimizer", now), now):
        raise InputError(table(f"{where} is of another optimizer; bring it back, or start a new run:", problems))


def table(title: str, lines: Sequence[str]) -> str:
    """The title, at most `LINES` lines below it, and how many more there are."""
    more = [f"and {len(lines) - LINES} more"] if len(lines) > LINES else []
    return "\n  ".join([title, *lines[:LINES], *more])


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """A line for each path that is not in both, or not alike."""
    lines = [f"- {path}: missing, expected {_kind(expected[path])}" for path in expected if path not in found]
    lines += [f"+ {path}: not expected, {_kind(found[path])}" for path in sorted(found) if path not in expected]
    both = [path for path in expected if path in found]
    return lines + [
        f"! {path}: expected {_kind(expected[path])}, got {_kind(found[path])}"
        for path in both
        if _kind(expected[path]) != _kind(found[path])
    ]


def _kind(array: Any) -> str:
    return f"{jnp.dtype(array.dtype).name}{list(array.shape)}"


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.extended) else leaf


def _placed(array: np.ndarray, like: Any) -> Any:
    if not isinstance(like, jax.Array):
        return array
    if jnp.issubdtype(like.dtype, jax.dtypes.extended):
        key = jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
        return jax.device_put(key, like.sharding)
    return jax.device_put(array, like.sharding)
