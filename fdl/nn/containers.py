"""Layers made of layers: `Serial`, `Parallel` and `Residual`."""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn, Self

import jax
import jax.numpy as jnp

from fdl.core import Layer, Tree, fold
from fdl.errors import InputError, did_you_mean
from fdl.records import pretty, short, source

Part = Layer | Callable[[Any], Any]


@dataclass(frozen=True, init=False, repr=False)
class Named(Layer):
    """A container whose children are named by position, "0", "1", ..., or by keyword."""

    items: tuple[tuple[str, Part], ...]

    def __init__(self, *layers: Part, **named: Part) -> None:
        items = (*((str(i), layer) for i, layer in enumerate(layers)), *named.items())
        if not layers and isinstance(named.get("items"), tuple):  # the field, as `dataclasses.replace` hands it over
            items = self._pairs(named["items"])
        for name, part in items:
            if name in named and (name.isdigit() or "/" in name):
                raise InputError(f"{type(self).__name__}: {name!r} cannot be a name: digits are positions, / a path")
            kind = type(self).__name__
            if isinstance(part, type) and issubclass(part, Layer):
                made = part.__name__
                raise InputError(f"{kind}: {name!r} must be a layer, got the class {made}: make one, {made}(...)")
            if not callable(part):
                hint = f"; give them one by one: {kind}(*layers)" if isinstance(part, list | tuple) else ""
                raise InputError(f"{kind}: {name!r} must be a layer or a function, got {short(part)}{hint}")
        object.__setattr__(self, "items", items)

    @classmethod
    def _pairs(cls, items: Any) -> tuple[tuple[str, Part], ...]:
        """`items` in the form of the field: a name and a layer each, no name twice.

        Raises:
          InputError: another form, and how layers are given.
        """
        pairs = all(isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str) for item in items)
        if not pairs or len(dict(items)) != len(items):
            raise InputError(
                f"{cls.__name__}: items: expected (name, layer) pairs, each name once, got {short(items)}; layers are "
                f"given one by one, {cls.__name__}(*layers)"
            )
        return items

    def __repr__(self) -> str:
        return pretty(f"{type(self).__name__}({', '.join(self._shown())})")

    def _shown(self) -> list[str]:
        return [source(part) if name.isdigit() else f"{name}={source(part)}" for name, part in self.items]

    if not TYPE_CHECKING:  # a type checker knows the attributes there are

        def __getattr__(self, name: str) -> Any:
            names = dict(vars(self).get("items", ()))
            hint = f"; the layer of that name is .parts()[{name!r}]" if name in names else did_you_mean(name, names)
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{hint}", name=name, obj=self)

    def __getitem__(self, name: Any) -> NoReturn:
        kind = type(self).__name__
        raise TypeError(f"{kind} is not indexed; its layers by name are .parts(), such as .parts()[{str(name)!r}]")

    def parts(self) -> dict[str, Any]:
        return dict(self.items)

    def replace_parts(self, parts: Mapping[str, Any]) -> Self:
        other = copy.copy(self)
        object.__setattr__(other, "items", tuple((name, parts.get(name, part)) for name, part in self.items))
        return other


class Serial(Named):
    """y = f_n(... f_2(f_1(x))).

    Args:
      layers: named by position, "0", "1", ...; a plain function such as `jax.nn.relu` may stand among them.
      named: further layers, under the names given.
    Call: x -> y; other keywords go to the layers whose signature names them.

    As PyTorch's `nn.Sequential`; names there are positional as well.

    >>> import jax
    >>> from fdl import nn
    >>> nn.Serial(nn.Linear(4, 8), jax.nn.relu, head=nn.Linear(8, 3))
    Serial(Linear(4, 8), jax.nn.relu, head=Linear(8, 3))
    """

    def apply(
        self, params: Tree, state: Tree, x: Any, *, key: jax.Array | None = None, train: bool = False, **keywords: Any
    ) -> tuple[Any, Tree]:
        require_known(self, keywords)
        new = {}
        for name, part in self.items:
            x, changed = apply_part(name, part, params, state, x, key=key, train=train, **keywords)
            new |= changed
        return x, new


