"""Taps: the same model, with every layer reporting what goes in and out.

A model is data, so looking inside is model surgery: no hooks, no global state. The record that `attach` returns has the
same params, computes the same values, and is dropped after use.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax

from fdl.core import Copies, Layer, Tree

Report = Callable[[str, Layer, tuple[Any, ...], Any], None]
Around = Callable[[Any, Any, str], Any]


def attach(layer: Layer, report: Report, path: str = "", *, copies: bool = True) -> Layer:
    """The model with `report(path, layer, (params, state, x, keywords), y)` called by each layer in it, outermost last.

    It is called while the model runs or is traced, and sees whatever arrays it runs on. Inside a `Stack` or an
    `Ensemble` those belong to a loop, and must not be kept; `copies=False` leaves their layers alone.

    >>> import jax, jax.numpy as jnp, fdl
    >>> model = fdl.nn.Serial(fdl.nn.Linear(3, 4), jax.nn.relu, head=fdl.nn.Linear(4, 2))
    >>> params, _ = fdl.init(model, jax.random.key(0))
    >>> tapped = attach(model, lambda path, layer, inputs, y: print(path or "(model)", y.shape))
    >>> y = tapped(params, jnp.ones((5, 3)))
    0 (5, 4)
    head (5, 2)
    (model) (5, 2)
    """
    return wrap(layer, lambda inner, original, path: Tap(inner, original, path, report), path, copies=copies)


def wrap(layer: Layer, around: Around, path: str = "", *, copies: bool = True, functions: bool = False) -> Any:
    """The model with `around(inner, original, path)` in place of each layer in it; `inner` has its parts wrapped.

    With `functions` also in place of the plain functions in containers; `copies` is as for `attach`.
    """
    if isinstance(layer, Wrapper):
        return layer
    within = {} if isinstance(layer.specs(), Copies) and not copies else layer.parts()

    def part(each: Any, path: str) -> Any:
        if isinstance(each, tuple):
            return tuple(part(item, f"{path}/{i}") for i, item in enumerate(each))
        if isinstance(each, Layer):
            return wrap(each, around, path, copies=copies, functions=functions)
        return around(each, each, path) if functions and callable(each) else each

    parts = {name: part(each, f"{path}/{name}" if path else name) for name, each in within.items()}
    return around(layer.replace_parts(parts) if parts else layer, layer, path)


@dataclass(frozen=True)
class Wrapper(Layer):
    """`inner` at `path`, and under another name nothing else: its attributes and named methods are those of `inner`.

    A subclass writes `apply`. `inner` may be a plain function.
    """

    inner: Any
    original: Any
    path: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def parts(self) -> dict[str, Any]:
        return {"inner": self.inner} if isinstance(self.inner, Layer) else {}

    def specs(self) -> Tree:
        return self.inner.specs() if isinstance(self.inner, Layer) else {}


@dataclass(frozen=True)
class Tap(Wrapper):
    """`inner`, reporting as `original` at `path`."""

    report: Report

    def apply(
        self, params: Tree, state: Tree, x: Any, *, key: jax.Array | None = None, train: bool = False, **keywords: Any
    ) -> tuple[Any, Tree]:
        y, new = self.inner.apply(params, state, x, key=key, train=train, **keywords)
        self.report(self.path, self.original, (params, state, x, keywords), y)
        return y, new
