"""Model surgery: the record with one of its parts exchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fdl.core import Layer
from fdl.errors import InputError, did_you_mean
from fdl.records import short


def edit(layer: Layer, path: str, new: Layer | Callable[[Any], Any]) -> Layer:
    """The record with the part at `path` replaced by `new`, a layer, or by `new(old)`, a function of the old part.

    Arrays are not touched: initialise the new part and put its params at the same path.

    >>> import jax
    >>> from fdl import nn
    >>> model = nn.Serial(body=nn.Linear(4, 8), act=jax.nn.relu, head=nn.Linear(8, 3))
    >>> edit(model, "head", nn.Linear(8, 5))
    Serial(body=Linear(4, 8), act=jax.nn.relu, head=Linear(8, 5))

    Raises:
      InputError: no part has that path; the nearest valid name is proposed.
    """
    return _edit(layer, path.split("/"), new, path)


def _edit(part: Any, names: list[str], new: Any, path: str) -> Any:
    if not names:
        return new if isinstance(new, Layer) else new(part)
    name, *rest = names
    parts = part.parts() if isinstance(part, Layer) else {}
    if isinstance(part, tuple):
        parts = {str(i): item for i, item in enumerate(part)}
    if name not in parts:
        raise InputError(f"no part {name!r} of {short(part)} (path {path!r}){did_you_mean(name, parts)}")
    changed = _edit(parts[name], rest, new, path)
    if isinstance(part, tuple):
        return tuple(changed if other == name else item for other, item in parts.items())
    return part.replace_parts({name: changed})
