"""The adding problem and copy memory: what their sequences are, what guessing costs, and what a cell remembers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from experiments.published.memory import COPIED, Config, adding, build, copy, gradient_by_step, network

RESULTS = Path(__file__).parents[2] / "experiments/results"


def test_one_mark_in_each_half_and_the_sum_of_what_is_marked():
    batch = jax.device_get(adding(jax.random.key(0), 4000, 20))
    numbers, marks = batch["x"][..., 0], batch["x"][..., 1]
    assert (marks[:, :10].sum(1) == 1).all()
    assert (marks[:, 10:].sum(1) == 1).all()
    np.testing.assert_allclose(batch["y"], numbers[marks == 1].reshape(-1, 2).sum(1), rtol=1e-6)
    # Two uniform numbers have variance 2/12; the mean of 4000 squares has a standard error of .003.
    assert np.mean((batch["y"] - 1) ** 2) == pytest.approx(1 / 6, abs=0.012)


def test_copy_memory_says_the_symbols_after_the_marker():
    batch = jax.device_get(copy(jax.random.key(0), 50, 30))
    x, y = batch["x"].argmax(-1), batch["y"]
    assert x.shape == y.shape == (50, 30 + 2 * COPIED)
    np.testing.assert_array_equal(y[:, -COPIED:], x[:, :COPIED])
    assert set(np.unique(x[:, :COPIED])) == set(range(1, 9))
    assert ((x == 9).argmax(1) == x.shape[1] - COPIED - 1).all()
    assert (x[:, COPIED : -COPIED - 1] == 0).all()
    assert (y[:, :-COPIED] == 0).all()


def test_guessing_the_symbols_costs_what_the_docstring_says():
    """Blanks are certain, symbols one of eight: 10 log 8 nats in a sequence of 50 steps."""
    y = copy(jax.random.key(1), 10, 30)["y"]
    logits = jnp.where(jnp.arange(50)[None, :, None] < 40, jnp.eye(9)[0] * 99, -99 * jnp.eye(9)[0])
    loss = fdl.losses.softmax_cross_entropy(jnp.broadcast_to(logits, (10, 50, 9)), y)
    assert loss.mean() == pytest.approx(10 * math.log(8) / 50, rel=1e-4)


def test_training_draws_fresh_sequences_and_evaluation_the_same_ones():
    experiment = build(Config(length=10, num_steps=4))
    objective, (params, state) = experiment.task.objective, experiment.task.init(jax.random.key(0))
    assert objective is not None
    one, same, other = (objective(params, state, {}, key=jax.random.key(k), train=True).loss for k in (1, 1, 2))
    assert one.shape == (Config.batch_size,)
    np.testing.assert_array_equal(one, same)
    assert (one != other).all()
    assert objective(params, state, {}, key=jax.random.key(1), train=False).loss.shape == (500,)


def test_a_simple_recurrence_forgets_by_the_power_of_its_weights():
    """With a recurrent kernel of I / 2 and small inputs, tanh is the identity: the gradient halves with every step."""
    config = Config("rnn", length=12, hidden=4)
    params, _ = fdl.init(network(config), jax.random.key(0))
    params = jax.tree.map(lambda leaf: 1e-3 * leaf, params)
    params["rnn"]["recurrent"]["kernel"] = jnp.eye(4) / 2
    norms = gradient_by_step(config, params)
    np.testing.assert_allclose(norms[:-1] / norms[1:], 0.5, rtol=1e-3)


def test_committed_figures_solve_the_adding_problem_with_gates_alone():
    """Predicting 1 has 0.167."""
    settings = json.loads((RESULTS / "memory-adding.json").read_text())["settings"]
    losses = {one["setting"]["cell"]: one["metrics"]["test/loss"]["values"] for one in settings}
    assert max(losses["lstm"] + losses["gru"]) < 0.01
    assert min(losses["rnn"]) > 0.14


@pytest.mark.slow
def test_a_gru_solves_the_adding_problem_of_100_steps():
    loss = fdl.run(build, Config("gru", length=100, num_steps=800), seed=0).metrics["test/loss"]
    assert loss < 0.02  # an eighth of what predicting 1 has
