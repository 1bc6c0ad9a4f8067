"""A recurrent network that turns one sequence into another, looking back at the first while it writes."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fdl import nn
from fdl.core import Layer, Tree, fold
from fdl.errors import InputError
from fdl.nn.containers import scope
from fdl.nn.dropout import drops
from fdl.ops.recurrent import length_mask


@dataclass(frozen=True)
class Seq2Seq(Layer):
    """h_t = decoder(target_t, h_{t-1}), c_t = attention(h_t, memory), logits_t = head(combine([h_t, c_t])).

    memory = encoder(source), h_0 = bridge(the encoder's last states).

    Args:
      source_embedding, target_embedding: of the tokens of either side.
      encoder: `nn.Bidirectional` of two layers whose carry is one array, such as `nn.GRU`.
      bridge: from both last states, side by side, to the decoder's first.
      decoder: such a layer.
      attention: from the decoder's states to the memory.
      combine: of a state and what it saw.
      head: to logits.
    Call: (source [B, S], target [B, T]), ids -> logits [B, T, vocabulary]: step t predicts the token after it, from the
      true tokens before ("teacher forcing").
      source_lengths: integers [B]; what follows is padding.
    Memory: `start(params, source)`, `decode(params, ids, cache)`; text from it: `fdl.models.generate`.
    """

    source_embedding: nn.Embedding
    encoder: nn.Bidirectional
    bridge: Layer
    target_embedding: nn.Embedding
    decoder: nn.Recurrence
    attention: Layer
    combine: Layer
    head: Layer

    def __call__(
        self,
        params: Tree,
        x: tuple[jax.Array, jax.Array],
        *,
        key: jax.Array | None = None,
        train: bool = False,
        source_lengths: jax.Array | None = None,
    ) -> jax.Array:
        if not isinstance(x, tuple | list) or len(x) != 2:
            raise InputError(f"Seq2Seq: expected x = (source, target), got {type(x).__name__}")
        cache = self.start(params, x[0], lengths=source_lengths)
        return self._run(params, x[1], cache, key, train)[0]

    def start(self, params: Tree, source: jax.Array, *, lengths: jax.Array | None = None) -> Tree:
        """The cache of a translation, with what the source [B, S] says."""
        with scope("source_embedding"):
            x = self.source_embedding(params["source_embedding"], source)
        with scope("encoder"):
            memory, last = self.encoder.unroll(params["encoder"], x, lengths=lengths)
        with scope("bridge"):
            carry = self.bridge(params["bridge"], jnp.concatenate([last["forward"], last["backward"]], -1))
        size = source.shape[1]
        mask = jnp.ones(source.shape, bool) if lengths is None else length_mask(lengths, size)
        return {"memory": memory, "mask": mask, "carry": carry}

    def decode(self, params: Tree, x: jax.Array, cache: Tree) -> tuple[jax.Array, Tree]:
        """The next T tokens of a target whose past is in the cache: (logits [B, T, vocabulary], cache)."""
        return self._run(params, x, cache, None, False)

    def _run(
        self, params: Tree, target: jax.Array, cache: Tree, key: jax.Array | None, train: bool
    ) -> tuple[jax.Array, Tree]:
        with scope("target_embedding"):
            x = self.target_embedding(params["target_embedding"], target)
        with scope("decoder"):
            h, carry = self.decoder.unroll(params["decoder"], x, cache["carry"])
        with scope("attention"):
            seen = {"context": cache["memory"], "mask": cache["mask"], "key": fold(key, "attention"), "train": train}
            c = self.attention(params["attention"], h, **seen)
        with scope("combine"):
            h = self.combine(params["combine"], jnp.concatenate([h, c], -1), key=fold(key, "combine"), train=train)
        with scope("head"):
            return self.head(params["head"], h), cache | {"carry": carry}


def seq2seq(
    source_vocab_size: int,
    target_vocab_size: int,
    *,
    features: int,
    hidden_features: int,
    num_heads: int = 1,
    dropout: float = 0.0,
) -> Seq2Seq:
    """GRUs in both directions over the source, a GRU over the target, and attention from one to the other.

    Args:
      source_vocab_size, target_vocab_size: tokens.
      features: size of a token's vector.
      hidden_features: units of each GRU.
      num_heads: of the attention.
      dropout: of what the head reads.

    The encoder and the first state are those of Bahdanau et al. (appendix A.2), the order of state, attention and
    combination that of Luong et al. (section 3, without feeding h~ back in), so that all steps attend at once. Scores
    are scaled scalar products of projections.

    References: Bahdanau et al., Neural machine translation by jointly learning to align and translate, 2015; Luong et
    al., Effective approaches to attention-based neural machine translation, 2015.

    >>> import fdl
    >>> model = seq2seq(20, 30, features=4, hidden_features=8)
    >>> params, _ = fdl.abstract(model)
    >>> x = jnp.array([[5, 2, 0]]), jnp.array([[1, 9]])
    >>> jax.eval_shape(model, params, x, source_lengths=jnp.array([2])).shape
    (1, 2, 30)
    """
    H = hidden_features
    drop = {"dropout": nn.Dropout(dropout)} if drops(dropout) else {}
    return Seq2Seq(
        nn.Embedding(source_vocab_size, features),
        nn.Bidirectional(nn.GRU(features, H), nn.GRU(features, H)),
        nn.Serial(linear=nn.Linear(2 * H, H), activation=jnp.tanh),
        nn.Embedding(target_vocab_size, features),
        nn.GRU(features, H),
        nn.Attention(H, num_heads, context_features=2 * H),
        nn.Serial(linear=nn.Linear(2 * H, H), activation=jnp.tanh, **drop),
        nn.Linear(H, target_vocab_size),
    )
