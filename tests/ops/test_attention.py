"""Attention as a function: three implementations against one oracle in float64, and the laws of masks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.ops import attention as ops
from fdl.ops.attention import padding_mask
from tests.compiling import QUICK

dot_product_attention: Any = ops.dot_product_attention  # numpy arrays do as well
IMPLEMENTATIONS = ("einsum", "chunked", "fused")
every_implementation = pytest.mark.parametrize("implementation", IMPLEMENTATIONS)

T, S, H, K = 10, 7, 4, 8


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch):
    """Of 4, so that 10 queries and 7 keys are several blocks, the last ones not full."""
    monkeypatch.setattr(ops, "BLOCK", 4)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def heads(queries: int = T, keys: int = S, groups: int = H, batch: int = 2, dtype: Any = np.float32) -> list[Any]:
    shapes = (batch, queries, H, K), (batch, keys, groups, K), (batch, keys, groups, K)
    return [normal(i, *shape).astype(dtype) for i, shape in enumerate(shapes)]


def oracle(q: Any, k: Any, v: Any, mask: Any = True, bias: Any = 0.0, causal: bool = False, window: Any = None) -> Any:
    """The definition, for any head its own keys; what no query may see gets a weight of exactly 0."""
    (_, t, h, _), (_, s, g, _) = q.shape, k.shape
    k, v = jnp.repeat(k, h // g, 2), jnp.repeat(v, h // g, 2)
    back = np.arange(t)[:, None] - np.arange(s)
    mask = mask & (back >= 0 if causal else True) & (np.abs(back) < (window or 10**9))
    scores = jnp.einsum("bthk,bshk->bhts", q, k) * float(q.shape[3]) ** -0.5 + bias
    top = jax.lax.stop_gradient(scores.max(-1, keepdims=True))  # the gradient of a max is NaN under QUICK
    weights = jnp.where(mask, jnp.exp(scores - top), 0.0)
    return jnp.einsum("bhts,bshk->bthk", weights / jnp.maximum(weights.sum(-1, keepdims=True), 1e-30), v)


def with_gradients(function: Any, dtype: Any, arrays: list[Any], skip: int = 0, **keywords: Any) -> list[np.ndarray]:
    """The result, and the gradients of a fixed random projection of it (of its rows from `skip` on)."""
    batch, queries, *rest = arrays[0].shape[:3]
    weight = normal(9, batch, skip + queries, *rest, arrays[2].shape[3]).astype(dtype)[:, skip:]

    def loss(arrays: Any) -> Any:
        y = function(*arrays[:3], **keywords, **({"bias": arrays[3]} if len(arrays) == 4 else {}))
        return (y * weight).sum(), y

    arrays = [np.asarray(a, dtype) for a in arrays]
    gradients, y = jax.jit(jax.grad(loss, has_aux=True), compiler_options=QUICK)(arrays)
    return [np.asarray(a, np.float64) for a in (y, *gradients)]


def random_mask(*shape: int) -> np.ndarray:
    mask = normal(5, *shape) > -0.3
    return mask | (np.arange(shape[3]) == 0)  # every query sees a key: what happens otherwise has tests of its own


CASES: dict[str, Any] = {
    "plain": (heads(), {}),
    "grouped": (heads(groups=2), {}),
    "one key head": (heads(groups=1), {"causal": True}),
    "causal": (heads(), {"causal": True}),
    "causal, more keys": (heads(queries=7, keys=10), {"causal": True}),
    "window": (heads(keys=10), {"window": 3}),
    "causal window, grouped": (heads(keys=10, groups=2), {"window": 3, "causal": True}),
    "window of one": (heads(keys=10), {"window": 1}),
    "padding": (heads(), {"mask": np.asarray(padding_mask(jnp.array([3, 7]), S))[:, None, None, :]}),
    "mask of heads, grouped": (heads(groups=2), {"mask": random_mask(1, H, T, S)}),
    "mask of queries": (heads(), {"mask": random_mask(2, 1, T, 1) | True, "causal": True}),
    "full mask": (heads(groups=2), {"mask": random_mask(2, H, T, S), "causal": True}),
    "bias": ([*heads(), normal(7, 2, H, T, S)], {}),
    "bias of heads, grouped": ([*heads(groups=2), normal(7, 1, H, T, S)], {"causal": True}),
    "bias of keys": ([*heads(), normal(7, 1, 1, 1, S)], {"window": 8}),
    "one of each": (heads(queries=1, keys=1, batch=1), {"causal": True}),
    "one query": (heads(queries=1), {}),
    "one key": (heads(keys=1), {}),
}


@every_implementation
@pytest.mark.parametrize("name", CASES)
def test_result_and_gradients_are_those_of_the_definition(name: str, implementation: Any):
    arrays, keywords = CASES[name]
    with jax.enable_x64(True):
        want = with_gradients(oracle, np.float64, arrays, **keywords)
    got = with_gradients(dot_product_attention, np.float32, arrays, implementation=implementation, **keywords)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(b).max()))


@every_implementation
@pytest.mark.parametrize("name", ["causal window, grouped", "bias of heads, grouped"])
def test_float64_stays_float64(name: str, implementation: Any):
    """The fused form computes in float32 whatever it gets."""
    arrays, keywords = CASES[name]
    tolerance = 1e-5 if implementation == "fused" else 1e-12
    with jax.enable_x64(True):
        want = with_gradients(oracle, np.float64, arrays, **keywords)
        got = with_gradients(dot_product_attention, np.float64, arrays, implementation=implementation, **keywords)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def test_blocks_of_the_real_size(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    arrays = heads(queries=300, keys=600, groups=2, batch=1)
    results = [
        with_gradients(dot_product_attention, np.float32, arrays, causal=True, window=280, implementation=name)
        for name in ("einsum", "chunked")
    ]
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


# --- queries that see nothing ---


HIDDEN: dict[str, Any] = {
    "masked": {"mask": np.arange(T)[None, None, :, None] >= 3},
    "masked by a bias": {"bias": np.where(np.arange(T) < 3, -np.inf, 0.0)[None, None, :, None].astype(np.float32)},
}


@every_implementation
@pytest.mark.parametrize("name", HIDDEN)
def test_a_query_that_sees_no_key_gives_zero_and_no_gradient(name: str, implementation: Any):
    arrays, keywords = heads(groups=2), {"implementation": implementation, "causal": True, **HIDDEN[name]}
    y, dq, dk, dv = with_gradients(dot_product_attention, np.float32, arrays, **keywords)
    assert (y[:, :3] == 0).all()
    assert (dq[:, :3] == 0).all()
    later = [arrays[0][:, 3:], *arrays[1:]]
    mask = (np.arange(S) <= np.arange(3, T)[:, None])[None, None]
    want = with_gradients(oracle, np.float32, later, skip=3, mask=mask)
    for a, b in zip((y[:, 3:], dq[:, 3:], dk, dv), want, strict=True):  # as if the three were not there
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@every_implementation
def test_all_masked_is_all_zero(implementation: Any):
    cases: Any = ({"mask": np.zeros((1, 1, 1, 1), bool)}, {"mask": np.zeros((2, H, T, S), bool), "window": 2})
    for keywords in cases:
        for a in with_gradients(dot_product_attention, np.float32, heads(), implementation=implementation, **keywords):
            assert (a == 0).all()


@every_implementation
def test_queries_beyond_the_window_of_the_last_key_give_zero(implementation: Any):
    """Of 10 queries and 7 keys, query 9 with a window of 3 would see the keys 7, 8 and 9."""
    y, dq, *_ = with_gradients(
        dot_product_attention, np.float32, heads(), causal=True, window=3, implementation=implementation
    )
    assert (y[:, 9] == 0).all()
    assert (dq[:, 9] == 0).all()
    assert (y[:, 8] != 0).all()


# --- laws ---


@every_implementation
@pytest.mark.parametrize(("causal", "window"), [(True, None), (True, 3), (False, 2)])
def test_what_a_query_sees_shows_in_its_gradients(causal: bool, window: int | None, implementation: Any):
    q, k, v = heads(keys=T, batch=1)
    function = lambda k, v: dot_product_attention(  # noqa: E731
        q, k, v, causal=causal, window=window, implementation=implementation
    ).sum((0, 2, 3))
    back = np.arange(T)[:, None] - np.arange(T)
    sees = (np.abs(back) < (window or T)) & ((back >= 0) | (not causal))
    for name, jacobian in zip("kv", jax.jit(jax.jacobian(function, (0, 1)), compiler_options=QUICK)(k, v), strict=True):
        reached = (np.asarray(jacobian) != 0).any((1, 3, 4))
        open_ = slice(None) if name == "v" else sees.sum(1) > 1  # a single key has weight 1 whatever it is
        np.testing.assert_array_equal(reached[open_], sees[open_])


@every_implementation
def test_a_padded_batch_is_each_sequence_alone(implementation: Any):
    lengths = [1, 4, 7]
    q, k, v = heads(queries=S, groups=2, batch=3)
    mask = padding_mask(jnp.array(lengths), S)[:, None, None, :]
    y = dot_product_attention(q, k, v, mask=mask, causal=True, implementation=implementation)
    for i, n in enumerate(lengths):
        one = slice(i, i + 1), slice(n)
        alone = dot_product_attention(q[one], k[one], v[one], causal=True, implementation=implementation)
        np.testing.assert_allclose(y[one], alone, rtol=1e-6, atol=1e-6)


def test_grouped_heads_are_repeated_heads():
    q, k, v = heads(groups=2)
    repeated = dot_product_attention(q, np.repeat(k, 2, 2), np.repeat(v, 2, 2), causal=True)
    np.testing.assert_allclose(dot_product_attention(q, k, v, causal=True), repeated, rtol=1e-6, atol=1e-6)


def test_values_may_have_another_size_than_keys():
    q, k, v = heads()
    wide = np.concatenate([v, -v[..., :3]], -1)
    for implementation in ("einsum", "chunked"):
        y = dot_product_attention(q, k, wide, implementation=implementation)
        assert y.shape == (2, T, H, K + 3)
        np.testing.assert_allclose(y[..., K:], -y[..., :3], rtol=1e-6)


def test_scale_takes_the_place_of_the_root_of_the_size():
    q, k, v = heads()
    for implementation in IMPLEMENTATIONS:
        same = dot_product_attention(q * np.float32(np.sqrt(K) * 0.3), k, v, implementation=implementation)
        scaled = dot_product_attention(q, k, v, scale=0.3, implementation=implementation)
        np.testing.assert_allclose(scaled, same, rtol=2e-6, atol=2e-6)


def test_second_derivatives_and_forward_mode_of_the_chunked_form():
    q, k, v = heads(batch=1)

    def loss(q: Any, implementation: Any) -> Any:
        return jnp.square(dot_product_attention(q, k, v, causal=True, implementation=implementation)).sum()

    def product(implementation: Any) -> Any:
        gradient = jax.grad(lambda q: loss(q, implementation))
        run = jax.jit(lambda q, tangent: jax.jvp(gradient, (q,), (tangent,))[1], compiler_options=QUICK)
        return run(q, v[:, :1] * np.ones_like(q))

    np.testing.assert_allclose(product("chunked"), product("einsum"), rtol=1e-4, atol=1e-5)


def test_the_chunked_form_maps_over_examples():
    q, k, v = heads(batch=3)
    one = lambda q, k, v: dot_product_attention(q[None], k[None], v[None], causal=True, implementation="chunked")[0]  # noqa: E731
    np.testing.assert_allclose(
        jax.vmap(one)(q, k, v), dot_product_attention(q, k, v, causal=True), rtol=1e-5, atol=1e-6
    )


# --- numbers ---


@every_implementation
def test_the_sum_of_a_bfloat16_softmax_is_taken_in_float32(implementation: Any):
    """1500 equal weights: a sum of ones in bfloat16 stands still at 256, so that y would be 5.9 instead of 1."""
    q, v = jnp.zeros((1, 1, 1, K), jnp.bfloat16), jnp.ones((1, 1500, 1, K), jnp.bfloat16)
    y = dot_product_attention(q, v, v, implementation=implementation)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float32), 1.0, rtol=4e-3)


@every_implementation
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_rounds_but_nothing_more(implementation: Any, dtype: Any):
    arrays = [np.asarray(a, dtype) for a in heads(groups=2)]
    want = oracle(*(np.asarray(a, np.float32) for a in arrays), causal=True)
    got = with_gradients(dot_product_attention, dtype, arrays, causal=True, implementation=implementation)
    eps = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(got[0], want, atol=2 * eps * float(jnp.abs(want).max()))
    assert all(np.isfinite(a).all() for a in got)


@every_implementation
@pytest.mark.parametrize("size", [1e-30, 1e4])
def test_huge_and_tiny_values(size: float, implementation: Any):
    """Scores of 1e8 choose the one best key; scores of 0 average them all. No NaN in between."""
    q, k, v = (a.astype(np.float32) for a in heads())
    y, *gradients = with_gradients(
        dot_product_attention,
        np.float32,
        [q * np.float32(size), k * np.float32(size), v],
        implementation=implementation,
    )
    best = np.einsum("bthk,bshk->bths", q, k).argmax(-1)
    chosen = np.take_along_axis(v[:, None], best[..., None, None].swapaxes(2, 3), 2)[:, :, 0]
    np.testing.assert_allclose(y, chosen if size > 1 else np.broadcast_to(v.mean(1)[:, None], y.shape), atol=1e-6)
    assert all(np.isfinite(a).all() for a in gradients)


@pytest.mark.parametrize("shapes", [(0, T, S), (2, 0, S), (2, T, 0), (0, 0, 0)])
@every_implementation
def test_nothing_gives_nothing(shapes: tuple[int, int, int], implementation: Any):
    batch, queries, keys = shapes
    arrays = heads(queries=queries, keys=keys, batch=batch)
    y, *gradients = with_gradients(
        dot_product_attention, np.float32, arrays, causal=True, implementation=implementation
    )
    assert y.shape == (batch, queries, H, K)
    assert all((a == 0).all() for a in (y, *gradients))


# --- memory, choice, dropout ---


def temporary_bytes(length: int, implementation: str, **keywords: Any) -> int:
    shape = jax.ShapeDtypeStruct((1, length, 2, 16), jnp.float32)
    loss = lambda q, k, v: dot_product_attention(q, k, v, implementation=implementation, **keywords).sum()  # noqa: E731
    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(shape, shape, shape).compile()
    analysis: Any = compiled.memory_analysis()
    return analysis.temp_size_in_bytes


@pytest.mark.parametrize("keywords", [{}, {"causal": True, "window": 100}])
def test_memory_of_the_chunked_gradient_grows_with_the_length_and_not_its_square(
    keywords: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(ops, "BLOCK", 64)
    short, long = (temporary_bytes(length, "chunked", **keywords) for length in (2048, 8192))
    assert long / short < 4.4  # four times the length; the blocks themselves do not grow
    short, long = (temporary_bytes(length, "einsum", **keywords) for length in (512, 2048))
    assert long / short > 12  # what it would be otherwise: sixteen


def test_what_none_picks_on_this_backend():
    """The chunked form is a loop, the fused one casts, the einsum one does neither: the program shows which it is."""

    def program(length: int, implementation: Any, **keywords: Any) -> str:
        q = jax.ShapeDtypeStruct((1, length, 1, 8), jnp.float32)
        function = lambda q: dot_product_attention(q, q, q, implementation=implementation, **keywords)  # noqa: E731
        return str(jax.make_jaxpr(function)(q))

    key = jax.random.key(0)
    assert "scan" in program(64, "chunked")
    assert "scan" not in program(64, "einsum")
    assert program(64, None) == program(64, "einsum") != program(64, "fused")
    if jax.default_backend() == "cpu":
        assert "scan" in program(ops.LONG, None)
        assert "scan" not in program(ops.LONG, None, dropout_rate=0.1, key=key)


def test_cudnn_is_asked_for_where_it_has_the_case(monkeypatch: pytest.MonkeyPatch):
    """On a machine without GPU: what would be asked of `jax.nn` on one with."""
    asked = []

    def record(q: Any, k: Any, v: Any, bias: Any, mask: Any, **keywords: Any) -> Any:
        asked.append((keywords["implementation"], keywords["local_window_size"], mask is not None))
        return q

    monkeypatch.setattr(ops, "_on_gpu", lambda: True)
    monkeypatch.setattr(jax.nn, "dot_product_attention", record)
    half = [jnp.asarray(a, jnp.bfloat16) for a in heads(queries=S)]
    dot_product_attention(*half)
    dot_product_attention(*half, causal=True, window=3)
    assert asked == [("cudnn", None, False), ("cudnn", (2, 0), False)]
    dot_product_attention(*half, window=3)
    dot_product_attention(*half, mask=jnp.ones((1, 1, 1, S), bool))
    dot_product_attention(*heads())
    dot_product_attention(half[0][:, :1], *half[1:])
    dot_product_attention(*half, dropout_rate=0.5, key=jax.random.key(0))
    assert len(asked) == 2  # none of these: einsum
    dot_product_attention(*heads(), implementation="fused")
    dot_product_attention(*half, window=3, implementation="fused")
    assert asked[2:] == [("xla", None, False), ("cudnn", None, True)]


def test_dropout_of_weights_keeps_their_mean():
    """With one-hot values y shows the weights themselves."""
    q, k = np.zeros((1, 100, 4, K), np.float32), np.zeros((1, 50, 4, K), np.float32)
    v = np.broadcast_to(np.eye(50, dtype=np.float32)[None, :, None], (1, 50, 4, 50))
    y = dot_product_attention(q, k, v, dropout_rate=0.3, key=jax.random.key(0))
    share = float((y == 0).mean())
    assert share == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / y.size))
    np.testing.assert_allclose(y[y != 0], 1 / 50 / 0.7, rtol=1e-6)
    again = dot_product_attention(q, k, v, dropout_rate=0.3, key=jax.random.key(0))
    np.testing.assert_array_equal(y, again)


Q, K_, V = heads(groups=2)
WRONG: dict[str, Any] = {
    "heads before positions": ((Q, K_.swapaxes(1, 2), V.swapaxes(1, 2)), {}, ["(heads are axis 2)", "k float32[2, 2"]),
    "three axes": ((Q[0], K_[0], V[0]), {}, ["q [B, T, H, K]", "q float32[10, 4, 8]"]),
    "head sizes": ((Q[..., :4], K_, V), {}, ["head size", "q float32[2, 10, 4, 4]"]),
    "lengths": ((Q, K_, V[:, :5]), {}, ["must agree", "v float32[2, 5, 2, 8]"]),
    "groups": ((Q[:, :, :3], K_, V), {}, ["2 key heads do not divide 3 query heads"]),
    "dtypes": ((Q, K_.astype(np.float16), V), {}, ["one floating dtype", "k float16"]),
    "integers": ((Q.astype(int), K_.astype(int), V.astype(int)), {}, ["one floating dtype"]),
    "padding mask": ((Q, K_, V), {"mask": np.ones((2, S), bool)}, ["[2, 4, 10, 7]", "mask[:, None, None, :]"]),
    "mask of groups": ((Q, K_, V), {"mask": np.ones((2, 2, T, S), bool)}, ["broadcasts to [2, 4, 10, 7]"]),
    "float mask": ((Q, K_, V), {"mask": np.zeros((1, 1, T, S), np.float32)}, ["booleans", "bias="]),
    "boolean bias": ((Q, K_, V), {"bias": np.zeros((1, 1, T, S), bool)}, ["bias: expected floats, got bool"]),
    "window": ((Q, K_, V), {"window": 0}, ["whole number >= 1", "got 0"]),
    "implementation": ((Q, K_, V), {"implementation": "einsun"}, ["did you mean 'einsum'"]),
    "dropout of the chunked form": (
        (Q, K_, V), {"implementation": "chunked", "dropout_rate": 0.5, "key": 0}, ["'chunked' has no dropout"],
    ),
    "dropout without key": ((Q, K_, V), {"dropout_rate": 0.5}, ["key="]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused_with_the_fix(name: str):
    arrays, keywords, said = WRONG[name]
    with pytest.raises(fdl.InputError) as error:
        dot_product_attention(*arrays, **keywords)
    for words in said:
        assert words in str(error.value)
