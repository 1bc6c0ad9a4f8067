"""CREPE, the network that hears the pitch of a frame of sound, and its weights in the layout of torchcrepe."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp

from fdl import nn
from fdl.core import Layer, Tree
from fdl.errors import InputError
from fdl.nn.containers import Part
from fdl.pretrained import mapping
from fdl.pretrained.files import read
from fdl.pretrained.mapping import Report, Rule
from fdl.pretrained.pytorch import batch_norm, linear

FRAME, SAMPLE_RATE, BINS = 1024, 16000, 360

_WIDTHS = (32, 4, 4, 4, 8, 16)  # channels of the six convolutions, in units of the capacity


def crepe(capacity: int = 4) -> nn.Serial:
    """Six convolutions, each with relu, batch normalisation and max pooling by 2; the logits of 360 pitches.

    Args:
      capacity: 4 is "tiny", 32 is "full".
    Call: `apply(params, state, x)`, x [B, 1024] of `frames` -> (logits [B, 360], state); their sigmoid is the
      salience of each pitch, and `frequency` says which it is.

    Raises:
      InputError: a capacity below 1.

    Reference: Kim et al., CREPE: A convolutional representation for pitch estimation, 2018, section 2.1.

    >>> import fdl
    >>> model = crepe(1)
    >>> params, state = fdl.init(model, jax.random.key(0))
    >>> model.apply(params, state, jnp.ones((2, 1024)))[0].shape
    (2, 360)
    """
    if capacity < 1:
        raise InputError(f"crepe: expected a capacity >= 1, got {capacity}")
    layers: dict[str, Part] = {"channel": one_channel}
    channels = 1
    for i, width in enumerate(_WIDTHS, start=1):
        size, stride, padding = (512, 4, (254, 254)) if i == 1 else (64, 1, (31, 32))
        layers[f"conv{i}"] = nn.Conv1d(channels, width * capacity, size, stride, (padding,))
        layers |= {f"relu{i}": jax.nn.relu, f"norm{i}": nn.BatchNorm(width * capacity, eps=1e-3)}
        layers |= {f"pool{i}": nn.MaxPool(2)}
        channels = width * capacity
    return nn.Serial(**layers, flatten=nn.Flatten(), head=nn.Linear(4 * channels, BINS))


def rules() -> list[Rule]:
    """torchcrepe's names."""
    conv = Rule("conv{i}.weight", "conv{i}/kernel", "o i k 1 -> k i o"), Rule("conv{i}.bias", "conv{i}/bias")
    return [*conv, *batch_norm("conv{i}_BN", "norm{i}"), *linear("classifier", "head")]


def load(path: str | os.PathLike[str]) -> tuple[Layer, Tree, Tree, Report]:
    """(model, params, state, report) of torchcrepe's `tiny.pth` or `full.pth`.

    Raises:
      InputError: not such a file.
    """
    tensors = read(path)
    channels = len(tensors["conv1.bias"]) if "conv1.bias" in tensors else _WIDTHS[0]
    model = crepe(max(channels // _WIDTHS[0], 1))
    return model, *mapping.load(model, tensors, rules())


def frames(samples: Any) -> jax.Array:
    """Frames of sound at 16 kHz, [B, 1024], each with mean 0 and standard deviation 1."""
    samples = jnp.asarray(samples)
    if samples.ndim != 2 or samples.shape[1] != FRAME:
        raise InputError(f"crepe: expected frames [B, {FRAME}] at {SAMPLE_RATE} Hz, got {list(samples.shape)}")
    centred = samples - samples.mean(1, keepdims=True)
    return centred / jnp.maximum(jnp.std(centred, axis=1, keepdims=True, ddof=1), 1e-10)


def frequency(bins: Any) -> jax.Array:
    """Hertz of pitch 0 ... 359, steps of 20 cents from a C1; pitches between them are between them.

    >>> frequency(228.0).round(1).item()
    441.5...
    """
    cents = 20.0 * jnp.asarray(bins, jnp.float32) + 1997.3794084376191
    return 10.0 * 2.0 ** (cents / 1200.0)


def one_channel(x: jax.Array) -> jax.Array:
    """[B, T] -> [B, T, 1]."""
    return x[..., None]
