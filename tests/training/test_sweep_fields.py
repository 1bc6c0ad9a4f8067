"""A sweep takes every field that a run takes, in Python as on the command line, and each value once."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, Optional

import jax
import numpy as np
import optax
import pytest

import fdl
from fdl.commands.values import values
from fdl.training.members import expand

X = np.random.default_rng(0).normal(size=(16, 2)).astype(np.float32)
DATA = fdl.data.Arrays(x=X, y=X[:, :1])


class Kind(enum.Enum):
    A = "a"
    B = "b"


@dataclass(frozen=True)
class Decay:
    rate: float = 0.0


@dataclass(frozen=True)
class Optim:
    learning_rate: float = 0.1
    betas: tuple[float, float] = (0.9, 0.999)
    decay: Decay = field(default_factory=Decay)


@dataclass(frozen=True)
class Config:
    rate: float = 0.1
    optim: Optim = field(default_factory=Optim)
    clip: Optional[float] = None  # noqa: UP045, as people write it
    limit: int | None = 3
    kind: Kind = Kind.A
    sizes: tuple[int, ...] = (4,)
    names: list[str] = field(default_factory=list)
    data: Path = Path("a")
    fast: bool = False
    mode: Literal["x", "y", 3] = "x"
    note: str = "n"
    num_steps: int = 4


def build(config: Config) -> fdl.Experiment:
    sizes = (2, *config.sizes, 1)
    task = fdl.supervised(fdl.nn.Serial(*map(fdl.nn.Linear, sizes, sizes[1:])), fdl.losses.squared_error)
    descent = optax.sgd(config.rate * config.optim.learning_rate * (2.0 if config.kind is Kind.B else 1.0))
    if config.clip is not None:
        descent = optax.chain(optax.clip_by_global_norm(config.clip), descent)
    return fdl.Experiment(task, descent, DATA, num_steps=config.num_steps)


FIELDS: dict[str, tuple[str, list[Any], int]] = {  # field -> as typed, as values, programs
    "rate": ("1e-3,1e-2", [1e-3, 1e-2], 1),
    "optim.learning_rate": ("1e-3, 1e-2", [1e-3, 1e-2], 1),
    "optim.decay.rate": ("0,0.5", [0.0, 0.5], 1),
    "optim.betas": ("(0.9,0.99),0.8 0.9", [(0.9, 0.99), (0.8, 0.9)], 2),
    "clip": ("none,1.0,2", [None, 1.0, 2.0], 2),
    "limit": ("None,4", [None, 4], 2),
    "kind": ("A,Kind.B", [Kind.A, Kind.B], 2),
    "sizes": ("(4,),(8,4),()", [(4,), (8, 4), ()], 3),
    "names": ("[a,b],c", [["a", "b"], ["c"]], 2),
    "data": ("a,b/c", [Path("a"), Path("b/c")], 2),
    "fast": ("true,False", [True, False], 2),
    "mode": ("y,3", ["y", 3], 2),
    "note": ("'a,b',c", ["a,b", "c"], 2),
}


@pytest.mark.parametrize("name", FIELDS)
def test_a_field_is_typed_as_python_spells_it(name):
    typed, spelled, _ = FIELDS[name]
    over = values(Config(), [f"{name.replace('_', '-')}={typed}"])
    assert repr(over) == repr({name: spelled})  # 3 is not 3.0
    assert [repr(setting[name]) for setting in expand(Config(), over)] == [*map(repr, spelled)]


@pytest.mark.slow
@pytest.mark.parametrize("name", FIELDS)
def test_a_member_is_its_solo_run(name, tmp_path):
    _, spelled, programs = FIELDS[name]
    result = fdl.sweep(build, Config(), {name: spelled}, folder=tmp_path / "sweep")
    assert result.compiles == programs
    assert [setting[name] for setting in result.settings] == spelled
    for number, config in enumerate(result.configs):
        np.testing.assert_allclose(
            result.member(number).history["train/loss"], fdl.run(build, config).history["train/loss"], rtol=1e-5
        )
    assert json.loads((tmp_path / "sweep" / "manifest.json").read_text())["status"] == "finished"


def test_nested_floats_are_arguments_of_one_program():
    over = {"optim.learning_rate": [0.1, 0.2], "optim.decay.rate": [0.0, 0.1], "rate": [0.1, 0.3]}
    result = fdl.sweep(build, Config(), over)
    assert (len(result), result.compiles) == (8, 1)
    assert result.configs[-1] == replace(Config(), rate=0.3, optim=Optim(0.2, decay=Decay(0.1)))


@pytest.mark.parametrize("low", [1e-4, 3e-7, 0.1, 7.0])
@pytest.mark.parametrize("factor", [10.0, 1e3, 3.0, 1.1])
def test_ranges_begin_and_end_exactly_where_they_say(low, factor):
    high = float(f"{low * factor:.3g}")
    for scale in ("log", "lin"):
        for count in (2, 3, 8):
            found = values(Config(), [f"rate={scale}:{low}..{high}:{count}"])["rate"]
            assert (len(found), found[0], found[-1]) == (count, low, high)
            assert found == sorted(found)
    assert values(Config(), [f"clip=log:{low}..{high}:2"]) == {"clip": [low, high]}  # of an optional float, too


REFUSED: dict[str, tuple[Any, str]] = {
    "repeated": ({"rate": [1e-3, 0.001]}, r"rate: 0\.001 is given twice; more seeds"),
    "repeated as int": ({"rate": [1, 1.0]}, r"1\.0 is given twice"),
    "repeated setting": ([{"rate": 1.0, "note": "a"}, {"note": "a", "rate": 1}], "is given twice"),
    "nested typo": ({"optim.learning_rat": [0.1]}, r"did you mean 'optim\.learning_rate'"),
    "part of a float": ({"rate.x": [0.1]}, "no field 'rate.x'"),
    "text for an enum": ({"kind": ["A"]}, r"expected one of Kind\.A, Kind\.B"),
    "text for an optional": ({"clip": ["1"]}, r"expected a float or None, got '1'"),
    "too many": ({"optim.betas": [(0.1, 0.2, 0.3)]}, "optim.betas: expected .*tuple"),
    "no literal": ({"mode": ["z"]}, "expected one of 'x', 'y', 3"),
    "infinite": ({"clip": [float("inf")]}, "finite"),
    "a set": ({"rate": {0.1, 0.2}}, "expected a list of values"),
    "text": ("rate", "expected {field: values}"),
    "one number": ({"rate": 0.1}, "expected a list of values"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_values_that_cannot_be_meant_are_refused(case):
    over, message = REFUSED[case]
    with pytest.raises(fdl.InputError, match=message):
        fdl.sweep(build, Config(), over)


def test_a_number_cannot_tell():
    with pytest.raises(fdl.InputError, match=r"sweep: tell: expected a function \(line\) -> None, got 3"):
        fdl.sweep(build, Config(), tell=3)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": []}, "at least one seed"),
        ({"seeds": 8}, r"range\(8\)"),
        ({"seeds": [0, 1, 0]}, "got 0 twice"),
        ({"seeds": [0, -1]}, "got -1 at place 1"),
        ({"seeds": [0.5]}, r"got 0\.5 at place 0"),
        ({"seeds": [True]}, "got True"),
        ({"seeds": "01"}, "seeds: expected"),
        ({"devices": []}, "empty list"),
        ({"devices": 2}, "devices: expected a list of JAX devices"),
        ({"devices": "cpu"}, "devices: expected a list of JAX devices"),
        ({"devices": ["cpu"]}, "got 'cpu' in it"),
        ({"devices": [jax.devices()[0]] * 2}, "twice"),
        ({"max_members": 0}, "max_members: expected a whole number >= 1"),
        ({"max_members": 2.0}, "max_members"),
        ({"chunk": 0}, "chunk: expected a whole number >= 1"),
        ({"chunk": "all"}, "chunk"),
        ({"hooks": print}, "hooks: expected a list of functions"),
        ({"halving": 1}, "halving: expected a whole number >= 2"),
    ],
)
def test_what_else_cannot_be_meant_is_refused(options, message):
    with pytest.raises(fdl.InputError, match=message):
        fdl.sweep(build, Config(), {"rate": [0.1]}, **options)


@pytest.mark.parametrize("text", ["(1e-3", "learning rate", "=", "rate=", "optim=1", "kind=C", "fast=1", "sizes=(a,)"])
def test_typed_values_that_cannot_be_meant_are_refused(text):
    with pytest.raises(fdl.InputError, match="fdl sweep: --over"):
        values(Config(), [text])


def test_random_settings_are_all_different():
    over = {"kind": [Kind.A, Kind.B], "note": ["a", "b"]}
    drawn = fdl.random_settings(over, 4)
    assert len({repr(each) for each in drawn}) == 4
    assert fdl.random_settings(over, 2) == drawn[:2]
    with pytest.raises(fdl.InputError, match="4 different settings"):
        fdl.random_settings(over, 5)
