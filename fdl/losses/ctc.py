"""Connectionist temporal classification: labels in order, without their times."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jax.core import Tracer
from jax.typing import ArrayLike

from fdl.errors import InputError
from fdl.losses.contract import floats, integers, settle, signed
from fdl.shapes import check_range

IMPOSSIBLE = 1e30
"""The loss of labels that do not fit into their frames; -1e30 is also the log-probability of an impossible path."""


def ctc_loss(
    logits: ArrayLike, labels: ArrayLike, logit_lengths: ArrayLike, label_lengths: ArrayLike, *, blank: int = 0
) -> jax.Array:
    """-log of the summed probability of all frame-wise paths that spell the labels, in nats.

    A path gives every frame a class or the blank; it spells what is left when repeats are merged and blanks dropped.

    Args:
      logits: [B, T, C], not probabilities, one class being the blank. Frames past the length may hold anything.
      labels: integers [B, N], each in 0 .. C - 1 but not the blank. Labels past the length may be any number.
      logit_lengths: integers [B], 0 .. T, the number of frames.
      label_lengths: integers [B], 0 .. N, the number of labels.
      blank: the class that stands for no label.

    Returns:
      [B], float32 (or wider). **Labels that need more frames than there are (one each, and one more between two equal
      neighbours) have loss 1e30 and gradient 0**: no mean hides them, and they spoil no parameter. Give them weight 0
      with `ctc_weight`. What a trace cannot refuse (a label that is no class or is the blank, a length past the end)
      gives NaN.

    Raises:
      InputError: other shapes, no frames or classes, floats for integers, concrete labels or lengths out of range.

    Graves et al., Connectionist temporal classification, 2006, section 4.1; computed by `optax.ctc_loss`, whose
    paddings are `jnp.arange(T) >= lengths[:, None]`. Its log(0) of -1e5 is less unlikely than real paths over logits
    of 1e4, so it is -1e30 here. PyTorch: `ctc_loss(log_softmax(logits), labels, ..., reduction="none")` with logits
    [T, B, C]; impossible labels give inf there, and NaN gradients unless `zero_infinity=True`, which hides them.

    >>> logits = jnp.zeros((1, 2, 2))  # 2 frames of P(blank) = P(1) = 1/2; "11", "1-", "-1" spell 1: log 4/3
    >>> round(float(ctc_loss(logits, jnp.array([[1]]), jnp.array([2]), jnp.array([1]))[0]), 4)
    0.2877
    """
    name = "ctc_loss"
    _shapes(name, logits, labels, logit_lengths, label_lengths)
    (logits,) = floats(name, logits=logits)
    integers(name, labels=labels)
    integers(name, logit_lengths=logit_lengths, label_lengths=label_lengths)
    _, T, C = logits.shape
    _values(name, labels, logit_lengths, label_lengths, T, C, blank)
    frames, present, outside = _layout(labels, logit_lengths, label_lengths, T, C, blank)
    labels = jnp.where(present, jnp.asarray(labels).astype(jnp.int32), 0)
    # where() keeps NaN in the padding out of the gradient. Optax picks log-probabilities by a product with one-hot
    # labels, which accelerators would round to bfloat16 or TF32 unless told; it also mixes dtypes.
    logits = jnp.where(frames[..., None], logits, 0.0)
    with jax.default_matmul_precision("highest"), jax.numpy_dtype_promotion("standard"):
        paddings = [1.0 - mask.astype(logits.dtype) for mask in (frames, present)]
        loss = optax.ctc_loss(logits, paddings[0], labels, paddings[1], blank_id=blank, log_epsilon=-IMPOSSIBLE)
    possible = ctc_weight(labels, logit_lengths, label_lengths) > 0
    return settle(jnp.where(possible, loss, IMPOSSIBLE), ~outside)


def ctc_weight(labels: ArrayLike, logit_lengths: ArrayLike, label_lengths: ArrayLike) -> jax.Array:
    """1 where the labels fit into their frames, 0 where no path can spell them: the weight that goes with `ctc_loss`.

    Args:
      labels: integers [B, N].
      logit_lengths, label_lengths: integers [B].

    Returns:
      float32 [B].

    Raises:
      InputError: other shapes, floats for integers.

    >>> labels = jnp.array([[1, 1], [1, 2]])  # "1 1" needs a blank between, 3 frames
    >>> ctc_weight(labels, jnp.array([2, 2]), jnp.array([2, 2])).tolist()
    [0.0, 1.0]
    """
    name = "ctc_weight"
    _lengths(name, labels, logit_lengths, label_lengths)
    integers(name, labels=labels)
    integers(name, logit_lengths=logit_lengths, label_lengths=label_lengths)
    labels = signed(labels)
    logit_lengths, label_lengths = (signed(x).clip(-1, 2**30).astype(jnp.int32) for x in (logit_lengths, label_lengths))
    # Label n + 1 is there for n below length - 1.
    pairs = _within(label_lengths - 1, max(labels.shape[1] - 1, 0))
    repeats = ((labels[:, 1:] == labels[:, :-1]) & pairs).sum(1, dtype=jnp.int32)
    return (label_lengths + repeats <= logit_lengths).astype(jnp.float32)


def _layout(
    labels: Any, logit_lengths: Any, label_lengths: Any, T: int, C: int, blank: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Which frames [B, T] and labels [B, N] are real, and which rows [B] hold what the loss has no answer for."""
    labels, frames, count = (signed(x) for x in (labels, logit_lengths, label_lengths))
    N = labels.shape[1]
    present = _within(count, N)
    wrong = present & ((labels < 0) | (labels >= C) | (labels == blank))
    outside = wrong.any(1) | (frames < 0) | (frames > T) | (count < 0) | (count > N)
    return _within(frames, T), present, outside


