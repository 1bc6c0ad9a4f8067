"""Every reader, given a damaged file, returns or raises InputError: nothing else, and not much memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import struct
import tracemalloc
import wave
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fdl.data.formats.cifar import read_cifar
from fdl.data.formats.graph_sets import read_graph_text, read_tudataset
from fdl.data.formats.idx import read_idx
from fdl.data.formats.images import read_image
from fdl.data.formats.matlab import read_matlab, read_piano_rolls
from fdl.data.formats.npz import read_npz
from fdl.data.formats.pickled import read_pickle
from fdl.data.formats.planetoid import PARTS, read_planetoid
from fdl.data.formats.table import read_table
from fdl.data.formats.text import read_text
from fdl.data.formats.wav import read_wav
from fdl.errors import InputError
from tests.data.mutation import damaged, planetoid_files

IDX = bytes([0, 0, 8, 2, 0, 0, 0, 3, 0, 0, 0, 4, *range(12)])


def matlab_file(compressed: bool) -> bytes:
    rolls = np.empty((1, 2), object)
    rolls[0, 0], rolls[0, 1] = np.eye(3, 88, dtype=np.uint8), np.zeros((2, 88))
    file = io.BytesIO()
    names = ("traindata", "validdata", "testdata")
    scipy.io.savemat(file, dict.fromkeys(names, rolls), do_compression=compressed)
    return file.getvalue()


def npz_file(save: Callable[..., None]) -> bytes:
    file = io.BytesIO()
    save(file, X=np.arange(6.0).reshape(2, 3), y=np.array([0, 1]), names=np.array(["a", "bc"]))
    return file.getvalue()


def wav_file() -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(8000)
        writer.writeframes(struct.pack("<6h", 0, 1, -1, 16384, -32768, 32767))
    return file.getvalue()


def image_file(kind: str) -> bytes:
    module = pytest.importorskip("PIL.Image")
    file = io.BytesIO()
    module.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(file, kind)
    return file.getvalue()


def pickled(protocol: int) -> bytes:
    value = {"x": np.arange(6.0).reshape(2, 3), "s": np.float32(1), "o": OrderedDict(a=[1, 2.5, None, True])}
    return pickle.dumps(value | {"m": scipy.sparse.csr_matrix(np.eye(2)), "t": (b"ab", "cd", (1,), 2**70)}, protocol)


def planetoid_with(part: str) -> Callable[[bytes], Any]:
    return lambda data: read_planetoid(planetoid_files() | {part: data})


TABLE = b'name,age,job\n"Smith, J",39,clerk\nLee,?,nurse\n'
KINDS = {"name": "text", "age": "float", "job": "category"}
TU = {
    "A": b"1, 2\n2, 1\n3, 3\n",
    "graph_indicator": b"1\n1\n2\n",
    "graph_labels": b"-1\n1\n",
    "node_labels": b"0\n3\n0\n",
}

READERS: dict[str, tuple[Callable[[], bytes], Callable[[bytes], Any]]] = {
    "idx": (lambda: IDX, read_idx),
    "idx.gz": (lambda: gzip.compress(IDX), read_idx),
    "idx.xz": (lambda: lzma.compress(IDX), read_idx),
    "idx.bz2": (lambda: bz2.compress(IDX), read_idx),
    "cifar": (lambda: bytes([3]) + bytes(range(256)) * 12, read_cifar),
    "npz": (lambda: npz_file(np.savez), read_npz),
    "npz compressed": (lambda: npz_file(np.savez_compressed), read_npz),
    "wav": (wav_file, read_wav),
    "png": (lambda: image_file("PNG"), read_image),
    "jpeg": (lambda: image_file("JPEG"), read_image),
    "gif": (lambda: image_file("GIF"), read_image),
    "bmp": (lambda: image_file("BMP"), read_image),
    "webp": (lambda: image_file("WEBP"), read_image),
    "matlab": (lambda: matlab_file(False), read_piano_rolls),
    "matlab compressed": (lambda: matlab_file(True), read_piano_rolls),
    "table": (lambda: TABLE, lambda data: read_table(data, KINDS)),
    "text": (lambda: "naïve café".encode(), read_text),
    "graph text": (lambda: b"2\n2 1\n0 1 1\n4 1 0\n1 -1\n0 0\n", read_graph_text),
    **{f"TUDataset {part}": (lambda p=part: TU[p], lambda d, p=part: read_tudataset(TU | {p: d})) for part in TU},
    **{f"pickle {protocol}": (lambda p=protocol: pickled(p), read_pickle) for protocol in range(6)},
    **{f"planetoid {part}": (lambda p=part: planetoid_files()[p], planetoid_with(part)) for part in PARTS},
}
QUICK = (
    "idx.gz",
    "idx.bz2",
    "cifar",
    "npz",
    "wav",
    "png",
    "matlab",
    "table",
    "graph text",
    "pickle 2",
    "pickle 4",
    "planetoid x",
)


def survive(name: str, data: st.DataObject) -> None:
    make, read = READERS[name]
    file = data.draw(damaged(make()))
    with suppress(InputError):
        read(file)


@pytest.mark.parametrize("name", READERS)
def test_the_undamaged_file_is_read(name: str) -> None:
    make, read = READERS[name]
    assert read(make()) is not None


@pytest.mark.parametrize("name", QUICK)
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_damage_is_an_input_error(name: str, data: st.DataObject) -> None:
    survive(name, data)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(data=st.data())
def test_much_damage_is_an_input_error(name: str, data: st.DataObject) -> None:
    survive(name, data)


def zip_of(header: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("X.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header)
    return file.getvalue()


def huge_matrix() -> bytes:
    matrix = scipy.sparse.csr_matrix(np.eye(2))
    matrix._shape = (2, 2**40)
    return pickle.dumps(matrix, 2)


def repeated_array() -> bytes:
    """An array of 1 MB, built a thousand times from the bytes that the memo holds."""
    data = b"B" + struct.pack("<i", 2**20) + bytes(2**20) + b"q\0"
    dtype = b"cnumpy\ndtype\n(X\2\0\0\0u1K\0K\1tR(K\3X\1\0\0\0|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\0tbq\1"
    array = b"cnumpy.core.multiarray\n_reconstruct\n)R(K\1J" + struct.pack("<i", 2**20) + b"\x85h\1\x89h\0tb"
    assert read_pickle(b"\x80\2" + data + dtype + array + b"\x87.")[2].shape == (2**20,)  # once is fine
    return b"\x80\2" + data + dtype + (array + b"0") * 1000 + b"."


def cells_without_end() -> bytes:
    """A cell array that claims 2^28 cells."""
    good = bytearray(matlab_file(False))
    place = good.index(struct.pack("<iiii", 5, 8, 1, 2))
    good[place + 8 : place + 16] = struct.pack("<ii", 2**14, 2**14)
    return bytes(good)


HOSTILE = {
    "idx of 2^96": (lambda: bytes([0, 0, 8, 3]) + b"\xff" * 12, read_idx),
    "idx over gzip bomb": (lambda: gzip.compress(IDX + bytes(10**7 * 3)), read_idx),
    "idx over xz bomb": (lambda: lzma.compress(IDX + bytes(10**7 * 3)), read_idx),
    "npz of 8e12": (
        lambda: zip_of(b"{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }\n"),
        read_npz,
    ),
    "npz of objects": (lambda: zip_of(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n"), read_npz),
    "matlab of 2^28 cells": (cells_without_end, read_matlab),
    "csr of 2 x 2^40": (huge_matrix, planetoid_with("x")),
    "an array built 1000 times": (repeated_array, read_pickle),
    "a table with one long field": (  # whose text is read before the wrong number behind it
        lambda: b"a,b\nx,1\n" * 20000 + b"y" * 100000 + b",2\n",
        lambda data: read_table(data, {"a": "text", "b": "float"}),
    ),
    "wav of 4 GB": (lambda: wav_file().replace(b"data\x0c\0\0\0", b"data\xf0\xff\xff\xff"), read_wav),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_claims_take_no_memory(name: str) -> None:
    make, read = HOSTILE[name]
    file = make()
    tracemalloc.start()
    try:
        with pytest.raises(InputError):
            read(file)
        assert tracemalloc.get_traced_memory()[1] < 2**24 + 4 * len(file)
    finally:
        tracemalloc.stop()
