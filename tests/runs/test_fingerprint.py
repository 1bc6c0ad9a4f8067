"""What the manifest says of the data: the same bytes the same checksum, one bit another."""

from __future__ import annotations

import json
import zlib
from pathlib import Path

import ml_dtypes
import numpy as np
import optax
import pytest

import fdl
from fdl.data.fingerprint import fingerprint

X = np.arange(12, dtype=np.float32).reshape(4, 3)


def test_a_checksum_is_that_of_the_bytes_in_their_order() -> None:
    data = fdl.data.Full(plain=X, turned=np.asfortranarray(X), one=np.float32(3.0), none=X[:0], flag=X > 5)
    found = fingerprint({"train": data})["train"]
    assert found["plain"] == {"shape": [4, 3], "dtype": "float32", "crc32": f"{zlib.crc32(X.tobytes()):08x}"}
    assert found["turned"] == found["plain"], "how memory holds it is no property of the data"
    assert (found["one"]["shape"], found["none"]["crc32"], found["flag"]["dtype"]) == ([], "00000000", "bool")
    half = X.astype(ml_dtypes.bfloat16)
    assert fingerprint({"a": fdl.data.Full(x=half)})["a"]["x"]["crc32"] == f"{zlib.crc32(half.tobytes()):08x}"


def test_a_bit_more_and_a_row_less_are_seen() -> None:
    data = fdl.data.Arrays(x=X, y=X[:, 0])
    other = X.copy()
    other.view(np.uint32)[3, 2] ^= 1
    found = fingerprint({"a": data, "b": fdl.data.Arrays(x=other, y=X[:, 0]), "c": data.take([0, 1, 3])})
    assert found["a"]["x"]["crc32"] != found["b"]["x"]["crc32"]
    assert found["a"]["y"] == found["b"]["y"]
    assert found["c"]["x"] == found["a"]["x"], "a view shares its arrays"
    assert found["c"]["rows"]["shape"] == [3]
    assert "rows" not in found["a"]


def test_views_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    checksum = zlib.crc32
    monkeypatch.setattr(zlib, "crc32", lambda data: sizes.append(len(data)) or checksum(data))
    data = fdl.data.Arrays(x=X)
    fingerprint({"train": data, "a": data.take([0]), "b": data.take([1, 2])})
    assert sorted(sizes) == [4, 8, X.nbytes]


def test_a_stream_is_known_by_its_first_batch() -> None:
    stream = fdl.data.Stream(lambda step: {"x": X + step})
    assert fingerprint({"train": stream}) == fingerprint({"train": fdl.data.Full(x=X)})


def test_it_is_in_the_manifest_before_anything_is_compiled(tmp_path: Path) -> None:
    folder = tmp_path / "x"
    seen = []

    def init(key):
        return {"a": np.float32(1.0)}, {}

    def objective(params, state, batch, *, key, train):
        seen.append((json.loads((folder / "manifest.json").read_text()) if folder.exists() else {}).get("data"))
        return fdl.Outcome((batch["x"] * params["a"]).sum(-1))

    data = fdl.data.Arrays(x=X)
    experiment = fdl.Experiment(
        task=fdl.Task(init, objective), optimizer=optax.sgd(0.1), train=data, evaluate={"val": data}, num_steps=1
    )
    fdl.run(experiment, folder=folder)
    assert seen[0] is None, "the rehearsal comes before the folder"
    assert seen[-1] == fingerprint({"train": data, "val": data})
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["data"] == seen[-1]
    assert [program["name"] for program in manifest["programs"]][:2] == ["chunk", "evaluate/val"]
