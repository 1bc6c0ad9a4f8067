"""`fdl summary FILE`: figures that can be worked out by hand, for every kind of task."""

from __future__ import annotations

import gc
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl.cli import main
from fdl.commands.summary import table
from fdl.inspect.summary import summarize


def figures(text: str) -> dict[str, list[str]]:
    """The cells of each line, by the first of them."""
    return {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}


def test_the_model_of_an_experiment_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gc.collect()
    before = {id(array) for array in jax.live_arrays()}
    assert main(["summary", "toy.py", "--width", "5", "--batch-size", "16"]) == 0
    gc.collect()
    assert {id(array) for array in jax.live_arrays()} <= before
    shown = figures(capsys.readouterr().out)
    product = 2 * 16 * 5 * 2
    # Forward: a product and a bias. Backward: the kernel's gradient, a product of the same size, and the sum of the
    # bias's, (16 - 1) * 2 additions or nearly so.
    assert shown["total"][1:3] == [str(5 * 2 + 2), str(product + 16 * 2)]
    assert product + 15 * 2 <= int(shown["total"][3]) <= product + 17 * 2
    assert not (place / "runs").exists()


def test_the_way_back_of_a_product_is_two_products_and_one_without_the_gradient_of_x() -> None:
    layer = fdl.nn.Linear(64, 32, use_bias=False)
    model = fdl.nn.Serial(layer)
    shown = summarize(model, jax.ShapeDtypeStruct((10, 64), jnp.float32), {}, backward=True)
    product = 2 * 10 * 64 * 32
    assert (shown.rows[0].flops, shown.rows[0].backward) == (product, 2 * product)
    assert (shown.flops, shown.backward) == (product, product)
    assert fdl.summary(model, (10, 64)).backward is None


def test_integers_have_no_gradient() -> None:
    model = fdl.nn.Serial(fdl.nn.Embedding(7, 4), fdl.nn.Linear(4, 2))
    shown = summarize(model, jax.ShapeDtypeStruct((3, 5), jnp.int32), {}, backward=True)
    assert [row.params for row in shown.rows] == [28, 10]
    assert all(row.backward is not None and row.backward > 0 for row in shown.rows)


def experiment(task: fdl.Task) -> fdl.Experiment:
    data = fdl.data.Arrays(x=np.ones((6, 3), np.float32))
    return fdl.Experiment(task=task, optimizer=optax.sgd(0.1), train=data, batch_size=2, num_steps=1)


def init(key: jax.Array) -> tuple[dict[str, dict[str, jax.Array]], dict[str, jax.Array]]:
    return {"a": {"kernel": jnp.ones((3, 4))}}, {"mean": jnp.zeros(5)}


def test_an_objective_of_ones_own() -> None:
    def objective(params, state, batch, *, key, train):
        return fdl.Outcome((batch["x"] @ params["a"]["kernel"])[:, 0])

    shown = table(experiment(fdl.Task(init, objective)))
    assert figures(shown)["a/kernel"] == ["a/kernel", "[3,", "4]", "float32", "12"]
    assert "and 5 running statistics" in shown
    assert "x float32[2, 3]" in shown
    forward, backward = (int(word) for word in figures(shown)["FLOPs"] if word.isdigit())
    product = 2 * 2 * 3 * 4
    assert product <= forward <= product + 16, "a product, and the mean of two losses with the rest of their sum"
    assert product <= backward <= product + 10, "a product, and what scales the losses"


def test_a_task_with_a_step_of_its_own() -> None:
    def step(params, state, opt_state, batch, *, key, optimizer):
        return jax.tree.map(lambda p: p + 1.0, params), state, opt_state, {}

    shown = table(experiment(fdl.Task(init, step=step)))
    assert "FLOPs of one step: 12\n" in shown


def test_data_that_a_task_makes_itself() -> None:
    def objective(params, state, batch, *, key, train):
        return fdl.Outcome(params["a"]["kernel"][0])

    own = fdl.Experiment(task=fdl.Task(init, objective), optimizer=optax.sgd(0.1), num_steps=1)
    assert "one batch: without arrays" in table(own)


def test_a_stream_and_named_inputs() -> None:
    stream = fdl.data.Stream(lambda step: {"x": np.ones((4, 5, 3), np.float32), "n": np.full(4, 5, np.int32),
                                           "y": np.zeros(4, np.int32)})  # fmt: skip
    model = fdl.nn.Serial(rnn=fdl.nn.RNN(3, 4), head=fdl.nn.Linear(4, 2))
    task = fdl.supervised(model, lambda y, _: y.sum((-1, -2)), inputs=("x", {"lengths": "n"}))
    shown = table(fdl.Experiment(task=task, optimizer=optax.sgd(0.1), train=stream, num_steps=1))
    assert figures(shown)["head"][:2] == ["head", "Linear(4,"]
    assert "n int32[4]" in shown


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["summary"], "which experiment? fdl summary FILE"),
        (["summary", "toyy.py"], "did you mean 'toy.py'"),
        (["summary", "toy.py", "--widht", "3"], "--width"),
        (["summary", "toy.py", "--seed", "3"], "--seed"),
        (["summmary", "toy.py"], "did you mean 'summary'"),
    ],
)
def test_bad_usage(place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str) -> None:
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert "Traceback" not in message


def test_help(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "--help"]) == 0
    assert "usage: fdl summary FILE" in capsys.readouterr().out
    assert main(["summary", "toy.py", "--help"]) == 0
    assert "--width INT" in capsys.readouterr().out
