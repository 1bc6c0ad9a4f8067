"""Keys, specs, initial values and the protocol of a layer."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import nn
from fdl.core import Copies, Layer, Param, leaves
from fdl.initializers import LecunNormal, Zeros


@dataclass(frozen=True)
class Blocks(Layer):
    """A composite by hand: a sub-layer, a tuple of them, hyper-parameters."""

    blocks: tuple[Layer, ...]
    head: Layer
    width: int = 3
    sizes: tuple[int, ...] = (1, 2)

    def __call__(self, params, x, *, key=None, train=False):
        for i, block in enumerate(self.blocks):
            x = block(params["blocks"][str(i)], x, key=fdl.fold(key, "blocks", i), train=train)
        return self.head(params["head"], x)


def data(key: jax.Array) -> list[int]:
    return np.asarray(jax.random.key_data(key)).tolist()


def test_fold_of_no_key_is_no_key():
    assert fdl.fold(None, "a", 1) is None


def test_fold_goes_name_by_name():
    key = jax.random.key(0)
    assert data(fdl.fold(key)) == data(key)
    assert data(fdl.fold(key, "a", "b", 3)) == data(fdl.fold(fdl.fold(fdl.fold(key, "a"), "b"), 3))
    assert len({str(data(fdl.fold(key, *names))) for names in (["a"], ["b"], ["a", "b"], ["b", "a"], [0], ["0"])}) == 6


def test_fold_is_pinned_to_crc32_and_fold_in():
    """Initial values of saved runs depend on it. 0xE8B7BE43 is the published CRC-32 of the letter a."""
    key = jax.random.key(7)
    assert data(fdl.fold(key, "a")) == data(jax.random.fold_in(key, 0xE8B7BE43))
    assert data(fdl.fold(key, 5)) == data(jax.random.fold_in(key, 5))
    assert data(jax.jit(lambda i: fdl.fold(key, i))(5)) == data(fdl.fold(key, 5))


def test_a_layer_that_computes_nothing_says_so():
    class Nothing(Layer):
        pass

    with pytest.raises(NotImplementedError, match="Nothing defines neither __call__ nor apply"):
        Nothing()({}, jnp.ones(3))


def test_apply_lifts_a_stateless_call_and_hands_the_state_back():
    state = {"untouched": jnp.ones(1)}
    params = {"kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}
    y, new = nn.Linear(1, 1).apply(params, state, jnp.ones(1))
    assert y.tolist() == [2.0]
    assert new is state


def test_a_container_of_stateless_layers_may_be_called():
    model = nn.Serial(nn.Linear(2, 3), jax.nn.relu)
    params, state = fdl.init(model, jax.random.key(0))
    assert state == {}
    np.testing.assert_array_equal(model(params, jnp.ones((1, 2))), model.apply(params, {}, jnp.ones((1, 2)))[0])


def test_params_have_an_entry_for_every_layer_and_state_only_where_there_is_some():
    model = nn.Serial(nn.Flatten(), jax.nn.relu, nn.Serial(nn.Dropout(0.5)), norm=nn.Residual(nn.BatchNorm(2)))
    params, state = fdl.init(model, jax.random.key(0))
    assert params["0"] == {}
    assert params["2"] == {"0": {}}
    assert "1" not in params
    assert list(params["norm"]["block"]) == ["scale", "bias"]
    assert list(state) == ["norm"]
    assert list(state["norm"]["block"]) == ["mean", "var"]


def test_parts_and_specs_of_a_composite_follow_its_fields():
    model = Blocks((nn.Linear(3, 3), nn.LayerNorm(3)), nn.Linear(3, 1))
    assert list(model.parts()) == ["blocks", "head"]
    paths = [path for path, _ in leaves(model.specs())]
    assert paths == [
        *("blocks/0/kernel", "blocks/0/bias", "blocks/1/scale", "blocks/1/bias"),
        *("head/kernel", "head/bias"),
    ]
    params, _ = fdl.init(model, jax.random.key(0))
    by_hand, _ = fdl.init(nn.Linear(3, 3), fdl.fold(jax.random.key(0), "blocks", "0"))
    np.testing.assert_array_equal(params["blocks"]["0"]["kernel"], by_hand["kernel"])
    assert model(params, jnp.ones((2, 3))).shape == (2, 1)


def test_a_layer_without_fields_needs_no_decorator():
    class Double(Layer):
        def __call__(self, params, x):
            return 2 * x

    model = nn.Serial(Double(), nn.Linear(2, 2))
    assert repr(model) == "Serial(Double(), Linear(2, 2))"
    params, _ = fdl.init(model, jax.random.key(0))
    np.testing.assert_array_equal(model(params, jnp.ones((1, 2))), nn.Linear(2, 2)(params["1"], jnp.full((1, 2), 2.0)))


def test_copies_are_initialised_one_by_one():
    """Each of 50 copies has LeCun's variance 1 / 200; given the stacked shape it would be 50 times smaller."""
    one = {"a": {"kernel": Param((200, 30), LecunNormal(), ("embed", "mlp"))}, "bias": Param((3,), Zeros())}
    specs = Copies(one, 50, "layers")
    assert specs["a"]["kernel"].axes == ("layers", "embed", "mlp")
    assert specs["bias"].axes == ("layers", None)

    class Many(Layer):
        def specs(self):
            return specs

    class One(Layer):
        def specs(self):
            return one

    params, state = fdl.init(Many(), jax.random.key(0))
    assert state == {}
    assert float(params["a"]["kernel"].std()) == pytest.approx(200**-0.5, rel=0.01)
    third, _ = fdl.init(One(), fdl.fold(jax.random.key(0), 3))
    np.testing.assert_array_equal(params["a"]["kernel"][3], third["a"]["kernel"])


def test_abstract_allocates_nothing():
    params, _ = fdl.abstract(nn.Linear(10**6, 10**6))  # four terabytes
    assert params["kernel"].shape == (10**6, 10**6)


def test_param_is_a_value():
    one, same = (Param((2, 3), LecunNormal(), ("embed", "mlp")) for _ in range(2))
    assert one == same
    assert hash(one) == hash(same)
    assert one != Param((2, 3), LecunNormal(in_axis=0), ("embed", "mlp"))


def test_check_prints_one_table_of_all_that_is_wrong():
    model = nn.Serial(body=nn.Linear(2, 3), norm=nn.BatchNorm(3))
    params, state = fdl.init(model, jax.random.key(0))
    wrong = {"body": {"kernel": jnp.ones((3, 2)), "bias": params["body"]["bias"]}, "norm": jnp.ones(3)}
    with pytest.raises(fdl.InputError) as error:
        fdl.check(model, wrong, {"norm": {"mean": state["norm"]["mean"]}})
    assert str(error.value).splitlines() == [
        "the arrays do not fit the model:",
        "  - norm/bias: missing, expected (3,)",
        "  - norm/scale: missing, expected (3,)",
        "  + norm: unexpected, got (3,)",
        "  ! body/kernel: expected (2, 3), got (3, 2)",
        "  - norm/var: missing, expected (3,)",
    ]


def test_check_leaves_the_state_alone_unless_it_is_given():
    model = nn.BatchNorm(3)
    params, _ = fdl.init(model, jax.random.key(0))
    fdl.check(model, params)
    with pytest.raises(fdl.InputError, match="- mean: missing"):
        fdl.check(model, params, {})
