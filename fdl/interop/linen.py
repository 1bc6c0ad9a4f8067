"""Flax Linen: the variables of a module are divided into params and everything that changes, the state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from fdl.core import fold
from fdl.errors import InputError
from fdl.interop.libraries import Flags, library, mode
from fdl.training.task import Model


def from_linen(
    module: Any,
    example: Any,
    keywords: Mapping[str, Any] | None = None,
    *,
    rngs: tuple[str, ...] = ("dropout",),
    flags: Flags | None = None,
) -> Model:
    """A Flax Linen module as a model for `fdl.supervised`.

        model = fdl.interop.from_linen(module, train["x"][:1])
        task = fdl.supervised(model, fdl.losses.softmax_cross_entropy)

    `params` is the collection "params", `state` holds the others ({"batch_stats": ...}), which only training changes.
    Initial values are those of `module.init(key, example)`.

    Args:
      module: a `flax.linen.Module` without bound variables.
      example: an input with a batch axis, of any batch size: arrays, or `jax.ShapeDtypeStruct`; only shapes matter.
      keywords: examples of further inputs by keyword, those that `fdl.supervised` gets as ("x", {"mask": "m"}).
      rngs: the names of the random streams that the module draws from.
      flags: train -> keywords of the call. None: train, training and is_training are passed as they are,
        deterministic, use_running_average and inference as their opposites, where the call has such parameters; a
        module without any of them gets no "dropout" stream in evaluation.

    Raises:
      InputError: Flax is not installed; no Linen module; in a call, randomness or statistics without a flag for them.
    """
    linen = library("flax.linen")
    if not isinstance(module, linen.Module):
        raise InputError(f"from_linen: expected a flax.linen.Module, got {module!r}")
    return Linen(module, _shapes(example), {n: _shapes(x) for n, x in (keywords or {}).items()}, tuple(rngs), flags)


@dataclass(frozen=True)
class Linen(Model):
    """See `from_linen`."""

    module: Any
    example: Any
    keywords: Mapping[str, Any] = field(hash=False)
    rngs: tuple[str, ...]
    flags: Flags | None

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        x, keywords = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), (self.example, dict(self.keywords)))
        rngs = {"params": key, **{name: fold(key, name) for name in self.rngs}}
        variables = self.module.init(rngs, x, **keywords, **mode(self.module.__call__, self.flags, False))
        state = dict(library("flax.linen").unbox(variables))
        return state.pop("params", {}), state

    def apply(
        self, params: Any, state: Any, x: Any, *, key: jax.Array | None = None, train: bool = False, **keywords: Any
    ) -> tuple[Any, Any]:
        errors = library("flax.errors")
        flags = mode(self.module.__call__, self.flags, train)
        drawn = [name for name in self.rngs if train or flags or name != "dropout"]
        rngs = {} if key is None else {name: fold(key, name) for name in drawn}
        mutable = list(state) if train else []
        try:
            y, new = self.module.apply({"params": params, **state}, x, rngs=rngs, mutable=mutable, **keywords, **flags)
        except (errors.InvalidRngError, errors.ModifyScopeVariableError) as error:
            raise InputError(
                f"{type(self.module).__name__}, called with train={train} as {flags or 'no flag'} and the random "
                f"streams {list(rngs)}: {error} -- its call needs a parameter train, deterministic or "
                "use_running_average, or from_linen needs flags= or the names of all random streams, rngs=; "
                "training needs a key"
            ) from error
        return y, ({**state, **new} if train else state)


def _shapes(example: Any) -> Any:
    def shape(leaf: Any) -> jax.ShapeDtypeStruct:
        if not hasattr(leaf, "shape"):
            raise InputError(f"from_linen: example: expected arrays or jax.ShapeDtypeStruct, got {leaf!r}")
        return jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype))

    return jax.tree.map(shape, example)
