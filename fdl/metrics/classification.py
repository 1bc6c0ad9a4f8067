"""Classification: accuracy per example, and everything that follows from the confusion matrix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.errors import InputError
from fdl.losses.contract import ClassLabels, class_number, class_numbers, last_axis
from fdl.metrics.statistic import Statistic, concrete, ratio, scatter_sum, weights


def accuracy(logits: Any, labels: Any, *, ignore_label: int | None = None) -> jax.Array:
    """1 where the largest logit is that of the label, else 0, per example.

    Args:
      logits: [..., C]; of equal ones the first counts as the largest. Infinities are compared like other numbers.
      labels: integers [...] in 0 .. C - 1.
      ignore_label: 0 where the label is this number. As with the losses, **the weight must be 0 there too**: see
        `fdl.losses.label_weight`.

    Returns:
      float32 [...]; its mean is the accuracy. NaN where a logit is NaN, or a traced label is no class.

    Raises:
      InputError: shapes that do not fit, no classes, labels that are no integers or (where concrete) no class.

    >>> accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1])).tolist()
    [1.0, 0.0]
    """
    logits, chosen = _chosen("accuracy", logits, labels, ignore_label)
    return _settled(jnp.argmax(logits, -1) == chosen.index, logits, chosen)


def top_k_accuracy(logits: Any, labels: Any, k: int, *, ignore_label: int | None = None) -> jax.Array:
    """1 where fewer than k logits exceed that of the label, else 0, per example.

    Args:
      logits: [..., C].
      labels: integers [...] in 0 .. C - 1.
      k: 1 .. C; logits equal to that of the label do not push it out.
      ignore_label: as of `accuracy`.

    Returns:
      float32 [...]. NaN where a logit is NaN, or a traced label is no class.

    Raises:
      InputError: as `accuracy`, and k out of range.

    >>> top_k_accuracy(jnp.array([[0.1, 0.5, 0.4]]), jnp.array([2]), k=2).tolist()
    [1.0]
    """
    logits, chosen = _chosen("top_k_accuracy", logits, labels, ignore_label)
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= logits.shape[-1]:
        raise InputError(f"top_k_accuracy: k: expected 1..{logits.shape[-1]}, got {k}")
    own = jnp.take_along_axis(logits, chosen.index[..., None], axis=-1)
    return _settled((logits > own).sum(-1) < k, logits, chosen)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Confusion(Statistic):
    """How often each class was taken for each: counts [true class, predicted class], which add up over batches.

    Precision, recall and F1 are per class, [C]; a class that never occurs (or is never predicted) has 0. Their mean is
    the macro average over all classes, that of scikit-learn with `labels=range(num_classes)`: unless told the labels,
    it leaves out a class that neither occurs nor is predicted. `accuracy` is the micro average of all three. Of no
    example all are NaN. Counts are exact to 2**48, and shown rounded to float32.

    As a metric of an experiment it gives "accuracy", "precision/macro", "recall/macro" and "f1/macro".

    >>> labels, predictions = jnp.array([0, 0, 1, 1]), jnp.array([0, 1, 1, 1])
    >>> confusion = Confusion.of(predictions, labels, num_classes=2)
    >>> confusion.counts.tolist(), confusion.recall().tolist(), float(confusion.accuracy())
    ([[1.0, 1.0], [0.0, 2.0]], [0.5, 1.0], 0.75)
    """

    counts: jax.Array
    rest: tuple[jax.Array, ...] = ()

    @classmethod
    def of(
        cls, predictions: Any, labels: Any, num_classes: int, weight: Any = None, *, ignore_label: int | None = None
    ) -> Confusion:
        """Counts the pairs of two integer arrays of one shape.

        Args:
          predictions, labels: integers [...] in 0 .. num_classes - 1.
          num_classes: C.
          weight: same shape, at least 0; a pair of weight 0 does not count, whatever it is. None = ones.
          ignore_label: a pair whose label is this number does not count either.

        Raises:
          InputError: shapes that differ, values that are no integers or (where concrete) no class, weights that are
            negative or not finite. What is traced and invalid makes all counts NaN.
        """
        if isinstance(num_classes, bool) or not isinstance(num_classes, int | np.integer) or num_classes < 1:
            raise InputError(f"Confusion: num_classes: expected a whole number >= 1, got {num_classes!r}")
        class_number("Confusion", ignore_label)
        for name, values in {"predictions": predictions, "labels": labels}.items():
            if not jnp.issubdtype(jnp.result_type(values), jnp.integer):
                hint = "take logits.argmax(-1)" if name == "predictions" else "labels.astype(int), where they are whole"
                raise InputError(f"Confusion: {name}: expected class numbers, got {jnp.result_type(values)}; {hint}")
        weight = weights("Confusion", weight, predictions=predictions, labels=labels)
        if ignore_label is not None:
            weight = jnp.where(jnp.asarray(labels) == ignore_label, 0.0, weight)
        pairs = [
            _numbers(name, values, weight, num_classes)
            for name, values in {"predictions": predictions, "labels": labels}.items()
        ]
        (predicted, true), outside = [pair.index for pair in pairs], pairs[0].outside | pairs[1].outside
        weight = jnp.where((outside & (weight != 0)).any(), jnp.nan, weight)
        cell = (true * num_classes + predicted).ravel()
        square = num_classes, num_classes
        total, rest = scatter_sum(cell, weight.ravel(), num_classes**2)
        nothing_valid = weight.sum() * 0  # NaN where the weight is: a cell that nothing falls into is no 0 either
        return cls((total + nothing_valid).reshape(square), (rest.reshape(square),))

    def accuracy(self) -> jax.Array:
        """The share of the diagonal."""
        return ratio(self._diagonal().sum(-1), self.counts.sum((-1, -2)))

    def precision(self) -> jax.Array:
        """Of what was taken for a class, the share that was; [C]."""
        return self._ratio(self._diagonal(), self.counts.sum(-2))

    def recall(self) -> jax.Array:
        """Of what was a class, the share that was taken for it; [C]."""
        return self._ratio(self._diagonal(), self.counts.sum(-1))

    def f1(self) -> jax.Array:
        """The harmonic mean of precision and recall; [C]."""
        return self._ratio(2 * self._diagonal(), self.counts.sum(-2) + self.counts.sum(-1))

    def numbers(self) -> dict[str, jax.Array]:
        """The accuracy, and the macro averages of the others."""
        macro = {"precision": self.precision(), "recall": self.recall(), "f1": self.f1()}
        return {"accuracy": self.accuracy(), **{f"{name}/macro": each.mean(-1) for name, each in macro.items()}}

    def _diagonal(self) -> jax.Array:
        return jnp.diagonal(self.counts, axis1=-2, axis2=-1)

    def _ratio(self, part: jax.Array, whole: jax.Array) -> jax.Array:
        nothing = jnp.where(self.counts.sum((-1, -2)) == 0, jnp.nan, 0.0)[..., None]
        return jnp.where(whole == 0, nothing, part / jnp.where(whole == 0, 1.0, whole))


def _numbers(what: str, values: Any, weight: jax.Array, num_classes: int) -> ClassLabels:
    """Class numbers, of which those of weight 0 may be anything."""
    if concrete(values) and not concrete(weight):
        values = jnp.where(weight != 0, jnp.asarray(values), 0)
    elif concrete(values):
        values = np.where(np.asarray(weight) != 0, np.asarray(values), 0)
    return class_numbers("Confusion", values, num_classes, what=what)


def _chosen(name: str, logits: Any, labels: Any, ignore_label: int | None) -> tuple[jax.Array, ClassLabels]:
    if jnp.shape(labels) != jnp.shape(logits)[:-1]:
        want, got = list(jnp.shape(logits)[:-1]), list(jnp.shape(labels))
        hint = ""
        if got == list(jnp.shape(logits)):
            one = not want or jnp.shape(logits)[-1] == 1
            hint = "; of one logit each: (logits > 0) == labels" if one else "; of one-hot labels: labels.argmax(-1)"
        elif got == [*want, 1]:
            hint = "; drop the last axis: labels[..., 0]"
        raise InputError(f"{name}: logits {list(jnp.shape(logits))} need labels {want}, got {got}{hint}")
    num_classes = last_axis(name, "logits", logits, "classes")
    if jnp.iscomplexobj(logits):
        raise InputError(f"{name}: expected logits of real numbers, got {jnp.result_type(logits)}")
    if not jnp.issubdtype(jnp.result_type(labels), jnp.integer):
        raise InputError(f"{name}: expected integer labels, got {jnp.result_type(labels)}")
    return jnp.asarray(logits), class_numbers(name, labels, num_classes, ignore_label)


def _settled(right: jax.Array, logits: jax.Array, chosen: ClassLabels) -> jax.Array:
    """1 and 0 for right and wrong, NaN where a logit is NaN, and what a loss does with labels that are no class."""
    return chosen.settle(jnp.where(jnp.isnan(logits).any(-1), jnp.nan, right.astype(jnp.float32)))
