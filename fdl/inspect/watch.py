"""How large the activations of a model are, layer by layer, while it trains."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from fdl.core import Layer
from fdl.errors import InputError
from fdl.inspect.taps import attach
from fdl.training.task import Outcome, Supervised, Task


def watch(task: Task) -> Task:
    """The task with a metric "activation/<path>" for every layer: the root mean square of what it puts out.

    The history then has "train/activation/0", one value a step: what dies out or explodes along the layers shows. The
    layers inside a `Stack` or an `Ensemble` are one program for many, and are seen from outside only.

    Args:
      task: made by `fdl.supervised`.

    Raises:
      InputError: another task.

    >>> import fdl
    >>> model = fdl.nn.Serial(fdl.nn.Linear(2, 3), jax.nn.relu, head=fdl.nn.Linear(3, 1))
    >>> task = watch(fdl.supervised(model, fdl.losses.squared_error))
    >>> batch = {"x": jnp.ones((4, 2)), "y": jnp.ones((4, 1))}
    >>> outcome = task.objective(*fdl.init(model, jax.random.key(0)), batch, key=None, train=False)
    >>> sorted(outcome.metrics)
    ['activation/0', 'activation/head']
    """
    if not isinstance(task.objective, Supervised) or not isinstance(task.objective.model, Layer):
        raise InputError(
            "watch: expected a task that fdl.supervised made from a layer; others call fdl.inspect.attach themselves"
        )
    supervised, model = task.objective, task.objective.model

    def objective(params: Any, state: Any, batch: Any, *, key: Any, train: bool) -> Outcome:
        sizes: dict[str, jax.Array] = {}

        def report(path: str, layer: Layer, inputs: tuple[Any, ...], y: Any) -> None:
            leaves = [jnp.square(leaf.astype(jnp.float32)) for leaf in jax.tree.leaves(y)]
            if path and leaves:
                mean = sum(leaf.sum() for leaf in leaves) / max(sum(leaf.size for leaf in leaves), 1)
                sizes[f"activation/{path}"] = jax.lax.stop_gradient(jnp.sqrt(mean))

        tapped = dataclasses.replace(supervised, model=attach(model, report, copies=False))
        outcome = tapped(params, state, batch, key=key, train=train)
        return outcome._replace(metrics={**(outcome.metrics or {}), **sizes})

    return dataclasses.replace(task, objective=objective)
