# pyright: reportArgumentType=false
"""How an outcome becomes sums: masks, weights, and the shapes that are refused."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl.metrics import Mean
from fdl.training.step import Update
from fdl.training.sums import reduce

NAN = float("nan")


def values(outcome: fdl.Outcome, mask=None) -> dict[str, float]:
    return {name: float(mean.value()) for name, mean in reduce(outcome, mask).items()}


def test_padding_is_selected_away_even_where_it_is_nan():
    loss = jnp.array([1.0, 3.0, NAN])
    outcome = fdl.Outcome(loss, metrics={"same": loss, "pairs": jnp.stack([loss, loss], 1)})
    assert values(outcome, jnp.array([True, True, False])) == {"loss": 2.0, "same": 2.0, "pairs": 2.0}


def test_a_metric_shaped_like_the_loss_takes_its_weight_any_other_the_rows():
    loss = jnp.array([[1.0, 2.0], [3.0, NAN]])
    weight = jnp.array([[1.0, 1.0], [2.0, 0.0]])
    outcome = fdl.Outcome(loss, weight, {"token": loss, "row": jnp.array([1.0, 5.0])})
    expected = (1 + 2 + 6) / 4
    assert values(outcome) == {"loss": expected, "token": expected, "row": 3.0}
    assert values(outcome, jnp.array([True, False])) == {"loss": 1.5, "token": 1.5, "row": 1.0}


def test_a_metric_may_bring_a_weight_or_be_a_mean_or_a_scalar():
    own = (jnp.array([1.0, 9.0]), jnp.array([3.0, 1.0]))
    outcome = fdl.Outcome(
        jnp.zeros(2), metrics={"own": own, "mean": Mean(jnp.float32(6), jnp.float32(4)), "scalar": 7.0}
    )
    assert values(outcome) == {"loss": 0.0, "own": 3.0, "mean": 1.5, "scalar": 7.0}
    assert values(outcome, jnp.array([True, False]))["own"] == 1.0


def test_total_weight_zero_gives_loss_zero_and_gradient_zero():
    def objective(params, state, batch, *, key, train):
        return fdl.Outcome(params * jnp.ones(3), jnp.zeros(3))

    task, optimizer = fdl.Task(lambda key: (jnp.float32(5.0), {}), objective), optax.sgd(1.0)
    step = jax.jit(Update(task, optimizer))
    after, metrics = step(Update(task, optimizer).init(jax.random.key(0)), {}, jax.random.key(1))
    assert float(metrics["loss"]) == 0.0
    assert float(after.params) == 5.0


def test_no_gradient_flows_into_weights_or_metrics():
    def objective(params, state, batch, *, key, train):
        return fdl.Outcome(
            jnp.ones(2) * 3.0 + 0.0 * params, params * jnp.array([1.0, 2.0]), {"m": params * jnp.ones(2)}
        )

    task, optimizer = fdl.Task(lambda key: (jnp.float32(1.0), {}), objective), optax.sgd(1.0)
    after, _ = Update(task, optimizer)(Update(task, optimizer).init(jax.random.key(0)), {}, jax.random.key(1))
    assert float(after.params) == 1.0


def test_a_float32_rate_does_not_widen_a_bfloat16_network():
    model = fdl.nn.Linear(3, 2)
    task = fdl.Task(
        lambda key: fdl.init(model, key, jnp.bfloat16), fdl.supervised(model, fdl.losses.squared_error).objective
    )
    batch = {"x": jnp.ones((4, 3), jnp.bfloat16), "y": jnp.ones((4, 2), jnp.bfloat16)}

    @jax.jit
    def train(rate):
        optimizer = optax.sgd(rate)
        return Update(task, optimizer)(Update(task, optimizer).init(jax.random.key(0)), batch, jax.random.key(1))[0]

    assert {leaf.dtype for leaf in jax.tree.leaves(train(jnp.float32(0.1)).params)} == {jnp.dtype(jnp.bfloat16)}


REFUSED = [
    (fdl.Outcome(jnp.float32(1.0)), "one value per example"),
    (fdl.Outcome(jnp.zeros(3)), r"\[2, ...\], got \[3\]"),
    (fdl.Outcome(jnp.zeros(2), jnp.ones((2, 1))), "weight: expected the shape of the loss"),
    (fdl.Outcome(jnp.zeros(2), metrics={"m": jnp.zeros(5)}), "metric 'm': expected"),
    (fdl.Outcome(jnp.zeros(2), metrics={"m": (jnp.zeros(2), jnp.ones((2, 2)))}), "metric 'm': value"),
    (fdl.Outcome(jnp.zeros(2), metrics={"loss": jnp.zeros(2)}), "choose another name"),
    (jnp.zeros(2), "returns an fdl.Outcome"),
]


@pytest.mark.parametrize(("outcome", "message"), REFUSED, ids=[message[:20] for _, message in REFUSED])
def test_what_is_not_per_example_is_refused(outcome, message):
    with pytest.raises(fdl.InputError, match=message):
        reduce(outcome, jnp.ones(2, bool))


def test_a_step_that_changes_the_structure_of_the_state_is_refused():
    def objective(params, state, batch, *, key, train):
        return fdl.Outcome(params * jnp.ones(2), state={"new": jnp.zeros(1)})

    task, optimizer = fdl.Task(lambda key: (jnp.float32(1.0), {}), objective), optax.sgd(1.0)
    with pytest.raises(fdl.InputError, match="changed the structure of state"):
        Update(task, optimizer)(Update(task, optimizer).init(jax.random.key(0)), {}, jax.random.key(1))


def test_extra_arguments_of_the_optimizer_are_the_loss_and_its_gradient():
    got = {}

    def update(updates, state, params=None, *, value, grad, value_fn, **rest):
        got.update(value=float(value), grad=float(grad), at_zero=float(value_fn(jnp.float32(0.0))))
        return updates, state

    def objective(params, state, batch, *, key, train):
        return fdl.Outcome((params - batch["y"]) ** 2)

    task = fdl.Task(lambda key: (jnp.float32(1.0), {}), objective)
    optimizer = optax.GradientTransformationExtraArgs(lambda params: (), update)
    batch = {"y": jnp.array([0.0, 3.0])}
    Update(task, optimizer)(Update(task, optimizer).init(jax.random.key(0)), batch, jax.random.key(1))
    np.testing.assert_allclose([got["value"], got["grad"], got["at_zero"]], [2.5, -1.0, 4.5])
