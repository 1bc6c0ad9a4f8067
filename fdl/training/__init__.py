"""The engine: tasks, experiments and runs as compiled chunks of steps. It knows no layer, only pure functions.

Its parts are imported at first use: `fdl.training.sweep_picture.draw`. The names that users need are those of `fdl`
itself: `fdl.run`, `fdl.make_step`.
"""

from __future__ import annotations

import importlib
from importlib.util import find_spec
from typing import Any


def __getattr__(name: str) -> Any:
    if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f"{__name__}.{name}")
    import fdl

    if name in fdl.__all__ and name != "training":
        return getattr(fdl, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
