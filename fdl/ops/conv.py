"""Convolution over one, two or three spatial axes, channels last, and its transpose."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from fdl.errors import InputError, did_you_mean
from fdl.ops.conv_cpu import conv_patches
from fdl.ops.forward import forward
from fdl.ops.window import Padding, Sizes, Window, named_padding, per_axis, resolve, slide

Binary = Callable[[jax.Array, jax.Array], jax.Array]
Convolution = Callable[[jax.Array, jax.Array, Window, int], jax.Array]
LAYOUTS = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}


def conv(
    x: jax.Array,
    kernel: jax.Array,
    stride: Sizes = 1,
    padding: Padding = "SAME",
    dilation: Sizes = 1,
    groups: int = 1,
    implementation: str | None = None,
) -> jax.Array:
    """y[b, i, o] = sum over k, c of x[b, stride * i + dilation * k - low, c] * kernel[k, c, o]; i, k one index an axis.

    Args:
      x: [B, *spatial, C]; the kernel's rank says how many spatial axes: 1, 2 or 3.
      kernel: [*sizes, C / groups, O].
      stride, dilation: an int or one an axis.
      padding: zeros around x. "SAME": ceil(n / stride) outputs an axis, the odd pixel at the end; "VALID": none;
        "CAUSAL" (one axis): all before, so that no output sees the future; an int: that many on every side; or one
        (low, high) an axis.
      groups: output block g sees input block g only; groups=C is a depthwise convolution.
      implementation: "native" (XLA's convolution), "patches" (matrix products, see `fdl.ops.conv_cpu`), or None:
        native, but on CPU patches for derivatives and where they are as fast forwards; settled in compiling.
    Returns: [B, *positions, O], in the dtype of x and kernel. Differentiable in every mode, to any order.

    Raises:
      InputError: shapes or options that do not fit each other.

    SAME at stride 1 is PyTorch's `padding="same"` (which refuses larger strides). At stride 2, size 3, n even, it pads
    (0, 1) where PyTorch's customary `padding=1` pads (1, 1): the same shape, other pixels; pass `padding=1` to match.
    Flax has the same convention as here. PyTorch stores the kernel as [O, C / groups, *sizes].

    >>> import jax.numpy as jnp
    >>> x = jnp.array([1.0, 2.0, 3.0]).reshape(1, 3, 1)
    >>> conv(x, jnp.array([1.0, 0.0, -1.0]).reshape(3, 1, 1)).ravel().tolist()
    [-2.0, -2.0, 2.0]
    """
    x, kernel = _checked("conv", x, kernel)
    if groups < 1 or x.shape[-1] != kernel.shape[-2] * groups or kernel.shape[-1] % groups:
        raise InputError(
            f"conv: x has {x.shape[-1]} channels, so groups={groups} needs a kernel [..., {x.shape[-1]} / groups, out] "
            f"with out divisible by groups; got {list(kernel.shape)}{_channels_first(x, kernel.shape[-2] * groups)}"
        )
    window = slide("conv", x.shape[1:-1], kernel.shape[:-2], stride, padding, dilation)
    return _conv(x, kernel, window, groups, implementation)


def conv_transpose(
    x: jax.Array,
    kernel: jax.Array,
    stride: Sizes = 1,
    padding: Padding = "SAME",
    dilation: Sizes = 1,
    groups: int = 1,
    implementation: str | None = None,
) -> jax.Array:
    """y[b, stride * i + dilation * k - low, o] += x[b, i, c] * kernel[k, c, o]: every pixel stamps the kernel.

    The transpose (adjoint) of `conv` of the same options, of which it is the gradient with respect to the image.

    Args:
      x: [B, *spatial, C].
      kernel: [*sizes, C, O / groups].
      stride, dilation: an int or one an axis.
      padding: that of the convolution it transposes; here it is cut off. "SAME": n * stride outputs an axis; "VALID":
        the whole stamp, (n - 1) * stride + dilation * (size - 1) + 1; an int or (low, high) an axis: so much less on
        that side. A negative `high` adds zeros at the end. No "CAUSAL": its transpose sees nothing but the future.
      groups: output block g sees input block g only.
      implementation: as for `conv`.
    Returns: [B, *outputs, O].

    PyTorch's `ConvTranspose2d` is the same map: kernel = weight.transpose(2, 3, 0, 1), its `padding=p` and
    `output_padding=q` are `padding=((p, p - q), ...)`. Flax's `ConvTranspose` gives the same shapes (VALID:
    where the kernel is no smaller than the stride) but applies the kernel flipped along its spatial axes (`jnp.flip`).

    Raises:
      InputError: shapes or options that do not fit each other.

    >>> import jax.numpy as jnp
    >>> x, kernel = jnp.array([1.0, 10.0]).reshape(1, 2, 1), jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)
    >>> conv_transpose(x, kernel, stride=2, padding="VALID").ravel().tolist()
    [1.0, 2.0, 13.0, 20.0, 30.0]
    """
    name = "conv_transpose"
    x, kernel = _checked(name, x, kernel)
    if groups < 1 or x.shape[-1] != kernel.shape[-2] or kernel.shape[-2] % groups:
        raise InputError(
            f"{name}: x has {x.shape[-1]} channels, so the kernel must be [*sizes, {x.shape[-1]}, out / groups], with "
            f"groups={groups} dividing {x.shape[-1]}; got {list(kernel.shape)}{_channels_first(x, kernel.shape[-2])}"
        )
    rank = kernel.ndim - 2
    strides, dilations = per_axis(name, "stride", stride, rank), per_axis(name, "dilation", dilation, rank)
    sizes, window = _stamped(x.shape[1:-1], Window(kernel.shape[:-2], strides, dilations, ()), padding)
    if min(sizes) < 1:
        raise InputError(f"{name}: padding={padding!r} cuts everything off; the outputs would be {list(sizes)}")
    return _conv_transpose(x, kernel, sizes, window, groups, implementation)


def _stamped(sizes: tuple[int, ...], window: Window, padding: Padding) -> tuple[tuple[int, ...], Window]:
    """The output's sizes, and the window of the convolution that leads from those back to `sizes`."""
    named = named_padding("conv_transpose", padding, len(sizes), ("SAME", "VALID"))
    grown = [n * stride for n, stride in zip(sizes, window.stride, strict=True)]
    pairs = resolve(named, grown, window.span, window.stride)
    if named == "SAME":
        return tuple(grown), window._replace(padding=pairs)
    every = zip(sizes, window.stride, window.span, pairs, strict=True)
    full = tuple((n - 1) * stride + span - lo - hi for n, stride, span, (lo, hi) in every)
    return full, window._replace(padding=pairs)


