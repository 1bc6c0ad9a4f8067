"""Named arrays in files: safetensors and archives of PyTorch, also in shards, npz, ONNX, checkpoints of TensorFlow.

Nothing is ever executed.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fdl.data.formats.npz import read_npz
from fdl.data.formats.pickled import read_pickle
from fdl.errors import InputError
from fdl.file_kinds import file_kind
from fdl.paths import user_path
from fdl.pretrained.arrays import Lazy, as_array, named
from fdl.pretrained.onnx import read_onnx
from fdl.pretrained.safetensors import Safetensors
from fdl.pretrained.tf_checkpoint import read_tf_checkpoint
from fdl.pretrained.torch_archive import named_arrays, read_torch

Tensors = Mapping[str, Any]
"""Name -> array, as a file has them."""

SAFETENSORS, INDEX = "model.safetensors", "model.safetensors.index.json"

_IN_A_FOLDER = (SAFETENSORS, INDEX, "pytorch_model.bin", "pytorch_model.bin.index.json")
_IN_A_FOLDER += ("adapter_model.safetensors", "adapter_model.bin", "variables/variables.index")

_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".npz", ".onnx", ".index")

_SHARD = re.compile(r"-\d{5}-of-(\d{5})")

_LARGEST_JSON = 2**26


def read(path: str | os.PathLike[str]) -> Tensors:
    """The arrays of a file by name, in the dtypes they are stored in (bfloat16 and float8 as those of `ml_dtypes`).

    Args:
      path: "~" is the home folder. One of these, told apart by their first bytes:
        a safetensors file, whose arrays are read one by one, when asked for;
        an archive of PyTorch (`torch.save`, new and old), read as `read_torch` says;
        the index of a model in shards of these two ("model.safetensors.index.json", "pytorch_model.bin.index.json");
        an .npz archive, a pickle of arrays;
        an ONNX file, whose initialisers are read (`read_onnx`);
        a checkpoint of TensorFlow, with or without ".index";
        a folder that has one of these, such as one of Hugging Face, of an adapter, or a SavedModel.

    Raises:
      InputError: no such file; another format, which the error names; a damaged or hostile file.
    """
    path = as_path(path, "read")
    if path.is_dir():
        return _read_folder(path)
    checkpoint = path.with_name(path.name.removesuffix(".index").split(".data-0")[0])
    if checkpoint.with_name(f"{checkpoint.name}.index").is_file():
        return read_tf_checkpoint(checkpoint)
    if not path.is_file():
        raise InputError(f"{path}: expected a file of weights, such as {SAFETENSORS}, got no such file")
    try:
        kind = file_kind(path)
    except OSError as error:
        raise InputError(f"{path}: expected a file that can be read, got {error}") from None
    if path.name.endswith(".index.json"):
        return _Merged(_shards(path))
    reader = _READERS.get(kind.name)
    if reader is None and path.suffix == ".onnx" and not kind.advice:  # ONNX has no magic number
        return read_onnx(path)
    if reader is None:
        raise InputError(
            f"{path}: expected a safetensors file, an archive of PyTorch, .npz, ONNX or a checkpoint of TensorFlow, "
            f"got {kind}"
        )
    return reader(path)


def write_safetensors(
    path: str | os.PathLike[str], tensors: Tensors, metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays into one safetensors file, which appears under its name only when it is complete.

    Args:
      path: of the file; its folder must exist.
      tensors: name -> array of NumPy, JAX or PyTorch; nested dicts give names joined by "/".
      metadata: text -> text; Hugging Face's `transformers` asks for `{"format": "pt"}`.

    Raises:
      InputError: no folder to write into; values that are no arrays, or of a dtype that the format lacks.

    >>> import numpy as np, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_safetensors(Path(folder) / SAFETENSORS, {"a": np.ones((2, 3), np.float32)})
    ...     read(folder)["a"].shape
    (2, 3)
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = as_path(path, "write_safetensors")
    if not (metadata is None or isinstance(metadata, Mapping)):
        raise InputError(f"write_safetensors: metadata: expected text by name, got {type(metadata).__name__}")
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"{path}: expected the name of a file in a folder that exists")
    # the package writes the memory of an array as it lies: of a transposed view, say, in the wrong order
    arrays = {name: as_array(name, tensor).copy(order="C") for name, tensor in named(tensors).items()}
    part = path.with_name(f"{path.name}.part")
    try:
        save_file(arrays, part, dict(metadata) if metadata else None)
    except (SafetensorError, TypeError) as error:
        part.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written as safetensors: {str(error)[:200]}") from None
    part.replace(path)


def read_json(path: str | os.PathLike[str], what: str) -> dict[str, Any]:
    """A file that is one JSON object; InputError where it is not."""
    path = as_path(path, "read_json")
    if not path.is_file():
        raise InputError(f"{path}: expected {what}, got no such file")
    if path.stat().st_size > _LARGEST_JSON:
        raise InputError(f"{path}: expected {what} of at most {_LARGEST_JSON} bytes, got {path.stat().st_size}")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected {what}, a JSON object, got {file_kind(path)}")
    return value


def as_path(path: Any, where: str) -> Path:
    """A path with "~" as the home folder; InputError for anything else."""
    if path == "":
        raise InputError(f"{where}: expected a path, got an empty text")
    try:
        return user_path(path)
    except InputError as error:
        raise InputError(f"{where}: {error}") from None


class _Merged(Lazy):
    """Several files as one."""

    def __init__(self, parts: Mapping[str, Tensors]) -> None:
        self.parts = parts

    def __contains__(self, name: object) -> bool:
        return name in self.parts

    def __getitem__(self, name: str) -> Any:
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
        if Path(file).name != file or file.endswith(".json"):  # an index must not reach out of its folder
            raise InputError(f"{path}: expected shards beside the index, got {file[:80]!r}")
        if not (path.parent / file).is_file():
            raise InputError(f"{path}: expected the shard {file!r} beside the index, got no such file")
        files[file] = read(path.parent / file)
    for name, file in places.items():
        if name not in files[file]:
            raise InputError(f"{path}: expected {name[:80]!r} in {file!r}, got a shard without it")
    return {name: files[file] for name, file in places.items()}


def _read_folder(folder: Path) -> Tensors:
    found = next((folder / name for name in _IN_A_FOLDER if (folder / name).is_file()), None)
    if found is not None:
        return read(found)
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    weights = [path for path in files if path.suffix in _SUFFIXES]
    if weights and all(_SHARD.search(path.name) for path in weights) and len({_whole(path) for path in weights}) == 1:
        return _unindexed(weights)
    if len(weights) == 1:
        return read(weights[0])
    if weights:
        names = ", ".join(path.name for path in weights[:5])
        raise InputError(
            f"{folder}: expected a folder with one file of weights, got {len(weights)}; pass one of {names}"
        )
    raise InputError(
        f"{folder}: expected a folder with weights, such as {SAFETENSORS}, got no such file{_others(files)}"
    )


def _whole(shard: Path) -> str:
    return _SHARD.sub("", shard.name)


def _unindexed(shards: list[Path]) -> Tensors:
    """Shards without an index, "model-00001-of-00002.safetensors" and so on, of which none may be missing."""
    count = int(_SHARD.findall(shards[0].name)[0])
    if len(shards) != count:
        raise InputError(f"{shards[0].parent}: expected {count} shards as in {shards[0].name}, got {len(shards)}")
    parts = [read(path) for path in shards]
    return _Merged({name: part for part in parts for name in part})


def _others(files: list[Path]) -> str:
    """What a folder without weights has instead: the files that may be meant, with their kinds."""
    kinds = [(path.name, file_kind(path)) for path in files[:100]]
    meant = [f"{name}, {kind}" for name, kind in kinds if kind.advice]
    return f"; there is {'; '.join(meant[:3])}" if meant else "".join(f", but {name}" for name, _ in kinds[:1])


_READERS: dict[str, Callable[[Path], Tensors]] = {
    "a safetensors file": Safetensors,
    "an archive of PyTorch": read_torch,
    "an .npz archive of NumPy": read_npz,
    "an ONNX file": read_onnx,
    "a pickle": lambda path: named_arrays(read_pickle(path), str(path)),
    "a JSON document": lambda path: _Merged(_shards(path)),
}
