"""`fdl runs list` and `fdl runs compare`, on folders as runs leave them and on everything that can happen to those."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fdl.cli import main
from fdl.runs.folder import RunFolder

IDS = ("20261121-090946-326-275d0cf1", "20261121-090952-271-2c52623d", "20261122-000000-000-99999999")


def a_run(path: Path, config: Any = None, seed: int = 0, **result: float) -> Path:
    with RunFolder(path, config=config, seed=seed) as folder:
        folder.append(np.array([1, 2]), {"train/loss": np.array([2.0, 1.0])})
        folder.append(np.array([2]), {"val/accuracy": np.array([0.5])})
        if result:
            folder.finish(result)
    return path


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two finished runs of one experiment that differ in a rate, and one of another that failed."""
    monkeypatch.chdir(tmp_path)
    for id, rate, accuracy in zip(IDS[:2], (0.1, 0.01), (0.75, 0.875), strict=True):
        config = {"rate": rate, "width": 3, "inner": {"depth": rate * 10}}
        a_run(Path("runs/digits") / id, config, **{"val/accuracy": accuracy, "steps": 2, "seconds_train": rate})
    a_run(Path("runs/gpt") / IDS[2], {"heads": 4}, seed=1)
    return tmp_path / "runs"


def shows(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["runs", *arguments]) == 0
    done = capsys.readouterr()
    assert done.err == ""
    return done.out


