"""Real datasets: how each is put together from its files. `fdl.data.load` documents them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from fdl.data import tables
from fdl.data.dataset import Arrays, Full
from fdl.data.fetch import folder, locate
from fdl.data.formats import text
from fdl.data.formats.cifar import read_cifar
from fdl.data.formats.graph_sets import read_graph_text
from fdl.data.formats.idx import read_idx
from fdl.data.formats.matlab import read_piano_rolls
from fdl.data.formats.mel import log_mel
from fdl.data.formats.npz import read_npz
from fdl.data.formats.pickled import read_pickle
from fdl.data.formats.planetoid import PARTS, read_planetoid
from fdl.data.formats.source import damage
from fdl.data.formats.table import read_table
from fdl.data.formats.wav import read_wav
from fdl.data.graphs import pad_each
from fdl.errors import InputError


class Entry(NamedTuple):
    """A dataset: its splits, and a function from one of them to the data."""

    splits: tuple[str, ...]
    read: Callable[[str], Arrays | Full]


def _digits(split: str) -> Arrays:
    try:
        from sklearn import datasets
    except ImportError:
        raise InputError("the digits come with scikit-learn: pip install 'fdl[data]'") from None
    raw: Any = datasets.load_digits()
    everything = Arrays(x=(raw.images[..., None] / 16.0).astype(np.float32), y=raw.target.astype(np.int32))
    shuffled = np.random.RandomState(0).permutation(len(everything))
    cut = len(everything) * 4 // 5
    return everything.take(shuffled[:cut] if split == "train" else shuffled[cut:])


def _idx_images(name: str, split: str) -> Arrays:
    stem = {"train": "train", "test": "t10k"}[split]
    path = locate(f"{name}/{stem}-images-idx3-ubyte.gz")
    images, labels = read_idx(path), read_idx(locate(f"{name}/{stem}-labels-idx1-ubyte.gz"))
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28) or labels.shape != images.shape[:1]:
        raise InputError(f"{path}: expected images uint8 [n, 28, 28] and n labels, got {images.shape}, {labels.shape}")
    return Arrays(x=_unit(images[..., None]), y=labels.astype(np.int32))


def _cifar10(split: str) -> Arrays:
    train = [f"cifar10/data_batch_{number}.bin" for number in range(1, 6)]
    files = [locate("cifar10/test_batch.bin", "cifar10/test_batch.bin.xz")] if split == "test" else map(locate, train)
    images, labels = zip(*(read_cifar(file) for file in files), strict=True)
    return Arrays(x=_unit(np.concatenate(images)), y=np.concatenate(labels)[:, 0].astype(np.int32))


def _unit(images: np.ndarray) -> np.ndarray:
    return np.divide(images, np.float32(255), dtype=np.float32)


def _mnist1d(split: str) -> Arrays:
    path = locate("mnist1d/mnist1d_data.pkl")
    suffix = "" if split == "train" else "_test"
    with damage(str(path), "MNIST-1D: a dict of arrays x, y, x_test, y_test"):
        value = read_pickle(path)
        x, y = np.asarray(value[f"x{suffix}"]), np.asarray(value[f"y{suffix}"])
        return Arrays(x=x.astype(np.float32).reshape(-1, 40, 1), y=y.astype(np.int32))


def _planetoid(name: str, split: str) -> Full:
    graph = read_planetoid({part: locate(f"planetoid/ind.{name}.{part}") for part in PARTS})
    return Full(x=graph.x, edges=graph.edges, y=graph.y, mask=graph.masks[split].astype(np.float32))


def _mutag(split: str) -> Arrays:
    everything = Arrays(**pad_each(read_graph_text(locate("mutag/MUTAG.txt"))))
    if split == "all":
        return everything
    name, fold = split.split("-")
    path = locate(f"mutag/10fold_idx/{name}_idx-{fold}.txt")
    return everything.take(
        [number for line in text.read_integers(path, "a graph number on every line") for number in line]
    )


def _tinyshakespeare(split: str) -> Arrays:
    _, play = text.read_text(locate("tinyshakespeare/input.txt"))
    tokens = text.encode(play, text.vocabulary(play))
    cut = int(len(tokens) * 0.9)
    return Arrays(tokens=tokens[:cut] if split == "train" else tokens[cut:])


def _names(split: str) -> Arrays:
    _, lines = text.read_text(locate("names/names.txt"))
    tokens, lengths = text.pad([text.encode(name, ".abcdefghijklmnopqrstuvwxyz") for name in lines.split()])
    return Arrays(tokens=tokens, lengths=lengths)


def _sst2(split: str) -> Arrays:
    columns = {"sentence": "text", "label": ("0", "1")}
    read = partial(read_table, columns=columns, header=False, delimiter="\t", quotes=False)
    parts = {name: read(locate(f"sst2/{name}.tsv")).columns for name in ("train", "dev", "test")}
    counts = Counter(word for sentence in parts["train"]["sentence"] for word in sentence.split())
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    codes = {word: number + 2 for number, word in enumerate(ranked)}
    rows = {name: [[codes.get(w, 1) for w in one.split()] for one in part["sentence"]] for name, part in parts.items()}
    longest = max(len(row) for part in rows.values() for row in part)
    tokens, lengths = text.pad([np.asarray(row, np.int32) for row in rows[split]], longest)
    return Arrays(tokens=tokens, lengths=lengths, y=parts[split]["label"])


def _music(file: str, split: str) -> Arrays:
    rolls = read_piano_rolls(locate(f"music/{file}.mat"))
    x, lengths = text.pad(rolls[{"train": "traindata", "val": "validdata", "test": "testdata"}[split]])
    return Arrays(x=x, lengths=lengths)


SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")


def _fsdd(split: str, features: bool) -> Arrays:
    recordings = folder("fsdd/recordings", "it is github.com/Jakobovski/free-spoken-digit-dataset")
    rows, digits, speakers = [], [], []
    for digit in range(10):
        for code, speaker in enumerate(SPEAKERS):
            for number in range(5) if split == "test" else range(5, 50):
                path = recordings / f"{digit}_{speaker}_{number}.wav"
                rows.append(_spoken(path, features))
                digits.append(digit)
                speakers.append(code)
    x, lengths = text.pad(rows)
    return Arrays(x=x, lengths=lengths, y=np.asarray(digits, np.int32), speaker=np.asarray(speakers, np.int32))


def _spoken(path: Any, features: bool) -> np.ndarray:
    """Frames of 25 ms every 10 ms, or the samples themselves."""
    sound = read_wav(path)
    if sound.samples.shape[1] != 1 or sound.rate != 8000:
        raise InputError(f"{path}: expected one channel at 8000 Hz, got {sound.samples.shape[1]} at {sound.rate}")
    if not features:
        return sound.samples
    return log_mel(sound.samples[:, 0], 8000, window=200, hop=80, num_fft=256, num_mels=40, floor=1e-6)


def _etth1(split: str) -> Arrays:
    series = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
    path = locate("ett/ETTh1.csv")
    table = read_table(path, {"date": "text", **dict.fromkeys(series, "float")})
    with damage(str(path), "dates as 2016-07-01 00:00:00"):
        hours = table.columns["date"].astype("datetime64[h]").astype(np.int64).astype(np.int32)
    month = 30 * 24
    start, stop = {"all": (0, None), "train": (0, 12), "val": (12, 16), "test": (16, 20)}[split]
    rows = slice(start * month, stop and stop * month)
    return Arrays(x=np.stack([table.columns[name] for name in series], 1)[rows], hour=hours[rows])


def _adbench(file: str, split: str) -> Arrays:
    path = locate(f"adbench/{file}.npz")
    with damage(str(path), "an archive of X [n, features] and y [n]"):
        arrays = read_npz(path)
        return Arrays(x=arrays["X"].astype(np.float32), y=arrays["y"].astype(np.int32))


_BOTH, _THREE, _ALL = ("train", "test"), ("train", "val", "test"), ("all",)
_FOLDS = ("all", *(f"{part}-{fold}" for fold in range(1, 11) for part in _BOTH))
_ADBENCH = ("6_cardio", "2_annthyroid", "38_thyroid", "29_Pima", "31_satimage-2", "23_mammography", "40_vowels")
_ADBENCH += ("18_Ionosphere", "4_breastw", "26_optdigits")

SETS: dict[str, Entry] = {
    "digits": Entry(_BOTH, _digits),
    "mnist": Entry(_BOTH, partial(_idx_images, "mnist")),
    "fashion-mnist": Entry(_BOTH, partial(_idx_images, "fashion-mnist")),
    "cifar10": Entry(_BOTH, _cifar10),
    "mnist1d": Entry(_BOTH, _mnist1d),
    "cora": Entry(_THREE, partial(_planetoid, "cora")),
    "citeseer": Entry(_THREE, partial(_planetoid, "citeseer")),
    "mutag": Entry(_FOLDS, _mutag),
    "tinyshakespeare": Entry(("train", "val"), _tinyshakespeare),
    "names": Entry(_ALL, _names),
    "sst2": Entry(("train", "dev", "test"), _sst2),
    "jsb-chorales": Entry(_THREE, partial(_music, "JSB_Chorales")),
    "nottingham": Entry(_THREE, partial(_music, "Nottingham")),
    "fsdd": Entry(_BOTH, partial(_fsdd, features=True)),
    "fsdd-waveforms": Entry(_BOTH, partial(_fsdd, features=False)),
    "etth1": Entry(("all", *_THREE), _etth1),
    "adult": Entry(_BOTH, tables.read_adult),
    **{name: Entry(_ALL, lambda _, layout=layout: tables.read(layout)) for name, layout in tables.LAYOUTS.items()},
    **{f"adbench/{file.split('_')[1].lower()}": Entry(_ALL, partial(_adbench, file)) for file in _ADBENCH},
}
