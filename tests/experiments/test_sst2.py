"""SST-2 from random vectors: the splits of the literature, what padding does, the sizes, and the committed accuracy."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from experiments.published.sst2 import UNKNOWN, Config, build, forget, network

pytestmark = pytest.mark.usefixtures("fdl_data")
RESULTS = Path(__file__).parents[2] / "experiments/results/sst2.json"
MODELS = pytest.mark.parametrize("model", ["cnn", "lstm"])


def split(name: str) -> fdl.data.Arrays:
    return fdl.data.load("sst2", split=name)


def test_the_splits_are_kims():
    """Whole sentences, 6920 / 872 / 1821 (Kim, 2014, table 1: 9613 of SST-2, 1821 of them for testing)."""
    sizes = [len(split(name)) for name in ("train", "dev", "test")]
    assert sizes == [6920, 872, 1821]
    assert sum(sizes) == 9613


def test_the_vocabulary_knows_no_word_of_dev_and_test_alone():
    """All ids of dev and test have been seen in training; what has not is the unknown word, 5 % of theirs."""
    known = np.unique(split("train")["tokens"])
    for name in ("dev", "test"):
        tokens, lengths = split(name)["tokens"], split(name)["lengths"]
        assert set(np.unique(tokens)) <= {*known.tolist(), UNKNOWN}
        assert 0.04 < (tokens == UNKNOWN).sum() / lengths.sum() < 0.07
    assert UNKNOWN not in known


def test_few_test_sentences_are_training_sentences():
    """Those that are, are a few words long."""
    train = {row.tobytes() for row in split("train")["tokens"]}
    assert sum(row.tobytes() in train for row in split("test")["tokens"]) <= 5


def test_always_the_same_answer_is_right_in_half_of_the_test_sentences():
    assert split("test")["y"].mean() == pytest.approx(909 / 1821)


@MODELS
def test_more_padding_changes_nothing(model):
    config = Config(model=model, features=4, filters=3, units=3)
    net = network(config, 50)
    params, _ = fdl.init(net, jax.random.key(0))
    tokens, lengths = jnp.array([[7, 3, 9, 0, 0, 0], [5, 0, 0, 0, 0, 0]]), jnp.array([3, 1])
    apply = jax.jit(lambda x: net.apply(params, {}, x, lengths=lengths)[0])
    np.testing.assert_allclose(apply(tokens), apply(jnp.pad(tokens, ((0, 0), (0, 7)))), atol=1e-6)
    assert not np.allclose(apply(tokens), apply(tokens.at[:, 0].set(11)), atol=1e-6)


def test_the_cnn_finds_a_phrase_wherever_it_stands():
    """The maximum over time does not know the place; that is what a convolution is for."""
    net = network(Config(features=4, filters=3), 50)
    params, _ = fdl.init(net, jax.random.key(0))
    sentences = jnp.array([[2, 2, 2, 8, 9, 2, 2, 2, 2, 2], [2, 2, 2, 2, 2, 2, 8, 9, 2, 2]])
    one, other = net.apply(params, {}, sentences, lengths=jnp.array([10, 10]))[0]
    np.testing.assert_allclose(one, other, atol=1e-6)


def test_words_are_forgotten_at_the_rate_and_padding_is_not():
    tokens = jnp.where(jnp.arange(1000) < 600, 5, 0) * jnp.ones((50, 1), jnp.int32)
    new = np.asarray(forget(tokens, jax.random.key(0), 0.3))
    assert (new[:, 600:] == 0).all()
    assert set(np.unique(new[:, :600])) == {UNKNOWN, 5}
    assert (new[:, :600] == UNKNOWN).mean() == pytest.approx(0.3, abs=0.02)


@pytest.mark.slow
def test_one_epoch_of_a_small_one_is_better_than_guessing():
    """6 standard errors above one half, on the dev set."""
    config = Config(features=32, filters=32, num_epochs=1, learning_rate=3e-3)
    experiment = build(config)
    experiment = dataclasses.replace(experiment, evaluate={"dev": experiment.evaluate["dev"]})
    assert fdl.run(experiment).metrics["dev/accuracy"] > 0.6


def test_the_committed_figures():
    settings = {s["setting"]["model"]: s["metrics"] for s in json.loads(RESULTS.read_text())["settings"]}
    assert set(settings) == {"cnn", "lstm"}
    for metrics in settings.values():
        assert len(metrics["test/accuracy"]["values"]) >= 3
        assert metrics["test/accuracy"]["mean"] >= 0.79
