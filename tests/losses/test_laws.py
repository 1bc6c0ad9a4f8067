"""Every loss: float64 agrees, with its gradient; compiled, batched, narrower and wider it is the same loss."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl import losses
from tests.compiling import QUICK
from tests.losses.table import ROWS, Row

#: What float32 can promise: round-off of a few sums.
TOLERANCE = 1e-5
HELPERS = {"check_range", "label_weight", "ctc_weight"}
rows = pytest.mark.parametrize("name", ROWS)


def test_every_public_loss_has_a_row():
    public = {name for name, value in vars(losses).items() if inspect.isfunction(value) and not name.startswith("_")}
    assert public == set(losses.__all__)
    assert public - HELPERS == {name.split(",")[0] for name in ROWS}


@cache
def results(name: str) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """The compiled loss, and the gradient of its sum weighted by 1, 2, 3, ... (or errors could cancel)."""
    row = ROWS[name]

    def total(*floats):
        loss = row.loss(*floats)
        return (loss * weights_like(loss)).sum(), loss

    compiled = jax.jit(jax.value_and_grad(total, tuple(range(len(row.floats))), has_aux=True), compiler_options=QUICK)
    (_, loss), gradients = compiled(*(x.astype(np.float32) for x in row.floats))
    return np.asarray(loss), tuple(np.asarray(g) for g in gradients)


def weights_like(loss: Any) -> np.ndarray:
    return np.arange(1, loss.size + 1, dtype=np.float32).reshape(loss.shape)


@rows
def test_float64_agrees(name):
    loss, _ = results(name)
    expected = ROWS[name].oracle(*ROWS[name].floats)
    assert loss.shape == expected.shape
    assert loss.dtype == np.float32
    np.testing.assert_allclose(loss, expected, rtol=TOLERANCE, atol=TOLERANCE * np.abs(expected).max())


@rows
def test_float64_differences_agree_with_the_gradient(name):
    row = ROWS[name]
    expected = [difference(row, which) for which in range(len(row.floats))]
    for got, want in zip(results(name)[1], expected, strict=True):
        np.testing.assert_allclose(got, want, rtol=TOLERANCE, atol=TOLERANCE * np.abs(want).max())


def difference(row: Row, which: int, h: float = 1e-5) -> np.ndarray:
    """Central differences; no row of the table is within h of a kink."""

    def total(x: np.ndarray) -> float:
        loss = row.oracle(*row.floats[:which], x, *row.floats[which + 1 :])
        return float((loss * weights_like(loss)).sum())

    x, gradient = row.floats[which], np.zeros_like(row.floats[which])
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = h
        gradient[index] = (total(x + step) - total(x - step)) / (2 * h)
    return gradient


@rows
def test_eager_is_compiled(name):
    row = ROWS[name]
    eager = row.loss(*(jnp.asarray(x, jnp.float32) for x in row.floats))
    np.testing.assert_allclose(eager, results(name)[0], rtol=2e-6, atol=2e-6)


@rows
def test_vmap_is_a_loop(name):
    row = ROWS[name]
    members = [[np.float32(scale * x) for x in row.floats] for scale in (1.0, 0.5)]
    stacked = [np.stack(arrays) for arrays in zip(*members, strict=True)]
    got = jax.jit(jax.vmap(row.loss), compiler_options=QUICK)(*stacked)
    one = jax.jit(row.loss, compiler_options=QUICK)
    for i, member in enumerate(members):
        np.testing.assert_allclose(got[i], one(*member), rtol=2e-6, atol=2e-6)


@rows
def test_an_example_sees_no_other(name):
    """Changing row 0 leaves the other losses alone; in a contrastive loss it changes them."""
    row = ROWS[name]
    compiled = jax.jit(row.loss, compiler_options=QUICK)
    before = np.asarray(compiled(*(x.astype(np.float32) for x in row.floats)))
    after = np.asarray(compiled(*(np.concatenate([x[:1] * 0.5 + 0.25, x[1:]]).astype(np.float32) for x in row.floats)))
    assert np.any(before[0] != after[0])
    assert np.array_equal(before[1:], after[1:]) != row.coupled


@rows
def test_bfloat16_in_float32_out(name):
    """The table's floats fit into bfloat16, so computing wide gives the float32 loss itself."""
    row = ROWS[name]
    narrow = [jnp.asarray(x, jnp.bfloat16) for x in row.floats]
    same = [np.asarray(x, np.float32) for x in narrow]
    loss = jax.jit(row.loss, compiler_options=QUICK)(*narrow)
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss, jax.jit(row.loss, compiler_options=QUICK)(*same), rtol=1e-6, atol=1e-6)


@rows
def test_float64_in_float64_out(name):
    row = ROWS[name]
    with jax.enable_x64(True):
        loss = jax.jit(row.loss, compiler_options=QUICK)(*row.floats)
        narrow = jax.jit(row.loss, compiler_options=QUICK)(*(x.astype(np.float32) for x in row.floats))
    assert loss.dtype == np.float64
    assert narrow.dtype in (np.float32, np.float64)
    expected = row.oracle(*row.floats)
    np.testing.assert_allclose(loss, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(narrow, expected, rtol=TOLERANCE, atol=TOLERANCE * np.abs(expected).max())


SWEPT = {
    "huber_loss delta": (lambda v, x: losses.huber_loss(x, x * 0, delta=v), (0.5, 2.0)),
    "label_smoothing": (
        lambda v, x: losses.softmax_cross_entropy(x, np.array([0, 1, 2]), label_smoothing=v),
        (0.0, 0.2),
    ),
    "soft label_smoothing": (
        lambda v, x: losses.softmax_cross_entropy_with_probabilities(x, jnp.eye(3), label_smoothing=v),
        (0.0, 0.2),
    ),
    "positive_weight": (lambda v, x: losses.sigmoid_binary_cross_entropy(x, jnp.eye(3), positive_weight=v), (1.0, 3.0)),
    "sigmoid gamma": (lambda v, x: losses.sigmoid_focal_loss(x, jnp.eye(3), gamma=v), (0.0, 2.0)),
    "alpha": (lambda v, x: losses.sigmoid_focal_loss(x, jnp.eye(3), alpha=v), (0.25, 0.5)),
    "softmax gamma": (lambda v, x: losses.softmax_focal_loss(x, np.array([0, 1, 2]), gamma=v), (0.0, 2.0)),
    "margin": (lambda v, x: losses.triplet_margin_loss(x, x * 0.5, x * 2, margin=v), (0.5, 3.0)),
    "temperature": (lambda v, x: losses.nt_xent(x, x[::-1], temperature=v), (0.1, 1.0)),
    "sigmoid smooth": (lambda v, x: losses.sigmoid_dice_loss(x, jnp.eye(3), smooth=v), (0.1, 1.0)),
    "softmax smooth": (
        lambda v, x: losses.softmax_dice_loss(x[None], np.array([[0, 1, 2]]), smooth=v),
        (0.1, 1.0),
    ),
}


@pytest.mark.parametrize("name", SWEPT)
def test_a_swept_option_is_the_option(name):
    loss, values = SWEPT[name]
    x = jnp.array([[1.0, -2.0, 0.5], [0.3, 0.1, -0.7], [2.0, 1.0, -1.0]])
    swept = jax.vmap(lambda v: loss(v, x))(jnp.array(values))
    assert np.abs(swept[0] - swept[1]).max() > 1e-3
    for value, member in zip(values, swept, strict=True):
        np.testing.assert_allclose(member, loss(value, x), rtol=2e-6, atol=2e-6)
