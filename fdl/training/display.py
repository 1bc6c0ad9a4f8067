"""The display of a run that was started from Python: which one, and how a user brings another."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from fdl.errors import InputError
from fdl.runs.notebook import Cell, in_notebook
from fdl.runs.progress import progress, watched
from fdl.training.driver import Watcher
from fdl.training.experiment import Experiment

Display = bool | Callable[[Experiment, int], Any] | AbstractContextManager[Any] | None
"""None: a display where somebody watches (a terminal, a notebook). True: always, as lines where nothing can be redrawn.
False: silence. Or your own: (experiment, members) -> a watcher, or a context manager of one; or that manager itself."""


def check_display(display: Display) -> None:
    """Refuses what is no display, before anything is compiled."""
    if not (display is None or callable(display) or isinstance(display, bool) or hasattr(display, "__enter__")):
        raise InputError(
            "display: expected None (automatic), True, False, or a function (experiment, members) -> watcher, "
            f"a watcher being called with (steps, columns), got {display!r}"
        )


def shown(display: Display, name: str, experiment: Experiment, members: int = 0) -> AbstractContextManager[Watcher]:
    """A context manager of the watcher that shows how far a run, or so many members side by side, are; 0 = a run."""
    if display is None or isinstance(display, bool):
        size = experiment.total_steps(), experiment.steps_per_epoch()
        if display is not False and in_notebook():
            return Cell(name, *size)
        if display or (display is None and watched()):
            opening = f", {members} member{'s' * (members > 1)}" if members else ", compiling"
            return progress(name, *size, opening, watched())
        return nullcontext(_unwatched)
    own: Any = display
    if not hasattr(own, "__enter__"):
        own = own(experiment, max(members, 1))
    if not (hasattr(own, "__enter__") or callable(own)):
        raise InputError(f"display: expected it to return a watcher or a context manager of one, got {own!r}")
    manager: Any = own if hasattr(own, "__enter__") else nullcontext(own)
    return manager


def _unwatched(steps: Any, columns: Any) -> None:
    pass
