"""The settings of a sweep: every combination, values in pairs, or drawn at random."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fdl.errors import InputError

Setting = dict[str, Any]


@dataclass(frozen=True)
class Uniform:
    """Numbers from `low` to `high`, all alike.

    >>> import fdl
    >>> fdl.random_settings({"dropout": fdl.Uniform(0.0, 0.5)}, 2)  # doctest: +ELLIPSIS
    [{'dropout': 0.3...}, {'dropout': 0.1...}]
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InputError(f"{self}: expected two numbers, low < high")

    def draw(self, rng: np.random.Generator) -> float:
        return float(rng.uniform(self.low, self.high))


@dataclass(frozen=True)
class LogUniform:
    """Numbers from `low` to `high` whose logarithms are all alike: for what is tried in powers, such as a rate.

    >>> import fdl
    >>> fdl.random_settings({"learning_rate": fdl.LogUniform(1e-4, 1e-1)}, 1)  # doctest: +ELLIPSIS
    [{'learning_rate': 0.0...}]
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        if not (0 < self.low < self.high and math.isfinite(self.high)):
            raise InputError(f"{self}: expected two numbers, 0 < low < high")

    def draw(self, rng: np.random.Generator) -> float:
        return math.exp(rng.uniform(math.log(self.low), math.log(self.high)))


def random_settings(over: Mapping[str, Any], count: int, seed: int = 0) -> list[Setting]:
    """`count` settings, each field drawn by itself: for `fdl.sweep(..., over=...)`.

    Where only some of the fields matter, this tries more values of those than a grid of as many members.

    Args:
      over: {field: `Uniform`, `LogUniform`, or a list to choose from}.
      count: how many settings, each different from the others.
      seed: other settings for another seed; fewer settings are the beginning of more.

    Raises:
      InputError: no fields, no such distribution, an empty list, a count below 1, or above the number of different
        settings.

    Reference: Bergstra & Bengio, Random search for hyper-parameter optimization, 2012.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise InputError(f"random_settings: count: expected a whole number >= 1, got {count!r}")
    if not over:
        raise InputError("random_settings: expected {field: distribution}, got no field")
    for name, values in over.items():
        _check(name, values)
    rng, settings = np.random.default_rng(seed), dict[str, Setting]()
    most = _different(over)
    if count > most:
        raise InputError(f"random_settings: count: there are only {most} different settings, got {count}")
    while len(settings) < count:  # one that was drawn before would only be another seed of it
        setting = {name: _drawn(values, rng) for name, values in over.items()}
        settings.setdefault(repr(setting), setting)
    return list(settings.values())


def zipped(over: Mapping[str, Sequence[Any]]) -> list[Setting]:
    """The first values of all fields, the second ones, and so on: for `fdl.sweep(..., over=...)`.

    >>> zipped({"width": [64, 128], "learning_rate": [1e-2, 1e-3]})
    [{'width': 64, 'learning_rate': 0.01}, {'width': 128, 'learning_rate': 0.001}]

    Raises:
      InputError: lists of different lengths.
    """
    counts = {name: len(values) for name, values in over.items()}
    if len(set(counts.values())) != 1:
        raise InputError(f"zipped: expected lists of one length, got {counts}")
    return [dict(zip(over, values, strict=True)) for values in zip(*over.values(), strict=True)]


def _different(over: Mapping[str, Any]) -> float:
    """How many different settings there are."""
    ranges = any(isinstance(values, Uniform | LogUniform) for values in over.values())
    return math.inf if ranges else math.prod(len({*map(repr, values)}) for values in over.values())


def _drawn(values: Any, rng: np.random.Generator) -> Any:
    if isinstance(values, Uniform | LogUniform):
        return values.draw(rng)
    return values[int(rng.integers(len(values)))]


def _check(name: str, values: Any) -> None:
    chosen_from = isinstance(values, Sequence) and not isinstance(values, str) and values
    if not isinstance(values, Uniform | LogUniform) and not chosen_from:
        raise InputError(f"random_settings: {name}: expected Uniform, LogUniform or a list, got {values!r}")


def traced(default: int) -> Any:
    """A field of a `Config` for an integer that no shape depends on: the number of a fold, a class, a task.

    A sweep over it stays in one program, as one over a float does; inside `build` it is a traced int32.

    >>> import fdl
    >>> @dataclass(frozen=True)
    ... class Config:
    ...     fold: int = fdl.traced(0)
    >>> Config().fold
    0

    Raises:
      InputError: no integer of 32 bits.
    """
    if isinstance(default, bool) or not isinstance(default, int) or not -(2**31) <= default < 2**31:
        raise InputError(f"traced: expected an integer of 32 bits, got {default!r}; a float is traced as it is")
    return dataclasses.field(default=default, metadata={"traced": True})
