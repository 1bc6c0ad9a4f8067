"""Margin losses of classifiers: what a support vector machine minimises."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.typing import ArrayLike

from fdl.errors import InputError
from fdl.losses.contract import class_labels, floats, same_shape, settle
from fdl.ops.pool import largest


def hinge_loss(scores: ArrayLike, labels: ArrayLike) -> jax.Array:
    """max(0, 1 - label * score).

    Args:
      scores: [...], any real numbers.
      labels: [...] of -1 and 1, same shape; integers are converted. With labels of 0 and 1 take 2 * labels - 1. Others
        give NaN in a compiled program.

    Returns:
      [...], float32 (or wider). At the kink, label * score = 1, the gradient is half of that inside the margin.

    Raises:
      InputError: shapes that differ; concrete labels that are neither -1 nor 1; scores that are no floats.

    Cortes & Vapnik, Support-vector networks, 1995. scikit-learn: `hinge_loss`, averaged; PyTorch has none of this form
    (`hinge_embedding_loss` is of distances).

    >>> hinge_loss(jnp.array([0.25, 3.0, 0.5]), jnp.array([1, 1, -1])).tolist()
    [0.75, 0.0, 1.5]
    """
    same_shape("hinge_loss", scores=scores, labels=labels)
    _signs("hinge_loss", labels)
    scores, labels = floats("hinge_loss", scores=scores, labels=labels)
    return settle(optax.hinge_loss(scores, labels), jnp.abs(labels) == 1)


def multiclass_hinge_loss(logits: ArrayLike, labels: ArrayLike, *, ignore_label: int | None = None) -> jax.Array:
    """max(0, max over c != label of 1 + score_c - score_label).

    Args:
      logits: scores [..., C], any real numbers; -inf rules a class out.
      labels: integers [...] in 0 .. C - 1.
      ignore_label: the loss is 0 where the label is this number; their weight must be 0 too, see `label_weight`.

    Returns:
      [...], float32 (or wider); NaN for a traced label that is no class.

    Raises:
      InputError: float labels, other shapes, labels out of range, no classes.

    Crammer & Singer, On the algorithmic implementation of multiclass kernel-based vector machines, 2001; the form of
    scikit-learn's `hinge_loss` and Optax's `multiclass_hinge_loss` (which is NaN for scores of -inf). PyTorch's
    `multi_margin_loss` is another one (Weston & Watkins, 1999): the sum over c instead of the maximum, divided by C.

    >>> multiclass_hinge_loss(jnp.array([1.0, 1.5, -1.0]), jnp.array(0)).tolist()
    1.5
    """
    logits, chosen = class_labels("multiclass_hinge_loss", logits, labels, ignore_label)
    violation = 1.0 + logits - jnp.take_along_axis(logits, chosen.index[..., None], -1)
    return chosen.settle(largest(jnp.where(chosen.one_hot(logits.shape[-1]), 0.0, violation), violation.ndim - 1))


def _signs(name: str, labels: Any) -> None:
    if isinstance(labels, Tracer):
        return
    values = np.asarray(labels)
    wrong = np.argwhere((values != 1) & (values != -1))
    if len(wrong):
        index = tuple(int(i) for i in wrong[0])
        hint = "; for labels of 0 and 1 pass 2 * labels - 1" if values[index] == 0 else ""
        raise InputError(f"{name}: labels are -1 or 1, got {values[index]} at {index}{hint}")
