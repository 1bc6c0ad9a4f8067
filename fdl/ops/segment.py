"""Reductions over segments: rows that share an id are reduced together, the primitive of graph networks.

One convention for padding everywhere: the id -1 belongs to no segment. It cannot be mistaken for a node, and it does
not depend on how many nodes there are. Sums on a GPU add in no fixed order, so their last bits may differ from run to
run; on a CPU they do not.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fdl.errors import InputError
from fdl.ops.norm import widen
from fdl.ops.shared import summed_wide


def segment_sum(x: jax.Array, ids: jax.Array, num_segments: int) -> jax.Array:
    """y_s = sum of x_e over the rows e with ids_e = s; an empty segment gives 0.

    Args:
      x: [E, ...]; floats are added up in float32 or wider, booleans are counted.
      ids: integers [E] in any order, -1 = no segment. Concrete ids outside -1 .. num_segments - 1 are an error;
        inside a compiled program they cannot be seen, and such rows are left out.
      num_segments: a Python integer, for it is a shape.

    Returns:
      [num_segments, ...], in x's dtype (int32 for booleans).

    Raises:
      InputError: ids that are no integers, of another length, or out of range.

    PyTorch: `zeros(S, ...).index_add(0, ids, x)`.

    >>> segment_sum(jnp.array([1.0, 2.0, 4.0]), jnp.array([0, 2, 0]), 3).tolist()
    [5.0, 0.0, 2.0]
    """
    x = jnp.asarray(x)
    x = x.astype(jnp.int32) if x.dtype == jnp.bool_ else x
    rows = widen(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x
    return jax.ops.segment_sum(rows, _rows("segment_sum", x, ids, num_segments), num_segments).astype(x.dtype)


def segment_mean(x: jax.Array, ids: jax.Array, num_segments: int) -> jax.Array:
    """y_s = mean of x_e over the rows e with ids_e = s; an empty segment gives 0.

    Args, Raises: as `segment_sum`; x must be floating point.

    >>> segment_mean(jnp.array([1.0, 2.0, 4.0]), jnp.array([0, 2, 0]), 3).tolist()
    [2.5, 0.0, 2.0]
    """
    x, ids = _floats("segment_mean", x), _rows("segment_mean", x, ids, num_segments)
    total = jax.ops.segment_sum(widen(x), ids, num_segments)
    count = jax.ops.segment_sum(jnp.ones(ids.shape, total.dtype), ids, num_segments)
    return (total / per_row(jnp.maximum(count, 1), total)).astype(x.dtype)


def segment_max(x: jax.Array, ids: jax.Array, num_segments: int) -> jax.Array:
    """y_s = max of x_e over the rows e with ids_e = s; an empty segment gives 0, not -inf.

    Args, Raises: as `segment_sum`; x may be integers. Rows that tie share the gradient equally, as in PyTorch's `amax`.

    >>> segment_max(jnp.array([-1.0, -2.0, -4.0]), jnp.array([0, 2, 0]), 3).tolist()
    [-1.0, 0.0, -2.0]
    """
    x, ids = jnp.asarray(x), _rows("segment_max", x, ids, num_segments)
    highest = summed_wide(lambda x, ids: jax.ops.segment_max(x, ids, num_segments), x, ids)  # ties are counted
    # Counted, not isfinite(): a segment whose largest value is -inf is not empty.
    filled = jax.ops.segment_max(jnp.ones(ids.shape, jnp.int32), ids, num_segments) > 0
    return jnp.where(per_row(filled, highest), highest, jnp.zeros_like(highest))


def segment_softmax(logits: jax.Array, ids: jax.Array, num_segments: int) -> jax.Array:
    """p_e = exp(l_e) / sum of exp(l_f) over the rows f with ids_f = ids_e.

    Args, Raises: as `segment_sum`; logits must be floating point.

    Returns:
      [E, ...], computed in float32 or wider, in the dtype of the logits. The rows of a segment add up to 1; rows with
      the id -1, and those of a segment that holds nothing but -inf, are 0.

    >>> segment_softmax(jnp.array([1.0, 7.0, 1.0, 5.0]), jnp.array([0, 2, 0, -1]), 3).tolist()
    [0.5, 1.0, 0.5, 0.0]
    """
    logits, ids = _floats("segment_softmax", logits), _rows("segment_softmax", logits, ids, num_segments)
    wide = widen(logits)
    highest = jax.lax.stop_gradient(jax.ops.segment_max(wide, ids, num_segments))
    highest = jnp.where(jnp.isneginf(highest), jnp.zeros_like(highest), highest)  # -inf - -inf is NaN
    # A row of no segment gets -inf, hence exactly 0 and no gradient, however large its logit.
    shifted = jnp.where(per_row(ids < num_segments, wide), wide - _take(highest, ids), -jnp.inf)
    exp = jnp.exp(shifted)
    total = jax.ops.segment_sum(exp, ids, num_segments)
    total = jnp.where(total == 0, jnp.ones_like(total), total)
    return (exp / _take(total, ids, fill=1)).astype(logits.dtype)


def gather(x: jax.Array, ids: jax.Array) -> jax.Array:
    """y_e = x[ids_e], and 0 where ids_e = -1: what every edge reads from its node.

    Args:
      x: [N, ...].
      ids: integers [E]. Concrete ids outside -1 .. N - 1 are an error; inside a compiled program they cannot be seen
        and give NaN (0 for integers), where `x[ids]` would clamp silently.

    Returns:
      [E, ...], in x's dtype.

    >>> gather(jnp.array([3.0, 5.0]), jnp.array([1, -1, 0])).tolist()
    [5.0, 0.0, 3.0]
    """
    x = jnp.asarray(x)
    ids = check_ids("gather", ids, x.shape[0])
    none = ids == -1
    rows = _take(x, jnp.where(none, 0, ids), fill=jnp.nan if jnp.issubdtype(x.dtype, jnp.inexact) else 0)
    return jnp.where(per_row(none, rows), jnp.zeros_like(rows), rows)


def check_ids(where: str, ids: Any, size: int) -> jax.Array:
    """The ids as int32; raises unless they are integers and, as far as that can be known, in -1 .. size - 1.

    Raises:
      InputError: the first bad id, its position and the range.
    """
    if not jnp.issubdtype(jnp.result_type(ids), jnp.integer):
        raise InputError(f"{where}: ids are row numbers, expected integers, got {jnp.result_type(ids)}")
    if not isinstance(ids, Tracer):
        host = np.asarray(ids)
        bad = (host < -1) | (host >= size)
        if bad.any():
            at = tuple(int(i) for i in np.argwhere(bad)[0])
            raise InputError(
                f"{where}: id {host[at]} at {at[0] if len(at) == 1 else at} is outside 0..{size - 1} (or -1 for "
                "padding); are the ids counted from 1?"
            )
    return jnp.asarray(ids).astype(jnp.int32)


def per_row(values: jax.Array, x: jax.Array) -> jax.Array:
    """One value a row, [E], with axes of size 1 appended so that it multiplies or masks x [E, ...]."""
    return values.reshape(values.shape + (1,) * (x.ndim - values.ndim))


def _rows(where: str, x: Any, ids: Any, num_segments: int) -> jax.Array:
    """Ids in 0 .. num_segments, the last for rows that belong nowhere: JAX drops it."""
    ids = check_ids(where, ids, num_segments)
    if ids.ndim != 1 or ids.shape != jnp.shape(x)[:1]:
        rows = list(jnp.shape(x)[:1])
        raise InputError(f"{where}: x {list(jnp.shape(x))} needs one id a row, {rows}, got {list(ids.shape)}")
    return jnp.where((ids < 0) | (ids >= num_segments), num_segments, ids)


def _floats(where: str, x: Any) -> jax.Array:
    x = jnp.asarray(x)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        raise InputError(f"{where}: expected floating-point x, got {x.dtype}")
    return x


def _take(x: jax.Array, ids: jax.Array, fill: float = 0) -> jax.Array:
    """x[ids], `fill` where an id is out of range; no gradient flows there."""
    if not x.shape[0]:  # XLA refuses to gather from nothing
        return jnp.full(ids.shape + x.shape[1:], fill, x.dtype)
    get = lambda x, ids: x.at[ids].get(mode="fill", fill_value=fill, wrap_negative_indices=False)  # noqa: E731
    return summed_wide(get, x, ids)
