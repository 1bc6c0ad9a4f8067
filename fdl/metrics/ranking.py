"""Ranking: how well scores separate positives from negatives. Exact, from all scores at once.

No statistic of fixed size is exact for these, so that they take the scores of the whole set (and run on the device).
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.errors import InputError
from fdl.metrics.statistic import concrete, weights


def roc_auc(scores: Any, labels: Any, weight: Any = None) -> jax.Array:
    """P(score of a positive > score of a negative), ties counted half: the area under the ROC curve.

    Args:
      scores: [N], larger means more likely positive. Infinities are compared like other numbers.
      labels: [N], 0 or 1 (or booleans).
      weight: [N], at least 0; weight 0 leaves an example out, whatever it is. None = ones.

    Returns:
      A scalar; NaN where one of the two classes is missing, as the figure is not defined then, where a score is NaN,
      and for a traced label other than 0 and 1 or a traced weight that is negative or infinite.

    Raises:
      InputError: shapes other than [N]; complex scores; concrete labels other than 0 and 1 (soft ones, -1), weights
        that are negative or not finite.

    Hanley & McNeil, 1982; equals scikit-learn's `roc_auc_score`.

    >>> float(roc_auc(jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1])))
    0.75
    """
    scores, positive, negative = _sorted("roc_auc", scores, labels, weight)
    below = jnp.cumsum(negative) - negative
    # Of a run of ties, the first element knows the negatives below, the last those up to and including the run.
    first = below[jnp.searchsorted(scores, scores, side="left")]
    last = (below + negative)[jnp.searchsorted(scores, scores, side="right") - 1]
    return (positive * (first + last) / 2).sum() / (positive.sum() * negative.sum())


def average_precision(scores: Any, labels: Any, weight: Any = None) -> jax.Array:
    """sum_n (recall_n - recall_{n-1}) precision_n over the distinct scores, from the largest down.

    Args, returns and errors: as `roc_auc`; NaN where there is no positive. Equals scikit-learn's
    `average_precision_score`: no interpolation, which would be too optimistic.

    >>> round(float(average_precision(jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1]))), 4)
    0.8333
    """
    scores, positive, negative = _sorted("average_precision", scores, labels, weight)
    start = jnp.searchsorted(scores, scores, side="left")  # everything from the first tie on is retrieved together
    hits = (jnp.cumsum(positive[::-1])[::-1])[start]
    retrieved = (jnp.cumsum((positive + negative)[::-1])[::-1])[start]
    precision = hits / jnp.where(retrieved == 0, 1.0, retrieved)
    return (positive * precision).sum() / positive.sum()


def _sorted(name: str, scores: Any, labels: Any, weight: Any) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Scores in ascending order, with the weights of the positives and of the negatives."""
    shapes = [list(jnp.shape(values)) for values in (scores, labels)]
    if len(shapes[0]) != 1 or shapes[0] != shapes[1]:
        raise InputError(f"{name}: expected scores, labels and weight of one shape [N], got {shapes}")
    weight = weights(name, weight, scores=scores, labels=labels)
    counted = weight != 0
    if concrete(labels, counted):
        _binary(name, np.asarray(labels), np.asarray(counted))
    scores, labels = jnp.asarray(scores), jnp.asarray(labels)
    scores = scores.astype(jnp.int32) if scores.dtype == bool else scores
    valid = ((labels == 0) | (labels == 1)) & ~jnp.isnan(scores)
    weight = jnp.where((valid | ~counted).all(), weight, jnp.nan)
    # An element at the end that counts nowhere: an empty set is an array as well.
    scores, labels, weight = (
        jnp.append(array, jnp.zeros(1, array.dtype))
        for array in (jnp.where(counted & valid, scores, 0), labels, weight)
    )
    order = jnp.argsort(scores)
    weight, positive = weight[order], (labels == 1)[order]
    return scores[order], jnp.where(positive, weight, 0.0), jnp.where(positive, 0.0, weight)


def _binary(name: str, labels: np.ndarray, counted: np.ndarray) -> None:
    """Raises unless the labels that count are 0 and 1."""
    wrong = np.flatnonzero((labels != 0) & (labels != 1) & counted)
    if not len(wrong):
        return
    value, signs = labels[wrong[0]], set(np.unique(labels[counted]).tolist()) <= {-1, 1}
    hint = "labels > 0 makes that of -1 and 1" if signs else "labels > 0.5 would make that of probabilities"
    raise InputError(f"{name}: label {value} at index {int(wrong[0])}: expected 0 or 1; {hint}")
