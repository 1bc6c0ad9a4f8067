"""Graph layers against their definition on a dense adjacency matrix, and segment reductions against PyTorch.

Neither Flax nor PyTorch has graph layers, and PyTorch Geometric is no dependency of the tests. In float64, so that the
tolerance leaves room for the order of sums and for nothing else.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.nn.containers import Serial
from fdl.nn.graph import GraphAttentionPool, GraphPool
from fdl.nn.graph_attention import GAT, GATv2
from fdl.nn.graph_conv import GCN, GIN, GraphSAGE
from fdl.nn.linear import Linear
from fdl.ops.segment import segment_max, segment_mean, segment_softmax, segment_sum

N, E, F, OUT = 9, 24, 3, 4


def random_graph(seed: int, directed: bool) -> Any:
    """Edges with repeats, with self-loops at nodes 0 and 1 (twice there), and with node 8 alone; three are padding."""
    random = np.random.default_rng(seed)
    edges = random.integers(0, N - 1, (2, E // 2))
    edges = np.concatenate([edges, edges[:, :5] if directed else edges[::-1]], 1)
    return np.concatenate([edges, [[0, 1, 1, -1, 2, -1], [0, 1, 1, -1, -1, 2]]], 1)


def matrix(edges, weight=None):
    """A[receiver, sender], the sum of the weights of the edges between the two."""
    real = (edges >= 0).all(0)
    weight = jnp.ones(len(real)) if weight is None else weight
    return jnp.zeros((N, N)).at[edges[1, real], edges[0, real]].add(weight[real])


def with_loops(a, edges):
    has_loop = jnp.zeros(N).at[edges[0, (edges[0] == edges[1]) & (edges[0] >= 0)]].set(1)
    return a + jnp.diag(1 - has_loop)


def gcn(layer, params, x, edges, weight=None):
    a = matrix(edges, weight)
    a = with_loops(a, edges) if layer.self_loops else a
    if layer.normalize:
        degree = a.sum(1)
        root = jnp.where(degree == 0, 0.0, jnp.where(degree == 0, 1.0, degree) ** -0.5)
        a = jnp.diag(root) @ a @ jnp.diag(root)
    return a @ x @ params["kernel"] + params.get("bias", 0.0)


def sage(layer, params, x, edges):
    a = matrix(edges)
    z = x
    if layer.project:
        z = jnp.maximum(x @ params["project"]["kernel"] + params["project"]["bias"], 0)
    heard = a @ z
    if layer.aggregate == "mean":
        heard = heard / jnp.maximum(a.sum(1, keepdims=True), 1)
    if layer.aggregate == "max":
        lowest = jnp.where(a[..., None] > 0, z[None], -1e9).max(1)
        heard = jnp.where(a.sum(1, keepdims=True) > 0, lowest, 0)
    y = jnp.concatenate([x, heard], 1) @ jnp.concatenate([params["root"]["kernel"], params["neighbor"]["kernel"]])
    y = y + params.get("bias", 0.0)
    return y / jnp.linalg.norm(y, axis=1, keepdims=True) if layer.normalize else y


def gin(layer, params, x, edges):
    scale = params["scale"] if layer.train_eps else 1 + layer.eps
    y = scale * x + matrix(edges) @ x
    first, second = params["mlp"]["0"], params["mlp"]["2"]
    return jnp.maximum(y @ first["kernel"] + first["bias"], 0) @ second["kernel"] + second["bias"]


def attention(layer, values, logits, edges):
    """`logits` [receiver, sender, head], which repeated edges count repeatedly."""
    a = matrix(edges)
    a = jnp.where(jnp.eye(N, dtype=bool), 1.0, a) if layer.self_loops else a
    leaky = jnp.where(logits > 0, logits, layer.negative_slope * logits) if isinstance(layer, GAT) else logits
    exp = a[..., None] * jnp.exp(leaky)
    total = exp.sum(1, keepdims=True)
    y = jnp.einsum("ijh,jhk->ihk", exp / jnp.where(total == 0, 1.0, total), values)
    return y.reshape(N, -1) if layer.concat else y.mean(1)


def gat(layer, params, x, edges):
    values = jnp.einsum("nd,dhk->nhk", x, params["kernel"])
    source, target = (jnp.einsum("nhk,hk->nh", values, params[end]["kernel"]) for end in ("source", "target"))
    return attention(layer, values, target[:, None] + source[None], edges) + params.get("bias", 0.0)


def gat_v2(layer, params, x, edges):
    values = jnp.einsum("nd,dhk->nhk", x, params["source"]["kernel"])
    asked = jnp.einsum("nd,dhk->nhk", x, params["target"]["kernel"]) + params["target"].get("bias", 0.0)
    hidden = asked[:, None] + values[None]
    hidden = jnp.where(hidden > 0, hidden, layer.negative_slope * hidden)
    logits = jnp.einsum("ijhk,hk->ijh", hidden, params["attention"]["kernel"])
    return attention(layer, values, logits, edges) + params.get("bias", 0.0)


LAYERS = [
    (GCN(F, OUT), gcn),
    (GCN(F, OUT, self_loops=False, use_bias=False), gcn),
    (GCN(F, OUT, normalize=False), gcn),
    *((GraphSAGE(F, OUT, aggregate=aggregate), sage) for aggregate in ("mean", "sum", "max")),
    (GraphSAGE(F, OUT, aggregate="max", project=True, normalize=True), sage),
    (GIN(F, OUT, eps=0.5), gin),
    (GIN(F, OUT, train_eps=True), gin),
    (GAT(F, OUT, num_heads=2), gat),
    (GAT(F, OUT, num_heads=3, concat=False, negative_slope=0.1), gat),
    (GAT(F, OUT, self_loops=False, use_bias=False), gat),
    (GATv2(F, OUT, num_heads=2), gat_v2),
    (GATv2(F, OUT, num_heads=3, concat=False, self_loops=False), gat_v2),
    (GATv2(F, OUT, use_bias=False), gat_v2),
]


def jittered(params):
    """Away from biases of 0."""
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: leaf + 0.3 * random.normal(size=leaf.shape), params)


def assert_same(got, want, tolerance=1e-10):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def value_and_gradients(function, *arguments):
    """Of a fixed random projection, so that every entry of y matters."""
    shape = jax.eval_shape(function, *arguments).shape
    weights = np.random.default_rng(1).normal(size=shape)

    def projected(*arguments):
        y = function(*arguments)
        return (y * weights).sum(), y

    return jax.jit(jax.value_and_grad(projected, argnums=tuple(range(len(arguments))), has_aux=True))(*arguments)


@pytest.mark.parametrize(("layer", "dense"), LAYERS, ids=[repr(layer) for layer, _ in LAYERS])
def test_a_layer_is_its_definition_on_a_dense_matrix(layer, dense):
    with jax.enable_x64(True):
        for seed, directed in ((0, False), (1, True)):
            edges = random_graph(seed, directed)
            params = jittered(fdl.init(layer, jax.random.key(seed), jnp.float64)[0])
            x = jax.random.normal(jax.random.key(seed + 10), (N, F), jnp.float64)
            ours = value_and_gradients(lambda p, x, edges=edges: layer(p, x, edges=edges), params, x)
            theirs = value_and_gradients(lambda p, x, edges=edges: dense(layer, p, x, edges), params, x)
            assert_same(ours, theirs)


@pytest.mark.parametrize("layer", [GCN(F, OUT), GCN(F, OUT, self_loops=False)], ids=repr)
def test_edge_weights_and_their_gradients(layer):
    with jax.enable_x64(True):
        edges = random_graph(2, directed=False)
        weight = jnp.asarray(np.random.default_rng(3).uniform(0.5, 2, edges.shape[1]))
        params = jittered(fdl.init(layer, jax.random.key(0), jnp.float64)[0])
        x = jax.random.normal(jax.random.key(1), (N, F), jnp.float64)
        ours = value_and_gradients(lambda p, x, w: layer(p, x, edges=edges, edge_weight=w), params, x, weight)
        assert_same(ours, value_and_gradients(lambda p, x, w: gcn(layer, p, x, edges, w), params, x, weight))


@pytest.mark.parametrize(("layer", "dense"), LAYERS, ids=[repr(layer) for layer, _ in LAYERS])
def test_float32_agrees_to_its_precision(layer, dense):
    edges = random_graph(0, directed=False)
    params = jax.tree.map(jnp.float32, jittered(fdl.init(layer, jax.random.key(0))[0]))
    x = jax.random.normal(jax.random.key(10), (N, F))
    got = jax.jit(lambda p, x: layer(p, x, edges=edges))(params, x)
    assert_same(got, jax.jit(lambda p, x: dense(layer, p, x, edges))(params, x), 1e-5)


def test_a_gat_v2_of_pytorch_geometric_with_its_two_inner_biases():
    """lin_l has one bias, which the messages carry too, and lin_r another: what the docstring says they become."""
    with jax.enable_x64(True):
        layer, edges = GATv2(F, OUT, num_heads=2), random_graph(0, directed=False)
        params = jittered(fdl.init(layer, jax.random.key(0), jnp.float64)[0])
        x = jax.random.normal(jax.random.key(1), (N, F), jnp.float64)
        left, right = jax.random.normal(jax.random.key(2), (2, 2, 2), jnp.float64)
        values = jnp.einsum("nd,dhk->nhk", x, params["source"]["kernel"]) + left
        asked = jnp.einsum("nd,dhk->nhk", x, params["target"]["kernel"]) + right
        hidden = jax.nn.leaky_relu(asked[:, None] + values[None], 0.2)
        logits = jnp.einsum("ijhk,hk->ijh", hidden, params["attention"]["kernel"])
        want = attention(layer, values, logits, edges) + params["bias"]
        target = params["target"] | {"bias": left + right}
        got = layer(params | {"target": target, "bias": params["bias"] + left.ravel()}, x, edges=edges)
        assert_same(got, want)


@pytest.mark.parametrize(
    "layer", [GraphPool("sum"), GraphPool("mean"), GraphPool("max"), GraphAttentionPool(F)], ids=repr
)
def test_pooling_is_a_membership_matrix(layer):
    """Graphs of 4, 0 and 3 nodes, and two nodes of padding."""
    sizes = np.array([4, 0, 3])
    member: Any = np.zeros((3, N))
    member[0, :4] = member[2, 4:7] = 1

    def dense(params, x):
        if isinstance(layer, GraphAttentionPool):
            exp = member * jnp.exp(x @ params["kernel"])
            return exp @ x / jnp.maximum(exp.sum(1, keepdims=True), 1e-9)
        if layer.reduce == "max":
            return jnp.where(member.any(1)[:, None], jnp.where(member[..., None] > 0, x, -1e9).max(1), 0)
        return (member if layer.reduce == "sum" else member / np.maximum(member.sum(1, keepdims=True), 1)) @ x

    with jax.enable_x64(True):
        params = jittered(fdl.init(layer, jax.random.key(0), jnp.float64)[0])
        x = jax.random.normal(jax.random.key(1), (N, F), jnp.float64)
        ours = value_and_gradients(lambda p, x: layer(p, x, sizes=sizes), params, x)
        assert_same(ours, value_and_gradients(dense, params, x))


def test_a_network_with_dense_layers_between():
    model = Serial(GCN(F, 5), jax.nn.relu, Linear(5, 5), GAT(5, OUT))
    with jax.enable_x64(True):
        edges = random_graph(4, directed=True)
        params = jittered(fdl.init(model, jax.random.key(0), jnp.float64)[0])
        x = jax.random.normal(jax.random.key(1), (N, F), jnp.float64)

        def dense(p, x):
            hidden = jnp.maximum(gcn(GCN(F, 5), p["0"], x, edges), 0)
            return gat(GAT(5, OUT), p["3"], hidden @ p["2"]["kernel"] + p["2"]["bias"], edges)

        ours = value_and_gradients(lambda p, x: model(p, x, edges=edges), params, x)
        assert_same(ours, value_and_gradients(dense, params, x))


@pytest.mark.parametrize(
    "function", [segment_sum, segment_mean, segment_max, segment_softmax], ids=lambda f: f.__name__
)
def test_segment_reductions_are_those_of_pytorch(function):
    """Values that tie, on purpose: the gradient of a maximum is shared there as well."""
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(0)
    x = random.integers(-3, 3, (12, 2)).astype(np.float32)
    ids = np.array([0, 0, 0, 0, 0, 2, 2, 2, 2, 3, 3, 3])
    weights = random.normal(size=(12 if function is segment_softmax else 5, 2)).astype(np.float32)
    ours = jax.value_and_grad(lambda x: (function(x, ids, 5) * weights).sum())(x)

    leaf, index = torch.tensor(x, requires_grad=True), torch.tensor(ids)[:, None].expand(-1, 2)
    if function is segment_softmax:
        y = torch.cat([torch.softmax(leaf[ids == s], 0) for s in (0, 2, 3)])
    else:
        how = {segment_sum: "sum", segment_mean: "mean", segment_max: "amax"}[function]
        y = torch.zeros(5, 2).scatter_reduce(0, index, leaf, how, include_self=False)
    loss = (y * torch.tensor(weights)).sum()
    loss.backward()
    assert_same(ours, (loss.detach().numpy(), leaf.grad.numpy()), 1e-5)
