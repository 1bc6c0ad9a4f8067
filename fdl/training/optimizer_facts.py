"""An optimizer in words: its stages and their numbers, so that the state of one does not slip into another.

Adam, Nadam, RAdam, AdaBelief and Adam with another b1 have states of the same shapes; only what computes with them
differs. Optax keeps that in the closures of its update functions, and there it is read. Of a transformation of one's
own the name is known, and the numbers it closes over; what its code does with them, or a schedule without parameters,
is not.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from fdl.training.scheduled import closure

WRAPPERS = ("with_extra_args_support",)  # which add nothing


def facts_of(optimizer: Any) -> dict[str, Any]:
    """Path of stages -> a number, a string, a boolean or None.

    >>> import optax
    >>> facts_of(optax.sgd(0.1))
    {'chain/0/identity': '', 'chain/1/scale/step_size': -0.1}
    """
    return dict(_facts(optimizer, "", set()))


def _facts(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """What `value`, a part of an optimizer, is made of; a function that is met again is not looked into again."""
    if callable(getattr(value, "init", None)) and callable(getattr(value, "update", None)):
        yield from _transformation(value, path, seen)
    elif isinstance(value, Mapping):
        for name in sorted(value, key=str):
            yield from _facts(value[name], _joined(path, str(name)), seen)
    elif isinstance(value, tuple | list):
        for number, each in enumerate(value):
            yield from _facts(each, _joined(path, str(number)), seen)
    elif isinstance(value, functools.partial):
        yield from _facts({"": value.func, "args": value.args, **value.keywords}, path, seen)
    elif callable(value):
        yield from _function(value, path, seen)
    else:
        yield path, _plain(value)


def _transformation(transformation: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    inside = closure(transformation.init)
    if "inner_factory" in inside:  # optax.inject_hyperparams: its update knows the kind and the numbers only by init
        names = ("inner_factory", "numeric_hps", "other_hps", "sched_hps")
        known = {name: inside[name] for name in names if name in inside}
        yield from _facts(known, _joined(path, "inject_hyperparams"), seen)
    else:
        yield from _function(transformation.update, path, seen)


def _function(function: Any, path: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """The name of a function, then what it closes over; of an object that is called, or owns it, the attributes."""
    function = inspect.unwrap(function)
    owner = getattr(function, "__self__", None if hasattr(function, "__code__") else function)
    inside = closure(function) if _is_known(owner) else getattr(owner, "__dict__", {})
    name = getattr(function, "__qualname__", type(function).__name__).partition(".")[0]
    if name in WRAPPERS and len(inside) == 1:
        yield from _facts(next(iter(inside.values())), path, seen)
        return
    path = _joined(path, name)
    again = id(owner or function) in seen
    seen.add(id(owner or function))
    within = {} if again else inside.get("update_fns", inside) if name == "chain" else inside
    yield from list(_facts(within, path, seen)) or [(path, "")]


def _is_known(owner: Any) -> bool:
    """Whether there is no object of the user's or of Optax behind a function: none, a module, a class."""
    return owner is None or inspect.ismodule(owner) or inspect.isclass(owner)


def _plain(value: Any) -> Any:
    """A number as such, a traced or large array as its type; what JSON lacks as a string."""
    if isinstance(value, np.generic | np.ndarray | jax.Array) and not isinstance(value, Tracer):
        value = np.asarray(value).item() if value.size == 1 else f"{value.dtype}{list(value.shape)}"
    if isinstance(value, float | complex):
        return value if isinstance(value, float) and math.isfinite(value) else str(value)
    return value if value is None or isinstance(value, bool | int | str) else type(value).__name__


def _joined(path: str, name: str) -> str:
    return "/".join(filter(None, (path, name)))
