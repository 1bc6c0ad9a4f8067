"""The command `fdl`: what it prints, what it leaves behind, and its exit codes, whatever is wrong with the input."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import fdl
from fdl.cli import main

REPOSITORY = Path(__file__).parents[1]

TOY = '''
"""A linear model on random numbers."""
from __future__ import annotations
from dataclasses import dataclass
import numpy as np
import optax
import fdl

@dataclass(frozen=True)
class Config:
    """What to train.

    Args:
      num_steps: how long [in steps].
    """
    num_steps: int = 20
    batch_size: int = 8
    """Examples a step."""
    learning_rate: float = 0.1  # size of a step
    # What is wrong with the data.
    bad: str = ""

    def __post_init__(self):
        if self.learning_rate < 0:
            raise ValueError(f"learning_rate must be >= 0, got {self.learning_rate}")

def build(config):
    x = np.random.default_rng(0).normal(size=(32, 3)).astype(np.float32)
    y = (x.sum(1) > 0).astype(np.int32)
    if config.bad == "range": y[5] = 2
    if config.bad == "empty": x, y = x[:0], y[:0]
    if config.bad == "nan": x[5, 2] = np.nan
    if config.bad == "float": y = y.astype(np.float32)
    if config.bad == "length": y = y[1:]
    if config.bad == "shape": x = x[:, :2]
    if config.bad == "exit": raise SystemExit(0)
    if config.bad == "module": import sklaern
    if config.bad == "type": return "no experiment"
    if config.bad == "bug": return {}["key"]
    data = fdl.data.Arrays(x=x, y=y)
    loss = fdl.losses.softmax_cross_entropy
    if config.bad == "explode": loss = lambda logits, labels: (logits ** 2).sum(-1)
    task = fdl.supervised(fdl.nn.Linear(3, 2), loss, {"accuracy": fdl.metrics.accuracy})
    return fdl.Experiment(task=task, optimizer=optax.sgd(config.learning_rate), train=data, evaluate={"val": data},
                          batch_size=config.batch_size, num_steps=config.num_steps)
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def folders(place: Path) -> list[Path]:
    return sorted(place.glob("runs/*/*"))


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def fails(capsys: pytest.CaptureFixture[str], code: int, *arguments: str) -> str:
    """The one message with which a command line fails."""
    assert main(arguments) == code
    message = capsys.readouterr().err
    assert "Traceback" not in message
    return message


def python(*arguments: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=environment, timeout=60, **keywords
    )


def test_a_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "toy.py", "--num-steps", "12", "--seed", "3", "--runs", "kept"]) == 0
    printed = capsys.readouterr().out
    (folder,) = place.glob("kept/toy/*")
    result = read(folder / "result.json")
    names = {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "steps", "seconds_compile", "seconds_train"}
    assert set(result) == names
    assert result["steps"] == 12
    shown = dict(line.split()[:2] for line in printed.splitlines() if line.split()[0] in names)
    assert {name: float(value) for name, value in shown.items()} == pytest.approx(result, rel=1e-5)
    assert printed.splitlines()[-1] == str(folder.relative_to(place))
    assert "12/12  epoch 3/3  train/loss" in printed
    assert printed.replace("\n", "").isprintable()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [*range(1, 13), 12]
    assert {**lines[-2], **lines[-1]}.items() <= {**result, "step": 12}.items()
    assert read(folder / "config.json") == {"num_steps": 12, "batch_size": 8, "learning_rate": 0.1, "bad": ""}
    manifest = read(folder / "manifest.json")
    assert (manifest["status"], manifest["seed"]) == ("finished", 3)
    assert not (place / "__pycache__").exists(), "a cached experiment could be older than its file"


def test_smoke_is_short_whatever_the_config_says(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--smoke", "toy.py", "--num-steps", "1000000000"]) == 0
    (folder,) = folders(place)
    assert read(folder / "result.json")["steps"] <= 10


def test_help_is_quick_because_it_imports_nothing_heavy() -> None:
    light = (
        ["--version"],
        ["run", "--help"],
        [],
        ["frobnicate"],
        ["run", "nowhere.py"],
        ["plan", "-h"],
        ["runs", "list"],
    )
    for arguments in (["--help"], *light):
        look = f"import sys; from fdl.cli import main; main({arguments}); print(sorted(sys.modules), file=sys.stderr)"
        done = python("-c", look)
        loaded = done.stderr.splitlines()[-1]
        assert "'fdl.cli'" in loaded
        for heavy in ("jax", "numpy", "optax", "tyro", "rich"):
            assert f"'{heavy}'" not in loaded, f"fdl {' '.join(arguments)} imports {heavy}"


def test_the_module_is_the_command() -> None:
    assert python("-m", "fdl", "--version").stdout == f"fdl {fdl.__version__}\n"
    assert python("-m", "fdl", "frobnicate").returncode == 2


def test_help(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out
    for command in ("run FILE", "summary FILE", "plan FILE", "runs list", "runs compare"):
        assert f"\n  {command} " in shown
    assert main(["run", "--help"]) == 0
    assert "--smoke" in capsys.readouterr().out
    assert main(["run", "toy.py", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "A linear model on random numbers." in shown
    for option in (
        "--num-steps INT how long [in steps]. (default: 20)",  # Args: in the docstring of the class
        "--batch-size INT Examples a step. (default: 8)",  # a string under the field
        "--learning-rate FLOAT size of a step (default: 0.1)",  # a comment beside it
        "--bad STR What is wrong with the data. (default: '')",  # a comment above it
    ):
        assert option in shown
    for name in ("--seed INT", "--runs PATH", "--smoke", "--tensorboard"):
        assert name in shown
    assert folders(place) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "usage"),
        (["rnu"], "did you mean 'run'"),
        (["--versoin"], "did you mean '--version'"),
        (["run"], "which experiment"),
        (["run", "--smoke"], "which experiment"),
        (["run", "toyy.py"], "did you mean 'toy.py'"),
        (["run", "toy"], "did you mean 'toy.py'"),
        (["run", "nowhere/toy.py"], "there is no file nowhere/toy.py"),
        (["run", "."], "is a folder"),
        (["run", "toy.py", "--learning-rat", "1"], "--learning-rate"),
        (["run", "toy.py", "--sed", "1"], "--seed"),
        (["run", "toy.py", "--num-steps", "many"], "--num-steps"),
        (["run", "toy.py", "stray"], "stray"),
        (["run", "toy.py", "--learning-rate", "-1"], "learning_rate must be >= 0, got -1.0"),
        (["run", "toy.py", "--num-steps", "0"], "num_steps: expected a whole number >= 1, got 0"),
    ],
)
def test_bad_usage(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str) -> None:
    assert expected in fails(capsys, 2, *arguments)
    assert folders(place) == []


@pytest.mark.parametrize(
    ("bad", "expected", "started"),
    [
        ("range", "label 2 in row 5 of 'train' is outside 0..1", True),
        ("nan", "nan at row 5, column 2", True),
        ("float", "expected integers, got float32", True),
        ("shape", "expected x of shape [..., in_features=3], got float32[8, 2]", True),
        ("empty", "no examples", False),
        ("length", "x: 32, y: 31", False),
        ("exit", "the file ended the program (SystemExit: 0)", False),
        ("module", "there is no module sklaern: install it", False),
        ("type", "build(config) must return an fdl.Experiment, got str", False),
    ],
)
def test_bad_input(place: Path, capsys: pytest.CaptureFixture[str], bad: str, expected: str, started: bool) -> None:
    message = fails(capsys, 2, "run", "toy.py", "--bad", bad)
    assert expected in message
    assert "JAX_TRACEBACK_FILTERING" not in message
    assert folders(place) == []
    if not started and bad != "type":
        line = next(n for n, text in enumerate(TOY.splitlines(), 1) if f'"{bad}":' in text)
        near = line if bad in ("exit", "module") else TOY.splitlines().index("    data = fdl.data.Arrays(x=x, y=y)") + 1
        assert f"toy.py:{near}" in message


def test_a_batch_larger_than_the_data(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(capsys, 2, "run", "toy.py", "--batch-size", "33")
    assert "batch_size 33 is larger than the 32 examples" in message
    assert folders(place) == []


@pytest.mark.parametrize("runs", ["toy.py", "toy.py/below", "/proc/fdl"])
def test_runs_that_cannot_be_written(place: Path, capsys: pytest.CaptureFixture[str], runs: str) -> None:
    message = fails(capsys, 2, "run", "toy.py", "--runs", runs)
    assert f"cannot write the run folder {runs}" in message
    assert "--runs" in message


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("def build(:\n", "toy.py:1: invalid syntax"),
        ("x = 1\n\0", "null bytes"),
        ("import fdl\nfrom fdl import nothing\n", "toy.py:2: cannot import name 'nothing'"),
        ("import fdl.nothing\n", "the package fdl has no module fdl.nothing"),
        ("import sys\nsys.exit(1)\n", "toy.py:2: the file ended the program"),
        ("import fdl\nfdl.data.load('digitz', split='train')\n", "did you mean 'digits'"),
        ("", "has no Config"),
        ("class Config: pass\n", "has no build"),
        ("class Config: pass\ndef buidl(config): pass\n", "did you mean 'buidl'"),
        ("class Config: pass\ndef build(config): pass\n", "Config must be a dataclass"),
        ("from dataclasses import dataclass\n@dataclass\nclass Config: pass\nbuild = len\n", "Config must be frozen"),
        (TOY.replace("def build(config):", "build = 3\ndef other(config):"), "build must be a function"),
        (TOY.replace("bad: str", "runs: str"), "Config has a field 'runs'"),
    ],
)
def test_a_file_that_is_no_experiment(
    place: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    (place / "toy.py").write_text(text)
    message = fails(capsys, 2, "run", "toy.py")
    assert expected in message
    assert "toy.py" in message
    assert folders(place) == []


def test_files_beside_the_experiment_can_be_imported(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "toy_beside.py").write_text(TOY)
    (place / "random.py").write_text("from toy_beside import Config, build\n")  # and its own name hides no module
    before = list(sys.path)
    assert "label 2" in fails(capsys, 2, "run", "random.py", "--bad", "range")
    assert sys.path == before


def test_an_edit_within_the_second_is_seen(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    os.utime("toy.py", (1e9, 1e9))
    fails(capsys, 2, "run", "toy.py", "--bad", "empty")
    (place / "toy.py").write_text(TOY.replace("batch_size: int", "batch_sice: int"))
    os.utime("toy.py", (1e9, 1e9))  # same size, same second: a .pyc of the old file would count as up to date
    assert "--batch-sice" in fails(capsys, 2, "run", "toy.py", "--batch-size", "3")


def test_a_loss_that_explodes_is_a_failed_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    message = fails(capsys, 1, "run", "toy.py", "--bad", "explode", "--learning-rate", "1e30")
    assert "the training loss is inf at step 2 of 20" in message
    (folder,) = folders(place)
    assert f"recorded in {folder.relative_to(place)}" in message
    manifest = read(folder / "manifest.json")
    assert manifest["status"] == "failed"
    assert manifest["error"].startswith("NonFiniteError: the training loss is inf at step 2")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert lines[1]["train/loss"] is None
    assert not (folder / "result.json").exists()


def test_a_bug_of_the_experiment_shows_its_traceback(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "toy.py", "--bad", "bug"]) == 1
    message = capsys.readouterr().err
    assert "Traceback" in message
    assert "KeyError: 'key'" in message
    assert 'if config.bad == "bug"' in message


def interrupted(place: Path, wait_for: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """A real process that gets SIGINT once the file `wait_for` of its run folder has content."""
    # Where the tests run in the background, SIGINT is ignored, and a child would inherit that.
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import fdl.__main__"
    command = [sys.executable, "-c", program, "run", "toy.py", "--num-steps", "1000000000"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=place, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            deadline = time.monotonic() + 60
            while not any(file.stat().st_size for file in place.glob(f"runs/toy/*/{wait_for}")):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(5)
            if process.poll() is None:  # JAX's callback of the garbage collector may swallow one: people press again
                process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
    (folder,) = folders(place)
    return subprocess.CompletedProcess(command, process.returncode, out, err), folder


def test_ctrl_c_in_the_middle(place: Path) -> None:
    done, folder = interrupted(place, "metrics.jsonl")
    assert done.returncode == 130
    text = (folder / "metrics.jsonl").read_text()
    assert text.endswith("\n")
    steps = [json.loads(line)["step"] for line in text.splitlines()]
    assert steps == list(range(1, len(steps) + 1))
    where = f"stopped after step {steps[-1]} of 1000000000"
    run = folder.relative_to(place)
    assert done.stderr == f"interrupted; {where}; recorded in {run}; fdl resume {run} goes on\n"
    manifest = read(folder / "manifest.json")
    assert (manifest["status"], manifest["error"]) == ("interrupted", f"Interrupted: {where}")
    names = ["checkpoints", "config.json", "manifest.json", "metrics.jsonl"]
    assert sorted(file.name for file in folder.iterdir()) == names


def test_ctrl_c_while_it_compiles(place: Path) -> None:
    done, folder = interrupted(place, "manifest.json")
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert read(folder / "manifest.json")["status"] == "interrupted"
    assert (folder / "metrics.jsonl").read_text() == ""


class Closed(io.StringIO):
    """Standard output whose reader went away."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def fileno(self) -> int:
        return self.number


@pytest.mark.parametrize("command", ["", "run", "resume", "verify-resume", "sweep", "summary", "plan", "runs", "ckpt"])
def test_help_for_a_reader_that_leaves(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (tmp_path / "out").open("w") as file, monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Closed(file.fileno()))
        assert main([*command.split(), "--help"]) == 0
