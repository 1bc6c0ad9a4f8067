"""Denoising diffusion on the digits: noise is predicted, and subtracted again a hundred times.

    fdl run experiments/diffusion.py
    fdl run experiments/diffusion.py --num-epochs 200 --seed 1

Noise is mixed into an image, x_t = sqrt(a_t) x + sqrt(1 - a_t) e, at a random time t, and a network learns to tell e
from x_t and t (Ho et al., 2020, algorithm 1); the loss is the squared error of each pixel. Sampling goes the other way,
from pure noise to an image, one `lax.scan` over the times (algorithm 2). The times and the noise are drawn from `key`,
in evaluation too, where the engine gives the same key each time.

Measured, seeds 0 to 4: a test loss of 0.168 +- 0.012 (mean and standard deviation; a network that predicts no noise has
1, and other draws of times and noise alone give the same parameters 0.010). Of 360 samples and 360 test images, the
nearest neighbour tells 63.4 % +- 0.5 % apart: 50 % is perfect, training images get 47 %, a Gaussian with their mean and
covariance 89 %. They are no copies: 1.11 from the nearest training image, where test images are 1.04. A seed takes
45 s of processor time (2 x86-64 cores, CPU). Of four settings this had the best samples by that figure, at seed 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

import fdl
from fdl import nn

PIXELS = 64
FREQUENCIES = 16


@dataclass(frozen=True)
class Config:
    times: int = 100
    """Steps from an image to noise."""
    width: int = 256
    """Units of each hidden layer."""
    depth: int = 3
    """Residual blocks."""
    learning_rate: float = 2e-3
    """Adam's, at the start; it falls to 0 along half a cosine."""
    batch_size: int = 128
    """Images a step."""
    num_epochs: int = 800
    """Passes over the training images."""


def build(config: Config) -> fdl.Experiment:
    train, test = fdl.data.load("digits", split="train"), fdl.data.load("digits", split="test")
    num_steps = config.num_epochs * train.steps_per_epoch(config.batch_size)
    model = network(config)

    def objective(params: Any, state: Any, batch: Any, *, key: jax.Array, train: bool) -> fdl.Outcome:
        del train
        x = 2 * batch["x"].reshape(-1, PIXELS) - 1
        time = jax.random.randint(fdl.fold(key, "time"), (len(x),), 0, config.times)
        noise = jax.random.normal(fdl.fold(key, "noise"), x.shape)
        predicted = predict(model, params, noised(x, time, noise, config), time, config)
        return fdl.Outcome(fdl.losses.squared_error(predicted, noise))

    return fdl.Experiment(
        task=fdl.Task(lambda key: fdl.init(model, key), objective, specs=model.specs()),
        optimizer=optax.adam(optax.cosine_decay_schedule(config.learning_rate, num_steps)),
        train=train,
        evaluate={"test": test},
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
    )


def network(config: Config) -> fdl.Layer:
    width = config.width

    block = nn.Serial(nn.LayerNorm(width), nn.Linear(width, width), jax.nn.silu, nn.Linear(width, width))
    blocks = [nn.Residual(block)] * config.depth
    return nn.Serial(
        nn.Linear(PIXELS + 2 * FREQUENCIES, width), *blocks, nn.LayerNorm(width), head=nn.Linear(width, PIXELS)
    )


def predict(model: fdl.Layer, params: Any, x: jax.Array, time: jax.Array, config: Config) -> jax.Array:
    """The noise in x [B, 64] at the times [B], which the network sees as sines and cosines."""
    angles = (time[:, None] + 1) / config.times * (jnp.pi / 2) * jnp.arange(1, FREQUENCIES + 1)
    return model(params, jnp.concatenate([x, jnp.sin(angles), jnp.cos(angles)], -1))


def kept(config: Config) -> jax.Array:
    """a_t, the share of the image's variance left at each time: a cosine schedule (Nichol & Dhariwal, 2021, eq. 17)."""
    angles = (jnp.arange(config.times + 1) / config.times + 0.008) / 1.008 * (jnp.pi / 2)
    share = jnp.square(jnp.cos(angles))
    steps = jnp.maximum(share[1:] / share[:-1], 0.001)  # at most 0.999 of the variance is replaced in one step
    return jnp.cumprod(steps)


def noised(x: jax.Array, time: jax.Array, noise: jax.Array, config: Config) -> jax.Array:
    """x_t = sqrt(a_t) x + sqrt(1 - a_t) e (Ho et al., 2020, equation 4)."""
    share = kept(config)[time][:, None]
    return jnp.sqrt(share) * x + jnp.sqrt(1 - share) * noise


def sample(params: Any, key: jax.Array, count: int, config: Config) -> jax.Array:
    """New images [count, 8, 8, 1] in 0..1 (algorithm 2, with the estimated image kept inside its range)."""
    model, share = network(config), kept(config)
    before = jnp.concatenate([jnp.ones(1), share[:-1]])  # a_t-1

    def denoise(x: jax.Array, t: jax.Array) -> tuple[jax.Array, None]:
        noise = predict(model, params, x, jnp.full(count, t), config)
        image = jnp.clip((x - jnp.sqrt(1 - share[t]) * noise) / jnp.sqrt(share[t]), -1, 1)
        beta = 1 - share[t] / before[t]
        # The posterior of x_t-1, equations 6 and 7; its variance is 0 at the last step, t = 0.
        mean = (jnp.sqrt(before[t]) * beta * image + jnp.sqrt(1 - beta) * (1 - before[t]) * x) / (1 - share[t])
        variance = beta * (1 - before[t]) / (1 - share[t])
        return mean + jnp.sqrt(variance) * jax.random.normal(fdl.fold(key, t), x.shape), None

    start = jax.random.normal(fdl.fold(key, "start"), (count, PIXELS))
    x, _ = lax.scan(denoise, start, jnp.arange(config.times)[::-1])
    return (x.reshape(count, 8, 8, 1) + 1) / 2
