"""MATLAB files of version 5 (-v6, -v7): arrays, text, cell arrays and structs.

`scipy.io.loadmat` believes the sizes in a file: 184 bytes whose text claims to be long take 640 MB, and the rows of a
sparse array are not looked at. Here each size is compared with the bytes that are there.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection
from os import PathLike
from typing import Any

import numpy as np

from fdl.data.formats.source import Source, damage, open_source
from fdl.errors import did_you_mean

_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_TEXTS = {1: "utf-8", 2: "utf-8", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_UNREAD = {3: "an object", 16: "a function", 17: "an object (table, string, datetime, ...)"}
_MATRIX, _COMPRESSED, _CELL, _STRUCT, _CHAR, _SPARSE = 14, 15, 1, 2, 4, 5
_COMPLEX, _LOGICAL = 0x0800, 0x0200
_MOST_BYTES = 2**28
_DEEPEST = 32


def read_matlab(source: str | PathLike[str] | bytes | Source, names: Collection[str] | None = None) -> dict[str, Any]:
    """The variables of a MATLAB file of version 5 by name, as MATLAB saves with -v6 or -v7.

    A numeric or logical array is a numpy array of its class; a sparse one a `scipy.sparse.csc_matrix`; text is a str,
    of several rows a list of them; a cell array is a list, in MATLAB's order (columns first); a struct is a dict, an
    array of structs a list of them.

    Args:
      source: the file, in whose path `~` is the home folder; or its bytes.
      names: of the variables to read; None = all.

    Raises:
      InputError: a damaged file; version 7.3 (which is HDF5) or 4; objects and functions of MATLAB; names that are not
        there.

    Source: The MathWorks, "MAT-file format", version 5.
    SciPy: `io.loadmat`, whose cell arrays are arrays of objects, its structs records, and its numbers of the type that
    they are stored in.

    >>> import io
    >>> import scipy.io
    >>> file = io.BytesIO()
    >>> scipy.io.savemat(file, {"x": [[1.0, 2.0]], "subject": {"name": "Ada", "ages": [[36]]}})
    >>> read_matlab(file.getvalue())
    {'x': array([[1., 2.]]), 'subject': {'name': 'Ada', 'ages': array([[36]])}}
    """
    source = open_source(source, "a MATLAB file")
    data = source.read()
    if data[126:128] not in (b"IM", b"MI") or data[:10] == b"MATLAB 7.3":
        raise source.other("a MATLAB file of version 5 (saved with -v7; scipy.io.loadmat reads version 4)")
    with damage(source.name, "a MATLAB file"):
        found = _Reader(source, "<" if data[126:128] == b"IM" else ">", names).variables(memoryview(data))
    for name in names or ():
        if name not in found:
            raise source.error(f"a variable {name!r}", f"none of this name{did_you_mean(name, found)}")
    return found


class _Reader:
    def __init__(self, source: Source, order: str, names: Collection[str] | None) -> None:
        self.source = source
        self.order = order
        self.names = names
        self.room = _MOST_BYTES

    def variables(self, data: memoryview) -> dict[str, Any]:
        found: dict[str, Any] = {}
        place = 128
        while place < len(data):
            kind, body, place = self.element(data, place)
            if kind == _COMPRESSED:
                kind, body, _ = self.element(self.unpacked(body), 0)
            if kind != _MATRIX:
                raise ValueError(f"an element of type {kind} instead of an array")
            name = self.name(body)
            if name and (self.names is None or name in self.names):  # what has no name belongs to MATLAB's objects
                if name in found:
                    raise ValueError(f"two variables {name!r}")
                found[name] = self.matrix(body, name, 0)
        return found

    def unpacked(self, body: memoryview) -> memoryview:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(body, self.room + 1)
        self.room -= len(data)
        if self.room < 0 or not unpacker.eof:
            raise ValueError(f"more than {_MOST_BYTES} bytes" if self.room < 0 else "a compressed array cut off")
        return memoryview(data)

    def array(self, data: memoryview, kind: str) -> np.ndarray:
        return np.frombuffer(data, self.order + kind)

    def element(self, data: memoryview, place: int) -> tuple[int, memoryview, int]:
        """Type and bytes of the element at `place`, and where the next one begins."""
        kind, size = map(int, self.array(data[place : place + 8], "u4"))
        start = place + 8
        if kind >> 16:  # a small element: size and type share four bytes, the data are the next four
            kind, size, start = kind & 0xFFFF, kind >> 16, place + 4
            if size > 4:
                raise ValueError(f"a small element of {size} bytes")
        if size > len(data) - start:
            raise ValueError(f"an element of {size} bytes, {len(data) - start} of them there")
        end = start + size
        after = place + 8 if start == place + 4 else end if kind == _COMPRESSED else end + -size % 8
        return kind, data[start:end], after

    def name(self, body: memoryview) -> str:
        """The name of a variable, behind its flags and, but for objects, its dimensions."""
        _, flags, place = self.element(body, 0)
        if int(self.array(flags[:4], "u4")[0]) & 0xFF != 17:
            _, _, place = self.element(body, place)
        return str(self.element(body, place)[1], "ascii")

    def matrix(self, body: memoryview, where: str, depth: int) -> Any:
        """The value of an array: flags, dimensions and a name stand before it."""
        if not len(body):
            return np.zeros((0, 0))  # an empty cell
        _, flags, place = self.element(body, 0)
        flag = int(self.array(flags[:4], "u4")[0])
        kind = flag & 0xFF
        if kind in _UNREAD:
            expected = "arrays, text, cell arrays and structs"
            hint = "save its contents as arrays, or name the variables to read"
            raise self.source.error(expected, f"{where!r}, {_UNREAD[kind]} of MATLAB; {hint}")
        _, dimensions, place = self.element(body, place)
        _, _, place = self.element(body, place)
        shape = self.array(dimensions, "i4").tolist()
        if not 2 <= len(shape) <= 32 or min(shape) < 0:
            raise ValueError(f"{where!r}, an array of {len(shape)} dimensions")
        rest = body[place:]
        if kind == _CELL:
            return self.cells(rest, math.prod(shape), where, depth + 1)
        if kind == _STRUCT:
            return self.structs(rest, math.prod(shape), where, depth + 1)
        if kind == _CHAR:
            return self.text(rest, shape, where)
        if kind == _SPARSE:
            return self.sparse(rest, shape, flag, where)
        if kind not in _CLASSES:
            raise ValueError(f"{where!r}, an array of class {kind}")
        values = self.values(rest, 0, _CLASSES[kind], flag, where)
        if values.size != math.prod(shape):
            raise ValueError(f"{where!r}, an array of {math.prod(shape)} numbers, {values.size} of them there")
        return values.reshape(shape, order="F")

    def values(self, body: memoryview, place: int, dtype: str, flag: int, where: str) -> np.ndarray:
        """The numbers at `place`: real parts, then imaginary ones."""
        parts = []
        for _ in range(2 if flag & _COMPLEX else 1):
            kind, stored, place = self.element(body, place)
            parts.append(self.array(stored, _STORED[kind]))
        with np.errstate(all="ignore"):
            if flag & _LOGICAL:
                dtype = "?"
            if len(parts) == 1:
                return parts[0].astype(dtype)
            if parts[0].size != parts[1].size:
                raise ValueError(f"{where!r}, {parts[0].size} real parts and {parts[1].size} imaginary ones")
            values = np.empty(parts[0].size, np.complex64 if dtype == "f4" else np.complex128)
            values.real, values.imag = parts
            return values

    def text(self, body: memoryview, shape: list[int], where: str) -> str | list[str]:
        kind, stored, _ = self.element(body, 0)
        codec = _TEXTS[kind]
        text = str(stored, codec if codec == "utf-8" else codec + ("-le" if self.order == "<" else "-be"))
        lengths = (len(text), len(text.encode("utf-16-le")) // 2, len(stored) if codec == "utf-8" else 0)
        if len(shape) != 2 or math.prod(shape) not in lengths:
            raise ValueError(f"{where!r}, a text of {math.prod(shape)} characters, {len(text)} of them there")
        if shape[0] == 1 or not text:
            return text
        return ["".join(row) for row in np.array(list(text)).reshape(shape, order="F")]

    def sparse(self, body: memoryview, shape: list[int], flag: int, where: str) -> Any:
        """Row numbers, where the columns begin, and the numbers; there may be room for more of them."""
        import scipy.sparse

        _, rows, place = self.element(body, 0)
        _, starts, place = self.element(body, place)
        starts, rows = self.array(starts, "i4"), self.array(rows, "i4")
        values = self.values(body, place, "f8", flag, where)
        if len(shape) != 2 or len(starts) != shape[1] + 1 or not 0 <= starts[-1] <= min(len(rows), len(values)):
            raise ValueError(f"{where!r}, a sparse array {shape} of {len(starts) - 1} columns, {len(rows)} rows")
        count = int(starts[-1])
        parts = (values[:count], rows[:count].astype(np.int32), starts.astype(np.int32))
        matrix = scipy.sparse.csc_matrix(parts, shape=tuple(shape))
        matrix.check_format(full_check=True)
        return matrix

    def cells(self, body: memoryview, count: int, where: str, depth: int) -> list[Any]:
        if count > len(body) // 8 or depth > _DEEPEST:
            raise ValueError(f"{where!r}, {count} cells in {len(body)} bytes, {depth} deep")
        cells = []
        place = 0
        for number in range(count):
            kind, one, place = self.element(body, place)
            if kind != _MATRIX:
                raise ValueError(f"a cell of type {kind} instead of an array")
            cells.append(self.matrix(one, f"{where}[{number}]", depth))
        return cells

    def structs(self, body: memoryview, count: int, where: str, depth: int) -> Any:
        """The length of a field's name, the names, and then the fields of each struct as cells."""
        _, length, place = self.element(body, 0)
        _, names, place = self.element(body, place)
        width = int(self.array(length, "i4")[0])
        if width <= 0 or len(names) % width:
            raise ValueError(f"{where!r}, names of fields of {width} bytes in {len(names)}")
        fields = [str(names[i : i + width], "ascii").partition("\0")[0] for i in range(0, len(names), width)]
        if len(set(fields)) < len(fields) or (not fields and count > 1):
            raise ValueError(f"{where!r}, {count} structs of the fields {fields}")
        values = iter(self.cells(body[place:], count * len(fields), where, depth))
        found = [{field: next(values) for field in fields} for _ in range(count)]
        return found[0] if count == 1 else found


