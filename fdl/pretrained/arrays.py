"""Named arrays in memory, of whatever library, as arrays of NumPy that a model can take."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from fdl.data.conversion import numbers
from fdl.errors import InputError


class Lazy(Mapping[str, Any]):
    """Arrays that are read when asked for, so that a model is never in memory twice."""


def named(tensors: Any) -> Mapping[str, Any]:
    """A mapping of mappings as one, names joined by "/"; other mappings as they are.

    Raises:
      InputError: no mapping, or names that are no text.

    >>> sorted(named({"head": {"kernel": 1.0, "bias": 2.0}}))
    ['head/bias', 'head/kernel']
    """
    if isinstance(tensors, Lazy):
        return tensors
    if not isinstance(tensors, Mapping):
        advice = "; pass its state_dict()" if hasattr(tensors, "state_dict") else ""
        got = f"{type(tensors).__name__}{advice}"
        raise InputError(f"expected a path, or arrays by name as `fdl.pretrained.read` gives them, got {got}")
    flat: dict[str, Any] = {}
    for name, value in _flat(tensors):
        if name in flat:
            raise InputError(f"expected arrays of different names, got two called {name[:80]!r}")
        flat[name] = value
    return flat


def as_array(name: str, value: Any) -> np.ndarray:
    """An array of NumPy, in this machine's byte order, of an array of NumPy, JAX or PyTorch, a number or numbers.

    Raises:
      InputError: anything else.

    >>> as_array("w", [[1.0, 2.0]]).shape
    (1, 2)
    """
    where = repr(name[:200])
    if np.ma.is_masked(value):
        raise InputError(f"{where}: expected an array without masked values, got {np.ma.count_masked(value)}")
    return numbers(value, where)


def _flat(tensors: Mapping[Any, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tensors.items():
        if not isinstance(name, str):
            raise InputError(f"expected names of arrays that are text, got {str(name)[:80]!r}")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{name}/")
        else:
            yield f"{path}{name}", value
