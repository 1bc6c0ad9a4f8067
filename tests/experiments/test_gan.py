"""The Wasserstein GAN: its penalty and its pair of optimizers by themselves, and the modes it covers."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from experiments.gan import MODES, RADIUS, SPREAD, Config, build, centres, gradient_penalty, players, points


def slopes(critic: Any, real: np.ndarray, fake: np.ndarray) -> np.ndarray:
    key = jax.random.key(1)
    return np.asarray(jax.jit(lambda real, fake: gradient_penalty(critic, real, fake, key))(real, fake))


def test_the_penalty_of_a_linear_critic_is_its_slope_minus_one_squared():
    """The gradient of w . x is w everywhere: |(3, 4)| = 5."""
    real, fake = np.random.default_rng(0).normal(size=(2, 6, 2)).astype(np.float32)
    penalty = slopes(lambda x: 3.0 * x[..., 0] + 4.0 * x[..., 1], real, fake)
    np.testing.assert_allclose(penalty, np.full(6, 16.0), rtol=1e-5)


def test_the_penalty_is_taken_between_a_real_and_a_fake_point():
    """The slope of |x|^2 / 2 at x is |x|: between (1, 0) and (2, 0) the penalty fills 0 to 1."""
    real, fake = np.tile(np.array([[1, 0], [2, 0]], np.float32)[:, None], (1, 500, 1))
    penalty = slopes(lambda x: jnp.square(x).sum(-1) / 2, real, fake)
    assert 0 <= penalty.min() < 0.001
    assert 0.98 < penalty.max() <= 1
    assert penalty.mean() == pytest.approx(1 / 3, abs=0.05)  # of u^2, u in U[0, 1)


def test_a_player_without_gradients_keeps_its_optimizer_state():
    params = {"a": jnp.ones(3), "b": jnp.ones(2)}
    both: Any = players(a=optax.adam(0.1), b=optax.sgd(0.5))
    alone: Any = optax.adam(0.1)
    state = both.init(params)
    updates, moved = both.update({"a": jnp.arange(3.0)}, state, params)
    expected, expected_state = alone.update(jnp.arange(3.0), alone.init(params["a"]), params["a"])
    assert updates.keys() == {"a"}
    np.testing.assert_array_equal(updates["a"], expected)
    assert jax.tree.structure(moved) == jax.tree.structure(state)
    assert moved["b"] is state["b"]
    assert int(moved["a"][0].count) == int(expected_state[0].count) == 1


def test_the_points_lie_around_eight_centres():
    drawn, middle = (
        np.asarray(array) for array in jax.jit(lambda key: (points(key, 4000), centres()))(jax.random.key(0))
    )
    distances = np.linalg.norm(drawn[:, None] - middle, axis=-1)
    assert np.bincount(distances.argmin(-1), minlength=MODES).min() > 400  # of 500 expected
    assert np.square(distances.min(-1)).mean() == pytest.approx(2 * SPREAD**2, rel=0.1)  # of two coordinates
    np.testing.assert_allclose(np.linalg.norm(middle, axis=-1), RADIUS, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_all_modes_are_covered_by_good_samples(seed):
    metrics = fdl.run(build, Config(), seed=seed).metrics
    assert metrics["samples/modes"] == 8
    assert metrics["samples/good"] > 0.88
