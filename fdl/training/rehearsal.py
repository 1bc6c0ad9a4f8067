"""What can be known to be wrong before anything is compiled.

A compiled program cannot raise on bad data: a label out of range gives NaN or nonsense. So the objective is traced
once on real rows, its targets concrete and everything else abstract: losses and embeddings then see the very labels and
ids, and refuse them. Nothing is computed.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.core import abstract_key, fold
from fdl.data.auditing import require_finite
from fdl.data.dataset import Dataset
from fdl.errors import InputError
from fdl.training.experiment import Experiment
from fdl.training.sums import reduce

FEW = 1 << 16


def rehearse(experiment: Experiment, training: bool = True) -> None:
    """Checks every dataset of the experiment against its objective; without `training`, those to evaluate on.

    Raises:
      InputError: values that are not finite; whatever the objective, its layers and losses refuse in the real rows.
    """
    sets = {"train": experiment.dataset} if training else {}
    for name, dataset in (sets | dict(experiment.evaluate)).items():
        require_finite(name, dataset)
    params, state = jax.eval_shape(experiment.task.init, abstract_key())
    if training and experiment.task.step is None:
        _trace(experiment, "train", experiment.dataset, params, state, train=True)
    for name, dataset in experiment.evaluate.items():
        _trace(experiment, name, dataset, params, state, train=False)


def _trace(experiment: Experiment, name: str, dataset: Dataset, params: Any, state: Any, train: bool) -> None:
    batch, rows = dataset.sample(experiment.batch_size)
    flat, tree = jax.tree.flatten(batch)
    # Placed outside the trace, or they would be traced as well.
    placed = [jax.device_put(leaf) if _seen(leaf) else None for leaf in flat]
    abstract = [leaf for leaf, mine in zip(flat, placed, strict=True) if mine is None]

    def objective(params: Any, state: Any, abstract: list[Any], key: jax.Array) -> Any:
        rest = iter(abstract)
        real = tree.unflatten([next(rest) if mine is None else mine for mine in placed])
        if train and experiment.augment is not None:
            real = experiment.augment(real, fold(key, "augment"))
        mask = jnp.ones(len(rows), bool) if rows else None
        return reduce(experiment.task.objective(params, state, real, key=key, train=train), mask)  # pyright: ignore

    try:
        jax.eval_shape(objective, params, state, abstract, abstract_key())
    except InputError as error:
        where = f"in the set {name!r}"
        if rows:
            where += (
                f"; indices 0, 1, ... are its rows {', '.join(map(str, rows[:8]))}{', ...' if len(rows) > 8 else ''}"
            )
        error.add_note(where)
        raise


def _seen(leaf: Any) -> bool:
    """Whether values are looked at: integers, and floats that are few enough to be targets rather than images."""
    return np.issubdtype(leaf.dtype, np.integer) or leaf.size <= FEW
