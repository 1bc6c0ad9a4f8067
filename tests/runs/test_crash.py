"""crash.json: there after every end that should not have been, and only then; never in the way of the error."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import fdl
from fdl import nn
from fdl.cli import main
from fdl.errors import Interrupted
from fdl.runs import crash
from fdl.runs.checkpoints import CheckpointError
from fdl.runs.folder import RunFolder, RunFolderError
from tests.runs.test_folder import read


@dataclass(frozen=True)
class Config:
    rate: float = 0.1


def build(config: Config) -> fdl.Experiment:
    data = fdl.data.Arrays(x=np.ones((8, 3), np.float32), y=np.zeros((8, 1), np.float32))
    task = fdl.supervised(nn.Linear(3, 1), fdl.losses.squared_error)
    return fdl.Experiment(task, optax.sgd(config.rate), data, {"test": data}, 4, num_steps=20, eval_every=5)


ERRORS = [
    ZeroDivisionError("mine"),
    MemoryError(),
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory"),
    CheckpointError("no space left on device"),
    RunFolderError("gone"),
    SystemExit(3),
    RecursionError("deep \x1b[31m\ud800 " * 100),  # half of a surrogate pair is in no encoding
]


def raising(error: BaseException) -> Any:
    def hook(event: fdl.Event) -> None:
        if event.step >= 10:
            raise error

    return hook


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_run_that_ends_badly_says_all_that_is_known(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        fdl.run(build, Config(), seed=7, folder=tmp_path / "run", chunk=5, hooks=[raising(error)])
    assert caught.value is error
    told = read(tmp_path / "run" / "crash.json")
    assert (told["error"], told["message"]) == (type(error).__name__, str(error))
    assert (told["step"], told["seed"], told["config"]) == (10, 7, {"rate": 0.1})
    assert told["metrics"].keys() == {"train/loss", "test/loss"}
    assert told["traceback"][0] == "Traceback (most recent call last):"
    assert any("in hook" in line for line in told["traceback"])
    assert told["versions"]["jax"] == jax.__version__
    assert told["command"]
    assert read(tmp_path / "run" / "manifest.json")["status"] == "failed"


def test_a_sweep_says_it_as_well(tmp_path: Path) -> None:
    options: Any = {"over": {"rate": [0.1, 1e20]}, "folder": tmp_path / "run", "chunk": 5}
    with pytest.raises(ZeroDivisionError):
        fdl.sweep(build, Config(), hooks=[raising(ZeroDivisionError())], **options)
    told = read(tmp_path / "run" / "crash.json")
    assert told["step"] == 10
    kept, exploded = told["metrics"]["train/loss"]
    assert 0 <= kept < 1
    assert exploded is None  # JSON has no word for NaN


def test_a_loss_that_is_not_finite_is_told_with_where_it_began(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError):
        fdl.run(build, Config(rate=1e30), folder=tmp_path / "run", chunk=20)
    told = read(tmp_path / "run" / "crash.json")
    assert told["error"] == "NonFiniteError"
    assert told["notes"][0].startswith("first at step 2: ")
    assert told["step"] == 5  # where the chunk ends, before an evaluation


def test_an_interruption_with_everything_saved_is_no_crash(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fdl.run(build, Config(), folder=tmp_path / "run", chunk=5, hooks=[raising(Interrupted("stopped", 15))])
    assert not (tmp_path / "run" / "crash.json").exists()
    fdl.run(build, Config(), folder=tmp_path / "good")
    assert not (tmp_path / "good" / "crash.json").exists()


def test_what_is_there_is_of_the_last_attempt(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        fdl.run(build, Config(), folder=tmp_path / "run", chunk=5, hooks=[raising(ZeroDivisionError())])
    fdl.run(build, Config(), folder=tmp_path / "run", resume=True)
    assert not (tmp_path / "run" / "crash.json").exists()


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


def test_failing_to_write_it_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError("read-only file system")

    monkeypatch.setattr(crash, "write_json", refuse)
    with pytest.raises(ZeroDivisionError) as caught, RunFolder(tmp_path / "run"):
        raise ZeroDivisionError
    assert not hasattr(caught.value, "__notes__")
    crash.write_crash(tmp_path, UnspeakableError())


FILE = """
from dataclasses import dataclass
import numpy as np, optax, fdl
from fdl import nn

@dataclass(frozen=True)
class Config:
    width: int = 785

def build(config):
    data = fdl.data.Arrays(x=np.ones((8, 784), np.float32), y=np.zeros(8, np.int32))
    model = nn.Serial(encoder=nn.Linear(784, 785), head=nn.Residual(nn.Serial(nn.Linear(config.width, 785))))
    task = fdl.supervised(model, fdl.losses.softmax_cross_entropy)
    return fdl.Experiment(task, optax.sgd(0.1), data, batch_size=4, num_steps=3)
"""


def test_a_wrong_width_is_one_message_and_no_run(tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "deep.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    assert main(["run", "deep.py", "--width", "784"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == ("error: Linear(784, 785): expected x of shape [..., in_features=784], got float32[4, 785]")
    assert lines[1] == "  in layer head/block/0"
    assert [line.split("  ")[2] for line in lines[3:5]] == ["encoder", "head/block/0"]
    assert lines[5:] == ["  in the set 'train'"]
    assert not (tmp_path / "runs").exists()
