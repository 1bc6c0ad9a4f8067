# pyright: reportArgumentType=false
"""Early stopping and the best evaluation: at the right step whatever the chunk, decided on the device."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from tests.training.test_run import arrays, assert_same_bits, experiment

DATA = fdl.data.Arrays(id=np.arange(4))


def along(values, **settings) -> fdl.Experiment:
    """Evaluates to values[n] after n + 1 steps; params count the steps."""
    table = jnp.asarray(values, jnp.float32)

    def objective(params, state, batch, *, key, train):
        step = params.astype(jnp.int32)
        return fdl.Outcome(jnp.zeros(4) + (params if train else table[step - 1]))

    task = fdl.Task(lambda key: (jnp.float32(0), {}), objective)
    count = optax.stateless(lambda updates, params: jnp.float32(1.0))
    settings = {"evaluate": {"val": DATA}, "eval_every": 1, "num_steps": len(values), "select": "val/loss"} | settings
    return fdl.Experiment(task, count, DATA, **settings)


VALUES = [5.0, 3.0, 4.0, 2.0, 2.5, 2.4, 2.1, 1.0]


@pytest.mark.parametrize("chunk", [1, 3, None])
def test_patience_stops_at_the_right_step_and_restores_the_best(chunk):
    run = fdl.run(along(VALUES, patience=3), chunk=chunk)
    assert (run.info["steps"], run.info["best_step"], float(run.params)) == (7, 4, 4.0)
    np.testing.assert_allclose(run.history["val/loss"], VALUES[:7])
    assert len(run.history["train/loss"]) == 7
    assert run.metrics["val/loss"] == 2.0


def test_without_patience_all_steps_are_taken_and_the_best_is_kept():
    run = fdl.run(along(VALUES))
    assert (run.info["steps"], run.info["best_step"], float(run.params)) == (8, 8, 8.0)
    run = fdl.run(along(VALUES[:7], mode="max"))
    assert (run.info["steps"], float(run.params), run.metrics["val/loss"]) == (7, 1.0, 5.0)


def test_what_is_better_by_less_than_min_delta_is_not_better():
    run = fdl.run(along([5.0, 4.9, 4.8, 4.7, 0.0], patience=3, min_delta=0.5))
    assert (run.info["steps"], run.info["best_step"]) == (4, 1)


def test_nan_never_wins_and_costs_patience():
    nan = float("nan")
    with pytest.warns(UserWarning, match="patience=2") as told:
        run = fdl.run(along([nan, 3.0, nan, nan, 1.0], patience=2))
    assert [str(each.message).partition(":")[0] for each in told] == [
        f"val/loss is not finite after step {step}" for step in (1, 3, 4)
    ]
    assert (run.info["steps"], run.info["best_step"], run.metrics["val/loss"]) == (4, 2, 3.0)
    with pytest.warns(UserWarning, match="it is never the best"):
        never = fdl.run(along([nan, nan, nan], patience=2))
    assert (never.info["steps"], "best_step" in never.info, float(never.params)) == (2, False, 2.0)


def test_evaluations_that_are_seldom_count_by_themselves():
    run = fdl.run(along(VALUES * 2, eval_every=4, patience=2))  # sees 2, 1, 2, 1
    np.testing.assert_array_equal(run.steps["val/loss"], [4, 8, 12, 16])
    assert (run.info["steps"], run.info["best_step"]) == (16, 8)


def test_a_real_run_selects_the_same_whatever_the_chunk():
    settings = {"select": "test/accuracy", "mode": "max", "patience": 2, "num_steps": 200, "eval_every": 10}
    runs = [fdl.run(experiment(optimizer=optax.adam(3e-2), **settings), chunk=chunk) for chunk in (1, 7, None)]
    for run in runs[1:]:
        assert_same_bits((run.params, run.state, run.history), (runs[0].params, runs[0].state, runs[0].history))
    assert runs[0].info["steps"] < 200
    best = runs[0].history["test/accuracy"].argmax()
    assert runs[0].info["best_step"] == runs[0].steps["test/accuracy"][best]
    assert runs[0].info["steps"] == runs[0].info["best_step"] + 20


def test_hooks_see_no_step_beyond_the_end():
    seen = []
    fdl.run(along(VALUES, patience=3), hooks=[lambda event: seen.append(event.step)])
    assert seen == [1, 2, 3, 4, 5, 6, 7]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"select": "test/loss"}, "there are: val"),
        ({"select": "val/acc"}, "no evaluation measures 'val/acc'"),
        ({"select": None, "patience": 3}, "patience"),
        ({"mode": "maximum"}, "mode"),
        ({"min_delta": -1.0}, "min_delta"),
        ({"patience": 0}, "patience"),
    ],
)
def test_what_cannot_be_selected_is_refused(settings, message):
    with pytest.raises(fdl.InputError, match=message):
        fdl.run(along(VALUES, **settings))


def test_reports_see_the_outputs_of_every_example_once_and_no_padding():
    """The area under the ROC curve of 31 examples in batches of 10, against scikit-learn on all at once."""
    metrics = pytest.importorskip("sklearn.metrics")
    sizes = []

    def auroc(outputs):
        sizes.append(len(outputs["targets"]))
        return metrics.roc_auc_score(outputs["targets"], outputs["predictions"][:, 1] - outputs["predictions"][:, 0])

    run = fdl.run(experiment(reports={"auroc": auroc}))
    assert set(sizes) == {31}
    assert len(run.history["test/auroc"]) == 5
    model = experiment().task.objective.model  # pyright: ignore
    test = arrays(31, seed=1)
    logits, _ = model.apply(run.params, run.state, test["x"])
    assert run.metrics["test/auroc"] == pytest.approx(metrics.roc_auc_score(test["y"], logits[:, 1] - logits[:, 0]))


def test_a_report_that_is_no_number_is_refused():
    with pytest.raises(fdl.InputError, match="reports 'rows': expected a number"):
        fdl.run(experiment(reports={"rows": lambda outputs: outputs["targets"]}))
