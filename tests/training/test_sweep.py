# pyright: reportArgumentType=false
"""Members of a sweep follow their solo runs; what cannot share a program is told apart, and told."""

from __future__ import annotations

import csv
import subprocess
import sys
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl import nn
from tests.training.test_run import N, arrays, assert_same_bits


@dataclass(frozen=True)
class Config:
    learning_rate: float = 1e-2
    dropout: float = 0.3
    smoothing: float = 0.0
    decay: float = 0.0
    hidden: int = 8
    noise: float = 0.0
    patience: int = 0
    steps: int = 37


def build(config: Config) -> fdl.Experiment:
    layers = nn.Linear(5, config.hidden, use_bias=False), nn.BatchNorm(config.hidden), jax.nn.relu
    model = nn.Serial(*layers, nn.Dropout(config.dropout), head=nn.Linear(config.hidden, 2))

    def loss(logits, labels):
        return fdl.losses.softmax_cross_entropy(logits, labels, label_smoothing=config.smoothing)

    return fdl.Experiment(
        fdl.supervised(model, loss, {"accuracy": fdl.metrics.accuracy}),
        optax.adamw(config.learning_rate, weight_decay=config.decay),
        arrays(),
        {"test": arrays(31, seed=1)},
        batch_size=10,
        num_steps=config.steps,
        eval_every=9,
        select="test/loss" if config.patience else None,
        patience=config.patience or None,
    )


