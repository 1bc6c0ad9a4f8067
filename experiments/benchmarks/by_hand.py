"""Parts of JAX by hand: what XLA on a CPU has to be told, to be quick."""

from __future__ import annotations

from functools import cache
from typing import Any


def product(x: Any, kernel: Any) -> Any:
    """x @ kernel, batch and time as one axis; on CPU the gradient of one with few columns is made as its transpose."""
    import jax

    narrow = 2 * kernel.shape[1] <= kernel.shape[0] and jax.default_backend() == "cpu"
    function = _transposed() if narrow else jax.numpy.matmul
    return function(x.reshape(-1, x.shape[-1]), kernel).reshape(*x.shape[:-1], -1)


def layer_norm(x: Any, params: Any, eps: float) -> Any:
    """In float32, whatever x is in.

    Without the barrier XLA for CPU would compute the residual sums again in each of their readers, and take twice as
    long for a step.
    """
    import jax
    import jax.numpy as jnp

    dtype = x.dtype
    x = (jax.lax.optimization_barrier(x) if jax.default_backend() == "cpu" else x).astype(jnp.float32)
    mean = x.mean(-1, keepdims=True)
    var = jnp.square(x - mean).mean(-1, keepdims=True)
    return ((x - mean) * jax.lax.rsqrt(var + eps) * params["scale"] + params["bias"]).astype(dtype)


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
