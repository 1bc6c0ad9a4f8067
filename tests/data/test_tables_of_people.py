# pyright: reportArgumentType=false
"""Tables as people have them: each odd file is read to known values, or refused with the line and a hint."""

from __future__ import annotations

import bz2
import gzip
import lzma
from typing import Any

import numpy as np
import pytest

from fdl.data.formats.source import Source
from fdl.data.formats.table import read_table
from fdl.data.formats.text import pad, read_text
from fdl.errors import InputError

NAN = float("nan")
COMMA: dict[str, Any] = {"delimiter": ";", "decimal": ","}

READ: dict[str, tuple[bytes, dict[str, Any], list[Any], list[Any]]] = {
    "a row of missing values": (b"a,b\n1,x\n,\n3,z\n", {}, [1, NAN, 3], ["x", "", "z"]),
    "and as the last": (b"a,b\n1,x\n,\n", {}, [1, NAN], ["x", ""]),
    "and between tabs": (b"a\tb\n\t\n1\tx\n", {"delimiter": "\t"}, [NAN, 1], ["", "x"]),
    "blank lines": (b"\na,b\n\n1,x\n   \n2,y\n\n\n", {}, [1, 2], ["x", "y"]),
    "line breaks in quotes": (b'a,b\n1,"x\n\ny"\n2,"z\r\n"\n', {}, [1, 2], ["x\n\ny", "z\r\n"]),
    "line breaks in the header": (b'"a","b"\r\n1,"x\r\ny"\r\n', {}, [1], ["x\r\ny"]),
    "line ends of old Macs": (b"a,b\r1,x\r2,y\r", {}, [1, 2], ["x", "y"]),
    "a byte order mark": (b'\xef\xbb\xbf"a",b\n1,x\n', {}, [1], ["x"]),
    "UTF-16 of Excel": ("a\tb\r\n1\té\r\n".encode("utf-16"), {"delimiter": "\t"}, [1], ["é"]),
    "numbers in quotes": (b'a,b\n" 1.5 ","x"\n', {}, [1.5], ["x"]),
    "decimal commas": (b"a;b\n-1,5;x\n2;y\n1,5e3;z\n", COMMA, [-1.5, 2, 1500], ["x", "y", "z"]),
    "spellings of no value": (b"a,b\nNaN,x\nN/A,y\nnull,z\n", {}, [NAN] * 3, ["x", "y", "z"]),
    "a column that nobody asked for": (b"c,b,c,a\n9,x,9,1\n", {}, [1], ["x"]),
}


@pytest.mark.parametrize("name", READ)
def test_a_table_is_read(name: str) -> None:
    file, options, numbers, texts = READ[name]
    table = read_table(file, {"a": "float", "b": "text"}, **options)
    np.testing.assert_array_equal(table.columns["a"], np.array(numbers, np.float32))
    assert table.columns["b"].tolist() == texts


