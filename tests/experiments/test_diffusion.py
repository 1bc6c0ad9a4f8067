"""Diffusion: the noise that is mixed in, and whether the samples can be told from images never trained on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

import fdl
from experiments.diffusion import Config, build, kept, noised, sample

CONFIG = Config()


def test_the_schedule_falls_from_an_image_to_noise():
    share = np.asarray(kept(CONFIG))
    assert (np.diff(share) < 0).all()
    assert share[0] > 0.99
    assert share[-1] < 1e-5
    assert share[49] == pytest.approx(np.cos((0.5 + 0.008) / 1.008 * np.pi / 2) ** 2, abs=1e-3)


def test_noised_images_have_the_mean_and_variance_of_equation_4():
    """Of a constant image c: mean sqrt(a_t) c, variance 1 - a_t."""
    noise = np.random.default_rng(0).normal(size=(3, 20_000)).astype(np.float32)
    time = jnp.array([0, 50, 99])
    mixed = jax.jit(lambda noise: noised(jnp.full(noise.shape, 0.8), time, noise, CONFIG))(noise)
    x, share = np.asarray(mixed), np.asarray(kept(CONFIG))[time]
    np.testing.assert_allclose(x.mean(1), np.sqrt(share) * 0.8, atol=0.03)  # 4 standard errors
    np.testing.assert_allclose(x.var(1), 1 - share, rtol=0.05)


def test_the_noise_taken_for_nothing_costs_its_variance():
    """A network that predicts 0 has the loss E[e^2] = 1 in each pixel."""
    task = build(CONFIG).task
    shapes, state = jax.eval_shape(task.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    assert task.objective is not None
    objective = jax.jit(task.objective, static_argnames="train")
    loss = objective(params, state, {"x": np.zeros((300, 8, 8, 1))}, key=jax.random.key(1), train=True).loss
    assert loss.shape == (300, 64)
    assert float(loss.mean()) == pytest.approx(1, abs=0.05)


def told_apart(one: np.ndarray, other: np.ndarray) -> float:
    """The accuracy of a nearest neighbour that guesses which set an image is from: 1/2 for sets of one distribution.

    Leave-one-out (Lopez-Paz & Oquab, Revisiting classifier two-sample tests, 2017).
    """
    x, y = np.concatenate([one, other]), np.repeat([0, 1], [len(one), len(other)])
    neighbor = NearestNeighbors(n_neighbors=2).fit(x).kneighbors(x, return_distance=False)[:, 1]
    return float((y[neighbor] == y).mean())


@pytest.mark.slow
def test_samples_are_nearly_test_images_and_no_copies():
    """Real images score 0.47 and a Gaussian with the mean and covariance of the images 0.89."""
    train, test = (fdl.data.load("digits", split=split) for split in ("train", "test"))
    result = fdl.run(build, CONFIG)
    draw = jax.jit(lambda params, key: sample(params, key, len(test), CONFIG))
    new, seen, held = (np.reshape(x, (-1, 64)) for x in (draw(result.params, jax.random.key(1)), train["x"], test["x"]))
    assert result.metrics["test/loss"] < 0.23

    rng = np.random.default_rng(0)
    assert told_apart(seen[rng.permutation(len(seen))[: len(held)]], held) < 0.55
    blob = rng.multivariate_normal(seen.mean(0), np.cov(seen.T), len(held)).clip(0, 1)
    assert told_apart(blob, held) > 0.85
    assert told_apart(new, held) < 0.75

    digits = KNeighborsClassifier(3).fit(seen, train["y"]).predict(new)
    assert np.bincount(digits, minlength=10).min() >= 0.03 * len(held)
    to_seen = NearestNeighbors(n_neighbors=1).fit(seen)
    distance, of_held = (to_seen.kneighbors(x)[0].mean() for x in (new, held))
    assert distance > 0.9 * of_held  # no nearer to training images than test images are
