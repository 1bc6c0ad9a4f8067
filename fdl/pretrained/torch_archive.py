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

from fdl.data.formats.pickled import KNOWN, Known, Record, read_stream
from fdl.data.formats.source import Source, damage, open_source
from fdl.errors import InputError

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_MOST_VALUES, _DEEPEST = 2**20, 16
_ADVICE = "where you trust the file, load it with PyTorch and save model.state_dict() alone"


def read_torch(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of an archive that `torch.save` wrote, by name.

    Dicts and lists inside one another give names joined by "/", so that {"state_dict": {"fc.weight": ...}} becomes
    "state_dict/fc.weight". One tensor alone is called "tensor". Arrays of NumPy are read too; what is neither (numbers,
    text, settings) is left out. The arrays may be views of one storage, and are read-only. Files of before 1.6 may have
    at most 1 GiB.

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


class Dtype(Storage):
    """What a pickle names as `torch.float32` and so on."""


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
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    conjugate: bool = False
    negative: bool = False

    def of(self, values: np.ndarray) -> np.ndarray:
        """The view; every element of it lies inside the storage."""
        size = self.dtype.itemsize
        strides = [stride * size for stride in self.strides]
        view = np.ndarray(self.shape, self.dtype, values, self.offset * size, strides)
        view = view.conj() if self.conjugate else view
        return -view if self.negative else view


def _tensor(
    storage: Any, offset: Any, shape: Any, strides: Any, _gradient: Any = None, _hooks: Any = None, bits: Any = None
) -> _Tensor:
    """`torch._utils._rebuild_tensor_v2`; `bits` says what is still to be done: {"conj": True}, {"neg": True}."""
    return _view(storage, None, offset, shape, strides, bits)


def _tensor_v3(
    storage: Any,
    offset: Any,
    shape: Any,
    strides: Any,
    _gradient: Any,
    _hooks: Any,
    dtype: Any,
    bits: Any = None,
) -> _Tensor:
    """`torch._utils._rebuild_tensor_v3`: the storage is bytes, and the dtype is given, such as `torch.float8_e5m2`."""
    dtype = getattr(dtype, "make", dtype)  # a global on the stack of the pickle
    if not isinstance(dtype, Dtype):
        raise ValueError("a tensor of an unknown dtype")
    return _view(storage, dtype.dtype, offset, shape, strides, bits)


def _view(storage: Any, dtype: np.dtype | None, offset: Any, shape: Any, strides: Any, bits: Any) -> _Tensor:
    """A tensor, checked: an array may neither leave its storage nor be larger than it."""
    whole = all(
        isinstance(sizes, tuple) and all(type(n) is int and n >= 0 for n in sizes) for sizes in (shape, strides)
    )
    if not isinstance(storage, _Data) or not whole or type(offset) is not int or len(shape) != len(strides):
        raise ValueError("a tensor of something other than a storage, an offset, sizes and strides")
    if len(shape) > 32:
        raise ValueError(f"a tensor of {len(shape)} axes")
    bits = bits or {}
    if not isinstance(bits, dict) or not set(bits) <= {"conj", "neg"}:
        raise ValueError("a tensor with unknown marks")
    dtype = storage.dtype if dtype is None else dtype
    room = storage.count * storage.dtype.itemsize // dtype.itemsize
    count = math.prod(shape)
    last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True)) if count else offset
    if offset < 0 or count > room or (count and last >= room) or offset > room:
        raise ValueError(f"a tensor of {count} elements at {offset} in a storage of {room}")
    return _Tensor(storage, dtype, offset, shape, strides, bool(bits.get("conj")), bool(bits.get("neg")))


def _parameter(tensor: Any, *_: Any) -> Any:
    if not isinstance(tensor, _Tensor):
        raise ValueError("a parameter that is no tensor")
    return tensor


def _subclass(make: Any, _kind: Any = None, args: Any = (), *_: Any) -> Any:
    """`torch._tensor._rebuild_from_type_v2`: a buffer, or a parameter with attributes, as the tensor that it is."""
    make = getattr(make, "make", make)
    if make not in (_tensor, _tensor_v3, _parameter) or not isinstance(args, tuple):
        raise ValueError("a tensor of an unknown kind")
    return make(*args)


