"""What a file is, by its first bytes: real heads of each format, and none of them taken for another."""

from __future__ import annotations

import gzip
import io
import json
import lzma
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fdl.file_kinds import file_kind


def zipped(*names: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"")
    return file.getvalue()


def tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model_config.yaml"))
    return file.getvalue()


def numpy(archive: bool) -> bytes:
    file = io.BytesIO()
    (np.savez if archive else np.save)(file, np.zeros(2))
    return file.getvalue()


MATLAB = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM"
HEADER = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()

KINDS: dict[str, bytes] = {
    "an empty file": b"",
    "zeros alone": bytes(100),
    "Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "git-annex": b"/annex/objects/SHA256E-s1--0.bin\n",
    "an HTML page": b"\n<!DOCTYPE html>\n<html><body>404</body></html>",
    "an XML document": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
    "a JSON document": b'{"error": "Repository not found"}',
    "text that starts with 'Entry not found'": b"Entry not found",
    "text that starts with 'ORC, a": b"ORC, a fantasy novel",
    "text that starts with 'h\xe9": "h\xe9".encode() * 3000,
    "text that starts with 'id,": "id,name".encode("utf-16"),
    "GGUF": b"GGUF\x03\0\0\0" + bytes(40),
    "an HDF5 file": b"\x89HDF\r\n\x1a\n\0\0\0\0" + bytes(40),
    "a MATLAB 7.3 file": MATLAB + bytes(384) + b"\x89HDF\r\n\x1a\n",
    "a Parquet file": b"PAR1\x15\x04\x15\x10",
    "an Arrow file": b"ARROW1\0\0",
    "an .npy file": numpy(archive=False),
    "an .npz archive": numpy(archive=True),
    "a Keras archive": zipped("metadata.json", "config.json", "model.weights.h5"),
    "an archive of PyTorch": zipped("model/data.pkl", "model/data/0"),
    "a TorchScript archive": zipped("model/data.pkl", "model/code/__torch__.py"),
    "an Office document": zipped("[Content_Types].xml", "xl/workbook.xml"),
    "a zip archive (": zipped("weights.bin"),
    "cut off or damaged": zipped("model/data.pkl")[:-10],
    "a safetensors file": struct.pack("<Q", len(HEADER)) + HEADER + bytes(4),
    "a pickle": pickle.dumps({"w": 1.0}),
    "a gzip file": gzip.compress(b"x" * 100),
    "an xz file": lzma.compress(b"x" * 100),
    "a tar archive": tar(),
    "an ONNX file": b"\x08\x08\x12\x07pytorch\x1a\x052.1.0",
    "a SavedModel of TensorFlow": b"\x08\x01\x12\xa3\x01\n\x05",
    "the index of a TensorFlow checkpoint": b"\0\0\x02\x08\x01" + bytes(40) + struct.pack("<Q", 0xDB4775248B80FB57),
    "a MessagePack file": b"\x81\xa6params\x82\xa4bias\xc7",
    "a PNG image": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    "a JPEG image": b"\xff\xd8\xff\xe0\0\x10JFIF",
    "a WAV file": b"RIFF\x24\0\0\0WAVEfmt ",
    "a file that starts with b'\\x01\\x02": b"\x01\x02\x03\xff" * 10,
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds(tmp_path: Path, name: str) -> None:
    """By the bytes and by the path alike."""
    (tmp_path / "file").write_bytes(KINDS[name])
    assert name in str(file_kind(KINDS[name]))
    assert file_kind(tmp_path / "file") == file_kind(KINDS[name])


def test_any_start_of_a_file_has_a_kind() -> None:
    """Cut after each of its first bytes, every file is still described, and in one line."""
    for data in KINDS.values():
        for size in range(min(len(data), 64)):
            assert "\n" not in str(file_kind(data[:size]))
