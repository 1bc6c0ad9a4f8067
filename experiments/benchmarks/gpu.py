"""What `peers.py` does about a GPU: whether there is one, how its processes reach it, and what its best rate is.

`python -m experiments.benchmarks.gpu` prints, as JSON, the card's name and the rate of its bfloat16 products.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from types import ModuleType
from typing import Any

from experiments.benchmarks.record import significant

SIZE, TIMES, REPEATS = 8192, 50, 5  # of the matrices; products in a program; how often it is run


def present() -> bool:
    """Whether there is an NVIDIA GPU; without JAX, which only the processes import."""
    try:
        found = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return found.returncode == 0 and "GPU" in found.stdout


def environment() -> dict[str, str]:
    """What the environment of a process on a CPU is changed by: one card, the first unless the user says which."""
    return {"JAX_PLATFORMS": "cuda,cpu", "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0")}


def rates(workload: ModuleType, sizes: dict[str, Any], seconds: float, card: dict[str, Any] | None) -> dict[str, Any]:
    """Tokens or images a second of a run, and the share of the card's measured rate, where there is a card."""
    found = {f"{workload.UNIT}_per_second": significant(workload.units(sizes) / seconds)}
    return found if card is None else found | {"share": significant(workload.flops(sizes) / seconds / card["flops"])}


def show(unit: str, rows: list[dict[str, Any]]) -> None:
    """The rates of a workload, fastest first."""
    for row in sorted(rows, key=lambda row: row["steady"]):
        share = f"{100 * row['share']:8.1f} % of the card's products" if "share" in row else ""
        memory = f"{row['peak_gpu_mib']:>10} MiB of its memory" if "peak_gpu_mib" in row else ""
        print(f"{row['variant']:24}{row[f'{unit}_per_second']:12,.0f} {unit}/s{share}{memory}", flush=True)


def peak_mib() -> int | None:
    """The most memory of the GPU that the imported libraries have held; None without one."""
    peak = 0
    if (jax := sys.modules.get("jax")) and jax.default_backend() == "gpu":
        peak += jax.local_devices()[0].memory_stats()["peak_bytes_in_use"]
    if (torch := sys.modules.get("torch")) and torch.cuda.is_initialized():
        peak += torch.cuda.max_memory_allocated()
    return round(peak / 2**20) or None


def measure(size: int = SIZE, times: int = TIMES) -> dict[str, Any]:
    """The device's name, and operations a second of the product of bfloat16 matrices: the best of a few programs."""
    import jax
    import jax.numpy as jnp

    a, b = (jax.random.normal(jax.random.key(i), (size, size), jnp.bfloat16) for i in range(2))
    b = b * size**-0.5  # the products are then as large as a, on the average

    @jax.jit
    def products(a: Any, b: Any) -> Any:
        return jax.lax.fori_loop(0, times, lambda _, x: x @ b, a)

    def seconds() -> float:
        started = time.perf_counter()
        products(a, b).block_until_ready()
        return time.perf_counter() - started

    seconds()
    best = min(seconds() for _ in range(REPEATS))
    return {"name": jax.devices()[0].device_kind, "flops": significant(2 * size**3 * times / best)}


if __name__ == "__main__":
    import jax

    if jax.default_backend() != "gpu":
        raise SystemExit("JAX does not see the GPU: pip install 'jax[cuda]'")
    print(json.dumps(measure()))
