"""The affine map."""

from __future__ import annotations

from dataclasses import dataclass

import jax

from fdl import ops
from fdl.core import Initializer, Layer, Param, Tree
from fdl.fields import Flag, Size
from fdl.initializers import LecunNormal, Zeros
from fdl.ops.shared import shared
from fdl.shapes import expect, refuse_bytes


@dataclass(frozen=True)
class Linear(Layer):
    """y = x @ kernel + bias.

    Args:
      in_features, out_features: sizes of the last axis.
      use_bias: whether to add a bias; off before a BatchNorm, which would remove it again.
    Call: x [..., in_features] -> [..., out_features], in x's dtype.

    Raises:
      InputError: another last axis; uint8, the grey levels of images that nobody scaled.

    PyTorch stores the transpose, [out, in], and draws both arrays from U[-1/sqrt(in), 1/sqrt(in)). Flax calls it Dense.

    >>> import jax, jax.numpy as jnp, fdl
    >>> layer = fdl.nn.Linear(3, 2)
    >>> params, _ = fdl.init(layer, jax.random.key(0))
    >>> layer(params, jnp.ones((5, 3))).shape
    (5, 2)
    """

    in_features: Size
    out_features: Size
    use_bias: Flag = True
    kernel_init: Initializer = LecunNormal()
    axes: tuple[str | None, str | None] = ("embed", "mlp")

    def specs(self) -> Tree:
        kernel = Param((self.in_features, self.out_features), self.kernel_init, self.axes)
        bias = Param((self.out_features,), Zeros(), self.axes[1:])
        return {"kernel": kernel, "bias": bias} if self.use_bias else {"kernel": kernel}

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        del key, train
        expect(self, x, "[..., in_features]")
        refuse_bytes(self, x)
        y = ops.linear(x, params["kernel"])
        return y + shared(params["bias"], y) if self.use_bias else y
