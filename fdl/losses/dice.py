"""Dice losses: the overlap of two regions instead of a count of pixels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from fdl.errors import InputError
from fdl.losses.contract import TOLERANCE, class_labels, floats, in_range, option, same_shape, settle


def sigmoid_dice_loss(logits: ArrayLike, labels: ArrayLike, *, smooth: ArrayLike = 1.0) -> jax.Array:
    """1 - (2 sum p y + s) / (sum p + sum y + s), p = sigmoid(logits), sums over the pixels of an example.

    Args:
      logits: [B, ...], one per pixel, not probabilities.
      labels: [B, ...] in 0..1, same shape; integers and booleans are converted. Others give NaN in a compiled program.
      smooth: s, above 0, in pixels: keeps an empty region with an empty prediction at loss 0 instead of 0 / 0, and
        small regions from swinging between 0 and 1. May be traced.

    Returns:
      [B], float32 (or wider): one loss an example, over all its pixels.

    Raises:
      InputError: shapes that differ; no axis of pixels; concrete labels outside 0..1; smooth not above 0.

    Milletari et al., V-Net, 2016, section 3, without the squares in the denominator, and with s. PyTorch has none;
    MONAI's `DiceLoss(sigmoid=True)` has s = 1e-5. Optax's `dice_loss` adds its `smooth` to half of numerator and
    denominator, so smooth=0.5 there is 1 here; its loss may average over other axes.

    >>> logits, labels = jnp.array([[1e4, 1e4, -1e4]]), jnp.array([[1, 0, 0]])
    >>> sigmoid_dice_loss(logits, labels).tolist()  # 1 - (2 + 1) / (2 + 1 + 1)
    [0.25]
    """
    name = "sigmoid_dice_loss"
    same_shape(name, logits=logits, labels=labels)
    if jnp.ndim(logits) < 2:
        raise InputError(f"{name}: expected pixels of each example, [B, ...], got {list(jnp.shape(logits))}")
    valid = in_range(name, "label", labels, 0, 1, TOLERANCE)
    logits, labels = floats(name, logits=logits, labels=labels)
    smooth = option(name, "smooth", smooth, "above 0", logits.dtype)
    pixels = tuple(range(1, logits.ndim))
    return settle(_dice(jax.nn.sigmoid(logits), labels, pixels, smooth), valid.all(pixels))


def softmax_dice_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    ignore_label: int | None = None,
    class_weights: ArrayLike | None = None,
    smooth: ArrayLike = 1.0,
) -> jax.Array:
    """The mean over classes of 1 - (2 sum p y + s) / (sum p + sum y + s), p = softmax(logits), y = one_hot(labels).

    Args:
      logits: [B, ..., C], not probabilities.
      labels: integers [B, ...] in 0 .. C - 1, a class per pixel.
      ignore_label: pixels of this label are left out of all sums (no weight is needed: the loss is per example).
      class_weights: [C], at least 0 and not all 0: the mean over classes becomes sum(w loss) / sum(w); a 0 leaves the
        background out.
      smooth: s, above 0, in pixels; a class that is neither there nor predicted has loss 0 by it. May be traced.

    Returns:
      [B], float32 (or wider): one loss an example; NaN where a traced label is no class.

    Raises:
      InputError: float labels, other shapes, no axis of pixels, labels out of range, class_weights not [C], smooth not
        above 0.

    As `sigmoid_dice_loss`; MONAI: `DiceLoss(softmax=True, to_onehot_y=True)`. Optax's `dice_loss` cannot leave pixels
    out.

    >>> logits = jnp.array([[[1e4, 0.0], [1e4, 0.0]]])  # 2 pixels, both called class 0
    >>> softmax_dice_loss(logits, jnp.array([[0, 1]])).tolist()  # class 0: 1 - 3 / 4; class 1: 1 - 1 / 2
    [0.375]
    """
    name = "softmax_dice_loss"
    if jnp.ndim(logits) < 3:
        raise InputError(f"{name}: expected logits [B, ..., C] of the pixels, got {list(jnp.shape(logits))}")
    logits, chosen = class_labels(name, logits, labels, ignore_label)
    smooth = option(name, "smooth", smooth, "above 0", logits.dtype)
    weights = _class_weights(name, class_weights, logits)
    counts = ~chosen.ignored[..., None]
    hits = chosen.one_hot(logits.shape[-1]) & counts
    probabilities = jnp.where(counts, jax.nn.softmax(logits), 0.0)
    pixels = tuple(range(1, logits.ndim - 1))
    loss = (_dice(probabilities, hits.astype(logits.dtype), pixels, smooth) * weights[None]).sum(-1)
    # Said aloud: XLA on CPUs may lose a NaN that a compiled program makes itself right before an exponential.
    nan = jnp.isnan(logits).any((*pixels, -1))
    return settle(loss, ~chosen.outside.any(pixels) & ~nan)


def _dice(probabilities: jax.Array, labels: jax.Array, pixels: tuple[int, ...], smooth: jax.Array) -> jax.Array:
    overlap = (probabilities * labels).sum(pixels)
    sizes = probabilities.sum(pixels) + labels.sum(pixels)
    return 1.0 - (2.0 * overlap + smooth) / (sizes + smooth)


def _class_weights(name: str, class_weights: Any, logits: jax.Array) -> jax.Array:
    """The weights of a mean over classes, with sum 1."""
    C = logits.shape[-1]
    if class_weights is None:
        return jnp.full(C, 1.0 / C, logits.dtype)
    if jnp.shape(class_weights) != (C,):
        raise InputError(f"{name}: expected class_weights of shape [{C}], got {list(jnp.shape(class_weights))}")
    weights = option(name, "class_weights", class_weights, "at least 0", logits.dtype)
    total = weights.sum()
    option(name, "the sum of class_weights", total, "above 0", logits.dtype)
    return weights / total
