"""Plain text."""

from __future__ import annotations

import codecs
import re
from collections.abc import Sequence
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from fdl.data.conversion import host_array
from fdl.data.formats.source import Source, open_source
from fdl.errors import InputError, did_you_mean
from fdl.file_kinds import HEAD

_CONTROL = re.compile(r"[\0-\x08\x0e-\x1a\x1c-\x1f]")
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")


class Text(NamedTuple):
    name: str
    """Of the file, for errors."""
    text: str


def read_text(source: str | PathLike[str] | bytes | Source, what: str = "text") -> Text:
    """A text file, perhaps packed: UTF-8, or UTF-16 with a byte order mark; line ends become "\\n".

    Args:
      source: the file.
      what: what the file should be, for the errors.

    Raises:
      InputError: another encoding, with the place; a file that is no text, with its format where it is known.

    >>> read_text("naïve\\r\\n".encode()).text
    'naïve\\n'
    """
    name, text = read_as_written(source, what)
    return Text(name, text.replace("\r\n", "\n").replace("\r", "\n"))


def read_as_written(source: str | PathLike[str] | bytes | Source, what: str) -> Text:
    """As `read_text`, with the line ends of the file."""
    source = open_source(source, what)
    data = source.read()
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        if source.kind():
            raise source.other(f"{what} in UTF-8") from None
        got = f"byte {data[error.start]:#04x} at {error.start}"
        raise source.error(f"{what} in UTF-8", f"{got} (Latin-1 or Windows-1252? save it as UTF-8)") from None
    if _CONTROL.search(text[:HEAD]) and source.kind():
        raise source.other(f"{what} in UTF-8")
    if "\0" in text[:HEAD]:
        raise source.error(f"{what} in UTF-8", "zero bytes in it (UTF-16 without its mark? save it as UTF-8)")
    return Text(source.name, text.lstrip("\ufeff"))


def read_integers(
    source: str | PathLike[str] | bytes | Source, what: str, separator: str | None = None
) -> list[list[int]]:
    """The integers on each line of a text, without the lines that are blank.

    Args:
      source: the file.
      what: what the file should be, for the errors.
      separator: between the integers; None = blanks.

    Raises:
      InputError: as `read_text`; no integers, or anything else among them, with its line.

    >>> read_integers(b"1 -2\\n\\n3\\n", "a file of integers")
    [[1, -2], [3]]
    """
    source = open_source(source, what)
    rows = []
    for number, line in enumerate(read_text(source, what).text.split("\n"), 1):
        words = [word.strip() for word in line.split(separator)] if line.strip() else []
        odd = next((word for word in words if not _INTEGER.fullmatch(word)), None)
        if odd is not None:
            if source.kind():
                raise source.other(what)
            raise source.error(f"{what}, integers on every line", f"{odd[:40]!r} on line {number}")
        if words:
            rows.append([int(word) for word in words])
    if not rows:
        raise source.other(what)
    return rows


def vocabulary(text: str) -> str:
    """The different characters of a text, sorted: token i stands for character i."""
    return "".join(sorted(set(text)))


def encode(text: str, characters: str) -> np.ndarray:
    """The characters of a text as int32 [n], numbered as in `characters`.

    >>> encode("abba", "ab").tolist()
    [0, 1, 1, 0]
    """
    codes = {character: code for code, character in enumerate(characters)}
    unknown = next((character for character in set(text) if character not in codes), None)
    if unknown is not None:
        raise InputError(f"encode: character {unknown!r} is not in the vocabulary{did_you_mean(unknown, characters)}")
    return np.asarray([codes[character] for character in text], np.int32)


def pad(rows: Sequence[Any], length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Arrays of different lengths as one, with zeros behind: [n, length, ...] and the lengths, int32 [n].

    Args:
      rows: [t, ...], equal but for t: whatever `Arrays` takes, as it takes it.
      length: None = that of the longest row.

    Raises:
      InputError: no rows; a row that is longer than `length`, has no axis, or other axes than the first.

    >>> pad([[1, 2], [3]])
    (array([[1, 2],
           [3, 0]], dtype=int32), array([2, 1], dtype=int32))
    """
    arrays = [host_array(row, f"row {number}") for number, row in enumerate(rows)]
    if not arrays:
        raise InputError("pad: expected at least one row, got no rows")
    for number, array in enumerate(arrays):
        if not array.ndim or array.shape[1:] != arrays[0].shape[1:]:
            raise InputError(
                f"pad: expected rows [t{''.join(f', {n}' for n in arrays[0].shape[1:])}], "
                f"got {list(array.shape)} in row {number}"
            )
    lengths = np.asarray([len(array) for array in arrays], np.int32)
    longest = int(lengths.max()) if length is None else length
    if longest < lengths.max():
        raise InputError(f"pad: expected rows of at most {longest}, got one of {lengths.max()}")
    filled = [array.dtype for array in arrays if array.size]  # an empty list is of floats, whatever the others are
    padded = np.zeros((len(arrays), longest, *arrays[0].shape[1:]), np.result_type(*filled) if filled else np.float32)
    for number, array in enumerate(arrays):
        padded[number, : len(array)] = array
    return padded, lengths
