"""Double descent: which labels are wrong, how large the networks are, and the shape of the measured curves."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import fdl
from experiments.published.double_descent import Config, build, mislabelled

pytestmark = pytest.mark.usefixtures("fdl_data")
RESULTS = Path(__file__).parents[2] / "experiments/results/double_descent.json"


def test_a_share_of_the_labels_is_wrong_and_always_the_same_ones():
    """15 % of 4000: 600 with a standard deviation of 22.6; signals are what they were."""
    train = fdl.data.load("mnist1d", split="train")
    noisy = mislabelled(train, 0.15)
    wrong = noisy["y"] != train["y"]
    assert abs(int(wrong.sum()) - 600) < 4 * 22.6
    steps = (noisy["y"] - train["y"])[wrong] % 10
    assert set(np.unique(steps)) == set(range(1, 10))  # every other label
    assert noisy["y"].dtype == np.int32
    np.testing.assert_array_equal(noisy["x"], train["x"])
    np.testing.assert_array_equal(mislabelled(train, 0.15)["y"], noisy["y"])
    assert (mislabelled(train, 0.0)["y"] == train["y"]).all()
    # a larger share keeps the wrong labels of a smaller one
    assert (mislabelled(train, 0.3)["y"][wrong] == noisy["y"][wrong]).all()


def test_labels_are_wrong_in_training_alone():
    """2000 signals to fit, the 1000 of the test set as they were published; none of them is in both."""
    experiment = build(Config())
    fit, test = (experiment.evaluate[name] for name in ("fit", "test"))
    assert isinstance(fit, fdl.data.Arrays)
    assert isinstance(test, fdl.data.Arrays)
    assert (len(fit), len(test), experiment.steps_per_epoch()) == (2000, 1000, 20)
    np.testing.assert_array_equal(test["y"], fdl.data.load("mnist1d", split="test")["y"])
    assert not {signal.tobytes() for signal in fit["x"]} & {signal.tobytes() for signal in test["x"]}
    val = build(Config(tune=True)).evaluate["val"]
    assert isinstance(val, fdl.data.Arrays)
    assert not {signal.tobytes() for signal in fit["x"]} & {signal.tobytes() for signal in val["x"]}


@pytest.mark.parametrize("width", [4, 48, 192])
def test_parameters_grow_with_the_square_of_the_width(width):
    """40 w + w, w^2 + w, 10 w + 10."""
    params, _ = jax.eval_shape(build(Config(width=width)).task.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == width**2 + 52 * width + 10


def curve(metric: str, dropout: float = 0.0, weight_decay: float = 0.0) -> dict[int, float]:
    settings = json.loads(RESULTS.read_text())["settings"]
    return {
        s["setting"]["width"]: s["metrics"][metric]["mean"]
        for s in settings
        if (s["setting"]["dropout"], s["setting"]["weight_decay"]) == (dropout, weight_decay)
    }


def test_the_measured_error_falls_rises_and_falls_again():
    """Each time by more than twice 1.6 %, the standard deviation of an error on 1000 signals."""
    error, fit = curve("test/error"), curve("fit/error")
    peak = max((width for width in error if width >= 16), key=lambda width: error[width])
    valley = min(error[width] for width in error if width < peak)
    assert error[min(error)] - valley > 0.035
    assert error[peak] - valley > 0.035
    assert error[peak] - error[max(error)] > 0.035
    # it peaks where the training labels, wrong ones included, are only just fitted
    assert 24 <= peak <= 64
    assert fit[24] > 0.1
    assert fit[64] < 0.005


@pytest.mark.parametrize(("dropout", "weight_decay"), [(0.3, 0.0), (0.0, 1.0)])
def test_dropout_and_weight_decay_take_the_peak_away(dropout, weight_decay):
    error, against = curve("test/error"), curve("test/error", dropout, weight_decay)
    assert max(against[width] for width in (32, 48, 64)) < min(error[width] for width in (32, 48, 64)) - 0.035


@pytest.mark.slow
def test_a_wide_network_fits_wrong_labels_that_a_narrow_one_cannot():
    """With a fifth of the steps: 8 units miss most labels, 192 miss none, and dropout keeps 48 from fitting them."""
    found = {
        (width, dropout): fdl.run(
            build, dataclasses.replace(Config(), width=width, dropout=dropout, num_steps=1200), seed=0
        ).metrics
        for width, dropout in ((8, 0.0), (192, 0.0), (48, 0.3))
    }
    assert found[8, 0.0]["fit/error"] > 0.4
    assert found[192, 0.0]["fit/error"] < 0.01
    assert found[48, 0.3]["fit/error"] > 0.15
    assert found[192, 0.0]["test/error"] < 0.65
