"""The run folder: what is in it after each end that a run can have, and that nothing in it is ever half-written."""

from __future__ import annotations

import dataclasses
import enum
import json
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import fdl
from fdl import nn
from fdl.errors import InputError
from fdl.runs import folder as folder_module
from fdl.runs.files import plain, write_json
from fdl.runs.folder import RunFolder, RunFolderError, new_folder
from fdl.runs.manifest import config_hash, git_state


class Kind(enum.Enum):
    A = 1


@dataclasses.dataclass(frozen=True)
class Inner:
    depth: int = 2


@dataclasses.dataclass(frozen=True)
class Config:
    rate: float = float("nan")
    sizes: tuple[int, ...] = (3, 4)
    inner: Inner = Inner()
    kind: Kind = Kind.A
    data: Path = Path("a/b")
    activation: Any = jax.nn.relu
    scale: Any = np.float32(0.5)


def read(path: Path) -> Any:
    """JSON by the letter: Python would also accept the words NaN and Infinity."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(path.read_text(), parse_constant=refuse)


def record(folder: RunFolder, losses: list[float], start: int = 1) -> None:
    folder.append(np.arange(start, start + len(losses)), {"train/loss": np.array(losses, np.float32)})


def lines(folder: Path) -> list[Any]:
    text = (folder / "metrics.jsonl").read_text()
    assert text == "" or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_a_finished_run(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "runs" / "x", config=Config(), seed=3) as folder:
        assert read(folder.path / "manifest.json")["status"] == "running"
        record(folder, [0.5, 0.25])
        assert len(lines(folder.path)) == 2, "lines are on disk while the run goes on"
        folder.append(np.array([2]), {"val/50% \n\x1b": np.array([1.0])})
        folder.finish({"train/loss": 0.25, "odd": float("inf"), "steps": 2})
    assert lines(folder.path) == [
        {"step": 1, "train/loss": 0.5},
        {"step": 2, "train/loss": 0.25},
        {"step": 2, "val/50% \n\x1b": 1.0},
    ]
    assert read(folder.path / "result.json") == {"train/loss": 0.25, "odd": None, "steps": 2}
    assert read(folder.path / "config.json") == {
        "rate": None, "sizes": [3, 4], "inner": {"depth": 2}, "kind": "A", "data": "a/b",
        "activation": "jax.nn.relu", "scale": 0.5,
    }  # fmt: skip
    manifest = read(folder.path / "manifest.json")
    assert (manifest["status"], manifest["error"], manifest["seed"]) == ("finished", None, 3)
    assert datetime.fromisoformat(manifest["started"]) <= datetime.fromisoformat(manifest["finished"])
    assert manifest["versions"]["fdl"] == fdl.__version__
    assert manifest["versions"]["jax"] == jax.__version__
    assert manifest["device"]["count"] == jax.device_count()
    assert manifest["config_hash"] == config_hash(Config())
    told = {"default_prng_impl": "threefry2x32", "threefry_partitionable": True, "enable_x64": False}
    assert told.items() <= manifest["numerics"].items()
    names = {"default_matmul_precision", "XLA_FLAGS", "processes", "cores", "cpu"}
    assert names <= manifest["numerics"].keys()
    assert manifest["numerics"]["cpu"]["model"]
    names = ["config.json", "manifest.json", "metrics.jsonl", "result.json"]
    assert sorted(file.name for file in folder.path.iterdir()) == names


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (KeyboardInterrupt("stopped after step 2"), "interrupted", "KeyboardInterrupt: stopped after step 2"),
        (FloatingPointError("loss is nan\n at step 2"), "failed", "FloatingPointError: loss is nan at step 2"),
        (SystemExit(), "failed", "SystemExit"),
    ],
)
def test_an_exception_is_recorded_and_raised_again(
    tmp_path: Path, error: BaseException, status: str, message: str
) -> None:
    with pytest.raises(type(error)) as caught, RunFolder(tmp_path / "x") as folder:  # noqa: PT012
        record(folder, [1.0, float("nan")])
        raise error
    assert caught.value is error
    assert lines(tmp_path / "x") == [{"step": 1, "train/loss": 1.0}, {"step": 2, "train/loss": None}]
    manifest = read(tmp_path / "x" / "manifest.json")
    assert (manifest["status"], manifest["error"]) == (status, message)
    assert manifest["finished"] is not None
    assert not (tmp_path / "x" / "result.json").exists()


def test_no_result_is_a_failure(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "x") as folder:
        record(folder, [1.0])
    assert read(folder.path / "manifest.json")["status"] == "failed"


def test_an_interrupt_after_the_result_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), RunFolder(tmp_path / "x") as folder:  # noqa: PT012
        folder.finish({"a": 1.0})
        raise KeyboardInterrupt
    assert read(tmp_path / "x" / "manifest.json")["status"] == "finished"


def test_an_empty_folder_is_taken_and_a_full_one_refused(tmp_path: Path) -> None:
    with RunFolder(tmp_path) as folder:
        folder.finish({"a": 1.0})
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}
    with pytest.raises(InputError, match="not empty"), RunFolder(tmp_path):
        pass
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_of_two_runs_that_race_for_a_folder_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunFolder(tmp_path / "x") as first:
        monkeypatch.setattr(folder_module, "_begun", lambda _: [])  # both saw it empty
        with pytest.raises(InputError, match="File exists"), RunFolder(tmp_path / "x"):
            pass
        first.finish({"a": 1.0})
    assert read(first.path / "result.json") == {"a": 1.0}


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "x", Path("/proc/fdl/x")):
        with pytest.raises(InputError, match="cannot write the run folder") as caught, RunFolder(place):
            pass
        assert str(place) in str(caught.value)
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_disk_that_is_full_at_the_start_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, value: Any) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(folder_module, "write_json", full)
    with pytest.raises(InputError, match="No space left"), RunFolder(tmp_path / "x"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_leaves_whole_lines(tmp_path: Path) -> None:
    class Full:
        """The metrics file on a disk with room for 10 more bytes."""

        def __init__(self, file: Any) -> None:
            self.file, self.room = file, 10

        def write(self, data: bytes) -> int:
            if not self.room:
                raise OSError(28, "No space left on device")
            written = self.file.write(data[: self.room])
            self.room -= written
            return written

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

    with pytest.raises(RunFolderError, match="No space left"), RunFolder(tmp_path / "x") as folder:  # noqa: PT012
        record(folder, [1.0, 2.0])
        folder._metrics = Full(folder._metrics)  # pyright: ignore[reportAttributeAccessIssue]
        record(folder, [3.0], start=3)
    assert [line["step"] for line in lines(tmp_path / "x")] == [1, 2]
    assert read(tmp_path / "x" / "manifest.json")["status"] == "failed"


def test_a_file_is_the_old_one_or_the_whole_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", stop)
    with pytest.raises(KeyboardInterrupt):
        write_json(path, {"a": 2})
    assert read(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_ids_sort_by_time_and_do_not_repeat() -> None:
    ids = [new_folder("runs", "digits").name for _ in range(50)]
    assert len(set(ids)) == 50
    times = [name.rsplit("-", 1)[0] for name in ids]
    assert times == sorted(times)
    assert new_folder("runs", "digits").parent == Path("runs/digits")


def test_the_hash_of_a_config_is_that_of_its_values() -> None:
    assert config_hash(Config()) == config_hash(Config())
    assert config_hash(Config(sizes=(4, 3))) != config_hash(Config())
    assert plain(lambda: 0) == plain(lambda: 0), "no address of a function may get into it"


def test_git(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    assert git_state(tmp_path) is None
    git("init", "-q")
    (tmp_path / "a.py").write_text("1")
    git("add", "a.py")
    git("commit", "-q", "-m", "a")
    git("tag", "v1")
    assert git_state(tmp_path) == {"revision": git("rev-parse", "HEAD"), "dirty": False}
    (tmp_path / "a.py").write_text("2")
    assert git_state(tmp_path) == {"revision": git("rev-parse", "HEAD"), "dirty": True}


def test_run_keeps_what_it_returns(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(16, 3)).astype(np.float32)
    data = fdl.data.Arrays(x=x, y=x[:, :1])
    task = fdl.supervised(nn.Linear(3, 1), fdl.losses.squared_error)
    experiment = fdl.Experiment(task=task, optimizer=optax.sgd(0.1), train=data, evaluate={"val": data}, num_steps=6)
    result = fdl.run(experiment, seed=1, folder=tmp_path / "x", chunk=4)
    assert read(tmp_path / "x" / "result.json") == {**result.metrics, **result.info}
    train, val = lines(tmp_path / "x")[:-1], lines(tmp_path / "x")[-1]
    assert [line["step"] for line in train] == [1, 2, 3, 4, 5, 6]
    assert [line["train/loss"] for line in train] == result.history["train/loss"].tolist()
    assert val == {"step": 6, "val/loss": result.metrics["val/loss"]}
