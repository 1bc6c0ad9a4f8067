"""How frozen records print: as the Python source that makes them, functions by their public names."""

from __future__ import annotations

import dataclasses
import importlib
import math
from typing import Any

PUBLIC = ("jax.nn", "jax.numpy", "jax.lax")


def record_source(record: Any) -> str:
    """A dataclass as the call that makes it: required fields by position, others by name where not the default."""
    shown = []
    for field in filter(lambda field: field.init, dataclasses.fields(record)):
        value = getattr(record, field.name)
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and not field.kw_only:
            shown.append(source(value))
        elif required or not _is_default(field, value):
            shown.append(f"{field.name}={source(value)}")
    return f"{type(record).__name__}({', '.join(shown)})"


def source(value: Any) -> str:
    """The value of a field as Python source.

    >>> import jax
    >>> source((1, 2.0, "a", None, jax.nn.relu))
    "(1, 2.0, 'a', None, jax.nn.relu)"
    """
    if isinstance(value, tuple) and not hasattr(value, "_fields"):
        return "(" + ", ".join(map(source, value)) + ("," if len(value) == 1 else "") + ")"
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"  # inf is no Python literal
    is_record = dataclasses.is_dataclass(value) or isinstance(value, tuple)
    return _public_name(value) if callable(value) and not is_record else repr(value)


def _is_default(field: dataclasses.Field[Any], item: Any) -> bool:
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    return item is default or (type(item) is type(default) and item == default)


def _public_name(function: Any) -> str:
    """The dotted name under which a function can be imported; its repr where it has none (a lambda)."""
    name = getattr(function, "__qualname__", getattr(function, "__name__", ""))
    for module in (*PUBLIC, getattr(function, "__module__", None) or ""):
        try:
            if getattr(importlib.import_module(module), name, None) is function:
                return f"{module}.{name}"
        except (ImportError, ValueError):
            continue
    return repr(function)
