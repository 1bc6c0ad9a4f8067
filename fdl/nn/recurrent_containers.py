"""Recurrent layers made of recurrent layers: `Bidirectional` and `StackedRNN`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fdl.core import Layer, Tree, fold
from fdl.errors import InputError
from fdl.nn.containers import Serial, accepted, apply_part, require_known, scope
from fdl.records import short


@dataclass(frozen=True)
class Bidirectional(Layer):
    """y_t = [forward(x)_t, backward(x reversed in time)_t], joined along the last axis.

    Args:
      forward, backward: recurrent layers, such as `LSTM`, with params of their own.
    Call: x [B, T, in_features], lengths [B] -> [B, T, both hidden sizes]. With lengths each sequence is reversed within
      its own length. `unroll(params, x, carry=None, lengths=None) -> (y, carry)` has the carry {"forward": ...,
      "backward": ...}, the latter that after t = 0. There is no `step`: y_t needs the whole sequence.

    PyTorch's bidirectional=True is this with the weights *_l0 and *_l0_reverse; several such layers are a `Serial` of
    these. Flax's `nn.Bidirectional` is the same.

    Raises:
      InputError: a layer that is not recurrent.

    Reference: Schuster & Paliwal, Bidirectional recurrent neural networks, 1997.

    >>> import jax, jax.numpy as jnp, fdl
    >>> from fdl.nn.recurrent import GRU
    >>> layer = Bidirectional(GRU(3, 8), GRU(3, 8))
    >>> params, _ = fdl.init(layer, jax.random.key(0))
    >>> layer(params, jnp.ones((2, 5, 3)), lengths=jnp.array([5, 2])).shape
    (2, 5, 16)
    """

    forward: Layer
    backward: Layer

    def __post_init__(self) -> None:
        for name, part in self.parts().items():
            if not has_memory(part):
                raise InputError(f"Bidirectional: {name}: expected a recurrent layer such as LSTM, got {short(part)}")

    def apply(
        self,
        params: Tree,
        state: Tree,
        x: Any,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        reverse: bool = False,
        **keywords: Any,
    ) -> tuple[Any, Tree]:
        require_known(self, keywords)
        ys, new = [], {}
        for name, part in self.parts().items():
            mine = {k: v for k, v in keywords.items() if k in accepted(part)}
            mine |= {"reverse": reverse != (name == "backward"), "key": fold(key, name), "train": train}
            with scope(name):  # not apply_part: that keeps from a layer what its signature does not name
                y, changed = part.apply(params[name], state.get(name, {}), x, **mine)
            ys.append(y)
            new |= {name: changed} if name in state else {}
        return jnp.concatenate(ys, axis=-1), new

    def initial_carry(self, batch: int, dtype: Any = jnp.float32) -> dict[str, Any]:
        return {name: part.initial_carry(batch, dtype) for name, part in self.parts().items()}

    def unroll(
        self,
        params: Tree,
        x: jax.Array,
        carry: Any = None,
        lengths: jax.Array | None = None,
        *,
        reverse: bool = False,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[jax.Array, dict[str, Any]]:
        """(y [B, T, ...], carry) from x [B, T, ...]."""
        carry = _checked(self, carry, self.parts())
        ys, new = [], {}
        for name, part in self.parts().items():
            mine = {"reverse": reverse != (name == "backward"), "key": fold(key, name), "train": train}
            with scope(name):
                y, new[name] = part.unroll(params[name], x, carry[name], lengths, **mine)
            ys.append(y)
        return jnp.concatenate(ys, axis=-1), new


class StackedRNN(Serial):
    """y = f_n(... f_1(x)), a `Serial` that hands the carries of its recurrent layers in and out.

    Args:
      layers, named: as in `Serial`; any of them may be recurrent. What stands between them, such as `Dropout`,
        `Embedding` or `Linear`, must treat every step alone, and have no running statistics.
    Call: x -> y, as `Serial`. For truncated backpropagation and streams
      - `unroll(params, x [B, T, ...], carry=None, lengths=None, reverse=False) -> (y, carry)`;
      - `step(params, carry, x [B, ...]) -> (carry, y)`; with dropout, give every step a key of its own.
      The carry is a dict with an entry for each recurrent layer, under its name.

    PyTorch's num_layers=2, dropout=0.1 is `StackedRNN(LSTM(3, 8), Dropout(0.1), LSTM(8, 8))`. Where no carry is needed
    a plain `Serial` does the same.

    Raises:
      InputError: a carry without the right names; a `step` through a layer that needs the whole sequence.

    >>> import jax, jax.numpy as jnp, fdl
    >>> from fdl import nn
    >>> from fdl.nn.recurrent import GRU
    >>> model = StackedRNN(GRU(3, 8), GRU(8, 8), head=nn.Linear(8, 2))
    >>> params, _ = fdl.init(model, jax.random.key(0))
    >>> x, carry = jnp.ones((2, 5, 3)), model.initial_carry(2)
    >>> for t in range(5):
    ...     carry, y = model.step(params, carry, x[:, t])
    >>> bool(jnp.allclose(y, model(params, x)[:, -1], atol=1e-6)), list(carry)
    (True, ['0', '1'])
    """

    def initial_carry(self, batch: int, dtype: Any = jnp.float32) -> dict[str, Any]:
        return {name: part.initial_carry(batch, dtype) for name, part in self._recurrent().items()}

    def unroll(
        self,
        params: Tree,
        x: Any,
        carry: Any = None,
        lengths: jax.Array | None = None,
        *,
        reverse: bool = False,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> tuple[Any, dict[str, Any]]:
        """A sequence or a chunk of one: (y [B, T, ...], carry) from x [B, T, ...]."""
        recurrent, new = self._recurrent(), {}
        carry = _checked(self, carry, recurrent)
        for name, part in self.items:
            if name not in recurrent:
                x, _ = apply_part(name, part, params, {}, x, key=key, train=train, lengths=lengths)
                continue
            mine = {"reverse": reverse, "key": fold(key, name), "train": train}
            with scope(name):
                x, new[name] = recurrent[name].unroll(params[name], x, carry[name], lengths, **mine)
        return x, new

    def step(
        self, params: Tree, carry: Any, x: Any, *, key: jax.Array | None = None, train: bool = False
    ) -> tuple[dict[str, Any], Any]:
        """One step of a stream: (carry, y [B, ...]) from x [B, ...]."""
        recurrent, new = self._recurrent(), {}
        carry = _checked(self, carry, recurrent)
        for name, part in self.items:
            if name not in recurrent:
                x, _ = apply_part(name, part, params, {}, x, key=key, train=train)
            elif not hasattr(part, "step"):
                raise InputError(f"{short(part)} needs the whole sequence, it has no step; use unroll")
            else:
                with scope(name):
                    new[name], x = recurrent[name].step(params[name], carry[name], x, key=fold(key, name), train=train)
        return new, x

    def _recurrent(self) -> dict[str, Any]:
        return {name: part for name, part in self.items if has_memory(part)}


def has_memory(part: Any) -> bool:
    """Asked of the methods, not of the type: a tapped layer (`fdl.inspect`) has them too."""
    return isinstance(part, Layer) and hasattr(part, "unroll")


def _checked(layer: Layer, carry: Any, recurrent: Iterable[str]) -> dict[str, Any]:
    names = sorted(recurrent)
    if carry is None:
        return dict.fromkeys(names)
    if not isinstance(carry, dict) or sorted(carry) != names:
        got = sorted(carry) if isinstance(carry, dict) else type(carry).__name__
        raise InputError(f"{short(layer)}: expected a carry with an entry for each of {names}, got {got}")
    return carry
