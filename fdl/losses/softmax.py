"""Cross-entropy of one class out of C: by class number, by probabilities, and the weight that goes with a label."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from fdl.errors import InputError
from fdl.losses.contract import (
    TOLERANCE,
    class_labels,
    class_number,
    class_numbers,
    floats,
    in_range,
    integers,
    last_axis,
    option,
    same_shape,
    settle,
    signed,
)
from fdl.losses.stable import logsumexp_parts, weighted


def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    ignore_label: int | None = None,
    label_smoothing: ArrayLike = 0.0,
) -> jax.Array:
    """-log softmax(logits)[label], in nats (natural logarithm).

    With label smoothing e the target is (1 - e) one_hot(label) + e / C, the e / C on every class, the right one
    included (Szegedy et al., Rethinking the Inception architecture, 2016, section 7).

    Args:
      logits: [..., C], not probabilities. -inf rules a class out.
      labels: integers [...] in 0 .. C - 1. Concrete labels out of range are an error; inside a compiled program they
        cannot be seen and give NaN, which is why a run rehearses on the real labels before it compiles.
      ignore_label: the loss is 0 where the label is this number, in 0 .. C - 1 or not (-1, PyTorch's -100). **The loss
        cannot take these examples out of a mean; their weight must be 0 too**: see `label_weight`.
      label_smoothing: e, in 0..1; may be traced (swept).

    Returns:
      [...], float32 (or wider).

    Raises:
      InputError: float labels, other shapes, labels out of range, no classes, label_smoothing outside 0..1.

    PyTorch: `cross_entropy(reduction="none")` with the classes moved from axis 1 to the end; its ignore_index is -100
    unless told otherwise, there is none here. Optax's `softmax_cross_entropy_with_integer_labels` has neither option,
    takes -1 for the last class, and rounds to the precision of the largest logit (1.8 % off for logits of 1e4).

    >>> logits = jnp.log(jnp.array([0.3, 0.4, 0.3]))
    >>> round(float(softmax_cross_entropy(logits, jnp.array(1))), 3)
    0.916
    >>> softmax_cross_entropy(jnp.zeros((2, 4)), jnp.array([3, -1]), ignore_label=-1).round(3).tolist()
    [1.3860000371932983, 0.0]
    """
    name = "softmax_cross_entropy"
    logits, chosen = class_labels(name, logits, labels, ignore_label)
    smoothing = option(name, "label_smoothing", label_smoothing, "in 0..1", logits.dtype)
    top, rest = logsumexp_parts(logits)
    loss = rest - (jnp.take_along_axis(logits, chosen.index[..., None], -1)[..., 0] - top)
    if not _is_zero(label_smoothing):
        uniform = rest - (logits - top[..., None]).mean(-1)
        loss = weighted(1.0 - smoothing, loss) + weighted(smoothing, uniform)
    return chosen.settle(loss)


def softmax_cross_entropy_with_probabilities(
    logits: ArrayLike, probabilities: ArrayLike, *, label_smoothing: ArrayLike = 0.0
) -> jax.Array:
    """-sum_c p_c log softmax(logits)_c, in nats: the target is a distribution (one-hot, soft, mixed up, a teacher's).

    Args:
      logits: [..., C], not probabilities. -inf rules a class out; together with p = 0 it costs nothing.
      probabilities: [..., C], in 0..1, each row with sum 1, or the loss is NaN inside a compiled program; one-hot
        integers and booleans are converted. Gradients flow into them as well: `lax.stop_gradient` a teacher.
      label_smoothing: e in 0..1 makes the target (1 - e) p + e / C; may be traced (swept).

    Returns:
      [...], float32 (or wider).

    Raises:
      InputError: shapes that differ (class numbers belong to `softmax_cross_entropy`); no classes; concrete
        probabilities outside 0..1 or whose sum is not 1; label_smoothing outside 0..1.

    PyTorch: `cross_entropy` with float targets. Optax: `softmax_cross_entropy`, NaN for 0 * -inf.

    >>> uniform = jnp.array([0.5, 0.5])
    >>> round(float(softmax_cross_entropy_with_probabilities(jnp.log(jnp.array([0.25, 0.75])), uniform)), 4)
    0.837
    """
    name = "softmax_cross_entropy_with_probabilities"
    if jnp.shape(probabilities) == jnp.shape(logits)[:-1] and jnp.ndim(logits):
        raise InputError(
            f"{name}: probabilities need a class axis, expected {list(jnp.shape(logits))}, got "
            f"{list(jnp.shape(probabilities))}; class numbers go to softmax_cross_entropy"
        )
    same_shape(name, logits=logits, probabilities=probabilities)
    num_classes = last_axis(name, "logits", logits, "classes")
    shares = in_range(name, "probability", probabilities, 0, 1, TOLERANCE)
    _sums(name, probabilities)
    logits, probabilities = floats(name, logits=logits, probabilities=probabilities)
    smoothing = option(name, "label_smoothing", label_smoothing, "in 0..1", logits.dtype)
    valid = shares.all(-1) & (jnp.abs(probabilities.sum(-1) - 1.0) <= TOLERANCE)
    if not _is_zero(label_smoothing):
        probabilities = (1.0 - smoothing) * probabilities + smoothing / num_classes
    return settle(-weighted(probabilities, jax.nn.log_softmax(logits)).sum(-1), valid)


def label_weight(
    labels: ArrayLike, ignore_label: int | None = None, *, class_weights: ArrayLike | None = None
) -> jax.Array:
    """The weight of each label: 0 where it is ignored, otherwise 1 or the weight of its class.

    A loss of 0 still counts in a mean; a weight of 0 does not. So whoever passes `ignore_label` to a loss passes this
    as the weight, and the mean is that of the labels that count. In an objective:

        Outcome(softmax_cross_entropy(logits, y, ignore_label=-1), label_weight(y, -1))

    and with `fdl.supervised(model, loss, weight="weight")` as an entry of the data:

        Arrays(x=x, y=y, weight=label_weight(y, -1))

    Args:
      labels: integers [...].
      ignore_label: the label that does not count; None = all count.
      class_weights: [C], at least 0, for classes that are rare: with it the engine's mean is PyTorch's
        `cross_entropy(weight=class_weights)`, sum(w loss) / sum(w) (without label smoothing, which PyTorch weights
        class by class).

    Returns:
      float32 [...]; NaN for a traced label that is no class.

    Raises:
      InputError: labels that are no integers, concrete and out of range of class_weights; weights below 0.

    >>> label_weight(jnp.array([2, -1, 0]), -1).tolist()
    [1.0, 0.0, 1.0]
    >>> label_weight(jnp.array([2, -1, 0]), -1, class_weights=jnp.array([1.0, 5.0, 3.0])).tolist()
    [3.0, 0.0, 1.0]
    """
    name = "label_weight"
    if class_weights is None:
        integers(name, labels=labels)
        class_number(name, ignore_label)
        labels = signed(labels)
        counts = jnp.ones(labels.shape, bool) if ignore_label is None else labels != ignore_label
        return counts.astype(jnp.float32)
    if jnp.ndim(class_weights) != 1:
        raise InputError(f"{name}: expected class_weights of shape [C], got {list(jnp.shape(class_weights))}")
    num_classes = last_axis(name, "class_weights", class_weights, "classes")
    weights = option(name, "class_weights", class_weights, "at least 0", jnp.float32)
    chosen = class_numbers(name, labels, num_classes, ignore_label)
    return chosen.settle(weights[chosen.index])


def _is_zero(value: Any) -> bool:
    """Known to be 0, so that its term need not be computed."""
    return not isinstance(value, Tracer) and float(value) == 0.0


def _sums(name: str, probabilities: Any) -> None:
    """Raises where the sum of a concrete row is not 1: multi-hot labels, or the zero row of a label out of range."""
    if isinstance(probabilities, Tracer):
        return
    total = np.asarray(probabilities, np.float64).sum(-1)
    wrong = np.argwhere(np.abs(total - 1) > TOLERANCE)
    if len(wrong):
        row = tuple(int(i) for i in wrong[0])
        at = f" at index {row[0] if len(row) == 1 else row}" if row else ""
        raise InputError(
            f"{name}: probabilities{at} have sum {total[row]:.4g}, expected 1; "
            "several classes at once go to sigmoid_binary_cross_entropy"
        )
