"""Layers made of linear maps, each of which `fdl.edit` reaches: a LoRA for the queries of attention, say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from fdl import ops
from fdl.core import Initializer, Layer, Param, Tree, leaves
from fdl.errors import InputError
from fdl.fields import Flag, Size
from fdl.initializers import LecunNormal, Zeros
from fdl.ops.shared import shared
from fdl.records import short
from fdl.shapes import expect


@dataclass(frozen=True)
class Projection(Layer):
    """y = x @ kernel + bias over several axes: each of the four maps of `Attention` is one.

    Args:
      inner, outer: the sizes that the kernel takes away and those that it gives; the kernel is [*inner, *outer].
      use_bias: whether there is a bias [*outer].
      axes: a name for each axis of the kernel.
    Call: x [..., *inner] -> [..., *outer].

    Raises:
      InputError: other last axes.

    >>> import jax.numpy as jnp, fdl
    >>> to_heads = Projection((8,), (2, 4))
    >>> params, _ = fdl.init(to_heads, jax.random.key(0))
    >>> to_heads(params, jnp.ones((5, 8))).shape
    (5, 2, 4)
    """

    inner: tuple[Size, ...]
    outer: tuple[Size, ...]
    use_bias: Flag = True
    kernel_init: Initializer = LecunNormal()
    axes: tuple[str | None, ...] | None = None

    def specs(self) -> Tree:
        shape = (*self.inner, *self.outer)
        axes = (None,) * len(shape) if self.axes is None else self.axes
        bias = Param(self.outer, Zeros(), axes[len(self.inner) :])
        return {"kernel": Param(shape, self.kernel_init, axes)} | ({"bias": bias} if self.use_bias else {})

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        del key, train
        expect(self, x, f"[..., {', '.join(map(str, self.inner))}]")
        y = ops.linear(x, params["kernel"], axes=len(self.inner))
        return y + shared(params["bias"], y) if self.use_bias else y


class Maps(Layer):
    """A layer whose arrays are those of linear maps, and whose field `replaced` has the layers in place of some."""

    replaced: tuple[tuple[str, Layer], ...]

    def plain_maps(self) -> dict[str, Layer]:
        """The maps by name, before any was replaced."""
        raise NotImplementedError

    def maps(self) -> dict[str, Layer]:
        return self.plain_maps() | dict(self.replaced)

    def editable(self) -> dict[str, Any]:
        return self.parts() | self.maps()

    def replace_parts(self, parts: Mapping[str, Any]) -> Layer:
        maps = {name: part for name, part in parts.items() if name in self.plain_maps()}
        for name, part in maps.items():
            specs = part.specs() if isinstance(part, Layer) else None
            if specs is None or any(spec.kind == "state" for _, spec in leaves(specs)):
                raise InputError(
                    f"{short(self)}: {name}: expected a layer without state in its place, got {short(part)}"
                )
        others = {name: part for name, part in parts.items() if name not in maps}
        replaced = tuple((dict(self.replaced) | maps).items())
        return dataclasses.replace(self, **others, replaced=replaced)  # pyright: ignore[reportArgumentType]

    def specs(self) -> Tree:
        return {name: part.specs() for name, part in self.maps().items()}


def inner_axes(layer: Layer, kernel: Param) -> int:
    """How many of the kernel's axes the layer takes away; the others are those that it gives."""
    return len(layer.inner) if isinstance(layer, Projection) else len(kernel.shape) - 1
