"""Low-rank adaptation of a trained layer."""

from __future__ import annotations

from dataclasses import dataclass

import jax

from fdl import ops
from fdl.core import Initializer, Layer, Param, Tree
from fdl.errors import InputError
from fdl.fields import Positive, Size
from fdl.initializers import LecunNormal, Zeros
from fdl.nn.containers import scope
from fdl.ops.norm import widen
from fdl.records import short


@dataclass(frozen=True)
class LoRA(Layer):
    """y = linear(x) + alpha / rank * x @ a @ b, a [in, rank] and b [rank, out].

    b starts at 0, so that the layer starts as `linear`. To train the adapters alone put the trained arrays at
    `params["linear"]` and give the experiment `trainable=[(r"/(a|b)/kernel$", True), (r".", False)]`.

    Args:
      linear: a `Linear`, or another layer without state that has a kernel [in, out] of its own. The projections of
        `Attention` and `GatedLinear` are arrays of these layers, and not layers that could be adapted.
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
        if not isinstance(kernel, Param) or len(kernel.shape) != 2:
            raise InputError(
                f"LoRA: expected a layer with a kernel [in, out] of its own, such as Linear, got {short(self.linear)}"
            )
        return kernel

    def specs(self) -> Tree:
        kernel = self._kernel()
        (n, m), (n_axis, m_axis) = kernel.shape, kernel.axes or (None, None)
        a = Param((n, self.rank), self.a_init, (n_axis, None))
        b = Param((self.rank, m), self.b_init, (None, m_axis))
        return {"linear": self.linear.specs(), "a": {"kernel": a}, "b": {"kernel": b}}

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        with scope("linear"):
            y = self.linear(params["linear"], x, key=key, train=train)
        return y + self._scaled(ops.linear(ops.linear(x, params["a"]["kernel"]), params["b"]["kernel"]))

    def merge(self, params: Tree) -> Tree:
        """The params of `linear` with the change added to its kernel, summed in float32."""
        kernel = params["linear"]["kernel"]
        change = self._scaled(widen(params["a"]["kernel"]) @ widen(params["b"]["kernel"]))
        return params["linear"] | {"kernel": (widen(kernel) + change).astype(kernel.dtype)}

    def _scaled(self, change: jax.Array) -> jax.Array:
        return change * (self.alpha / self.rank)
