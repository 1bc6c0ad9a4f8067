"""Pooling over any number of spatial axes, channels last.

Values are those of `lax.reduce_window`, whose gradient (select-and-scatter) costs as much on CPU as all the rest of a
small network. For derivatives a window is taken apart axis by axis into strided slices, which are combined one by one:
cheap, in forward mode too, and under `vmap` like any other arithmetic. Long windows are put together by doubling.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fdl.errors import InputError
from fdl.ops.forward import forward
from fdl.ops.norm import widen
from fdl.ops.shared import summed_wide
from fdl.ops.window import Padding, Sizes, Window, per_axis, slide

Binary = Callable[[jax.Array, jax.Array], jax.Array]
LANES = 8  # float32 numbers of a CPU's vector
LONG = 32  # pixels of a window above which slices, one each, take longer to compile than they are worth


def max_pool(x: jax.Array, window: Sizes, stride: Sizes | None = None, padding: Padding = "VALID") -> jax.Array:
    """y[b, i, c] = max over k of x[b, stride * i + k - low, c]; i and k have one index a spatial axis.

    Args:
      x: [B, *spatial, C].
      window: its size, an int or one an axis.
      stride: as window, which is its default.
      padding: "VALID", "SAME" (XLA's rule: the odd pixel at the end), an int, or one (low, high) an axis; padded pixels
        never win.
    Returns: [B, *positions, C], in x's dtype. NaN wins.

    Of equal pixels the first, in the order of the array, receives the gradient, as in PyTorch and XLA's reduce_window.

    Raises:
      InputError: options that do not fit x; padding as wide as the window.

    >>> import jax.numpy as jnp
    >>> max_pool(jnp.array([1.0, 5.0, 2.0, 3.0]).reshape(1, 4, 1), 2).ravel().tolist()
    [5.0, 3.0]
    """
    x = jnp.asarray(x)
    slid = _slide("max_pool", x, window, stride, padding)
    lowest = -np.inf if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype).min
    return _pool(x, slid, lowest, lax.max, _larger)


def avg_pool(x: jax.Array, window: Sizes, stride: Sizes | None = None, padding: Padding = "VALID") -> jax.Array:
    """y[b, i, c] = mean over k of x[b, stride * i + k - low, c], over those k that lie inside the image.

    Args: as for `max_pool`.
    Returns: [B, *positions, C], in x's dtype (integers: float32), summed in float32 or wider.

    Padded pixels are not counted. PyTorch and Flax count them as zeros unless told `count_include_pad=False`; for that
    behaviour pad x first (`jnp.pad`) and pool with "VALID".

    Raises:
      InputError: options that do not fit x; padding as wide as the window.

    >>> import jax.numpy as jnp
    >>> avg_pool(jnp.array([1.0, 5.0, 4.0]).reshape(1, 3, 1), 2, padding="SAME").ravel().tolist()
    [3.0, 4.0]
    """
    x = jnp.asarray(x)
    slid = _slide("avg_pool", x, window, stride, padding)
    total = _pool(widen(x), slid, 0, lax.add, lax.add)
    return _rounded(total / jnp.asarray(_counts(x.shape[1:-1], slid), total.dtype), x)


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def largest(x: jax.Array, axis: int) -> jax.Array:
    """The maximum along an axis, counted from 0, whose gradient goes to the first of the largest.

    `jnp.max` finds them again as those that equal the maximum. A compiled program computes x twice for that, rounded in
    two ways where it is the end of a chain, and then the gradient is lost without a word (jax 0.10.2 on CPU).
    """
    return x.max(axis)


@largest.defjvp
def _largest_tangent(axis: int, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x,), (tangent,) = primals, tangents
    first = lax.broadcasted_iota(jnp.int32, x.shape, axis) == x.argmax(axis, keepdims=True).astype(jnp.int32)
    return largest(x, axis), jnp.where(first, tangent, jnp.zeros_like(tangent)).sum(axis)


def global_max_pool(x: jax.Array) -> jax.Array:
    """The maximum over all spatial axes: [B, *spatial, C] -> [B, C]; of equal pixels the first has the gradient."""
    x = _filled("global_max_pool", x)
    return largest(x.reshape(x.shape[0], math.prod(x.shape[1:-1]), x.shape[-1]), 1)


def global_avg_pool(x: jax.Array) -> jax.Array:
    """The mean over all spatial axes, in float32: [B, *spatial, C] -> [B, C] (Lin et al., 2014, section 3.2)."""
    return _rounded(widen(_filled("global_avg_pool", x)).mean(range(1, x.ndim - 1)), x)


def pool_steps(x: jax.Array, real: jax.Array, reduce: str) -> jax.Array:
    """The "max" or "mean" of x [B, T, F] over the steps where `real` [B, T] is True, 0 where there are none: [B, F]."""
    real = real[..., None]
    if not x.shape[1]:
        return jnp.zeros((x.shape[0], x.shape[2]), x.dtype)
    if reduce == "max":
        highest = largest(jnp.where(real, x, -jnp.inf), 1)
        return jnp.where(real.any(1), highest, jnp.zeros_like(highest))
    count = jnp.maximum(real.sum(1), 1).astype(jnp.float32)
    total = widen(jnp.where(real, x, jnp.zeros_like(x))).sum(1)
    return (total / count.astype(total.dtype)).astype(x.dtype)


def adaptive_max_pool(x: jax.Array, output_size: Sizes) -> jax.Array:
    """The maximum of each of `output_size` bins an axis, cut by PyTorch's rule: see `adaptive_avg_pool`."""
    name = "adaptive_max_pool"
    return summed_wide(lambda x: _adaptive(name, x, output_size, largest), _filled(name, x))


def adaptive_avg_pool(x: jax.Array, output_size: Sizes) -> jax.Array:
    """The mean of each of `output_size` bins an axis; bin i of m covers floor(i n / m) ... ceil((i + 1) n / m) - 1.

    Args:
      x: [B, *spatial, C].
      output_size: an int or one an axis; bins overlap where it does not divide the image, and repeat
        pixels where it is larger.
    Returns: [B, *output_size, C], in x's dtype, summed in float32 or wider.

    The rule is PyTorch's `AdaptiveAvgPool2d`; Flax has none.

    Raises:
      InputError: sizes that do not fit the rank of x.

    >>> import jax.numpy as jnp
    >>> adaptive_avg_pool(jnp.arange(5.0).reshape(1, 5, 1), 2).ravel().tolist()
    [1.0, 3.0]
    """
    x = _filled("adaptive_avg_pool", x)
    return _rounded(_adaptive("adaptive_avg_pool", widen(x), output_size, jnp.mean), x)


def _adaptive(name: str, x: jax.Array, output_size: Sizes, reduce: Callable[..., jax.Array]) -> jax.Array:
    for axis, m in enumerate(per_axis(name, "output_size", output_size, x.ndim - 2), start=1):
        n = x.shape[axis]
        bins = [lax.slice_in_dim(x, i * n // m, -(-(i + 1) * n // m), axis=axis) for i in range(m)]
        x = jnp.stack([reduce(one, axis) for one in bins], axis)  # a bin is a box, so one axis after the other is exact
    return x


def _slide(name: str, x: jax.Array, window: Sizes, stride: Sizes | None, padding: Padding) -> Window:
    sizes = _spatial(name, x).shape[1:-1]
    slid = slide(name, sizes, window, window if stride is None else stride, padding)
    if any(max(pair) >= size or min(pair) < 0 for pair, size in zip(slid.padding, slid.size, strict=True)):
        raise InputError(
            f"{name}: padding {slid.padding} must be below the window {slid.size}, or windows see padding only"
        )
    return slid


def _spatial(name: str, x: jax.Array) -> jax.Array:
    if jnp.ndim(x) < 3:
        raise InputError(f"{name}: expected x [B, *spatial, C], three axes or more, got {list(jnp.shape(x))}")
    return jnp.asarray(x)


def _filled(name: str, x: jax.Array) -> jax.Array:
    x = _spatial(name, x)
    if 0 in x.shape[1:-1]:
        raise InputError(f"{name}: x {list(x.shape)} has no pixels, and so neither a mean nor a maximum")
    return x


def _pool(x: jax.Array, window: Window, start: float, operation: Binary, differentiable: Binary) -> jax.Array:
    """Every window's pixels put together by `operation`, whose neutral value is `start`; `differentiable` equals it."""

    def windows(x: jax.Array) -> jax.Array:
        sizes, strides, padding = (1, *window.size, 1), (1, *window.stride, 1), ((0, 0), *window.padding, (0, 0))
        return lax.reduce_window(x, np.asarray(start, x.dtype), operation, sizes, strides, padding)

    def slices(x: jax.Array) -> jax.Array:
        return _combine(_pad(x, window, start), window, differentiable)

    # reduce_window looks at every pixel of a window, and at a few channels one by one
    return (slices if max(window.size) > LONG or x.shape[-1] < LANES else forward(windows, slices))(x)


def _pad(x: jax.Array, window: Window, value: float) -> jax.Array:
    return lax.pad(x, jnp.asarray(value, x.dtype), [(0, 0, 0), *((lo, hi, 0) for lo, hi in window.padding), (0, 0, 0)])


def _combine(x: jax.Array, window: Window, combine: Binary) -> jax.Array:
    """`combine` over every window of a padded x, the last axis first: so the first of equals is that of the array."""
    for axis in range(x.ndim - 2, 0, -1):
        size, stride = window.size[axis - 1], window.stride[axis - 1]
        last = (x.shape[axis] - size) // stride * stride
        if size > LONG:
            x = lax.slice_in_dim(_doubled(x, size, axis, combine), 0, last + 1, stride, axis)
        else:
            x = functools.reduce(combine, (lax.slice_in_dim(x, k, k + last + 1, stride, axis) for k in range(size)))
    return x


def _doubled(x: jax.Array, size: int, axis: int, combine: Binary) -> jax.Array:
    """Windows at every place, from windows of 1, 2, 4, ... pixels: two operations for each bit of `size`."""
    places, offset, parts = x.shape[axis] - size + 1, 0, []
    for bit in range(size.bit_length()):
        width = 1 << bit
        if bit:  # x has windows of half the width: at each place its own, and the next beside it
            half = width // 2
            x = combine(lax.slice_in_dim(x, 0, -half, axis=axis), lax.slice_in_dim(x, half, None, axis=axis))
        if size & width:
            parts.append(lax.slice_in_dim(x, offset, offset + places, axis=axis))
            offset += width
    return functools.reduce(combine, parts)


def _larger(a: jax.Array, b: jax.Array) -> jax.Array:
    # not jnp.maximum: its gradient splits ties, keeps three float arrays and divides, where this one keeps one mask
    return jnp.where((a >= b) | (a != a), a, b)


def _counts(sizes: Sequence[int], window: Window) -> np.ndarray:
    """[*positions, 1]: how many pixels of the image each window sees."""
    counts = []
    for n, size, stride, (low, _), m in zip(
        sizes, window.size, window.stride, window.padding, window.positions(sizes), strict=True
    ):
        start = np.arange(m) * stride - low
        counts.append(np.minimum(start + size, n) - np.maximum(start, 0))
    return np.asarray(math.prod(np.ix_(*counts, [1])))


def _rounded(y: jax.Array, x: jax.Array) -> jax.Array:
    return y.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else y
