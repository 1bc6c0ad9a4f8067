"""Laws of the second derivatives: products with the Hessian, in float64, by every order of modes and by differences."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from tests.laws.case import Case, assert_close, case, cast, floating, key
from tests.laws.table import Row, every_row
from tests.laws.test_gradients import STEP, jittered

pytestmark = pytest.mark.slow


@every_row
def test_products_with_the_hessian_agree_whatever_the_order_of_modes(row: Row):
    it = case(row)
    with jax.enable_x64(True):
        points = {"params": jittered(it.params), "x": cast(floating(it.x), np.float64)}
        random = np.random.default_rng(4)
        v = jax.tree.map(lambda a: random.normal(size=a.shape), points)
        for train in (False,) if row.stops_gradient else it.modes:
            products, quotient = jax.jit(hessian_vector_products(it, train))(points, v)
            for one, both in products:
                assert_close(one, quotient, 1e-6)
                assert_close(both, jax.tree.map(lambda a: np.stack([a, 2 * np.asarray(a)]), one), 1e-9)


@every_row
def test_a_penalty_on_gradients_trains_inside_a_run(row: Row):
    it = case(row)
    points = {"params": cast(jittered(it.params), np.float32), "x": floating(it.x)}
    data = fdl.data.Full(rows=np.arange(4))

    def penalty(points: Any) -> jax.Array:
        gradient = jax.grad(curved(it, False))(points)
        return sum((jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)), jnp.zeros(()))

    def objective(params: Any, state: Any, batch: Any, *, key: Any, train: bool) -> fdl.Outcome:
        return fdl.Outcome(jnp.full(4, penalty(params)))

    task = fdl.Task(init=lambda key: (points, {}), objective=objective)
    result = fdl.run(fdl.Experiment(task, optax.sgd(1.0), data, num_steps=1))
    update = jax.tree.map(lambda before, after: before - after, points, result.params)
    assert_close(update, jax.jit(jax.grad(penalty))(points), 1e-4)


def hessian_vector_products(it: Case, train: bool) -> Any:
    """(points, v) -> (by each way H v, and by `vmap` H v and H 2v), and the difference quotient of the gradient."""
    loss = curved(it, train)
    gradient = jax.grad(loss)
    moved = lambda points, v, step: jax.tree.map(lambda a, b: a + step * b, points, v)  # noqa: E731
    along = lambda a, b: sum(jnp.vdot(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))  # noqa: E731
    ways = (
        lambda p, v: jax.grad(lambda p: along(gradient(p), v))(p),  # reverse over reverse
        lambda p, v: jax.jvp(gradient, (p,), (v,))[1],  # forward over reverse
        lambda p, v: jax.grad(lambda p: jax.jvp(loss, (p,), (v,))[1])(p),  # reverse over forward
    )

    def run(points: Any, v: Any) -> Any:
        both = jax.tree.map(lambda a: jnp.stack([a, 2 * a]), v)
        ahead, behind = (gradient(moved(points, v, step)) for step in (STEP, -STEP))
        quotient = jax.tree.map(lambda a, b: (a - b) / (2 * STEP), ahead, behind)
        return [(way(points, v), jax.vmap(way, (None, 0))(points, both)) for way in ways], quotient

    return run


def curved(it: Case, train: bool) -> Any:
    """A scalar function of all that can be differentiated, which is curved where the layer is linear too."""
    flat, tree = jax.tree.flatten(it.x)

    def loss(points: Any) -> jax.Array:
        replaced = iter(points["x"])
        x = [next(replaced) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf for leaf in flat]
        dtype = jnp.result_type(*jax.tree.leaves(points)) if jax.tree.leaves(points) else jnp.float32
        keywords = cast(it.keywords, dtype)
        y, _ = it.layer.apply(points["params"], it.state, tree.unflatten(x), key=key(1), train=train, **keywords)
        random = np.random.default_rng(1)
        terms = [(leaf * (1 + leaf) * random.normal(size=leaf.shape).astype(leaf.dtype)).sum() for leaf in floating(y)]
        return sum(terms, jnp.zeros((), dtype))

    return loss
