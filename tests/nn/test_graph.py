"""Laws of graph layers: symmetries, padding, degenerate graphs, attention, and training through `fdl.run`."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.data.graphs import undirected
from fdl.nn.batch_norm import BatchNorm
from fdl.nn.containers import Serial
from fdl.nn.dropout import Dropout
from fdl.nn.graph import GraphAttentionPool, GraphPool
from fdl.nn.graph_attention import GAT, GATv2
from fdl.nn.graph_conv import GCN, GIN, GraphSAGE
from fdl.nn.linear import Linear
from fdl.records import short

N, F = 6, 3
# Node 5 is alone, node 2 has a loop, the edge 0 -> 1 stands there twice.
EDGES: Any = np.array([[0, 0, 1, 2, 3, 4, 2], [1, 1, 0, 2, 4, 3, 3]])
CONVOLUTIONS = [
    GCN(F, 4),
    GCN(F, 4, self_loops=False),
    GraphSAGE(F, 4, normalize=True),
    GraphSAGE(F, 4, aggregate="max", project=True),
    GIN(F, 4, train_eps=True),
    GAT(F, 4, num_heads=2),
    GAT(F, 4, self_loops=False),
    GATv2(F, 4, num_heads=2, concat=False),
]
POOLS = [GraphPool("sum"), GraphPool("mean"), GraphPool("max"), GraphAttentionPool(F)]
each_convolution = pytest.mark.parametrize("layer", CONVOLUTIONS, ids=repr)
each_pool = pytest.mark.parametrize("layer", POOLS, ids=repr)


def features(*shape: int) -> Any:
    return np.random.default_rng(0).normal(size=shape or (N, F)).astype(np.float32)


def jittered(layer: fdl.Layer) -> Any:
    """Parameters away from biases of 0."""
    random = np.random.default_rng(1)
    params, _ = fdl.init(layer, jax.random.key(0))
    return jax.tree.map(lambda leaf: leaf + random.normal(size=leaf.shape, scale=0.3).astype(np.float32), params)


@partial(jax.jit, static_argnames=("layer", "train"))
def run(layer: fdl.Layer, params, x, key=None, train=False, **keywords):
    """Compiled: one operation at a time takes many times longer here."""
    return layer(params, x, key=key, train=train, **keywords)


def assert_close(got, want) -> None:
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


@each_convolution
def test_renaming_the_nodes_renames_the_result(layer):
    params, x, order = jittered(layer), features(), np.array([3, 5, 0, 4, 1, 2])
    place = np.argsort(order)
    assert_close(run(layer, params, x[order], edges=place[EDGES]), run(layer, params, x, edges=EDGES)[order])


@each_convolution
def test_the_order_of_edges_does_not_matter(layer):
    params = jittered(layer)
    assert_close(run(layer, params, features(), edges=EDGES[:, ::-1]), run(layer, params, features(), edges=EDGES))


@each_convolution
def test_padding_edges_change_nothing_to_the_bit(layer):
    params, x = jittered(layer), features()
    edges = np.insert(EDGES, [0, 3, 7], -1, axis=1)
    edges[0, 0], edges[1, -1] = 1, 2  # padded at one end only
    np.testing.assert_array_equal(run(layer, params, x, edges=edges), run(layer, params, x, edges=EDGES))


@each_convolution
def test_padding_nodes_change_no_real_node(layer):
    """Whatever they hold; nor any gradient. Not to the bit: the product with a kernel is blocked by its rows."""
    params, x = jittered(layer), features()
    padded = np.concatenate([x, np.full((2, F), np.nan, np.float32)])

    def loss(params, x):
        y = layer(params, x, edges=EDGES)[:N]
        return (y**3).sum(), y  # the sum of squares of normalised rows is constant, its gradient rounding alone

    forward = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    (_, y), (to_params, to_x) = forward(params, np.nan_to_num(padded))
    (_, want), (want_params, want_x) = forward(params, x)
    assert_close(y, want)
    assert_close(run(layer, params, padded, edges=EDGES)[:N], want)
    assert_close(to_x, np.concatenate([want_x, np.zeros((2, F))]))
    jax.tree.map(assert_close, to_params, want_params)


@each_convolution
def test_a_batch_of_padded_graphs_is_each_alone(layer):
    """x [B, N, F]; the second graph has the first's edges reversed, the third has none."""
    params, x = jittered(layer), features(3, N, F)
    edges = np.stack([EDGES, EDGES[::-1], np.full_like(EDGES, -1)])
    got = run(layer, params, x, edges=edges)
    assert_close(got, np.stack([run(layer, params, a, edges=e) for a, e in zip(x, edges, strict=True)]))


