"""Sentences as vectors: the mean over the tokens of an encoder, as sentence-transformers has it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fdl.core import Tree
from fdl.models.encoder import Encoder
from fdl.ops.norm import widen


def sentence_vectors(model: Encoder, params: Tree, ids: jax.Array, mask: jax.Array) -> jax.Array:
    """v / |v|, v the mean of the encoder's h over the tokens that are no padding; the cosine of two is their product.

    Args:
      model, params: of a sentence encoder, such as all-MiniLM-L6-v2 by `huggingface.load`.
      ids: [B, T] with what the tokeniser puts around a text; see `fdl.data.tokens.pad`.
      mask: booleans [B, T], False = padding.

    Returns:
      [B, features]; 0 for a text without tokens.

    Reference: Reimers & Gurevych, Sentence-BERT, 2019, section 3 (mean pooling).

    >>> import fdl
    >>> from fdl.models import bert
    >>> model = bert(50, 16, num_layers=1, num_heads=2, features=8)
    >>> params, _ = fdl.init(model, jax.random.key(0))
    >>> v = sentence_vectors(model, params, jnp.array([[3, 1, 0]]), jnp.array([[True, True, False]]))
    >>> v.shape, round(float((v * v).sum()), 3)
    ((1, 8), 1.0)
    """
    h = model(params, ids, mask=mask)
    wide = widen(h)
    mean = jnp.where(mask[..., None], wide, 0).sum(1) / jnp.maximum(mask.sum(1, keepdims=True), 1).astype(wide.dtype)
    length = jnp.sqrt((mean * mean).sum(-1, keepdims=True))
    return (mean / jnp.maximum(length, 1e-12)).astype(h.dtype)
