"""W3: a convolutional network, 32 and 64 channels of 3 x 3, each with max pooling, and 128 dense units, on 28 x 28."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.benchmarks import trainers
from experiments.benchmarks.by_hand import product
from experiments.benchmarks.job import Job

SIZES = {
    **{"steps": 78, "examples": 9_984, "batch": 128},
    **{"rate": 1e-3, "optimizer": "adam", "loss": "cross_entropy"},
}
SMOKE = {"steps": 3, "examples": 96, "batch": 32}
SIDE, CLASSES, FLAT = 28, 10, 7 * 7 * 64
BLOCK = 8  # images, of which the patches stay in the cache


def data(sizes: dict[str, Any]) -> dict[str, np.ndarray]:
    """Ten patterns under noise."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, sizes["examples"]).astype(np.int32)
    patterns = rng.normal(size=(CLASSES, SIDE, SIDE, 1)).astype(np.float32)
    x = rng.standard_normal((sizes["examples"], SIDE, SIDE, 1), np.float32)
    return {"x": x + 0.2 * patterns[y], "y": y}


def experiment(sizes: dict[str, Any], data: dict[str, np.ndarray]) -> Any:
    import jax
    import optax

    import fdl
    from fdl import nn

    one = {"conv1": nn.Conv(1, 32, 3), "relu1": jax.nn.relu, "pool1": nn.MaxPool(2)}
    two = {"conv2": nn.Conv(32, 64, 3), "relu2": jax.nn.relu, "pool2": nn.MaxPool(2)}
    dense = {"flatten": nn.Flatten(), "dense": nn.Linear(FLAT, 128), "relu3": jax.nn.relu}
    model = nn.Serial(**one, **two, **dense, head=nn.Linear(128, CLASSES))
    task = fdl.supervised(model, fdl.losses.softmax_cross_entropy)
    options = {"batch_size": sizes["batch"], "num_steps": sizes["steps"]}
    return fdl.Experiment(task, optax.adam(sizes["rate"]), fdl.data.Arrays(**data), **options)


def ours(job: Job) -> trainers.Train:
    return trainers.fdl(job, experiment)


def limit(job: Job) -> trainers.Train:
    """Forwards XLA's own, the gradients of products over patches and of slices: XLA's are slow inside a loop on CPU."""
    import jax
    import jax.numpy as jnp

    def patches(x: Any) -> Any:
        _, height, width, _ = x.shape
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        return jnp.concatenate([x[:, i : i + height, j : j + width] for i in range(3) for j in range(3)], -1)

    def products(x: Any, kernel: Any) -> Any:
        kernel = kernel.reshape(-1, kernel.shape[-1])
        if x.shape[-1] == 1 or len(x) % BLOCK:
            return patches(x) @ kernel
        blocks = x.reshape(-1, BLOCK, *x.shape[1:])
        y = jax.lax.map(jax.checkpoint(lambda block: patches(block) @ kernel), blocks)
        return y.reshape(*x.shape[:-1], -1)

    def slices(x: Any) -> Any:
        rows = jnp.maximum(x[:, ::2], x[:, 1::2])
        return jnp.maximum(rows[:, :, ::2], rows[:, :, 1::2])

    def by(forwards: Any, backwards: Any) -> Any:
        function = jax.custom_vjp(forwards)
        function.defvjp(lambda *args: (forwards(*args), args), lambda kept, dy: jax.vjp(backwards, *kept)[1](dy))
        return function

    return trainers.limit(job, _forward(by(_convolution, products), by(_max_pool, slices)))


def step_loop(job: Job) -> trainers.Train:
    """XLA's own convolution, which is fast outside of loops, and its pooling."""
    return trainers.jax_loop(job, job.params, _forward(_convolution, _max_pool))