_DTYPES = {
    **{"Double": np.float64, "Float": np.float32, "Half": np.float16, "BFloat16": ml_dtypes.bfloat16},
    **{"Long": np.int64, "Int": np.int32, "Short": np.int16, "Char": np.int8, "Byte": np.uint8, "Bool": np.bool_},
    **{"ComplexFloat": np.complex64, "ComplexDouble": np.complex128},
}
_SCALARS = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "uint16", "uint32", "uint64")
_SCALARS += ("bool", "complex64", "complex128")
_NARROW = ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
_SETTINGS = ("argparse Namespace", "pathlib PosixPath", "pathlib WindowsPath", "pathlib PurePosixPath", "torch device")
_SETTINGS += ("pathlib._local PosixPath", "pathlib._local WindowsPath", "datetime datetime", "datetime timedelta")
_SETTINGS += ("__builtin__ set", "builtins set", "collections Counter", "torch.serialization _get_layout")
_SETTINGS += ("torch.nn.parameter Parameter", "torch.nn.parameter Buffer", "torch Tensor", "types SimpleNamespace")
_TORCH: dict[str, Callable[..., Any]] = {
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v3": _tensor_v3,
    "torch._utils _rebuild_parameter": _parameter,
    "torch._utils _rebuild_parameter_with_state": _parameter,
    "torch._tensor _rebuild_from_type_v2": _subclass,
    "torch Size": lambda sizes=(): tuple(sizes),
    **{f"torch {name}Storage": Storage(dtype) for name, dtype in _DTYPES.items()},
    "torch.storage UntypedStorage": Storage(np.uint8),
    **{f"torch {name}": Dtype(name) for name in _SCALARS},
    **{f"torch {name}": Dtype(getattr(ml_dtypes, name)) for name in _NARROW},
    **dict.fromkeys(_SETTINGS, Record),  # what a script saved beside the weights: passed over, never made
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


def named_arrays(value: Any, where: str) -> dict[str, Any]:
    """The tensors and arrays in nested dicts and lists by path; InputError without any, or for two of one path."""
    found: dict[str, Any] = {}
    for visited, (path, node) in enumerate(_nodes(value)):
        if visited >= _MOST_VALUES:  # a few bytes can put the same dict into another again and again
            raise ValueError(f"more than {_MOST_VALUES} values")
        if isinstance(node, _Tensor | np.ndarray) and found.setdefault(path or "tensor", node) is not node:
            raise InputError(f"{where}: expected tensors of different names, got two called {path[:80]!r}")
    if not found:
        raise InputError(f"{where}: expected tensors in dicts and lists, got a file without any")
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
        found = named_arrays(read_stream(io.BytesIO(member("data.pkl")), name, _KNOWN, _storage, _ADVICE), name)
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
    storages: dict[str, _Data] = {}

    def storage(argument: Any) -> _Data:
        named = _storage(argument)
        return storages.setdefault(named.key, named)

    magic, protocol, system, value, keys = (
        read_stream(stream, source.name, _KNOWN, storage if i == 3 else None, _ADVICE) for i in range(5)
    )
    little = isinstance(system, dict) and any(system.get(key) is True for key in ("little_endian", b"little_endian"))
    if magic != _MAGIC or protocol != _PROTOCOL or not isinstance(keys, list) or not little:
        raise source.error("an archive of PyTorch before 1.6, of a little-endian machine", "something else")
    found, places, start = named_arrays(value, source.name), {}, stream.tell()
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


def _filled(found: dict[str, Any], data: Callable[[_Data], bytes]) -> dict[str, np.ndarray]:
    """The tensors as views of their storages, each of which is read once."""
    values: dict[str, np.ndarray] = {}
    arrays = {}
    for name, tensor in found.items():
        if not isinstance(tensor, _Tensor):
            arrays[name] = tensor
            continue
        storage = tensor.storage
        if storage.key not in values:
            values[storage.key] = np.frombuffer(data(storage), storage.dtype)
        flat = values[storage.key]
        if flat.dtype != storage.dtype or len(flat) != storage.count:
            raise ValueError(f"a storage of {len(flat)} elements, where {storage.count} should be")
        arrays[name] = tensor.of(flat)
    return arrays
