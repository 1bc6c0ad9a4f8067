"""Signals that end a run: it is saved, its status and its exit code say so, and it can be resumed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fdl.cli import main

FILE = """
import os, signal
from dataclasses import dataclass
import numpy as np
import optax
import fdl

@dataclass(frozen=True)
class Config:
    rate: float = 0.1

def sent(outputs):
    if "SENT" in os.environ:
        os.kill(os.getpid(), int(os.environ.pop("SENT")))
    return 0.0

def build(config):
    data = fdl.data.Arrays(x=np.ones((8, 2), np.float32), y=np.zeros(8, np.int32))
    task = fdl.supervised(fdl.nn.Linear(2, 3), fdl.losses.softmax_cross_entropy)
    return fdl.Experiment(task, optax.sgd(config.rate), data, evaluate={"val": data}, batch_size=4, num_steps=40,
                          eval_every=2, checkpoint_every=2, reports={"sent": sent})
"""


@pytest.fixture
def handlers() -> Iterator[None]:
    names = [name for name in ("SIGHUP", "SIGTERM", "SIGUSR1") if hasattr(signal, name)]
    before = {name: signal.getsignal(getattr(signal, name)) for name in names}
    for name in names:
        signal.signal(getattr(signal, name), signal.SIG_DFL)  # under nohup, SIGHUP is ignored, by runs as well
    yield
    for name, handler in before.items():
        signal.signal(getattr(signal, name), handler)


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="the system has no such signals")
@pytest.mark.parametrize(
    ("name", "options", "code"), [("SIGTERM", [], 143), ("SIGHUP", [], 129), ("SIGUSR1", ["--usr1"], 143)]
)
@pytest.mark.parametrize("command", [["run", "toy.py"], ["sweep", "toy.py", "--over", "rate=0.1,0.2"]])
def test_a_signal_saves_and_ends(
    handlers: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, options: list[str], code: int, command
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("toy.py").write_text(FILE)
    monkeypatch.setenv("SENT", str(int(getattr(signal, name))))
    monkeypatch.setattr(sys, "argv", ["fdl", *command, *options])
    assert main([*command, *options]) == code
    (folder,) = Path("runs/toy").iterdir()
    assert json.loads((folder / "manifest.json").read_text())["status"] == "interrupted"
    assert not (folder / "result.json").exists()
    assert "SENT" not in os.environ
    assert main(["resume", str(folder)]) == 0
    assert json.loads((folder / "manifest.json").read_text())["status"] == "finished"
