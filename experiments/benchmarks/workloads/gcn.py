"""W8: a graph network (GCN, 16 hidden units) on a graph of Cora's size, 200 full-batch steps."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from experiments.benchmarks import trainers
from experiments.benchmarks.by_hand import product
from experiments.benchmarks.job import Job

SIZES = {
    **{"steps": 200, "nodes": 2708, "words": 1433, "citations": 5278, "labelled": 140},
    **{"hidden": 16, "rate": 1e-2, "optimizer": "adam", "loss": "cross_entropy"},
}
SMOKE = {"steps": 3, "nodes": 100, "words": 30, "citations": 150, "labelled": 40}
CLASSES = 7


def data(sizes: dict[str, Any]) -> dict[str, np.ndarray]:
    """Cora's numbers of papers, words and citations, drawn at random: no download, and the same work."""
    rng, nodes = np.random.default_rng(0), sizes["nodes"]
    x = (rng.random((nodes, sizes["words"])) < 0.0127).astype(np.float32)
    pairs = rng.integers(0, nodes, (2, 4 * sizes["citations"]))
    pairs = np.unique(np.sort(pairs[:, pairs[0] != pairs[1]], 0), axis=1)
    pairs = rng.permutation(pairs, axis=1)[:, : sizes["citations"]]
    edges = np.concatenate([pairs, pairs[::-1]], 1).astype(np.int32)
    mask = (np.arange(nodes) < sizes["labelled"]).astype(np.float32)
    return {"x": x, "edges": edges, "y": rng.integers(0, CLASSES, nodes).astype(np.int32), "mask": mask}


def experiment(sizes: dict[str, Any], data: dict[str, np.ndarray]) -> Any:
    import optax

    import fdl

    model = fdl.models.gcn(sizes["words"], CLASSES, hidden_features=sizes["hidden"])
    inputs = ("x", {"edges": "edges"})
    task = fdl.supervised(model, fdl.losses.softmax_cross_entropy, inputs=inputs, weight="mask")
    return fdl.Experiment(task, optax.adam(sizes["rate"]), fdl.data.Full(**data), num_steps=sizes["steps"])


def ours(job: Job) -> trainers.Train:
    return trainers.fdl(job, experiment)


def spread(x: Any, edges: Any) -> Any:
    """D^-1/2 (A + I) D^-1/2 x: each node gets the sum of its neighbours and itself."""
    import jax
    import jax.numpy as jnp

    source, target = edges
    scale = jax.lax.rsqrt(1 + jnp.zeros(len(x)).at[target].add(1))[:, None]
    x = x * scale
    return (x.at[target].add(x[source])) * scale


def forward(params: Any, batch: Any) -> Any:
    import jax

    h = spread(product(batch["x"], params["layer0"]["kernel"]), batch["edges"]) + params["layer0"]["bias"]
    h = jax.nn.relu(h)
    return spread(product(h, params["head"]["kernel"]), batch["edges"]) + params["head"]["bias"]


def limit(job: Job) -> trainers.Train:
    return trainers.limit(job, forward)


def step_loop(job: Job) -> trainers.Train:
    return trainers.jax_loop(job, job.params, forward)


def linen(job: Job) -> trainers.Train:
    from flax import linen as nn

    class Convolution(nn.Module):
        features: int

        @nn.compact
        def __call__(self, x: Any, edges: Any) -> Any:
            kernel = self.param("kernel", nn.initializers.glorot_uniform(), (x.shape[-1], self.features))
            bias = self.param("bias", nn.initializers.zeros, (self.features,))
            return spread(x @ kernel, edges) + bias

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: Any, edges: Any) -> Any:
            h = nn.relu(Convolution(job.sizes["hidden"], name="layer0")(x, edges))
            return Convolution(CLASSES, name="head")(h, edges)

    return trainers.linen(job, Network(), job.params, ("x", "edges"))


