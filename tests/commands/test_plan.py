"""`fdl plan FILE`: its bytes are those that a run puts on the device, and nothing is put there to know them."""

from __future__ import annotations

import dataclasses
import gc
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
import pytest

import fdl
from fdl.cli import main
from fdl.commands import planning
from fdl.commands.plan import fit
from fdl.commands.planning import Fit, Plan, largest_batch, plan
from fdl.training.programs import init_carry
from fdl.training.recipe import Recipe


def experiment(features: int = 3, hidden: int = 4, norm: Any = jax.nn.relu, **options: Any) -> fdl.Experiment:
    x = np.zeros((64, features), np.float32)
    data = fdl.data.Arrays(x=x, y=np.zeros(64, np.int32))
    model = fdl.nn.Serial(fdl.nn.Linear(features, hidden), norm, head=fdl.nn.Linear(hidden, 2))
    task = fdl.supervised(model, fdl.losses.softmax_cross_entropy)
    chosen = {"train": data, "evaluate": {"val": data.head(10)}, "batch_size": 8, "num_steps": 4} | options
    return fdl.Experiment(task=task, optimizer=optax.adam(0.1), **chosen)


def live() -> dict[int, jax.Array]:
    gc.collect()
    return {id(array): array for array in jax.live_arrays()}


def test_what_is_kept_is_what_a_run_keeps_to_the_byte() -> None:
    ex = experiment()
    planned = plan(Recipe(ex))
    before = live()
    placed: list[int] = []

    def look(event: fdl.Event) -> None:
        placed.extend(array.nbytes for number, array in live().items() if number not in before)

    result = fdl.run(ex, hooks=[look], chunk=4)
    key_and_history = 8 + 4 * 4 * sum(name.startswith("train/") for name in result.history)
    kept = sum(placed)
    assert 0 <= kept - sum(planned.kept.values()) <= key_and_history
    assert planned.kept["data"] == 64 * (3 + 1) * 4 + 10 * 4, "both sets share their arrays; one has rows"
    noted = {program.name: program.flops for program in result.programs}
    assert {program.name: program.flops for program in planned.programs if program.name in noted} == noted


def test_a_selection_keeps_another_copy_of_what_it_returns() -> None:
    ex = experiment(norm=fdl.nn.BatchNorm(4), select="val/loss", eval_params=lambda params, opt_state: params["head"])
    carry = jax.eval_shape(partial(init_carry, Recipe(ex)), jax.random.key(0), {})
    head, statistics = 4 * (4 * 2 + 2), 4 * 2 * 4
    assert planning._kept(ex, carry, 0)["best so far (select)"] == head + statistics


