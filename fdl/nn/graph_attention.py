"""Graph attention: GAT and GATv2."""

from __future__ import annotations

from dataclasses import dataclass

import jax

from fdl.core import Initializer, Layer, Param, Tree
from fdl.errors import InputError
from fdl.fields import DropRate, Flag, Real, Size
from fdl.initializers import XavierUniform, Zeros
from fdl.nn.graph_conv import flat_graph
from fdl.ops import graph
from fdl.ops.dropout import dropout
from fdl.ops.linear import linear
from fdl.ops.norm import widen
from fdl.ops.segment import gather, segment_softmax, segment_sum
from fdl.ops.shared import shared
from fdl.records import short


@dataclass(frozen=True)
class _GraphAttention(Layer):
    """What both versions share: everything but the logits of the edges."""

    in_features: Size
    out_features: Size
    num_heads: Size = 1
    concat: Flag = True
    negative_slope: Real = 0.2
    dropout: DropRate = 0.0
    self_loops: Flag = True
    use_bias: Flag = True
    kernel_init: Initializer = XavierUniform(in_axis=0, out_axis=(1, 2))
    attention_init: Initializer = XavierUniform(in_axis=1, out_axis=0)

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.concat and self.out_features % self.num_heads:
            raise InputError(
                f"{name}: out_features is the size of the result; {self.out_features} cannot be divided among "
                f"{self.num_heads} heads (PyTorch Geometric's out_channels is the size of one head)"
            )

    @property
    def head_features(self) -> int:
        """K, the size of one head."""
        return self.out_features // self.num_heads if self.concat else self.out_features

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        edges: jax.Array | None = None,
        key: jax.Array | None = None,
        train: bool = False,
    ) -> jax.Array:
        values_NHK, pairs, weights_EH = self._attend(params, x, edges)
        weights_EH = self._drop(weights_EH, key, train)
        senders, receivers = graph.endpoints(pairs, values_NHK.shape[0])
        messages_EHK = widen(gather(values_NHK, senders)) * weights_EH[..., None]
        y_NHK = segment_sum(messages_EHK, receivers, values_NHK.shape[0])
        y = y_NHK.reshape(-1, self.out_features) if self.concat else y_NHK.mean(1)
        y = y.astype(values_NHK.dtype)
        y = y + shared(params["bias"], y) if self.use_bias else y
        return y.reshape(*x.shape[:-1], self.out_features)

    def coefficients(
        self, params: Tree, x: jax.Array, *, edges: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array]:
        """The edges that take part, [2, E'], and their attention [E', H] (float32 or wider), 0 on padding.

        With `self_loops` they are those of `fdl.ops.graph.add_self_loops`: E' = E + N. Over the edges that end in one
        node the attention of a head adds up to 1. Node n of graph b in a batch is b * N + n.
        """
        return self._attend(params, x, edges)[1:]

    def _attend(self, params: Tree, x: jax.Array, edges: jax.Array | None) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What the senders send [N, H, K], the edges, and the attention of each."""
        nodes, pairs = flat_graph(self, x, edges)
        if self.self_loops:
            pairs, _ = graph.add_self_loops(pairs, nodes.shape[0])
        senders, receivers = graph.endpoints(pairs, nodes.shape[0])
        values, logits = self._logits(params, nodes, senders, receivers)
        return values, pairs, segment_softmax(logits, receivers, nodes.shape[0])

    def _logits(
        self, params: Tree, x: jax.Array, senders: jax.Array, receivers: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Values [N, H, K] and logits [E, H], the latter wide."""
        raise NotImplementedError

    def _drop(self, weights: jax.Array, key: jax.Array | None, train: bool) -> jax.Array:
        if not train or (isinstance(self.dropout, float | int) and self.dropout == 0):
            return weights
        if key is None:
            raise InputError(f"{short(self)}: train=True needs randomness for its dropout; pass key=")
        return dropout(weights, self.dropout, key)

    def _kernel(self) -> Param:
        return Param((self.in_features, self.num_heads, self.head_features), self.kernel_init, ("embed", "heads", "kv"))

    def _score(self) -> Param:
        return Param((self.num_heads, self.head_features), self.attention_init, ("heads", "kv"))

    def _bias(self) -> Tree:
        return {"bias": Param((self.out_features,), Zeros(), (None,))} if self.use_bias else {}


