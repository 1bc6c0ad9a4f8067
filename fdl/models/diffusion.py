"""Denoising diffusion: how noise enters an image, and how a `Denoiser` takes it out again, step by step."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fdl.core import Tree, fold
from fdl.errors import InputError
from fdl.fields import Size, check_values, is_whole
from fdl.models.denoiser import Denoiser


def cosine_schedule(num_times: int) -> jax.Array:
    """a_t [num_times], the share of an image's variance left at each time (Nichol & Dhariwal, 2021, equation 17).

    >>> cosine_schedule(3).round(2).tolist()
    [0.74..., 0.25, 0.0]
    """
    check_values("cosine_schedule", Size, num_times=num_times)
    angles = (jnp.arange(num_times + 1) / num_times + 0.008) / 1.008 * (jnp.pi / 2)
    share = jnp.square(jnp.cos(angles))
    return jnp.cumprod(jnp.maximum(share[1:] / share[:-1], 0.001))  # at most 0.999 of it is lost in one step


def linear_schedule(num_times: int, first: float = 1e-4, last: float = 0.02) -> jax.Array:
    """a_t = product of 1 - beta_s, beta growing evenly from first to last (Ho et al., 2020, section 4).

    The two are the paper's for 1000 times.
    """
    check_values("linear_schedule", Size, num_times=num_times)
    return jnp.cumprod(1 - jnp.linspace(first, last, num_times))


def noised(x: jax.Array, noise: jax.Array, share: jax.Array) -> jax.Array:
    """x_t = sqrt(a_t) x + sqrt(1 - a_t) noise, with one share a_t for each image (Ho et al., 2020, equation 4)."""
    share = share.reshape(-1, *(1,) * (x.ndim - 1)).astype(x.dtype)
    return jnp.sqrt(share) * x + jnp.sqrt(1 - share) * noise


def denoising_loss(
    model: Denoiser,
    params: Tree,
    x: jax.Array,
    kept: jax.Array,
    *,
    key: jax.Array,
    labels: jax.Array | None = None,
    label_dropout: float = 0.1,
    train: bool = False,
) -> jax.Array:
    """The squared error of the noise found in x at random times, [B, H, W, C] (Ho et al., 2020, algorithm 1).

    Args:
      x: images [B, H, W, C] in -1..1.
      kept: a_t [T], of a schedule.
      key: draws times, noise, forgotten labels and dropout.
      labels: integers [B].
      label_dropout: the probability, in training, of hiding a label, so that one network learns with and without (Ho &
        Salimans, Classifier-free diffusion guidance, 2022, algorithm 1).
    """
    time = jax.random.randint(fold(key, "time"), (x.shape[0],), 0, len(kept))
    noise = jax.random.normal(fold(key, "noise"), x.shape, x.dtype)
    if labels is not None and train and model.labels is not None:
        hidden = jax.random.bernoulli(fold(key, "labels"), label_dropout, labels.shape)
        labels = jnp.where(hidden, model.labels.num_embeddings - 1, labels)
    options = {"time": time, "labels": labels, "key": fold(key, "model"), "train": train}
    return jnp.square(model(params, noised(x, noise, kept[time]), **options) - noise)


def ddim_step(
    x: jax.Array, noise: jax.Array, share: Any, before: Any, eta: Any = 0.0, clip: float | None = 1.0
) -> tuple[jax.Array, jax.Array]:
    """(mean, standard deviation) of x at the time before, from x_t and the noise found in it.

    Args:
      x, noise: images of one time.
      share, before: a_t of that time and of the time before, 1 for the image itself.
      eta: 0, no randomness (DDIM); 1, the posterior of the forward process (DDPM); or between.
      clip: the estimated image is kept in -clip..clip; None: it is not.

    Reference: Song et al., Denoising diffusion implicit models, 2021, equations 12 and 16.
    """
    image = (x - jnp.sqrt(1 - share) * noise) / jnp.sqrt(share)
    if clip is not None:
        image = jnp.clip(image, -clip, clip)
        noise = (x - jnp.sqrt(share) * image) / jnp.sqrt(1 - share)
    variance = eta**2 * (1 - before) / (1 - share) * (1 - share / before)
    mean = jnp.sqrt(before) * image + jnp.sqrt(jnp.maximum(1 - before - variance, 0)) * noise
    return mean, jnp.sqrt(variance)


def sample_images(
    model: Denoiser,
    params: Tree,
    key: jax.Array,
    shape: tuple[int, ...],
    kept: jax.Array,
    *,
    num_steps: int | None = None,
    eta: float | jax.Array = 1.0,
    labels: jax.Array | None = None,
    guidance: float | jax.Array | None = None,
    clip: float | None = 1.0,
) -> jax.Array:
    """Images in -1..1 from noise, one compiled loop: DDPM with eta = 1 and all steps, DDIM with eta = 0 and few.

    Args:
      model, params: a `Denoiser` trained on the schedule `kept`.
      key: of the first noise, and where eta > 0 of that of each step.
      shape: (B, H, W, C).
      kept: a_t [T].
      num_steps: how many of the T times to visit, evenly spread; all unless given.
      eta, clip: see `ddim_step`.
      labels: integers [B]: a class for each image.
      guidance: w of noise = (1 + w) noise(label) - w noise(any class); above 0 the images are more like their class
        than the data (Ho & Salimans, 2022, equation 6). Costs a second pass.

    Raises:
      InputError: num_steps outside 1 ... T; guidance without labels.

    References: Ho et al., 2020, algorithm 2; Song et al., 2021, section 4.
    """
    times = len(kept)
    steps = times if num_steps is None else num_steps
    if not is_whole(steps, 1) or steps > times:
        raise InputError(f"sample_images: num_steps: expected 1 ... {times}, the times of the schedule, got {steps}")
    if guidance is not None and labels is None:
        raise InputError("sample_images: guidance is towards labels=, which are missing")
    visited = jnp.round(jnp.linspace(times - 1, 0, steps)).astype(jnp.int32)
    shares = jnp.take(kept, visited)
    return _sample_images(model, params, key, tuple(shape), visited, shares, eta, labels, guidance, clip)


@partial(jax.jit, static_argnames=("model", "shape", "clip"))
def _sample_images(
    model: Denoiser,
    params: Tree,
    key: jax.Array,
    shape: tuple[int, ...],
    visited: jax.Array,
    shares: jax.Array,
    eta: Any,
    labels: jax.Array | None,
    guidance: Any,
    clip: float | None,
) -> jax.Array:
    dtype = jax.tree.leaves(params)[0].dtype

    def find(x: jax.Array, time: jax.Array) -> jax.Array:
        noise = model(params, x, time=time, labels=labels)
        if guidance is None:
            return noise
        return noise + guidance * (noise - model(params, x, time=time))

    def step(x: jax.Array, at: tuple[jax.Array, ...]) -> tuple[jax.Array, None]:
        time, share, before = at
        mean, deviation = ddim_step(x, find(x, time), share.astype(dtype), before.astype(dtype), eta, clip)
        return mean + deviation * jax.random.normal(fold(key, "step", time), shape, dtype), None

    before = jnp.append(shares[1:], jnp.ones(1, shares.dtype))
    start = jax.random.normal(fold(key, "start"), shape, dtype)
    return lax.scan(step, start, (visited, shares, before))[0]
