"""Graph networks: GCN and GAT label nodes, GIN labels graphs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import jax

from fdl import nn
from fdl.errors import InputError
from fdl.fields import is_whole
from fdl.nn.containers import Part
from fdl.nn.dropout import drops


def gcn(
    in_features: int, num_classes: int, *, hidden_features: int = 16, num_layers: int = 2, dropout: float = 0.0
) -> nn.Serial:
    """Graph convolutions with relu between them: logits for each node.

    Args:
      in_features: numbers at each node.
      num_classes: logits.
      hidden_features: units of the layers inside.
      num_layers: convolutions, and so the distance from which a node hears.
      dropout: of the input of every convolution; 0.5 in the paper.
    Call: x [N, in_features] -> logits [N, num_classes]; edges integers [2, E], -1 = padding, both directions of an
      undirected edge; edge_weight [E]. See `nn.GCN`.

    Reference: Kipf & Welling, Semi-supervised classification with graph convolutional networks, 2017, equation 9; the
    defaults are its sizes for Cora (section 5.2).

    >>> import fdl, jax.numpy as jnp
    >>> model = gcn(3, 2)
    >>> params, _ = fdl.abstract(model)
    >>> jax.eval_shape(model, params, jnp.ones((4, 3)), edges=jnp.array([[0, 1], [1, 0]])).shape
    (4, 2)
    """
    sizes = _sizes("gcn", in_features, hidden_features, num_layers)
    layers = [nn.GCN(a, b) for a, b in pairwise(sizes)]
    return _nodes([*layers, nn.GCN(sizes[-1], num_classes)], jax.nn.relu, dropout)


def gat(
    in_features: int,
    num_classes: int,
    *,
    hidden_features: int = 64,
    num_heads: int = 8,
    num_out_heads: int = 1,
    num_layers: int = 2,
    dropout: float = 0.0,
) -> nn.Serial:
    """Graph attention with elu between the layers: logits for each node.

    Args:
      in_features: numbers at each node.
      num_classes: logits.
      hidden_features: units of the layers inside, all heads together.
      num_heads: of the layers inside, side by side.
      num_out_heads: of the last layer, averaged (8 for Pubmed).
      num_layers: attention layers.
      dropout: of the input of every layer and of its attention; 0.6 in the paper.
    Call: as `gcn`, without edge_weight.

    Reference: Velickovic et al., Graph attention networks, 2018; the defaults are its sizes for Cora (section 3.3).

    >>> gat(3, 2).parts()["head"]
    GAT(64, 2, concat=False)
    """
    sizes = _sizes("gat", in_features, hidden_features, num_layers)
    layers = [nn.GAT(a, b, num_heads, dropout=dropout) for a, b in pairwise(sizes)]
    head = nn.GAT(sizes[-1], num_classes, num_out_heads, concat=False, dropout=dropout)
    return _nodes([*layers, head], jax.nn.elu, dropout)


def gin(
    in_features: int,
    num_classes: int,
    *,
    hidden_features: int = 64,
    num_layers: int = 4,
    dropout: float = 0.0,
    train_eps: bool = False,
    reduce: str = "sum",
) -> nn.Serial:
    """Sums over neighbours through perceptrons with batch normalisation, then over the graph: logits for each graph.

    Args:
      in_features: numbers at each node.
      num_classes: logits.
      hidden_features: units of every perceptron.
      num_layers: sums over neighbours (the paper's five layers count the input).
      dropout: of what the head reads; 0 or 0.5 in the paper.
      train_eps: whether a node learns how much more it counts than a neighbour (GIN-eps); GIN-0 otherwise.
      reduce: how the nodes of a graph become one vector, "sum", "mean" or "max".
    Call: `apply(params, state, x [N, in_features], edges=..., sizes=...)` -> (logits [G, num_classes], state); edges
      integers [2, E], -1 = padding; sizes integers [G], see `nn.GraphPool`. Or x [B, N, in_features] with edges
      [B, 2, E]. Where nodes are padding pass mask, booleans [N] or [B, N], for the batch normalisation.

    The head reads the last layer; the paper adds up a head for each layer (section 4.2).

    Reference: Xu et al., How powerful are graph neural networks?, 2019.

    >>> import fdl, jax.numpy as jnp
    >>> model = gin(3, 2, hidden_features=8, num_layers=2)
    >>> params, state = fdl.abstract(model)
    >>> edges, sizes = jnp.array([[0, 1], [1, 0]]), jnp.array([2, 2])
    >>> jax.eval_shape(model.apply, params, state, jnp.ones((4, 3)), edges=edges, sizes=sizes)[0].shape
    (2, 2)
    """
    sizes = [*_sizes("gin", in_features, hidden_features, num_layers), hidden_features]
    parts: dict[str, Part] = {}
    for i, (a, b) in enumerate(pairwise(sizes)):
        perceptron = nn.Serial(
            linear1=nn.Linear(a, b, use_bias=False),
            norm=nn.BatchNorm(b),
            relu=jax.nn.relu,
            linear2=nn.Linear(b, b, use_bias=False),
        )
        parts[f"layer{i}"] = nn.GIN(a, b, train_eps=train_eps, mlp=perceptron)
        parts |= {f"norm{i}": nn.BatchNorm(b), f"relu{i}": jax.nn.relu}
    drop = {"dropout": nn.Dropout(dropout)} if drops(dropout) else {}
    return nn.Serial(**parts, pool=nn.GraphPool(reduce), **drop, head=nn.Linear(hidden_features, num_classes))


def _sizes(model: str, in_features: int, hidden_features: int, num_layers: int) -> list[int]:
    """What each layer reads."""
    if not is_whole(num_layers, 1):
        raise InputError(f"{model}: expected at least one layer, got num_layers={num_layers!r}")
    return [in_features, *[hidden_features] * (num_layers - 1)]


def _nodes(layers: Sequence[Part], activation: Part, dropout: float) -> nn.Serial:
    """dropout0, layer0, activation0, ..., head."""
    parts: dict[str, Part] = {}
    for i, layer in enumerate(layers):
        parts |= {f"dropout{i}": nn.Dropout(dropout)} if drops(dropout) else {}
        parts |= {f"layer{i}": layer, f"activation{i}": activation} if i + 1 < len(layers) else {"head": layer}
    return nn.Serial(**parts)