def test_nothing_is_allocated() -> None:
    """Parameters of 37 GB, and as much again twice for Adam."""
    before = live()
    planned = plan(Recipe(experiment(hidden=10**9 * 4 // 3, evaluate={})))
    assert live().keys() <= before.keys()
    assert planned.kept["optimizer state"] == 2 * planned.kept["parameters"] + 4
    assert planned.most > 100 * 2**30


def test_gradients_and_activations_are_among_the_temporaries() -> None:
    small, large = (plan(Recipe(experiment(256, 512, batch_size=b, evaluate={}))).temporaries["chunk"] for b in (8, 64))
    assert small >= 256 * 512 * 4, "the gradient of the largest kernel"
    assert large - small >= (64 - 8) * 512 * 4, "the activations of the examples more"


def test_a_stream_and_a_task_without_data() -> None:
    stream = fdl.data.Stream(lambda step: {"x": np.ones((4, 3), np.float32), "y": np.zeros(4, np.int32)})
    ex = experiment(train=stream, batch_size=None, evaluate={})
    assert plan(Recipe(ex)).kept["data"] == (2 + 2) * 4 * 4 * (3 + 1) * 4, "four chunks of four steps"
    with pytest.raises(fdl.InputError, match="Stream, which has no batch size"):
        planning.examples(ex)


class Law:
    """Instead of compiling: bytes as a function of the batch, and the sizes that were asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, bytes_of: Any) -> None:
        self.bytes_of, self.asked = bytes_of, []
        monkeypatch.setattr(planning, "plan", self)

    def __call__(self, recipe: Recipe) -> Plan:
        ex = recipe.experiment
        self.asked.append(ex.batch_size)
        return Plan({}, {"chunk": int(self.bytes_of(ex.batch_size))}, (), "")


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (100, None),
        (110, Fit(1, 110, False, 2)),
        (345, Fit(24, 340, False, 25)),
        (500, Fit(40, 500, False, 41)),
        (739, Fit(63, 730, False, 64)),
        (740, Fit(64, 740, True, None)),
        (10**9, Fit(64, 740, True, None)),
    ],
)
@pytest.mark.parametrize("start", [1, 8, 64])
def test_the_search_is_exact_and_short(
    monkeypatch: pytest.MonkeyPatch, limit: int, expected: Fit | None, start: int
) -> None:
    law = Law(monkeypatch, lambda batch: 100 + 10 * batch)
    ex = Recipe(experiment(batch_size=start))
    first = law(ex)
    assert largest_batch(ex, limit, first) == expected
    assert len(law.asked) <= 5
    assert len(set(law.asked)) == len(law.asked)


@pytest.mark.parametrize("bend", [lambda b: 100 + b * b, lambda b: 100 + 64 * (b // 16), lambda b: 100 + 50 * b**0.5])
def test_a_search_along_a_curve_ends_with_what_fits(monkeypatch: pytest.MonkeyPatch, bend: Any) -> None:
    law = Law(monkeypatch, bend)
    ex = Recipe(experiment())
    found = largest_batch(ex, 300, law(ex))
    assert found is not None
    assert found.bytes == int(bend(found.batch)) <= 300
    assert found.beyond is None or int(bend(found.beyond)) > 300
    assert len(law.asked) <= planning.TRIES


def test_micro_batches_stay_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    law = Law(monkeypatch, lambda batch: 100 + 10 * batch)
    ex = Recipe(dataclasses.replace(experiment(), accumulate=4))
    assert largest_batch(ex, 355, law(ex)) == Fit(24, 340, False, 28)
    assert all(batch % 4 == 0 for batch in law.asked)


def test_the_command(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = live()
    assert main(["plan", "toy.py", "--memory", "1GiB", "--batch-size", "64"]) == 0
    assert live().keys() <= before.keys()
    shown = capsys.readouterr().out
    rows = {line.split("  ")[0]: line.split() for line in shown.splitlines() if line}
    assert rows["parameters"][1] == str(4 * (3 * 2 + 2))
    assert rows["optimizer state"][2] == str(2 * 4 * (3 * 2 + 2) + 4)
    assert int(rows["chunk"][1].replace(",", "")) > 3 * 2 * 64 * 3 * 2, "three products of matrices"
    assert "1GiB: a batch of 64 fits (" in shown
    assert shown.endswith(", all examples\n")
    assert not (place / "runs").exists()


def test_the_answer_says_what_is_known() -> None:
    assert fit(None, 4) == "not even a batch of 4 fits"
    assert fit(Fit(8, 1024, False, 12), 4) == "a batch of 8 fits (1 KiB), one of 12 does not"
    assert fit(Fit(8, 1024, True, None), 4) == "a batch of 8 fits (1 KiB), all examples"
    assert fit(Fit(8, 1024, False, None), 4) == "a batch of 8 fits (1 KiB), a larger one may"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["plan"], "which experiment? fdl plan FILE"),
        (["plan", "toy.py", "--memry", "1GiB"], "--memory"),
        (["plan", "toy.py", "--memory", "16iB"], "--memory: expected a size such as 16GiB"),
        (["plan", "toy.py", "--memory", "0"], "--memory: expected a size such as 16GiB"),
        (["plan", "toy.py", "--batch-size", "65"], "batch_size 65 is larger than the 64 examples"),
    ],
)
def test_bad_usage(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str) -> None:
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert "Traceback" not in message
