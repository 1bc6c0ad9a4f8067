"""The chorales: what counts in the likelihood, that nothing sees the future, and the committed figures."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from experiments.published.chorales import CELLS, Config, build, network, next_frame

RESULTS = Path(__file__).parents[2] / "experiments/results"
SMALL = Config("lstm", hidden=6, dropout=0.0)


@pytest.fixture(scope="module")
def params():
    return fdl.init(network(SMALL), jax.random.key(0))[0]


def rolls(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return (rng.random((*shape, 88)) < 0.05).astype(np.uint8)


@pytest.mark.usefixtures("fdl_data")
def test_the_split_of_the_papers():
    sizes = [len(fdl.data.load("jsb-chorales", split=split)) for split in ("train", "val", "test")]
    assert sizes == [229, 76, 77]


def test_knowing_nothing_costs_88_bits_a_frame(params):
    """All logits 0, so every key is a coin; padding and the first frame have no part in it."""
    objective = next_frame(network(SMALL)).objective
    assert objective is not None
    zeros = jax.tree.map(jnp.zeros_like, params)
    batch = {"x": rolls(np.random.default_rng(0), 2, 7), "lengths": jnp.array([7, 3])}
    outcome = objective(zeros, {}, batch, key=None, train=False)
    np.testing.assert_allclose(outcome.loss, np.full((2, 6), 88 * math.log(2)), rtol=1e-5)
    assert outcome.weight is not None
    assert outcome.weight.tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]]


def test_a_frame_is_predicted_from_those_before_it_alone(params):
    objective = next_frame(network(SMALL)).objective
    assert objective is not None
    x = rolls(np.random.default_rng(1), 1, 9)
    changed = x.copy()
    changed[0, 5] = 1 - changed[0, 5]
    one, other = (
        objective(params, {}, {"x": v, "lengths": jnp.array([9])}, key=None, train=False) for v in (x, changed)
    )
    same = np.asarray(one.loss == other.loss)[0]
    assert same.tolist() == [True] * 4 + [False] * 4  # losses are of frames 1 to 8


def test_committed_figures():
    """RNN and LSTM are better than the published 8.91 and 8.45; the GRU misses 8.43, held to what was measured."""
    settings = json.loads((RESULTS / "chorales.json").read_text())["settings"]
    nll = {one["setting"]["cell"]: one["metrics"]["test/nll"]["mean"] for one in settings}
    assert set(nll) == set(CELLS)
    for cell, published in (("rnn", 8.91), ("lstm", 8.45), ("gru", 8.505)):
        assert nll[cell] < published + 0.005


@pytest.mark.slow
@pytest.mark.usefixtures("fdl_data")
def test_ten_epochs_beat_the_frequencies_of_the_keys():
    """Each key by itself, with its share of the training frames, needs 10.95 nats a frame."""
    train, val = (fdl.data.load("jsb-chorales", split=split) for split in ("train", "val"))
    share = train["x"].sum((0, 1)) / train["lengths"].sum()
    p = np.clip(share, 1e-4, 1)
    on = val["x"].sum((0, 1)) / val["lengths"].sum()
    frequencies = -(on * np.log(p) + (1 - on) * np.log1p(-p)).sum()
    nll = fdl.run(build, Config("gru", hidden=64, num_epochs=10), seed=0).metrics["val/nll"]
    assert nll < 10 < frequencies
