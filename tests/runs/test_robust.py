"""A run folder is never stuck, never written in another place, and tells truly whether a process writes it."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fdl
import fdl.runs.folder as folders
from fdl.runs.checkpoints import CheckpointError, Checkpoints
from fdl.runs.files import write_text
from fdl.runs.folder import RunFolder, RunFolderError
from fdl.runs.recorded import recorded

KILLED = """
import os, sys, tempfile
import fdl.runs.folder as folders
from fdl.errors import InputError
folders.describe = lambda config, seed: {"config_hash": "0", "seed": seed, "command": []}
TOUCHING = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.listdir", "fcntl.flock")

def begin(folder, last):
    seen = [0]
    def hook(event, arguments):
        if event in TOUCHING:
            seen[0] += 1
            if seen[0] > last:
                os._exit(9)
    sys.addaudithook(hook)
    with folders.RunFolder(folder):
        os._exit(0)

for last in range(1000):
    folder = os.path.join(tempfile.mkdtemp(), "r")
    child = os.fork()
    if child == 0:
        begin(folder, last)
    over = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    before = sorted(os.listdir(folder)) if os.path.isdir(folder) else None
    for resume in (False, True):
        try:
            with folders.RunFolder(folder, resume=resume):
                break
        except InputError as error:
            said = error
    else:
        sys.exit(f"stuck after operation {last}, with {before}: {said}")
    if over:
        print(last)
        break
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork")
def test_a_run_killed_at_any_of_its_first_operations_can_be_resumed_or_used_anew():
    done = subprocess.run([sys.executable, "-c", KILLED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 8  # so many operations there were


def deleted(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def renamed(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replaced(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copytree(path, copy) if path.is_dir() else shutil.copy(path, copy)
    deleted(path)
    copy.rename(path)


@pytest.mark.parametrize("what", [".", "metrics.jsonl", "config.json", "manifest.json"])
@pytest.mark.parametrize("harm", [deleted, renamed, replaced])
def test_a_folder_that_goes_away_under_a_run_is_an_error_within_a_chunk(what: str, harm: Any, tmp_path: Path):
    place = tmp_path / "run"

    def run(files: RunFolder) -> None:
        files.append(np.array([1]), {"train/loss": np.array([1.0])})
        store = files.checkpoints()
        harm(place if what == "." else place / what)
        store.save(1, {"a": np.zeros(3)}, {"names": []})
        with pytest.raises(CheckpointError):
            store.wait()
        store.close()
        files.append(np.array([2]), {"train/loss": np.array([1.0])})

    with pytest.raises(RunFolderError, match="no longer there|replaced"), RunFolder(place, config={"a": 1}) as files:
        run(files)


def test_checkpoints_that_go_away_are_an_error(tmp_path: Path):
    store = Checkpoints(tmp_path / "c")
    store.save(1, {"a": np.zeros(3)}, {})
    store.wait()
    (tmp_path / "c").rename(tmp_path / "d")
    store.save(2, {"a": np.zeros(3)}, {})
    with pytest.raises(CheckpointError, match="no longer"):
        store.wait()
    store.close()


def test_without_locks_a_run_starts_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def flock(*arguments: Any) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(folders.fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="has no locks"), RunFolder(tmp_path / "run"):
        pass
    assert "has no locks" in json.loads((tmp_path / "run" / "manifest.json").read_text())["warnings"][0]


def test_a_run_whose_process_is_gone_has_died(tmp_path: Path):
    with RunFolder(tmp_path / "run"):
        assert recorded(tmp_path / "run").status == "running"
        kept = (tmp_path / "run" / "manifest.json").read_text()
    (tmp_path / "run" / "manifest.json").write_text(kept)
    assert recorded(tmp_path / "run").status == "died"


def test_durations_do_not_follow_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    times = iter(["2026-01-02T03:04:05+00:00", *["2026-01-02T02:04:05+00:00"] * 9])
    monkeypatch.setattr(folders, "now", lambda: next(times))
    with RunFolder(tmp_path / "run") as files:
        files.finish({})
    assert 0 <= (recorded(tmp_path / "run").seconds or 0) < 60


def test_planted_links_are_not_followed(tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / ".file.tmp").symlink_to(victim)
    write_text(tmp_path / "file", "new")
    (tmp_path / "other").mkdir()
    (tmp_path / "c").symlink_to(tmp_path / "other")
    store = Checkpoints(tmp_path / "c")
    store.save(1, {"a": np.zeros(3)}, {})
    with pytest.raises(CheckpointError, match="is a link"):
        store.wait()
    store.close()
    with RunFolder(tmp_path / "run"):
        pass
    (tmp_path / "run" / "metrics.jsonl").unlink()
    (tmp_path / "run" / "metrics.jsonl").symlink_to(victim)
    with pytest.raises(fdl.InputError, match="no run to resume"), RunFolder(tmp_path / "run", resume=True):
        pass
    assert victim.read_text() == "mine"
    assert (tmp_path / "file").read_text() == "new"
    assert not list((tmp_path / "other").iterdir())


def test_checkpoints_go_by_number_and_are_checked_against_their_name(tmp_path: Path):
    store = Checkpoints(tmp_path / "c")
    for step in (99_999_999, 100_000_000):
        store.save(step, {"a": np.zeros(3)}, {})
    store.wait()
    store.close()
    saved, skipped = store.newest()
    assert saved is not None
    assert (saved.step, skipped) == (100_000_000, [])
    (tmp_path / "c" / "100000000").rename(tmp_path / "c" / "100000001")
    saved, skipped = store.newest()
    assert saved is not None
    assert saved.step == 99_999_999
    assert "which is not the step of its name" in skipped[0]
