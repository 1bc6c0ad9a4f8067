"""Learning-rate schedules whose every number may be traced, and so be swept in one program.

Optax's schedules look at some of their arguments in Python (`warmup_cosine_decay_schedule` at its peak,
`polynomial_schedule` at its length), so that each value would be a program. These are arithmetic alone. Each returns a
function of the number of steps done, as Optax has it; lengths in steps may be floats.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

Number = Any
"""A number of Python, or a traced one."""


def linear(start: Number, end: Number, steps: Number) -> optax.Schedule:
    """start + (end - start) t / steps, then end; Optax's `linear_schedule`.

    >>> [round(float(linear(1.0, 0.0, 4)(t)), 3) for t in (0, 1, 4, 9)]
    [1.0, 0.75, 0.0, 0.0]
    """
    return lambda count: start + (end - start) * _share(count, 0.0, steps)


def cosine(peak: Number, steps: Number, end: Number = 0.0) -> optax.Schedule:
    """end + (peak - end) (1 + cos(pi t / steps)) / 2, then end.

    Optax's `cosine_decay_schedule` takes `alpha` = end / peak. Reference: Loshchilov & Hutter, SGDR, 2017, equation 5.

    >>> [round(float(cosine(1.0, 4)(t)), 3) for t in (0, 2, 4, 9)]
    [1.0, 0.5, 0.0, 0.0]
    """
    return lambda count: end + (peak - end) * _fall(_share(count, 0.0, steps))


def warmup_cosine(
    peak: Number, warmup: Number, steps: Number, start: Number = 0.0, end: Number = 0.0
) -> optax.Schedule:
    """A line from `start` to `peak` in `warmup` steps, then half a cosine to `end`, reached at step `steps`.

    Optax's `warmup_cosine_decay_schedule`; its `decay_steps` is `steps`: it counts the warmup as well.

    >>> [round(float(warmup_cosine(1.0, 2, 6)(t)), 3) for t in (0, 1, 2, 4, 6)]
    [0.0, 0.5, 1.0, 0.5, 0.0]
    """

    def schedule(count: Number) -> jax.Array:
        up = start + (peak - start) * _share(count, 0.0, warmup)
        down = end + (peak - end) * _fall(_share(count, warmup, steps))
        return jnp.where(count < warmup, up, down)

    return schedule


def warmup_linear(
    peak: Number, warmup: Number, steps: Number, start: Number = 0.0, end: Number = 0.0
) -> optax.Schedule:
    """A line from `start` to `peak` in `warmup` steps, then one to `end`, reached at step `steps`.

    >>> [round(float(warmup_linear(1.0, 2, 6)(t)), 3) for t in (0, 1, 2, 3, 6)]
    [0.0, 0.5, 1.0, 0.75, 0.0]
    """

    def schedule(count: Number) -> jax.Array:
        up = start + (peak - start) * _share(count, 0.0, warmup)
        return jnp.where(count < warmup, up, peak + (end - peak) * _share(count, warmup, steps))

    return schedule


def exponential(start: Number, rate: Number, steps: Number = 1.0) -> optax.Schedule:
    """start rate^(t / steps); Optax's `exponential_decay`.

    >>> [round(float(exponential(1.0, 0.5, 10)(t)), 3) for t in (0, 10, 20)]
    [1.0, 0.5, 0.25]
    """
    return lambda count: start * jnp.power(rate, count / steps)


def inverse_sqrt(peak: Number, warmup: Number) -> optax.Schedule:
    """peak min((t + 1) / warmup, sqrt(warmup / (t + 1))): the Transformer's, which peaks at step `warmup`.

    Reference: Vaswani et al., Attention is all you need, 2017, equation 3, where peak = (features * warmup)^-1/2.

    >>> [round(float(inverse_sqrt(1.0, 4)(t)), 3) for t in (0, 3, 15)]
    [0.25, 1.0, 0.5]
    """
    return lambda count: peak * jnp.minimum((count + 1) / warmup, jnp.sqrt(warmup / (count + 1)))


def _share(count: Number, start: Number, end: Number) -> jax.Array:
    """How far `count` is from `start` to `end`, in [0, 1]; a way of no length is done."""
    length = jnp.where(end - start > 0, end - start, 1.0)
    return jnp.where(end - start > 0, jnp.clip((count - start) / length, 0.0, 1.0), 1.0)


def _fall(share: jax.Array) -> jax.Array:
    return (1 + jnp.cos(jnp.pi * share)) / 2
