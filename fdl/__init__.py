"""fdl: a functional deep-learning toolkit on JAX. A model is data, a run is a pure function.

Names are imported at first use: `fdl --help` needs no jax.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fdl import data, initializers, inspect, losses, metrics, nn, ops
    from fdl.core import Layer, Param, abstract, check, fold, init
    from fdl.errors import InputError
    from fdl.inspect.summary import summary
    from fdl.rules import decay_mask
    from fdl.surgery import edit
    from fdl.training.experiment import Experiment
    from fdl.training.run import Result, run
    from fdl.training.task import Outcome, Task, supervised

_MODULES = ("data", "initializers", "inspect", "losses", "metrics", "nn", "ops")
_HOMES = {
    "fdl.core": ("Layer", "Param", "abstract", "check", "fold", "init"),
    "fdl.errors": ("InputError",),
    "fdl.inspect.summary": ("summary",),
    "fdl.rules": ("decay_mask",),
    "fdl.surgery": ("edit",),
    "fdl.training.experiment": ("Experiment",),
    "fdl.training.run": ("Result", "run"),
    "fdl.training.task": ("Outcome", "Task", "supervised"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Experiment", "InputError", "Layer", "Outcome", "Param", "Result", "Task",
    "abstract", "check", "data", "decay_mask", "edit", "fold", "init", "initializers", "inspect", "losses", "metrics",
    "nn", "ops", "run", "summary", "supervised",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"fdl.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'fdl' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
