"""The table of a model: paths, layers, shapes, parameters, work. Nothing is allocated or computed."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fdl.core import Layer, abstract
from fdl.errors import InputError
from fdl.inspect.taps import attach


class Row(NamedTuple):
    """One layer: `params` counts the numbers it owns or holds inside, `flops` its forward pass on the example."""

    path: str
    layer: str
    output: str
    params: int
    flops: int


class Summary(NamedTuple):
    """The rows of a model in the order in which its layers finish, and the figures of the whole."""

    rows: tuple[Row, ...]
    params: int
    state: int
    flops: int

    def __str__(self) -> str:
        lines = [("path", "layer", "output", "params", "FLOPs")]
        lines += [(r.path, r.layer, r.output, f"{r.params:,}", f"{r.flops:,}") for r in self.rows]
        lines += [("total", "", "", f"{self.params:,}", f"{self.flops:,}")]
        widths = [max(len(line[column]) for line in lines) for column in range(5)]
        text = [
            "  ".join(
                cell.rjust(w) if i > 2 else cell.ljust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
            for line in lines
        ]
        rule = "-" * len(text[0])
        if self.state:
            text.append(f"and {self.state:,} running statistics")
        return "\n".join(
            [text[0].rstrip(), rule, *(t.rstrip() for t in text[1 : len(lines) - 1]), rule, *text[len(lines) - 1 :]]
        )


def summary(layer: Layer, *example_shapes: Any, **keywords: Any) -> Summary:
    """The table of a model's layers, for `print`: path, layer, output shape, parameters, FLOPs of one forward pass.

    Args:
      layer: the model.
      example_shapes: the shape of x, batch included, such as (1, 28, 28, 1), taken as float32; or anything with shape
        and dtype, such as jax.ShapeDtypeStruct((1, 64), "int32") for token ids. Several make x a tuple of them.
      keywords: what else the model takes, in the same forms: edges=jax.ShapeDtypeStruct((2, 10), "int32") for a graph.

    Raises:
      InputError: no example shape; whatever a layer says of a shape that does not fit.

    A layer that runs several times (shared, or in a loop) has a row for each time it is traced. FLOPs are XLA's count
    before optimisation, a loop's body counted once.

    >>> import jax, fdl
    >>> print(summary(fdl.nn.Serial(fdl.nn.Linear(3, 4), jax.nn.relu, head=fdl.nn.Linear(4, 2)), (1, 3)))
    path   layer         output  params  FLOPs
    ------------------------------------------
    0      Linear(3, 4)  [1, 4]      16     28
    head   Linear(4, 2)  [1, 2]      10     18
    ------------------------------------------
    total                            26     50
    """
    if not example_shapes:
        raise InputError("summary: give the shape of x, batch included, e.g. fdl.summary(model, (1, 28, 28, 1))")
    examples = tuple(_example(shape) for shape in example_shapes)
    x = examples[0] if len(examples) == 1 else examples
    rows: list[Row] = []

    def report(path: str, part: Layer, inputs: tuple[Any, ...], y: Any) -> None:
        if not part.parts():
            rows.append(Row(path, repr(part), _shapes(y), _count(inputs[0]), _flops(part, *inputs)))

    params, state = abstract(layer)
    named = {name: _example(shape) for name, shape in keywords.items()}
    jax.eval_shape(lambda p, s, x, named: attach(layer, report).apply(p, s, x, **named), params, state, x, named)
    return Summary(tuple(rows), _count(params), _count(state), _flops(layer, params, state, x, named))


def _example(shape: Any) -> jax.ShapeDtypeStruct:
    if hasattr(shape, "shape") and hasattr(shape, "dtype"):
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype)
    if isinstance(shape, tuple | list) and all(isinstance(n, int) and n >= 0 for n in shape):
        return jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
    raise InputError(f"summary: expected a shape such as (1, 28, 28, 1), got {shape!r}")


def _flops(layer: Layer, params: Any, state: Any, x: Any, keywords: Any) -> int:
    arrays = {name: value for name, value in keywords.items() if jax.tree.leaves(value) and not isinstance(value, bool)}
    static: dict[str, Any] = {name: value for name, value in keywords.items() if name not in arrays}
    forward = jax.jit(lambda p, s, x, arrays: layer.apply(p, s, x, **arrays, **static))
    inputs = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (params, state, x, arrays))
    cost = forward.lower(*inputs).cost_analysis()
    return int((cost or {}).get("flops", 0))


def _shapes(y: Any) -> str:
    return ", ".join(str(list(leaf.shape)) for leaf in jax.tree.leaves(y))


def _count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
