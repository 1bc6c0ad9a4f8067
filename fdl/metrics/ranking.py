"""Ranking: how well scores separate positives from negatives. Exact, from all scores at once.

No statistic of fixed size is exact for these, so that they take the scores of the whole set (and run on the device).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fdl.errors import InputError


def roc_auc(scores: jax.Array, labels: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """P(score of a positive > score of a negative), ties counted half: the area under the ROC curve.

    Args:
      scores: [N], larger means more likely positive.
      labels: [N], 0 or 1 (or booleans).
      weight: [N]; weight 0 leaves an example out. None = ones.

    Returns:
      A scalar; NaN where one of the two classes is missing, as the figure is not defined then.

    Raises:
      InputError: shapes other than [N].

    Hanley & McNeil, 1982; equals scikit-learn's `roc_auc_score`.

    >>> float(roc_auc(jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1])))
    0.75
    """
    scores, positive, negative = _sorted(scores, labels, weight)
    below = jnp.cumsum(negative) - negative
    # Of a run of ties, the first element knows the negatives below, the last those up to and including the run.
    first = below[jnp.searchsorted(scores, scores, side="left")]
    last = (below + negative)[jnp.searchsorted(scores, scores, side="right") - 1]
    return (positive * (first + last) / 2).sum() / (positive.sum() * negative.sum())


def average_precision(scores: jax.Array, labels: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """sum_n (recall_n - recall_{n-1}) precision_n over the distinct scores, from the largest down.

    Args, returns and errors: as `roc_auc`; NaN where there is no positive. Equals scikit-learn's
    `average_precision_score`: no interpolation, which would be too optimistic.

    >>> round(float(average_precision(jnp.array([0.1, 0.4, 0.35, 0.8]), jnp.array([0, 0, 1, 1]))), 4)
    0.8333
    """
    scores, positive, negative = _sorted(scores, labels, weight)
    start = jnp.searchsorted(scores, scores, side="left")  # everything from the first tie on is retrieved together
    hits = (jnp.cumsum(positive[::-1])[::-1])[start]
    retrieved = (jnp.cumsum((positive + negative)[::-1])[::-1])[start]
    precision = hits / jnp.where(retrieved == 0, 1.0, retrieved)
    return (positive * precision).sum() / positive.sum()


def _sorted(scores: jax.Array, labels: jax.Array, weight: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Scores in ascending order, with the weights of the positives and of the negatives."""
    weight = jnp.ones(jnp.shape(labels), jnp.float32) if weight is None else weight
    shapes = [list(jnp.shape(values)) for values in (scores, labels, weight)]
    if len(shapes[0]) != 1 or shapes[0] != shapes[1] or shapes[1] != shapes[2]:
        raise InputError(f"expected scores, labels and weight of one shape [N], got {shapes}")
    order = jnp.argsort(scores)
    weight, positive = weight.astype(jnp.float32)[order], (labels > 0)[order]
    return scores[order], jnp.where(positive, weight, 0.0), jnp.where(positive, 0.0, weight)
