"""Positions as functions: the rotation of RoFormer and the sinusoids of the Transformer, computed in float32."""

from __future__ import annotations

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from fdl.errors import InputError, did_you_mean
from fdl.ops.norm import widen

Layout = Literal["half", "interleaved"]


def rotary(x: jax.Array, positions: jax.Array, base: float | jax.Array = 10000.0, layout: Layout = "half") -> jax.Array:
    """Turns pair i of the features of a head by the angle position * base^(-2i / K).

    The scalar product of a query at t and a key at s then depends on t - s alone.

    Args:
      x: queries or keys [B, T, H, K], K even.
      positions: integers [T] or [B, T].
      base: of the wavelengths, 2 pi to 2 pi * base.
      layout: which features are pair i. "half": i and i + K / 2 (GPT-NeoX, Llama in Hugging Face's form).
        "interleaved": 2i and 2i + 1 (the paper, GPT-J, Llama in Meta's form). Weights made for one fit the other once
        the features of each head of query and key are permuted.

    Returns:
      x's shape and dtype. An angle is exact to about 1e-7 * position, the rounding of float32.

    Raises:
      InputError: K odd, positions of another shape or not integers, an unknown layout.

    PyTorch has no such function; torchtune's is "interleaved".

    Reference: Su et al., RoFormer: enhanced transformer with rotary position embedding, 2021, section 3.2.2.

    >>> x = jnp.array([1.0, 0.0]).reshape(1, 1, 1, 2)
    >>> rotary(x, jnp.array([1])).ravel().tolist()  # cos 1, sin 1
    [0.5403..., 0.8414...]
    """
    check_rotary("rotary", jnp.shape(x)[-1], layout)
    if x.ndim != 4 or jnp.shape(positions) not in ((x.shape[1],), x.shape[:2]):
        raise InputError(
            f"rotary: expected x [B, T, H, K] and positions [T] or [B, T], got {list(x.shape)} and "
            f"{list(jnp.shape(positions))}"
        )
    angles = _angles(positions, x.shape[-1], base)[..., None, :]  # the same for every head
    wide = widen(x)
    cos, sin = jnp.cos(angles).astype(wide.dtype), jnp.sin(angles).astype(wide.dtype)
    half = x.shape[-1] // 2
    shape, axis = ((2, half), -2) if layout == "half" else ((half, 2), -1)
    pairs = wide.reshape(*x.shape[:-1], *shape)
    first, second = jnp.moveaxis(pairs, axis, 0)
    turned = jnp.stack([first * cos - second * sin, second * cos + first * sin], axis)
    return turned.reshape(x.shape).astype(x.dtype)


def sinusoidal(positions: jax.Array, features: int, base: float | jax.Array = 10000.0) -> jax.Array:
    """table[p, 2i] = sin(p * base^(-2i / features)), table[p, 2i + 1] = cos of the same angle.

    Args:
      positions: integers [...].
      features: even.

    Returns:
      [..., features], float32.

    Raises:
      InputError: features odd; positions that are no integers.

    Their code, unlike their paper, has all sines before all cosines.

    Reference: Vaswani et al., Attention is all you need, 2017, section 3.5.

    >>> sinusoidal(jnp.arange(2), 2).tolist()
    [[0.0, 1.0], [0.8414..., 0.5403...]]
    """
    if features < 2 or features % 2:
        raise InputError(
            f"sinusoidal: features come in pairs of a sine and a cosine, expected an even number, got {features}"
        )
    angles = _angles(positions, features, base)
    return jnp.stack([jnp.sin(angles), jnp.cos(angles)], -1).reshape(*angles.shape[:-1], features)


def check_rotary(where: str, size: int, layout: str) -> None:
    """Raises unless heads of that size can be turned in that layout."""
    if layout not in get_args(Layout):
        raise InputError(f"{where}: no layout {layout!r}{did_you_mean(layout, get_args(Layout))}")
    if size < 2 or size % 2:
        raise InputError(f"{where}: features are turned in pairs, expected heads of an even size, got {size}")


def _angles(positions: jax.Array, features: int, base: float | jax.Array) -> jax.Array:
    positions = jnp.asarray(positions)
    if not jnp.issubdtype(positions.dtype, jnp.integer):
        raise InputError(f"positions: expected integers, got {positions.dtype}")
    exponents = jnp.arange(0, features, 2, dtype=jnp.float32) / features
    return positions.astype(jnp.float32)[..., None] * jnp.asarray(base, jnp.float32) ** -exponents
