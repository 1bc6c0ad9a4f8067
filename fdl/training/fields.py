"""The fields of a `Config`, those of dataclasses inside of it by dotted names: "optim.learning_rate"."""

from __future__ import annotations

import dataclasses
import sys
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from fdl.core import Layer
from fdl.errors import InputError, did_you_mean


def leaves(config: Any) -> Iterator[tuple[str, Any]]:
    """`("optim.learning_rate", 0.1)` for every field that is no dataclass of options itself.

    >>> from dataclasses import make_dataclass
    >>> Optim = make_dataclass("Optim", [("rate", float)])
    >>> list(leaves(make_dataclass("Config", [("optim", Optim), ("width", int)])(Optim(0.1), 8)))
    [('optim.rate', 0.1), ('width', 8)]
    """
    return ((name, getattr(holder, field.name)) for name, holder, field in _walk(config))


def described(config: Any) -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """The same names, with the description of each field."""
    return ((name, field) for name, _, field in _walk(config))


def _walk(config: Any, prefix: str = "") -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if is_options(value):
            yield from _walk(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, config, field


def is_options(value: Any) -> bool:
    """Whether a value is a dataclass of further options, and no record such as a layer or an initialiser."""
    kind = type(value)
    if not dataclasses.is_dataclass(value) or isinstance(value, type | Layer):
        return False
    ours = kind.__module__.partition(".")[0] == "fdl"
    return not (ours and getattr(sys.modules.get(kind.__module__), kind.__name__, None) is kind)


def value_at(config: Any, name: str) -> Any:
    """The value of a field."""
    for part in name.split("."):
        config = getattr(config, part)
    return config


def replaced(config: Any, values: Mapping[str, Any]) -> Any:
    """The config with other values of some fields.

    >>> from dataclasses import make_dataclass
    >>> Optim = make_dataclass("Optim", [("rate", float)])
    >>> replaced(make_dataclass("Config", [("optim", Optim)])(Optim(0.1)), {"optim.rate": 0.2})
    Config(optim=Optim(rate=0.2))
    """
    own = {name: value for name, value in values.items() if "." not in name}
    inner: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        first, dot, rest = name.partition(".")
        if dot:
            inner.setdefault(first, {})[rest] = value
    for first, changes in inner.items():
        own[first] = replaced(own.get(first, getattr(config, first)), changes)
    return dataclasses.replace(config, **own)


def find(config: Any, name: str, where: str) -> tuple[Any, Any]:
    """The value of a field, and its type as it is annotated; `typing.Any` where that cannot be known.

    Raises:
      InputError: no such field; `where` stands in front.
    """
    holder, (*outer, last) = config, name.split(".")
    for part in outer:
        holder: Any = getattr(holder, part, None)
    known = [field.name for field in dataclasses.fields(holder)] if holder is config or is_options(holder) else []
    if last not in known:
        every = [
            *dict.fromkeys(
                [*(field.name for field in dataclasses.fields(config)), *(leaf for leaf, _ in leaves(config))]
            )
        ]
        raise InputError(f"{where}: the config has no field {name!r}{did_you_mean(name, every)}")
    try:
        kind = typing.get_type_hints(type(holder), include_extras=True).get(last, Any)
    except (NameError, TypeError):  # a type that only the function knows in which the class was written
        kind = Any
    return getattr(holder, last), kind
