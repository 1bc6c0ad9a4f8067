"""Negative log-likelihoods of real numbers and counts, constants included, element by element."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from fdl.losses.contract import floats, in_range, same_shape, settle
from fdl.losses.stable import bounded_exp


def gaussian_nll(means: ArrayLike, log_variances: ArrayLike, targets: ArrayLike) -> jax.Array:
    """(log 2 pi + v + (target - mean)^2 e^-v) / 2, v = log variance: -log N(target; mean, e^v), in nats.

    Args:
      means, log_variances, targets: [...], the same shape. Below v = -50 the precision e^-v grows linearly.

    Returns:
      [...], float32 (or wider); negative where the density is above 1.

    Raises:
      InputError: shapes that differ; means that are no floats.

    Nix & Weigend, Estimating the mean and variance of the target probability distribution, 1994. PyTorch:
    `gaussian_nll_loss(mean, target, exp(v), full=True, reduction="none")`; it leaves the constant out by default and
    takes the variance, clamped at 1e-6.

    >>> round(float(gaussian_nll(jnp.array(0.0), jnp.array(0.0), jnp.array(1.0))), 4)
    1.4189
    """
    same_shape("gaussian_nll", means=means, log_variances=log_variances, targets=targets)
    means, log_variances, targets = floats("gaussian_nll", means=means, log_variances=log_variances, targets=targets)
    squares = jnp.square(targets - means) * bounded_exp(-log_variances)
    return 0.5 * (math.log(2 * math.pi) + log_variances + squares)


def poisson_nll(log_rates: ArrayLike, targets: ArrayLike) -> jax.Array:
    """e^z - target z + log target!, z = log rate: -log Poisson(target; e^z), in nats.

    Args:
      log_rates: [...]. Above z = 50 the rate grows linearly.
      targets: [...] counts, at least 0; integers or floats. Others give NaN in a compiled program.

    Returns:
      [...], float32 (or wider).

    Raises:
      InputError: shapes that differ; log_rates that are no floats; concrete targets below 0.

    PyTorch: `poisson_nll_loss(log_input=True, reduction="none")` leaves log target! out, or with `full=True`
    approximates it by Stirling's formula; here it is exact.

    >>> round(float(poisson_nll(jnp.array(0.0), jnp.array(3))), 4)
    2.7918
    """
    same_shape("poisson_nll", log_rates=log_rates, targets=targets)
    valid = in_range("poisson_nll", "target", targets, 0, math.inf)
    log_rates, targets = floats("poisson_nll", log_rates=log_rates, targets=targets)
    loss = bounded_exp(log_rates) - targets * log_rates + lax.lgamma(targets + 1.0)
    return settle(loss, valid)
