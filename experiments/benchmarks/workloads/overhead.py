"""W7: one dense layer of 16 x 16 on a batch of 16, so that nearly all of a step is what the library does around it."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.benchmarks import trainers
from experiments.benchmarks.job import Job

SIZES = {"steps": 3000, "batch": 16, "width": 16, "rate": 1e-3, "optimizer": "adam", "loss": "squared_error"}
SMOKE = {"steps": 20}


def data(sizes: dict[str, Any]) -> dict[str, np.ndarray]:
    x, y = np.random.default_rng(0).normal(size=(2, sizes["batch"], sizes["width"])).astype(np.float32)
    return {"x": x, "y": y}


def experiment(sizes: dict[str, Any], data: dict[str, np.ndarray]) -> Any:
    import optax

    import fdl
    from fdl import nn

    model = nn.Serial(dense=nn.Linear(sizes["width"], sizes["width"]))
    task = fdl.supervised(model, fdl.losses.squared_error)
    return fdl.Experiment(task, optax.adam(sizes["rate"]), fdl.data.Arrays(**data), num_steps=sizes["steps"])


def ours(job: Job) -> trainers.Train:
    return trainers.fdl(job, experiment)


def forward(params: Any, batch: Any) -> Any:
    return batch["x"] @ params["dense"]["kernel"] + params["dense"]["bias"]


def limit(job: Job) -> trainers.Train:
    return trainers.limit(job, forward)


def step_loop(job: Job) -> trainers.Train:
    return trainers.jax_loop(job, job.params, forward)


def linen(job: Job) -> trainers.Train:
    from flax import linen as nn

    model = nn.Dense(job.sizes["width"])
    return trainers.linen(job, model, job.params["dense"])


def nnx(job: Job) -> trainers.Train:
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self) -> None:
            self.dense = nnx.Linear(job.sizes["width"], job.sizes["width"], rngs=nnx.Rngs(0))

    model = trainers.load_nnx(Network(), job.params)
    return trainers.nnx(job, model, lambda model, batch: model.dense(batch["x"]))


def equinox(job: Job) -> trainers.Train:
    import equinox as eqx
    import jax

    model = eqx.nn.Linear(job.sizes["width"], job.sizes["width"], key=jax.random.key(0))
    model = trainers.load_equinox(model, job.params["dense"])
    return trainers.equinox(job, model, lambda model, batch: jax.vmap(model)(batch["x"]))


def haiku(job: Job) -> trainers.Train:
    import haiku as hk

    model = hk.without_apply_rng(hk.transform(lambda x: hk.Linear(job.sizes["width"], name="dense")(x)))
    params = trainers.haiku_params(job.params)
    return trainers.haiku(job, model, params)


def keras(job: Job) -> trainers.Train:
    """One call of `fit` on the batch repeated, since an epoch of one step would cost far more."""
    import keras

    steps, size = job.steps, job.sizes["batch"]
    dense = keras.layers.Dense(job.sizes["width"])
    model = keras.Sequential([keras.Input((job.sizes["width"],)), dense])
    dense.set_weights([job.params["dense"]["kernel"], job.params["dense"]["bias"]])
    repeated = {name: np.tile(array, (steps, 1)) for name, array in job.data.items()}
    order = np.arange(steps * size).reshape(steps, size)
    return trainers.keras(job._replace(data=repeated, order=order), model)


def torch(job: Job, compile: bool = False) -> trainers.Train:
    from torch import nn

    model = nn.Linear(job.sizes["width"], job.sizes["width"])
    return trainers.torch(job, trainers.load_torch(model, job.params["dense"]), compile=compile)
