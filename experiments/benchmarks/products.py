"""The product of a layer on this machine: `fdl.ops.linear` and plain `x @ kernel`, with both gradients, in a loop.

    python experiments/benchmarks/products.py --output experiments/benchmarks/results/products.json

The variants take turns; each time is the median of its repeats, in milliseconds, and that of one turn of the loop.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # `python experiments/benchmarks/products.py` from anywhere

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import tyro  # noqa: E402

from experiments.benchmarks.convolution import LOOP, gradients, loop, taking_turns  # noqa: E402
from fdl import ops  # noqa: E402

CASES = {  # x, kernel
    "dense, 784 to 512": ((128, 784), (784, 512)),
    "classifier, 512 to 10": ((128, 512), (512, 10)),
    "GCN on Cora": ((2708, 1433), (1433, 16)),
    "LSTM's input": ((32, 64, 256), (256, 1024)),
    "transformer, 128 to 512": ((12, 64, 128), (128, 512)),
    "transformer, 512 to 128": ((12, 64, 512), (512, 128)),
    "logits, 256 to 96": ((32, 64, 256), (256, 96)),
    "64 members, 64 to 32": ((64, 64, 64), (64, 64, 32)),
}
VARIANTS = {"fdl": ops.linear, "plain": jnp.matmul}


def main(repeats: int = 7, output: Path | None = None) -> None:
    """Prints the table, and writes it as JSON where `output` is given."""
    print(f"{'milliseconds':26}" + "".join(f"{name:>10}" for name in VARIANTS))
    rows = []
    for name, (x, kernel) in CASES.items():
        times = measure(x, kernel, repeats)
        rows.append({"case": name, "x": list(x), "kernel": list(kernel), "milliseconds": times})
        print(f"{name:26}" + "".join(f"{ms:10.3f}" for ms in times.values()), flush=True)
    if output is not None:
        about = {"jax": jax.__version__, "backend": jax.default_backend(), "machine": platform.machine()}
        lines = ",\n".join("  " + json.dumps(row) for row in rows)
        head = json.dumps({**about, "cpus": os.cpu_count()})[:-1]
        output.write_text(f'{head},\n "rows": [\n{lines}\n ]}}\n')


def measure(x: tuple[int, ...], kernel: tuple[int, ...], repeats: int) -> dict[str, float]:
    """Milliseconds by variant. A kernel with three axes is one for each member of a `vmap`."""
    arrays = [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate((x, kernel))]
    programs = {}
    for name, function in VARIANTS.items():
        lifted = jax.vmap(function) if len(kernel) == 3 else function
        programs[name] = (jax.jit(partial(loop, partial(gradients, lifted))).lower(*arrays).compile(), LOOP)
    return taking_turns(programs, arrays, repeats)


if __name__ == "__main__":
    tyro.cli(main)
