"""Readers of weights: what they read, and that what is damaged or hostile is one InputError, in little memory."""

from __future__ import annotations

import ast
import io
import json
import struct
import tracemalloc
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fdl import pretrained
from fdl.errors import InputError
from fdl.pretrained import read, write_safetensors
from fdl.pretrained.llama2c import Tokenizer, read_llama2c
from fdl.pretrained.tf_checkpoint import read_tf_checkpoint
from tests.data.mutation import damaged

DTYPES = [
    np.float64,
    np.float32,
    np.float16,
    ml_dtypes.bfloat16,
    np.int64,
    np.int32,
    np.int16,
    np.int8,
    np.uint8,
    np.bool_,
]


# safetensors


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_safetensors_there_and_back(tmp_path: Path, dtype: Any) -> None:
    x = np.arange(6).reshape(2, 3).astype(dtype)
    tensors = {
        "a": x,
        "transposed": x.T,
        "every second": x[:, ::2],
        "scalar": x[1, 1],
        "none": x[:0],
        "jax": jnp.asarray(x[0, 0] > 0),
    }
    write_safetensors(tmp_path / "model.safetensors", tensors)
    back = read(tmp_path)
    assert sorted(back) == sorted(tensors)
    for name, array in tensors.items():
        assert (back[name].dtype, back[name].shape) == (array.dtype, array.shape), name
        np.testing.assert_array_equal(back[name], np.asarray(array), err_msg=name)
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def shards(folder: Path, places: Any) -> Path:
    for number in (1, 2):
        write_safetensors(folder / f"part-{number}.safetensors", {f"w{number}": np.full(3, number)})
    (folder / "model.safetensors.index.json").write_text(json.dumps(places))
    return folder


