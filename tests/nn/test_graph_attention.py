"""Attention over neighbours: its weights, what it can rank, and its dropout."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

import fdl
from fdl.nn.graph_attention import GAT, GATv2
from fdl.ops.graph import add_self_loops
from tests.nn.test_graph import EDGES, F, N, assert_close, features, jittered


@pytest.mark.parametrize("layer", [GAT(F, 4, num_heads=2), GATv2(F, 4, num_heads=2, self_loops=False)], ids=repr)
def test_attention_adds_up_to_one_over_the_edges_into_a_node(layer):
    edges: Any = np.insert(EDGES, 2, -1, axis=1)
    pairs, weights = layer.coefficients(jittered(layer), features(), edges=edges)
    total = np.zeros((N, 2))
    real = np.asarray(pairs[1]) >= 0
    np.add.at(total, np.asarray(pairs[1])[real], np.asarray(weights)[real])
    heard = np.ones(N) if layer.self_loops else np.isin(np.arange(N), EDGES[1])
    assert_close(total, np.stack([heard, heard], 1))
    np.testing.assert_array_equal(np.asarray(weights)[~real], 0)
    if layer.self_loops:
        np.testing.assert_array_equal(pairs, add_self_loops(edges, N)[0])


def complete(nodes: int) -> Any:
    return np.stack([index.ravel() for index in np.indices((nodes, nodes))])


def test_gat_ranks_neighbours_alike_for_every_node_and_gat_v2_need_not():
    """Static against dynamic attention (Brody et al., 2022, theorem 1). There: every node attends most to itself."""
    x: Any = np.eye(4, dtype=np.float32)
    edges = complete(4)
    for seed in range(5):
        params, _ = fdl.init(GAT(4, 8), jax.random.key(seed))
        _, weights = GAT(4, 8).coefficients(params, x, edges=edges)
        table = np.array(weights[:16, 0]).reshape(4, 4)  # [sender, receiver]; the loops are the last four
        np.fill_diagonal(table, np.asarray(weights)[-4:, 0])
        assert len(set(table.argmax(0))) == 1
    dynamic, one = GATv2(4, 4, self_loops=False, use_bias=False), np.eye(4, dtype=np.float32)[:, None]
    # -sum of leaky_relu(x_i - x_j) is 0 for j = i and -(1 - 0.2) for any other
    params = {"source": {"kernel": -one}, "target": {"kernel": one}, "attention": {"kernel": -one.sum(0)}}
    _, weights = dynamic.coefficients(params, x, edges=edges)
    assert np.asarray(weights).reshape(4, 4).argmax(0).tolist() == [0, 1, 2, 3]


def test_attention_dropout_is_for_training_and_follows_the_key():
    layer = GAT(F, 4, num_heads=2, dropout=0.5)
    params, x = jittered(layer), features()
    want = GAT(F, 4, num_heads=2)(params, x, edges=EDGES)
    np.testing.assert_array_equal(layer(params, x, edges=EDGES, key=jax.random.key(0)), want)
    first, again, other = (layer(params, x, edges=EDGES, key=jax.random.key(i), train=True) for i in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    with pytest.raises(fdl.InputError, match="pass key="):
        layer(params, x, edges=EDGES, train=True)
    everything = dataclasses.replace(layer, dropout=1.0)
    dropped = everything(params, x, edges=EDGES, train=True, key=jax.random.key(0))
    assert_close(dropped, np.broadcast_to(params["bias"], (N, 4)))


def test_attention_dropout_keeps_the_expectation():
    layer = GAT(F, 4, dropout=0.3)
    params, x = jittered(layer), features()
    draw = jax.jit(jax.vmap(lambda key: layer(params, x, edges=EDGES, key=key, train=True)))
    draws = draw(jax.random.split(jax.random.key(0), 4000))
    error = draws.std(0) / np.sqrt(4000)
    assert (abs(draws.mean(0) - layer(params, x, edges=EDGES)) < 5 * error + 1e-6).all()
