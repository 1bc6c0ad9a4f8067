"""W1: the classic network of NumPy tutorials, 2-3-1 with sigmoids, all examples in every step of gradient descent."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.benchmarks import trainers
from experiments.benchmarks.job import Job

SIZES = {"steps": 10_000, "examples": 100, "rate": 0.5, "optimizer": "sgd", "loss": "squared_error"}
SMOKE = {"steps": 20}


def data(sizes: dict[str, Any]) -> dict[str, np.ndarray]:
    """Points of the unit square, and 1 for those above its falling diagonal."""
    x = np.random.default_rng(0).random((sizes["examples"], 2)).astype(np.float32)
    return {"x": x, "y": (x.sum(1, keepdims=True) > 1).astype(np.float32)}


def experiment(sizes: dict[str, Any], data: dict[str, np.ndarray]) -> Any:
    import jax
    import optax

    import fdl
    from fdl import nn

    model = nn.Serial(hidden=nn.Linear(2, 3), bend=jax.nn.sigmoid, head=nn.Linear(3, 1), squash=jax.nn.sigmoid)
    task = fdl.supervised(model, fdl.losses.squared_error)
    return fdl.Experiment(task, optax.sgd(sizes["rate"]), fdl.data.Arrays(**data), num_steps=sizes["steps"])


def ours(job: Job) -> trainers.Train:
    return trainers.fdl(job, experiment)


def numpy(job: Job) -> trainers.Train:
    """Backpropagation by hand."""
    x, y, rate = job.data["x"], job.data["y"], np.float32(job.sizes["rate"])

    def train() -> np.ndarray:
        (w1, b1), (w2, b2) = ([job.params[part][n].copy() for n in ("kernel", "bias")] for part in ("hidden", "head"))
        losses = np.empty(job.steps, np.float32)
        for i in range(job.steps):
            h = 1 / (1 + np.exp(-(x @ w1 + b1)))
            p = 1 / (1 + np.exp(-(h @ w2 + b2)))
            error = p - y
            losses[i] = (error * error).mean()
            dp = error * p * (1 - p) * (2 / len(x))
            dh = (dp @ w2.T) * h * (1 - h)
            w2 -= rate * (h.T @ dp)
            b2 -= rate * dp.sum(0)
            w1 -= rate * (x.T @ dh)
            b1 -= rate * dh.sum(0)
        return losses

    return train


def forward(params: Any, batch: Any) -> Any:
    import jax

    h = jax.nn.sigmoid(batch["x"] @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    return jax.nn.sigmoid(h @ params["head"]["kernel"] + params["head"]["bias"])


def limit(job: Job) -> trainers.Train:
    return trainers.limit(job, forward)


def step_loop(job: Job) -> trainers.Train:
    return trainers.jax_loop(job, job.params, forward)


def linen(job: Job) -> trainers.Train:
    from flax import linen as nn

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            h = nn.sigmoid(nn.Dense(3, name="hidden")(x))
            return nn.sigmoid(nn.Dense(1, name="head")(h))

    model = Network()
    return trainers.linen(job, model, job.params)


def nnx(job: Job) -> trainers.Train:
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.hidden, self.head = nnx.Linear(2, 3, rngs=rngs), nnx.Linear(3, 1, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return nnx.sigmoid(self.head(nnx.sigmoid(self.hidden(x))))

    model = trainers.load_nnx(Network(nnx.Rngs(0)), job.params)
    return trainers.nnx(job, model, lambda model, batch: model(batch["x"]))


def equinox(job: Job) -> trainers.Train:
    import equinox as eqx
    import jax

    class Network(eqx.Module):
        hidden: eqx.nn.Linear
        head: eqx.nn.Linear

        def __call__(self, x: Any) -> Any:
            return jax.nn.sigmoid(self.head(jax.nn.sigmoid(self.hidden(x))))

    key = jax.random.key(0)
    model = Network(eqx.nn.Linear(2, 3, key=key), eqx.nn.Linear(3, 1, key=key))
    model = trainers.load_equinox(model, job.params)
    return trainers.equinox(job, model, lambda model, batch: jax.vmap(model)(batch["x"]))


def haiku(job: Job) -> trainers.Train:
    import haiku as hk
    import jax

    def network(x: Any) -> Any:
        h = jax.nn.sigmoid(hk.Linear(3, name="hidden")(x))
        return jax.nn.sigmoid(hk.Linear(1, name="head")(h))

    model = hk.without_apply_rng(hk.transform(network))
    params = trainers.haiku_params(job.params)
    return trainers.haiku(job, model, params)


def keras(job: Job) -> trainers.Train:
    """One call of `fit` on the examples repeated, since an epoch of one step would cost far more."""
    import keras

    hidden, head = keras.layers.Dense(3, activation="sigmoid"), keras.layers.Dense(1, activation="sigmoid")
    model = keras.Sequential([keras.Input((2,)), hidden, head])
    for name, layer in {"hidden": hidden, "head": head}.items():
        layer.set_weights([job.params[name]["kernel"], job.params[name]["bias"]])
    repeated = {name: np.tile(array, (job.steps, 1)) for name, array in job.data.items()}
    order = np.arange(len(repeated["y"])).reshape(job.steps, -1)
    return trainers.keras(job._replace(data=repeated, order=order), model)


def torch(job: Job, compile: bool = False) -> trainers.Train:
    import torch
    from torch import nn

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.head = nn.Linear(2, 3), nn.Linear(3, 1)

        def forward(self, x: Any) -> Any:
            return torch.sigmoid(self.head(torch.sigmoid(self.hidden(x))))

    return trainers.torch(job, trainers.load_torch(Network(), job.params), compile=compile)
