"""Vectors for the numbers of a vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl import ops
from fdl.core import Initializer, Layer, Param, Tree
from fdl.errors import InputError
from fdl.fields import Size
from fdl.initializers import Normal
from fdl.ops.shared import summed_wide
from fdl.records import short
from fdl.shapes import check_range, expect


@dataclass(frozen=True)
class Embedding(Layer):
    """y = embedding[id].

    Args:
      num_embeddings: the size of the vocabulary; ids are 0 ... num_embeddings - 1.
      features: size of a vector.
      embedding_init: N(0, 0.02^2) as in GPT-2, so that tied output weights start with nearly uniform predictions.
        PyTorch draws N(0, 1), Flax N(0, 1 / features).
    Call: ids [...], integers -> [..., features] in the table's dtype. `attend(params, x)`: the table as output weights.

    An id outside the vocabulary is an error where it can be seen: outside a compiled program, and in the rehearsal of a
    run. Inside a compiled program its vector is NaN, for -1 too. (Plain indexing takes the last row for both.)

    Raises:
      InputError: ids that are no integers, or outside the vocabulary.

    PyTorch: `Embedding`; what it calls padding_idx is the business of masks here. Flax: `Embed`.

    >>> import fdl
    >>> layer = Embedding(10, 4)
    >>> params, _ = fdl.init(layer, jax.random.key(0))
    >>> layer(params, jnp.array([[1, 9]])).shape
    (1, 2, 4)
    >>> layer(params, jnp.array([[1, 10]]))
    Traceback (most recent call last):
    fdl.errors.InputError: Embedding(10, 4): id 10 at index (0, 1) is outside 0..9
    """

    num_embeddings: Size
    features: Size
    embedding_init: Initializer = Normal(0.02)
    axes: tuple[str | None, str | None] = ("vocab", "embed")

    def specs(self) -> Tree:
        return {"embedding": Param((self.num_embeddings, self.features), self.embedding_init, self.axes)}

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        del key, train
        return look_up(short(self), "id", params["embedding"], x)

    def attend(self, params: Tree, x: jax.Array) -> jax.Array:
        """x @ embedding^T: x [..., features] -> logits [..., num_embeddings].

        With the params of the embedding this ties input and output weights (Press & Wolf, Using the output embedding to
        improve language models, 2017). Flax: `Embed.attend`.
        """
        expect(self, x, "[..., features]")
        return ops.linear(x, params["embedding"].T)


def look_up(where: str, what: str, table: jax.Array, ids: Any) -> jax.Array:
    """table[ids] for a table [N, D]; an id outside 0 ... N - 1 raises where it is concrete, gives NaN where traced."""
    if not isinstance(ids, jax.Array | np.ndarray | np.generic | int):
        raise InputError(f"{where}: expected an array of integers, got {type(ids).__name__}")
    dtype = jnp.result_type(ids)
    if not jnp.issubdtype(dtype, jnp.integer):
        hint = "; one-hot rows take a Linear without bias" if jnp.issubdtype(dtype, jnp.floating) else ""
        raise InputError(f"{where}: an {what} is a row of the table, expected integers, got {dtype}{hint}")
    check_range(where, what, ids, 0, len(table) - 1)
    table, ids = jnp.asarray(table), jnp.asarray(ids)
    if ids.dtype.itemsize < 4:  # the number of rows need not fit into a narrow type
        ids = ids.astype(jnp.int32)
    get = lambda table, ids: table.at[ids].get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)  # noqa: E731
    return summed_wide(get, table, ids)
