"""Positions as layers that add them to x, and as the record of a rotation that `Attention` takes."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fdl.core import Initializer, Layer, Param, Tree
from fdl.errors import InputError
from fdl.fields import Positive, Size, check_fields
from fdl.initializers import Normal
from fdl.nn.embedding import look_up
from fdl.ops.rotary import Layout, check_rotary, rotary, sinusoidal
from fdl.ops.shared import shared
from fdl.records import record_source, short
from fdl.shapes import certainly, expect


@dataclass(frozen=True)
class Rotary:
    """Rotary positions for queries and keys, the field `rotary` of `Attention`; not a layer, for it has no parameters.

    Args:
      base: of the wavelengths; raised for long contexts (Llama 3: 500000).
      layout: "half" or "interleaved", the pairs that are turned: see `fdl.ops.rotary`.
    Call: x [B, T, H, K], positions [T] or [B, T] -> x's shape and dtype.

    Raises:
      InputError: an unknown layout; a head of odd size.

    Reference: Su et al., RoFormer, 2021, section 3.2.2.

    >>> Rotary()(jnp.array([1.0, 0.0]).reshape(1, 1, 1, 2), jnp.array([1])).ravel().round(4).tolist()
    [0.5403..., 0.8414...]
    """

    base: Positive = 10000.0
    layout: Layout = "half"

    def __post_init__(self) -> None:
        check_fields(self)
        check_rotary("Rotary", 2, self.layout)

    def __repr__(self) -> str:
        return record_source(self)

    def __call__(self, x: jax.Array, positions: jax.Array) -> jax.Array:
        return rotary(x, positions, self.base, self.layout)


@dataclass(frozen=True)
class SinusoidalPositions(Layer):
    """y[t] = x[t] + table[t], table[t, 2i] = sin(t / base^(2i / features)), table[t, 2i + 1] = cos of the same.

    Args:
      features: size of the last axis, even.
      base: of the wavelengths.
    Call: x [B, T, features], any T -> same shape and dtype.
      positions: integers [T] or [B, T], 0 ... T - 1 unless given.

    The paper multiplies the embeddings by sqrt(features) before it adds these; this layer does not.

    Raises:
      InputError: features odd.

    Reference: Vaswani et al., Attention is all you need, 2017, section 3.5.

    >>> SinusoidalPositions(4)({}, jnp.zeros((1, 1, 4))).tolist()
    [[[0.0, 1.0, 0.0, 1.0]]]
    """

    features: Size
    base: Positive = 10000.0

    def __post_init__(self) -> None:
        if self.features % 2:
            raise InputError(f"SinusoidalPositions: expected an even number of features, got {self.features}")

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        positions: jax.Array | None = None,
    ) -> jax.Array:
        del params, key, train
        expect(self, x, "[B, T, features]")
        table = sinusoidal(_positions(self, x, positions), self.features, self.base)
        return x + table.astype(x.dtype)


@dataclass(frozen=True)
class LearnedPositions(Layer):
    """y[t] = x[t] + embedding[t].

    Args:
      length: the longest sequence.
      features: size of the last axis.
    Call: x [B, T <= length, features] -> same shape and dtype.
      positions: integers [T] or [B, T], 0 ... T - 1 unless given. One beyond the table is an error where it can be seen
        and gives NaN inside a compiled program.

    Raises:
      InputError: a sequence longer than the table, or a position outside it.

    PyTorch and Flax have no such layer; it is an Embedding of the positions there. `dynamic_slice` of the table would
    return its last rows for positions past the end.

    Reference: Gehring et al., Convolutional sequence to sequence learning, 2017, section 3.1.

    >>> import fdl
    >>> params, _ = fdl.init(LearnedPositions(8, 3), jax.random.key(0))
    >>> y = LearnedPositions(8, 3)(params, jnp.zeros((2, 5, 3)))
    >>> bool((y == params["embedding"][:5]).all())
    True
    """

    length: Size
    features: Size
    embedding_init: Initializer = Normal(0.02)
    axes: tuple[str | None, str | None] = (None, "embed")

    def specs(self) -> Tree:
        return {"embedding": Param((self.length, self.features), self.embedding_init, self.axes)}

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        positions: jax.Array | None = None,
    ) -> jax.Array:
        del key, train
        expect(self, x, "[B, T, features]")
        if positions is None and certainly(lambda: x.shape[1] > self.length):
            raise InputError(f"{short(self)}: x has {x.shape[1]} positions, the table {self.length}; make it longer")
        return x + shared(look_up(short(self), "position", params["embedding"], _positions(self, x, positions)), x)


def _positions(layer: Layer, x: jax.Array, positions: jax.Array | None) -> jax.Array:
    if positions is None:
        return jnp.arange(x.shape[1])
    if jnp.shape(positions) not in ((x.shape[1],), x.shape[:2]):
        wanted = f"[{x.shape[1]}] or {list(x.shape[:2])}"
        raise InputError(f"{short(layer)}: expected positions of shape {wanted}, got {list(jnp.shape(positions))}")
    return positions
