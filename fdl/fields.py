"""Meanings of numbers in records, declared in annotations and checked when a record is made.

A field annotated `in_features: Size` refuses 0, 2.5, "4" and True; one annotated `Layer` or `Callable` what is neither.
Traced numbers pass, for their values are not known. A class can be the annotation of a field that is checked by having
an attribute `meaning`.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType, SimpleNamespace, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

import numpy as np
from jax import Array
from jax.core import Tracer

from fdl.errors import InputError


@dataclass(frozen=True)
class Meaning:
    """The values that a field can have, in words and as a test; and a noun for what the field is."""

    words: str
    fits: Callable[[Any], bool]
    noun: str = ""


def is_whole(value: Any, least: int) -> bool:
    """Whether it is an integer, and no boolean, of at least `least`."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) >= least


def _not_finite(value: float) -> bool:
    return not math.isfinite(value)


def _is_number(value: Any, low: float, high: float, wrong: Callable[[float], bool] = _not_finite) -> bool:
    """Whether it is a real number, or an array of one, in low..high and not wrong."""
    if isinstance(value, np.ndarray | Array):
        value = value.item() if value.ndim == 0 else None
    real = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    return real and not wrong(float(value)) and low <= float(value) <= high


def _is_sizes(value: Any) -> bool:
    return all(is_whole(size, 1) for size in value) and bool(value) if isinstance(value, tuple) else is_whole(value, 1)


def _number(words: str, low: float, high: float = math.inf) -> Meaning:
    return Meaning(words, lambda value: _is_number(value, low, high))


OPEN = Meaning("anything", lambda value: True)
TINY = 5e-324  # the smallest number above 0

Size = Annotated[int, Meaning("a whole number >= 1", lambda value: is_whole(value, 1))]
Count = Annotated[int, Meaning("a whole number >= 0", lambda value: is_whole(value, 0))]
Sizes = Annotated[int | tuple[int, ...], Meaning("a whole number >= 1, or a tuple of them", _is_sizes)]
Flag = Annotated[bool, Meaning("True or False", lambda value: isinstance(value, bool | np.bool_))]
DropRate = Annotated[float, Meaning("0..1", lambda value: _is_number(value, 0, 1), "the probability of dropping")]
Share = Annotated[float, _number("a number in 0..1", 0, 1)]
End = Annotated[float, Meaning("a number", lambda value: _is_number(value, -math.inf, math.inf, math.isnan))]
Real = Annotated[float, _number("a finite number", -math.inf)]
NonNegative = Annotated[float, _number("a number >= 0", 0)]
Positive = Annotated[float, _number("a number > 0", TINY)]


def check_fields(record: Any) -> None:
    """Raises where a field of the record has a value that its annotation cannot mean.

    Raises:
      InputError: the record's type, the field, what was expected, what came.
    """
    for name, meanings in _meanings(type(record)).items():
        _check(type(record).__name__, name, getattr(record, name, None), meanings)


def check_values(where: str, meaning: Any, **values: Any) -> None:
    """Raises where a value cannot have the meaning, such as `Size`; for arguments of functions.

    >>> check_values("mlp", Size, num_layers=0)
    Traceback (most recent call last):
    fdl.errors.InputError: mlp: num_layers: expected a whole number >= 1, got 0
    """
    for name, value in values.items():
        _check(where, name, value, get_args(meaning)[1:])


def may_be_none(kind: type, name: str) -> bool:
    """Whether the annotation of a field names None."""
    return NoneType in get_args(_annotations(kind).get(name))


def _check(where: str, name: str, value: Any, meanings: tuple[Meaning, ...]) -> None:
    if not isinstance(value, Tracer) and not any(meaning.fits(value) for meaning in meanings):
        expected = " or ".join(meaning.words for meaning in meanings)
        noun = next((f" is {meaning.noun}," for meaning in meanings if meaning.noun), ":")
        raise InputError(f"{where}: {name}{noun} expected {expected}, got {value!r}")


@functools.cache
def _meanings(kind: type) -> dict[str, tuple[Meaning, ...]]:
    """What each field can mean; fields whose annotation leaves that open are left out."""
    found = {}
    for name, annotation in _annotations(kind).items():
        options = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
        meanings = tuple(_meaning(option) for option in options)
        if not any(meaning is OPEN for meaning in meanings):
            found[name] = meanings
    return found


def _meaning(annotation: Any) -> Meaning:
    if annotation is NoneType:
        return Meaning("None", lambda value: value is None)
    if get_origin(annotation) is Callable:
        return Meaning("a function", callable)
    declared = getattr(annotation, "meaning", None) or next(iter(getattr(annotation, "__metadata__", ())), None)
    return declared if isinstance(declared, Meaning) else OPEN


@functools.cache
def _annotations(kind: type) -> dict[str, Any]:
    """The annotations of a class and its bases; those that name what is not there to be found are left out."""
    found: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        names = dict(vars(sys.modules.get(base.__module__, object)))
        for name, annotation in inspect.get_annotations(base).items():
            try:
                alone = SimpleNamespace(__annotations__={name: annotation})
                found[name] = get_type_hints(alone, names, include_extras=True)[name]
            except Exception:  # a name of a function's own, or one that only type checkers import
                found.pop(name, None)
    return found
