"""W9: the convolutional network of W3 is evaluated, loss and accuracy, on 10 000 images in batches of 256."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from experiments.benchmarks import trainers
from experiments.benchmarks.job import Job
from experiments.benchmarks.workloads import cnn
from experiments.benchmarks.workloads.cnn import (  # noqa: F401
    data,
    equinox,
    haiku,
    keras,
    limit,
    linen,
    nnx,
    step_loop,
    torch,
    torch_channels_last,
)

SIZES = cnn.SIZES | {"steps": 1, "examples": 10_000, "batch": 256, "evaluate": "scores", "exact": True}
SMOKE = {"examples": 80, "batch": 32}


def experiment(sizes: dict[str, Any], images: dict[str, np.ndarray]) -> Any:
    import fdl

    made = cnn.experiment(sizes, images)
    objective = dataclasses.replace(made.task.objective, metrics={"accuracy": fdl.metrics.accuracy})
    return dataclasses.replace(
        made, task=dataclasses.replace(made.task, objective=objective), evaluate={"test": made.dataset}
    )


def ours(job: Job) -> trainers.Train:
    return trainers.fdl(job, experiment)
