"""Checks of what enters a layer or a loss, its shape and its range, with errors that teach the fix."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from fdl.errors import InputError
from fdl.records import short


def expect(layer: Any, x: Any, shape: str, name: str = "x") -> None:
    """Raises unless `x` has the shape that `shape` spells, such as "[..., in_features]" or "[B, H, W, in_channels]".

    A word that is a field of `layer` must be equal to its value, a number to itself, a capital letter is any size, and
    "..." any number of axes.

    Raises:
      InputError: the record, what was expected, what came, and the likely fix.
    """
    words, got = shape.strip("[]").split(", "), list(np.shape(x))
    sizes = [_size(layer, word) for word in words if word != "..."]
    if "..." in words:
        first = words.index("...")  # axes before it count from the front, those after it from the back
        axes = got[:first] + got[len(got) - (len(sizes) - first) :]
        fits = len(got) >= len(sizes)
    else:
        axes, fits = got, len(got) == len(sizes)
    if fits and all(want is None or want == have for want, have in zip(sizes, axes, strict=True)):
        return
    wanted = ", ".join(_spelled(layer, word) for word in words)
    dtype = getattr(x, "dtype", type(x).__name__)
    raise InputError(f"{short(layer)}: expected {name} of shape [{wanted}], got {dtype}{got}{_hint(got, sizes)}")


def _size(layer: Any, word: str) -> int | None:
    return int(word) if word.isdigit() else getattr(layer, word, None)


def _spelled(layer: Any, word: str) -> str:
    size = getattr(layer, word, None)
    return word if size is None else f"{word}={size}"


def _hint(got: list[int], sizes: list[int | None]) -> str:
    """The usual mistakes: an image not flattened, channels first or left out, a batch axis forgotten."""
    last = sizes[-1] if sizes else None
    if last is not None and len(got) > 2 and math.prod(got[1:]) == last:
        return "; flatten each example first (nn.Flatten())"
    if last is not None and len(got) == len(sizes) > 2 and got[1] == last != got[-1]:
        return "; channels come last here: x = jnp.moveaxis(x, 1, -1)"
    if len(got) == len(sizes) - 1 >= 3 and last == 1 and got[-1] != 1:
        return "; one channel is an axis as well: x[..., None]"
    if len(got) == len(sizes) - 1 and (last is None or got[-1:] == [last]):
        return "; layers see the batch: add the leading axis, x[None]"
    return ""


def refuse_bytes(layer: Any, x: Any) -> None:
    """Raises for uint8, the dtype of images as files have them: 0..255 would be multiplied by weights unscaled.

    Raises:
      InputError: the record, and how to scale.
    """
    if getattr(x, "dtype", None) == np.uint8:
        raise InputError(
            f"{short(layer)}: expected x of floats, got uint8{list(np.shape(x))}; scale it first, in augment or where "
            "the data are loaded: x.astype(np.float32) / 255 (or without / 255, where it is no image)"
        )


def check_range(where: str, what: str, values: Any, low: float, high: float) -> None:
    """Raises where a value is outside low..high, NaN or infinite, as far as that can be known: traced values pass.

    Raises:
      InputError: the first such value, its index and the range; values that are complex, traced or not.
    """
    if np.iscomplexobj(values):
        raise InputError(f"{where}: {what}: expected real numbers, got {values.dtype}")
    if isinstance(values, Tracer):
        return
    values = np.asarray(values)
    outside = ~((values >= low) & (values <= high))
    if values.dtype.kind not in "biu":
        outside |= np.isinf(values)
    if outside.any():
        index = tuple(int(i) for i in np.argwhere(outside)[0])
        at = f" at index {index[0] if len(index) == 1 else index}" if index else ""
        raise InputError(f"{where}: {what} {values[index]}{at} is outside {low}..{high}")


def certainly(compare: Callable[[], bool]) -> bool:
    """Whether a comparison of sizes holds; False where `jax.export` leaves a size free, so that it may or may not."""
    try:
        return bool(compare())
    except jax.errors.InconclusiveDimensionOperation:
        return False
