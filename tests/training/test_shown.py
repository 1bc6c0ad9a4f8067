"""What an interactive session shows of results, datasets, experiments and models: a few lines, never the arrays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import optax
import pytest

import fdl
from fdl import nn
from fdl.data import Arrays, Full, Stream, Windows
from fdl.records import SHORT, WIDTH, short

DATA = Arrays(x=np.ones((64, 3), np.float32), y=np.zeros(64, np.int32))
DEEP = nn.Serial(*[nn.Residual(nn.Serial(nn.Linear(300, 300), jax.nn.relu, nn.Linear(300, 300))) for _ in range(40)])


@dataclass(frozen=True)
class Config:
    learning_rate: float = 0.1


def build(config: Config) -> fdl.Experiment:
    task = fdl.supervised(nn.Linear(3, 2), fdl.losses.softmax_cross_entropy, {"accuracy": fdl.metrics.accuracy})
    return fdl.Experiment(task, optax.sgd(config.learning_rate), DATA, num_steps=3, evaluate={"val": DATA})


def ensemble() -> fdl.Ensemble:
    swept = fdl.sweep(build, Config(), seeds=[0, 1])
    return fdl.Ensemble.of(swept, lambda params, state, x: x)


SHOWN: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "a result": (
        lambda: fdl.run(build(Config())),
        ["Result after 3 steps:\n", "\n  metrics: ", "val/accuracy", "\n  params: 8 numbers in 2 arrays"],
    ),
    "a sweep": (
        lambda: fdl.sweep(build, Config(), over={"learning_rate": [0.1, 0.2]}, seeds=[0, 1]),
        ["SweepResult of 4 members:\n", "\n  swept: learning_rate", "\n  train/loss: ", "\n  failed: 0 members"],
    ),
    "an ensemble": (ensemble, ["Ensemble of 2 members:\n", "\n  params: 16 numbers in 2 arrays"]),
    "an experiment": (
        lambda: build(Config()),
        ["Experiment:\n", "\n  task: Task(objective=Supervised(Linear(3, 2)", "\n  num_steps: 3"],
    ),
    "examples": (lambda: DATA, ["Arrays of 64 examples:\n  x: float32[64, 3]\n  y: int32[64]"]),
    "some of them": (lambda: DATA.take([3, 4]), ["Arrays of 2 examples:\n  x: float32[2, 3]\n  y: int32[2]"]),
    "many entries": (
        lambda: Arrays(**{f"entry{number}": np.ones(4, np.float32) for number in range(500)}),
        ["\n  entry0: float32[4]", "\n  ... and 488 more"],
    ),
    "one batch": (lambda: Full(x=np.ones((3, 2), np.float32)), ["Full:\n  x: float32[3, 2]"]),
    "windows": (lambda: Windows(np.arange(100), 10), ["Windows of 9 examples:\n  series: int32[100]"]),
    "a stream": (lambda: Stream(lambda step: {}), ["Stream of batches:\n  batch_at: <function"]),
    "a deep model": (
        lambda: DEEP,
        ["Serial(\n    Residual(Serial(Linear(300, 300), jax.nn.relu, Linear(300, 300))),\n"],
    ),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_repr_is_a_few_indented_lines(name: str):
    make, parts = SHOWN[name]
    value = make()
    text = repr(value)
    for part in parts:
        assert part in text
    assert len(text.splitlines()) <= 45
    assert len(short(value)) <= SHORT
    assert "\n" not in short(value)


def test_a_long_model_is_still_its_source():
    text = repr(DEEP)
    assert max(map(len, text.splitlines())) <= WIDTH
    assert eval(text, {**vars(nn), "jax": jax}) == DEEP


def test_an_error_has_the_model_in_short():
    model = nn.Residual(DEEP, shortcut=nn.Linear(300, 2))
    params, _ = fdl.abstract(model)
    with pytest.raises(fdl.InputError, match=r"Residual\(Serial\(\.\.\.\)") as caught:
        jax.eval_shape(model, params, np.ones((1, 300), np.float32))
    assert len(str(caught.value)) < 2 * SHORT
