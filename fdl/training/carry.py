"""What a loop carries keeps its structure and its types."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from fdl.errors import InputError

T = TypeVar("T")
HINTS = {"params": "", "state": "", "opt_state": "; was it made for other parameters, and broadcast?"}


def strengthen(tree: T) -> T:
    """The tree without weak types, which a loop carry would otherwise change after the first step."""
    return jax.tree.map(lambda x: _cast(jnp.asarray(x), jnp.asarray(x).dtype), tree)


def keep_types(new: T, old: T) -> T:
    """`new`, a named tuple of trees, in the dtypes of `old`: a traced float32 rate must not widen a bfloat16 network.

    Raises:
      InputError: another tree structure or shape, which no loop could carry.
    """
    for name, hint in HINTS.items():
        described = [jax.tree.map(lambda x: list(jnp.shape(x)), getattr(tree, name)) for tree in (old, new)]
        if described[0] != described[1]:
            raise InputError(
                f"a step changed the structure of {name}: before {described[0]}, after {described[1]}{hint}"
            )
    return like(new, old)


def like(new: T, old: T) -> T:
    """`new` in the dtypes of `old`."""
    return jax.tree.map(lambda n, o: _cast(jnp.asarray(n), o.dtype), new, old)


def _cast(x: jax.Array, dtype: Any) -> jax.Array:
    """x in a dtype and without a weak type; a typed random key passes through."""
    return x if jnp.issubdtype(x.dtype, jax.dtypes.extended) else lax.convert_element_type(x, dtype)
