"""Many copies of one layer: `Stack` runs them one after the other, `Ensemble` side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from fdl.core import Copies, Layer, Tree, fold
from fdl.errors import InputError
from fdl.fields import Flag, Size
from fdl.nn.containers import require_known, scope
from fdl.records import short


@dataclass(frozen=True)
class Stack(Layer):
    """y = block_n(... block_1(x)), n copies of a block as one `lax.scan`.

    The program holds the block once, so that compile time does not grow with depth. Every array of the block has a
    leading "layers" axis; copy i is initialised with `fold(key, i)`. `unstack` gives the params of a `Serial`.

    Args:
      block: maps x to the same shape and dtype; running statistics are kept copy by copy.
      n: the number of copies.
      remat: keep only each block's input for the backward pass and compute the rest again: memory for time.
    Call: x -> y; other keywords go to every copy.

    Raises:
      InputError: n < 1; a block that changes the shape or dtype of x.
    """

    block: Layer
    n: Size
    remat: Flag = False

    def specs(self) -> Tree:
        return Copies(self.block.specs(), self.n, "layers")

    def apply(
        self, params: Tree, state: Tree, x: Any, *, key: jax.Array | None = None, train: bool = False, **keywords: Any
    ) -> tuple[Any, Tree]:
        require_known(self, keywords)

        def body(x: Any, copy: tuple[Tree, Tree, jax.Array]) -> tuple[Any, Tree]:
            params, state, i = copy
            y, new = self.block.apply(params, state, x, key=fold(key, i), train=train, **keywords)
            if _shapes(y) != _shapes(x):
                raise InputError(
                    f"{short(self)}: a block must keep the shape and dtype of x, got {_shapes(x)} -> {_shapes(y)}"
                )
            return y, new

        with scope("block"):
            return jax.lax.scan(jax.checkpoint(body) if self.remat else body, x, (params, state, jnp.arange(self.n)))


@dataclass(frozen=True)
class Ensemble(Layer):
    """y[m] = member_m(x): n independently initialised copies of a layer on the same input, by `vmap`.

    Every array of the layer has a leading "members" axis; member m is initialised with `fold(key, m)`, and draws its
    own dropout.

    Args:
      member: the layer.
      n: the number of members.
    Call: x -> y [n, ...]; other keywords go to every member. `y.mean(0)` is the ensemble's prediction.

    Raises:
      InputError: n < 1.

    Reference: Lakshminarayanan et al., Deep ensembles, 2017.
    """

    member: Layer
    n: Size

    def specs(self) -> Tree:
        return Copies(self.member.specs(), self.n, "members")

    def apply(
        self, params: Tree, state: Tree, x: Any, *, key: jax.Array | None = None, train: bool = False, **keywords: Any
    ) -> tuple[Any, Tree]:
        require_known(self, keywords)

        def one(params: Tree, state: Tree, i: jax.Array) -> tuple[Any, Tree]:
            return self.member.apply(params, state, x, key=fold(key, i), train=train, **keywords)

        with scope("member"):
            return jax.vmap(one)(params, state, jnp.arange(self.n))


def unstack(params: Mapping[str, Any]) -> Tree:
    """The params (or state) of `Stack(block, n)` as those of `Serial(block, ..., block)`: {"0": ..., "1": ...}."""
    n = {leaf.shape[0] for leaf in jax.tree.leaves(params)}
    if len(n) != 1:
        raise InputError(f"unstack: expected arrays with one common leading axis, got sizes {sorted(n)}")
    return {str(i): jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(n.pop())}


def stack(params: Mapping[str, Any]) -> Tree:
    """The inverse of `unstack`: {"0": tree, "1": tree, ...} as one tree with a leading axis.

    >>> stack({"0": {"bias": jnp.zeros(3)}, "1": {"bias": jnp.ones(3)}})["bias"].shape
    (2, 3)
    """
    names = [str(i) for i in range(len(params))]
    if set(names) != set(params) or not names:
        raise InputError(f"stack: expected the entries {names or ['0']}, got {list(params)}")
    shapes = {name: _shapes(params[name]) for name in names}
    if len({str(shape) for shape in shapes.values()}) != 1:
        raise InputError(f"stack: the trees differ in structure, shape or dtype: {shapes}")
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[name] for name in names))


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", tree)
