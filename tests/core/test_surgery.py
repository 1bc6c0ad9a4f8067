"""`fdl.edit`: the record with one part exchanged."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import pytest

import fdl
from fdl import nn
from fdl.core import Layer
from fdl.records import flat


@dataclass(frozen=True)
class Net(Layer):
    blocks: tuple[Layer, ...]
    head: Layer


MODEL = nn.Serial(
    nn.Linear(2, 4),
    jax.nn.relu,
    net=Net((nn.Linear(4, 4), nn.Residual(nn.Serial(inner=nn.Linear(4, 4, use_bias=False)))), nn.Linear(4, 3)),
)


@pytest.mark.parametrize(
    ("path", "old"),
    [
        ("0", "Linear(2, 4)"),
        ("1", "jax.nn.relu"),
        ("net/blocks/0", "Linear(4, 4)"),
        ("net/blocks/1", "Residual(Serial(inner=Linear(4, 4, use_bias=False)))"),
        ("net/blocks/1/block/inner", "Linear(4, 4, use_bias=False)"),
        ("net/head", "Linear(4, 3)"),
        ("net", repr(MODEL.parts()["net"])),
    ],
)
def test_the_part_at_the_path_is_replaced_and_nothing_else(path: str, old: str):
    before = flat(repr(MODEL))
    assert before.count(old) == 1
    assert flat(repr(fdl.edit(MODEL, path, nn.Flatten()))) == before.replace(old, "Flatten()")
    assert flat(repr(MODEL)) == before


def test_a_function_gets_the_old_part():
    wider = fdl.edit(MODEL, "net/head", lambda head: nn.Linear(head.in_features, 5))
    assert wider.parts()["net"].head == nn.Linear(4, 5)
    grown = fdl.edit(MODEL, "net/blocks", lambda blocks: (*blocks, nn.Flatten()))
    assert len(grown.parts()["net"].blocks) == 3
    other = fdl.edit(MODEL, "1", lambda _: jax.nn.gelu)
    assert other.parts()["1"] is jax.nn.gelu


def test_the_options_of_a_container_survive():
    both = nn.Parallel(nn.Linear(2, 2), skip=nn.Linear(2, 2), combine="concat")
    assert repr(fdl.edit(both, "skip", nn.Flatten())) == "Parallel(Linear(2, 2), skip=Flatten(), combine='concat')"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("ned", r"no part 'ned' of Serial\(.*path 'ned'.*did you mean 'net'"),
        ("net/heat", r"no part 'heat' of Net\(.*path 'net/heat'.*did you mean 'head'"),
        ("net/blocks/2", r"no part '2' of \(Linear.*valid: 0, 1"),
        ("0/kernel", "no part 'kernel' of Linear"),
        ("1/x", "no part 'x' of"),
        ("", "no part ''"),
    ],
)
def test_a_wrong_path_is_an_error_that_names_the_nearest(path: str, message: str):
    with pytest.raises(fdl.InputError, match=message):
        fdl.edit(MODEL, path, nn.Flatten())


def test_a_part_that_may_be_missing_is_left_out_by_none_and_given_back():
    residual = nn.Residual(nn.Linear(3, 3), nn.Linear(3, 3))
    assert fdl.edit(residual, "shortcut", None) == nn.Residual(nn.Linear(3, 3))
    assert fdl.edit(nn.Residual(nn.Linear(3, 3)), "shortcut", nn.Linear(3, 3)) == residual
    decoder = fdl.models.llama(9, num_layers=1, num_heads=1, features=2, hidden_features=2)
    tied = fdl.edit(decoder, "head", None)
    assert "head" not in fdl.abstract(tied)[0]
    assert fdl.edit(tied, "head", nn.Linear(2, 9)).parts()["head"] == nn.Linear(2, 9)


@pytest.mark.parametrize(
    ("layer", "path", "new", "message"),
    [
        (nn.Serial(nn.Linear(3, 3)), "0", None, r"'0' cannot be None.*Serial has no place.*fdl.nn.Serial\(\) passes x"),
        (nn.Residual(nn.Linear(3, 3)), "block", None, "'block' cannot be None"),
        (nn.Stack(nn.Linear(3, 3), 2), "block", None, "'block' cannot be None"),
        (nn.Serial(nn.Linear(3, 3)), "0", lambda old: None, "'0' cannot be None"),
        (nn.Serial(nn.Linear(3, 3)), "0", 3, "expected a layer, a function of the old part or None, got 3"),
        (nn.Serial(nn.Linear(3, 3)), "0", lambda old: 3, "expected the new part to be a layer or a function, got 3"),
        (nn.Serial(nn.LayerNorm(4)), "0/scale", nn.Linear(3, 3), "'scale' holds arrays of the layer"),
        (nn.Attention(4, 2), "window", nn.Linear(3, 3), "Attention: window: expected"),
    ],
)
def test_what_cannot_be_a_part_is_refused_in_words(layer, path, new, message):
    with pytest.raises(fdl.InputError, match=message):
        fdl.edit(layer, path, new)
