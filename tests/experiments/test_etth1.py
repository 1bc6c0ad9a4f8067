"""ETTh1: the months and windows of the papers, what the naive forecasts cost, and what the linear maps do."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from experiments.published.etth1 import (
    HORIZON,
    PAST,
    PUBLISHED,
    SETTINGS,
    Config,
    build,
    naive,
    network,
    season,
    trend,
    windows,
)

RESULTS = Path(__file__).parents[2] / "experiments/results/etth1.json"


@pytest.mark.usefixtures("fdl_data")
def test_as_many_windows_as_in_the_papers():
    """Every start in 12, 4 and 4 months of 30 days; validation and test windows look back into the months before."""
    months = {"train": 12 * 720 - PAST, "val": 4 * 720, "test": 4 * 720}
    for split, hours in months.items():
        assert len(windows(split)) == hours - HORIZON + 1


@pytest.mark.usefixtures("fdl_data")
def test_no_forecast_hour_of_one_split_is_in_another():
    """What is forecast first in a split is the hour behind the last one of the split before."""
    raw = fdl.data.load("etth1", split="all")["x"]
    train = raw[: 12 * 720]
    scaled = (raw - train.mean(0)) / train.std(0)
    for split, first in (("train", PAST), ("val", 12 * 720), ("test", 16 * 720)):
        np.testing.assert_allclose(windows(split).series[PAST], scaled[first], rtol=1e-5)
    np.testing.assert_allclose(windows("train").series[-1], scaled[12 * 720 - 1], rtol=1e-5)
    np.testing.assert_allclose(windows("val").series[-1], scaled[16 * 720 - 1], rtol=1e-5)
    np.testing.assert_allclose(windows("train").series.std(0), 1, rtol=1e-4)


@pytest.mark.usefixtures("fdl_data")
def test_naive_forecasts():
    """The last value, Zeng et al., table 2, "Repeat": 1.295 and .713; yesterday is better, the mean of 0 is not."""
    assert list(naive(1).values()) == pytest.approx([1.295, 0.713], abs=1e-3)
    assert naive(24)["test/mse"] < 0.52 < windows("test").series[PAST:].var()


def test_parameters_of_the_linear_maps():
    """336 x 96 weights and 96 biases, for all series together; two such maps in DLinear."""
    count = {name: sum(leaf.size for leaf in jax.tree.leaves(fdl.abstract(network(name))[0])) for name in SETTINGS}
    assert [count[name] for name in PUBLISHED] == [32352, 32352, 64704]


def test_trend_and_season_add_up_and_the_mean_is_that_of_25_hours():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, PAST)), jnp.float32)
    np.testing.assert_allclose(trend(x)[..., 12], x[..., :25].mean(-1), atol=1e-5)
    start = np.concatenate([np.repeat(x[..., :1], 12, -1), x[..., :13]], -1).mean(-1)
    np.testing.assert_allclose(trend(x)[..., 0], start, atol=1e-5)
    np.testing.assert_allclose(trend(x) + season(x), x, atol=1e-6)


@pytest.mark.parametrize("name", ["nlinear", "lstm", "transformer"])
def test_a_raised_series_raises_its_forecast_by_as_much_and_no_other(name):
    model, rng = network(name), np.random.default_rng(1)
    params, _ = fdl.init(model, jax.random.key(0))
    x = rng.normal(size=(2, PAST, 7)).astype(np.float32)
    raised = x.copy()
    raised[..., 3] += 5
    call = jax.jit(lambda x: model(params, x))
    expected = np.zeros(7)
    expected[3] = 5
    np.testing.assert_allclose(call(raised) - call(x), np.broadcast_to(expected, (2, HORIZON, 7)), atol=1e-4)


def test_committed_figures_reach_the_published_ones():
    settings = json.loads(RESULTS.read_text())["settings"]
    measured = {one["setting"]["model"]: one["metrics"] for one in settings}
    assert list(measured) == list(SETTINGS)
    for name, published in PUBLISHED.items():
        for metric, figure in zip(("test/mse", "test/mae"), published, strict=True):
            assert measured[name][metric]["mean"] < figure + 3e-3  # which is the deviation of a seed
    assert all(
        metrics["test/mse"]["mean"] < 0.43 for metrics in measured.values()
    )  # the seasonal-naive line is at .512


@pytest.mark.slow
@pytest.mark.usefixtures("fdl_data")
def test_nlinear_beats_yesterday_by_a_fifth():
    """A closed-form ridge regression has .370 / .391; Informer, the Transformer of 2021, has .865 / .713."""
    metrics = fdl.run(build, Config("nlinear"), seed=0).metrics
    assert metrics["test/mse"] < 0.385
    assert metrics["test/mae"] < 0.405
