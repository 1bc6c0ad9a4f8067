"""MATLAB files as SciPy writes them, what SciPy reads in them, and what they must not claim."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse

from fdl.data.formats.matlab import read_matlab
from fdl.errors import InputError


def saved(compressed: bool = False, **variables: Any) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, variables, do_compression=compressed)
    return file.getvalue()


def cells(rows: list[list[Any]]) -> np.ndarray:
    array = np.empty((len(rows), len(rows[0])), object)
    array[:] = rows
    return array


STRUCTS = np.array([[(1.0, "a"), (2.0, "bc")]], [("x", object), ("name", object)])
SPARSE: Any = scipy.sparse.csc_matrix

# name -> what is saved, and what is read
READ: dict[str, tuple[Any, Any]] = {
    **{
        dtype: (np.arange(6).reshape(1, 2, 3).astype(dtype), np.arange(6).reshape(1, 2, 3).astype(dtype))
        for dtype in ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8")
    },
    "complex numbers": (np.array([[1 + 2j, -3j]]), np.array([[1 + 2j, -3j]])),
    "complex singles": (np.array([[1 + 2j]], np.complex64), np.array([[1 + 2j]], np.complex64)),
    "booleans": (np.array([[True, False]]), np.array([[True, False]])),
    "no numbers": (np.zeros((0, 3)), np.zeros((0, 3))),
    "a text": ("na\u00efve", "na\u00efve"),
    "a text beyond 16 bits": ("\U0001f600!", "\U0001f600!"),
    "no text": ("", ""),
    "texts of a length": (np.array(["ab", "cd"]), ["ab", "cd"]),
    "texts": ([["ab", "c"]], ["ab", "c"]),
    "cells": ([[np.eye(2), "a"], [np.zeros((1, 0)), np.array([[7]], np.uint8)]],
              [np.eye(2), np.zeros((1, 0)), "a", np.array([[7]], np.uint8)]),
    "cells in cells": ([[cells([[np.eye(2)]])]], [[np.eye(2)]]),
    "a struct": ({"x": np.eye(2), "inner": {"name": "Ada"}}, {"x": np.eye(2), "inner": {"name": "Ada"}}),
    "structs": (STRUCTS, [{"x": np.array([[1.0]]), "name": "a"}, {"x": np.array([[2.0]]), "name": "bc"}]),
    "a sparse array": (SPARSE([[0, 1.5], [2, 0]]), SPARSE([[0, 1.5], [2, 0]])),
    "a sparse array of complex numbers": (SPARSE([[0, 1j]]), SPARSE([[0, 1j]])),
    "a sparse array without numbers": (SPARSE((2, 3)), SPARSE((2, 3))),
}  # fmt: skip


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", READ)
def test_what_scipy_writes_is_read(name: str, compressed: bool) -> None:
    value, expected = READ[name]
    file = saved(compressed, v=cells(value) if isinstance(value, list) else value, other=1)
    assert_same(read_matlab(file)["v"], expected)
    assert list(read_matlab(file, ["v"])) == ["v"]


def assert_same(got: Any, expected: Any) -> None:
    assert type(got) is type(expected)
    if scipy.sparse.issparse(expected):
        np.testing.assert_array_equal(got.toarray(), expected.toarray(), strict=True)
    elif isinstance(expected, list):
        for one, other in zip(got, expected, strict=True):
            assert_same(one, other)
    elif isinstance(expected, dict):
        assert list(got) == list(expected)
        assert_same(list(got.values()), list(expected.values()))
    else:
        np.testing.assert_array_equal(got, expected, strict=not isinstance(expected, str))


def with_class(file: bytes, number: int) -> bytes:
    """The first array as of another class."""
    place = file.index(struct.pack("<II", 6, 8)) + 8
    return file[:place] + bytes([number]) + file[place + 1 :]


def with_sizes(file: bytes, old: tuple[int, int], new: tuple[int, int]) -> bytes:
    head = struct.pack("<II", 5, 8)
    changed = file.replace(head + struct.pack("<ii", *old), head + struct.pack("<ii", *new), 1)
    assert changed != file
    return changed


def rows_moved() -> bytes:
    """A sparse array of 5 rows whose last number stands in row 1000."""
    file = saved(v=SPARSE(np.eye(5)))
    return file.replace(struct.pack("<5i", *range(5)), struct.pack("<5i", 0, 1, 2, 3, 1000), 1)


REFUSED = {
    "a function": (with_class(saved(v=1), 16), "'v', a function of MATLAB; save its contents as arrays, or name the"),
    "an object": (with_class(saved(v=1), 3), "'v', an object of MATLAB"),
    "a class that there is not": (with_class(saved(v=1), 99), "damaged one .'v', an array of class 99"),
    "more numbers": (with_sizes(saved(v=np.eye(2)), (2, 2), (2**30, 2)), "an array of 2147483648 numbers, 4 of them"),
    "more text": (with_sizes(saved(v="ab"), (1, 2), (2**30, 1)), "a text of 1073741824 characters, 2 of them there"),
    "more text than none": (with_sizes(saved(v=""), (0, 0), (1, 2**30)), "a text of 1073741824 characters, 0 of them"),
    "more cells": (with_sizes(saved(v=cells([[1, 2]])), (1, 2), (2**15, 2**15)), "1073741824 cells in"),
    "more structs": (with_sizes(saved(v={"a": 1}), (1, 1), (2**15, 2**15)), "1073741824 cells in"),
    "more columns": (with_sizes(saved(v=SPARSE(np.eye(5))), (5, 5), (5, 2**30)), "a sparse array"),
    "rows that are not there": (rows_moved(), "damaged one .*indices must be < 5"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_there_is_refused(name: str) -> None:
    file, message = REFUSED[name]
    with pytest.raises(InputError, match=f"<bytes>: .*{message}"):
        read_matlab(file)


def test_variables_that_are_asked_for() -> None:
    file = with_class(saved(odd=1, v=2), 16)
    assert read_matlab(file, ["v"])["v"].tolist() == [[2]]
    with pytest.raises(InputError, match=r"expected a variable 'y', got none of this name"):
        read_matlab(file, ["v", "y"])
