"""The graph of digits and its masks, and what the edges are worth."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import fdl
from experiments.graph_digits import Config, build, digits, labelled, nearest, network


def test_ten_labels_a_class_and_no_node_in_both_masks():
    _, y = digits()
    known = labelled(y, 10, draw=0)
    assert np.bincount(y[known]).tolist() == [10] * 10
    assert (known != labelled(y, 10, draw=1)).any()
    experiment = build(Config(neighbors=0))
    train, test = experiment.dataset.arrays["mask"], experiment.evaluate["test"].arrays["mask"]
    assert (train.sum(), test.sum()) == (100, 1697)
    assert (train + test == 1).all()


def test_the_graph_joins_nearest_points_in_both_directions_without_loops():
    """Points on a line at 0, 1, 3, 7: the nearest of each is 1, 0, 1, 3."""
    edges = nearest(np.array([[0.0], [1.0], [3.0], [7.0]]), 1)
    assert sorted(zip(*edges.tolist(), strict=True)) == [(0, 1), (1, 0), (1, 2), (2, 1), (2, 3), (3, 2)]


def test_without_edges_it_is_a_multi_layer_perceptron():
    model, rng = network(Config(width=5)), np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), fdl.abstract(model)[0])
    x = rng.normal(size=(3, 64)).astype(np.float32)
    logits = jax.jit(lambda params, x: model(params, x, edges=nearest(np.ones((3, 1)), 0)))(params, x)
    first, second = params["1"], params["4"]
    by_hand = np.maximum(x @ first["kernel"] + first["bias"], 0) @ second["kernel"] + second["bias"]
    np.testing.assert_allclose(logits, by_hand, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("draw", range(2))
def test_edges_are_worth_five_points(draw):
    graph, perceptron = (
        fdl.run(build, Config(neighbors, draw=draw), seed=draw).metrics["test/accuracy"] for neighbors in (10, 0)
    )
    assert graph >= 0.92
    assert graph >= perceptron + 0.05
