"""Checkpoints on disk: whole and verified, or as if they had never been.

    checkpoints/00000120/arrays.safetensors     every array of the run, by path
    checkpoints/00000120/manifest.json          written last: sizes and SHA-256 of everything else, and of itself

A checkpoint is written beside its place and moved there when all of it is on the disk, so that whatever happens in
between, the newest verified checkpoint is the one before or the new one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fdl.errors import InputError
from fdl.runs.retention import NEWEST, Keep

FORMAT = 1
ARRAYS, MANIFEST = "arrays.safetensors", "manifest.json"
SPARE = 2**20  # bytes that have to stay free beside a checkpoint


class CheckpointError(OSError):
    """A checkpoint could not be written; the one before is still there."""


class Saved(NamedTuple):
    """A verified checkpoint: arrays by path, and what else was said of the run."""

    path: Path
    step: int
    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


class Checkpoints:
    """The checkpoints of a run, written one at a time by a thread of its own.

    Args:
      folder: theirs alone; made when the first is saved.
      before: called before each save, to bring to the disk what a checkpoint is nothing without.
      origin: whose they are; it is told in each, and another one is refused.
      source: name -> hash of the files that the run is written in; for `facts`.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        before: Callable[[], None] = lambda: None,
        origin: Mapping[str, Any] | None = None,
        source: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.before, self.origin = Path(folder), before, dict(origin or {})
        self.source = {f"source/{name}": digest for name, digest in (source or {}).items()}
        self._place: tuple[int, int] | None = None  # of the folder, once something was written
        self._thread = ThreadPoolExecutor(1, "fdl checkpoint")
        self._writing: Future[None] | None = None

    def save(self, step: int, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any], keep: Keep = NEWEST) -> None:
        """Starts to write a checkpoint; waits for the one before. The arrays must not change until it is done.

        Args:
          step: how many are done.
          arrays: by path.
          facts: what else there is to say, as JSON holds it; "score" is what `keep` goes by, better the lower.
          keep: which of those up to this one stay.

        Raises:
          CheckpointError: the one before could not be written.
        """
        self.wait()
        self._writing = self._thread.submit(self._write, step, dict(arrays), {**self.origin, **facts}, keep)

    def check(self) -> None:
        """Raises what went wrong in a save that is over; does not wait for one that is not."""
        if self._writing is not None and self._writing.done():
            self.wait()

    def wait(self) -> None:
        """Waits until everything is on the disk.

        Raises:
          CheckpointError: it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def close(self) -> None:
        """Ends the thread; what it writes is finished first."""
        self._thread.shutdown()

    def newest(self) -> tuple[Saved | None, list[str]]:
        """The newest checkpoint that is whole, and a remark on each newer one that is not.

        Raises:
          InputError: one was written by a newer fdl; going back behind it would lose what it holds. Or it is of another
            origin: it was put there by hand.
        """
        skipped: list[str] = []
        for path in reversed(self.all()):
            try:
                saved = read(path)
            except CheckpointError as error:
                skipped.append(str(error))
                continue
            for name, mine in self.origin.items():
                if saved.facts.get(name, mine) != mine:
                    raise InputError(f"{path}: is of a run with {name} {saved.facts[name]}, this one has {mine}")
            return saved, skipped
        return None, skipped

    def all(self) -> list[Path]:
        """The folder of each checkpoint, damaged or not, by the number of its step."""
        if not self.folder.is_dir():
            return []
        return sorted((path for path in self.folder.iterdir() if is_checkpoint(path)), key=step_of)

    def _write(self, step: int, arrays: dict[str, np.ndarray], facts: dict[str, Any], keep: Keep) -> None:
        place = self.folder / f"{step:08d}"
        beside = self.folder / f".{place.name}.tmp"
        try:
            pieces, dtypes = encoded(arrays)
            self.before()
            if self.folder.is_symlink():
                raise CheckpointError(f"{self.folder} is a link, which nothing is written through: put a folder there")
            if self._place is not None and self._place != _identity(self.folder):
                raise CheckpointError(f"{self.folder} is no longer there: was it deleted, renamed or replaced?")
            self.folder.mkdir(parents=True, exist_ok=True)
            self._place = _identity(self.folder)
            free, needed = shutil.disk_usage(self.folder).free, sum(piece.nbytes for piece in pieces)
            if free < needed + SPARE:
                raise CheckpointError(f"{place}: {free} bytes are free; it needs {needed}, and {SPARE} to spare")
            _remove(beside)  # of a process that was killed
            beside.mkdir()
            files = {ARRAYS: _store(beside / ARRAYS, pieces)}
            content = {"format": FORMAT, "step": step, "files": files, "dtypes": dtypes, "facts": facts}
            _store(beside / MANIFEST, [memoryview(_sealed(content))])
            _sync(beside)
            _remove(place)  # a damaged one of the same step, which the run went back behind
            os.replace(beside, place)
            _sync(self.folder)
        except OSError as error:
            shutil.rmtree(beside, ignore_errors=True)
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"the checkpoint {place} could not be written: {error.strerror or error}") from None
        self._forget(place, keep)

    def _forget(self, newest: Path, keep: Keep) -> None:
        """Deletes what need not stay, once the newest has been read back: so one that is whole is always left.

        Those after it are damaged, or the run would not have gone back behind them: it will overwrite them.
        """
        until = [path for path in self.all() if step_of(path) <= step_of(newest)]
        stay = keep.stay({step_of(path): _score(path) for path in until})
        gone = [path for path in until if step_of(path) not in stay]
        if gone:
            verify(newest)
        for path in gone:
            shutil.rmtree(path, ignore_errors=True)


def is_checkpoint(path: Path) -> bool:
    """Whether a folder has the name of a checkpoint, its step in at least eight digits."""
    name = path.name
    return name.isascii() and name.isdigit() and name == f"{int(name):08d}" and path.is_dir()


def step_of(path: Path) -> int:
    """The step in the name of a checkpoint's folder."""
    return int(path.name)


