"""What a person sees of a run: a live display on a terminal, plain lines anywhere else, and a table at the end."""

from __future__ import annotations

import math
import os
import statistics
import sys
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, TextIO

LINES = 10  # training lines of a run in a log file; twice as many for evaluations
SILENCE = 300.0  # seconds after which a line comes in any case


def clean(text: str) -> str:
    """`text` without control characters: what a user named must not move the cursor or ring the bell.

    >>> clean("loss\\x1b[31m\\a")
    'loss[31m'
    """
    return "".join(c for c in text if c.isprintable() or c == "\n")


def label(name: str) -> str:
    """The name of a metric on one line."""
    return clean(name).replace("\n", " ")


def spread(values: Any) -> str:
    """A number; of many side by side the smallest, the median and the largest, those that ended left out.

    >>> import numpy as np
    >>> spread(np.array([0.5, float("nan"), 0.25, 2.0]))
    '0.25 .. 0.5 .. 2'
    """
    known = sorted(float(value) for value in values.ravel() if value == value)
    if len(known) < 2:
        return f"{known[0] if known else math.nan:.4g}"
    return f"{known[0]:.4g} .. {statistics.median(known):.4g} .. {known[-1]:.4g}"


class Tracker:
    """How far a run is, or many side by side. It is a watcher: the engine calls it with what became known."""

    def __init__(self, name: str, total: int, steps_per_epoch: int) -> None:
        self.name, self.total, self.steps_per_epoch = label(name), total, steps_per_epoch
        self.step = 0
        self.metrics: dict[str, str] = {}
        self.entered = time.monotonic()
        self.first: tuple[int, float] | None = None  # step and time of the first news: compiling is no training

    def __call__(self, steps: Any, columns: Mapping[str, Any]) -> None:
        self.step = int(steps[-1])
        latest = {name: spread(values[..., -1]) for name, values in columns.items()}
        self.metrics = {**self.metrics, **latest}  # replaced, as another thread may be reading it
        if self.first is None:
            self.first = self.step, time.monotonic()

    def rate(self) -> float | None:
        """Steps a second since the first chunk ended."""
        if self.first is None or self.step == self.first[0]:
            return None
        return (self.step - self.first[0]) / max(time.monotonic() - self.first[1], 1e-9)

    def speed(self) -> str:
        """`"812 steps/s  ETA 0:00:12"` as far as it is known."""
        rate = self.rate()
        if rate is None:
            return ""
        left = timedelta(seconds=math.ceil((self.total - self.step) / rate))
        return f"{rate:{',.0f' if rate >= 100 else '.3g'}} steps/s  ETA {left}"

    def values(self, names: Iterable[str]) -> str:
        """The epoch and the latest metrics of these names: loss, evaluation, then what else is known of training."""
        shown = [f"epoch {-(-self.step // self.steps_per_epoch)}/{-(-self.total // self.steps_per_epoch)}"]
        if self.steps_per_epoch == 1 or not self.step:
            shown = []
        names = sorted(names, key=lambda name: (name != "train/loss", name.startswith("train/")))
        return "  ".join([*shown, *(f"{label(name)} {self.metrics[name]}" for name in names)])


class Lines(Tracker):
    """Plain lines for a log file: a few a run, without control characters."""

    def __init__(self, name: str, total: int, steps_per_epoch: int, file: TextIO, opening: str = "") -> None:
        super().__init__(name, total, steps_per_epoch)
        self.file, self.opening = file, opening
        self.next = {"train": 0.0, "evaluation": 0.0}
        self.last = 0.0

    def __enter__(self) -> Lines:
        say(self.file, f"{self.name}: {self.total} steps{self.opening}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        pass

    def __call__(self, steps: Any, columns: Mapping[str, Any]) -> None:
        super().__call__(steps, columns)
        kind = "train" if any(name.startswith("train/") for name in columns) else "evaluation"
        due = self.step >= self.next[kind] or time.monotonic() - self.last > SILENCE
        if not due:
            return
        self.last = time.monotonic()
        self.next[kind] = self.step + self.total / (LINES if kind == "train" else 2 * LINES)
        parts = (f"{self.step:{len(str(self.total))}}/{self.total}", self.values(columns), self.speed())
        say(self.file, "  ".join(part for part in parts if part))


class Bar(Tracker):
    """Two live lines of a terminal, redrawn by a thread, so that they move while a program compiles."""

    def __init__(self, name: str, total: int, steps_per_epoch: int, console: Any) -> None:
        from rich.live import Live

        super().__init__(name, total, steps_per_epoch)
        self.live = Live(console=console, get_renderable=self.render, refresh_per_second=8, transient=True)

    def __enter__(self) -> Bar:
        self.live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.live.stop()

    def render(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        line = Table.grid(padding=(0, 1), expand=True)
        for ratio in (1, None, None):
            line.add_column(no_wrap=True, ratio=ratio)
        waited = timedelta(seconds=int(time.monotonic() - self.entered))
        bar = ProgressBar(total=self.total, completed=self.step, pulse=not self.step)
        done = f"{self.step}/{self.total}" if self.step else f"compiling {waited}"
        line.add_row(bar, Text(done), Text(self.speed()))
        return Group(line, Text(self.values(self.metrics), no_wrap=True, overflow="ellipsis"))


def progress(
    name: str, total: int, steps_per_epoch: int, opening: str = ", compiling", file: TextIO | None = None
) -> Bar | Lines:
    """The display that suits a file, by default standard output: a context manager, and a watcher of the run."""
    console = _terminal(file)
    if console is None:
        return Lines(name, total, steps_per_epoch, file or sys.stdout, opening)
    return Bar(name, total, steps_per_epoch, console)


def show_result(metrics: Mapping[str, float], folder: str) -> None:
    """The table of final metrics, and where everything is. What was measured in training is of one batch, and says so.

    It stands below the evaluations, so that the accuracy of a batch is not taken for that of a set.
    """
    names = sorted(metrics, key=lambda name: ("/" not in name, name.startswith("train/")))
    rows = [(label(n), f"{metrics[n]:.6g}", "last batch" if n.startswith("train/") else "") for n in names]
    console = _terminal()
    if console is None:
        width = max(len(name) for name, _, _ in rows)
        for name, value, note in rows:
            say(sys.stdout, f"{name:<{width}}  {value:>12}  {note}".rstrip())
        say(sys.stdout, folder)
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_column(style="dim")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    console.print(Text(clean(folder)), soft_wrap=True)


def say(file: TextIO, text: str) -> None:
    """Prints lines, `clean`; a reader who went away (`| head`) or a full disk must not end a run that took hours."""
    try:
        print(clean(text), file=file, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())


def watched() -> TextIO | None:
    """The terminal that somebody watches: standard output, or standard error where that goes to a file; or None."""
    return next((file for file in (sys.stdout, sys.stderr) if _terminal(file) is not None), None)


def _terminal(file: TextIO | None = None) -> Any:
    """A console where the file (standard output) can redraw lines, otherwise None; only then is rich imported."""
    file = sys.stdout if file is None else file
    if not getattr(file, "isatty", lambda: False)():  # None without a console, and notebooks replace it
        return None
    from rich.console import Console

    console = Console(file=file, highlight=False)
    return console if console.is_terminal and not console.is_dumb_terminal else None
