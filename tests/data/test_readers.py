"""What all readers of `fdl.data` have in common: how a file is given, and what is said of a file of another kind."""

from __future__ import annotations

import inspect
import io
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import fdl
from fdl import data
from fdl.errors import InputError
from tests.data.mutation import planetoid_files
from tests.data.test_formats_damage import IDX, TABLE, TU, image_file, matlab_file, npz_file, wav_file
from tests.test_file_kinds import KINDS

ROOT = Path(__file__).parents[2]


def npy_file() -> bytes:
    file = io.BytesIO()
    np.save(file, np.arange(3))
    return file.getvalue()


class Row(NamedTuple):
    file: Callable[[], bytes]
    read: Callable[[Any], Any]
    own: str = ""
    """The kinds that the reader takes for its own, as a pattern."""


TEXTS = "text|JSON|HTML|XML"
READERS = {
    "read_cifar": Row(lambda: bytes([3]) + bytes(range(256)) * 12, data.read_cifar),
    "read_graph_text": Row(lambda: b"1\n2 1\n0 1 1\n4 1 0\n", data.read_graph_text),
    "read_idx": Row(lambda: IDX, data.read_idx),
    "read_image": Row(lambda: image_file("PNG"), data.read_image, "PNG|JPEG"),
    "read_matlab": Row(lambda: matlab_file(True), data.read_matlab),
    "read_npy": Row(npy_file, data.read_npy, "npy"),
    "read_npz": Row(lambda: npz_file(np.savez), data.read_npz, "npz|cut off"),
    "read_pickle": Row(lambda: pickle.dumps({"x": [1, 2.5]}), data.read_pickle, "pickle"),
    "read_planetoid": Row(
        lambda: planetoid_files()["test.index"],
        lambda file: data.read_planetoid(planetoid_files() | {"test.index": file}),
    ),
    "read_table": Row(lambda: TABLE, lambda file: data.read_table(file, {"age": "float"}), "text"),
    "read_text": Row(lambda: b"a", data.read_text, f"{TEXTS}|empty|gzip|xz"),
    "read_tudataset": Row(lambda: TU["A"], lambda file: data.read_tudataset(TU | {"A": file})),
    "read_wav": Row(wav_file, data.read_wav, "WAV"),
}  # fmt: skip


def test_every_reader_is_here_and_documented() -> None:
    public = {name for name in dir(data) if name.startswith("read_")}
    assert public == {*READERS, "read_image_folder"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in public:
        text = inspect.getdoc(getattr(data, name)) or ""
        assert "InputError" in text, name
        assert name == "read_planetoid" or ">>> " in text, name
        assert f"`{name}`" in readme, name


@pytest.mark.parametrize("name", READERS)
def test_a_file_is_a_path_below_the_home_folder_or_its_bytes(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    good, read, _ = READERS[name]
    (tmp_path / "file").write_bytes(good())
    first = repr(read("~/file"))
    for given in (Path("~/file"), str(tmp_path / "file")):
        assert repr(read(given)) == first
    for given in (good(), bytearray(good()), memoryview(good())):
        assert repr(read(given)).replace("<bytes>", str(tmp_path / "file")) == first


@pytest.mark.parametrize("name", READERS)
def test_a_path_to_no_file(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    (tmp_path / "folder").mkdir()
    for given, got in {"gone": "no such file", "link": "a link to nothing", "folder": "a folder"}.items():
        with pytest.raises(InputError, match=f"{re.escape(str(tmp_path / given))}: expected .*, got {got}"):
            READERS[name].read(f"~/{given}")


@pytest.mark.parametrize("name", READERS)
def test_a_file_of_another_kind_is_named(name: str, tmp_path: Path) -> None:
    """Its bytes and its path alike; Git LFS pointers, HDF5, MATLAB 7.3, Parquet, tar and GGUF are among them."""
    row = READERS[name]
    for kind, file in KINDS.items():
        if row.own and re.search(row.own, kind):
            continue
        (tmp_path / "file").write_bytes(file)
        for given in (file, tmp_path / "file"):
            with pytest.raises(InputError) as error:
                row.read(given)
            assert ("<bytes>" if given is file else str(tmp_path / "file")) in str(error.value)
            assert "\n" not in str(error.value)
            known = not kind.startswith(("text", "a file that starts with", "a gzip", "an xz"))
            assert not known or kind.rstrip(" (") in str(error.value), (kind, str(error.value))


@pytest.mark.parametrize("name", READERS)
def test_what_is_no_path_is_answered(name: str) -> None:
    for given, message in {
        None: "expected a path as text or a pathlib.Path, got NoneType",
        io.BytesIO(b"a"): r"got an open file; pass file.read\(\)",
        "https://example.com/a.csv": "https://example.com/a.csv: expected .* got an address; download it first",
        "a,b\n1,2\n": "got text of several lines; pass the contents as bytes",
    }.items():
        with pytest.raises(InputError, match=message):
            READERS[name].read(given)


def test_pad_takes_what_a_dataset_takes() -> None:
    rows, lengths = data.pad([np.ma.masked_equal([1.0, -9.0], -9), np.array([2], ">f4")])
    np.testing.assert_array_equal(rows, [[1, np.nan], [2, 0]])
    assert lengths.tolist() == [2, 1]
    with pytest.raises(fdl.InputError, match="row 1.*encode"):
        data.pad([[1, 2], ["a"]])
