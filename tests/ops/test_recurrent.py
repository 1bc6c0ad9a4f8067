"""The loops over time: the fast one against the plain one, padding, direction, and what each can differentiate."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.ops import recurrent as ops
from tests.compiling import QUICK

BATCH, STEPS, HIDDEN = 3, 5, 4
LENGTHS = np.array([STEPS, 2, 0])
random = np.random.default_rng(0)

CELLS = {"rnn": (ops.rnn_cell, 1), "lstm": (ops.lstm_cell, 4), "gru": (ops.gru_cell, 3)}
every_cell = pytest.mark.parametrize("name", CELLS)


def arrays(name: str, dtype: Any = np.float32) -> dict[str, Any]:
    width = CELLS[name][1] * HIDDEN
    h, c = random.normal(size=(2, BATCH, HIDDEN)).astype(dtype)
    return {
        "kernel": random.normal(size=(HIDDEN, width)).astype(dtype),
        "carry": (h, c) if name == "lstm" else h,
        "projected": random.normal(size=(BATCH, STEPS, width)).astype(dtype),
        "bias": random.normal(size=width).astype(dtype),
    }


def plain(cell: ops.Cell, kernel: Any, carry: Any, projected: Any, bias: Any = None, mask: Any = None, reverse=False):
    return ops.scan_time(lambda c, p: ops.cell_step(cell, kernel, c, p, bias), carry, projected, mask, reverse)


def scalar(loop: Any, cell: ops.Cell, **settings: Any) -> Any:
    """A fixed random projection of the outputs and the last carry, and these."""

    def loss(arrays: Any) -> tuple[jax.Array, Any]:
        weights = np.random.default_rng(1)
        y, carry = outputs = loop(cell, **arrays, **settings)
        total = jnp.zeros((), y.dtype)
        for a in jax.tree.leaves(outputs):
            total += (a * weights.normal(size=a.shape).astype(a.dtype)).sum()
        return total, (y, carry)

    return loss


def compiled(loss: Any, given: Any) -> Any:
    """((value, (y, carry)), gradients)"""
    return jax.jit(jax.value_and_grad(loss, has_aux=True), compiler_options=QUICK)(given)


def assert_trees_close(got: Any, want: Any, rtol: float) -> None:
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)


@every_cell
@pytest.mark.parametrize(
    ("lengths", "reverse", "with_bias"), [(None, False, False), (LENGTHS, False, True), (LENGTHS, True, False)]
)
def test_the_fast_loop_is_the_plain_loop(name, lengths, reverse, with_bias):
    """Values and every gradient, in float64 so that the order of sums does not show."""
    given = arrays(name, np.float64) | ({} if with_bias else {"bias": None})
    settings = {"mask": None if lengths is None else lengths[:, None] > np.arange(STEPS), "reverse": reverse}
    with jax.enable_x64(True):
        fast, slow = (compiled(scalar(loop, CELLS[name][0], **settings), given) for loop in (ops.recur, plain))
    assert_trees_close(fast, slow, 1e-12)


@every_cell
def test_second_derivatives_and_hessian_vector_products(name):
    """Reverse over reverse and forward over reverse both differentiate the rule of the fast loop itself."""
    given = arrays(name, np.float64)
    tangent = jax.tree.map(lambda a: random.normal(size=a.shape), given)
    mask = LENGTHS[:, None] > np.arange(STEPS)

    def forward_over_reverse(loop):
        gradient = jax.grad(lambda a: scalar(loop, CELLS[name][0], mask=mask)(a)[0])
        return lambda a: jax.jvp(gradient, (a,), (tangent,))[1]

    def reverse_over_reverse(loop):
        gradient = jax.grad(lambda a: scalar(loop, CELLS[name][0], mask=mask)(a)[0])
        return jax.grad(lambda a: sum(map(jnp.vdot, *map(jax.tree.leaves, (gradient(a), tangent))), jnp.zeros(())))

    with jax.enable_x64(True):
        product = lambda f: jax.jit(f, compiler_options=QUICK)(given)  # noqa: E731
        want = product(forward_over_reverse(plain))
        assert_trees_close(product(forward_over_reverse(ops.recur)), want, 1e-11)
        assert_trees_close(product(reverse_over_reverse(ops.recur)), want, 1e-11)


def test_forward_mode_needs_the_plain_loop():
    """The documented price; a test so that it is noticed when JAX lifts it."""
    given = arrays("rnn")
    tangent = jax.tree.map(np.ones_like, given)
    push = lambda loop: jax.jit(lambda: jax.jvp(scalar(loop, ops.rnn_cell), (given,), (tangent,))).lower()  # noqa: E731
    push(plain)
    with pytest.raises(TypeError, match="forward-mode"):
        push(ops.recur)


def test_the_gradient_of_a_bfloat16_kernel_is_summed_once():
    """T rounded additions lose what one product keeps: over 512 steps they are ten times as far off."""
    steps, cell = 512, ops.lstm_cell
    half = lambda *shape, scale=1.0: jnp.asarray(scale * random.normal(size=shape), jnp.bfloat16)  # noqa: E731
    kernel, projected = half(16, 64, scale=0.25), half(4, steps, 64)

    def gradient(loop, dtype):
        carry = (jnp.zeros((4, 16), dtype),) * 2
        loss = lambda kernel: loop(cell, kernel, carry, projected.astype(dtype))[0].sum()  # noqa: E731
        return np.asarray(jax.jit(jax.grad(loss))(kernel.astype(dtype)), np.float32)

    want = gradient(plain, jnp.float32)
    fast, slow = (
        np.linalg.norm(gradient(loop, jnp.bfloat16) - want) / np.linalg.norm(want) for loop in (ops.recur, plain)
    )
    assert fast < 0.02
    assert slow > 2 * fast


def test_a_cell_may_be_any_function_of_the_two_sums():
    """Leaky integration with a swept rate: the rate is a tracer under vmap."""
    h, projected = jnp.ones((1, 1)), jnp.zeros((1, 3, 1))
    leak = lambda rate: ops.recur(lambda h, p, q: (1 - rate) * h + rate * (p + q), 2 * jnp.eye(1), h, projected)[1]  # noqa: E731
    got = jax.vmap(leak)(jnp.array([0.0, 0.5, 1.0]))
    np.testing.assert_allclose(got[:, 0, 0], [1.0, 1.5**3, 2.0**3], rtol=1e-6)


@pytest.mark.parametrize("loop", [ops.recur, plain])
@pytest.mark.parametrize("reverse", [False, True])
def test_padding_changes_neither_carry_nor_gradient(loop, reverse):
    given, mask = arrays("lstm"), LENGTHS[:, None] > np.arange(STEPS)
    junk = given | {"projected": np.where(mask[..., None], given["projected"], np.float32(1e30))}
    run = jax.jit(jax.value_and_grad(scalar(loop, ops.lstm_cell, mask=mask, reverse=reverse), has_aux=True))
    clean, dirty = run(given), run(junk)
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True):
        np.testing.assert_array_equal(a, b)
    (_, (y, (h, c))), gradient = clean
    assert not y[~mask].any()
    assert not gradient["projected"][~mask].any()
    np.testing.assert_array_equal(h[2], given["carry"][0][2])  # length 0
    np.testing.assert_array_equal(c[2], given["carry"][1][2])


def test_zero_steps_return_the_carry_and_zero_gradients():
    given = arrays("gru")
    given["projected"] = given["projected"][:, :0]
    (_, (y, carry)), gradient = compiled(scalar(ops.recur, ops.gru_cell), given)
    assert y.shape == (BATCH, 0, HIDDEN)
    np.testing.assert_array_equal(carry, given["carry"])
    assert not gradient["kernel"].any()
    assert not gradient["bias"].any()
    assert gradient["carry"].any()


def test_scan_time_keeps_any_tree_of_carries():
    """A running outer product and a count: axes beyond [B, H] are masked as well."""

    def step(carry, x):
        return {"sum": carry["sum"] + x[:, :, None] * x[:, None], "count": carry["count"] + 1}, x

    x = jnp.asarray(random.normal(size=(BATCH, STEPS, 2)), jnp.float32)
    start = {"sum": jnp.zeros((BATCH, 2, 2)), "count": jnp.zeros(BATCH, jnp.int32)}
    _, carry = ops.scan_time(step, start, x, ops.length_mask(LENGTHS, STEPS))
    assert carry["count"].tolist() == LENGTHS.tolist()
    for b, n in enumerate(LENGTHS):
        np.testing.assert_allclose(carry["sum"][b], x[b, :n].T @ x[b, :n], rtol=1e-5, atol=1e-6)


@every_cell
def test_huge_inputs_saturate_without_nan(name):
    given = arrays(name)
    given["projected"] = 1e30 * given["projected"]
    (_, (y, _)), gradient = compiled(scalar(ops.recur, CELLS[name][0]), given)
    assert np.abs(y).max() <= max(1.0, np.abs(given["carry"]).max())  # tanh, or what the GRU began with
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("lengths", [np.array([1.0]), np.array(1), np.array([[1]]), np.array([True])])
def test_lengths_must_be_a_vector_of_integers(lengths):
    with pytest.raises(fdl.InputError, match=r"lengths: expected one integer for each sequence, \[B\], got"):
        ops.length_mask(lengths, 3)


def test_lengths_outside_are_all_or_nothing():
    assert ops.length_mask([-2, 9], 2).tolist() == [[False, False], [True, True]]
    assert ops.length_mask(np.array([0, 255], np.uint8), 2).tolist() == [[False, False], [True, True]]
    assert ops.length_mask([4], 0).shape == (1, 0)
