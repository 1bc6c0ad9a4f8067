"""One row for every loss and option: how it is called, on what, and what float64 says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.special import expit, log_softmax, softmax

from fdl import losses
from tests.losses import oracles

RANDOM = np.random.default_rng(0)


class Row(NamedTuple):
    """A loss as a function of its float arrays alone.

    Args:
      loss: those arrays -> per example.
      floats: float64 arrays, rounded so that bfloat16 and float32 hold them exactly.
      oracle: the same function in float64.
      coupled: whether an example's loss depends on the rest of the batch.
    """

    loss: Callable[..., Any]
    floats: tuple[np.ndarray, ...]
    oracle: Callable[..., np.ndarray]
    coupled: bool = False


def normal(*shape: int) -> np.ndarray:
    return np.round(RANDOM.normal(size=shape) * 32) / 32


def labels(shape: tuple[int, ...], classes: int) -> np.ndarray:
    return RANDOM.integers(0, classes, shape).astype(np.int32)


Y = labels((6,), 5)
PIXELS = labels((3, 2, 4), 3)
VOID = np.where(RANDOM.random((3, 2, 4)) < 0.3, 255, PIXELS).astype(np.uint8)
IGNORED = np.array([0, -1, 4, 2, -1, 1], np.int32)
BITS = labels((6, 3), 2)
SIGNS = 2 * BITS - 1
SHARES = np.array([1.0, 0.5, 4.0], np.float32)
CLASS_SHARES = np.array([0.0, 1.0, 3.0], np.float32)
COUNTS = labels((6, 3), 7)
PROBABILITIES = softmax(normal(6, 5), -1).astype(np.float32)
SPELLING = np.array([[1, 1, 0], [2, 1, 2], [1, 0, 0], [0, 0, 0]], np.int32)
FRAMES, LETTERS = np.array([4, 4, 3, 2], np.int32), np.array([2, 3, 1, 0], np.int32)
MASK = np.array([True, False, True, True])

ROWS = {
    "squared_error": Row(losses.squared_error, (normal(6, 3), normal(6, 3)), lambda p, t: (p - t) ** 2),
    "absolute_error": Row(losses.absolute_error, (normal(6, 3), normal(6, 3)), lambda p, t: abs(p - t)),
    "huber_loss": Row(
        lambda p, t: losses.huber_loss(p, t, delta=0.7),
        (normal(6, 3), normal(6, 3)),
        lambda p, t: oracles.huber(p, t, 0.7),
    ),
    "log_cosh": Row(losses.log_cosh, (2 * normal(6, 3), normal(6, 3)), oracles.log_cosh),
    "gaussian_nll": Row(losses.gaussian_nll, (normal(6, 3), normal(6, 3), normal(6, 3)), oracles.gaussian_nll),
    "poisson_nll": Row(
        lambda z: losses.poisson_nll(z, COUNTS), (normal(6, 3),), lambda z: oracles.poisson_nll(z, COUNTS)
    ),
    "softmax_cross_entropy": Row(
        lambda z: losses.softmax_cross_entropy(z, Y), (3 * normal(6, 5),), lambda z: oracles.cross_entropy(z, Y)
    ),
    "softmax_cross_entropy, smoothed": Row(
        lambda z: losses.softmax_cross_entropy(z, Y, label_smoothing=0.3),
        (3 * normal(6, 5),),
        lambda z: oracles.cross_entropy(z, Y, 0.3),
    ),
    "softmax_cross_entropy, ignored": Row(
        lambda z: losses.softmax_cross_entropy(z, IGNORED, ignore_label=-1, label_smoothing=0.3),
        (3 * normal(6, 5),),
        lambda z: oracles.cross_entropy(z, IGNORED, 0.3, -1),
    ),
    "softmax_cross_entropy_with_probabilities": Row(
        lambda z: losses.softmax_cross_entropy_with_probabilities(z, PROBABILITIES, label_smoothing=0.3),
        (3 * normal(6, 5),),
        lambda z: oracles.soft_cross_entropy(z, PROBABILITIES, 0.3),
    ),
    "sigmoid_binary_cross_entropy": Row(
        lambda z: losses.sigmoid_binary_cross_entropy(z, BITS),
        (3 * normal(6, 3),),
        lambda z: oracles.binary_cross_entropy(z, BITS),
    ),
    "sigmoid_binary_cross_entropy, weighted": Row(
        lambda z: losses.sigmoid_binary_cross_entropy(z, BITS, positive_weight=SHARES),
        (3 * normal(6, 3),),
        lambda z: oracles.binary_cross_entropy(z, BITS, SHARES),
    ),
    "sigmoid_focal_loss": Row(
        lambda z, y: losses.sigmoid_focal_loss(z, y, gamma=1.5, alpha=0.25),
        (normal(6, 3), np.round(expit(normal(6, 3)) * 32) / 32),
        lambda z, y: oracles.sigmoid_focal(z, y, 1.5, 0.25),
    ),
    "softmax_focal_loss": Row(
        lambda z: losses.softmax_focal_loss(z, Y, gamma=1.5),
        (3 * normal(6, 5),),
        lambda z: oracles.softmax_focal(z, Y, 1.5),
    ),
    "kl_divergence": Row(
        # bfloat16 inputs are no longer normalised, which the formula does not need
        losses.kl_divergence,
        (np.round(log_softmax(normal(6, 5), -1) * 32) / 32, np.ceil(softmax(normal(6, 5), -1) * 128) / 128),
        oracles.kl,
    ),
    "kl_divergence_with_log_targets": Row(
        losses.kl_divergence_with_log_targets,
        (np.round(log_softmax(normal(6, 5), -1) * 32) / 32, np.round(log_softmax(normal(6, 5), -1) * 32) / 32),
        lambda p, t: (np.exp(t) * (t - p)).sum(-1),
    ),
    "standard_normal_kl_divergence": Row(
        losses.standard_normal_kl_divergence,
        (normal(6, 3), normal(6, 3)),
        lambda m, v: oracles.gaussian_kl(m, v, 0 * m, 0 * v),
    ),
    "gaussian_kl_divergence": Row(
        losses.gaussian_kl_divergence, (normal(6, 3), normal(6, 3), normal(6, 3), normal(6, 3)), oracles.gaussian_kl
    ),
    "hinge_loss": Row(lambda z: losses.hinge_loss(z, SIGNS), (normal(6, 3),), lambda z: np.maximum(0, 1 - SIGNS * z)),
    "multiclass_hinge_loss": Row(
        lambda z: losses.multiclass_hinge_loss(z, Y), (2 * normal(6, 5),), lambda z: oracles.multiclass_hinge(z, Y)
    ),
    "ctc_loss": Row(
        lambda z: losses.ctc_loss(z, SPELLING, FRAMES, LETTERS),
        (normal(4, 4, 3),),
        lambda z: oracles.ctc(z, SPELLING, FRAMES, LETTERS),
    ),
    "ctc_loss, blank last": Row(
        lambda z: losses.ctc_loss(z, SPELLING % 2, FRAMES, LETTERS % 2, blank=2),
        (normal(4, 4, 3),),
        lambda z: oracles.ctc(z, SPELLING % 2, FRAMES, LETTERS % 2, 2),
    ),
    "cosine_distance": Row(losses.cosine_distance, (normal(6, 4), normal(6, 4)), oracles.cosine_distance),
    "triplet_margin_loss": Row(
        losses.triplet_margin_loss,
        (normal(6, 4), normal(6, 4), normal(6, 4)),
        lambda a, p, n: oracles.triplet(a, p, n, 1.0, 1),
    ),
    "triplet_margin_loss, squared": Row(
        lambda a, p, n: losses.triplet_margin_loss(a, p, n, margin=3.0, squared=True),
        (normal(6, 4), normal(6, 4), normal(6, 4)),
        lambda a, p, n: oracles.triplet(a, p, n, 3.0, 2),
    ),
    "nt_xent": Row(
        lambda a, b: losses.nt_xent(a, b, temperature=0.3),
        (normal(4, 3), normal(4, 3)),
        lambda a, b: oracles.nt_xent(a, b, 0.3),
        coupled=True,
    ),
    "nt_xent, masked": Row(
        lambda a, b: losses.nt_xent(a, b, temperature=0.3, mask=MASK),
        (normal(4, 3), normal(4, 3)),
        lambda a, b: oracles.nt_xent(a, b, 0.3, np.flatnonzero(MASK)),
        coupled=True,
    ),
    "sigmoid_dice_loss": Row(
        lambda z: losses.sigmoid_dice_loss(z, PIXELS % 2),
        (2 * normal(3, 2, 4),),
        lambda z: oracles.dice(expit(z).reshape(3, -1), (PIXELS % 2).reshape(3, -1), 1.0),
    ),
    "softmax_dice_loss": Row(
        lambda z: losses.softmax_dice_loss(z, PIXELS, smooth=0.5),
        (2 * normal(3, 2, 4, 3),),
        lambda z: oracles.softmax_dice(z, PIXELS, 0.5),
    ),
    "softmax_dice_loss, ignored and weighted": Row(
        lambda z: losses.softmax_dice_loss(z, VOID, ignore_label=255, class_weights=CLASS_SHARES),
        (2 * normal(3, 2, 4, 3),),
        lambda z: oracles.softmax_dice(z, VOID, 1.0, 255, CLASS_SHARES),
    ),
}
