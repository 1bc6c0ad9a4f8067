"""Reports: which names and values they may have, and what is left of a run in which one fails."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl.runs.checkpoints import Checkpoints
from fdl.training.rehearsal import rehearse
from fdl.training.reports import of_members, reported
from tests.training.test_run import arrays, assert_same_bits, experiment

ROWS = fdl.data.Arrays(x=np.arange(10, dtype=np.float32).reshape(5, 2))
OUTPUTS = {"x": np.zeros((2, 3, 2))}  # two batches of three rows, the last of them padding


def numbers(**reports):
    """What reports that return these values say."""
    functions = {name: partial(lambda value, rows: value, value) for name, value in reports.items()}
    return list(reported(functions, ROWS, OUTPUTS, "val", ("loss", "ap/known")))


@pytest.mark.parametrize(
    ("value", "number"),
    [
        *[(kind(1), 1.0) for kind in (int, float, bool, Fraction, Decimal, np.float32, np.int8, np.bool_, np.array)],
        (jnp.float32(0.5), 0.5),
        (jnp.bfloat16(0.5), 0.5),
        (np.ma.masked, np.nan),  # numpy.ma's mean of no values
        (float("nan"), np.nan),
    ],
    ids=str,
)
def test_a_number_of_any_library_is_a_number(value, number):
    [found] = numbers(r=value)
    assert isinstance(found, tuple)
    assert (found[0], type(found[1])) == ("r", float)
    np.testing.assert_equal(found[1], number)


def test_a_dict_gives_a_name_to_each_of_its_numbers():
    found = numbers(ap={"mug": 0.5, "cup": {"large": np.float32(0.25), 3: True}}, f1=1)
    assert found == [("ap/mug", 0.5), ("ap/cup/large", 0.25), ("ap/cup/3", 1.0), ("f1", 1.0)]


@pytest.mark.parametrize(
    "value",
    [None, "0.5", b"1", [1.0], (1.0,), np.ones(1), np.ones((2, 2)), 1j, np.complex64(1), object(), {"a": None}],
    ids=lambda value: type(value).__name__,
)
def test_anything_else_is_refused_by_the_name_of_the_report(value):
    good, error = numbers(good=2.0, bad=value)
    assert good == ("good", 2.0)
    assert isinstance(error, fdl.InputError)
    assert str(error).startswith("reports 'bad")
    assert "expected a number, or a dict of numbers" in str(error)
    assert error.__notes__ == ["in the report 'bad' on the evaluation set 'val'"]


@pytest.mark.parametrize("report", [{"known": 1.0}, {1: 1.0, "1": 2.0}], ids=str)
def test_a_number_with_a_name_that_is_taken_is_refused(report):
    *_, error = numbers(ap=report)
    assert isinstance(error, fdl.InputError)
    assert "has this name already" in str(error)


def test_members_without_a_number_have_nan():
    reports = [{"r": lambda rows: {"a": 1.0}}, {"r": lambda rows: {"b": 2.0}}]
    outputs = {"x": np.zeros((2, 2, 3, 2))}
    columns, error = of_members(reports, ROWS, outputs, "val", (), (2,))
    assert error is None
    np.testing.assert_equal(columns, {"val/r/a": np.array([[1.0], [np.nan]]), "val/r/b": np.array([[np.nan], [2.0]])})


def test_a_name_that_no_report_may_have():
    with pytest.raises(fdl.InputError, match="'loss' is the name of a metric"):
        experiment(reports={"loss": lambda outputs: 0.5})
    with pytest.raises(fdl.InputError, match="'accuracy' is the name of a metric"):
        rehearse(experiment(reports={"accuracy": lambda outputs: 0.5}))  # known by tracing the objective alone
    with pytest.raises(fdl.InputError, match="names of text"):
        experiment(reports={1: lambda outputs: 0.5})


def test_a_monitor_with_the_name_of_a_metric_is_refused():
    with pytest.raises(fdl.InputError, match="metric 'accuracy'"):
        fdl.run(experiment(monitor=lambda *parts: {"accuracy": jnp.float32(1.0)}))


@dataclass(frozen=True)
class Config:
    learning_rate: float = 0.1


def test_a_member_whose_report_has_the_name_of_a_metric_is_refused():
    def build(config):
        name = "accuracy" if float(config.learning_rate) == 0.2 else "share"
        return experiment(optimizer=optax.sgd(0.1), reports={name: lambda outputs: 0.5})

    with pytest.raises(fdl.InputError, match="'accuracy' is the name of a metric"):
        fdl.sweep(build, Config(), {"learning_rate": [0.1, 0.2]})


@pytest.mark.parametrize(
    ("outputs", "said"),
    [
        (lambda x: {"scores": jnp.repeat(x[:, 0], 3)}, r"outputs 'scores': .*\[4, \.\.\.\], got \[12\]"),
        (lambda x: {"scores": x.mean()}, r"outputs 'scores': .* got \[\]"),
        (lambda x: x.T[:1], r"outputs: .* got \[1, 4\]"),
        (lambda x: None, "returns no outputs"),
    ],
    ids=["flattened", "a mean", "transposed", "none"],
)
def test_outputs_without_a_row_for_each_example_are_refused(outputs, said):
    def objective(params, state, batch, *, key, train):
        return fdl.Outcome((params * batch["x"]).sum(-1), outputs=outputs(batch["x"]))

    task = fdl.Task(lambda key: (jnp.ones(2), {}), objective)
    options = {"evaluate": {"val": ROWS}, "batch_size": 4, "num_steps": 1}
    with pytest.raises(fdl.InputError, match=said):
        fdl.run(fdl.Experiment(task, optax.sgd(0.1), ROWS, reports={"r": lambda rows: 0.0}, **options))
    fdl.run(fdl.Experiment(task, optax.sgd(0.1), ROWS, **options))  # nobody looks at them


def failing(broken):
    def report(outputs):
        if broken:
            raise ZeroDivisionError("no positives")
        return 0.5

    reports = {"share": lambda outputs: 0.25, "bad": report}
    return experiment(num_steps=6, eval_every=3, evaluate={"val": arrays(9)}, reports=reports)


@pytest.mark.parametrize("chunk", [1, None])
def test_a_report_that_fails_costs_nothing_but_itself(tmp_path, chunk):
    """The run ends after that evaluation, named and saved; mended, it goes on to the same end."""
    with pytest.raises(ZeroDivisionError, match="no positives") as error:
        fdl.run(failing(True), folder=tmp_path / "run", chunk=chunk)
    assert error.value.__notes__[:2] == [
        "in the report 'bad' on the evaluation set 'val'",
        "after step 3 of 6",
    ]
    saved = Checkpoints(tmp_path / "run" / "checkpoints").newest()[0]
    assert saved is not None
    assert saved.step >= 3
    assert {"history/val/loss", "history/val/share"} <= set(saved.arrays)  # the other results are there
    again = fdl.run(failing(False), folder=tmp_path / "run", resume=True)
    whole = fdl.run(failing(False))
    assert_same_bits(again.params, whole.params)
    assert again.metrics == whole.metrics
    assert again.steps["val/loss"].tolist() == [3, 6]


def test_without_a_folder_the_exception_has_the_result():
    with pytest.raises(ZeroDivisionError) as error:
        fdl.run(failing(True), chunk=3)
    result = error.value.result  # pyright: ignore[reportAttributeAccessIssue]
    assert "val/share" in result.metrics
    assert result.info["steps"] >= 3


def test_an_error_of_the_last_evaluation_is_made_good_by_a_resume(tmp_path):
    with pytest.raises(ZeroDivisionError):
        fdl.run(replace(failing(True), eval_every=None), folder=tmp_path / "run")
    again = fdl.run(replace(failing(False), eval_every=None), folder=tmp_path / "run", resume=True)
    assert again.metrics["val/bad"] == 0.5
    assert again.steps["val/loss"].tolist() == [6]  # evaluated once
    assert json.loads((tmp_path / "run" / "result.json").read_text())["val/bad"] == 0.5


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"batch_size": 10}, 10),
        ({"batch_size": 10, "eval_batch_size": 7}, 7),
        ({"batch_size": None}, 256),
        ({"batch_size": None, "train": fdl.data.Stream(lambda step: {"x": np.ones((12, 5)), "y": np.ones(12)})}, 12),
        ({"batch_size": None, "train": fdl.data.Stream(lambda step: {"x": np.ones((12, 5)), "y": np.ones(3)})}, 256),
    ],
    ids=["as training", "its own", "none", "a stream", "a stream without rows"],
)
def test_evaluation_has_a_batch_size_of_its_own(settings, size):
    assert experiment(**settings).evaluation_batch_size() == size


@pytest.mark.parametrize("size", [0, -1, 2.0, True], ids=str)
def test_an_evaluation_batch_that_cannot_be_meant_is_refused(size):
    with pytest.raises(fdl.InputError, match="eval_batch_size: expected a whole number >= 1"):
        experiment(eval_batch_size=size)


def test_each_example_counts_once_whatever_the_evaluation_batch_is():
    """31 examples; the sums of batches are added in float64, so that figures agree to float32's rounding."""
    known = [fdl.run(experiment(num_steps=2, eval_batch_size=size)).metrics for size in (None, 1, 7, 31, 500)]
    for metrics in known[1:]:
        assert metrics == pytest.approx(known[0], rel=1e-6)


