"""One function in two forms: the one that is faster by itself, and the one whose derivatives are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

Form = Callable[..., jax.Array]


def forward(quick: Form, differentiable: Form) -> Form:
    """The values of `quick` with the derivatives, of every mode and order, of `differentiable`, the same function.

    On a CPU nothing is faster forwards than XLA's own convolution and pooling, which it computes together with what is
    around them. Their gradients are slow there, above all in loops, and so is a convolution in which each member of a
    `vmap` has a kernel of its own: the members' values are those of `differentiable` then.

    Args:
      quick, differentiable: (x [B, ...], *parameters) -> y [B, ...].
    """

    @jax.custom_batching.custom_vmap
    def values(x: jax.Array, *parameters: jax.Array) -> jax.Array:
        return quick(x, *parameters)

    @values.def_vmap
    def members(size: int, batched: list[bool], x: jax.Array, *parameters: jax.Array) -> tuple[jax.Array, bool]:
        if any(batched[1:]):
            return jax.vmap(differentiable, [0 if each else None for each in batched])(x, *parameters), True
        y = values(x.reshape(-1, *x.shape[2:]), *parameters)
        return y.reshape(size, -1, *y.shape[1:]), True

    @jax.custom_jvp
    def function(*args: jax.Array) -> jax.Array:
        return values(*args)

    @function.defjvp
    def _(primals: Any, tangents: Any) -> tuple[jax.Array, Any]:
        # by `function`, not `values`: these values are differentiated again for a second derivative
        return function(*primals), jax.jvp(differentiable, primals, tangents)[1]

    return function
