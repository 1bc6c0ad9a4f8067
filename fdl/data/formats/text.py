"""Plain text."""

from __future__ import annotations

from os import PathLike

import numpy as np

from fdl.data.formats.source import Source, open_source
from fdl.errors import InputError, did_you_mean


def read_text(source: str | PathLike[str] | bytes | Source, what: str = "text") -> tuple[str, str]:
    """The name of a file (for errors) and its text, which must be UTF-8, perhaps gzipped; line ends become "\\n".

    >>> read_text("naïve\\r\\n".encode())
    ('<bytes>', 'naïve\\n')
    """
    source = open_source(source, what)
    data = source.read()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise source.error(f"{what} in UTF-8", f"byte {data[error.start]:#04x} at {error.start}") from None
    return source.name, text.replace("\r\n", "\n").replace("\r", "\n")


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


def pad(rows: list[np.ndarray], length: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Arrays of different lengths as one, with zeros behind: [n, length, ...] and the lengths, int32 [n].

    >>> pad([np.array([1, 2]), np.array([3])])
    (array([[1, 2],
           [3, 0]]), array([2, 1], dtype=int32))
    """
    lengths = np.asarray([len(row) for row in rows], np.int32)
    longest = int(lengths.max()) if length is None else length
    if longest < lengths.max():
        raise InputError(f"pad: expected rows of at most {longest}, got one of {lengths.max()}")
    padded = np.zeros((len(rows), longest, *rows[0].shape[1:]), rows[0].dtype)
    for number, row in enumerate(rows):
        padded[number, : len(row)] = row
    return padded, lengths
