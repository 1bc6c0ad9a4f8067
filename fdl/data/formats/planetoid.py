"""Planetoid: citation graphs (Cora, Citeseer, Pubmed) as files that are pickles of Python 2."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any, NamedTuple

import numpy as np

from fdl.data.formats.pickled import Record, read_pickle
from fdl.data.formats.source import Source, open_source
from fdl.data.formats.text import read_integers
from fdl.data.graphs import undirected

PARTS = ("x", "tx", "allx", "ty", "ally", "graph", "test.index")

_MOST_CELLS = 2**26
_NUM_VAL = 500


class Planetoid(NamedTuple):
    """One graph and its public split."""

    x: np.ndarray
    """float32 [n, d]: word counts as stored, not normalised."""
    edges: np.ndarray
    """int32 [2, e]: every link in both directions, once, without self-loops."""
    y: np.ndarray
    """int32 [n]: class; 0 for a node whose row of one-hot labels is empty."""
    masks: dict[str, np.ndarray]
    """"train", "val", "test": bool [n]."""


def read_planetoid(files: Mapping[str, str | PathLike[str] | bytes]) -> Planetoid:
    """A graph from its parts, `ind.cora.x` and so on.

    The rows of `allx` are nodes 0, 1, ...; the rows of `tx` are the nodes that `test.index` lists, in its order. Train
    nodes are the first `len(x)`, validation nodes the 500 behind them, test nodes those of `test.index`. Citeseer's
    index has gaps: the nodes missing from it get features of 0, class 0 and no mask.

    Args:
      files: a file for each of `PARTS` (a set's eighth file, y, repeats the first rows of ally).

    Raises:
      InputError: a damaged file, or files that do not go together.

    Source: Z. Yang, W. Cohen, R. Salakhutdinov, "Revisiting semi-supervised learning with graph embeddings" (2016).
    PyTorch Geometric's `Planetoid` gives the same arrays (its edges sorted by sender).
    """
    sources = {part: open_source(files[part], f"a Planetoid file {part!r}") for part in PARTS}
    known, hidden, first = (_features(sources[part]) for part in ("allx", "tx", "x"))
    labels, hidden_labels = (_labels(sources[part]) for part in ("ally", "ty"))
    test = _index(sources["test.index"], len(known), len(known) + 2 * len(hidden))
    sizes = {"tx": (len(hidden), len(test)), "ty": (len(hidden_labels), len(test)), "ally": (len(labels), len(known))}
    for part, (size, expected) in sizes.items():
        if size != expected:
            raise sources[part].error(f"{expected} rows, as in {'allx' if part == 'ally' else 'test.index'}", f"{size}")
    num_nodes = int(test.max()) + 1
    x = np.zeros((num_nodes, known.shape[1]), np.float32)
    y = np.zeros(num_nodes, np.int32)
    if hidden.shape[1] != known.shape[1]:
        raise sources["tx"].error(f"{known.shape[1]} columns, as in allx", f"{hidden.shape[1]}")
    x[: len(known)], x[test] = known, hidden
    y[: len(known)], y[test] = labels, hidden_labels
    if len(first) + _NUM_VAL > len(known):
        raise sources["x"].error(f"at least {_NUM_VAL} fewer rows than the {len(known)} of allx", f"{len(first)}")
    return Planetoid(x, _edges(sources["graph"], num_nodes), y, _masks(len(first), test, num_nodes))


def _masks(num_train: int, test: np.ndarray, num_nodes: int) -> dict[str, np.ndarray]:
    rows = {"train": np.arange(num_train), "val": np.arange(num_train, num_train + _NUM_VAL), "test": test}
    return {name: np.isin(np.arange(num_nodes), index) for name, index in rows.items()}


def _features(source: Source) -> np.ndarray:
    """A pickled CSR matrix as a dense float32 array."""
    value = read_pickle(source)
    state = value.state if isinstance(value, Record) and isinstance(value.state, dict) else {}
    shape = state.get("_shape")
    data, columns, starts = (_vector(state.get(name)) for name in ("data", "indices", "indptr"))
    if data is None or columns is None or starts is None or not isinstance(shape, tuple) or len(shape) != 2:
        raise source.error("a CSR matrix", "something else")
    rows, width = (int(size) if isinstance(size, int | np.integer) else -1 for size in shape)
    if rows != len(starts) - 1 or not width > 0 or not 0 < rows * width <= _MOST_CELLS:
        raise source.error(f"a CSR matrix of {len(starts) - 1} rows, at most {_MOST_CELLS} cells", f"{rows} x {width}")
    counts = np.diff(starts)
    integers = np.issubdtype(columns.dtype, np.integer) and np.issubdtype(starts.dtype, np.integer)
    if not integers or starts[0] != 0 or counts.min() < 0 or starts[-1] != len(columns) or len(data) != len(columns):
        raise source.error("a CSR matrix whose row starts rise from 0 to its number of entries", "others")
    if len(columns) and not 0 <= columns.min() <= columns.max() < width:
        raise source.error(f"column numbers below {width}", f"{columns.min()}..{columns.max()}")
    dense = np.zeros((rows, width), np.float32)
    dense[np.repeat(np.arange(rows), counts), columns] = data
    return dense


def _vector(value: Any) -> np.ndarray | None:
    good = isinstance(value, np.ndarray) and value.ndim == 1 and value.dtype.kind in "iuf"
    return value if good else None


def _labels(source: Source) -> np.ndarray:
    value = read_pickle(source)
    if not isinstance(value, np.ndarray) or value.ndim != 2 or not value.size or value.dtype.kind not in "iufb":
        raise source.error("one-hot labels [n, classes]", "something else")
    return value.argmax(1).astype(np.int32)


def _index(source: Source, low: int, high: int) -> np.ndarray:
    """The node numbers of the test set, one a line."""
    index = np.asarray([number for line in read_integers(source, "a node number on every line") for number in line])
    if len(np.unique(index)) != len(index) or index.min() < low or index.max() >= high:
        raise source.error(f"different node numbers in {low}..{high - 1}", f"{index.min()}..{index.max()}")
    return index


def _edges(source: Source, num_nodes: int) -> np.ndarray:
    graph = read_pickle(source)
    if not isinstance(graph, dict) or not all(isinstance(row, list) for row in graph.values()):
        raise source.error("a dict from node to list of nodes", "something else")
    pairs = [(sender, receiver) for sender, row in graph.items() for receiver in row]
    if not all(type(end) is int and 0 <= end < num_nodes for pair in pairs for end in pair):
        raise source.error(f"links between nodes 0..{num_nodes - 1}", "others")
    edges = undirected(np.asarray(pairs, np.int32).reshape(-1, 2).T)
    return edges[:, edges[0] != edges[1]]
