"""Focal losses: cross-entropies in which examples that are already right count less."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike

from fdl.losses.contract import TOLERANCE, class_labels, floats, in_range, option, same_shape, settle
from fdl.losses.stable import logsumexp_parts

RULED_OUT = -1e30
"""A logit that wins against nothing; finite, so that a row of nothing else has a gradient."""


def sigmoid_focal_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: ArrayLike = 2.0,
    alpha: ArrayLike | None = None,
) -> jax.Array:
    """-(1 - p_t)^gamma log p_t, p_t the probability given to the right answer, in nats.

    Args:
      logits: [...], not probabilities.
      labels: [...] in 0..1, same shape; integers and booleans are converted. Others give NaN in a compiled program.
      gamma: at least 0; 0 is `sigmoid_binary_cross_entropy`. May be traced (swept).
      alpha: in 0..1: positives count alpha and negatives 1 - alpha; None = both count 1. May be traced.

    Returns:
      [...], float32 (or wider).

    Raises:
      InputError: shapes that differ; concrete labels outside 0..1; logits that are no floats; gamma below 0; alpha
        outside 0..1.

    Lin et al., Focal loss for dense object detection, 2017, equation 5. torchvision: `sigmoid_focal_loss`, whose alpha
    is 0.25 unless told otherwise (-1 = none). Optax has the same formula, used here.

    >>> round(float(sigmoid_focal_loss(jnp.array(0.0), jnp.array(1))), 4)  # 0.5^2 log 2
    0.1733
    """
    name = "sigmoid_focal_loss"
    same_shape(name, logits=logits, labels=labels)
    valid = in_range(name, "label", labels, 0, 1, TOLERANCE)
    logits, labels = floats(name, logits=logits, labels=labels)
    gamma = option(name, "gamma", gamma, "at least 0", logits.dtype)
    if alpha is not None:
        alpha = option(name, "alpha", alpha, "in 0..1", logits.dtype)
    return settle(optax.sigmoid_focal_loss(logits, labels, alpha=alpha, gamma=gamma), valid)


def softmax_focal_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    gamma: ArrayLike = 2.0,
    ignore_label: int | None = None,
) -> jax.Array:
    """-(1 - p)^gamma log p, p = softmax(logits)[label], in nats.

    Args:
      logits: [..., C], not probabilities.
      labels: integers [...] in 0 .. C - 1.
      gamma: at least 0; 0 is `softmax_cross_entropy`. May be traced (swept).
      ignore_label: the loss is 0 where the label is this number; their weight must be 0 too, see `label_weight` (which
        also takes the class weights that some call alpha).

    Returns:
      [...], float32 (or wider); NaN for a traced label that is no class.

    Raises:
      InputError: float labels, other shapes, labels out of range, no classes, gamma below 0.

    Lin et al., Focal loss for dense object detection, 2017, equation 4, with a softmax. PyTorch and Optax have none.

    >>> round(float(softmax_focal_loss(jnp.zeros(4), jnp.array(1))), 4)  # 0.75^2 log 4
    0.7798
    """
    name = "softmax_focal_loss"
    logits, chosen = class_labels(name, logits, labels, ignore_label)
    gamma = option(name, "gamma", gamma, "at least 0", logits.dtype)
    top, rest = logsumexp_parts(logits)
    log_p = jnp.take_along_axis(logits, chosen.index[..., None], -1)[..., 0] - top - rest
    # 1 - p is the share of the other classes: no cancellation, and a power of it no root at 0.
    others_top, others = logsumexp_parts(jnp.where(chosen.one_hot(logits.shape[-1]), RULED_OUT, logits))
    log_others = (others_top - top) + others - rest
    return chosen.settle(-jnp.exp(gamma * log_others) * log_p)