@each_convolution
@pytest.mark.parametrize("nodes", [0, 1, 4])
def test_without_edges_every_node_is_alone(layer, nodes):
    params, x = jittered(layer), features(nodes, F)
    none = np.zeros((2, 0), np.int32)

    def loss(params):
        y = layer(params, x, edges=none)
        return (y**2).sum(), y

    gradients, y = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert y.shape == (nodes, 4)
    assert jnp.isfinite(y).all()
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
    alone = [run(layer, params, row[None], edges=none)[0] for row in x]
    assert_close(y, np.reshape(alone, (nodes, 4)))


def test_an_isolated_node_gives_what_the_definition_says():
    x, none = features(1, F), jnp.zeros((2, 0), jnp.int32)
    params = {"kernel": features(F, 4), "bias": np.arange(4, dtype=np.float32)}
    own = x @ params["kernel"] + params["bias"]
    assert_close(run(GCN(F, 4), params, x, edges=none), own)  # its loop has weight 1 / sqrt(1 * 1)
    assert_close(run(GCN(F, 4, self_loops=False), params, x, edges=none), params["bias"][None])
    gat = jittered(GAT(F, 4))
    assert_close(run(GAT(F, 4), gat, x, edges=none), x @ gat["kernel"][:, 0] + gat["bias"])
    assert_close(run(GAT(F, 4, self_loops=False), gat, x, edges=none), gat["bias"][None])
    sage = jittered(GraphSAGE(F, 4, aggregate="max"))
    assert_close(run(GraphSAGE(F, 4, aggregate="max"), sage, x, edges=none), x @ sage["root"]["kernel"] + sage["bias"])


def test_a_self_loop_that_is_there_is_not_doubled():
    path, looped = np.array([[0, 1], [1, 0]]), np.array([[0, 1, 0, 1], [1, 0, 0, 1]])
    for layer in (GCN(F, 4), GAT(F, 4), GATv2(F, 4)):
        params = jittered(layer)
        x = features(2, F)
        assert_close(run(layer, params, x, edges=looped), run(layer, params, x, edges=path))


def test_gcn_of_three_nodes_by_hand():
    """The path 0 - 1 - 2: degrees with loops 2, 3, 2."""
    edges = jnp.array([[0, 1, 1, 2], [1, 0, 2, 1]])
    y = GCN(1, 1, use_bias=False)({"kernel": jnp.ones((1, 1))}, jnp.array([[1.0], [10.0], [100.0]]), edges=edges)
    root = 6**-0.5
    assert_close(y[:, 0], [1 / 2 + 10 * root, root + 10 / 3 + 100 * root, 10 * root + 100 / 2])


def test_a_zero_result_of_unit_length_has_a_finite_gradient():
    layer = GraphSAGE(F, 4, normalize=True)
    params = jax.tree.map(jnp.zeros_like, jittered(layer))
    y, gradient = jax.value_and_grad(lambda p: layer(p, features(), edges=EDGES).sum())(params)
    assert y == 0
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@each_convolution
@pytest.mark.parametrize("scale", [1e-20, 1e15])
def test_tiny_and_huge_features_stay_finite(layer, scale):
    params = jittered(layer)
    gradient = jax.jit(jax.grad(lambda x: layer(params, x, edges=EDGES).sum()))(features() * np.float32(scale))
    assert jnp.isfinite(gradient).all()
    assert jnp.isfinite(run(layer, params, features() * np.float32(scale), edges=EDGES)).all()


# What layers can tell apart

