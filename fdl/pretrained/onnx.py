"""The weights inside an ONNX file: its initialisers by name. The graph is not read."""

from __future__ import annotations

import math
import os
from typing import Any

import ml_dtypes
import numpy as np

from fdl.data.formats.source import damage, open_source
from fdl.pretrained.protobuf import message, varint

_DTYPES = {1: np.float32, 2: np.uint8, 3: np.int8, 5: np.int16, 6: np.int32, 7: np.int64, 9: np.bool_, 10: np.float16}
_DTYPES |= {11: np.float64, 12: np.uint32, 13: np.uint64, 16: ml_dtypes.bfloat16}


def read_onnx(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The initialisers of an ONNX model that are stored as raw bytes, which is what PyTorch's export does.

    Raises:
      InputError: a damaged file, or weights in other files beside it.
    """
    source = open_source(path, "an ONNX file")
    with damage(source.name, "an ONNX file"):
        (graph,) = message(source.packed)[7]
        return dict(_tensor(message(data)) for data in message(graph).get(5, []))


def _tensor(fields: dict[int, list[Any]]) -> tuple[str, np.ndarray]:
    """TensorProto: 1 dims, 2 data type, 8 name, 9 raw data, 14 where the data are (1: elsewhere)."""
    name, dtype = fields[8][-1].decode(), np.dtype(_DTYPES[fields[2][-1]])
    shape = [size for dims in fields.get(1, []) for size in ([dims] if isinstance(dims, int) else _packed(dims))]
    data = fields.get(9, [b""])[-1]
    if fields.get(14, [0])[-1] or len(data) != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name[:80]!r}, {dtype}{shape}, is not stored as its bytes")
    return name, np.frombuffer(data, dtype).reshape(shape)


def _packed(data: bytes) -> list[int]:
    numbers, at = [], 0
    while at < len(data):
        number, at = varint(data, at)
        numbers.append(number)
    return numbers
