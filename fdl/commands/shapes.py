"""What a run consists of as shapes: nothing is placed on a device."""

from __future__ import annotations

from typing import Any

import jax

from fdl.core import abstract_key, fold
from fdl.training.experiment import Experiment
from fdl.training.programs import epoch_order


def abstracted(tree: Any) -> Any:
    """Host arrays as the shapes and dtypes that they have once on a device."""
    return jax.eval_shape(lambda leaves: leaves, tree)


def abstract_batch(experiment: Experiment) -> Any:
    """The shapes of a training batch, augmented as in training."""
    dataset = experiment.dataset

    def first(arrays: Any, key: jax.Array) -> Any:
        batch = dataset.batch(arrays, epoch_order(experiment, key, 0), 0, experiment.batch_size)
        return batch if experiment.augment is None else experiment.augment(batch, fold(key, "augment"))

    return jax.eval_shape(first, abstracted(dataset.arrays), abstract_key())
