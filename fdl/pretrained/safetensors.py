"""Safetensors: a length, a header in JSON, and the bytes of the arrays."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ml_dtypes
import numpy as np

from fdl.data.formats.source import damage
from fdl.pretrained.arrays import Lazy

_NARROW = {"F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu"}
_NARROW |= {"F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz"}
"""The package reads these as PyTorch alone has them."""


class Safetensors(Lazy):
    """One file; arrays are read when asked for."""

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
            dtype = self.file.get_slice(name).get_dtype()
            return self._narrow(name, dtype) if dtype in _NARROW else self.file.get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def _narrow(self, name: str, dtype: str) -> np.ndarray:
        with self.path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            entry = json.loads(file.read(size))[name]
            start, end = entry["data_offsets"]
            file.seek(8 + size + start)
            return np.frombuffer(file.read(end - start), getattr(ml_dtypes, _NARROW[dtype])).reshape(entry["shape"])


@contextmanager
def _safely(path: Path) -> Iterator[None]:
    from safetensors import SafetensorError

    with damage(str(path), "a safetensors file"):
        try:
            yield
        except (SafetensorError, OSError) as error:
            raise ValueError(str(error)) from None
