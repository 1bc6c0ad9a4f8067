"""One variant of one workload in a process of its own: `python -m experiments.benchmarks.peer_worker VARIANT JOB`.

It prints a line of JSON with what it measured. The libraries are imported first and one by one, so that the time of
each is known; nothing at the top of this file, or of what it imports, imports any of them.
"""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

SHORTEST, MOST = 1.0, 9  # a run is repeated until so many seconds have passed, at most so often


class Variant(NamedTuple):
    """A way to do the work: the function of that name in the workload's file, and the libraries it imports."""

    name: str
    function: str
    libraries: tuple[str, ...]
    options: dict[str, Any] = {}  # noqa: RUF012


LIMIT, OURS = "JAX by hand", "fdl"
VARIANTS = (
    Variant(OURS, "ours", ("jax", "optax", "fdl")),
    Variant(LIMIT, "limit", ("jax",)),
    Variant("JAX step loop", "step_loop", ("jax", "optax")),
    Variant("Flax Linen", "linen", ("jax", "optax", "flax.linen")),
    Variant("Flax NNX", "nnx", ("jax", "optax", "flax.nnx")),
    Variant("Equinox", "equinox", ("jax", "optax", "equinox")),
    Variant("Haiku", "haiku", ("jax", "optax", "haiku")),
    Variant("Keras", "keras", ("keras",)),
    Variant("PyTorch", "torch", ("torch",)),
    Variant("PyTorch channels-last", "torch_channels_last", ("torch",)),
    Variant("torch.compile", "torch", ("torch",), {"compile": True}),
    Variant("NumPy", "numpy", ("numpy",)),
)


def main(name: str, folder: str) -> None:
    variant = next(each for each in VARIANTS if each.name == name)
    started, imports = time.perf_counter(), {}
    for library in variant.libraries:
        before = time.perf_counter()
        load(library)
        imports[library] = time.perf_counter() - before
    from experiments.benchmarks import gpu
    from experiments.benchmarks.job import Job

    job = Job.load(Path(folder))
    load_time = time.perf_counter() - started - sum(imports.values())
    answer = {"imports": imports, "load": load_time, **measure(variant, job), "peak_mib": peak_mib()}
    if job.sizes.get("device") == "gpu":
        answer["peak_gpu_mib"] = gpu.peak_mib()
    print("\n" + json.dumps(answer, allow_nan=True))


def measure(variant: Variant, job: Any) -> dict[str, Any]:
    """Gets the work ready, and does it again and again."""
    from experiments.benchmarks.load import Watch

    started = time.perf_counter()
    train = getattr(workload(job.sizes["workload"]), variant.function)(job, **variant.options)
    ready = time.perf_counter() - started
    samples, results, total = [], [], 0.0
    while not samples or (total < SHORTEST and len(samples) < MOST):
        watch = Watch()
        results.append(train())
        samples.append(watch.read())
        total += samples[-1][0]
    return {
        "ready": ready,
        "seconds": [seconds for seconds, _ in samples],
        "disturbed": [disturbed for _, disturbed in samples],
        "after_first_run": total - samples[0][0],
        "losses": [float(value) for value in results[0]],
        "repeats": bool(abs(results[0][-1] - results[-1][-1]) <= 1e-2 * abs(results[0][-1])),
    }


def workload(name: str) -> Any:
    return importlib.import_module(f"experiments.benchmarks.workloads.{name}")


def load(library: str) -> None:
    """Imports it, and of fdl, which imports its parts at first use, all that a training run uses."""
    importlib.import_module(library)
    if library == "fdl":
        for part in ("nn", "ops", "data", "losses", "models", "training.run"):
            importlib.import_module(f"fdl.{part}")


def peak_mib() -> int:
    """The most memory this process has held: `ru_maxrss` would begin with that of its parent."""
    found = re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())
    return math.ceil(int(found[1]) / 1024) if found else 0


if __name__ == "__main__":
    main(*sys.argv[1:])
