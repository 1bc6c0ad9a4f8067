"""Graphs as edge lists, and the message passing over them.

`edges` is an integer array [2, E] of senders and receivers: messages flow from edges[0] to edges[1], and the dense
adjacency matrix is A[receiver, sender] (row i collects what node i hears). An undirected edge is listed in both
directions (`fdl.data.graphs.undirected`). An edge with -1 at either end is padding. Edges listed twice count twice.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from fdl.errors import InputError
from fdl.ops.norm import inverse_root, widen
from fdl.ops.segment import check_ids, gather, per_row, segment_max, segment_mean, segment_sum

REDUCTIONS = {"sum": segment_sum, "mean": segment_mean, "max": segment_max}


def endpoints(edges: jax.Array, num_nodes: int) -> tuple[jax.Array, jax.Array]:
    """(senders [E], receivers [E]), both -1 for padding.

    Args:
      edges: integers [2, E], nodes 0 .. num_nodes - 1, or -1. Out of range: an error where they are concrete; inside a
        compiled program a wrong sender sends NaN and a wrong receiver hears nothing.

    Raises:
      InputError: another shape, floats, nodes out of range.
    """
    shape = tuple(jnp.shape(edges))
    if len(shape) != 2 or shape[0] != 2:
        hint = "; one row an edge? pass edges.T" if len(shape) == 2 and shape[1] == 2 else ""
        raise InputError(f"edges: expected integers [2, E], senders and receivers, got {list(shape)}{hint}")
    edges = check_ids("edges", edges, num_nodes)
    senders, receivers = jnp.where((edges == -1).any(0), -1, edges)
    return senders, receivers


def propagate(x: jax.Array, edges: jax.Array, edge_weight: jax.Array | None = None, reduce: str = "sum") -> jax.Array:
    """y_i = reduce over the edges (j, i) of w_ji x_j; a node that hears from nobody gets 0.

    With "sum" this is A @ x, where A[i, j] is the weight of the edges from j to i.

    Args:
      x: [N, ...].
      edges: integers [2, E], see `endpoints`.
      edge_weight: [E]; None = ones.
      reduce: "sum", "mean" (over the number of edges) or "max". Ties of "max" share the gradient.

    Returns:
      [N, ...], in x's dtype, accumulated in float32 or wider.

    Raises:
      InputError: what `endpoints` refuses; an unknown `reduce`; edge_weight that is not [E].

    >>> edges = jnp.array([[0, 1, 2], [2, 2, 0]])
    >>> propagate(jnp.array([1.0, 10.0, 100.0]), edges).tolist()
    [100.0, 0.0, 11.0]
    """
    if reduce not in REDUCTIONS:
        raise InputError(f"propagate: reduce is one of {', '.join(REDUCTIONS)}, got {reduce!r}")
    senders, receivers = endpoints(edges, x.shape[0])
    messages = widen(gather(x, senders))
    if edge_weight is not None:
        messages = messages * per_row(_weights(edge_weight, senders).astype(messages.dtype), messages)
    return REDUCTIONS[reduce](messages, receivers, x.shape[0]).astype(x.dtype)


def degree(edges: jax.Array, num_nodes: int, edge_weight: jax.Array | None = None) -> jax.Array:
    """d_i = sum of the weights of the edges that end in node i (the in-degree).

    Returns:
      [num_nodes], float32 or wider.

    >>> degree(jnp.array([[0, 1, 2], [2, 2, 0]]), 4).tolist()
    [1.0, 0.0, 2.0, 0.0]
    """
    _, receivers = endpoints(edges, num_nodes)
    return segment_sum(_weights(edge_weight, receivers), receivers, num_nodes)


def add_self_loops(
    edges: jax.Array, num_nodes: int, edge_weight: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Exactly one self-loop for every node: A_ii stays what it is where node i has a loop, and becomes 1 elsewhere.

    Args:
      edges: integers [2, E], see `endpoints`.
      edge_weight: [E]; None = ones.

    Returns:
      edges [2, E + N] and weights [E + N] in float32 or wider. The loops come last, node by node; loops among the given
      edges are replaced by padding, and several loops of one node by their sum, so that shapes do not depend on values.

    Kipf & Welling (2017) write A + I for graphs without loops. As PyTorch Geometric's `add_remaining_self_loops`; there
    one of several loops survives.

    >>> edges, weights = add_self_loops(jnp.array([[0, 1], [1, 1]]), 2, jnp.array([1.0, 3.0]))
    >>> edges.tolist(), weights.tolist()
    ([[0, -1, 0, 1], [1, -1, 0, 1]], [1.0, 3.0, 1.0, 3.0])
    """
    others, own = split_self_loops(edges, num_nodes, edge_weight)
    nodes = jnp.arange(num_nodes, dtype=others.dtype)
    weights = _weights(edge_weight, others[0])
    return jnp.concatenate([others, jnp.stack([nodes, nodes])], 1), jnp.concatenate([weights, own])


