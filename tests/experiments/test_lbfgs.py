"""L-BFGS ends at the minimum that scikit-learn's Newton method finds."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import fdl
from experiments.lbfgs import Config, biopsies, build


def fitted(config: Config) -> np.ndarray:
    """The 30 weights and the bias."""
    params = fdl.run(build, config).params
    return np.concatenate([np.ravel(params["kernel"]), params["bias"]])


def reference(config: Config) -> np.ndarray:
    solver = LogisticRegression(C=config.inverse_penalty, solver="newton-cholesky", tol=1e-12).fit(*biopsies())
    return np.concatenate([solver.coef_[0], solver.intercept_])


@pytest.mark.parametrize("inverse_penalty", [1.0, pytest.param(0.1, marks=pytest.mark.slow)])
def test_every_coefficient_is_that_of_scikit_learn(inverse_penalty):
    config = Config(inverse_penalty)
    np.testing.assert_allclose(fitted(config), reference(config), rtol=1e-4)


@pytest.mark.slow
def test_in_float64_to_nine_digits():
    with jax.enable_x64(True):
        np.testing.assert_allclose(fitted(Config()), reference(Config()), rtol=1e-9)


@pytest.mark.slow
def test_the_penalty_matters():
    """Agreement would be cheap if C = 1 and C = 0.1 had nearly the same minimum."""
    assert np.abs(reference(Config(1.0)) - reference(Config(0.1))).max() > 0.1
