"""LoRA: it starts as the layer it adapts, changes it by a matrix of low rank, and merges into it."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.initializers import Normal
from fdl.nn.linear import Linear
from fdl.nn.lora import LoRA
from fdl.nn.reparametrize import WeightNorm

X: Any = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32)
LINEAR = Linear(6, 4)
LAYER = LoRA(LINEAR, rank=2, alpha=3.0)


def initialised(layer: LoRA, dtype: Any = jnp.float32) -> Any:
    return fdl.init(layer, jax.random.key(0), dtype)[0]


def adapted(layer: LoRA, dtype: Any = jnp.float32) -> Any:
    """Params after some training, as it were: b is no longer 0."""
    params = initialised(layer, dtype)
    b = params["b"]["kernel"]
    return params | {"b": {"kernel": Normal(1.0)(jax.random.key(1), b.shape, dtype)}}


def test_it_starts_as_the_layer_itself():
    params = initialised(LAYER)
    np.testing.assert_array_equal(LAYER(params, X), LINEAR(params["linear"], X))
    np.testing.assert_array_equal(
        params["linear"]["kernel"], fdl.init(LINEAR, fdl.fold(jax.random.key(0), "linear"))[0]["kernel"]
    )


def test_the_equation():
    params = jax.tree.map(lambda a: np.asarray(a, np.float64), adapted(LAYER))
    linear, a, b = params["linear"], params["a"]["kernel"], params["b"]["kernel"]
    want = X @ linear["kernel"] + linear["bias"] + 3.0 / 2 * (X @ a) @ b
    np.testing.assert_allclose(LAYER(adapted(LAYER), X), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("use_bias", [True, False])
def test_merged_params_do_the_same_without_the_adapter(use_bias: bool):
    layer = LoRA(Linear(6, 4, use_bias=use_bias), rank=2, alpha=3.0)
    params = adapted(layer)
    merged = layer.merge(params)
    fdl.check(layer.linear, merged)
    np.testing.assert_allclose(layer.linear(merged, X), layer(params, X), rtol=1e-5, atol=1e-6)
    assert np.linalg.matrix_rank(np.asarray(merged["kernel"] - params["linear"]["kernel"]), tol=1e-4) == 2


def test_bfloat16_merges_in_float32_and_stays_bfloat16():
    params = adapted(LAYER, jnp.bfloat16)
    merged = LAYER.merge(params)
    assert {a.dtype for a in jax.tree.leaves(merged)} == {jnp.dtype(jnp.bfloat16)}
    wide = LAYER.merge(jax.tree.map(lambda a: a.astype(jnp.float32), params))
    np.testing.assert_array_equal(merged["kernel"], wide["kernel"].astype(jnp.bfloat16))
    assert LAYER(params, jnp.asarray(X, jnp.bfloat16)).dtype == jnp.bfloat16


def test_at_the_start_b_learns_and_a_waits_for_it():
    """With b = 0 nothing that a does reaches y: the first step moves b alone."""
    gradient = jax.grad(lambda p: jnp.square(LAYER(p, X)).sum())(initialised(LAYER))
    assert (gradient["a"]["kernel"] == 0).all()
    assert (gradient["b"]["kernel"] != 0).all()


def test_alpha_may_be_swept():
    y = jax.jit(lambda alpha: LoRA(LINEAR, 2, alpha)(adapted(LAYER), X))(3.0)
    np.testing.assert_allclose(y, LAYER(adapted(LAYER), X), rtol=1e-6)


def test_a_trained_layer_is_adapted_by_surgery():
    model = fdl.nn.Serial(body=LINEAR, head=Linear(4, 3))
    params, _ = fdl.init(model, jax.random.key(2))
    larger = fdl.edit(model, "body", LoRA(LINEAR, 1, 1.0))
    fresh, _ = fdl.init(larger, jax.random.key(3))
    grafted = fresh | {"body": fresh["body"] | {"linear": params["body"]}, "head": params["head"]}
    fdl.check(larger, grafted)
    np.testing.assert_array_equal(larger(grafted, X), model(params, X))


WRONG: dict[str, Any] = {
    "rank 0": (lambda: LoRA(LINEAR, 0, 1.0), ["rank: expected a whole number >= 1, got 0"]),
    "rank 1.5": (lambda: LoRA(LINEAR, 1.5, 1.0), ["got 1.5"]),  # pyright: ignore[reportArgumentType]
    "alpha": (lambda: LoRA(LINEAR, 1, -1.0), ["alpha: expected a number > 0, got -1.0"]),
    "no kernel": (lambda: LoRA(fdl.nn.LayerNorm(3), 1, 1.0), ["kernel [in, out]", "got LayerNorm(3)"]),
    "kernel inside": (lambda: LoRA(WeightNorm(LINEAR), 1, 1.0), ["kernel [in, out]", "WeightNorm"]),
    "no layer": (lambda: LoRA(jax.nn.relu, 1, 1.0), ["linear: expected a layer"]),  # pyright: ignore[reportArgumentType]
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_adapted_is_refused(name: str):
    function, said = WRONG[name]
    with pytest.raises(fdl.InputError) as error:
        function()
    for words in said:
        assert words in str(error.value)


def test_a_wrong_shape_names_the_layer_inside():
    with pytest.raises(fdl.InputError, match=r"Linear\(6, 4\): expected x") as error:
        LAYER(initialised(LAYER), X[:, :5])
    assert error.value.__notes__[0] == "in layer linear"


@pytest.mark.parametrize(
    ("path", "a", "b"),
    [
        ("attention/query", (8, 2), (2, 2, 4)),
        ("attention/key", (8, 2), (2, 1, 4)),
        ("attention/value", (8, 2), (2, 1, 4)),
        ("attention/out", (2, 4, 2), (2, 8)),
        ("feed_forward/up/value", (8, 2), (2, 16)),
        ("feed_forward/up/gate", (8, 2), (2, 16)),
        ("feed_forward/down", (16, 2), (2, 8)),
    ],
)
def test_every_projection_of_a_llama_is_adapted_by_its_path(path: str, a: tuple[int, ...], b: tuple[int, ...]):
    """It starts as the model, decodes as it runs, and merged it is the model with other kernels."""
    sizes: Any = {"num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "features": 8, "hidden_features": 16}
    llama = fdl.models.llama(50, **sizes)
    parts: dict[str, Any] = {}
    model = fdl.edit(llama, f"blocks/0/{path}", lambda part: parts.setdefault("lora", LoRA(part, rank=2, alpha=2.0)))
    params, _ = fdl.init(model, jax.random.key(0))
    *names, last = ["blocks", "0", *path.split("/")]
    around = params
    for name in names:
        around = around[name]
    adapter, ids = around[last], jnp.arange(6)[None]
    assert (adapter["a"]["kernel"].shape, adapter["b"]["kernel"].shape) == (a, b)
    around[last] = adapter["linear"]
    y = llama(params, ids)
    around[last] = adapter
    np.testing.assert_array_equal(model(params, ids), y)
    adapter["b"]["kernel"] = jax.random.normal(jax.random.key(1), b)
    changed = model(params, ids)
    assert jnp.abs(changed - y).max() > 1e-4
    around[last] = parts["lora"].merge(adapter)
    fdl.check(llama, params)
    np.testing.assert_allclose(llama(params, ids), changed, rtol=1e-4, atol=1e-6)


def test_attention_with_an_adapter_decodes_as_it_runs():
    layer = fdl.edit(fdl.nn.Attention(8, 2, causal=True), "query", functools.partial(LoRA, rank=2, alpha=2.0))
    assert isinstance(layer, fdl.nn.Attention)
    params, _ = fdl.init(layer, jax.random.key(0))
    params["query"]["b"]["kernel"] = jnp.ones((2, 2, 4))
    x = jax.random.normal(jax.random.key(1), (2, 5, 8))
    _, cache = layer.decode(params, x[:, :4], layer.init_cache(batch=2, length=5))
    np.testing.assert_allclose(layer.decode(params, x[:, 4:], cache)[0], layer(params, x)[:, 4:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("path", "new", "message"),
    [
        ("", lambda part: LoRA(part, 2, 1.0), "expected one of the maps 'query', 'key', 'value', 'out', got the whole"),
        ("query", fdl.nn.BatchNorm(8), "query: expected a layer without state in its place, got BatchNorm"),
        ("query", lambda part: 3, "'attention/query': expected the new part to be a layer or a function, got 3"),
        ("qeury", lambda part: LoRA(part, 2, 1.0), "no part 'qeury' .* did you mean 'query'"),
    ],
)
def test_what_cannot_take_the_place_of_a_map(path: str, new: Any, message: str):
    model = fdl.nn.Serial(attention=fdl.nn.Attention(8, 2))
    with pytest.raises(fdl.InputError, match=message):
        fdl.edit(model, f"attention/{path}".strip("/"), new)
