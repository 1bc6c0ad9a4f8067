"""`lengths` in one meaning for every layer that sees time: integers [B]; step t of x [B, T, ...] is real if t < length.

What follows a sequence's length is padding. It changes no real step, y is 0 there, and no gradient flows. So a model
gives a padded sequence what it gives the sequence alone, whichever layers it is made of. A layer whose y has other
steps, such as a pool over windows of time, refuses lengths, for those of its result are others. Layers that treat every
step alone (`Linear`, `LayerNorm`, `Dropout`) do not name them. In an x without time, lengths say nothing: images
[B, H, W, C], and [B, F] behind a pool over all of time, pass through as they are.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import InputError
from fdl.ops.recurrent import length_mask
from fdl.shapes import expect


def real_steps(layer: Any, x: jax.Array, lengths: Any, name: str = "lengths") -> jax.Array | None:
    """Which steps of x [B, T, ...] are real, booleans [B, T]; None without lengths.

    Raises:
      InputError: lengths that are not integers [B].
    """
    if lengths is None:
        return None
    expect(layer, lengths, f"[{x.shape[0]}]", name)
    return length_mask(lengths, x.shape[1])


def real_steps_of_sequence(layer: Any, x: jax.Array, lengths: Any) -> jax.Array | None:
    """`real_steps` where x is a sequence [B, T, F]; None where it has no time."""
    return real_steps(layer, x, lengths) if jnp.ndim(x) == 3 else None


def without_padding(x: jax.Array, real: jax.Array | None) -> jax.Array:
    """x with zeros in its padding: a NaN there would come back as 0 * NaN, in the gradient too."""
    if real is None:
        return x
    return jnp.where(jnp.expand_dims(real, tuple(range(2, x.ndim))), x, jnp.zeros_like(x))


def refuse_lengths(layer: Any, x: jax.Array, lengths: Any) -> None:
    """Raises where a sequence [B, T, F] has lengths: the result of the layer has other steps.

    Raises:
      InputError: the record, and the way out.
    """
    if lengths is not None and jnp.ndim(x) == 3:
        raise InputError(
            f"{layer!r} changes the number of steps of x {list(jnp.shape(x))}, so lengths= do not hold behind it; "
            "call it by itself, and go on with the lengths of its result"
        )
