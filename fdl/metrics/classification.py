"""Classification: accuracy per example, and everything that follows from the confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fdl.errors import InputError
from fdl.shapes import check_range


def accuracy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """1 where the largest logit is that of the label, else 0, per example.

    Args:
      logits: [..., C].
      labels: integers [...].

    Returns:
      float32 [...]; its mean is the accuracy.

    Raises:
      InputError: shapes that do not fit, or labels that are no integers.

    >>> accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1])).tolist()
    [1.0, 0.0]
    """
    _check("accuracy", logits, labels)
    predictions = jnp.argmax(logits, -1)
    return (predictions == jnp.asarray(labels).astype(predictions.dtype)).astype(jnp.float32)


def top_k_accuracy(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
    """1 where fewer than k logits exceed that of the label, else 0, per example.

    Args:
      logits: [..., C].
      labels: integers [...] in 0 .. C - 1.
      k: 1 .. C; logits equal to that of the label do not push it out.

    Returns:
      float32 [...].

    Raises:
      InputError: shapes that do not fit, labels that are no integers, k out of range.

    >>> top_k_accuracy(jnp.array([[0.1, 0.5, 0.4]]), jnp.array([2]), k=2).tolist()
    [1.0]
    """
    _check("top_k_accuracy", logits, labels)
    if not 1 <= k <= logits.shape[-1]:
        raise InputError(f"top_k_accuracy: k: expected 1..{logits.shape[-1]}, got {k}")
    own = jnp.take_along_axis(logits, labels[..., None], axis=-1)
    return ((logits > own).sum(-1) < k).astype(jnp.float32)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Confusion:
    """How often each class was taken for each: counts [true class, predicted class], which add up over batches.

    Precision, recall and F1 are per class, [C]; a class that never occurs (or is never predicted) has 0, as in
    scikit-learn. Their mean is the macro average; `accuracy` is the micro average of all three.

    >>> labels, predictions = jnp.array([0, 0, 1, 1]), jnp.array([0, 1, 1, 1])
    >>> confusion = Confusion.of(predictions, labels, num_classes=2)
    >>> confusion.counts.tolist(), confusion.recall().tolist(), float(confusion.accuracy())
    ([[1.0, 1.0], [0.0, 2.0]], [0.5, 1.0], 0.75)
    """

    counts: jax.Array

    @classmethod
    def of(
        cls, predictions: jax.Array, labels: jax.Array, num_classes: int, weight: jax.Array | None = None
    ) -> Confusion:
        """Counts the pairs of two integer arrays of one shape; a pair of weight 0 does not count.

        Raises:
          InputError: shapes that differ, values that are no integers or (where concrete) no class.
        """
        arrays = {"predictions": predictions, "labels": labels}
        for name, values in arrays.items():
            if not jnp.issubdtype(jnp.result_type(values), jnp.integer):
                dtype = jnp.result_type(values)
                raise InputError(f"Confusion: {name}: expected class numbers, got {dtype}; take logits.argmax(-1)")
            check_range("Confusion", name, values, 0, num_classes - 1)
        weight = jnp.ones(jnp.shape(labels), jnp.float32) if weight is None else weight
        shapes = [list(jnp.shape(values)) for values in (predictions, labels, weight)]
        if shapes[0] != shapes[1] or shapes[1] != shapes[2]:
            raise InputError(f"Confusion: predictions, labels and weight differ in shape: {shapes}")
        counts = jnp.zeros((num_classes, num_classes), jnp.float32)
        return cls(counts.at[labels, predictions].add(weight.astype(jnp.float32)))

    def merge(self, other: Confusion) -> Confusion:
        """The counts of both."""
        return Confusion(self.counts + other.counts)

    def accuracy(self) -> jax.Array:
        """The share of the diagonal."""
        return _ratio(jnp.trace(self.counts), self.counts.sum())

    def precision(self) -> jax.Array:
        """Of what was taken for a class, the share that was; [C]."""
        return _ratio(jnp.diagonal(self.counts), self.counts.sum(0))

    def recall(self) -> jax.Array:
        """Of what was a class, the share that was taken for it; [C]."""
        return _ratio(jnp.diagonal(self.counts), self.counts.sum(1))

    def f1(self) -> jax.Array:
        """The harmonic mean of precision and recall; [C]."""
        return _ratio(2 * jnp.diagonal(self.counts), self.counts.sum(0) + self.counts.sum(1))


def _ratio(part: jax.Array, whole: jax.Array) -> jax.Array:
    return jnp.where(whole == 0, 0.0, part / jnp.where(whole == 0, 1.0, whole))


def _check(name: str, logits: jax.Array, labels: jax.Array) -> None:
    if jnp.shape(labels) != jnp.shape(logits)[:-1]:
        want, got = list(jnp.shape(logits)[:-1]), list(jnp.shape(labels))
        raise InputError(f"{name}: logits {list(jnp.shape(logits))} need labels {want}, got {got}")
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise InputError(f"{name}: expected integer labels, got {jnp.result_type(labels)}")
