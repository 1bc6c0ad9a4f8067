"""The variational autoencoder: its two terms by themselves, and the bound that the docstring promises."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.stats import binom

import fdl
from experiments.vae import Config, binomial_nll, build


def test_the_likelihood_of_a_pixel_is_scipys_binomial():
    counts, logits = np.arange(17.0, dtype=np.float32), np.linspace(-8, 8, 17, dtype=np.float32)
    expected = -binom.logpmf(counts, 16, 1 / (1 + np.exp(-logits.astype(np.float64))))
    np.testing.assert_allclose(jax.jit(binomial_nll)(logits, counts / 16), expected, rtol=1e-4)


def test_the_divergence_is_zero_where_the_encoder_gives_the_prior():
    """With a last layer of zeros, q(z | x) = N(0, I); with a mean of m in each dimension, it is latents * m^2 / 2."""
    task = build(Config(latents=3)).task
    shapes, state = jax.eval_shape(task.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.1, np.float32), shapes)
    params["encoder"]["head"]["kernel"] *= 0
    batch = {"x": np.random.default_rng(0).random((4, 8, 8, 1), np.float32)}
    assert task.objective is not None
    objective = jax.jit(task.objective, static_argnames="train")
    for mean in (0.0, 2.0):
        params["encoder"]["head"]["bias"] = np.array([mean] * 3 + [0.0] * 3, np.float32)
        outcome = objective(params, state, batch, key=jax.random.key(2), train=False)
        np.testing.assert_allclose(outcome.metrics["kl"], 3 * mean**2 / 2, atol=1e-6)
        np.testing.assert_allclose(outcome.loss, outcome.metrics["reconstruction"] + 3 * mean**2 / 2, rtol=1e-6)


@pytest.mark.slow
def test_the_bound_on_test_images():
    """A binomial for each pixel on its own needs 255 nats."""
    metrics = fdl.run(build, Config(), seed=0).metrics
    assert metrics["test/loss"] < 97
    assert metrics["test/loss"] == pytest.approx(metrics["test/reconstruction"] + metrics["test/kl"], rel=1e-5)
    assert metrics["test/kl"] > 10  # the latents are used
