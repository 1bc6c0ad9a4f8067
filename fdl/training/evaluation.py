"""Evaluation without training: the programs with which a run evaluates, for parameters from anywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from fdl.errors import InputError
from fdl.rules import path_of
from fdl.runs.fitting import differences, table
from fdl.training.compiling import compiled
from fdl.training.experiment import Experiment
from fdl.training.programs import make_pass
from fdl.training.recipe import Recipe
from fdl.training.rehearsal import rehearse
from fdl.training.reports import reported
from fdl.training.run import run_key
from fdl.training.step import TrainState
from fdl.training.sums import means

Evaluation = Callable[[Any, Any], dict[str, float]]


def make_evaluation(experiment: Experiment, *, seed: int = 0) -> Evaluation:
    """The evaluation of a run alone, compiled: `evaluate(params, state) -> {"test/loss": ..., "test/accuracy": ...}`.

    It has the bits of the same evaluation in `fdl.run`. Nothing that trains is compiled, and parameters may come from
    a result, a checkpoint or another library. Other data: `dataclasses.replace(experiment, evaluate={"test": ...})`.

    Args:
      experiment: its task, `evaluate`, `eval_batch_size`, `precision` and `reports` count.
      seed: of an objective that draws random numbers in evaluation too.

    Returns:
      `evaluate`, of parameters and state as a `Result` has them. Raises InputError, with a line for each path, where
      they are not those of the task.

    Raises:
      InputError: there is no evaluation set; whatever `fdl.run` would refuse in one.

    >>> import fdl, optax
    >>> data = fdl.data.Arrays(x=np.eye(4, dtype=np.float32), y=np.arange(4))
    >>> task = fdl.supervised(fdl.nn.Linear(4, 4), fdl.losses.softmax_cross_entropy, {"accuracy": fdl.metrics.accuracy})
    >>> evaluate = make_evaluation(fdl.Experiment(task, optax.sgd(0.1), data, evaluate={"test": data}, num_steps=1))
    >>> evaluate({"kernel": np.eye(4, dtype=np.float32), "bias": np.zeros(4, np.float32)}, {})["test/accuracy"]
    1.0
    """
    if not isinstance(experiment, Experiment):
        raise InputError(f"make_evaluation: expected an fdl.Experiment, got {type(experiment).__name__}")
    if not experiment.evaluate:
        raise InputError("make_evaluation: the experiment has no evaluation set: Experiment(evaluate={'test': ...})")
    rehearse(experiment, training=False)
    # The parameters are what evaluation uses: no averages have to be made of an optimiser's state.
    recipe, key = Recipe(replace(experiment, eval_params=None)), run_key(seed)
    params, state = jax.eval_shape(experiment.task.init, key)
    now = TrainState(params, state, ())
    expected, structure = _by_path(now), jax.tree.structure(now)
    passes = {}
    for name, dataset in experiment.evaluate.items():
        arrays = jax.device_put(dict(dataset.arrays))
        function, names = make_pass(recipe, now, name, dataset)
        passes[name] = compiled(f"evaluate/{name}", function, now, arrays, key, {})[0], names, arrays

    def evaluate(params: Any, state: Any) -> dict[str, float]:
        by_path = _by_path(TrainState(params, state, ()))
        lines = differences(expected, by_path)
        if lines:
            raise InputError(table("evaluate: the parameters or state are not those of this task:", [*lines.values()]))
        # Layers without parameters may be left out, as paths decide.
        given = jax.device_put(structure.unflatten([by_path[path] for path in expected]))
        found: dict[str, float] = {}
        for name, (program, names, arrays) in passes.items():
            sums, outputs = program(given, arrays, key, {})
            found |= {f"{name}/{metric}": float(value) for metric, value in zip(names, means(sums), strict=True)}
            for each in reported(experiment.reports, experiment.evaluate[name], outputs, name, names):
                if isinstance(each, Exception):
                    raise each
                found[f"{name}/{each[0]}"] = each[1]
        return found

    return evaluate


def _by_path(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {path_of(path): leaf if hasattr(leaf, "dtype") else np.asarray(leaf) for path, leaf in leaves}
