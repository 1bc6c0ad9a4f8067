"""IDX, the format of MNIST: a big-endian header of sizes and then the numbers."""

from __future__ import annotations

import math
from os import PathLike

import numpy as np

from fdl.data.formats.source import LARGEST_FILE, Source, damage, open_source

_DTYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(source: str | PathLike[str] | bytes | Source) -> np.ndarray:
    """The one array of an IDX file, gzipped or not, in the machine's byte order.

    The header is two zero bytes, a byte for the dtype, a byte for the number of axes and a 32-bit size per axis.
    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database of handwritten digits" (1998).

    Raises:
      InputError: no IDX file, or one with fewer or more bytes than its header says.

    >>> read_idx(bytes([0, 0, 8, 2, 0, 0, 0, 1, 0, 0, 0, 3, 7, 8, 9]))
    array([[7, 8, 9]], dtype=uint8)
    """
    source = open_source(source, "an IDX file")
    start = source.head(4 + 4 * 255)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _DTYPES or not start[3]:
        raise source.other("an IDX file (0, 0, dtype, number of axes)")
    begin = 4 + 4 * start[3]
    if len(start) < begin:
        raise source.error(f"an IDX header of {begin} bytes", f"{len(start)}")
    shape = [int(size) for size in np.frombuffer(start, ">u4", start[3], 4)]
    dtype = np.dtype(_DTYPES[start[2]])
    size = begin + math.prod(shape) * dtype.itemsize
    data = source.read(min(size, LARGEST_FILE))
    if len(data) != size:
        raise source.error(f"an IDX file of shape {shape[:8]}, {size} bytes", f"{len(data)} bytes")
    with damage(source.name, "an IDX file of a shape that numpy knows"):
        return np.frombuffer(data, dtype, offset=begin).reshape(shape).astype(dtype.newbyteorder("="))
