"""Named arrays in files: safetensors, also in several shards, archives of PyTorch, ONNX. Nothing is ever executed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fdl.data.formats.source import damage
from fdl.errors import InputError
from fdl.pretrained.onnx import read_onnx
from fdl.pretrained.torch_archive import is_torch_archive, read_torch

Tensors = Mapping[str, Any]
"""Name -> array, as a file has them."""

SAFETENSORS, INDEX = "model.safetensors", "model.safetensors.index.json"

_IN_A_FOLDER = (INDEX, SAFETENSORS, "pytorch_model.bin")

_LARGEST_JSON = 2**26


def read(path: str | os.PathLike[str]) -> Tensors:
    """The arrays of a file by name, in the dtypes they are stored in (bfloat16 as `ml_dtypes.bfloat16`).

    Args:
      path: a safetensors file, whose arrays are read one by one, when asked for; the index of a sharded one
        ("model.safetensors.index.json"); an archive of PyTorch (`torch.save`, new and old), read as `read_torch` says;
        a folder that has one of these ("pytorch_model.bin" for the last); or an ONNX file, whose initialisers are read
        (`read_onnx`).

    Raises:
      InputError: no such file, another format, a damaged or hostile file.
    """
    path = Path(path)
    if path.is_dir():
        path = next((path / name for name in _IN_A_FOLDER if (path / name).is_file()), path / SAFETENSORS)
    if not path.is_file():
        raise InputError(f"{path}: expected a safetensors file, its index or an archive of PyTorch, got no such file")
    if path.suffix == ".json":
        return _Merged(_shards(path))
    if path.suffix == ".onnx":
        return read_onnx(path)
    if is_torch_archive(path):
        return read_torch(path)
    return _Safetensors(path)


def write_safetensors(
    path: str | os.PathLike[str], tensors: Tensors, metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays into one safetensors file, which appears under its name only when it is complete.

    Args:
      path: of the file; its folder must exist.
      tensors: name -> array of NumPy or JAX.
      metadata: text -> text; Hugging Face's `transformers` asks for `{"format": "pt"}`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_safetensors(Path(folder) / SAFETENSORS, {"a": np.ones((2, 3), np.float32)})
    ...     read(folder)["a"].shape
    (2, 3)
    """
    from safetensors.numpy import save_file

    path = Path(path)
    # the package writes the memory of an array as it lies: of a transposed view, say, in the wrong order
    arrays = {name: np.array(tensor, order="C", ndmin=0) for name, tensor in tensors.items()}
    part = path.with_name(f"{path.name}.part")
    save_file(arrays, part, dict(metadata) if metadata else None)
    part.replace(path)


def read_json(path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """A file that is one JSON object; InputError where it is not."""
    path = Path(path)
    if not path.is_file() or path.stat().st_size > _LARGEST_JSON:
        raise InputError(f"{path}: expected {what} of at most {_LARGEST_JSON} bytes, got no such file")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected {what}, a JSON object, got something else")
    return value


class _Safetensors(Tensors):
    """One file; arrays are read when asked for, so that a model is never in memory twice."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self.path = path
        with _safely(path):
            self.file = safe_open(path, "np")
            self.names = dict.fromkeys(self.file.keys())

    def __contains__(self, name: object) -> bool:
        return name in self.names  # without reading the array, as Mapping's own would

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.names:
            raise KeyError(name)
        with _safely(self.path):
            return self.file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


class _Merged(Tensors):
    """Several files as one."""

    def __init__(self, parts: Mapping[str, Tensors]) -> None:
        self.parts = parts

    def __contains__(self, name: object) -> bool:
        return name in self.parts

    def __getitem__(self, name: str) -> np.ndarray:
        return self.parts[name][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)


def _shards(path: Path) -> dict[str, Tensors]:
    """Name -> the file that has it, by an index {"weight_map": {name: file}}."""
    places = read_json(path, "the index of a sharded model").get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(file, str) for file in places.values()):
        raise InputError(f'{path}: expected the index of a sharded model, with a "weight_map" from name to file')
    files: dict[str, Tensors] = {}
    for file in sorted(set(places.values())):
        if Path(file).name != file:  # an index must not reach out of its folder
            raise InputError(f"{path}: expected shards beside the index, got {file[:80]!r}")
        if not (path.parent / file).is_file():
            raise InputError(f"{path}: expected the shard {file!r} beside the index, got no such file")
        files[file] = _Safetensors(path.parent / file)
    for name, file in places.items():
        if name not in files[file]:
            raise InputError(f"{path}: expected {name[:80]!r} in {file!r}, got a shard without it")
    return {name: files[file] for name, file in places.items()}


@contextmanager
def _safely(path: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    with damage(str(path), "a safetensors file"):
        try:
            yield
        except (SafetensorError, OSError) as error:
            raise ValueError(str(error)) from None
