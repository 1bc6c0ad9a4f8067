"""Models as data: a `Layer` is a frozen record, a `Param` says everything about an array before it exists.

`Layer.specs()` is the one declaration from which initial values, shapes, checks, shardings and counts are derived.
Parameters and running statistics live outside the record, in two nested dicts that mirror it by name.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

import jax
import jax.numpy as jnp

from fdl.errors import InputError
from fdl.records import record_source
from fdl.trail import on_error

Tree = dict[str, Any]
Initializer = Callable[..., jax.Array]


@dataclass(frozen=True)
class Param:
    """Everything known about one array before it exists.

    Args:
      shape: its sizes.
      init: `(key, shape, dtype) -> array`, a value-equal record of `fdl.initializers`.
      axes: a logical name (or None) for every axis; rules for sharding and weight decay read them.
      kind: "param" is trained, "state" is a running statistic (always float32).
    """

    shape: tuple[int, ...]
    init: Initializer
    axes: tuple[str | None, ...] | None = None
    kind: str = "param"


class Layer:
    """Base of all layers: a frozen dataclass of hyper-parameters and sub-layers that never holds an array.

    A stateless layer writes `__call__(params, x) -> y`; a layer with running statistics writes
    `apply(params, state, x) -> (y, state)`. Containers and tasks always call `apply`. An error that rises in one
    of them gets notes with the path of the layer and the shapes up to it, see `fdl.trail`.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__repr__ = cls.__repr__  # pins the inherited one, or @dataclass would write its own
        for name in {"apply", "__call__"} & vars(cls).keys():
            setattr(cls, name, on_error(vars(cls)[name]))

    def __repr__(self) -> str:
        return record_source(self)

    def parts(self) -> dict[str, Any]:
        """Named sub-layers: each field that is a `Layer`, or a tuple of them (then named "0", "1", ... inside)."""
        named = ((f.name, getattr(self, f.name)) for f in fields(self))  # pyright: ignore[reportArgumentType]
        return {name: part for name, part in named if isinstance(part, Layer) or _is_layers(part)}

    def replace_parts(self, parts: Mapping[str, Any]) -> Layer:
        """The record with some of its `parts` exchanged."""
        return dataclasses.replace(self, **parts)  # pyright: ignore[reportArgumentType]

    def specs(self) -> Tree:
        """Nested dict of `Param`. A layer with arrays of its own writes this; a composite has one entry a part."""
        return {name: _specs(part) for name, part in self.parts().items() if isinstance(part, Layer | tuple)}

    def apply(
        self, params: Tree, state: Tree, x: Any, *, key: jax.Array | None = None, train: bool = False, **keywords: Any
    ) -> tuple[Any, Tree]:
        """`(y, state)`: the form that every layer has."""
        return self(params, x, key=key, train=train, **keywords), state

    def __call__(
        self, params: Tree, x: Any, *, key: jax.Array | None = None, train: bool = False, **keywords: Any
    ) -> Any:
        """`y`: the form of a layer without running statistics."""
        if type(self).apply is Layer.apply:
            raise NotImplementedError(f"{type(self).__name__} defines neither __call__ nor apply")
        if any(spec.kind == "state" for _, spec in leaves(self.specs())):
            raise InputError(
                f"{self!r} keeps running statistics; call y, state = layer.apply(params, state, x, ...) instead"
            )
        return self.apply(params, {}, x, key=key, train=train, **keywords)[0]


def _is_layers(part: Any) -> bool:
    return isinstance(part, tuple) and any(isinstance(item, Layer) for item in part)


def _specs(part: Any) -> Tree:
    if isinstance(part, Layer):
        return part.specs()
    return {str(i): item.specs() for i, item in enumerate(part) if isinstance(item, Layer)}


