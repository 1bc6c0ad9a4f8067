"""Flax NNX: a module is divided into params, random streams, and everything else that it keeps, the state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fdl.core import fold
from fdl.errors import InputError
from fdl.interop.libraries import Flags, library, mode, parameters
from fdl.interop.trees import from_dict, to_dict
from fdl.rules import path_of
from fdl.training.task import Model


def from_nnx(build: Callable[[Any], Any], *, wrt: Any = None, flags: Flags | None = None) -> Model:
    """A Flax NNX module as a model for `fdl.supervised`.

        model = fdl.interop.from_nnx(lambda rngs: nnx.Linear(64, 10, rngs=rngs))
        task = fdl.supervised(model, fdl.losses.softmax_cross_entropy)

    `params` holds the values of the module's `nnx.Param`, `state` those of all other variables but random streams;
    only training changes it. Random streams are no state here: every call starts each of them anew, from the call's
    key and the path of the stream, so that a step is a pure function of the run's seed and its number.

    Args:
      build: `nnx.Rngs` -> module. It is called whenever the module is traced, and gets other streams for each seed.
      wrt: the `nnx` filter of what is trained; None = `nnx.Param`.
      flags: train -> keywords of the call; None: as for `from_linen`. `module.train()` or `module.eval()` is called
        in any case. A call with a parameter `rngs` gets an `nnx.Rngs`.

    Raises:
      InputError: Flax is not installed; `build` does not return an NNX module.
    """
    nnx = library("flax.nnx")
    if not callable(build) or isinstance(build, nnx.Module):
        raise InputError(f"from_nnx: expected a function that makes the module from nnx.Rngs, got {build!r}")
    return Nnx(build, wrt or nnx.Param, flags)


@dataclass(frozen=True)
class Nnx(Model):
    """See `from_nnx`."""

    build: Callable[[Any], Any]
    wrt: Any
    flags: Flags | None

    def init(self, key: jax.Array) -> tuple[Any, Any]:
        _, params, _, state = self._split(self._module(key))
        return to_dict(params), to_dict(state)

    def apply(
        self, params: Any, state: Any, x: Any, *, key: jax.Array | None = None, train: bool = False, **keywords: Any
    ) -> tuple[Any, Any]:
        module = self.bind(params, state, key=key, train=train)
        if key is not None and "rngs" in parameters(module.__call__):
            keywords["rngs"] = library("flax.nnx").Rngs(fold(key, "rngs"))
        y = module(x, **keywords, **mode(module.__call__, self.flags, train))
        new = self._split(module)[-1]
        return y, (to_dict(from_dict(state, to_dict(new))) if train else state)

    def bind(self, params: Any, state: Any, *, key: jax.Array | None = None, train: bool = False) -> Any:
        """The module with these arrays, in training or evaluation mode; without a key it cannot draw anything."""
        nnx = library("flax.nnx")
        graph, *abstract = self._split(nnx.eval_shape(lambda: self._module(jax.random.key(0))))
        like_params, like_streams, like_state = abstract
        if train and key is None and jax.tree.leaves(like_streams):
            raise InputError(f"from_nnx({self.build!r}): train=True needs a key: the module has random streams")
        streams = like_streams if key is None else jax.tree_util.tree_map_with_path(_start(key), like_streams)
        module = nnx.merge(graph, from_dict(like_params, params), streams, from_dict(like_state, state))
        (module.train if train else module.eval)()
        return module

    def _module(self, key: jax.Array) -> Any:
        nnx = library("flax.nnx")
        module = self.build(nnx.Rngs(key))
        if not isinstance(module, nnx.Module):
            raise InputError(f"from_nnx: expected that build returns an nnx.Module, got {module!r}")
        return module

    def _split(self, module: Any) -> tuple[Any, Any, Any, Any]:
        """(graph, params, random streams, all else), plain arrays instead of variables."""
        nnx = library("flax.nnx")
        graph, *states = nnx.split(module, self.wrt, nnx.RngState, ...)
        params, streams, state = (nnx.as_pure(tree) for tree in states)
        return graph, params, streams, state


def _start(key: jax.Array) -> Callable[[Any, Any], jax.Array]:
    """The first value of a stream's variable: its counter is 0, its key that of its path.

    `nnx.reseed` numbers the streams in the order in which it finds them, so that a new layer would change the masks of
    the others.
    """

    def start(path: Any, leaf: Any) -> jax.Array:
        if not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.zeros(leaf.shape, leaf.dtype)
        own = fold(key, path_of(path))
        return jax.random.split(own, leaf.shape) if leaf.shape else own

    return start
