"""Statistics: sums over examples that add up to the same figure whatever the batch size, and go on counting.

A float32 sum of ones stops at 2**24 = 16,777,216. A statistic keeps the part of each sum that float32 has no digits for
beside it, as `rest`, so that counts are exact to 2**48, without float64.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer

from fdl.errors import InputError
from fdl.shapes import check_range

Pair = tuple[jax.Array, jax.Array]
"""A sum, and the rest that its dtype has no digits for."""
BLOCK = 4096
"""How many values are added up in float32 alone."""


class Statistic:
    """A record of sums, a pytree, that is a metric of an experiment as it is: `merge` and `numbers` are all it takes.

    A subclass is a registered dataclass of arrays that ends with `rest: tuple[jax.Array, ...] = ()`. All of them 0 is
    the statistic of no example.
    """

    rest: tuple[jax.Array, ...]

    def __post_init__(self) -> None:
        if not self.rest:
            object.__setattr__(self, "rest", tuple(jnp.zeros_like(value) for value in self._sums()))

    def merge(self, other: Self) -> Self:
        """The statistic of the examples of both."""
        pairs = [add(mine, its) for mine, its in zip(self._pairs(), other._pairs(), strict=True)]
        return type(self)(*(total for total, _ in pairs), tuple(rest for _, rest in pairs))  # pyright: ignore

    def scaled(self, weight: jax.Array) -> Self:
        """The statistic with every example counted `weight` times."""
        return jax.tree.map(lambda value: value * weight.astype(value.dtype), self)

    def numbers(self) -> dict[str, jax.Array]:
        """What the statistic says, as scalars by name: an experiment's metric "conf" then gives "conf/accuracy"."""
        raise NotImplementedError

    def _sums(self) -> list[Any]:
        return [getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "rest"]  # pyright: ignore

    def _pairs(self) -> list[Pair]:
        return list(zip(self._sums(), self.rest, strict=True))


def add(one: Pair, other: Pair) -> Pair:
    """The sum of two pairs; the same bits as plain addition where that has digits enough.

    The error of a floating-point sum is a floating-point number: Knuth, TAOCP 2, section 4.2.2, theorem B.
    """
    (a, a_rest), (b, b_rest) = one, other
    total = a + b
    part = total - a
    rest = (a - (total - part)) + (b - part) + a_rest + b_rest
    rest = jnp.where(jnp.isfinite(total), rest, 0)
    high = total + rest
    return high, jnp.where(jnp.isfinite(high), rest - (high - total), 0)


def scatter_sum(index: jax.Array, values: jax.Array, size: int) -> Pair:
    """[size], the sum of the float32 values [N] that have each index [N] in 0 .. size - 1."""
    block = max(BLOCK, min(size, 2**22))
    zeros = jnp.zeros(size, jnp.float32)
    if len(index) <= block:
        return zeros.at[index].add(values), zeros
    padding = (0, -len(index) % block)
    blocks = jnp.pad(index, padding).reshape(-1, block), jnp.pad(values, padding).reshape(-1, block)

    def body(total: Pair, rows: Pair) -> tuple[Pair, None]:
        return add(total, (zeros.at[rows[0]].add(rows[1]), zeros)), None

    return lax.scan(body, (zeros, zeros), blocks)[0]


def weights(name: str, weight: Any, **arrays: Any) -> jax.Array:
    """The weight of each element as float32, ones for None; NaN where a traced one is negative or infinite.

    Raises:
      InputError: shapes that differ; complex numbers; a concrete weight that is negative, infinite or NaN.
    """
    shapes = {what: list(jnp.shape(array)) for what, array in arrays.items()}
    for what, array in arrays.items():
        if jnp.iscomplexobj(array):
            raise InputError(f"{name}: {what}: expected real numbers, got {jnp.result_type(array)}")
    if weight is not None:
        shapes["weight"] = list(jnp.shape(weight))
    if len({tuple(shape) for shape in shapes.values()}) > 1:
        spelled = ", ".join(f"{what} {shape}" for what, shape in shapes.items())
        raise InputError(f"{name}: {' and '.join(shapes)} must have the same shape; they differ in shape: {spelled}")
    if weight is None:
        return jnp.ones(next(iter(shapes.values())), jnp.float32)
    return valid_weight(name, weight).astype(jnp.float32)


def valid_weight(name: str, weight: Any) -> jax.Array:
    """The weight, NaN where a traced one is negative or infinite.

    Raises:
      InputError: a concrete weight that is negative, infinite or NaN, and its index.
    """
    check_range(name, "weight", weight, 0, math.inf)
    weight = jnp.asarray(weight)
    if not jnp.issubdtype(weight.dtype, jnp.inexact):
        weight = weight.astype(jnp.float32)
    return jnp.where((weight >= 0) & (weight < jnp.inf), weight, jnp.nan)


def ratio(part: jax.Array, whole: jax.Array, of_nothing: float = math.nan) -> jax.Array:
    """part / whole, and `of_nothing` where the whole is 0."""
    return jnp.where(whole == 0, of_nothing, part / jnp.where(whole == 0, 1.0, whole))


def concrete(*arrays: Any) -> bool:
    """Whether the values of all of them can be looked at."""
    return not any(isinstance(array, Tracer) for array in arrays)
