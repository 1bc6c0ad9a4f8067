"""Activations that have parameters. Those without are plain functions: put `jax.nn.relu` into a `Serial`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import jax

from fdl.core import Initializer, Layer, Param, Tree
from fdl.fields import Flag, Size
from fdl.initializers import Constant, LecunNormal
from fdl.nn.linear import Linear
from fdl.nn.maps import Maps
from fdl.ops.activations import prelu
from fdl.shapes import expect


@dataclass(frozen=True)
class PReLU(Layer):
    """y = x where x > 0, else slope * x, with a learned slope a feature.

    Args:
      features: size of the last axis; 1 learns one slope for all features, and takes x of any last size.
      slope_init: 0.25 in the paper and in PyTorch; Flax starts at 0.01.
    Call: x [..., features] -> same shape.

    Reference: He et al., Delving deep into rectifiers, 2015, equation 1.

    >>> import jax.numpy as jnp, fdl
    >>> params, _ = fdl.init(PReLU(1), jax.random.key(0))
    >>> PReLU(1)(params, jnp.array([-4.0, 2.0])).tolist()
    [-1.0, 2.0]
    """

    features: Size = 1
    slope_init: Initializer = Constant(0.25)

    def specs(self) -> Tree:
        return {"slope": Param((self.features,), self.slope_init, ("embed",))}

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        del key, train
        if self.features != 1:
            expect(self, x, "[..., features]")
        return prelu(x, params["slope"])


@dataclass(frozen=True)
class GatedLinear(Maps):
    """y = value(x) * activation(gate(x)), both linear: GLU with sigmoid, SwiGLU with silu, GEGLU with gelu.

    Args:
      in_features, out_features: sizes of the last axis.
      activation: of the gate.
      use_bias: for both linear maps; off in the paper's feed-forward layers.
      replaced: layers in place of the maps, as `fdl.edit(model, ".../gate", ...)` puts them.
    Call: x [..., in_features] -> [..., out_features].

    Two kernels, `value` and `gate`, rather than the halves of one: each has its own fan-out, and names that weights
    from elsewhere can be mapped to (Llama's up_proj and gate_proj).

    Reference: Shazeer, GLU variants improve transformer, 2020, equation 6.
    """

    in_features: Size
    out_features: Size
    activation: Callable[[jax.Array], jax.Array] = jax.nn.silu
    use_bias: Flag = False
    kernel_init: Initializer = LecunNormal()
    replaced: tuple[tuple[str, Layer], ...] = ()

    def plain_maps(self) -> dict[str, Layer]:
        linear = Linear(self.in_features, self.out_features, self.use_bias, self.kernel_init)
        return {"value": linear, "gate": linear}

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        expect(self, x, "[..., in_features]")
        value, gate = (part(params[name], x, key=key, train=train) for name, part in self.maps().items())
        return value * self.activation(gate)