def nnx(job: Job) -> trainers.Train:
    import jax
    from flax import nnx

    class Convolution(nnx.Module):
        def __init__(self, inputs: int, outputs: int, rngs: Any) -> None:
            self.kernel = nnx.Param(jax.nn.initializers.glorot_uniform()(rngs.params(), (inputs, outputs)))
            self.bias = nnx.Param(jax.numpy.zeros(outputs))

        def __call__(self, x: Any, edges: Any) -> Any:
            return spread(x @ self.kernel[...], edges) + self.bias[...]

    class Network(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.layer0 = Convolution(job.sizes["words"], job.sizes["hidden"], rngs)
            self.head = Convolution(job.sizes["hidden"], CLASSES, rngs)

        def __call__(self, x: Any, edges: Any) -> Any:
            return self.head(nnx.relu(self.layer0(x, edges)), edges)

    model = trainers.load_nnx(Network(nnx.Rngs(0)), job.params)
    return trainers.nnx(job, model, lambda model, batch: model(batch["x"], batch["edges"]))


def equinox(job: Job) -> trainers.Train:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    class Convolution(eqx.Module):
        kernel: Any
        bias: Any

        def __call__(self, x: Any, edges: Any) -> Any:
            return spread(x @ self.kernel, edges) + self.bias

    class Network(eqx.Module):
        layer0: Convolution
        head: Convolution

        def __call__(self, x: Any, edges: Any) -> Any:
            return self.head(jax.nn.relu(self.layer0(x, edges)), edges)

    parts = [[jnp.asarray(job.params[layer][leaf]) for leaf in ("kernel", "bias")] for layer in ("layer0", "head")]
    model = Network(*(Convolution(*part) for part in parts))
    return trainers.equinox(job, model, lambda model, batch: model(batch["x"], batch["edges"]))


def haiku(job: Job) -> trainers.Train:
    import haiku as hk
    import jax

    class Convolution(hk.Module):
        def __init__(self, features: int, name: str) -> None:
            super().__init__(name)
            self.features = features

        def __call__(self, x: Any, edges: Any) -> Any:
            kernel = hk.get_parameter("w", (x.shape[-1], self.features), init=hk.initializers.VarianceScaling())
            bias = hk.get_parameter("b", (self.features,), init=jax.numpy.zeros)
            return spread(x @ kernel, edges) + bias

    def network(x: Any, edges: Any) -> Any:
        h = jax.nn.relu(Convolution(job.sizes["hidden"], "layer0")(x, edges))
        return Convolution(CLASSES, "head")(h, edges)

    model = hk.without_apply_rng(hk.transform(network))
    return trainers.haiku(job, model, trainers.haiku_params(job.params), ("x", "edges"))


def keras(job: Job) -> trainers.Train:
    """A layer of one's own, of which the edges are a part."""
    import keras

    edges = job.data["edges"]

    class Convolution(keras.layers.Layer):
        def __init__(self, features: int, activation: str | None = None) -> None:
            super().__init__()
            self.features, self.activation = features, keras.activations.get(activation)

        def build(self, input_shape: Any) -> None:
            self.kernel = self.add_weight(shape=(input_shape[-1], self.features), initializer="glorot_uniform")
            self.bias = self.add_weight(shape=(self.features,), initializer="zeros")

        def call(self, x: Any) -> Any:
            return self.activation(spread(x @ self.kernel, edges) + self.bias)

    layers = {"layer0": Convolution(job.sizes["hidden"], "relu"), "head": Convolution(CLASSES)}
    inputs = keras.Input((job.sizes["words"],), batch_size=job.sizes["nodes"])
    model = keras.Sequential([inputs, *layers.values()])
    for name, layer in layers.items():
        layer.set_weights([job.params[name]["kernel"], job.params[name]["bias"]])
    return trainers.keras(job, model)


def torch(job: Job, compile: bool = False) -> trainers.Train:
    """The normalised matrix of citations is made once, sparse, as PyTorch's examples do."""
    import torch
    from torch import nn

    source, target = (torch.from_numpy(row).long() for row in job.data["edges"])
    nodes, own = job.sizes["nodes"], torch.arange(job.sizes["nodes"])
    degree = (1 + torch.bincount(target, minlength=nodes)).float().rsqrt()
    rows, columns = torch.cat([target, own]), torch.cat([source, own])
    values = degree[rows] * degree[columns]
    with warnings.catch_warnings(action="ignore"):  # that sparse matrices are in beta
        matrix = torch.sparse_coo_tensor(torch.stack([rows, columns]), values, (nodes, nodes)).to_sparse_csr()

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer0 = nn.Linear(job.sizes["words"], job.sizes["hidden"])
            self.head = nn.Linear(job.sizes["hidden"], CLASSES)

        def forward(self, x: Any) -> Any:
            h = (matrix @ (x @ self.layer0.weight.T) + self.layer0.bias).relu()
            return matrix @ (h @ self.head.weight.T) + self.head.bias

    return trainers.torch(job, trainers.load_torch(Network(), job.params), compile=compile)
