"""From nodes to graphs: pooling. The layers between nodes are in `graph_conv` and `graph_attention`."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fdl.core import Initializer, Layer, Param, Tree
from fdl.errors import InputError
from fdl.fields import Size
from fdl.initializers import Zeros
from fdl.ops import graph
from fdl.ops.norm import widen
from fdl.ops.segment import per_row, segment_softmax, segment_sum
from fdl.shapes import expect


@dataclass(frozen=True)
class GraphPool(Layer):
    """y_g = sum, mean or max of x_i over the nodes i of graph g; a graph without nodes gives 0.

    Args:
      reduce: "sum", "mean" or "max".
    Call: x [N, F] -> [G, F] with sizes integers [G], the first sizes[0] nodes being those of graph 0 and so on, nodes
      past the last graph padding; without sizes all nodes are one graph, [1, F]. Or x [B, N, F] -> [B, F], graph b
      having the first sizes[b] of its N nodes, all of them without sizes. In x's dtype, accumulated in float32.

    Raises:
      InputError: an unknown reduce, sizes that do not fit x.

    PyTorch Geometric: `global_add_pool`, `global_mean_pool`, `global_max_pool`, which take the graph of every node
    (`batch`) instead of sizes.

    >>> x = jnp.array([[1.0], [2.0], [4.0], [100.0]])
    >>> GraphPool("sum")({}, x, sizes=jnp.array([2, 1, 0])).tolist()
    [[3.0], [4.0], [0.0]]
    """

    reduce: str

    def __post_init__(self) -> None:
        if self.reduce not in list(graph.REDUCTIONS):
            raise InputError(f"GraphPool: reduce is one of {', '.join(graph.REDUCTIONS)}, got {self.reduce!r}")

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        sizes: jax.Array | None = None,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        del params, key, train
        return graph.REDUCTIONS[self.reduce](*_segments(self, x, sizes))


@dataclass(frozen=True)
class GraphAttentionPool(Layer):
    """y_g = sum_i p_i x_i over the nodes i of graph g, p = softmax over them of x_i . w.

    Args:
      features: size of the last axis.
    Call: as `GraphPool`; with the initial w = 0 it is the mean. A bias beside w would change nothing.

    Raises:
      InputError: sizes that do not fit x.

    Li et al., Gated graph sequence neural networks, 2016, equation 7, with a softmax for the sigmoid. PyTorch
    Geometric: `AttentionalAggregation(Linear(features, 1))`; put a layer in front for its `nn`.

    >>> layer, x = GraphAttentionPool(1), jnp.array([[1.0], [3.0]])
    >>> layer({"kernel": jnp.array([100.0])}, x).tolist()
    [[3.0]]
    """

    features: Size
    kernel_init: Initializer = Zeros()

    def specs(self) -> Tree:
        return {"kernel": Param((self.features,), self.kernel_init, ("embed",))}

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        sizes: jax.Array | None = None,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        del key, train
        expect(self, x, "[..., features]")
        nodes, ids, num_graphs = _segments(self, x, sizes)
        wide = widen(nodes)
        weights = segment_softmax((wide * widen(params["kernel"])).sum(-1), ids, num_graphs)
        return segment_sum(per_row(weights, wide) * wide, ids, num_graphs).astype(x.dtype)


def _segments(layer: Layer, x: jax.Array, sizes: jax.Array | None) -> tuple[jax.Array, jax.Array, int]:
    """Nodes [M, F], 0 where they are padding, the graph of each (-1 = padding), and the number of graphs."""
    if jnp.ndim(x) == 3:
        x, ids, num_graphs = _padded_each(layer, x, sizes)
    else:
        expect(layer, x, "[N, F]")
        known = jnp.array([x.shape[0]], jnp.int32) if sizes is None else sizes
        ids, num_graphs = graph.graph_ids(known, x.shape[0]), known.shape[0]
    # A NaN in padding would reach the gradient: 0 * NaN.
    return jnp.where(ids[:, None] >= 0, x, jnp.zeros_like(x)), ids, num_graphs


def _padded_each(layer: Layer, x: jax.Array, sizes: jax.Array | None) -> tuple[jax.Array, jax.Array, int]:
    """The same of x [B, N, F], every graph having room for N nodes."""
    batch, nodes, features = x.shape
    known = jnp.full(batch, nodes, jnp.int32) if sizes is None else graph.check_sizes(sizes, nodes, total=False)
    expect(layer, known, f"[{batch}]", "sizes")
    real = jnp.arange(nodes, dtype=jnp.int32) < known[:, None]
    ids = jnp.where(real, jnp.arange(batch, dtype=jnp.int32)[:, None], -1)
    return x.reshape(batch * nodes, features), ids.reshape(-1), batch