def split_self_loops(
    edges: jax.Array, num_nodes: int, edge_weight: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The edges [2, E] between nodes, with padding for the loops, and A_ii [N] of `add_self_loops`."""
    senders, receivers = endpoints(edges, num_nodes)
    loop = senders == receivers
    at = jnp.where(loop, senders, -1)
    own = segment_sum(_weights(edge_weight, at), at, num_nodes)
    own = jnp.where(segment_sum(loop, at, num_nodes) > 0, own, jnp.ones_like(own))
    return jnp.where(loop, -1, jnp.stack([senders, receivers])), own


def symmetric_weights(edges: jax.Array, num_nodes: int, edge_weight: jax.Array | None = None) -> jax.Array:
    """The edge weights of D^-1/2 A D^-1/2, with D_ii = sum_j A_ij; a node of degree 0 gives 0.

    Args:
      edges: integers [2, E], see `endpoints`.
      edge_weight: [E], the values of A; None = ones. A negative degree has no root and gives NaN.

    Returns:
      [E], float32 or wider.

    Source: Kipf & Welling, Semi-supervised classification with graph convolutional networks, 2017, section 2. On a
    directed graph both factors take the in-degree, as in PyTorch Geometric's `gcn_norm`.

    >>> weights = symmetric_weights(jnp.array([[0, 1, 1, 2], [1, 0, 2, 1]]), 4)
    >>> [round(float(weight), 3) for weight in weights]
    [0.707, 0.707, 0.707, 0.707]
    """
    senders, receivers = endpoints(edges, num_nodes)
    weights = _weights(edge_weight, senders)
    root = inverse_root(segment_sum(weights, receivers, num_nodes))
    return gather(root, senders) * weights * gather(root, receivers)


def graph_ids(sizes: jax.Array, num_nodes: int) -> jax.Array:
    """The graph of every node, where graph 0 has the first sizes[0] nodes, graph 1 the next, and so on.

    Args:
      sizes: integers [G]: the number of nodes of each graph, 0 for a padding graph.
      num_nodes: N; nodes past the last graph are padding.

    Returns:
      int32 [N], -1 for padding: ids for the functions of `fdl.ops.segment`.

    Raises:
      InputError: sizes that are no integers [G], that are negative or need more than N nodes.

    PyTorch Geometric has these ids as `batch`; there the number of graphs is read from their values.

    >>> graph_ids(jnp.array([2, 0, 1]), 5).tolist()
    [0, 0, 2, -1, -1]
    """
    sizes = check_sizes(sizes, num_nodes, total=True)
    nodes = jnp.arange(num_nodes, dtype=jnp.int32)
    ends = jnp.cumsum(sizes, dtype=jnp.int32)
    ids = jnp.searchsorted(ends, nodes, side="right").astype(jnp.int32)
    return jnp.where(ids < sizes.shape[0], ids, -1)


def check_sizes(sizes: Any, num_nodes: int, total: bool) -> jax.Array:
    """The sizes as int32; raises unless they are integers [G] >= 0 and they (or `total`: their sum) fit."""
    if jnp.ndim(sizes) != 1 or not jnp.issubdtype(jnp.result_type(sizes), jnp.integer):
        got = f"{jnp.result_type(sizes)}{list(jnp.shape(sizes))}"
        raise InputError(f"sizes: expected integers [G], the number of nodes of each graph, got {got}")
    if not isinstance(sizes, Tracer) and jnp.size(sizes):
        host = np.asarray(sizes)
        if host.min() < 0:
            raise InputError(f"sizes: a graph cannot have {host.min()} nodes")
        needed = int(host.sum() if total else host.max())
        if needed > num_nodes:
            raise InputError(f"sizes: the graphs have {needed} nodes, but x has {num_nodes}")
    return jnp.asarray(sizes).astype(jnp.int32)


def disjoint_union(x: jax.Array, edges: jax.Array) -> tuple[jax.Array, jax.Array]:
    """A batch of graphs as one graph without edges between them.

    Args:
      x: [B, N, ...], graphs padded to N nodes.
      edges: integers [B, 2, E], nodes of each graph counted from 0, padded by -1.

    Returns:
      x [B * N, ...] and edges [2, B * E], node n of graph b being b * N + n.

    Raises:
      InputError: other shapes, nodes out of range.

    >>> x, edges = disjoint_union(jnp.zeros((2, 3, 1)), jnp.array([[[0], [2]], [[1], [-1]]]))
    >>> edges.tolist()
    [[0, 4], [2, -1]]
    """
    if x.ndim < 2 or jnp.ndim(edges) != 3 or edges.shape[:2] != (x.shape[0], 2):
        raise InputError(
            f"a batch of graphs: expected x [B, N, ...] and edges [B, 2, E], got {list(x.shape)} and "
            f"{list(jnp.shape(edges))}"
        )
    batch, nodes = x.shape[:2]
    edges = check_ids("edges", edges, nodes)
    offset = nodes * jnp.arange(batch, dtype=edges.dtype)[:, None, None]
    inside = (edges >= 0) & (edges < nodes)
    # A traced node out of range must not become a node of the next graph: past the end it is seen (`endpoints`).
    flat = jnp.where(inside, edges + offset, jnp.where(edges == -1, -1, batch * nodes))
    return x.reshape(batch * nodes, *x.shape[2:]), flat.transpose(1, 0, 2).reshape(2, -1)


def _weights(edge_weight: Any, ids: jax.Array) -> jax.Array:
    """[E] in float32 or wider; ones by default."""
    if edge_weight is None:
        return jnp.ones(ids.shape, jnp.float32)
    if jnp.shape(edge_weight) != ids.shape:
        raise InputError(f"edge_weight: expected one for each of {ids.size} edges, got {list(jnp.shape(edge_weight))}")
    return widen(edge_weight)
