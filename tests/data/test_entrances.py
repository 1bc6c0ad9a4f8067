# pyright: reportArgumentType=false, reportCallIssue=false
"""Odd values through every entrance of a dataset: the same numbers, or one error that names the entry and the place."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
import scipy.sparse
from jax.experimental import sparse

import fdl
from fdl import nn
from fdl.data import Arrays, Full, Stream, Windows, from_indexable
from fdl.data.graphs import Graph, pad_each

NAN = float("nan")

ENTRANCES: dict[str, Callable[[Any], np.ndarray]] = {
    "Arrays": lambda value: Arrays(x=value)["x"],
    "a view of Arrays": lambda value: Arrays(x=value).take([0, 1])["x"],
    "a part of Arrays": lambda value: Arrays(x={"a": value, "b": (value, value)})["x"]["b"][1],
    "Full": lambda value: Full(x=value).arrays["x"],
    "Windows": lambda value: Windows(value, 1).series,
    "Stream": lambda value: Stream(lambda step: {"x": value}).read(3)["x"],
    "from_indexable": lambda value: from_indexable([{"x": value}] * 3, 2).read(0)["x"][1],
    "a pair of from_indexable": lambda value: from_indexable([(value, 0)] * 2, 2).read(0)["x"][0],
}


def objects(*items: Any) -> np.ndarray:
    array = np.empty(len(items), object)
    array[:] = items
    return array


def tensor(make: Callable[[Any], Any]) -> Callable[[], Any]:
    return lambda: make(pytest.importorskip("torch"))


# name -> the value, or a function that makes it, and the numbers that it stands for.
READ: dict[str, tuple[Any, Any]] = {
    "a list": ([1, 2], np.array([1, 2], np.int32)),
    "a list of lists": ([[1.0, 2.0], [3.0, 4.0]], np.array([[1.0, 2.0], [3.0, 4.0]])),
    "a list of tuples": ([(1, 2), (3, 4)], np.array([[1, 2], [3, 4]], np.int32)),
    "a tuple of numbers": ((1.5, 2.5), np.array([1.5, 2.5])),
    "tuples of numbers": (((1, 2), (3, 4)), np.array([[1, 2], [3, 4]], np.int32)),
    "a range": (range(2), np.array([0, 1], np.int32)),
    "a deque": (deque([1.0, 2.0]), np.array([1.0, 2.0])),
    "a list of booleans and floats": ([True, 0.5], np.array([1, 0.5])),
    "big-endian integers": (np.array([1, 2], ">i8"), np.array([1, 2], np.int32)),
    "big-endian floats": (np.array([1, 2], ">f4"), np.array([1, 2], np.float32)),
    "big-endian complex numbers": (np.array([1, 2j], ">c8"), np.array([1, 2j], np.complex64)),
    "a list of big-endian rows": ([np.ones(2, ">f4")] * 2, np.ones((2, 2), np.float32)),
    "long doubles": (np.array([1, 2], np.longdouble), np.array([1.0, 2.0])),
    "long complex numbers": (np.array([1, 2], np.clongdouble), np.array([1, 2], np.complex128)),
    "float8 of another kind": (np.ones(2, ml_dtypes.float8_e4m3fnuz), np.ones(2, ml_dtypes.float8_e4m3fnuz)),
    "every other one backwards": (np.arange(4.0)[::-2], np.array([3.0, 1.0])),
    "masked floats": (np.ma.masked_equal([1.0, -999.0], -999), np.array([1, NAN])),
    "masked half floats": (np.ma.array(np.ones(2, np.float16), mask=[1, 0]), np.array([NAN, 1], np.float16)),
    "masked rows": ([np.ma.array([1.0, 2.0], mask=[0, 1])] * 2, np.array([[1, NAN]] * 2)),
    "a masked number in a list": ([1.0, np.ma.masked], np.array([1, NAN])),
    "integers of which none is masked": (np.ma.array([1, 2]), np.array([1, 2], np.int32)),
    "objects that are numbers": (objects(1, 2.5), np.array([1, 2.5])),
    "objects that are rows": (objects([1, 2], [3, 4]), np.array([[1, 2], [3, 4]], np.int32)),
    "a matrix": (np.matrix([[1.0], [2.0]]), np.array([[1.0], [2.0]])),
    "JAX arrays": (lambda: [jnp.ones(2), jnp.zeros(2)], np.array([[1, 1], [0, 0]], np.float32)),
    "bfloat16": (np.ones(2, ml_dtypes.bfloat16), np.ones(2, ml_dtypes.bfloat16)),
    "torch bfloat16": (tensor(lambda t: t.ones(2, dtype=t.bfloat16)), np.ones(2, ml_dtypes.bfloat16)),
    "torch bfloat16 rows": (tensor(lambda t: [t.ones(2).bfloat16()] * 2), np.ones((2, 2), ml_dtypes.bfloat16)),
    "torch float8": (tensor(lambda t: t.ones(2).to(t.float8_e4m3fn)), np.ones(2, ml_dtypes.float8_e4m3fn)),
    "torch with a gradient": (tensor(lambda t: t.ones(2, requires_grad=True)), np.ones(2, np.float32)),
    "torch parameters": (tensor(lambda t: t.nn.Parameter(t.ones(2))), np.ones(2, np.float32)),
    "torch conjugates": (tensor(lambda t: t.tensor([1j, 2j]).conj()), np.array([-1j, -2j], np.complex64)),
    "torch scalars in a list": (tensor(lambda t: [t.tensor(1.0), t.tensor(2.0)]), np.array([1, 2], np.float32)),
    "torch int64": (tensor(lambda t: t.tensor([1, 2])), np.array([1, 2], np.int32)),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("name", READ)
def test_odd_values_are_the_same_numbers_through_every_entrance(name: str, entrance: str) -> None:
    value, expected = READ[name]
    got = ENTRANCES[entrance](value() if callable(value) else value)
    assert type(got) is np.ndarray
    assert got.dtype.isnative
    np.testing.assert_array_equal(got, expected, strict=True)


# name -> the value and what the error says beside the entry's name.
REFUSED: dict[str, tuple[Any, str]] = {
    "text": (np.array(["a", "b"]), r"dtype <U1 \('a' at index 0\); encode them first"),
    "text in a list": (["a", "b"], "encode"),
    "bytes": (np.array([b"a", b"b"]), r"\|S1 \(b'a' at index 0\)"),
    "dates": (np.array(["2020-01-01"] * 2, "M8[D]"), "datetime64.*encode dates first"),
    "durations": (np.array([1, 2], "m8[s]"), r"timedelta64.* value / np.timedelta64\(1, 's'\)"),
    "records": (np.zeros(2, [("a", "f4"), ("b", "i4")]), r"fields 'a', 'b'; .*value\['a'\]"),
    "nothing in an object array": (objects(1.0, None), "None at index 1.*a missing number is NaN"),
    "nothing in a list": ([1.0, None], "row 1: expected numbers, got None; a missing number is NaN"),
    "decimals": ([Decimal("1.5"), Decimal(2)], r"row 0: expected numbers, got a Decimal; pass float\(value\)"),
    "rows as dicts": ([{"a": 1}, {"a": 2}], "row 0: expected numbers, got a dict; pass an array for each name"),
    "a generator": ((n for n in range(2)), "got a generator; make a list or an array of it"),
    "a set": ({1, 2}, "got a set; make a list"),
    "huge integers": ([2**70, 1], "integers of more than 64 bits"),
    "integers beyond 32 bits": ([1, 2**40], r"beyond 32-bit integers.* \(1099511627776 at index 1\)"),
    "floats beyond 32 bits": ([[1.0, 1e300]] * 2, r"1e\+300 is beyond 32-bit floats.*index \(0, 1\)"),
    "and beside NaN": ([NAN, -1e300], r"-1e\+300 is beyond 32-bit floats"),
    "and beside infinity": ([float("inf"), 1e300], r"1e\+300 is beyond 32-bit floats"),
    "and with an imaginary part": ([1 + 1e300j, 0], "beyond 32-bit floats"),
    "masked integers": (np.ma.masked_equal([1, -9], -9), "a masked int64 at index 1; fill it, or pass floats"),
    "masked booleans": (np.ma.array([True, False], mask=[1, 0]), "a masked bool at index 0"),
    "masked integers in a list": ([np.ma.array([1, 2], mask=[0, 1])] * 2, "row 0: .*masked int64 at index 1"),
    "ragged lists": ([[1, 2], [3]], r"is ragged.* \(row 0 has shape \[2\], row 1 \[1\]; pad them"),
    "ragged arrays": ([np.ones(2), np.ones(3)], r"is ragged.* row 1 \[3\]; pad them"),
    "ragged objects": (objects(np.ones(2), np.ones(3)), r"is ragged.* row 1 \[3\]; pad them"),
    "a sparse matrix": (scipy.sparse.eye(2).tocsr(), r"a sparse csr_matrix; pass value.toarray\(\)"),
    "a sparse array of JAX": (lambda: sparse.BCOO.fromdense(jnp.eye(2)), r"a sparse BCOO; .*todense\(\)"),
    "random keys": (lambda: jax.random.split(jax.random.key(0)), "random keys.*key_data"),
    "a sparse tensor": (tensor(lambda t: t.eye(2).to_sparse()), r"sparse.*to_dense\(\)"),
    "a tensor without data": (tensor(lambda t: t.ones(2, device="meta")), "without data .device meta"),
    "ragged tensors": (tensor(lambda t: [t.ones(2), t.ones(3)]), r"is ragged.* row 1 \[3\]; pad them"),
}


@pytest.mark.parametrize("entrance", ENTRANCES)
@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_number_is_refused_by_name_and_place(name: str, entrance: str) -> None:
    value, message = REFUSED[name]
    with pytest.raises(fdl.InputError) as error:
        ENTRANCES[entrance](value() if callable(value) else value)
    assert re.search(message, str(error.value)), str(error.value)
    assert re.search("'series'" if entrance == "Windows" else "'x(/b/1|/a)?'", str(error.value)), str(error.value)
    whereabouts = "batch of step 3" if entrance == "Stream" else r"example \d" if "indexable" in entrance else ""
    assert re.search(whereabouts, str(error.value)), str(error.value)
    assert "\n" not in str(error.value)


@dataclass(frozen=True)
class Echo(fdl.Layer):
    """What JAX makes of the input."""

    def __call__(self, params: Any, x: Any, **_: Any) -> jax.Array:
        return jnp.asarray(x)


def stepped(value: Any) -> np.ndarray:
    """The input of an objective, which is no metric."""
    seen = []

    def objective(params: Any, state: Any, batch: Any, *, key: Any, train: bool) -> fdl.Outcome:
        seen.append(Echo()({}, batch["x"]))
        return fdl.Outcome(params[None])

    step = fdl.make_step(objective, optax.sgd(0.1))
    step(step.init(jnp.float32(0), key=jax.random.key(0)), {"x": value, "scale": 2.0})
    return seen[0]


CALLS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a layer": (lambda value: Echo()({}, value), "Echo: the input"),
    "a layer within others": (lambda value: nn.Serial(Echo(), Echo())({"0": {}, "1": {}}, value), "Serial: the input"),
    "a step": (stepped, "the batch, 'x'"),
    "an ensemble": (
        lambda value: fdl.Ensemble(lambda params, state, x: Echo()({}, x), jnp.ones(2), {})(value)[0],
        "Ensemble: x",
    ),
}


def is_array(value: Any) -> bool:
    return hasattr(value, "__array__") or hasattr(value, "toarray")


@pytest.mark.parametrize("call", CALLS)
def test_predictions_and_steps_take_what_datasets_take(call: str) -> None:
    """The same numbers as JAX has them, or the same error."""
    function, where = CALLS[call]
    for name, (value, expected) in READ.items():
        given = value() if callable(value) else value
        if is_array(given):
            got = function(given)
            np.testing.assert_array_equal(got, jnp.asarray(expected), strict=True, err_msg=name)
    for name, (value, message) in REFUSED.items():
        given = value() if callable(value) else value
        if is_array(given) and not isinstance(given, jax.Array):
            with pytest.raises(fdl.InputError) as error:
                function(given)
            assert re.search(message, str(error.value)), (name, str(error.value))
            assert where in str(error.value)
    with pytest.raises(fdl.InputError, match=f"{where}.*row 1 "):
        function([[1.0, 2.0], [3.0]])


def test_a_summary_takes_what_datasets_take() -> None:
    for x in (np.ones((2, 3), ">f4"), np.ma.ones((2, 3))):
        assert "[2, 1]" in str(fdl.summary(nn.Linear(3, 1), x))
    with pytest.raises(fdl.InputError, match="summary: the example: expected numbers, got dtype datetime64"):
        fdl.summary(nn.Linear(3, 1), np.zeros((2, 3), "M8[D]"))


def test_graphs_take_what_datasets_take() -> None:
    x = np.ma.masked_equal(np.array([[1.0], [-9.0]], ">f8"), -9)
    graph = Graph(x, np.array([[0], [1]], ">i8"), y=np.array(1, np.uint8))
    batch = pad_each([graph])
    np.testing.assert_array_equal(batch["x"], [[[1], [np.nan]]])
    assert all(value.dtype.isnative for value in batch.values())
    for entry, part in {"x": {"x": scipy.sparse.eye(2).tocsr()}, "y": {"y": np.datetime64("2020-01-01")}}.items():
        with pytest.raises(fdl.InputError, match=f"'graph 0/{entry}': expected numbers"):
            pad_each([graph._replace(**part)])


def test_a_run_takes_every_dtype_that_is_read() -> None:
    """Placed on the device, evaluated and trained on: an accepted entry never fails later."""
    dtypes = ["f2", "f8", "u1", "i1", "u2", "?", "c8", "c16", ">f4", ">i2", ml_dtypes.bfloat16, ml_dtypes.float8_e5m2]
    odd = {str(np.dtype(dtype)): np.ones((6, 3), dtype) for dtype in dtypes}
    data = Arrays(x=np.ones((6, 2), np.float32), odd=odd)
    seen: dict[str, str] = {}

    def objective(params: Any, state: Any, batch: Any, *, key: Any, train: bool) -> fdl.Outcome:
        seen.update({name: str(value.dtype) for name, value in batch["odd"].items()})
        sums = {name: jnp.abs(value.astype(jnp.complex64)).sum(-1) for name, value in batch["odd"].items()}
        return fdl.Outcome(batch["x"] @ params, metrics=sums)

    task = fdl.Task(lambda key: (jnp.ones(2), {}), objective)
    result = fdl.run(fdl.Experiment(task, optax.sgd(0.1), data, {"test": data}, batch_size=4, num_steps=1))
    assert {result.metrics[f"test/{name}"] for name in odd} == {3.0}
    other = {"float64": "float32", "complex128": "complex64", ">f4": "float32", ">i2": "int16"}
    assert seen == {name: other.get(name, name) for name in odd}


@pytest.mark.parametrize(
    ("source", "batch"),
    [
        ([{"x": [1.0, 2.0], "y": 0}] * 2, {"x": [[1.0, 2.0]] * 2, "y": [0, 0]}),  # a set of Hugging Face
        ([([1.0, 2.0], 0)] * 2, {"x": [[1.0, 2.0]] * 2, "y": [0, 0]}),
        ([[[1.0, 2.0], 0]] * 2, {"x": [[1.0, 2.0]] * 2, "y": [0, 0]}),
        ([[1.0, 2.0, 3.0]] * 2, {"x": [[1.0, 2.0, 3.0]] * 2}),  # a list of numbers is one array
        ([(1.0, 2)] * 2, {"x": [1.0] * 2, "y": [2] * 2}),  # a tuple is an example's parts
        (np.ones((2, 3)), {"x": [[1.0] * 3] * 2}),
    ],
)
def test_examples_of_lists_and_tuples(source: Any, batch: dict[str, Any]) -> None:
    got = from_indexable(source, 2).read(0)
    assert {name: value.tolist() for name, value in got.items()} == batch


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([{"x": [1.0]}, {"x": [1.0, 2.0]}], r"example . is x \[.\], example . is x \[.\]; pad them"),
        ([{"x": 1.0}, {"x": 1.0, "z": 2}], r"equal shapes; example . is x \[\].*z \[\]"),
        ([{"x": 1.0, "text": "hello"}] * 2, r"example \d: dataset array 'text': .*'hello'"),
        ([{"x": 1.0, "y": None}] * 2, r"example \d: 'y' is None"),
        ([(1.0, 2, 3)] * 2, r"example \d: it has 3 parts, and names are \('x', 'y'\)"),
        ({"x": [1, 2], "y": [0, 1]}, r"source\[i\] must be example i, got a dict; Arrays\(\*\*columns\)"),
        ("ab", "got a str"),
        (iter([1, 2]), "something with len"),
    ],
)
def test_examples_that_make_no_batch(source: Any, message: str) -> None:
    with pytest.raises(fdl.InputError, match=message):
        from_indexable(source, 2).read(0)


@pytest.mark.parametrize("batch_size", [0, -1, 3, 1.5, True, None])
def test_batch_sizes_of_an_indexable(batch_size: Any) -> None:
    with pytest.raises(fdl.InputError, match="does not fit 2 examples"):
        from_indexable([1, 2], batch_size)


def test_an_error_of_the_source_names_its_example() -> None:
    class Broken(list):
        def __getitem__(self, row: Any) -> Any:
            raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone") as error:
        from_indexable(Broken([1, 2]), 2).read(0)
    assert re.search(r"read example \d", error.value.__notes__[0])


def test_data_frames() -> None:
    """Nullable and masked columns as masked arrays: floats become NaN, integers are refused by their place."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": [1, 2], "b": pandas.array([0.5, None], dtype="Float64")})
    np.testing.assert_array_equal(Arrays(x=frame)["x"], [[1, 0.5], [2, NAN]])
    np.testing.assert_array_equal(
        Arrays(x=pandas.DataFrame({"a": [True, False], "b": [0.5, 1]}))["x"], [[1, 0.5], [0, 1]]
    )
    refused = {
        "missing value at index 1; integers": pandas.Series([1, None], dtype="Int64"),
        "categories; pass value.cat.codes": pandas.Series(["a", "b"], dtype="category"),
        "column 'b'.*'x' at index 0": pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
        "NA. at index 1": pandas.Series([1, pandas.NA], dtype=object),
    }
    for message, value in refused.items():
        with pytest.raises(fdl.InputError, match=f"'x'.*{message}"):
            Arrays(x=value)


def test_an_entry_without_arrays_is_refused() -> None:
    for value in (None, {}, ()):
        with pytest.raises(fdl.InputError, match="'y' has no array .*leave it out"):
            Arrays(x=[1, 2], y=value)
