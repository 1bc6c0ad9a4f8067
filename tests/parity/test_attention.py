"""Attention and embeddings against PyTorch and Flax Linen: forward and gradients, weights copied over.

Every gradient is that of the sum of y * weight for one fixed random weight. Tolerance: 1e-5, relative to the largest
number of each array, for sums in another order.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.initializers import Normal
from fdl.nn.attention import Attention
from fdl.nn.embedding import Embedding
from fdl.ops.attention import dot_product_attention
from tests.compiling import QUICK

B, T, S, D, H = 3, 5, 7, 16, 4
K = D // H


def floats(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ints(below: int) -> Any:
    return np.random.default_rng(3).integers(below, size=(B, T))


X, CONTEXT, WEIGHT = floats(0, B, T, D), floats(1, B, S, D), floats(2, B, T, D)
LENGTHS = np.arange(S) < np.array([7, 4, 1])[:, None]
PADDING = LENGTHS[:, :T] | (np.arange(T) == 0)  # over the keys of X itself


def initialised(layer: Attention) -> Any:
    params, _ = fdl.init(layer, jax.random.key(0))
    return jax.tree.map(lambda a: a if a.ndim > 2 else Normal(0.5)(jax.random.key(a.size), a.shape), params)


def close(got: Any, want: Any) -> None:
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5 * max(1.0, float(np.abs(want).max(initial=0.0))))


def close_trees(got: Any, want: Any) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    jax.tree.map(close, got, want)


def ours(layer: Attention, params: Any, x: Any, context: Any, **keywords: Any) -> tuple[Any, Any, Any]:
    """y, the gradients of the params, and those of x and the context."""

    def loss(params: Any, inputs: Any) -> Any:
        y = layer(params, inputs[0], context=inputs[1], **keywords)
        return (y * WEIGHT).sum(), y

    run = jax.jit(jax.grad(loss, (0, 1), has_aux=True), compiler_options=QUICK)
    (params_bar, inputs_bar), y = run(params, (x, context))
    return y, params_bar, [a for a in inputs_bar if a is not None]


CASES: dict[str, Any] = {
    "self": ({}, None, {}),
    "causal": ({"causal": True}, None, {}),
    "padding": ({}, None, {"mask": PADDING}),
    "causal and padding": ({"causal": True}, None, {"mask": PADDING}),
    "mask of queries and keys": ({}, None, {"mask": np.tril(np.ones((1, 1, T, T), bool), 1)}),
    "cross": ({}, CONTEXT, {}),
    "cross with padding": ({}, CONTEXT, {"mask": LENGTHS}),
    "cross with other features": ({"context_features": 6}, CONTEXT[..., :6], {}),
    "without bias": ({"use_bias": False}, None, {}),
}


# --- PyTorch: heads are rows [H * K, D] of stacked matrices, masks are True where nothing is seen ---


def torch_weights(params: Any) -> dict[str, np.ndarray]:
    """Ours under the names of `torch.nn.MultiheadAttention`: query, key and value stacked, or each on its own where
    keys and values come from other features.
    """
    rows = {name: np.asarray(params[name]["kernel"]).reshape(-1, D).T for name in ("query", "key", "value")}
    weights = {"out_proj.weight": np.asarray(params["out"]["kernel"]).reshape(D, D).T}
    if rows["key"].shape[1] == D:
        weights["in_proj_weight"] = np.concatenate(list(rows.values()))
    else:
        weights |= {f"{name[0]}_proj_weight": matrix for name, matrix in rows.items()}
    if "bias" in params["out"]:
        weights["in_proj_bias"] = np.concatenate([np.ravel(params[name]["bias"]) for name in rows])
        weights["out_proj.bias"] = np.asarray(params["out"]["bias"])
    return weights


@pytest.mark.parametrize("name", CASES)
def test_torch_multi_head_attention(name: str):
    torch = pytest.importorskip("torch")
    fields, context, keywords = CASES[name]
    layer = Attention(D, H, **fields)
    params = initialised(layer)
    y, params_bar, inputs_bar = ours(layer, params, X, context, **keywords)

    size = layer.context_features
    module = torch.nn.MultiheadAttention(D, H, bias=layer.use_bias, batch_first=True, kdim=size, vdim=size)
    weights = torch_weights(params)
    module.load_state_dict({key: torch.tensor(value) for key, value in weights.items()})
    hidden = torch.zeros(T, T if context is None else S, dtype=torch.bool)
    mask: Any = keywords.get("mask")
    if layer.causal:
        hidden |= torch.triu(torch.ones(T, T, dtype=torch.bool), 1)
    if mask is not None and mask.ndim == 4:
        hidden |= torch.tensor(~mask[0, 0])
    padding = torch.tensor(~mask) if mask is not None and mask.ndim == 2 else None
    masks = {"attn_mask": hidden, "key_padding_mask": padding}
    inputs = [torch.tensor(a, requires_grad=True) for a in (X, context) if a is not None]
    want, _ = module(inputs[0], inputs[-1], inputs[-1], need_weights=False, **masks)
    (want * torch.tensor(WEIGHT)).sum().backward()

    close(y, want.detach())
    for got, tensor in zip(inputs_bar, inputs, strict=True):
        close(got, tensor.grad)
    gradients = {key: parameter.grad.numpy() for key, parameter in module.named_parameters()}
    close_trees(torch_weights(params_bar), gradients)


HEADS: dict[str, Any] = {
    "plain": (H, {}, {}),
    "causal": (H, {"causal": True}, {"is_causal": True}),
    "causal, more queries than keys": (H, {"causal": True}, {"is_causal": True}),
    "grouped": (2, {}, {"enable_gqa": True}),
    "one key head, causal": (1, {"causal": True}, {"enable_gqa": True, "is_causal": True}),
    "scale": (H, {"scale": 0.3}, {"scale": 0.3}),
    "mask": (H, {"mask": LENGTHS[:, None, None]}, {"attn_mask": LENGTHS[:, None, None]}),
    "nothing to see": (H, {"mask": LENGTHS[:, None, None] & (np.arange(T) > 1)[:, None]}, "mask"),
    "bias": (H, {"bias": floats(5, 1, H, T, S)}, {"attn_mask": floats(5, 1, H, T, S)}),
}


@pytest.mark.parametrize("implementation", ["einsum", "chunked", "fused"])
@pytest.mark.parametrize("name", HEADS)
def test_torch_scaled_dot_product_attention(name: str, implementation: Any, monkeypatch: pytest.MonkeyPatch):
    """PyTorch too gives 0 for a query that sees nothing."""
    torch = pytest.importorskip("torch")
    monkeypatch.setattr("fdl.ops.attention.BLOCK", 3)
    groups, keywords, theirs = HEADS[name]
    theirs = {"attn_mask": keywords["mask"]} if theirs == "mask" else theirs
    queries = S + 2 if "more queries" in name else T
    arrays = floats(6, B, queries, H, K), floats(7, B, S, groups, K), floats(8, B, S, groups, K)
    weight = floats(9, B, queries, H, K)

    def loss(arrays: Any) -> Any:
        y = dot_product_attention(*arrays, implementation=implementation, **keywords)
        return (y * weight).sum(), y

    gradients, y = jax.jit(jax.grad(loss, has_aux=True), compiler_options=QUICK)(arrays)
    inputs = [torch.tensor(a.swapaxes(1, 2), requires_grad=True) for a in arrays]
    theirs = {key: torch.tensor(a) if isinstance(a, np.ndarray) else a for key, a in theirs.items()}
    want = torch.nn.functional.scaled_dot_product_attention(*inputs, **theirs).transpose(1, 2)
    (want * torch.tensor(weight)).sum().backward()
    close(y, want.detach())
    for got, tensor in zip(gradients, inputs, strict=True):
        close(got, tensor.grad.transpose(1, 2))


def test_torch_embedding():
    torch = pytest.importorskip("torch")
    layer, ids = Embedding(10, D), ints(10)
    params, _ = fdl.init(layer, jax.random.key(0))
    gradient = jax.grad(lambda p: (layer(p, ids) * WEIGHT).sum())(params)
    module = torch.nn.Embedding(10, D)
    module.load_state_dict({"weight": torch.tensor(np.asarray(params["embedding"]))})
    want = module(torch.tensor(ids))
    (want * torch.tensor(WEIGHT)).sum().backward()
    np.testing.assert_array_equal(layer(params, ids), want.detach())
    close(gradient["embedding"], module.weight.grad)


# --- Flax Linen: the same names and shapes ---


@pytest.mark.parametrize("name", CASES)
def test_flax_multi_head_dot_product_attention(name: str):
    linen = pytest.importorskip("flax.linen")
    fields, context, keywords = CASES[name]
    layer = Attention(D, H, **fields)
    params = initialised(layer)
    y, params_bar, inputs_bar = ours(layer, params, X, context, **keywords)

    module = linen.MultiHeadDotProductAttention(num_heads=H, use_bias=layer.use_bias, deterministic=True)
    mask = keywords.get("mask")
    mask = mask[:, None, None] if np.ndim(mask) == 2 else mask
    causal = np.tril(np.ones((1, 1, T, T), bool)) if layer.causal else None
    mask = causal if mask is None else mask if causal is None else mask & causal

    def loss(params: Any, inputs: Any) -> Any:
        y = module.apply({"params": params}, *inputs, mask=mask)
        return (y * WEIGHT).sum(), y

    inputs = [jnp.asarray(a) for a in (X, context) if a is not None]
    run = jax.jit(jax.grad(loss, (0, 1), has_aux=True), compiler_options=QUICK)
    (params_want, inputs_want), want = run(params, inputs)
    close(y, want)
    close_trees(inputs_bar, inputs_want)
    close_trees(params_bar, params_want)


def test_flax_gives_an_average_where_nothing_is_seen():
    """The one difference: Flax masks with a large negative number, so that equal scores remain."""
    linen = pytest.importorskip("flax.linen")
    layer = Attention(D, H)
    params, mask = initialised(layer), jnp.zeros((B, 1, T, T), bool)
    want = linen.MultiHeadDotProductAttention(num_heads=H, deterministic=True).apply({"params": params}, X, mask=mask)
    value = jnp.einsum("btd,dhk->bthk", X, params["value"]["kernel"]) + params["value"]["bias"]
    average = jnp.einsum("bhk,hkd->bd", value.mean(1), params["out"]["kernel"]) + params["out"]["bias"]
    close(want, jnp.broadcast_to(average[:, None], X.shape))
    close(layer(params, X, mask=mask), jnp.broadcast_to(params["out"]["bias"], X.shape))


def test_flax_embed():
    linen = pytest.importorskip("flax.linen")
    layer, ids = Embedding(10, D), ints(10)
    params, _ = fdl.init(layer, jax.random.key(0))
    module = linen.Embed(10, D)

    def loss(params: Any, look_up: Any, attend: Any) -> Any:
        return (attend(params, jnp.tanh(look_up(params, ids))) * floats(4, B, T, 10)).sum()

    apply = lambda p, a, method=None: module.apply({"params": p}, a, method=method)  # noqa: E731
    got = jax.value_and_grad(loss)(params, layer, layer.attend)
    want = jax.value_and_grad(loss)(params, apply, lambda p, x: apply(p, x, linen.Embed.attend))
    np.testing.assert_array_equal(layer(params, ids), apply(params, ids))
    close_trees(got, want)
