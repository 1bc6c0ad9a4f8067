"""The network of a diffusion model: a small U-Net that finds the noise in an image, told its time and class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from fdl import nn
from fdl.core import Layer, Tree, fold
from fdl.errors import InputError
from fdl.fields import Size
from fdl.initializers import Zeros
from fdl.models.unet import Divisible, u_shape
from fdl.nn.containers import scope
from fdl.nn.dropout import drops
from fdl.ops.rotary import sinusoidal
from fdl.ops.shared import shared
from fdl.shapes import expect


@dataclass(frozen=True)
class Denoiser(Layer):
    """noise = head(body(stem(x), condition)), condition = time(sinusoids of t) + labels[label].

    Args:
      time: from a sinusoidal vector of `time_features` numbers to the condition.
      labels: of the classes, the last row standing for "any class"; None: unconditional.
      stem, body, head: from channels to features, of features, and back; what in the body names `condition` gets it.
      time_features: even.
    Call: x [B, H, W, C], noised images -> [B, H, W, C], the noise in them.
      time: integers [B] (or one for all, []), the step of each, 0 being the least noise.
      labels: integers [B], 0 ... num_classes - 1, or num_classes for any class, as without labels.
    """

    time: Layer
    labels: nn.Embedding | None
    stem: Layer
    body: Layer
    head: Layer
    time_features: Size

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        time: jax.Array | None = None,
        labels: jax.Array | None = None,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        if time is None:
            raise InputError("Denoiser: expected time=, the step of each image, integers [B]")
        with scope("condition"):
            condition = self._condition(params, x, jnp.broadcast_to(time, x.shape[0]), labels)
        with scope("stem"):
            h = self.stem(params["stem"], x)
        with scope("body"):
            h = self.body(params["body"], h, condition=condition, key=fold(key, "body"), train=train)
        with scope("head"):
            return self.head(params["head"], h)

    def _condition(self, params: Tree, x: jax.Array, time: jax.Array, labels: jax.Array | None) -> jax.Array:
        condition = self.time(params["time"], sinusoidal(time, self.time_features).astype(x.dtype))
        if self.labels is None:
            if labels is not None:
                raise InputError("Denoiser: labels are given, but the network was made without num_classes")
            return condition
        if labels is None:
            labels = jnp.full(x.shape[0], self.labels.num_embeddings - 1, jnp.int32)
        expect(self.labels, labels, f"[{x.shape[0]}]", "labels")
        return condition + self.labels(params["labels"], labels)


def diffusion_unet(
    in_channels: int,
    *,
    num_classes: int | None = None,
    widths: Sequence[int] = (64, 128, 256),
    num_groups: int = 8,
    num_heads: int = 4,
    dropout: float = 0.0,
) -> Denoiser:
    """A small U-Net of conditioned residual blocks, with attention at the coarsest scale.

    Args:
      in_channels: of the images.
      num_classes: labels are 0 ... num_classes - 1; None: unconditional.
      widths: channels at each scale, from the finest; each next one has half the height and width.
      num_groups: of the group normalisations; divides all widths.
      num_heads: of the attention; divides the last width.
      dropout: inside the residual blocks.

    The head starts at 0, so that the first guess is no noise.

    Raises:
      InputError: fewer than two widths; images whose sizes are no multiples of 2^(len(widths) - 1).

    Reference: Ho et al., Denoising diffusion probabilistic models, 2020, appendix B.

    >>> import fdl
    >>> model = diffusion_unet(1, num_classes=10, widths=(8, 16))
    >>> params, _ = fdl.abstract(model)
    >>> x, time, labels = jnp.ones((2, 8, 8, 1)), jnp.array([3, 7]), jnp.array([0, 9])
    >>> jax.eval_shape(model, params, x, time=time, labels=labels).shape
    (2, 8, 8, 1)
    """
    if len(widths) < 2:
        raise InputError(f"diffusion_unet: expected at least two widths, got {tuple(widths)}")
    *fine, coarsest = widths
    size = 4 * widths[0]
    block = partial(conditioned_block, condition_features=size, num_groups=num_groups, dropout=dropout)
    attention = ImageAttention(nn.GroupNorm(num_groups, coarsest), nn.Attention(coarsest, num_heads))
    body = u_shape(
        enters=[block(width, width) for width in fine],
        downs=[nn.Conv(width, widths[i + 1], 3, 2) for i, width in enumerate(fine)],
        bottom=nn.Serial(block1=block(coarsest, coarsest), attention=attention, block2=block(coarsest, coarsest)),
        ups=[nn.Serial(larger=nn.Upsample(2), conv=nn.Conv(widths[i + 1], width, 3)) for i, width in enumerate(fine)],
        exits=[block(2 * width, width) for width in fine],
    )
    finest = widths[0]
    return Denoiser(
        time=nn.Serial(linear1=nn.Linear(finest, size), activation=jax.nn.silu, linear2=nn.Linear(size, size)),
        labels=None if num_classes is None else nn.Embedding(num_classes + 1, size),
        stem=nn.Serial(size=Divisible(2 ** len(fine)), conv=nn.Conv(in_channels, finest, 3)),
        body=body,
        head=nn.Serial(
            norm=nn.GroupNorm(num_groups, finest),
            activation=jax.nn.silu,
            conv=nn.Conv(finest, in_channels, 3, kernel_init=Zeros()),
        ),
        time_features=finest,
    )


@dataclass(frozen=True)
class ConditionedBlock(Layer):
    """y = shortcut(x) + second(first(x) + condition): a residual block told of time and class.

    Call: x [B, H, W, C]; condition [B, condition_features] -> [B, H, W, out_channels].
    """

    first: Layer
    condition: Layer
    second: Layer
    shortcut: Layer

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        condition: jax.Array,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        with scope("first"):
            h = self.first(params["first"], x)
        with scope("condition"):
            h = h + shared(self.condition(params["condition"], jax.nn.silu(condition))[:, None, None], h)
        with scope("second"):
            h = self.second(params["second"], h, key=fold(key, "second"), train=train)
        with scope("shortcut"):
            return h + self.shortcut(params["shortcut"], x)


def conditioned_block(
    in_channels: int, out_channels: int, *, condition_features: int, num_groups: int = 8, dropout: float = 0.0
) -> ConditionedBlock:
    """Norm, silu and convolution, twice; the shortcut is a convolution 1 x 1 where channels change."""

    def half(channels: int, drop: Any) -> nn.Serial:
        norm, conv = nn.GroupNorm(num_groups, channels), nn.Conv(channels, out_channels, 3)
        return nn.Serial(norm=norm, activation=jax.nn.silu, **drop, conv=conv)

    return ConditionedBlock(
        half(in_channels, {}),
        nn.Linear(condition_features, out_channels),
        half(out_channels, {"dropout": nn.Dropout(dropout)} if drops(dropout) else {}),
        nn.Serial() if in_channels == out_channels else nn.Serial(conv=nn.Conv(in_channels, out_channels, 1)),
    )


@dataclass(frozen=True)
class ImageAttention(Layer):
    """y = x + attention(norm(x)), every position of an image seeing every other."""

    norm: Layer
    attention: Layer

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        B, H, W, C = x.shape
        with scope("norm"):
            h = self.norm(params["norm"], x).reshape(B, H * W, C)
        with scope("attention"):
            h = self.attention(params["attention"], h, key=fold(key, "attention"), train=train)
        return x + h.reshape(x.shape)
