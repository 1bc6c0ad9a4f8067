"""What many rows share, such as a bias or a row of a table: its gradient is a sum over those rows.

In half precision such a sum stands still once it is large: 256 + 1 is 256 in bfloat16, and 2048 + 1 is 2048 in float16.
XLA adds up in the dtype of the numbers, so these functions hand it float32.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fdl.ops.norm import widen


def summed_wide(function: Callable[..., jax.Array], x: jax.Array, *ids: jax.Array) -> jax.Array:
    """function(x, *ids), with derivatives that are computed in float32 where x is narrower, and rounded afterwards.

    The values are not computed from a widened x, which in a loop would be a copy of a whole table.

    Args:
      function: (x, *ids) -> y, which copies or picks numbers of x: its values are the same in any dtype.
      ids: integers, such as the rows to pick.

    >>> import jax, jax.numpy as jnp
    >>> table, ids = jnp.ones(2, jnp.bfloat16), jnp.zeros(1024, jnp.int32)
    >>> jax.grad(lambda table: summed_wide(jnp.take, table, ids).sum())(table).tolist()
    [1024.0, 0.0]
    """
    x = jnp.asarray(x)
    if not (jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4):
        return function(x, *ids)

    @jax.custom_jvp
    def narrow(x: jax.Array, *ids: jax.Array) -> jax.Array:
        return function(x, *ids)

    @narrow.defjvp
    def _(primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        x, *ids = primals
        wide = lambda x: function(widen(x), *ids).astype(x.dtype)  # noqa: E731
        return narrow(*primals), jax.jvp(wide, (x,), tangents[:1])[1]

    return narrow(x, *ids)


def shared(a: jax.Array, x: jax.Array) -> jax.Array:
    """`a` as it stands beside every row of x: to be added to x or multiplied with it.

    Args:
      a: an array that broadcasts with x, such as a bias [D] with x [..., D].
    Returns: `a` in the dtype that both promote to; in half precision also in the shape that both broadcast to.
    """
    a, x = jnp.asarray(a), jnp.asarray(x)
    dtype = jnp.result_type(a, x)
    if dtype.itemsize >= 4:  # then the sum is wide by itself
        return a
    return summed_wide(lambda a: jnp.broadcast_to(a, jnp.broadcast_shapes(a.shape, x.shape)), a.astype(dtype))
