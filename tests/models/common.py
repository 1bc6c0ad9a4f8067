"""What the tests of models share."""

from __future__ import annotations

import importlib
import math
import pkgutil
from typing import Any

import jax
import numpy as np

import fdl
from fdl import initializers, models, nn
from fdl.initializers import Normal

_MODULES = [
    importlib.import_module(f"{package.__name__}.{module.name}")
    for package in (nn, models)
    for module in pkgutil.iter_modules(package.__path__)
]
NAMESPACE = {name: value for module in (*_MODULES, initializers) for name, value in vars(module).items()}


def rebuilt(model: fdl.Layer) -> fdl.Layer:
    """An equal record that shares nothing with `model`: what its repr says."""
    return eval(repr(model), NAMESPACE | {"jax": jax, "fdl": fdl})


def count(model: fdl.Layer) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(fdl.abstract(model)[0]))


def lively(model: fdl.Layer, stddev: float = 0.3) -> Any:
    """Params with nothing at 0 or 1, so that no bias, scale or position can be forgotten unnoticed."""
    params, _ = fdl.init(model, jax.random.key(0))
    noise = lambda path, a: a + Normal(stddev)(fdl.fold(jax.random.key(1), str(path)), a.shape, a.dtype)  # noqa: E731
    return jax.tree_util.tree_map_with_path(noise, params)


def ids(*shape: int, below: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(below, size=shape).astype(np.int32)


def close(got: Any, want: Any, tolerance: float = 1e-5) -> None:
    got, want = np.asarray(got), np.asarray(want)
    assert got.shape == want.shape
    np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(want).max())))
