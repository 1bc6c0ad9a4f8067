"""The bytes of a file, decompressed under a size limit, and one error for everything that is wrong with them."""

from __future__ import annotations

import bz2
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from os import PathLike
from typing import Any, NamedTuple

from fdl.errors import InputError
from fdl.file_kinds import HEAD, FileKind, file_kind
from fdl.paths import user_path

LARGEST_FILE = 2**30
"""Bytes of a file (and, by default, of what it unpacks to) beyond which it is refused unread."""

_XZ_MEMORY = 2**27
_DAMAGE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, struct.error, zlib.error)
_DAMAGE += (lzma.LZMAError, zipfile.BadZipFile, NotImplementedError)
_PIECE = 2**16
_PACKERS: dict[bytes, tuple[str, Callable[[], Any]]] = {
    b"\x1f\x8b": ("gzip", lambda: zlib.decompressobj(31)),
    b"\xfd7zXZ\0": ("xz", lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)),
    b"BZh": ("bzip2", bz2.BZ2Decompressor),
}
_BZIP2_BLOCKS = (bytes.fromhex("314159265359"), bytes.fromhex("177245385090"))
"""A block of data, or the end of an empty file."""
_POINTERS = (b"version https://git-lfs", b"/annex/objects/")


class Source(NamedTuple):
    """A file in memory, perhaps packed by gzip, xz or bzip2: `packed` is what lies on the disk."""

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

    def kind(self) -> FileKind | None:
        """The format of the unpacked file where it has a known one."""
        kind = file_kind(self.head(HEAD) if _packing(self.packed) else self.packed)
        return None if " that starts with " in kind.name else kind

    def error(self, expected: str, got: str) -> InputError:
        """The error to raise: which file, what was expected, what came."""
        return InputError(f"{self.name}: expected {expected}, got {got}")

    def other(self, expected: str) -> InputError:
        """The error for a file of another format, which it names where it is known."""
        return self.error(expected, str(self.kind() or f"one that starts with {self.head(19)!r}"))

    def _unpack(self, limit: int) -> tuple[bytes, bool]:
        """The first `limit` bytes of all members one after the other, and whether the last one is complete."""
        magic = _packing(self.packed)
        if magic is None:
            return self.packed[:limit], True
        name, unpacker = _PACKERS[magic]
        view, place, parts, room = memoryview(self.packed), 0, [], limit
        while place < len(view) and room:
            if bytes(view[place : place + len(magic)]) != magic:
                if any(view[place:]):  # zeros fill the blocks of a tape
                    raise self.error(f"{name} members alone", f"{len(view) - place} other bytes behind the last one")
                break
            with damage(self.name, f"a {name} file"):
                part, place, complete = _member(unpacker(), view, place, room)
            parts.append(part)
            room -= len(part)
            if not complete:
                return b"".join(parts), False
        return b"".join(parts), True


def _packing(data: bytes) -> bytes | None:
    """The magic number of the packer whose file this is; "BZh" alone may begin a text."""
    magic = next((magic for magic in _PACKERS if data.startswith(magic)), None)
    return None if magic == b"BZh" and data[4:10] not in _BZIP2_BLOCKS else magic


def _member(unpacker: Any, view: memoryview, place: int, room: int) -> tuple[bytes, int, bool]:
    """At most `room` bytes of one member, the place behind it, and whether it is complete.

    Fed in pieces: a file of many small members would be copied whole for each of them.
    """
    parts = []
    while place < len(view) and room and not unpacker.eof:
        piece = view[place : place + _PIECE]
        try:
            parts.append(unpacker.decompress(piece, room))
        except OSError as error:  # of bzip2
            raise ValueError(str(error)) from None
        room -= len(parts[-1])
        place += len(piece) - len(unpacker.unused_data) - len(getattr(unpacker, "unconsumed_tail", b""))
    return b"".join(parts), place, unpacker.eof


def open_source(source: str | PathLike[str] | bytes | Source, what: str) -> Source:
    """Read a file whole.

    Args:
      source: its path, in which `~` is the home folder; or its bytes, which errors call "<bytes>"; or a `Source`,
        returned as it is.
      what: what the file should be, for the errors.
    """
    if isinstance(source, Source):
        return source
    if isinstance(source, bytes | bytearray | memoryview):
        source = Source("<bytes>", bytes(source))
    else:
        source = _from_disk(source, what)
    if source.packed.startswith(_POINTERS):
        raise source.other(what)
    return source


def _from_disk(source: str | PathLike[str], what: str) -> Source:
    if isinstance(source, str) and "\n" in source:
        raise InputError(f"expected the path of {what}, got text of several lines; pass the contents as bytes")
    if hasattr(source, "read"):
        raise InputError(f"expected the path of {what}, or its bytes, got an open file; pass file.read()")
    if isinstance(source, str) and "://" in source:
        raise InputError(f"{source}: expected the path of {what}, got an address; download it first")
    path = user_path(source)
    try:
        if not path.is_file():
            raise InputError(f"{path}: expected {what}, got {_no_file(path)}")
        if path.stat().st_size > LARGEST_FILE:
            raise InputError(f"{path}: expected {what} of at most {LARGEST_FILE} bytes, got {path.stat().st_size}")
        return Source(str(path), path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: expected {what} that can be read, got {error}") from None


def _no_file(path: Any) -> str:
    if path.is_dir():
        return "a folder"
    return "a link to nothing" if path.is_symlink() else "no file" if path.exists() else "no such file"


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
