"""What a person sees: how many lines, what is in them, and nothing that moves a cursor or is taken for markup."""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from fdl.runs import progress
from fdl.runs.progress import Bar, Lines, Tracker, clean, show_result


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(progress.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def train(watch: Any, step: int, loss: float = 0.5) -> None:
    watch(np.array([step]), {"train/loss": np.array([loss])})


def printed(watch: Bar, console: Console) -> str:
    with console.capture() as capture:
        console.print(watch.render())
    return capture.get()


def terminal(width: int) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)


def test_rate_and_time_left_leave_out_the_compilation(clock: Clock) -> None:
    watch = Tracker("toy", 1000, 1)
    clock.now += 60  # compiling
    train(watch, 1)
    assert watch.rate() is None
    clock.now += 2
    train(watch, 101)
    assert watch.rate() == 50
    assert watch.speed() == "50 steps/s  ETA 0:00:18"  # 899 steps at 50 a second, rounded up


def test_epochs_count_from_one_and_are_left_out_where_they_mean_nothing() -> None:
    watch = Tracker("toy", 25, 10)
    shown = []
    for step in (1, 10, 11, 25):
        train(watch, step)
        shown.append(watch.values(["train/loss"]).split("  ")[0])
    assert shown == ["epoch 1/3", "epoch 1/3", "epoch 2/3", "epoch 3/3"]
    full_batch = Tracker("toy", 25, 1)
    train(full_batch, 3)
    assert full_batch.values(["train/loss"]) == "train/loss 0.5"


def test_plain_lines_are_a_handful_and_show_the_end(clock: Clock) -> None:
    file = io.StringIO()
    with Lines("toy", 10_000, 10, file, ", compiling") as watch:
        for step in range(1, 10_001):
            train(watch, step)
            watch(np.array([step]), {"val/loss": np.array([step / 1e4])})
    lines = file.getvalue().splitlines()
    assert lines[0] == "toy: 10000 steps, compiling"
    assert sum("train/loss" in line for line in lines) == 10
    assert sum("val/loss" in line for line in lines) == 20
    assert file.getvalue().replace("\n", "").isprintable()


def test_every_one_of_a_few_evaluations_is_shown(clock: Clock) -> None:
    file = io.StringIO()
    with Lines("toy", 100, 1, file) as watch:
        for step in range(1, 101):
            train(watch, step)
            if step % 10 == 0:
                watch(np.array([step]), {"val/loss": np.array([0.5])})
    shown = [int(line.split("/")[0]) for line in file.getvalue().splitlines() if "val/loss" in line]
    assert shown == list(range(10, 101, 10))


def test_a_long_run_is_never_silent_for_hours(clock: Clock) -> None:
    file = io.StringIO()
    with Lines("toy", 10**6, 1, file) as watch:
        for step in range(1, 61):
            clock.now += 60  # an hour in all, far from ten percent
            train(watch, step)
    assert 10 <= file.getvalue().count("train/loss") <= 13


def test_a_reader_who_left_does_not_end_the_run(tmp_path: Any) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as file, Lines("toy", 10, 1, file) as watch:
        for step in range(1, 11):
            train(watch, step)
    assert watch.step == 10


@pytest.mark.parametrize("width", [40, 60, 100])
def test_the_display_fits_the_terminal(width: int, clock: Clock) -> None:
    console = terminal(width)
    watch = Bar("toy", 20_000, 10, console)
    before = printed(watch, console)
    assert "compiling 0:00:00" in before
    train(watch, 1)
    clock.now += 10
    train(watch, 12_001)
    watch(np.array([12_001]), {f"val/metric{i}": np.array([0.123456]) for i in range(9)})
    after = printed(watch, console)
    assert len(after.splitlines()) == 2
    assert all(len(line) <= width for line in after.splitlines())
    assert "12001/20000" in after
    assert "epoch 1201/2000  train/loss 0.5" in after
    assert "1,200 steps/s  ETA 0:00:07" in after


def test_names_are_no_markup_and_hold_no_control_characters(clock: Clock) -> None:
    console = terminal(100)
    watch = Bar("toy", 10, 1, console)
    watch(np.array([3]), {"[red]a\x1b]0;title\a\nb[/red]": np.array([1.0])})
    shown = printed(watch, console)
    assert "[red]a]0;title b[/red] 1" in shown
    assert len(shown.splitlines()) == 2
    assert clean("a\x1b[2J\r\x9bb\udcff") == "a[2Jb"


def test_the_table_is_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    """Evaluations first; beside what is of the last batch alone it says so."""
    metrics = {"train/loss": 0.1234567, "train/accuracy": 1.0, "val/a\x1b[31m": 0.5, "steps": 300}
    show_result(metrics, "runs/toy/1\x1b")
    assert capsys.readouterr().out == (
        "val/a[31m                0.5\n"
        "train/loss          0.123457  last batch\n"
        "train/accuracy             1  last batch\n"
        "steps                    300\n"
        "runs/toy/1\n"
    )
