"""Activations: those of `jax.nn` under one roof, and the gated linear units it lacks.

`sigmoid`, `tanh`, `relu`, `softmax` and the rest are JAX's own functions, so `fdl.ops.activations.relu is jax.nn.relu`.
Beware that `gelu` is the tanh approximation here (`approximate=True` in JAX), the exact one in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.nn import (
    celu,
    elu,
    gelu,
    hard_sigmoid,
    hard_swish,
    hard_tanh,
    leaky_relu,
    log_sigmoid,
    log_softmax,
    mish,
    relu,
    relu6,
    selu,
    sigmoid,
    silu,
    softmax,
    softplus,
    swish,
    tanh,
)

from fdl.errors import InputError
from fdl.ops.shared import shared

__all__ = [
    "celu", "elu", "geglu", "gelu", "glu", "hard_sigmoid", "hard_swish", "hard_tanh", "leaky_relu", "log_sigmoid",
    "log_softmax", "mish", "prelu", "reglu", "relu", "relu6", "selu", "sigmoid", "silu", "softmax", "softplus",
    "swiglu", "swish", "tanh",
]  # fmt: skip


def glu(x: jax.Array, activation: Callable[[jax.Array], jax.Array] = sigmoid) -> jax.Array:
    """y = a * activation(b), [a, b] = x: half as many features (Dauphin et al., 2017, section 2).

    Args:
      x: [..., 2 D].
      activation: sigmoid gives GLU itself; see `reglu`, `geglu`, `swiglu` (Shazeer, GLU variants, 2020).

    Returns:
      [..., D].

    Raises:
      InputError: an odd number of features.

    The second half is the gate, as in PyTorch's `glu`.

    >>> glu(jnp.array([3.0, 5.0, 0.0, 0.0])).tolist()
    [1.5, 2.5]
    """
    if x.shape[-1] % 2:
        raise InputError(f"glu: expected an even number of features to halve, got x of shape {list(x.shape)}")
    value, gate = jnp.split(x, 2, axis=-1)
    return value * activation(gate)


def reglu(x: jax.Array) -> jax.Array:
    """`glu` gated by relu."""
    return glu(x, relu)


def geglu(x: jax.Array) -> jax.Array:
    """`glu` gated by gelu (the tanh approximation)."""
    return glu(x, gelu)


def swiglu(x: jax.Array) -> jax.Array:
    """`glu` gated by silu, that is swish."""
    return glu(x, silu)


def prelu(x: jax.Array, slope: jax.Array) -> jax.Array:
    """y = x where x > 0, else slope * x (He et al., 2015, equation 1).

    Args:
      x: [..., D].
      slope: [D], or [1] for one slope shared by all features.
    """
    return jnp.where(x > 0, x, shared(slope, x) * x)
