"""What a pickle may call: makers of plain containers, numpy arrays and records, which check their arguments."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

Known = Mapping[str, Callable[..., Any]]
"""What a pickle may name, "module name" -> a function of the arguments it is called with.

What the function returns is the value; where that has a method `build(state)`, the state a pickle sets is given to it
and its result is the value. Such a function sees hostile arguments: it must check them, and must not recurse.
"""


class Record:
    """An object of a class we do not have, as data: its arguments and its state."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

    def build(self, state: Any) -> Record:
        self.state = state
        return self


def _dict(*args: Any) -> dict:
    """OrderedDict() or OrderedDict(pairs), defaultdict(factory) or dict."""
    pairs = args[0] if args and isinstance(args[0], list) else []
    if any(not isinstance(pair, list | tuple) or len(pair) != 2 for pair in pairs):
        raise ValueError("an ordered dict of something other than pairs")
    return {plain_key(key): value for key, value in pairs}


def _encoded(text: Any = "", encoding: Any = "latin1") -> bytes:
    """How Python 3 writes bytes into protocols 0 to 2."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError("text in an encoding other than latin-1")
    return text.encode("latin1")


def _bare(kind: Callable[..., Any], *_: Any) -> Any:
    """How protocols 0 and 1 make an object before its state is set."""
    return kind()


def plain_key(key: Any) -> Any:
    """Only keys whose hash looks at nothing else: nested tuples can take for ever, or the whole of the C stack."""
    if not isinstance(key, str | bytes | int | float | type(None)):
        raise ValueError(f"a {type(key).__name__} as key of a dict")
    return key


_CODE = re.compile(r"[<>=|]?(b1|[iu][1248]|f[248]|c8|c16)\Z")


class Dtype:
    """A dtype: its code now, its byte order with the state."""

    def __init__(self, code: Any = None, *_: Any) -> None:
        if not isinstance(code, str) or not _CODE.match(code):  # never repr a value: it can nest without end
            raise ValueError(
                f"dtype {code[:40] if isinstance(code, str) else ''!r}: only booleans and numbers are read"
            )
        self.dtype = np.dtype(code)

    def build(self, state: Any) -> Dtype:
        order = state[1]
        if order not in ("<", ">", "=", "|"):
            raise ValueError("a dtype without byte order")
        self.dtype = self.dtype.newbyteorder(order)
        return self


class EmptyArray:
    """What `_reconstruct` returns: an array that waits for its state."""

    def build(self, state: Any) -> np.ndarray:
        _, shape, dtype, fortran, data = state
        return _array(data, dtype, shape, "F" if fortran else "C")


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C", *_: Any) -> np.ndarray:
    return _array(data, dtype, shape, "F" if order == "F" else "C")


def _scalar(dtype: Any, data: Any) -> Any:
    return _array(data, dtype, (), "C")[()]


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    """An array of a copy of `data`, whose size must be what dtype and shape say."""
    if isinstance(data, str):  # of Python 2
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray) or not isinstance(dtype, Dtype) or not isinstance(shape, tuple):
        raise ValueError("an array of something other than bytes, a dtype and a shape")
    if len(shape) > 32 or any(type(size) is not int or not 0 <= size < 2**31 for size in shape):
        raise ValueError("an array of an impossible shape")
    if math.prod(shape) * dtype.dtype.itemsize != len(data):
        raise ValueError(f"an array {dtype.dtype}{list(shape)} of {len(data)} bytes")
    return np.frombuffer(data, dtype.dtype).reshape(shape, order=order).astype(dtype.dtype.newbyteorder("="))


NUMPY: dict[str, Callable[..., Any]] = {"numpy dtype": Dtype, "numpy ndarray": lambda *_: EmptyArray()}
for _module in ("numpy.core", "numpy._core"):
    NUMPY[f"{_module}.multiarray _reconstruct"] = lambda *_: EmptyArray()
    NUMPY[f"{_module}.multiarray scalar"] = _scalar
    NUMPY[f"{_module}.numeric _frombuffer"] = _from_buffer
CONTAINERS: Known = {
    "collections OrderedDict": _dict,
    "collections defaultdict": _dict,
    "__builtin__ list": lambda: [],
    "builtins list": lambda: [],
    "_codecs encode": _encoded,
    "copy_reg _reconstructor": _bare,
    "__builtin__ object": Record,
    "__builtin__ bytes": lambda: b"",
}
SPARSE: Known = dict.fromkeys(
    ("scipy.sparse.csr csr_matrix", "scipy.sparse._csr csr_matrix", "scipy.sparse._csr csr_array"), Record
)
KNOWN: Known = {**CONTAINERS, **NUMPY, **SPARSE}
