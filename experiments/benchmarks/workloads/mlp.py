"""W2: a network of dense layers, 784-512-512-10, on two epochs of MNIST-sized images."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from experiments.benchmarks import trainers
from experiments.benchmarks.by_hand import product
from experiments.benchmarks.job import Job

SIZES = {
    **{"steps": 936, "examples": 60_000, "batch": 128, "width": 512, "depth": 2},
    **{"rate": 1e-3, "optimizer": "adam", "loss": "cross_entropy"},
}
SMOKE = {"steps": 6, "examples": 512}
PIXELS, CLASSES = 784, 10


def data(sizes: dict[str, Any]) -> dict[str, np.ndarray]:
    """Ten blurred patterns under noise: as many numbers as MNIST has, without a download."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, sizes["examples"]).astype(np.int32)
    patterns = rng.normal(size=(CLASSES, PIXELS)).astype(np.float32)
    x = rng.standard_normal((sizes["examples"], PIXELS), np.float32)
    return {"x": x + 0.1 * patterns[y], "y": y}


def layers(sizes: dict[str, Any]) -> list[tuple[str, int, int]]:
    """(name, inputs, outputs) of each."""
    widths = [PIXELS] + [sizes["width"]] * sizes["depth"]
    hidden = [(f"dense{i}", a, b) for i, (a, b) in enumerate(pairwise(widths))]
    return [*hidden, ("head", widths[-1], CLASSES)]


def experiment(sizes: dict[str, Any], data: dict[str, np.ndarray]) -> Any:
    import jax
    import optax

    import fdl
    from fdl import nn

    parts: dict[str, Any] = {}
    for name, inputs, outputs in layers(sizes):
        parts |= {f"before_{name}": jax.nn.relu} if parts else {}
        parts[name] = nn.Linear(inputs, outputs)
    task = fdl.supervised(nn.Serial(**parts), fdl.losses.softmax_cross_entropy)
    options = {"batch_size": sizes["batch"], "num_steps": sizes["steps"]}
    return fdl.Experiment(task, optax.adam(sizes["rate"]), fdl.data.Arrays(**data), **options)


def ours(job: Job) -> trainers.Train:
    return trainers.fdl(job, experiment)


def forward(params: Any, batch: Any) -> Any:
    import jax

    h = batch["x"]
    for i in range(len(params) - 1):
        h = jax.nn.relu(product(h, params[f"dense{i}"]["kernel"]) + params[f"dense{i}"]["bias"])
    return product(h, params["head"]["kernel"]) + params["head"]["bias"]


def limit(job: Job) -> trainers.Train:
    return trainers.limit(job, forward)


def step_loop(job: Job) -> trainers.Train:
    return trainers.jax_loop(job, job.params, forward)


def linen(job: Job) -> trainers.Train:
    from flax import linen as nn

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            for i in range(job.sizes["depth"]):
                x = nn.relu(nn.Dense(job.sizes["width"], name=f"dense{i}")(x))
            return nn.Dense(CLASSES, name="head")(x)

    model = Network()
    return trainers.linen(job, model, job.params)


def nnx(job: Job) -> trainers.Train:
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            *hidden, (_, width, outputs) = layers(job.sizes)
            self.hidden = nnx.List([nnx.Linear(a, b, rngs=rngs) for _, a, b in hidden])
            self.head = nnx.Linear(width, outputs, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            for layer in self.hidden:
                x = nnx.relu(layer(x))
            return self.head(x)

    hidden = {str(i): job.params[f"dense{i}"] for i in range(job.sizes["depth"])}
    model = trainers.load_nnx(Network(nnx.Rngs(0)), {"hidden": hidden, "head": job.params["head"]})
    return trainers.nnx(job, model, lambda model, batch: model(batch["x"]))


def equinox(job: Job) -> trainers.Train:
    import equinox as eqx
    import jax

    model = eqx.nn.MLP(PIXELS, CLASSES, job.sizes["width"], job.sizes["depth"], key=jax.random.key(0))
    params = {"layers": {str(i): job.params[name] for i, (name, *_) in enumerate(layers(job.sizes))}}
    model = trainers.load_equinox(model, params)
    return trainers.equinox(job, model, lambda model, batch: jax.vmap(model)(batch["x"]))


def haiku(job: Job) -> trainers.Train:
    import haiku as hk
    import jax

    def network(x: Any) -> Any:
        for i in range(job.sizes["depth"]):
            x = jax.nn.relu(hk.Linear(job.sizes["width"], name=f"dense{i}")(x))
        return hk.Linear(CLASSES, name="head")(x)

    model = hk.without_apply_rng(hk.transform(network))
    params = trainers.haiku_params(job.params)
    return trainers.haiku(job, model, params)


def keras(job: Job) -> trainers.Train:
    import keras

    hidden = [keras.layers.Dense(job.sizes["width"], activation="relu") for _ in range(job.sizes["depth"])]
    model = keras.Sequential([keras.Input((PIXELS,)), *hidden, keras.layers.Dense(CLASSES)])
    for layer, (name, *_) in zip(model.layers, layers(job.sizes), strict=True):
        layer.set_weights([job.params[name]["kernel"], job.params[name]["bias"]])
    return trainers.keras(job, model)


def torch(job: Job, compile: bool = False) -> trainers.Train:
    from torch import nn

    parts: dict[str, nn.Module] = {}
    for name, inputs, outputs in layers(job.sizes):
        parts |= {f"before_{name}": nn.ReLU()} if parts else {}
        parts[name] = nn.Linear(inputs, outputs)
    model = nn.Sequential()
    for name, part in parts.items():
        model.add_module(name, part)
    return trainers.torch(job, trainers.load_torch(model, job.params), compile=compile)
