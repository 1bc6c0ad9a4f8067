"""The members of a sweep: settings, each with seeds; and what else a sweep is asked for, checked before it starts."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import jax
import numpy as np

from fdl.errors import InputError
from fdl.signatures import check_signature
from fdl.training.fields import find

Over = Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Member:
    """One run of a sweep: its config, what of it is swept, its seed."""

    config: Any
    setting: Mapping[str, Any]
    seed: int


def expand(config: Any, over: Over | None) -> list[dict[str, Any]]:
    """The settings that `over` spells, each {field: value}.

    Raises:
      InputError: a field that the config lacks, no values, a value that the field's type does not allow, a value or a
        setting that is given twice.
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise InputError(f"sweep: config: expected an instance of a dataclass, got {config!r}")
    if over is None:
        return [{}]
    if isinstance(over, Mapping):
        lists = {name: _fitted_values(config, name, values) for name, values in over.items()}
        return [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    if isinstance(over, str) or not isinstance(over, Sequence) or not all(isinstance(each, Mapping) for each in over):
        raise InputError(f"sweep: over: expected {{field: values}} or a list of {{field: value}}, got {over!r}")
    if not over:
        raise InputError("sweep: over is an empty list; None means the config alone")
    settings = [{name: _fitted(config, name, value) for name, value in setting.items()} for setting in over]
    _refuse_repeated("over", [dict(sorted(setting.items())) for setting in settings])
    return settings


def _fitted_values(config: Any, name: str, values: Any) -> list[Any]:
    if isinstance(values, str | bytes | Mapping | set | frozenset) or not hasattr(values, "__len__"):
        raise InputError(f"sweep: {name}: expected a list of values, got {values!r}")
    if not len(values):
        raise InputError(f"sweep: {name}: expected a list of values, got an empty one")
    fitted = [_fitted(config, name, value) for value in values]
    _refuse_repeated(name, fitted)
    return fitted


def _refuse_repeated(name: str, values: list[Any]) -> None:
    """A value that stands twice would count as more seeds of the same setting."""
    spelled: set[str] = set()
    for value in values:
        if repr(value) in spelled:
            raise InputError(
                f"sweep: {name}: {value!r} is given twice; more seeds of a setting come with seeds=range(8)"
            )
        spelled.add(repr(value))


def _fitted(config: Any, name: str, value: Any) -> Any:
    """The value as the field's type has it: 1 is 1.0 for a float."""
    before, kind = find(config, name, "sweep")
    if kind is Any and before is not None:
        kind = type(before)
    try:
        value = fitted(kind, value)
    except TypeError:
        example = "" if before is None else f" such as {before!r}"
        raise InputError(f"sweep: {name}: expected {spelled(kind)}{example}, got {value!r}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"sweep: {name}: expected a finite number, got {value}")
    return value


def fitted(kind: Any, value: Any) -> Any:
    """`value` as an annotated type has it.

    Raises:
      TypeError: it is no such value.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0:
        value = value.item()
    if origin is typing.Annotated:
        return fitted(arguments[0], value)
    if origin in (typing.Union, types.UnionType):
        return _first_fit(arguments, value)
    if origin is typing.Literal:
        return _expect(any(value == each and type(value) is type(each) for each in arguments), value)
    if origin in (tuple, list) and isinstance(value, tuple | list):
        kinds = (
            arguments if origin is tuple and arguments[-1:] != (...,) else itertools.repeat(arguments[0], len(value))
        )
        return origin(map(fitted, kinds, value)) if origin is list else _tuple(tuple(kinds), value)
    kind = origin or kind
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if kind in (float, int, bool, str):
        return _expect(type(value) is kind, value)
    if isinstance(kind, type) and issubclass(kind, PurePath) and isinstance(value, str):
        return kind(value)
    return _expect(value is None if kind is None else not isinstance(kind, type) or isinstance(value, kind), value)


def _expect(fits: bool, value: Any) -> Any:
    if not fits:
        raise TypeError
    return value


def _tuple(kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    _expect(len(kinds) == len(value), value)
    return tuple(map(fitted, kinds, value))


def _first_fit(kinds: Sequence[Any], value: Any) -> Any:
    """The value as the first of the types has it, of those that leave it as it is, if any do."""
    found = []
    for kind in kinds:
        try:
            found.append(fitted(kind, value))
        except TypeError:
            continue
    _expect(bool(found), value)
    return next((each for each in found if type(each) is type(value)), found[0])


def spelled(kind: Any) -> str:
    """A type for a message: "a float", "a float or None", "one of Kind.A, Kind.B"."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join(map(spelled, typing.get_args(kind)))
    if kind in (None, type(None)):
        return "None"
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return "one of " + ", ".join(f"{kind.__name__}.{member.name}" for member in kind)
    if typing.get_origin(kind) is typing.Literal:
        return "one of " + ", ".join(map(repr, typing.get_args(kind)))
    if isinstance(kind, type) and typing.get_origin(kind) is None:
        return f"{'an' if kind.__name__[0] in 'aeiouAEIOU' else 'a'} {kind.__name__}"
    return f"a value of type {str(kind).replace('typing.', '')}"


def check_seeds(seeds: Any) -> None:
    """Raises InputError where seeds are no list of different whole numbers >= 0."""
    expected = "sweep: seeds: expected different whole numbers >= 0 such as range(8)"
    if isinstance(seeds, str | bytes | Mapping) or not hasattr(seeds, "__len__") or not hasattr(seeds, "__getitem__"):
        hint = f"; range({seeds}) are so many" if isinstance(seeds, int) and not isinstance(seeds, bool) else ""
        raise InputError(f"{expected}, got {seeds!r}{hint}")
    if not len(seeds):
        raise InputError("sweep: expected at least one seed, got none")
    for place, seed in enumerate(seeds):
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            raise InputError(f"{expected}, got {seed!r} at place {place}")
    if len({*map(int, seeds)}) < len(seeds):
        twice = next(seed for place, seed in enumerate(seeds) if seed in seeds[:place])
        raise InputError(f"{expected}, got {int(twice)} twice: both members would be the same to the bit")


def check_devices(devices: Any) -> list[Any]:
    """The devices as a list; raises InputError where they are no list of different devices of one platform."""
    expected = "sweep: devices: expected a list of JAX devices such as jax.devices(), or None for all there are"
    if isinstance(devices, str) or not hasattr(devices, "__iter__"):
        raise InputError(f"{expected}, got {devices!r}")
    found = list(devices)
    if not found:
        raise InputError("sweep: devices is an empty list; None means all there are")
    for device in found:
        if not isinstance(device, jax.Device):
            raise InputError(f"{expected}, got {device!r} in it")
    if len({*found}) < len(found):
        raise InputError(f"{expected}, got one of them twice: {found}")
    if len({device.platform for device in found}) > 1:
        raise InputError(f"{expected}, got devices of different platforms: {found}")
    return found


def check_count(name: str, value: Any, least: int = 1) -> None:
    """Raises InputError where a value is neither None nor a whole number of at least so much."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least):
        raise InputError(f"{name}: expected a whole number >= {least}, got {value!r}")


def check_hooks(hooks: Any) -> None:
    """Raises InputError where hooks are no list of functions."""
    if isinstance(hooks, str | bytes) or not isinstance(hooks, Sequence) or not all(map(callable, hooks)):
        raise InputError(f"hooks: expected a list of functions of an fdl.Event, got {hooks!r}")
    for hook in hooks:
        check_signature("hooks", hook, "(event) -> None")
