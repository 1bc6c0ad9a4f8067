"""Laws of what a layer declares: records, specs, initial values."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import pytest

import fdl
from fdl import initializers, nn
from fdl.core import Layer, Param, leaves
from tests.laws.case import case, dtypes, key, rebuilt, same_bits
from tests.laws.table import ROWS, Row, every_row

CONSTANT = (initializers.Zeros, initializers.Ones, initializers.Constant)


def test_every_public_layer_has_a_row():
    public = [layer for layer in vars(nn).values() if isinstance(layer, type) and issubclass(layer, Layer)]
    assert [layer.__name__ for layer in public if not any(isinstance(row.layer, layer) for row in ROWS)] == []
    assert len({row.id for row in ROWS}) == len(ROWS)


@every_row
def test_repr_is_source_and_equal_records_hash_equal(row: Row):
    copy = rebuilt(row.layer)
    assert copy is not row.layer
    assert copy == row.layer
    assert hash(copy) == hash(row.layer)


@every_row
def test_every_spec_names_its_axes(row: Row):
    for path, spec in leaves(row.layer.specs()):
        assert isinstance(spec, Param), path
        assert spec.axes is not None, path
        assert len(spec.axes) == len(spec.shape), path
        assert spec.kind in ("param", "state"), path


@every_row
def test_abstract_is_init_without_arrays(row: Row):
    shaped = lambda tree: jax.tree.map(lambda a: (a.shape, a.dtype), tree)  # noqa: E731
    assert shaped((case(row).params, case(row).state)) == shaped(fdl.abstract(row.layer))


@every_row
def test_params_have_the_dtype_asked_for_and_state_is_float32(row: Row):
    params, state = fdl.abstract(row.layer, jnp.bfloat16)
    assert dtypes(params) <= {"bfloat16"}
    assert dtypes(state) <= {"float32"}


@every_row
def test_a_leaf_is_a_function_of_the_key_and_its_path(row: Row):
    """Whatever stands beside it, and also when its part is initialised by hand."""
    alone = fdl.init(row.layer, fdl.fold(key(0), "it"))
    for parent in (nn.Serial(it=row.layer), nn.Serial(nn.Linear(1, 1), it=row.layer, last=nn.Linear(1, 1))):
        params, state = fdl.init(parent, key(0))
        assert same_bits((params["it"], state.get("it", {})), alone)
    for name, part in row.layer.parts().items():
        if isinstance(part, Layer) and name in row.layer.specs():
            by_hand = fdl.init(part, fdl.fold(key(0), name))[0]
            assert same_bits(case(row).params[name], by_hand)


@every_row
def test_another_key_gives_other_initial_values(row: Row):
    specs = dict(leaves(row.layer.specs()))
    other = fdl.init(row.layer, key(2))
    for first, second in zip((case(row).params, case(row).state), other, strict=True):
        second = dict(leaves(second))
        for path, leaf in leaves(first):
            assert same_bits(leaf, second[path]) == isinstance(specs[path].init, CONSTANT), path


@every_row
def test_check_names_every_wrong_path(row: Row):
    params, state = case(row).params, case(row).state
    fdl.check(row.layer, params, state)
    for tree, other in ((params, state), (state, params)):
        paths = list(leaves(tree))
        if not paths:
            continue
        (missing, leaf), (misshapen, _) = paths[0], paths[-1]
        wrong = {path: leaf for path, leaf in paths if path != missing} | {"no/such": leaf}
        if misshapen != missing:
            wrong[misshapen] = jnp.zeros((7, 7, 7))
        broken = nested(wrong)
        with pytest.raises(fdl.InputError) as error:
            fdl.check(row.layer, *((broken, other) if tree is params else (other, broken)))
        lines = str(error.value).splitlines()[1:]
        assert [line[:4] + line[4:].split(":")[0] for line in lines] == [
            f"  - {missing}",
            "  + no/such",
            *([f"  ! {misshapen}"] if misshapen != missing else []),
        ]


def nested(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        branch = tree
        for parent in parents:
            branch = branch.setdefault(parent, {})
        branch[name] = leaf
    return tree
