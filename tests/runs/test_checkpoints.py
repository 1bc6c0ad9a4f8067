"""A checkpoint is whole or it is not there, whatever happens while it is written and after."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from fdl.errors import InputError
from fdl.runs import checkpoints as module
from fdl.runs.checkpoints import ARRAYS, MANIFEST, CheckpointError, Checkpoints, read
from fdl.runs.retention import NEWEST, Keep

ROWS = np.arange(300, dtype=np.float32)


def write(folder: Path, *steps: int, keep: Keep = NEWEST) -> Checkpoints:
    written = Checkpoints(folder)
    for step in steps:
        arrays = {"params/w": ROWS + step, "empty": np.zeros((0, 3))}
        written.save(step, arrays, {"names": ["loss"], "step": step}, keep)
    written.wait()
    return written


def newest(folder: Path) -> tuple[int | None, list[str]]:
    saved, skipped = Checkpoints(folder).newest()
    if saved is not None:  # whatever is said to be verified has to be right
        np.testing.assert_array_equal(saved.arrays["params/w"], ROWS + saved.step)
        assert saved.facts == {"names": ["loss"], "step": saved.step}
    return (None if saved is None else saved.step), skipped


def failure(checkpoints: Checkpoints) -> str | None:
    try:
        checkpoints.wait()
    except CheckpointError as error:
        return str(error)
    return None


def test_what_is_read_is_what_was_written(tmp_path: Path):
    rng = np.random.default_rng(0)
    kinds: list[Any] = ["bool", "int8", "uint32", "int64", "float16", "float32", "float64", "complex64"]
    kinds += [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4]
    arrays = {f"a/{np.dtype(kind).name}": rng.integers(0, 2, (2, 3)).astype(kind) for kind in kinds}
    arrays |= {"scalar": np.float32(2.5), "empty": np.zeros((0, 4), np.int32), "strided": np.arange(6.0)[::2]}
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(7, {name: np.asarray(array) for name, array in arrays.items()}, {"best": None, "x": [1, 2.5]})
    checkpoints.wait()
    saved, skipped = checkpoints.newest()
    assert saved is not None
    assert (saved.step, saved.facts, skipped) == (7, {"best": None, "x": [1, 2.5]}, [])
    for name, array in arrays.items():
        assert saved.arrays[name].dtype == np.asarray(array).dtype
        np.testing.assert_array_equal(saved.arrays[name], array)


def test_the_file_is_one_that_safetensors_would_have_written(tmp_path: Path):
    from safetensors.numpy import load_file, save_file

    arrays: dict[str, np.ndarray] = {"b": ROWS.reshape(3, 100), "a": np.arange(4) > 1, "": np.array(2, np.int8)}
    arrays["turned"] = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, arrays, {})
    checkpoints.wait()
    written = tmp_path / "00000001" / ARRAYS
    save_file({name: np.ascontiguousarray(x).reshape(x.shape) for name, x in arrays.items()}, tmp_path / "theirs")
    mine, theirs = load_file(written), load_file(tmp_path / "theirs")
    assert mine.keys() == theirs.keys()
    for name, array in theirs.items():
        assert (mine[name].dtype, mine[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(mine[name], array)


def test_the_newest_ones_stay(tmp_path: Path):
    write(tmp_path, 5, 10, 15, 100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000015", "00000100"]


SCORES = {10: 0.5, 20: 0.1, 30: None, 40: 0.1, 50: 0.3, 60: 0.9}


@pytest.mark.parametrize(
    ("keep", "stay"),
    [
        (Keep(), {50, 60}),
        (Keep(last=1), {60}),
        (Keep(last=9), set(SCORES)),
        (Keep(last=1, every=20), {20, 40, 60}),
        (Keep(last=1, every=1), set(SCORES)),
        (Keep(last=1, best=1), {20, 60}),  # of equals the earlier
        (Keep(last=1, best=3), {20, 40, 50, 60}),
        (Keep(last=1, best=9), {10, 20, 40, 50, 60}),  # what was not evaluated is never the best
        (Keep(last=2, every=30, best=1), {20, 30, 50, 60}),
    ],
)
def test_what_stays(keep: Keep, stay: set[int], tmp_path: Path):
    assert keep.stay(SCORES) == stay
    written = Checkpoints(tmp_path)
    for step, score in SCORES.items():
        written.save(step, {"w": ROWS}, {"score": score}, keep)
    written.wait()
    assert {int(path.name) for path in written.all()} == stay


@pytest.mark.parametrize("wrong", [{"last": 0}, {"last": True}, {"every": 0}, {"best": -1}, {"last": 1.5}])
def test_what_cannot_be_kept(wrong: Any):
    with pytest.raises(InputError, match="expected a whole number >="):
        Keep(**wrong)


def test_nothing_is_deleted_before_the_newest_was_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A disk that takes what it is given and has something else: the checkpoints before stay, and it is said."""
    checkpoints, store = write(tmp_path, 1, 2), module._store

    def lies(path: Path, pieces: Any) -> Any:
        told = store(path, pieces)
        if path.name == ARRAYS:
            path.write_bytes(path.read_bytes()[:-1] + b"?")
        return told

    monkeypatch.setattr(module, "_store", lies)
    checkpoints.save(3, {"params/w": ROWS + 3}, {"names": ["loss"], "step": 3}, Keep(last=1))
    assert "is damaged" in str(failure(checkpoints))
    assert newest(tmp_path)[0] == 2
    assert {path.name for path in checkpoints.all()} == {"00000001", "00000002", "00000003"}


