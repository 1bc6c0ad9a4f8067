"""Low-rank adaptation of a trained layer."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from fdl import ops
from fdl.core import Initializer, Layer, Param, Tree
from fdl.errors import InputError
from fdl.fields import Positive, Size
from fdl.initializers import LecunNormal, Zeros
from fdl.nn.containers import scope
from fdl.nn.maps import Maps, Projection, inner_axes
from fdl.ops.norm import widen
from fdl.records import short


@dataclass(frozen=True)
class LoRA(Layer):
    """y = linear(x) + alpha / rank * x @ a @ b, a [*in, rank] and b [rank, *out].

    b starts at 0, so that the layer starts as `linear`. To train the adapters alone put the trained arrays at
    `params["linear"]` and give the experiment `trainable=[(r"/(a|b)/kernel$", True), (r".", False)]`.

    Args:
      linear: a `Linear`, a map of `Attention` or `GatedLinear` (`fdl.edit(model, "attention/query", ...)`), or another
        layer without state that has a kernel [in, out] of its own.
      rank: of the change.
      alpha: its scale; alpha = rank leaves it as it is. May be swept.
    Call: x [..., in] -> [..., out]. `merge(params)` gives the params of a plain `linear` that does the same.

    The authors draw a from a normal distribution of unstated width, their code and Hugging Face's PEFT from
    U[-1/sqrt(in), 1/sqrt(in)): a standard deviation of 0.58 / sqrt(in), against 1 / sqrt(in) here.

    Raises:
      InputError: a layer without such a kernel; rank < 1.

    Reference: Hu et al., LoRA: low-rank adaptation of large language models, 2021, section 4.1.

    >>> import fdl, jax.numpy as jnp
    >>> layer = LoRA(fdl.nn.Linear(3, 2), rank=1, alpha=1.0)
    >>> params, _ = fdl.init(layer, jax.random.key(0))
    >>> bool((layer(params, jnp.ones(3)) == layer.linear(params["linear"], jnp.ones(3))).all())
    True
    """

    linear: Layer
    rank: Size
    alpha: Positive
    a_init: Initializer = LecunNormal()
    b_init: Initializer = Zeros()

    def __post_init__(self) -> None:
        self._kernel()

    def _kernel(self) -> Param:
        specs = self.linear.specs() if isinstance(self.linear, Layer) else {}
        kernel = specs.get("kernel")
        if not isinstance(kernel, Param) or not (len(kernel.shape) == 2 or isinstance(self.linear, Projection)):
            if isinstance(self.linear, Maps):
                names = ", ".join(map(repr, self.linear.maps()))
                raise InputError(
                    f"LoRA: expected one of the maps {names}, got the whole {short(self.linear)}; edit them one by one"
                )
            raise InputError(
                f"LoRA: expected a layer with a kernel [in, out] of its own, such as Linear, got {short(self.linear)}"
            )
        return kernel

    def specs(self) -> Tree:
        kernel = self._kernel()
        n, axes = inner_axes(self.linear, kernel), kernel.axes or (None,) * len(kernel.shape)
        a = Param((*kernel.shape[:n], self.rank), self.a_init, (*axes[:n], None))
        b = Param((self.rank, *kernel.shape[n:]), self.b_init, (None, *axes[n:]))
        return {"linear": self.linear.specs(), "a": {"kernel": a}, "b": {"kernel": b}}

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        with scope("linear"):
            y = self.linear(params["linear"], x, key=key, train=train)
        a, b = params["a"]["kernel"], params["b"]["kernel"]
        return y + self._scaled(ops.linear(ops.linear(x, a, axes=a.ndim - 1), b))

    def merge(self, params: Tree) -> Tree:
        """The params of `linear` with the change added to its kernel, summed in float32."""
        kernel = params["linear"]["kernel"]
        change = self._scaled(jnp.tensordot(widen(params["a"]["kernel"]), widen(params["b"]["kernel"]), 1))
        return params["linear"] | {"kernel": (widen(kernel) + change).astype(kernel.dtype)}

    def _scaled(self, change: jax.Array) -> jax.Array:
        return change * (self.alpha / self.rank)