TRIANGLES = undirected(np.array([[0, 1, 2, 3, 4, 5], [1, 2, 0, 4, 5, 3]]))
HEXAGON = undirected(np.array([[0, 1, 2, 3, 4, 5], [1, 2, 3, 4, 5, 0]]))
STARS = undirected(np.array([[0, 0, 3, 3, 3], [1, 2, 4, 5, 6]]))  # centre 0 has two leaves, centre 3 three


def test_sums_count_equal_neighbours_and_means_and_maxima_do_not():
    """Xu et al., 2019, figure 3 and section 5.2."""
    x = np.ones((7, F), np.float32)
    for layer, told_apart in (
        (GIN(F, 4), True),
        (GraphSAGE(F, 4, aggregate="sum"), True),
        (GraphSAGE(F, 4), False),
        (GraphSAGE(F, 4, aggregate="max"), False),
        (GAT(F, 4), False),
    ):
        y = run(layer, jittered(layer), x, edges=STARS)
        assert (abs(y[0] - y[3]).max() > 1e-2) == told_apart, layer


def test_no_layer_tells_two_triangles_from_a_hexagon():
    """The Weisfeiler-Lehman test does not either (Xu et al., 2019, lemma 2)."""
    x = np.ones((6, F), np.float32)
    for layer in CONVOLUTIONS:
        params = jittered(layer)
        assert_close(run(layer, params, x, edges=TRIANGLES), run(layer, params, x, edges=HEXAGON))


# Pooling


@each_pool
def test_pooling_ignores_the_order_of_nodes_and_what_padding_holds(layer):
    params, x = jittered(layer), features()
    sizes = np.array([4, 0, 2])
    padded = np.concatenate([x[[2, 0, 3, 1, 5, 4]], np.full((2, F), np.nan, np.float32)])
    want = layer(params, x, sizes=sizes)
    assert_close(layer(params, padded, sizes=np.append(sizes, [0, 0])), np.pad(want, [(0, 2), (0, 0)]))
    np.testing.assert_array_equal(want[1], 0)
    gradients = jax.grad(lambda p, x: layer(p, x, sizes=sizes).sum(), argnums=(0, 1))(params, jnp.asarray(padded))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))


@each_pool
def test_pooling_a_batch_is_pooling_each(layer):
    params, x = jittered(layer), features(3, N, F)
    sizes = np.array([N, 0, 2])
    each = [layer(params, a[:size]) for a, size in zip(x, sizes, strict=True)]
    assert each[0].shape == (1, F)
    assert_close(layer(params, x, sizes=sizes), np.concatenate(each))
    assert_close(layer(params, x)[1:2], layer(params, x[1]))


@each_pool
def test_pooling_nothing(layer):
    params = jittered(layer)
    assert layer(params, np.zeros((0, F), np.float32)).tolist() == [[0.0] * F]
    assert layer(params, np.zeros((0, F), np.float32), sizes=np.zeros(0, np.int32)).shape == (0, F)
    assert layer(params, np.zeros((2, 0, F), np.float32)).tolist() == [[0.0] * F] * 2


# In containers


def test_keywords_reach_the_layers_that_name_them():
    model = Serial(GCN(F, 4), jax.nn.relu, Dropout(0.5), conv=GAT(4, 4, num_heads=2, dropout=0.5), head=Linear(4, 2))
    params = jittered(model)
    weight = jnp.linspace(1, 2, EDGES.shape[1], dtype=jnp.float32)
    y = model(params, features(), edges=EDGES, edge_weight=weight)
    hidden = jax.nn.relu(GCN(F, 4)(params["0"], features(), edges=EDGES, edge_weight=weight))
    hidden = GAT(4, 4, num_heads=2)(params["conv"], hidden, edges=EDGES)
    assert_close(y, Linear(4, 2)(params["head"], hidden))
    assert (model(params, features(), edges=EDGES, key=jax.random.key(0), train=True) != y).any()


