"""The product that every layer with a kernel makes."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import InputError


def linear(x: jax.Array, kernel: jax.Array, axes: int = 1) -> jax.Array:
    """y = x @ kernel, summed over the last `axes` axes of x and the first of the kernel, as by `jnp.tensordot`.

    With batch and time as one axis, the gradient of the kernel is one plain product of matrices; on a CPU, where it has
    at most half as many columns as rows, it is made as its transpose. A product with both gradients takes up to a third
    less time that way (`experiments/benchmarks/products.py`); XLA decides otherwise by itself.

    Args:
      x: [..., *inner].
      kernel: [*inner, *outer].
      axes: the number of inner axes.
    Returns: [..., *outer], of the dtype that both promote to.

    Raises:
      InputError: the last axes of x are not the first of the kernel.

    >>> import jax.numpy as jnp
    >>> heads = jnp.ones((2, 3, 4, 5))
    >>> linear(heads, jnp.ones((4, 5, 6)), axes=2)[0, 0].tolist()
    [20.0, 20.0, 20.0, 20.0, 20.0, 20.0]
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    if not 0 < axes <= min(x.ndim, kernel.ndim) or x.shape[-axes:] != kernel.shape[:axes]:
        raise InputError(
            f"linear: expected x [..., {', '.join(map(str, kernel.shape[:axes]))}] for a kernel {list(kernel.shape)} "
            f"with {axes} inner axes, got x {list(x.shape)}"
        )
    leading, inner, outer = x.shape[:-axes], kernel.shape[:axes], kernel.shape[axes:]
    rows, columns = math.prod(inner), math.prod(outer)  # reshape(-1) cannot tell the sizes of an empty array
    dtype = jnp.result_type(x, kernel)
    x, kernel = x.reshape(math.prod(leading), rows).astype(dtype), kernel.reshape(rows, columns).astype(dtype)
    narrow = 2 * columns <= rows and jax.default_backend() == "cpu"
    y = _narrowing(x, kernel) if narrow else x @ kernel
    return y.reshape(*leading, *outer)


@jax.custom_jvp
def _narrowing(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return x @ kernel


@_narrowing.defjvp
def _narrowing_tangent(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x, kernel), (d_x, d_kernel) = primals, tangents
    barrier = jax.lax.optimization_barrier  # or XLA undoes the transposition
    return x @ kernel, d_x @ kernel + barrier(barrier(d_kernel.T) @ x.T).T
