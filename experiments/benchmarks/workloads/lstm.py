"""W4: a language model of one LSTM with 256 units, 96 tokens, sequences of 64, batches of 32."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.benchmarks import trainers
from experiments.benchmarks.by_hand import product
from experiments.benchmarks.job import Job
from experiments.benchmarks.workloads.texts import markov

SIZES = {
    **{"steps": 100, "examples": 3_200, "batch": 32, "length": 64, "hidden": 256, "vocabulary": 96},
    **{"rate": 1e-3, "optimizer": "adam", "loss": "cross_entropy"},
}
SMOKE = {"steps": 3, "examples": 32, "batch": 8, "length": 8, "hidden": 16}


data = markov


def experiment(sizes: dict[str, Any], data: dict[str, np.ndarray]) -> Any:
    import optax

    import fdl
    from fdl import nn

    embedding = nn.Embedding(sizes["vocabulary"], sizes["hidden"])
    head = nn.Linear(sizes["hidden"], sizes["vocabulary"])
    model = nn.Serial(embedding=embedding, lstm=nn.LSTM(sizes["hidden"], sizes["hidden"]), head=head)
    task = fdl.supervised(model, fdl.losses.softmax_cross_entropy)
    options = {"batch_size": sizes["batch"], "num_steps": sizes["steps"]}
    return fdl.Experiment(task, optax.adam(sizes["rate"]), fdl.data.Arrays(**data), **options)


def ours(job: Job) -> trainers.Train:
    return trainers.fdl(job, experiment)


def limit(job: Job) -> trainers.Train:
    """The input's product before the loop, the recurrent kernel's gradient one product after it; gates are kept."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    def forwards(projected: Any, recurrent: Any) -> Any:
        """[T, B, 4 H] -> all h, and what the derivative needs."""

        def step(carry: Any, now: Any) -> Any:
            h, c = carry
            i, f, g, o = jnp.split(now + h @ recurrent, 4, -1)
            i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
            new = f * c + i * g
            shown = jnp.tanh(new)
            return (o * shown, new), (h, c, i, f, g, o, shown)

        start = jnp.zeros((projected.shape[1], recurrent.shape[0]))
        (last, _), saved = lax.scan(step, (start, start), projected)
        return jnp.concatenate([saved[0][1:], last[None]]), (saved, recurrent)

    @jax.custom_vjp
    def unroll(projected: Any, recurrent: Any) -> Any:
        return forwards(projected, recurrent)[0]

    def backwards(kept: Any, dy: Any) -> Any:
        saved, recurrent = kept

        def step(carry: Any, now: Any) -> Any:
            dh, dc = carry
            dy, (_, c, i, f, g, o, shown) = now
            dh = dh + dy
            dc = dc + dh * o * (1 - shown * shown)
            parts = dc * g * i * (1 - i), dc * c * f * (1 - f), dc * i * (1 - g * g), dh * shown * o * (1 - o)
            dgates = jnp.concatenate(parts, -1)
            return (dgates @ recurrent.T, dc * f), dgates

        zero = jnp.zeros_like(dy[0])
        _, dgates = lax.scan(step, (zero, zero), (dy, saved), reverse=True)
        return dgates, saved[0].reshape(-1, dy.shape[-1]).T @ dgates.reshape(-1, dgates.shape[-1])

    unroll.defvjp(forwards, backwards)

    def forward(params: Any, batch: Any) -> Any:
        x = params["embedding"]["embedding"][batch["x"].T]
        projected = product(x, params["lstm"]["input"]["kernel"]) + params["lstm"]["input"]["bias"]
        h = unroll(projected, params["lstm"]["recurrent"]["kernel"]).swapaxes(0, 1)
        return product(h, params["head"]["kernel"]) + params["head"]["bias"]

    return trainers.limit(job, forward)


