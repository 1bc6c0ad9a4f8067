"""Positions as functions: against complex numbers, and by the laws that define them."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl

rotary: Any = fdl.ops.rotary  # numpy arrays do as well
sinusoidal: Any = fdl.ops.sinusoidal

B, T, H, K = 2, 6, 3, 8
X = np.random.default_rng(0).normal(size=(B, T, H, K)).astype(np.float32)
LAYOUTS: dict[Any, Any] = {  # the two features of pair i
    "half": (slice(0, K // 2), slice(K // 2, K)),
    "interleaved": (slice(0, K, 2), slice(1, K, 2)),
}
both_layouts = pytest.mark.parametrize("layout", LAYOUTS)


@both_layouts
def test_a_pair_is_a_complex_number_turned_by_position_times_frequency(layout: Any):
    real, imaginary = (X[..., part].astype(np.float64) for part in LAYOUTS[layout])
    positions = np.array([0, 1, 5, 40, 300, 2000])
    angles = positions[:, None] * 500.0 ** (-2 * np.arange(K // 2) / K)
    want = (real + 1j * imaginary) * np.exp(1j * angles)[:, None]
    y = np.asarray(rotary(X, positions, base=500.0, layout=layout))
    got = y[..., LAYOUTS[layout][0]] + 1j * y[..., LAYOUTS[layout][1]]
    np.testing.assert_allclose(got[:, :4], want[:, :4], atol=2e-5)
    np.testing.assert_allclose(got, want, atol=1e-3)  # angles of 2000 carry an error of 2000 * 6e-8, times |x|


def test_the_layouts_are_permutations_of_each_other():
    to_half = np.concatenate([np.arange(0, K, 2), np.arange(1, K, 2)])
    positions = np.arange(T)
    interleaved = rotary(X, positions, layout="interleaved")
    np.testing.assert_array_equal(interleaved[..., to_half], rotary(X[..., to_half], positions, layout="half"))
    assert not np.allclose(interleaved, rotary(X, positions, layout="half"), atol=0.1)


@both_layouts
def test_scores_depend_on_the_distance_alone(layout: Any):
    q, k = X[:, :1], X[:, 1:2]

    def score(t: int, s: int) -> Any:
        turned = rotary(q, np.array([t]), layout=layout), rotary(k, np.array([s]), layout=layout)
        return np.einsum("bthk,bthk->bh", *map(np.asarray, turned))

    for shift in (0, 3, 90):
        np.testing.assert_allclose(score(7 + shift, 2 + shift), score(7, 2), atol=1e-4)
    assert not np.allclose(score(7, 3), score(7, 2), atol=0.1)


@both_layouts
def test_lengths_are_kept_and_position_zero_is_the_identity(layout: Any):
    y = np.asarray(rotary(X, np.arange(T), layout=layout))
    np.testing.assert_array_equal(y[:, 0], X[:, 0])
    np.testing.assert_allclose(np.linalg.norm(y, axis=-1), np.linalg.norm(X, axis=-1), rtol=1e-6)


def test_positions_of_each_sequence():
    positions = np.array([[0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 2, 3]])
    y = rotary(X, positions)
    for i in range(B):
        np.testing.assert_array_equal(y[i : i + 1], rotary(X[i : i + 1], positions[i]))


def test_bfloat16_is_turned_in_float32():
    """Position 1000 is 1000 in bfloat16, but 1001 is 1000 as well: the angle would be off by one radian."""
    x, position = jnp.asarray(X[:, :1], jnp.bfloat16), np.array([1001])
    y = rotary(x, position)
    assert y.dtype == jnp.bfloat16
    want = rotary(x.astype(jnp.float32), position)
    np.testing.assert_allclose(y.astype(jnp.float32), want, rtol=2**-8)


def test_the_gradient_turns_back():
    gradient = jax.grad(lambda x: (rotary(x, np.arange(T)) * X).sum())(np.ones_like(X))
    np.testing.assert_allclose(rotary(gradient, np.arange(T)), X, atol=1e-5)


# --- sinusoids ---


def test_the_table_of_the_paper():
    """PE(pos, 2i) = sin(pos / 10000^(2i / d)), PE(pos, 2i + 1) = cos of it (Vaswani et al., 2017, section 3.5)."""
    table = sinusoidal(np.arange(50), 6)
    want = [
        [np.sin(p / 10000 ** (i / 6)) if i % 2 == 0 else np.cos(p / 10000 ** ((i - 1) / 6)) for i in range(6)]
        for p in range(50)
    ]
    assert table.dtype == jnp.float32
    np.testing.assert_allclose(table, want, atol=5e-6)


def test_a_shift_is_a_linear_function_of_the_table():
    """The reason the paper gives for sinusoids: PE(p + d) is a matrix, the same for all p, times PE(p)."""
    table = np.asarray(sinusoidal(np.arange(40), 8), np.float64)
    for shift in (1, 7):
        matrix, *_ = np.linalg.lstsq(table[:-shift], table[shift:], rcond=1e-5)
        np.testing.assert_allclose(table[:-shift] @ matrix, table[shift:], atol=1e-5)
    distances = np.einsum("pk,pk->p", table[:-7], table[7:])
    np.testing.assert_allclose(distances, distances[0], atol=1e-4)


def test_positions_of_any_shape():
    table = sinusoidal(np.arange(10), 4)
    np.testing.assert_array_equal(sinusoidal(np.array([[3, 9], [0, 3]]), 4), table[np.array([[3, 9], [0, 3]])])
    assert sinusoidal(np.zeros((0,), int), 4).shape == (0, 4)


WRONG: dict[str, Any] = {
    "odd head": (lambda: rotary(X[..., :7], np.arange(T)), ["heads of an even size, got 7"]),
    "layout": (lambda: rotary(X, np.arange(T), layout="interleave"), ["did you mean 'interleaved'"]),
    "positions": (lambda: rotary(X, np.arange(T + 1)), ["positions [T] or [B, T]", "[7]"]),
    "no heads": (lambda: rotary(X[:, :, 0], np.arange(T)), ["[B, T, H, K]", "[2, 6, 8]"]),
    "float positions": (lambda: rotary(X, np.arange(T) * 1.0), ["expected integers, got float"]),
    "odd features": (lambda: sinusoidal(np.arange(3), 5), ["even number, got 5"]),
    "float positions of a table": (lambda: sinusoidal(np.ones(3), 4), ["expected integers, got float"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_refused(name: str):
    function, said = WRONG[name]
    with pytest.raises(fdl.InputError) as error:
        function()
    for words in said:
        assert words in str(error.value)
