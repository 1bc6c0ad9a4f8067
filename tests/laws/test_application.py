"""Laws of the forward pass."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import nn
from fdl.records import short
from tests.laws.case import assert_close, case, cast, dtypes, floating, key, rebuilt, same_bits
from tests.laws.table import ROWS, Row, every_row, over


@every_row
def test_jit_is_eager(row: Row):
    it = case(row)
    assert_close(it.evaluated, it.eagerly, 2e-6)
    if True in it.modes:
        assert_close(it.trained, it.eager(train=True, key=key(1)), 2e-6)


@every_row
def test_an_equal_record_is_not_traced_again(row: Row):
    it = case(row)
    first, traces = it.evaluated, it.traces
    again = it.compiled(train=False, key=key(1), layer=rebuilt(row.layer))
    assert it.traces == traces
    assert same_bits(again, first)


@every_row
def test_golden(row: Row):
    it = case(row)
    y, _ = it.evaluated
    if row.oracle is not None:
        assert_close(y, row.oracle(*cast((it.params, it.x), np.float64)), 2e-6)
    got = sum(np.abs(np.asarray(leaf, np.float64)).sum() for leaf in floating(y))
    assert row.golden is not None, f"golden={got:.6g}"
    assert got == pytest.approx(row.golden, rel=1e-5)


@every_row
def test_vmap_is_a_loop(row: Row):
    it = case(row)
    inputs = it.x, it.keywords
    flipped = jax.tree.map(lambda a: np.ascontiguousarray(a[::-1]), inputs)
    both = jax.tree.map(lambda a, b: np.stack([a, b]), inputs, flipped)
    one = lambda params, state, inputs: row.layer.apply(params, state, inputs[0], **inputs[1])[0]  # noqa: E731
    many = jax.jit(jax.vmap(one, in_axes=(None, None, 0)))
    second = it.forward(it.params, it.state, *flipped, key(1), layer=row.layer, train=False)[0]
    want = jax.tree.map(lambda a, b: np.stack([a, b]), it.evaluated[0], second)
    assert_close(many(it.params, it.state, both), want, 2e-6)


@over(row for row in ROWS if row.batched)
def test_an_example_is_evaluated_alone(row: Row):
    """The first example gives the same in a batch of its copies. The batch axis of y is its first of size 4."""
    it = case(row)
    copies = jax.tree.map(lambda a: np.broadcast_to(a[:1], a.shape), (it.x, it.keywords))
    got = it.forward(it.params, it.state, *copies, key(1), layer=row.layer, train=False)[0]
    first = lambda y: jax.tree.map(lambda a: np.take(np.asarray(a), 0, axis=a.shape.index(4)), y)  # noqa: E731
    assert_close(first(got), first(it.evaluated[0]), 2e-6)


@every_row
def test_bfloat16_in_is_bfloat16_out(row: Row):
    """And near the float32 result; state stays float32."""
    it = case(row)
    params, x, keywords = cast((it.params, it.x, it.keywords), jnp.bfloat16)
    for train in it.modes:
        forward = partial(it.forward, layer=row.layer, train=train)
        y, state = jax.eval_shape(forward, params, it.state, x, keywords, key(1))
        assert dtypes(y) <= {"bfloat16"}
        assert dtypes(state) <= {"float32"}
    got = it.forward(params, it.state, x, keywords, key(1), layer=row.layer, train=it.modes[-1])
    assert_close(got, it.trained, 0.05)


@every_row
def test_float32_stays_float32_where_float64_is_enabled(row: Row):
    it = case(row)
    for train in it.modes:
        with jax.enable_x64(True):
            results = jax.eval_shape(lambda train=train: it.eager(train=train, key=key(1)))
        assert dtypes(results) <= {"float32"}


@every_row
def test_state_changes_in_training_only(row: Row):
    it = case(row)
    before = jax.tree.structure(it.state)
    assert same_bits(it.evaluated[1], it.state)
    assert same_bits(it.eagerly[1], it.state)
    assert jax.tree.structure(it.trained[1]) == before
    assert jax.tree.structure(it.state) == before, "the caller's dict was written to"
    for old, new in zip(jax.tree.leaves(it.state), jax.tree.leaves(it.trained[1]), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
        assert not same_bits(old, new)


@every_row
def test_a_layer_is_called_directly_unless_it_has_state(row: Row):
    it = case(row)
    call = lambda params, x, keywords: row.layer(params, x, **keywords)  # noqa: E731
    if it.state:
        with pytest.raises(fdl.InputError) as error:
            call(it.params, it.x, it.keywords)
        assert short(row.layer) in str(error.value)
    else:
        y, _ = it.evaluated
        assert jax.eval_shape(call, it.params, it.x, it.keywords) == jax.eval_shape(lambda: y)


@every_row
def test_the_key_matters_where_it_is_demanded(row: Row):
    """A random layer refuses to train without a key and follows it; any other ignores it, as all do in evaluation."""
    it = case(row)
    assert same_bits(it.compiled(train=False, key=key(2)), it.evaluated)
    if True in it.modes:
        assert same_bits(it.compiled(train=True, key=key(1)), it.trained)
        assert same_bits(it.compiled(train=True, key=key(2)), it.trained) != it.random
    if it.random:
        with pytest.raises(fdl.InputError, match="key="):
            it.eager(train=True)


@over(row for row in ROWS if not row.any_shape)
def test_a_wrong_shape_is_refused_by_name(row: Row):
    it = case(row)
    with pytest.raises(fdl.InputError) as error:
        row.layer.apply(it.params, it.state, row.wrong_x, key=key(1), train=True, **it.keywords)
    path = where(error.value)
    assert path or short(row.layer) in str(error.value)
    model = nn.Serial(body=row.layer)
    with pytest.raises(fdl.InputError) as error:
        model.apply({"body": it.params}, {"body": it.state}, row.wrong_x, key=key(1), train=True, **it.keywords)
    assert where(error.value) == ["/".join(["in layer body", *(note.removeprefix("in layer ") for note in path)])]


def where(error: Exception) -> list[str]:
    return [note for note in getattr(error, "__notes__", []) if note.startswith("in layer")]


@every_row
def test_the_program_does_not_grow_with_the_batch(row: Row):
    """No Python loop over examples; and no float64 in it, and no key but the one it is given."""
    once = case(row).program(train=True)
    if row.batched:
        assert once.count(" = ") == case(row).program(train=True, copies=3).count(" = ")
    assert "f64" not in once
    assert "random_seed" not in once
