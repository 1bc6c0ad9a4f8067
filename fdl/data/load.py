"""Real datasets by name."""

from __future__ import annotations

import functools
import os
from typing import Literal, overload

from fdl.data.dataset import Arrays, Full
from fdl.data.sets import SETS
from fdl.errors import InputError, did_you_mean


@overload
def load(name: Literal["cora", "citeseer"], split: str) -> Full: ...  # pyright: ignore[reportOverlappingOverload]
@overload
def load(name: str, split: str) -> Arrays: ...
def load(name: str, split: str) -> Arrays | Full:
    """A split of a real dataset, in its fixed documented order.

    Files come from `$FDL_DATA`, else from the user's cache (`$FDL_CACHE`), else they are downloaded once, with a
    sha256. All but the two graphs are `Arrays`; n counts the examples.

    Images: `x` float32 [n, h, w, c] in 0..1, `y` int32 [n].

    - "digits": 1797 handwritten digits of 8 x 8 x 1 with 17 grey levels (UCI, from scikit-learn, no download). Splits
      "train" (1437) and "test" (360): the first 80 % and the rest of `numpy.random.RandomState(0).permutation(1797)`.
    - "mnist", "fashion-mnist": 28 x 28 x 1, "train" (60 000) and "test" (10 000).
    - "cifar10": 32 x 32 x 3, "train" (50 000; only from `$FDL_DATA`, the official `data_batch_1.bin` to `_5.bin`) and
      "test" (10 000).

    Sequences: where lengths differ, 0 behind the end and `lengths` int32 [n].

    - "mnist1d": `x` float32 [n, 40, 1], `y` int32 [n] in 0..9; "train" (4000), "test" (1000).
    - "fsdd": spoken digits, log-mel `x` float32 [n, t, 40] (25 ms every 10 ms), `lengths`, `y`, `speaker` int32 [n];
      "test" (300: recordings 0 to 4 of each speaker and digit), "train" (2700). "fsdd-waveforms": `x` float32
      [n, t, 1] at 8 kHz.
    - "jsb-chorales", "nottingham": piano rolls, `x` uint8 [n, t, 88] of 0 and 1, `lengths`; "train", "val", "test"
      (229, 76, 77 and 694, 173, 170).
    - "etth1": hourly transformer load, `x` float32 [n, 7] (OT last), `hour` int32 [n] since 1970; "train", "val",
      "test" (12, 4, 4 months of 30 days) and "all" (17 420).

    Text.

    - "tinyshakespeare": `tokens` int32 [n], the 65 characters in sorted order; "train" (the first 90 %), "val".
    - "names": `tokens` int32 [n, 15], a = 1 .. z = 26, `lengths`; "all" (32 033).
    - "sst2": `tokens` int32 [n, t] (0 behind the end, 1 = a word that is not in "train", then by falling frequency),
      `lengths`, `y` int32 [n]; "train" (6920), "dev" (872), "test" (1821).

    Graphs.

    - "cora", "citeseer": `Full` of one graph: `x` float32 [2708, 1433] and [3327, 3703], 0/1 as stored (papers divide
      rows by their sum), `edges` int32 [2, 10556] and [2, 9104], both directions, no self-loops, `y` int32, `mask`
      float32: 1 on the nodes of the split, for `weight="mask"`. Planetoid's public "train" (140 and 120), "val" (500),
      "test" (1000).
    - "mutag": 188 molecules as `fdl.data.graphs.pad_each` returns them: `x` float32 [n, 28, 7], `edges` int32
      [n, 2, 66], `sizes`, `y` in 0..1, `mask`; "all", and ten folds "train-1" (170), "test-1" (18) ..
      "train-10", "test-10" (eight graphs are in no test fold).

    Tables: `x` float32 [n, numbers] (NaN = missing), `categories` int32 [n, columns] (-1 = missing) where there are
    any, `y` the target, int32 class or float32. Columns as in the file, not scaled. Split "all", but for "adult".

    - Classes: "adult" ("train" 32 561, "test" 16 281), "german-credit" (1000), "ionosphere" (351), "pima-diabetes"
      (768), "sonar" (208), "titanic" (891).
    - Numbers: "abalone" (4177), "california-housing" (20 640), "esol" (1128), "wine-red" (1599), "wine-white" (4898);
      without x, series in time "airline-passengers" (144), "daily-min-temperatures" (3650), "monthly-sunspots" (2820).
    - Anomalies (y = 1): "adbench/cardio", "adbench/annthyroid", "adbench/thyroid", "adbench/pima",
      "adbench/satimage-2", "adbench/mammography", "adbench/vowels", "adbench/ionosphere", "adbench/breastw",
      "adbench/optdigits".

    Raises:
      InputError: an unknown name or split; files not to be had, or damaged; a package of the extra `data` missing.

    >>> load("digits", split="test")["x"].shape
    (360, 8, 8, 1)
    """
    if name not in SETS:
        raise InputError(f"no dataset {name!r}{did_you_mean(name, SETS)}")
    entry = SETS[name]
    if split not in entry.splits:
        raise InputError(f"dataset {name!r} has no split {split!r}{did_you_mean(split, entry.splits)}")
    return _read(name, split, os.environ.get("FDL_DATA"), os.environ.get("FDL_CACHE"))


@functools.lru_cache(4)
def _read(name: str, split: str, *places: str | None) -> Arrays | Full:
    """Datasets are never written to, so that those last used are kept: an experiment is built several times."""
    return SETS[name].read(split)
