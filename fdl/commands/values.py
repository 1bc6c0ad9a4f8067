"""The values of `--over FIELD=VALUES`, spelled as `fdl run --FIELD` takes them, several separated by commas."""

from __future__ import annotations

import enum
import math
import re
import types
import typing
from pathlib import PurePath
from typing import Any

from fdl.errors import InputError
from fdl.records import split

RANGE = re.compile(r"(lin|log):([^:]+?)\.\.([^:]+?)(?::(\d+))?")


def values(config: Any, over: list[str]) -> dict[str, Any]:
    """{field: values} of what was typed, each value in the type of its field; a range without a count as `Uniform`.

    Raises:
      InputError: no FIELD=VALUES, no such field, a field twice, a value that is none.
    """
    from fdl.training.fields import find, is_options, leaves

    found: dict[str, Any] = {}
    for text in over:
        typed, equals, spelled = text.partition("=")
        name = typed.strip().removeprefix("--").replace("-", "_")
        if not equals:
            raise InputError(f"fdl sweep: --over: expected FIELD=VALUES, got {text!r}")
        before, kind = find(config, name, "fdl sweep: --over")
        if is_options(before):
            inner = ", ".join(leaf for leaf, _ in leaves(config) if leaf.startswith(f"{name}."))
            raise InputError(f"fdl sweep: --over {name}: has fields of its own; name one of them: {inner}")
        if name in found:
            raise InputError(f"fdl sweep: --over: {name} is given twice; list all its values in one --over")
        found[name] = _values(name, spelled, type(before) if kind is Any else kind, before)
    return found


def _values(name: str, text: str, kind: Any, before: Any) -> Any:
    from fdl.training.settings import LogUniform, Uniform

    match = RANGE.fullmatch(text)
    if match is None:
        return [_value(name, part.strip(), kind, before) for part in split(text)]
    scale, low, high = match[1], _number(name, match[2]), _number(name, match[3])
    if float not in _choices(kind):
        raise InputError(f"fdl sweep: --over {name}: a range is for floats, {name} is {_spelled(kind)}")
    if match[4] is None:
        return LogUniform(low, high) if scale == "log" else Uniform(low, high)
    count = int(match[4])
    if count < 2 or not low < high or not math.isfinite(high - low) or (scale == "log" and low <= 0):
        raise InputError(f"fdl sweep: --over {name}={text}: expected low < high (log: above 0) and 2 values or more")
    shares = [i / (count - 1) for i in range(1, count - 1)]
    if scale == "lin":
        return [low, *(low + (high - low) * share for share in shares), high]
    return [low, *(math.exp(math.log(low) + math.log(high / low) * share) for share in shares), high]


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"fdl sweep: --over {name}: expected a number, got {text!r}") from None


def _value(name: str, text: str, kind: Any, before: Any) -> Any:
    try:
        return parsed(kind, text)
    except ValueError:
        example = "" if before is None else f" such as {_example(before)}"
        raise InputError(f"fdl sweep: --over {name}: expected {_spelled(kind)}{example}, got {text!r}") from None


def parsed(kind: Any, text: str) -> Any:
    """The value that a text spells for an annotated type.

    >>> parsed(tuple[int, ...], "(4, 8)"), parsed(float | None, "none"), parsed(typing.Literal["a", 1], "1")
    ((4, 8), None, 1)

    Raises:
      ValueError: it spells none.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return parsed(arguments[0], text)
    if origin in (typing.Union, types.UnionType):
        return _first(sorted(arguments, key=lambda each: each is str), text)  # a text is anything
    if origin is typing.Literal:
        return next(_one([each for each in arguments if str(each) == _unquoted(text)]))
    if (origin or kind) in (tuple, list):
        return _sequence(origin or kind, arguments, text)
    if kind in (None, type(None)):
        return next(_one([None] if text.lower() == "none" else []))
    if kind is bool:
        return next(_one([choice for choice in (True, False) if text.lower() == str(choice).lower()]))
    if kind is int and not re.fullmatch(r"[+-]?\d+", text):
        raise ValueError
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        named = [member for member in kind if text in (member.name, f"{kind.__name__}.{member.name}")]
        return next(_one(named or [member for member in kind if text == str(member.value)]))
    if kind in (int, float):
        return kind(text)
    if kind is str or (isinstance(kind, type) and issubclass(kind, PurePath)):
        return kind(_unquoted(text))
    raise ValueError


def _one(found: list[Any]) -> Any:
    if not found:
        raise ValueError
    return iter(found)


def _first(kinds: Any, text: str) -> Any:
    for kind in kinds:
        try:
            return parsed(kind, text)
        except ValueError:
            continue
    raise ValueError


def _sequence(origin: Any, kinds: tuple[Any, ...], text: str) -> Any:
    """Parts in brackets between commas, or as on the command line, between spaces."""
    inner = text[1:-1] if text[:1] + text[-1:] in ("()", "[]") else text
    parts = [part.strip() for part in (split(inner) if "," in inner else inner.split())]
    parts = parts[:-1] if parts and not parts[-1] else parts
    each = kinds[:1] * len(parts) if origin is list or kinds[1:] == (...,) else kinds
    if len(each) != len(parts):
        raise ValueError
    return origin(parsed(kind, part) for kind, part in zip(each, parts, strict=True))


def _unquoted(text: str) -> str:
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


def _choices(kind: Any) -> tuple[Any, ...]:
    """The types of a union, or the type."""
    if typing.get_origin(kind) is typing.Annotated:
        return _choices(typing.get_args(kind)[0])
    return typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)


def _spelled(kind: Any) -> str:
    from fdl.training.members import spelled

    return "a number" if kind is float else spelled(kind)


def _example(value: Any) -> str:
    return value.name if isinstance(value, enum.Enum) else str(value) if isinstance(value, PurePath) else repr(value)
