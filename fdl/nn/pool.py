"""Pooling and upsampling layers, channels last, over any number of spatial axes.

Those that change the number of steps of a sequence refuse its `lengths`, see `fdl.nn.lengths`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax

from fdl.core import Layer, Tree
from fdl.errors import InputError, did_you_mean
from fdl.nn.lengths import real_steps_of_sequence, refuse_lengths
from fdl.ops import pool, resize
from fdl.ops.window import Padding, Sizes, named_padding
from fdl.shapes import expect


@dataclass(frozen=True)
class _Pool(Layer):
    """Fields of the layers below, which fix what becomes of a window."""

    window: Sizes
    stride: Sizes | None = None
    padding: Padding = "VALID"

    def __post_init__(self) -> None:
        rank = len(self.padding) if isinstance(self.padding, tuple) else 1  # of an image it is known at the call
        named_padding(type(self).__name__, self.padding, rank)


@dataclass(frozen=True)
class MaxPool(_Pool):
    """The maximum of each window.

    Args:
      window: its size, an int or one an axis.
      stride: as window, which is its default.
      padding: "VALID", "SAME", an int, or one (low, high) an axis; padded pixels never win.
    Call: x [B, *spatial, C] -> [B, *positions, C].

    >>> import jax.numpy as jnp
    >>> MaxPool(2)({}, jnp.ones((1, 8, 6, 3))).shape
    (1, 4, 3, 3)
    """

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        expect(self, x, "[B, H, ..., C]")
        refuse_lengths(self, x, lengths)
        return pool.max_pool(x, self.window, self.stride, self.padding)


@dataclass(frozen=True)
class AvgPool(_Pool):
    """The mean of each window, over those of its pixels that lie inside the image.

    Args: as for `MaxPool`. PyTorch and Flax count padding as zeros unless told `count_include_pad=False`.
    Call: x [B, *spatial, C] -> [B, *positions, C], summed in float32.
    """

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        expect(self, x, "[B, H, ..., C]")
        refuse_lengths(self, x, lengths)
        return pool.avg_pool(x, self.window, self.stride, self.padding)


@dataclass(frozen=True)
class GlobalMaxPool(Layer):
    """The maximum over all positions: x [B, *spatial, C] -> [B, C].

    Of x [B, T, C] with `lengths` it is the maximum over the real steps, 0 where there are none, see `fdl.nn.lengths`.
    """

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        expect(self, x, "[B, H, ..., C]")
        real = real_steps_of_sequence(self, x, lengths)
        return pool.global_max_pool(x) if real is None else pool.pool_steps(x, real, "max")


@dataclass(frozen=True)
class GlobalAvgPool(Layer):
    """The mean over all positions: x [B, *spatial, C] -> [B, C] (Lin et al., Network in network, 2014).

    Of x [B, T, C] with `lengths` it is the mean over the real steps, 0 where there are none, see `fdl.nn.lengths`.
    """

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        expect(self, x, "[B, H, ..., C]")
        real = real_steps_of_sequence(self, x, lengths)
        return pool.global_avg_pool(x) if real is None else pool.pool_steps(x, real, "mean")


@dataclass(frozen=True)
class AdaptiveMaxPool(Layer):
    """The maximum of each of `output_size` bins an axis, cut by PyTorch's rule; an int or one an axis."""

    output_size: Sizes

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        expect(self, x, "[B, H, ..., C]")
        refuse_lengths(self, x, lengths)
        return pool.adaptive_max_pool(x, self.output_size)


@dataclass(frozen=True)
class AdaptiveAvgPool(Layer):
    """The mean of each of `output_size` bins an axis, cut by PyTorch's rule; an int or one an axis."""

    output_size: Sizes

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        expect(self, x, "[B, H, ..., C]")
        refuse_lengths(self, x, lengths)
        return pool.adaptive_avg_pool(x, self.output_size)


@dataclass(frozen=True)
class Upsample(Layer):
    """An image `factor` times as large, by repetition ("nearest") or linear interpolation ("bilinear").

    Args:
      factor: an int or one an axis.
      method: "bilinear" is PyTorch's with `align_corners=False`.
    Call: x [B, *spatial, C] -> [B, *(spatial * factor), C].

    Raises:
      InputError: an unknown method.
    """

    factor: Sizes
    method: Literal["nearest", "bilinear"] = "nearest"

    def __post_init__(self) -> None:
        if self.method not in resize.METHODS:
            raise InputError(f"Upsample: unknown method {self.method!r}{did_you_mean(self.method, resize.METHODS)}")

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        expect(self, x, "[B, H, ..., C]")
        refuse_lengths(self, x, lengths)
        return resize.upsample(x, self.factor, self.method)
