"""Training many small networks: `fdl.sweep` against vmap by hand, solo runs, step loops and PyTorch.

    python experiments/benchmarks/sweeps.py --output experiments/benchmarks/results/sweeps.json

1 to 256 members, each with a seed of its own: an MLP 64-32-10, a CNN of two 3x3 convolutions with 16 and 32 channels
(both on the digits, 8 x 8) and an LSTM with 32 units (the digits enlarged to 28 rows of 28), Adam, batches of 64. Then
the 64 members of `fdl sweep experiments/digits.py --over learning_rate=log:1e-4..1e-1:8 --seeds 8` against 64 solo runs
through one warm executable, and the floating-point operations of both as a share of the machine's matmul rate.

The first call of each variant, which compiles, stands apart. Then the variants take turns, and a time is the median of
its turns. Processes: fdl.sweep with one device for each core; all else in JAX with one device, which may use all cores;
PyTorch with as many threads as cores, and waiting threads asleep (spinning, the default, is far slower as soon as
anything else runs; set OMP_WAIT_POLICY to have it). Where members go one after another, four are timed, and the time
of other numbers is in proportion (~). Turns in which other processes or the host took more than a tenth of a core are
counted as disturbed (!). Losses of the first ten steps must agree between all variants, or the command fails. All is
done on a CPU; with JAX_PLATFORMS=cuda,cpu JAX uses a GPU.
"""

from __future__ import annotations

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import tyro

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # `python experiments/benchmarks/sweeps.py` from anywhere

from experiments.benchmarks.record import machine, significant, write  # noqa: E402

STEPS = {"mlp": 500, "cnn": 25, "lstm": 12}
SHORTEST = 0.2  # seconds of a sample: shorter trainings are repeated
TOLERANCE = 1e-3  # relative, between losses of float32 programs that add in different orders
# Multiplications and additions of the products of experiments/digits.py for an image in training: twice forward for
# each but the first convolution, whose input needs no gradient, and once.
DIGITS_FLOPS = 2 * (2 * 64 * 9 * 32 + 3 * (16 * 9 * 32 * 64 + 2 * 2 * 64 * 10))
DIGITS_IMAGES = 22 * 64  # of an epoch


class Variant(NamedTuple):
    """A way to train many members: in which process, how many are timed, and for which workload alone.

    `number` is None where members train side by side: then each number of them is timed.
    """

    name: str
    process: str
    number: int | None = None
    only: str | None = None


OURS = "fdl.sweep"
VARIANTS = (
    Variant(OURS, "devices"),
    Variant("vmap by hand", "plain"),
    Variant("vmap by hand, XLA's convolution", "plain", 4, "cnn"),  # too slow for more
    Variant("fdl, solo runs", "plain", 4),
    Variant("scan by hand, solo runs", "plain", 4),
    Variant("jitted step loop", "plain", 4),
    Variant("torch.func vmap", "torch"),
    Variant("torch, one by one", "torch", 4),
)


def main(
    mlp: tuple[int, ...] = (1, 4, 16, 64, 256),
    cnn: tuple[int, ...] = (1, 4, 16, 64),
    lstm: tuple[int, ...] = (1, 4, 16, 64),
    num_epochs: int = 4,
    repeats: int = 3,
    torch: bool = True,
    quick: bool = False,
    output: Path | None = None,
) -> None:
    """Prints the tables, and writes them as JSON where `output` is given.

    Args:
      mlp, cnn, lstm: numbers of members.
      num_epochs: of the 64 digits members; the time is in proportion, the ratio is not affected. 0 leaves them out.
      repeats: turns of every variant.
      torch: whether to measure PyTorch, on the CPU, as well.
      quick: a few steps of 1 and 4 members, once, to see that everything works; the times mean nothing.
      output: a JSON file.
    """
    started, about = time.perf_counter(), machine()
    counts, steps, sweep = {"mlp": mlp, "cnn": cnn, "lstm": lstm}, STEPS, 64
    if quick:
        counts = {name: (1, 4) for name, members in counts.items() if members}
        steps, sweep, num_epochs, repeats = dict.fromkeys(STEPS, 5), 4, min(num_epochs, 1), 1
    with Processes(quick, torch) as processes:
        rows = []
        for name, members in counts.items():
            table = Measurements(processes, name, steps[name], repeats)
            rows += [row for count in members for row in table.rows(count)]
            if members:
                show(name, steps[name], [row for row in rows if row["workload"] == name])
        sums = [measure_digits(processes, sweep, num_epochs, repeats)] if num_epochs else []
    about |= {"load_after": os.getloadavg(), "repeats": repeats, "steps": steps} | ({"digits": sums[0]} if sums else {})
    about["minutes"] = round((time.perf_counter() - started) / 60, 1)
    print(f"load {about['load_before'][0]:.1f} before, {about['load_after'][0]:.1f} after, {about['minutes']} minutes")
    if output is not None:
        write(output, about, rows=rows)
    off = max((row["loss_differs"] for row in [*rows, *sums]), default=0.0)
    if not off < TOLERANCE:
        raise SystemExit(f"the losses of two variants differ by {off:.1e} of their size: they train different things")


