"""Recurrent networks that label a sequence, and that continue one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp

from fdl import nn
from fdl.core import Layer, Tree
from fdl.errors import InputError
from fdl.fields import is_whole
from fdl.nn.containers import Part
from fdl.nn.dropout import drops
from fdl.ops.pool import pool_steps
from fdl.ops.recurrent import length_mask
from fdl.shapes import expect

Cell = Callable[[int, int], Layer]  # nn.RNN, nn.LSTM, nn.GRU, or a function of (in_features, hidden_features)
Reduce = Literal["last", "ends", "mean", "max"]


def recurrent_classifier(
    in_features: int,
    num_classes: int,
    *,
    hidden_features: int,
    num_layers: int = 1,
    cell: Cell = nn.LSTM,
    bidirectional: bool = False,
    pool: Reduce | None = None,
    vocab_size: int | None = None,
    dropout: float = 0.0,
) -> nn.Serial:
    """logits = head(pool(rnn_n(... rnn_1(x)))): a label for each sequence.

    Args:
      in_features: numbers at each step; with vocab_size the size of a token's vector.
      num_classes: logits.
      hidden_features: units of each layer, and direction.
      num_layers: layers, one reading the other.
      cell: `nn.LSTM`, `nn.GRU` or `nn.RNN`.
      bidirectional: whether each layer also reads from the end.
      pool: see `TimePool`; "last" unless given, or "ends" where bidirectional.
      vocab_size: of token ids, which then are the input.
      dropout: of what goes from layer to layer and to the head.
    Call: x [B, T, in_features], or ids [B, T] -> logits [B, num_classes].
      lengths: integers [B]; what follows is padding.

    References: Hochreiter & Schmidhuber, Long short-term memory, 1997; Schuster & Paliwal, Bidirectional recurrent
    neural networks, 1997.

    >>> import fdl
    >>> model = recurrent_classifier(4, 3, hidden_features=8, vocab_size=20, bidirectional=True)
    >>> params, _ = fdl.abstract(model)
    >>> jax.eval_shape(model, params, jnp.array([[5, 2, 0]]), lengths=jnp.array([2])).shape
    (1, 3)
    """
    both = 2 if bidirectional else 1

    def layer(features: int) -> Layer:
        if not bidirectional:
            return cell(features, hidden_features)
        return nn.Bidirectional(cell(features, hidden_features), cell(features, hidden_features))

    embedding = {} if vocab_size is None else {"embedding": nn.Embedding(vocab_size, in_features)}
    reduce = ("ends" if bidirectional else "last") if pool is None else pool
    return nn.Serial(
        **embedding,
        **_layers(layer, in_features, both * hidden_features, num_layers, dropout),
        pool=TimePool(reduce),
        head=nn.Linear(both * hidden_features, num_classes),
    )


def recurrent_language_model(
    vocab_size: int,
    *,
    features: int,
    hidden_features: int,
    num_layers: int = 1,
    cell: Cell = nn.LSTM,
    dropout: float = 0.0,
) -> RecurrentLanguageModel:
    """logits = head(rnn_n(... rnn_1(embedding[ids]))): each step predicts the token after it.

    Args:
      vocab_size: tokens.
      features: size of a token's vector.
      hidden_features, num_layers, cell: as in `recurrent_classifier`.
      dropout: of what goes from layer to layer and to the head (Zaremba et al., Recurrent neural network
        regularization, 2014).

    Reference: Mikolov et al., Recurrent neural network based language model, 2010.

    >>> import fdl
    >>> model = recurrent_language_model(20, features=4, hidden_features=8, num_layers=2)
    >>> params, _ = fdl.abstract(model)
    >>> logits, carry = jax.eval_shape(model.unroll, params, jnp.array([[5, 2, 0]]))
    >>> logits.shape, list(carry)
    ((1, 3, 20), ['rnn0', 'rnn1'])
    """
    layer = lambda size: cell(size, hidden_features)  # noqa: E731
    return RecurrentLanguageModel(
        embedding=nn.Embedding(vocab_size, features),
        **_layers(layer, features, hidden_features, num_layers, dropout),
        head=nn.Linear(hidden_features, vocab_size),
    )


class RecurrentLanguageModel(nn.StackedRNN):
    """A `StackedRNN` from ids to logits, whose carry is the memory that `fdl.models.generate` goes on from.

    Call: ids [B, T] -> logits [B, T, vocabulary]. For truncated backpropagation `unroll`, for streams `step`, see
      `nn.StackedRNN`.
    """

    def init_cache(self, batch: int, length: int, dtype: Any = jnp.float32) -> Tree:
        """The carry before the first token; it remembers any length."""
        del length
        return self.initial_carry(batch, dtype)

    def decode(self, params: Tree, x: jax.Array, cache: Tree) -> tuple[jax.Array, Tree]:
        """The next T tokens of texts whose past is in the cache: (logits [B, T, vocabulary], cache)."""
        return self.unroll(params, x, cache)


@dataclass(frozen=True)
class TimePool(Layer):
    """One vector for each sequence: x [B, T, F] -> [B, F].

    Args:
      reduce: "last", x at the last real step; "ends", for two directions: of the first half of the features the last
        real step, of the second half the first; "mean" or "max" over the real steps. A sequence of length 0 gives 0.
    Call: lengths, integers [B]; T each unless given.

    Raises:
      InputError: an unknown reduce; lengths that do not fit.

    >>> x = jnp.array([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]])
    >>> [TimePool(r)({}, x, lengths=jnp.array([2])).tolist() for r in ("last", "ends", "mean")]
    [[[3.0, 4.0]], [[3.0, 2.0]], [[2.0, 3.0]]]
    """

    reduce: Reduce

    def __post_init__(self) -> None:
        if self.reduce not in ("last", "ends", "mean", "max"):
            raise InputError(f'TimePool: reduce is "last", "ends", "mean" or "max", got {self.reduce!r}')

    def __call__(
        self,
        params: Tree,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        lengths: jax.Array | None = None,
    ) -> jax.Array:
        del params, key, train
        expect(self, x, "[B, T, F]")
        lengths = jnp.full(x.shape[0], x.shape[1], jnp.int32) if lengths is None else lengths
        expect(self, lengths, f"[{x.shape[0]}]", "lengths")
        steps = length_mask(lengths, x.shape[1])
        if not x.shape[1]:
            return jnp.zeros((x.shape[0], x.shape[2]), x.dtype)
        if self.reduce in ("max", "mean"):
            return pool_steps(x, steps, self.reduce)
        real = steps[..., None]
        last = real & ~jnp.pad(real[:, 1:], ((0, 0), (0, 1), (0, 0)))  # True at the last real step alone
        y = jnp.where(last, x, jnp.zeros_like(x)).sum(1)
        if self.reduce == "last":
            return y
        half = x.shape[2] // 2
        return jnp.concatenate([y[:, :half], jnp.where(real[:, 0], x[:, 0, half:], jnp.zeros_like(y[:, half:]))], 1)


def _layers(
    layer: Callable[[int], Layer], in_features: int, out_features: int, num_layers: int, dropout: float
) -> dict[str, Part]:
    """rnn0, dropout0, rnn1, ...: from in_features to out_features, of every layer."""
    if not is_whole(num_layers, 1):
        raise InputError(f"a recurrent model needs at least one layer, got num_layers={num_layers!r}")
    parts: dict[str, Part] = {}
    for i in range(num_layers):
        parts[f"rnn{i}"] = layer(in_features if i == 0 else out_features)
        parts |= {f"dropout{i}": nn.Dropout(dropout)} if drops(dropout) else {}
    return parts