@dataclass(frozen=True, init=False, repr=False)
class Parallel(Named):
    """y = f_1(x) + ... + f_n(x), or the f_i(x) joined along the last axis.

    Args:
      layers, named: as in `Serial`; all get the same x.
      combine: "sum" or "concat".
    Call: x -> y; other keywords go to the layers whose signature names them.

    Raises:
      InputError: another `combine`, no layers; terms of a sum that differ in shape.

    >>> import jax.numpy as jnp
    >>> from fdl import nn
    >>> nn.Parallel(jnp.sin, jnp.cos, combine="concat")({}, jnp.zeros((1, 1))).tolist()
    [[0.0, 1.0]]
    """

    combine: Literal["sum", "concat"] = "sum"

    def __init__(self, *layers: Part, combine: Literal["sum", "concat"] = "sum", **named: Part) -> None:
        super().__init__(*layers, **named)
        object.__setattr__(self, "combine", combine)
        if combine not in ("sum", "concat"):
            raise InputError(f'Parallel: combine: expected "sum" or "concat", got {combine!r}')
        if not self.items:
            raise InputError("Parallel: expected at least one layer")

    def _shown(self) -> list[str]:
        return super()._shown() + ([] if self.combine == "sum" else [f"combine={self.combine!r}"])

    def apply(
        self, params: Tree, state: Tree, x: Any, *, key: jax.Array | None = None, train: bool = False, **keywords: Any
    ) -> tuple[Any, Tree]:
        require_known(self, keywords)
        ys, new = [], {}
        for name, part in self.items:
            y, changed = apply_part(name, part, params, state, x, key=key, train=train, **keywords)
            ys.append(y)
            new |= changed
        if self.combine == "concat":
            return jnp.concatenate(ys, axis=-1), new
        if len({y.shape for y in ys}) > 1:
            raise InputError(f"{short(self)}: the terms of the sum have shapes {[list(y.shape) for y in ys]}")
        return functools.reduce(jnp.add, ys), new


@dataclass(frozen=True)
class Residual(Layer):
    """y = shortcut(x) + block(x), the shortcut being the identity unless given (He et al., 2016, equation 2).

    Call: x -> y of the shape of block(x).

    Raises:
      InputError: the two terms differ in shape.
    """

    block: Part
    shortcut: Part | None = None

    def apply(
        self, params: Tree, state: Tree, x: Any, *, key: jax.Array | None = None, train: bool = False, **keywords: Any
    ) -> tuple[Any, Tree]:
        require_known(self, keywords)
        y, new = apply_part("block", self.block, params, state, x, key=key, train=train, **keywords)
        if self.shortcut is not None:
            x, changed = apply_part("shortcut", self.shortcut, params, state, x, key=key, train=train, **keywords)
            new |= changed
        if x.shape != y.shape:
            raise InputError(
                f"{short(self)}: block(x) has shape {list(y.shape)}, the shortcut {list(x.shape)}; "
                "give a shortcut layer that maps one to the other"
            )
        return x + y, new


def apply_part(
    name: str, part: Part, params: Tree, state: Tree, x: Any, *, key: Any, train: bool, **keywords: Any
) -> tuple[Any, Tree]:
    """One child of a container: its y, and its new state under its name (nothing where it has none)."""
    with scope(name):
        if not isinstance(part, Layer):
            return part(x), {}
        mine = {k: v for k, v in keywords.items() if k in accepted(part)}
        y, new = part.apply(params.get(name, {}), state.get(name, {}), x, key=fold(key, name), train=train, **mine)
    return y, {name: new} if name in state else {}


@contextmanager
def scope(name: str) -> Iterator[None]:
    """Names a part in profiles, and in the path of an error that rises from it."""
    try:
        with jax.named_scope(name):
            yield
    except Exception as error:
        prefix, notes = "in layer ", getattr(error, "__notes__", [])
        inner = next((note for note in notes if note.startswith(prefix)), None)  # not always last: JAX adds notes too
        if inner is not None:
            notes.remove(inner)
            name = f"{name}/{inner.removeprefix(prefix)}"
        error.add_note(prefix + name)
        raise


def accepted(part: Any) -> set[str]:
    """The keywords, beside `key` and `train`, that a layer's signature names; a container passes on its children's."""
    if isinstance(part, tuple):
        return {name for item in part for name in accepted(item)}
    if not isinstance(part, Layer):
        return set()
    lifted = type(part).apply is Layer.apply
    signature = inspect.signature(part.__call__ if lifted else part.apply)
    after = list(signature.parameters.values())[2 if lifted else 3 :]
    names = {p.name for p in after if p.kind is not p.VAR_KEYWORD} - {"key", "train"}
    if any(p.kind is p.VAR_KEYWORD for p in after):
        names |= {name for child in part.parts().values() for name in accepted(child)}
    return names


def takes_any(part: Layer) -> bool:
    """Whether a layer that is no container of others takes keywords that its signature does not name."""
    method = part.__call__ if type(part).apply is Layer.apply else part.apply
    return not part.parts() and any(p.kind is p.VAR_KEYWORD for p in inspect.signature(method).parameters.values())


def require_known(container: Layer, keywords: Mapping[str, Any]) -> None:
    """Raises where no child of the container names one of the keywords."""
    valid = accepted(container)
    for name in keywords:
        if name not in valid:
            raise InputError(f"no layer in {container!r} takes the keyword {name!r}{did_you_mean(name, valid)}")
