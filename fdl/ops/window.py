"""What slides over an image: sizes, strides, dilations and padding, one number an axis; shared by conv and pool."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax import lax

from fdl.errors import InputError, did_you_mean
from fdl.fields import Sizes, is_whole

Pairs = tuple[tuple[int, int], ...]
Padding = str | int | Pairs


class Window(NamedTuple):
    """One entry a spatial axis, all known at trace time; hashable, so that it can be a static argument of `jit`."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: Pairs

    @property
    def span(self) -> tuple[int, ...]:
        """How many pixels a window covers, gaps included."""
        return spans(self.size, self.dilation)

    def positions(self, sizes: Sequence[int]) -> tuple[int, ...]:
        """The number of places along each axis of an image of these sizes: the output's sizes."""
        every = zip(sizes, self.padding, self.span, self.stride, strict=True)
        return tuple((n + lo + hi - span) // stride + 1 for n, (lo, hi), span, stride in every)


def spans(size: Sequence[int], dilation: Sequence[int]) -> tuple[int, ...]:
    return tuple((k - 1) * d + 1 for k, d in zip(size, dilation, strict=True))


def slide(name: str, sizes: Sequence[int], size: Sizes, stride: Sizes, padding: Padding, dilation: Sizes = 1) -> Window:
    """The `Window` for an image of these spatial sizes, padding resolved.

    Raises:
      InputError: an option that does not fit the number of axes; a window that fits nowhere.
    """
    rank = len(sizes)
    size, stride = per_axis(name, "window", size, rank), per_axis(name, "stride", stride, rank)
    dilation = per_axis(name, "dilation", dilation, rank)
    pairs = resolve(named_padding(name, padding, rank), sizes, spans(size, dilation), stride)
    window = Window(size, stride, dilation, pairs)
    if min(window.positions(sizes)) < 1:
        padded = [n + lo + hi for n, (lo, hi) in zip(sizes, pairs, strict=True)]
        raise InputError(
            f"{name}: a window over {list(window.span)} pixels fits nowhere in an image of {list(sizes)} "
            f"({padded} with its padding); take a smaller window or padding='SAME'"
        )
    return window


def per_axis(name: str, option: str, value: Sizes, rank: int, least: int = 1) -> tuple[int, ...]:
    """`value`, an int or one int an axis, as a tuple.

    Raises:
      InputError: another type, another number of them, or one below `least`.
    """
    values = value if isinstance(value, tuple) else (value,) * rank
    fits = len(values) == rank and all(is_whole(v, least) for v in values)
    if not fits:
        raise InputError(
            f"{name}: {option} must be an int or a tuple of {rank} ints, each at least {least}; got {value!r}"
        )
    return values


def named_padding(
    name: str, padding: Padding, rank: int, known: tuple[str, ...] = ("SAME", "VALID", "CAUSAL")
) -> str | Pairs:
    """`padding` as a known name or as one (low, high) pair an axis.

    Raises:
      InputError: an unknown name, CAUSAL on an image, or pairs that do not fit the number of axes.
    """
    if isinstance(padding, str):
        known = tuple(word for word in known if word != "CAUSAL" or rank == 1)
        if padding not in known:
            why = " (CAUSAL is for one spatial axis: time)" if padding == "CAUSAL" and rank > 1 else ""
            raise InputError(f"{name}: unknown padding {padding!r}{why}{did_you_mean(padding.upper(), known)}")
        return padding
    if isinstance(padding, int | np.integer):
        sides = per_axis(name, "padding", padding, rank, least=0)
        return tuple((n, n) for n in sides)
    if not (isinstance(padding, tuple) and len(padding) == rank and all(_is_pair(pair) for pair in padding)):
        raise InputError(
            f"{name}: padding must be a name, an int, or a tuple of {rank} (low, high) pairs; got {padding!r}"
        )
    return padding


def resolve(padding: str | Pairs, sizes: Sequence[int], span: Sequence[int], stride: Sequence[int]) -> Pairs:
    """(low, high) an axis; "SAME" by XLA's rule: ceil(n / stride) positions, the odd pixel of padding at the end."""
    if padding == "CAUSAL":
        return ((span[0] - 1, 0),)
    if isinstance(padding, str):
        return tuple((int(lo), int(hi)) for lo, hi in lax.padtype_to_pads(sizes, span, stride, padding))
    return padding


def _is_pair(pair: object) -> bool:
    return isinstance(pair, tuple) and len(pair) == 2 and all(is_whole(n, -sys.maxsize) for n in pair)
