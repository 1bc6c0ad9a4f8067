"""The vision Transformer: an image as a sequence of patches."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fdl import nn
from fdl.core import Initializer, Layer, Param, Tree
from fdl.errors import InputError
from fdl.fields import Size, check_values
from fdl.initializers import TruncatedNormal, Zeros
from fdl.models.block import Block, as_sequence, exact_gelu, feed_forward, first_token, repeated
from fdl.nn.lengths import refuse_lengths
from fdl.ops.shared import summed_wide
from fdl.shapes import expect


@dataclass(frozen=True)
class ClassToken(Layer):
    """y = [embedding, x_0, x_1, ...]: a learned vector before each sequence, which collects what the head reads.

    Call: x [B, T, features] -> [B, T + 1, features]; lengths are refused, see `fdl.nn.lengths`.

    >>> import fdl
    >>> ClassToken(2)({"embedding": jnp.array([5.0, 6.0])}, jnp.zeros((1, 1, 2))).tolist()
    [[[5.0, 6.0], [0.0, 0.0]]]
    """

    features: Size
    embedding_init: Initializer = Zeros()

    def specs(self) -> Tree:
        return {"embedding": Param((self.features,), self.embedding_init, ("embed",))}

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        del key, train
        expect(self, x, "[B, T, features]")
        refuse_lengths(self, x, lengths)
        first = summed_wide(lambda a: jnp.broadcast_to(a, (x.shape[0], 1, self.features)), params["embedding"])
        return jnp.concatenate([first, x], 1)


def vit(
    in_channels: int,
    num_classes: int,
    *,
    image_size: int,
    patch_size: int,
    num_layers: int,
    num_heads: int,
    features: Size,
    hidden_features: int | None = None,
    dropout: float = 0.0,
) -> nn.Serial:
    """Patches as tokens, a class token, learned positions, pre-norm blocks with exact gelu, a linear layer.

    Args:
      in_channels: 3 for colour images.
      num_classes: logits.
      image_size, patch_size: height and width of an image, and of a patch, which divides it.
      num_layers, num_heads: blocks, and heads of each.
      features: of the residual stream.
      hidden_features: of the feed-forward layers, 4 features unless given.
      dropout: of the embedded patches and every branch.
    Call: x [B, image_size, image_size, in_channels] -> logits [B, num_classes].

    From timm: patch_embed.proj is `patches`, cls_token and pos_embed are `class_token` and `positions` (without their
    leading 1), attn.qkv is query, key and value side by side, norm1, mlp.fc1, mlp.fc2, norm2 are `attention_norm`,
    `feed_forward/up`, `feed_forward/down`, `feed_forward_norm`. Norms have eps 1e-6, as there and in the authors' code.

    Raises:
      InputError: patches that do not divide the image.

    Reference: Dosovitskiy et al., An image is worth 16x16 words, 2021.

    >>> import fdl
    >>> model = vit(1, 10, image_size=8, patch_size=4, num_layers=1, num_heads=2, features=8)
    >>> params, _ = fdl.abstract(model)
    >>> jax.eval_shape(model, params, jnp.ones((2, 8, 8, 1))).shape
    (2, 10)
    """
    check_values("vit", Size, image_size=image_size, patch_size=patch_size)
    if image_size % patch_size:
        raise InputError(f"vit: patches of {patch_size} pixels do not divide an image of {image_size}")
    small = TruncatedNormal(0.02)
    block = Block(
        nn.Attention(features, num_heads, kernel_init=small, out_init=small),
        nn.LayerNorm(features, 1e-6),
        feed_forward(features, 4 * features if hidden_features is None else hidden_features, exact_gelu, small),
        nn.LayerNorm(features, 1e-6),
        dropout=dropout,
    )
    return nn.Serial(
        patches=nn.Conv(in_channels, features, patch_size, patch_size, padding="VALID"),
        sequence=as_sequence,
        class_token=ClassToken(features),
        positions=nn.LearnedPositions((image_size // patch_size) ** 2 + 1, features),
        dropout=nn.Dropout(dropout),
        blocks=repeated(block, num_layers),
        norm=nn.LayerNorm(features, 1e-6),
        first=first_token,
        head=nn.Linear(features, num_classes, kernel_init=small),
    )


def vit_small16(in_channels: int = 3, num_classes: int = 1000, image_size: int = 224) -> nn.Serial:
    """ViT-S/16, 22 M parameters (the sizes of Touvron et al., DeiT, 2021)."""
    return vit(in_channels, num_classes, image_size=image_size, patch_size=16, num_layers=12, num_heads=6, features=384)


def vit_base16(in_channels: int = 3, num_classes: int = 1000, image_size: int = 224) -> nn.Serial:
    """ViT-B/16, 86.6 M parameters (table 1)."""
    return vit(
        in_channels, num_classes, image_size=image_size, patch_size=16, num_layers=12, num_heads=12, features=768
    )


def vit_large16(in_channels: int = 3, num_classes: int = 1000, image_size: int = 224) -> nn.Serial:
    """ViT-L/16, 304 M parameters (table 1)."""
    return vit(
        in_channels, num_classes, image_size=image_size, patch_size=16, num_layers=24, num_heads=16, features=1024
    )
