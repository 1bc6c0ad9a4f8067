# pyright: reportArgumentType=false, reportAttributeAccessIssue=false
"""A value that is not finite: which step, which layer, forward or backward, which rows, and the state before it."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl import nn
from fdl.errors import NonFiniteError
from fdl.inspect import Report, examine
from fdl.runs import repro
from fdl.runs.checkpoints import Checkpoints
from fdl.training import sentinel
from fdl.training.rewind import Moment
from fdl.training.run import run_key
from tests.training.test_run import assert_same_bits, experiment

REPOSITORY = Path(__file__).parents[2]
LOW = 5  # the example that gets to 0 first: 3, 2, 1, 0 before steps 1, 2, 3, 4


@dataclass(frozen=True)
class Shift(fdl.Layer):
    """y = x + offset, which the optimizer below lowers by 1 a step."""

    def specs(self):
        return {"offset": fdl.Param((), fdl.initializers.Zeros())}

    def __call__(self, params, x, *, key=None, train=False):
        return x + params["offset"]


@dataclass(frozen=True)
class Log(fdl.Layer):
    def __call__(self, params, x, *, key=None, train=False):
        return jnp.log(x)


@dataclass(frozen=True)
class Root(fdl.Layer):
    """Finite for every x; so is its gradient, but where x is 0 or less the one that `where` drops is not: 0 * inf."""

    def __call__(self, params, x, *, key=None, train=False):
        return jnp.where(x > 0, jnp.sqrt(x), 0.0)


def quadrupled(x: jax.Array) -> jax.Array:
    return 4 * x


def falling() -> optax.GradientTransformation:
    """Lowers everything by 1, and is broken by gradients that are."""
    return optax.stateless(lambda grads, params: jax.tree.map(lambda g: -1.0 + 0.0 * g, grads))


def rows() -> fdl.data.Arrays:
    x = np.full((12, 1), 100.0, np.float32)
    x[LOW] = 3.0
    return fdl.data.Arrays(x=x, y=np.zeros((12, 1), np.float32))


def trains(*layers: Any, **changes: Any) -> fdl.Experiment:
    task = fdl.supervised(nn.Serial(*layers), lambda y, target: y - target)
    settings = {"task": task, "optimizer": falling(), "train": rows(), "batch_size": 12, "num_steps": 40}
    return fdl.Experiment(**(settings | changes))


def failure(experiment: Any, **options: Any) -> tuple[NonFiniteError, Report]:
    with pytest.raises(NonFiniteError) as caught:
        fdl.run(experiment, **options)
    assert isinstance(caught.value.moment, Moment), caught.value.moment
    return caught.value, examine(caught.value.moment)


def first(report: Report) -> tuple[str, str, str]:
    return report.findings[0].where, report.findings[0].path, report.findings[0].kind


def named(report: Report) -> list[int]:
    """The examples of the first finding."""
    examples = report.examples or ()
    return [examples[row] for row in report.findings[0].rows or ()]


@pytest.mark.parametrize("batch_size", [12, None])
def test_a_layer_is_named_with_step_and_example(batch_size: int | None):
    error, report = failure(trains(Shift(), nn.Serial(Log()), batch_size=batch_size))
    assert str(error).startswith("the training loss is -inf at step 4 of 40")
    assert (report.step, *first(report)) == (4, "forward", "1/0", "inf")
    assert named(report) == [LOW]
    assert error.__notes__ == [str(report)]
    assert float(error.moment.now.params["0"]["offset"]) == -3.0  # the state before the step, not after it


def test_a_plain_function_in_a_container_is_named_too():
    assert first(failure(trains(Shift(), jnp.log))[1]) == ("forward", "1", "inf")


def test_a_gradient_is_found_where_only_the_next_loss_shows_it():
    """The gradient of step 4 is NaN, its loss finite; after it the offset is NaN, and so is the loss."""
    error, report = failure(trains(Shift(), nn.Residual(Root())))
    assert str(error).startswith("the training loss is nan at step 5")
    assert (report.step, *first(report)) == (4, "backward", "1/block", "nan")
    assert named(report) == [LOW]


def test_a_gradient_that_no_loss_ever_shows_is_found_as_well():
    """NaN > 0 is false, so `where` gives 0 for good."""
    error, report = failure(trains(Shift(), Root()))
    assert str(error).startswith("the parameters are no longer finite after step 40")
    assert (report.step, *first(report)) == (4, "backward", "1", "nan")


@pytest.mark.parametrize("remat", [False, True])
def test_the_copy_in_a_stack_is_named(remat: bool):
    model = nn.Serial(Shift(), nn.Stack(nn.Serial(Log()), 3, remat))
    report = failure(replace(trains(Shift()), task=fdl.supervised(model, lambda y, target: y - target)))[1]
    assert (report.step, *first(report)) == (
        2,
        "forward",
        "1/block[2]/0",
        "nan",
    )  # log(log(2)) < 0, and of 3 it is 0.09
    assert named(report) == [LOW]


def test_data_are_named_before_the_layer_that_met_them():
    def augment(batch, key):
        return {**batch, "x": jnp.where(batch["x"] < 4, jnp.nan, batch["x"])}

    report = failure(trains(Shift(), nn.Linear(1, 1), augment=augment))[1]
    assert [(f.where, f.path) for f in report.findings] == [("data", "x"), ("forward", "0")]
    assert named(report) == [LOW]


def test_a_stream_that_turns_bad_is_found(tmp_path: Path):
    def batch_at(step: int) -> dict[str, np.ndarray]:
        x = np.ones((4, 1), np.float32)
        x[2] = np.inf if step == 6 else 1.0
        return {"x": x, "y": np.zeros((4, 1), np.float32)}

    stream = trains(Shift(), train=fdl.data.Stream(batch_at), batch_size=None)
    for chunk in (1, 4, None):
        report = failure(stream, chunk=chunk)[1]
        assert (report.step, *first(report), report.findings[0].rows) == (7, "data", "x", "inf", (2,))


def test_a_loss_that_overflows_is_told_from_the_model():
    def loss(y, target):
        return jnp.exp(y - target)  # exp(100) = inf in float32, the model's output is 100

    report = failure(replace(trains(Shift()), task=fdl.supervised(nn.Serial(Shift()), loss)))[1]
    assert (report.step, *first(report)) == (1, "loss", "", "inf")
    assert LOW not in named(report)


def test_an_exploding_learning_rate_shows_what_grew():
    model = nn.Serial(nn.Linear(1, 8), jnp.tanh, nn.Linear(8, 1))
    task = fdl.supervised(model, fdl.losses.squared_error)
    report = failure(fdl.Experiment(task, optax.sgd(1e30), rows(), num_steps=9))[1]
    assert report.step == 2
    assert report.largest is not None
    assert report.largest[1] > 1e25
    assert "the largest parameter before it" in str(report)


def test_an_update_that_breaks_finite_gradients_is_named():
    dividing = optax.stateless(lambda grads, params: jax.tree.map(lambda g: g / (g - g), grads))
    report = failure(trains(Shift(), optimizer=dividing))[1]
    assert (report.step, *first(report)) == (1, "update", "0/offset", "inf")


@pytest.mark.parametrize(("precision", "limit"), [("float16", 65504.0), ("bfloat16", 3.3e38)])
def test_half_precision_overflows_where_its_range_ends(precision: str, limit: float):
    """In float16 the gradient, 4 rows of 4 times the scale, fits from 2^11 on: the fifth step; then the loss counts."""
    data = fdl.data.Arrays(x=np.full((4, 1), limit / 3, np.float32), y=np.zeros((4, 1), np.float32))
    model = nn.Serial(a=jnp.negative, four=nn.Serial(quadrupled))
    task = fdl.supervised(nn.Serial(Shift(), model), lambda y, target: (y - target).astype(jnp.float32))
    report = failure(fdl.Experiment(task, optax.sgd(0.0), data, num_steps=40, precision=precision))[1]
    assert (report.step, *first(report)) == (5 if precision == "float16" else 1, "forward", "1/four/0", "inf")


def test_a_foreign_task_names_the_parameter_whose_gradient_it_is():
    def objective(params, state, batch, *, key, train):
        kept = jnp.where(batch["x"] > 0, jnp.sqrt(batch["x"] + params["deep"]["offset"]), 0.0)
        return fdl.Outcome(kept + 0.0 * params["other"])

    init = {"deep": {"offset": jnp.float32(0)}, "other": jnp.float32(0)}
    report = failure(replace(trains(Shift()), task=fdl.Task(lambda key: (init, {}), objective)))[1]
    assert (report.step, *first(report)) == (4, "gradient", "deep/offset", "inf")


def test_a_step_of_its_own_names_the_parameter():
    def step(params, state, opt_state, batch, *, key, optimizer):
        return {"w": params["w"] - 1, "log": jnp.log(params["w"])}, state, opt_state, {"w": params["w"]}

    task = fdl.Task(lambda key: ({"w": jnp.float32(3), "log": jnp.float32(0)}, {}), step=step)
    error, report = failure(fdl.Experiment(task, optax.sgd(0.1), num_steps=9))
    assert "the parameters are no longer finite after step 9" in str(error)
    assert (report.step, *first(report)) == (4, "update", "log", "inf")


def test_accumulation_keeps_the_rows():
    report = failure(trains(Shift(), Log(), accumulate=3))[1]
    assert (report.step, *first(report)) == (4, "forward", "1", "inf")
    assert named(report) == [LOW]


def poisoned(step: int) -> Any:
    """An augment that makes the batch of one step NaN (counted from 0)."""
    marked = jax.random.key_data(fdl.fold(run_key(0), "step", step, "augment"))

    def augment(batch, key):
        return {**batch, "x": jnp.where((jax.random.key_data(key) == marked).all(), jnp.nan, batch["x"])}

    return augment


@pytest.mark.parametrize("chunk", [1, 7, 100])
@pytest.mark.parametrize("source", ["kept", "checkpoint", "beginning"])
def test_any_way_back_leads_to_the_same_state(tmp_path: Path, monkeypatch, chunk: int, source: str):
    """Batch norm, dropout, Adam: everything that the steps before the bad one have left."""
    if source != "checkpoint":
        monkeypatch.setattr(sentinel, "KEPT_EVERY", -1.0)
    if source == "beginning":
        monkeypatch.setattr(sentinel, "KEPT_BYTES", 0)
    options = {"folder": tmp_path / "run"} if source == "checkpoint" else {}
    error, report = failure(experiment(augment=poisoned(17), checkpoint_every=5), chunk=chunk, **options)
    assert (report.step, *first(report)) == (18, "data", "x", "nan")
    before = fdl.run(experiment(num_steps=17, evaluate={}, eval_every=None))
    assert_same_bits((before.params, before.state), (error.moment.now.params, error.moment.now.state))


def test_keeping_states_changes_no_bit(monkeypatch):
    reference = fdl.run(experiment(), chunk=7)
    monkeypatch.setattr(sentinel, "KEPT_EVERY", -1.0)
    result = fdl.run(experiment(), chunk=7)
    assert_same_bits(
        (result.params, result.state, result.history), (reference.params, reference.state, reference.history)
    )


def test_no_checkpoint_holds_what_is_not_finite(tmp_path: Path):
    """Root's gradient breaks the parameters at step 4, and no loss shows it: checkpoint 6 would hold NaN."""
    with pytest.raises(NonFiniteError, match="after step 6"):
        fdl.run(trains(Shift(), Root(), checkpoint_every=3), folder=tmp_path / "run")
    saved, _ = Checkpoints(tmp_path / "run" / "checkpoints").newest()
    assert saved is not None
    assert saved.step == 3
    assert float(saved.arrays["run/carry/train/params/0/offset"]) == -3.0


