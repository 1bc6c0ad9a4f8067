"""Model surgery: the record with one of its parts exchanged."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from fdl.core import Layer
from fdl.errors import InputError, did_you_mean
from fdl.fields import may_be_none
from fdl.records import short


def edit(layer: Layer, path: str, new: Layer | Callable[[Any], Any] | None) -> Layer:
    """The record with the part at `path` replaced by `new`, a layer, or by `new(old)`, a function of the old part.

    To put a plain function in its place, such as another activation, return it: `lambda old: jax.nn.gelu`. None leaves
    out a part that may be missing, such as `Residual.shortcut` or the head of `fdl.models.Decoder`, which can be given
    in the same way. Arrays are not touched: initialise the new part and put its params at the same path.

    >>> import jax
    >>> from fdl import nn
    >>> model = nn.Serial(body=nn.Linear(4, 8), act=jax.nn.relu, head=nn.Linear(8, 3))
    >>> edit(model, "head", nn.Linear(8, 5))
    Serial(body=Linear(4, 8), act=jax.nn.relu, head=Linear(8, 5))

    The maps of `Attention` (query, key, value, out) and of `GatedLinear` (value, gate) are reached as well:

    >>> edit(nn.Attention(8, 2), "query", lambda query: nn.LoRA(query, rank=2, alpha=2.0)).specs()["query"]["a"]
    {'kernel': Param(shape=(8, 2), init=LecunNormal(), axes=('embed', None), kind='param')}

    Raises:
      InputError: no part has that path, and the nearest valid name is proposed; a new part that is no layer or
        function, or None for one that is needed.
    """
    return _edit(layer, path.split("/"), new, path)


def _edit(part: Any, names: list[str], new: Any, path: str) -> Any:
    if not names:
        return _made(part, new, path)
    name, *rest = names
    parts, optional = part.editable() if isinstance(part, Layer) else {}, _optional(part)
    if isinstance(part, tuple):
        parts = {str(i): item for i, item in enumerate(part)}
    if name not in parts and name not in optional:
        arrays = isinstance(part, Layer) and name in part.specs()
        hint = f"; {name!r} holds arrays of the layer, which is exchanged as a whole" if arrays else ""
        raise InputError(f"no part {name!r} of {short(part)} (path {path!r}){hint or did_you_mean(name, parts)}")
    changed = _edit(parts.get(name), rest, new, path)
    if changed is None and name not in optional:
        raise InputError(
            f"edit: {path!r} cannot be None, for {type(part).__name__} has no place that may be empty there; "
            "fdl.nn.Serial() passes x on as it is"
        )
    if isinstance(part, tuple):
        return tuple(changed if other == name else item for other, item in parts.items())
    return part.replace_parts({name: changed})


def _made(old: Any, new: Any, path: str) -> Any:
    """The part that `new` stands for."""
    if not (new is None or callable(new)):
        raise InputError(f"edit: {path!r}: expected a layer, a function of the old part or None, got {short(new)}")
    made = new if new is None or isinstance(new, Layer) else new(old)
    if not (made is None or callable(made) or isinstance(made, tuple)):
        raise InputError(f"edit: {path!r}: expected the new part to be a layer or a function, got {short(made)}")
    return made


def _optional(part: Any) -> set[str]:
    """The fields of a layer that may be None and are, or hold a layer."""
    if not isinstance(part, Layer) or not dataclasses.is_dataclass(part):
        return set()
    names = {field.name for field in dataclasses.fields(part) if may_be_none(type(part), field.name)}
    return {name for name in names if isinstance(getattr(part, name), Layer | None)}