def test_evaluation_beside_a_stream_is_in_batches():
    """Its largest batch has the rows of a training batch: outputs come as [batches, B, ...]."""
    seen = []

    def objective(params, state, batch, *, key, train):
        seen.append((train, batch["x"].shape[0]))
        return fdl.Outcome((params * batch["x"]).sum(-1))

    stream = fdl.data.Stream(lambda step: {"x": np.full((4, 2), step, np.float32)})
    task = fdl.Task(lambda key: (jnp.ones(2), {}), objective)
    data = fdl.data.Arrays(x=np.ones((50, 2), np.float32))
    fdl.run(fdl.Experiment(task, optax.sgd(0.1), stream, evaluate={"val": data}, num_steps=1))
    assert {rows for train, rows in seen if not train} == {4}


X = np.ones((700, 2), np.float32)
KINDS = {
    "none": lambda: None,
    "rows": lambda: fdl.data.Arrays(x=X),
    "one tree": lambda: fdl.data.Full(x=X),
    "a stream": lambda: fdl.data.Stream(lambda step: {"x": X}),
    "a loader": lambda: fdl.data.from_indexable(X, 650, names=("x",)),
    "windows": lambda: fdl.data.Windows(np.zeros(5000, np.int32), 8),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_set_is_never_evaluated_at_once_unless_that_is_asked_for(kind):
    """Whatever the training set is; its own batches may be larger than 256."""
    seen = []

    def objective(params, state, batch, *, key, train):
        leaves = jax.tree.leaves(batch)
        count = leaves[0].shape[0] if leaves else 1
        seen.append((train, count))
        return fdl.Outcome(jnp.broadcast_to(params.sum(), (count,)))

    def rows(**options):
        seen.clear()
        task = fdl.Task(lambda key: (jnp.ones(2), {}), objective)
        val = fdl.data.Arrays(x=X[:600])
        fdl.run(fdl.Experiment(task, optax.sgd(0.1), KINDS[kind](), evaluate={"val": val}, num_steps=1, **options))
        return {count for train, count in seen if not train}

    assert max(rows()) <= 256
    assert max(rows(eval_batch_size=600)) == 600
