"""What the laws of one row share: initial arrays, and each compiled program once.

Compiling is what these tests spend their time on. So programs are kept, and inputs are prepared in numpy: every
operation on a JAX array of a new shape compiles.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache, cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fdl
from fdl import initializers, nn
from tests.laws.table import Row


class Case:
    """A row with its arrays, and `forward`, its compiled `apply`, which counts how often it was traced."""

    def __init__(self, row: Row) -> None:
        self.layer, self.x, self.keywords = row.layer, row.x, dict(row.keywords)
        self.params, self.state = jax.tree.map(np.asarray, fdl.init(row.layer, key(0)))
        self.traces = 0
        self.forward = jax.jit(self._forward, static_argnames=("layer", "train"))

    def _forward(self, params: Any, state: Any, x: Any, keywords: Any, key: Any, layer: Any, train: bool) -> Any:
        self.traces += 1
        return layer.apply(params, state, x, key=key, train=train, **keywords)

    def eager(self, *, train: bool, key: Any = None) -> tuple[Any, Any]:
        params, state, x, keywords = jax.tree.map(jnp.asarray, (self.params, self.state, self.x, self.keywords))
        return self.layer.apply(params, state, x, key=key, train=train, **keywords)

    def compiled(self, *, train: bool, key: Any, layer: Any = None) -> tuple[Any, Any]:
        arguments = self.params, self.state, self.x, self.keywords, key
        return self.forward(*arguments, layer=layer or self.layer, train=train)

    def program(self, *, train: bool, copies: int = 1) -> str:
        """The jaxpr, with the whole input repeated along its leading axis."""
        x, keywords = jax.tree.map(lambda a: np.concatenate([a] * copies), (self.x, self.keywords))
        run = lambda *a: self.layer.apply(*a[:3], key=a[4], train=train, **a[3])  # noqa: E731
        return str(jax.make_jaxpr(run)(self.params, self.state, x, keywords, key(1)))

    @cached_property
    def evaluated(self) -> tuple[Any, Any]:
        return self.compiled(train=False, key=key(1))

    @cached_property
    def trained(self) -> tuple[Any, Any]:
        return self.compiled(train=True, key=key(1)) if True in self.modes else self.evaluated

    @cached_property
    def eagerly(self) -> tuple[Any, Any]:
        return self.eager(train=False)

    @cached_property
    def modes(self) -> tuple[bool, ...]:
        """The values of `train` that make a difference; `trained` is the result in the last of them."""
        return (False,) if self.program(train=False) == self.program(train=True) else (False, True)

    @cached_property
    def random(self) -> bool:
        """Whether training without a key is refused."""
        try:
            jax.eval_shape(lambda: self.eager(train=True))
        except fdl.InputError:
            return True
        return False


@cache
def case(row: Row) -> Case:
    return Case(row)


def key(seed: int) -> jax.Array:
    """A new key each time: no key is used twice."""
    return jax.random.key(seed)


def cast(tree: Any, dtype: Any) -> Any:
    """The floating-point arrays in `dtype`."""

    def one(leaf: np.ndarray) -> np.ndarray:
        return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf

    return jax.tree.map(one, tree)


def floating(tree: Any) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]


def dtypes(tree: Any) -> set[str]:
    return {str(leaf.dtype) for leaf in floating(tree)}


def same_bits(a: Any, b: Any) -> bool:
    same = jax.tree.map(lambda a, b: a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True), a, b)
    return all(jax.tree.leaves(same))


def assert_close(got: Any, want: Any, tolerance: float) -> None:
    """Equal structure, and leaves that differ by at most `tolerance` times the largest value."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1.0, float(np.abs(b).max(initial=0.0))))


#: What the eval of a record's repr needs to know.
MODULES = (importlib.import_module(f"fdl.nn.{module.name}") for module in pkgutil.iter_modules(nn.__path__))
NAMESPACE = {name: value for module in (*MODULES, initializers) for name, value in vars(module).items()} | {"jax": jax}


def rebuilt(layer: fdl.Layer) -> fdl.Layer:
    """An equal record that shares nothing with `layer`: what its repr says."""
    return eval(repr(layer), NAMESPACE)
