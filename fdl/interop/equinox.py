"""Equinox: a module is a pytree; its floating-point arrays are params, other arrays and `eqx.nn.State` the state."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fdl.core import fold
from fdl.errors import InputError
from fdl.interop.libraries import Flags, library, mode, parameters
from fdl.interop.trees import from_dict, to_dict
from fdl.training.task import Model


def from_equinox(
    build: Callable[[jax.Array], Any], *, axis_name: Hashable = "batch", flags: Flags | None = None
) -> Model:
    """An Equinox module as a model for `fdl.supervised`.

        model = fdl.interop.from_equinox(lambda key: eqx.nn.MLP(64, 10, 128, 2, key=key))
        task = fdl.supervised(model, fdl.losses.softmax_cross_entropy)

    The module sees one example: it is mapped over the batch, a key for each example. `params` holds its floating-point
    arrays, `state` all else that is an array: {"buffers": other arrays, "statistics": `eqx.nn.State`}, each only where
    there are any; only training changes the statistics.

    Args:
      build: key -> module. It is called whenever the module is traced, and gets another key for each seed.
      axis_name: of the batch, for `eqx.nn.BatchNorm`.
      flags: train -> keywords of the call; None: as for `from_linen`. `eqx.nn.inference_mode` is set in any case.

    A module with state is called as module(x, state) -> (y, state), any other as module(x) -> y, both with `key=` where
    the call has that parameter.

    Raises:
      InputError: Equinox is not installed; `build` does not return an Equinox module.
    """
    eqx = library("equinox")
    if not callable(build) or isinstance(build, eqx.Module):
        raise InputError(f"from_equinox: expected a function that makes the module from a key, got {build!r}")
    return Equinox(build, axis_name, flags)


@dataclass(frozen=True)
class Equinox(Model):
    """See `from_equinox`."""

    build: Callable[[jax.Array], Any]
    axis_name: Hashable
    flags: Flags | None

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        params, buffers, statistics, _ = _split(*self._module(key))
        state = {"buffers": to_dict(buffers), "statistics": to_dict(statistics)}
        return to_dict(params), {name: tree for name, tree in state.items() if tree}

    def apply(
        self, params: Any, state: Any, x: Any, *, key: jax.Array | None = None, train: bool = False, **keywords: Any
    ) -> tuple[Any, Any]:
        module, statistics = self.bind(params, state, train=train)
        flags = mode(module.__call__, self.flags, train)
        takes_key = "key" in parameters(module.__call__)
        stateful = "statistics" in state

        def one(x: Any, keywords: Any, key: Any) -> tuple[Any, Any]:
            given = {**keywords, **flags} | ({"key": key} if takes_key else {})
            return module(x, statistics, **given) if stateful else (module(x, **given), None)

        rows = jnp.arange(len(jax.tree.leaves(x)[0]))
        keys = None if key is None else jax.vmap(lambda row: fold(key, row))(rows)
        y, new = jax.vmap(one, out_axes=(0, None), axis_name=self.axis_name)(x, keywords, keys)
        return y, (state | {"statistics": to_dict(new)} if train and stateful else state)

    def bind(self, params: Any, state: Any, *, train: bool = False) -> tuple[Any, Any]:
        """The module with these arrays, in training or inference mode, and its `eqx.nn.State`."""
        eqx = library("equinox")
        like_params, like_buffers, like_statistics, rest = _split(
            *eqx.filter_eval_shape(self._module, jax.random.key(0))
        )
        buffers = from_dict(like_buffers, state.get("buffers", {}))
        module = eqx.combine(from_dict(like_params, params), buffers, rest)
        return eqx.nn.inference_mode(module, not train), from_dict(like_statistics, state.get("statistics", {}))

    def _module(self, key: jax.Array) -> tuple[Any, Any]:
        eqx = library("equinox")
        module, state = eqx.nn.make_with_state(self.build)(key)
        if not isinstance(module, eqx.Module):
            raise InputError(f"from_equinox: expected that build returns an equinox.Module, got {module!r}")
        return module, state


def _split(module: Any, statistics: Any) -> tuple[Any, Any, Any, Any]:
    """(params, other arrays, statistics, the rest), whether with arrays or with their shapes."""
    eqx = library("equinox")
    arrays, rest = eqx.partition(module, lambda x: eqx.is_array(x) or isinstance(x, jax.ShapeDtypeStruct))
    params, buffers = eqx.partition(arrays, lambda x: jnp.issubdtype(x.dtype, jnp.inexact))
    return params, buffers, statistics, rest
