"""From Python: how far a run is, on a terminal, in a notebook and in a pipe; and what Ctrl-C hands back."""

from __future__ import annotations

import io
import os
import re
import signal
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import optax
import pytest

import fdl
from fdl.runs import notebook

X = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
DATA = fdl.data.Arrays(x=X, y=X[:, :1])


@dataclass(frozen=True)
class Config:
    rate: float = 0.1
    num_steps: int = 12


def build(config: Config) -> fdl.Experiment:
    task = fdl.supervised(fdl.nn.Linear(2, 1), fdl.losses.squared_error)
    return fdl.Experiment(
        task, optax.sgd(config.rate), DATA, evaluate={"val": DATA}, num_steps=config.num_steps, eval_every=4
    )


def run(**options: Any) -> fdl.Result:
    return fdl.run(build, Config(), chunk=4, **options)


def sweep(**options: Any) -> fdl.SweepResult:
    return fdl.sweep(build, Config(), {"rate": [0.1, 0.2]}, chunk=4, **options)


BOTH = pytest.mark.parametrize("train", [run, sweep])


@BOTH
def test_a_pipe_gets_nothing_unless_it_is_asked_for(train, capsys):
    train()
    train(display=False)
    assert capsys.readouterr() == ("", "")
    train(display=True)
    told = capsys.readouterr()
    assert re.search(r"12/12 .*train/loss \d", told.out)
    assert re.search(r"12/12 .*val/loss \d", told.out)
    assert "\x1b" not in told.out
    assert told.err == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@BOTH
@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_terminal_gets_a_bar_by_itself(train, stream, monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    terminal = Terminal()
    monkeypatch.setattr(sys, stream, terminal)
    train()
    assert "compiling" in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()
    length = len(terminal.getvalue())
    train(display=False)
    assert len(terminal.getvalue()) == length


class Kernel:
    """What of IPython a display uses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[list[str]] = []
        shell = types.SimpleNamespace(kernel=object())
        module = types.SimpleNamespace(display=self.display)
        package = types.ModuleType("IPython")
        package.get_ipython = lambda: shell  # pyright: ignore[reportAttributeAccessIssue]
        monkeypatch.setitem(sys.modules, "IPython", package)
        monkeypatch.setitem(sys.modules, "IPython.display", module)

    def display(self, bundle: dict[str, str], *, raw: bool, display_id: bool) -> Any:
        assert raw
        assert display_id
        output = [bundle["text/plain"]]
        self.shown.append(output)
        return types.SimpleNamespace(update=lambda bundle, raw: output.append(bundle["text/plain"]))


@BOTH
def test_a_notebook_gets_one_output_that_is_updated_in_place(train, monkeypatch, capsys):
    kernel = Kernel(monkeypatch)
    monkeypatch.setattr(notebook, "PAUSE", 0.0)
    train()
    (output,) = kernel.shown
    assert "compiling 12 steps" in output[0]
    assert re.search(r"█{10}░{20}  4/12\b", " ".join(output))
    assert "12/12" in output[-1]
    assert "train/loss" in output[-1]
    assert "val/loss" in output[-1]
    assert capsys.readouterr().out == ""


def test_a_display_changes_no_bit(capsys):
    one, other = run(display=True), run(display=False)
    np.testing.assert_array_equal(one.params["kernel"], other.params["kernel"])
    assert one.metrics == other.metrics


@BOTH
def test_a_display_of_ones_own(train):
    news: list[int] = []

    def watch(steps: np.ndarray, columns: dict[str, np.ndarray]) -> None:
        news.extend(int(step) for step in steps if "train/loss" in columns)

    @contextmanager
    def manager() -> Any:
        yield watch
        news.append(-1)

    train(display=lambda experiment, members: watch)
    train(display=lambda experiment, members: manager())
    train(display=manager())
    assert news == [*range(1, 13), *range(1, 13), -1, *range(1, 13), -1]


@BOTH
@pytest.mark.parametrize("display", ["bar", 3, lambda experiment, members: 3])
def test_no_display_is_refused(train, display):
    with pytest.raises(fdl.InputError, match="display: expected"):
        train(display=display)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C as in a terminal: a job in the background, such as these tests may be, ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def stop(event: fdl.Event) -> None:
    if event.step == 8:
        os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_without_a_folder_hands_back_the_result_so_far(ctrl_c):
    whole = run()
    assert issubclass(fdl.Interrupted, KeyboardInterrupt)
    with pytest.raises(fdl.Interrupted, match=r"after step 8 of 12.*`\.result`") as stopped:
        run(hooks=[stop])
    assert stopped.value.folder is None
    result = stopped.value.result
    np.testing.assert_array_equal(result.history["train/loss"], whole.history["train/loss"][:8])
    np.testing.assert_array_equal(result.history["val/loss"], whole.history["val/loss"][:2])
    assert result.info["steps"] == 8
    assert result.params["kernel"].shape == (2, 1)
    assert result.metrics["val/loss"] == whole.history["val/loss"][1]


def test_ctrl_c_with_a_folder_names_it_and_how_to_go_on(ctrl_c, tmp_path):
    folder = tmp_path / "mine"
    with pytest.raises(fdl.Interrupted, match=r"fdl\.run\(\.\.\., folder='.*mine', resume=True\)") as stopped:
        run(hooks=[stop], folder=folder)
    assert stopped.value.folder == folder
    assert stopped.value.result.info["steps"] == 8
    again = run(folder=folder, resume=True)
    np.testing.assert_array_equal(again.history["train/loss"], run().history["train/loss"])


def test_ctrl_c_in_a_sweep_hands_back_the_members_that_had_begun(ctrl_c):
    """Two programs of two blocks each: in the first block of the second program there are 5 members."""
    over, blocks = {"num_steps": [8, 12], "rate": [0.1, 0.2, 0.3, 0.4]}, []

    def stop(event: fdl.Event) -> None:
        blocks.append(event.num_steps)
        if blocks.count(12) == 2:
            os.kill(os.getpid(), signal.SIGINT)

    options: Any = {"max_members": 2, "chunk": 4}
    whole = fdl.sweep(build, Config(), over, **options)
    with pytest.raises(fdl.Interrupted) as stopped:
        fdl.sweep(build, Config(), over, hooks=[stop], **options)
    result = stopped.value.result
    assert [setting["num_steps"] for setting in result.settings] == [8, 8, 8, 8, 12, 12]
    np.testing.assert_array_equal(result.metrics["train/loss"][:4], whole.metrics["train/loss"][:4])
    assert result.member(5).info["steps"] == 8
    np.testing.assert_array_equal(result.member(5).history["train/loss"], whole.member(5).history["train/loss"][:8])


def test_ctrl_c_before_the_first_step(ctrl_c):
    built: list[Config] = []

    def slow(config: Config) -> fdl.Experiment:
        built.append(config)
        if len(built) == 2:  # while the program is traced
            os.kill(os.getpid(), signal.SIGINT)
        return build(config)

    with pytest.raises(fdl.Interrupted, match="after step 0 of 12") as stopped:
        fdl.run(slow, Config())
    assert stopped.value.result.history == {}
    assert stopped.value.result.metrics == {}
