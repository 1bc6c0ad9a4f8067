"""Readers give back what was written, say what is wrong with a file, and agree with other readers of the format."""

from __future__ import annotations

import ast
import gzip
import io
import lzma
import pickle
import struct
from collections import OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.signal
import scipy.sparse

import fdl
from fdl.data.formats.cifar import read_cifar
from fdl.data.formats.graph_sets import read_graph_text
from fdl.data.formats.idx import read_idx
from fdl.data.formats.images import read_image, read_image_folder
from fdl.data.formats.mel import log_mel, mel_filters
from fdl.data.formats.npz import read_npz
from fdl.data.formats.pickled import KNOWN, Record, read_pickle, read_stream
from fdl.data.formats.planetoid import read_planetoid
from fdl.data.formats.source import open_source
from fdl.data.formats.table import read_table
from fdl.data.formats.text import encode, pad, read_text
from fdl.errors import InputError
from tests.data.mutation import planetoid_files


def test_nothing_in_fdl_executes_data() -> None:
    """No pickle, marshal or shelve, no eval or exec, no allow_pickle: read from the syntax trees."""
    for path in Path(fdl.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill"} & set(names), path
            if isinstance(node, ast.Name):
                assert node.id not in ("eval", "exec", "__import__"), path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is False, path


@pytest.mark.parametrize(
    ("code", "dtype"), [(8, ">u1"), (9, ">i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")]
)
def test_idx(code: int, dtype: str) -> None:
    array = np.arange(24).reshape(2, 3, 4).astype(dtype)
    file = bytes([0, 0, code, 3]) + struct.pack(">3I", 2, 3, 4) + array.tobytes()
    for packed in (file, gzip.compress(file), lzma.compress(file)):
        read = read_idx(packed)
        assert read.dtype.isnative
        np.testing.assert_array_equal(read, array)


def test_files_that_are_wrong_are_named(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 5]) + b"abcd"))
    with pytest.raises(InputError, match=r"images\.gz: expected an IDX file of shape \[5\], 13 bytes, got 12 bytes"):
        read_idx(path)
    path.write_bytes(path.read_bytes()[:-6])
    with pytest.raises(InputError, match="images.gz: expected a complete compressed file"):
        read_idx(path)
    with pytest.raises(InputError, match=r"expected an IDX file, got no such file"):
        read_idx(tmp_path / "nothing")
    with pytest.raises(InputError, match="expected an IDX file, got a folder"):
        read_idx(tmp_path)
    with pytest.raises(InputError, match="<bytes>: expected at most 10 bytes, got more"):
        open_source(gzip.compress(bytes(11)), "zeros").read(10)


def test_cifar_planes_become_channels() -> None:
    image = np.arange(3072, dtype=np.uint16).astype(np.uint8).reshape(32, 32, 3)
    planes = image.transpose(2, 0, 1).tobytes()
    images, labels = read_cifar(b"\2" + planes + b"\x09" + bytes(3072))
    np.testing.assert_array_equal(images, np.stack([image, np.zeros_like(image)]))
    assert labels.tolist() == [[2], [9]]
    assert read_cifar(b"\1\x63" + planes, num_labels=2, num_classes=100)[1].tolist() == [[1, 99]]
    with pytest.raises(InputError, match="labels below 10, got 10 in record 0"):
        read_cifar(b"\x0a" + planes)
    with pytest.raises(InputError, match="records of 3073 bytes, got 3072 bytes"):
        read_cifar(planes)


