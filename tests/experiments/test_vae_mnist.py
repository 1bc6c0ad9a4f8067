"""The VAE on MNIST: the network and the two terms of the PyTorch example, and the bound that was reached."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest

import fdl
from experiments.published.vae_mnist import Config, build

pytestmark = pytest.mark.usefixtures("fdl_data")
RESULTS = Path(__file__).parents[2] / "experiments" / "results"


def test_parameters_are_those_of_the_pytorch_example():
    """fc1 784 -> 400, fc21 and fc22 400 -> 20, fc3 20 -> 400, fc4 400 -> 784, each with a bias."""
    sizes = [(784, 400), (400, 20), (400, 20), (20, 400), (400, 784)]
    params, _ = jax.eval_shape(build(Config()).task.init, jax.random.key(0))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == sum(a * b + b for a, b in sizes) == 652_824


def test_a_decoder_of_zeros_costs_log_2_a_pixel_and_a_posterior_like_the_prior_costs_nothing():
    """All parameters 0: q(z | x) = N(0, I) and p = 1/2 for every pixel, whatever its grey value."""
    experiment = build(Config())
    shapes, state = jax.eval_shape(experiment.task.init, jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    batch = {"x": experiment.evaluate["test"].arrays["tree"]["x"][:4]}
    assert experiment.task.objective is not None
    outcome = jax.jit(experiment.task.objective, static_argnames="train")(
        params, state, batch, key=jax.random.key(1), train=False
    )
    np.testing.assert_allclose(outcome.metrics["reconstruction"], 784 * np.log(2), rtol=1e-5)
    np.testing.assert_allclose(outcome.metrics["kl"], 0, atol=1e-5)


@pytest.mark.slow
def test_one_epoch_is_below_what_the_mean_image_costs():
    """The best image without latents, the mean of the training images, costs 206 nats."""
    experiment = build(Config(num_epochs=1))
    mean = np.clip(experiment.dataset.arrays["tree"]["x"].mean(0, dtype=np.float64), 1e-6, 1 - 1e-6)
    images = experiment.evaluate["test"].arrays["tree"]["x"]
    without = -(images * np.log(mean) + (1 - images) * np.log1p(-mean)).sum((1, 2, 3)).mean()
    assert without == pytest.approx(206, abs=1)
    metrics = fdl.run(build, Config(num_epochs=1), seed=0).metrics
    assert metrics["test/loss"] < 135
    assert metrics["test/loss"] == pytest.approx(metrics["test/reconstruction"] + metrics["test/kl"], rel=1e-5)
    assert metrics["test/kl"] > 10  # the latents are used


def test_the_committed_figure_is_the_measured_one_1_7_nats_above_104():
    saved = json.loads((RESULTS / "vae_mnist.json").read_text())
    (setting,) = saved["settings"]
    loss, parts = setting["metrics"]["test/loss"], [setting["metrics"][f"test/{p}"] for p in ("reconstruction", "kl")]
    assert (len(loss["values"]), saved["programs"], setting["failed"]) == (4, 1, 0)
    np.testing.assert_allclose(loss["values"], np.add(*(part["values"] for part in parts)), rtol=1e-4)
    assert loss["mean"] == pytest.approx(105.7, abs=0.1)
