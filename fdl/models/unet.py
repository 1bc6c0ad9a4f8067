"""The U-Net: an image to an image, seen at every scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax

from fdl import nn
from fdl.core import Layer, Tree
from fdl.errors import InputError
from fdl.fields import Size
from fdl.initializers import HeNormal
from fdl.nn.containers import Part
from fdl.shapes import expect


def unet(in_channels: int, out_channels: int, *, widths: Sequence[int] = (64, 128, 256, 512, 1024)) -> nn.Serial:
    """Two convolutions at each scale on the way down and on the way up, what went down joined to what comes up.

    Args:
      in_channels: of the image.
      out_channels: logits at each pixel.
      widths: channels at each scale, from the finest; each next one has half the height and width.
    Call: `apply(params, state, x [B, H, W, in_channels])` -> (logits [B, H, W, out_channels], state).

    Images keep their size, and convolutions have batch normalisation, as today's versions do; the paper pads nothing
    and normalises nothing. Going up is a transposed convolution 2 x 2.

    Raises:
      InputError: fewer than two widths; height or width not a multiple of 2^(len(widths) - 1).

    Reference: Ronneberger et al., U-Net: convolutional networks for biomedical image segmentation, 2015, figure 1.

    >>> import fdl, jax.numpy as jnp
    >>> model = unet(1, 2, widths=(4, 8))
    >>> params, state = fdl.abstract(model)
    >>> jax.eval_shape(model.apply, params, state, jnp.ones((1, 8, 6, 1)))[0].shape
    (1, 8, 6, 2)
    """
    if len(widths) < 2:
        raise InputError(f"unet: expected at least two widths, got {tuple(widths)}")
    *fine, coarsest = widths
    channels = [in_channels, *widths]
    body = u_shape(
        enters=[_twice(channels[i], width) for i, width in enumerate(fine)],
        downs=[nn.MaxPool(2)] * len(fine),
        bottom=_twice(fine[-1], coarsest),
        ups=[nn.ConvTranspose(widths[i + 1], width, 2, 2, "VALID") for i, width in enumerate(fine)],
        exits=[_twice(2 * width, width) for width in fine],
    )
    return nn.Serial(size=Divisible(2 ** len(fine)), body=body, head=nn.Conv(widths[0], out_channels, 1))


def u_shape(
    *, enters: Sequence[Part], downs: Sequence[Part], bottom: Layer, ups: Sequence[Part], exits: Sequence[Part]
) -> Layer:
    """exit([h, up(inside(down(h)))]), h = enter(x), the inside being the same for the next scale, and at last `bottom`.

    The parts are given from the finest scale on. Keywords go to all that name them.
    """
    inside = bottom
    for enter, down, up, leave in reversed(list(zip(enters, downs, ups, exits, strict=True))):
        below = nn.Serial(down=down, level=inside, up=up)
        both = nn.Parallel(skip=nn.Serial(), below=below, combine="concat")
        inside = nn.Serial(enter=enter, scales=both, exit=leave)
    return inside


@dataclass(frozen=True)
class Divisible(Layer):
    """y = x, an image whose height and width are multiples of `factor`; an error says so otherwise."""

    factor: Size

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        del params, key, train
        expect(self, x, "[B, H, W, C]")
        if x.shape[1] % self.factor or x.shape[2] % self.factor:
            raise InputError(
                f"expected an image of height and width that are multiples of {self.factor}, got {x.shape[1]} x "
                f"{x.shape[2]}; pad it (jnp.pad), or take fewer scales"
            )
        return x


def _twice(in_channels: int, width: int) -> nn.Serial:
    parts: dict[str, Part] = {}
    for number, channels in ((1, in_channels), (2, width)):
        conv = nn.Conv(channels, width, 3, use_bias=False, kernel_init=HeNormal())
        parts |= {f"conv{number}": conv, f"norm{number}": nn.BatchNorm(width), f"relu{number}": jax.nn.relu}
    return nn.Serial(**parts)
