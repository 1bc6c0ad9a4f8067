"""The denoising autoencoder: its noise, the baselines, and that it beats the best linear map."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import fdl
from experiments.published.denoising_mnist import Config, baselines, build, mean_squared_error, noisy_images

pytestmark = pytest.mark.usefixtures("fdl_data")
RESULTS = Path(__file__).parents[2] / "experiments" / "results"
# Measured by `baselines`, test below.
NOISY, MEDIAN, PCA, LINEAR = 0.1155, 0.0385, 0.0232, 0.0177


def test_noise_has_its_variance_and_is_the_same_at_every_call():
    clean, noisy = noisy_images(Config(noise=0.5), "test")
    assert np.var(noisy - clean, dtype=np.float64) == pytest.approx(0.25, rel=0.002)  # 7.8 million draws
    np.testing.assert_array_equal(noisy, noisy_images(Config(noise=0.5), "test")[1])


def test_the_task_adds_noise_in_evaluation_too():
    """Noise n ~ N(0, 1/4) on a white pixel, clipped to 0..1, leaves E[n^2; 0 < n < 1] + P(n > 1) = .0923 + .0228."""
    experiment = build(Config(noise=0.5))
    shapes, state = jax.eval_shape(experiment.task.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    batch = {"x": np.zeros((64, 28, 28, 1), np.float32)}
    assert experiment.task.objective is not None
    objective = jax.jit(experiment.task.objective, static_argnames="train")
    one, two = (objective(params, state, batch, key=jax.random.key(seed), train=False) for seed in range(2))
    assert float(one.metrics["noisy_mse"].mean()) == pytest.approx(0.1151, abs=0.003)  # 50 thousand draws
    assert (one.metrics["noisy_mse"] != two.metrics["noisy_mse"]).all()
    np.testing.assert_allclose(one.metrics["denoised_mse"], 0.25)  # sigmoid(0) = 1/2 for every pixel


@pytest.mark.slow
def test_baselines():
    config = Config()
    clean, _ = noisy_images(config, "test")
    errors = [mean_squared_error(images, clean) for images in baselines(config).values()]
    np.testing.assert_allclose(errors, [NOISY, MEDIAN, PCA, LINEAR], atol=1e-4)


@pytest.mark.slow
def test_one_epoch_beats_pca_of_the_same_size():
    """Seed 0 has .0177 after one epoch: the best linear map has as much, PCA with as many components .0232."""
    metrics = fdl.run(build, Config(num_epochs=1), seed=0).metrics
    assert metrics["test/noisy_mse"] == pytest.approx(NOISY, abs=5e-4)
    assert metrics["test/denoised_mse"] < 0.85 * PCA


def test_the_committed_figure_beats_every_linear_map():
    saved = json.loads((RESULTS / "denoising_mnist.json").read_text())
    (setting,) = saved["settings"]
    denoised, noisy = (setting["metrics"][f"test/{name}_mse"] for name in ("denoised", "noisy"))
    assert (len(denoised["values"]), setting["failed"]) == (2, 0)
    assert noisy["mean"] == pytest.approx(NOISY, abs=5e-4)
    assert max(denoised["values"]) < LINEAR
