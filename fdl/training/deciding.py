"""What decides the rest of a run and is in no array's shape, as named facts: a resume compares those of a checkpoint.

Of a function that is the user's own, its compiled code is hashed, with the values that it closes over and the global
numbers, texts and functions that it names. Functions of installed libraries count by their names.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import inspect
import math
import re
import sys
import sysconfig
from collections.abc import Mapping, Set
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fdl.training.experiment import Experiment
from fdl.training.task import Supervised

SETTINGS = (
    "batch_size", "eval_batch_size", "eval_every", "accumulate", "precision", "nonfinite", "trainable", "select",
    "mode", "patience", "min_delta", "augment", "eval_params",
)  # fmt: skip
"""Fields of an experiment, by their own names. What is left out, such as `reports`, changes nothing that is trained."""
SUPERVISED = ("model", "loss", "inputs", "targets", "weight")
LONG = 160  # characters of a fact; what is longer is cut, with a hash of all of it
MOST = 20_000  # parts of a value that are looked at
LIBRARIES = tuple(
    str(Path(path).resolve())
    for path in {*sysconfig.get_paths().values(), str(Path(__file__).parents[1])}
    if Path(path).name in ("site-packages", "dist-packages", "fdl") or "python" in Path(path).name
)


def deciding(experiment: Experiment) -> dict[str, Any]:
    """Name -> a number, a text, a boolean or None.

    >>> import fdl, optax
    >>> task = fdl.supervised(fdl.nn.Linear(1, 1), fdl.losses.squared_error)
    >>> data = fdl.data.Arrays(x=[[1.0], [2.0]], y=[[2.0], [4.0]])
    >>> facts = deciding(fdl.Experiment(task, optax.sgd(0.1), data, batch_size=2, num_steps=3))
    >>> [facts[name] for name in ("batch_size", "num_steps", "loss")]
    [2, 3, 'fdl.losses.regression.squared_error']
    """
    facts: dict[str, Any] = {"num_steps": experiment.total_steps()}
    for name in SETTINGS:
        facts[name] = _fact(getattr(experiment, name))
    task = experiment.task
    if isinstance(task.objective, Supervised):
        facts |= {name: _fact(getattr(task.objective, name)) for name in SUPERVISED}
        facts |= {f"metrics/{name}": described(metric) for name, metric in task.objective.metrics.items()}
    elif task.objective is not None:
        facts["objective"] = described(task.objective)
    if task.step is not None:
        facts["step"] = described(task.step)
    return facts


def _fact(value: Any) -> Any:
    plain = isinstance(value, int | str | None) or (isinstance(value, float) and math.isfinite(value))
    return value if plain else described(value)


def described(value: Any) -> str:
    """A value in words that are the same in another process, and other ones for another value."""
    text = _Describing().text(value)
    if len(text) <= LONG:
        return text
    return f"{text[:LONG]}... {hashlib.sha256(text.encode()).hexdigest()[:16]}"


class _Describing:
    """One description: what was met already is not described again."""

    def __init__(self) -> None:
        self.seen: dict[int, Any] = {}

    def text(self, value: Any) -> str:
        if value is None or isinstance(value, bool | int | float | complex | str | bytes):
            return repr(value)
        if isinstance(value, enum.Enum):
            return str(value)
        if isinstance(value, Tracer):
            return "a traced number"
        if isinstance(value, np.ndarray | np.generic | jax.Array):
            return _array(value)
        if id(value) in self.seen or len(self.seen) > MOST:
            return f"<{type(value).__name__}>"
        self.seen[id(value)] = value  # kept, or another object could get the same id
        return self._parts(value)

    def _parts(self, value: Any) -> str:
        if isinstance(value, Mapping):
            return "{" + ", ".join(f"{name!r}: {self.text(each)}" for name, each in value.items()) + "}"
        if isinstance(value, tuple | list):
            return "(" + ", ".join(map(self.text, value)) + ")"
        if isinstance(value, Set):
            return "{" + ", ".join(sorted(map(self.text, value))) + "}"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            parts = [f"{field.name}={self.text(getattr(value, field.name))}" for field in dataclasses.fields(value)]
            return f"{type(value).__qualname__}({', '.join(parts)})" + self._class_code(type(value))
        if isinstance(value, type | ModuleType):
            return _name(value)
        return self._called(value) if callable(value) else f"<{type(value).__qualname__}>"

    def _called(self, value: Any) -> str:
        """A function, a method, `functools.partial`, or an object that can be called."""
        if hasattr(value, "func") and hasattr(value, "keywords"):
            return f"partial({self.text(value.func)}, {self.text(value.args)}, {self.text(value.keywords)})"
        function = inspect.unwrap(value)
        owner = getattr(function, "__self__", None)
        function = getattr(function, "__func__", function)
        if not isinstance(function, FunctionType):
            if hasattr(function, "__qualname__"):  # built in
                return _name(function)
            known = dict(getattr(value, "__dict__", {}))
            return f"{_name(type(value))}({self.text(known)})" + self._class_code(type(value))
        told = [_name(function)]
        if owner is not None and not isinstance(owner, ModuleType):
            told.append(f"of {self.text(owner)}")
        own = not _of_library(function.__code__.co_filename)
        if own:
            told.append(self._code(function.__code__, function.__globals__))
        inside = _closed_over(function)
        if inside:
            told.append(f"with {self.text(inside)}")
        if own and (function.__defaults__ or function.__kwdefaults__):
            told.append(f"defaults {self.text((function.__defaults__, function.__kwdefaults__))}")
        return " ".join(told)

    def _class_code(self, kind: type) -> str:
        """The code of the methods of a class that is the user's own."""
        if _of_library(getattr(sys.modules.get(kind.__module__), "__file__", None) or ""):
            return ""
        methods = {name: each for name, each in vars(kind).items() if isinstance(each, FunctionType)}
        own = [
            m for m in methods.values() if not _of_library(m.__code__.co_filename) and m.__code__.co_filename[0] != "<"
        ]
        return "".join(f" {self._code(method.__code__, method.__globals__)}" for method in own)

    def _code(self, code: CodeType, names: Mapping[str, Any]) -> str:
        """A hash of what is executed, and of the globals in it that are plain values or the user's own functions."""
        version = f"{sys.version_info[0]}.{sys.version_info[1]}"
        return f"(code {hashlib.sha256(self._executed(code, names).encode()).hexdigest()[:12]} of Python {version})"

    def _executed(self, code: CodeType, names: Mapping[str, Any]) -> str:
        parts = [code.co_code.hex(), repr(code.co_names), repr(code.co_varnames)]
        constants = code.co_consts
        parts += [self._executed(c, names) if isinstance(c, CodeType) else _constant(c) for c in constants]
        for name in code.co_names:
            value = names.get(name)
            plain = isinstance(
                value, bool | int | float | complex | str | tuple | np.ndarray | jax.Array | FunctionType
            )
            if plain and not name.startswith("__"):
                parts.append(f"{name}={self.text(value)}")
        return "\n".join(parts)


