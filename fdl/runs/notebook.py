"""The progress of a run in a notebook: one output of the cell, replaced as news come."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from fdl.runs.progress import Tracker

WIDTH = 30  # characters of the bar
PAUSE = 0.2  # seconds between two updates: each is a message to the browser


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook. IPython is not imported for the answer."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")  # the IPython of a terminal has none


class Cell(Tracker):
    """Two lines below the cell that are updated in place, and stay as they are at the end."""

    def __init__(self, name: str, total: int, steps_per_epoch: int) -> None:
        super().__init__(name, total, steps_per_epoch)
        self.handle: Any = None
        self.shown = 0.0

    def __enter__(self) -> Cell:
        from IPython.display import display  # pyright: ignore[reportMissingImports]

        self.handle = display(self._bundle(), raw=True, display_id=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._show()

    def __call__(self, steps: Any, columns: Mapping[str, Any]) -> None:
        super().__call__(steps, columns)
        if time.monotonic() - self.shown > PAUSE:
            self._show()

    def _show(self) -> None:
        self.shown = time.monotonic()
        if self.handle is not None:
            self.handle.update(self._bundle(), raw=True)

    def _bundle(self) -> dict[str, str]:
        return {"text/plain": self.text()}

    def text(self) -> str:
        """The bar, how far the run is and how fast, and below it the latest metrics."""
        full = WIDTH * self.step // max(self.total, 1)
        done = f"{self.step}/{self.total}" if self.step else f"compiling {self.total} steps"
        first = f"{self.name}  {'█' * full}{'░' * (WIDTH - full)}  {done}  {self.speed()}".rstrip()
        return f"{first}\n{self.values(self.metrics)}".rstrip()
