"""W5, second part: the GPT of characters continues a text by 256 characters, each the most probable, with a cache.

The attention of Flax has a cache of its own; that of Equinox, Haiku and Keras has none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from experiments.benchmarks import trainers
from experiments.benchmarks.job import Job
from experiments.benchmarks.workloads import gpt

SIZES = gpt.SIZES | {"steps": 1, "tokens": 256, "length": 257, "examples": 12, "exact": True}
SMOKE = {"tokens": 8, "length": 9, "layers": 1, "features": 16}

data = gpt.data


def experiment(sizes: dict[str, Any], data: dict[str, np.ndarray]) -> Any:
    """Blocks with weights ten times as large as at first, or the text would repeat one character."""
    import jax

    made = gpt.experiment(sizes, data)

    def init(key: Any) -> Any:
        params, state = made.task.init(key)
        return params | {"blocks": jax.tree.map(lambda leaf: 10 * leaf, params["blocks"])}, state

    return dataclasses.replace(made, task=dataclasses.replace(made.task, init=init))


def ours(job: Job) -> trainers.Train:
    import jax

    import fdl

    sizes = job.sizes
    shape = {"num_layers": sizes["layers"], "num_heads": sizes["heads"], "features": sizes["features"]}
    model = fdl.models.gpt2(sizes["vocabulary"], sizes["length"], **shape)
    params, prompt = jax.device_put((job.params, job.data["x"][:1, :1]))

    def write() -> np.ndarray:
        return np.asarray(fdl.models.generate(model, params, prompt, sizes["tokens"])[0])

    write()
    return write


def decode(params: Any, token: Any, cache: Any, index: Any) -> Any:
    """Logits of the position after `token`, which is the one at `index`, and the cache [layers, 2, T, H, K]."""
    import jax
    import jax.numpy as jnp

    def norm(x: Any, params: Any) -> Any:
        mean = x.mean()
        return (x - mean) * jax.lax.rsqrt(jnp.square(x - mean).mean() + gpt.EPS) * params["scale"] + params["bias"]

    def attend(x: Any, params: Any, cache: Any) -> Any:
        q, k, v = (
            jnp.einsum("d,dhk->hk", x, params[n]["kernel"]) + params[n]["bias"] for n in ("query", "key", "value")
        )
        cache = cache.at[:, index].set(jnp.stack([k, v]))
        scores = jnp.einsum("hk,shk->hs", q, cache[0]) * q.shape[-1] ** -0.5
        weights = jax.nn.softmax(jnp.where(jnp.arange(cache.shape[1]) <= index, scores, -jnp.inf))
        y = jnp.einsum("hs,shk->hk", weights, cache[1])
        return jnp.einsum("hk,hkd->d", y, params["out"]["kernel"]) + params["out"]["bias"], cache

    x, caches = params["embedding"]["embedding"][token] + params["positions"]["embedding"][index], []
    for i in range(len(params["blocks"])):
        block = params["blocks"][str(i)]
        y, kept = attend(norm(x, block["attention_norm"]), block["attention"], cache[i])
        x, caches = x + y, [*caches, kept]
        up, down = block["feed_forward"]["up"], block["feed_forward"]["down"]
        h = jax.nn.gelu(norm(x, block["feed_forward_norm"]) @ up["kernel"] + up["bias"])
        x = x + h @ down["kernel"] + down["bias"]
    return norm(x, params["norm"]) @ params["embedding"]["embedding"].T, caches


def _empty(job: Job) -> Any:
    import jax.numpy as jnp

    heads = job.sizes["heads"]
    shape = (2, job.sizes["length"], heads, job.sizes["features"] // heads)
    return [jnp.zeros(shape) for _ in range(job.sizes["layers"])]


def limit(job: Job) -> trainers.Train:
    """One program: a scan over the positions."""
    import jax
    from jax import lax

    def write(params: Any, first: Any) -> Any:
        def step(carry: Any, i: Any) -> Any:
            token, cache = carry
            logits, cache = decode(params, token, cache, i)
            token = logits.argmax().astype(first.dtype)
            return (token, cache), token

        return lax.scan(step, (first, _empty(job)), np.arange(job.sizes["tokens"]))[1]

    inputs = jax.device_put((job.params, job.data["x"][0, 0]))
    program = jax.jit(write).lower(*inputs).compile()
    return lambda: np.asarray(program(*inputs))


def step_loop(job: Job) -> trainers.Train:
    """A program for one character, called from Python."""
    import jax

    def step(params: Any, token: Any, cache: Any, i: Any) -> Any:
        logits, cache = decode(params, token, cache, i)
        return logits.argmax().astype(token.dtype), cache

    step = partial(jax.jit(step, donate_argnums=2), jax.device_put(job.params))
    return _called(job, step, lambda: _empty(job))


def _called(job: Job, step: Callable[[Any, Any, Any], Any], empty: Callable[[], Any]) -> trainers.Train:
    """The loop in Python: `step(token, cache, index)` gives the next token and the cache, `empty()` the first cache."""
    import jax

    first = jax.device_put(job.data["x"][0, 0])

    def write(count: int = job.sizes["tokens"]) -> np.ndarray:
        token, cache, tokens = first, empty(), []
        for i in range(count):
            token, cache = step(token, cache, i)
            tokens.append(token)
        return np.array(jax.device_get(tokens))

    write(1)
    return write


def linen(job: Job) -> trainers.Train:
    import jax
    import jax.numpy as jnp

    model, params = gpt.linen_model(job, decode=True)
    cache = model.init(jax.random.key(0), job.data["x"][:1])["cache"]  # of as many positions as there are in x

    def step(params: Any, token: Any, cache: Any, i: Any) -> Any:
        logits, changed = model.apply({"params": params, "cache": cache}, token[None, None], i, mutable="cache")
        return logits.argmax().astype(token.dtype), changed["cache"]

    step = partial(jax.jit(step, donate_argnums=2), jax.device_put(params))
    return _called(job, step, lambda: jax.tree.map(jnp.copy, cache))


def nnx(job: Job) -> trainers.Train:
    """The cache is a part of the model, which the step changes in place."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    model = gpt.nnx_model(job, decode=True)
    for block in model.blocks:
        block.attention.init_cache((1, job.sizes["length"], job.sizes["features"]))
    empty = jax.tree.map(jnp.copy, nnx.state(model, nnx.Cache))

    @nnx.jit
    def step(model: Any, token: Any, i: Any) -> Any:
        return model(token[None, None], i).argmax().astype(token.dtype)

    cached = nnx.cached_partial(step, model)
    begin = lambda: nnx.update(model, jax.tree.map(jnp.copy, empty))  # noqa: E731
    return _called(job, lambda token, _, i: (cached(token, i), None), begin)