@pytest.mark.parametrize("protocol", range(6))
def test_pickles_of_data(protocol: int) -> None:
    array = np.arange(6.0).reshape(2, 3)
    plain = {"t": (1, 2.5, -(10**30)), "l": [b"\0\xff", "é", None, True], 3: {"n": [[]]}, "o": OrderedDict(a=1)}
    arrays = {"c": array, "f": np.asfortranarray(array), "big": np.arange(3, dtype=">i4"), "s": np.float32(3)}
    value = read_pickle(
        pickle.dumps({**plain, **arrays, "twice": [array, array], "d": defaultdict(list, a=[1])}, protocol)
    )
    assert {name: value[name] for name in plain} == plain
    assert type(value["t"]) is tuple
    for name, expected in arrays.items():
        np.testing.assert_array_equal(value[name], expected, strict=name != "big")
    np.testing.assert_array_equal(value["twice"][1], array)
    assert value["d"] == {"a": [1]}


def test_sparse_matrices_are_records() -> None:
    matrix = scipy.sparse.csr_matrix(np.eye(3)[:2])
    record = read_pickle(pickle.dumps(matrix, 2))
    assert isinstance(record, Record)
    assert record.state["_shape"] == (2, 3)
    np.testing.assert_array_equal(record.state["indices"], matrix.indices)


class Evil:
    def __reduce__(self) -> Any:
        return print, ("executed",)


