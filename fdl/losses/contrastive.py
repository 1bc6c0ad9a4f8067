"""Contrastive losses, in which the examples of a batch are each other's negatives."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from fdl.errors import InputError
from fdl.losses.contract import floats, last_axis, option, same_shape
from fdl.losses.stable import direction, logsumexp_parts

RULED_OUT = -1e30
"""A similarity that wins against nothing; finite, so that a row of nothing else has a gradient."""


def nt_xent(
    first: ArrayLike,
    second: ArrayLike,
    *,
    temperature: ArrayLike = 0.1,
    mask: ArrayLike | None = None,
) -> jax.Array:
    """Per pair i, the mean over both views z of -log(e^(s(z, z') / t) / sum over the others k of e^(s(z, k) / t)).

    s is the cosine similarity, z' the other view of the same example, and the others are all 2 B - 1 views but z.

    Args:
      first, second: [B, D], two views of the same B examples, row by row. A vector shorter than 1e-12 has similarity 0
        to all and gradient 0.
      temperature: t, above 0 (0.1 in the paper's ImageNet runs, 0.5 for CIFAR-10). May be traced (swept).
      mask: [B] booleans, False = padding: such a row is nobody's negative and has loss 0. Its weight must be 0 too.

    Returns:
      [B], float32 (or wider). **A row depends on its whole batch**: another batch size is another loss, and rows that
      pad a batch are negatives unless `mask` says so. Evaluate with a batch size that divides the set.

    Raises:
      InputError: shapes that differ or are not [B, D]; D = 0; a mask that is not [B] booleans; temperature not above 0.

    Chen et al., A simple framework for contrastive learning of visual representations, 2020, equation 1. PyTorch has
    none. `optax.losses.ntxent` takes group labels instead of two views and returns one scalar.

    >>> x = jnp.eye(2)  # s = 1 to the other view, 0 to both views of the other example: log(1 + 2 / e)
    >>> nt_xent(x, x, temperature=1.0).round(4).tolist()
    [0.5514000058174133, 0.5514000058174133]
    """
    name = "nt_xent"
    same_shape(name, first=first, second=second)
    last_axis(name, "first", first, "dimensions")
    if jnp.ndim(first) != 2:
        raise InputError(f"{name}: expected two views [B, D], got {list(jnp.shape(first))}")
    first, second = floats(name, first=first, second=second)
    temperature = option(name, "temperature", temperature, "above 0", first.dtype)
    rows = _rows(name, mask, first.shape[0])
    views = jnp.where(jnp.tile(rows, 2)[:, None], jnp.concatenate([first, second]), 0.0)
    unit, _ = direction(views)
    # Accelerators multiply float32 in bfloat16 or TF32 unless told; divided by t that is no longer a small error.
    similarity = jnp.matmul(unit, unit.T, precision=lax.Precision.HIGHEST) / temperature
    loss = _cross_entropy_with_other_view(similarity, rows)
    return jnp.where(rows, 0.5 * loss.reshape(2, -1).sum(0), 0.0)


def _cross_entropy_with_other_view(similarity: jax.Array, rows: jax.Array) -> jax.Array:
    """[2 B] from [2 B, 2 B]: neither a view itself nor padding is a candidate."""
    views = jnp.arange(similarity.shape[0])
    candidates = jnp.tile(rows, 2)[None, :] & (views[:, None] != views[None, :])
    top, rest = logsumexp_parts(jnp.where(candidates, similarity, RULED_OUT))
    other = jnp.roll(views, rows.shape[0])
    return rest - (jnp.take_along_axis(similarity, other[:, None], 1)[:, 0] - top)


def _rows(name: str, mask: ArrayLike | None, B: int) -> jax.Array:
    if mask is None:
        return jnp.ones(B, bool)
    mask = jnp.asarray(mask)
    if mask.shape != (B,) or mask.dtype != bool:
        raise InputError(f"{name}: expected a mask of {B} booleans, got {mask.dtype}{list(mask.shape)}")
    return mask
