"""A stream that does not fit: reading alone, computing alone, and both together, which should cost the slower one.

    python experiments/benchmarks/stream.py --output experiments/benchmarks/results/stream.json

Images are read from a file of 3 GB that is mapped into memory, and brought from bytes to floats; a convolutional
network trains on them. Each of the three goes in a process of its own, which also reports its peak memory.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

SHAPE = (32, 32, 3)
BATCH, STEPS = 256, 4000  # 256 * 3072 bytes * 4000 = 3.1 GB


def main(output: Path | None = None, part: Literal["read", "compute", "both"] | None = None, file: str = "") -> None:
    """Prints seconds and peak memory of the three, and writes them as JSON where `output` is given."""
    if part is not None:
        print(json.dumps(measure(part, file)))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "images.bin")
        write(file)
        results = {name: run(name, file) for name in ("read", "compute", "both")}
    slower = max(results[name]["seconds"] for name in ("read", "compute"))
    results["both"]["over_the_slower"] = round(results["both"]["seconds"] / slower, 3)
    for name, result in results.items():
        print(name, result)
    if output is not None:
        about = {"cpus": os.cpu_count(), "gigabytes": BATCH * STEPS * int(np.prod(SHAPE)) / 1e9}
        output.write_text(json.dumps({**about, **results}, indent=1) + "\n")


def write(file: str) -> None:
    """Random bytes, the same few megabytes again and again."""
    block = np.random.default_rng(0).integers(0, 256, (BATCH, *SHAPE), np.uint8).tobytes()
    with Path(file).open("wb") as out:
        for _ in range(STEPS):
            out.write(block)


def run(part: str, file: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--part", part, "--file", file]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])


def measure(part: str, file: str) -> dict[str, float]:
    """Seconds of the training (or of the reading) without imports and compiling, and the peak memory in MiB."""
    seconds = read_all(file) if part == "read" else train(file, constant=part == "compute")
    peak = int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1024
    return {"seconds": round(seconds, 2), "peak_mib": round(peak)}


def batch_at(images: np.ndarray, step: int) -> dict[str, np.ndarray]:
    x = images[step * BATCH : (step + 1) * BATCH]
    return {"x": x.astype(np.float32) / np.float32(255), "y": x[:, 0, 0, 0].astype(np.int32) % 10}


def read_all(file: str) -> float:
    started = time.perf_counter()
    for step in range(STEPS):
        batch_at(opened(file), step)
    return time.perf_counter() - started


def opened(file: str) -> np.ndarray:
    """Mapped anew for each batch: the pages of a mapping count as resident as long as it lives."""
    return np.memmap(file, np.uint8, "r", shape=(BATCH * STEPS, *SHAPE))


def train(file: str, constant: bool) -> float:
    import jax
    import optax

    import fdl
    from fdl import nn

    first = batch_at(opened(file), 0)
    stream = fdl.data.Stream(lambda step: first if constant else batch_at(opened(file), step))
    model = nn.Serial(nn.AvgPool(4), nn.Conv(3, 8, 3), jax.nn.relu, nn.GlobalAvgPool(), nn.Linear(8, 10))
    task = fdl.supervised(model, fdl.losses.softmax_cross_entropy)
    result = fdl.run(fdl.Experiment(task, optax.sgd(0.01), stream, num_steps=STEPS))
    return result.info["seconds_train"]


if __name__ == "__main__":
    tyro.cli(main)