class Processes:
    """A worker for each kind of variant, started when it is first asked."""

    def __init__(self, quick: bool, torch: bool) -> None:
        self.quick, self.torch = quick, torch

    def __enter__(self) -> Processes:
        self.cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.running: dict[str, subprocess.Popen[str]] = {}
        if self.torch and importlib.util.find_spec("torch") is None:
            self.torch = False
            print("torch is not installed: its variants are skipped (pip install -e '.[parity]')")
        return self

    def __exit__(self, *error: Any) -> None:
        for process in self.running.values():
            process.communicate()  # closes its input, at the end of which it stops

    def ask(self, kind: str, **request: Any) -> dict[str, Any]:
        """The first answer to a request tells of compiling and losses; each further one is a sample."""
        if kind not in self.running:
            self.running[kind] = self._start(kind)
        process = self.running[kind]
        requests: Any = process.stdin  # pipes, both of them
        answers: Any = process.stdout
        requests.write(json.dumps(request) + "\n")
        requests.flush()
        answer = answers.readline()
        if not answer:
            raise SystemExit(f"the process {kind!r} has failed at {request}: see above")
        return json.loads(answer)

    def _start(self, kind: str) -> subprocess.Popen[str]:
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        extra = {"PYTHONPATH": path, "JAX_PLATFORMS": os.environ.get("JAX_PLATFORMS", "cpu")}
        if self.quick:  # programs that need not be fast are compiled three times as fast
            extra |= {"XLA_FLAGS": "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"}
        if kind == "torch":
            extra |= {"OMP_NUM_THREADS": str(self.cores)}
            extra |= {"OMP_WAIT_POLICY": os.environ.get("OMP_WAIT_POLICY", "passive")}
        command = [sys.executable, "-m", "experiments.benchmarks.sweep_variants", kind, str(self.cores)]
        command += ["0" if self.quick else str(SHORTEST)]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, env=os.environ | extra, text=True, stdin=pipe, stdout=pipe)


class Measurements:
    """What was measured of a workload, by variant and number of members."""

    def __init__(self, processes: Processes, workload: str, steps: int, repeats: int) -> None:
        self.processes, self.workload, self.steps, self.repeats = processes, workload, steps, repeats
        self.firsts: dict[tuple[str, int], dict[str, Any]] = {}
        self.samples: dict[tuple[str, int], list[dict[str, Any]]] = {}

    def rows(self, members: int) -> list[dict[str, Any]]:
        """Every variant with so many members."""
        chosen = [v for v in VARIANTS if v.only in (None, self.workload)]
        chosen = [v for v in chosen if v.process != "torch" or self.processes.torch]
        self._measure([v for v in chosen if (v.name, v.number or members) not in self.samples], members)
        ours = self.row(chosen[0], members)
        rows = [ours, *(self.row(variant, members) for variant in chosen[1:])]
        return [{**row, "ratio": significant(row["seconds"] / ours["seconds"])} for row in rows]

    def _measure(self, new: list[Variant], members: int) -> None:
        # Compiling is timed as well, and so not done side by side, but where times mean nothing.
        groups = [new]
        if self.processes.quick:
            groups = [[v for v in new if v.process == kind] for kind in {v.process for v in new}]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda variants: [self.take(v, v.number or members, 0) for v in variants], groups))
        for turn in range(1, self.repeats + 1):
            for variant in new:
                self.take(variant, variant.number or members, turn)

    def take(self, variant: Variant, members: int, turn: int) -> None:
        request = {"variant": variant.name, "workload": self.workload, "members": members, "steps": self.steps}
        answer, key = self.processes.ask(variant.process, **request), (variant.name, members)
        if turn:
            self.samples.setdefault(key, []).append(answer)
        else:
            self.firsts[key] = answer

    def row(self, variant: Variant, members: int) -> dict[str, Any]:
        measured = variant.number or members
        first, samples = self.firsts[variant.name, measured], self.samples[variant.name, measured]
        seconds, cpu = (statistics.median(each[name] for each in samples) for name in ("seconds", "cpu"))
        return {
            "workload": self.workload,
            "variant": variant.name,
            "members": members,
            "measured": measured,
            "seconds": significant(seconds * members / measured),
            "cpu_seconds": significant(cpu * members / measured),
            "first_call_seconds": significant(first["first"]),
            "disturbed": sum(each["disturbed"] for each in samples),
            "loss_differs": (off := differs(first["losses"], self.firsts[OURS, members]["losses"])),
            "agrees": off < TOLERANCE,
        }


