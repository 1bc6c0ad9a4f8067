"""Convolution as matrix products over patches ("im2col"), the form that stays fast on CPU inside compiled loops.

XLA's CPU back end has a fast path for convolutions whose axes come in one order. A pass brings others into that order,
but looks only at the outermost computation: inside `lax.scan` or `fori_loop` the two gradients, which have other
orders, fall to a naive loop nest, 10 to 100 times slower (github.com/jax-ml/jax/issues/12868). Here there are slices
and matrix products only. Their derivatives, forward or reverse, of any order, are slices and matrix products again, so
no rule is written by hand, and `vmap` over kernels is a batched product instead of a grouped convolution.

`fdl.ops.conv` takes derivatives from here, and values where XLA's own are no faster; both are measured, in a loop and
outside, by `experiments/benchmarks/convolution.py`.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from fdl.ops.norm import widen
from fdl.ops.shared import shared
from fdl.ops.window import Window

# Patches made at a time: they stay in the second-level cache, under `vmap` those of several members (8 in one program:
# 207 ms a step against 422 with blocks four times as large, which alone are no faster).
BLOCK_BYTES = 2**20
JOINT_TAPS = 27  # up to 3x3x3 one slice a tap is faster; a 7x7 window that way compiles four times longer


def conv_patches(x: jax.Array, kernel: jax.Array, window: Window, groups: int) -> jax.Array:
    """`fdl.ops.conv` as patches times kernel, over blocks of images or of bands of images."""
    wide = widen(kernel) if jnp.issubdtype(kernel.dtype, jnp.floating) else kernel
    height, *width = window.positions(x.shape[1:-1])
    taps, channels = math.prod(window.size), x.shape[-1]
    if x.shape[0] == 0:
        return jnp.zeros((0, height, *width, kernel.shape[-1]), x.dtype)
    row_bytes = math.prod(width) * taps * channels * x.dtype.itemsize

    # the patches are many times as large as x: made again for the gradient instead of kept
    @jax.checkpoint
    def convolve(images: jax.Array) -> jax.Array:
        # cast inside, so that the kernel's gradient is summed over the blocks in float32
        return _convolve(images, wide.astype(kernel.dtype), window, groups)

    # The patches are x itself; or, of gray images, no larger than y, and blocks would cost 8 % of that CNN's step.
    # Blocks of a batch whose size is free (`jax.export`) cannot be counted.
    if not isinstance(x.shape[0], int) or taps == 1 or (channels == 1 and taps <= kernel.shape[-1]):
        return convolve(x)
    least = max(-(-_halo(window) // window.stride[0]), 1)
    rows = max(BLOCK_BYTES // row_bytes, least)
    if rows >= height:
        return _map_blocks(convolve, x, max(BLOCK_BYTES // (row_bytes * height), 1))
    evened = -(-height // -(-height // rows))
    bands, window = _bands(x, window, max(evened, least))
    y = _map_blocks(convolve, bands, 1)
    return y.reshape(len(x), -1, *y.shape[2:])[:, :height]


def _halo(window: Window) -> int:
    """Rows of an image that the last row of one band and the first of the next both see."""
    return max(window.span[0] - window.stride[0], 0)


def _bands(x: jax.Array, window: Window, rows: int) -> tuple[jax.Array, Window]:
    """Tall images as low ones, [B, H, ...] -> [B * bands, h, ...], of `rows` output rows each; and their window."""
    count = -(-window.positions(x.shape[1:-1])[0] // rows)
    step, halo = rows * window.stride[0], _halo(window)
    low = window.padding[0][0]
    high = (count + 1) * step - low - x.shape[1]
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (low, high, 0), *[(0, 0, 0)] * (x.ndim - 2)])
    x = x.reshape(len(x), count + 1, step, *x.shape[2:])
    bands = jnp.concatenate([x[:, :-1], x[:, 1:, :halo]], axis=2)  # each with the first rows of the next
    return bands.reshape(-1, *bands.shape[2:]), window._replace(padding=((0, 0), *window.padding[1:]))


def _map_blocks(convolve: Callable[[jax.Array], jax.Array], x: jax.Array, limit: int) -> jax.Array:
    """`convolve` for at most `limit` images at a time."""
    if limit >= len(x):
        return convolve(x)
    even = (n for n in range(limit, limit // 2, -1) if len(x) % n == 0)
    size = next(even, limit)
    whole = len(x) - len(x) % size
    y = lax.map(convolve, x[:whole].reshape(-1, size, *x.shape[1:]))
    y = y.reshape(whole, *y.shape[2:])
    return y if whole == len(x) else jnp.concatenate([y, convolve(x[whole:])])


def _convolve(x: jax.Array, kernel: jax.Array, window: Window, groups: int) -> jax.Array:
    x = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *((lo, hi, 0) for lo, hi in window.padding), (0, 0, 0)])
    if groups == 1:
        return _product(x, kernel, window)
    x, kernel = (a.reshape(*a.shape[:-1], groups, -1) for a in (x, kernel))
    kernel = jnp.moveaxis(kernel, -2, -3)  # [*size, groups, C / groups, O / groups]
    if kernel.shape[-2] == 1:  # depthwise: nothing to sum over but the taps
        y = _shifted(x, kernel[..., 0, :], window)
    else:
        y = jax.vmap(partial(_product, window=window), (-2, -3), -2)(x, kernel)
    return y.reshape(*y.shape[:-2], -1)


def _product(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """One matrix product: its rows are the positions in all images, its columns the outputs.

    Flat, for under `vmap` a product over several axes is transposed first and takes three times as long.
    """
    patches = _patches(x, window)
    y = patches.reshape(-1, patches.shape[-1]) @ kernel.reshape(-1, kernel.shape[-1])
    return y.reshape(*patches.shape[:-1], -1)


def _shifted(x: jax.Array, kernel: jax.Array, window: Window) -> jax.Array:
    """sum over k of tap_k * kernel[k], each channel by itself: [B, *spatial, G, 1] and [*size, G, O] -> [..., G, O]."""
    weights = kernel.reshape(-1, *kernel.shape[-2:])
    taps = _taps(x, window, range(len(window.size)))
    terms = [tap * shared(weight, tap) for tap, weight in zip(taps, weights, strict=True)]
    return functools.reduce(jnp.add, terms)


def _patches(x: jax.Array, window: Window) -> jax.Array:
    """[B, *positions, taps * C]: what the window sees at every position, in the order of the kernel's axes."""
    axes = range(len(window.size))
    if math.prod(window.size) <= JOINT_TAPS:
        return jnp.concatenate(_taps(x, window, axes), axis=-1)
    for axis in reversed(axes):  # one axis after the other: k1 + k2 slices instead of k1 * k2
        x = jnp.concatenate(_taps(x, window, [axis]), axis=-1)
    return x


def _taps(x: jax.Array, window: Window, axes: Sequence[int]) -> list[jax.Array]:
    """For every offset along `axes`, the pixel that each position sees there: strided slices of a padded x."""
    taps = []
    for offset in itertools.product(*(range(window.size[axis]) for axis in axes)):
        start, stop, step = [0] * x.ndim, list(x.shape), [1] * x.ndim
        for axis, k in zip(axes, offset, strict=True):
            stride, span, first = window.stride[axis], window.span[axis], k * window.dilation[axis]
            last = first + (x.shape[axis + 1] - span) // stride * stride
            start[axis + 1], stop[axis + 1], step[axis + 1] = first, last + 1, stride
        taps.append(lax.slice(x, start, stop, step))
    return taps