def _within(lengths: jax.Array, size: int) -> jax.Array:
    """[B, size] booleans, True before the length."""
    return lax.broadcasted_iota(lengths.dtype, (lengths.shape[0], size), 1) < lengths[:, None]


def _lengths(name: str, labels: Any, logit_lengths: Any, label_lengths: Any) -> None:
    if jnp.ndim(labels) != 2:
        raise InputError(f"{name}: expected labels [B, N], padded to one length, got {list(jnp.shape(labels))}")
    for what, lengths in (("logit_lengths", logit_lengths), ("label_lengths", label_lengths)):
        if jnp.shape(lengths) != jnp.shape(labels)[:1]:
            raise InputError(
                f"{name}: expected {what} of shape {list(jnp.shape(labels)[:1])}, got {list(jnp.shape(lengths))}; "
                "a padding mask p (1 = padding) has lengths (1 - p).sum(-1)"
            )


def _shapes(name: str, logits: Any, labels: Any, logit_lengths: Any, label_lengths: Any) -> None:
    _lengths(name, labels, logit_lengths, label_lengths)
    shape, batch = list(jnp.shape(logits)), jnp.shape(labels)[0]
    if len(shape) != 3 or shape[0] != batch or 0 in shape[1:]:
        hint = "; time comes second here: jnp.swapaxes(logits, 0, 1)" if shape[1:2] == [batch] else ""
        raise InputError(f"{name}: expected logits [B, T, C] with B={batch}, T > 0, C > 0, got {shape}{hint}")


def _values(name: str, labels: Any, logit_lengths: Any, label_lengths: Any, T: int, C: int, blank: int) -> None:
    """Raises for what can be seen of the integers."""
    check_range(name, "blank", blank, 0, C - 1)
    check_range(name, "logit length", logit_lengths, 0, T)
    check_range(name, "label length", label_lengths, 0, jnp.shape(labels)[1])
    if isinstance(labels, Tracer) or isinstance(label_lengths, Tracer):
        return
    values, lengths = np.asarray(labels), np.asarray(label_lengths)
    present = np.arange(values.shape[1]) < lengths[:, None]
    not_blank = 1 if blank == 0 else 0
    check_range(name, "label", np.where(present, values, not_blank), 0, C - 1)
    blanks = np.argwhere(present & (values == blank))
    if len(blanks):
        at = tuple(int(i) for i in blanks[0])
        raise InputError(f"{name}: label {blank} at {at} is the blank, which is no label; choose another blank=")
