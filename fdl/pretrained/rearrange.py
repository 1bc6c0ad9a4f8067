"""Axes by name: `"(h k) d -> d h k"` splits, transposes and merges the axes of an array, and back."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

import numpy as np

from fdl.errors import InputError

Axes = tuple[tuple[str, ...], ...]  # the names in each axis, of which most have one


@dataclass(frozen=True)
class Rearrange:
    """Another order, division or union of the axes of an array; it moves values and changes none.

    Args:
      pattern: "axes before -> axes after". A word is an axis, words in brackets are one axis of that many, the last
        name running fastest; "1" is an axis of size 1, "h=7" one called h of size 7. A name that only stands on the
        left is summed over; on the way back the first entry then gets everything and the others get 0. "" is no change.
    Call: array, its shape afterwards -> the array. `inverse(array)` -> what it was.

    The sizes inside brackets follow from the shapes on both sides. On the way back only the shape afterwards is known:
    brackets on the right then need sizes ("h=7").

    Raises:
      InputError: an invalid pattern. ValueError: an array that does not fit.

    Notation as in einops (Rogozhnikov, 2022), without its ellipsis.

    >>> Rearrange("(h k) d -> d h k")(np.arange(8).reshape(4, 2), (2, 2, 2)).tolist()
    [[[0, 2], [4, 6]], [[1, 3], [5, 7]]]
    >>> Rearrange("(h k) d -> d h k").inverse(np.zeros((5, 3, 2))).shape
    (6, 5)
    >>> Rearrange("s d -> d").inverse(np.array([1, 2]), leading=2).tolist()
    [[1, 2], [0, 0]]
    """

    pattern: str

    def __post_init__(self) -> None:
        if self.pattern:
            _parsed(self.pattern)

    def __call__(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        if not self.pattern:
            if array.shape != shape:
                raise ValueError(f"no change from {list(array.shape)} to {list(shape)}")
            return array
        before, after, sizes = _parsed(self.pattern)
        sizes = _solved(sizes, ((before, array.shape), (after, shape)))
        summed = [name for name in _flat(before) if name not in _flat(after)]
        order = [_flat(before).index(name) for name in (*summed, *_flat(after))]
        moved = array.reshape([sizes[name] for name in _flat(before)]).transpose(order)
        return (
            moved.sum(tuple(range(len(summed))), dtype=array.dtype).reshape(shape) if summed else moved.reshape(shape)
        )

    def inverse(self, array: np.ndarray, leading: int | None = None) -> np.ndarray:
        """The array whose `Rearrange` this is; `leading` is the size of its first axis, where that is known."""
        if not self.pattern:
            return array
        before, after, sizes = _parsed(self.pattern)
        if leading is not None:
            sizes = _solved(sizes, ((before[:1], (leading,)),))
        sizes = _solved(sizes, ((after, array.shape),))
        summed = [name for name in _flat(before) if name not in _flat(after)]
        if any(name not in sizes for name in _flat(before)):
            raise ValueError(f"{self.pattern!r} cannot be undone: not all sizes are known")
        flat = array.reshape([sizes[name] for name in _flat(after)])
        if summed:
            whole = np.zeros((*(sizes[name] for name in summed), *flat.shape), array.dtype)
            whole[(0,) * len(summed)] = flat
            flat = whole
        order = [(*summed, *_flat(after)).index(name) for name in _flat(before)]
        return flat.transpose(order).reshape([math.prod(sizes[name] for name in axis) for axis in before])


def _flat(axes: Axes) -> tuple[str, ...]:
    return tuple(name for axis in axes for name in axis)


def _parsed(pattern: str) -> tuple[Axes, Axes, dict[str, int]]:
    """Both sides, and the sizes that are written in them."""
    sizes: dict[str, int] = {}
    sides = pattern.split("->")
    if len(sides) != 2:
        raise InputError(f"Rearrange: expected 'axes -> axes', got {pattern!r}")
    before, after = (_side(side, pattern, sizes) for side in sides)
    names, kept = _flat(before), _flat(after)
    if len(set(names)) != len(names) or len(set(kept)) != len(kept) or not set(kept) <= set(names):
        raise InputError(f"Rearrange: {pattern!r}: every name stands once on the left and at most once on the right")
    return before, after, sizes


def _side(text: str, pattern: str, sizes: dict[str, int]) -> Axes:
    axes: list[tuple[str, ...]] = []
    inside: list[str] | None = None
    for word in re.findall(r"[()]|[^()\s]+", text):
        if word in "()" and (inside is None) == (word == ")"):
            raise InputError(f"Rearrange: brackets that do not match in {pattern!r}")
        name, _, size = word.partition("=")
        if word == "(":
            inside = []
        elif word == ")":
            axes, inside = [*axes, tuple(inside or ())], None
        elif word == "1":
            axes += [()] if inside is None else []
        elif not name.isidentifier() or (size and not size.isdigit()):
            raise InputError(f"Rearrange: expected name, name=size or 1, got {word!r} in {pattern!r}")
        elif inside is not None:
            inside.append(name)
        else:
            axes.append((name,))
        if size:
            sizes[name] = int(size)
    if inside is not None:
        raise InputError(f"Rearrange: brackets that do not match in {pattern!r}")
    return tuple(axes)


def _solved(known: dict[str, int], sides: tuple[tuple[Axes, tuple[int, ...]], ...]) -> dict[str, int]:
    """The size of every name: axes of one name first, then what is left over in brackets."""
    sizes = dict(known)
    for axes, shape in sides:
        if len(axes) != len(shape):
            raise ValueError(f"expected {len(axes)} axes, got {list(shape)}")
    pairs = [(axis, size) for axes, shape in sides for axis, size in zip(axes, shape, strict=True)]
    for axis, size in sorted(pairs, key=lambda pair: len(pair[0])):
        unknown = [name for name in axis if name not in sizes]
        rest = math.prod(sizes[name] for name in axis if name in sizes)
        if len(unknown) == 1 and rest and size % rest == 0:
            sizes[unknown[0]] = size // rest
    for axis, size in pairs:
        if math.prod(sizes.get(name, 1) for name in axis) != size:
            raise ValueError(f"({' '.join(axis)}) is {size}, which its parts do not give")
    return sizes
