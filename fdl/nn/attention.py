"""Multi-head attention, with a cache for decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer

from fdl.core import Initializer, Layer, Tree
from fdl.errors import InputError
from fdl.fields import DropRate, Flag, Size
from fdl.initializers import LecunNormal
from fdl.nn.lengths import real_steps, without_padding
from fdl.nn.maps import Maps, Projection
from fdl.nn.positions import Rotary
from fdl.ops import attention as ops
from fdl.ops.rotary import check_rotary
from fdl.records import short
from fdl.shapes import expect


@dataclass(frozen=True)
class Attention(Maps):
    """y = concat_h(softmax(q_h k_h^T / sqrt(K)) v_h) @ out, where q, k and v are x @ query, x @ key and x @ value.

    A query that may see no key gives the bias of `out`, that is 0 + bias.

    Args:
      features: size of the last axis of x and y; a head has K = features / num_heads.
      num_heads: heads of the queries.
      num_kv_heads: heads of keys and values, a divisor of num_heads (grouped-query attention; 1: multi-query).
      causal: position t sees the positions s <= t.
      window: position t sees |t - s| < window; with `causal` the last `window` positions, its own included.
      rotary: a `Rotary` turns queries and keys by their positions.
      context_features: size of the last axis of `context`, where it is not `features`.
      use_bias: of all four projections. Without `rotary` the bias of the keys has no gradient: it adds the same number
        to all scores of a query, and the softmax takes it away again.
      dropout_rate: of the weights of the softmax, in training.
      implementation: "einsum", "chunked" (linear memory), "fused", or None: see `fdl.ops.dot_product_attention`.
      replaced: layers in place of the maps, as `fdl.edit(model, ".../query", ...)` puts them.
    Call: x [B, T, features] -> same shape and dtype.
      context: [B, S, context_features], a second sequence for keys and values (cross attention); in a container every
        layer that takes a context gets it.
      mask: booleans, True = may see; [B, S] over the keys (padding: `fdl.ops.padding_mask`), or [B or 1, H or 1, T, S].
      lengths: integers [B], of x; behind them is padding, see `fdl.nn.lengths`. Of a context it needs a mask.
    Memory: `init_cache(batch, length)`, `decode(params, x, cache)`.

    PyTorch's `MultiheadAttention` holds query, key and value as rows of `in_proj_weight` [3 D, D], masks with
    True = may *not* see, and draws Xavier uniform over all three as one matrix. Flax's `MultiHeadDotProductAttention`
    has the names and shapes of here, and averages all values for a query that sees no key.

    Raises:
      InputError: sizes that do not divide, shapes that do not fit; a context where order matters (causal, window,
        rotary), for positions of two sequences have none between them.

    References: Vaswani et al., Attention is all you need, 2017, section 3.2.2; Ainslie et al., GQA, 2023.

    >>> import fdl
    >>> layer = Attention(8, num_heads=4, num_kv_heads=2, causal=True, rotary=Rotary())
    >>> params, _ = fdl.init(layer, jax.random.key(0))
    >>> x = jax.random.normal(jax.random.key(1), (2, 5, 8))
    >>> y, cache = layer.decode(params, x[:, :4], layer.init_cache(batch=2, length=5))
    >>> last, cache = layer.decode(params, x[:, 4:], cache)
    >>> bool(jnp.allclose(layer(params, x)[:, 4:], last, atol=1e-5))
    True
    """

    features: Size
    num_heads: Size
    num_kv_heads: Size | None = None
    causal: Flag = False
    window: Size | None = None
    rotary: Rotary | None = None
    context_features: Size | None = None
    use_bias: Flag = True
    dropout_rate: DropRate = 0.0
    implementation: ops.Implementation | None = None
    kernel_init: Initializer = LecunNormal(in_axis=0, out_axis=(1, 2))
    out_init: Initializer = LecunNormal(in_axis=(0, 1), out_axis=2)
    replaced: tuple[tuple[str, Layer], ...] = ()

    def __post_init__(self) -> None:
        if self.features % self.num_heads or self.num_heads % self.kv_heads:
            raise InputError(
                f"Attention: num_heads must divide features and num_kv_heads must divide num_heads, got "
                f"features={self.features}, num_heads={self.num_heads}, num_kv_heads={self.kv_heads}"
            )
        if self.rotary is not None:
            check_rotary("Attention", self.head_features, self.rotary.layout)
        ops.check_implementation("Attention", self.implementation)

    @property
    def kv_heads(self) -> int:
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def head_features(self) -> int:
        return self.features // self.num_heads

    def plain_maps(self) -> dict[str, Layer]:
        D, H = self.features, (self.num_heads, self.head_features)
        C = D if self.context_features is None else self.context_features
        return {
            "query": self._to_heads(D, self.num_heads, "heads"),
            "key": self._to_heads(C, self.kv_heads, "kv_heads"),
            "value": self._to_heads(C, self.kv_heads, "kv_heads"),
            "out": Projection(H, (D,), self.use_bias, self.out_init, ("heads", "head_dim", "embed")),
        }

    def _to_heads(self, features: int, heads: int, axis: str) -> Projection:
        shape, axes = (heads, self.head_features), ("embed", axis, "head_dim")
        return Projection((features,), shape, self.use_bias, self.kernel_init, axes)

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        context: jax.Array | None = None,
        mask: jax.Array | None = None,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        expect(self, x, "[B, T, features]")
        real = real_steps(self, x, lengths)
        x = without_padding(x, real)
        source = x if context is None else self._checked_context(x, context)
        rate = self.dropout_rate if train else 0.0
        if key is None and not (isinstance(rate, float | int) and rate == 0):
            raise InputError(f"{short(self)}: train=True needs randomness; pass key=")
        q, k, v = self._project(params, x, source, jnp.arange(x.shape[1]))
        mask = self._scores_mask(mask, x.shape[0], source.shape[1])
        if real is not None and context is None:
            mask = ops.both(mask, real[:, None, None, :])
        order = {"causal": self.causal, "window": self.window, "implementation": self.implementation}
        y = self._out(params, ops.dot_product_attention(q, k, v, mask=mask, dropout_rate=rate, key=key, **order))
        return without_padding(y, real)

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> Tree:
        """An empty memory of `length` positions for `batch` sequences, in the dtype of the x that `decode` will get.

        {"key", "value": [batch, length, kv_heads, K], "index": the number of positions written, int32}. With a window
        it holds all positions nevertheless.
        """
        shape = (batch, length, self.kv_heads, self.head_features)
        return {"key": jnp.zeros(shape, dtype), "value": jnp.zeros(shape, dtype), "index": jnp.zeros((), jnp.int32)}

    def decode(
        self, params: Tree, x: jax.Array, cache: Tree, *, mask: jax.Array | None = None
    ) -> tuple[jax.Array, Tree]:
        """The next T positions of sequences whose past is in the cache: `(y [B, T, features], cache)`.

        T > 1 (prefill) and T = 1 (a step) are the same function, and any split of a sequence gives the y of the whole.

        Args:
          mask: booleans over the positions of the cache, [B, length] or [B or 1, H or 1, T, length], for prompts padded
            on the *left*.

        Past its length the cache is never overwritten unseen. Inside a compiled program, which cannot raise, the index
        is unknown: there y is NaN from the first overflow on. (An argmax of NaN is 0: a loop that generates compares
        the number of its steps with the length beforehand.)

        Raises:
          InputError: more positions than the cache has left; a cache of other sizes or dtype; a layer that is not
            causal.
        """
        expect(self, x, "[B, T, features]")
        length, index = self._check_cache(x, cache), cache["index"]
        positions = index + jnp.arange(x.shape[1], dtype=jnp.int32)
        q, *new = self._project(params, x, x, positions)
        start = (0, index, 0, 0)
        k, v = (
            jax.lax.dynamic_update_slice(cache[name], a, start) for name, a in zip(("key", "value"), new, strict=True)
        )
        # What is not yet written comes after every query, so that being causal hides it.
        order = ops.position_mask(positions, jnp.arange(length), self.causal, self.window)
        mask = ops.both(self._scores_mask(mask, x.shape[0], length), None if order is None else order[None, None])
        z = ops.dot_product_attention(q, k, v, mask=mask, implementation=self.implementation)
        index += x.shape[1]
        return jnp.where(index <= length, self._out(params, z), jnp.nan), {"key": k, "value": v, "index": index}

    def _project(self, params: Tree, x: jax.Array, source: jax.Array, positions: jax.Array) -> tuple[jax.Array, ...]:
        """q from x, k and v from the source, each [B, T, heads, K]."""

        maps = self.maps()
        q, k, v = (maps[name](params[name], a) for name, a in (("query", x), ("key", source), ("value", source)))
        if self.rotary is not None:
            q, k = self.rotary(q, positions), self.rotary(k, positions)
        return q, k, v

    def _out(self, params: Tree, z: jax.Array) -> jax.Array:
        return self.maps()["out"](params["out"], z)

    def _scores_mask(self, mask: jax.Array | None, B: int, S: int) -> jax.Array | None:
        if mask is None or (mask.ndim == 4 and mask.dtype == bool):
            return mask  # the sizes of four axes are checked against the scores
        if mask.shape != (B, S) or mask.dtype != bool:
            wanted = f"booleans (True = may see) [{B}, {S}] over the keys or [B or 1, H or 1, T, {S}]"
            raise InputError(f"{short(self)}: mask: expected {wanted}, got {mask.dtype}{list(mask.shape)}")
        return mask[:, None, None, :]

    def _checked_context(self, x: jax.Array, context: jax.Array) -> jax.Array:
        expect(self, context, f"[{x.shape[0]}, S, {self.context_features or self.features}]", "context")
        if self.causal or self.window is not None or self.rotary is not None:
            raise InputError(
                f"{short(self)}: positions of x and of a context have no order between them; "
                "cross attention takes causal=False, window=None and rotary=None"
            )
        return context

    def _check_cache(self, x: jax.Array, cache: Tree) -> int:
        """The cache's length, if what it holds is this layer's and it has room for x."""
        (B, T, _), (_, length, *_), index = x.shape, cache["key"].shape, cache["index"]
        if not self.causal:
            raise InputError(
                f"{short(self)}: decode needs causal=True, or earlier positions would have to see later ones"
            )
        want = f"{x.dtype}{[B, length, self.kv_heads, self.head_features]}"
        for name in ("key", "value"):
            if (got := f"{cache[name].dtype}{list(cache[name].shape)}") != want:
                raise InputError(
                    f"{short(self)}: cache {name!r}: expected {want}, got {got}; see init_cache(batch, length, dtype)"
                )
        written = 0 if isinstance(index, Tracer) else int(index)
        if written + T > length:
            raise InputError(
                f"{short(self)}: {written} positions are written and {T} come, but the cache holds {length}"
            )
        return length
