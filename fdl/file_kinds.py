"""Kinds of files by their first bytes: an error says what a file is, not only what it is not."""

from __future__ import annotations

import codecs
import io
import os
import zipfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

HEAD = 2048
"""Bytes at the start of a file that are looked at."""


class FileKind(NamedTuple):
    """What a file is, and what to do with it where that is known."""

    name: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.advice})" if self.advice else self.name


def file_kind(source: str | os.PathLike[str] | bytes) -> FileKind:
    """The kind of a file, of which only the start, the end and the table of a zip are read.

    Args:
      source: its path; or its bytes, as they lie on the disk.

    Returns:
      The kind; its `str` stands in an error. A file of no known kind is described by its first bytes.

    Raises:
      OSError: the file cannot be read.

    >>> print(file_kind(b"GGUF" + bytes(100)))
    a GGUF file (llama.cpp's format: take the model's safetensors file instead)
    >>> file_kind(b"Entry not found").name
    "text that starts with 'Entry not found'"
    """
    if isinstance(source, bytes):
        return _kind(io.BytesIO(source))
    with Path(source).open("rb") as file:
        return _kind(file)


def _kind(file: BinaryIO) -> FileKind:
    head = file.read(HEAD)
    if not head:
        return FileKind("an empty file", _AGAIN)
    if not head.strip(b"\0"):
        return FileKind("a file whose start is zeros alone", f"an interrupted copy? {_AGAIN}")
    if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
        return _zip(file)
    text = _text(head)
    if text is not None:
        return _text_kind(text)
    for kind, magics in _KINDS.items():
        if any(head.startswith(magic, offset) for offset, magic in magics):
            return kind
    return _protocol(head, file) or FileKind(f"a file that starts with {head[:16]!r}")


def _zip(file: BinaryIO) -> FileKind:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError, LookupError):
        return FileKind("a zip archive that is cut off or damaged", _AGAIN)
    inside = {name.partition("/")[2] for name in names}
    if any(name.startswith("code/") for name in inside):
        return FileKind("a TorchScript archive", "save `model.state_dict()` with torch.save instead")
    if "data.pkl" in inside:
        return FileKind("an archive of PyTorch")
    if names and all(name.endswith(".npy") for name in names):
        return FileKind("an .npz archive of NumPy")
    if "model.weights.h5" in names:
        return FileKind("a Keras archive", f"its weights are the HDF5 file model.weights.h5 in it: {_H5PY}")
    if "[Content_Types].xml" in names:
        return FileKind("an Office document", "save a sheet as CSV")
    return FileKind("a zip archive", _UNPACK)


