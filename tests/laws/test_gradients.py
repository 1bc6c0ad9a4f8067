"""Laws of the gradients, in float64 against finite differences."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.laws.case import Case, case, cast, floating, key
from tests.laws.table import Row, every_row

STEP = 1e-6  # central differences in float64: truncation and rounding both leave about 1e-9


@every_row
def test_every_parameter_has_a_gradient_and_it_is_right(row: Row):
    it = case(row)
    points = {"params": jittered(it.params), "x": cast(floating(it.x), np.float64)}
    for train in (False,) if row.stops_gradient else it.modes:
        with jax.enable_x64(True):
            check(jax.jit(jax.value_and_grad(projection(it, train))), points, row.idle)


def projection(it: Case, train: bool) -> Any:
    """A smooth scalar function of all that can be differentiated: a fixed random projection of y."""
    flat, tree = jax.tree.flatten(it.x)
    keywords = cast(it.keywords, np.float64)

    def loss(points: Any) -> jax.Array:
        replaced = iter(points["x"])
        x = [next(replaced) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf for leaf in flat]
        y, _ = it.layer.apply(points["params"], it.state, tree.unflatten(x), key=key(1), train=train, **keywords)
        random = np.random.default_rng(1)
        return sum(((leaf * random.normal(size=leaf.shape)).sum() for leaf in floating(y)), jnp.zeros(()))

    return loss


def jittered(params: Any) -> Any:
    """Away from initial values such as 0 and 1, where a gradient may vanish or be right by chance."""
    random = np.random.default_rng(2)
    return jax.tree.map(lambda a: a + 0.1 * random.normal(size=a.shape), params)


def check(loss: Any, points: Any, idle: tuple[str, ...]) -> None:
    """For every leaf: the derivative along a random direction is the difference quotient."""
    flat, tree = jax.tree.flatten(points)
    paths, gradients = zip(*jax.tree.leaves_with_path(loss(points)[1]), strict=True)
    random = np.random.default_rng(3)
    for i, (path, gradient) in enumerate(zip(paths, map(np.asarray, gradients), strict=True)):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        assert np.isfinite(gradient).all(), name
        if name.startswith("params/"):
            assert (np.abs(gradient).max() < 1e-8) == (name.removeprefix("params/") in idle), f"gradient of {name}"
        direction = np.zeros_like(gradient) + random.normal(size=gradient.shape)
        ahead, behind = (
            float(loss(tree.unflatten([*flat[:i], flat[i] + step * direction, *flat[i + 1 :]]))[0])
            for step in (STEP, -STEP)
        )
        quotient = (ahead - behind) / (2 * STEP)
        assert (gradient * direction).sum() == pytest.approx(quotient, rel=1e-6, abs=1e-7), name