@partial(jax.jit, static_argnums=(2, 3, 4))  # so that eager calls compile the loop over blocks once
def _conv(x: jax.Array, kernel: jax.Array, window: Window, groups: int, implementation: str | None) -> jax.Array:
    native, patches = (partial(f, window=window, groups=groups) for f in (conv_native, conv_patches))
    # Groups, three axes and single pixels are no slower as products, forwards as well.
    cpu = forward(native, patches) if groups == 1 and len(window.size) < 3 and math.prod(window.size) > 1 else patches
    return _choose(implementation, native, patches, cpu)(x, kernel)


@partial(jax.jit, static_argnums=(2, 3, 4, 5))
def _conv_transpose(
    x: jax.Array, kernel: jax.Array, sizes: tuple[int, ...], window: Window, groups: int, implementation: str | None
) -> jax.Array:
    def transposed(forward: Convolution) -> Callable[[jax.Array, jax.Array], jax.Array]:
        def run(x: jax.Array, kernel: jax.Array) -> jax.Array:
            if not isinstance(x.shape[0], int):  # a free size of jax.export, which JAX cannot transpose
                return jax.vmap(lambda one: run(one[None], kernel)[0])(x)
            image = jax.ShapeDtypeStruct((x.shape[0], *sizes, kernel.shape[-1] * groups), x.dtype)
            (y,) = jax.linear_transpose(lambda image: forward(image, kernel.swapaxes(-1, -2), window, groups), image)(x)
            return y

        return run

    native, patches = transposed(conv_native), transposed(conv_patches)
    return _choose(implementation, native, patches, patches)(x, kernel)


def conv_native(x: jax.Array, kernel: jax.Array, window: Window, groups: int) -> jax.Array:
    """XLA's convolution."""
    return lax.conv_general_dilated(
        x,
        kernel,
        window.stride,
        window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=LAYOUTS[len(window.size)],
        feature_group_count=groups,
    )


def _choose(implementation: str | None, native: Binary, patches: Binary, cpu: Binary) -> Binary:
    """The function asked for; where none is, the platform's, which only the compiler of the program knows."""
    known = {"native": native, "patches": patches}
    if implementation in known:
        return known[implementation]
    if implementation is not None:
        raise InputError(f"unknown implementation {implementation!r}{did_you_mean(implementation, known)}")
    # checkpoint: or the residuals of both branches would be kept, those of the other one as zeros
    either = partial(lax.platform_dependent, cpu=cpu, default=native)
    return jax.checkpoint(either, prevent_cse=False)


def _checked(name: str, x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both as arrays of one dtype, ranks checked."""
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    if kernel.ndim - 2 not in LAYOUTS:
        raise InputError(
            f"{name}: expected a kernel of 1, 2 or 3 spatial axes, [*sizes, in, out], got {list(kernel.shape)}"
        )
    if x.ndim != kernel.ndim:
        hint = "; layers see the batch: add the leading axis, x[None]" if x.ndim == kernel.ndim - 1 else ""
        spatial = ", ".join("DHW"[5 - kernel.ndim :])
        raise InputError(f"{name}: a kernel {list(kernel.shape)} needs x [B, {spatial}, C], got {list(x.shape)}{hint}")
    dtype = jnp.result_type(x, kernel)
    return x.astype(dtype), kernel.astype(dtype)


def _channels_first(x: jax.Array, channels: int) -> str:
    return "; channels come last here: x = jnp.moveaxis(x, 1, -1)" if x.shape[1] == channels else ""