def read_piano_rolls(source: str | PathLike[str] | bytes | Source) -> dict[str, list[np.ndarray]]:
    """Piano rolls: "traindata", "validdata" and "testdata", each a list of 0/1 arrays uint8 [t, 88].

    Source: N. Boulanger-Lewandowski, Y. Bengio, P. Vincent, "Modeling temporal dependencies in high-dimensional
    sequences" (2012), as MATLAB files by S. Bai, J. Z. Kolter, V. Koltun (2018).

    Raises:
      InputError: a damaged file, other variables, rolls that are not 88 keys wide or not of 0 and 1.
    """
    source = open_source(source, "a MATLAB file of piano rolls")
    names = ("traindata", "validdata", "testdata")
    rolls: dict[str, list[np.ndarray]] = {}
    for name, listed in read_matlab(source, names).items():
        if not isinstance(listed, list) or not listed:
            raise source.error(f"a cell array {name!r}", "another array")
        rolls[name] = [_roll(source, roll, f"{name}[{number}]") for number, roll in enumerate(listed)]
    return {name: rolls[name] for name in names}


def _roll(source: Source, roll: Any, where: str) -> np.ndarray:
    shaped = isinstance(roll, np.ndarray) and roll.ndim == 2 and roll.shape[1] == 88 and len(roll) > 0
    if not shaped or not np.isin(roll, (0, 1)).all():
        got = f"other numbers, or {list(roll.shape)}" if isinstance(roll, np.ndarray) else "another value"
        raise source.error(f"{where} as 0/1 [t, 88]", got)
    return np.ascontiguousarray(roll, np.uint8)