@pytest.mark.parametrize("protocol", range(6))
def test_unknown_globals_are_not_called(protocol: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(
        InputError, match="<bytes>: .* names the global '(__builtin__|builtins) print'; nothing was exec"
    ):
        read_pickle(pickle.dumps([Evil()], protocol))
    assert not capsys.readouterr().out


def test_other_pickles_that_are_refused() -> None:
    refused = {
        "dtype '': only": b"\x80\x02cnumpy\ndtype\nK\x01\x85R.",
        "dtype 'O8': only": b"\x80\x02cnumpy\ndtype\nX\x02\0\0\0O8\x85R.",
        "a tuple as key": pickle.dumps({(1, 2): 3}),
        "instruction EMPTY_SET": pickle.dumps({1}, 4),
        "a persistent id": b"\x80\x02K\x01Q.",
        "exhausted": pickle.dumps([1, 2])[:-1],
        "bytes after its end": pickle.dumps(1) + b"x",
        "no function": b"\x80\x02])R.",
    }
    for reason, file in refused.items():
        with pytest.raises(InputError, match=reason):
            read_pickle(file)


def test_a_table_of_globals_and_persistent_ids() -> None:
    """What a reader of PyTorch's files builds on: several pickles in a row, own globals, ids of storages."""

    class Point:
        def __init__(self, *args: Any) -> None:
            self.args = args

        def build(self, state: Any) -> tuple:
            return (*self.args, state)

    stream = io.BytesIO(b"\x80\x02K\x07.\x80\x02cshapes\nPoint\nK\x01\x85RX\x01\0\0\0sb(X\x01\0\0\0aQt\x86.")
    assert read_stream(stream, "two") == 7
    value = read_stream(stream, "two", {**KNOWN, "shapes Point": Point}, lambda name: f"storage {name}")
    assert value == ((1, "s"), ("storage a",))


def test_planetoid_files_that_disagree() -> None:
    files = planetoid_files()
    graph = read_planetoid(files)
    assert graph.edges.shape == (2, 1400)
    assert graph.y[:4].tolist() == [0, 1, 2, 0]
    assert [int(mask.sum()) for mask in graph.masks.values()] == [100, 500, 50]
    with pytest.raises(InputError, match="expected 50 rows, as in test.index, got 100"):
        read_planetoid(files | {"tx": files["x"]})
    with pytest.raises(InputError, match=r"expected different node numbers in 650..749"):
        read_planetoid(files | {"test.index": b"5\n"})
    with pytest.raises(InputError, match="expected a CSR matrix, got something else"):
        read_planetoid(files | {"x": files["ty"]})


def test_table() -> None:
    file = b'\xef\xbb\xbfname, age ,job\r\n"Smith, ""J""",39, clerk\r\nLee,?,nurse\r\n\r\n'
    table = read_table(file, {"job": "category", "age": "float", "name": "text"})
    assert table.columns["name"].tolist() == ['Smith, "J"', "Lee"]
    np.testing.assert_array_equal(table.columns["age"], np.array([39, np.nan], np.float32))
    assert table.categories == {"job": ("clerk", "nurse")}
    given = read_table(file, {"job": ("nurse", "clerk", "cook"), "name": "skip"})
    assert given.columns["job"].tolist() == [1, 0]
    assert list(given.columns) == ["job"]
    whole = read_table(b"1;-2\n", {"a": "int", "b": "int"}, header=False, delimiter=";")
    assert (whole.columns["b"].dtype, whole.columns["b"].tolist()) == (np.int64, [-2])


@pytest.mark.parametrize(
    ("file", "columns", "reason"),
    [
        (b"a,b\n1,2\n3\n", {"a": "int"}, "line 3: expected 2 fields, got 1"),
        (b"a,b\n1,x\n", {"b": "float"}, "column 'b', line 2: expected a finite number .* got 'x'"),
        (b"a,b\n1,1_0\n", {"b": "int"}, "expected an integer .* got '1_0'"),
        (b"a,b\n1,\n", {"b": "int"}, "declare it 'float'"),
        (b"a,b\n1,inf\n", {"b": "float"}, "expected a finite number"),
        (b"a,b\n1,99999999999999999999\n", {"b": "int"}, "expected an integer"),
        (b"a,b\n1,red\n", {"b": ("blue", "green")}, "expected one of blue, green, got 'red'"),
        (b"a,colour\n1,2\n", {"color": "int"}, "one column 'color' .* did you mean 'colour'"),
        (b"a,a\n1,2\n", {"a": "int"}, "got it twice"),
        (b"a,b\n", {"a": "int"}, "a table with rows, got none"),
        (b"a,b\n1,2\n", {"a": "integer"}, "no kind 'integer'; did you mean 'int'"),
        (b"a,b\n\xff,2\n", {"a": "text"}, "a table in UTF-8, got byte 0xff at 4"),
        (b'a,b\n"1,2\n', {"a": "text"}, "expected fields with ',' between"),
    ],
)
def test_tables_that_are_wrong(file: bytes, columns: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        read_table(file, columns)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_as_numpy(save: Any) -> None:
    arrays = {"x": np.arange(6.0).reshape(2, 3), "f": np.asfortranarray(np.eye(3, 2)), "t": np.array(["a", "bc"])}
    arrays |= {"big": np.arange(3, dtype=">i2"), "scalar": np.array(3), "none": np.zeros((0, 4)), "b": np.array([True])}
    file = io.BytesIO()
    save(file, **arrays)
    read = read_npz(file.getvalue())
    assert set(read) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].shape == array.shape
    with pytest.raises(InputError, match="of at most 10 bytes"):
        read_npz(file.getvalue(), limit=10)


def test_log_mel_against_scipy() -> None:
    x = np.random.default_rng(0).standard_normal(1000)
    window = scipy.signal.get_window("hann", 200, fftbins=True)
    transform = scipy.signal.ShortTimeFFT(np.pad(window, 28), hop=80, fs=8000, mfft=256, phase_shift=None)
    padded = np.pad(x, 128, mode="reflect")
    frames = np.stack([np.fft.rfft(padded[s : s + 256] * transform.win) for s in range(0, 1001, 80)])
    expected = np.log(np.abs(frames) ** 2 @ mel_filters(8000, 256, 40).T)
    actual = log_mel(x, 8000, window=200, hop=80, num_fft=256, num_mels=40)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    inside = slice(2, 11)  # frames that see no reflection
    np.testing.assert_allclose(np.abs(frames[inside]), np.abs(transform.stft(x, p0=2, p1=11)).T, rtol=1e-9)


def test_a_tone_is_in_its_mel_band() -> None:
    """1000 Hz is mel 15 of Slaney's scale, where the scale turns from linear to logarithmic."""
    tone = np.sin(2 * np.pi * 1000 * np.arange(16000) / 16000)
    bands = log_mel(tone, 16000, num_mels=40)[50]
    centres = mel_filters(16000, 400, 40).argmax(1) * 40
    assert abs(centres[bands.argmax()] - 1000) <= 40


def test_htk_triangles() -> None:
    filters = mel_filters(16000, 16000, 20, low=20, scale="htk")
    peaks = 2595 * np.log10(1 + filters.argmax(1) / 700)
    np.testing.assert_allclose(np.diff(peaks), np.diff(peaks).mean(), atol=1.1)  # 1 Hz is at most 1.6 mel
    assert filters.max(1).min() > 0.98
    np.testing.assert_allclose(mel_filters(16000, 16000, 20).sum(1), 1, rtol=1e-4)  # slaney: area 1, bins of 1 Hz
    with pytest.raises(InputError, match="did you mean 'slaney'"):
        mel_filters(16000, 400, scale="slany")


def test_graph_text() -> None:
    graphs = read_graph_text(b"2\n3 2\n0 1 1\n5 2 0 2\n0 1 1\n1 -1\n7 0\n")
    assert [graph.y for graph in graphs] == [1, 0]
    assert graphs[0].x.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert graphs[0].edges.tolist() == [[1, 0, 2, 1], [0, 1, 1, 2]]
    assert graphs[1].edges.shape == (2, 0)
    for text in (b"2\n1 0\n0 0\n", b"1\n1 0\n0 1 1\n", b"1\n1 0\n0 2 0\n", b"1\n1 0\n0 0\n9\n", b"", b"x"):
        with pytest.raises(InputError, match="<bytes>: expected graphs as lines of integers"):
            read_graph_text(text)


def test_images(tmp_path: Path) -> None:
    module = pytest.importorskip("PIL.Image")
    red, grey = np.zeros((4, 6, 3), np.uint8), np.arange(24, dtype=np.uint8).reshape(4, 6)
    red[..., 0] = 200
    for folder, name, array in (("b", "1.png", grey), ("a", "2.png", red), ("a", "1.bmp", red)):
        (tmp_path / folder).mkdir(exist_ok=True)
        module.fromarray(array).save(tmp_path / folder / name)
    (tmp_path / "a" / "notes.txt").write_text("no image")
    (tmp_path / "b" / "link.png").symlink_to(tmp_path / "a" / "2.png")
    images = read_image_folder(tmp_path)
    assert (images.classes, images.files, images.y.tolist()) == (
        ("a", "b"),
        ("a/1.bmp", "a/2.png", "b/1.png", "b/link.png"),
        [0, 0, 1, 1],
    )
    np.testing.assert_array_equal(images.x[0], red)
    np.testing.assert_array_equal(images.x[2], np.repeat(grey[..., None], 3, 2))
    np.testing.assert_array_equal(read_image(tmp_path / "b/1.png", "L")[..., 0], grey)
    np.testing.assert_array_equal(images.x[3], red)
    assert read_image_folder(tmp_path, size=(2, 3)).x.shape == (4, 2, 3, 3)
    module.fromarray(grey[:2]).save(tmp_path / "b/2.png")
    with pytest.raises(InputError, match=r"2\.png: expected an image \[4, 6, 3\] as 1\.bmp, got \[2, 6, 3\]"):
        read_image_folder(tmp_path)
    (tmp_path / "a/0.png").write_text("no image")
    with pytest.raises(InputError, match=r"0\.png: expected an image \(PNG, .* got one that starts with"):
        read_image_folder(tmp_path)


def test_text() -> None:
    assert read_text(gzip.compress("é\r\n".encode())) == ("<bytes>", "é\n")
    with pytest.raises(InputError, match="character 'c' is not in the vocabulary"):
        encode("abc", "ab")
    with pytest.raises(InputError, match="rows of at most 1, got one of 2"):
        pad([np.zeros(2)], 1)
