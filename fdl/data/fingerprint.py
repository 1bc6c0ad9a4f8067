"""What data a run had: names, shapes, dtypes and a checksum, so that two runs can be told to have had the same."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from fdl.data.dataset import Dataset
from fdl.data.stream import Stream
from fdl.rules import path_of

Fingerprint = dict[str, dict[str, Any]]


def fingerprint(sets: Mapping[str, Dataset]) -> dict[str, Fingerprint]:
    """set -> array -> shape, dtype and the CRC-32 of its bytes (8 hexadecimal digits), at about 1 GB/s.

    The arrays of views (`take`) are those that they view, beside "rows". Of a stream it is the first batch.

    >>> import fdl
    >>> fingerprint({"train": fdl.data.Arrays(x=np.zeros((2, 3), np.float32))})
    {'train': {'x': {'shape': [2, 3], 'dtype': 'float32', 'crc32': 'a3c1ca20'}}}
    """
    known: dict[int, dict[str, Any]] = {}  # views share their arrays

    def one(leaf: np.ndarray) -> dict[str, Any]:
        if id(leaf) not in known:
            known[id(leaf)] = {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "crc32": _checksum(leaf)}
        return known[id(leaf)]

    trees = {name: dataset.read(0) if isinstance(dataset, Stream) else dataset.arrays for name, dataset in sets.items()}
    leaves = {name: jax.tree_util.tree_leaves_with_path(tree) for name, tree in trees.items()}
    return {name: {path_of(path).removeprefix("tree/"): one(x) for path, x in leaves[name]} for name in sets}


def _checksum(array: np.ndarray) -> str:
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)  # a view: bfloat16 has no buffer of its own
    return f"{zlib.crc32(data):08x}"  # pyright: ignore[reportArgumentType]