def assert_follows(member: fdl.Result, solo: fdl.Result) -> None:
    """train/loss within 1e-5 for the first 100 steps: vmap takes sums in another order, nothing else."""
    np.testing.assert_array_equal(member.steps["train/loss"], solo.steps["train/loss"])
    np.testing.assert_allclose(member.history["train/loss"], solo.history["train/loss"], rtol=1e-5)
    assert member.metrics["test/loss"] == pytest.approx(solo.metrics["test/loss"], rel=1e-4)
    for a, b in zip(*map(jax.tree.leaves, ((member.params, member.state), (solo.params, solo.state))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-4)


OVER = {"learning_rate": [1e-3, 1e-2], "dropout": [0.0, 0.5], "smoothing": [0.0, 0.1], "decay": [0.0, 0.1]}


@pytest.fixture(scope="module")
def swept() -> fdl.SweepResult:
    return fdl.sweep(build, Config(), over=OVER, seeds=[0, 3])


def test_all_floats_share_one_program(swept):
    assert swept.compiles == 1
    assert len(swept) == 32
    assert swept.history["train/loss"].shape == (32, 37)
    np.testing.assert_array_equal(swept.steps["test/loss"], [9, 18, 27, 36, 37])


@pytest.mark.parametrize("number", [0, 13, 30])
def test_a_member_is_its_solo_run(swept, number):
    solo = fdl.run(build, swept.configs[number], seed=swept.seeds[number])
    assert_follows(swept.member(number), solo)


def test_order_and_random_numbers_are_those_of_the_solo_run_to_the_bit():
    """The metric is the row that is drawn and a random number: no sum is in it."""

    def build(config: Config) -> fdl.Experiment:
        def objective(params, state, batch, *, key, train):
            draw = jax.random.uniform(key)
            return fdl.Outcome(params * 0 + batch["id"] * 0.0, metrics={"id": batch["id"], "draw": draw})

        task = fdl.Task(lambda key: (jax.random.normal(key), {}), objective)
        return fdl.Experiment(task, optax.sgd(config.learning_rate), ids, batch_size=1, num_epochs=2)

    ids = fdl.data.Arrays(id=np.arange(N))
    result = fdl.sweep(build, Config(), over={"learning_rate": [0.1, 0.2]}, seeds=[5, 6])
    for number in range(4):
        solo = fdl.run(build, result.configs[number], seed=result.seeds[number])
        for name in ("train/id", "train/draw"):
            np.testing.assert_array_equal(result.history[name][number], solo.history[name])
        np.testing.assert_array_equal(result.member(number).params, solo.params)


def test_shapes_and_code_make_a_program_each():
    said: list[str] = []
    over = {"hidden": [4, 8], "learning_rate": [1e-3, 1e-2, 3e-2]}
    result = fdl.sweep(build, Config(), over=over, tell=said.append)
    assert result.compiles == 2
    programs = ["program 1: 3 members, 3 side by side", "program 2: 3 members, 3 side by side"]
    assert said == ["6 members, 2 programs", *programs]
    assert [config.hidden for config in result.configs] == [4, 4, 4, 8, 8, 8]
    assert_follows(result.member(5), fdl.run(build, result.configs[5]))


def branching(config: Config) -> fdl.Experiment:
    made = build(config)
    if config.decay > 0:
        return replace(made, optimizer=optax.sgd(config.learning_rate))
    return made


def test_a_float_that_python_branches_on_is_named_and_makes_programs():
    said: list[str] = []
    over = {"decay": [0.0, 0.1], "learning_rate": [1e-3, 1e-2]}
    result = fdl.sweep(branching, Config(), over=over, tell=said.append)
    assert result.compiles == 2
    assert "decay becomes a Python number" in said[1]
    assert "test_sweep.py" in said[1]
    assert_follows(result.member(1), fdl.run(branching, result.configs[1]))
    assert_follows(result.member(3), fdl.run(branching, result.configs[3]))


def test_such_a_float_that_is_not_swept_costs_nothing():
    said: list[str] = []
    result = fdl.sweep(branching, Config(), over={"learning_rate": [1e-3, 1e-2]}, tell=said.append)
    assert (result.compiles, said) == (1, ["2 members, 1 program", "program 1: 2 members, 2 side by side"])


def noisy(config: Config) -> fdl.Experiment:
    made = build(replace(config, noise=0.0))
    data = fdl.data.Arrays(x=made.dataset["x"] + config.noise, y=made.dataset["y"])  # pyright: ignore
    return replace(made, train=data)


def test_a_swept_float_that_feeds_the_data_is_refused():
    with pytest.raises(fdl.InputError, match="the data depends on the swept field 'noise'"):
        fdl.sweep(noisy, Config(), over={"noise": [0.0, 1.0]})
    assert fdl.sweep(noisy, Config(), over={"learning_rate": [1e-3, 1e-2]}).compiles == 1


def test_a_member_that_explodes_leaves_the_others_alone():
    over = {"learning_rate": [1e-2, 1e30]}

    def sgd(config):
        return replace(build(config), optimizer=optax.sgd(config.learning_rate))

    result = fdl.sweep(sgd, Config(), over=over)
    assert result.failed[0] == 0
    assert result.failed[1] > 0
    assert np.isnan(result.history["train/loss"][1]).any()
    assert_follows(result.member(0), fdl.run(sgd, result.configs[0]))
    assert result.best("test/loss") == 0


def test_a_member_out_of_patience_stops_where_it_would_alone():
    """And its parameters do not move any more, to the bit, while the others train on."""
    config = Config(patience=2, steps=200)
    result = fdl.sweep(build, config, over={"learning_rate": [1e-3, 1e-1]}, seeds=[0, 1])
    ends = []
    for number in range(4):
        solo = fdl.run(build, result.configs[number], seed=result.seeds[number])
        member = result.member(number)
        assert (member.info["steps"], member.info["best_step"]) == (solo.info["steps"], solo.info["best_step"])
        ends.append(int(member.info["steps"]))
        assert np.isnan(result.history["train/loss"][number, ends[-1] :]).all()
        assert not np.isnan(result.history["train/loss"][number, : ends[-1]]).any()
    assert len(set(ends)) > 1


def test_blocks_of_members_are_the_same_members():
    over = {"learning_rate": [1e-3, 2e-3, 4e-3, 8e-3, 1e-2]}
    whole = fdl.sweep(build, Config(), over=over)
    blocks = fdl.sweep(build, Config(), over=over, max_members=2)
    assert blocks.compiles == 1
    np.testing.assert_allclose(blocks.history["train/loss"], whole.history["train/loss"], rtol=1e-5)
    shapes = [jax.tree.leaves(result.buckets[0].params)[0].shape for result in (whole, blocks)]
    assert shapes[0] == shapes[1]
    assert shapes[0][0] == 5


def test_a_report_is_that_of_its_member():
    """It may close over a float of the config: the first member's would be wrong for the others."""

    def reporting(config):
        return replace(build(config), reports={"rate": lambda outputs: config.learning_rate})

    rates = [1e-3, 2e-3, 4e-3]
    result = fdl.sweep(reporting, Config(), over={"learning_rate": rates}, max_members=2)
    np.testing.assert_allclose(result.metrics["test/rate"], rates)


def test_any_chunk_gives_the_same_members():
    over = {"learning_rate": [1e-3, 1e-2]}
    one, many = (fdl.sweep(build, Config(), over=over, chunk=chunk) for chunk in (1, 1000))
    assert_same_bits((one.history, one.buckets[0].params), (many.history, many.buckets[0].params))


def test_members_that_are_evaluated_at_other_steps_have_a_history_each():
    """Runs of 18 and 20 steps, evaluated after 9 and 18, and after 9, 18 and 20."""
    result = fdl.sweep(build, Config(), over={"steps": [18, 20]})
    np.testing.assert_array_equal(result.steps["test/loss"], [9, 18, 20])
    np.testing.assert_array_equal(np.isnan(result.history["test/loss"]), [[False, False, True], [False] * 3])
    short = fdl.sweep(build, Config(), over={"steps": [7, 8]})  # one evaluation each, not the same
    np.testing.assert_array_equal(np.isnan(short.history["test/loss"]), [[False, True], [True, False]])
    assert np.isfinite(short.metrics["test/loss"]).all()


def test_a_list_of_settings_is_just_these(tmp_path):
    settings = [{"learning_rate": 1e-3, "dropout": 0.1}, {"learning_rate": 1e-2}]
    result = fdl.sweep(build, Config(), over=settings, seeds=[7])
    assert [config.dropout for config in result.configs] == [0.1, 0.3]
    result.to_csv(tmp_path / "sweep.csv")
    rows = list(csv.DictReader((tmp_path / "sweep.csv").read_text().splitlines()))
    assert [row["seed"] for row in rows] == ["7", "7"]
    assert float(rows[1]["test/loss"]) == result.metrics["test/loss"][1]
    assert rows[1]["dropout"] == ""


def test_hooks_see_all_members():
    seen = []
    fdl.sweep(
        build,
        Config(),
        over={"learning_rate": [1e-3, 1e-2]},
        hooks=[lambda e: seen.append((e.step, e.members, e.metrics["train/loss"].shape, _first(e.params())))],
    )
    assert seen[-1] == (37, 2, (2,), 2)


def _first(params):
    return jax.tree.leaves(params)[0].shape[0]


def test_a_traced_float_does_not_widen_a_bfloat16_network():
    def half(config):
        made = build(config)
        return replace(made, precision="bfloat16")

    result = fdl.sweep(half, Config(), over={"learning_rate": [1e-3, 1e-2], "dropout": [0.1, 0.2]})
    solo = fdl.run(half, result.configs[3])
    np.testing.assert_allclose(result.history["train/loss"][3][:3], solo.history["train/loss"][:3], rtol=2e-2)


def test_run_takes_the_floats_of_its_config_as_arguments():
    """Two learning rates, one program to the letter."""
    texts = []
    for rate in (1e-3, 1e-2):
        from fdl.training.programs import init_carry, make_chunk
        from fdl.training.recipe import Recipe, traced_fields

        config = Config(learning_rate=rate)
        recipe = Recipe(build(config), build, config, traced_fields(config))
        key, zero = jax.random.key(0), np.int32(0)
        carry = jax.eval_shape(lambda key, recipe=recipe: init_carry(recipe, key, recipe.values()), key)
        chunk, _ = make_chunk(recipe, carry, 8)
        arguments = carry, recipe.experiment.dataset.arrays, key, recipe.values(), zero, zero, np.bool_(False)
        texts.append(jax.jit(chunk).lower(*arguments).as_text())
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"learning_rat": [1.0]}, "did you mean 'learning_rate'"),
        ({"learning_rate": []}, "expected a list of values"),
        ({"learning_rate": "0.1"}, "expected a list of values"),
        ({"learning_rate": ["0.1"]}, "expected a float"),
        ({"hidden": [8.0]}, "expected an int"),
        ({"learning_rate": [float("nan")]}, "finite"),
        ({"dropout": [0.1, 1.5]}, "rate"),
        ([], "empty list"),
    ],
)
def test_what_cannot_be_swept_is_refused(over, message):
    with pytest.raises(fdl.InputError, match=message):
        fdl.sweep(build, Config(), over=over)


