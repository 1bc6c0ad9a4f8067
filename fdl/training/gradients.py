"""The sums of a batch and their gradients, in one go or over micro-batches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from fdl.core import fold
from fdl.errors import InputError
from fdl.rules import path_of
from fdl.training.carry import like
from fdl.training.precision import compute_copy
from fdl.training.sums import Sums, added, reduce
from fdl.training.task import Outcome


@dataclass(frozen=True)
class Batch:
    """A batch as two functions of the trained parameters.

    Args:
      objective: of the task.
      join: completes the trained parameters with the frozen ones.
      state, batch, key: what the objective gets beside them.
      accumulate: over how many micro-batches, one after the other.
      precision: what is computed in.
      scale: of the loss, None = 1.
    """

    objective: Callable[..., Outcome]
    join: Callable[[Any], Any]
    state: Any
    batch: Any
    key: jax.Array
    accumulate: int
    precision: str | None
    scale: jax.Array | None

    def sums(self, trained: Any) -> tuple[Sums, Any, Any]:
        """`(sums, grads, state)`: sums of the metrics, gradients of the (scaled) sum of the losses, the new state."""
        both = jax.value_and_grad(self._total, has_aux=True)

        def one(state: Any, batch: Any, key: jax.Array) -> tuple[tuple[Sums, Any], Any]:
            (_, (means, state)), grads = both(trained, state, batch, key)
            return (means, grads), state

        (means, grads), state = self._accumulated(one)
        return means, grads, state

    def mean(self, sums: Sums, grads: Any) -> Any:
        """The gradients of the mean loss, from those of the (scaled) sum.

        Sums first, one division last: micro-batches of unequal weight then add up to the big batch.
        """
        count = nonzero(sums["loss"].count) * (1.0 if self.scale is None else self.scale)
        return jax.tree.map(lambda g: g / count.astype(g.dtype), grads)

    def gradient(self, trained: Any, number: Any = 0) -> Any:
        """The gradients at other parameters, of the same batch whatever the `number`, for `optax.contrib.sam`."""
        return self.mean(*self.sums(trained)[:2])

    def value(self, trained: Any) -> jax.Array:
        """The loss at other parameters, for line searches."""

        def one(state: Any, batch: Any, key: jax.Array) -> tuple[Sums, Any]:
            return self._total(trained, state, batch, key)[1]

        return self._accumulated(one)[0]["loss"].value()

    def _total(self, trained: Any, state: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, tuple[Sums, Any]]:
        params = compute_copy(self.join(trained), self.precision)
        outcome = self.objective(params, state, batch, key=key, train=True)
        means = reduce(outcome)
        total = means["loss"].total * (1.0 if self.scale is None else self.scale)
        return total, (means, state if outcome.state is None else outcome.state)

    def _accumulated(self, one: Callable[[Any, Any, jax.Array], tuple[Any, Any]]) -> tuple[Any, Any]:
        """`one(state, batch, key) -> (sums, state)`, the sums added up and the state handed on over micro-batches."""
        count = self.accumulate
        if count == 1:
            return one(self.state, self.batch, self.key)
        parts = jax.tree_util.tree_map_with_path(lambda path, x: _micro(path_of(path), x, count), self.batch)

        def body(carry: tuple[Any, Any], now: tuple[Any, Any]) -> tuple[tuple[Any, Any], None]:
            state, sums = carry
            batch, number = now
            more, state = one(state, batch, fold(self.key, "micro", number))
            return (like(state, self.state), added(sums, like(more, sums))), None

        first = jax.tree.map(lambda x: x[0], parts)
        shapes = jax.eval_shape(one, self.state, first, self.key)[0]
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, _wide(x.dtype)), shapes)  # of gradients in half precision too
        (state, sums), _ = lax.scan(body, (self.state, zeros), (parts, jnp.arange(count)))
        return like(sums, shapes), state


def _wide(dtype: Any) -> Any:
    return jnp.float32 if jnp.issubdtype(dtype, jnp.floating) and jnp.dtype(dtype).itemsize < 4 else dtype


def _micro(path: str, x: Any, count: int) -> jax.Array:
    if not jnp.ndim(x) or x.shape[0] % count:
        size = list(jnp.shape(x))
        raise InputError(f"accumulate={count}: the batch's {path!r} {size} does not split into {count} equal parts")
    return jnp.reshape(x, (count, -1, *x.shape[1:]))


def nonzero(count: jax.Array) -> jax.Array:
    return jnp.where(count == 0, jnp.ones_like(count), count)
