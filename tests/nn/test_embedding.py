"""Embeddings and positions: what is looked up, what is refused, and what gradients reach."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.nn.embedding import Embedding
from fdl.nn.positions import LearnedPositions, SinusoidalPositions

sinusoidal: Any = fdl.ops.sinusoidal
LAYER: Any = Embedding(10, 4)
PARAMS, _ = fdl.init(LAYER, jax.random.key(0))
TABLE = PARAMS["embedding"]
X: Any = np.random.default_rng(0).normal(size=(2, 5, 4)).astype(np.float32)


def test_ids_are_rows():
    ids = np.array([[0, 9], [3, 3]])
    np.testing.assert_array_equal(LAYER(PARAMS, ids), np.asarray(TABLE)[ids])
    np.testing.assert_array_equal(LAYER(PARAMS, np.int32(7)), TABLE[7])
    assert LAYER(PARAMS, np.zeros((2, 0), int)).shape == (2, 0, 4)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.int16, np.uint32, np.int32, np.int64])
def test_any_integer_type_reaches_every_row(dtype: Any):
    """300 rows do not fit into eight bits: a comparison in that type would call 100 out of range."""
    layer: Any = Embedding(300, 2)
    params, _ = fdl.init(layer, jax.random.key(0))
    ids = np.array([0, 100, 127], dtype)
    want = np.asarray(params["embedding"])[[0, 100, 127]]
    np.testing.assert_array_equal(layer(params, ids), want)
    np.testing.assert_array_equal(jax.jit(layer)(params, ids), want)


def test_an_id_outside_the_vocabulary_is_nan_inside_a_program():
    """Plain indexing gives the last row for 10, and for -1."""
    ids = jnp.array([9, 10, -1, -10, 2**31 - 1])
    y = np.asarray(jax.jit(LAYER)(PARAMS, ids))
    np.testing.assert_array_equal(y[0], TABLE[9])
    assert np.isnan(y[1:]).all()
    real = lambda p, ids: jnp.where(ids == 9, LAYER(p, ids).sum(-1), 0.0).sum()  # noqa: E731
    gradient = jax.jit(jax.grad(real))(PARAMS, ids)["embedding"]
    np.testing.assert_array_equal(gradient, np.where(np.arange(10)[:, None] == 9, 1.0, np.zeros((10, 4))))


def test_the_gradient_of_a_row_is_the_sum_over_its_uses():
    ids = np.array([1, 3, 3, 3])
    gradient = jax.grad(lambda p: LAYER(p, ids).sum())(PARAMS)["embedding"]
    np.testing.assert_array_equal(gradient[:, 0], [0, 1, 0, 3, 0, 0, 0, 0, 0, 0])


def test_tied_weights_score_every_row():
    np.testing.assert_allclose(LAYER.attend(PARAMS, X), X @ np.asarray(TABLE).T, rtol=1e-6, atol=1e-7)
    with pytest.raises(fdl.InputError, match=r"features=4\], got float32\[2, 5, 3\]"):
        LAYER.attend(PARAMS, X[..., :3])


def test_a_tied_table_learns_from_both_ends():
    """d/dE of e_i . e_j for i != j is e_j in row i, from the look-up, and e_i in row j, from the scores."""
    gradient = jax.grad(lambda p: LAYER.attend(p, LAYER(p, np.array([2])))[0, 5])(PARAMS)["embedding"]
    want = np.zeros((10, 4), np.float32)
    want[2], want[5] = TABLE[5], TABLE[2]
    np.testing.assert_array_equal(gradient, want)


def test_initial_logits_of_tied_weights_are_nearly_uniform():
    layer: Any = Embedding(1000, 256)
    params, _ = fdl.init(layer, jax.random.key(0))
    assert float(params["embedding"].std()) == pytest.approx(0.02, rel=0.01)
    x = np.random.default_rng(0).normal(size=(20, 256)).astype(np.float32)  # what a LayerNorm gives
    loss = fdl.losses.softmax_cross_entropy(layer.attend(params, x), jnp.zeros(20, int)).mean()
    assert float(loss) == pytest.approx(np.log(1000) + 256 * 0.02**2 / 2, abs=0.2)  # + half the variance of a logit


WRONG: dict[str, Any] = {
    "too large": (np.array([[1, 2], [10, 3]]), ["Embedding(10, 4)", "id 10 at index (1, 0) is outside 0..9"]),
    "negative": (np.array([0, -1]), ["id -1 at index 1 is outside 0..9"]),
    "a number": (10, ["id 10 is outside 0..9"]),
    "wraps in int32": (np.array([2**40 + 7]), ["id 1099511627783 at index 0"]),
    "floats": (np.ones((2, 3), np.float32), ["expected integers, got float32"]),
    "one-hot": (np.eye(10, dtype=np.float32), ["one-hot"]),
    "booleans": (np.ones(3, bool), ["expected integers, got bool"]),
    "a list": ([1, 2], ["an array of integers, got list"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_ids_are_refused(name: str):
    ids, said = WRONG[name]
    with pytest.raises(fdl.InputError) as error:
        LAYER(PARAMS, ids)
    for words in said:
        assert words in str(error.value)


def test_concrete_ids_are_seen_while_the_rest_is_traced():
    """That is what the rehearsal before a run relies on."""
    ids = jnp.array([10])
    with pytest.raises(fdl.InputError, match="id 10 at index 0"):
        jax.eval_shape(lambda p: LAYER(p, ids), PARAMS)


# --- positions ---

LEARNED: Any = LearnedPositions(8, 4)
LEARNED_PARAMS, _ = fdl.init(LEARNED, jax.random.key(1))


def test_positions_are_added():
    np.testing.assert_array_equal(LEARNED(LEARNED_PARAMS, X), X + LEARNED_PARAMS["embedding"][:5])
    np.testing.assert_array_equal(SinusoidalPositions(4)({}, X), X + sinusoidal(np.arange(5), 4))
    assert SinusoidalPositions(4, base=100.0)({}, X)[0, 2, 2] == pytest.approx(X[0, 2, 2] + np.sin(2 / 10), abs=1e-6)


@pytest.mark.parametrize(("layer", "params"), [(LEARNED, LEARNED_PARAMS), (SinusoidalPositions(4), {})])
def test_given_positions_continue_a_sequence(layer: Any, params: Any):
    whole = layer(params, X)
    np.testing.assert_array_equal(layer(params, X[:, 3:], positions=np.arange(3, 5)), whole[:, 3:])
    each = np.array([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])
    y = layer(params, X, positions=each)
    np.testing.assert_array_equal(y[0], whole[0])
    np.testing.assert_array_equal(y[1], layer(params, X[:, ::-1])[1, ::-1])


def test_a_sequence_longer_than_the_table_is_refused():
    with pytest.raises(fdl.InputError, match="x has 9 positions, the table 8"):
        jax.eval_shape(LEARNED, LEARNED_PARAMS, jax.ShapeDtypeStruct((1, 9, 4), jnp.float32))
    with pytest.raises(fdl.InputError, match="position 8 at index 1 is outside"):
        LEARNED(LEARNED_PARAMS, X[:, :2], positions=np.array([7, 8]))
    y = jax.jit(lambda p: LEARNED(LEARNED_PARAMS, X[:, :2], positions=p))(np.array([7, 8]))
    assert np.isfinite(y[:, 0]).all()
    assert np.isnan(y[:, 1]).all()  # `dynamic_slice` would give the rows 6 and 7


def test_wrong_positions_are_refused():
    with pytest.raises(fdl.InputError, match=r"positions of shape \[5\] or \[2, 5\], got \[4\]"):
        SinusoidalPositions(4)({}, X, positions=jnp.arange(4))
    with pytest.raises(fdl.InputError, match="expected integers, got float"):
        LEARNED(LEARNED_PARAMS, X, positions=np.ones(5))
    with pytest.raises(fdl.InputError, match="even number of features, got 5"):
        SinusoidalPositions(5)


def test_bfloat16_positions_are_computed_in_float32():
    """257 is no bfloat16: a table computed in that type would repeat row 256 there."""
    y = SinusoidalPositions(4)({}, jnp.zeros((1, 258, 4), jnp.bfloat16))
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y[0].astype(jnp.float32), sinusoidal(np.arange(258), 4), atol=2**-8)
