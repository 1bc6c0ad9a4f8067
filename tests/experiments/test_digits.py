"""The digits: the accuracy that the docstring promises, and the augmentation by itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from experiments.digits import Config, build, jitter


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_at_least_98_percent_of_the_held_out_fifth(seed):
    assert fdl.run(build, Config(), seed=seed).metrics["test/accuracy"] >= 0.98


def test_the_test_set_is_a_held_out_fifth():
    """360 of 1797 images, none of which is a training image as well."""
    train, test = (fdl.data.load("digits", split=split) for split in ("train", "test"))
    assert build(Config()).evaluate["test"].num_eval_batches(1) == len(test) == 360
    assert len(train) == 1437
    assert not {image.tobytes() for image in test["x"]} & {image.tobytes() for image in train["x"]}


def test_jitter_without_shift_and_zoom_changes_nothing():
    images = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1))
    np.testing.assert_allclose(jitter(images, jax.random.key(1), 0.0, 0.0), images, atol=1e-6)


def test_jitter_moves_the_centre_of_a_blob_by_at_most_the_shift():
    """Linear interpolation keeps mass and centre of what stays inside."""
    blob = jnp.zeros((200, 8, 8, 1)).at[:, 3:5, 3:5].set(0.25)
    moved = jitter(blob, jax.random.key(0), 1.0, 0.0)[..., 0]
    np.testing.assert_allclose(moved.sum((1, 2)), 1.0, atol=1e-5)
    rows = (moved.sum(2) * jnp.arange(8)).sum(1) - 3.5
    columns = (moved.sum(1) * jnp.arange(8)).sum(1) - 3.5
    for centre in (rows, columns):
        assert float(jnp.abs(centre).max()) <= 1.0 + 1e-5
        assert 0.5 < float(centre.std()) < 0.65  # of U[-1, 1]: 1 / sqrt(3) = 0.577
    assert abs(float(jnp.corrcoef(rows, columns)[0, 1])) < 0.2


def test_zoom_widens_and_narrows():
    """With the position read at zoom * i, a factor above 1 makes the picture smaller, its mass too."""
    blob = jnp.zeros((200, 8, 8, 1)).at[:, 3:5, 3:5].set(0.25)
    mass = jitter(blob, jax.random.key(0), 0.0, 0.2).sum((1, 2, 3))
    assert 0.65 < float(mass.min()) < 0.95
    assert 1.05 < float(mass.max()) < 1.6
