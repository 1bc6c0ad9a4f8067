"""Binary cross-entropy of independent yes-or-no decisions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fdl.errors import InputError
from fdl.losses.contract import TOLERANCE, floats, in_range, option, same_shape, settle


def sigmoid_binary_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, positive_weight: ArrayLike = 1.0
) -> jax.Array:
    """-w y log sigmoid(z) - (1 - y) log(1 - sigmoid(z)), in nats; exact for any finite z.

    Args:
      logits: [...], not probabilities.
      labels: [...] in 0..1 (soft labels allowed), same shape; integers and booleans are converted. Other labels would
        have no lowest loss; inside a compiled program they give NaN.
      positive_weight: w, at least 0: how often a positive counts, negatives / positives to balance them. A number, or
        one per class of the last axis, [C]. May be traced (swept).

    Returns:
      [...], float32 (or wider).

    Raises:
      InputError: other shapes; concrete labels outside 0..1; logits that are no floats; a positive_weight below 0.

    A confident mistake, p = 0.001 against 1, costs 6.908 nats; texts that print 3 took log10. PyTorch:
    `binary_cross_entropy_with_logits(reduction="none", pos_weight=w)`. Optax's function of this name has no w.

    >>> probability = jnp.array([0.001, 0.999])
    >>> logits = jnp.log(probability) - jnp.log1p(-probability)
    >>> [round(float(loss), 3) for loss in sigmoid_binary_cross_entropy(logits, jnp.array([1, 0]))]
    [6.908, 6.908]
    """
    name = "sigmoid_binary_cross_entropy"
    same_shape(name, predictions=logits, targets=labels)
    valid = in_range(name, "label", labels, 0, 1, TOLERANCE)
    logits, labels = floats(name, logits=logits, labels=labels)
    weight = option(name, "positive_weight", positive_weight, "at least 0", logits.dtype)
    if weight.shape not in ((), logits.shape[-1:]):
        raise InputError(
            f"{name}: positive_weight is a number or one per class, {list(logits.shape[-1:])}, got {list(weight.shape)}"
        )
    weight = jnp.broadcast_to(weight, logits.shape)
    loss = -weight * labels * jax.nn.log_sigmoid(logits) - (1.0 - labels) * jax.nn.log_sigmoid(-logits)
    return settle(loss, valid)