def torch(job: Job, compile: bool = False) -> trainers.Train:
    """The network of W5 with a cache, by hand."""
    import torch
    from torch.nn import functional

    sizes, params = job.sizes, torch_params(gpt.flat(job.params))
    heads, layers = sizes["heads"], range(sizes["layers"])

    def norm(x: Any, leaves: Any) -> Any:
        return functional.layer_norm(x, x.shape, leaves["scale"], leaves["bias"], gpt.EPS)

    def linear(x: Any, leaves: Any) -> Any:
        return functional.linear(x, leaves["kernel"], leaves["bias"])

    def decode(token: Any, keys: Any, values: Any, i: int) -> Any:
        x = params["embedding"]["embedding"][token] + params["positions"]["embedding"][i]
        for layer in layers:
            block = params["blocks"][str(layer)]
            q, keys[layer][:, i], values[layer][:, i] = (
                linear(norm(x, block["attention_norm"]), block["attention"][name]).unflatten(-1, (heads, -1))
                for name in ("query", "key", "value")
            )
            past = keys[layer][None, :, : i + 1], values[layer][None, :, : i + 1]
            y = functional.scaled_dot_product_attention(q[None, :, None], *past)
            x = x + linear(y.flatten(), block["attention"]["out"])
            h = linear(norm(x, block["feed_forward_norm"]), block["feed_forward"]["up"])
            x = x + linear(functional.gelu(h, approximate="tanh"), block["feed_forward"]["down"])
        return norm(x, params["norm"]) @ params["embedding"]["embedding"].T

    def write(count: int = sizes["tokens"]) -> np.ndarray:
        shape = (heads, sizes["length"], sizes["features"] // heads)
        keys, values = ([torch.zeros(shape) for _ in layers] for _ in range(2))
        token, tokens = torch.tensor(int(job.data["x"][0, 0])), []
        with torch.inference_mode():
            for i in range(count):
                token = decode(token, keys, values, i).argmax()
                tokens.append(token)
        return torch.stack(tokens).numpy()

    decode = torch.compile(decode, dynamic=True) if compile else decode
    write(2)
    return write


def torch_params(tree: Any) -> Any:
    """Tensors, and kernels as PyTorch has them."""
    import torch

    if isinstance(tree, dict):
        return {name: torch_params(branch.T.copy() if name == "kernel" else branch) for name, branch in tree.items()}
    return torch.from_numpy(np.ascontiguousarray(tree))
