# pyright: reportMissingImports=false
"""An Equinox module in the engine follows the loop that one writes in Equinox."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl.interop import from_equinox
from fdl.training.run import run_key
from tests.interop.common import WIDTH, arrays, batches, check_modes, close, cross_entropy, experiment, same_bits

eqx = pytest.importorskip("equinox")


class Network(eqx.Module):
    """Statistics, dropout, and an integer array that is no parameter."""

    layers: list[Any]
    norm: Any
    dropout: Any
    order: jax.Array

    def __init__(self, key):
        one, two = jax.random.split(key)
        self.layers = [eqx.nn.Linear(5, WIDTH, key=one), eqx.nn.Linear(WIDTH, 2, key=two)]
        self.norm = eqx.nn.BatchNorm(WIDTH, axis_name="batch", momentum=0.9, mode="batch")
        self.dropout = eqx.nn.Dropout(0.4)
        self.order = jnp.arange(5)[::-1]

    def __call__(self, x, state, *, key=None):
        x, state = self.norm(self.layers[0](x[self.order]), state)
        return self.layers[1](self.dropout(jax.nn.relu(x), key=key)), state


@pytest.fixture(scope="module")
def setup():
    return experiment(from_equinox(Network))


@pytest.fixture(scope="module")
def result(setup):
    return fdl.run(setup)


def test_training_equals_a_loop_in_equinox(setup, result):
    """`eqx.filter_grad` and `eqx.apply_updates`, with the keys of the engine."""
    network, state = eqx.nn.make_with_state(Network)(fdl.fold(run_key(0), "init"))
    optimizer = setup.optimizer
    opt_state = optimizer.init(eqx.filter(network, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(network, state, opt_state, x, y, key):
        def loss(network, state):
            keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(jnp.arange(len(x)))
            mapped = jax.vmap(lambda x, key: network(x, state, key=key), out_axes=(0, None), axis_name="batch")
            logits, new = mapped(x, keys)
            return cross_entropy(logits, y), new

        grads, state = eqx.filter_grad(loss, has_aux=True)(network, state)
        updates, opt_state = optimizer.update(grads, opt_state)
        return eqx.apply_updates(network, updates), state, opt_state

    for x, y, key in batches(setup):
        network, state, opt_state = step(network, state, opt_state, x, y, key)
    layers = {str(i): {"weight": layer.weight, "bias": layer.bias} for i, layer in enumerate(network.layers)}
    close(result.params, {"layers": layers, "norm": {"weight": network.norm.weight, "bias": network.norm.bias}})
    close(jax.tree.leaves(result.state["statistics"]), jax.tree.leaves(state))
    same_bits(result.state["buffers"], {"order": jnp.arange(5)[::-1]})
    network, test = eqx.nn.inference_mode(network), arrays(13, seed=1)
    logits = jax.vmap(lambda x: network(x, state)[0], axis_name="batch")(jnp.asarray(test["x"]))
    assert result.metrics["test/loss"] == pytest.approx(float(cross_entropy(logits, test["y"])), rel=1e-5)


@pytest.mark.slow
def test_any_chunk_gives_the_same_bits(setup, result):
    short = fdl.run(setup, chunk=5)
    same_bits((short.params, short.state, short.history), (result.params, result.state, result.history))


class Twice(eqx.Module):
    """Statistics and dropout, and no buffers, which training would leave as they are."""

    norm: Any
    dropout: Any

    def __init__(self, key):
        self.norm = eqx.nn.BatchNorm(5, axis_name="rows", mode="batch")
        self.dropout = eqx.nn.Dropout(0.5)

    def __call__(self, x, state, *, key=None):
        y, state = self.norm(x, state)
        return self.dropout(y, key=key), state


def test_dropout_and_statistics_only_in_training():
    check_modes(from_equinox(Twice, axis_name="rows"))


def test_each_example_has_a_mask_of_its_own():
    model = from_equinox(lambda key: eqx.nn.Sequential([eqx.nn.Identity(), eqx.nn.Dropout(0.5)]))
    params, state = model.init(jax.random.key(0))
    assert (params, state) == ({}, {})
    masks = np.asarray(model.apply(params, state, jnp.ones((4, 400)), key=jax.random.key(1), train=True)[0]) > 0
    agreement = (masks[:, None] == masks).mean(-1)[~np.eye(4, dtype=bool)]
    assert 0.35 < agreement.min() <= agreement.max() < 0.65  # 0.5 with a standard deviation of 0.025


def test_a_module_without_state_dropout_or_key_trains():
    """Functions made anew by every call of build stand in the module; the loss of a line falls to 0."""

    class Line(eqx.Module):
        linear: Any
        scaled: Any
        twice: Any = eqx.field(static=True)

        def __init__(self, key):
            self.linear = eqx.nn.Linear(5, 1, key=key)
            self.scaled, self.twice = lambda x: x / 2, lambda x: x * 2

        def __call__(self, x):
            return self.scaled(self.twice(self.linear(x)))[0]

    x = arrays()["x"]
    data = fdl.data.Arrays(x=x, y=x @ np.arange(5, dtype=np.float32))
    task = fdl.supervised(from_equinox(Line), fdl.losses.squared_error)
    got = fdl.run(fdl.Experiment(task, optax.sgd(0.2), data, num_steps=200))
    np.testing.assert_allclose(got.params["linear"]["weight"], [np.arange(5)], atol=1e-4)
    assert got.state == {}


def test_keywords_of_the_batch_and_the_flag_of_the_call_reach_the_module():
    class Masked(eqx.Module):
        offset: jax.Array

        def __call__(self, x, *, mask, training):
            return (x + self.offset) * mask + training

    model = from_equinox(lambda key: Masked(jnp.ones(())))
    params, state = model.init(jax.random.key(0))
    x, mask = jnp.ones((2, 3)), jnp.array([0.0, 1.0])
    for train in (False, True):
        y, _ = model.apply(params, state, x, train=train, mask=mask)
        np.testing.assert_array_equal(y, np.array([[0.0] * 3, [2.0] * 3]) + train)


def test_the_seed_decides_the_initial_values():
    model = from_equinox(Network)
    one, other = (model.init(jax.random.key(i))[0]["layers"]["0"]["weight"] for i in (0, 1))
    assert not np.allclose(one, other)
    same_bits(one, Network(jax.random.key(0)).layers[0].weight)


def test_bind_gives_the_module_back(result):
    model = from_equinox(Network)
    network, state = model.bind(result.params, result.state)  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(network, Network)
    assert network.dropout.inference
    x = arrays()["x"]
    logits = jax.vmap(lambda x: network(x, state)[0], axis_name="batch")(jnp.asarray(x))
    same_bits(logits, model.apply(result.params, result.state, x)[0])


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(fdl.InputError, match="expected a function that makes the module"):
        from_equinox(Network(jax.random.key(0)))  # pyright: ignore[reportArgumentType]
    with pytest.raises(fdl.InputError, match="expected that build returns an equinox.Module"):
        from_equinox(lambda key: jnp.ones(3)).init(jax.random.key(0))
    params, state = from_equinox(Network).init(jax.random.key(0))
    with pytest.raises(fdl.InputError, match="there is none at 'norm/weight'"):
        from_equinox(Network).apply({"layers": params["layers"]}, state, jnp.ones((2, 5)))
