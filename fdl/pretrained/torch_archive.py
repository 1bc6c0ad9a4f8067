"""Archives of PyTorch (`torch.save`), the zip of today and the stream of before 1.6, read as data.

Both hold a pickle that names tensors by storage, offset, size and stride, and the bytes of the storages beside it. The
pickle is parsed, never executed (`fdl.data.formats.pickled`); what it may name is listed here.
"""

from __future__ import annotations

import io
import math
import os
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from fdl.data.formats.pickled import KNOWN, Known, read_stream
from fdl.data.formats.source import Source, damage, open_source

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_MOST_VALUES, _DEEPEST = 2**20, 16


def is_torch_archive(path: Path) -> bool:
    """Whether a file begins like one: as a zip, or as a pickle of protocol 2."""
    with path.open("rb") as file:
        return file.read(4) in (b"PK\x03\x04", b"\x80\x02\x8a\x0a")


def read_torch(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of an archive that `torch.save` wrote, by name.

    Dicts and lists inside one another give names joined by "/", so that {"state_dict": {"fc.weight": ...}} becomes
    "state_dict/fc.weight". One tensor alone is called "tensor". What is no tensor (numbers, text) is left
    out. The arrays may be views of one storage, and are read-only. Files of before 1.6 may have at most 1 GiB.

    Raises:
      InputError: a damaged file; a pickle that names anything but tensors and plain containers (a whole model saved
        with `torch.save(model)`, TorchScript); quantized or sparse tensors.
    """
    path = Path(path)
    with damage(str(path), "an archive of PyTorch"):  # where its end is damaged, looking for that raises as well
        zipped = zipfile.is_zipfile(path)
    if zipped:
        return _read_zip(path)
    source = open_source(path, "an archive of PyTorch")
    with damage(source.name, "an archive of PyTorch"):
        return _read_stream(source)


class Storage:
    """What a pickle names as `torch.FloatStorage` and so on; called, it is nothing that a tensor could be made of."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = np.dtype(dtype)

    def __call__(self, *args: Any) -> Any:
        raise ValueError("a storage inside the pickle")


@dataclass(frozen=True)
class _Data:
    """One storage: its key, dtype and the number of its elements."""

    key: str
    dtype: np.dtype
    count: int


@dataclass(frozen=True, eq=False)
class _Tensor:
    """One tensor, as the pickle has it: a view of a storage whose bytes come later."""

    storage: _Data
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, values: np.ndarray) -> np.ndarray:
        """The view; every element of it lies inside the storage."""
        size = values.dtype.itemsize
        strides = [stride * size for stride in self.strides]
        flat = values[self.offset :]
        return np.lib.stride_tricks.as_strided(flat, self.shape, strides, writeable=False)


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """`torch._utils._rebuild_tensor_v2`, checked: an array may neither leave its storage nor be larger than it."""
    whole = all(
        isinstance(sizes, tuple) and all(type(n) is int and n >= 0 for n in sizes) for sizes in (shape, strides)
    )
    if not isinstance(storage, _Data) or not whole or type(offset) is not int or len(shape) != len(strides):
        raise ValueError("a tensor of something other than a storage, an offset, sizes and strides")
    if len(shape) > 32:
        raise ValueError(f"a tensor of {len(shape)} axes")
    count = math.prod(shape)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) if count else offset
    if offset < 0 or count > storage.count or (count and last >= storage.count) or offset > storage.count:
        raise ValueError(f"a tensor of {count} elements at {offset} in a storage of {storage.count}")
    return _Tensor(storage, offset, shape, strides)


def _parameter(tensor: Any, *_: Any) -> Any:
    if not isinstance(tensor, _Tensor):
        raise ValueError("a parameter that is no tensor")
    return tensor


_DTYPES = {
    **{"Double": np.float64, "Float": np.float32, "Half": np.float16, "BFloat16": ml_dtypes.bfloat16},
    **{"Long": np.int64, "Int": np.int32, "Short": np.int16, "Char": np.int8, "Byte": np.uint8, "Bool": np.bool_},
    **{"ComplexFloat": np.complex64, "ComplexDouble": np.complex128},
}
_TORCH: dict[str, Callable[..., Any]] = {
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
    "torch Size": lambda sizes=(): tuple(sizes),
    **{f"torch {name}Storage": Storage(dtype) for name, dtype in _DTYPES.items()},
}
_KNOWN: Known = {**KNOWN, **_TORCH}


