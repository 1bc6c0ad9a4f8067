"""The product of JAX by hand: what XLA on a CPU has to be told, to make the gradient of a kernel quickly."""

from __future__ import annotations

from functools import cache
from typing import Any


def product(x: Any, kernel: Any) -> Any:
    """x @ kernel, batch and time as one axis; the gradient of a kernel with few columns is made as its transpose."""
    import jax

    function = _transposed() if 2 * kernel.shape[1] <= kernel.shape[0] else jax.numpy.matmul
    return function(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], -1)


@cache
def _transposed() -> Any:
    import jax

    @jax.custom_vjp
    def multiply(x: Any, kernel: Any) -> Any:
        return x @ kernel

    def backwards(kept: Any, dy: Any) -> Any:
        x, kernel = kept
        barrier = jax.lax.optimization_barrier
        return dy @ kernel.T, barrier(barrier(dy.T) @ x).T

    multiply.defvjp(lambda x, kernel: (x @ kernel, (x, kernel)), backwards)
    return multiply
