"""fdl: a functional deep-learning toolkit on JAX. A model is data, a run is a pure function.

Names are imported at first use: `fdl --help` needs no jax.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from fdl import (
        data,
        initializers,
        inspect,
        interop,
        losses,
        metrics,
        models,
        nn,
        ops,
        pretrained,
        schedules,
        training,
    )
    from fdl.core import Layer, Param, abstract, check, fold, init
    from fdl.errors import InputError, Interrupted, NonFiniteError, Stop
    from fdl.inspect.summary import summary
    from fdl.rules import by_path, decay_mask
    from fdl.runs.checkpoints import CheckpointError
    from fdl.runs.fitting import Resume
    from fdl.runs.retention import Keep
    from fdl.surgery import edit
    from fdl.training.averages import ema_params, with_ema
    from fdl.training.driver import Event, Result
    from fdl.training.ensemble import Ensemble
    from fdl.training.evaluation import make_evaluation
    from fdl.training.experiment import Experiment
    from fdl.training.monitors import norms
    from fdl.training.run import run
    from fdl.training.settings import LogUniform, Uniform, random_settings, traced, zipped
    from fdl.training.step import make_step
    from fdl.training.sweep import sweep
    from fdl.training.sweep_result import SweepResult
    from fdl.training.task import Outcome, Task, supervised

_MODULES = (
    "data", "initializers", "inspect", "interop", "losses", "metrics", "models", "nn", "ops", "pretrained", "schedules",
    "runs", "training",
)  # fmt: skip
_HOMES = {
    "fdl.core": ("Layer", "Param", "abstract", "check", "fold", "init"),
    "fdl.errors": ("InputError", "Interrupted", "NonFiniteError", "Stop"),
    "fdl.inspect.summary": ("summary",),
    "fdl.runs.checkpoints": ("CheckpointError",),
    "fdl.rules": ("by_path", "decay_mask"),
    "fdl.runs.retention": ("Keep",),
    "fdl.surgery": ("edit",),
    "fdl.training.ensemble": ("Ensemble",),
    "fdl.training.evaluation": ("make_evaluation",),
    "fdl.training.experiment": ("Experiment",),
    "fdl.training.averages": ("ema_params", "with_ema"),
    "fdl.training.driver": ("Event", "Result"),
    "fdl.training.monitors": ("norms",),
    "fdl.training.run": ("run",),
    "fdl.training.settings": ("LogUniform", "Uniform", "random_settings", "traced", "zipped"),
    "fdl.runs.fitting": ("Resume",),
    "fdl.training.step": ("make_step",),
    "fdl.training.sweep": ("sweep",),
    "fdl.training.sweep_result": ("SweepResult",),
    "fdl.training.task": ("Outcome", "Task", "supervised"),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "CheckpointError", "Ensemble", "Event", "Experiment", "InputError", "Interrupted", "Keep", "Layer", "LogUniform",
    "NonFiniteError", "Outcome", "Param", "Result", "Resume", "Stop", "SweepResult", "Task", "Uniform", "abstract",
    "by_path", "check", "data", "decay_mask", "edit", "ema_params", "fold", "init", "initializers", "inspect",
    "interop", "losses", "make_evaluation", "make_step", "metrics", "models", "nn", "norms", "ops", "pretrained",
    "random_settings", "run", "schedules", "summary", "supervised", "sweep", "traced", "training", "with_ema", "zipped",
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
