"""The audit: a clean set gives nothing, and everything that is broken in the digits is found where it is."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.data import Arrays, Full
from fdl.data.auditing import CHUNK_BYTES, audit, require_finite

TRAIN: Any = fdl.data.load("digits", split="train")
TEST: Any = fdl.data.load("digits", split="test")
X, Y = TRAIN["x"], TRAIN["y"]


def broken(**changed: Any) -> Any:
    return audit({"train": Arrays(**({"x": X, "y": Y} | changed)), "test": TEST}, num_classes=10)


def found(audited: Any) -> dict[str, tuple[str, str, str]]:
    return {each.what: (each.set, each.entry, each.detail) for each in (*audited.errors, *audited.findings)}


def edited(array: np.ndarray, places: Any, value: Any) -> np.ndarray:
    array = array.copy()
    array[places] = value
    return array


def test_a_clean_set_gives_nothing():
    clean = audit({"train": TRAIN, "test": TEST}, num_classes=10)
    assert (clean.errors, clean.findings) == ((), ())
    assert str(clean) == "2 sets, 1797 examples: 0 errors, 0 findings"
    assert clean.require() is clean


def test_nan_is_found_at_its_row_and_place():
    audited = broken(x=edited(X, ([5, 9], [3, 0], [2, 0], 0), [np.nan, np.inf]))
    assert found(audited) == {"not finite": ("train", "x", "nan at row 5, position (3, 2, 0) (2 such values)")}
    with pytest.raises(fdl.InputError, match=r"'x' of the set 'train': not finite: nan at row 5, .*; replace them"):
        audited.require()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_nan_is_found_in_every_float_and_an_overflow_is_none(dtype):
    x = np.full((6, 200), 60000.0, np.float32).astype(jnp.dtype(dtype))
    require_finite("train", Arrays(x=x))  # the sum of a float16 row is infinite
    with pytest.raises(fdl.InputError, match="inf at row 4, column 1 "):
        require_finite("train", Arrays(x=edited(x, (4, 1), np.inf)))


def test_rows_are_those_of_the_view():
    """A NaN outside the view is none of its business; a row inside counts from the view's start."""
    x = edited(X.reshape(len(X), -1), (700, 8), np.nan)
    everything = Arrays(x=x, y=Y)
    audited = audit({"train": everything.take(np.arange(690, 1000)), "test": everything.take(np.arange(600))})
    assert found(audited)["not finite"] == ("train", "x", "nan at row 10, column 8 (1 such value)")
    assert len(audited.errors) == 1


def test_rows_are_counted_across_chunks():
    x = np.zeros((40_000, 64), np.float32)
    assert x.nbytes > 2 * CHUNK_BYTES
    x[:] = np.random.default_rng(0).random(x.shape, np.float32)
    x[39_999], x[20_001, 3] = x[17], np.nan
    audited = audit({"train": Arrays(x=x)})
    assert found(audited)["not finite"][2] == "nan at row 20001, column 3 (1 such value)"
    assert found(audited)["duplicates"][2] == "1 of 40000 rows equal to an earlier one (row 39999 = row 17)"


@pytest.mark.parametrize("label", [10, -1])
def test_labels_out_of_range(label):
    audited = broken(y=edited(Y, [7, 9], label))
    detail = f"{label} at row 7, outside 0..9 (2 such labels)"
    assert found(audited) == {"label out of range": ("train", "y", detail)}
    with pytest.raises(
        fdl.InputError, match=f"'y' of the set 'train': label out of range: {label} at row 7.*; give ignore_label"
    ):
        audited.require()
    assert not audit({"train": Arrays(x=X, y=edited(Y, 7, -1))}, num_classes=10, ignore_label=-1).errors


def test_targets_that_are_no_labels():
    assert found(broken(y=Y.astype(np.float32)))["no labels"][2].startswith("float32[1437]; expected integers")
    assert not broken(y=np.eye(10, dtype=np.float32)[Y]).errors


def test_constant_features():
    """Three pixels of the digits never hold ink; as columns that is a finding, in an image only a whole channel is."""
    never = [0, 32, 39]
    flat = X.reshape(len(X), -1)
    assert np.flatnonzero((flat == flat[0]).all(0)).tolist() == never
    audited = audit({"train": Arrays(x=flat, y=Y)})
    assert found(audited) == {"constant features": ("train", "x", "3 of 64: 0 (0), 32 (0), 39 (0)")}
    channels = audit({"train": Arrays(x=np.concatenate([X, np.full_like(X, 0.5)], -1), y=Y)})
    assert found(channels) == {"constant features": ("train", "x", "1 of 2: 1 (0.5)")}


def test_class_balance():
    missing = audit({"train": TRAIN.take((Y != 3) & (Y != 8)), "test": TEST}, num_classes=10)
    assert found(missing) == {
        "classes missing": ("train", "y", "no example of classes 3, 8"),
        "classes unseen": ("test", "y", "no training example of classes 3, 8"),
    }
    few = np.flatnonzero(Y == 4)[5:]
    rare = found(audit({"train": TRAIN.take(np.delete(np.arange(len(Y)), few))}))
    assert list(rare) == ["classes unbalanced"]
    assert "5 of class 4: 31 times as many" in rare["classes unbalanced"][2]
    assert list(found(audit({"train": TRAIN.take(Y == 2)}))) == ["one class"]


