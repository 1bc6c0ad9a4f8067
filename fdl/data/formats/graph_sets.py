"""Sets of small graphs as text: the one-file format of the graph-kernel papers, and TUDataset's files."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike

import numpy as np

from fdl.data.formats.source import Source, damage, open_source
from fdl.data.formats.text import read_integers
from fdl.data.graphs import Graph, undirected


def read_graph_text(source: str | PathLike[str] | bytes | Source) -> list[Graph]:
    """Graphs with node tags and a class each, from one text file of integers (MUTAG.txt).

    First the number of graphs. Each graph: "n label", and for each of its n nodes "tag degree neighbour ...", nodes
    counted from 0.

    Returns:
      Graphs with x float32 [n, tags], the tag as one-hot (tags and labels numbered in their order), edges in both
      directions, y int32.

    Raises:
      InputError: what is no such text, counts that disagree with the lines, neighbours that are no nodes.

    Source: M. Zhang et al., "An end-to-end deep learning architecture for graph classification" (2018).

    >>> read_graph_text(b"1\\n2 1\\n0 1 1\\n4 1 0\\n")[0].x.tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    source = open_source(source, "a text file of graphs")
    tags: list[np.ndarray] = []
    edges: list[np.ndarray] = []
    labels: list[int] = []
    with damage(source.name, "graphs as lines of integers"):
        lines = iter(read_integers(source, "graphs as lines of integers"))
        (count,) = next(lines, [0])
        for _ in range(count):
            size, label = next(lines, [])
            nodes = [next(lines, []) for _ in range(_between(size, 1, 2**20))]
            tags.append(np.asarray([node[0] for node in nodes]))
            edges.append(_neighbours(nodes))
            labels.append(label)
        if not labels or next(lines, None) is not None:
            raise ValueError(f"{count} graphs announced, and {'none' if not labels else 'more'} there")
        return _graphs(tags, edges, labels)


def _neighbours(nodes: list[list[int]]) -> np.ndarray:
    pairs = []
    for number, (_, degree, *rest) in enumerate(nodes):
        if len(rest) != degree:
            raise ValueError(f"a node of {degree} neighbours and {len(rest)} numbers")
        pairs += [(_between(other, 0, len(nodes)), number) for other in rest]
    return np.asarray(pairs, np.int32).reshape(-1, 2).T


def read_tudataset(files: Mapping[str, str | PathLike[str] | bytes]) -> list[Graph]:
    """Graphs from the files of TUDataset, `MUTAG_A.txt` and so on; results as `read_graph_text`.

    Args:
      files: "A" ("row, column" of all adjacency matrices end to end), "graph_indicator" (the graph of each node),
        "graph_labels", "node_labels". Nodes and graphs are counted from 1.

    Raises:
      InputError: a damaged or other file; files that do not go together.

    Source: C. Morris et al., "TUDataset: a collection of benchmark datasets for learning with graphs" (2020).

    >>> files = {"A": b"1, 2\\n2, 1\\n", "graph_indicator": b"1\\n1\\n", "graph_labels": b"-1"}
    >>> files["node_labels"] = b"0\\n3\\n"
    >>> read_tudataset(files)[0].edges.tolist()
    [[1, 0], [0, 1]]
    """
    links = _columns(files["A"], "TUDataset's A", 2) - 1
    graph = _columns(files["graph_indicator"], "TUDataset's graph_indicator", 1)[:, 0] - 1
    labels = _columns(files["graph_labels"], "TUDataset's graph_labels", 1)[:, 0]
    tags = _columns(files["node_labels"], "TUDataset's node_labels", 1)[:, 0]
    with damage("TUDataset", "files that agree"):
        if len(tags) != len(graph) or not np.array_equal(np.unique(graph), np.arange(len(labels))):
            raise ValueError(f"{len(graph)} nodes of graphs, {len(tags)} node labels, {len(labels)} graph labels")
        if np.diff(graph).min(initial=0) < 0 or links.min() < 0 or links.max() >= len(graph):
            raise ValueError("nodes not in the order of their graphs, or links to nodes that are not there")
        owner = graph[links]
        if (owner[:, 0] != owner[:, 1]).any():
            raise ValueError("a link between two graphs")
        starts = np.searchsorted(graph, np.arange(len(labels) + 1))
        order = np.argsort(owner[:, 0], kind="stable")
        cuts = np.searchsorted(owner[order, 0], np.arange(len(labels) + 1))
        edges = [links[order[a:b]].T - start for a, b, start in zip(cuts, cuts[1:], starts, strict=False)]
        return _graphs(np.split(tags, starts[1:-1]), edges, list(labels))


def _graphs(tags: list[np.ndarray], edges: list[np.ndarray], labels: list[int]) -> list[Graph]:
    kinds = np.unique(np.concatenate(tags))
    if sum(map(len, tags)) * len(kinds) > 2**25:
        raise ValueError(f"{len(kinds)} different tags: too many for one-hot features")
    eye = np.eye(len(kinds), dtype=np.float32)
    targets = np.searchsorted(np.unique(labels), labels).astype(np.int32)
    each = zip(tags, edges, targets, strict=True)
    return [Graph(eye[np.searchsorted(kinds, tag)], undirected(pairs), y=y) for tag, pairs, y in each]


def _columns(file: str | PathLike[str] | bytes, what: str, width: int) -> np.ndarray:
    source = open_source(file, what)
    with damage(source.name, what):
        rows = read_integers(source, what, ",")
        if any(len(row) != width for row in rows):
            raise ValueError(f"rows that are not all of {width} integers")
        return np.asarray(rows, np.int64)


def _between(value: int, low: int, high: int) -> int:
    if not low <= value < high:
        raise ValueError(f"{value} where {low}..{high - 1} was possible")
    return value
