"""The Transformer that continues a text: GPT-2 and Llama."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fdl import nn
from fdl.core import Layer, Tree, fold
from fdl.errors import InputError
from fdl.fields import DropRate
from fdl.initializers import Normal
from fdl.models.block import Block, decode_blocks, feed_forward, init_caches, repeated, require_ids
from fdl.nn.containers import scope
from fdl.ops.rotary import Layout
from fdl.records import short


@dataclass(frozen=True)
class Decoder(Layer):
    """logits = head(norm(blocks(embedding[ids] + positions))): each position predicts the token after it.

    Args:
      embedding: of the tokens.
      positions: a layer that adds positions to x, or None where the attention turns them in (rotary).
      blocks: a `Serial` (or `Stack`) of causal `Block`s.
      norm: behind the last block.
      head: features to logits; None: the embedding's own table (`nn.Embedding.attend`), "tied".
      dropout: the probability of dropping an element of the embedded input.
    Call: ids [B, T] -> logits [B, T, vocabulary].
      mask: booleans [B, T], False = padding. Behind a text it changes nothing: the past is all that is seen.
      lengths: integers [B], of texts that are padded behind, see `fdl.nn.lengths`; the logits of padding say nothing.
      positions: integers [T] or [B, T] for the layer `positions`, 0 ... T - 1 unless given.
    Memory: `init_cache(batch, length)`, `decode(params, ids, cache)`; text from it: `fdl.models.generate`.
    """

    embedding: nn.Embedding
    positions: Layer | None
    blocks: Layer
    norm: Layer
    head: Layer | None = None
    dropout: DropRate = 0.0

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        mask: jax.Array | None = None,
        positions: jax.Array | None = None,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        require_ids("Decoder", x)
        h = self._embed(params, x, positions)
        h = nn.Dropout(self.dropout)({}, h, key=fold(key, "dropout"), train=train)
        seen = {"mask": mask} if lengths is None else {"mask": mask, "lengths": lengths}
        with scope("blocks"):
            h = self.blocks(params["blocks"], h, key=fold(key, "blocks"), train=train, **seen)
        return self._logits(params, h)

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> Tree:
        """An empty memory of `length` positions for `batch` texts, in the dtype of the params.

        Raises:
          InputError: more positions than `positions` has; compiled, decoding would come to NaN there.
        """
        longest = getattr(self.positions, "length", length)
        if length > longest:
            raise InputError(f"Decoder: a cache of {length} positions, but {short(self.positions)} ends at {longest}")
        return {"blocks": init_caches(self.blocks, batch, length, dtype), "index": jnp.zeros((), jnp.int32)}

    def decode(
        self,
        params: Tree,
        x: jax.Array,
        cache: Tree,
        *,
        mask: jax.Array | None = None,
        positions: jax.Array | None = None,
    ) -> tuple[jax.Array, Tree]:
        """The next T tokens of texts whose past is in the cache: (logits [B, T, vocabulary], cache).

        Any split of a text gives the logits of the whole.

        Args:
          mask: booleans [B, length] over the cache's positions, for texts padded on the *left*.
          positions: integers [T] or [B, T], where they do not simply go on from the cache's index.
        """
        require_ids("Decoder", x)
        if positions is None:
            positions = cache["index"] + jnp.arange(x.shape[1], dtype=jnp.int32)
        h = self._embed(params, x, positions)
        with scope("blocks"):
            h, blocks = decode_blocks(self.blocks, params["blocks"], h, cache["blocks"], mask=mask)
        return self._logits(params, h), {"blocks": blocks, "index": cache["index"] + x.shape[1]}

    def _embed(self, params: Tree, x: jax.Array, positions: jax.Array | None) -> jax.Array:
        with scope("embedding"):
            h = self.embedding(params["embedding"], x)
        if self.positions is None:
            return h
        with scope("positions"):
            return self.positions(params["positions"], h, positions=positions)

    def _logits(self, params: Tree, h: jax.Array) -> jax.Array:
        with scope("norm"):
            h = self.norm(params["norm"], h)
        if self.head is None:
            return self.embedding.attend(params["embedding"], h)
        with scope("head"):
            return self.head(params["head"], h)


def gpt2(
    vocab_size: int,
    max_length: int,
    *,
    num_layers: int,
    num_heads: int,
    features: int,
    hidden_features: int | None = None,
    dropout: DropRate = 0.0,
) -> Decoder:
    """GPT-2's shape: learned positions, pre-norm, gelu (the tanh form), biases everywhere, output tied to the input.

    Args:
      vocab_size: tokens.
      max_length: the longest text.
      num_layers, num_heads: blocks, and heads of each.
      features: of the residual stream.
      hidden_features: of the feed-forward layers, 4 features unless given.
      dropout: of the embedded input, the attention's weights and every branch; 0.1 in the paper.

    Kernels are drawn from N(0, 0.02^2), those that add to the residual stream with 1 / sqrt(2 num_layers) of that.
    From Hugging Face: c_attn is query, key and value side by side; c_proj is `out`; mlp.c_fc and mlp.c_proj are
    `up` and `down`, stored [in, out] as here; ln_1, ln_2, ln_f are `attention_norm`, `feed_forward_norm`, `norm`.

    Reference: Radford et al., Language models are unsupervised multitask learners, 2019.

    >>> import fdl
    >>> model = gpt2(50, 16, num_layers=2, num_heads=2, features=8)
    >>> params, _ = fdl.abstract(model)
    >>> jax.eval_shape(model, params, jnp.array([[3, 1, 4]])).shape
    (1, 3, 50)
    """
    small, smaller = Normal(0.02), Normal(0.02 / (2 * max(num_layers, 1)) ** 0.5)
    attention = nn.Attention(
        features, num_heads, causal=True, dropout_rate=dropout, kernel_init=small, out_init=smaller
    )
    hidden = 4 * features if hidden_features is None else hidden_features
    block = Block(
        attention,
        nn.LayerNorm(features),
        feed_forward(features, hidden, jax.nn.gelu, small, smaller),
        nn.LayerNorm(features),
        dropout=dropout,
    )
    return Decoder(
        nn.Embedding(vocab_size, features),
        nn.LearnedPositions(max_length, features),
        repeated(block, num_layers),
        nn.LayerNorm(features),
        dropout=dropout,
    )


def gpt2_small(dropout: float = 0.0) -> Decoder:
    """124 M parameters; so `gpt2_medium`, `gpt2_large` and `gpt2_xl` (table 2)."""
    return gpt2(50257, 1024, num_layers=12, num_heads=12, features=768, dropout=dropout)


def gpt2_medium(dropout: float = 0.0) -> Decoder:
    """355 M parameters."""
    return gpt2(50257, 1024, num_layers=24, num_heads=16, features=1024, dropout=dropout)


def gpt2_large(dropout: float = 0.0) -> Decoder:
    """774 M parameters."""
    return gpt2(50257, 1024, num_layers=36, num_heads=20, features=1280, dropout=dropout)


def gpt2_xl(dropout: float = 0.0) -> Decoder:
    """1.56 G parameters."""
    return gpt2(50257, 1024, num_layers=48, num_heads=25, features=1600, dropout=dropout)


def llama(
    vocab_size: int,
    *,
    num_layers: int,
    num_heads: int,
    features: int,
    hidden_features: int,
    num_kv_heads: int | None = None,
    rotary_base: float = 10000.0,
    rotary_layout: Layout = "half",
    tied: bool = False,
    eps: float = 1e-5,
) -> Decoder:
    """Llama's shape: rotary positions, pre-norm by RMSNorm, SwiGLU, grouped-query attention, no biases.

    Args:
      vocab_size: tokens.
      num_layers, num_heads: blocks, and heads of each.
      features: of the residual stream.
      hidden_features: of the feed-forward layers.
      num_kv_heads: heads of keys and values; num_heads unless given.
      rotary_base: of the wavelengths; 500000 in Llama 3.
      rotary_layout: "half" for weights in Hugging Face's form, "interleaved" for Meta's (and llama2.c's).
      tied: whether the output weights are the embedding.
      eps: of the norms.

    There is no longest text: the cache has the length it is given. From Hugging Face (kernels transposed): q_proj,
    k_proj, v_proj and o_proj are `query`, `key`, `value` and `out`; up_proj, gate_proj and down_proj are
    `feed_forward/up/value`, `feed_forward/up/gate` and `feed_forward/down`. Llama 3.1's scaled wavelengths are missing.

    Reference: Touvron et al., LLaMA, 2023, section 2.2; Llama 2, 2023, section 2.2 (grouped-query attention).

    >>> import fdl
    >>> model = llama(50, num_layers=2, num_heads=4, features=16, hidden_features=32, num_kv_heads=2)
    >>> params, _ = fdl.abstract(model)
    >>> jax.eval_shape(model, params, jnp.array([[3, 1, 4]])).shape
    (1, 3, 50)
    """
    small = Normal(0.02)
    attention = nn.Attention(
        features,
        num_heads,
        num_kv_heads,
        causal=True,
        rotary=nn.Rotary(rotary_base, rotary_layout),
        use_bias=False,
        kernel_init=small,
        out_init=small,
    )
    swiglu = nn.Serial(
        up=nn.GatedLinear(features, hidden_features, kernel_init=small),
        down=nn.Linear(hidden_features, features, use_bias=False, kernel_init=small, axes=("mlp", "embed")),
    )
    block = Block(attention, nn.RMSNorm(features, eps), swiglu, nn.RMSNorm(features, eps))
    head = nn.Linear(features, vocab_size, use_bias=False, kernel_init=small, axes=("embed", "vocab"))
    return Decoder(
        nn.Embedding(vocab_size, features),
        None,
        repeated(block, num_layers),
        nn.RMSNorm(features, eps),
        None if tied else head,
    )


def llama2_7b(rotary_layout: Layout = "half") -> Decoder:
    """6.74 G parameters; trained on texts of 4096 tokens."""
    return llama(32000, num_layers=32, num_heads=32, features=4096, hidden_features=11008, rotary_layout=rotary_layout)


def llama3_8b(rotary_layout: Layout = "half") -> Decoder:
    """8.03 G parameters; trained on texts of 8192 tokens (Grattafiori et al., The Llama 3 herd of models, 2024)."""
    return llama(
        128256,
        num_layers=32,
        num_heads=32,
        features=4096,
        hidden_features=14336,
        num_kv_heads=8,
        rotary_base=500000.0,
        rotary_layout=rotary_layout,
    )
