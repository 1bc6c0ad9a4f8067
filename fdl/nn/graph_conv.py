"""Graph convolutions: GCN, GraphSAGE and GIN. Attention over neighbours is in `graph_attention`.

Every graph layer maps node features x [N, F] with the keyword `edges` [2, E] (see `fdl.ops.graph`), or a batch of
graphs of one padded size, x [B, N, F] with edges [B, 2, E]. Being a keyword, `edges` is handed by containers to the
layers that name it; what stands between them, such as `jax.nn.relu`, `Dropout` or `Linear`, sees nodes alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fdl.core import Initializer, Layer, Param, Tree
from fdl.errors import InputError
from fdl.fields import Flag, Real, Size
from fdl.initializers import Constant, XavierUniform, Zeros
from fdl.nn.containers import Serial, apply_part
from fdl.nn.linear import Linear
from fdl.ops import graph
from fdl.ops.linear import linear
from fdl.ops.norm import inverse_root, widen
from fdl.ops.shared import shared
from fdl.records import short
from fdl.shapes import expect


def flat_graph(layer: Layer, x: jax.Array, edges: Any) -> tuple[jax.Array, jax.Array]:
    """Nodes [M, in_features] and edges [2, E] of one graph, or of a batch as the disjoint union of its graphs.

    Raises:
      InputError: no edges; x that is neither [N, F] nor [B, N, F]; a batch whose edges are not [B, 2, E].
    """
    if edges is None:
        raise InputError(
            f"{short(layer)}: a graph layer needs edges=; "
            'in a task: supervised(..., inputs=("x", {"edges": "edges"}))'
        )
    if jnp.ndim(x) == 3:
        expect(layer, x, "[B, N, in_features]")
        return graph.disjoint_union(x, edges)
    expect(layer, x, "[N, in_features]")
    return x, edges


@dataclass(frozen=True)
class GCN(Layer):
    """y = D^-1/2 (A + I) D^-1/2 x W + b, with D the degrees of A + I.

    Args:
      in_features, out_features: sizes of the last axis.
      use_bias: whether to add b.
      self_loops: whether every node hears itself; a node that has a loop already keeps it and gets no second one.
      normalize: whether to apply D; off where `edge_weight` is normalised beforehand.
    Call: x [N, in_features] (or [B, N, in_features]) -> [N, out_features], in x's dtype; edges integers [2, E] (or
      [B, 2, E]), -1 = padding; edge_weight [E] (or [B, E]) = the values of A, ones by default. An isolated node gives
      x W + b.

    Raises:
      InputError: other shapes, node numbers out of range.

    Kipf & Welling, Semi-supervised classification with graph convolutional networks, 2017, equations 2 and 8. PyTorch
    Geometric: `GCNConv`, which stores W transposed; Flax has no graph layers.

    >>> import fdl
    >>> layer = GCN(3, 2)
    >>> params, _ = fdl.init(layer, jax.random.key(0))
    >>> layer(params, jnp.ones((4, 3)), edges=jnp.array([[0, 1], [1, 0]])).shape
    (4, 2)
    """

    in_features: Size
    out_features: Size
    use_bias: Flag = True
    self_loops: Flag = True
    normalize: Flag = True
    kernel_init: Initializer = XavierUniform()
    axes: tuple[str | None, str | None] = ("embed", "mlp")

    def specs(self) -> Tree:
        kernel = Param((self.in_features, self.out_features), self.kernel_init, self.axes)
        bias = Param((self.out_features,), Zeros(), self.axes[1:])
        return {"kernel": kernel, "bias": bias} if self.use_bias else {"kernel": kernel}

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        edges: jax.Array | None = None,
        edge_weight: jax.Array | None = None,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        del key, train
        nodes, pairs = flat_graph(self, x, edges)
        if edge_weight is not None:
            expect(self, edge_weight, "[B, E]" if jnp.ndim(x) == 3 else "[E]", "edge_weight")
        y = self._spread(linear(nodes, params["kernel"]), pairs, edge_weight)
        y = y + shared(params["bias"], y) if self.use_bias else y
        return y.reshape(*x.shape[:-1], self.out_features)

    def _spread(self, x: jax.Array, edges: jax.Array, weights: Any) -> jax.Array:
        """The matrix of the edges times x.

        Roots and loops are a node's, and are applied node by node: an edge costs one row read and one row added.
        """
        count, wide = x.shape[0], widen(x)
        weights = None if weights is None else weights.reshape(-1)
        own, root = None, None
        if self.self_loops:
            edges, own = graph.split_self_loops(edges, count, weights)
            own = own.astype(wide.dtype)
        if self.normalize:
            # In the accumulator's dtype from the start, or 1/sqrt(d) would limit a float64 model to 7 digits.
            degrees = graph.degree(edges, count, weights).astype(wide.dtype)
            root = inverse_root(degrees if own is None else degrees + own)[:, None]
            wide = wide * root
        y = graph.propagate(wide, edges, weights)
        y = y if own is None else y + own[:, None] * wide
        return (y if root is None else y * root).astype(x.dtype)


@dataclass(frozen=True)
class GraphSAGE(Layer):
    """y_i = x_i W_root + aggregate(x_j for the edges (j, i)) W_neighbor + b.

    Args:
      in_features, out_features: sizes of the last axis.
      aggregate: "mean", "sum" or "max"; a node without neighbours aggregates to 0.
      project: whether neighbours go through relu(x_j W_project + b_project) first; with "max" that is the paper's
        pooling aggregator (equation 3).
      normalize: whether y is divided by its length (algorithm 1, line 7); a y of 0 stays 0.
      use_bias: whether to add b.
    Call: x [N, in_features] (or [B, N, in_features]) -> [N, out_features], in x's dtype; edges integers [2, E] (or
      [B, 2, E]), -1 = padding.

    Raises:
      InputError: an unknown aggregate, other shapes, node numbers out of range.

    Hamilton et al., Inductive representation learning on large graphs, 2017; its W times the concatenation of x_i and
    the aggregate is these two kernels. PyTorch Geometric: `SAGEConv`, lin_r = root, lin_l = neighbor with the bias.

    >>> GraphSAGE(3, 2, aggregate="max")
    GraphSAGE(3, 2, aggregate='max')
    """

    in_features: Size
    out_features: Size
    aggregate: str = "mean"
    project: Flag = False
    normalize: Flag = False
    use_bias: Flag = True
    kernel_init: Initializer = XavierUniform()
    axes: tuple[str | None, str | None] = ("embed", "mlp")

    def __post_init__(self) -> None:
        if self.aggregate not in list(graph.REDUCTIONS):
            raise InputError(f"GraphSAGE: aggregate is one of mean, sum, max, got {self.aggregate!r}")

    def specs(self) -> Tree:
        kernel = {"kernel": Param((self.in_features, self.out_features), self.kernel_init, self.axes)}
        specs: Tree = {"root": kernel, "neighbor": kernel}
        if self.project:
            inside = Param((self.in_features, self.in_features), self.kernel_init, (self.axes[0], None))
            specs["project"] = {"kernel": inside, "bias": Param((self.in_features,), Zeros(), (None,))}
        return specs | ({"bias": Param((self.out_features,), Zeros(), self.axes[1:])} if self.use_bias else {})

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        edges: jax.Array | None = None,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        del key, train
        nodes, pairs = flat_graph(self, x, edges)
        heard = nodes
        if self.project:
            heard = linear(nodes, params["project"]["kernel"])
            heard = jax.nn.relu(heard + shared(params["project"]["bias"], heard))
        heard = graph.propagate(heard, pairs, reduce=self.aggregate)
        y = linear(nodes, params["root"]["kernel"]) + linear(heard, params["neighbor"]["kernel"])
        y = y + shared(params["bias"], y) if self.use_bias else y
        y = _unit_length(y) if self.normalize else y
        return y.reshape(*x.shape[:-1], self.out_features)


@dataclass(frozen=True)
class GIN(Layer):
    """y_i = mlp((1 + eps) x_i + sum of x_j over the edges (j, i)).

    Args:
      in_features, out_features: sizes of the last axis.
      eps: how much more a node counts than a neighbour.
      train_eps: whether eps is learned; the parameter is `scale` = 1 + eps, a scalar.
      mlp: any layer from in_features to out_features, one with running statistics too; None = the two-layer
        Serial(Linear(in, out), relu, Linear(out, out)) that a sum needs to be injective (section 4.1).
    Call: x [N, in_features] (or [B, N, in_features]) -> [N, out_features]; edges integers [2, E] (or [B, 2, E]),
      -1 = padding. Further keywords go to the mlp.

    Raises:
      InputError: other shapes, node numbers out of range, an mlp that gives another size than out_features.

    Xu et al., How powerful are graph neural networks?, 2019, equation 4.1. PyTorch Geometric: `GINConv(nn, eps=0.)`,
    whose learned parameter is eps itself; sizes come from its nn.

    >>> GIN(3, 2).parts()["mlp"]
    Serial(Linear(3, 2), jax.nn.relu, Linear(2, 2))
    """

    in_features: Size
    out_features: Size
    eps: Real = 0.0
    train_eps: Flag = False
    mlp: Layer | None = None

    def parts(self) -> dict[str, Any]:
        small = Serial(
            Linear(self.in_features, self.out_features), jax.nn.relu, Linear(self.out_features, self.out_features)
        )
        return {"mlp": small if self.mlp is None else self.mlp}

    def specs(self) -> Tree:
        scale = {"scale": Param((), Constant(1 + self.eps), ())} if self.train_eps else {}
        return super().specs() | scale

    def apply(
        self,
        params: Tree,
        state: Tree,
        x: jax.Array,
        *,
        edges: jax.Array | None = None,
        key: jax.Array | None = None,
        train: bool = False,
        **keywords: Any,
    ) -> tuple[jax.Array, Tree]:
        nodes, pairs = flat_graph(self, x, edges)
        scale = params["scale"] if self.train_eps else jnp.asarray(1 + self.eps).astype(nodes.dtype)
        heard = (shared(scale, nodes) * nodes + graph.propagate(nodes, pairs)).reshape(x.shape)
        y, new = apply_part("mlp", self.parts()["mlp"], params, state, heard, key=key, train=train, **keywords)
        expect(self, y, "[..., out_features]", "the result of mlp")
        return y, new


def _unit_length(y: jax.Array) -> jax.Array:
    """y / |y|, the length in float32 or wider; 0, with a gradient of 0, where |y| < 1e-12."""
    wide = widen(y)
    square = jnp.sum(wide * wide, -1, keepdims=True)
    return (wide * inverse_root(jnp.where(square < 1e-24, 0.0, square))).astype(y.dtype)
