"""Saving and restoring 256 MiB: how long training waits, how long until it is on the disk, how long until it is back.

    python experiments/benchmarks/checkpoints.py --output experiments/benchmarks/results/checkpoints.json

Beside fdl are Orbax, which writes in the background as well, and `torch.save`, which does not; those that are not
installed are left out. What they promise differs: fdl has SHA-256 of every byte, reads back what it wrote before it
deletes an older checkpoint, and waits for the disk (fsync); `torch.save` waits for nothing, and keeps one file. Each
goes in a process of its own; the medians and the ranges of some saves after a first one are shown.
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

ARRAYS, SIZE, REPEATS = 8, 2**23, 5  # 8 arrays of 32 MiB each
PEERS = {"fdl": "fdl", "orbax": "orbax.checkpoint", "torch": "torch"}
Peer = Literal["fdl", "orbax", "torch"]
Saver = tuple[Callable[[int, Any], Callable[[], None]], Callable[[int, Any], Any]]
"""`save(step, tree)`, which returns when training may go on, and gives a function that waits until all is written;
`restore(step, like)` -> tree on the device."""


def main(output: Path | None = None, peer: Peer | None = None) -> None:
    """Prints the milliseconds of each, and writes them as JSON where `output` is given."""
    if peer is not None:
        print(json.dumps(measure(peer)))
        return
    load = round(os.getloadavg()[0], 1)  # what else is running: it is what these figures depend on most
    results: dict[str, Any] = {"cpus": os.cpu_count(), "load": load, "mebibytes": ARRAYS * SIZE * 4 / 2**20}
    for name, module in PEERS.items():
        if importlib.util.find_spec(module.partition(".")[0]) is not None:
            command = [sys.executable, __file__, "--peer", name]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            results[name] = json.loads(done.stdout.splitlines()[-1])
            print(name, results[name])
    if output is not None:
        output.write_text(json.dumps(results, indent=1) + "\n")


def measure(peer: Peer) -> dict[str, Any]:
    """Milliseconds: until training goes on, until everything is written, of restoring; each as median and range."""
    folder = tempfile.mkdtemp(dir=".")  # a real disk: /tmp may be memory
    try:
        save, restore = {"fdl": with_fdl, "orbax": with_orbax, "torch": with_torch}[peer](Path(folder).resolve())
        times: dict[str, list[float]] = {"blocking": [], "written": [], "restored": []}
        noise = np.random.default_rng(0).random(SIZE, np.float32)  # which cannot be compressed, as weights cannot
        for step in range(1, REPEATS + 2):
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
    return {name: spread(values[1:]) for name, values in times.items()}


def spread(seconds: list[float]) -> dict[str, float]:
    values = {"median": statistics.median(seconds), "least": min(seconds), "most": max(seconds)}
    return {f"{name}_ms": round(1e3 * value, 1) for name, value in values.items()}


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
