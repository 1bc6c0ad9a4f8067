"""Batch normalisation: the layer with running statistics."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fdl.core import Layer, Tree
from fdl.errors import InputError
from fdl.fields import NonNegative, Share, Size
from fdl.nn.lengths import real_steps_of_sequence, without_padding
from fdl.nn.norm import scale_and_bias
from fdl.ops import norm
from fdl.records import short
from fdl.shapes import certainly, expect


@dataclass(frozen=True)
class BatchNorm(Layer):
    """y = (x - mean) / sqrt(var + eps) * scale + bias, mean and variance over all axes but the last.

    In training they are those of the batch, and the running statistics in `state` move towards them:
    running = momentum * running + (1 - momentum) * batch. Otherwise they are the running ones.

    Args:
      features: size of the last axis.
      momentum: the share that the running statistics keep. PyTorch's momentum=0.1 is 0.9 here; Flax has 0.99.
      eps: inside the root.
    Call: `apply(params, state, x [..., features], train=..., mask=...)` -> (y, state). Where `mask`, booleans of the
      leading axes of x ([B] or [B, T], say), is False, x counts for no statistic; nor does the padding of an
      x [B, T, features] behind its `lengths`, integers [B] (see `fdl.nn.lengths`). A row counts whatever the weight of
      its loss: where rows of weight 0 are to be left out, hand the model a mask of them,
      `fdl.supervised(..., inputs=("x", {"mask": "real"}), weight="w")`.

    The layer before takes `use_bias=False`: a bias there has no gradient, only round-off, which Adam turns into drift.

    As in PyTorch the batch is normalised by its biased variance and the running variance takes the unbiased one; Flax
    takes the biased one for both. Under `jit` with a sharded batch the statistics are those of the whole batch.

    Raises:
      InputError: training on a single value a channel, which would always be normalised to 0; no running statistics.

    Reference: Ioffe & Szegedy, Batch normalization, 2015, algorithm 1.

    >>> import fdl
    >>> params, state = fdl.init(BatchNorm(1), jax.random.key(0))
    >>> y, state = BatchNorm(1, eps=0.0).apply(params, state, jnp.array([[3.0], [5.0]]), train=True)
    >>> y.tolist(), [round(float(state[name][0]), 2) for name in ("mean", "var")]
    ([[-1.0], [1.0]], [0.4, 1.1])
    """

    features: Size
    momentum: Share = 0.9
    eps: NonNegative = 1e-5

    def specs(self) -> Tree:
        trained = scale_and_bias(self.features)
        running = {"mean": trained["bias"], "var": trained["scale"]}  # they start at 0 and 1 as well
        return trained | {name: dataclasses.replace(spec, kind="state") for name, spec in running.items()}

    def apply(
        self,
        params: Tree,
        state: Tree,
        x: jax.Array,
        *,
        key: jax.Array | None = None,
        train: bool = False,
        mask: jax.Array | None = None,
        lengths: jax.Array | None = None,
    ) -> tuple[jax.Array, Tree]:
        del key
        expect(self, x, "[..., features]")
        real = real_steps_of_sequence(self, x, lengths)
        y, state = self._normalized(params, state, without_padding(x, real), train, self._counted(mask, real, x))
        return without_padding(y, real), state

    def _normalized(
        self, params: Tree, state: Tree, x: jax.Array, train: bool, mask: jax.Array | None
    ) -> tuple[jax.Array, Tree]:
        if "mean" not in state:
            raise InputError(
                f"{short(self)}: its running statistics are missing; pass the state that fdl.init returned"
            )
        if not train:
            return norm.normalize(x, state["mean"], state["var"], params["scale"], params["bias"], self.eps), state
        if certainly(lambda: x.size // self.features < 2):
            raise InputError(
                f"{short(self)}: training needs at least two values a channel, got x of shape {list(x.shape)}"
            )
        mean, var = norm.moments(x, range(x.ndim - 1), mask)
        y = norm.normalize(x, mean, var, params["scale"], params["bias"], self.eps)
        return y, self._running(state, mean, var, x, mask)

    def _counted(self, mask: jax.Array | None, real: jax.Array | None, x: jax.Array) -> jax.Array | None:
        """What counts in the statistics, aligned with x; both masks are of leading axes."""
        masks = [each for each in (self._aligned(mask, x), self._aligned(real, x)) if each is not None]
        return functools.reduce(jnp.logical_and, masks) if masks else None

    def _aligned(self, mask: jax.Array | None, x: jax.Array) -> jax.Array | None:
        if mask is None:
            return None
        if mask.shape != x.shape[: mask.ndim] or mask.ndim >= x.ndim:
            raise InputError(f"{short(self)}: mask {list(mask.shape)} must be leading axes of x {list(x.shape)}")
        return mask.astype(bool).reshape(mask.shape + (1,) * (x.ndim - mask.ndim))

    def _running(self, state: Tree, mean: jax.Array, var: jax.Array, x: jax.Array, mask: jax.Array | None) -> Tree:
        count = jnp.asarray(x.size // self.features, jnp.float32)
        if mask is not None:
            count = jnp.broadcast_to(mask, (*x.shape[:-1], 1)).sum(dtype=jnp.float32)
        batch = {"mean": mean, "var": var * (count / jnp.maximum(count - 1, 1)).astype(var.dtype)}
        # A batch with nothing in it says nothing.
        keep = jnp.where(count > 0, self.momentum, 1.0)
        return {name: self._step(state[name], batch[name], keep) for name in state}

    def _step(self, old: jax.Array, batch: jax.Array, keep: jax.Array) -> jax.Array:
        batch = jax.lax.stop_gradient(batch).reshape(old.shape).astype(old.dtype)
        return keep.astype(old.dtype) * old + (1.0 - keep).astype(old.dtype) * batch
