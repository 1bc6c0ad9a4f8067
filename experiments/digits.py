"""A small convolutional network on handwritten digits (UCI, 8 x 8 pixels, shipped with scikit-learn).

    fdl run experiments/digits.py
    fdl run experiments/digits.py --learning-rate 1e-2 --num-epochs 30 --seed 1

Measured, seeds 0 to 4: test accuracy 99.83 % +- 0.25 % (mean and standard deviation; 0, 0, 0, 1 and 2 of the 360 test
images are wrong). One image is 0.28 %, and rounding decides that much: an earlier version of the convolution, with the
first six training losses of seed 0 the same to the bit, had 99.72 % +- 0.20 %. A seed takes 13 s of processor time,
imports and compilation included, 7 to 42 s by the clock while other work shared the machine (2 x86-64 cores, CPU).

Dropout, augmentation, learning rate, epochs and batch size were chosen by 5-fold cross-validation inside the 1437
training images, where this setting has 99.5 % and its neighbours lie within half a percent of it; the test images were
first looked at afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

import fdl
from fdl import nn


@dataclass(frozen=True)
class Config:
    learning_rate: float = 3e-3
    """Adam's, at the start; it falls to 0 along half a cosine."""
    num_epochs: int = 60
    """Passes over the training images."""
    batch_size: int = 64
    """Images a step."""
    width: int = 32
    """Channels of the first convolution; the second has twice as many."""
    dropout: float = 0.5
    """Probability of dropping a feature before the last layer."""
    shift: float = 0.5
    """Training images move by up to this many pixels, each way."""
    zoom: float = 0.2
    """And grow or shrink by up to this share, height and width on their own."""


def build(config: Config) -> fdl.Experiment:
    train, test = fdl.data.load("digits", split="train"), fdl.data.load("digits", split="test")
    num_steps = config.num_epochs * train.steps_per_epoch(config.batch_size)

    def augment(batch: dict[str, Any], key: jax.Array) -> dict[str, Any]:
        return batch | {"x": jitter(batch["x"], key, config.shift, config.zoom)}

    return fdl.Experiment(
        task=fdl.supervised(network(config), fdl.losses.softmax_cross_entropy, {"accuracy": fdl.metrics.accuracy}),
        optimizer=optax.adam(optax.cosine_decay_schedule(config.learning_rate, num_steps)),
        train=train,
        evaluate={"test": test},
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
        augment=augment,
    )


def network(config: Config) -> fdl.Layer:
    """Two blocks of convolution, batch norm, ReLU and pooling, 8 x 8 to 2 x 2, and a linear layer."""
    width = config.width
    return nn.Serial(
        *block(1, width),
        *block(width, 2 * width),
        nn.Flatten(),
        nn.Dropout(config.dropout),
        head=nn.Linear(2 * 2 * 2 * width, 10),
    )


def block(channels: int, width: int) -> tuple[Any, ...]:
    return nn.Conv(channels, width, 3, use_bias=False), nn.BatchNorm(width), jax.nn.relu, nn.MaxPool(2)


def jitter(images: jax.Array, key: jax.Array, shift: float, zoom: float) -> jax.Array:
    """Every image [B, H, W, C] moved and scaled at random, by linear interpolation; zeros come in from outside.

    Along one axis that is a matrix product: pixel i of the result is read at position zoom * i + shift, between its two
    neighbours j, with weight 1 - distance.
    """
    shift_key, zoom_key = jax.random.split(key)

    def matrices(size: int, number: int) -> jax.Array:
        draws = len(images), 1, 1
        scale = 1 + zoom * jax.random.uniform(fdl.fold(zoom_key, number), draws, minval=-1.0)
        offset = shift * jax.random.uniform(fdl.fold(shift_key, number), draws, minval=-1.0)
        pixel = jnp.arange(size) - (size - 1) / 2
        return jax.nn.relu(1 - jnp.abs(scale * pixel[:, None] + offset - pixel))  # [B, i, j]

    rows, columns = matrices(images.shape[1], 0), matrices(images.shape[2], 1)
    return jnp.einsum("bhi,bwj,bijc->bhwc", rows, columns, images)
