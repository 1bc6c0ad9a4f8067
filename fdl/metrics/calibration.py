"""Calibration: whether a confidence of 80 % is right 80 % of the time."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fdl.errors import InputError


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Calibration:
    """Per bin of confidence: how many, the sum of their confidences, and how many were right. Adds up over batches.

    >>> confidence, correct = jnp.array([0.9, 0.8, 0.6, 0.6]), jnp.array([1.0, 1.0, 0.0, 1.0])
    >>> round(float(Calibration.of(confidence, correct, bins=10).error()), 3)
    0.125
    """

    count: jax.Array
    confidence: jax.Array
    correct: jax.Array

    @classmethod
    def of(
        cls, confidence: jax.Array, correct: jax.Array, bins: int = 15, weight: jax.Array | None = None
    ) -> Calibration:
        """Sorts predictions into equal bins of confidence, each with its upper edge: (0, 1/bins], ...

        Args:
          confidence: [...] in 0..1, the probability given to the predicted class.
          correct: same shape, 1 (or True) where the prediction was right.
          bins: their number.
          weight: same shape; None = ones.

        Raises:
          InputError: shapes that differ, no bin.
        """
        weight = jnp.ones(jnp.shape(confidence), jnp.float32) if weight is None else weight
        shapes = [list(jnp.shape(values)) for values in (confidence, correct, weight)]
        if shapes[0] != shapes[1] or shapes[1] != shapes[2]:
            raise InputError(f"Calibration: confidence, correct and weight differ in shape: {shapes}")
        if bins < 1:
            raise InputError(f"Calibration: bins: expected a whole number >= 1, got {bins}")
        confidence, correct, weight = (
            jnp.asarray(values).astype(jnp.float32).ravel() for values in (confidence, correct, weight)
        )
        number = jnp.clip(jnp.ceil(confidence * bins) - 1, 0, bins - 1).astype(jnp.int32)
        sums = (jnp.zeros(bins).at[number].add(values) for values in (weight, weight * confidence, weight * correct))
        return cls(*sums)

    def merge(self, other: Calibration) -> Calibration:
        """The bins of both."""
        return jax.tree.map(jnp.add, self, other)

    def error(self) -> jax.Array:
        """The expected calibration error, sum_b n_b / n |accuracy_b - confidence_b| (Guo et al., 2017, equation 3)."""
        total = self.count.sum()
        return jnp.abs(self.correct - self.confidence).sum() / jnp.where(total == 0, 1.0, total)
