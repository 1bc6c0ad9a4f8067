"""What a benchmark ran on, the machine's own measure, and how its results are written."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "jaxlib", "optax", "flax", "equinox", "dm-haiku", "keras", "orbax-checkpoint", "torch", "numpy")


def machine() -> dict[str, Any]:
    """Date, processor, versions and load."""
    found = {name: importlib.metadata.version(name) for name in PACKAGES if _installed(name)}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    model = next(iter(_cpu_models()), platform.processor() or platform.machine())
    head = {"date": time.strftime("%Y-%m-%d"), "python": platform.python_version(), "cpu": model, "cores": cores}
    return head | {"versions": found, "load_before": [round(load, 2) for load in os.getloadavg()]}


def _cpu_models() -> Iterator[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return
    yield from (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))


def _installed(name: str) -> bool:
    try:
        importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def matmul_rate(size: int = 2048, times: int = 5) -> float:
    """Billions of operations a second of NumPy's matrix product: the machine's own measure."""
    import numpy as np

    a = np.random.default_rng(0).standard_normal((size, size), np.float32)
    best = min(_seconds(lambda: a @ a) for _ in range(times))
    return significant(2 * size**3 / best / 1e9)


def _seconds(call: Any) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def significant(value: float) -> float:
    """Three digits."""
    return float(f"{value:.3g}")


def write(output: Path, about: Mapping[str, Any], **lists: Sequence[Mapping[str, Any]]) -> None:
    """JSON with a line for each fact, and for each row of the lists."""
    parts = [f' "{key}": {json.dumps(value)}' for key, value in about.items()]
    for name, rows in lists.items():
        parts.append(f' "{name}": [\n' + ",\n".join("  " + json.dumps(row) for row in rows) + "\n ]")
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text("{\n" + ",\n".join(parts) + "\n}\n")