def test_gin_with_batch_norm_in_its_mlp_keeps_statistics():
    """As in the paper's experiments, section 7; the mlp's own keywords pass through."""
    mlp = Serial(Linear(F, 8, use_bias=False), BatchNorm(8), jax.nn.relu, Linear(8, 4))
    layer = GIN(F, 4, mlp=mlp)
    params, state = fdl.init(layer, jax.random.key(0))
    fdl.check(layer, params, state)
    y, new = layer.apply(params, state, features(), edges=EDGES, train=True)
    assert jax.tree.structure(new) == jax.tree.structure(state)
    total = np.stack([features()[i] + features()[EDGES[0, EDGES[1] == i]].sum(0) for i in range(N)])
    want, mlp_state = mlp.apply(params["mlp"], state["mlp"], total, train=True)
    assert_close(y, want)
    jax.tree.map(assert_close, new["mlp"], mlp_state)
    edited = fdl.edit(layer, "mlp/0", Linear(F, 8))
    assert edited == GIN(F, 4, mlp=Serial(Linear(F, 8), *list(mlp.parts().values())[1:]))


@each_convolution
def test_bfloat16_stays_bfloat16_under_strict_promotion(layer):
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), jittered(layer))
    y = run(layer, params, features().astype(jnp.bfloat16), edges=EDGES)
    assert y.dtype == jnp.bfloat16
    want = run(layer, jittered(layer), features(), edges=EDGES)
    np.testing.assert_allclose(y.astype(jnp.float32), want, atol=0.05, rtol=0.05)


# Bad input


def refused(call) -> str:
    with pytest.raises(fdl.InputError) as error:
        call()
    return "; ".join([str(error.value), *getattr(error.value, "__notes__", [])])


@each_convolution
def test_bad_graphs_are_refused_by_name(layer):
    model, x = Serial(Linear(F, F), body=layer), features()
    params = jittered(model)
    call = lambda x=x, **keywords: refused(lambda: model(params, x, **keywords))  # noqa: E731
    assert "edges: id 6 at (0, 5) is outside 0..5" in call(edges=EDGES + 2)
    assert "in layer body" in call(edges=EDGES + 2)
    assert "pass edges.T" in call(edges=EDGES.T)
    assert "expected integers, got float32" in call(edges=EDGES.astype(np.float32))
    assert 'inputs=("x", {"edges": "edges"})' in call()
    assert short(layer) in call()
    assert f"expected x of shape [N, in_features={F}]" in refused(lambda: layer(params["body"], x[:, :2], edges=EDGES))
    assert "expected x of shape" in refused(lambda: layer(params["body"], x[0], edges=EDGES))
    assert "a batch of graphs" in call(x=x[None], edges=EDGES)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GraphSAGE(3, 4, aggregate="lstm"), "mean, sum, max, got 'lstm'"),
        (lambda: GraphPool("median"), "sum, mean, max, got 'median'"),
        (lambda: GAT(3, 4, num_heads=3), "4 cannot be divided among 3 heads"),
        (lambda: GATv2(3, 4, num_heads=0), "GATv2: num_heads"),
        (lambda: GAT(3, 4, dropout=1.5), "expected 0..1, got 1.5"),
        (lambda: GraphPool("mean")({}, features(), sizes=jnp.array([4, 4])), "have 8 nodes, but x has 6"),
        (lambda: GraphPool("mean")({}, features(2, 3, 4), sizes=jnp.array([4, 1])), "have 4 nodes, but x has 3"),
        (lambda: GraphPool("mean")({}, features(2, 3, 4), sizes=jnp.array([1])), r"expected sizes of shape \[2\]"),
        (lambda: GraphPool("mean")({}, features(3)), r"expected x of shape \[N, F\]"),
        (lambda: GraphAttentionPool(2)({"kernel": jnp.zeros(2)}, features()), "features=2"),
        (lambda: _gcn(edge_weight=np.ones(3)), "3"),
        (lambda: _gcn(edge_weight=np.ones((7, 1))), r"edge_weight of shape \[E\]"),
        (lambda: _wrong_mlp(), r"expected the result of mlp of shape \[\.\.\., out_features=4\]"),
    ],
)
def test_bad_settings_are_refused(call, message):
    with pytest.raises(fdl.InputError, match=message):
        call()


def _gcn(**keywords):
    return GCN(F, 4)(jittered(GCN(F, 4)), features(), edges=EDGES, **keywords)


def _wrong_mlp():
    layer = GIN(F, 4, mlp=Linear(F, 5))
    return layer(jittered(layer), features(), edges=EDGES)
