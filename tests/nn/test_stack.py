"""Copies of a layer: a Stack is a Serial, an Ensemble a loop, and copy i is its own layer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import nn

BLOCK = nn.Residual(nn.Serial(nn.Linear(4, 4, use_bias=False), nn.BatchNorm(4), jax.nn.relu, nn.Dropout(0.5)))
KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)


def close(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, want)


def test_copy_i_is_initialised_with_the_key_folded_by_i():
    params, _ = fdl.init(nn.Stack(BLOCK, 3), KEY)
    for i in range(3):
        alone, _ = fdl.init(BLOCK, fdl.fold(KEY, i))
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda leaf, i=i: leaf[i], params), alone)


def test_the_fan_in_is_that_of_one_copy():
    """LeCun on [12, 256, 256] as it stands has a standard deviation of 0.018 instead of 1/16."""
    params, _ = fdl.init(nn.Stack(nn.Linear(256, 256), 12), KEY)
    assert float(params["kernel"].std()) == pytest.approx(1 / 16, rel=0.01)


def test_a_stack_is_a_serial_in_evaluation():
    stacked, serial = nn.Stack(BLOCK, 3), nn.Serial(BLOCK, BLOCK, BLOCK)
    params, state = fdl.init(stacked, KEY)
    close(stacked.apply(params, state, X)[0], serial.apply(nn.unstack(params), nn.unstack(state), X)[0])


def test_and_in_training_with_its_statistics_and_gradients():
    """Without dropout, whose keys are folded from i in one and from the name in the other."""
    block = nn.Residual(nn.Serial(nn.Linear(4, 4, use_bias=False), nn.BatchNorm(4), jnp.tanh))
    stacked, serial = nn.Stack(block, 3), nn.Serial(block, block, block)
    params, state = fdl.init(stacked, KEY)

    def loss(model, params, state):
        y, new = model.apply(params, state, X, train=True)
        return jnp.sum(y**2), new

    (_, new), grads = jax.value_and_grad(lambda p: loss(stacked, p, state), has_aux=True)(params)
    flat = jax.value_and_grad(lambda p: loss(serial, p, nn.unstack(state)), has_aux=True)(nn.unstack(params))
    close(nn.unstack(new), flat[0][1])
    close(nn.unstack(grads), flat[1])


def test_remat_changes_memory_and_nothing_else():
    params, state = fdl.init(nn.Stack(BLOCK, 3), KEY)

    def grad(remat):
        def loss(params):
            return jnp.sum(nn.Stack(BLOCK, 3, remat=remat).apply(params, state, X, key=KEY, train=True)[0] ** 2)

        return jax.jit(jax.grad(loss))(params)

    close(grad(True), grad(False))


def test_each_copy_draws_its_own_dropout():
    stack = nn.Stack(nn.Dropout(0.5), 2)
    once, twice = (
        stack.apply({}, {}, jnp.ones((1, 4000)), key=KEY, train=True)[0]
        for stack in (nn.Stack(nn.Dropout(0.5), 1), stack)
    )
    assert float((once > 0).mean()) == pytest.approx(0.5, abs=0.05)
    assert float((twice > 0).mean()) == pytest.approx(0.25, abs=0.05)


def test_stack_and_unstack_are_inverse():
    params, _ = fdl.init(nn.Stack(BLOCK, 3), KEY)
    jax.tree.map(np.testing.assert_array_equal, nn.stack(nn.unstack(params)), params)


def test_an_ensemble_is_a_loop_over_its_members():
    member = nn.Serial(nn.Linear(4, 3), nn.BatchNorm(3), nn.Dropout(0.5))
    ensemble = nn.Ensemble(member, 5)
    params, state = fdl.init(ensemble, KEY)
    y, new = ensemble.apply(params, state, X, key=KEY, train=True)
    for i in range(5):
        one = member.apply(*fdl.init(member, fdl.fold(KEY, i)), X, key=fdl.fold(KEY, i), train=True)
        close((y[i], jax.tree.map(lambda leaf, i=i: leaf[i], new)), one)


def test_decay_masks_do_not_count_copies_as_a_dimension():
    model = nn.Serial(nn.Linear(4, 4), nn.Stack(nn.Serial(nn.Linear(4, 4), nn.LayerNorm(4)), 3), nn.Dropout(0.1))
    mask = fdl.decay_mask(model)
    assert mask["0"] == {"kernel": True, "bias": False}
    assert mask["1"] == {"0": {"kernel": True, "bias": False}, "1": {"scale": False, "bias": False}}
    assert jax.tree.structure(mask) == jax.tree.structure(fdl.init(model, KEY)[0])


REFUSED = [
    (lambda: nn.Stack(nn.Linear(4, 4), 0), "n: expected a whole number >= 1"),
    (lambda: fdl.init(nn.Stack(nn.Linear(4, 5), 2), KEY) and _run(nn.Stack(nn.Linear(4, 5), 2)), "must keep the shape"),
    (lambda: nn.stack({"0": {"a": jnp.ones(2)}, "1": {"a": jnp.ones(3)}}), "differ in structure"),
    (lambda: nn.stack({"0": {}, "2": {}}), "expected the entries"),
    (lambda: nn.unstack({"a": jnp.ones(2), "b": jnp.ones(3)}), "one common leading axis"),
]


def _run(layer):
    return layer(fdl.init(layer, KEY)[0], X)


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_refused(call, message):
    with pytest.raises(fdl.InputError, match=message):
        call()