def test_examples_seen_in_training():
    leaky = Arrays(x=np.concatenate([X, TEST["x"][100:103]]), y=np.concatenate([Y, TEST["y"][100:103]]))
    audited = audit({"val": TEST.take(np.arange(50)), "train": leaky, "test": TEST}, num_classes=10)
    detail = "3 of 360 rows are training examples (row 100 = row 1437)"
    assert found(audited) == {"seen in training": ("test", "x", detail)}
    overlapping = audit({"train": TRAIN, "test": TRAIN.take([8, 3])})
    assert found(overlapping)["seen in training"][2] == "2 of 2 rows are training examples (row 0 = row 8)"


def test_duplicates_and_their_targets():
    audited = audit({"train": Arrays(x=X[[0, 1, 2, 1, 1]], y=[0, 1, 2, 1, 5])})
    detail = "2 of 5 rows equal to an earlier one (row 3 = row 1), 1 with other targets"
    assert found(audited) == {"duplicates": ("train", "x", detail)}


def test_duplicates_are_the_equal_lines_of_the_file(fdl_data):
    lines = (fdl_data / "tabular" / "wine-quality" / "winequality-white.csv").read_text().split()
    repeats = len(lines) - len(set(lines))
    detail = found(audit({"train": fdl.data.load("wine-white", split="all")}))["duplicates"][2]
    assert detail.startswith(f"{repeats} of 4898 rows")
    assert "other targets" not in detail


def test_a_stream_of_tokens_has_no_examples():
    tokens = Arrays(tokens=np.arange(9) % 3)
    assert not audit({"train": tokens, "val": tokens}).findings


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int32"])
def test_nearly_equal_rows_are_no_duplicates(dtype):
    """All 2^16 rows of 16 zeros and ones: floats whose low bits are all 0, which a weak hash confuses."""
    x = ((np.arange(2**16)[:, None] >> np.arange(16)) & 1).astype(dtype)
    assert not audit({"train": Arrays(x=x)}).findings
    twice = audit({"train": Arrays(x=np.concatenate([x, x[300:303]]))})
    assert found(twice)["duplicates"][2].startswith("3 of 65539 rows equal to an earlier one (row 65536 = row 300)")


def test_a_collision_of_hashes_is_no_duplicate(monkeypatch):
    monkeypatch.setattr("fdl.data.auditing._hashes", lambda view: np.zeros(view.size, np.uint64))
    assert not audit({"train": TRAIN, "test": TEST}).findings


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_images_that_nobody_scaled(dtype):
    audited = audit({"train": Arrays(x=(X * 16).astype(dtype), y=Y)})
    what = "integer images" if dtype == np.uint8 else "unscaled images"
    assert list(found(audited)) == [what]
    assert "0..16" in found(audited)[what][2]


def test_trees_of_entries():
    """Rows are equal where all of their leaves are; paths name the leaf."""
    a, b = np.array([[0.5], [0.5], [0.25]]), np.array([[1, 2], [1, 3], [1, 2]], np.uint8)
    data = Arrays(x={"a": a, "pair": (b, b[:, 0])})
    assert not audit({"train": data}).findings
    assert found(audit({"train": data, "t": data.take([2])}))["seen in training"][1] == "x/a, x/pair/0, x/pair/1"
    bad = Arrays(x={"a": edited(a, (2, 0), np.nan), "pair": (b, b)})
    assert audit({"train": bad}).errors[0].entry == "x/a"


def test_a_graph_has_no_rows_to_compare():
    x = np.ones((5, 2), np.float32) * np.arange(2)
    graph = Full(x=x, edges=np.zeros((2, 7), np.int32), y=np.array([0, 1, 2, 0, 1]))
    assert list(found(audit({"train": graph, "test": graph}, num_classes=3))) == ["constant features"]
    assert found(audit({"train": graph}, num_classes=2))["label out of range"][2].startswith("2 at row 2,")
    assert found(audit({"train": Full(x=edited(x, (3, 1), np.nan))}))["not finite"][2].startswith(
        "nan at row 3, column 1"
    )


@pytest.mark.parametrize("data", [Full(), Full(scale=np.float32(2)), Arrays(x=np.zeros((3, 0))), Arrays(y=[1, 2])])
def test_little_or_nothing_to_look_at(data):
    audited = audit({"": data}, num_classes=3)
    assert not audited.errors
    assert str(audited).startswith("1 set, ")
    assert str(audit({})) == "0 sets, 0 examples: 0 errors, 0 findings"


def test_tokens_are_neither_constant_nor_images():
    tokens = np.concatenate([np.zeros((9, 1), int), np.arange(27).reshape(9, 3)], 1)
    assert not audit({"train": Arrays(x=tokens, y=tokens)}).findings


def test_the_table_is_aligned():
    table = str(broken(x=(X * 16).astype(np.uint8), y=edited(Y, 3, 11))).splitlines()
    assert table[0] == "2 sets, 1797 examples: 1 error, 1 finding"
    column = table[1].index("detail")
    assert table[2].startswith("error  train  y      label out of range")
    assert [line[column - 2 : column] for line in table[2:]] == ["  "] * 2
    assert table[2][column:] == "11 at row 3, outside 0..9 (1 such label)"


@pytest.mark.parametrize("sets", [TEST, {"train": {"x": X}}, None])
def test_datasets_come_by_name(sets: Any) -> None:
    with pytest.raises(fdl.InputError, match=r"audit: expected datasets by name, .*got (Arrays|dict|NoneType)$"):
        audit(sets)
