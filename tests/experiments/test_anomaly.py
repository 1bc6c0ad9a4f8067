"""Anomaly detection: standard columns, no label in the training, and figures beside isolation forest's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args, get_type_hints

import jax
import numpy as np
import pytest

import fdl
from experiments.published.anomaly import Config, build, standardized

pytestmark = pytest.mark.usefixtures("fdl_data")
RESULTS = Path(__file__).parents[2] / "experiments" / "results"
SETS = get_args(get_type_hints(Config)["data"])


def test_columns_are_standard_and_constant_ones_are_zero():
    x = standardized(np.array([[1.0, 5.0], [3.0, 5.0]], np.float32))
    assert x.tolist() == [[-1, 0], [1, 0]]


@pytest.mark.parametrize("name", SETS)
def test_every_row_is_trained_on_and_scored(name):
    experiment = build(Config(name))
    x = experiment.evaluate["all"].arrays["tree"]["x"]
    assert len(x) == len(experiment.dataset.arrays["tree"]["x"])
    np.testing.assert_allclose(x.mean(0), 0, atol=2e-4)
    np.testing.assert_allclose(x.std(0)[x.std(0) > 0], 1, atol=1e-3)


def test_labels_do_not_enter_the_loss():
    experiment = build(Config("breastw"))
    shapes, state = jax.eval_shape(experiment.task.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, leaf.dtype), shapes)
    x = experiment.evaluate["all"].arrays["tree"]["x"][:8]
    assert experiment.task.objective is not None
    objective = jax.jit(experiment.task.objective, static_argnames="train")
    one, two = (
        objective(params, state, {"x": x, "y": np.full(8, y)}, key=jax.random.key(0), train=True) for y in (0, 1)
    )
    np.testing.assert_array_equal(one.loss, two.loss)


def test_the_report_ranks_the_errors():
    """Scores of anomalies above, below and among the others: 1, 0, and a half for ties."""
    report = build(Config("breastw")).reports["roc_auc"]
    labels = np.array([0, 0, 1, 1])
    for scores, expected in (([0, 1, 2, 3], 1.0), ([3, 2, 1, 0], 0.0), ([1, 1, 1, 1], 0.5)):
        assert float(report({"score": np.array(scores, np.float32), "anomaly": labels})) == expected


@pytest.mark.slow
def test_breast_cancer():
    """The error of the mean alone, the distance from it, has .955; isolation forest .988."""
    assert fdl.run(build, Config("breastw"), seed=0).metrics["all/roc_auc"] > 0.93


def test_the_committed_table_is_complete():
    saved = json.loads((RESULTS / "anomaly.json").read_text())
    figures = {(s["setting"]["data"], s["setting"]["code"]): s["metrics"]["all/roc_auc"] for s in saved["settings"]}
    assert set(figures) == {(name, code) for name in SETS for code in (1, 2, 4)}
    assert all(len(figure["values"]) == 5 for figure in figures.values())