def measure_digits(processes: Processes, members: int, num_epochs: int, repeats: int) -> dict[str, Any]:
    """The sweep of experiments/digits.py and solo runs of a few of its members, taking turns; prints both."""
    table = Measurements(processes, "digits", num_epochs, repeats)
    ours, solo = VARIANTS[0], next(v for v in VARIANTS if v.name == "fdl, solo runs")._replace(number=members)
    matmul = []
    for turn in range(repeats + 1):
        for variant in (ours, solo):
            table.take(variant, members, turn)
        matmul.append(processes.ask("plain", variant="matmul"))
    alone = len(table.firsts[solo.name, members]["losses"])
    rate = 2 * 1024**3 * 10 / 1e9 / statistics.median(each["seconds"] for each in matmul[1:])
    sums = {"members": members, "num_epochs": num_epochs, "solo_runs_measured": alone}
    sums |= digits_figures(table.row(ours, members), table.row(solo, members), sums, rate)
    show_digits(sums)
    return sums


def digits_figures(sweep: dict[str, Any], solo: dict[str, Any], sums: dict[str, Any], rate: float) -> dict[str, Any]:
    """Times, and billions of operations a second beside those of a matrix product."""
    more = sums["members"] / sums["solo_runs_measured"]
    runs, work = solo["seconds"] * more, sums["members"] * sums["num_epochs"] * DIGITS_IMAGES * DIGITS_FLOPS / 1e9
    return {
        "sweep_seconds": sweep["seconds"],
        "sweep_cpu_seconds": sweep["cpu_seconds"],
        "solo_seconds": significant(runs),
        "solo_cpu_seconds": significant(solo["cpu_seconds"] * more),
        "ratio": significant(runs / sweep["seconds"]),
        "disturbed": sweep["disturbed"] + solo["disturbed"],
        "first_call_seconds": sweep["first_call_seconds"],
        "matmul_gflops_per_second": significant(rate),
        "sweep_gflops_per_second": significant(work / sweep["seconds"]),
        "solo_gflops_per_second": significant(work / runs),
        "loss_differs": solo["loss_differs"],
    }


def differs(losses: dict[str, list[float]], ours: dict[str, list[float]]) -> float:
    """The largest relative difference of a loss, of the first four members that both have."""
    both = [number for number in losses if number in ours][:4]
    pairs = [pair for number in both for pair in zip(losses[number], ours[number], strict=True)]
    return float(f"{max(abs(a - b) / abs(b) for a, b in pairs):.1e}")


def show(name: str, steps: int, rows: list[dict[str, Any]]) -> None:
    counts = sorted({row["members"] for row in rows})
    title = f"{name}, {steps} steps: seconds (times {OURS})"
    print(f"\n{title:48}" + "".join(f"{count:>18}" for count in counts) + f"{'first call':>14}")
    for variant in dict.fromkeys(row["variant"] for row in rows):
        mine = {row["members"]: row for row in rows if row["variant"] == variant}
        cells = "".join(f"{cell(mine[count]):>18}" for count in counts)
        print(f"{variant:48}{cells}{mine[counts[-1]]['first_call_seconds']:>14.1f}", flush=True)
    print("~ in proportion to 4 members; ! at least one turn disturbed")


def cell(row: dict[str, Any]) -> str:
    marks = "~" * (row["measured"] != row["members"]) + "!" * (row["disturbed"] > 0)
    return f"{marks}{row['seconds']:.3g} ({row['ratio']:.3g})"


def show_digits(sums: dict[str, Any]) -> None:
    rate = sums["matmul_gflops_per_second"]
    print(f"\nexperiments/digits.py, {sums['members']} members, {sums['num_epochs']} epochs; matmul {rate:.3g} GFLOP/s")
    solo = f"solo runs, warm ({sums['solo_runs_measured']} measured)"
    for name, part in ((f"{OURS} (first call {sums['first_call_seconds']:.1f} s)", "sweep"), (solo, "solo")):
        seconds, cpu, speed = (sums[f"{part}_{unit}"] for unit in ("seconds", "cpu_seconds", "gflops_per_second"))
        print(f"{name:40}{seconds:8.2f} s {cpu:8.2f} s of cores {speed:8.1f} GFLOP/s, {speed / rate:.0%} of matmul")
    disturbed = f", {sums['disturbed']} turns disturbed" if sums["disturbed"] else ""
    print(f"the sweep is {sums['ratio']:.2f} times as fast{disturbed}")


if __name__ == "__main__":
    tyro.cli(main)
