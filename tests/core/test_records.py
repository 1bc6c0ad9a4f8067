"""Records print as the source that makes them, and are values."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import fdl
from fdl import initializers, nn
from fdl.core import Layer
from fdl.records import source
from fdl.training.sums import reduce

NAMESPACE = {**vars(nn), **vars(initializers), "jax": jax, "fdl": fdl}


@dataclass(frozen=True)
class Options(Layer):
    size: int
    factor: float = 1.0
    names: tuple[str, ...] = ()
    items: tuple[int, ...] = field(default_factory=tuple)
    derived: int = field(init=False, default=3)
    rate: float = field(kw_only=True, default=0.5)
    must: int = field(kw_only=True)


class Sequence(nn.Serial):
    pass


@pytest.mark.parametrize(
    "text",
    [
        "Linear(3, 2)",
        "Linear(3, 2, use_bias=False, kernel_init=Normal(stddev=0.5))",
        "Linear(3, 2, kernel_init=HeNormal(in_axis=(0, 1)), axes=(None, 'mlp'))",
        "Linear(3, 2, kernel_init=TruncatedNormal(lower=0.0, upper=float('inf')))",
        "Serial(Linear(3, 2), jax.nn.relu, head=Linear(2, 1))",
        "Serial(Serial(Serial()), body=Residual(Serial(jax.nn.tanh), shortcut=Serial(Dropout(0.1))))",
        "Residual(Linear(3, 3))",
        "Parallel(jax.nn.gelu, jax.numpy.sin, jax.lax.rsqrt, combine='concat')",
        "Stack(Serial(LayerNorm(3, eps=1e-06), Dropout(0.1)), 3, remat=True)",
    ],
)
def test_repr_is_the_source(text: str):
    layer = eval(text, NAMESPACE)
    assert repr(layer) == text
    assert eval(repr(layer), NAMESPACE) == layer
    assert hash(eval(text, NAMESPACE)) == hash(layer)


def test_a_field_is_shown_where_its_value_or_type_is_not_the_default():
    assert repr(Options(2, must=1)) == "Options(2, must=1)"
    assert repr(Options(2, 1, ("a",), (1,), rate=0.1, must=1)) == (
        "Options(2, factor=1, names=('a',), items=(1,), rate=0.1, must=1)"
    )
    assert eval(repr(Options(2, must=1)), globals()) == Options(2, must=1)


def test_a_subclass_of_a_container_prints_like_it():
    assert repr(Sequence(nn.Linear(1, 2), last=jax.nn.relu)) == "Sequence(Linear(1, 2), last=jax.nn.relu)"


def test_functions_have_their_importable_names():
    assert source(jax.nn.silu) == "jax.nn.silu"
    assert source(jnp.tanh) in ("jax.nn.tanh", "jax.numpy.tanh")
    assert source(reduce) == "fdl.training.sums.reduce"
    assert source(abs) == "builtins.abs"


def test_a_lambda_has_no_name_but_prints():
    double: Any = lambda x: 2 * x  # noqa: E731
    assert "<lambda>" in repr(nn.Serial(double))
    assert nn.Serial(double) == nn.Serial(double)
    assert nn.Serial(double) != nn.Serial(lambda x: x)


def test_plain_values():
    pair: Any = namedtuple("pair", "a b")
    assert source((1,)) == "(1,)"
    assert source(()) == "()"
    assert source(("a", None, True, -0.5)) == "('a', None, True, -0.5)"
    assert source(pair(1, 2)) == "pair(a=1, b=2)"
    assert source(float("-inf")) == "float('-inf')"


def test_records_are_frozen_and_compare_by_value():
    layer = nn.Linear(3, 2)
    assert layer == nn.Linear(3, 2, True, initializers.LecunNormal())
    assert layer != nn.Linear(3, 2, kernel_init=initializers.HeNormal())
    assert nn.Serial(layer) != nn.Serial(a=layer)
    assert nn.Serial(layer) != Sequence(layer)
    with pytest.raises(AttributeError):
        layer.in_features = 4  # pyright: ignore[reportAttributeAccessIssue]
