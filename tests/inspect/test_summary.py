"""The table of a model, and the taps it is made with."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import nn
from fdl.inspect import attach


@dataclass(frozen=True)
class Tower(fdl.Layer):
    """A composite with a tuple of layers, one of them used twice."""

    layers: tuple[nn.Linear, ...]
    norm: nn.BatchNorm

    def apply(self, params, state, x, *, key=None, train=False):
        for name, layer in zip(("0", "1", "1"), (*self.layers, self.layers[1]), strict=True):
            x = layer(params["layers"][name], x)
        y, new = self.norm.apply(params["norm"], state["norm"], x, train=train)
        return y, {"norm": new}


TOWER = Tower((nn.Linear(3, 4), nn.Linear(4, 4, use_bias=False)), nn.BatchNorm(4))


def test_a_row_for_each_use_and_shared_parameters_counted_once():
    table = fdl.summary(nn.Serial(TOWER, head=nn.Linear(4, 2)), (5, 3))
    assert [row.path for row in table.rows] == ["0/layers/0", "0/layers/1", "0/layers/1", "0/norm", "head"]
    assert [row.params for row in table.rows] == [16, 16, 16, 8, 10]
    assert table.params == 16 + 16 + 8 + 10
    assert table.state == 8
    assert table.rows[-1].output == "[5, 2]"


def test_flops_of_a_matrix_product_are_two_a_multiply_add():
    table = fdl.summary(nn.Linear(64, 32, use_bias=False), (10, 64))
    assert table.flops == 2 * 10 * 64 * 32


def test_the_text_is_a_table_and_nothing_is_allocated():
    huge = nn.Serial(nn.Linear(10**6, 10**6))  # four terabytes
    text = str(fdl.summary(huge, jax.ShapeDtypeStruct((1, 10**6), "float32")))
    assert "1,000,001,000,000" in text
    assert len({len(line) for line in text.splitlines()[:3]}) == 1


def test_a_wrong_shape_names_the_layer():
    with pytest.raises(fdl.InputError) as error:
        fdl.summary(nn.Serial(nn.Linear(3, 4), head=nn.Linear(5, 2)), (1, 3))
    assert "Linear(5, 2)" in str(error.value)
    assert "in layer head" in error.value.__notes__


@pytest.mark.parametrize("shapes", [(), (3,), ("a",), ((1, -1),)])
def test_a_shape_is_needed(shapes):
    with pytest.raises(fdl.InputError, match="shape"):
        fdl.summary(nn.Linear(3, 4), *shapes)


def test_a_tapped_model_computes_the_same_bits_from_the_same_params():
    params, state = fdl.init(TOWER, jax.random.key(0))
    seen: dict[str, np.ndarray] = {}
    tapped = attach(TOWER, lambda path, layer, inputs, y: seen.__setitem__(path, np.asarray(y)))
    x = jnp.linspace(-1.0, 1.0, 15).reshape(5, 3)
    for got, want in zip(
        tapped.apply(params, state, x, train=True), TOWER.apply(params, state, x, train=True), strict=True
    ):
        jax.tree.map(np.testing.assert_array_equal, got, want)
    assert list(seen) == ["layers/0", "layers/1", "norm", ""]
    np.testing.assert_array_equal(seen["layers/0"], TOWER.layers[0](params["layers"]["0"], x))
    fdl.check(tapped, params, state)


def test_a_tapped_layer_takes_the_keywords_of_the_layer_inside():
    model = nn.Serial(rnn=nn.RNN(3, 4), head=nn.Linear(4, 2))
    params, _ = fdl.init(model, jax.random.key(0))
    tapped = attach(model, lambda path, layer, inputs, y: None)
    x, lengths = jnp.ones((2, 5, 3)), jnp.array([5, 2])
    np.testing.assert_array_equal(tapped(params, x, lengths=lengths), model(params, x, lengths=lengths))


def test_a_model_of_graphs_takes_its_keywords():
    """The second layer's work: 5 nodes, 4 -> 2 features, and the propagation along 12 edges and 5 self-loops."""
    model = nn.Serial(nn.GCN(3, 4), jax.nn.relu, nn.GCN(4, 2))
    edges = jax.ShapeDtypeStruct((2, 12), "int32")
    table = fdl.summary(model, (5, 3), edges=edges)
    assert [(row.path, row.output, row.params) for row in table.rows] == [("0", "[5, 4]", 16), ("2", "[5, 2]", 10)]
    assert table.rows[1].flops >= 2 * 5 * 4 * 2 + 17 * 2
    with pytest.raises(fdl.InputError, match="edgs"):
        fdl.summary(model, (5, 3), edgs=edges)
