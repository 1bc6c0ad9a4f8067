"""npz, numpy's zip archive of arrays, of which only arrays of numbers and text are read."""

from __future__ import annotations

import io
import math
import re
import zipfile
from os import PathLike

import numpy as np

from fdl.data.formats.source import LARGEST_FILE, Source, damage, open_source

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_DTYPE = re.compile(r"'descr'\s*:\s*'([<>|=]?(?:[biufc?]\d{0,2}|[SU]\d{1,6}))'")
_ORDER = re.compile(r"'fortran_order'\s*:\s*(True|False)")
_SHAPE = re.compile(r"'shape'\s*:\s*\(([\dL, ]*)\)")


def read_npz(source: str | PathLike[str] | bytes | Source, limit: int = LARGEST_FILE) -> dict[str, np.ndarray]:
    """The arrays of an .npz archive by name.

    What `numpy.load` does, but with an array's size compared with its bytes before it is made, and without Python's
    parser for the headers.

    Args:
      source: the file, in whose path `~` is the home folder; or its bytes.
      limit: bytes that all members may unpack to.

    Raises:
      InputError: no archive, a damaged one, arrays of objects or of records.

    >>> file = io.BytesIO()
    >>> np.savez(file, x=np.ones(2), y=np.array([0, 1]))
    >>> {name: array.tolist() for name, array in read_npz(file.getvalue()).items()}
    {'x': [1.0, 1.0], 'y': [0, 1]}
    """
    source = open_source(source, "an .npz archive")
    arrays = {}
    if not source.packed.startswith(b"PK"):
        raise source.other("an .npz archive")
    with damage(source.name, "an .npz archive"):
        with zipfile.ZipFile(io.BytesIO(source.packed)) as archive:
            members = archive.infolist()
            if members and not any(member.filename.endswith(".npy") for member in members):
                raise source.other("an .npz archive")
            for member in members:
                if member.flag_bits & 1 or member.compress_type not in _METHODS or member.file_size > limit:
                    raise source.error(f"members stored or deflated, of at most {limit} bytes", repr(member.filename))
                limit -= member.file_size
                with archive.open(member) as stream:
                    data = stream.read(member.file_size)
                arrays[member.filename.removesuffix(".npy")] = read_npy(
                    Source(f"{source.name}/{member.filename}", data)
                )
        return arrays


def read_npy(source: str | PathLike[str] | bytes | Source) -> np.ndarray:
    """The array of an .npy file, in the machine's byte order; see `read_npz`.

    Raises:
      InputError: another or a damaged file, an array of objects or of records.

    >>> file = io.BytesIO()
    >>> np.save(file, np.array([1, 2], ">i4"))
    >>> read_npy(file.getvalue())
    array([1, 2], dtype=int32)
    """
    source = open_source(source, "an .npy file")
    data = source.packed
    version = data[6:7]
    if data[:6] != b"\x93NUMPY" or version not in (b"\1", b"\2", b"\3"):
        raise source.other("an .npy file")
    start = 10 if version == b"\1" else 12
    end = start + int.from_bytes(data[8:start], "little")
    header = data[start : min(end, start + 2**16)].decode("latin1")
    dtype, order, shape = (pattern.search(header) for pattern in (_DTYPE, _ORDER, _SHAPE))
    if dtype is None or order is None or shape is None:
        raise source.error("an array of numbers or text", f"the header {header[:80]!r}")
    with damage(source.name, "an .npy file"):
        kind = np.dtype(dtype[1])
        sizes = [int(size.strip(" L")) for size in shape[1].split(",") if size.strip()]
        if math.prod(sizes) * kind.itemsize != len(data) - end:
            raise source.error(f"an array {kind}{sizes}", f"{len(data) - end} bytes")
        array = np.frombuffer(data, kind, offset=end).reshape(sizes, order="F" if order[1] == "True" else "C")
        return array.astype(kind.newbyteorder("="))
