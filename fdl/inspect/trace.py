"""The calls of a model's layers up to an error, with what went in and out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from fdl.core import Layer, Tree
from fdl.inspect.taps import Wrapper, wrap
from fdl.records import source

WIDTH = 48  # of a record in the table; a longer one is cut


@dataclass
class Call:
    """A call of a layer; `inner` of the layers in it have been called."""

    path: str
    layer: Any
    x: str
    y: str = "error"
    inner: int = 0


class Trace:
    """Listens to every layer of a model for one call of it.

    Attributes:
      calls: in the order in which they began; failed: the innermost in which the error rose.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.failed: Call | None = None

    def on(self, model: Layer) -> Any:
        return wrap(model, partial(Listener, trace=self), functions=True)

    def table(self, lines: int) -> str:
        """What was called before the error, and where that rose: the last of the calls without others in them."""
        rows = [call for call in self.calls if (not call.inner and call.y != "error") or call is self.failed]
        shown = [(call.path or "(model)", _short(call.layer), call.x, call.y) for call in rows[-lines:]]
        widths = [max(len(row[column]) for row in shown) for column in range(3)]
        table = [f"  {row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:{widths[2]}} -> {row[3]}" for row in shown]
        more = [f"  and {len(rows) - lines} more before them"] if len(rows) > lines else []
        return "\n".join(["shapes up to there:", *more, *table])


@dataclass(frozen=True, eq=False)
class Listener(Wrapper):
    """`inner`, telling what goes in and out, and whether it comes to an end."""

    trace: Trace

    def apply(
        self, params: Tree, state: Tree, x: Any, *, key: jax.Array | None = None, train: bool = False, **keywords: Any
    ) -> tuple[Any, Tree]:
        trace, call = self.trace, Call(self.path, self.original, shapes(x))
        trace.calls.append(call)
        before = len(trace.calls)
        try:
            if isinstance(self.inner, Layer):
                y, new = self.inner.apply(params, state, x, key=key, train=train, **keywords)
            else:
                y, new = self.inner(x), state
        except Exception:
            trace.failed = trace.failed or call
            raise
        finally:
            call.inner = len(trace.calls) - before
        call.y = shapes(y)
        return y, new


def shapes(tree: Any) -> str:
    """`"float32[32, 784]"`; of several arrays all, of many the first three."""
    leaves = [f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}" for leaf in jax.tree.leaves(tree)]
    return ", ".join(leaves[:3]) + (f" and {len(leaves) - 3} more" if len(leaves) > 3 else "")


def _short(layer: Any) -> str:
    text = source(layer)
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 3]}..."