def test_damaged_ones_ahead_of_the_run_push_no_good_one_out(tmp_path: Path):
    write(tmp_path, 1, 10, 20, keep=Keep(last=3))
    for step in (10, 20):
        (tmp_path / f"{step:08d}" / ARRAYS).write_bytes(b"")
    write(tmp_path, 2)  # the run went back to 1, and goes on
    assert newest(tmp_path)[0] == 2
    write(tmp_path, 10, keep=Keep(last=1))
    assert newest(tmp_path)[0] == 10
    assert not (tmp_path / "00000001").exists()


def test_a_thousand_flipped_bits_are_all_found(tmp_path: Path):
    write(tmp_path, 1, 2)
    rng = np.random.default_rng(0)
    for name in (ARRAYS, MANIFEST):
        path = tmp_path / "00000002" / name
        whole = path.read_bytes()
        for _ in range(500):
            damaged = bytearray(whole)
            damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
            path.write_bytes(damaged)
            step, (remark,) = newest(tmp_path)
            assert step == 1
            assert str(path) in remark
        path.write_bytes(whole)
    assert newest(tmp_path) == (2, [])


def test_what_is_cut_off_gone_or_too_much_is_named(tmp_path: Path):
    write(tmp_path, 1, 2)
    folder = tmp_path / "00000002"
    for name in (ARRAYS, MANIFEST):
        whole = (folder / name).read_bytes()
        for length in (0, 1, len(whole) // 2, len(whole) - 1):
            (folder / name).write_bytes(whole[:length])
            step, (remark,) = newest(tmp_path)
            assert (step, str(folder / name) in remark, "damaged" in remark) == (1, True, True)
        (folder / name).unlink()
        step, (remark,) = newest(tmp_path)
        assert (step, f"{folder / name}: is missing" in remark) == (1, True)
        (folder / name).write_bytes(whole)
    (folder / "more").write_text("")
    step, (remark,) = newest(tmp_path)
    assert (step, f"{folder / 'more'}: is not part" in remark) == (1, True)


def test_a_newer_format_is_refused_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "FORMAT", 2)
    write(tmp_path, 1)
    monkeypatch.setattr(module, "FORMAT", 1)
    with pytest.raises(InputError, match="has format 2; this fdl reads up to 1"):
        read(tmp_path / "00000001")


@pytest.mark.parametrize("call", ["open", "mkdir", "fsync", "replace"])
def test_a_fault_at_any_call_leaves_the_old_one_or_the_new_one(tmp_path: Path, monkeypatch, call):
    """The k-th call of each kind fails, for every k that there is."""
    failures = 0
    for k in range(1, 30):
        folder = tmp_path / str(k)
        write(folder, 1)
        checkpoints, calls = Checkpoints(folder), 0

        def fails(original, k=k):
            def wrapped(*arguments, **options):
                nonlocal calls
                calls += 1
                if calls == k:
                    raise OSError(5, "Input/output error")
                return original(*arguments, **options)

            return wrapped

        with monkeypatch.context() as patch:
            if call in ("open", "mkdir"):
                patch.setattr(Path, call, fails(getattr(Path, call)))
            else:
                patch.setattr(os, call, fails(getattr(os, call)))
            checkpoints.save(2, {"params/w": ROWS + 2}, {"names": ["loss"], "step": 2})
            error = failure(checkpoints)
        failed = error is not None
        if failed:
            assert "could not be written: Input/output error" in error
        step, skipped = newest(folder)
        assert skipped == []
        assert step in ((1, 2) if failed else (2,))
        failures += failed
        if not failed:
            break
    assert failures == {"open": 2, "mkdir": 2, "fsync": 4, "replace": 1}[call]


def test_a_full_disk_is_known_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoints = write(tmp_path, 1)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1000))
    checkpoints.save(2, {"params/w": ROWS}, {})
    with pytest.raises(CheckpointError, match="1000 bytes are free"):
        checkpoints.wait()
    assert newest(tmp_path) == (1, [])


LIMITED = """
import resource, signal, sys
import numpy as np
from pathlib import Path
from fdl.runs.checkpoints import Checkpoints, CheckpointError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
checkpoints = Checkpoints(Path(sys.argv[1]))
checkpoints.save(2, {"params/w": np.zeros(1_000_000, np.float32)}, {})
try:
    checkpoints.wait()
except CheckpointError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
def test_a_limit_on_the_size_of_files_costs_no_checkpoint(tmp_path: Path):
    write(tmp_path, 1)
    done = subprocess.run([sys.executable, "-c", LIMITED, str(tmp_path)], capture_output=True, text=True)
    assert "could not be written: File too large" in done.stdout, done.stderr
    assert newest(tmp_path) == (1, [])


def test_what_a_killed_process_left_is_no_checkpoint_and_does_not_stay(tmp_path: Path):
    write(tmp_path, 1)
    half = tmp_path / ".00000002.tmp"
    half.mkdir()
    (half / ARRAYS).write_bytes(b"half")
    assert newest(tmp_path) == (1, [])
    write(tmp_path, 2)
    assert not half.exists()
    assert newest(tmp_path) == (2, [])
