"""fdl beside JAX by hand, PyTorch, Keras, Flax, Equinox, Haiku and NumPy: speed and cost of the same work.

    pip install -e '.[benchmarks]' && pip install -r experiments/benchmarks/requirements.txt
    python experiments/benchmarks/peers.py --output experiments/benchmarks/results/peers.json

Each file in `workloads` is a training run (or an evaluation, predictions, or a text to write), and its functions are
the same work in each library: the same architecture, initial values, batches in the same order, number of steps,
optimiser and dtype (float32). Their losses must agree, or the command fails. "JAX by hand" is the whole run as one
program, the fastest way known to us, and the measure of the others. All is done on a CPU, but for the workloads that
need a GPU; those compute in bfloat16, and say how much of the card's rate for products they reach.

Every sample is a process of its own, and the variants take turns (A B C A B C): it imports the libraries, compiles, and
does the whole work. Figures are medians over the turns; what takes longer than 12 seconds has one turn.

    steady      the work itself; repeated in the process until a second has passed
    import      of the libraries; of fdl with JAX, Optax and all parts that training uses
    first step  from there to where the first step is done, or its program compiled
    end to end  from the start of the process to the end of the first complete run
    peak        the most memory of the process (VmHWM)

Two parts have commands of their own, which take turns likewise: sweeps of many members (`sweeps.py`), and the cost of a
checkpoint beside Orbax and `torch.save` (`checkpoints.py`).

A sample during which other processes took more than a tenth of a core is disturbed; a median with such is marked (!).
Nothing is read from a compilation cache, but for the rows "with a warm compilation cache".
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # `python experiments/benchmarks/peers.py` from anywhere

import tyro  # noqa: E402

from experiments.benchmarks import gpu, job  # noqa: E402
from experiments.benchmarks.load import Watch  # noqa: E402
from experiments.benchmarks.peer_worker import LIMIT, OURS, VARIANTS, Variant, workload  # noqa: E402
from experiments.benchmarks.record import machine, matmul_rate, significant, write  # noqa: E402
from experiments.benchmarks.scaling import CURVES  # noqa: E402

WORKLOADS = ("overhead", "classic", "mlp", "cnn", "gpt", "lstm", "gcn", "evaluation", "prediction", "decoding")
GPU_WORKLOADS = ("gpt2", "resnet50")
CACHED = ("mlp", "cnn", "gpt")
PATIENCE = 5  # times `timeout`, for a part that starts all processes of its own, or compilers that try GPU kernels
TOLERANCE = 0.02  # relative, of the mean loss of the last epoch: hundreds of steps amplify another order of sums
LONG = 12.0  # seconds of a process, of which one is then enough: it is mostly compiling
SAME = 1e-3  # relative, of what the same initial values and the same batch give
SAME_HALF = 5e-3  # in bfloat16, where every operation rounds by up to 2^-9
SWEEP = ("sweeps.py", "--num-epochs", "0", "--cnn", "--lstm", "--mlp")
PARTS = {
    "sweep": (*SWEEP, "1", "8", "64", "256"),
    "gpu_sweep": (*SWEEP, "1", "64", "512", "4096", "--no-torch"),
    "checkpoint": ("checkpoints.py",),
}
Row = dict[str, Any]


@dataclass
class Options:
    workloads: tuple[str, ...] = WORKLOADS + GPU_WORKLOADS
    """Which of them, in this order; those for a GPU are left out where there is none, except in a smoke test."""
    variants: tuple[str, ...] = tuple(variant.name for variant in VARIANTS)
    """Which of them; JAX by hand, with which the others are compared, is always measured."""
    samples: int = 3
    """Processes of every variant."""
    timeout: float = 120.0
    """Seconds after which a process is stopped, and its variant left out; on a GPU five times as many."""
    cache: bool = True
    """Whether to measure the first step with a warm compilation cache as well."""
    scaling: bool = True
    """Whether to measure how the time grows with sizes."""
    sweep: bool = True
    """Whether to measure the training of 1 to 256 members, on a GPU up to 4096."""
    checkpoint: bool = True
    """Whether to measure saving and restoring."""
    smoke: bool = False
    """A few steps of small networks, once: that everything works; the times mean nothing."""
    output: Path | None = None
    """A JSON file, and beside it a picture."""

    def __post_init__(self) -> None:
        for name, known in (
            ("workloads", WORKLOADS + GPU_WORKLOADS),
            ("variants", tuple(variant.name for variant in VARIANTS)),
        ):
            unknown = sorted(set(getattr(self, name)) - set(known))
            if unknown:
                raise SystemExit(f"peers: there are no {name} {unknown}; choose from: {', '.join(known)}")
        if self.samples < 1 or self.timeout <= 0:
            raise SystemExit("peers: samples and timeout must be above 0")


@dataclass
class Results:
    """What was measured, written anew after every workload."""

    output: Path | None
    started: float = field(default_factory=time.perf_counter)
    rows: list[Row] = field(default_factory=list)
    skipped: list[Row] = field(default_factory=list)
    about: Row = field(default_factory=machine)

    def write(self) -> None:
        self.about |= {"minutes": round((time.perf_counter() - self.started) / 60, 1), "load_after": os.getloadavg()}
        if self.output is not None:
            write(self.output, self.about, skipped=self.skipped, rows=self.rows)


def main(options: Options) -> None:
    results = Results(options.output)
    results.about |= {"samples": options.samples, "smoke": options.smoke, "matmul_gflops": matmul_rate()}
    print(f"a product of float32 matrices of 2048 x 2048: {results.about['matmul_gflops']:.0f} GFLOP/s")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(options, Path(folder), results)
        for name in options.workloads:
            bench.attempt(name, bench.compare, name)
        for name in CACHED if options.cache else ():
            if name in options.workloads:
                bench.attempt(f"{name}, compilation cache", bench.cached, name)
        for axis, sizes in CURVES.items() if options.scaling and "mlp" in options.workloads else ():
            bench.attempt(f"mlp by {axis}", bench.scale, axis, sizes[:2] if options.smoke else sizes)
        for kind in PARTS:
            if getattr(options, kind.removeprefix("gpu_")):
                bench.attempt(kind, bench.part, kind, *PARTS[kind])
    print(f"\n{results.about['minutes']} minutes")
    if options.output is not None:
        from experiments.benchmarks.peers_picture import draw

        draw(options.output)
    wrong = [f"{row['workload']}: {row['variant']}" for row in results.rows if row.get("agrees") is False]
    if wrong:
        raise SystemExit("the losses do not agree, so that these do other work: " + "; ".join(wrong))


class Bench:
    """Runs the processes, and makes rows of what they say."""

    def __init__(self, options: Options, folder: Path, results: Results) -> None:
        self.options, self.folder, self.results = options, folder, results
        self.samples = 1 if options.smoke else options.samples

    def attempt(self, name: str, call: Callable[..., None], *arguments: Any) -> None:
        """A part of the measurement; where its data could not be made, that is noted, and the rest goes on."""
        try:
            call(*arguments)
        except Skipped as reason:
            self.results.skipped.append({"workload": name, "variant": "all", "reason": str(reason)})
            print(f"skipped: {name}: {reason}", flush=True)
        self.results.write()

    def compare(self, name: str) -> None:
        """All variants of a workload."""
        module = workload(name)
        card = self.card() if hasattr(module, "DEVICE") else None
        folder = self.prepare(name, {"device": module.DEVICE} if card else {})
        chosen = [v for v in VARIANTS if v.name in (*self.options.variants, LIMIT) and hasattr(module, v.function)]
        taken = self.take(name, chosen, folder, gpu.environment() if card else {})
        if LIMIT not in taken:
            return
        losses = {variant: samples[0] for variant, samples in taken.items()}
        rows = [{"kind": "workload", "workload": name, **row(variant, taken)} for variant in taken]
        work = job.Job.load(folder)
        rows = [r | agreement(losses[r["variant"]], losses[LIMIT], work) for r in rows]
        if hasattr(module, "UNIT"):
            rows = [r | gpu.rates(module, work.sizes, r["steady"], card) for r in rows]
        self.results.rows += rows
        show(module.__doc__ or "", rows)
        if hasattr(module, "UNIT"):
            gpu.show(module.UNIT, rows)

    def card(self) -> Row | None:
        """The GPU, with its rate, which is measured once; a smoke test does without."""
        if not gpu.present():
            if self.options.smoke:
                return None
            raise Skipped("no GPU")
        if "gpu" not in self.results.about:
            command = [sys.executable, "-m", "experiments.benchmarks.gpu"]
            done = bounded(command, environment() | gpu.environment(), self.options.timeout)
            if done.returncode:
                raise Skipped(last_line(done))
            self.results.about["gpu"] = json.loads(done.stdout.splitlines()[-1])
        return self.results.about["gpu"]

    def cached(self, name: str) -> None:
        """The first step with a compilation cache: what filled it, and what found it full."""
        folder = self.prepare(name, {})
        for variant in VARIANTS:
            if variant.name not in (OURS, LIMIT, "Equinox") or variant.name not in self.options.variants:
                continue
            with tempfile.TemporaryDirectory() as cache:
                extra = {"JAX_ENABLE_COMPILATION_CACHE": "true", "JAX_COMPILATION_CACHE_DIR": cache}
                extra |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
                cold = self.take(name, [variant], folder, extra, 1)
                warm = self.take(name, [variant], folder, extra)
            if cold and warm:
                rows = {"cold": row(variant.name, cold), "warm": row(variant.name, warm)}
                found = {f"{state}_{key}": r[key] for key in ("first_step", "end_to_end") for state, r in rows.items()}
                self.results.rows.append({"kind": "cache", "workload": name, "variant": variant.name, **found})
                print(f"{name}, {variant.name}, compilation cache: " + ", ".join(f"{k} {v}" for k, v in found.items()))

    def scale(self, axis: str, sizes: list[dict[str, Any]]) -> None:
        """The dense network of W2 as one size of it grows."""
        chosen = [
            v for v in VARIANTS if v.name in (OURS, LIMIT, "PyTorch") and v.name in (*self.options.variants, LIMIT)
        ]
        print(f"\nmlp by {axis}: seconds of {', '.join(v.name for v in chosen)}")
        for changed in sizes:
            taken = self.take(f"mlp by {axis}", chosen, self.prepare("mlp", changed), {}, 1)
            for variant in taken:
                made = {"kind": "scaling", "workload": "mlp", "axis": axis, "size": changed[axis]}
                self.results.rows.append(made | row(variant, taken))
            print(f"{changed[axis]:8}" + "".join(f"{row(v, taken)['steady']:12.4g}" for v in taken), flush=True)

    def part(self, kind: str, file: str, *arguments: str) -> None:
        """What a command of its own measures: its rows as they are."""
        on_gpu = kind.startswith("gpu_")
        if on_gpu and not gpu.present():
            raise Skipped("no GPU")
        output = self.folder / f"{kind}.json"
        command = [sys.executable, str(Path(__file__).with_name(file)), *arguments, "--output", str(output)]
        command += ["--quick"] if self.options.smoke else []
        # Products in TF32 would round so that variants, which add in other orders, do not agree.
        precise = gpu.environment() | {"JAX_DEFAULT_MATMUL_PRECISION": "float32"}
        env = environment() | (precise if on_gpu else {})
        done = bounded(command, env, PATIENCE * self.options.timeout)
        print(done.stdout, flush=True)
        if not output.exists():
            raise Skipped(last_line(done))
        self.results.rows += [{"kind": kind, **each} for each in json.loads(output.read_text())["rows"]]

    def prepare(self, name: str, changed: dict[str, Any]) -> Path:
        """The job of a workload, in a folder; made in a process of its own, so that this one needs no JAX."""
        module = workload(name)
        sizes = {"workload": name, **module.SIZES, **changed, **(module.SMOKE if self.options.smoke else {})}
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        command = [sys.executable, "-m", "experiments.benchmarks.job", json.dumps(sizes), str(folder)]
        done = bounded(command, environment(), self.options.timeout)
        if done.returncode:
            raise Skipped(last_line(done))
        return folder

    def take(
        self, name: str, chosen: list[Variant], folder: Path, extra: dict[str, str], samples: int | None = None
    ) -> dict[str, list[Row]]:
        """Samples by variant; a variant that fails once is left out, and the reason kept."""
        taken: dict[str, list[Row]] = {}
        left = list(chosen)
        for _ in range(self.samples if samples is None else samples):
            for variant in list(left):
                try:
                    one = self.sample(variant, folder, extra)
                    taken.setdefault(variant.name, []).append(one)
                    if one["end_to_end"] > LONG:
                        left.remove(variant)
                except Skipped as reason:
                    left.remove(variant)
                    taken.pop(variant.name, None)
                    self.results.skipped.append({"workload": name, "variant": variant.name, "reason": str(reason)})
                    print(f"skipped: {name}, {variant.name}: {reason}", flush=True)
        return taken

    def sample(self, variant: Variant, folder: Path, extra: dict[str, str]) -> Row:
        """One process from start to end."""
        missing = [library for library in variant.libraries if not importlib.util.find_spec(library.split(".")[0])]
        if missing:
            raise Skipped(f"{', '.join(missing)} is not installed")
        command = [sys.executable, "-m", "experiments.benchmarks.peer_worker", variant.name, str(folder)]
        with tempfile.TemporaryDirectory() as inductor:  # torch.compile would find its own work of the last turn
            watch, env = Watch(), environment() | {"TORCHINDUCTOR_CACHE_DIR": inductor} | extra
            patience = PATIENCE if extra == gpu.environment() else 1
            done = bounded(command, env, self.options.timeout * patience)
            seconds, disturbed = watch.read()
        if done.returncode:
            raise Skipped(last_line(done))
        answer = json.loads(done.stdout.splitlines()[-1])
        return answer | {"end_to_end": seconds - answer["after_first_run"], "process_disturbed": disturbed}


class Skipped(Exception):  # noqa: N818
    """Why a variant has no result."""


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a process has complained of."""
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1][:300]


