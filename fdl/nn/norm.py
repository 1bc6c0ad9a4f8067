"""Normalisations of one example by its own statistics. Batch normalisation has state: see `fdl.nn.batch_norm`."""

from __future__ import annotations

from dataclasses import dataclass

import jax

from fdl.core import Layer, Param, Tree
from fdl.errors import InputError
from fdl.fields import NonNegative, Size
from fdl.initializers import Ones, Zeros
from fdl.nn.lengths import real_steps_of_sequence, without_padding
from fdl.ops import norm
from fdl.shapes import expect


def scale_and_bias(features: int) -> Tree:
    """Specs of the affine map after a normalisation: it starts as the identity."""
    return {"scale": Param((features,), Ones(), ("embed",)), "bias": Param((features,), Zeros(), ("embed",))}


@dataclass(frozen=True)
class LayerNorm(Layer):
    """y = (x - mean) / sqrt(var + eps) * scale + bias, mean and variance over the last axis.

    Args:
      features: size of the last axis.
      eps: inside the root, as in PyTorch (same default); Flax has 1e-6.
    Call: x [..., features] -> same shape and dtype, computed in float32.

    Reference: Ba et al., Layer normalization, 2016.

    >>> import fdl, jax.numpy as jnp
    >>> params, _ = fdl.init(LayerNorm(2), jax.random.key(0))
    >>> LayerNorm(2, eps=0.0)(params, jnp.array([3.0, 5.0])).tolist()
    [-1.0, 1.0]
    """

    features: Size
    eps: NonNegative = 1e-5

    def specs(self) -> Tree:
        return scale_and_bias(self.features)

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        del key, train
        expect(self, x, "[..., features]")
        return norm.layer_norm(x, params["scale"], params["bias"], self.eps)


@dataclass(frozen=True)
class RMSNorm(Layer):
    """y = x / sqrt(mean(x^2) + eps) * scale, the mean over the last axis.

    Args:
      features: size of the last axis.
      eps: inside the root, as in PyTorch (whose default is the dtype's epsilon) and Flax (1e-6).
    Call: x [..., features] -> same shape and dtype, computed in float32.

    Reference: Zhang & Sennrich, Root mean square layer normalization, 2019, equation 4.

    >>> import fdl, jax.numpy as jnp
    >>> params, _ = fdl.init(RMSNorm(4), jax.random.key(0))
    >>> RMSNorm(4, eps=0.0)(params, jnp.array([2.0, -2.0, 2.0, 2.0])).tolist()
    [1.0, -1.0, 1.0, 1.0]
    """

    features: Size
    eps: NonNegative = 1e-6

    def specs(self) -> Tree:
        return {"scale": Param((self.features,), Ones(), ("embed",))}

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        del key, train
        expect(self, x, "[..., features]")
        return norm.rms_norm(x, params["scale"], self.eps)


@dataclass(frozen=True)
class GroupNorm(Layer):
    """y = (x - mean) / sqrt(var + eps) * scale + bias, per example and group of neighbouring channels.

    Args:
      num_groups: divides `features`; 1 normalises all channels and positions together.
      features: size of the last axis.
      eps: inside the root, as in PyTorch (same default); Flax has 1e-6.
    Call: x [B, ..., features] -> same shape and dtype, computed in float32.
      lengths: integers [B], of an x [B, T, features]; padding counts for no statistic, see `fdl.nn.lengths`.

    Raises:
      InputError: groups that do not divide the channels.

    Reference: Wu & He, Group normalization, 2018. PyTorch: `GroupNorm(num_groups, num_channels)`, channels first.
    """

    num_groups: Size
    features: Size
    eps: NonNegative = 1e-5

    def __post_init__(self) -> None:
        if self.features % self.num_groups:
            raise InputError(f"GroupNorm: {self.num_groups} groups do not divide {self.features} features")

    def specs(self) -> Tree:
        return scale_and_bias(self.features)

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
        expect(self, x, "[B, ..., features]")
        real = real_steps_of_sequence(self, x, lengths)
        y = norm.group_norm(without_padding(x, real), params["scale"], params["bias"], self.num_groups, self.eps, real)
        return without_padding(y, real)


@dataclass(frozen=True)
class InstanceNorm(Layer):
    """y = (x - mean) / sqrt(var + eps) * scale + bias, per example and channel, over the positions.

    Args:
      features: size of the last axis.
      eps: inside the root.
    Call: x [B, ..., features] with at least one axis of positions -> same shape and dtype, computed in float32; lengths
      as in `GroupNorm`.

    PyTorch's `InstanceNorm2d` has no scale and bias unless `affine=True`.

    Reference: Ulyanov et al., Instance normalization, 2016.
    """

    features: Size
    eps: NonNegative = 1e-5

    def specs(self) -> Tree:
        return scale_and_bias(self.features)

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
        expect(self, x, "[B, P, ..., features]")
        real = real_steps_of_sequence(self, x, lengths)
        y = norm.group_norm(without_padding(x, real), params["scale"], params["bias"], self.features, self.eps, real)
        return without_padding(y, real)