def test_shards_are_one_mapping(tmp_path: Path) -> None:
    places = {"w1": "part-1.safetensors", "w2": "part-2.safetensors"}
    tensors = read(shards(tmp_path, {"metadata": {}, "weight_map": places}))
    assert {name: array.tolist() for name, array in tensors.items()} == {"w1": [1, 1, 1], "w2": [2, 2, 2]}
    assert "w3" not in tensors


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ([], "JSON object"),
        ({}, "weight_map"),
        ({"weight_map": {"w1": 3}}, "weight_map"),
        ({"weight_map": {"w1": "../part-1.safetensors"}}, "beside the index"),
        ({"weight_map": {"w1": "part-3.safetensors"}}, "no such file"),
        ({"weight_map": {"w2": "part-1.safetensors"}}, "a shard without it"),
    ],
)
def test_bad_indices(tmp_path: Path, index: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(shards(tmp_path, index))


def header(**entries: Any) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff" * 64,
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2**26) + b"{}",
        header(a={"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}),
        header(a={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}) + bytes(4),
        header(a={"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}) + bytes(12),
        header(a={"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}) + bytes(8),
        header(a={"dtype": "F99", "shape": [2], "data_offsets": [0, 8]}) + bytes(8),
    ],
)
def test_hostile_headers(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=r"model.safetensors: expected a safetensors file"):
        read(tmp_path)


def test_what_is_no_file_of_weights(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match="no such file"):
            read(path)


# archives of PyTorch


def saved(value: Any, new: bool) -> bytes:
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=new)
    return file.getvalue()


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("name", [np.dtype(dtype).name for dtype in DTYPES])
def test_torch_archives(tmp_path: Path, new: bool, name: str) -> None:
    """Views of one storage, transposed and offset, empty and scalar ones, in dicts and lists; numbers are left out."""
    torch = pytest.importorskip("torch")
    x = torch.arange(12).reshape(3, 4).to(getattr(torch, name))
    parameter = torch.nn.Parameter(x.float())
    value = {
        "state": OrderedDict(a=x, b=x.T, c=x[1:, 1::2], d=x[0, 1], e=x[:0]),
        "more": [x[2], 3],
        "p": parameter,
        "n": 7,
    }
    (tmp_path / "m.pt").write_bytes(saved(value, new))
    got = read(tmp_path / "m.pt")
    want = {"state/a": x, "state/b": x.T, "state/c": x[1:, 1::2], "state/d": x[0, 1], "state/e": x[:0], "more/0": x[2]}
    assert sorted(got) == sorted([*want, "p"])
    for path, tensor in want.items():
        assert got[path].dtype == name
        assert got[path].shape == tuple(tensor.shape)
        np.testing.assert_array_equal(got[path].astype(np.float64), tensor.double().numpy(), err_msg=path)


class Evil:
    """A pickle that would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.mkdir, (self.path,)


@pytest.mark.parametrize("new", [True, False])
def test_nothing_in_an_archive_is_executed(tmp_path: Path, new: bool) -> None:
    torch = pytest.importorskip("torch")
    for value in (
        Evil(tmp_path / "made"),
        {"w": torch.zeros(2), "evil": Evil(tmp_path / "made")},
        torch.nn.Linear(1, 1),
    ):
        (tmp_path / "m.pt").write_bytes(saved(value, new))
        with pytest.raises(InputError, match="nothing was executed"):
            read(tmp_path / "m.pt")
    assert not (tmp_path / "made").exists()


def archive(pickled: bytes, storage: bytes = bytes(16), compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as writer:
        writer.writestr("m/data.pkl", pickled)
        writer.writestr("m/data/0", storage)
    return file.getvalue()


def tensor_pickle(shape: str, strides: str, offset: int = 0, count: int = 4, key: str = "0") -> bytes:
    """_rebuild_tensor_v2((storage), offset, shape, strides, False, OrderedDict()) in text opcodes."""
    storage = f"(S'storage'\nctorch\nFloatStorage\nS'{key}'\nS'cpu'\nI{count}\ntQ"
    return f"ctorch._utils\n_rebuild_tensor_v2\n({storage}I{offset}\n{shape}{strides}I00\n(dtR.".encode()


def numbers(*sizes: int) -> str:
    return "(" + "".join(f"I{size}\n" for size in sizes) + "t"


def test_a_small_archive_by_hand(tmp_path: Path) -> None:
    (tmp_path / "m.pt").write_bytes(
        archive(tensor_pickle(numbers(2, 2), numbers(1, 2)), np.arange(4, dtype="<f4").tobytes())
    )
    assert read(tmp_path / "m.pt")["tensor"].tolist() == [[0, 2], [1, 3]]


LAUGHS = b"}" + b"".join(b"p%d\n(dp%d\nS'a'\ng%d\nsS'b'\ng%d\ns" % (i, i + 1, i, i) for i in range(30)) + b"."


@pytest.mark.parametrize(
    "data",
    [
        archive(tensor_pickle(numbers(2, 3), numbers(3, 1))),  # beyond its storage
        archive(tensor_pickle(numbers(4), numbers(1), offset=1)),
        archive(tensor_pickle(numbers(4), numbers(1), offset=-1)),
        archive(tensor_pickle(numbers(2), numbers(-1), offset=3)),
        archive(tensor_pickle(numbers(2**40), numbers(0))),  # the same element again and again
        archive(tensor_pickle(numbers(2**62, 0), numbers(1, 1))),
        archive(tensor_pickle(numbers(4), numbers(1), count=2**40)),
        archive(tensor_pickle(numbers(2), numbers(1), count=2)),  # a storage of another size
        archive(tensor_pickle(numbers(4), numbers(1), key="../0")),
        archive(tensor_pickle(numbers(4), numbers(1)), compression=zipfile.ZIP_DEFLATED),
        archive(b"I3\n."),  # no tensors
        archive(b"(dp0\nS'a'\ng0\ns."),  # a dict that holds itself
        archive(LAUGHS),
        archive(b"ctorch\nFloatStorage\n)R."),
        archive(b""),
        b"PK\x03\x04",
        b"\x80\x02\x8a\x0a" + bytes(20),
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02}.\x80\x02].",  # nothing in it
    ],
)
def test_hostile_archives(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.pt").write_bytes(data)
    with pytest.raises(InputError, match="m.pt"):
        read(tmp_path / "m.pt")


# damage


def tf_index() -> bytes:
    """An index with the header and two arrays, w [2, 3] and b [3], whose keys share no prefix."""

    def entry(key: bytes, value: bytes) -> bytes:
        return bytes([0, len(key), len(value)]) + key + value

    def shape(*sizes: int) -> bytes:
        dims = b"".join(b"\x12\x02\x08" + bytes([size]) for size in sizes)
        return b"\x12" + bytes([len(dims)]) + dims

    def block(entries: bytes) -> bytes:
        return entries + struct.pack("<II", 0, 1) + bytes(5)  # a restart point; not compressed, no checksum

    data = entry(b"", b"\x08\x01") + entry(b"b", b"\x08\x01" + shape(3) + b"\x28\x0c")
    data = block(data + entry(b"w", b"\x08\x01" + shape(2, 3) + b"\x20\x0c\x28\x18"))
    index = block(entry(b"w", b"\x00" + bytes([len(data) - 5])))
    handles = b"\x00\x00" + bytes([len(data), len(index) - 5])
    return data + index + handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


def read_tf(path: Path) -> dict[str, np.ndarray]:
    path.rename(path.with_suffix(".index"))
    path.with_suffix(".data-00000-of-00001").write_bytes(np.arange(9, dtype="<f4").tobytes())
    return read_tf_checkpoint(path.with_suffix(""))


def test_tf_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "m.ckpt").write_bytes(tf_index())
    tensors = read_tf(tmp_path / "m.ckpt")
    assert {name: array.tolist() for name, array in tensors.items()} == {"b": [0, 1, 2], "w": [[3, 4, 5], [6, 7, 8]]}


def onnx_file() -> bytes:
    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2, len(data)]) + data

    tensor = b"\x08\x02\x08\x03\x10\x01" + field(8, b"w") + field(9, np.arange(6, dtype="<f4").tobytes())
    return field(7, field(5, tensor))


def test_onnx(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(onnx_file())
    assert read(tmp_path / "m.onnx")["w"].tolist() == [[0, 1, 2], [3, 4, 5]]


def llama_file() -> bytes:
    sizes = (4, 6, 1, 2, 1, 5, 3)  # dim, hidden, layers, heads, kv heads, vocabulary, longest
    D, F, _, H, G, V, T = sizes
    count = V * D + D + H * 2 * D + 2 * G * 2 * D + D * D + D + 3 * F * D + D + 2 * T
    return struct.pack("<7i", *sizes) + np.arange(count, dtype="<f4").tobytes()


def test_llama2c(tmp_path: Path) -> None:
    (tmp_path / "m.bin").write_bytes(llama_file())
    model, params, _, report = pretrained.llama2c.load(tmp_path / "m.bin")
    assert report.complete
    assert model(params, jnp.array([[1, 2]])).shape == (1, 2, 5)
    assert params["blocks"]["0"]["attention"]["key"]["kernel"].shape == (4, 1, 2)


def tokenizer_file() -> bytes:
    tokens = [b"<unk>", b"<s>", b"</s>", b" ", b"a", b" a"]
    return struct.pack("<i", 5) + b"".join(struct.pack("<fi", -i, len(token)) + token for i, token in enumerate(tokens))


def safetensors_file() -> bytes:
    return header(a={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}) + np.arange(2, dtype="<f4").tobytes()


def all_arrays(path: Path) -> None:
    for array in read(path).values():
        array.copy()


READERS: dict[str, tuple[str, Callable[[], bytes], Callable[[Path], Any]]] = {
    "safetensors": ("m.safetensors", safetensors_file, all_arrays),
    "zip": ("m.pt", lambda: archive(tensor_pickle(numbers(2, 2), numbers(2, 1))), all_arrays),
    "torch zip": ("m.pt", lambda: saved({"w": np_tensor()}, True), all_arrays),
    "torch stream": ("m.pt", lambda: saved({"w": np_tensor()}, False), all_arrays),
    "onnx": ("m.onnx", onnx_file, all_arrays),
    "tf": ("m.ckpt", tf_index, read_tf),
    "llama2c": ("m.bin", llama_file, read_llama2c),
    "tokenizer": ("m.bin", tokenizer_file, lambda path: Tokenizer.read(path, 6)),
}


def np_tensor() -> Any:
    return pytest.importorskip("torch").arange(6.0).reshape(2, 3)


@pytest.mark.parametrize("kind", list(READERS))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files_are_one_kind_of_error(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    name, make, reader = READERS[kind]
    path = tmp_path / name
    path.write_bytes(data.draw(damaged(make())))
    tracemalloc.start()
    with suppress(InputError):
        reader(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**25, "a small file takes little memory, whatever it says"


def test_no_code_here_can_run_a_pickle() -> None:
    for path in Path(pretrained.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            assert not {"pickle", "marshal", "torch"} & set(names), path
            if isinstance(node, ast.Name):
                assert node.id not in ("eval", "exec", "__import__"), path
