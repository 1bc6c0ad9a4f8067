"""The bytes of a file, decompressed under a size limit, and one error for everything that is wrong with them."""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from fdl.errors import InputError

LARGEST_FILE = 2**30
"""Bytes of a file (and, by default, of what it unpacks to) beyond which it is refused unread."""

_XZ_MEMORY = 2**27
_DAMAGE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, struct.error, zlib.error)
_DAMAGE += (lzma.LZMAError, zipfile.BadZipFile, NotImplementedError)


class Source(NamedTuple):
    """A file in memory, perhaps gzip or xz: `packed` is what lies on the disk."""

    name: str
    packed: bytes

    def head(self, count: int) -> bytes:
        """The first `count` bytes, fewer where there are fewer."""
        return self._unpack(count)[0][:count]

    def read(self, limit: int = LARGEST_FILE) -> bytes:
        """All bytes, of which there may be at most `limit`."""
        data, complete = self._unpack(limit + 1)
        if len(data) > limit:
            raise self.error(f"at most {limit} bytes", "more")
        if not complete:
            raise self.error("a complete compressed file", "one that stops before its end")
        return data

    def error(self, expected: str, got: str) -> InputError:
        """The error to raise: which file, what was expected, what came."""
        return InputError(f"{self.name}: expected {expected}, got {got}")

    def _unpack(self, limit: int) -> tuple[bytes, bool]:
        if self.packed.startswith(b"\x1f\x8b"):
            unpacker: Any = zlib.decompressobj(31)
        elif self.packed.startswith(b"\xfd7zXZ\0"):
            unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
        else:
            return self.packed[:limit], True
        with damage(self.name, "a gzip or xz file"):
            data = unpacker.decompress(self.packed, limit)
        return data, unpacker.eof and not unpacker.unused_data


def open_source(source: str | PathLike[str] | bytes | Source, what: str) -> Source:
    """Read a file whole.

    Args:
      source: its path; or its bytes, which errors call "<bytes>"; or a `Source`, returned as it is.
      what: what the file should be, for the errors.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, bytes):
        return Source("<bytes>", source)
    path = Path(source)
    if not path.is_file():
        raise InputError(f"{path}: expected {what}, got {'a folder' if path.is_dir() else 'no such file'}")
    if path.stat().st_size > LARGEST_FILE:
        raise InputError(f"{path}: expected {what} of at most {LARGEST_FILE} bytes, got {path.stat().st_size}")
    try:
        return Source(str(path), path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: expected {what} that can be read, got {error}") from None


@contextmanager
def damage(name: str, what: str) -> Iterator[None]:
    """Turn what parsing a damaged file raises into one `InputError`; for the parts where any byte may be wrong."""
    try:
        yield
    except InputError:
        raise
    except MemoryError:
        raise InputError(f"{name}: expected {what} that fits into memory, got more than that") from None
    except _DAMAGE as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{name}: expected {what}, got a damaged one ({reason[:200]})") from None
