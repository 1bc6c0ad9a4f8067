"""Silero VAD (16 kHz), which hears in frames of 32 ms whether somebody speaks, and its weights."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fdl import nn
from fdl.core import Layer, Tree, fold
from fdl.errors import InputError
from fdl.nn.containers import scope
from fdl.pretrained import mapping
from fdl.pretrained.files import read
from fdl.pretrained.mapping import Report, Rule, prefixed
from fdl.pretrained.pytorch import CONV1D, conv1d, lstm
from fdl.shapes import expect

SAMPLE_RATE, FRAME, CONTEXT = 16000, 512, 64

_WINDOW, _BANDS, _FEATURES = 256, 129, 128


@dataclass(frozen=True)
class FrameClassifier(Layer):
    """logits_t = head(relu(lstm(encoder(x_t)))): one number for every frame, in the light of the frames before it.

    Call: x [B, T, samples] -> logits [B, T]; their sigmoid is the probability of speech. `unroll(params, x, carry)` ->
      (logits, carry) goes on where the last chunk of a stream ended.
    """

    encoder: Layer
    lstm: nn.LSTM
    head: Layer

    def unroll(
        self, params: Tree, x: jax.Array, carry: Any = None, *, key: jax.Array | None = None, train: bool = False
    ) -> tuple[jax.Array, Any]:
        expect(self, x, "[B, T, S]")
        with scope("encoder"):
            frames = x.reshape(-1, x.shape[2])
            h = self.encoder(params["encoder"], frames, key=fold(key, "encoder"), train=train)
        with scope("lstm"):
            h, carry = self.lstm.unroll(params["lstm"], h.reshape(*x.shape[:2], -1), carry)
        with scope("head"):
            return self.head(params["head"], jax.nn.relu(h))[..., 0], carry

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        return self.unroll(params, x, key=key, train=train)[0]


def silero_vad() -> FrameClassifier:
    """The magnitudes of a short-time Fourier transform, four convolutions, an LSTM; 309 633 parameters.

    Call: x [B, T, 576] of `frames` -> logits [B, T].

    Source: github.com/snakers4/silero-vad (there is no paper).

    >>> import fdl
    >>> model = silero_vad()
    >>> params, _ = fdl.init(model, jax.random.key(0))
    >>> model(params, frames(jnp.ones((2, 1100)))).shape
    (2, 3)
    """

    def conv(i: int, o: int, stride: int) -> nn.Conv1d:
        return nn.Conv1d(i, o, 3, stride, padding=1)

    encoder = nn.Serial(
        pad=padded,
        fourier=nn.Conv1d(1, 2 * _BANDS, _WINDOW, _WINDOW // 2, "VALID", use_bias=False),
        magnitude=magnitude,
        conv1=conv(_BANDS, 128, 1),
        relu1=jax.nn.relu,
        conv2=conv(128, 64, 2),
        relu2=jax.nn.relu,
        conv3=conv(64, 64, 2),
        relu3=jax.nn.relu,
        conv4=conv(64, _FEATURES, 1),
        relu4=jax.nn.relu,
        flatten=nn.Flatten(),
    )
    return FrameClassifier(encoder, nn.LSTM(_FEATURES, _FEATURES), nn.Linear(_FEATURES, 1))


def load(path: str | os.PathLike[str]) -> tuple[FrameClassifier, Tree, Tree, Report]:
    """(model, params, state, report) of silero_vad_16k.safetensors or silero_vad_16k_op15.onnx.

    The two are of one shape but of different releases: their weights, and so their probabilities, differ.

    Raises:
      InputError: not such a file.
    """
    model = silero_vad()
    return model, *mapping.load(model, read(path), rules())


def rules() -> list[Rule]:
    """The names of the safetensors file, and behind them those of the ONNX file."""
    inside = [rule for i in range(4) for rule in conv1d(f"encoder.{i}.reparam_conv", f"encoder/conv{i + 1}")]
    inside += [Rule("stft.forward_basis_buffer", "encoder/fourier/kernel", CONV1D), *lstm("decoder.rnn", "lstm")]
    return [
        *conv1d("stft_conv", "encoder/fourier", use_bias=False),
        *conv1d("conv{i}", "encoder/conv{i}"),
        *lstm("lstm_cell", "lstm"),
        *_head("final_conv"),
        *prefixed("model.", [*inside, *_head("decoder.decoder.2")]),
    ]


def _head(source: str) -> list[Rule]:
    return [Rule(f"{source}.weight", "head/kernel", "o i 1 -> i o"), Rule(f"{source}.bias", "head/bias")]


def frames(samples: Any) -> jax.Array:
    """Sound [B, S] at 16 kHz in -1..1 as frames [B, T, 576]: the 64 samples before each frame of 512, and the frame.

    Zeros stand before the first frame and fill up the last.
    """
    samples = jnp.asarray(samples)
    if samples.ndim != 2:
        raise InputError(f"silero: expected sound [B, S] at {SAMPLE_RATE} Hz, got {list(samples.shape)}")
    count = -(-samples.shape[1] // FRAME)
    whole = jnp.pad(samples, ((0, 0), (CONTEXT, count * FRAME - samples.shape[1])))
    return whole[:, jnp.arange(count)[:, None] * FRAME + jnp.arange(CONTEXT + FRAME)]


def padded(x: jax.Array) -> jax.Array:
    """[B, S] -> [B, S + 64, 1], mirrored at the end."""
    return jnp.pad(x, ((0, 0), (0, CONTEXT)), mode="reflect")[..., None]


def magnitude(x: jax.Array) -> jax.Array:
    """Of the real parts [..., :129] and the imaginary ones [..., 129:]."""
    return jnp.hypot(x[..., :_BANDS], x[..., _BANDS:])
