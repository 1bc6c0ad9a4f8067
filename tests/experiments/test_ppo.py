"""PPO on CartPole: the environment and the advantages against plain NumPy, and the return that counts as solved."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

import fdl
from experiments.ppo import Config, advantages, build, move


def by_hand(x: np.ndarray, action: int) -> tuple[list[float], bool]:
    """Equations of Barto, Sutton & Anderson (1983, appendix) without friction, as solved for the two accelerations."""
    position, velocity, angle, spin = (float(v) for v in x)
    force = 10.0 if action == 1 else -10.0
    total, moment = 1.0 + 0.1, 0.1 * 0.5
    inner = (-force - moment * spin**2 * math.sin(angle)) / total
    turn = (9.8 * math.sin(angle) + math.cos(angle) * inner) / (0.5 * (4 / 3 - 0.1 * math.cos(angle) ** 2 / total))
    pull = (force + moment * (spin**2 * math.sin(angle) - turn * math.cos(angle))) / total
    now = [position + 0.02 * velocity, velocity + 0.02 * pull, angle + 0.02 * spin, spin + 0.02 * turn]
    return now, abs(now[0]) > 2.4 or abs(now[2]) > math.radians(12)


def test_the_environment_follows_the_equations_for_200_random_states():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (200, 4)) * [2.5, 3.0, 0.25, 3.0]
    action = rng.integers(0, 2, 200)
    expected = [by_hand(*pair) for pair in zip(x, action, strict=True)]
    got, over = jax.jit(move)(x.astype(np.float32), action)
    np.testing.assert_allclose(got, [pair[0] for pair in expected], rtol=1e-4, atol=1e-5)
    assert over.tolist() == [pair[1] for pair in expected]
    assert 20 < int(over.sum()) < 180


def test_advantages_are_those_of_a_plain_loop():
    """Within an episode the sum over later errors, weighted by (discount * trace)^l; nothing crosses its end."""
    rng, config = np.random.default_rng(0), Config(discount=0.9, trace=0.7)
    value, following = rng.normal(size=(2, 12, 3))
    done = rng.random((12, 3)) < 0.3
    expected = np.zeros((12, 3))
    for env in range(3):
        for start in range(12):
            for later in range(start, 12):
                error = 1 + 0.9 * following[later, env] - value[later, env]
                expected[start, env] += (0.9 * 0.7) ** (later - start) * error
                if done[later, env]:
                    break
    arrays = (array.astype(np.float32) for array in (value, following))
    got = jax.jit(advantages, static_argnums=3)(*arrays, done, config)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_it_solves_cartpole(seed):
    metrics = fdl.run(build, Config(), seed=seed).metrics
    assert metrics["test/return"] >= 475
    assert metrics["train/return"] >= 475  # with actions drawn from the policy
