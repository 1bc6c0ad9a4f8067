"""Numbers given to an optimizer that cannot be meant, found before anything is compiled.

Optax checks next to none of them: `adam(-0.1)` climbs, `adam(None)` climbs by the whole gradient, `b1=1.5` diverges. It
keeps them in the closures of its update functions, and there they are looked up. What this does not know (a
transformation of one's own, most of `optax.contrib`, traced numbers) passes: this finds mistakes, it proves nothing.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import optax
from jax.core import Tracer

from fdl.errors import InputError
from fdl.records import short
from fdl.training.scheduled import closure

Signs = frozenset[float]
"""Of the factors that the following stages of a chain have; empty where that is not known."""

UNKNOWN: Signs = frozenset()
KNOWN = ("optax._src.", "optax.transforms.", "fdl.training.averages")
WRAPPERS = ("with_extra_args_support", "masked", "apply_if_finite", "with_ema", "lookahead", "paired")
KEEPS_SIGN = ("scale_by_", "apply_every", "centralize", "normalize_by", "zero_nans", "identity", "clip", "trace", "ema",
              "adaptive_grad_clip", "per_example", "add_noise")  # fmt: skip
"""How the stages of Optax begin that do not turn an update round."""
LOOKED_UP = {"chain": "update_fns", "partition": "transforms", "scale": "step_size",
             "scale_by_schedule": "step_size_fn", "add_decayed_weights": "weight_decay"}  # fmt: skip
"""What is read from these; in a version of Optax that calls it otherwise they are not known."""
RANGES: Mapping[str, tuple[str, Callable[[float], bool]]] = {
    **{name: (f"0 <= {name} < 1", lambda x: 0 <= x < 1) for name in ("b1", "b2", "b3")},
    "decay": ("0 <= decay <= 1", lambda x: 0 <= x <= 1),
    "eps": ("a finite eps >= 0", lambda x: 0 <= x < math.inf),
    "max_norm": ("max_norm > 0", lambda x: x > 0),
    "step_size": ("a finite number (it is the learning rate, perhaps negated)", math.isfinite),
    "weight_decay": ("a finite number", math.isfinite),
}


def check_transformation(name: str, optimizer: Any) -> None:
    """Raises InputError where something is no Optax transformation, such as the function that makes one."""
    if isinstance(optimizer, type) or not (callable(getattr(optimizer, "init", None)) and hasattr(optimizer, "update")):
        made = inspect.isfunction(optimizer) and hasattr(optax, optimizer.__name__)
        hint = f"; call it: optax.{optimizer.__name__}(1e-3)" if made else ""
        raise InputError(
            f"{name}: expected an Optax transformation, such as optax.adam(1e-3), got {short(optimizer)}{hint}"
        )


def check_optimizer(optimizer: Any, descends: bool = True) -> None:
    """Raises where a number of an Optax transformation is out of range, or where its updates go uphill.

    Args:
      optimizer: an Optax transformation.
      descends: whether it is used to minimise.

    Raises:
      InputError: the transformation, the number, what was expected.

    >>> check_optimizer(optax.adamw(1e-3, weight_decay=0.1))
    >>> check_optimizer(optax.adam(1e-3, b1=1.5))
    Traceback (most recent call last):
    fdl.errors.InputError: optimizer: scale_by_adam: b1: expected 0 <= b1 < 1, got 1.5
    """
    check_transformation("optimizer", optimizer)
    growing: list[float] = []
    signs = _before(with_numbers(optimizer).update, frozenset({1.0}), growing)
    if descends and any(sign > 0 for sign in signs):
        raise InputError(
            "optimizer: its updates go uphill, along the gradient: expected a positive learning rate (a scale of "
            "-learning_rate at the end of a chain), got a negative one or None; to maximise, minimise the negative"
        )
    if descends and growing:
        got = growing[0]
        raise InputError(f"optimizer: weight_decay: expected a number >= 0, which shrinks the weights, got {got!r}")


def with_numbers(optimizer: Any) -> Any:
    """The transformation that `optax.inject_hyperparams` makes of its numbers and schedules."""
    inside = closure(getattr(optimizer, "init", None))
    if not {"inner_factory", "numeric_hps", "sched_hps", "other_hps"} <= inside.keys():
        return optimizer
    schedules = {name: getattr(value, "schedule_fn", value) for name, value in inside["sched_hps"].items()}
    return inside["inner_factory"](**inside["other_hps"], **inside["numeric_hps"], **schedules)


def _before(update: Any, later: Signs, growing: list[float]) -> Signs:
    """The signs of `update` and what follows it; its numbers are checked, weight decays that grow noted on the way."""
    kind, inside = getattr(update, "__qualname__", "").partition(".")[0], closure(update)
    if not getattr(update, "__module__", "").startswith(KNOWN):
        return UNKNOWN
    if kind in LOOKED_UP and LOOKED_UP[kind] not in inside:
        return UNKNOWN
    for name, value in inside.items():
        _check_range(kind, name, value)
    if kind == "chain":
        for stage in reversed(inside["update_fns"]):
            later = _before(stage, later, growing)
        return later
    if kind == "partition":
        groups = [_before(group.update, later, growing) for group in inside["transforms"].values()]
        return frozenset().union(*groups) if all(groups) else UNKNOWN
    wrapped = [value for value in inside.values() if isinstance(value, optax.GradientTransformation)]
    if kind in WRAPPERS and len(wrapped) == 1:
        return _before(wrapped[0].update, later, growing)
    if kind == "scale":
        return _times(inside["step_size"], later)
    if kind == "scale_by_schedule":
        schedule = closure(inside["step_size_fn"])
        _check_schedule(schedule.get("learning_rate"))
        return _times(schedule.get("m"), later)  # of optax.scale_by_learning_rate; another schedule may be negative
    if kind == "add_decayed_weights":
        # Before the learning rate, which turns it round, it is positive; `optax.fromage` has it after that, negative.
        if any(sign > 0 for sign in _times(inside["weight_decay"], later)):
            growing.append(_plain(inside["weight_decay"]))
        return later
    return later if kind.startswith(KEEPS_SIGN) else UNKNOWN


def _times(factor: Any, later: Signs) -> Signs:
    factor = _plain(factor)
    return frozenset(float(np.sign(factor)) * sign for sign in later) if _known(factor) else UNKNOWN


def _check_range(kind: str, name: str, value: Any) -> None:
    value = _plain(value)
    bound = name.startswith(("max", "min", "clip"))  # an infinite one is no bound
    other = ("a number", lambda x: not math.isnan(x)) if bound else ("a finite number", math.isfinite)
    expected, fits = RANGES.get(name, other)
    wrong = not fits(value) if _known(value) else name in RANGES and isinstance(value, str | bool | np.bool_)
    if wrong or isinstance(value, complex | np.complexfloating):
        raise InputError(f"optimizer: {kind}: {name}: expected {expected}, got {value!r}")


def _check_schedule(schedule: Any, depth: int = 4) -> None:
    for name, value in closure(schedule).items() if depth else ():
        for each in value if isinstance(value, list | tuple) else (value,):
            if callable(each):
                _check_schedule(each, depth - 1)
            else:
                _check_range("the learning rate's schedule", name, each)
    if getattr(schedule, "__qualname__", "") == "polynomial_schedule.<locals>.<lambda>":
        raise InputError(
            "optimizer: the learning rate's schedule: expected transition_steps >= 1, got less, with which Optax "
            f"stays at {closure(schedule).get('init_value')} for ever; give the number of steps that it takes"
        )


def _plain(value: Any) -> Any:
    """A concrete array of one number as that number; anything else as it is."""
    if isinstance(value, np.ndarray | jax.Array) and not isinstance(value, Tracer) and value.ndim == 0:
        return value.item()
    return value


def _known(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool)
