"""Checkpoints of TensorFlow (version 2 of the format, which TensorFlow 1 wrote too), read without TensorFlow.

`NAME.index` is a table of LevelDB: sorted keys, each with the dtype, shape and place of an array as a protocol buffer.
`NAME.data-00000-of-00001` holds the bytes of the arrays.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from fdl.data.formats.source import Source, damage, open_source
from fdl.errors import InputError
from fdl.pretrained.protobuf import message, varint

_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_DTYPES = {1: np.float32, 2: np.float64, 3: np.int32, 4: np.uint8, 5: np.int16, 6: np.int8, 9: np.int64, 10: np.bool_}
_DTYPES |= {14: ml_dtypes.bfloat16, 19: np.float16}


def read_tf_checkpoint(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint by name; arrays of text are left out.

    Args:
      path: as TensorFlow takes it, "model.ckpt" for model.ckpt.index and model.ckpt.data-00000-of-00001.

    Raises:
      InputError: a damaged file, a compressed or partitioned table, more than one shard.
    """
    index = open_source(f"{os.fspath(path)}.index", "the index of a TensorFlow checkpoint")
    data = open_source(f"{os.fspath(path)}.data-00000-of-00001", "the data of a TensorFlow checkpoint").packed
    tensors = {}
    with damage(index.name, "the index of a TensorFlow checkpoint"):
        for key, value in _table(index):
            entry = message(value)
            if not key:  # the header: number of shards, byte order (0 is little)
                if entry.get(1, [1])[-1] != 1 or entry.get(2, [0])[-1] != 0:
                    raise ValueError("more than one shard, or another byte order")
            elif entry.get(1, [0])[-1] in _DTYPES:
                tensors[key.decode()] = _array(entry, data)
    if not tensors:
        raise InputError(f"{Path(path)}: expected a TensorFlow checkpoint with arrays, got none")
    return tensors


def _array(entry: dict[int, list[Any]], data: bytes) -> np.ndarray:
    """BundleEntryProto: 1 dtype, 2 shape, 3 shard, 4 offset, 5 size, 7 slices."""
    dtype = np.dtype(_DTYPES[entry[1][-1]])
    shape = [message(dim).get(1, [0])[-1] for dim in message(entry.get(2, [b""])[-1]).get(2, [])]
    offset, size = (entry.get(number, [0])[-1] for number in (4, 5))
    if entry.get(3, [0])[-1] or entry.get(7) or size != math.prod(shape) * dtype.itemsize or offset + size > len(data):
        raise ValueError(f"an array {dtype}{shape} of {size} bytes at {offset} of {len(data)}")
    return np.frombuffer(data, dtype, math.prod(shape), offset).reshape(shape)


def _table(source: Source) -> Iterator[tuple[bytes, bytes]]:
    """Every key and value of a LevelDB table. Its footer names the index block, whose values name the data blocks."""
    data = source.packed
    if len(data) < _FOOTER or struct.unpack("<Q", data[-8:])[0] != _MAGIC:
        raise source.error("the index of a TensorFlow checkpoint", "something else")
    _, _, at = _handle(data, len(data) - _FOOTER)  # of the meta index
    offset, size, _ = _handle(data, at)
    end = -1
    for _, value in _block(data, offset, size):
        offset, size, _ = _handle(value, 0)
        if offset <= end:  # blocks lie one behind the other; the same one again and again would fill the memory
            raise ValueError("blocks out of order")
        end = offset
        yield from _block(data, offset, size)


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys share a prefix with the key before; behind the entries stand int32 restart points and their number."""
    if offset + size + 5 > len(data) or size < 4 or data[offset + size] != 0:
        raise ValueError("a block that is compressed or cut off")
    (restarts,) = struct.unpack_from("<I", data, offset + size - 4)
    at, end, key = offset, offset + size - 4 - 4 * restarts, b""
    while at < end:
        shared, at = varint(data, at)
        added, at = varint(data, at)
        length, at = varint(data, at)
        if shared > len(key) or at + added + length > end:
            raise ValueError("an entry that does not fit into its block")
        key = key[:shared] + data[at : at + added]
        yield key, data[at + added : at + added + length]
        at += added + length


def _handle(data: bytes, at: int) -> tuple[int, int, int]:
    """Offset and size of a block, and where reading goes on."""
    offset, at = varint(data, at)
    size, at = varint(data, at)
    return offset, size, at