def bounded(command: list[str], env: dict[str, str], timeout: float) -> subprocess.CompletedProcess[str]:
    """Runs a process, which ends with all that it started (compilers do) after `timeout` seconds, or with this one."""
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=env, cwd=ROOT, start_new_session=True, **pipes)
    try:
        out, err = process.communicate(timeout=timeout)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise Skipped(f"took more than {timeout:g} s") from None
        raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


def environment() -> dict[str, str]:
    """That of the processes: a CPU, no compilation cache, this checkout first."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    mine = {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax", "CUDA_VISIBLE_DEVICES": ""}
    return {**os.environ, **mine, "JAX_ENABLE_COMPILATION_CACHE": "false"}


def row(variant: str, taken: dict[str, list[Row]]) -> Row:
    """Medians of a variant's samples, and the ratio of its time to the limit's."""

    def steady(name: str) -> float:
        return statistics.median(statistics.median(sample["seconds"]) for sample in taken[name])

    samples = taken[variant]
    median = lambda values: significant(statistics.median(values))  # noqa: E731
    imports = {library: median(s["imports"][library] for s in samples) for library in samples[0]["imports"]}
    return {
        "variant": variant,
        "steady": significant(steady(variant)),
        **({"ratio": significant(steady(variant) / steady(LIMIT))} if LIMIT in taken else {}),
        "import": significant(sum(imports.values())),
        "first_step": median(s["ready"] for s in samples),
        "end_to_end": median(s["end_to_end"] for s in samples),
        "peak_mib": round(statistics.median(s["peak_mib"] for s in samples)),
        **({"peak_gpu_mib": max(s["peak_gpu_mib"] for s in samples)} if samples[0].get("peak_gpu_mib") else {}),
        "imports": imports,
        "samples": len(samples),
        "disturbed": sum(s["process_disturbed"] or any(s["disturbed"]) for s in samples),
    }


def agreement(mine: Row, theirs: Row, work: job.Job) -> Row:
    """Relative differences to the limit's losses: of the first, where it is known, and of the last epoch's mean.

    What an evaluation gives, predictions, or a text, is compared number by number.
    """
    a, b = mine["losses"], theirs["losses"]
    if work.sizes.get("exact"):
        off = max((abs(x - y) / max(abs(y), 1.0) for x, y in zip(a, b, strict=False)), default=math.inf)
        return {"loss": a[0], "loss_differs": float(f"{off:.1e}"), "agrees": len(a) == len(b) and off < SAME}
    # Where every step sees everything and `fit` gives one mean nevertheless, that is of all steps.
    epoch = -(-len(b) // len(a)) if work.order is None else work.epoch_steps()
    means = [statistics.fmean(_last(losses, len(b), epoch)) for losses in (a, b)]
    off = abs(means[0] - means[1]) / abs(means[1])
    found = {"loss": float(f"{means[0]:.6g}"), "loss_differs": float(f"{off:.1e}")}
    if len(a) != len(b):
        return found | {"agrees": off < TOLERANCE and mine["repeats"]}
    first, same = abs(a[0] - b[0]) / abs(b[0]), SAME_HALF if "precision" in work.sizes else SAME
    return found | {
        "first_loss_differs": float(f"{first:.1e}"),
        "agrees": off < TOLERANCE and first < same and mine["repeats"],
    }


def _last(losses: list[float], steps: int, epoch: int) -> list[float]:
    """The losses of the last epoch; of those who give one mean an epoch, the last."""
    return losses[-1:] if len(losses) != steps else losses[-((steps - 1) % epoch + 1) :]


def show(title: str, rows: list[Row]) -> None:
    print(f"\n{title.splitlines()[0]}")
    columns = ("steady", "ratio", "import", "first_step", "end_to_end", "peak_mib")
    print(f"{'':24}" + "".join(f"{name.replace('_', ' '):>12}" for name in columns) + f"{'loss':>12}{'differs':>10}")
    for each in sorted(rows, key=lambda each: each["steady"]):
        marks = "!" * (each["disturbed"] > 0) + "?" * (not each["agrees"])
        cells = "".join(f"{each[name]:>12.4g}" for name in columns)
        print(f"{each['variant']:22}{marks:2}{cells}{each['loss']:>12.4g}{each['loss_differs']:>10.0e}", flush=True)


if __name__ == "__main__":
    main(tyro.cli(Options))
