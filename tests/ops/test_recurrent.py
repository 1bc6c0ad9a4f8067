"""The cells by hand, and the loop over time against a Python loop: padding, direction, derivatives of both modes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import fdl
from fdl import nn
from fdl.ops import recurrent as ops
from tests.compiling import QUICK

BATCH, STEPS, HIDDEN = 3, 5, 4
LENGTHS = np.array([STEPS, 2, 0])
MASK: Any = LENGTHS[:, None] > np.arange(STEPS)
random = np.random.default_rng(0)

CELLS = {"rnn": (ops.rnn_cell, 1), "lstm": (ops.lstm_cell, 4), "gru": (ops.gru_cell, 3)}
every_cell = pytest.mark.parametrize("name", CELLS)


def arrays(name: str, dtype: Any = np.float32) -> tuple[Any, Any, Any]:
    """(kernel, carry, projected)"""
    width = CELLS[name][1] * HIDDEN
    h, c = random.normal(size=(2, BATCH, HIDDEN)).astype(dtype)
    projected = random.normal(size=(BATCH, STEPS, width)).astype(dtype)
    return random.normal(size=(HIDDEN, width)).astype(dtype), (h, c) if name == "lstm" else h, projected


def loop(name: str, **settings: Any) -> Any:
    """(kernel, carry, projected) -> (y, carry)"""

    def step(kernel, carry, projected):
        carry = CELLS[name][0](carry, projected, jax.tree.leaves(carry)[0] @ kernel)
        return carry, jax.tree.leaves(carry)[0]

    return lambda kernel, *rest: ops.scan_time(lambda c, p: step(kernel, c, p), *rest, **settings)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def in_numpy(name: str, h: Any, c: Any, p: Any, q: Any) -> tuple[Any, Any]:
    """One step of the published equations."""
    if name == "rnn":
        return np.tanh(p + q), c
    if name == "lstm":
        i, f, g, o = np.split(p + q, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c
    (p_r, p_z, p_n), (q_r, q_z, q_n) = np.split(p, 3, axis=-1), np.split(q, 3, axis=-1)
    z = sigmoid(p_z + q_z)
    return (1 - z) * np.tanh(p_n + sigmoid(p_r + q_r) * q_n) + z * h, c


@every_cell
@pytest.mark.parametrize("reverse", [False, True])
def test_each_row_is_a_python_loop_over_its_own_steps(name, reverse):
    """Also where the length is 0: then the carry that comes out is the one that went in."""
    kernel, carry, projected = arrays(name, np.float64)
    with jax.enable_x64(True):
        y, last = jax.jit(loop(name, mask=MASK, reverse=reverse))(kernel, carry, projected)
    for b, length in enumerate(LENGTHS):
        h, c = carry[0][b] if name == "lstm" else carry[b], carry[1][b]
        want = np.zeros((STEPS, HIDDEN))
        for t in reversed(range(length)) if reverse else range(length):
            h, c = in_numpy(name, h, c, projected[b, t], h @ kernel)
            want[t] = h
        np.testing.assert_allclose(y[b], want, rtol=1e-12)
        np.testing.assert_allclose(jax.tree.leaves(last)[0][b], h, rtol=1e-12)
        assert name != "lstm" or np.allclose(last[1][b], c, rtol=1e-12)


@every_cell
def test_derivatives_in_both_modes_are_finite_differences(name):
    with jax.enable_x64(True):
        run = jax.jit(loop(name, mask=MASK))
        check_grads(run, arrays(name, np.float64), order=1, modes=["fwd", "rev"], atol=1e-6, rtol=1e-6, eps=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_padding_changes_neither_carry_nor_gradient(reverse):
    """Not by a bit, however large; the gradient there is 0."""
    kernel, carry, projected = arrays("lstm")
    junk = np.where(MASK[..., None], projected, np.float32(1e30))

    def loss(*given):
        outputs = loop("lstm", mask=MASK, reverse=reverse)(*given)
        return sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(outputs)), outputs

    run = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True), compiler_options=QUICK)
    clean, dirty = run(kernel, carry, projected), run(kernel, carry, junk)
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True):
        np.testing.assert_array_equal(a, b)
    (_, (y, _)), (_, _, gradient) = clean
    assert not y[~MASK].any()
    assert not gradient[~MASK].any()
    assert gradient[MASK].all()


def test_zero_steps_return_the_carry_and_no_gradient():
    kernel, carry, projected = arrays("gru")
    y, last = loop("gru")(kernel, carry, projected[:, :0])
    assert y.shape == (BATCH, 0, HIDDEN)
    np.testing.assert_array_equal(last, carry)
    gradients = jax.grad(lambda *given: loop("gru")(*given)[1].sum(), (0, 1))(kernel, carry, projected[:, :0])
    assert not gradients[0].any()
    np.testing.assert_array_equal(gradients[1], np.ones((BATCH, HIDDEN)))


def test_any_tree_of_carries_is_kept():
    """A running outer product and a count: axes beyond [B, H] are masked as well."""

    def step(carry, x):
        return {"sum": carry["sum"] + x[:, :, None] * x[:, None], "count": carry["count"] + 1}, x

    x = jnp.asarray(random.normal(size=(BATCH, STEPS, 2)), jnp.float32)
    start = {"sum": jnp.zeros((BATCH, 2, 2)), "count": jnp.zeros(BATCH, jnp.int32)}
    _, carry = ops.scan_time(step, start, x, MASK)
    assert carry["count"].tolist() == LENGTHS.tolist()
    for b, n in enumerate(LENGTHS):
        np.testing.assert_allclose(carry["sum"][b], x[b, :n].T @ x[b, :n], rtol=1e-5, atol=1e-6)


@every_cell
@pytest.mark.parametrize("scale", [1e30, 1e-30])
def test_huge_and_tiny_inputs_leave_no_nan(name, scale):
    kernel, carry, projected = arrays(name)
    run = jax.value_and_grad(lambda *given: loop(name)(*given)[0].sum(), (0, 1, 2))
    value, gradients = jax.jit(run, compiler_options=QUICK)(kernel, carry, np.float32(scale) * projected)
    assert abs(value) <= BATCH * STEPS * HIDDEN * max(1.0, np.abs(carry).max())
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@pytest.mark.parametrize("lengths", [np.array([1.0]), np.array(1), np.array([[1]]), np.array([True])])
def test_lengths_must_be_a_vector_of_integers(lengths):
    with pytest.raises(fdl.InputError, match=r"lengths: expected one integer for each sequence, \[B\], got"):
        ops.length_mask(lengths, 3)


def test_lengths_outside_are_all_or_nothing():
    assert ops.length_mask([-2, 9], 2).tolist() == [[False, False], [True, True]]
    assert ops.length_mask(np.array([0, 255], np.uint8), 2).tolist() == [[False, False], [True, True]]
    assert ops.length_mask([4], 0).shape == (1, 0)


def lstm(settings: Any) -> Any:
    """As `loop`, by the rule that knows the derivative."""
    return lambda kernel, carry, projected: ops.lstm(projected, kernel, carry, **settings)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("mask", [None, MASK], ids=["whole", "padded"])
def test_the_derivative_of_lstm_is_that_of_its_cell(mask: Any, reverse: bool):
    """In reverse and forward mode, and of the gradient itself: to float64's rounding."""
    with jax.enable_x64(True):
        inputs = arrays("lstm", np.float64)
        tangents = jax.tree.map(lambda a: random.normal(size=a.shape), inputs)
        settings: Any = {"mask": mask, "reverse": reverse}

        def seen(function: Any) -> Any:
            def loss(inputs: Any) -> Any:
                y, (h, c) = function(*inputs)
                return (y**2).sum() + (h * c).sum()

            gradient = jax.grad(loss)
            return [
                function(*inputs),
                *(jax.jvp(f, (inputs,), (tangents,)) for f in (loss, gradient)),
                gradient(inputs),
            ]

        mine, plain = jax.jit(lambda: (seen(lstm(settings)), seen(loop("lstm", **settings))), compiler_options=QUICK)()
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), mine, plain)


