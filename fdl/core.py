"""Models as data: a `Layer` is a frozen record, a `Param` says everything about an array before it exists.

`Layer.specs()` is the one declaration from which initial values, shapes, checks, shardings and counts are derived.
Parameters and running statistics live outside the record, in two nested dicts that mirror it by name.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
from jax.core import Tracer

from fdl.errors import InputError
from fdl.fields import Meaning, check_fields, is_whole
from fdl.records import pretty, record_source, short
from fdl.trail import on_error

Tree = dict[str, Any]
Initializer = Callable[..., jax.Array]
Names = tuple[str, ...]
LOOPED = 2  # so many draws compile about as fast as a loop over more


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
    init: Initializer = cast(Any, None)  # required; that it is missing is said below
    axes: tuple[str | None, ...] | None = None
    kind: str = "param"

    def __post_init__(self) -> None:
        if not isinstance(self.shape, tuple) or not all(is_whole(size, 0) for size in self.shape):
            raise InputError(f"Param: shape: expected a tuple of whole numbers >= 0, got {self.shape!r}")
        if not callable(self.init):
            raise InputError(f"Param: init: expected an initializer, such as initializers.Zeros(), got {self.init!r}")
        if self.axes is not None and len(self.axes) != len(self.shape):
            raise InputError(f"Param: expected a name, or None, for each axis of {self.shape}, got axes {self.axes!r}")
        if self.kind not in ("param", "state"):
            raise InputError(f'Param: kind: expected "param" or "state", got {self.kind!r}')


class Layer:
    """Base of all layers: a frozen dataclass of hyper-parameters and sub-layers that never holds an array.

    A stateless layer writes `__call__(params, x) -> y`; a layer with running statistics writes
    `apply(params, state, x) -> (y, state)`. Containers and tasks always call `apply`, with `key=` and `train=`; a
    method that names neither is called without. An error that rises in one of them gets notes with the path of the
    layer and the shapes up to it, see `fdl.trail`.

    A field annotated with a meaning of `fdl.fields`, such as `in_features: Size`, is checked when the record is made.
    """

    meaning: ClassVar[Meaning] = Meaning("a layer", lambda value: isinstance(value, Layer))  # of a field so annotated

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__repr__ = cls.__repr__  # pins the inherited one, or @dataclass would write its own
        for name in {"apply", "__call__"} & vars(cls).keys():
            setattr(cls, name, on_error(_lenient(vars(cls)[name])))
        if "__post_init__" in vars(cls):
            setattr(cls, "__post_init__", _after_check(vars(cls)["__post_init__"]))  # noqa: B010

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        return pretty(record_source(self))

    def parts(self) -> dict[str, Any]:
        """Named sub-layers: each field that is a `Layer`, or a tuple of them (then named "0", "1", ... inside)."""
        own = fields(self) if dataclasses.is_dataclass(self) else ()  # a layer without fields needs no decorator
        named = ((f.name, getattr(self, f.name)) for f in own)
        return {name: part for name, part in named if isinstance(part, Layer) or _is_layers(part)}

    def editable(self) -> dict[str, Any]:
        """What `fdl.edit` reaches by name: the `parts`, unless a layer has more."""
        return self.parts()

    def replace_parts(self, parts: Mapping[str, Any]) -> Layer:
        """The record with some of what is `editable` exchanged."""
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
                f"{short(self)} keeps running statistics; call y, state = layer.apply(params, state, x, ...) instead"
            )
        return self.apply(params, {}, x, key=key, train=train, **keywords)[0]


def _after_check(post_init: Callable[[Any], None]) -> Callable[[Any], None]:
    """A `__post_init__` that finds every field in the range that its annotation declares."""

    @functools.wraps(post_init)
    def checked(layer: Any) -> None:
        check_fields(layer)
        post_init(layer)

    return checked


def _lenient(method: Callable[..., Any]) -> Callable[..., Any]:
    """`apply` or `__call__`; a `key` or `train` that its signature does not name is kept from it."""
    parameters = inspect.signature(method).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()) or {"key", "train"} <= parameters.keys():
        return method
    unnamed = {"key", "train"} - parameters.keys()

    @functools.wraps(method)
    def call(*arguments: Any, **keywords: Any) -> Any:
        return method(*arguments, **{name: value for name, value in keywords.items() if name not in unnamed})

    return call


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


def check_key(name: str, key: Any) -> None:
    """Raises InputError where something is no key of `jax.random`."""
    if not hasattr(key, "dtype"):
        seed = key if isinstance(key, int) else 0
        raise InputError(f"{name}: key: expected a key such as jax.random.key({seed}), got {short(key)}")


def init(layer: Layer, key: jax.Array, dtype: Any = jnp.float32) -> tuple[Tree, Tree]:
    """Initial `(params, state)`; a leaf's value depends on the key and its own path alone.

    `params` has an entry for every sub-layer, `{}` where that has no parameters; `state` holds only what has state.

    Raises:
      InputError: no layer, no key.
    """
    if not isinstance(layer, Layer):
        hint = f"; make one, {layer.__name__}(...)" if isinstance(layer, type) else ""
        raise InputError(f"init: expected a layer and a key, got {short(layer)} as layer{hint}")
    check_key("init", key)
    specs = layer.specs()
    return _init(specs, key, "param", dtype), _init(specs, key, "state", jnp.float32)


def _init(specs: Tree, key: jax.Array, kind: str, dtype: Any) -> Tree:
    wanted = {names: spec for names, spec in _origins(specs) if isinstance(spec, Copies) or spec.kind == kind}
    if not isinstance(key, Tracer) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        drawn = {names: _drawn(spec, fold(key, *names), kind, dtype) for names, spec in wanted.items()}
        return _grown(specs, drawn, kind)
    # A compiled program has code for every draw and every key, which of a deep model takes seconds to compile. So equal
    # draws share a loop here. Outside, JAX keeps the programs of single draws.
    drawn, keys = {}, dict(zip(wanted, _descendants(key, list(wanted)), strict=True))
    for group in _alike(wanted):

        def draw(data: jax.Array, spec: Any = wanted[group[0]]) -> Any:
            return _drawn(spec, jax.random.wrap_key_data(data, impl=jax.random.key_impl(key)), kind, dtype)

        own = [keys[names] for names in group]
        drawn |= zip(group, jax.lax.map(draw, jnp.stack(own)) if len(own) > LOOPED else map(draw, own), strict=True)
    return _grown(specs, drawn, kind)


def _drawn(spec: Param | Copies, key: jax.Array, kind: str, dtype: Any) -> Any:
    if isinstance(spec, Param):
        return spec.init(key, spec.shape, dtype)
    return jax.vmap(lambda i: _init(spec.one, fold(key, i), kind, dtype))(jnp.arange(spec.copies))


def _origins(specs: Tree | Param, names: Names = ()) -> Iterator[tuple[Names, Param | Copies]]:
    """What is drawn with a key of its own, and the names that lead there."""
    if isinstance(specs, Param | Copies):
        yield names, specs
        return
    for name, spec in specs.items():
        yield from _origins(spec, (*names, name))


def _grown(specs: Tree, values: Mapping[Names, Any], kind: str, names: Names = ()) -> Tree:
    """The values as a tree; branches without any are those of the parameters only."""
    if names in values:
        return values[names]
    tree = {}
    for name, spec in specs.items():
        path = (*names, name)
        if path in values or not isinstance(spec, Param):
            branch = _grown(spec, values, kind, path)
            if kind == "param" or jax.tree.leaves(branch):
                tree[name] = branch
    return tree


def _alike(wanted: Mapping[Names, Param | Copies]) -> Iterable[list[Names]]:
    """The names, together where they are drawn from the same distribution for the same shape."""
    groups: dict[Any, list[Names]] = {}
    for names, spec in wanted.items():
        groups.setdefault(_distribution(spec) or names, []).append(names)
    return groups.values()


def _distribution(spec: Param | Copies) -> Any:
    """What equal draws have in common; None for what is drawn by itself."""
    if isinstance(spec, Copies) or not getattr(spec.init, "random", True):
        return None
    try:
        hash(spec.init)
    except TypeError:  # it holds a float that is traced, as in a sweep
        return None
    return spec.init, spec.shape


def _descendants(key: jax.Array, paths: list[Names]) -> jax.Array:
    """`fold(key, *names)` of every path, all of a level at once; as data, or JAX would think keys were used twice."""
    levels = range(max(map(len, paths), default=0))
    real = [[level < len(names) for names in paths] for level in levels]
    data = [[zlib.crc32(names[level].encode()) if level < len(names) else 0 for names in paths] for level in levels]
    impl, start = jax.random.key_impl(key), jax.random.key_data(key)

    def level(keys: jax.Array, now: Any) -> tuple[jax.Array, None]:
        real, data = now
        folded = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(keys, impl=impl), data)
        return jnp.where(real[:, None], jax.random.key_data(folded), keys), None

    keys = jnp.broadcast_to(start, (len(paths), *start.shape))
    return jax.lax.scan(level, keys, (jnp.array(real, bool), jnp.array(data, jnp.uint32)))[0] if levels else keys


def abstract(layer: Layer, dtype: Any = jnp.float32) -> tuple[Tree, Tree]:
    """`init` as trees of `jax.ShapeDtypeStruct`: nothing is allocated."""
    return jax.eval_shape(lambda: init(layer, jax.random.key(0), dtype))


def abstract_key() -> Any:
    """A key for `jax.eval_shape`: a real one would compile the program that makes it."""
    return jax.eval_shape(lambda: jax.random.key(0))


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