def _storage(argument: Any) -> _Data:
    """A persistent id: ("storage", type, key, device, number of elements)."""
    if not isinstance(argument, tuple) or len(argument) not in (5, 6) or argument[0] not in ("storage", b"storage"):
        raise ValueError("a persistent id that is no storage")
    _, kind, key, _, count, *view = argument
    kind = getattr(kind, "make", kind)  # a global on the stack of the pickle
    if not isinstance(kind, Storage) or type(count) is not int or count < 0 or any(view):
        raise ValueError("a storage of an unknown kind")
    key = key.decode("latin1") if isinstance(key, bytes) else key
    if not isinstance(key, str):
        raise ValueError("a storage without a key")
    return _Data(key, kind.dtype, count)


def _nodes(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Everything inside dicts, lists and tuples, with its path; a dict may hold itself, so there is a limit."""
    yield path, value
    if depth > _DEEPEST:
        raise ValueError(f"dicts and lists more than {_DEEPEST} deep")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, item in items:
        key = key.decode("latin1") if isinstance(key, bytes) else str(key)
        yield from _nodes(item, f"{path}/{key}" if path else key, depth + 1)


def _listed(value: Any) -> dict[str, _Tensor]:
    found: dict[str, _Tensor] = {}
    for visited, (path, node) in enumerate(_nodes(value)):
        if visited >= _MOST_VALUES:  # a few bytes can put the same dict into another again and again
            raise ValueError(f"more than {_MOST_VALUES} values")
        if isinstance(node, _Tensor):
            found[path or "tensor"] = node
    if not found:
        raise ValueError("no tensors in it")
    return found


def _read_zip(path: Path) -> dict[str, np.ndarray]:
    """`NAME/data.pkl` and `NAME/data/KEY` for every storage, not compressed."""
    name = str(path)
    with damage(name, "an archive of PyTorch"), _unzipping(), zipfile.ZipFile(path) as archive:
        (pickle,) = (info for info in archive.infolist() if info.filename.split("/")[1:] == ["data.pkl"])
        root, room = pickle.filename.split("/")[0], path.stat().st_size

        def member(relative: str) -> bytes:
            nonlocal room
            info = archive.getinfo(f"{root}/{relative}")
            room -= info.file_size  # entries may overlap; all that are read together fit into the file
            if info.compress_type != zipfile.ZIP_STORED or room < 0:
                raise ValueError(f"the entry {relative[:80]!r} is compressed, or stored twice")
            return archive.read(info)  # which checks its CRC-32

        if f"{root}/byteorder" in archive.namelist() and member("byteorder") != sys.byteorder.encode():
            raise ValueError("another byte order than that of this machine")
        found = _listed(read_stream(io.BytesIO(member("data.pkl")), name, _KNOWN, _storage))
        return _filled(found, lambda storage: member(f"data/{storage.key}"))


@contextmanager
def _unzipping() -> Iterator[None]:
    """`zipfile` seeks to impossible places and asks for passwords where an archive says so."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise ValueError(str(error)) from None


def _read_stream(source: Source) -> dict[str, np.ndarray]:
    """Pickles one after another: magic number, version, system, the value, keys; then count and bytes of each storage.

    The counts are int64, little-endian.
    """
    data = source.read()
    stream = io.BytesIO(data)
    magic, protocol, system, value, keys = (
        read_stream(stream, source.name, _KNOWN, _storage if i == 3 else None) for i in range(5)
    )
    little = isinstance(system, dict) and any(system.get(key) is True for key in ("little_endian", b"little_endian"))
    if magic != _MAGIC or protocol != _PROTOCOL or not isinstance(keys, list) or not little:
        raise source.error("an archive of PyTorch before 1.6, of a little-endian machine", "something else")
    found = _listed(value)
    storages, places, start = {tensor.storage.key: tensor.storage for tensor in found.values()}, {}, stream.tell()
    for key in keys:
        key = key.decode("latin1") if isinstance(key, bytes) else key
        count = int.from_bytes(data[start : start + 8], "little", signed=True)
        if key not in storages or key in places or count != storages[key].count:
            raise ValueError(f"a storage of {count} elements that no tensor names")
        size = count * storages[key].dtype.itemsize
        places[key] = data[start + 8 : start + 8 + size]
        start += 8 + size
    if start != len(data):
        raise ValueError(f"{len(data)} bytes, where the storages end at {start}")
    return _filled(found, lambda storage: places[storage.key])


def _filled(found: dict[str, _Tensor], data: Callable[[_Data], bytes]) -> dict[str, np.ndarray]:
    """The tensors as views of their storages, each of which is read once."""
    values: dict[str, np.ndarray] = {}
    arrays = {}
    for name, tensor in found.items():
        storage = tensor.storage
        if storage.key not in values:
            values[storage.key] = np.frombuffer(data(storage), storage.dtype)
        flat = values[storage.key]
        if flat.dtype != storage.dtype or len(flat) != storage.count:
            raise ValueError(f"a storage of {len(flat)} elements, where {storage.count} should be")
        arrays[name] = tensor.of(flat)
    return arrays