class Copies(dict[str, Any]):
    """The specs of n copies of a layer: those of one, each with a leading axis for the copies.

    Copy i is initialised as one layer with the key `fold(key, i)`. An initialiser handed the stacked shape instead
    would take the copies for inputs: LeCun's standard deviation would come out too small by sqrt(n).
    """

    def __init__(self, specs: Tree, copies: int, axis: str) -> None:
        self.one, self.copies = specs, copies
        super().__init__(_map_specs(specs, lambda spec: _copied(spec, copies, axis)))


def _copied(spec: Param, copies: int, axis: str) -> Param:
    axes = (axis, *(spec.axes or (None,) * len(spec.shape)))
    return dataclasses.replace(spec, shape=(copies, *spec.shape), axes=axes)


def _map_specs(specs: Any, function: Callable[[Param], Param]) -> Any:
    if isinstance(specs, Param):
        return function(specs)
    return {name: _map_specs(spec, function) for name, spec in specs.items()}


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """`("a/b/kernel", leaf)` for every leaf of a nested dict, in its order."""
    if not isinstance(tree, Mapping):
        yield path, tree
        return
    for name, branch in tree.items():
        yield from leaves(branch, f"{path}/{name}" if path else str(name))


def fold(key: jax.Array | None, *names: str | int | jax.Array) -> Any:
    """The key of a named descendant; None (no randomness wanted) stays None.

    A string folds in its crc32, a number itself, one after the other: `fold(key, "a", "b") ==
    fold(fold(key, "a"), "b")`, and no key depends on how many others were drawn before it.
    """
    for name in names:
        if key is not None:
            key = jax.random.fold_in(key, zlib.crc32(name.encode()) if isinstance(name, str) else name)
    return key


def init(layer: Layer, key: jax.Array, dtype: Any = jnp.float32) -> tuple[Tree, Tree]:
    """Initial `(params, state)`; a leaf's value depends on the key and its own path alone.

    `params` has an entry for every sub-layer, `{}` where that has no parameters; `state` holds only what has state.
    """
    specs = layer.specs()
    return _init(specs, key, "param", dtype), _init(specs, key, "state", jnp.float32)


def _init(specs: Tree, key: jax.Array, kind: str, dtype: Any) -> Tree:
    if isinstance(specs, Copies):
        return jax.vmap(lambda i: _init(specs.one, fold(key, i), kind, dtype))(jnp.arange(specs.copies))
    tree = {}
    for name, spec in specs.items():
        if not isinstance(spec, Param):
            branch = _init(spec, fold(key, name), kind, dtype)
            if branch or kind == "param":
                tree[name] = branch
        elif spec.kind == kind:
            tree[name] = spec.init(fold(key, name), spec.shape, dtype)
    return tree


def abstract(layer: Layer, dtype: Any = jnp.float32) -> tuple[Tree, Tree]:
    """`init` as trees of `jax.ShapeDtypeStruct`: nothing is allocated."""
    return jax.eval_shape(lambda: init(layer, jax.random.key(0), dtype))


def check(layer: Layer, params: Tree, state: Tree | None = None) -> None:
    """Compares the paths and shapes of `params` (and `state`) with what the layer declares.

    Raises:
      InputError: one table of every missing (-), unexpected (+) and misshapen (!) path.
    """
    wrong = []
    for want, got in zip(abstract(layer), (params, state), strict=True):
        if got is None:
            continue
        wanted, found = ({path: tuple(jnp.shape(x)) for path, x in leaves(tree)} for tree in (want, got))
        wrong += [f"  - {path}: missing, expected {shape}" for path, shape in wanted.items() if path not in found]
        wrong += [f"  + {path}: unexpected, got {shape}" for path, shape in found.items() if path not in wanted]
        both = [path for path in wanted if path in found and wanted[path] != found[path]]
        wrong += [f"  ! {path}: expected {wanted[path]}, got {found[path]}" for path in both]
    if wrong:
        raise InputError("\n".join(["the arrays do not fit the model:", *wrong]))
