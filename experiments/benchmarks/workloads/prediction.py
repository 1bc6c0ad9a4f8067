"""W9, second half: the logits of the convolutional network of W3 for 10 000 images in batches of 256, on the host."""

from __future__ import annotations

from experiments.benchmarks import trainers
from experiments.benchmarks.job import Job
from experiments.benchmarks.workloads import cnn, evaluation
from experiments.benchmarks.workloads.cnn import (  # noqa: F401
    data,
    equinox,
    experiment,
    haiku,
    keras,
    limit,
    linen,
    nnx,
    step_loop,
    torch,
    torch_channels_last,
)

SIZES = evaluation.SIZES | {"evaluate": "logits"}
SMOKE = evaluation.SMOKE


def ours(job: Job) -> trainers.Train:
    """A model of fdl is a function of parameters and inputs: jitted, and called for each batch."""
    model = cnn.experiment(job.sizes, job.data).task.objective.model
    return trainers.jax_loop(job, job.params, lambda params, batch: model(params, batch["x"]))
