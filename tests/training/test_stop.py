"""A hook stops a run: a result, a checkpoint, a status, and a resume that ends as if nothing had happened."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import optax
import pytest

import fdl
from tests.training.test_run import assert_same_bits, experiment


def after(step: int, reason: str = "enough"):
    def hook(event):
        if event.step >= step:
            raise fdl.Stop(reason)

    return hook


def status(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    return manifest["status"], manifest.get("stopped")


def test_a_stopped_run_has_a_result_of_its_last_step():
    """After 20 steps, with an evaluation of its own there, as after the last step of any run."""
    seen = []
    stopped = fdl.run(experiment(), chunk=1, hooks=[after(20), lambda event: seen.append(event.step)])
    short = fdl.run(experiment(num_steps=20))
    assert (stopped.stopped, short.stopped, stopped.info["steps"], seen[-1]) == ("enough", None, 20, 20)
    assert_same_bits((stopped.params, stopped.state), (short.params, short.state))
    assert_same_bits(stopped.history, short.history)
    assert stopped.metrics == short.metrics


def test_a_stopped_run_is_recorded_and_can_be_resumed(tmp_path):
    folder = tmp_path / "run"
    stopped = fdl.run(experiment(), chunk=5, hooks=[after(20)], folder=folder)
    assert status(folder) == ("stopped", "enough")
    assert json.loads((folder / "result.json").read_text())["test/loss"] == stopped.metrics["test/loss"]
    resumed, whole = fdl.run(experiment(), folder=folder, resume=True), fdl.run(experiment())
    assert status(folder) == ("finished", None)
    assert_same_bits((resumed.params, resumed.history, resumed.steps), (whole.params, whole.history, whole.steps))


def test_a_stop_does_not_count_in_the_selection_of_the_run_that_goes_on(tmp_path):
    options = {"select": "test/loss", "patience": 2}
    fdl.run(experiment(**options), chunk=5, hooks=[after(20)], folder=tmp_path / "run")
    resumed, whole = (
        fdl.run(experiment(**options), folder=tmp_path / "run", resume=True),
        fdl.run(experiment(**options)),
    )
    assert_same_bits((resumed.params, resumed.history), (whole.params, whole.history))


def test_a_stop_at_the_last_step_is_no_stop(tmp_path):
    result = fdl.run(experiment(num_steps=4), hooks=[after(4)], folder=tmp_path / "run")
    assert result.stopped is None
    assert status(tmp_path / "run") == ("finished", None)


def test_a_stop_without_a_reason_says_who():
    def hook(event):
        raise fdl.Stop

    assert fdl.run(experiment(num_steps=4), chunk=1, hooks=[hook]).stopped == "by a hook"


@dataclass(frozen=True)
class Config:
    learning_rate: float = 0.1


def build(config: Config) -> fdl.Experiment:
    return experiment(optimizer=optax.sgd(config.learning_rate), num_steps=8, eval_every=None)


@pytest.mark.slow
def test_a_sweep_stops_the_members_side_by_side_and_can_be_resumed(tmp_path):
    over, folder = {"learning_rate": [0.1, 0.05, 0.02]}, tmp_path / "sweep"
    hooks = [after(3)]
    stopped = fdl.sweep(build, Config(), over, chunk=3, hooks=hooks, folder=folder, max_members=2)
    assert stopped.stopped == "enough"
    assert [stopped.member(i).info["steps"] for i in range(3)] == [3, 3, 3]
    assert np.isfinite(stopped.metrics["test/loss"]).all()
    assert status(folder)[0] == "stopped"
    resumed = fdl.sweep(build, Config(), over, folder=folder, resume=True, max_members=2)
    whole = fdl.sweep(build, Config(), over, max_members=2)
    assert_same_bits(resumed.history, whole.history)
    assert status(folder)[0] == "finished"
