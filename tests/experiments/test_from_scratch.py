"""The hand-written NumPy network and the fdl task are the same algorithm."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from experiments.from_scratch import Config, build, by_hand, compare, main


@pytest.mark.parametrize("num_epochs", [500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_the_parameters_agree(num_epochs):
    assert compare(Config(num_epochs=num_epochs)).difference < 1e-9


def test_they_moved_and_for_the_better():
    """Agreement would be cheap if nothing were learned."""
    config = Config(num_epochs=500)
    loss = fdl.run(build, config).history["train/loss"]
    assert loss[-1] < 0.9 * loss[0]
    start, _ = build(config).task.init(fdl.fold(jax.random.key(0), "init"))
    end = by_hand(config, start)
    assert np.abs(end["0"]["kernel"] - np.asarray(start["0"]["kernel"])).max() > 0.01


def test_another_learning_rate_would_not_agree():
    """The factor n / 2 of the docstring matters: 1 % off, and the parameters are apart by far more than 1e-9."""
    right, wrong = (fdl.run(build, Config(rate, num_epochs=500)).params for rate in (0.01, 0.0101))
    assert np.abs(right["2"]["kernel"] - wrong["2"]["kernel"]).max() > 1e-4


def test_x64_stays_inside():
    compare(Config(num_epochs=1))
    assert jnp.result_type(float) == jnp.float32


@pytest.mark.slow
def test_both_wall_times_are_printed(capsys):
    main()
    _, numpy_line, fdl_line, difference = capsys.readouterr().out.splitlines()
    assert float(numpy_line.split()[1]) > 0
    assert float(fdl_line.split()[1]) > 0
    assert float(difference.split()[-1]) < 1e-9
