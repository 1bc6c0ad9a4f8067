"""The Transformer's block, of which `decoder`, `encoder`, `encoder_decoder` and `vit` are made.

Their blocks stand in an `nn.Serial`, not in an `nn.Stack`: the paths then are those of the weights one can load, one
array a layer ("blocks/0/attention/query/kernel"), and `fdl.edit` can exchange one block alone. The price is a program,
and so a compile time, that grows with depth. For a deep model, `scanned` exchanges one for the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fdl import nn
from fdl.core import Initializer, Layer, Tree, fold
from fdl.errors import InputError
from fdl.fields import DropRate, Flag, is_whole
from fdl.nn.containers import accepted, scope
from fdl.nn.lengths import real_steps, without_padding
from fdl.records import short
from fdl.surgery import edit


@dataclass(frozen=True)
class Block(Layer):
    """h = x + attention(norm(x)), y = h + feed_forward(norm(h)), or, post-norm, norm(x + attention(x)) and so on.

    Args:
      attention, attention_norm: self-attention, and the normalisation before it (post-norm: behind it).
      feed_forward, feed_forward_norm: what is done at every position alone.
      cross_attention, cross_attention_norm: between the two, queries from x and keys and values from `context`.
      norm_first: pre-norm (GPT-2, Llama, ViT), where the sums stay as they are, or post-norm (the paper, BERT).
      dropout: the probability of dropping an element of what a branch adds.
    Call: x [B, T, features] -> same shape and dtype.
      mask: which keys may be seen, as in `nn.Attention`: [B, T] booleans for padding.
      lengths: integers [B], of x; behind them is padding, see `fdl.nn.lengths`.
      context, context_mask: [B, S, features] and its mask [B, S], for the cross attention.
    Memory: `init_cache(batch, length)`, `decode(params, x, cache)`.

    PyTorch: `TransformerEncoderLayer` and, with cross attention, `TransformerDecoderLayer`, with norm_first and
    self_attn, norm1, linear1, linear2, norm2.

    References: Vaswani et al., Attention is all you need, 2017, section 3.1; Xiong et al., On layer normalization in
    the transformer architecture, 2020 (pre-norm).
    """

    attention: Layer
    attention_norm: Layer
    feed_forward: Layer
    feed_forward_norm: Layer
    cross_attention: Layer | None = None
    cross_attention_norm: Layer | None = None
    norm_first: Flag = True
    dropout: DropRate = 0.0

    def __post_init__(self) -> None:
        if (self.cross_attention is None) != (self.cross_attention_norm is None):
            raise InputError("Block: cross_attention and cross_attention_norm go together")

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        mask: jax.Array | None = None,
        context: jax.Array | None = None,
        context_mask: jax.Array | None = None,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        real = real_steps(self, x, lengths)
        timed = {} if real is None else {"lengths": lengths}

        def attend(h: jax.Array) -> jax.Array:
            return self.attention(params["attention"], h, key=fold(key, "attention"), train=train, mask=mask, **timed)

        x = self._branch("attention", attend, params, without_padding(x, real), key, train, timed)
        return without_padding(self._after_attention(params, x, context, context_mask, key, train, timed), real)

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> Tree:
        """The empty memory of the self-attention."""
        return self._memory().init_cache(batch, length, dtype)

    def decode(
        self,
        params: Tree,
        x: jax.Array,
        cache: Tree,
        *,
        mask: jax.Array | None = None,
        context: jax.Array | None = None,
        context_mask: jax.Array | None = None,
    ) -> tuple[jax.Array, Tree]:
        """The next T positions: (y [B, T, features], cache), as `nn.Attention.decode`, whose mask it takes."""
        new = cache

        def attend(h: jax.Array) -> jax.Array:
            nonlocal new
            y, new = self._memory().decode(params["attention"], h, cache, mask=mask)
            return y

        x = self._branch("attention", attend, params, x, None, False, {})
        return self._after_attention(params, x, context, context_mask, None, False, {}), new

    def _after_attention(
        self,
        params: Tree,
        x: jax.Array,
        context: Any,
        context_mask: Any,
        key: jax.Array | None,
        train: bool,
        timed: Tree,
    ) -> jax.Array:
        if (self.cross_attention is None) != (context is None):
            raise InputError(f"{short(self)}: a context is given if, and only if, there is a cross_attention")

        def cross(h: jax.Array) -> jax.Array:
            keywords = {"key": fold(key, "cross_attention"), "train": train, "mask": context_mask, "context": context}
            return self.cross_attention(params["cross_attention"], h, **keywords)  # pyright: ignore[reportOptionalCall]

        def feed_forward(h: jax.Array) -> jax.Array:
            mine = _taken(self.feed_forward, timed)
            return self.feed_forward(params["feed_forward"], h, key=fold(key, "feed_forward"), train=train, **mine)

        if self.cross_attention is not None:
            x = self._branch("cross_attention", cross, params, x, key, train, timed)
        return self._branch("feed_forward", feed_forward, params, x, key, train, timed)

    def _branch(
        self,
        name: str,
        branch: Callable[[jax.Array], jax.Array],
        params: Tree,
        x: jax.Array,
        key: jax.Array | None,
        train: bool,
        timed: Tree,
    ) -> jax.Array:
        """x with what a branch adds to it, the normalisation first or last."""

        def norm(h: jax.Array) -> jax.Array:
            part = getattr(self, f"{name}_norm")
            with scope(f"{name}_norm"):
                return part(params[f"{name}_norm"], h, **_taken(part, timed))

        h = norm(x) if self.norm_first else x
        with scope(name):
            h = branch(h)
        y = x + nn.Dropout(self.dropout)({}, h, key=fold(key, name, "dropout"), train=train)
        return y if self.norm_first else norm(y)

    def _memory(self) -> Any:
        if not hasattr(self.attention, "decode"):
            raise InputError(
                f"{short(self)}: expected an attention with a memory, such as nn.Attention(..., causal=True)"
            )
        return self.attention


def _taken(part: Layer, keywords: Tree) -> Tree:
    return {name: value for name, value in keywords.items() if name in accepted(part)}


def repeated(block: Block, num_layers: int) -> nn.Serial:
    """num_layers blocks, one after the other.

    Raises:
      InputError: num_layers is no whole number >= 1.
    """
    if not is_whole(num_layers, 1):
        raise InputError(f"a Transformer needs at least one block, got num_layers={num_layers!r}")
    return nn.Serial(*[block] * num_layers)


def feed_forward(
    features: int,
    hidden_features: int,
    activation: Callable[[jax.Array], jax.Array],
    kernel_init: Initializer,
    out_init: Initializer | None = None,
) -> nn.Serial:
    """down(activation(up(x))), two linear maps with biases."""
    return nn.Serial(
        up=nn.Linear(features, hidden_features, kernel_init=kernel_init),
        activation=activation,
        down=nn.Linear(hidden_features, features, kernel_init=out_init or kernel_init, axes=("mlp", "embed")),
    )


def exact_gelu(x: jax.Array) -> jax.Array:
    """x Phi(x) with the normal distribution's Phi, as BERT and ViT have it; `jax.nn.gelu` and GPT-2 approximate it.

    >>> exact_gelu(jnp.array([-1.0, 1.0])).round(4).tolist()
    [-0.158..., 0.841...]
    """
    return jax.nn.gelu(x, approximate=False)


def as_sequence(x: jax.Array) -> jax.Array:
    """An image as a sequence of its positions, row by row: [B, H, W, C] -> [B, H * W, C]."""
    return x.reshape(x.shape[0], x.shape[1] * x.shape[2], x.shape[3])


def first_token(x: jax.Array) -> jax.Array:
    """[B, T, D] -> [B, D]."""
    return x[:, 0]


def scanned(model: Layer, params: Tree | None = None, path: str = "blocks", remat: bool = False) -> tuple[Any, Any]:
    """The model, and its params, with the equal blocks of the `nn.Serial` at `path` as one `nn.Stack`.

    The program then holds one block for all, and with `remat` the gradient keeps the input of each block only. Back:
    `nn.unstack(params["blocks"])` in the model it came from.

    Raises:
      InputError: blocks that differ.

    >>> import fdl
    >>> from fdl.models import gpt2
    >>> model = gpt2(50, 8, num_layers=3, num_heads=2, features=4)
    >>> stacked, params = scanned(model, fdl.init(model, jax.random.key(0))[0])
    >>> params["blocks"]["attention"]["query"]["kernel"].shape
    (3, 4, 2, 2)
    """

    def exchange(blocks: Layer) -> Layer:
        first, *others = blocks.parts().values()
        if any(block != first for block in others):
            raise InputError(f"scanned: the blocks at {path!r} differ; only equal ones can share a program")
        return nn.Stack(first, len(others) + 1, remat)

    return edit(model, path, exchange), None if params is None else _stacked(params, path.split("/"))


def _stacked(params: Tree, names: list[str]) -> Tree:
    name, *rest = names
    return params | {name: _stacked(params[name], rest) if rest else nn.stack(params[name])}


def require_ids(model: str, ids: Any) -> None:
    """Raises unless ids are [B, T]."""
    if jnp.ndim(ids) != 2:
        hint = "; models see the batch: ids[None]" if jnp.ndim(ids) == 1 else ""
        raise InputError(f"{model}: expected ids [B, T], got {jnp.result_type(ids)}{list(jnp.shape(ids))}{hint}")


def init_caches(blocks: Layer, batch: int, length: int, dtype: Any = jnp.float32) -> Tree:
    """The empty memories of the blocks in a `Serial` or `Stack`, named (or stacked) as their params."""
    if isinstance(blocks, nn.Stack):
        one = blocks.block.init_cache(batch, length, dtype)  # pyright: ignore[reportAttributeAccessIssue]
        return jax.tree.map(lambda a: jnp.zeros((blocks.n, *a.shape), a.dtype), one)
    return {name: block.init_cache(batch, length, dtype) for name, block in blocks.parts().items()}


def decode_blocks(blocks: Layer, params: Tree, x: jax.Array, caches: Tree, **keywords: Any) -> tuple[jax.Array, Tree]:
    """The next positions through all blocks of a `Serial` or `Stack`: (y, caches)."""
    if isinstance(blocks, nn.Stack):
        decode = blocks.block.decode  # pyright: ignore[reportAttributeAccessIssue]
        return jax.lax.scan(lambda x, copy: decode(copy[0], x, copy[1], **keywords), x, (params, caches))
    new = {}
    for name, block in blocks.parts().items():
        with scope(name):
            x, new[name] = block.decode(params[name], x, caches[name], **keywords)
    return x, new