def _convolution(x: Any, kernel: Any) -> Any:
    from jax import lax

    return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def _max_pool(x: Any) -> Any:
    from jax import lax

    return lax.reduce_window(x, -np.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def _forward(convolution: Any, pool: Any) -> Any:
    import jax

    def forward(params: Any, batch: Any) -> Any:
        x = batch["x"]
        for name in ("conv1", "conv2"):
            x = pool(jax.nn.relu(convolution(x, params[name]["kernel"]) + params[name]["bias"]))
        x = jax.nn.relu(product(x.reshape(len(x), -1), params["dense"]["kernel"]) + params["dense"]["bias"])
        return product(x, params["head"]["kernel"]) + params["head"]["bias"]

    return forward


def linen(job: Job) -> trainers.Train:
    from flax import linen as nn

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = nn.max_pool(nn.relu(nn.Conv(32, (3, 3), name="conv1")(x)), (2, 2), (2, 2))
            x = nn.max_pool(nn.relu(nn.Conv(64, (3, 3), name="conv2")(x)), (2, 2), (2, 2))
            x = nn.relu(nn.Dense(128, name="dense")(x.reshape(len(x), -1)))
            return nn.Dense(CLASSES, name="head")(x)

    model = Network()
    return trainers.linen(job, model, job.params)


def nnx(job: Job) -> trainers.Train:
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.conv1, self.conv2 = nnx.Conv(1, 32, (3, 3), rngs=rngs), nnx.Conv(32, 64, (3, 3), rngs=rngs)
            self.dense, self.head = nnx.Linear(FLAT, 128, rngs=rngs), nnx.Linear(128, CLASSES, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = nnx.max_pool(nnx.relu(self.conv1(x)), (2, 2), (2, 2))
            x = nnx.max_pool(nnx.relu(self.conv2(x)), (2, 2), (2, 2))
            return self.head(nnx.relu(self.dense(x.reshape(len(x), -1))))

    model = trainers.load_nnx(Network(nnx.Rngs(0)), job.params)
    return trainers.nnx(job, model, lambda model, batch: model(batch["x"]))


def equinox(job: Job) -> trainers.Train:
    import equinox as eqx
    import jax

    class Network(eqx.Module):
        conv1: eqx.nn.Conv2d
        conv2: eqx.nn.Conv2d
        dense: eqx.nn.Linear
        head: eqx.nn.Linear
        pool: eqx.nn.MaxPool2d = eqx.nn.MaxPool2d(2, 2)

        def __call__(self, x: Any) -> Any:
            x = self.pool(jax.nn.relu(self.conv1(x)))
            x = self.pool(jax.nn.relu(self.conv2(x)))
            return self.head(jax.nn.relu(self.dense(x.ravel())))

    key = jax.random.key(0)
    convolutions = eqx.nn.Conv2d(1, 32, 3, padding=1, key=key), eqx.nn.Conv2d(32, 64, 3, padding=1, key=key)
    model = Network(*convolutions, eqx.nn.Linear(FLAT, 128, key=key), eqx.nn.Linear(128, CLASSES, key=key))
    model = trainers.load_equinox(model, channels_first(job).params)
    return trainers.equinox(channels_first(job), model, lambda model, batch: jax.vmap(model)(batch["x"]))


def haiku(job: Job) -> trainers.Train:
    import haiku as hk
    import jax

    def network(x: Any) -> Any:
        x = hk.max_pool(jax.nn.relu(hk.Conv2D(32, 3, name="conv1")(x)), (2, 2, 1), (2, 2, 1), "VALID")
        x = hk.max_pool(jax.nn.relu(hk.Conv2D(64, 3, name="conv2")(x)), (2, 2, 1), (2, 2, 1), "VALID")
        x = jax.nn.relu(hk.Linear(128, name="dense")(x.reshape(len(x), -1)))
        return hk.Linear(CLASSES, name="head")(x)

    model = hk.without_apply_rng(hk.transform(network))
    params = trainers.haiku_params(job.params)
    return trainers.haiku(job, model, params)


def keras(job: Job) -> trainers.Train:
    import keras
    from keras import layers

    options: Any = {"activation": "relu", "padding": "same"}
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 1)),
            *(layers.Conv2D(32, 3, **options, name="conv1"), layers.MaxPooling2D(2)),
            *(layers.Conv2D(64, 3, **options, name="conv2"), layers.MaxPooling2D(2)),
            *(layers.Flatten(), layers.Dense(128, activation="relu", name="dense"), layers.Dense(CLASSES, name="head")),
        ]
    )
    for name, leaves in job.params.items():
        model.get_layer(name).set_weights([leaves["kernel"], leaves["bias"]])
    return trainers.keras(job, model)


def torch(job: Job, compile: bool = False, channels_last: bool = False) -> trainers.Train:
    import torch
    from torch import nn
    from torch.nn import functional

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
            self.dense, self.head = nn.Linear(FLAT, 128), nn.Linear(128, CLASSES)

        def forward(self, x: Any) -> Any:
            x = functional.max_pool2d(self.conv1(x).relu(), 2)
            x = functional.max_pool2d(self.conv2(x).relu(), 2)
            return self.head(self.dense(x.flatten(1)).relu())

    job = channels_first(job)
    model = trainers.load_torch(Network(), job.params)
    if not channels_last:
        return trainers.torch(job, model, compile=compile)
    model = model.to(memory_format=torch.channels_last)
    return trainers.torch(
        job, model, lambda model, batch: model(batch["x"].to(memory_format=torch.channels_last)), compile
    )


def torch_channels_last(job: Job) -> trainers.Train:
    return torch(job, channels_last=True)


def channels_first(job: Job) -> Job:
    """Images [B, C, H, W], and a dense layer behind them whose inputs are in that order."""
    kernel = job.params["dense"]["kernel"].reshape(7, 7, 64, -1).transpose(2, 0, 1, 3).reshape(FLAT, -1)
    params = job.params | {"dense": job.params["dense"] | {"kernel": kernel}}
    return job._replace(data=job.data | {"x": job.data["x"].transpose(0, 3, 1, 2).copy()}, params=params)
