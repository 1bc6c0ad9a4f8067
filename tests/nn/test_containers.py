"""Serial, Parallel and Residual: names, keywords, state, errors with a path."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import nn
from fdl.core import Layer
from fdl.records import short


@dataclass(frozen=True)
class Add(Layer):
    """Takes a keyword of its own."""

    def __call__(self, params, x, *, key=None, train=False, amount: Any = 0.0):
        return x + amount


@dataclass(frozen=True)
class Scale(Layer):
    """Has `apply` and takes two keywords, one of them that of `Add`."""

    def apply(self, params, state, x, *, key=None, train=False, amount: Any = 1.0, factor: Any = 1.0):
        return x * amount * factor, state


@dataclass(frozen=True)
class Chain(Layer):
    """A composite that passes on what it gets, with its children in a tuple."""

    steps: tuple[Layer, ...]

    def __call__(self, params, x, *, key=None, train=False, **keywords: Any):
        for step in self.steps:
            x = step(params, x, key=key, train=train, **keywords)
        return x


@dataclass(frozen=True)
class Draw(Layer):
    """Shows the key that reaches it."""

    def __call__(self, params, x, *, key=None, train=False):
        return x + jax.random.key_data(fdl.fold(key))[1].astype(x.dtype)


@dataclass(frozen=True)
class Count(Layer):
    """Running state that counts the calls in training."""

    def specs(self):
        return {"calls": fdl.Param((), fdl.initializers.Zeros(), (), kind="state")}

    def apply(self, params, state, x, *, key=None, train=False):
        return x, {"calls": state["calls"] + float(train)}


ONE = jnp.ones(())


def test_serial_is_composition():
    model = nn.Serial(jnp.cos, body=nn.Serial(jnp.exp, jnp.square), last=jnp.negative)
    assert float(model({}, jnp.asarray(0.5))) == pytest.approx(-(float(np.exp(np.cos(0.5))) ** 2))
    assert float(nn.Serial()({}, ONE)) == 1.0


def test_names_are_positions_or_as_given():
    model = nn.Serial(nn.Linear(1, 2), jax.nn.relu, nn.Linear(2, 3), head=nn.Linear(3, 4))
    params, _ = fdl.init(model, jax.random.key(0))
    assert {name: part["bias"].shape for name, part in params.items()} == {"0": (2,), "2": (3,), "head": (4,)}


@pytest.mark.parametrize("container", [nn.Serial, nn.Parallel])
def test_what_is_no_layer_or_has_no_possible_name_is_refused(container: Any):
    with pytest.raises(fdl.InputError, match="'1' must be a layer or a function, got 3"):
        container(jax.nn.relu, 3)
    with pytest.raises(fdl.InputError, match="'0' cannot be a name"):
        container(jax.nn.relu, **{"0": jax.nn.relu})
    with pytest.raises(fdl.InputError, match="'a/b' cannot be a name"):
        container(**{"a/b": jax.nn.relu})


def test_a_child_gets_the_key_of_its_name():
    def drawn(model: Layer, *names: str) -> bool:
        key = jax.random.key(3)
        got = float(model({}, jnp.zeros(()), key=key))
        return got == float(jax.random.key_data(fdl.fold(key, *names))[1].astype(jnp.float32))

    assert drawn(nn.Serial(Draw()), "0")
    assert drawn(nn.Serial(jnp.sin, jnp.sin, a=nn.Serial(b=Draw())), "a", "b")
    assert drawn(nn.Residual(Draw()), "block")
    assert drawn(nn.Parallel(jnp.sin, a=Draw()), "a")


def test_keywords_go_to_the_children_that_name_them():
    assert float(nn.Serial(Add(), jnp.negative, Scale())({}, ONE, amount=2.0)) == -6.0
    assert float(nn.Serial(Add(), Scale())({}, ONE, factor=5.0)) == 5.0
    nested = nn.Serial(nn.Serial(nn.Residual(Add())), chain=Chain((Add(), Add())))
    assert float(nested({}, ONE, amount=2.0)) == (1.0 + 3.0) + 2.0 + 2.0
    assert float(nn.Parallel(Add(), Scale())({}, ONE, amount=2.0)) == 3.0 + 2.0
    assert float(nn.Residual(Add(), Scale())({}, ONE, factor=3.0)) == 1.0 + 3.0


def test_a_mask_reaches_the_batch_norm_inside():
    model = nn.Serial(jax.nn.relu, body=nn.Residual(nn.BatchNorm(1)))
    params, state = fdl.init(model, jax.random.key(0))
    x, mask = jnp.array([[1.0], [3.0], [99.0]]), jnp.array([True, True, False])
    _, state = model.apply(params, state, x, train=True, mask=mask)
    assert float(state["body"]["block"]["mean"][0]) == pytest.approx(0.1 * 2.0)


@pytest.mark.parametrize(
    "model",
    [nn.Serial(Add(), jax.nn.relu), nn.Residual(Add()), nn.Parallel(Add()), nn.Serial(a=nn.Serial(Chain((Add(),))))],
)
def test_a_keyword_that_nobody_names_is_an_error_with_a_suggestion(model: Layer):
    with pytest.raises(fdl.InputError, match="takes the keyword 'amout'; did you mean 'amount'") as error:
        model({}, ONE, amout=1.0)
    assert short(model) in str(error.value)


def test_only_stateful_children_appear_in_the_state():
    model = nn.Serial(nn.Flatten(), a=Count(), b=nn.Residual(nn.Serial(Count(), jax.nn.relu), shortcut=nn.Flatten()))
    params, state = fdl.init(model, jax.random.key(0))
    assert state == {"a": {"calls": 0.0}, "b": {"block": {"0": {"calls": 0.0}}}}
    _, state = model.apply(params, state, jnp.ones((1, 1)), train=True)
    y, state = model.apply(params, state, jnp.ones((1, 1)), train=True)
    assert float(y[0, 0]) == 2.0
    assert state == {"a": {"calls": 2.0}, "b": {"block": {"0": {"calls": 2.0}}}}
    assert model.apply(params, state, jnp.ones((1, 1)))[1] == state


def test_residual_adds_the_shortcut():
    x = jnp.array([[1.0, 2.0]])
    assert nn.Residual(Add())({}, x, amount=1.0).tolist() == [[3.0, 5.0]]
    assert nn.Residual(Add(), Scale())({}, x, amount=2.0).tolist() == [[5.0, 8.0]]


@pytest.mark.parametrize("out", [1, 5])
def test_residual_refuses_to_broadcast(out: int):
    model = nn.Residual(nn.Linear(3, out))
    params, _ = fdl.init(model, jax.random.key(0))
    with pytest.raises(fdl.InputError, match=rf"block\(x\) has shape \[2, {out}\], the shortcut \[2, 3\]") as error:
        model(params, jnp.ones((2, 3)))
    assert "give a shortcut layer" in str(error.value)


def test_parallel_sums_or_joins():
    x = jnp.array([[1.0, 2.0]])
    assert nn.Parallel(jnp.negative, jnp.square)({}, x).tolist() == [[0.0, 2.0]]
    assert nn.Parallel(jnp.negative, jnp.square, combine="concat")({}, x).tolist() == [[-1.0, -2.0, 1.0, 4.0]]
    with pytest.raises(fdl.InputError, match="the terms of the sum have shapes"):
        nn.Parallel(jnp.square, lambda x: x[:, :1])({}, x)
    with pytest.raises(fdl.InputError, match='expected "sum" or "concat"'):
        nn.Parallel(jnp.square, combine="mean")  # pyright: ignore[reportArgumentType]
    with pytest.raises(fdl.InputError, match="at least one"):
        nn.Parallel()


@pytest.mark.parametrize(
    ("model", "path"),
    [
        (nn.Serial(nn.Flatten(), nn.Linear(3, 2)), "1"),
        (nn.Serial(head=nn.Serial(nn.Linear(3, 2))), "head/0"),
        (nn.Serial(a=nn.Residual(nn.Serial(b=nn.Linear(3, 2)))), "a/block/b"),
        (nn.Serial(a=nn.Residual(nn.Flatten(), shortcut=nn.Linear(3, 2))), "a/shortcut"),
        (nn.Parallel(nn.Flatten(), p=nn.Linear(3, 2)), "p"),
        (nn.Serial(a=nn.Stack(nn.Serial(nn.Linear(3, 3)), 2)), "a/block/0"),
    ],
)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "jit"])
def test_an_error_carries_the_path_of_the_layer_it_rose_from(model: Layer, path: str, compiled: bool):
    params, _ = fdl.init(model, jax.random.key(0))
    call = jax.jit(model) if compiled else model
    with pytest.raises(fdl.InputError, match=r"Linear\(3, .\): expected x of shape") as error:
        call(params, jnp.ones((2, 4)))
    assert [note for note in error.value.__notes__ if note.startswith("in layer")] == [f"in layer {path}"]


def test_any_error_carries_the_path():
    def broken(x: Any) -> Any:
        raise RuntimeError("not mine")

    with pytest.raises(RuntimeError, match="not mine") as error:
        nn.Serial(a=nn.Serial(jnp.sin, broken))({}, ONE)
    assert error.value.__notes__[0] == "in layer a/1"


def test_parts_have_their_names_in_the_program():
    """Profiles show them: the debug info of the lowered program holds scopes as paths."""
    model = nn.Serial(jnp.sin, encoder=nn.Residual(nn.Serial(jnp.cos, inner=nn.Linear(2, 2))))
    params, _ = fdl.init(model, jax.random.key(0))
    text = jax.jit(model).lower(params, jnp.ones((1, 2))).as_text(debug_info=True)
    for path in ("0/sin", "encoder/block/0/cos", "encoder/block/inner/dot_general", "encoder/add"):
        assert path in text, path


def test_a_program_has_the_names_after_compilation_too():
    model = nn.Serial(outer=nn.Serial(jnp.sin))
    compiled = jax.jit(model).lower({}, jnp.ones(3)).compile().as_text()
    assert compiled is not None
    assert "outer/0/sin" in compiled


@pytest.mark.parametrize(
    "container",
    [
        nn.Serial(),
        nn.Serial(nn.Linear(3, 2), head=nn.Linear(2, 1)),
        nn.Parallel(nn.Linear(3, 2), skip=nn.Linear(3, 2), combine="concat"),
        nn.Serial(items=nn.Linear(3, 2)),
        nn.StackedRNN(nn.LSTM(3, 2), head=nn.Linear(2, 1)),
        nn.Residual(nn.Serial(nn.Linear(3, 3))),
    ],
    ids=repr,
)
def test_dataclasses_replace_takes_containers(container):
    assert dataclasses.replace(container) == container
    assert type(dataclasses.replace(container)) is type(container)


def test_a_field_of_a_container_can_be_replaced():
    parallel = nn.Parallel(nn.Linear(3, 2), skip=nn.Linear(3, 2))
    assert dataclasses.replace(parallel, combine="concat") == nn.Parallel(
        nn.Linear(3, 2), skip=nn.Linear(3, 2), combine="concat"
    )
    assert dataclasses.replace(nn.Serial(nn.Linear(3, 2)), items=(("0", nn.Linear(3, 4)),)) == nn.Serial(
        nn.Linear(3, 4)
    )
    for wrong in ((nn.Linear(3, 4),), (("0", nn.Linear(3, 4)), ("0", nn.Linear(3, 4)))):
        with pytest.raises(fdl.InputError, match=r"items: expected \(name, layer\) pairs.*Serial\(\*layers\)"):
            dataclasses.replace(nn.Serial(nn.Linear(3, 2)), items=wrong)


def test_a_layer_of_a_container_is_asked_for_by_parts():
    model = nn.Serial(nn.Linear(3, 4), head=nn.Linear(4, 2))
    with pytest.raises(AttributeError, match=r"no attribute 'head'; the layer of that name is \.parts\(\)\['head'\]"):
        model.head  # pyright: ignore  # noqa: B018
    with pytest.raises(AttributeError, match="did you mean 'head'"):
        model.heat  # pyright: ignore  # noqa: B018
    with pytest.raises(TypeError, match=r"Serial is not indexed; its layers by name are \.parts\(\)"):
        model["0"]
    with pytest.raises(TypeError, match="is not indexed"):
        list(model)  # pyright: ignore
    assert copy.deepcopy(model) == model == pickle.loads(pickle.dumps(model))


def test_a_param_without_an_initializer_is_told_to_have_one():
    with pytest.raises(fdl.InputError, match="init: expected an initializer, such as initializers.Zeros"):
        fdl.Param((3, 2))
