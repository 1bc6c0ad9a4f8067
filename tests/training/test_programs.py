# pyright: reportArgumentType=false, reportOptionalMemberAccess=false
"""What the compiled programs are made of: one executable, donated state, data as arguments, one sort an epoch."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

import fdl
from fdl import nn
from fdl.training.compiling import compiled_quickly
from fdl.training.programs import init_carry, make_chunk
from fdl.training.recipe import Recipe
from tests.training.test_run import arrays, assert_same_bits, experiment

NO = np.bool_(False)  # the run has not stopped


def compiled_chunk(capacity: int = 16):
    ex = experiment()
    key = jax.random.key(0)
    carry = init_carry(Recipe(ex), key, {})
    chunk, names = make_chunk(Recipe(ex), carry, capacity)
    lowered = jax.jit(chunk, donate_argnums=0).lower(carry, ex.dataset.arrays, key, {}, np.int32(0), np.int32(1), NO)
    return ex, carry, chunk, names, lowered


@pytest.mark.parametrize("layer", [nn.Linear(64, 32), nn.Conv(3, 8, 3), nn.LSTM(8, 16), nn.Embedding(20, 8)], ids=str)
def test_initial_values_compiled_quickly_are_the_same_bits(layer):
    init, key = jax.jit(lambda key: fdl.init(layer, key)), jax.random.key(0)
    assert_same_bits(compiled_quickly(init.lower(key))(key), init(key))


def test_donation_aliases_exactly_the_bytes_of_the_state():
    _, carry, _, _, lowered = compiled_chunk()
    analysis = lowered.compile().memory_analysis()
    assert analysis.alias_size_in_bytes == sum(leaf.nbytes for leaf in jax.tree.leaves(carry))


def test_data_is_an_argument_never_a_constant():
    """Other data of the same shapes: the same program, to the letter."""
    texts = []
    for seed in (0, 5):
        ex, key = experiment(train=arrays(seed=seed)), jax.random.key(0)
        carry = init_carry(Recipe(ex), key, {})
        chunk, _ = make_chunk(Recipe(ex), carry, 16)
        program = jax.jit(chunk).lower(carry, ex.dataset.arrays, key, {}, np.int32(0), np.int32(1), NO)
        texts.append(program.as_text())
    assert texts[0] == texts[1]


def test_the_permutation_is_sorted_only_in_the_first_step_of_an_epoch():
    ex, carry, chunk, _, _ = compiled_chunk()
    jaxpr = jax.make_jaxpr(chunk)(carry, ex.dataset.arrays, jax.random.key(0), {}, np.int32(0), np.int32(1), NO)
    sorts = list(_primitives(jaxpr.jaxpr, inside_cond=False))
    assert ("sort", True) in sorts
    assert ("sort", False) not in sorts


def test_full_batches_have_no_order_to_choose():
    ex, key = experiment(batch_size=None), jax.random.key(0)
    carry = init_carry(Recipe(ex), key, {})
    chunk, _ = make_chunk(Recipe(ex), carry, 16)
    jaxpr = jax.make_jaxpr(chunk)(carry, ex.dataset.arrays, key, {}, np.int32(0), np.int32(1), NO)
    assert "cond" not in dict(_primitives(jaxpr.jaxpr, inside_cond=False))


def _primitives(jaxpr, inside_cond):
    for equation in jaxpr.eqns:
        yield equation.primitive.name, inside_cond
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _primitives(inner, inside_cond or equation.primitive.name == "cond")


def test_one_executable_serves_every_count():
    """A chunk of 5 and then 11 is a chunk of 16, by the same compiled program."""
    ex, carry, _, names, lowered = compiled_chunk()
    program, arrays, key = lowered.compile(), jax.device_put(ex.dataset.arrays), jax.random.key(0)
    copy = jax.tree.map(lambda x: x.copy(), carry)
    whole, history = program(carry, arrays, key, {}, np.int32(0), np.int32(16), NO)
    first, a = program(copy, arrays, key, {}, np.int32(0), np.int32(5), NO)
    both, b = program(first, arrays, key, {}, np.int32(5), np.int32(11), NO)
    np.testing.assert_array_equal(history, np.concatenate([a[:5], b[:11]]))
    jax.tree.map(np.testing.assert_array_equal, whole, both)
    assert names == ["accuracy", "loss"]


def test_an_objective_is_traced_once_for_its_rehearsal_and_once_for_each_program():
    """Python is a large part of the time to the first step."""
    calls = []
    ex = experiment()

    def objective(*arguments: Any, train: bool, **options: Any) -> Any:
        calls.append(train)
        inner: Any = ex.task.objective
        return inner(*arguments, train=train, **options)

    task = dataclasses.replace(ex.task, objective=objective)
    fdl.run(dataclasses.replace(ex, task=task, evaluate={"test": ex.dataset}, select="test/loss"))
    assert sorted(calls) == [False, False, True, True]
