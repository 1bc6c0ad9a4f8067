"""Sets of graphs on the host, padded to fixed sizes so that one compiled program serves them all.

Two ways to a batch. `pad_each` pads every graph to the largest, for `Arrays`: shuffled and gathered on the device, best
for small graphs of similar size. `pad_batch` puts graphs end to end and pads the whole, for `Stream`: best where sizes
differ much. Padding is the same in both: nodes of 0 behind the real ones, edges of -1, graphs of size 0, weight 0 in
`mask`. No layer lets it touch a real node.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from fdl.data.conversion import host_array
from fdl.errors import InputError


class Graph(NamedTuple):
    """One graph on the host.

    Args:
      x: node features [n, ...].
      edges: integers [2, e], senders and receivers in 0 .. n - 1; see `undirected`.
      edge_weight: [e], or None.
      y: what to predict, of the graph [...] or of its nodes [n, ...], or None.
    """

    x: Any
    edges: Any
    edge_weight: Any = None
    y: Any = None


def pad_batch(
    graphs: Sequence[Graph], num_nodes: int, num_edges: int, num_graphs: int, targets: str = "graph"
) -> dict[str, np.ndarray]:
    """Graphs end to end as one graph, padded to fixed sizes.

    Args:
      graphs: at least one, at most `num_graphs`; which of edge_weight and y they have must agree.
      num_nodes, num_edges, num_graphs: the sizes after padding, N, E and G.
      targets: "graph" or "node": what y belongs to.

    Returns:
      x [N, ...], edges int32 [2, E], sizes int32 [G] (the nodes of each graph), mask float32 [G] or, for "node", [N]
      (1 = real), and edge_weight [E] and y [G, ...] or [N, ...] where the graphs have them. In a task:
      `supervised(model, loss, inputs=("x", {"edges": "edges", "sizes": "sizes"}), weight="mask")`.

    Raises:
      InputError: what does not fit, with the room it needs; graphs that are wrong or do not go together.

    PyTorch Geometric: `Batch.from_data_list`, which does not pad.

    >>> a, b = Graph(np.ones((2, 1)), [[0], [1]]), Graph(np.ones((1, 1)), [[0], [0]])
    >>> batch = pad_batch([a, b], num_nodes=4, num_edges=3, num_graphs=3)
    >>> batch["edges"].tolist(), batch["sizes"].tolist(), batch["mask"].tolist()
    ([[0, 2, -1], [1, 2, -1]], [2, 1, 0], [1.0, 1.0, 0.0])
    """
    graphs = _checked(graphs, targets)
    sizes = [len(graph.x) for graph in graphs]
    starts = np.cumsum([0, *sizes[:-1]], dtype=np.int32)
    edges = np.concatenate([graph.edges + start for graph, start in zip(graphs, starts, strict=True)], 1)
    _require_room(
        {"num_nodes": (sum(sizes), num_nodes), "num_edges": (edges.shape[1], num_edges)}
        | {"num_graphs": (len(graphs), num_graphs)}
    )
    batch = {"x": _pad(np.concatenate([graph.x for graph in graphs]), num_nodes)}
    batch |= {"edges": _pad(edges.T, num_edges, -1).T, "sizes": _pad(np.asarray(sizes, np.int32), num_graphs)}
    if graphs[0].edge_weight is not None:
        batch["edge_weight"] = _pad(np.concatenate([graph.edge_weight for graph in graphs]), num_edges)
    real, rows = (sum(sizes), num_nodes) if targets == "node" else (len(graphs), num_graphs)
    if graphs[0].y is not None:
        join = np.concatenate if targets == "node" else np.stack
        batch["y"] = _pad(join([graph.y for graph in graphs]), rows)
    return batch | {"mask": _pad(np.ones(real, np.float32), rows)}


def pad_each(
    graphs: Sequence[Graph], num_nodes: int | None = None, num_edges: int | None = None, targets: str = "graph"
) -> dict[str, np.ndarray]:
    """Every graph padded to the same size, with a leading axis of graphs: `Arrays(**pad_each(graphs))`.

    Args:
      graphs: B of them; which of edge_weight and y they have must agree.
      num_nodes, num_edges: the sizes after padding, N and E; None = those of the largest graph.
      targets: "graph" or "node": what y belongs to.

    Returns:
      As `pad_batch`, with x [B, N, ...], edges [B, 2, E], sizes [B], edge_weight [B, E], y [B, ...] or [B, N, ...] and
      mask [B] (all 1) or [B, N].

    Raises:
      InputError: as `pad_batch`.

    >>> a, b = Graph(np.ones((2, 1)), [[0], [1]]), Graph(np.ones((1, 1)), np.zeros((2, 0), int))
    >>> pad_each([a, b])["edges"].tolist()
    [[[0], [1]], [[-1], [-1]]]
    """
    graphs = _checked(graphs, targets)
    most_nodes = max(len(graph.x) for graph in graphs) if num_nodes is None else num_nodes
    most_edges = max(graph.edges.shape[1] for graph in graphs) if num_edges is None else num_edges
    each = []
    for number, graph in enumerate(graphs):
        try:
            each.append(pad_batch([graph], most_nodes, most_edges, 1, targets))
        except InputError as error:
            raise InputError(f"graph {number}: {error}") from None
    rows = {"x", "edges", "edge_weight"} | ({"y", "mask"} if targets == "node" else set())
    return {name: np.stack([one[name] if name in rows else one[name][0] for one in each]) for name in each[0]}


def undirected(edges: Any) -> np.ndarray:
    """Every edge in both directions, once: int32 [2, E'], ordered by receiver and then by sender.

    Args:
      edges: integers [2, E], in one direction or both, repeated or not. A self-loop stays one edge.

    >>> undirected([[0, 1, 2], [1, 0, 2]]).tolist()
    [[1, 0, 2], [0, 1, 2]]
    """
    edges = _edges(edges, "undirected")
    both = np.concatenate([edges, edges[::-1]], 1)
    return np.ascontiguousarray(np.unique(both[::-1], axis=1)[::-1])


def _checked(graphs: Sequence[Graph], targets: str) -> list[Graph]:
    if targets not in ("graph", "node"):
        raise InputError(f"targets: expected 'graph' or 'node', got {targets!r}")
    if not graphs:
        raise InputError("expected at least one graph, got none: the sizes of features and targets would be unknown")
    checked = [_check(Graph(*graph), f"graph {number}", targets) for number, graph in enumerate(graphs)]
    first = _signature(checked[0], targets)
    for number, graph in enumerate(checked):
        if _signature(graph, targets) != first:
            raise InputError(
                f"graph {number} does not go with graph 0: {_signature(graph, targets)} instead of {first}"
            )
    return checked


def _check(graph: Graph, where: str, targets: str) -> Graph:
    x, edges = host_array(graph.x, f"{where}/x"), _edges(graph.edges, where)
    if not x.ndim:
        raise InputError(f"{where}: expected node features x [n, ...], got a scalar")
    if edges.size and (edges.min() < 0 or edges.max() >= len(x)):
        bad = int(edges[(edges < 0) | (edges >= len(x))][0])
        raise InputError(f"{where}: an edge names node {bad}, outside 0..{len(x) - 1}; are its nodes counted from 1?")
    weight = None if graph.edge_weight is None else host_array(graph.edge_weight, f"{where}/edge_weight")
    if weight is not None and weight.shape != edges.shape[1:]:
        raise InputError(f"{where}: expected {edges.shape[1]} edge weights, got {list(weight.shape)}")
    y = None if graph.y is None else host_array(graph.y, f"{where}/y")
    if y is not None and targets == "node" and y.shape[:1] != x.shape[:1]:
        raise InputError(f"{where}: targets of nodes need y [{len(x)}, ...], got {list(y.shape)}")
    return Graph(x, edges, weight, y)


def _edges(edges: Any, where: str) -> np.ndarray:
    edges = host_array(edges, f"{where}/edges")
    edges = edges.astype(np.int32) if not edges.size else edges
    if edges.ndim != 2 or len(edges) != 2 or not np.issubdtype(edges.dtype, np.integer):
        hint = "; one row an edge? pass edges.T" if edges.ndim == 2 and edges.shape[1] == 2 else ""
        raise InputError(f"{where}: expected edges as integers [2, e], got {edges.dtype}{list(edges.shape)}{hint}")
    return edges.astype(np.int32)


def _signature(graph: Graph, targets: str) -> str:
    """What graphs of one batch have in common, in words."""
    described = [f"x {graph.x.dtype}[n{''.join(f', {size}' for size in graph.x.shape[1:])}]"]
    described += [] if graph.edge_weight is None else [f"edge_weight {graph.edge_weight.dtype}"]
    if graph.y is not None:
        described.append(f"y {graph.y.dtype}{list(graph.y.shape[1:] if targets == 'node' else graph.y.shape)}")
    return ", ".join(described)


def _require_room(sizes: dict[str, tuple[int, int]]) -> None:
    short = [f"{name}={room}, needed {needed}" for name, (needed, room) in sizes.items() if needed > room]
    if short:
        raise InputError(f"no room for these graphs: {'; '.join(short)}")


def _pad(rows: np.ndarray, size: int, value: int = 0) -> np.ndarray:
    """`rows` with further rows of `value` behind them."""
    padding = np.full((size - len(rows), *rows.shape[1:]), value, rows.dtype)
    return np.concatenate([rows, padding])
