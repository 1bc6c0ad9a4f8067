"""Transfer of a digits network: what is kept, what is frozen, and that no class or image is in two places."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import fdl
from experiments.published import transfer_digits
from experiments.published.transfer_digits import Config, build, digits, few

RESULTS = Path(__file__).parents[2] / "experiments/results"


@pytest.fixture
def features(monkeypatch):
    """Features of ones, in place of the trained ones."""
    shapes, _ = fdl.abstract(transfer_digits.network())
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes["features"])
    monkeypatch.setattr(transfer_digits, "pretrained", lambda: ones)
    return ones


def test_every_image_is_old_or_new():
    for split, size in (("train", 1437), ("test", 360)):
        old, new = digits(split, (0, 5)), digits(split, (5, 10))
        assert len(old) + len(new) == size
        assert set(old["y"]) == set(new["y"]) == set(range(5))
        assert not {x.tobytes() for x in old["x"]} & {x.tobytes() for x in new["x"]}


def test_a_few_labels_of_each_class():
    train = digits("train", (5, 10))
    chosen = few(train, 3, draw=0)
    assert np.bincount(chosen["y"]).tolist() == [3] * 5
    assert (chosen["x"] != few(train, 3, draw=1)["x"]).any()


def test_frozen_features_are_the_old_ones_to_the_bit_and_tuned_ones_move(features):
    def after(start) -> dict:
        return jax.device_get(fdl.run(build(Config(start, num_steps=3)), seed=0).params)

    jax.tree.map(np.testing.assert_array_equal, after("frozen")["features"], features)
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), after("tuned")["features"], features)
    assert any(jax.tree.leaves(moved))


def test_the_new_layer_is_drawn_alike_whatever_the_features_are(features):
    scratch, frozen = (build(Config(start)).task.init(jax.random.key(0))[0] for start in ("scratch", "frozen"))
    np.testing.assert_array_equal(scratch["head"]["kernel"], frozen["head"]["kernel"])


def test_committed_figures_are_far_above_guessing():
    settings = json.loads((RESULTS / "transfer_digits.json").read_text())["settings"]
    for one in settings:
        accuracy = one["metrics"]["test/accuracy"]["mean"]
        assert accuracy > (0.9 if one["setting"]["labels"] == 20 else 0.4)  # guessing: 0.2


@pytest.mark.slow
def test_a_linear_layer_on_old_features_knows_new_digits():
    """From 25 labels; guessing has 20 %."""
    assert fdl.run(build, Config("frozen"), seed=0).metrics["test/accuracy"] > 0.8
