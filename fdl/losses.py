"""Losses per example, over `optax.losses` where it has them, with strict shape contracts around them.

No loss broadcasts, sums or averages: shapes that differ are an error, and the result keeps every axis of the targets.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

from fdl.errors import InputError
from fdl.ops.norm import widen


def softmax_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-log softmax(logits)[label], in nats (natural logarithm).

    Args:
      logits: [..., C], not probabilities.
      labels: integers [...] in 0 .. C - 1. Concrete labels out of range are an error; inside a compiled program they
        cannot be seen and give NaN, which is why a run rehearses on the real labels before it compiles.

    Returns:
      [...], float32 (or wider).

    Raises:
      InputError: float labels, other shapes, labels out of range.

    As PyTorch's `cross_entropy(reduction="none")` with the classes last, and Optax's
    `softmax_cross_entropy_with_integer_labels`.

    >>> round(float(softmax_cross_entropy(jnp.log(jnp.array([0.3, 0.4, 0.3])), jnp.array(1))), 3)
    0.916
    """
    name = "softmax_cross_entropy"
    if jnp.shape(labels) != jnp.shape(logits)[:-1]:
        hint = ""
        if jnp.shape(labels) == jnp.shape(logits):
            hint = "; these look one-hot: take labels.argmax(-1)"
        elif jnp.shape(labels) == (*jnp.shape(logits)[:-1], 1):
            hint = "; drop the last axis: labels[..., 0]"
        raise InputError(
            f"{name}: logits {list(jnp.shape(logits))} need labels {list(jnp.shape(logits)[:-1])}, "
            f"got {list(jnp.shape(labels))}{hint}"
        )
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise InputError(f"{name}: labels are class numbers, expected integers, got {jnp.result_type(labels)}")
    check_range(name, "label", labels, 0, jnp.shape(logits)[-1] - 1)
    return optax.softmax_cross_entropy_with_integer_labels(widen(logits), labels)


def sigmoid_binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """-y log sigmoid(z) - (1 - y) log(1 - sigmoid(z)), in nats; exact for any finite z.

    Args:
      logits: [...], not probabilities.
      labels: [...] in 0..1 (soft labels allowed), same shape; integers and booleans are converted.

    Returns:
      [...], float32 (or wider).

    Raises:
      InputError: other shapes; concrete labels outside 0..1.

    A confident mistake, p = 0.001 against 1, costs 6.908 nats; texts that print 3 took log10. PyTorch:
    `binary_cross_entropy_with_logits(reduction="none")`.

    >>> probability = jnp.array([0.001, 0.999])
    >>> logits = jnp.log(probability) - jnp.log1p(-probability)
    >>> [round(float(loss), 3) for loss in sigmoid_binary_cross_entropy(logits, jnp.array([1, 0]))]
    [6.908, 6.908]
    """
    name = "sigmoid_binary_cross_entropy"
    _same_shape(name, logits, labels)
    check_range(name, "label", labels, 0, 1)
    logits = widen(logits)
    return optax.sigmoid_binary_cross_entropy(logits, jnp.asarray(labels).astype(logits.dtype))


def squared_error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """(prediction - target)^2, without the factor 1/2.

    Args:
      predictions, targets: [...], the same shape.

    Returns:
      [...], float32 (or wider).

    Raises:
      InputError: shapes that differ, (B,) against (B, 1) included.

    PyTorch: `mse_loss(reduction="none")`, which only warns about (B,) against (B, 1) and returns (B, B).

    >>> squared_error(jnp.array([1.0, 2.0]), jnp.array([0.0, 4.0])).tolist()
    [1.0, 4.0]
    """
    _same_shape("squared_error", predictions, targets)
    predictions = widen(predictions)
    return optax.squared_error(predictions, jnp.asarray(targets).astype(predictions.dtype))


def check_range(where: str, what: str, values: Any, low: int, high: int) -> None:
    """Raises where a value is outside low..high, as far as that can be known: traced values pass.

    Raises:
      InputError: the first such value, its index and the range.
    """
    if isinstance(values, Tracer):
        return
    values = np.asarray(values)
    outside = (values < low) | (values > high)
    if outside.any():
        index = tuple(int(i) for i in np.argwhere(outside)[0])
        at = f" at index {index[0] if len(index) == 1 else index}" if index else ""
        raise InputError(f"{where}: {what} {values[index]}{at} is outside {low}..{high}")


def _same_shape(name: str, predictions: Any, targets: Any) -> None:
    got, want = list(jnp.shape(targets)), list(jnp.shape(predictions))
    if got == want:
        return
    hint = ""
    if want == [*got, 1]:
        hint = "; drop the last axis of the predictions: y[..., 0]"
    elif got == [*want, 1]:
        hint = "; drop the last axis of the targets: y[..., 0]"
    raise InputError(f"{name}: predictions {want} and targets {got} must have the same shape{hint}")
