"""Convolution layers, channels last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax

from fdl.core import Initializer, Layer, Param, Tree
from fdl.errors import InputError
from fdl.fields import Flag, Size
from fdl.initializers import LecunNormal, PerGroup, Zeros
from fdl.nn.lengths import real_steps, refuse_lengths, without_padding
from fdl.ops.conv import conv, conv_transpose
from fdl.ops.shared import shared
from fdl.ops.window import Padding, Sizes, named_padding, per_axis
from fdl.shapes import expect, refuse_bytes


@dataclass(frozen=True)
class _Convolution(Layer):
    """Fields and kernel of the layers below, which fix the number of spatial axes."""

    in_channels: Size
    out_channels: Size
    kernel_size: Sizes
    stride: Sizes = 1
    padding: Padding = "SAME"
    dilation: Sizes = 1
    groups: Size = 1
    use_bias: Flag = True
    kernel_init: Initializer = LecunNormal()

    spatial: ClassVar[str]  # a letter for each spatial axis
    operation: ClassVar[Callable[..., jax.Array]] = staticmethod(conv)

    def __post_init__(self) -> None:
        name, rank = type(self).__name__, len(self.spatial)
        for option in ("kernel_size", "stride", "dilation"):
            per_axis(name, option, getattr(self, option), rank)
        named_padding(name, self.padding, rank)
        if self.in_channels % self.groups or self.out_channels % self.groups:
            channels = f"{self.in_channels} input and {self.out_channels} output channels"
            raise InputError(f"{name}: {self.groups} groups do not divide {channels}")

    def _channels(self) -> tuple[int, int]:
        """The kernel's last two sizes."""
        return self.in_channels // self.groups, self.out_channels

    def _init(self) -> Initializer:
        return self.kernel_init

    def specs(self) -> Tree:
        sizes = per_axis(type(self).__name__, "kernel_size", self.kernel_size, len(self.spatial))
        axes = (*(None for _ in sizes), "in_channels", "out_channels")
        kernel = Param((*sizes, *self._channels()), self._init(), axes)
        bias = Param((self.out_channels,), Zeros(), ("out_channels",))
        return {"kernel": kernel, "bias": bias} if self.use_bias else {"kernel": kernel}

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        del key, train
        expect(self, x, f"[B, {', '.join(self.spatial)}, in_channels]")
        refuse_bytes(self, x)
        y = self.operation(x, params["kernel"], self.stride, self.padding, self.dilation, self.groups)
        return y + shared(params["bias"], y) if self.use_bias else y


@dataclass(frozen=True)
class Conv(_Convolution):
    """y[b, i, o] = sum over k, c of x[b, stride * i + dilation * k - low, c] * kernel[k, c, o] + bias[o], on images.

    Args:
      in_channels, out_channels: sizes of the last axis.
      kernel_size, stride, dilation: an int or (height, width).
      padding: "SAME", "VALID", an int, or ((low, high), (low, high)).
      groups: output block g sees input block g only; in_channels groups make a depthwise convolution.
      use_bias: off before a BatchNorm, which would remove it again.
    Call: x [B, H, W, in_channels] -> [B, H', W', out_channels], in x's dtype.

    The kernel is [H, W, in / groups, out], as in Flax; PyTorch has [out, in / groups, H, W] and channels first. "SAME"
    pads as XLA does: see `fdl.ops.conv` for what PyTorch does at larger strides.

    Raises:
      InputError: groups that do not divide the channels, options that are no sizes, an image that does not fit, or is
        of uint8: nobody scaled it.

    Reference: LeCun et al., Gradient-based learning applied to document recognition, 1998.

    >>> import fdl, jax.numpy as jnp
    >>> layer = fdl.nn.Conv(3, 8, 3, stride=2)
    >>> params, _ = fdl.init(layer, jax.random.key(0))
    >>> params["kernel"].shape, layer(params, jnp.ones((1, 9, 9, 3))).shape
    ((3, 3, 3, 8), (1, 5, 5, 8))
    """

    spatial = "HW"


@dataclass(frozen=True)
class Conv1d(_Convolution):
    """`Conv` along one axis, x [B, T, in_channels]; padding may also be "CAUSAL": no output sees the future.

    With `lengths`, integers [B], each sequence ends in zeros as it does alone, see `fdl.nn.lengths`; they are refused
    where y has other steps than x (a stride, "VALID").

    >>> import fdl, jax.numpy as jnp
    >>> layer = fdl.nn.Conv1d(2, 4, 3, padding="CAUSAL")
    >>> layer(fdl.init(layer, jax.random.key(0))[0], jnp.ones((1, 7, 2))).shape
    (1, 7, 4)
    """

    spatial = "T"

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        expect(self, x, "[B, T, in_channels]")
        real = real_steps(self, x, lengths)
        if real is not None and not self._keeps_steps():
            refuse_lengths(self, x, lengths)
        return without_padding(super().__call__(params, without_padding(x, real), key=key, train=train), real)

    def _keeps_steps(self) -> bool:
        """Whether step t of y is step t of x, for every T."""
        (size,), (stride,), (dilation,) = (
            per_axis("Conv1d", name, getattr(self, name), 1) for name in ("kernel_size", "stride", "dilation")
        )
        padding, extra = named_padding("Conv1d", self.padding, 1), dilation * (size - 1)
        if isinstance(padding, str):
            return stride == 1 and (padding != "VALID" or extra == 0)
        return stride == 1 and sum(padding[0]) == extra


@dataclass(frozen=True)
class Conv3d(_Convolution):
    """`Conv` along three axes, x [B, D, H, W, in_channels]."""

    spatial = "DHW"


@dataclass(frozen=True)
class ConvTranspose(_Convolution):
    """y[b, stride * i + dilation * k - low, o] += x[b, i, c] * kernel[k, c, o], + bias: every pixel stamps the kernel.

    Args: as for `Conv`; padding is that of the convolution it transposes, so that "SAME" multiplies height and width by
      the stride and "VALID" cuts nothing off.
    Call: x [B, H, W, in_channels] -> [B, H', W', out_channels], in x's dtype.

    The kernel is [H, W, in, out / groups], drawn group by group. Its fan-in is that of stride 1; at a larger stride
    fewer taps meet at an output, so that the variance of y starts smaller (at "SAME", by the stride of each axis). See
    `fdl.ops.conv_transpose` for PyTorch's `ConvTranspose2d`, and for Flax, which applies the kernel flipped.

    Raises:
      InputError: as `Conv`.

    Reference: Zeiler et al., Deconvolutional networks, 2010.

    >>> import fdl, jax.numpy as jnp
    >>> layer = fdl.nn.ConvTranspose(3, 8, 3, stride=2)
    >>> layer(fdl.init(layer, jax.random.key(0))[0], jnp.ones((1, 5, 5, 3))).shape
    (1, 10, 10, 8)
    """

    spatial = "HW"
    operation = staticmethod(conv_transpose)

    def _channels(self) -> tuple[int, int]:
        return self.in_channels, self.out_channels // self.groups

    def _init(self) -> Initializer:
        return self.kernel_init if self.groups == 1 else PerGroup(self.kernel_init, self.groups)
