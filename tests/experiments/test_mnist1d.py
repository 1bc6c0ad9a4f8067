"""MNIST-1D: the networks of the source, what shuffling changes, and the figures that were measured."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import fdl
from experiments.published.mnist1d import Config, build, network, signals

pytestmark = pytest.mark.usefixtures("fdl_data")
RESULTS = Path(__file__).parents[2] / "experiments/results/mnist1d.json"
MODELS = ("logistic", "mlp", "cnn", "gru")


@pytest.mark.parametrize(("model", "source"), [("logistic", 410), ("mlp", 15210), ("cnn", 5210), ("gru", 5134)])
def test_parameters_are_those_of_the_source(model, source):
    """github.com/greydanus/mnist1d prints them; PyTorch's GRU has a second bias, 2 x 6 more numbers a direction."""
    params, _ = fdl.abstract(network(model))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == source - (24 if model == "gru" else 0)


def test_shuffling_permutes_positions_alike_in_both_sets_and_loses_nothing():
    train, evaluate = signals(False, False)
    mixed, mixed_evaluate = signals(True, False)
    assert (len(train), len(evaluate["test"])) == (4000, 1000)
    order = [
        int(np.flatnonzero((train["x"] == column[:, None]).all((0, 2)))[0]) for column in mixed["x"].swapaxes(0, 1)
    ]
    assert sorted(order) == list(range(40)) != order
    np.testing.assert_array_equal(mixed_evaluate["test"]["x"], evaluate["test"]["x"][:, order])
    np.testing.assert_array_equal(mixed["y"], train["y"])


def test_tuning_never_sees_the_test_set():
    """No signal is in two of the three sets."""
    train, evaluate = signals(False, True)
    assert list(evaluate) == ["val"]
    parts = [train, evaluate["val"], signals(False, False)[1]["test"]]
    assert [len(part) for part in parts] == [3200, 800, 1000]
    assert len({signal.tobytes() for part in parts for signal in part["x"]}) == 5000


def test_the_perceptron_learns_shuffled_signals_as_well_as_others():
    """Why its two columns agree: permuted positions are permuted rows of the first kernel, and the rest is the same."""
    layer, order = network("mlp"), np.random.default_rng(1).permutation(40)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), fdl.abstract(layer)[0])
    x = rng.normal(size=(5, 40, 1)).astype(np.float32)
    permuted = params | {"1": {"0": params["1"]["0"] | {"kernel": params["1"]["0"]["kernel"][order]}}}
    logits = jax.jit(layer)
    np.testing.assert_allclose(logits(permuted, x[:, order]), logits(params, x), rtol=1e-4, atol=1e-3)
    assert not np.allclose(logits(params, x[:, order]), logits(params, x), rtol=0.1)


def test_what_was_measured_reaches_the_published_figures():
    """Per cent of the 1000 test signals, README of greydanus/mnist1d, within two points or better."""
    published = {False: (32, 68, 94, 91), True: (32, 68, 56, 57)}
    found = {(s["setting"]["model"], s["setting"]["shuffled"]): s for s in json.loads(RESULTS.read_text())["settings"]}
    for shuffled, figures in published.items():
        for model, figure in zip(MODELS, figures, strict=True):
            assert 100 * found[model, shuffled]["metrics"]["test/accuracy"]["mean"] >= figure - 2


@pytest.mark.slow
def test_order_is_worth_more_than_fifteen_points_to_the_cnn():
    """After a fifth of the steps; the published difference is 38 points."""
    config = dataclasses.replace(Config(), num_steps=1200)
    plain, shuffled = (
        fdl.run(build, dataclasses.replace(config, shuffled=s), seed=0).metrics["test/accuracy"] for s in (False, True)
    )
    assert plain > 0.85
    assert shuffled < plain - 0.15
