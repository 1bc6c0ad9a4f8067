"""The attention layer: its cache, masks and contexts, its initial values, and what it refuses."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.initializers import Normal
from fdl.nn.attention import Attention
from fdl.nn.positions import Rotary
from fdl.ops.attention import padding_mask
from tests.compiling import QUICK

B, T, D = 2, 6, 16
X: Any = np.random.default_rng(0).normal(size=(B, T, D)).astype(np.float32)
CONTEXT: Any = np.random.default_rng(1).normal(size=(B, 4, D)).astype(np.float32)


def key(seed: int = 0) -> jax.Array:
    return jax.random.key(seed)


def initialised(layer: Attention, dtype: Any = jnp.float32) -> Any:
    """Params whose biases are not 0."""
    params, _ = fdl.init(layer, key(), dtype)
    return jax.tree.map(lambda a: a if a.ndim > 2 else Normal(0.5)(key(a.size), a.shape, dtype), params)


def close(a: Any, b: Any) -> None:
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=2e-6)


# --- initial values ---


def test_a_projection_starts_with_the_variance_of_one_over_its_inputs():
    """query [128, 4, 32] has 128 inputs: std 0.0884. Taken for 128 * 4 inputs of 32 outputs it would be 0.0445."""
    params, _ = fdl.init(Attention(128, 4, num_kv_heads=2), key())
    assert {name: p["kernel"].shape for name, p in params.items()} == {
        "query": (128, 4, 32),
        "key": (128, 2, 32),
        "value": (128, 2, 32),
        "out": (4, 32, 128),
    }
    for p in params.values():
        assert float(p["kernel"].std()) == pytest.approx(0.0884, rel=0.02)
    wide, _ = fdl.init(Attention(128, 4, context_features=512), key())
    assert float(wide["key"]["kernel"].std()) == pytest.approx(512**-0.5, rel=0.02)


def test_the_output_keeps_the_scale_of_what_it_averages():
    """One position: y is x through value and out, both of variance 1 / inputs."""
    layer = Attention(256, 8)
    x: Any = np.random.default_rng(0).normal(size=(200, 1, 256)).astype(np.float32)
    assert float(layer(fdl.init(layer, key())[0], x).std()) == pytest.approx(1.0, rel=0.05)


def test_copies_of_one_key_head_make_grouped_heads_plain_ones():
    grouped, plain = Attention(D, 4, num_kv_heads=2, causal=True), Attention(D, 4, causal=True)
    params = initialised(grouped)
    repeated = params | {
        name: jax.tree.map(lambda a: jnp.repeat(a, 2, a.ndim - 2), params[name]) for name in ("key", "value")
    }
    fdl.check(plain, repeated)
    close(grouped(params, X), plain(repeated, X))


# --- order ---


@pytest.mark.parametrize("rotary", [None, Rotary(), Rotary(layout="interleaved")])
@pytest.mark.parametrize(("causal", "window"), [(True, None), (True, 2), (False, 2)])
def test_what_a_position_sees_shows_in_its_gradient(causal: bool, window: int | None, rotary: Rotary | None):
    layer = Attention(D, 4, causal=causal, window=window, rotary=rotary)
    params = initialised(layer)
    jacobian = jax.jit(jax.jacobian(lambda x: layer(params, x[None])[0].sum(-1)), compiler_options=QUICK)(X[0])
    back = np.arange(T)[:, None] - np.arange(T)
    sees = (np.abs(back) < (window or T)) & ((back >= 0) | (not causal))
    np.testing.assert_array_equal((np.asarray(jacobian) != 0).any(-1), sees)


def test_without_positions_order_is_invisible_and_with_rotary_it_is_not():
    for rotary, same in ((None, True), (Rotary(), False)):
        layer = Attention(D, 4, rotary=rotary)
        params = initialised(layer)
        flipped = np.asarray(layer(params, X[:, ::-1]))[:, ::-1]
        assert np.allclose(layer(params, X), flipped, atol=1e-5) is same


def test_rotary_sees_distances_alone():
    """A sequence after two hidden positions gives what it gives without them."""
    layer = Attention(D, 4, causal=True, rotary=Rotary())
    params = initialised(layer)
    moved: Any = np.concatenate([CONTEXT[:, :2], X], 1)
    mask: Any = np.broadcast_to(np.arange(T + 2) >= 2, (B, T + 2))
    close(layer(params, moved, mask=mask)[:, 2:], layer(params, X))


# --- decoding ---

DECODED = {
    "plain": Attention(D, 4, causal=True),
    "grouped, rotary, no bias": Attention(D, 4, num_kv_heads=2, causal=True, rotary=Rotary(), use_bias=False),
    "one key head, window": Attention(D, 4, num_kv_heads=1, causal=True, window=3, rotary=Rotary()),
    "chunked": Attention(D, 4, num_kv_heads=2, causal=True, window=2, implementation="chunked"),
}


@pytest.mark.parametrize("split", [(6,), (5, 1), (1, 5), (2, 3, 1), (1,) * 6])
@pytest.mark.parametrize("name", DECODED)
def test_prefill_and_steps_give_what_the_whole_gives(name: str, split: tuple[int, ...]):
    layer = DECODED[name]
    params = initialised(layer)
    cache, ys, start = layer.init_cache(B, T + 3), [], 0
    decode = jax.jit(layer.decode, compiler_options=QUICK)
    for size in split:
        y, cache = decode(params, X[:, start : start + size], cache)
        ys.append(y)
        start += size
    close(jnp.concatenate(ys, 1), layer(params, X))
    assert int(cache["index"]) == T


def test_decoding_is_a_scan_over_steps():
    """The cache keeps its structure, shapes and dtypes, so that it can be the carry of a compiled loop."""
    layer = Attention(D, 4, num_kv_heads=2, causal=True, rotary=Rotary())
    params = initialised(layer)

    def step(cache: Any, x: Any) -> Any:
        y, cache = layer.decode(params, x[:, None], cache)
        return cache, y[:, 0]

    _, y = jax.lax.scan(step, layer.init_cache(B, T), X.swapaxes(0, 1))
    close(y.swapaxes(0, 1), layer(params, X))


def test_prompts_padded_on_the_left_decode_as_each_alone():
    layer = Attention(D, 4, causal=True, rotary=Rotary())
    params = initialised(layer)
    alone = layer(params, X[1:, 2:])
    mask: Any = np.arange(T + 1) >= np.array([0, 2])[:, None]
    y, cache = layer.decode(params, X[:, :4], layer.init_cache(B, T + 1), mask=mask)
    last, _ = layer.decode(params, X[:, 4:], cache, mask=mask)
    close(jnp.concatenate([y[1:, 2:], last[1:]], 1), alone)
    close(last[0], layer(params, X[:1])[0, 4:])


def test_a_cache_in_bfloat16():
    layer = Attention(D, 4, causal=True, rotary=Rotary())
    params, x = initialised(layer, jnp.bfloat16), jnp.asarray(X, jnp.bfloat16)
    y, cache = layer.decode(params, x, layer.init_cache(B, T, jnp.bfloat16))
    assert y.dtype == cache["key"].dtype == cache["value"].dtype == jnp.bfloat16
    close(y.astype(jnp.float32), layer(params, x).astype(jnp.float32))


# --- the end of the cache ---


def test_past_the_end_is_an_error_where_the_index_is_known():
    layer = Attention(D, 4, causal=True)
    params = initialised(layer)
    _, cache = layer.decode(params, X, layer.init_cache(B, T))
    with pytest.raises(fdl.InputError, match="6 positions are written and 1 come, but the cache holds 6"):
        layer.decode(params, X[:, :1], cache)
    with pytest.raises(fdl.InputError, match="4 positions are written and 3 come"):
        layer.decode(params, X[:, :3], layer.decode(params, X[:, :4], layer.init_cache(B, T))[1])


def test_more_than_the_whole_cache_is_an_error_even_while_tracing():
    layer = Attention(D, 4, causal=True)
    with pytest.raises(fdl.InputError, match="6 come, but the cache holds 5"):
        jax.jit(layer.decode)(initialised(layer), X, layer.init_cache(B, 5))


def test_past_the_end_inside_a_program_gives_nan_from_there_on():
    """`dynamic_update_slice` alone would overwrite the last position and answer as if nothing had happened."""
    layer = Attention(D, 4, causal=True)
    params = initialised(layer)

    @jax.jit
    def run(cache: Any) -> Any:
        def step(cache: Any, x: Any) -> Any:
            y, cache = layer.decode(params, x[:, None], cache)
            return cache, y[:, 0]

        return jax.lax.scan(step, cache, X.swapaxes(0, 1))

    cache, y = run(layer.init_cache(B, 4))
    assert np.isnan(y[4:]).all()
    close(y[:4].swapaxes(0, 1), layer(params, X)[:, :4])
    with pytest.raises(fdl.InputError, match="6 positions are written"):  # and outside again it is an error
        layer.decode(params, X[:, :1], cache)
    late, _ = jax.jit(layer.decode)(params, X[:, :3], layer.decode(params, X[:, :2], layer.init_cache(B, 4))[1])
    assert np.isnan(late).all()  # a block that fits in part is no answer either


# --- masks, contexts, dropout ---


def test_a_padded_batch_is_each_sequence_alone():
    for layer in (Attention(D, 4), Attention(D, 4, num_kv_heads=2, causal=True, window=3, rotary=Rotary())):
        params = initialised(layer)
        padded: Any = np.where(np.arange(T)[:, None] < 4, X, 1e3).astype(np.float32)
        y = layer(params, padded, mask=padding_mask(jnp.array([6, 4]), T) | (np.arange(B) == 0)[:, None])
        close(y[1:, :4], layer(params, X[1:, :4]))


def test_the_forms_of_a_mask():
    layer = Attention(D, 4)
    params = initialised(layer)
    padding: Any = np.asarray(padding_mask(jnp.array([3, 5]), T))
    y = layer(params, X, mask=padding)
    for shape in ((B, 1, 1, T), (B, 1, T, T), (B, 4, T, T)):
        mask: Any = np.broadcast_to(padding[:, None, None], shape)
        np.testing.assert_array_equal(layer(params, X, mask=mask), y)
    causal: Any = np.tril(np.ones((1, 1, T, T), bool))
    np.testing.assert_array_equal(layer(params, X, mask=causal), Attention(D, 4, causal=True)(params, X))


def test_a_query_that_sees_no_key_gives_the_bias_and_no_nan():
    layer = Attention(D, 4)
    params = initialised(layer)
    mask: Any = np.array([[True] * T, [False] * T])

    def loss(params: Any, x: Any) -> Any:
        y = layer(params, x, mask=mask)
        return jnp.square(y).sum(), y

    gradients, y = jax.grad(loss, (0, 1), has_aux=True)(params, X)
    np.testing.assert_array_equal(y[1], np.broadcast_to(params["out"]["bias"], (T, D)))
    assert all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))
    assert (gradients[1][1] == 0).all()


def test_cross_attention_is_attention_over_both_without_what_is_its_own():
    layer = Attention(D, 4, num_kv_heads=2)
    params = initialised(layer)
    both: Any = np.concatenate([X, CONTEXT], 1)
    mask: Any = np.broadcast_to(np.arange(T + 4) >= T, (B, T + 4))
    close(layer(params, X, context=CONTEXT), layer(params, both, mask=mask)[:, :T])
    close(layer(params, X, context=CONTEXT, mask=mask[:, T:]), layer(params, X, context=CONTEXT))
    other = Attention(D, 4, context_features=3)
    y = other(initialised(other), X, context=CONTEXT[..., :3])
    assert y.shape == X.shape


def test_dropout_is_for_training_and_needs_a_key():
    layer = Attention(D, 4, dropout_rate=0.5)
    params = initialised(layer)
    np.testing.assert_array_equal(layer(params, X), Attention(D, 4)(params, X))
    y = layer(params, X, key=key(1), train=True)
    np.testing.assert_array_equal(y, layer(params, X, key=key(1), train=True))
    assert (np.asarray(y) != layer(params, X, key=key(2), train=True)).all()
    with pytest.raises(fdl.InputError, match=r"Attention\(16, 4, dropout_rate=0\.5\): train=True needs randomness"):
        layer(params, X, train=True)
    swept = jax.jit(lambda rate: Attention(D, 4, dropout_rate=rate)(params, X, key=key(1), train=True))
    close(swept(0.5), y)


@pytest.mark.parametrize("shape", [(1, 1, D), (1, 0, D), (0, 3, D)])
def test_short_and_empty_sequences(shape: tuple[int, ...]):
    layer = Attention(D, 4, causal=True, rotary=Rotary())
    params = initialised(layer)
    x: Any = np.ones(shape, np.float32)
    y, gradient = jax.value_and_grad(lambda x: layer(params, x).sum())(x)
    assert np.isfinite(y)
    assert np.isfinite(gradient).all()
    assert layer(params, x).shape == layer.decode(params, x, layer.init_cache(shape[0], 4))[0].shape == shape


def test_implementations_agree():
    layers = [
        Attention(D, 4, num_kv_heads=2, causal=True, implementation=name) for name in ("einsum", "chunked", "fused")
    ]
    params = initialised(layers[0])
    for layer in layers[1:]:
        close(layer(params, X), layers[0](params, X))


WRONG: dict[str, Any] = {
    "heads": (lambda: Attention(D, 3), ["num_heads must divide features", "features=16, num_heads=3"]),
    "key heads": (lambda: Attention(D, 4, num_kv_heads=3), ["num_kv_heads=3"]),
    "no heads": (lambda: Attention(D, 0), ["num_heads: expected a whole number >= 1, got 0"]),
    "window": (lambda: Attention(D, 4, window=0), ["window: expected a whole number >= 1"]),
    "odd heads and rotary": (lambda: Attention(12, 4, rotary=Rotary()), ["heads of an even size, got 3"]),
    "layout": (lambda: Rotary(layout="halves"), ["no layout 'halves'; did you mean 'half'"]),  # pyright: ignore
    "implementation": (lambda: Attention(D, 4, implementation="flash"), ["no implementation 'flash'"]),  # pyright: ignore
    "rate": (lambda: Attention(D, 4, dropout_rate=1.5), ["expected 0..1, got 1.5"]),
    "features": (lambda: called(X[..., :3]), ["features=16", "[2, 6, 3]"]),
    "a sequence without batch": (lambda: called(X[0]), ["add the leading axis, x[None]"]),
    "channels first": (lambda: called(X.swapaxes(1, 2)), ["channels come last"]),
    "float mask": (lambda: called(X, mask=np.ones((B, T), np.float32)), ["booleans (True = may see)", "float32[2, 6]"]),
    "mask of another length": (lambda: called(X, mask=np.ones((B, 5), bool)), ["[2, 6] over the keys", "bool[2, 5]"]),
    "mask [T, T]": (lambda: called(X, mask=np.ones((T, T), bool)), ["[2, 6] over the keys", "bool[6, 6]"]),
    "context of other features": (lambda: called(X, context=CONTEXT[..., :3]), ["context of shape", "[2, 4, 3]"]),
    "context of another batch": (lambda: called(X, context=CONTEXT[:1]), ["context of shape [2", "[1, 4, 16]"]),
    "causal cross attention": (lambda: called(X, {"causal": True}, context=CONTEXT), ["no order between them"]),
    "decode that sees the future": (lambda: decoded({}), ["decode needs causal=True"]),
    "cache of another batch": (lambda: decoded({"causal": True}, batch=3), ["float32[2, 8, 4, 4], got float32[3, 8"]),
    "cache of another dtype": (
        lambda: decoded({"causal": True}, dtype=jnp.bfloat16), ["got bfloat16", "init_cache(batch, length, dtype)"],
    ),
    "mask of the wrong length": (
        lambda: decoded({"causal": True}, mask=np.ones((B, T), bool)), ["[2, 8] over the keys", "bool[2, 6]"],
    ),
}  # fmt: skip


def called(x: Any, fields: Any = {}, **keywords: Any) -> Any:  # noqa: B006
    layer = Attention(D, 4, **fields)
    return layer(initialised(layer), x, **keywords)


def decoded(fields: Any, batch: int = B, dtype: Any = jnp.float32, **keywords: Any) -> Any:
    layer = Attention(D, 4, **fields)
    return layer.decode(initialised(layer), jnp.asarray(X), layer.init_cache(batch, 8, dtype), **keywords)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused_with_the_fix(name: str):
    function, said = WRONG[name]
    with pytest.raises(fdl.InputError) as error:
        function()
    for words in said:
        assert words in str(error.value)
