"""Calibration: whether a confidence of 80 % is right 80 % of the time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.errors import InputError
from fdl.metrics.statistic import Statistic, concrete, ratio, scatter_sum, weights
from fdl.ops.norm import widen
from fdl.shapes import check_range

ROUNDING = 1e-5
"""How far above 1 a confidence may be by rounding, such as a mean of several."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Calibration(Statistic):
    """Per bin of confidence: how many, the sum of their confidences, and how many were right. Adds up over batches.

    As a metric of an experiment it gives "error".

    >>> confidence, correct = jnp.array([0.9, 0.8, 0.6, 0.6]), jnp.array([1.0, 1.0, 0.0, 1.0])
    >>> round(float(Calibration.of(confidence, correct, bins=10).error()), 3)
    0.125
    """

    count: jax.Array
    confidence: jax.Array
    correct: jax.Array
    rest: tuple[jax.Array, ...] = ()

    @classmethod
    def of(cls, confidence: Any, correct: Any, bins: int = 15, weight: Any = None) -> Calibration:
        """Sorts predictions into equal bins of confidence, each with its upper edge: (0, 1/bins], ...

        Args:
          confidence: [...] in 0..1, the probability given to the predicted class.
          correct: same shape, 1 (or True) where the prediction was right, else 0.
          bins: their number.
          weight: same shape, at least 0; 0 leaves an element out, whatever it is. None = ones.

        Raises:
          InputError: shapes that differ, no bin; concrete values out of range. A traced one makes every sum NaN.
        """
        if isinstance(bins, bool) or not isinstance(bins, int | np.integer) or bins < 1:
            raise InputError(f"Calibration: bins: expected a whole number >= 1, got {bins}")
        weight = weights("Calibration", weight, confidence=confidence, correct=correct)
        counted = weight != 0
        if concrete(confidence, correct, counted):
            kept, seen = np.asarray(counted), np.asarray(widen(confidence))
            near = np.where((seen > 1) & (seen <= 1 + ROUNDING), 1, seen)
            check_range("Calibration", "confidence", np.where(kept, near, 0), 0, 1)
            right = np.where(kept, np.asarray(correct), 0)
            check_range("Calibration", "correct", np.where((right == 0) | (right == 1), right, np.nan), 0, 1)
        confidence, correct, weight, counted = (
            array.ravel() for array in (widen(confidence), widen(correct), weight, counted)
        )
        valid = (confidence >= 0) & (confidence <= 1 + ROUNDING) & ((correct == 0) | (correct == 1))
        weight = jnp.where((valid | ~counted).all(), weight, jnp.nan)
        confidence, correct = (
            jnp.where(valid & counted, array, 0).astype(jnp.float32) for array in (confidence, correct)
        )
        number = jnp.clip(jnp.ceil(confidence * bins) - 1, 0, bins - 1).astype(jnp.int32)
        pairs = [scatter_sum(number, values, bins) for values in (weight, weight * confidence, weight * correct)]
        return cls(*(total for total, _ in pairs), rest=tuple(rest for _, rest in pairs))

    def error(self) -> jax.Array:
        """The expected calibration error, sum_b n_b / n |accuracy_b - confidence_b| (Guo et al., 2017, equation 3).

        NaN of no example.
        """
        return ratio(jnp.abs(self.correct - self.confidence).sum(-1), self.count.sum(-1))

    def numbers(self) -> dict[str, jax.Array]:
        """The `error`."""
        return {"error": self.error()}