def test_the_gradient_of_lstm_is_one_product_after_the_loop():
    """The loops have two products, of the state and of its cotangent; with plain autodiff the kernel's gradient too."""
    kernel, carry, projected = arrays("lstm")

    def in_loops(function: Any) -> int:
        gradient = jax.grad(lambda kernel: (function(kernel, carry, projected)[0] ** 2).sum())
        loops = [eqn for eqn in jax.make_jaxpr(gradient)(kernel).eqns if eqn.primitive.name == "scan"]
        return sum(str(loop).count("dot_general") for loop in loops)

    assert in_loops(lstm({})) == 2
    assert in_loops(loop("lstm")) == 3


def test_an_lstm_with_a_step_of_its_own_takes_it():
    """The rule that knows the derivative of an LSTM must not step in for another cell."""

    class Doubled(nn.LSTM):
        def advance(self, params: Any, carry: Any, projected: Any) -> Any:
            (h, c), _ = super().advance(params, carry, projected)
            return (2 * h, c), 2 * h

    layer = Doubled(3, 4)
    params, _ = fdl.init(layer, jax.random.key(0))
    x = jnp.asarray(random.normal(size=(BATCH, STEPS, 3)), jnp.float32)
    carry, first = layer.step(params, layer.initial_carry(BATCH), x[:, 0])
    _, second = layer.step(params, carry, x[:, 1])
    np.testing.assert_allclose(layer(params, x)[:, :2], np.stack([first, second], 1), rtol=1e-6)
