"""The Transformer that reads a text in both directions: BERT."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fdl import nn
from fdl.core import Layer, Tree, fold
from fdl.fields import DropRate
from fdl.initializers import Normal
from fdl.models.block import Block, exact_gelu, feed_forward, first_token, repeated, require_ids
from fdl.nn.containers import scope


@dataclass(frozen=True)
class Encoder(Layer):
    """h = blocks(norm(embedding[ids] + token_types[types] + positions)): a vector for each token, of its whole text.

    Args:
      embedding, token_types: of the tokens, and of the segment that each belongs to.
      positions: a layer that adds positions to x.
      norm: of the sum.
      blocks: a `Serial` (or `Stack`) of `Block`s.
      pooler: h to one vector for the text, see `pooled`; it takes no part in the call.
      dropout: the probability of dropping an element of the embedded input.
    Call: ids [B, T] -> h [B, T, features].
      mask: booleans [B, T], False = padding.
      lengths: integers [B], the same said of texts that are padded behind, see `fdl.nn.lengths`.
      types: integers [B, T], 0 unless given.
    """

    embedding: nn.Embedding
    token_types: nn.Embedding
    positions: Layer
    norm: Layer
    blocks: Layer
    pooler: Layer
    dropout: DropRate = 0.0

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        mask: jax.Array | None = None,
        types: jax.Array | None = None,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        require_ids("Encoder", x)
        types = jnp.zeros(x.shape, jnp.int32) if types is None else types
        with scope("embedding"):
            h = self.embedding(params["embedding"], x)
        with scope("token_types"):
            h = h + self.token_types(params["token_types"], types)
        with scope("positions"):
            h = self.positions(params["positions"], h)
        h = self.norm(params["norm"], h)
        h = nn.Dropout(self.dropout)({}, h, key=fold(key, "dropout"), train=train)
        seen = {"mask": mask} if lengths is None else {"mask": mask, "lengths": lengths}
        with scope("blocks"):
            return self.blocks(params["blocks"], h, key=fold(key, "blocks"), train=train, **seen)

    def pooled(self, params: Tree, h: jax.Array) -> jax.Array:
        """pooler(h), a vector for each text [B, features], from the h [B, T, features] of all its tokens."""
        with scope("pooler"):
            return self.pooler(params["pooler"], h)


def bert(
    vocab_size: int,
    max_length: int,
    *,
    num_layers: int,
    num_heads: int,
    features: int,
    hidden_features: int | None = None,
    num_token_types: int = 2,
    dropout: DropRate = 0.0,
    eps: float = 1e-12,
) -> Encoder:
    """BERT's shape: learned positions and token types, post-norm, exact gelu, biases everywhere, a tanh pooler.

    Args:
      vocab_size: tokens.
      max_length: the longest text.
      num_layers, num_heads: blocks, and heads of each.
      features: of the residual stream.
      hidden_features: of the feed-forward layers, 4 features unless given.
      num_token_types: segments.
      dropout: of the embedded input, the attention's weights and every branch; 0.1 in the paper.
      eps: of the norms.

    From Hugging Face (kernels transposed): attention.self.query, key, value and attention.output.dense are
    `attention/query` ... `out`; attention.output.LayerNorm is `attention_norm`; intermediate.dense and output.dense are
    `feed_forward/up` and `down`, output.LayerNorm is `feed_forward_norm`; pooler.dense is `pooler/linear`. The heads of
    its pre-training are missing.

    Reference: Devlin et al., BERT, 2019.

    >>> import fdl
    >>> model = bert(50, 16, num_layers=2, num_heads=2, features=8)
    >>> params, _ = fdl.abstract(model)
    >>> h = jax.eval_shape(model, params, jnp.array([[3, 1, 4]]), mask=jnp.array([[True, True, False]]))
    >>> h.shape, jax.eval_shape(model.pooled, params, h).shape
    ((1, 3, 8), (1, 8))
    """
    small = Normal(0.02)
    hidden = 4 * features if hidden_features is None else hidden_features
    block = Block(
        nn.Attention(features, num_heads, dropout_rate=dropout, kernel_init=small, out_init=small),
        nn.LayerNorm(features, eps),
        feed_forward(features, hidden, exact_gelu, small),
        nn.LayerNorm(features, eps),
        norm_first=False,
        dropout=dropout,
    )
    return Encoder(
        nn.Embedding(vocab_size, features),
        nn.Embedding(num_token_types, features, axes=(None, "embed")),
        nn.LearnedPositions(max_length, features),
        nn.LayerNorm(features, eps),
        repeated(block, num_layers),
        nn.Serial(first=first_token, linear=nn.Linear(features, features, kernel_init=small), activation=jnp.tanh),
        dropout,
    )


def bert_base(dropout: float = 0.0) -> Encoder:
    """109 M parameters, with the vocabulary of bert-base-uncased (the paper says 110 M)."""
    return bert(30522, 512, num_layers=12, num_heads=12, features=768, dropout=dropout)


def bert_large(dropout: float = 0.0) -> Encoder:
    """335 M parameters (the paper says 340 M)."""
    return bert(30522, 512, num_layers=24, num_heads=16, features=1024, dropout=dropout)
