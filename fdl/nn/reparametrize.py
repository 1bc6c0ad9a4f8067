"""Layers whose kernel is computed from other arrays: spectral and weight normalisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fdl.core import Layer, Param, Tree
from fdl.errors import InputError
from fdl.fields import Size
from fdl.initializers import Normal, Ones
from fdl.nn.containers import scope
from fdl.ops.norm import widen
from fdl.ops.shared import shared
from fdl.records import short


@dataclass(frozen=True)
class SpectralNorm(Layer):
    """The layer with kernel / sigma, sigma the largest singular value of the kernel as a matrix [inputs, outputs].

    sigma = ||K u||, where u, running state, is moved one step of the power iteration u <- K^T K u at each training
    step: cheap, and accurate because K moves slowly. A kernel of zeros stays as it is, and u too.

    Args:
      layer: has an array `kernel` whose last axis is the output (Linear, Conv).
      num_steps: power iterations a training step.
    Call: `apply(params, state, x, train=...)` -> (y, state).

    PyTorch's `spectral_norm` keeps both singular vectors and runs 15 iterations at the start; Flax keeps u and sigma.

    Raises:
      InputError: a layer without a kernel of its own.

    Reference: Miyato et al., Spectral normalization for GANs, 2018, algorithm 1.
    """

    layer: Layer
    num_steps: Size = 1

    def specs(self) -> Tree:
        specs = self.layer.specs()
        outputs = _kernel_spec(self, specs).shape[-1]
        return {"layer": specs, "u": Param((outputs,), Normal(1.0), (None,), kind="state")}

    def apply(
        self, params: Tree, state: Tree, x: Any, *, key: jax.Array | None = None, train: bool = False, **keywords: Any
    ) -> tuple[Any, Tree]:
        if "u" not in state:
            raise InputError(f"{short(self)}: its state is missing; pass the state that fdl.init returned")
        kernel = params["layer"]["kernel"]
        matrix = widen(kernel).reshape(-1, kernel.shape[-1])
        u = _unit(state["u"].astype(matrix.dtype))
        fixed = jax.lax.stop_gradient(matrix)
        for _ in range(self.num_steps if train else 0):
            moved = fixed.T @ _unit(fixed @ u)
            u = jnp.where(moved.any(), _unit(moved), u)  # from 0 it would never move again
        square = jnp.square(matrix @ u).sum()  # not of `fixed`: second derivatives would take it for a constant
        sigma = jnp.sqrt(jnp.where(square == 0, 1.0, square))  # a kernel of zeros stays as it is
        scaled = params["layer"] | {"kernel": kernel / shared(sigma.astype(kernel.dtype), kernel)}
        with scope("layer"):
            y, new = self.layer.apply(scaled, state.get("layer", {}), x, key=key, train=train, **keywords)
        u = u.astype(state["u"].dtype) if train else state["u"]
        return y, {"u": u} | ({"layer": new} if "layer" in state else {})


@dataclass(frozen=True)
class WeightNorm(Layer):
    """The layer with kernel = scale * v / ||v||, a length and a direction for each output; 0 where v is 0.

    Args:
      layer: has an array `kernel` whose last axis is the output (Linear, Conv); it holds v.
    Call: as the layer.

    `scale` starts at 1 as in Flax; PyTorch's `weight_norm` starts it at ||v||, which leaves the layer as it was.

    Raises:
      InputError: a layer without a kernel of its own.

    Reference: Salimans & Kingma, Weight normalization, 2016, equation 2.
    """

    layer: Layer

    def specs(self) -> Tree:
        specs = self.layer.specs()
        kernel = _kernel_spec(self, specs)
        axes = None if kernel.axes is None else kernel.axes[-1:]
        return {"layer": specs, "scale": Param(kernel.shape[-1:], Ones(), axes)}

    def apply(
        self, params: Tree, state: Tree, x: Any, *, key: jax.Array | None = None, train: bool = False, **keywords: Any
    ) -> tuple[Any, Tree]:
        v = params["layer"]["kernel"]
        wide = widen(v)
        square = jnp.square(wide).sum(range(v.ndim - 1))
        # where() on the argument too: the gradient of sqrt(0) would be NaN even where it is not used
        length = jnp.sqrt(jnp.where(square == 0, 1.0, square))
        scale = jnp.where(square == 0, 0.0, params["scale"].astype(wide.dtype) / length)
        kernel = (wide * scale).astype(v.dtype)
        with scope("layer"):
            y, new = self.layer.apply(
                params["layer"] | {"kernel": kernel}, state.get("layer", {}), x, key=key, train=train, **keywords
            )
        return y, {"layer": new} if "layer" in state else {}


def _kernel_spec(wrapper: Layer, specs: Tree) -> Param:
    kernel = specs.get("kernel")
    if not isinstance(kernel, Param):
        raise InputError(f"{wrapper!r}: expected a layer with a kernel of its own, such as Linear or Conv")
    return kernel


def _unit(x: jax.Array) -> jax.Array:
    return x / (jnp.linalg.norm(x) + 1e-12)
