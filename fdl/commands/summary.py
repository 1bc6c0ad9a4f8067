"""`fdl summary FILE`: what an experiment trains, from shapes alone."""

from __future__ import annotations

import sys
from typing import Any

from fdl.commands.experiment import with_experiment
from fdl.runs.progress import say

HELP = """\
usage: fdl summary FILE [options of the experiment]

Shows what the experiment in FILE trains, without training it: paths, shapes,
parameters, and the FLOPs of one batch, forward and backward.

fdl summary FILE --help shows the options of the experiment."""


def main(arguments: list[str]) -> int:
    return with_experiment("summary", HELP, (), arguments, lambda opened: say(sys.stdout, table(opened.experiment)))


def table(experiment: Any) -> str:
    """The layers of a model that `fdl.supervised` trains; of any other task the parameters by path."""
    from fdl.commands.shapes import abstract_batch
    from fdl.training.task import Supervised

    batch = abstract_batch(experiment)
    objective = experiment.task.objective
    if isinstance(objective, Supervised) and experiment.task.step is None:
        return f"{_layers(objective, batch)}\n\n{_note(batch)}"
    return f"{_parameters(experiment)}\n\n{_work(experiment, batch)}\n{_note(batch)}"


def _layers(objective: Any, batch: Any) -> str:
    from fdl.inspect.summary import summarize

    name, named = (objective.inputs, {}) if isinstance(objective.inputs, str) else objective.inputs
    keywords = {keyword: batch[entry] for keyword, entry in named.items()}
    return str(summarize(objective.model, batch[name], keywords, backward=True))


def _parameters(experiment: Any) -> str:
    import jax

    from fdl.core import abstract_key
    from fdl.inspect.summary import count
    from fdl.rules import path_of
    from fdl.runs.tables import aligned

    params, state = jax.eval_shape(experiment.task.init, abstract_key())
    lines = [("path", "shape", "dtype", "params")]
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        lines.append((path_of(path), str(list(leaf.shape)), str(leaf.dtype), f"{count(leaf):,}"))
    text = aligned([*lines, ("total", "", "", f"{count(params):,}")], left=3, total=True)
    return f"{text}\nand {count(state):,} running statistics" if count(state) else text


def _work(experiment: Any, batch: Any) -> str:
    """FLOPs of the objective, forward and with its gradients; of the whole step for a task that has its own."""
    import jax

    from fdl.core import abstract_key
    from fdl.inspect.summary import flops
    from fdl.training.sums import reduce

    key, task = abstract_key(), experiment.task
    if task.step is not None:
        update = experiment.update()
        now = jax.eval_shape(update.init, key)
        return f"FLOPs of one step: {flops(update, now, batch, key):,}"

    def loss(params: Any, state: Any, batch: Any, key: Any) -> Any:
        return reduce(task.objective(params, state, batch, key=key, train=True))["loss"].value()

    params, state = jax.eval_shape(task.init, key)
    forward = flops(loss, params, state, batch, key)
    backward = flops(jax.value_and_grad(loss), params, state, batch, key) - forward
    return f"FLOPs of the objective: {forward:,} forward, {backward:,} backward"


def _note(batch: Any) -> str:
    import jax

    from fdl.rules import path_of

    shapes = [
        f"{path_of(path)} {leaf.dtype}{list(leaf.shape)}" for path, leaf in jax.tree_util.tree_leaves_with_path(batch)
    ]
    return f"one batch: {', '.join(shapes) or 'without arrays'}; the body of a loop is counted once"
