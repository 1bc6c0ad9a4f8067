"""Values of users as host arrays of numbers: converted where the numbers stay what they are, else refused by place."""

from __future__ import annotations

import itertools
import sys
from collections import deque
from collections.abc import Iterator, Mapping, MappingView, Set
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.core import Tracer

from fdl.errors import InputError

_READY = (np.dtype(np.float32), np.dtype(np.int32), np.dtype(np.uint8), np.dtype(bool))
_SCALARS = (bool, int, float, complex, np.generic)


class TracedDataError(InputError):
    """A dataset was made from a value that a program takes as an argument."""


def host_tree(value: Any, name: str) -> Any:
    """A pytree with numpy arrays of numbers as its leaves.

    A list is one array wherever it stands, as nested ones are, and so is a tuple of numbers; other tuples are parts.

    Args:
      value: see `host_array` for its leaves.
      name: of the entry, for errors; "" where the tree holds the names.

    Raises:
      InputError: as `host_array`.

    >>> host_tree({"a": [1, 2], "b": ([3.0], (4.0, 5.0))}, "x")
    {'a': array([1, 2], dtype=int32), 'b': (array([3.]), array([4., 5.]))}
    """

    def convert(path: Any, leaf: Any) -> np.ndarray:
        return host_array(leaf, "/".join(filter(None, (name, tree_path(path)))))

    if isinstance(value, Mapping) and not isinstance(value, dict):  # of Hugging Face, say
        value = dict(value)
    return jax.tree_util.tree_map_with_path(convert, value, is_leaf=_one_array)


def host_array(value: Any, name: str) -> np.ndarray:
    """One numpy array of numbers in the machine's byte order, which JAX takes as it is.

    Lists, torch tensors (on any device, with or without a gradient) and columns of data frames become arrays. Masked
    and missing floats become NaN. Integers of more than 32 bits become int32 unless JAX has its 64-bit types on.

    Args:
      value: the numbers.
      name: of the entry, for errors.

    Raises:
      InputError: no numbers (text, dates, durations, categories, records, objects), ragged rows, sparse matrices,
        masked or missing integers, numbers that 32 bits cannot hold; with the place of the first of them.
      TracedDataError: a traced value.

    >>> host_array(np.ma.masked_equal([1.0, -999.0], -999), "x")
    array([ 1., nan])
    """
    if isinstance(value, Tracer):
        raise TracedDataError(
            f"dataset array {name!r} is traced: data must not depend on a swept value; "
            "compute it from fields that are not swept, or apply the swept value in the objective or in augment"
        )
    return _host(value, f"dataset array {name!r}")


def jax_tree(value: Any, where: str) -> Any:
    """A pytree whose leaves JAX takes: arrays of other libraries and lists of numbers are converted as datasets do.

    Arrays of JAX (traced ones too), numbers of Python and what is no array stay as they are.

    Args:
      value: what a layer, a step or an ensemble was called with.
      where: for errors.

    Raises:
      InputError: as `host_array`.

    >>> jax_tree({"x": np.array([1, 2], ">f4"), "scale": 2.0}, "the batch")
    {'scale': 2.0, 'x': array([1., 2.], dtype=float32)}
    """

    def convert(path: Any, leaf: Any) -> Any:
        if isinstance(leaf, jax.Array) or not (_sparse(leaf) or hasattr(leaf, "__array__") or isinstance(leaf, list)):
            return leaf
        return _host(leaf, f"{where}, {tree_path(path)!r}" if path else where)

    return jax.tree_util.tree_map_with_path(convert, value, is_leaf=_plain_list)