def verify(path: Path) -> dict[str, Any]:
    """The manifest of the checkpoint in the folder `path`, after every byte of it has been read and is as written.

    Raises:
      CheckpointError, InputError: as `read`.
    """
    manifest = _listed(path)
    for name, written in manifest["files"].items():
        try:
            with (path / name).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
        except OSError as error:
            raise CheckpointError(f"{path / name}: {error.strerror}") from None
        _expect_whole(path / name, size, digest, written)
    return manifest


def read(path: Path) -> Saved:
    """The checkpoint in the folder `path`, every byte of it verified.

    Raises:
      CheckpointError: what is missing, damaged or too much, by the name of its file.
      InputError: a format newer than this version of fdl reads.
    """
    manifest = _listed(path)
    data = _load(path / ARRAYS)
    _expect_whole(path / ARRAYS, len(data), hashlib.sha256(data.data).hexdigest(), manifest["files"][ARRAYS])
    try:
        arrays = decoded(data, manifest["dtypes"])
    except (ValueError, TypeError, LookupError, AttributeError) as error:  # with the right sums, but not written by fdl
        raise CheckpointError(f"{path / ARRAYS}: holds no arrays: {error}") from None
    return Saved(path, manifest["step"], arrays, manifest["facts"])


def _listed(path: Path) -> dict[str, Any]:
    """The manifest, where the folder holds just the files that it lists."""
    manifest = _read_manifest(path / MANIFEST)
    if is_checkpoint(path) and step_of(path) != manifest["step"]:
        raise CheckpointError(f"{path}: holds step {manifest['step']}, which is not the step of its name")
    found, listed = {file.name for file in path.iterdir()} - {MANIFEST}, manifest["files"]
    for name in sorted(found ^ set(listed)):
        raise CheckpointError(f"{path / name}: {'is not part of the checkpoint' if name in found else 'is missing'}")
    return manifest


def _expect_whole(path: Path, size: int, digest: str, written: Mapping[str, Any]) -> None:
    if (size, digest) != (written["size"], written["sha256"]):
        raise CheckpointError(f"{path}: is damaged ({size} bytes, {written['size']} were written)")


def _score(path: Path) -> float | None:
    try:
        score = _read_manifest(path / MANIFEST)["facts"].get("score")
    except (CheckpointError, InputError):
        return None
    return score if isinstance(score, float | int) else None


