"""W5: a GPT of characters: 4 layers of 128 features and 4 heads, contexts of 64, batches of 12."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.benchmarks import trainers
from experiments.benchmarks.by_hand import layer_norm, product
from experiments.benchmarks.job import Job
from experiments.benchmarks.workloads.texts import markov

SIZES = {
    **{"steps": 100, "examples": 1_200, "batch": 12, "length": 64, "vocabulary": 65},
    **{"layers": 4, "heads": 4, "features": 128, "rate": 1e-3, "optimizer": "adam", "loss": "cross_entropy"},
}
SMOKE = {"steps": 3, "examples": 24, "batch": 4, "length": 8, "layers": 1, "features": 16}
EPS = 1e-5  # of the norms

data = markov


def experiment(sizes: dict[str, Any], data: dict[str, np.ndarray]) -> Any:
    import optax

    import fdl

    shape = {"num_layers": sizes["layers"], "num_heads": sizes["heads"], "features": sizes["features"]}
    model = fdl.models.gpt2(sizes["vocabulary"], sizes["length"], **shape)
    task = fdl.supervised(model, fdl.losses.softmax_cross_entropy)
    options = {"batch_size": sizes["batch"], "num_steps": sizes["steps"]}
    options |= {"precision": sizes.get("precision")}
    return fdl.Experiment(task, optax.adam(sizes["rate"]), fdl.data.Arrays(**data), **options)


def ours(job: Job) -> trainers.Train:
    return trainers.fdl(job, experiment)


def forward(params: Any, batch: Any, attention: Any = None) -> Any:
    """Blocks written out; `attention` of queries, keys and values [B, T, H, K] is `scores` unless given."""
    import jax

    def heads(x: Any, params: Any) -> Any:
        y = product(x, params["kernel"].reshape(x.shape[-1], -1)).reshape(*x.shape[:2], *params["bias"].shape)
        return y + params["bias"]

    def attend(x: Any, params: Any) -> Any:
        y = (attention or scores)(*(heads(x, params[name]) for name in ("query", "key", "value")))
        return product(y.reshape(x.shape), params["out"]["kernel"].reshape(-1, x.shape[-1])) + params["out"]["bias"]

    def feed(x: Any, params: Any) -> Any:
        h = jax.nn.gelu(product(x, params["up"]["kernel"]) + params["up"]["bias"])
        return product(h, params["down"]["kernel"]) + params["down"]["bias"]

    x = params["embedding"]["embedding"][batch["x"]] + params["positions"]["embedding"]
    for i in range(len(params["blocks"])):
        block = params["blocks"][str(i)]
        x = x + attend(layer_norm(x, block["attention_norm"], EPS), block["attention"])
        x = x + feed(layer_norm(x, block["feed_forward_norm"], EPS), block["feed_forward"])
    return product(layer_norm(x, params["norm"], EPS), params["embedding"]["embedding"].T)


def scores(q: Any, k: Any, v: Any) -> Any:
    """Causal attention with its weights as one array."""
    import jax
    import jax.numpy as jnp

    q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
    s = jnp.einsum("bhtk,bhsk->bhts", q, k) * q.shape[-1] ** -0.5
    weights = jax.nn.softmax(jnp.where(jnp.tril(jnp.ones(s.shape[2:], bool)), s, -jnp.inf))
    return jnp.einsum("bhts,bhsk->bthk", weights, v)


def limit(job: Job) -> trainers.Train:
    return trainers.limit(job, forward)


def step_loop(job: Job) -> trainers.Train:
    return trainers.jax_loop(job, job.params, forward)


def linen(job: Job) -> trainers.Train:
    return trainers.linen(job, *linen_model(job))


def linen_model(job: Job, decode: bool = False) -> tuple[Any, Any]:
    """A module and its parameters; with `decode` it takes one character at a time, and has a cache."""
    from flax import linen as nn

    sizes = job.sizes

    class FeedForward(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            return nn.Dense(sizes["features"], name="down")(nn.gelu(nn.Dense(4 * sizes["features"], name="up")(x)))

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x: Any) -> Any:
            attention = nn.MultiHeadDotProductAttention(sizes["heads"], decode=decode, name="attention")
            h = nn.LayerNorm(EPS, name="attention_norm")(x)
            x = x + attention(h, mask=None if decode else nn.make_causal_mask(h[..., 0]))
            return x + FeedForward(name="feed_forward")(nn.LayerNorm(EPS, name="feed_forward_norm")(x))

    class Network(nn.Module):
        @nn.compact
        def __call__(self, x: Any, first: Any = 0) -> Any:
            embedding = nn.Embed(sizes["vocabulary"], sizes["features"], name="embedding")
            positions = nn.Embed(sizes["length"], sizes["features"], name="positions")
            h = embedding(x) + positions(first + np.arange(x.shape[1]))
            for i in range(sizes["layers"]):
                h = Block(name=f"block{i}")(h)
            return embedding.attend(nn.LayerNorm(EPS, name="norm")(h))

    blocks = {f"block{i}": block for i, block in job.params["blocks"].items()}
    params = {name: part for name, part in job.params.items() if name != "blocks"} | blocks
    return Network(), params


def nnx(job: Job) -> trainers.Train:
    return trainers.nnx(job, nnx_model(job), lambda model, batch: model(batch["x"]))


def nnx_model(job: Job, decode: bool = False) -> Any:
    """The same for Flax NNX, whose modules hold their parameters."""
    from flax import nnx

    sizes = job.sizes

    class FeedForward(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.up = nnx.Linear(sizes["features"], 4 * sizes["features"], rngs=rngs)
            self.down = nnx.Linear(4 * sizes["features"], sizes["features"], rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.down(nnx.gelu(self.up(x)))

    class Block(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.attention = nnx.MultiHeadAttention(sizes["heads"], sizes["features"], decode=decode, rngs=rngs)
            self.attention_norm = nnx.LayerNorm(sizes["features"], epsilon=EPS, rngs=rngs)
            self.feed_forward = FeedForward(rngs)
            self.feed_forward_norm = nnx.LayerNorm(sizes["features"], epsilon=EPS, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            h = self.attention_norm(x)
            x = x + self.attention(h, mask=None if decode else nnx.make_causal_mask(h[..., 0]))
            return x + self.feed_forward(self.feed_forward_norm(x))

    class Network(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.embedding = nnx.Embed(sizes["vocabulary"], sizes["features"], rngs=rngs)
            self.positions = nnx.Embed(sizes["length"], sizes["features"], rngs=rngs)
            self.blocks = nnx.List([Block(rngs) for _ in range(sizes["layers"])])
            self.norm = nnx.LayerNorm(sizes["features"], epsilon=EPS, rngs=rngs)

        def __call__(self, x: Any, first: Any = 0) -> Any:
            h = self.embedding(x) + self.positions(first + np.arange(x.shape[1]))
            for block in self.blocks:
                h = block(h)
            return self.embedding.attend(self.norm(h))

    return trainers.load_nnx(Network(nnx.Rngs(0)), job.params)


def equinox(job: Job) -> trainers.Train:
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    sizes, key = job.sizes, jax.random.key(0)
    width = sizes["features"]

    class FeedForward(eqx.Module):
        up: eqx.nn.Linear
        down: eqx.nn.Linear

        def __call__(self, x: Any) -> Any:
            return self.down(jax.nn.gelu(self.up(x)))

    class Block(eqx.Module):
        attention: eqx.nn.MultiheadAttention
        attention_norm: eqx.nn.LayerNorm
        feed_forward: FeedForward
        feed_forward_norm: eqx.nn.LayerNorm

        def __call__(self, x: Any) -> Any:
            h = jax.vmap(self.attention_norm)(x)
            x = x + self.attention(h, h, h, mask=jnp.tril(jnp.ones((len(x), len(x)), bool)))
            return x + jax.vmap(lambda x: self.feed_forward(self.feed_forward_norm(x)))(x)

    class Network(eqx.Module):
        embedding: eqx.nn.Embedding
        positions: eqx.nn.Embedding
        blocks: list[Block]
        norm: eqx.nn.LayerNorm

        def __call__(self, x: Any) -> Any:
            h = jax.vmap(self.embedding)(x) + self.positions.weight
            for block in self.blocks:
                h = block(h)
            return jax.vmap(self.norm)(h) @ self.embedding.weight.T

    def block() -> Block:
        biases = {f"use_{name}_bias": True for name in ("query", "key", "value", "output")}
        attention = eqx.nn.MultiheadAttention(sizes["heads"], width, **biases, key=key)
        feed = FeedForward(eqx.nn.Linear(width, 4 * width, key=key), eqx.nn.Linear(4 * width, width, key=key))
        return Block(attention, eqx.nn.LayerNorm(width, EPS), feed, eqx.nn.LayerNorm(width, EPS))

    embedding = eqx.nn.Embedding(sizes["vocabulary"], width, key=key)
    positions = eqx.nn.Embedding(sizes["length"], width, key=key)
    model = Network(embedding, positions, [block() for _ in range(sizes["layers"])], eqx.nn.LayerNorm(width, EPS))
    names = {"query": "query_proj", "key": "key_proj", "value": "value_proj", "out": "output_proj"}
    model = trainers.load_equinox(model, flat(job.params, **names))
    return trainers.equinox(job, model, lambda model, batch: jax.vmap(model)(batch["x"]))


def haiku(job: Job) -> trainers.Train:
    import haiku as hk
    import jax
    import jax.numpy as jnp

    sizes = job.sizes
    width = sizes["features"]

    def norm(name: str, x: Any) -> Any:
        return hk.LayerNorm(-1, True, True, EPS, name=name)(x)

    def block(name: str, x: Any) -> Any:
        mask = jnp.tril(jnp.ones((1, 1, x.shape[1], x.shape[1]), bool))
        h = norm(f"{name}_attention_norm", x)
        init = hk.initializers.RandomNormal(0.02)
        attention = hk.MultiHeadAttention(
            sizes["heads"], width // sizes["heads"], w_init=init, name=f"{name}_attention"
        )
        x = x + attention(h, h, h, mask=mask)
        h = jax.nn.gelu(hk.Linear(4 * width, name=f"{name}_up")(norm(f"{name}_feed_forward_norm", x)))
        return x + hk.Linear(width, name=f"{name}_down")(h)

    def network(x: Any) -> Any:
        embedding = hk.Embed(sizes["vocabulary"], width, name="embedding")
        h = embedding(x) + hk.Embed(sizes["length"], width, name="positions")(np.arange(sizes["length"]))
        for i in range(sizes["layers"]):
            h = block(f"block{i}", h)
        return norm("norm", h) @ embedding.embeddings.T

    params = flat(job.params, out="linear")
    for i, parts in params.pop("blocks").items():
        params |= {f"block{i}_{name}": part for name, part in (parts | parts.pop("feed_forward")).items()}
    loaded = trainers.haiku_params(params)
    for leaves in loaded.values():
        if "scale" in leaves:  # of a norm, whose bias is called offset
            leaves["offset"] = leaves.pop("b")
    model = hk.without_apply_rng(hk.transform(network))
    return trainers.haiku(job, model, loaded)


def keras(job: Job) -> trainers.Train:
    import keras
    from keras import layers, ops

    sizes, params = job.sizes, job.params
    width, heads = sizes["features"], sizes["heads"]

    class Block(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.attention = layers.MultiHeadAttention(heads, width // heads)
            self.attention_norm = layers.LayerNormalization(epsilon=EPS)
            self.up = layers.Dense(4 * width, activation=lambda x: keras.activations.gelu(x, approximate=True))
            self.down = layers.Dense(width)
            self.feed_forward_norm = layers.LayerNormalization(epsilon=EPS)

        def call(self, x: Any) -> Any:
            h = self.attention_norm(x)
            x = x + self.attention(h, h, use_causal_mask=True)
            return x + self.down(self.up(self.feed_forward_norm(x)))

    class Network(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = layers.Embedding(sizes["vocabulary"], width)
            self.positions = layers.Embedding(sizes["length"], width)
            self.blocks = [Block() for _ in range(sizes["layers"])]
            self.norm = layers.LayerNormalization(epsilon=EPS)

        def call(self, x: Any) -> Any:
            h = self.embedding(x) + self.positions(ops.arange(sizes["length"]))
            for block in self.blocks:
                h = block(h)
            return ops.matmul(self.norm(h), ops.transpose(self.embedding.embeddings))

    model = Network()
    model(job.data["x"][:1])  # its weights exist from the first call on

    def place(layer: Any, *parts: Any) -> None:
        layer.set_weights([leaf for part in parts for leaf in part])

    for layer, name in ((model.embedding, "embedding"), (model.positions, "positions")):
        place(layer, [params[name]["embedding"]])
    place(model.norm, _affine(params["norm"]))
    for i, block in enumerate(model.blocks):
        mine = params["blocks"][str(i)]
        place(block.attention, *(_affine(mine["attention"][name]) for name in ("query", "key", "value", "out")))
        place(block.attention_norm, _affine(mine["attention_norm"]))
        place(block.feed_forward_norm, _affine(mine["feed_forward_norm"]))
        for layer, name in ((block.up, "up"), (block.down, "down")):
            place(layer, _affine(mine["feed_forward"][name]))
    return trainers.keras(job, model)


def torch(job: Job, compile: bool = False) -> trainers.Train:
    """As nanoGPT has it: one product for query, key and value, and PyTorch's own attention."""
    from torch import nn
    from torch.nn import functional

    sizes = job.sizes
    width, heads = sizes["features"], sizes["heads"]

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

        def forward(self, x: Any) -> Any:
            q, k, v = (a.unflatten(-1, (heads, -1)).transpose(1, 2) for a in self.qkv(x).chunk(3, -1))
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.out(y.transpose(1, 2).flatten(2))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.attention_norm = Attention(), nn.LayerNorm(width, EPS)
            up, down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
            self.feed_forward = nn.ModuleDict({"up": up, "down": down})
            self.feed_forward_norm = nn.LayerNorm(width, EPS)

        def forward(self, x: Any) -> Any:
            x = x + self.attention(self.attention_norm(x))
            h = functional.gelu(self.feed_forward["up"](self.feed_forward_norm(x)), approximate="tanh")
            return x + self.feed_forward["down"](h)

    class Network(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(sizes["vocabulary"], width)
            self.positions = nn.Embedding(sizes["length"], width)
            self.blocks = nn.Sequential(*(Block() for _ in range(sizes["layers"])))
            self.norm = nn.LayerNorm(width, EPS)

        def forward(self, x: Any) -> Any:
            h = self.blocks(self.embedding(x) + self.positions.weight)
            return self.norm(h) @ self.embedding.weight.T

    params = flat(job.params)
    for block in params["blocks"].values():
        parts = [block["attention"].pop(name) for name in ("query", "key", "value")]
        block["attention"]["qkv"] = {leaf: np.concatenate([part[leaf] for part in parts], -1) for leaf in parts[0]}
    return trainers.torch(job, trainers.load_torch(Network(), params), compile=compile)


def flat(params: dict[str, Any], **names: str) -> dict[str, Any]:
    """The parameters with attention's kernels as matrices, for libraries that have no axis for the heads."""
    blocks = {}
    for i, block in params["blocks"].items():
        attention: dict[str, Any] = {}
        for name, leaves in block["attention"].items():
            width = params["embedding"]["embedding"].shape[1]
            matrix = {"kernel": leaves["kernel"].reshape(width, width), "bias": leaves["bias"].ravel()}
            attention[names.get(name) or name] = matrix
        blocks[i] = block | {"attention": attention}
    return params | {"blocks": blocks}


def _affine(leaves: dict[str, Any]) -> list[np.ndarray]:
    return [leaves["kernel"] if "kernel" in leaves else leaves["scale"], leaves["bias"]]
