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
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fdl.errors import InputError

FORMAT = 1
ARRAYS, MANIFEST = "arrays.safetensors", "manifest.json"
KEEP = 2  # the newest so many stay
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
      keep: how many of the newest stay.
    """

    def __init__(
        self, folder: str | os.PathLike[str], before: Callable[[], None] = lambda: None, keep: int = KEEP
    ) -> None:
        self.folder, self.before, self.keep = Path(folder), before, keep
        self._thread = ThreadPoolExecutor(1, "fdl checkpoint")
        self._writing: Future[None] | None = None

    def save(self, step: int, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """Starts to write a checkpoint; waits for the one before. The arrays must not change until it is done.

        Raises:
          CheckpointError: the one before could not be written.
        """
        self.wait()
        self._writing = self._thread.submit(self._write, step, dict(arrays), dict(facts))

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
          InputError: one was written by a newer fdl; going back behind it would lose what it holds.
        """
        skipped: list[str] = []
        for path in sorted(self._all(), reverse=True):
            try:
                return read(path), skipped
            except CheckpointError as error:
                skipped.append(str(error))
        return None, skipped

    def _all(self) -> list[Path]:
        if not self.folder.is_dir():
            return []
        return [path for path in self.folder.iterdir() if path.name.isdigit() and path.is_dir()]

    def _write(self, step: int, arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> None:
        place = self.folder / f"{step:08d}"
        beside = self.folder / f".{place.name}.tmp"
        try:
            data, dtypes = encoded(arrays)
            self.before()
            self.folder.mkdir(parents=True, exist_ok=True)
            free = shutil.disk_usage(self.folder).free
            if free < len(data) + SPARE:
                raise CheckpointError(f"{place}: {free} bytes are free, {len(data)} are needed")
            shutil.rmtree(beside, ignore_errors=True)  # of a process that was killed
            beside.mkdir()
            _store(beside / ARRAYS, data)
            _store(beside / MANIFEST, _manifest(step, facts, dtypes, {ARRAYS: data}))
            _sync(beside)
            if place.exists():  # a damaged one of the same step, which the run went back behind
                shutil.rmtree(place)
            os.replace(beside, place)
            _sync(self.folder)
        except OSError as error:
            shutil.rmtree(beside, ignore_errors=True)
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"the checkpoint {place} could not be written: {error.strerror or error}") from None
        for old in sorted(self._all())[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)


def read(path: Path) -> Saved:
    """The checkpoint in the folder `path`, every byte of it verified.

    Raises:
      CheckpointError: what is missing, damaged or too much, by the name of its file.
      InputError: a format newer than this version of fdl reads.
    """
    manifest = _read_manifest(path / MANIFEST)
    found = {file.name for file in path.iterdir()} - {MANIFEST}
    listed: dict[str, Any] = manifest["files"]
    for name in sorted(found ^ set(listed)):
        raise CheckpointError(f"{path / name}: {'is not part of the checkpoint' if name in found else 'is missing'}")
    data = _load(path / ARRAYS)
    if (len(data), hashlib.sha256(data).hexdigest()) != (listed[ARRAYS]["size"], listed[ARRAYS]["sha256"]):
        raise CheckpointError(f"{path / ARRAYS}: is damaged ({len(data)} bytes, {listed[ARRAYS]['size']} were written)")
    return Saved(path, manifest["step"], decoded(data, manifest["dtypes"]), manifest["facts"])


def encoded(arrays: Mapping[str, np.ndarray]) -> tuple[bytes, dict[str, str]]:
    """Safetensors, and the names of the dtypes that its reader for NumPy lacks: those are stored as integers."""
    from safetensors.numpy import save

    plain, dtypes = {}, {}
    for name, array in arrays.items():
        if array.dtype.kind == "V" or array.dtype.name not in np.sctypeDict:
            dtypes[name] = array.dtype.name
            array = np.ascontiguousarray(array).view(f"uint{8 * array.dtype.itemsize}")
        plain[name] = np.asarray(array, order="C")
    return save(plain), dtypes


def decoded(data: bytes, dtypes: Mapping[str, str]) -> dict[str, np.ndarray]:
    import ml_dtypes
    from safetensors.numpy import load

    return {
        name: array.view(getattr(ml_dtypes, dtypes[name])) if name in dtypes else array
        for name, array in load(data).items()
    }


def _manifest(step: int, facts: dict[str, Any], dtypes: dict[str, str], files: dict[str, bytes]) -> bytes:
    listed = {name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()}
    content = {"format": FORMAT, "step": step, "files": listed, "dtypes": dtypes, "facts": facts}
    return _sealed(content)


def _read_manifest(path: Path) -> dict[str, Any]:
    data = _load(path)
    try:
        manifest = json.loads(data)
        del manifest["sha256"]
        whole = _sealed(manifest) == data
    except (ValueError, KeyError, TypeError, RecursionError):
        whole, manifest = False, {}
    if not whole:
        raise CheckpointError(f"{path}: is damaged")
    if manifest["format"] > FORMAT:
        raise InputError(f"{path}: has format {manifest['format']}; this fdl reads up to {FORMAT}: update it")
    return manifest


def _sealed(content: dict[str, Any]) -> bytes:
    """The content as JSON that ends with its own SHA-256."""
    digest = hashlib.sha256(json.dumps(content, allow_nan=False).encode()).hexdigest()
    return json.dumps({**content, "sha256": digest}, indent=1, allow_nan=False).encode()


def _load(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise CheckpointError(f"{path}: {'is missing' if missing else error.strerror}") from None


def _store(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    """Makes the names in a folder durable; systems that cannot open one have no need."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