@dataclass(frozen=True)
class Config:
    start: float = 1.0
    floor: float = 0.0


def sweeps(config: Config) -> fdl.Experiment:
    def floored(y, target):
        return jnp.log(y + config.floor) - target

    return replace(trains(Shift()), task=fdl.supervised(nn.Serial(Shift()), floored))


def test_a_sweep_names_the_member_and_goes_on(tmp_path: Path):
    told: list[str] = []
    options: Any = {"over": {"floor": [50.0, 3.0, 70.0]}, "seeds": [0, 4], "folder": tmp_path / "run"}
    result = fdl.sweep(sweeps, Config(), tell=told.append, **options)
    assert result.failed.tolist() == [0, 0, 7, 7, 0, 0]  # 3 + 3 - 6 = 0 before step 7
    (report,) = [line for line in told if line.startswith("first at")]
    assert report.startswith("first at step 7 of the member floor=3.0, seed 0: inf in the loss")
    assert f"{LOW} of the training set" in report
    stored = repro.replay(sweeps(Config(floor=3.0)), tmp_path / "run" / "repro.npz")
    assert str(stored) == report


FILE = '''
from dataclasses import dataclass
import jax.numpy as jnp, numpy as np, optax
import fdl
from fdl import nn

@dataclass(frozen=True)
class Config:
    """A rate, and a precision for parameters.

    Args:
      rate: of the descent.
      half: parameters are bfloat16.
    """
    rate: float = 0.5
    half: bool = True

@dataclass(frozen=True)
class Root(fdl.Layer):
    def __call__(self, params, x, *, key=None, train=False):
        return jnp.sqrt(x)

def build(config):
    x = np.linspace(1, 9, 24, dtype=np.float32)[:, None]
    model = nn.Serial(nn.Linear(1, 1, kernel_init=fdl.initializers.Ones()), Root())
    task = fdl.supervised(model, lambda y, target: (y - target).astype(jnp.float32))
    init = lambda key: fdl.init(model, key, jnp.bfloat16 if config.half else jnp.float32)
    task = fdl.Task(init, task.objective)
    data = fdl.data.Arrays(x=x, y=np.zeros((24, 1), np.float32))
    return fdl.Experiment(task, optax.sgd(config.rate), data, batch_size=8, num_steps=60)
'''


