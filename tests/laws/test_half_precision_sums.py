"""A gradient that is a sum over many rows is as right in half precision as its rounding allows."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl.ops import linear
from tests.laws.case import Case, case, cast, floating, key
from tests.laws.table import ROWS, Row, over

COPIES = 5003  # of 4 rows: a sum of 1s in bfloat16 stops at 256, in float16 at 2048
TRAINED = [row for row in ROWS if jax.tree.leaves(row.layer.specs())]


@pytest.fixture(autouse=True)
def _as_users_compile() -> Any:
    """Whether a sum is fused, and so taken number by number, is decided by the optimisations."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@over(TRAINED)
def test_copies_of_a_batch_multiply_its_gradient(row: Row, dtype: Any):
    it = case(row)
    once, often = gradients(it, 1, dtype), gradients(it, COPIES, dtype)
    for (path, one), many in zip(jax.tree.leaves_with_path(once), jax.tree.leaves(often), strict=True):
        assert many.dtype == dtype
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name in row.idle:  # rounding and nothing else
            continue
        want = COPIES * np.asarray(one, np.float64)
        rounding = 2 * float(jnp.finfo(dtype).eps) * np.abs(want).max()
        np.testing.assert_allclose(np.asarray(many, np.float64), want, rtol=0, atol=rounding, err_msg=name)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("accumulate", [1, 4096])
def test_micro_batches_of_a_run_add_up(accumulate: int, dtype: Any):
    """The mean of 4096 gradients of 1 is 1, in one batch as in 4096 micro-batches."""

    def objective(params: Any, state: Any, batch: Any, *, key: Any, train: bool) -> fdl.Outcome:
        return fdl.Outcome(linear(batch["x"].astype(dtype), params["kernel"])[:, 0].astype(jnp.float32))

    task = fdl.Task(init=lambda key: ({"kernel": jnp.zeros((1, 1), dtype)}, {}), objective=objective)
    data = fdl.data.Arrays(x=np.ones((4096, 1), np.float32))
    result = fdl.run(fdl.Experiment(task, optax.sgd(1.0), data, batch_size=4096, num_steps=1, accumulate=accumulate))
    assert result.params["kernel"].dtype == dtype
    assert float(result.params["kernel"][0, 0]) == -1


def gradients(it: Case, copies: int, dtype: Any) -> Any:
    """Of the parameters, for a fixed projection of y that is the same for every copy of the batch."""
    x, keywords = repeated(it, copies)
    params, x, keywords = cast((it.params, x, keywords), dtype)

    def apply(params: Any, x: Any, keywords: Any) -> list[Any]:
        return floating(it.layer.apply(params, it.state, x, key=key(1), train=False, **keywords)[0])

    def loss(params: Any, x: Any, keywords: Any, weights: Any) -> jax.Array:
        terms = zip(apply(params, x, keywords), weights, strict=True)
        return sum(((y * w).astype(jnp.float32).sum() for y, w in terms), jnp.zeros(()))

    shapes = [y.shape for y in jax.eval_shape(apply, params, x, keywords)]
    weights = [projection(shape, copies, dtype) for shape in shapes]
    return jax.jit(jax.grad(loss))(params, x, keywords, weights)


def repeated(it: Case, copies: int) -> tuple[Any, dict[str, Any]]:
    """The batch after itself; of a graph, disjoint copies."""
    twice = lambda a: np.concatenate([a] * copies)  # noqa: E731
    keywords = {name: jax.tree.map(twice, array) for name, array in it.keywords.items() if name != "edges"}
    if "edges" in it.keywords:
        keywords["edges"] = np.concatenate([it.keywords["edges"] + 4 * i for i in range(copies)], 1)
    return jax.tree.map(twice, it.x), keywords


def projection(shape: tuple[int, ...], copies: int, dtype: Any) -> np.ndarray:
    """Multiples of 1/128 below 1/32, exact in both dtypes; a sum of all of them fits into float16."""
    axis = next(i for i, size in enumerate(shape) if size >= copies and size % copies == 0)
    once = (*shape[:axis], shape[axis] // copies, *shape[axis + 1 :])
    weights = np.random.default_rng(1).integers(1, 4, size=once) / 128
    return np.concatenate([weights] * copies, axis).astype(dtype)
