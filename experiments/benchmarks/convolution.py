"""Convolution on this machine: fdl's and XLA's own, outside and inside a compiled loop.

    python experiments/benchmarks/convolution.py --output experiments/benchmarks/results/convolution.json

For each case the value of a convolution is computed, and the value with both of its gradients: as a program of its own
("outside"), and as the body of a `fori_loop`, as evaluation and training have it ("loop"). The variants take turns, and
each time is the median of its repeats; compiling is timed apart. On CPU the gradients of XLA's own convolution lose
their fast path inside loops, so that they are measured once; elsewhere fdl uses it, and the columns agree.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import tyro
from jax import lax

from fdl import ops


class Case(NamedTuple):
    """Shapes and options of a convolution; `transposed` is its transpose."""

    x: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: int = 1
    dilation: int = 1
    groups: int = 1
    transposed: bool = False


CASES = {
    "16 to 16, 3x3": Case((32, 28, 28, 16), (3, 3, 16, 16)),
    "1 to 32, 3x3 (gray)": Case((128, 28, 28, 1), (3, 3, 1, 32)),
    "32 to 64, 3x3": Case((128, 14, 14, 32), (3, 3, 32, 64)),
    "stride 2": Case((128, 28, 28, 32), (3, 3, 32, 64), stride=2),
    "dilation 2": Case((32, 28, 28, 32), (3, 3, 32, 32), dilation=2),
    "8 groups": Case((32, 28, 28, 64), (3, 3, 8, 64), groups=8),
    "depthwise": Case((32, 28, 28, 64), (3, 3, 1, 64), groups=64),
    "1-D, 5": Case((32, 512, 16), (5, 16, 32)),
    "3-D, 3x3x3": Case((4, 16, 16, 16, 8), (3, 3, 3, 8, 16)),
    "transposed, stride 2": Case((32, 14, 14, 32), (3, 3, 32, 16), stride=2, transposed=True),
}
LOOP = 5  # turns of the loop: the time is that of one
BOTH = {"fdl": None, "xla": "native"}  # implementations


def main(repeats: int = 7, output: Path | None = None) -> None:
    """Prints the table, and writes it as JSON where `output` is given."""
    rows = []
    for name, case in CASES.items():
        times = measure(case, repeats)
        if not rows:
            print(f"{'milliseconds':24}" + "".join(f"{column:>22}" for column in times))
        rows.append({"case": name, **case._asdict(), "milliseconds": times})
        print(f"{name:24}" + "".join(f"{ms:22.2f}" for ms in times.values()), flush=True)
    if output is not None:
        about = {"jax": jax.__version__, "backend": jax.default_backend(), "machine": platform.machine()}
        output.write_text(json.dumps({**about, "cpus": os.cpu_count(), "rows": rows}, indent=1) + "\n")


def measure(case: Case, repeats: int) -> dict[str, float]:
    """Milliseconds by variant: of a value, and of a value and both gradients."""
    x, kernel = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate((case.x, case.kernel)))
    programs = {}
    for name, implementation in BOTH.items():
        function = partial(convolve, case, implementation)
        for kind, step in (("value", partial(value, function)), ("gradients", partial(gradients, function))):
            programs[f"{name} {kind} outside"] = (jax.jit(step).lower(x, kernel).compile(), 1)
            programs[f"{name} {kind} loop"] = (jax.jit(partial(loop, step)).lower(x, kernel).compile(), LOOP)
    return taking_turns(programs, (x, kernel), repeats, once=("xla gradients loop",))


def taking_turns(
    programs: dict[str, tuple[Callable[..., Any], int]], arguments: Any, repeats: int, once: tuple[str, ...] = ()
) -> dict[str, float]:
    """Medians of milliseconds by name, of programs that make so many steps each; those of `once` run but once."""
    if repeats < 1:
        raise SystemExit(f"--repeats: expected at least 1, got {repeats}")
    taken: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(repeats + 1):  # the first warms up
        for name, (program, steps) in programs.items():
            if name in once and turn > 1:
                continue
            started = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            if turn:
                taken[name].append((time.perf_counter() - started) / steps * 1e3)
    return {name: round(statistics.median(times), 3) for name, times in taken.items()}


def convolve(case: Case, implementation: str | None, x: jax.Array, kernel: jax.Array) -> jax.Array:
    function = ops.conv_transpose if case.transposed else ops.conv
    return function(x, kernel, case.stride, "SAME", case.dilation, case.groups, implementation)


def value(function: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array) -> Any:
    """With two numbers of it in the place of gradients, for the next turn of a loop to wait for."""
    y = function(x, kernel)
    return y, (y.ravel()[0], y.ravel()[-1])


def gradients(function: Callable[..., jax.Array], x: jax.Array, kernel: jax.Array) -> Any:
    """The loss sum(y^2) / 2, whose gradient with respect to y is y itself, and its two gradients."""
    return jax.value_and_grad(lambda x, kernel: jnp.square(function(x, kernel)).sum() / 2, (0, 1))(x, kernel)


def loop(step: Callable[..., Any], x: jax.Array, kernel: jax.Array) -> Any:
    """`step` again and again, each turn on what the last one gave."""

    def body(_: Any, carry: Any) -> Any:
        x, kernel = carry
        _, (dx, dkernel) = step(x, kernel)
        return x - 1e-9 * dx, kernel - 1e-9 * dkernel

    return lax.fori_loop(0, LOOP, body, (x, kernel))


if __name__ == "__main__":
    tyro.cli(main)