def _text(head: bytes) -> str | None:
    """The first characters of a text, or None for anything else."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return head[: len(head) // 2 * 2].decode("utf-16", "replace")
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut off
    except UnicodeDecodeError:
        return None
    return None if any(character < " " and character not in "\t\n\r\f\v\x1b" for character in text) else text


def _text_kind(text: str) -> FileKind:
    start = text.lstrip("\ufeff \t\r\n")
    for kind, prefixes in _TEXTS.items():
        if start.lower().startswith(prefixes):
            return kind
    return FileKind(f"text that starts with {start[:40]!r}")


def _protocol(head: bytes, file: BinaryIO) -> FileKind | None:
    """Formats without a magic number at their start."""
    if head[4:8] == b"\0\0\0\0" and head[8:9] == b"{":
        return FileKind("a safetensors file")
    if head[:3] == b"\x08\x01\x12":
        return FileKind("a SavedModel of TensorFlow", "its arrays are in the checkpoint variables/variables beside it")
    if head[0] == 8 and head[1:2] < b"\x20" and head[2:3] in (b"\x12", b":", b"B"):
        return FileKind("an ONNX file")
    if 0x81 <= head[0] <= 0x8F and b"\xa1" <= head[1:2] <= b"\xbf":  # a small dict whose first key is a short text
        return FileKind("a MessagePack file", "of Flax? flax.serialization.msgpack_restore gives its arrays")
    file.seek(-min(8, len(head)), os.SEEK_END)
    if file.read() == b"\x57\xfb\x80\x8b\x24\x75\x47\xdb":
        return FileKind("the index of a TensorFlow checkpoint", "its arrays are in the .data file beside it")
    return None


_AGAIN = "copy or download it again"
_H5PY = "read it with h5py and pass its arrays"
_UNPACK = "unpack it and pass the file inside"
_PAGE = "an error or login page saved under this name? download it again"
_PANDAS = "read it with pandas and pass its columns"
_WAV = "convert it to WAV"

_TEXTS = {
    FileKind("a Git LFS pointer", "`git lfs pull` fetches the file it stands for"): "version https://git-lfs",
    FileKind("a git-annex pointer", "`git annex get` fetches the file it stands for"): "/annex/objects/",
    FileKind("an HTML page", _PAGE): ("<!doctype html", "<html", "<head"),
    FileKind("an XML document", _PAGE): "<?xml",
    FileKind("a JSON document"): ('{"', "{\n", "{ ", "{}", "[{", '["', "[\n"),
    FileKind("a PDF document"): "%pdf-",
}

_KINDS: dict[FileKind, list[tuple[int, bytes]]] = {
    FileKind("a GGUF file", "llama.cpp's format: take the model's safetensors file instead"): [
        *((0, magic) for magic in (b"GGUF", b"ggml", b"lmgg", b"fmgg", b"tjgg"))
    ],
    FileKind("a MATLAB 7.3 file, which is HDF5", f"save it with -v7, or {_H5PY}"): [(0, b"MATLAB 7.3 MAT-file")],
    FileKind("a MATLAB 5 file"): [(0, b"MATLAB 5.0 MAT-file")],
    FileKind("an HDF5 file", f"Keras's .h5 is one too: {_H5PY}"): [
        *((offset, b"\x89HDF\r\n\x1a\n") for offset in (0, 512, 1024))
    ],
    FileKind("an .npy file of NumPy"): [(0, b"\x93NUMPY")],
    FileKind("an archive of PyTorch"): [(0, b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.")],
    FileKind("a pickle"): [(0, bytes([0x80, protocol])) for protocol in (2, 3, 4, 5)],
    FileKind("a TensorFlow Lite file"): [(4, b"TFL3")],
    FileKind("a Parquet file", _PANDAS): [(0, b"PAR1")],
    FileKind("an Arrow file", _PANDAS): [(0, b"ARROW1"), (0, b"FEA1")],
    FileKind("an ORC file", _PANDAS): [(0, b"ORC")],
    FileKind("an Avro file"): [(0, b"Obj\x01")],
    FileKind("a NetCDF file", "read it with scipy.io.netcdf_file and pass its arrays"): [
        (0, b"CDF\x01"),
        (0, b"CDF\x02"),
    ],
    FileKind("an Office document", "save a sheet as CSV"): [(0, b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")],
    FileKind("an SQLite database"): [(0, b"SQLite format 3\0")],
    FileKind("a PDF document"): [(0, b"%PDF-")],
    FileKind("a gzip file", _UNPACK): [(0, b"\x1f\x8b")],
    FileKind("an xz file", _UNPACK): [(0, b"\xfd7zXZ\0")],
    FileKind("a bzip2 file", _UNPACK): [(0, b"BZh")],
    FileKind("a Zstandard file", _UNPACK): [(0, b"\x28\xb5\x2f\xfd")],
    FileKind("an LZ4 file", _UNPACK): [(0, b"\x04\x22\x4d\x18")],
    FileKind("a 7z archive", _UNPACK): [(0, b"7z\xbc\xaf\x27\x1c")],
    FileKind("a RAR archive", _UNPACK): [(0, b"Rar!\x1a\x07")],
    FileKind("a tar archive", f"a .nemo file is one too: {_UNPACK}"): [(257, b"ustar")],
    FileKind("a PNG image"): [(0, b"\x89PNG\r\n\x1a\n")],
    FileKind("a JPEG image"): [(0, b"\xff\xd8\xff")],
    FileKind("a GIF image"): [(0, b"GIF8")],
    FileKind("a TIFF image"): [(0, b"II*\0"), (0, b"MM\0*")],
    FileKind("a WebP image"): [(8, b"WEBP")],
    FileKind("a BMP image"): [(0, b"BM")],
    FileKind("a DICOM image"): [(128, b"DICM")],
    FileKind("a WAV file"): [(8, b"WAVE")],
    FileKind("a FLAC file", _WAV): [(0, b"fLaC")],
    FileKind("an Ogg file", _WAV): [(0, b"OggS")],
    FileKind("an AIFF file", _WAV): [(8, b"AIFF"), (8, b"AIFC")],
    FileKind("an MP3 file", _WAV): [(0, b"ID3"), (0, b"\xff\xfb")],
    FileKind("an MP4 or HEIC file"): [(4, b"ftyp")],
}
