"""The real files, read to known numbers; skipped where `FDL_DATA` is not set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fdl
from fdl.data import Arrays
from fdl.data.formats.mel import mel_filters
from fdl.data.formats.npz import read_npz
from fdl.data.formats.text import read_text, vocabulary
from fdl.data.sets import SETS
from fdl.errors import InputError

pytestmark = pytest.mark.usefixtures("fdl_data")


def load(name: str, split: str) -> Any:
    return fdl.data.load(name, split)


def test_mnist() -> None:
    test = load("mnist", "test")
    assert (test["x"].shape, test["x"].dtype) == ((10000, 28, 28, 1), np.float32)
    assert test["y"][:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert np.bincount(test["y"]).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert (test["x"].min(), test["x"].max()) == (0, 1)


@pytest.mark.slow
def test_the_training_sets_have_their_published_statistics() -> None:
    """Mean and standard deviation that everyone normalises with: .1307, .3081 and .2860, .3530."""
    for name, mean, std in (("mnist", 0.1307, 0.3081), ("fashion-mnist", 0.2860, 0.3530)):
        train = load(name, "train")
        assert len(train) == 60000
        np.testing.assert_allclose(
            [train["x"].mean(dtype=np.float64), train["x"].std(dtype=np.float64)], [mean, std], atol=5e-5
        )
    assert load("mnist", "train")["y"][:5].tolist() == [5, 0, 4, 1, 9]
    assert np.bincount(train["y"]).tolist() == [6000] * 10


def test_fashion_mnist() -> None:
    test = load("fashion-mnist", "test")
    assert test["y"][:5].tolist() == [9, 2, 1, 1, 6]  # ankle boot, pullover, trouser, trouser, shirt
    assert np.bincount(test["y"]).tolist() == [1000] * 10


@pytest.mark.slow
def test_cifar10() -> None:
    test = load("cifar10", "test")
    assert test["y"][:10].tolist() == [3, 8, 8, 0, 6, 6, 1, 6, 3, 1]  # cat, ship, ship, airplane, frog, ...
    assert np.bincount(test["y"]).tolist() == [1000] * 10
    # Channel means near those of the training batches, .4914 .4822 .4465: red, green, blue are not mixed up.
    np.testing.assert_allclose(test["x"].mean((0, 1, 2), dtype=np.float64), [0.4942, 0.4851, 0.4504], atol=1e-4)


def test_mnist1d() -> None:
    train, test = load("mnist1d", "train"), load("mnist1d", "test")
    assert (train["x"].shape, test["x"].shape) == ((4000, 40, 1), (1000, 40, 1))
    assert train["y"][:5].tolist() == [2, 6, 4, 5, 6]


@pytest.mark.parametrize(
    ("name", "nodes", "features", "edges", "train", "classes"),
    [
        ("cora", 2708, 1433, 10556, 140, [351, 217, 418, 818, 426, 298, 180]),
        ("citeseer", 3327, 3703, 9104, 120, [264, 590, 668, 701, 596, 508]),
    ],
)
def test_planetoid(name: str, nodes: int, features: int, edges: int, train: int, classes: list[int]) -> None:
    """Sizes as PyTorch Geometric lists them: links of both directions, duplicates and self-loops removed."""
    sets = {split: load(name, split).arrays for split in ("train", "val", "test")}
    graph = sets["train"]
    assert graph["x"].shape == (nodes, features)
    assert set(np.unique(graph["x"])) == {0, 1}
    assert graph["edges"].shape == (2, edges)
    assert np.bincount(graph["y"]).tolist() == classes
    assert [int(arrays["mask"].sum()) for arrays in sets.values()] == [train, 500, 1000]
    assert np.stack([arrays["mask"] for arrays in sets.values()]).sum(0).max() == 1  # no node is in two of them
    assert np.bincount(graph["y"][graph["mask"] == 1]).tolist() == [20] * len(classes)
    senders, receivers = graph["edges"]
    assert {(a, b) for a, b in zip(senders, receivers, strict=True)} == set(zip(receivers, senders, strict=True))
    same = graph["y"][senders] == graph["y"][receivers]
    assert same.mean() > 0.7  # homophily: .81 and .74; with the test nodes misplaced it is far lower


def test_mutag() -> None:
    """188 graphs, 3371 nodes, 3721 bonds, 125 mutagenic: TUDataset's table. Ten test folds of 18."""
    everything = load("mutag", "all")
    assert everything["sizes"].sum() == everything["x"].sum() == 3371
    assert (everything["edges"][:, 0] >= 0).sum() == 2 * 3721
    assert np.bincount(everything["y"]).tolist() == [63, 125]
    assert (len(load("mutag", "train-1")), len(load("mutag", "test-1"))) == (170, 18)
    tests = np.concatenate([load("mutag", f"test-{fold}")["sizes"] for fold in range(1, 11)])
    assert (len(tests), set(tests) <= set(everything["sizes"])) == (180, True)


