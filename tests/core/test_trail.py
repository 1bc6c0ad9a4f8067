# pyright: reportAttributeAccessIssue=false
"""An error inside a layer says which one, and what went before, wherever it rises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import fdl
from fdl import nn, trail

X = jnp.ones((32, 784))


@dataclass(frozen=True)
class Own(fdl.Layer):
    """A composite by hand, which knows nothing of paths."""

    first: fdl.Layer
    second: fdl.Layer

    def __call__(self, params, x, *, key=None, train=False):
        return self.second(params["second"], self.first(params["first"], x))


@dataclass(frozen=True)
class Broken(fdl.Layer):
    """`error`, as soon as it is called; while traced only, with `traced`."""

    error: Any

    def __call__(self, params, x, *, key=None, train=False):
        raise self.error


def notes(model: fdl.Layer, x: Any = X, compiled: bool = False, params: Any = None) -> tuple[Exception, list[str]]:
    params = fdl.init(model, jax.random.key(0))[0] if params is None else params
    with pytest.raises(Exception) as caught:  # noqa: PT011
        (jax.jit(model) if compiled else model)(params, x)
    return caught.value, [note for note in caught.value.__notes__ if "JAX_TRACEBACK" not in note]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_the_path_and_the_shapes_before(compiled: bool):
    model = nn.Serial(
        encoder=nn.Serial(nn.Linear(784, 785), jax.nn.relu), head=nn.Residual(Own(nn.LayerNorm(785), nn.Linear(784, 9)))
    )
    error, said = notes(model, compiled=compiled)
    assert str(error) == "Linear(784, 9): expected x of shape [..., in_features=784], got float32[32, 785]"
    assert said == [
        "in layer head/block/second",
        "shapes up to there:\n"
        "  encoder/0          Linear(784, 785)  float32[32, 784] -> float32[32, 785]\n"
        "  encoder/1          jax.nn.relu       float32[32, 785] -> float32[32, 785]\n"
        "  head/block/first   LayerNorm(785)    float32[32, 785] -> float32[32, 785]\n"
        "  head/block/second  Linear(784, 9)    float32[32, 785] -> error",
    ]


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (nn.Parallel(nn.Linear(784, 3), p=Own(nn.Linear(784, 784), nn.Linear(3, 2))), "p/second"),
        (nn.Serial(a=nn.Stack(Own(nn.Linear(784, 784), nn.Linear(783, 784)), 2)), "a/block/second"),
        (nn.Serial(a=nn.Ensemble(Own(nn.Linear(784, 7), nn.Linear(8, 784)), 2)), "a/member/second"),
        (nn.Remat(Own(nn.Linear(784, 7), nn.Linear(8, 784))), "block/second"),
        (Own(Own(nn.Linear(784, 7), nn.Linear(8, 7)), nn.Linear(7, 7)), "first/second"),
    ],
)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_any_container_and_any_composite(model: fdl.Layer, path: str, compiled: bool):
    error, said = notes(model, compiled=compiled)
    assert isinstance(error, fdl.InputError)
    assert said[0] == f"in layer {path}"
    assert said[1].splitlines()[-1].endswith("-> error")
    assert len(said) == 2


def test_missing_parameters_are_located():
    model = nn.Serial(a=Own(nn.Linear(784, 3), nn.Linear(3, 2)))
    params, _ = fdl.init(model, jax.random.key(0))
    del params["a"]["second"]["kernel"]
    error, said = notes(model, params=params)
    assert isinstance(error, KeyError)
    assert said[0] == "in layer a/second"
    assert "a/first" in said[1]


def test_errors_of_the_users_code_are_located():
    model = Own(nn.Serial(jnp.sin, lambda x: x.reshape(7, 7)), nn.Linear(7, 7))
    error, said = notes(model)
    assert type(error) is TypeError
    assert said[0] == "in layer first/1"
    error, said = notes(Own(nn.Linear(784, 2), Broken(ZeroDivisionError("mine"))))
    assert isinstance(error, ZeroDivisionError)
    assert said[0] == "in layer second"


def test_what_depends_on_values_is_located():
    """Ids are only seen where they are concrete: the call that is made again gets the very same."""
    model = Own(nn.Serial(nn.Embedding(9, 4)), nn.Linear(4, 2))
    error, said = notes(model, jnp.array([[3, 9]]))
    assert "9" in str(error)
    assert said[0] == "in layer first/0"


def test_a_long_table_keeps_its_end():
    model = nn.Serial(*[nn.LayerNorm(784) for _ in range(30)], nn.Linear(3, 2))
    lines = notes(model)[1][1].splitlines()
    assert lines[:2] == ["shapes up to there:", "  and 21 more before them"]
    assert len(lines) == 2 + trail.LINES
    assert lines[-1].split()[0] == "30"


def test_a_layer_by_itself_says_all_in_its_message():
    params, _ = fdl.init(nn.Linear(3, 2), jax.random.key(0))
    with pytest.raises(fdl.InputError) as caught:
        nn.Linear(3, 2)(params, X)
    assert not hasattr(caught.value, "__notes__")


@pytest.mark.parametrize("error", [MemoryError("full"), jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")])
def test_what_would_be_no_better_a_second_time_is_not_tried_again(error: Exception, monkeypatch):
    monkeypatch.setattr(trail, "_explain", lambda *_: pytest.fail("called again"))
    with pytest.raises(type(error)):
        Own(nn.Flatten(), Broken(error))({"first": {}, "second": {}}, X)


def test_an_error_that_does_not_come_back_is_left_as_it_is():
    calls: list[int] = []

    def once(x: jax.Array) -> jax.Array:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("the first time")
        return x

    with pytest.raises(RuntimeError, match="the first time") as caught:
        nn.Serial(a=nn.Serial(once))({"a": {}}, X)
    assert caught.value.__notes__ == ["in layer a/0"]  # what the containers know
    assert len(calls) == 2


def test_the_program_is_the_same():
    model = nn.Serial(nn.Linear(784, 8), nn.Stack(nn.Residual(nn.LayerNorm(8)), 2), head=nn.Linear(8, 2))
    params, _ = fdl.init(model, jax.random.key(0))

    def text() -> str:
        return jax.jit(lambda params, x: model(params, x)).lower(params, X).as_text()

    with_notes = text()
    token = trail._inside.set(True)  # without
    try:
        assert text() == with_notes
    finally:
        trail._inside.reset(token)