REFUSED: dict[str, tuple[bytes, dict[str, Any], str]] = {
    "a decimal comma": (b'a,b\n1,x\n"2,5",y\n', {}, r"column 'a', line 3: .* got '2,5'; a decimal comma\?"),
    "thousands": (b'a,b\n"1,234.5",x\n', {}, "line 2: .*take separators of thousands out"),
    "thousands with decimal commas": (b"a;b\n1.234;x\n", COMMA, "line 2: .* got '1.234'; take separators"),
    "a word for no value that may be a value": (b"a,b\nNone,x\n", {}, "line 2: expected a finite number or one of"),
    "semicolons": (b"a;b\n1;x\n", {}, "look separated by ';': pass delimiter=';'"),
    "a short row behind a long field": (b'a,b\n1,"x\ny"\n2\n', {}, "line 4: expected 2 fields, got 1"),
    "a long row": (b"a,b\n1,x\n2,y,z\n", {}, "line 3: expected 2 fields, got 3"),
    "a header that is there": (b"a,b\n1,x\n", {"header": False}, "the names of the columns in its first line"),
    "a quote without end": (b'a,b\n1,x\n2,"y\n3,z\n', {}, r"line 3: .*a quote that is not closed\?"),
    "another encoding": ("a,b\n1,é\n".encode("latin-1"), {}, "in UTF-8, got byte 0xe9 at 6 .Latin-1"),
    "a Parquet file": (b"PAR1\x15\x04\xff\x10PAR1", {}, "a Parquet file .read it with pandas"),
    "a page": (b"<!DOCTYPE html>\n<title>404</title>\n", {}, "it is an HTML page .*download it again"),
    "a pointer of Git LFS": (b"version https://git-lfs.github.com/spec/v1\n", {}, "Git LFS pointer .*git lfs pull"),
    "a workbook": (b"PK\x03\x04" + b"\xff" * 30, {}, "expected a table in UTF-8, got a zip archive"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_is_refused(name: str) -> None:
    file, options, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        read_table(file, {"a": "float", "b": "text"}, **options)


@pytest.mark.parametrize(
    ("file", "values"), [(b"a\n1\n\n3\n\n\n", [1, NAN, 3]), (b'a\n1\n""\n', [1, NAN]), (b"a\n1\n2\n  \n", [1, 2])]
)
def test_a_blank_line_between_values_of_one_column_is_a_missing_value(file: bytes, values: list[float]) -> None:
    np.testing.assert_array_equal(read_table(file, {"a": "float"}).columns["a"], np.array(values, np.float32))
    if np.isnan(values).any():
        with pytest.raises(InputError, match="line 3: expected an integer .*declare it 'float'"):
            read_table(file, {"a": "int"})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": {}}, "columns: expected a dict such as"),
        ({"columns": {"a": 3}}, "column 'a': expected one of float, int"),
        ({"delimiter": "||"}, "delimiter: expected one character"),
        ({"decimal": ","}, "decimal: .*not the delimiter"),
        ({"source": "a,b\n1,2\n"}, "got text of several lines; pass the contents as bytes"),
        ({"source": "x" * 5000}, "expected a table that can be read, got .*too long"),
    ],
)
def test_arguments_of_a_table(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_table(**{"source": b"a\n1\n", "columns": {"a": "int"}} | arguments)


PACKERS = {"gzip": gzip.compress, "xz": lzma.compress, "bzip2": bz2.compress}


@pytest.mark.parametrize("packer", PACKERS)
def test_files_of_several_members(packer: str) -> None:
    """RFC 1952, 2.2: members follow each other, and are one file; so do xz streams and those of bzip2."""
    pack = PACKERS[packer]
    parts = [b"a\n", *(f"{n}\n".encode() * 100 for n in range(300)), b""]
    file = b"".join(map(pack, parts))
    whole = b"".join(parts)
    assert Source("f", file).read() == whole
    assert Source("f", file + bytes(512)).read() == whole  # a block of a tape
    assert [Source("f", file).head(count) for count in (1, 2, 300)] == [whole[:count] for count in (1, 2, 300)]
    assert Source("f", file).read(len(whole)) == whole
    with pytest.raises(InputError, match=f"at most {len(whole) - 1} bytes, got more"):
        Source("f", file).read(len(whole) - 1)
    with pytest.raises(InputError, match="stops before its end|damaged"):
        Source("f", file[:-5]).read()
    with pytest.raises(InputError, match=f"expected {packer} members alone, got 7 other bytes behind"):
        Source("f", file + b"garbage").read()


def test_text_of_windows_is_read_by_its_mark() -> None:
    for encoding in ("utf-8-sig", "utf-16"):
        assert read_text("é\r\nü".encode(encoding)).text == "é\nü"
    with pytest.raises(InputError, match=r"got zero bytes in it \(UTF-16 without its mark\?"):
        read_table("a,b\n1,2\n".encode("utf-16-le"), {"a": "int"})
    with pytest.raises(InputError, match="expected text in UTF-8, got an HDF5 file"):
        read_text(b"\x89HDF\r\n\x1a\n" + bytes(64))


def test_rows_are_padded_to_one_dtype() -> None:
    """A row of floats behind one of integers keeps its fractions; an empty list decides nothing."""
    padded, lengths = pad([[1], [], [0.5, 2]])
    assert padded.tolist() == [[1, 0], [0, 0], [0.5, 2]]
    assert lengths.tolist() == [1, 0, 2]
    assert pad([[], [3]])[0].dtype == np.int32
    with pytest.raises(InputError, match=r"expected rows \[t, 2\], got \[1, 3\] in row 1"):
        pad([np.zeros((2, 2)), np.zeros((1, 3))])
    with pytest.raises(InputError, match="at least one row"):
        pad([])


def test_a_text_that_begins_like_a_packed_file() -> None:
    """Only what a bzip2 file must have behind its first letters makes it one."""
    assert read_text(b"BZhang\n").text == "BZhang\n"
    assert read_table(b"BZh1\n7\n", {"BZh1": "int"}).columns["BZh1"].tolist() == [7]
    with pytest.raises(InputError, match="got it not there; valid: a b"):
        read_table(b'"a\nb"\n1\n', {"c": "int"})
    packed = bz2.compress(b"a\n1\n")
    with pytest.raises(InputError, match="a bzip2 file, got a damaged one"):
        read_table(packed[:20] + bytes(20), {"a": "int"})
