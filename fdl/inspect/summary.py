"""The table of a model: paths, layers, shapes, parameters, work. Nothing is allocated or computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fdl.core import Layer, abstract
from fdl.data.conversion import jax_tree
from fdl.errors import InputError
from fdl.inspect.taps import attach
from fdl.records import short
from fdl.runs.tables import aligned


class Row(NamedTuple):
    """One layer: `params` counts the numbers it owns or holds inside, `flops` its forward pass on the example.

    `backward`: the work of the gradients of its parameters and input; None where nobody asked.
    """

    path: str
    layer: str
    output: str
    params: int
    flops: int
    backward: int | None = None


class Summary(NamedTuple):
    """The rows of a model in the order in which its layers finish, and the figures of the whole.

    `backward`: the work of the gradients of all parameters, as training computes them; None where nobody asked.
    """

    rows: tuple[Row, ...]
    params: int
    state: int
    flops: int
    backward: int | None = None

    def __str__(self) -> str:
        lines = [("path", "layer", "output", "params", "FLOPs", "backward")]
        lines += [(*row[:3], *map(_figure, row[3:])) for row in self.rows]
        lines += [("total", "", "", *map(_figure, (self.params, self.flops, self.backward)))]
        if self.backward is None:
            lines = [line[:-1] for line in lines]
        text = aligned(lines, left=3, total=True)
        return f"{text}\nand {self.state:,} running statistics" if self.state else text


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
    return summarize(layer, x, {name: _example(shape) for name, shape in keywords.items()})


def summarize(layer: Layer, x: Any, keywords: dict[str, Any], backward: bool = False) -> Summary:
    """`summary` of any pytree x of abstract arrays; with `backward`, the work of gradients in a column of its own."""
    rows: list[Row] = []

    def report(path: str, part: Layer, inputs: tuple[Any, ...], y: Any) -> None:
        if not part.parts():
            work = _work(part, *inputs, backward=("params", "x") if backward else ())
            rows.append(Row(path, short(part), _shapes(y), count(inputs[0]), *work))

    params, state = abstract(layer)
    jax.eval_shape(lambda p, s, x, named: attach(layer, report).apply(p, s, x, **named), params, state, x, keywords)
    work = _work(layer, params, state, x, keywords, backward=("params",) if backward else ())
    return Summary(tuple(rows), count(params), count(state), *work)


def flops(function: Callable[..., Any], *arguments: Any) -> int:
    """XLA's count of the floating-point operations of a function of abstract arrays, a loop's body counted once."""
    return int((jax.jit(function).lower(*arguments).cost_analysis() or {}).get("flops", 0))


def count(tree: Any) -> int:
    """How many numbers a tree holds."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _example(shape: Any) -> jax.ShapeDtypeStruct:
    if hasattr(shape, "shape") and hasattr(shape, "dtype"):
        example = jax_tree(shape, "summary: the example")
        return jax.ShapeDtypeStruct(example.shape, jax.dtypes.canonicalize_dtype(example.dtype))
    if isinstance(shape, tuple | list) and all(isinstance(n, int) and n >= 0 for n in shape):
        return jax.ShapeDtypeStruct(tuple(shape), jnp.float32)
    raise InputError(f"summary: expected a shape such as (1, 28, 28, 1), got {shape!r}")


def _work(
    layer: Layer, params: Any, state: Any, x: Any, keywords: Any, *, backward: tuple[str, ...]
) -> tuple[int, int | None]:
    """FLOPs forward, and those of the gradients of "params", or of "params" and "x"; None where nothing is asked."""
    arrays = {name: value for name, value in keywords.items() if jax.tree.leaves(value) and not isinstance(value, bool)}
    static: dict[str, Any] = {name: value for name, value in keywords.items() if name not in arrays}

    def forward(params: Any, state: Any, x: Any, arrays: Any) -> Any:
        return layer.apply(params, state, x, **arrays, **static)

    def both(params: Any, state: Any, x: Any, arrays: Any, cotangents: list[Any]) -> Any:
        def outputs(floats: list[Any]) -> tuple[list[Any], Any]:
            given = {"params": params, "x": x} | rebuild(floats)
            y, new = forward(given["params"], state, given["x"], arrays)
            return _floats(y)[0], (y, new)

        floats, rebuild = _floats({name: {"params": params, "x": x}[name] for name in backward})
        _, pullback, results = jax.vjp(outputs, floats, has_aux=True)
        return results, pullback(cotangents)

    inputs = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (params, state, x, arrays))
    once = flops(forward, *inputs)
    if not backward:
        return once, None
    cotangents = _floats(jax.eval_shape(forward, *inputs)[0])[0]
    return once, flops(both, *inputs, cotangents) - once


def _floats(tree: Any) -> tuple[list[Any], Callable[[list[Any]], Any]]:
    """The leaves that have gradients, and the tree with others in their place."""
    leaves, structure = jax.tree.flatten(tree)
    floating = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def rebuild(floats: list[Any]) -> Any:
        rest = iter(floats)
        return structure.unflatten([next(rest) if f else leaf for f, leaf in zip(floating, leaves, strict=True)])

    return [leaf for f, leaf in zip(floating, leaves, strict=True) if f], rebuild


def _figure(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def _shapes(y: Any) -> str:
    return ", ".join(str(list(leaf.shape)) for leaf in jax.tree.leaves(y))
