"""Weights as they come: every kind of file and folder is read, or named with what to do."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import fdl
from fdl import pretrained
from fdl.data.tokens import BytePair
from fdl.errors import InputError
from fdl.pretrained import read, write_safetensors
from tests.pretrained.test_files import onnx_file, tf_index
from tests.test_file_kinds import KINDS

W = np.arange(3, dtype=np.float32)
READ = ("a safetensors file", "an .npz archive", "an archive of PyTorch", "a pickle", "an ONNX file", "a JSON document")


@pytest.mark.parametrize("name", [name for name in KINDS if name not in READ])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin", "model.index.json"])
def test_other_files_are_named(tmp_path: Path, name: str, file: str) -> None:
    """Whatever the file is called, and in a folder too."""
    (tmp_path / file).write_bytes(KINDS[name])
    for path in (tmp_path / file, tmp_path):
        if path.is_file() or file != "model.index.json":
            with pytest.raises(InputError) as raised:
                read(path)
            assert name in str(raised.value)
            assert file in str(raised.value)


def npz(path: Path) -> None:
    arrays: dict[str, Any] = {"layer/w": W}
    np.savez(path, **arrays)


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps({"layer": {"w": W}, "epoch": 3}))


def torch_file(path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"layer/w": torch.arange(3.0)}, path)


def safetensors(path: Path) -> None:
    write_safetensors(path, {"layer/w": W})


def checkpoint(path: Path) -> None:
    path.with_name(f"{path.name}.index").write_bytes(tf_index())
    path.with_name(f"{path.name}.data-00000-of-00001").write_bytes(np.arange(9, dtype="<f4").tobytes())


@pytest.mark.parametrize("write", [npz, pickled, torch_file, safetensors])
@pytest.mark.parametrize("name", ["model.npz", "model.ckpt", "pytorch_model.bin", "epoch=1.safetensors"])
def test_a_file_is_read_whatever_it_is_called(tmp_path: Path, write: Any, name: str) -> None:
    if write is npz and not name.endswith(".npz"):
        npz(tmp_path / "x.npz")
        (tmp_path / "x.npz").rename(tmp_path / name)
    else:
        write(tmp_path / name)
    assert read(tmp_path / name)["layer/w"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("name", ["m.ckpt", "m.ckpt.index", "m.ckpt.data-00000-of-00001", ".", "../saved"])
def test_a_checkpoint_of_tensorflow_by_any_of_its_names(tmp_path: Path, name: str) -> None:
    """Also the folder that has it, and the folder of a SavedModel."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "saved" / "variables").mkdir(parents=True)
    checkpoint(tmp_path / "folder" / "m.ckpt")
    checkpoint(tmp_path / "saved" / "variables" / "variables")
    (tmp_path / "saved" / "saved_model.pb").write_bytes(KINDS["a SavedModel of TensorFlow"])
    assert read(tmp_path / "folder" / name)["b"].tolist() == [0, 1, 2]


def shard(folder: Path, number: int, kind: str) -> str:
    name = f"{'pytorch_model' if kind == 'bin' else 'model'}-0000{number}-of-00002.{kind}"
    if kind == "bin":
        torch = pytest.importorskip("torch")
        torch.save({f"w{number}": torch.full((2,), number, dtype=torch.bfloat16)}, folder / name)
    else:
        write_safetensors(folder / name, {f"w{number}": np.full(2, number, ml_dtypes.bfloat16)})
    return name


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
@pytest.mark.parametrize("indexed", [True, False])
def test_shards(tmp_path: Path, kind: str, indexed: bool) -> None:
    places = {f"w{number}": shard(tmp_path, number, kind) for number in (1, 2)}
    index = tmp_path / ("pytorch_model.bin.index.json" if kind == "bin" else "model.safetensors.index.json")
    if indexed:
        index.write_text(json.dumps({"metadata": {"total_size": 8}, "weight_map": places}))
    for path in (tmp_path, index) if indexed else (tmp_path,):
        tensors = read(path)
        assert {name: array.astype(float).tolist() for name, array in tensors.items()} == {"w1": [1, 1], "w2": [2, 2]}
        assert {array.dtype.name for array in tensors.values()} == {"bfloat16"}
    (tmp_path / places["w2"]).unlink()
    with pytest.raises(InputError, match="the shard 'pytorch_model-00002|the shard 'model-00002|expected 2 shards"):
        read(tmp_path)


