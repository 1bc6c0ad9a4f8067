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
    if isinstance(layer, Tap):
        return layer
    within = {} if isinstance(layer.specs(), Copies) and not copies else layer.parts()
    parts = {
        name: _attach_part(part, report, f"{path}/{name}" if path else name, copies) for name, part in within.items()
    }
    return Tap(layer.replace_parts(parts) if parts else layer, layer, path, report)


def _attach_part(part: Any, report: Report, path: str, copies: bool) -> Any:
    if isinstance(part, tuple):
        return tuple(_attach_part(item, report, f"{path}/{i}", copies) for i, item in enumerate(part))
    return attach(part, report, path, copies=copies) if isinstance(part, Layer) else part


@dataclass(frozen=True)
class Tap(Layer):
    """`inner`, reporting as `original` at `path`; its other attributes and named methods are those of `inner`."""

    inner: Layer
    original: Layer
    path: str
    report: Report

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def parts(self) -> dict[str, Any]:
        return {"inner": self.inner}

    def specs(self) -> Tree:
        return self.inner.specs()

    def apply(
        self, params: Tree, state: Tree, x: Any, *, key: jax.Array | None = None, train: bool = False, **keywords: Any
    ) -> tuple[Any, Tree]:
        y, new = self.inner.apply(params, state, x, key=key, train=train, **keywords)
        self.report(self.path, self.original, (params, state, x, keywords), y)
        return y, new
