"""Real datasets by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fdl.data.dataset import Arrays
from fdl.errors import InputError, did_you_mean


def load(name: str, split: str) -> Arrays:
    """A split of a real dataset, in its fixed documented order.

    - "digits": handwritten digits, 1797 images of 8 x 8 with 17 grey levels (UCI, from scikit-learn, no download).
      `x` float32 [n, 8, 8, 1] in 0..1, `y` int32 [n] in 0..9. Splits "train" (1437) and "test" (360): the first 80 %
      and the rest of one fixed shuffle, `numpy.random.RandomState(0).permutation(1797)`.

    Raises:
      InputError: an unknown name or split; scikit-learn not installed.

    >>> load("digits", split="test")["x"].shape
    (360, 8, 8, 1)
    """
    if name not in _READERS:
        raise InputError(f"no dataset {name!r}{did_you_mean(name, _READERS)}")
    splits = _READERS[name]()
    if split not in splits:
        raise InputError(f"dataset {name!r} has no split {split!r}{did_you_mean(split, splits)}")
    return splits[split]


def _digits() -> dict[str, Arrays]:
    try:
        from sklearn import datasets
    except ImportError:
        raise InputError("the digits come with scikit-learn: pip install 'fdl[data]'") from None
    raw: Any = datasets.load_digits()
    everything = Arrays(x=(raw.images[..., None] / 16.0).astype(np.float32), y=raw.target.astype(np.int32))
    shuffled = np.random.RandomState(0).permutation(len(everything))
    cut = len(everything) * 4 // 5
    return {"train": everything.take(shuffled[:cut]), "test": everything.take(shuffled[cut:])}


_READERS: dict[str, Callable[[], dict[str, Arrays]]] = {"digits": _digits}
