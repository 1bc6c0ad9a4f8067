"""Memory for time: a layer that is computed again for its gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax

from fdl.core import Layer, Tree
from fdl.nn.containers import require_known


@dataclass(frozen=True)
class Remat(Layer):
    """y = block(x), of which only x is kept for the backward pass; everything inside is computed again.

    Wrapped around each block of a deep model, it leaves one activation a block instead of all of them, for one more
    forward pass (Chen et al., Training deep nets with sublinear memory cost, 2016). Around the whole model it saves
    nothing: all of it would be computed again before the first gradient. On CPU XLA merges the second computation with
    the first wherever both are in one straight program (jax 0.10.2); `Stack(block, n, remat=True)` saves there too.

    Args:
      block: the layer. `params` and `state` are its own, so that checkpoints fit with and without.
    Call: x -> y; other keywords go to the block.

    PyTorch: `torch.utils.checkpoint.checkpoint`; Flax: `linen.remat`.

    >>> import fdl
    >>> block = fdl.nn.Serial(fdl.nn.Linear(3, 3), jax.nn.tanh)
    >>> fdl.init(Remat(block), jax.random.key(0))[0].keys() == fdl.init(block, jax.random.key(0))[0].keys()
    True
    """

    block: Layer

    def specs(self) -> Tree:
        return self.block.specs()

    def apply(
        self, params: Tree, state: Tree, x: Any, *, key: jax.Array | None = None, train: bool = False, **keywords: Any
    ) -> tuple[Any, Tree]:
        require_known(self, keywords)

        @jax.checkpoint
        def forward(params: Tree, state: Tree, x: Any) -> tuple[Any, Mapping[str, Any]]:
            return self.block.apply(params, state, x, key=key, train=train, **keywords)

        return forward(params, state, x)