@dataclass(frozen=True)
class GAT(_GraphAttention):
    """y_i = sum_j p_ij W x_j + b, p_i = softmax over (j, i) of leaky_relu(a_source . W x_j + a_target . W x_i).

    Args:
      in_features, out_features: sizes of the last axis, whatever the number of heads.
      num_heads: heads with kernels of their own.
      concat: whether heads of out_features / num_heads are concatenated (hidden layers), or heads of out_features
        averaged (the last layer).
      negative_slope: of the leaky ReLU.
      dropout: the probability of dropping an edge's attention in training; needs `key`. May be traced.
      self_loops: whether every node attends to itself, once. Without, a node that hears from nobody gives b.
      use_bias: whether to add b.
    Call: x [N, in_features] (or [B, N, in_features]) -> [N, out_features], in x's dtype, the softmax in float32; edges
      integers [2, E] (or [B, 2, E]), -1 = padding.

    Raises:
      InputError: heads that do not divide out_features, other shapes, node numbers out of range, dropout without key.

    Velickovic et al., Graph attention networks, 2018, equations 3 to 6. PyTorch Geometric: `GATConv`, whose
    out_channels is the size of one head; att_src = source/kernel, att_dst = target/kernel.

    >>> GAT(8, 6, num_heads=2).head_features, GAT(8, 6, num_heads=2, concat=False).head_features
    (3, 6)
    """

    def specs(self) -> Tree:
        score = {"kernel": self._score()}
        return {"kernel": self._kernel(), "source": score, "target": score} | self._bias()

    def _logits(
        self, params: Tree, x: jax.Array, senders: jax.Array, receivers: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        values_NHK = linear(x, params["kernel"])
        wide = widen(values_NHK)
        # a . [W x_j, W x_i] is a sum of one number a node and head, so no edge ever holds K of them.
        source_NH, target_NH = ((wide * widen(params[end]["kernel"])).sum(-1) for end in ("source", "target"))
        logits_EH = gather(source_NH, senders) + gather(target_NH, receivers)
        return values_NHK, jax.nn.leaky_relu(logits_EH, self.negative_slope)


@dataclass(frozen=True)
class GATv2(_GraphAttention):
    """y_i = sum_j p_ij W_source x_j + b, p_i = softmax over (j, i) of a . leaky_relu(W_source x_j + W_target x_i + c).

    The nonlinearity stands between W and a, so that which neighbour matters most may depend on the node that asks;
    in `GAT` all nodes rank their neighbours alike.

    Args, Call, Raises: as `GAT`; use_bias adds b and c.

    Brody et al., How attentive are graph attention networks?, 2022, equation 7. PyTorch Geometric: `GATv2Conv`, lin_l =
    source and lin_r = target; it has a bias in both, which are c (their sum) and a part of b (that of lin_l) here.

    >>> GATv2(8, 6, num_heads=2)
    GATv2(8, 6, num_heads=2)
    """

    def specs(self) -> Tree:
        kernel = {"kernel": self._kernel()}
        inner = {"bias": Param((self.num_heads, self.head_features), Zeros(), ("heads", "kv"))} if self.use_bias else {}
        return {"source": kernel, "target": kernel | inner, "attention": {"kernel": self._score()}} | self._bias()

    def _logits(
        self, params: Tree, x: jax.Array, senders: jax.Array, receivers: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        values_NHK, asked_NHK = (linear(x, params[end]["kernel"]) for end in ("source", "target"))
        asked_NHK = asked_NHK + shared(params["target"]["bias"], asked_NHK) if self.use_bias else asked_NHK
        hidden_EHK = widen(gather(values_NHK, senders)) + widen(gather(asked_NHK, receivers))
        hidden_EHK = jax.nn.leaky_relu(hidden_EHK, self.negative_slope)
        return values_NHK, (hidden_EHK * widen(params["attention"]["kernel"])).sum(-1)
