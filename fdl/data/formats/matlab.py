"""MATLAB files of version 5: arrays of numbers, and cell arrays of them."""

from __future__ import annotations

import math
import zlib
from os import PathLike
from typing import Any

import numpy as np

from fdl.data.formats.source import Source, damage, open_source

_STORED = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4", 14: "i8", 15: "u8"}
_MATRIX, _COMPRESSED, _CELL = 14, 15, 1
_MOST_BYTES = 2**28
_DEEPEST = 8


def read_matlab(source: str | PathLike[str] | bytes | Source) -> dict[str, Any]:
    """The variables of a MATLAB 5 file by name (as MATLAB saves with -v6 or -v7).

    A numeric array is a numpy array; a cell array is a list, in MATLAB's order (columns first).

    Raises:
      InputError: a damaged file; version 7.3 (which is HDF5); text, structs, sparse or complex arrays, objects.

    Source: The MathWorks, "MAT-file format", version 5.
    scipy: `io.loadmat`, whose cell arrays are numpy arrays of objects.
    """
    source = open_source(source, "a MATLAB file")
    data = source.read()
    if data[126:128] not in (b"IM", b"MI") or len(data) < 128:
        raise source.error("a MATLAB file of version 5 (saved with -v7)", f"one that starts with {data[:19]!r}")
    with damage(source.name, "a MATLAB file"):
        return _Reader("<" if data[126:128] == b"IM" else ">").variables(data)


class _Reader:
    def __init__(self, order: str) -> None:
        self.order = order
        self.room = _MOST_BYTES

    def variables(self, data: bytes) -> dict[str, Any]:
        found: dict[str, Any] = {}
        place = 128
        while place < len(data):
            kind, body, place = self.element(data, place)
            if kind == _COMPRESSED:
                kind, body, _ = self.element(self.unpacked(body), 0)
            if kind != _MATRIX:
                raise ValueError(f"an element of type {kind} instead of an array")
            name, value = self.matrix(body, 0)
            found[name] = value
        return found

    def unpacked(self, body: bytes) -> bytes:
        unpacker = zlib.decompressobj()
        data = unpacker.decompress(body, self.room + 1)
        self.room -= len(data)
        if self.room < 0 or not unpacker.eof:
            raise ValueError(f"more than {_MOST_BYTES} bytes" if self.room < 0 else "a compressed array cut off")
        return data

    def integers(self, data: bytes, kind: str) -> list[int]:
        return [int(value) for value in np.frombuffer(data, self.order + kind)]

    def element(self, data: bytes, place: int) -> tuple[int, bytes, int]:
        """Type and bytes of the element at `place`, and where the next one begins."""
        kind, size = self.integers(data[place : place + 8], "u4")
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

    def matrix(self, body: bytes, depth: int) -> tuple[str, Any]:
        """Name and value of an array: flags, dimensions, name, then its cells or its numbers."""
        _, flags, place = self.element(body, 0)
        _, dimensions, place = self.element(body, place)
        _, name, place = self.element(body, place)
        flag = self.integers(flags[:4], "u4")[0]
        shape = self.integers(dimensions, "i4")
        if not 2 <= len(shape) <= 32 or min(shape) < 0:
            raise ValueError(f"an array of {len(shape)} dimensions")
        if flag & 0xFF == _CELL:
            return name.decode("ascii"), self.cells(body[place:], math.prod(shape), depth + 1)
        if flag & 0xFF not in _CLASSES or flag & 0x0800:
            raise ValueError(f"an array of class {flag & 0xFF}{', complex' if flag & 0x0800 else ''}: not supported")
        kind, stored, _ = self.element(body, place)
        values = np.frombuffer(stored, self.order + _STORED[kind])
        if values.size != math.prod(shape):
            raise ValueError(f"an array of {math.prod(shape)} numbers, {values.size} of them there")
        with np.errstate(all="ignore"):
            return name.decode("ascii"), values.astype(_CLASSES[flag & 0xFF]).reshape(shape, order="F")

    def cells(self, body: bytes, count: int, depth: int) -> list[Any]:
        if count > len(body) // 8 or depth > _DEEPEST:
            raise ValueError(f"{count} cells, in {len(body)} bytes, {depth} deep")
        cells = []
        place = 0
        for _ in range(count):
            kind, one, place = self.element(body, place)
            if kind != _MATRIX:
                raise ValueError(f"a cell of type {kind} instead of an array")
            cells.append(self.matrix(one, depth)[1])
        return cells


def read_piano_rolls(source: str | PathLike[str] | bytes | Source) -> dict[str, list[np.ndarray]]:
    """Piano rolls: "traindata", "validdata" and "testdata", each a list of 0/1 arrays uint8 [t, 88].

    Source: N. Boulanger-Lewandowski, Y. Bengio, P. Vincent, "Modeling temporal dependencies in high-dimensional
    sequences" (2012), as MATLAB files by S. Bai, J. Z. Kolter, V. Koltun (2018).

    Raises:
      InputError: a damaged file, other variables, rolls that are not 88 keys wide or not of 0 and 1.
    """
    source = open_source(source, "a MATLAB file of piano rolls")
    variables = read_matlab(source)
    rolls: dict[str, list[np.ndarray]] = {}
    for name in ("traindata", "validdata", "testdata"):
        listed = variables.get(name)
        if not isinstance(listed, list) or not listed:
            raise source.error(f"a cell array {name!r}", f"variables {', '.join(variables)[:80]}")
        rolls[name] = [_roll(source, roll, f"{name}[{number}]") for number, roll in enumerate(listed)]
    return rolls


def _roll(source: Source, roll: Any, where: str) -> np.ndarray:
    shaped = isinstance(roll, np.ndarray) and roll.ndim == 2 and roll.shape[1] == 88 and len(roll) > 0
    if not shaped or not np.isin(roll, (0, 1)).all():
        got = f"other numbers, or {list(roll.shape)}" if isinstance(roll, np.ndarray) else "a cell array"
        raise source.error(f"{where} as 0/1 [t, 88]", got)
    return np.ascontiguousarray(roll, np.uint8)