def test_a_whole_file_counts_before_an_index_whose_shards_are_gone(tmp_path: Path) -> None:
    safetensors(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": "model-00001.safetensors"}}))
    assert list(read(tmp_path)) == ["layer/w"]


def test_folders(tmp_path: Path) -> None:
    """One file of weights under any name is the one that is meant; of several, or none, the error says which."""
    with pytest.raises(InputError, match="expected a folder with weights, such as model.safetensors"):
        read(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tf_model.h5").write_bytes(KINDS["an HDF5 file"])
    with pytest.raises(InputError, match="there is tf_model.h5, an HDF5 file .*h5py"):
        read(tmp_path)
    safetensors(tmp_path / "diffusion_model.fp16.safetensors")
    assert list(read(tmp_path)) == ["layer/w"]
    safetensors(tmp_path / "other.safetensors")
    with pytest.raises(InputError, match=r"got 2; pass one of diffusion_model.fp16.safetensors, other.safetensors"):
        read(tmp_path)


def test_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_safetensors("~/w.safetensors", {"w": W})
    assert read("~/w.safetensors")["w"].tolist() == read(tmp_path)["w"].tolist() == [0, 1, 2]


NARROW = ["bfloat16", "float16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"]
WIDE = ["uint16", "uint32", "uint64", "complex64", "complex128"]


@pytest.mark.parametrize("name", [*NARROW, *WIDE])
@pytest.mark.parametrize("new", [True, False])
def test_dtypes_of_pytorch(tmp_path: Path, name: str, new: bool) -> None:
    """A view in the middle of a storage, in the dtypes that only tensors of version 3 have, too."""
    torch = pytest.importorskip("torch")
    x = torch.tensor([0.5, 1, 2, 4, 8, 16]).to(getattr(torch, name)).reshape(2, 3)
    torch.save({"x": x, "view": x[1:, 1:], "end": x[2:]}, tmp_path / "m.pt", _use_new_zipfile_serialization=new)
    got = read(tmp_path / "m.pt")
    assert got["x"].dtype.name == name
    want = x.to(torch.complex128 if "complex" in name else torch.float64).numpy()
    np.testing.assert_array_equal(got["x"].astype(want.dtype), want)
    np.testing.assert_array_equal(got["view"].astype(want.dtype), want[1:, 1:])
    assert got["end"].shape == (0, 3)


@pytest.mark.parametrize("new", [True, False])
def test_views_that_are_still_to_be_conjugated_or_negated(tmp_path: Path, new: bool) -> None:
    torch = pytest.importorskip("torch")
    z = torch.tensor([1 + 2j, 3 - 1j])
    for view, want in ((z.conj(), [1 - 2j, 3 + 1j]), (z.conj().imag, [-2, 1]), (torch._neg_view(z.real), [-1, -3])):
        torch.save(view, tmp_path / "m.pt", _use_new_zipfile_serialization=new)
        np.testing.assert_array_equal(read(tmp_path / "m.pt")["tensor"], want)


def test_settings_beside_the_weights_are_passed_over(tmp_path: Path) -> None:
    """What training scripts save with them: arguments, paths, devices, dtypes, sets, times, arrays of NumPy."""
    import argparse
    import datetime

    torch = pytest.importorskip("torch")
    value = {"args": argparse.Namespace(lr=0.1), "out": Path("x"), "device": torch.device("cpu"), "s": {1, 2}}
    value |= {"dtype": torch.bfloat16, "time": datetime.datetime(2020, 1, 1), "mean": W, "epoch": np.float64(3)}
    value |= {"buffer": torch.nn.Buffer(torch.ones(2)), "model": torch.nn.Linear(1, 1).state_dict()}
    for new in (True, False):
        torch.save(value, tmp_path / "m.pt", _use_new_zipfile_serialization=new)
        got = read(tmp_path / "m.pt")
        assert sorted(got) == ["buffer", "mean", "model/bias", "model/weight"]
        assert got["mean"].tolist() == [0, 1, 2]


def test_what_an_archive_cannot_give_is_said(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    for value, message in [
        (torch.nn.Linear(1, 1), "Linear'; nothing was executed; .* save model.state_dict()"),
        ({"epoch": 3}, "a file without any"),
        ({"a/b": torch.ones(1), "a": {"b": torch.zeros(1)}}, "two called 'a/b'"),
    ]:
        torch.save(value, tmp_path / "m.pt")
        with pytest.raises(InputError, match=message):
            read(tmp_path / "m.pt")


@pytest.mark.parametrize("name", ["bfloat16", "float16", *(name for name in NARROW if "8" in name)])
def test_narrow_dtypes_of_safetensors(tmp_path: Path, name: str) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name, name))
    tensors = {"x": np.array([[0.5, 1, 2]]).astype(dtype), "y": np.array([4.0]).astype(dtype)}
    write_safetensors(tmp_path / "m.safetensors", tensors)
    got = read(tmp_path / "m.safetensors")
    for key, array in tensors.items():
        assert got[key].dtype == dtype
        np.testing.assert_array_equal(got[key].astype(float), array.astype(float))


def test_writing_says_what_it_cannot_write(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    for tensors, message in [
        ({"w": "text"}, "'w': expected numbers, got .*'text'"),
        ({"w": np.ones(1, complex)}, "m.safetensors: cannot be written as safetensors"),
        ([W], "arrays by name"),
        ({3: W}, "names of arrays that are text"),
    ]:
        with pytest.raises(InputError, match=message):
            write_safetensors(file, tensors)  # pyright: ignore[reportArgumentType]
    for place in (tmp_path, tmp_path / "no" / "m.safetensors"):
        with pytest.raises(InputError, match="a folder that exists"):
            write_safetensors(place, {"w": W})
    assert list(tmp_path.iterdir()) == []


def test_tensors_of_any_library_are_written(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    half = torch.arange(3).to(torch.bfloat16).requires_grad_()
    write_safetensors(tmp_path / "m.safetensors", {"a": {"t": half}, "j": jnp.arange(3.0), "big": W.astype(">f4")})
    got = read(tmp_path / "m.safetensors")
    assert {name: (array.dtype.name, array.astype(float).tolist()) for name, array in got.items()} == {
        "a/t": ("bfloat16", [0, 1, 2]),
        "j": ("float32", [0, 1, 2]),
        "big": ("float32", [0, 1, 2]),
    }


def test_onnx_without_a_known_start(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(onnx_file())
    assert list(read(tmp_path)) == ["w"]


def test_arguments_that_are_no_path() -> None:
    for path in (None, {}, b"m.safetensors", ""):
        with pytest.raises(InputError, match="read: expected a path"):
            read(path)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n", "a Git LFS pointer"),
        (b"GGUF" + bytes(100), "a GGUF file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "an HDF5 file"),
        (b"PAR1" + bytes(100), "a Parquet file"),
        (b"<!DOCTYPE html><html>", "an HTML page"),
        (b"", "an empty file"),
    ],
)
def test_another_format_is_named_at_every_entrance(data: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    path.write_bytes(data)
    entrances = [read, lambda path: pretrained.load(fdl.nn.Linear(2, 2), path), BytePair.read]
    entrances += [pretrained.llama2c.load, lambda path: pretrained.llama2c.Tokenizer.read(path, 10)]
    entrances += [getattr(pretrained, module).load for module in ("crepe", "silero", "resnet_cifar", "gat_cora")]
    for entrance in entrances:
        with pytest.raises(InputError, match=rf"weights.bin: expected .*, got {name}"):
            entrance(path)
