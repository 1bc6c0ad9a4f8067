"""Graph networks through `fdl.run`: one graph as `Full`, and sets of graphs padded in either way."""

from __future__ import annotations

import jax
import numpy as np
import optax
import pytest

import fdl
from fdl.data.graphs import Graph, pad_batch, pad_each, undirected
from fdl.nn.containers import Serial
from fdl.nn.dropout import Dropout
from fdl.nn.graph import GraphPool
from fdl.nn.graph_attention import GAT
from fdl.nn.graph_conv import GCN, GIN
from fdl.nn.linear import Linear
from tests.nn.test_graph import F, assert_close, jittered, run

# Zachary, An information flow model for conflict and fission in small groups, 1977: who met whom outside the club.
# fmt: off
FRIENDS = {
    0: [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 17, 19, 21, 31], 1: [2, 3, 7, 13, 17, 19, 21, 30],
    2: [3, 7, 8, 9, 13, 27, 28, 32], 3: [7, 12, 13], 4: [6, 10], 5: [6, 10, 16], 6: [16], 8: [30, 32, 33], 9: [33],
    13: [33], 14: [32, 33], 15: [32, 33], 18: [32, 33], 19: [33], 20: [32, 33], 22: [32, 33], 23: [25, 27, 29, 32, 33],
    24: [25, 27, 31], 25: [31], 26: [29, 33], 27: [33], 28: [31, 33], 29: [32, 33], 30: [32, 33], 31: [32, 33],
    32: [33],
}
INSTRUCTOR = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13, 16, 17, 19, 21]  # who followed him when the club split
# fmt: on


def karate(labelled: np.ndarray) -> fdl.data.Full:
    """34 members who are nothing but themselves; `labelled` are those that weigh."""
    edges = undirected(np.array([(a, b) for a, friends in FRIENDS.items() for b in friends]).T)
    assert edges.shape == (2, 2 * 78)
    faction = np.isin(np.arange(34), INSTRUCTOR).astype(np.int32)
    return fdl.data.Full(x=np.eye(34, dtype=np.float32), edges=edges, y=faction, labelled=labelled)


@pytest.mark.parametrize(
    "model",
    [
        Serial(GCN(34, 16), jax.nn.relu, Dropout(0.2), GCN(16, 2)),
        Serial(GAT(34, 16, num_heads=4, dropout=0.2), jax.nn.elu, GAT(16, 2, num_heads=2, concat=False)),
    ],
    ids=["GCN", "GAT"],
)
def test_the_karate_club_from_two_labels(model):
    """Only the instructor (0) and the president (33) are labelled; Kipf & Welling, 2017, appendix A.1."""
    leaders = np.isin(np.arange(34), [0, 33])
    task = fdl.supervised(
        model,
        fdl.losses.softmax_cross_entropy,
        {"accuracy": fdl.metrics.accuracy},
        inputs=("x", {"edges": "edges"}),
        weight="labelled",
    )
    experiment = fdl.Experiment(task, optax.adam(1e-2), karate(leaders), {"others": karate(~leaders)}, num_steps=150)
    with jax.numpy_dtype_promotion("standard"):  # for Optax
        result = fdl.run(experiment)
    assert result.metrics["train/loss"] < 0.1 < result.history["train/loss"][0]
    assert result.metrics["others/accuracy"] > 0.9


def test_graphs_are_classified_from_a_shuffled_set():
    """Rings against stars of 3 to 7 nodes with equal features; the batch does not divide the set."""
    graphs = []
    for n in list(range(3, 8)) * 3:
        ring = np.stack([np.arange(n), np.roll(np.arange(n), 1)])
        star = np.stack([np.zeros(n - 1, int), np.arange(1, n)])
        x = np.ones((n, 1), np.float32)
        graphs += [Graph(x, undirected(ring), y=0), Graph(x, undirected(star), y=1)]
    data = fdl.data.Arrays(**pad_each(graphs))
    model = Serial(GIN(1, 8), jax.nn.relu, GraphPool("mean"), Linear(8, 2))
    task = fdl.supervised(
        model,
        fdl.losses.softmax_cross_entropy,
        {"accuracy": fdl.metrics.accuracy},
        inputs=("x", {"edges": "edges", "sizes": "sizes"}),
    )
    experiment = fdl.Experiment(task, optax.adam(3e-2), data, {"all": data}, batch_size=8, num_steps=200)
    with jax.numpy_dtype_promotion("standard"):  # for Optax
        assert fdl.run(experiment).metrics["all/accuracy"] == 1.0


def test_both_ways_of_padding_give_the_same_graphs():
    """End to end, and each to the largest: a whole network, its loss weight included."""
    random = np.random.default_rng(0)
    graphs = []
    for n in (3, 1, 5):
        edges = undirected(random.integers(0, n, (2, 2 * n)))
        graphs.append(Graph(random.normal(size=(n, F)).astype(np.float32), edges, y=n))
    model = Serial(GCN(F, 4), jax.nn.relu, GAT(4, 4), GIN(4, 4), GraphPool("mean"), Linear(4, 2))
    params = jittered(model)
    flat, each = pad_batch(graphs, 12, 40, 5), pad_each(graphs)
    alone = [run(model, params, graph.x, edges=graph.edges)[0] for graph in graphs]
    for batch in (flat, each):
        y = run(model, params, batch["x"], edges=batch["edges"], sizes=batch["sizes"])
        assert_close(y[:3], alone)
        assert batch["y"][:3].tolist() == [3, 1, 5]
