"""Edge lists against dense adjacency matrices: A[receiver, sender]."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl.errors import InputError
from fdl.ops import graph

# A double edge, a self-loop, a double self-loop, two kinds of padding, and node 4 alone.
EDGES = jnp.array([[0, 0, 1, 2, 3, 3, 3, -1, -1], [1, 1, 2, 2, 3, 3, 0, -1, 2]])
WEIGHT = jnp.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 99.0, 99.0])
N = 5


def dense(edges, weight, n=N):
    a = np.zeros((n, n))
    for j, i, w in zip(*np.asarray(edges), np.asarray(weight), strict=True):
        if min(i, j) >= 0:
            a[i, j] += w
    return a


def test_sum_is_a_matrix_product():
    x = jnp.arange(10.0).reshape(N, 2)
    np.testing.assert_allclose(graph.propagate(x, EDGES, WEIGHT), dense(EDGES, WEIGHT) @ np.asarray(x))
    np.testing.assert_allclose(graph.propagate(x, EDGES), dense(EDGES, np.ones(9)) @ np.asarray(x))


def test_mean_counts_edges_and_max_takes_weighted_messages():
    x = jnp.arange(10.0).reshape(N, 2) - 4
    count = dense(EDGES, np.ones(9)).sum(1, keepdims=True)
    np.testing.assert_allclose(
        graph.propagate(x, EDGES, WEIGHT, "mean"), dense(EDGES, WEIGHT) @ np.asarray(x) / np.maximum(count, 1)
    )
    want = [7 * x[3], x[0], 4 * x[2], 6 * x[3], 0 * x[4]]  # node 1 hears 1 and 2 times the negative x[0]
    np.testing.assert_allclose(graph.propagate(x, EDGES, WEIGHT, "max"), jnp.stack(want))


def test_degree_is_the_row_sum():
    np.testing.assert_array_equal(graph.degree(EDGES, N), dense(EDGES, np.ones(9)).sum(1))
    np.testing.assert_array_equal(graph.degree(EDGES, N, WEIGHT), dense(EDGES, WEIGHT).sum(1))


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["ones", "weighted"])
def test_self_loops_are_added_where_there_are_none(weight):
    edges, weights = graph.add_self_loops(EDGES, N, weight)
    want = dense(EDGES, np.ones(9) if weight is None else weight)
    np.fill_diagonal(want, np.where(want.diagonal() == 0, 1, want.diagonal()))
    np.testing.assert_array_equal(dense(edges, weights), want)
    loops = np.asarray(edges[0])[(edges[0] == edges[1]) & (edges[0] >= 0)]
    assert loops.tolist() == list(range(N))  # exactly one a node


def test_adding_self_loops_twice_changes_nothing():
    once = graph.add_self_loops(EDGES, N, WEIGHT)
    np.testing.assert_array_equal(dense(*graph.add_self_loops(once[0], N, once[1])), dense(*once))


def test_a_loop_of_weight_zero_is_a_loop():
    _, weights = graph.add_self_loops(jnp.array([[0], [0]]), 2, jnp.array([0.0]))
    assert weights.tolist() == [0.0, 0.0, 1.0]


def test_symmetric_weights_are_the_normalised_matrix():
    a = dense(EDGES, WEIGHT)
    with np.errstate(divide="ignore"):
        root = np.where(a.sum(1) == 0, 0, a.sum(1) ** -0.5)
    got = dense(EDGES, graph.symmetric_weights(EDGES, N, WEIGHT))
    np.testing.assert_allclose(got, root[:, None] * a * root, rtol=1e-6)


def test_symmetric_weights_of_a_regular_graph_are_one_over_its_degree():
    ring = jnp.stack([jnp.arange(6), (jnp.arange(6) + 1) % 6])
    both = jnp.concatenate([ring, ring[::-1]], 1)
    np.testing.assert_allclose(graph.symmetric_weights(both, 6), 0.5, rtol=1e-6)


def test_the_gradient_of_the_weights_of_isolated_nodes_is_finite():
    """Node 0 has degree 0 and node 1 an edge of weight 0."""
    edges = jnp.array([[0, 2], [1, 2]])
    gradient = jax.grad(lambda w: graph.symmetric_weights(edges, 3, w).sum())(jnp.array([0.0, 4.0]))
    assert jnp.isfinite(gradient).all()
    assert jnp.isnan(graph.symmetric_weights(edges, 3, jnp.array([1.0, -4.0]))[1])


def test_graph_ids_of_empty_graphs_and_padding():
    assert graph.graph_ids(jnp.array([0, 2, 0, 1, 0]), 4).tolist() == [1, 1, 3, -1]
    assert graph.graph_ids(jnp.array([], jnp.int32), 2).tolist() == [-1, -1]
    assert graph.graph_ids(jnp.array([0]), 0).tolist() == []


def test_a_union_keeps_graphs_apart():
    x = jnp.arange(6.0).reshape(2, 3, 1)
    edges = jnp.array([[[0, 2], [2, -1]], [[1, 0], [0, 0]]])
    nodes, joined = graph.disjoint_union(x, edges)
    each = [graph.propagate(a, e) for a, e in zip(x, edges, strict=True)]
    np.testing.assert_array_equal(graph.propagate(nodes, joined), jnp.concatenate(each))


def test_a_traced_node_out_of_range_is_no_node_of_the_next_graph():
    """Sender 3 of the first graph is not node 0 of the second: it sends NaN; receiver 3 hears nothing."""
    x = jnp.ones((2, 3, 1))
    union = jax.jit(lambda x, edges: graph.propagate(*graph.disjoint_union(x, edges)))
    sent = union(x, jnp.array([[[3], [1]], [[0], [1]]])).ravel()
    np.testing.assert_array_equal(sent, [0, np.nan, 0, 0, 1, 0])
    received = union(x, jnp.array([[[1], [3]], [[0], [1]]])).ravel()
    np.testing.assert_array_equal(received, [0, 0, 0, 0, 1, 0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: graph.propagate(jnp.ones((3, 1)), jnp.zeros((4, 2), jnp.int32)), r"pass edges\.T"),
        (lambda: graph.propagate(jnp.ones((3, 1)), jnp.zeros((2, 4))), "integers, got float32"),
        (
            lambda: graph.propagate(jnp.ones((3, 1)), jnp.array([[0], [3]])),
            r"edges: id 3 at \(1, 0\) is outside 0\.\.2",
        ),
        (lambda: graph.propagate(jnp.ones((3, 1)), jnp.array([[0], [1]]), reduce="avg"), "sum, mean, max, got 'avg'"),
        (lambda: graph.propagate(jnp.ones((3, 1)), jnp.array([[0], [1]]), jnp.ones((1, 1))), "each of 1 edges"),
        (lambda: graph.graph_ids(jnp.array([2, 2]), 3), "have 4 nodes, but x has 3"),
        (lambda: graph.graph_ids(jnp.array([2, -1]), 3), "cannot have -1 nodes"),
        (lambda: graph.graph_ids(jnp.array([1.0]), 3), "sizes: expected integers"),
        (lambda: graph.disjoint_union(jnp.ones((2, 3, 1)), jnp.zeros((2, 4), jnp.int32)), "a batch of graphs"),
        (lambda: graph.disjoint_union(jnp.ones((2, 3, 1)), jnp.full((2, 2, 1), 3)), "id 3"),
    ],
)
def test_bad_graphs_are_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
