"""Losses of vectors that stand for things: how far apart two are, and which of two is nearer."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fdl.losses.contract import floats, last_axis, option, same_shape, settle
from fdl.losses.stable import direction


def cosine_distance(predictions: ArrayLike, targets: ArrayLike) -> jax.Array:
    """1 - cos(angle), 0 for the same direction, 1 at right angles, 2 for the opposite.

    Args:
      predictions, targets: [..., D]. A vector shorter than 1e-12 has no direction: distance 1, gradient 0.

    Returns:
      [...], float32 (or wider).

    Raises:
      InputError: shapes that differ; D = 0; predictions that are no floats.

    PyTorch: `1 - cosine_similarity(dim=-1)`, whose gradient at a zero vector is of the order 1e8; Optax's function of
    this name is NaN there.

    >>> a, b = jnp.array([[1.0, 0.0], [3.0, 4.0]]), jnp.array([[0.0, 2.0], [6.0, 8.0]])
    >>> cosine_distance(a, b).round(4).tolist()
    [1.0, 0.0]
    """
    same_shape("cosine_distance", predictions=predictions, targets=targets)
    last_axis("cosine_distance", "predictions", predictions, "dimensions")
    predictions, targets = floats("cosine_distance", predictions=predictions, targets=targets)
    return 1.0 - (direction(predictions)[0] * direction(targets)[0]).sum(-1)


def triplet_margin_loss(
    anchors: ArrayLike,
    positives: ArrayLike,
    negatives: ArrayLike,
    *,
    margin: ArrayLike = 1.0,
    squared: bool = False,
) -> jax.Array:
    """max(0, d(anchor, positive) - d(anchor, negative) + margin), d the Euclidean distance.

    Args:
      anchors, positives, negatives: [..., D].
      margin: at least 0: how much nearer the positive has to be. May be traced (swept).
      squared: take squared distances, as FaceNet does.

    Returns:
      [...], float32 (or wider); NaN where a vector is not finite. The distance of equal vectors has gradient 0.

    Raises:
      InputError: shapes that differ; D = 0; anchors that are no floats; a margin below 0.

    Schroff et al., FaceNet, 2015, equation 2 (squared); Balntas et al., Learning shallow convolutional feature
    descriptors with triplet losses, 2016 (not squared). PyTorch: `triplet_margin_loss(reduction="none")`, which adds
    1e-6 to every difference before the norm. Optax adds 1e-6 to the squared distance, so equal vectors are 1e-3 apart.

    >>> anchor, positive, negative = jnp.array([0.0, 0.0]), jnp.array([3.0, 4.0]), jnp.array([0.0, 5.5])
    >>> float(triplet_margin_loss(anchor, positive, negative))  # 5 - 5.5 + 1
    0.5
    """
    name = "triplet_margin_loss"
    same_shape(name, anchors=anchors, positives=positives, negatives=negatives)
    last_axis(name, "anchors", anchors, "dimensions")
    anchors, positives, negatives = floats(name, anchors=anchors, positives=positives, negatives=negatives)
    margin = option(name, "margin", margin, "at least 0", anchors.dtype)

    def distance(other: jax.Array) -> jax.Array:
        if squared:
            return jnp.square(anchors - other).sum(-1)
        return direction(anchors - other)[1]

    finite = jnp.isfinite(anchors) & jnp.isfinite(positives) & jnp.isfinite(negatives)
    # A negative at infinity would cost nothing.
    return settle(jnp.maximum(distance(positives) - distance(negatives) + margin, 0.0), finite.all(-1))
