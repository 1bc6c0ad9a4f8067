"""`fdl run FILE --tensorboard`: the events say what metrics.jsonl says."""

from __future__ import annotations

import builtins
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fdl.cli import main


def records(path: Path) -> Iterator[bytes]:
    """The records of a TensorBoard file: length, its checksum, data, their checksum; the end says itself."""
    data = path.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert len(data) >= 16 + length, "a record is there in full"
        yield data[12 : 12 + length]
        data = data[16 + length :]


def test_events_hold_the_metrics(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto import event_pb2

    assert main(["run", "toy.py", "--tensorboard"]) == 0
    (folder,) = place.glob("runs/toy/*")
    (file,) = folder.glob("events.out.tfevents.*")
    events: list[Any] = [event_pb2.Event.FromString(record) for record in records(file)]  # pyright: ignore[reportAttributeAccessIssue]
    found = [(event.step, value.tag, value.simple_value) for event in events for value in event.summary.value]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    wanted = [
        (line["step"], name, float(np.float32(value)))
        for line in lines
        for name, value in line.items()
        if name != "step"
    ]
    assert len(wanted) == 4 + 1
    assert sorted(found) == sorted(wanted), "as float32"
    assert json.loads((folder / "manifest.json").read_text())["status"] == "finished"


def test_without_the_package_nothing_starts(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def missing(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "tensorboardX":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", missing)
    assert main(["run", "toy.py", "--tensorboard"]) == 2
    done = capsys.readouterr()
    assert "--tensorboard needs tensorboardX: pip install 'fdl[tensorboard]'" in done.err
    assert done.out == ""
    assert not (place / "runs").exists()