def test_the_list(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head, rule, *rows = shows(capsys, "list").splitlines()
    assert head.split("  ")[0] == "experiment"
    assert set(rule) == {"-"}
    assert [row.split()[1] for row in rows] == list(IDS)
    assert [row.split()[2] for row in rows] == ["finished", "finished", "failed"]
    assert rows[0].endswith("val/accuracy 0.75")
    assert rows[2].endswith("val/accuracy 0.5  at step 2"), "of a run without a result what it had last"
    assert shows(capsys, "list", "runs/digits").splitlines()[2:] == [
        row.rstrip() for row in shows(capsys, "list").splitlines()[2:4]
    ], "the folder of one experiment is a folder of runs as well"


def test_the_list_for_machines(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(shows(capsys, "list", "--json"))
    assert [run["id"] for run in listed] == list(IDS)
    assert listed[1]["metrics"] == {"val/accuracy": 0.875, "steps": 2, "seconds_train": 0.01}
    assert listed[2]["metrics"] == {"train/loss": 1.0, "val/accuracy": 0.5, "steps": 2}
    assert listed[0]["experiment"] == "digits"
    assert listed[0]["seconds"] >= 0
    assert listed[0]["path"] == os.path.join("runs", "digits", IDS[0])
    assert [run["problems"] for run in listed] == [[], [], []]


def test_an_empty_folder(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "other").mkdir()
    assert shows(capsys, "list", "runs/other") == "no runs in runs/other\n"
    assert json.loads(shows(capsys, "list", "runs/other", "--json")) == []


def test_only_what_differs_is_compared(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = shows(capsys, "compare", f"runs/digits/{IDS[0]}", "2c5")
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line and line[0] != "-"}
    assert rows["A"] == [f"runs/digits/{IDS[0]}"]
    assert rows["rate"] == ["0.1", "0.01"]
    assert rows["inner/depth"] == ["1", "0.1"]
    assert rows["val/accuracy"] == ["0.75", "0.875"]
    assert "width" not in rows
    assert "steps" not in rows
    assert "origin: no difference" in text


def test_a_comparison_for_machines(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(shows(capsys, "compare", "--json", "20261121-090946", IDS[1],
                             "99", "--runs=runs"))  # fmt: skip
    assert [run["id"] for run in found["runs"]] == list(IDS)
    assert found["config"]["rate"] == [0.1, 0.01, None]
    assert found["config"]["heads"] == [None, None, 4]
    assert found["config"]["seed"] == [0, 0, 1]
    assert found["results"]["status"] == ["finished", "finished", "failed"]


DAMAGE: dict[str, bytes | None] = {
    "gone": None,
    "empty": b"",
    "cut": b'{"status": "fini',
    "list": b"[1, 2]",
    "binary": bytes(range(256)),
    "deep": b"[" * 50_000,
    "types": b'{"status": 3, "started": 5, "finished": "yesterday", "train/loss": "high", "step": null}',
    "huge": b'{"status": "finished", "val/accuracy": 1' + b"0" * 400 + b"}\n",
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["manifest.json", "config.json", "result.json", "metrics.jsonl"])
def test_a_damaged_file_is_a_remark(runs: Path, capsys: pytest.CaptureFixture[str], name: str, damage: str) -> None:
    id = IDS[2] if name == "metrics.jsonl" else IDS[0]
    file = next(runs.glob(f"*/{id}")) / name
    file.unlink()
    content = DAMAGE[damage]
    if content is not None:
        file.write_bytes(content + (b"\n" if name == "metrics.jsonl" and content else b""))
    row = next(line for line in shows(capsys, "list").splitlines() if id in line)
    if damage not in ("types", "huge") and (name, damage) != ("metrics.jsonl", "empty"):
        assert (f"no {name}" if content is None else f"{name} is damaged") in row
    assert len(json.loads(shows(capsys, "list", "--json"))) == 3
    assert shows(capsys, "compare", *IDS)
    json.loads(shows(capsys, "compare", "--json", *IDS))


def test_a_folder_without_files_and_one_that_is_a_file(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = runs / "digits" / "20270101-000000-000-00000000"
    empty.mkdir()
    (runs / "digits" / IDS[1] / "config.json").unlink()
    (runs / "digits" / IDS[1] / "config.json").mkdir()
    (runs / "digits" / "notes.txt").write_text("x")
    (runs / "digits" / "pictures").mkdir()
    rows = shows(capsys, "list").splitlines()[2:]
    assert len(rows) == 4
    assert "unknown" in rows[-1]
    assert "no manifest.json; no config.json; no metrics.jsonl" in rows[-1]
    assert "config.json cannot be read: Is a directory" in rows[1]


def test_names_move_no_cursor(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_run(runs / "a\x1b[2J" / IDS[0].replace("2026", "2025"), {"a\x1b[31m": 1}, 0, **{"val/\x1b\n": 1.0})
    out = shows(capsys, "list") + shows(capsys, "compare", "2025", "99")
    assert out.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "list or compare?"),
        (["lst"], "did you mean 'list'"),
        (["list", "--jsn"], "did you mean '--json'"),
        (["list", "nowhere"], "there is no folder nowhere"),
        (["list", "a", "b"], "at most one folder"),
        (["compare", "2c5"], "expected two runs or more, got 1"),
        (["compare", "2c5", "20261121"], "is the beginning of 2 runs"),
        (["compare", "2c5", IDS[0][:-1] + "2"], f"did you mean '{IDS[0]}'"),
        (["compare", "2c5", ""], "there is no run ''"),
        (["compare", "2c5", "runs"], "is no run folder"),
        (["compare", "2c5", "99", "--runs"], "--runs: expected a value after it"),
        (["compare", "2c5", "99", "--rnus", "x"], "did you mean '--runs'"),
    ],
)
def test_bad_usage(runs: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str) -> None:
    assert main(["runs", *arguments]) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert "Traceback" not in message


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["list", "-h"], ["compare", "--help"]):
        assert "fdl runs compare RUN RUN" in shows(capsys, *arguments)


def _folder(runs: Path, number: int, **manifest: Any) -> None:
    place = runs / "toy" / f"20260102-03040{number}-678-0a1b2c3d"
    place.mkdir(parents=True)
    (place / "config.json").write_text("{}")
    (place / "metrics.jsonl").write_text("")
    (place / "result.json").write_text(json.dumps({"val/loss": 1.0 / number, "val/loss (best)": 0.5 / number}))
    told = {"status": "finished", "started": "2026-01-02T03:04:05+00:00", "finished": None, **manifest}
    (place / "manifest.json").write_text(json.dumps(told))


def test_the_list_is_cut_chosen_and_sorted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    for number, status in enumerate(["finished", "failed", "running", "finished"], 1):
        _folder(tmp_path, number, status=status)

    def listed(*options: str) -> str:
        assert main(["runs", "list", str(tmp_path), *options]) == 0
        return capsys.readouterr().out

    assert "died" in listed("--last", "2")
    assert listed("--last", "1").count("20260102-") == 1
    assert listed("--status", "failed").count("20260102-") == 1
    order = [line.split()[1][14] for line in listed("--sort", "val/loss").splitlines()[2:]]
    assert order == ["4", "3", "2", "1"]
    assert "val/loss (best) 0.125" in listed("--last", "1")  # of a sweep the best, not the mean of all settings
    assert main(["runs", "list", str(tmp_path), "--status", "finnished"]) == 2
    assert main(["runs", "list", str(tmp_path), "--sort", "val/los"]) == 2
    assert "did you mean" in capsys.readouterr().err
