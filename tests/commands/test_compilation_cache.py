"""The compilation cache of commands, runs and sweeps: the same bits from it, whatever has become of its folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from fdl.cli import main
from fdl.training import compilation_cache as cache
from fdl.training import executable_cache

OPTIONS = ("jax_enable_compilation_cache", "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """JAX as it comes, and a cache folder of the test's own; the tests themselves run without any."""
    config: Any = jax.config
    before = {name: getattr(config, name) for name in OPTIONS}
    for name in ("FDL_COMPILATION_CACHE", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FDL_CACHE", str(tmp_path / "caches"))
    jax_cache.reset_cache()
    jax.config.update("jax_enable_compilation_cache", True)
    yield tmp_path / "caches" / "compiled"
    for name, value in before.items():
        jax.config.update(name, value)
    jax_cache.reset_cache()


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*-cache"))


def run(place: Path, name: str, *options: str) -> tuple[bytes, list[bool]]:
    """The metrics of a run as in a process of its own, and whether each of its programs came from the cache."""
    executable_cache.forget()
    assert main(["run", "toy.py", "--runs", name, *options]) == 0
    (found,) = place.glob(f"{name}/toy/*")
    programs = json.loads((found / "manifest.json").read_text())["programs"]
    return (found / "metrics.jsonl").read_bytes(), [program["cache_hit"] for program in programs]


def test_a_warm_run_has_the_bits_of_a_cold_one_and_damaged_entries_heal(
    place: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warnings.simplefilter("always")  # as errors, they would come out of JAX
    cold, hits = run(place, "cold")
    assert not any(hits)
    assert any(path.name.startswith("jit_chunk-") for path in entries(folder)), "though it took less than a second"
    other, hits = run(place, "other", "--rate", "0.2")
    assert all(hits), "the floats of a config are arguments of its programs"
    for path in entries(folder):
        path.write_bytes(path.read_bytes()[:-9])
    damaged, hits = run(place, "damaged")
    assert not any(hits)
    healed, hits = run(place, "healed")
    assert all(hits)
    assert cold == damaged == healed != other
    assert capsys.readouterr().err == ""


def test_a_folder_that_cannot_be_used_is_a_note(place: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder.parent.write_text("no folder")
    assert main(["summary", "toy.py"]) == 0
    assert capsys.readouterr().err.startswith("note: compiled programs are not kept: ")


def off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FDL_COMPILATION_CACHE", "off")


def disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    jax.config.update("jax_enable_compilation_cache", False)  # what JAX_ENABLE_COMPILATION_CACHE=false does


def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    jax.config.update("jax_compilation_cache_dir", "/elsewhere")  # what JAX_COMPILATION_CACHE_DIR does


@pytest.mark.parametrize("way", [off, disabled, elsewhere])
def test_ways_out(monkeypatch: pytest.MonkeyPatch, folder: Path, way: Any) -> None:
    way(monkeypatch)
    config: Any = jax.config
    before = [getattr(config, name) for name in OPTIONS]
    cache.enable()
    assert [getattr(config, name) for name in OPTIONS] == before
    assert not folder.exists()


def test_a_word_that_is_neither_on_nor_off(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FDL_COMPILATION_CACHE", "of")
    assert main(["summary", "toy.py"]) == 2
    assert "FDL_COMPILATION_CACHE: expected on or off, got 'of'" in capsys.readouterr().err


def test_the_folder_is_the_users_own(folder: Path) -> None:
    cache.enable()
    config: Any = jax.config
    mine = Path(config.jax_compilation_cache_dir)
    assert mine.parent == folder
    assert mine.stat().st_mode & 0o777 == 0o700, "whoever writes a program there has it run"
    assert config.jax_persistent_cache_min_compile_time_secs == 0


def test_what_was_unused_for_longest_goes_first(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    (folder / "a").mkdir(parents=True)
    for age, name in enumerate(("new-cache", "used-cache", "old-cache", "notes.txt")):
        (folder / "a" / name).write_bytes(bytes(100))
        accessed = 1e9 if name == "used-cache" else 1e9 - age
        os.utime(folder / "a" / name, (accessed, 1e9 - 10 * age))
    monkeypatch.setattr(cache, "SIZE", 200)
    cache.enable()
    assert sorted(path.name for path in (folder / "a").iterdir()) == ["new-cache", "notes.txt", "used-cache"]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs modes of folders")
def test_a_cache_that_others_can_write_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Programs in it are run."""
    monkeypatch.setenv("FDL_CACHE", str(tmp_path))
    folder = cache._folder()
    folder.parent.chmod(0o777)
    with pytest.raises(PermissionError, match="can be written by others"):
        cache._folder()


PROGRAM = """
import dataclasses, sys
import jax
import numpy as np
import optax
import fdl
from fdl import nn

assert jax.config.jax_compilation_cache_dir is None
jax.numpy.zeros(3) + 1  # JAX has compiled before the first run

@dataclasses.dataclass(frozen=True)
class Config:
    rate: float = 0.1

def build(config):
    data = fdl.data.Arrays(x=np.ones((8, 2), np.float32), y=np.zeros(8, np.int32))
    task = fdl.supervised(nn.Linear(2, 3), fdl.losses.softmax_cross_entropy)
    return fdl.Experiment(task, optax.sgd(config.rate), train=data, batch_size=4, num_steps=3)

rate = float(sys.argv[1])
if sys.argv[2] == "run":
    programs = fdl.run(build, Config(rate)).programs
else:
    result = fdl.sweep(build, Config(), {"rate": [rate, rate / 2]})
    programs = [each for bucket in result.buckets for block in bucket.blocks for each in block.programs]
print([program.cache_hit for program in programs])
"""


@pytest.mark.parametrize("function", ["run", "sweep"])
def test_a_second_process_compiles_nothing_from_python(tmp_path: Path, function: str) -> None:
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "FDL_"))}
    ours |= {"FDL_CACHE": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    said = [
        subprocess.run([sys.executable, "-c", PROGRAM, rate, function], env=ours, capture_output=True, text=True)
        for rate in ("0.1", "0.2")
    ]
    assert [process.returncode for process in said] == [0, 0], said[-1].stderr
    cold, warm = (process.stdout.strip() for process in said)
    assert "True" not in cold
    assert "True" in warm
    assert "False" not in warm
