"""A run between two chunks as arrays by path, and a run put back where it was."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fdl.errors import InputError
from fdl.rules import path_of
from fdl.runs.checkpoints import Saved
from fdl.runs.fitting import AS_IT_IS, Resume, changes, differences, table
from fdl.training.experiment import Experiment
from fdl.training.history import History
from fdl.training.optimizer_facts import facts_of


def flat(tree: Any) -> dict[str, np.ndarray]:
    """The leaves of a tree by path, copied to the host; a random key as its data."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {path_of(path): np.array(_plain(leaf)) for path, leaf in leaves}  # a copy: the next chunk takes the buffer


def facts_at(experiment: Experiment, history: History, step: int) -> dict[str, Any]:
    """What a checkpoint says of a run beside its arrays: names, the optimizer, what it is selected by."""
    facts: dict[str, Any] = {"names": list(history), "optimizer": facts_of(experiment.optimizer)}
    facts["num_steps"] = experiment.total_steps()
    if experiment.select is not None and experiment.select in history:
        series = history[experiment.select]
        last = series.last(1)
        if series.steps[-1] == step and last.shape == (1,) and np.isfinite(last[0]):  # of a run, evaluated just now
            score = float(last[0]) * (1 if experiment.mode == "min" else -1)
            facts |= {"score": score, "selected": {experiment.select: float(last[0])}}
    return facts


def packed(history: History) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays of a history by path, and for each name whose steps it shares: those of a chunk are stored once.

    The arrays are views that do not change when the history grows.
    """
    arrays, clocks, known = {}, {}, {}
    for name, series in history.items():
        clocks[name] = known.setdefault(series.steps.tobytes(), name)
        if clocks[name] == name:
            arrays[f"steps/{name}"] = series.steps
        arrays[f"history/{name}"] = series.values
    return arrays, clocks


def steps_of(saved: Saved, name: str) -> np.ndarray:
    """The steps at which a name of the history was measured."""
    return saved.arrays[f"steps/{saved.facts.get('clocks', {}).get(name, name)}"]


class Past(NamedTuple):
    """A checkpoint of a run, taken apart: the state by path, history, when it was over, seconds of training."""

    run: dict[str, np.ndarray]
    history: History
    stopped_at: int | None
    seconds: float


def past(saved: Saved, total: int) -> Past:
    """Takes a checkpoint apart, of a run that goes on to step `total`.

    Raises:
      InputError: it is whole, but not of a run, or of one that got further.
    """
    if saved.step > total:
        raise InputError(f"{saved.path}: is after step {saved.step}, the experiment has only {total}")
    history, run = History(), {}
    try:
        run = {path.removeprefix("run/"): array for path, array in saved.arrays.items() if path.startswith("run/")}
        for name in saved.facts["names"]:  # copied: it stays, and would keep the whole checkpoint in memory
            history.add(steps_of(saved, name), {name: saved.arrays[f"history/{name}"]})
        fits = all(path.startswith(("run/", "steps/", "history/")) for path in saved.arrays)
        stopped_at, seconds = saved.facts["stopped_at"], float(saved.facts.get("seconds", 0.0))
        ended = run.get("ended")
        if ended is not None:  # with more steps than it had, who was going on does
            run["ended"] = np.where(ended == saved.facts.get("num_steps"), total, ended).astype(ended.dtype)
    except (KeyError, TypeError, ValueError, IndexError, OverflowError, AttributeError):
        fits, stopped_at, seconds = False, None, 0.0
    if not fits or not isinstance(stopped_at, int | None):
        raise InputError(f"{saved.path}: is whole, but no checkpoint of a run")
    return Past(run, history, stopped_at, seconds)


def put(tree: Any, arrays: Mapping[str, np.ndarray], where: str, resume: Resume = AS_IT_IS) -> tuple[Any, list[str]]:
    """The tree with these arrays in place of its leaves, on the same devices; and what was changed on the way.

    Raises:
      InputError: a table of paths that are missing (-), not expected (+), or of another shape or dtype (!).
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    expected = {path_of(path): leaf for path, leaf in leaves}
    plain = {path: _plain(leaf) for path, leaf in expected.items()}
    found, lines = resume.fitted(arrays, plain)
    problems = [] if resume.partial else list(differences(plain, found).values())
    if problems:
        hint = "\nto take it in part, renamed or cast: fdl resume RUN --partial --rename --cast, in Python fdl.Resume"
        raise InputError(table(f"{where} does not fit this experiment:", problems) + hint)
    placed = [_placed(found[path], leaf) if path in found else leaf for path, leaf in expected.items()]
    return jax.tree.unflatten(structure, placed), lines


def same_optimizer(saved: Saved, optimizer: Any, resume: Resume = AS_IT_IS) -> list[str]:
    """Refuses the state of another optimizer, which may have the same shapes, unless that is wanted: then it is said.

    A checkpoint that says nothing of its optimizer passes.

    Raises:
      InputError: what was, and what is.
    """
    now = facts_of(optimizer)
    before = saved.facts.get("optimizer", now)
    lines = changes(before, now)
    if lines and not (resume.partial or resume.accepts("optimizer")):
        raise InputError(table(f"{saved.path} is of another optimizer; bring it back, or start a new run:", lines))
    return [f"optimizer: {line}" for line in lines]


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.extended) else leaf


def _placed(array: np.ndarray, like: Any) -> Any:
    if not isinstance(like, jax.Array):
        return array
    if jnp.issubdtype(like.dtype, jax.dtypes.extended):
        key = jax.random.wrap_key_data(jnp.asarray(array), impl=jax.random.key_impl(like))
        return jax.device_put(key, like.sharding)
    return jax.device_put(array, like.sharding)