def step_loop(job: Job) -> trainers.Train:
    """The cell as in a textbook, in a scan over time."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    def forward(params: Any, batch: Any) -> Any:
        weights = params["lstm"]

        def step(carry: Any, x: Any) -> Any:
            h, c = carry
            gates = x @ weights["input"]["kernel"] + weights["input"]["bias"] + h @ weights["recurrent"]["kernel"]
            i, f, g, o = jnp.split(gates, 4, -1)
            c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
            h = jax.nn.sigmoid(o) * jnp.tanh(c)
            return (h, c), h

        x = params["embedding"]["embedding"][batch["x"]].swapaxes(0, 1)
        start = jnp.zeros((x.shape[1], job.sizes["hidden"]))
        _, h = lax.scan(step, (start, start), x)
        return h.swapaxes(0, 1) @ params["head"]["kernel"] + params["head"]["bias"]

    return trainers.jax_loop(job, job.params, forward)


def linen(job: Job) -> trainers.Train:
    from flax import linen as nn

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            x = nn.Embed(job.sizes["vocabulary"], job.sizes["hidden"], name="embedding")(x)
            cell = nn.OptimizedLSTMCell(job.sizes["hidden"], name="lstm")
            return nn.Dense(job.sizes["vocabulary"], name="head")(nn.RNN(cell)(x))

    inputs, recurrent = job.params["lstm"]["input"], job.params["lstm"]["recurrent"]
    gates: dict[str, Any] = {}
    for i, gate in enumerate("ifgo"):
        part = slice(i * job.sizes["hidden"], (i + 1) * job.sizes["hidden"])
        gates[f"i{gate}"] = {"kernel": inputs["kernel"][:, part]}
        gates[f"h{gate}"] = {"kernel": recurrent["kernel"][:, part], "bias": inputs["bias"][part]}
    model = Network()
    params = job.params | {"lstm": gates}
    return trainers.linen(job, model, params)


def nnx(job: Job) -> trainers.Train:
    from flax import nnx

    sizes = job.sizes

    class Network(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.embedding = nnx.Embed(sizes["vocabulary"], sizes["hidden"], rngs=rngs)
            self.lstm = nnx.RNN(nnx.OptimizedLSTMCell(sizes["hidden"], sizes["hidden"], rngs=rngs), rngs=rngs)
            self.head = nnx.Linear(sizes["hidden"], sizes["vocabulary"], rngs=rngs)

        def __call__(self, x: Any) -> Any:
            y: Any = self.lstm(self.embedding(x))
            return self.head(y)

    inputs, recurrent = job.params["lstm"]["input"], job.params["lstm"]["recurrent"]
    cell = {"dense_i": {"kernel": inputs["kernel"]}, "dense_h": recurrent | {"bias": inputs["bias"]}}
    model = trainers.load_nnx(Network(nnx.Rngs(0)), job.params | {"lstm": {"cell": cell}})
    return trainers.nnx(job, model, lambda model, batch: model(batch["x"]))


def equinox(job: Job) -> trainers.Train:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    sizes, key = job.sizes, jax.random.key(0)

    class Network(eqx.Module):
        embedding: eqx.nn.Embedding
        lstm: eqx.nn.LSTMCell
        head: eqx.nn.Linear

        def __call__(self, x: Any) -> Any:
            def step(carry: Any, x: Any) -> Any:
                carry = self.lstm(x, carry)
                return carry, carry[0]

            start = jnp.zeros(sizes["hidden"])
            _, h = jax.lax.scan(step, (start, start), jax.vmap(self.embedding)(x))
            return jax.vmap(self.head)(h)

    embedding = eqx.nn.Embedding(sizes["vocabulary"], sizes["hidden"], key=key)
    cell = eqx.nn.LSTMCell(sizes["hidden"], sizes["hidden"], key=key)
    model = Network(embedding, cell, eqx.nn.Linear(sizes["hidden"], sizes["vocabulary"], key=key))
    inputs, recurrent = job.params["lstm"]["input"], job.params["lstm"]["recurrent"]
    model = trainers.load_equinox(model, {name: job.params[name] for name in ("embedding", "head")})
    weights = [jnp.asarray(w) for w in (inputs["kernel"].T, recurrent["kernel"].T, inputs["bias"])]
    model = eqx.tree_at(lambda m: (m.lstm.weight_ih, m.lstm.weight_hh, m.lstm.bias), model, weights)
    return trainers.equinox(job, model, lambda model, batch: jax.vmap(model)(batch["x"]))


def haiku(job: Job) -> trainers.Train:
    import haiku as hk

    def network(x: Any) -> Any:
        x = hk.Embed(job.sizes["vocabulary"], job.sizes["hidden"], name="embedding")(x)
        lstm = hk.LSTM(job.sizes["hidden"], name="lstm")
        h, _ = hk.dynamic_unroll(lstm, x, lstm.initial_state(len(x)), time_major=False)
        return hk.Linear(job.sizes["vocabulary"], name="head")(h)

    inputs, recurrent = job.params["lstm"]["input"], job.params["lstm"]["recurrent"]
    kernel = np.concatenate([inputs["kernel"], recurrent["kernel"]])
    bias = inputs["bias"] - np.repeat([0.0, 1.0, 0.0, 0.0], job.sizes["hidden"])  # its forget gate adds 1 by itself
    (i, f, g, o), (bi, bf, bg, bo) = np.split(kernel, 4, -1), np.split(bias.astype(np.float32), 4)
    linear = {"kernel": np.concatenate([i, g, f, o], -1), "bias": np.concatenate([bi, bg, bf, bo])}
    params = trainers.haiku_params(job.params | {"lstm": {"linear": linear}})
    model = hk.without_apply_rng(hk.transform(network))
    return trainers.haiku(job, model, params)


def keras(job: Job) -> trainers.Train:
    import keras
    from keras import layers

    sizes, params = job.sizes, job.params
    embedding = layers.Embedding(sizes["vocabulary"], sizes["hidden"])
    lstm, head = layers.LSTM(sizes["hidden"], return_sequences=True), layers.Dense(sizes["vocabulary"])
    model = keras.Sequential([keras.Input((sizes["length"],), dtype="int32"), embedding, lstm, head])
    embedding.set_weights([params["embedding"]["embedding"]])
    inputs, recurrent = params["lstm"]["input"], params["lstm"]["recurrent"]
    lstm.set_weights([inputs["kernel"], recurrent["kernel"], inputs["bias"]])
    head.set_weights([params["head"]["kernel"], params["head"]["bias"]])
    return trainers.keras(job, model)


def torch(job: Job, compile: bool = False) -> trainers.Train:
    """`nn.LSTM` has two biases; one of them stays 0, or Adam would take two steps."""
    import torch
    from torch import nn

    sizes = job.sizes

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(sizes["vocabulary"], sizes["hidden"])
            self.lstm = nn.LSTM(sizes["hidden"], sizes["hidden"], batch_first=True)
            self.head = nn.Linear(sizes["hidden"], sizes["vocabulary"])

        def forward(self, x: Any) -> Any:
            return self.head(self.lstm(self.embedding(x))[0])

    model, inputs = Network(), job.params["lstm"]["input"]
    trainers.load_torch(model, {name: job.params[name] for name in ("embedding", "head")})
    recurrent = job.params["lstm"]["recurrent"]["kernel"]
    lstm: Any = model.lstm
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(torch.from_numpy(inputs["kernel"].T))
        lstm.weight_hh_l0.copy_(torch.from_numpy(recurrent.T))
        lstm.bias_ih_l0.copy_(torch.from_numpy(inputs["bias"]))
        lstm.bias_hh_l0.zero_()
    lstm.bias_hh_l0.requires_grad_(False)
    return trainers.torch(job, model, compile=compile)
