"""BERT with what Hugging Face puts on top of it: words under a mask, and classes of a text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax

from fdl import nn
from fdl.core import Layer, Param, Tree, fold
from fdl.initializers import Zeros
from fdl.models.block import exact_gelu
from fdl.models.encoder import Encoder
from fdl.nn.containers import scope
from fdl.ops.shared import shared


@dataclass(frozen=True)
class Bias(Layer):
    """y = x + bias."""

    features: int

    def specs(self) -> Tree:
        return {"bias": Param((self.features,), Zeros(), ("vocab",))}

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        del key, train
        return x + shared(params["bias"], x)


@dataclass(frozen=True)
class MaskedLanguageModel(Layer):
    """logits = transform(encoder(ids)) @ embedding^T + bias: which word stands at each position.

    Args:
      encoder: its table of tokens is the output's as well.
      transform: features to features.
      bias: of the logits.
    Call: as `Encoder`'s, ids [B, T] -> logits [B, T, vocabulary].

    Hugging Face: `BertForMaskedLM`, whose cls.predictions.transform is `transform`.
    """

    encoder: Encoder
    transform: Layer
    bias: Bias

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        mask: jax.Array | None = None,
        types: jax.Array | None = None,
    ) -> jax.Array:
        with scope("encoder"):
            h = self.encoder(params["encoder"], x, key=fold(key, "encoder"), train=train, mask=mask, types=types)
        with scope("transform"):
            h = self.transform(params["transform"], h)
        logits = self.encoder.embedding.attend(params["encoder"]["embedding"], h)
        return self.bias(params["bias"], logits)


@dataclass(frozen=True)
class SequenceClassifier(Layer):
    """logits = head(dropout(pooled(encoder(ids)))): the class of a text.

    Call: as `Encoder`'s, ids [B, T] -> logits [B, num_classes].

    Hugging Face: `BertForSequenceClassification`, whose classifier is `head`.
    """

    encoder: Encoder
    head: Layer
    dropout: float = 0.0

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        mask: jax.Array | None = None,
        types: jax.Array | None = None,
    ) -> jax.Array:
        with scope("encoder"):
            h = self.encoder(params["encoder"], x, key=fold(key, "encoder"), train=train, mask=mask, types=types)
            h = self.encoder.pooled(params["encoder"], h)
        h = nn.Dropout(self.dropout)({}, h, key=fold(key, "dropout"), train=train)
        with scope("head"):
            return self.head(params["head"], h)


def masked_language_model(encoder: Encoder, vocab_size: int, features: int, eps: float) -> MaskedLanguageModel:
    """With the transform that BERT was trained with: linear, exact gelu, layer norm."""
    parts: dict[str, Any] = {"linear": nn.Linear(features, features), "gelu": exact_gelu}
    return MaskedLanguageModel(encoder, nn.Serial(**parts, norm=nn.LayerNorm(features, eps)), Bias(vocab_size))