def test_text(fdl_data: Path) -> None:
    train, val = load("tinyshakespeare", "train")["tokens"], load("tinyshakespeare", "val")["tokens"]
    assert (len(train), len(val)) == (1003854, 111540)  # nanoGPT's data/shakespeare_char prints these
    characters = vocabulary(read_text(fdl_data / "tinyshakespeare/input.txt")[1])
    assert len(characters) == 65
    assert "".join(characters[t] for t in train[:14]) == "First Citizen:"
    names = load("names", "all")
    assert names["tokens"].shape == (32033, 15)
    assert "".join(".abcdefghijklmnopqrstuvwxyz"[t] for t in names["tokens"][0, : names["lengths"][0]]) == "emma"


def test_sst2() -> None:
    sets = [load("sst2", split) for split in ("train", "dev", "test")]
    assert [len(one) for one in sets] == [6920, 872, 1821]
    assert [int(one["y"].sum()) for one in sets] == [3610, 444, 909]
    train, dev, _ = sets
    assert train["tokens"].min() == 0
    assert not (train["tokens"] == 1).any()
    assert (dev["tokens"] == 1).any()
    assert ((train["tokens"] > 0).sum(1) == train["lengths"]).all()


def test_music() -> None:
    sets = [load("jsb-chorales", split) for split in ("train", "val", "test")]
    assert [len(one) for one in sets] == [229, 76, 77]
    assert [int(one["x"].sum()) for one in sets] == [53824, 17811, 18367]
    assert sets[0]["lengths"].sum() == 13807
    assert len(load("nottingham", "test")) == 170


def test_fsdd() -> None:
    test = load("fsdd", "test")
    assert np.bincount(test["y"]).tolist() == [30] * 10
    assert np.bincount(test["speaker"]).tolist() == [50] * 6
    waves = load("fsdd-waveforms", "test")
    np.testing.assert_array_equal(test["lengths"], 1 + waves["lengths"] // 80)
    assert (abs(waves["x"]).max((1, 2)) > 0.01).all()
    assert test["x"].min() == pytest.approx(np.log(1e-6))


def test_etth1() -> None:
    everything, *parts = (load("etth1", split) for split in ("all", "train", "val", "test"))
    assert [len(part) for part in parts] == [8640, 2880, 2880]
    assert everything["x"][0, -1] == np.float32(30.5310001373291)
    assert (np.diff(everything["hour"]) == 1).all()
    np.testing.assert_array_equal(np.concatenate([part["hour"] for part in parts]), everything["hour"][:14400])


def test_tables() -> None:
    housing = load("california-housing", "all")
    assert np.isnan(housing["x"]).sum(0).tolist() == [0, 0, 0, 0, 207, 0, 0, 0]
    assert np.bincount(housing["categories"][:, 0]).tolist() == [9136, 6551, 5, 2290, 2658]
    assert housing["y"].mean(dtype=np.float64) == pytest.approx(206855.816909)
    train, test = load("adult", "train"), load("adult", "test")
    assert [len(train), int(train["y"].sum())] == [32561, 7841]
    assert [len(test), int(test["y"].sum())] == [16281, 3846]
    assert (train["categories"] == -1).sum() == 1836 + 1843 + 583  # no workclass, occupation, country
    assert np.bincount(load("titanic", "all")["y"]).tolist() == [549, 342]
    assert np.isnan(load("titanic", "all")["x"]).sum() == 177
    assert len(load("abalone", "all")) == 4177


def test_adbench() -> None:
    """Samples and anomalies as ADBench's table lists them."""
    known = {"cardio": (1831, 176), "thyroid": (3772, 93), "vowels": (1456, 50), "optdigits": (5216, 150)}
    for name, (samples, anomalies) in known.items():
        data = load(f"adbench/{name}", "all")
        assert (len(data), int(data["y"].sum())) == (samples, anomalies)


def test_mel_filters_are_librosas(fdl_data: Path) -> None:
    """The filter banks that Whisper ships, made by librosa."""
    stored = read_npz(fdl_data / "audio/mel_filters.npz")
    for size in (80, 128):
        np.testing.assert_allclose(mel_filters(16000, 400, size), stored[f"mel_{size}"], atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", SETS)
def test_every_set_is_what_a_task_takes(name: str) -> None:
    for split in SETS[name].splits[-2:]:
        if (name, split) == ("cifar10", "train"):
            with pytest.raises(InputError, match="cifar10/data_batch_1.bin"):
                load(name, split)
            continue
        data = load(name, split)
        arrays = data.arrays["tree"] if isinstance(data, Arrays) else data.arrays
        assert {array.dtype for array in arrays.values()} <= {np.dtype(t) for t in ("float32", "int32", "uint8")}
        for array in arrays.values():
            assert not np.isinf(array).any()
        assert name.startswith("adbench") or (fdl.data.load.__doc__ and f'"{name}"' in fdl.data.load.__doc__)