def test_a_user_gets_a_script_that_says_the_same(tmp_path: Path):
    """Descent lowers kernel and bias until sqrt gets a number below 0; with bfloat16 parameters, as numpy has none."""
    (tmp_path / "roots.py").write_text(FILE)
    command = [sys.executable, "-m", "fdl", "run", "roots.py", "--rate", "0.25"]
    common: Any = {"env": {**os.environ, "PYTHONPATH": str(REPOSITORY)}, "capture_output": True, "text": True}
    run = subprocess.run(command, cwd=tmp_path, **common)
    assert run.returncode == 1, run.stderr
    (folder,) = (tmp_path / "runs" / "roots").iterdir()
    again = subprocess.run([sys.executable, "repro.py"], cwd=folder, **common)
    assert again.returncode == 0, again.stderr
    assert "nan in the forward pass, out of layer 1 Root()" in again.stdout
    assert again.stdout.strip().replace("\n", "\n  ") in run.stderr
    with np.load(folder / "repro.npz", allow_pickle=False) as stored:
        assert {"now/params/0/kernel", "batch/x", "key"} <= set(stored.files)


def test_a_damaged_or_foreign_repro_is_refused(tmp_path: Path):
    with pytest.raises(NonFiniteError):
        fdl.run(trains(Shift(), Log()), folder=tmp_path / "run")
    path = tmp_path / "run" / "repro.npz"
    assert repro.replay(trains(Shift(), Log()), path).step == 4
    with pytest.raises(fdl.InputError, match="does not fit this experiment"):
        repro.replay(experiment(), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(fdl.InputError, match=r"expected a repro.npz of fdl"):
        repro.replay(trains(Shift(), Log()), path)


def test_what_cannot_be_examined_hides_nothing(monkeypatch, tmp_path: Path):
    def broken(*args: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(repro, "save", broken)
    with pytest.raises(NonFiniteError) as caught:
        fdl.run(trains(Shift(), Log()), folder=tmp_path / "run")
    assert caught.value.__notes__[1] == "the step could not be kept: OSError: no space left"
    monkeypatch.setattr(sentinel, "rewound", broken)
    with pytest.raises(NonFiniteError, match="is -inf at step 4") as caught:
        fdl.run(trains(Shift(), Log()))
    assert caught.value.__notes__ == ["the step could not be taken again: OSError: no space left"]
