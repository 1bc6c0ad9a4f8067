"""Padded batches of graphs on the host."""

from __future__ import annotations

import numpy as np
import pytest

from fdl.data.graphs import Graph, pad_batch, pad_each, undirected
from fdl.errors import InputError


def graphs(y=True, weight=True) -> list[Graph]:
    """Three graphs of 2, 1 and 4 nodes with 1, 0 and 3 edges."""
    random = np.random.default_rng(0)
    shapes = [(2, [[0], [1]]), (1, np.zeros((2, 0), int)), (4, [[0, 3, 3], [3, 0, 3]])]
    return [
        Graph(
            random.normal(size=(n, 2)).astype(np.float32),
            edges,
            np.arange(1.0, np.shape(edges)[1] + 1, dtype=np.float32) if weight else None,
            np.int32(n) if y else None,
        )
        for n, edges in shapes
    ]


def test_a_batch_puts_graphs_end_to_end():
    batch = pad_batch(graphs(), num_nodes=9, num_edges=6, num_graphs=5)
    np.testing.assert_array_equal(batch["x"][:7], np.concatenate([graph.x for graph in graphs()]))
    np.testing.assert_array_equal(batch["x"][7:], 0)
    assert batch["edges"].tolist() == [[0, 3, 6, 6, -1, -1], [1, 6, 3, 6, -1, -1]]
    assert batch["edge_weight"].tolist() == [1, 1, 2, 3, 0, 0]
    assert batch["sizes"].tolist() == [2, 1, 4, 0, 0]
    assert batch["y"].tolist() == [2, 1, 4, 0, 0]
    assert batch["mask"].tolist() == [1, 1, 1, 0, 0]
    assert {name: str(array.dtype) for name, array in batch.items()} == {
        "x": "float32", "edges": "int32", "edge_weight": "float32", "sizes": "int32", "y": "int32", "mask": "float32",
    }  # fmt: skip


def test_a_batch_that_fits_exactly_has_no_padding():
    batch = pad_batch(graphs(), num_nodes=7, num_edges=4, num_graphs=3)
    assert (batch["edges"] >= 0).all()
    assert batch["mask"].all()
    assert (batch["sizes"] > 0).all()


def test_targets_of_nodes_are_padded_like_nodes():
    labelled = [graph._replace(y=np.arange(len(graph.x)) + 1) for graph in graphs(weight=False)]
    batch = pad_batch(labelled, 8, 4, 3, targets="node")
    assert batch["y"].tolist() == [1, 2, 1, 1, 2, 3, 4, 0]
    assert batch["mask"].tolist() == [1] * 7 + [0]
    assert "edge_weight" not in batch
    each = pad_each(labelled, targets="node")
    assert each["y"].tolist() == [[1, 2, 0, 0], [1, 0, 0, 0], [1, 2, 3, 4]]
    assert each["mask"].sum(1).tolist() == each["sizes"].tolist() == [2, 1, 4]


def test_each_graph_padded_to_the_largest():
    each = pad_each(graphs())
    assert each["x"].shape == (3, 4, 2)
    np.testing.assert_array_equal(each["x"][0, :2], graphs()[0].x)
    np.testing.assert_array_equal(each["x"][1, 1:], 0)
    assert each["edges"].tolist() == [[[0, -1, -1], [1, -1, -1]], [[-1] * 3] * 2, [[0, 3, 3], [3, 0, 3]]]
    assert each["sizes"].tolist() == each["y"].tolist() == [2, 1, 4]
    assert each["mask"].tolist() == [1, 1, 1]
    assert pad_each(graphs(), num_nodes=6, num_edges=7)["edges"].shape == (3, 2, 7)


def test_without_targets_there_are_none():
    assert "y" not in pad_batch(graphs(y=False), 7, 4, 3)
    assert "y" not in pad_each(graphs(y=False))


def test_graphs_without_nodes():
    empty = Graph(np.zeros((0, 2), np.float32), np.zeros((2, 0), int))
    batch = pad_batch([empty, graphs(False, False)[0], empty], 2, 1, 3)
    assert batch["sizes"].tolist() == [0, 2, 0]
    assert batch["mask"].tolist() == [1, 1, 1]
    assert pad_each([empty])["x"].shape == (1, 0, 2)


def test_undirected_lists_each_direction_once():
    """From one direction, from both, and from repeats; a loop stays one edge."""
    want = [[1, 0, 2, 1, 2], [0, 1, 1, 2, 2]]
    for edges in ([[0, 1, 2], [1, 2, 2]], [[1, 0, 2, 1, 2, 1], [0, 1, 2, 2, 1, 0]]):
        got = undirected(np.array(edges))
        assert got.tolist() == want
        assert got.dtype == np.int32
    assert undirected(np.zeros((2, 0))).shape == (2, 0)


X = np.ones((3, 1), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pad_batch(graphs(), 6, 3, 2), "num_nodes=6, needed 7; num_edges=3, needed 4; num_graphs=2, needed 3"),
        (lambda: pad_each(graphs(), num_nodes=3), "graph 2: no room for these graphs: num_nodes=3, needed 4"),
        (lambda: pad_batch([], 6, 3, 2), "at least one graph"),
        (lambda: pad_each([]), "at least one graph"),
        (lambda: pad_each(graphs(), targets="nodes"), "'graph' or 'node', got 'nodes'"),
        (lambda: pad_each([Graph(X, [[0], [3]])]), r"graph 0: an edge names node 3, outside 0\.\.2"),
        (lambda: pad_each([Graph(X, [[0], [-1]])]), "names node -1"),
        (lambda: pad_each([Graph(X, [[0, 1]] * 3)]), r"graph 0: expected edges as integers \[2, e\].*edges\.T"),
        (lambda: pad_each([Graph(X, [[0.0], [1.0]])]), "got float64"),
        (lambda: pad_each([Graph(X, [[0], [1]], [1.0, 2.0])]), r"graph 0: expected 1 edge weights, got \[2\]"),
        (lambda: pad_each([Graph(X, [[0], [1]], y=0)], targets="node"), r"need y \[3, \.\.\.\], got \[\]"),
        (lambda: pad_each([Graph(1.0, [[0], [1]])]), "got a scalar"),
        (lambda: pad_each([graphs()[0], graphs(weight=False)[1]]), "graph 1 does not go with graph 0"),
        (lambda: pad_each([*graphs(False, False), Graph(X, [[0], [1]])]), r"graph 3 .*\[n, 1\] instead of .*\[n, 2\]"),
    ],
)
def test_what_does_not_fit_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()