def _constant(value: Any) -> str:
    """A constant of a program; a set in it has another order in each process."""
    return (
        f"frozenset({sorted(map(repr, value))})"
        if isinstance(value, frozenset)
        else f"{type(value).__name__} {value!r}"
    )


def _closed_over(function: FunctionType) -> dict[str, Any]:
    inside = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            inside[name] = cell.cell_contents
        except ValueError:  # not set yet: a function that calls itself
            continue
    return inside


def _name(value: Any) -> str:
    """module.name; an experiment file has the name of its place among those that are open, which is left out."""
    module = getattr(value, "__module__", None) or ""
    name = getattr(value, "__qualname__", getattr(value, "__name__", type(value).__name__))
    module = "" if module == "__main__" or module.startswith("fdl_experiment_") else module
    return re.sub(r"[\w.]*<locals>\.", "", ".".join(filter(None, (module, name))))


def _of_library(file: str) -> bool:
    return not file or file.startswith(LIBRARIES)


def _array(array: Any) -> str:
    kind = f"{array.dtype}{list(array.shape)}"
    if not getattr(array, "is_fully_addressable", True) or jnp.issubdtype(array.dtype, jax.dtypes.extended):
        return kind
    array = np.asarray(array)
    if array.dtype == object:
        return kind
    if array.size == 1:
        return f"{kind} {array.reshape(-1)[0]!r}"
    return f"{kind} {hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:12]}"
