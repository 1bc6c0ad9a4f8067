"""What a run keeps in memory, and in its checkpoints, grows in proportion to what it records."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import optax
import pytest

import fdl
from fdl.runs.checkpoints import Checkpoints
from fdl.training import driver
from fdl.training.history import History, Series
from tests.training.test_run import arrays, experiment

MIB = 2**20


@dataclass(frozen=True)
class Config:
    learning_rate: float = 0.01


def build(config: Config) -> fdl.Experiment:
    return experiment(optimizer=optax.sgd(config.learning_rate), num_steps=4)


def owned(array: Any) -> int:
    """Bytes of the memory that an array keeps alive, which may be more than its own."""
    while getattr(array, "base", None) is not None:
        array = array.base
    return getattr(array, "nbytes", sys.maxsize)


@pytest.mark.parametrize("shape", [(), (3,)], ids=str)
def test_a_series_holds_less_than_three_times_what_was_added(shape):
    series, values = Series(), np.random.default_rng(0).normal(size=(*shape, 500)).astype(np.float32)
    early = series.values
    for step in range(500):
        series.add(np.array([step + 1]), values[..., [step]])
        early = series.values if step == 99 else early
    np.testing.assert_array_equal(series.values, values)
    np.testing.assert_array_equal(series.steps, np.arange(1, 501))
    np.testing.assert_array_equal(early, values[..., :100])  # what a checkpoint is writing is not changed under it
    assert series.nbytes < 3 * (values.nbytes + series.steps.nbytes)


@pytest.mark.parametrize("shapes", [((2,), (3,)), ((), ()), ((1, 1), (1,))], ids=str)
def test_a_series_refuses_another_number_of_values_than_of_steps(shapes):
    with pytest.raises(ValueError, match="a step for each value"):
        Series().add(np.ones(shapes[0], int), np.ones(shapes[1]))


class Watched(History):
    """A history that notes how much memory each array keeps alive that it is given, beside its own bytes."""

    seen: list[tuple[int, int]] = []  # noqa: RUF012

    def add(self, steps, columns):
        super().add(steps, columns)
        together = sum(values.nbytes for values in columns.values())
        self.seen += [(owned(values), together) for values in columns.values()]


@pytest.mark.parametrize("monitor", [None, fdl.norms], ids=["plain", "monitor"])
@pytest.mark.parametrize("every", [1, 7])
def test_no_metric_keeps_the_buffer_of_its_chunk_alive(monkeypatch, monitor, every):
    """The columns of a chunk may share memory, but no more than their own: the buffer held 8192 steps."""
    monkeypatch.setattr(driver, "History", Watched)
    monkeypatch.setattr(Watched, "seen", [])
    fdl.run(experiment(num_steps=21, eval_every=every, evaluate={"val": arrays(9)}, monitor=monitor))
    assert Watched.seen
    assert all(kept <= 2 * together for kept, together in Watched.seen)


def test_results_own_what_they_hold():
    """A member of a sweep does not keep the history of all members."""
    result = fdl.sweep(build, Config(), {"learning_rate": [0.01, 0.02, 0.03]}, seeds=[0])
    member = result.member(1)
    assert all(owned(values) == values.nbytes for values in [*member.history.values(), *member.steps.values()])
    assert not any(isinstance(block.programs, driver.Programs) for bucket in result.buckets for block in bucket.blocks)


def test_a_checkpoint_holds_the_steps_of_a_chunk_once(tmp_path):
    """Its history takes 4 bytes for each training value, 8 for an evaluation, and 8 a step for all names together."""
    counts = {}
    for steps in (40, 400):
        ex = experiment(num_steps=steps, eval_every=1, evaluate={"val": arrays(9)}, checkpoint_every=steps)
        fdl.run(ex, folder=tmp_path / str(steps))
        saved = Checkpoints(tmp_path / str(steps) / "checkpoints").newest()[0]
        assert saved is not None
        counts[steps] = sum(array.nbytes for array in saved.arrays.values())
        names = saved.facts["names"]
    per_value = sum(4 if name.startswith("train/") else 8 for name in names)
    assert counts[400] - counts[40] == 360 * (per_value + 8)


SCRIPT = """
import numpy as np, optax, fdl, sys
from dataclasses import dataclass
members, monitor = int(sys.argv[1]), fdl.norms if sys.argv[2] == "monitor" else None
rss = lambda: int(open("/proc/self/statm").read().split()[1]) * 4096
data = fdl.data.Arrays(x=np.eye(4, dtype=np.float32), y=np.arange(4))
task = fdl.supervised(fdl.nn.Linear(4, 4), fdl.losses.softmax_cross_entropy, {"accuracy": fdl.metrics.accuracy})
@dataclass(frozen=True)
class Config:
    rate: float = 1e-3
def build(config):
    options = dict(evaluate={"val": data}, batch_size=2, num_steps=1500, eval_every=1, monitor=monitor)
    return fdl.Experiment(task, optax.sgd(config.rate), data, **options)
seen = {}
hook = lambda event: seen.update({event.step: rss()}) if event.step in (300, 1500) else None
if members == 1:
    fdl.run(build(Config()), hooks=[hook])
else:
    fdl.sweep(build, Config(), seeds=range(members), hooks=[hook])
print(seen[1500] - seen[300])
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc/self/statm")
@pytest.mark.parametrize(("members", "monitor"), [(1, "no"), (1, "monitor"), (4, "no")])
def test_1200_steps_with_an_evaluation_at_each_grow_by_a_few_mib(members, monitor):
    """The numbers themselves are below 0.5 MiB; a buffer of 8192 steps for each chunk would be 75 MiB and more."""
    command = [sys.executable, "-c", SCRIPT, str(members), monitor]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 10 * MIB