def test_best_and_member_name_what_there_is(swept):
    with pytest.raises(fdl.InputError, match="did you mean 'test/accuracy'"):
        swept.best("test/acuracy")
    with pytest.raises(fdl.InputError, match=r"0\.\.31"):
        swept.member(32)
    assert swept.best("test/accuracy", "max") == np.nanargmax(swept.metrics["test/accuracy"])


PROGRAM = """
import jax
jax.config.update("jax_num_cpu_devices", 3)
import numpy as np, fdl
from tests.training.test_sweep import Config, build
over = {"learning_rate": [1e-3, 2e-3, 4e-3, 8e-3]}
many = fdl.sweep(build, Config(), over=over)
one = fdl.sweep(build, Config(), over=over, devices=jax.devices()[:1])
assert len(jax.tree.leaves(many.buckets[0].blocks[0].params)[0].sharding.device_set) == 3
np.testing.assert_allclose(many.history["train/loss"], one.history["train/loss"], rtol=1e-5)
assert len(many) == 4 and many.member(3).info["steps"] == 37
few = fdl.sweep(build, Config(), over=over, seeds=[0, 1], max_members=4)  # 4 do not divide by 3: fewer, never more
assert few.buckets[0].block == 3

import dataclasses, jax.numpy as jnp, optax
def objective(params, state, batch, *, key, train):
    return fdl.Outcome((params["w"] - jax.random.normal(key, (1,))) ** 2)
def drawn(config):  # without data there is no order of them: an array without elements
    task = fdl.Task(lambda key: ({"w": jnp.zeros(())}, {}), objective)
    return fdl.Experiment(task, optax.sgd(config.learning_rate), num_steps=5)
assert fdl.sweep(drawn, Config(), over=over, chunk=2).member(3).info["steps"] == 5
"""


def test_members_over_three_devices_are_those_of_one():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_weak_columns_are_weak():
    from fdl.training.recipe import weak_column

    column = weak_column([0.5, 2.0])
    product = jax.vmap(lambda value: value * jnp.ones(2, jnp.bfloat16))(column)
    assert product.dtype == jnp.bfloat16


def test_dropout_of_a_ready_model_is_swept_in_one_program_from_zero_on():
    def perceptron(config: Config) -> fdl.Experiment:
        model = fdl.models.mlp(5, 8, 2, dropout=config.dropout)
        return replace(build(config), task=fdl.supervised(model, fdl.losses.softmax_cross_entropy))

    result = fdl.sweep(perceptron, Config(), over={"dropout": [0.0, 0.5]})
    assert result.compiles == 1
    for number in range(2):
        solo = fdl.run(perceptron, result.configs[number])
        np.testing.assert_allclose(result.history["train/loss"][number], solo.history["train/loss"], rtol=1e-5)
