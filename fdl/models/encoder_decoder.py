"""The Transformer that turns one text into another: the model of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fdl import nn
from fdl.core import Layer, Tree, fold
from fdl.errors import InputError
from fdl.fields import DropRate
from fdl.initializers import Normal, XavierUniform
from fdl.models.block import Block, decode_blocks, feed_forward, init_caches, repeated, require_ids
from fdl.nn.containers import scope
from fdl.nn.lengths import real_steps
from fdl.ops.attention import both


@dataclass(frozen=True)
class EncoderDecoder(Layer):
    """memory = encoder(source), logits = head(decoder(target, memory)), the target seen from the left only.

    Args:
      source_embedding: of the source's tokens.
      target_embedding: of the target's; None: one table for both, which needs one vocabulary.
      positions: a layer that adds positions to x.
      encoder, decoder: a `Serial` (or `Stack`) of `Block`s each, those of the decoder causal and with cross attention.
      head: features to logits; None: the target's embedding, "tied".
      dropout: the probability of dropping an element of the embedded inputs.
    Call: (source [B, S], target [B, T]), ids -> logits [B, T, vocabulary]: position t predicts the token after it.
      source_mask, target_mask: booleans [B, S] and [B, T], False = padding.
      source_lengths, target_lengths: integers [B], the same said of texts that are padded behind, as in `Seq2Seq`.
    Memory: `start(params, source)`, `decode(params, ids, cache)`; text from it: `fdl.models.generate`.

    Embeddings are multiplied by sqrt(features) before positions are added (section 3.4), so a table drawn with a
    standard deviation of 1 / sqrt(features) gives x of size 1.
    """

    source_embedding: nn.Embedding
    target_embedding: nn.Embedding | None
    positions: Layer
    encoder: Layer
    decoder: Layer
    head: Layer | None = None
    dropout: DropRate = 0.0

    def __call__(
        self,
        params: Tree,
        x: tuple[jax.Array, jax.Array],
        *,
        key: jax.Array | None = None,
        train: bool = False,
        source_mask: jax.Array | None = None,
        target_mask: jax.Array | None = None,
        source_lengths: jax.Array | None = None,
        target_lengths: jax.Array | None = None,
    ) -> jax.Array:
        if not isinstance(x, tuple | list) or len(x) != 2:
            raise InputError(f"EncoderDecoder: expected x = (source, target), got {type(x).__name__}")
        source, target = x
        source_mask = both(source_mask, real_steps(self, source, source_lengths, "source_lengths"))
        target_mask = both(target_mask, real_steps(self, target, target_lengths, "target_lengths"))
        memory = self.encode(params, source, key=fold(key, "encode"), train=train, mask=source_mask)
        h = self._embed(params, "target_embedding", target, None, fold(key, "target"), train)
        keywords = {"mask": target_mask, "context": memory, "context_mask": source_mask}
        with scope("decoder"):
            h = self.decoder(params["decoder"], h, key=fold(key, "decoder"), train=train, **keywords)
        return self._logits(params, h)

    def encode(
        self,
        params: Tree,
        source: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        mask: jax.Array | None = None,
    ) -> jax.Array:
        """The memory [B, S, features] of source ids [B, S]."""
        h = self._embed(params, "source_embedding", source, None, fold(key, "source"), train)
        with scope("encoder"):
            return self.encoder(params["encoder"], h, key=fold(key, "encoder"), train=train, mask=mask)

    def start(self, params: Tree, source: jax.Array, length: int, *, mask: jax.Array | None = None) -> Tree:
        """The cache of a translation of up to `length` tokens, with what the source says: a mask [B, S] hides padding.

        The source's keys and values are computed from it at every step.
        """
        memory = self.encode(params, source, mask=mask)
        mask = jnp.ones(source.shape, bool) if mask is None else mask
        blocks = init_caches(self.decoder, source.shape[0], length, memory.dtype)
        return {"blocks": blocks, "memory": memory, "mask": mask, "index": jnp.zeros((), jnp.int32)}

    def decode(self, params: Tree, x: jax.Array, cache: Tree) -> tuple[jax.Array, Tree]:
        """The next T tokens of a target whose past is in the cache: (logits [B, T, vocabulary], cache)."""
        require_ids("EncoderDecoder", x)
        positions = cache["index"] + jnp.arange(x.shape[1], dtype=jnp.int32)
        h = self._embed(params, "target_embedding", x, positions, None, False)
        source = {"context": cache["memory"], "context_mask": cache["mask"]}
        with scope("decoder"):
            h, blocks = decode_blocks(self.decoder, params["decoder"], h, cache["blocks"], **source)
        return self._logits(params, h), cache | {"blocks": blocks, "index": cache["index"] + x.shape[1]}

    def _table(self, params: Tree, name: str) -> tuple[nn.Embedding, Tree]:
        embedding = getattr(self, name)
        return (self.source_embedding, params["source_embedding"]) if embedding is None else (embedding, params[name])

    def _embed(
        self, params: Tree, name: str, ids: jax.Array, positions: Any, key: jax.Array | None, train: bool
    ) -> jax.Array:
        require_ids("EncoderDecoder", ids)
        embedding, table = self._table(params, name)
        with scope(name):
            h = embedding(table, ids)
        with scope("positions"):
            h = h * jnp.sqrt(jnp.asarray(h.shape[-1], h.dtype))
            h = self.positions(params["positions"], h, positions=positions)
        return nn.Dropout(self.dropout)({}, h, key=fold(key, "dropout"), train=train)

    def _logits(self, params: Tree, h: jax.Array) -> jax.Array:
        if self.head is None:
            embedding, table = self._table(params, "target_embedding")
            return embedding.attend(table, h)
        with scope("head"):
            return self.head(params["head"], h)


def transformer(
    source_vocab_size: int,
    target_vocab_size: int | None = None,
    *,
    num_layers: int,
    num_heads: int,
    features: int,
    hidden_features: int | None = None,
    dropout: DropRate = 0.0,
) -> EncoderDecoder:
    """The paper's shape: post-norm, sinusoidal positions, relu, output weights tied to the target's embedding.

    Args:
      source_vocab_size, target_vocab_size: tokens; None: one vocabulary, and one table, for both.
      num_layers, num_heads: blocks of encoder and decoder each, and heads of every attention.
      features: of the residual stream, even.
      hidden_features: of the feed-forward layers, 4 features unless given.
      dropout: of the embedded inputs and every branch (section 5.4; not of the attention's weights).

    PyTorch's `nn.Transformer` has the blocks, with biases as here, and one norm more behind each side.

    Reference: Vaswani et al., Attention is all you need, 2017.

    >>> import fdl
    >>> model = transformer(50, num_layers=1, num_heads=2, features=8)
    >>> params, _ = fdl.abstract(model)
    >>> jax.eval_shape(model, params, (jnp.array([[3, 1, 4]]), jnp.array([[2, 7]]))).shape
    (1, 2, 50)
    """
    xavier, hidden = XavierUniform(), 4 * features if hidden_features is None else hidden_features
    inner = feed_forward(features, hidden, jax.nn.relu, xavier)
    norm = nn.LayerNorm(features)
    encoder = Block(nn.Attention(features, num_heads), norm, inner, norm, norm_first=False, dropout=dropout)
    attention, cross = nn.Attention(features, num_heads, causal=True), nn.Attention(features, num_heads)
    decoder = Block(attention, norm, inner, norm, cross, norm, norm_first=False, dropout=dropout)
    table = Normal(features**-0.5)
    return EncoderDecoder(
        nn.Embedding(source_vocab_size, features, table),
        None if target_vocab_size is None else nn.Embedding(target_vocab_size, features, table),
        nn.SinusoidalPositions(features),
        repeated(encoder, num_layers),
        repeated(decoder, num_layers),
        dropout=dropout,
    )


def transformer_base(vocab_size: int = 37000, dropout: float = 0.0) -> EncoderDecoder:
    """The base model: 6 blocks, 512 features, 8 heads, and the paper's vocabulary for English to German (table 3)."""
    return transformer(vocab_size, num_layers=6, num_heads=8, features=512, dropout=dropout)


def transformer_big(vocab_size: int = 37000, dropout: float = 0.0) -> EncoderDecoder:
    """The big model: 6 blocks, 1024 features, 16 heads (table 3)."""
    return transformer(vocab_size, num_layers=6, num_heads=16, features=1024, dropout=dropout)