def encoded(arrays: Mapping[str, np.ndarray]) -> tuple[list[memoryview], dict[str, str]]:
    """The bytes of a safetensors file, piece by piece: the arrays are not copied for it.

    Also the names of the dtypes that its reader for NumPy lacks: those are stored as integers.
    """
    header, dtypes, pieces, end = {}, {}, [], 0
    for name, array in arrays.items():
        if array.dtype.kind == "V" or array.dtype.name not in np.sctypeDict:
            dtypes[name] = array.dtype.name
            array = np.ascontiguousarray(array).view(f"uint{8 * array.dtype.itemsize}")
        kind = f"{array.dtype.kind.upper()}{8 * array.dtype.itemsize}"  # F32, I8, U16, C64
        start, end = end, end + array.nbytes
        dtype = "BOOL" if array.dtype == bool else kind
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, end]}
        raw: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        pieces.append(memoryview(raw))
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return [memoryview(len(text).to_bytes(8, "little") + text), *pieces], dtypes


def decoded(data: np.ndarray, dtypes: Mapping[str, str]) -> dict[str, np.ndarray]:
    """The arrays that `encoded` made these bytes of: parts of `data`, not copies.

    Raises:
      ValueError, TypeError, LookupError, AttributeError: they are something else.
    """
    import ml_dtypes

    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    arrays = {}
    for name, told in sorted(json.loads(data[8:start].tobytes()).items()):
        dtype = np.dtype(bool) if told["dtype"] == "BOOL" else _numbers(told["dtype"])
        begin, end = told["data_offsets"]
        array = np.frombuffer(data[start + begin : start + end], dtype).reshape(told["shape"])
        array = np.require(array, requirements="A")  # behind an odd number of bytes it begins anywhere
        arrays[name] = array.view(np.dtype(getattr(ml_dtypes, dtypes[name]))) if name in dtypes else array
    return arrays


def _numbers(kind: str) -> np.dtype[Any]:
    """The dtype of "F32", "I8", "U16" or "C64"."""
    return np.dtype(f"{kind[0].lower()}{int(kind[1:]) // 8}")


def _read_manifest(path: Path) -> dict[str, Any]:
    data = _load(path).tobytes()
    try:
        manifest = json.loads(data)
        del manifest["sha256"]
        whole = _sealed(manifest) == data and isinstance(manifest["format"], int)
        newer = whole and manifest["format"] > FORMAT
    except (ValueError, KeyError, TypeError, RecursionError):
        whole, newer, manifest = False, False, {}
    if newer:
        raise InputError(f"{path}: has format {manifest['format']}; this fdl reads up to {FORMAT}: update it")
    if not whole or not _is_manifest(manifest):
        raise CheckpointError(f"{path}: is damaged")
    return manifest


def _is_manifest(content: Mapping[str, Any]) -> bool:
    """Whether there is in it what this format has; with the right sum and without that, somebody else wrote it."""
    kinds = {"step": int, "files": dict, "dtypes": dict, "facts": dict}
    if any(not isinstance(content.get(name), kind) for name, kind in kinds.items()):
        return False
    told = {"optimizer": dict, "selected": dict, "names": list, "clocks": dict, "decides": dict}
    files, facts, names = content["files"], content["facts"], [*content["dtypes"].values()]
    if any(name in facts and not isinstance(facts[name], kind) for name, kind in told.items()):
        return False
    if not all(isinstance(name, str) for name in [*names, *facts.get("names", [])]):
        return False
    return set(files) == {ARRAYS} and isinstance(files[ARRAYS], dict) and {"size", "sha256"} <= set(files[ARRAYS])


def _sealed(content: dict[str, Any]) -> bytes:
    """The content as JSON that ends with its own SHA-256."""
    digest = hashlib.sha256(json.dumps(content, allow_nan=False).encode()).hexdigest()
    return json.dumps({**content, "sha256": digest}, indent=1, allow_nan=False).encode()


def _load(path: Path) -> np.ndarray:
    """The bytes of a file in memory that NumPy allocates: in large pages, where what Python allocates is not."""
    try:
        return np.fromfile(path, np.uint8)
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise CheckpointError(f"{path}: {'is missing' if missing else error.strerror}") from None


def _store(path: Path, pieces: Sequence[memoryview]) -> dict[str, Any]:
    """Writes a file to the disk, and says its size and SHA-256."""
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in pieces:
            file.write(piece)
            digest.update(piece)
            size += piece.nbytes
        file.flush()
        os.fsync(file.fileno())
    return {"size": size, "sha256": digest.hexdigest()}


def _remove(folder: Path) -> None:
    """Removes a folder, or the link in its place, if there is one."""
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)


def _identity(folder: Path) -> tuple[int, int] | None:
    try:
        status = folder.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _sync(folder: Path) -> None:
    """Makes the names in a folder durable; systems that cannot open one have no need."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
