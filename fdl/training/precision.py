"""Mixed precision: the forward and backward pass in half precision, parameters and updates in float32."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

PRECISIONS = ("bfloat16", "float16")
GROWTH_INTERVAL = 2000  # good steps before the scale doubles, as in Micikevicius et al., 2018, section 3.2


class LossScale(NamedTuple):
    """What float16 losses are multiplied by, so that small gradients do not vanish: halved where they overflow."""

    scale: jax.Array
    good_steps: jax.Array


def init_scale(precision: str | None) -> LossScale | None:
    """2^15 for float16; bfloat16 has the range of float32 and needs none."""
    return LossScale(jnp.float32(2.0**15), jnp.int32(0)) if precision == "float16" else None


def adjust(now: LossScale, finite: jax.Array) -> LossScale:
    """The scale after a step whose gradients were (not) finite."""
    grow = now.good_steps + 1 >= GROWTH_INTERVAL
    up = jnp.where(grow, jnp.minimum(now.scale * 2, 2.0**24), now.scale)
    scale = jnp.where(finite, up, jnp.maximum(now.scale / 2, 1.0))
    return LossScale(scale, jnp.where(finite & ~grow, now.good_steps + 1, 0))


def compute_copy(params: Any, precision: str | None) -> Any:
    """The floating-point parameters in the precision that is computed in; gradients flow back to the originals."""
    if precision is None:
        return params
    dtype = jnp.dtype(precision)
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, params)


def compute_inputs(x: Any, params: Any) -> Any:
    """The floating-point inputs in half precision where all parameters are: one float32 would widen everything."""
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(params) if jnp.issubdtype(leaf.dtype, jnp.floating)}
    if len(dtypes) != 1 or str(next(iter(dtypes))) not in PRECISIONS:
        return x
    return compute_copy(x, str(dtypes.pop()))


def all_finite(tree: Any) -> jax.Array:
    """Whether no floating-point leaf of a tree has a NaN or an infinity."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.isfinite(leaf).all() for leaf in leaves] or [jnp.bool_(True)]))
