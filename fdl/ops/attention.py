"""Scaled dot-product attention in three forms that agree: einsum, chunked (linear memory) and fused (the backend's).

Shape suffixes: B batch, T queries, S keys, H query heads, G key heads, R = H / G query heads to a key head, K and V the
sizes of a head of keys and of values.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from fdl.errors import InputError, did_you_mean
from fdl.ops.dropout import dropout
from fdl.ops.norm import widen
from fdl.ops.recurrent import length_mask
from fdl.shapes import certainly

Implementation = Literal["einsum", "chunked", "fused"]
Visible = Callable[[jax.Array, jax.Array], jax.Array | None]

BLOCK = 256  # queries, and keys, to a block of "chunked": the fastest gradient of 64 ... 1024 on CPU
LONG = 2048  # from here on "chunked" is faster on CPU: its gradient 2.6 times (causal) and 1.7 times (otherwise)


def dot_product_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    mask: jax.Array | None = None,
    causal: bool = False,
    window: int | None = None,
    bias: jax.Array | None = None,
    scale: float | jax.Array | None = None,
    implementation: Implementation | None = None,
    dropout_rate: float | jax.Array = 0.0,
    key: jax.Array | None = None,
) -> jax.Array:
    """softmax(scale * q k^T + bias) v, over the keys that a query may see; 0 for a query that may see none.

    Args:
      q: queries [B, T, H, K].
      k, v: keys [B, S, G, K] and values [B, S, G, V], where G divides H: query head h reads key head h // (H / G).
      mask: booleans that broadcast to [B, H, T, S], True = may see. For lengths see `padding_mask`.
      causal: query t sees the keys s <= t, both counted from the start (as in PyTorch; FlashAttention: from the end).
      window: query t sees the keys with |t - s| < window; with `causal` the last `window` keys, its own included.
      bias: added to the scores, broadcasts to [B, H, T, S]; -inf hides a key.
      scale: of the scores, 1 / sqrt(K) unless given.
      implementation: None picks the first of "fused", "chunked" and "einsum" that has a `None:` clause which applies.
        "fused": `jax.nn.dot_product_attention`: cuDNN's kernel for float16 and bfloat16 on GPU, XLA's form elsewhere.
          None: where cuDNN has the case, which is those types on GPU, no bias, mask or dropout, more than one query, a
          window only with `causal`, K = V a multiple of 8 up to 128.
        "chunked": block by block. Memory, the gradient's too, grows with T + S instead of T * S (a mask or bias that is
          given aside), for which the gradient computes the scores again. None: on CPU from 2048 queries and keys on,
          without dropout.
        "einsum": the scores as one array. None: everywhere else.
      dropout_rate: the probability of dropping a weight of the softmax, with `key`; "einsum" only.

    Returns:
      [B, T, H, V] in q's dtype. The softmax is in float32, or wider where q is ("fused": in float32 always).

    Raises:
      InputError: shapes and dtypes that do not fit, a window below 1, an unknown implementation, or one that lacks what
        is asked of it.

    PyTorch: `scaled_dot_product_attention` with heads before positions, [B, H, T, K], and `enable_gqa=True`; a query
    that sees no key gives 0 there as well. Flax and `jax.nn` give the average of all values, and `jax.nn` counts a
    window without t itself.

    References: Vaswani et al., Attention is all you need, 2017, equation 1; Ainslie et al., GQA, 2023; Rabe & Staats,
    Self-attention does not need O(n^2) memory, 2021.

    >>> q = jnp.zeros((1, 3, 1, 2))
    >>> v = jnp.arange(3.0).reshape(1, 3, 1, 1)
    >>> dot_product_attention(q, q, v, causal=True).ravel().tolist()
    [0.0, 0.5, 1.0]
    """
    _check(q, k, v, mask, bias, window)
    drop = _dropout(dropout_rate, key)
    plain = mask is None and bias is None and (causal or window is None)
    chosen = _choose(implementation, _automatic(q, k, v, plain), drop is not None)
    if 0 in (*q.shape, k.shape[1]):
        return jnp.zeros((*q.shape[:3], v.shape[3]), q.dtype)
    scale = q.shape[3] ** -0.5 if scale is None else scale
    if chosen == "fused":
        return _fused(q, k, v, mask, bias, scale, causal, window)
    terms, visible = _grouped(q, k, v, mask, bias, scale), partial(position_mask, causal=causal, window=window)
    out_BGTRV = _chunked(terms, visible) if chosen == "chunked" else _einsum(terms, visible, drop)
    return jnp.moveaxis(out_BGTRV, 1, 2).reshape(*q.shape[:3], v.shape[3]).astype(q.dtype)


def padding_mask(lengths: jax.Array, length: int) -> jax.Array:
    """mask[b, s] = s < lengths[b], booleans [B, length], as `length_mask`; for attention, `mask[:, None, None, :]`.

    >>> padding_mask(jnp.array([1, 3]), 3).astype(int).tolist()
    [[1, 0, 0], [1, 1, 1]]
    """
    return length_mask(lengths, length)


def position_mask(queries: jax.Array, keys: jax.Array, causal: bool, window: int | None) -> jax.Array | None:
    """Which of the key positions [S] each of the query positions [T] may see, as booleans [T, S]; None is all of them.

    >>> position_mask(jnp.arange(4), jnp.arange(4), causal=True, window=2).astype(int).tolist()
    [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    """
    back = queries[:, None] - keys
    mask = back >= 0 if causal else None
    return mask if window is None else both(mask, jnp.abs(back) < window)


def both(a: jax.Array | None, b: jax.Array | None) -> jax.Array | None:
    """a & b for masks, where None is True everywhere."""
    if a is None or b is None:
        return b if a is None else a
    return a & b


class _Partial(NamedTuple):
    """Attention over some of the keys; `merge` makes it attention over more of them (Rabe & Staats, 2021, section 3).

    Its gradient is right with `top` taken for a constant, because `top` cancels in the result.
    """

    values: jax.Array  # [B, G, T, R, V], the sum of exp(score - top) v
    total: jax.Array  # [B, G, T, R], the sum of exp(score - top)
    top: jax.Array  # [B, G, T, R], the largest score, -inf where no key is seen

    def result(self) -> jax.Array:
        return self.values / jnp.where(self.total == 0.0, 1.0, self.total)[..., None]

    def merge(self, other: _Partial) -> _Partial:
        top = jnp.maximum(self.top, other.top)
        mine, theirs = jnp.exp(self.top - _finite(top)), jnp.exp(other.top - _finite(top))
        values = self.values * mine[..., None] + other.values * theirs[..., None]
        return _Partial(values, self.total * mine + other.total * theirs, top)


def _finite(top: jax.Array) -> jax.Array:
    """0 in place of -inf, for exp(-inf - -inf) would be NaN where 0 is meant."""
    return jnp.where(jnp.isneginf(top), 0.0, top)


def _partial(terms: dict[str, jax.Array], seen: jax.Array | None, drop: Callable | None = None) -> _Partial:
    """All queries of `terms` against all its keys, as far as they are `seen` [T, S].

    T and R are one axis in the products: XLA's CPU backend is three times slower on a product with both.
    """
    (B, T, R, G, K), k, v = terms["q"].shape, terms["k"], terms["v"]
    q, wide = terms["q"].reshape(B, T * R, G, K), terms["scale"].dtype
    scores = jnp.einsum("bxgk,bsgk->bgxs", q, k, preferred_element_type=wide) * terms["scale"]
    scores_BGTRS = scores.reshape(B, G, T, R, -1)
    if "bias" in terms:
        scores_BGTRS += terms["bias"].astype(wide)
    mask = both(terms.get("mask"), None if seen is None else seen[:, None])
    if mask is not None:
        scores_BGTRS = jnp.where(mask, scores_BGTRS, -jnp.inf)
    top = jax.lax.stop_gradient(scores_BGTRS.max(-1))
    weights_BGTRS = jnp.exp(scores_BGTRS - _finite(top)[..., None])
    total = weights_BGTRS.sum(-1)
    kept = (weights_BGTRS if drop is None else drop(weights_BGTRS)).astype(v.dtype).reshape(B, G, T * R, -1)
    values = jnp.einsum("bgxs,bsgv->bgxv", kept, v, preferred_element_type=wide)
    return _Partial(values.reshape(B, G, T, R, -1), total, top)


def _einsum(terms: dict[str, jax.Array], visible: Visible, drop: Callable | None) -> jax.Array:
    return _partial(terms, visible(*(jnp.arange(terms[name].shape[1]) for name in "qk")), drop).result()


def _chunked(terms: dict[str, jax.Array], visible: Visible) -> jax.Array:
    """Block of queries by block of queries. For the gradient only their inputs are kept."""
    T = terms["q"].shape[1]
    size = min(BLOCK, T)
    dtypes = {name: a.dtype for name, a in terms.items()}
    # widened before the loops, so that gradients are summed over their blocks in float32
    wide = {name: widen(a) if jnp.issubdtype(a.dtype, jnp.floating) else a for name, a in terms.items()}
    blocks, rest = _cut(wide, {"q": 1, "mask": 2, "bias": 2}, size)

    @partial(jax.checkpoint, prevent_cse=False)  # a loop keeps them apart already
    def attend(block: tuple[jax.Array, dict[str, jax.Array]]) -> jax.Array:
        start, cut = block
        return _over_keys(rest | cut, partial(visible, start + jnp.arange(size)), dtypes)

    out = jnp.moveaxis(jax.lax.map(attend, blocks), 0, 2)
    return out.reshape(*out.shape[:2], -1, *out.shape[4:])[:, :, :T]


def _over_keys(
    terms: dict[str, jax.Array], visible: Callable[[jax.Array], jax.Array | None], dtypes: dict[str, Any]
) -> jax.Array:
    """Block of keys by block of keys, each in its own `dtypes`, with running sums.

    A block that no query sees costs nothing.
    """
    (B, T, R, G, _), S, V = terms["q"].shape, terms["k"].shape[1], terms["v"].shape[3]
    size = min(BLOCK, S)
    blocks, rest = _cut(terms, {"k": 1, "v": 1, "mask": 4, "bias": 4}, size)

    @partial(jax.checkpoint, prevent_cse=False)
    def step(sums: _Partial, now: tuple[jax.Array, dict[str, jax.Array]]) -> tuple[_Partial, None]:
        start, cut = now
        keys = start + jnp.arange(size)
        near, real = visible(keys), jnp.broadcast_to(keys < S, (T, size))  # the last block is filled up
        seen = real if near is None else real & near
        block = {name: a.astype(dtypes[name]) for name, a in (rest | cut).items()}
        return jax.lax.cond(seen.any(), lambda: sums.merge(_partial(block, seen)), lambda: sums), None

    wide = terms["scale"].dtype
    zeros = jnp.zeros((B, G, T, R), wide)
    none = _Partial(jnp.zeros((B, G, T, R, V), wide), zeros, jnp.full_like(zeros, -jnp.inf))
    return jax.lax.scan(step, none, blocks)[0].result()


def _cut(
    terms: dict[str, jax.Array], axes: dict[str, int], size: int
) -> tuple[tuple[jax.Array, dict[str, jax.Array]], dict[str, jax.Array]]:
    """`((starts [n], arrays in n blocks), rest)` along the named axes, the last block filled up with zeros.

    The rest is what has no such axis or broadcasts along it.
    """
    moving = {name: a for name, a in terms.items() if name in axes and a.shape[axes[name]] > 1}
    n = max([-(-a.shape[axes[name]] // size) for name, a in moving.items()], default=1)

    def blocks(a: jax.Array, axis: int) -> jax.Array:
        fill = [(0, n * size - a.shape[axis] if i == axis else 0) for i in range(a.ndim)]
        cut = jnp.pad(a, fill).reshape(*a.shape[:axis], n, size, *a.shape[axis + 1 :])
        return jnp.moveaxis(cut, axis, 0)

    rest = {name: a for name, a in terms.items() if name not in moving}
    return (size * jnp.arange(n), {name: blocks(a, axes[name]) for name, a in moving.items()}), rest


def _fused(q: Any, k: Any, v: Any, mask: Any, bias: Any, scale: Any, causal: bool, window: int | None) -> jax.Array:
    """`jax.nn`'s form, with what differs put right: the window, keys hidden by -inf, queries that see no key."""
    T, S, dtype, cudnn = q.shape[1], k.shape[1], q.dtype, _on_gpu() and q.dtype.itemsize == 2
    if not cudnn:  # XLA's form mixes float32 into other types, and lacks float16
        q, k, v = (a.astype(jnp.float32) for a in (q, k, v))
    if bias is not None:
        hidden = jnp.isneginf(bias)
        mask = both(mask, ~hidden)
        bias = jnp.where(hidden, 0.0, bias.astype(q.dtype))
        bias = jnp.broadcast_to(bias, (*bias.shape[:2], T, S))
    seen = position_mask(jnp.arange(T), jnp.arange(S), causal, window)
    seen = None if seen is None else seen[None, None]
    if window is not None and not causal:  # cuDNN has windows to the left only
        mask = both(mask, seen)
    if mask is not None:
        mask = jnp.broadcast_to(mask, (*mask.shape[:2], T, S))
    local = (window - 1, 0) if window is not None and causal else None
    backend = {"local_window_size": local, "implementation": "cudnn" if cudnn else "xla"}
    out = jax.nn.dot_product_attention(q, k, v, bias, mask, scale=scale, is_causal=causal, **backend).astype(dtype)
    every = both(mask, seen)
    return out if every is None else jnp.where(jnp.moveaxis(every.any(-1, keepdims=True), 1, 2), out, 0.0)


def _grouped(q: Any, k: Any, v: Any, mask: Any, bias: Any, scale: Any) -> dict[str, jax.Array]:
    """The terms by name, H as G and R: q [B, T, R, G, K], mask and bias [B, G, T, R, S] (or 1 where they have 1)."""
    (B, T, _, K), G = q.shape, k.shape[2]
    terms = {"q": jnp.swapaxes(q.reshape(B, T, G, -1, K), 2, 3), "k": k, "v": v}
    terms["scale"] = jnp.asarray(scale, jax.eval_shape(widen, q).dtype)
    for name, a in (("mask", mask), ("bias", bias)):
        if a is not None:
            heads = (1, 1) if a.shape[1] == 1 else (G, -1)
            terms[name] = jnp.moveaxis(a.reshape(a.shape[0], *heads, *a.shape[2:]), 2, 3)
    return terms


def _on_gpu() -> bool:
    return jax.default_backend() == "gpu"


def _automatic(q: Any, k: Any, v: Any, plain: bool) -> str:
    (_, T, _, K), S = q.shape, k.shape[1]
    if _on_gpu() and q.dtype.itemsize == 2 and plain and T > 1 and K == v.shape[3] <= 128 and K % 8 == 0:
        return "fused"
    return "chunked" if jax.default_backend() == "cpu" and certainly(lambda: min(T, S) >= LONG) else "einsum"


def _choose(implementation: str | None, automatic: str, drops: bool) -> str:
    check_implementation("attention", implementation)
    if drops and implementation not in (None, "einsum"):
        raise InputError(f"attention: {implementation!r} has no dropout; use 'einsum' or dropout_rate=0")
    return implementation or ("einsum" if drops else automatic)


def check_implementation(where: str, implementation: str | None) -> None:
    """Raises unless it is None or one of `Implementation`."""
    names = get_args(Implementation)
    if implementation is not None and implementation not in names:
        raise InputError(f"{where}: no implementation {implementation!r}{did_you_mean(implementation, names)}")


def check_window(where: str, window: int | None) -> None:
    """Raises unless it is None or a whole number >= 1."""
    if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
        raise InputError(
            f"{where}: window: expected a whole number >= 1 (1 sees its own position only), got {window!r}"
        )


def _dropout(rate: float | jax.Array, key: jax.Array | None) -> Callable[[jax.Array], jax.Array] | None:
    if isinstance(rate, float | int) and rate == 0:
        return None
    if key is None:
        raise InputError("attention: dropout needs randomness; pass key=")
    return lambda weights: dropout(weights, rate, key)


def _check(q: Any, k: Any, v: Any, mask: Any, bias: Any, window: int | None) -> None:
    shapes = {name: list(jnp.shape(a)) for name, a in (("q", q), ("k", k), ("v", v))}
    got = ", ".join(f"{name} {a.dtype}{shapes[name]}" for name, a in (("q", q), ("k", k), ("v", v)))
    if any(len(shape) != 4 or 0 in shape[2:] for shape in shapes.values()):
        raise InputError(f"attention: expected q [B, T, H, K], k [B, S, G, K] and v [B, S, G, V], got {got}")
    (B, T, H, K), (_, S, G, _) = shapes["q"], shapes["k"]
    if shapes["k"] != [B, S, G, K] or shapes["v"][:3] != [B, S, G]:
        raise InputError(f"attention: batch, head size, keys and key heads must agree, got {got}")
    if H % G:
        raise InputError(f"attention: {G} key heads do not divide {H} query heads (heads are axis 2), got {got}")
    if not (q.dtype == k.dtype == v.dtype and jnp.issubdtype(q.dtype, jnp.floating)):
        raise InputError(f"attention: expected one floating dtype, got {got}")
    check_window("attention", window)
    for name, a, kind in (("mask", mask, jnp.bool_), ("bias", bias, jnp.floating)):
        if a is not None:
            _check_scores(name, a, kind, (B, H, T, S))


def _check_scores(name: str, a: jax.Array, kind: Any, scores: tuple[int, ...]) -> None:
    """Four axes are asked for: by plain broadcasting a padding mask [B, S] would be taken for [T, S]."""
    got = f"{a.dtype}{list(a.shape)}"
    if a.ndim != 4 or any(have not in (1, want) for have, want in zip(a.shape, scores, strict=True)):
        hint = "; for padding [B, S]: mask[:, None, None, :]" if name == "mask" and a.ndim == 2 else ""
        raise InputError(f"attention: {name}: expected a shape that broadcasts to {list(scores)}, got {got}{hint}")
    if not jnp.issubdtype(a.dtype, kind):
        other = "booleans, True = may see; what is added to the scores is bias="
        raise InputError(f"attention: {name}: expected {other if name == 'mask' else 'floats'}, got {got}")
