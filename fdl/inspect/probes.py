"""Probes: where in a model values, or gradients on their way back, are not finite."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.core import Layer, Tree, fold
from fdl.inspect.taps import Wrapper, wrap
from fdl.nn.stack import Stack
from fdl.records import source


def marks(tree: Any, size: int) -> jax.Array:
    """How many values are NaN, and how many infinite, in each of `size` rows: [2, size + 1].

    Arrays whose leading axis has another size count in the last column.
    """
    total = jnp.zeros((2, size + 1), jnp.float32)
    for leaf in jax.tree.leaves(tree):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            counts = jnp.stack([jnp.isnan(leaf), jnp.isinf(leaf)]).astype(jnp.float32)
            if size and leaf.ndim and leaf.shape[0] == size:
                total = total.at[:, :-1].add(counts.reshape(2, size, -1).sum(-1))
            else:
                total = total.at[:, -1].add(counts.reshape(2, -1).sum(-1))
    return total


@dataclass
class Call:
    """One call of a layer: the marks of what went "in" and "out", and of the gradients that came back to either."""

    path: str
    layer: Any
    seen: dict[str, np.ndarray] = field(default_factory=dict)
    done: int = 0  # how many calls were over when it was

    def bad(self, name: str) -> bool:
        return name in self.seen and bool(self.seen[name].any())

    def incoming(self) -> np.ndarray:
        """The gradients that leave it on their way back: those of what went in, and of its parameters."""
        known = [self.seen[name] for name in ("in gradient", "params gradient") if name in self.seen]
        return np.sum(known, 0) if known else np.zeros((2, 1))

    def shown(self) -> str:
        """Its record, if that is short."""
        text = source(self.layer)
        return text if len(text) <= 80 else type(self.layer).__name__


class Probes:
    """Probes on every layer of a model, for one pass.

    Args:
      size: rows of a batch.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.calls: list[Call] = []
        self._done = 0

    def on(self, model: Layer, path: str = "") -> Layer:
        """The model with a probe on each layer and each plain function of its containers."""
        return wrap(model, partial(Probe, probes=self), path, copies=False, functions=True)

    def first_forward(self) -> Call | None:
        """The call that first made of finite inputs something that is not."""
        ended = sorted(self.calls, key=lambda call: call.done)
        return next((call for call in ended if call.bad("out")), None)

    def first_backward(self) -> Call | None:
        """The innermost call that made of a finite gradient one that is not; of several, the last of the forward."""
        bad = [c for c in self.calls if c.incoming().any() and not c.bad("out gradient")]
        inner = [c for c in bad if not any(_is_within(other, c) for other in bad)]
        return max(inner, key=lambda call: call.done, default=None)

    def begin(self, path: str, layer: Any) -> Call:
        self.calls.append(Call(path, layer))
        return self.calls[-1]

    def end(self, call: Call) -> None:
        self._done += 1
        call.done = self._done

    def look(self, call: Call, name: str, tree: Any) -> Any:
        """The tree, marked where it passes, and its gradient where that comes back."""
        leaves, structure = jax.tree.flatten(tree)
        floats = [leaf for leaf in leaves if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
        if not floats:
            return tree
        jax.debug.callback(partial(_note, call, name), marks(floats, self.size))
        passed = iter(_passed(partial(_note, call, f"{name} gradient"), self.size, floats))
        return structure.unflatten(
            [next(passed) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact) else leaf for leaf in leaves]
        )


@dataclass(frozen=True, eq=False)
class Probe(Wrapper):
    """`inner`, with probes on what goes in and out."""

    probes: Probes

    def apply(
        self, params: Tree, state: Tree, x: Any, *, key: jax.Array | None = None, train: bool = False, **keywords: Any
    ) -> tuple[Any, Tree]:
        probes, call = self.probes, self.probes.begin(self.path, self.original)
        x, params = probes.look(call, "in", x), probes.look(call, "params", params)
        if isinstance(self.original, Stack):
            y, new = self._copies(params, state, x, key, train, keywords)
        elif isinstance(self.inner, Layer):
            y, new = self.inner.apply(params, state, x, key=key, train=train, **keywords)
        else:
            y, new = self.inner(x), state
        y = probes.look(call, "out", y)
        probes.end(call)
        return y, new

    def _copies(self, params: Tree, state: Tree, x: Any, key: Any, train: bool, keywords: Any) -> tuple[Any, Tree]:
        """A `Stack` copy by copy, to see which."""
        states = []
        for i in range(self.original.n):
            block = self.probes.on(self.original.block, f"{self.path}/block[{i}]".removeprefix("/"))
            mine, old = jax.tree.map(lambda leaf, i=i: leaf[i], (params, state))
            x, new = block.apply(mine, old, x, key=fold(key, i), train=train, **keywords)
            states.append(new)
        return x, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def _is_within(call: Call, other: Call) -> bool:
    return call is not other and call.path.startswith(f"{other.path}/" if other.path else "")


def _note(call: Call, name: str, seen: Any) -> None:
    call.seen[name] = call.seen.get(name, 0) + np.asarray(seen)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _passed(note: Any, size: int, leaves: list[jax.Array]) -> list[jax.Array]:
    return leaves


def _forward(note: Any, size: int, leaves: list[jax.Array]) -> tuple[list[jax.Array], None]:
    return leaves, None


def _backward(note: Any, size: int, _: None, gradients: list[jax.Array]) -> tuple[list[jax.Array]]:
    jax.debug.callback(note, marks(gradients, size))
    return (gradients,)


_passed.defvjp(_forward, _backward)