def _plain_list(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and _plain(value)


def _host(value: Any, where: str) -> np.ndarray:
    if type(value) is np.ndarray and value.dtype in _READY:
        return value
    return _for_device(numbers(value, where), where)


def numbers(value: Any, where: str) -> np.ndarray:
    """As `host_array`, but in whatever width the numbers have; `where` stands at the start of an error."""
    return _numbers(_array(value, where), where)


def tree_path(path: Any) -> str:
    """`"x/0"` for a path of `jax.tree_util`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def spelled_leaves(tree: Any) -> list[tuple[str, str]]:
    """The path of each array with its dtype and shape, for messages.

    >>> spelled_leaves({"x": np.ones((3, 2)), "y": np.arange(3, dtype=np.int32)})
    [('x', 'float64[3, 2]'), ('y', 'int32[3]')]
    """
    return [(tree_path(path), f"{leaf.dtype}{list(leaf.shape)}") for path, leaf in jax.tree.leaves_with_path(tree)]


def _one_array(value: Any) -> bool:
    """Whether a node of a tree is one array, not several parts."""
    if type(value) is tuple:
        return bool(value) and _all_numbers(value)
    return isinstance(value, list | Iterator | Set | MappingView | range | deque) or _sparse(value)


def _all_numbers(value: Any) -> bool:
    return all(isinstance(item, _SCALARS) or (type(item) is tuple and item and _all_numbers(item)) for item in value)


def _refuse(where: str, got: str, advice: str) -> NoReturn:
    raise InputError(f"{where}: expected numbers, got {got}; {advice}")


def _array(value: Any, where: str) -> np.ndarray:
    """An array of any dtype, perhaps a masked one."""
    if isinstance(value, np.ndarray):
        return value
    if isinstance(value, list | tuple):
        return _stacked(value, where)
    if _sparse(value):
        _refuse(where, f"a sparse {type(value).__name__}", "pass value.toarray() (todense()) if that fits into memory")
    library = type(value).__module__.partition(".")[0]
    if _is_tensor(value):
        return _from_torch(value, where)
    if library == "pandas":
        return _from_pandas(value, where)
    if isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.extended):
        _refuse(where, f"random keys ({value.dtype})", "pass jax.random.key_data(keys)")
    try:
        return np.asarray(value)
    except ValueError as error:
        raise InputError(f"{where} is ragged or no array at all: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # each library raises its own; the words are its own as well
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{where}: expected numbers, got a {type(value).__name__} ({reason})") from None


def _sparse(value: Any) -> bool:
    return hasattr(value, "toarray") or (hasattr(value, "todense") and not isinstance(value, np.ndarray))


def _is_tensor(value: Any) -> bool:
    return isinstance(value, getattr(sys.modules.get("torch"), "Tensor", ()))


def _stacked(rows: Any, where: str) -> np.ndarray:
    """Rows as one array. Python's numbers go the quick way, in one call; anything else row by row."""
    if _plain(rows):
        try:
            return np.asarray(rows)
        except ValueError as error:
            raise InputError(f"{where} is ragged or no array at all{_unequal(rows)}: {error}") from None
        except OverflowError:
            return np.asarray(rows, object)
    arrays = [_numbers(_array(row, f"{where}, row {i}"), f"{where}, row {i}") for i, row in enumerate(rows)]
    if len({array.shape for array in arrays}) > 1:
        raise InputError(f"{where} is ragged{_unequal(arrays)}")
    return np.stack(arrays)


def _plain(rows: Any) -> bool:
    """Whether nested lists hold numbers and text of Python and numpy alone."""
    kinds = set(map(type, rows))
    while kinds and kinds <= {list, tuple}:
        rows = list(itertools.chain.from_iterable(rows))
        kinds = set(map(type, rows))
    nested = {list, tuple} & kinds  # beside numbers: ragged
    return all(issubclass(kind, (*_SCALARS, str, bytes)) for kind in kinds - nested)


def _unequal(rows: Any) -> str:
    """The first row that has another shape than row 0."""
    try:
        shapes = [np.shape(row) for row in rows]
    except ValueError:  # a row is ragged itself
        return ""
    for i, shape in enumerate(shapes):
        if shape != shapes[0]:
            return f" (row 0 has shape {list(shapes[0])}, row {i} {list(shape)}; pad them: fdl.data.pad)"
    return ""


def _from_torch(tensor: Any, where: str) -> np.ndarray:
    """Its own dtype; bfloat16 and float8 are those of `ml_dtypes`."""
    torch = sys.modules["torch"]
    if tensor.is_nested or tensor.layout != torch.strided:
        _refuse(where, f"a sparse or ragged tensor ({tensor.layout})", "pass value.to_dense(), or pad it")
    if tensor.is_quantized or tensor.is_meta:
        got = "a tensor without data (device meta)" if tensor.is_meta else "a quantized tensor"
        _refuse(where, got, "load it first" if tensor.is_meta else "pass value.dequantize()")
    try:
        plain = tensor.detach().cpu().resolve_conj().resolve_neg()
        dtype = getattr(ml_dtypes, str(tensor.dtype).removeprefix("torch."), None)  # those that numpy lacks
        if dtype is None:
            return plain.numpy()
        return plain.contiguous().view({1: torch.uint8, 2: torch.int16}[tensor.element_size()]).numpy().view(dtype)
    except (TypeError, RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{where}: expected numbers, got a tensor of {tensor.dtype} ({reason})") from None


def _from_pandas(value: Any, where: str) -> np.ndarray:
    if hasattr(value, "columns"):
        if not len(value.columns):
            _refuse(where, "a data frame without columns", "leave it out")
        picked = [(name, value.iloc[:, place]) for place, name in enumerate(value.columns)]
        parts = [(_from_pandas(column, f"{where}, column {name!r}"), name) for name, column in picked]
        return np.stack([_numbers(part, f"{where}, column {name!r}") for part, name in parts], 1)
    dtype = getattr(value, "dtype", None)
    if dtype is None or isinstance(dtype, np.dtype):
        return np.asarray(value)
    if dtype.name == "category":
        _refuse(where, "categories", "pass value.cat.codes (-1 = missing), or one-hot")
    missing = np.asarray(value.isna())
    plain = getattr(dtype, "numpy_dtype", getattr(dtype, "subtype", None))
    if dtype.kind == "f":
        return value.to_numpy(dtype=plain, na_value=np.nan)
    if dtype.kind in "iub" and missing.any():
        _refuse(where, f"a missing value at index {missing.argmax()}", "integers have no NaN: fill it, or pass floats")
    return value.to_numpy(dtype=plain if dtype.kind in "iub" else None)


def _numbers(array: np.ndarray, where: str) -> np.ndarray:
    """The array without a mask, as plain numbers of a dtype that JAX has but for its width."""
    if isinstance(array, np.ma.MaskedArray):
        array = _unmasked(array, where)
    array = np.asarray(array)
    if array.dtype == object:
        array = _from_objects(array, where)
    if array.dtype.kind in _ADVICE:
        _refuse(where, f"dtype {array.dtype}{_first(array)}", _ADVICE[array.dtype.kind])
    if array.dtype.names:
        names = ", ".join(map(repr, array.dtype.names[:8]))
        _refuse(where, f"records with the fields {names}", f"pass each by itself: value[{array.dtype.names[0]!r}]")
    if not (jnp.issubdtype(array.dtype, np.number) or array.dtype == bool):
        _refuse(where, f"dtype {array.dtype}{_first(array)}", "encode them first")
    if array.dtype.type in (np.longdouble, np.clongdouble):
        return _narrowed(array, np.complex128 if array.dtype.kind == "c" else np.float64, where)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


_ADVICE = {
    "U": "encode them first",
    "S": "encode them first",
    "T": "encode them first",
    "M": "encode dates first, as days since the first: (value - value.min()) / np.timedelta64(1, 'D')",
    "m": "divide durations by their unit: value / np.timedelta64(1, 's')",
}


def _unmasked(array: np.ma.MaskedArray, where: str) -> np.ndarray:
    mask = np.ma.getmaskarray(array)
    if array.dtype.names or not mask.any():
        return array.data
    if not jnp.issubdtype(array.dtype, np.inexact):
        place = np.argwhere(mask)[0].tolist()
        advice = "fill it, or pass floats, where it becomes NaN"
        _refuse(where, f"a masked {array.dtype} at index {_place(place)}", advice)
    plain = np.array(array.data)
    plain[mask] = np.nan
    return plain


def _from_objects(array: np.ndarray, where: str) -> np.ndarray:
    """Numbers, or equal arrays of them, that stand in an array of objects."""
    items = array.ravel().tolist()
    if array.ndim and items and all(isinstance(item, np.ndarray | list) or _is_tensor(item) for item in items):
        rows = _stacked(items, where)
        return rows.reshape(*array.shape, *rows.shape[1:])
    odd = next((i for i, item in enumerate(items) if not isinstance(item, _SCALARS)), None)
    if odd is not None:
        place = np.unravel_index(odd, array.shape)
        _refuse(where, *_object(items[odd], [int(n) for n in place]))
    plain = np.asarray(array.tolist())
    if plain.dtype == object:
        _refuse(where, "integers of more than 64 bits", "scale them, or pass floats")
    return plain


def _object(item: Any, place: list[int]) -> tuple[str, str]:
    """What an object is, and what to do with it; `place` is empty where it stands for the whole array."""
    if item is None or type(item).__name__ in ("NAType", "NaTType"):
        got, advice = str(item), "a missing number is NaN"
    else:
        got, advice = repr(item)[:60] if place else f"a {type(item).__name__}", "encode it first"
    if isinstance(item, Mapping):
        advice = "pass an array for each name: {name: [row[name] for row in rows] for name in rows[0]}"
    elif hasattr(item, "__getitem__") and hasattr(item, "__len__"):
        advice = "from_indexable(...) makes a stream of a set that is read by index"
    elif hasattr(item, "__iter__"):
        advice = "make a list or an array of it"
    elif hasattr(item, "__float__"):
        advice = "pass float(value)"
    return f"dtype object ({got} at index {_place(place)})" if place else got, advice


def _first(array: np.ndarray) -> str:
    """The first value, and where."""
    if not array.size:
        return ""
    value = repr(array.ravel()[0].item())[:60]
    return f" ({value} at index {_place([0] * array.ndim)})" if array.ndim else f" ({value})"


def _place(index: list[int]) -> Any:
    return index[0] if len(index) == 1 else tuple(index)


def _for_device(array: np.ndarray, where: str) -> np.ndarray:
    """What JAX keeps of an array: 32 bits, unless its 64-bit types are on."""
    if jax.config.read("jax_enable_x64"):
        return array
    if array.dtype in (np.int64, np.uint64, np.uint32):
        limit = np.iinfo(np.int32)
        if array.size and (array.min() < limit.min or array.max() > limit.max):
            first = _first_where((array < limit.min) | (array > limit.max), array)
            why = (
                "which JAX would wrap silently" if array.dtype != np.uint32 else "to which unsigned ones are converted"
            )
            raise InputError(f"{where}: values beyond 32-bit integers, {why} ({first[0]} at index {first[1]})")
        return array.astype(np.int32)
    if array.dtype == np.complex128:
        _narrowed(array, np.complex64, where)
    if array.dtype == np.float64 and array.size:
        largest = max(np.fmax.reduce(array, axis=None), -np.fmin.reduce(array, axis=None))
        if largest > np.finfo(np.float32).max:
            _narrowed(array, np.float32, where)
    return array


def _narrowed(array: np.ndarray, dtype: Any, where: str) -> np.ndarray:
    """The array in a narrower dtype, which must not turn a finite number into an infinite one."""
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = array.astype(dtype)
    lost = np.isfinite(array) & ~np.isfinite(narrow)
    if lost.any():
        value, place = _first_where(lost, array)
        beyond = f"{np.finfo(dtype).bits}-bit floats, where it would be infinite"
        raise InputError(f"{where}: {value} is beyond {beyond} (at index {place})")
    return narrow


def _first_where(condition: np.ndarray, array: np.ndarray) -> tuple[str, Any]:
    place = np.argwhere(condition)[0].tolist()
    return str(array[tuple(place)]), _place(place)
