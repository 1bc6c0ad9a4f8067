"""Saving and restoring 256 MiB: how long training waits, how long until it is on the disk, how long until it is back.

    python experiments/benchmarks/checkpoints.py --output experiments/benchmarks/results/checkpoints.json

Beside fdl are Orbax, which writes in the background as well, and `torch.save`, which does not; those that are not
installed are left out. What they promise differs: fdl has SHA-256 of every byte, reads back what it wrote before it
deletes an older checkpoint, and waits for the disk (fsync); `torch.save` waits for nothing, and keeps one file. Each
goes in a process of its own, and they take turns, the disk at rest before each; the medians and the ranges of all saves
but the first of each process are shown.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `python experiments/benchmarks/...` from anywhere

from experiments.benchmarks.record import machine, write

ARRAYS, SIZE, REPEATS, TURNS = 8, 2**23, 3, 3  # 8 arrays of 32 MiB each
PEERS = {"fdl": "fdl", "Orbax": "orbax.checkpoint", "torch.save": "torch"}
Peer = Literal["fdl", "Orbax", "torch.save"]
COLUMNS = {"blocking": "training waits", "written": "written", "restored": "restored"}
Saver = tuple[Callable[[int, Any], Callable[[], None]], Callable[[int, Any], Any]]
"""`save(step, tree)`, which returns when training may go on, and gives a function that waits until all is written;
`restore(step, like)` -> tree on the device."""


def main(output: Path | None = None, peer: Peer | None = None, quick: bool = False) -> None:
    """Prints the milliseconds of each, and writes them as JSON where `output` is given.

    Args:
      output: a JSON file.
      peer: the one to measure in this process; by default all, in processes of their own.
      quick: 256 KiB, once, to see that everything works; the times mean nothing.
    """
    size, repeats = (SIZE // 1024, 1) if quick else (SIZE, REPEATS)
    if peer is not None:
        print(json.dumps(measure(peer, size, repeats)))
        return
    about = machine() | {"mebibytes": ARRAYS * size * 4 / 2**20}
    there = [name for name, module in PEERS.items() if importlib.util.find_spec(module.partition(".")[0]) is not None]
    taken: dict[str, list[dict[str, list[float]]]] = {name: [] for name in there}
    for _ in range(1 if quick else TURNS):
        for name in there:
            os.sync()  # what another one has left to be written
            command = [sys.executable, __file__, "--peer", name, *(["--quick"] if quick else [])]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            taken[name].append(json.loads(done.stdout.splitlines()[-1]))
    rows = [{"variant": name, **row(turns)} for name, turns in taken.items()]
    print("\n" + f"{about['mebibytes']:g} MiB, ms".ljust(16) + "".join(f"{name:>24}" for name in COLUMNS.values()))
    for each in rows:
        print(f"{each['variant']:16}" + "".join(f"{spread(each[name]):>24}" for name in COLUMNS))
    if output is not None:
        write(output, about, rows=rows)


def spread(values: list[float]) -> str:
    median, least, most = values
    return f"{median:.0f} ({least:.0f} to {most:.0f})"


def row(turns: list[dict[str, list[float]]]) -> dict[str, list[float]]:
    """Median, least and most of all saves, in milliseconds."""
    all_of = {name: [1e3 * seconds for turn in turns for seconds in turn[name]] for name in COLUMNS}
    return {name: [round(f(ms), 1) for f in (statistics.median, min, max)] for name, ms in all_of.items()}


def measure(peer: Peer, size: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of each save: until training goes on, until everything is written; and of restoring."""
    folder = tempfile.mkdtemp(dir=".")  # a real disk: /tmp may be memory
    try:
        save, restore = {"fdl": with_fdl, "Orbax": with_orbax, "torch.save": with_torch}[peer](Path(folder).resolve())
        times: dict[str, list[float]] = {name: [] for name in COLUMNS}
        noise = np.random.default_rng(0).random(size, np.float32)  # which cannot be compressed, as weights cannot
        for step in range(1, repeats + 2):
            tree = {f"layer{i}": {"kernel": jnp.asarray(noise * (i + step))} for i in range(ARRAYS)}
            jax.block_until_ready(tree)
            began = time.perf_counter()
            wait = save(step, tree)
            times["blocking"].append(time.perf_counter() - began)
            wait()
            times["written"].append(time.perf_counter() - began)
            like = jax.block_until_ready(jax.tree.map(jnp.zeros_like, tree))
            began = time.perf_counter()
            found = jax.block_until_ready(restore(step, like))
            times["restored"].append(time.perf_counter() - began)
            jax.tree.map(np.testing.assert_array_equal, found, tree)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {name: seconds[1:] for name, seconds in times.items()}


def with_fdl(folder: Path) -> Saver:
    from fdl.runs.checkpoints import Checkpoints
    from fdl.training.snapshot import flat, put

    checkpoints = Checkpoints(folder)

    def save(step: int, tree: Any) -> Callable[[], None]:
        checkpoints.save(step, flat(tree), {})
        return checkpoints.wait

    def restore(step: int, like: Any) -> Any:
        saved, _ = checkpoints.newest()
        assert saved is not None
        return put(like, saved.arrays, "the checkpoint")[0]

    return save, restore


def with_orbax(folder: Path) -> Saver:
    import orbax.checkpoint as ocp

    manager = ocp.CheckpointManager(folder, options=ocp.CheckpointManagerOptions(max_to_keep=2))

    def save(step: int, tree: Any) -> Callable[[], None]:
        manager.save(step, args=ocp.args.StandardSave(tree))
        return manager.wait_until_finished

    def restore(step: int, like: Any) -> Any:
        return manager.restore(step, args=ocp.args.StandardRestore(like))

    return save, restore


def with_torch(folder: Path) -> Saver:
    import torch

    def save(step: int, tree: Any) -> Callable[[], None]:
        tensors = jax.tree.map(lambda x: torch.from_numpy(np.array(x)), tree)
        torch.save(tensors, folder / f"{step}.pt")
        (folder / f"{step - 2}.pt").unlink(missing_ok=True)
        return lambda: None

    def restore(step: int, like: Any) -> Any:
        tensors = torch.load(folder / f"{step}.pt", weights_only=True)
        return jax.tree.map(lambda x, old: jax.device_put(x.numpy(), old.sharding), tensors, like)

    return save, restore


if __name__ == "__main__":
    tyro.cli(main)
