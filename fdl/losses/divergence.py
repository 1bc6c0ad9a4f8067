"""Kullback-Leibler divergences, summed over the last axis."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from fdl.errors import InputError
from fdl.losses.contract import floats, in_range, last_axis, same_shape, settle
from fdl.losses.stable import bounded_exp, bounded_expm1, weighted

LOG_TOLERANCE = 0.01
"""How far above 0 a log-probability may be by rounding, in bfloat16 too."""


def kl_divergence(log_predictions: ArrayLike, targets: ArrayLike) -> jax.Array:
    """KL(target || prediction) = sum_c t_c (log t_c - log p_c), in nats.

    Args:
      log_predictions: [..., C] log-probabilities, `jax.nn.log_softmax(logits)`.
      targets: [..., C] in 0..1; t = 0 costs nothing, whatever log p is. Their sum is not looked at.

    Returns:
      [...], float32 (or wider).

    Raises:
      InputError: shapes that differ; no classes; concrete log_predictions above 0; concrete targets outside 0..1.
        Inside a compiled program these give NaN.

    Kullback & Leibler, On information and sufficiency, 1951. PyTorch: `kl_div(reduction="none").sum(-1)`, in the same
    order (its "mean" divides by the number of elements, not of examples). Optax's function of this name has a NaN
    gradient with respect to targets of 0.

    >>> target, log_prediction = jnp.array([0.5, 0.5]), jnp.log(jnp.array([0.25, 0.75]))
    >>> round(float(kl_divergence(log_prediction, target)), 4)  # (log 2 + log 2/3) / 2
    0.1438
    """
    name = "kl_divergence"
    same_shape(name, log_predictions=log_predictions, targets=targets)
    last_axis(name, "log_predictions", log_predictions, "classes")
    valid = _log_probabilities(name, "log_predictions", log_predictions)
    valid &= in_range(name, "target", targets, 0, 1 + LOG_TOLERANCE)
    log_predictions, targets = floats(name, log_predictions=log_predictions, targets=targets)
    log_targets = jnp.log(jnp.where(targets > 0, targets, 1.0))
    return settle(weighted(targets, log_targets - log_predictions).sum(-1), valid.all(-1))


def kl_divergence_with_log_targets(log_predictions: ArrayLike, log_targets: ArrayLike) -> jax.Array:
    """KL(target || prediction) = sum_c t_c (log t_c - log p_c), in nats, from two arrays of log-probabilities.

    Args:
      log_predictions, log_targets: [..., C] log-probabilities; a log_target of -inf costs nothing.

    Returns:
      [...], float32 (or wider).

    Raises:
      InputError: shapes that differ; no classes; concrete values above 0 (inside a compiled program they give NaN).

    PyTorch: `kl_div(reduction="none", log_target=True).sum(-1)`. Optax: the same name, NaN for log_targets of -inf.

    >>> log_target, log_prediction = jnp.log(jnp.array([[0.5, 0.5], [0.25, 0.75]]))
    >>> round(float(kl_divergence_with_log_targets(log_prediction, log_target)), 4)
    0.1438
    """
    name = "kl_divergence_with_log_targets"
    same_shape(name, log_predictions=log_predictions, log_targets=log_targets)
    last_axis(name, "log_predictions", log_predictions, "classes")
    valid = _log_probabilities(name, "log_predictions", log_predictions)
    valid &= _log_probabilities(name, "log_targets", log_targets)
    log_predictions, log_targets = floats(name, log_predictions=log_predictions, log_targets=log_targets)
    # -inf - -inf would be NaN; the target's own -inf never counts.
    difference = jnp.where(jnp.isneginf(log_targets), 0.0, log_targets - log_predictions)
    return settle(weighted(jnp.exp(log_targets), difference).sum(-1), valid.all(-1))


def standard_normal_kl_divergence(mean: ArrayLike, log_variance: ArrayLike) -> jax.Array:
    """KL(N(mean, e^v) || N(0, 1)) = sum_d (mean^2 + e^v - 1 - v) / 2, v = log variance: the term of the VAE, in nats.

    Args:
      mean, log_variance: [..., D], diagonal Gaussians; a network that gives log sigma passes 2 * log_sigma. Above
        v = 50 the variance grows linearly.

    Returns:
      [...], float32 (or wider): per example, summed over the D dimensions.

    Raises:
      InputError: shapes that differ; D = 0; means that are no floats.

    Kingma & Welling, Auto-encoding variational Bayes, 2013, appendix B. PyTorch:
    `torch.distributions.kl_divergence(Normal(mean, exp(v / 2)), Normal(0, 1)).sum(-1)`.

    >>> standard_normal_kl_divergence(jnp.array([1.0, 2.0]), jnp.zeros(2)).tolist()
    2.5
    """
    name = "standard_normal_kl_divergence"
    same_shape(name, mean=mean, log_variance=log_variance)
    last_axis(name, "mean", mean, "dimensions")
    mean, log_variance = floats(name, mean=mean, log_variance=log_variance)
    return 0.5 * (jnp.square(mean) + bounded_expm1(log_variance) - log_variance).sum(-1)


def gaussian_kl_divergence(
    mean: ArrayLike, log_variance: ArrayLike, other_mean: ArrayLike, other_log_variance: ArrayLike
) -> jax.Array:
    """KL(N(mean, e^v) || N(other_mean, e^w)) = sum_d (w - v + e^(v - w) - 1 + (mean - other_mean)^2 e^-w) / 2, in nats.

    Args:
      mean, log_variance: [..., D], the diagonal Gaussian that the expectation is over (a posterior).
      other_mean, other_log_variance: [..., D], the one it is compared with (a prior). Ratios of variances above e^50
        grow linearly.

    Returns:
      [...], float32 (or wider): per example, summed over the D dimensions.

    Raises:
      InputError: shapes that differ; D = 0; means that are no floats.

    PyTorch: `torch.distributions.kl_divergence(Normal(mean, exp(v / 2)), Normal(other_mean, exp(w / 2))).sum(-1)`.

    >>> zeros, ones = jnp.zeros(1), jnp.ones(1)
    >>> round(float(gaussian_kl_divergence(zeros, zeros, ones, ones)), 4)  # (1 + 1/e - 1 + 1/e) / 2 = 1/e
    0.3679
    """
    name = "gaussian_kl_divergence"
    arrays = {
        "mean": mean,
        "log_variance": log_variance,
        "other_mean": other_mean,
        "other_log_variance": other_log_variance,
    }
    same_shape(name, **arrays)
    last_axis(name, "mean", mean, "dimensions")
    mean, log_variance, other_mean, other_log_variance = floats(name, **arrays)
    log_ratio = log_variance - other_log_variance
    squares = jnp.square(mean - other_mean) * bounded_exp(-other_log_variance)
    return 0.5 * (bounded_expm1(log_ratio) - log_ratio + squares).sum(-1)


def _log_probabilities(name: str, what: str, values: Any) -> jax.Array:
    """Where values are at most 0, and so can be log-probabilities.

    Raises:
      InputError: the first concrete value that is not: probabilities passed for their logarithms, most often.
    """
    if isinstance(values, Tracer):
        return values <= LOG_TOLERANCE
    values = np.asarray(values)
    wrong = np.argwhere(~(values <= LOG_TOLERANCE))
    if len(wrong):
        index = tuple(int(i) for i in wrong[0])
        raise InputError(
            f"{name}: {what} holds {values[index]} at {index}, but a log-probability is at most 0; "
            "pass jax.nn.log_softmax(logits), or the logarithm of probabilities"
        )
    return jnp.ones(values.shape, bool)
