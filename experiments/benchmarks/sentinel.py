"""What the sentinel costs that sees a loss which is not finite: time of a training step with and without it.

    python experiments/benchmarks/sentinel.py --output experiments/benchmarks/results/sentinel.json

Four ways to train the same network, one after the other in every round, in processor time of all threads: others work
on the machine as well.

    none  nobody looks at the losses
    stop  the default: the host looks at them, and keeps a state once a minute to compute the one before a bad step from
    skip  `Experiment(nonfinite="skip")`: each step looks at its loss, parameters and state, and selects old or new ones
    cond  the same with `lax.cond` in place of the selection: what leaving a bad step out would cost that way

"none" and "stop" run the same executable; what the host does for "stop" is measured by itself as well: "sentinel".
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import tyro

import fdl
from fdl import nn
from fdl.training import step
from fdl.training.driver import Driver
from fdl.training.executables import Programs
from fdl.training.precision import all_finite
from fdl.training.recipe import Recipe
from fdl.training.sentinel import Sentinel

KINDS = ("none", "stop", "skip", "cond")


def main(output: Path | None = None, rounds: int = 20) -> None:
    """Prints the time of a step and what it is above "none", and writes both as JSON where `output` is given."""
    results: dict[str, Any] = {"cpus": os.cpu_count(), "rounds": rounds}
    for name, experiment in {"mlp": mlp(), "digits cnn": digits()}.items():
        results[name] = measured(experiment, rounds)
        for kind, figures in results[name].items():
            print(f"{name:10}  {kind:8}  {figures['microseconds']:8.2f} us a step  {figures['overhead']:+7.2%}")
    if output is not None:
        output.write_text(json.dumps(results, indent=1) + "\n")


def mlp() -> fdl.Experiment:
    """35 785 parameters, as in the study that the limit of 1 % comes from."""
    rng = np.random.default_rng(0)
    data = fdl.data.Arrays(x=rng.normal(size=(4096, 784)).astype(np.float32), y=rng.integers(0, 10, 4096))
    model = nn.Serial(nn.Linear(784, 45), jax.nn.relu, nn.Linear(45, 10))
    task = fdl.supervised(model, fdl.losses.softmax_cross_entropy)
    return fdl.Experiment(task, optax.adam(1e-3), data, batch_size=32, num_steps=4000)


def digits() -> fdl.Experiment:
    """The network of experiments/digits.py, without its augmentation."""
    width, pooled = 32, nn.MaxPool(2)
    block = nn.Conv(1, width, 3, use_bias=False), nn.BatchNorm(width), jax.nn.relu, pooled
    again = nn.Conv(width, 2 * width, 3, use_bias=False), nn.BatchNorm(2 * width), jax.nn.relu, pooled
    model = nn.Serial(*block, *again, nn.Flatten(), head=nn.Linear(8 * width, 10))
    task = fdl.supervised(model, fdl.losses.softmax_cross_entropy)
    data = fdl.data.load("digits", split="train")
    return fdl.Experiment(task, optax.adam(1e-3), data, batch_size=64, num_steps=200)


def measured(experiment: fdl.Experiment, rounds: int) -> dict[str, dict[str, float]]:
    """For each kind the median time of a step, and the median over the rounds of what it is above that of "none"."""
    key, programs = jax.random.key(0), {kind: compiled(experiment, kind) for kind in KINDS}
    times: dict[str, list[float]] = {kind: [] for kind in (*KINDS, "sentinel")}
    for number in range(rounds + 1):
        for kind in KINDS if number % 2 else KINDS[::-1]:
            driver = Driver(programs[kind], key, {}, chunk=experiment.total_steps() // 2)
            if kind in ("none", "stop"):
                driver.sentinel = (Blind if kind == "none" else Timed)(programs[kind], key, {}, None)
            started = time.process_time()
            driver.drive()
            seconds = time.process_time() - started
            if number:  # the first round warms up
                times[kind].append(seconds / experiment.total_steps())
                if isinstance(driver.sentinel, Timed):
                    times["sentinel"].append(driver.sentinel.seconds / experiment.total_steps())
    return {kind: summed(kind, times[kind], times["none"]) for kind in times}


def summed(kind: str, times: list[float], base: list[float]) -> dict[str, float]:
    share = statistics.median(a / b for a, b in zip(times, base, strict=True)) - (kind != "sentinel")
    return {"microseconds": round(1e6 * statistics.median(times), 3), "overhead": round(share, 5)}


def compiled(experiment: fdl.Experiment, kind: str) -> Programs:
    if kind in ("skip", "cond"):
        experiment = dataclasses.replace(experiment, nonfinite="skip")
    selecting = step._skipped
    step._skipped = conditioned if kind == "cond" else selecting
    try:
        return Programs(Recipe(experiment), jax.random.key(0), {})
    finally:
        step._skipped = selecting


def conditioned(now: Any, new: Any, metrics: Any) -> Any:
    finite = all_finite((metrics["loss"], new.params, new.state))
    return jax.lax.cond(finite, lambda: new, lambda: now), {**metrics, "skipped": ~finite}


class Timed(Sentinel):
    """Counts the processor time that it takes."""

    seconds = 0.0

    def keep(self, step: int, carry: Any) -> None:
        self._timed(super().keep, step, carry)

    def look(self, steps: Any, history: Any, ended: Any) -> None:
        self._timed(super().look, steps, history, ended)

    def look_at(self, step: int, carry: Any) -> None:
        self._timed(super().look_at, step, carry)

    def _timed(self, method: Callable[..., None], *arguments: Any) -> None:
        started = time.process_time()
        method(*arguments)
        self.seconds += time.process_time() - started


class Blind(Sentinel):
    """Sees nothing and keeps nothing."""

    def is_due(self) -> bool:
        return False

    def keep(self, step: int, carry: Any) -> None:
        pass

    def look(self, steps: Any, history: Any, ended: Any) -> None:
        pass

    def look_at(self, step: int, carry: Any) -> None:
        pass


if __name__ == "__main__":
    tyro.cli(main)
