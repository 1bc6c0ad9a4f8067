"""The three losses that everything else relies on: values against float64, extremes, dtypes, refusals.

The whole file runs under strict dtype promotion and without rank promotion (conftest): no loss may broadcast.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.losses import sigmoid_binary_cross_entropy, softmax_cross_entropy, squared_error

random = np.random.default_rng(0)
LOGITS: Any = random.normal(size=(6, 5, 4)).astype(np.float32) * 5
CLASSES: Any = random.integers(4, size=(6, 5))
SOFT: Any = random.uniform(size=(6, 5, 4)).astype(np.float32)


def softmax_oracle(z: Any, labels: Any) -> Any:
    z = np.asarray(z, np.float64)
    return np.log(np.exp(z).sum(-1)) - np.take_along_axis(z, np.asarray(labels)[..., None], -1)[..., 0]


def sigmoid_oracle(z: Any, y: Any) -> Any:
    p, y = 1 / (1 + np.exp(-np.asarray(z, np.float64))), np.asarray(y, np.float64)
    return -y * np.log(p) - (1 - y) * np.log1p(-p)


def squared_oracle(a: Any, b: Any) -> Any:
    return np.square(np.asarray(a, np.float64) - b)


CASES = [
    pytest.param(softmax_cross_entropy, softmax_oracle, LOGITS, CLASSES, id="softmax"),
    pytest.param(sigmoid_binary_cross_entropy, sigmoid_oracle, LOGITS, SOFT, id="sigmoid"),
    pytest.param(squared_error, squared_oracle, LOGITS, SOFT, id="squared"),
]


@pytest.mark.parametrize(("loss", "oracle", "predictions", "targets"), CASES)
def test_values_are_those_of_float64(loss: Any, oracle: Any, predictions: Any, targets: Any):
    want = oracle(predictions, targets)
    for got in (loss(jnp.asarray(predictions), jnp.asarray(targets)), loss(predictions, targets)):
        assert got.dtype == jnp.float32
        assert got.shape == targets.shape
        np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize(("loss", "oracle", "predictions", "targets"), CASES)
def test_bfloat16_is_widened_before_anything_is_computed(loss: Any, oracle: Any, predictions: Any, targets: Any):
    half = jnp.asarray(predictions, jnp.bfloat16)
    got = loss(half, jnp.asarray(targets))
    assert got.dtype == jnp.float32
    np.testing.assert_array_equal(got, loss(half.astype(jnp.float32), jnp.asarray(targets)))


@pytest.mark.parametrize(("loss", "oracle", "predictions", "targets"), CASES)
def test_float64_stays_float64(loss: Any, oracle: Any, predictions: Any, targets: Any):
    with jax.enable_x64(True):
        got = loss(jnp.asarray(predictions, jnp.float64), jnp.asarray(targets))
        assert got.dtype == jnp.float64
        np.testing.assert_allclose(got, oracle(predictions, targets), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "uint32"])
def test_class_labels_of_any_integer_dtype(dtype: str):
    want = softmax_cross_entropy(LOGITS, CLASSES)
    np.testing.assert_array_equal(softmax_cross_entropy(LOGITS, jnp.asarray(CLASSES, dtype)), want)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(softmax_cross_entropy(LOGITS, jnp.asarray(CLASSES)), want)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "bfloat16"])
def test_binary_labels_of_any_dtype(dtype: str):
    hard = SOFT > 0.5
    want = sigmoid_binary_cross_entropy(LOGITS, hard.astype(np.float32))
    np.testing.assert_array_equal(sigmoid_binary_cross_entropy(LOGITS, jnp.asarray(hard, dtype)), want)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_extreme_logits_give_the_exact_loss_and_gradient(dtype: Any):
    """A loss of |z| where the logit is far out on the wrong side, 0 on the right one, and gradients of p - y."""
    z = jnp.array([1e4, 1e4, -1e4, -1e4, 0.0], dtype)
    size = float(z[0])  # of bfloat16, 9984
    labels = jnp.array([0, 1, 0, 1, 0])
    losses, gradient = values_and_gradient(sigmoid_binary_cross_entropy, z, labels)
    assert losses == pytest.approx([size, 0.0, 0.0, size, np.log(2)], rel=1e-6)
    assert gradient == [1.0, 0.0, 0.0, -1.0, 0.5]

    pairs = jnp.stack([jnp.zeros_like(z), z], -1)
    losses, gradient = values_and_gradient(softmax_cross_entropy, pairs, labels)
    assert losses == pytest.approx([size, 0.0, 0.0, size, np.log(2)], rel=1e-6)
    assert gradient == [[-1.0, 1.0], [0.0, 0.0], [0.0, 0.0], [1.0, -1.0], [-0.5, 0.5]]


def values_and_gradient(loss: Any, logits: jax.Array, labels: jax.Array) -> tuple[list, list]:
    gradient = jax.jit(jax.grad(lambda z: loss(z, labels).sum()))(logits)
    return loss(logits, labels).tolist(), np.asarray(gradient, np.float32).tolist()


def test_the_gradients_of_softmax_add_up_to_nothing():
    """softmax(z) - one_hot(y): the probabilities and the one-hot vector have the same sum."""
    gradient = jax.grad(lambda z: softmax_cross_entropy(z, CLASSES).sum())(jnp.asarray(LOGITS))
    np.testing.assert_allclose(gradient.sum(-1), np.zeros((6, 5)), atol=1e-6)
    np.testing.assert_allclose(gradient, jax.nn.softmax(LOGITS) - np.eye(4, dtype=np.float32)[CLASSES], atol=1e-6)


def test_squared_error_has_no_half():
    assert jax.grad(lambda y: squared_error(y, jnp.zeros(2)).sum())(jnp.array([3.0, -1.0])).tolist() == [6.0, -2.0]


def test_known_losses():
    """A fair coin costs log 2, C equal classes log C; a miss by 3 costs 9."""
    assert float(softmax_cross_entropy(jnp.zeros(10), jnp.array(7))) == pytest.approx(np.log(10))
    assert float(sigmoid_binary_cross_entropy(jnp.zeros(()), jnp.array(1))) == pytest.approx(np.log(2))
    assert float(squared_error(jnp.array(1.0), jnp.array(4))) == 9.0


def zeros(*shape: int, dtype: Any = jnp.float32) -> jax.Array:
    return jnp.zeros(shape, dtype)


def ids(*values: int) -> jax.Array:
    return jnp.array(values)


@pytest.mark.parametrize(
    ("loss", "predictions", "targets", "parts"),
    [
        (softmax_cross_entropy, zeros(4, 3), zeros(4, 3), ["[4, 3] need labels [4], got [4, 3]", "one-hot", "argmax"]),
        (softmax_cross_entropy, zeros(4, 3), zeros(4, 1, dtype=int), ["need labels [4], got [4, 1]", "labels[..., 0]"]),
        (softmax_cross_entropy, zeros(4, 3), ids(0, 1), ["need labels [4], got [2]"]),
        (softmax_cross_entropy, zeros(2, 3), zeros(2), ["expected integers, got float32"]),
        (softmax_cross_entropy, zeros(2, 3), jnp.zeros(2, bool), ["expected integers, got bool"]),
        (softmax_cross_entropy, zeros(4, 3), ids(0, 2, 3, 9), ["label 3 at index 2 is outside 0..2"]),
        (softmax_cross_entropy, zeros(2, 3), ids(0, -1), ["label -1 at index 1 is outside 0..2"]),
        (softmax_cross_entropy, zeros(1, 2, 3), jnp.array([[0, 5]]), ["label 5 at index (0, 1) is outside 0..2"]),
        (sigmoid_binary_cross_entropy, zeros(4, 1), zeros(4), ["[4, 1] and targets [4]", "predictions: y[..., 0]"]),
        (sigmoid_binary_cross_entropy, zeros(4), zeros(4, 1), ["[4] and targets [4, 1]", "targets: y[..., 0]"]),
        (sigmoid_binary_cross_entropy, zeros(2), ids(0, 2), ["label 2 at index 1 is outside 0..1"]),
        (sigmoid_binary_cross_entropy, zeros(2), jnp.array([-0.5, 1]), ["label -0.5 at index 0 is outside 0..1"]),
        (squared_error, zeros(4, 1), zeros(4), ["predictions [4, 1] and targets [4]", "predictions: y[..., 0]"]),
        (squared_error, zeros(4), zeros(4, 1), ["predictions [4] and targets [4, 1]", "targets: y[..., 0]"]),
        (squared_error, zeros(2, 3), zeros(3), ["predictions [2, 3] and targets [3]", "same shape"]),
    ],
)  # fmt: skip
def test_refusals_say_what_is_wrong_and_how_to_put_it_right(loss: Any, predictions: Any, targets: Any, parts: Any):
    with pytest.raises(fdl.InputError) as error:
        loss(predictions, targets)
    message = str(error.value)
    assert message.startswith(loss.__name__ + ": ")
    for part in parts:
        assert part in message


def test_shapes_are_refused_inside_a_program_too():
    with pytest.raises(fdl.InputError, match="same shape"):
        jax.eval_shape(squared_error, zeros(4, 1), zeros(4))


def test_a_traced_label_out_of_range_is_nan_not_a_number():
    """It cannot be refused there, but it must not look like a loss."""
    for label in (3, 99, -1):
        assert np.isnan(jax.jit(softmax_cross_entropy)(zeros(1, 3), ids(label))).all()
