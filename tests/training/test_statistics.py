# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalCall=false
"""Statistics as metrics of an experiment: each of their numbers has a name, and is that of all examples at once."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import fdl
from fdl import nn
from fdl.metrics import Calibration, Confusion, Mean, Regression
from fdl.training.evaluation import make_evaluation
from fdl.training.sums import as_sums, reduce
from fdl.training.weighted import weighted

RANDOM = np.random.default_rng(4)
N, C = 23, 3
X = RANDOM.normal(size=(N, 4)).astype(np.float32)
Y = RANDOM.integers(0, C, N).astype(np.int32)
W = (np.arange(N) % 4).astype(np.float32)
DATA = fdl.data.Arrays(x=X, y=Y, w=W)
MODEL = nn.Linear(4, C)
NAN = float("nan")


def confusion(y, labels, weight=None):
    return Confusion.of(y.argmax(-1), labels, C, weight)


def calibration(y, labels, weight=None):
    return Calibration.of(jax.nn.softmax(y).max(-1), y.argmax(-1) == labels, 5, weight)


def regression(y, labels, weight=None):
    return Regression.of(y[..., 0], labels, weight)


STATISTICS = {"conf": confusion, "cal": calibration, "fit": regression}
NAMES = {
    "conf/accuracy", "conf/precision/macro", "conf/recall/macro", "conf/f1/macro", "cal/error",
    "fit/mse", "fit/rmse", "fit/mae", "fit/r2",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Rate:
    rate: float = 0.5


def experiment(weight=None, metrics=STATISTICS, **options) -> fdl.Experiment:
    task = fdl.supervised(MODEL, fdl.losses.softmax_cross_entropy, metrics, weight=weight)
    settings = {"optimizer": optax.sgd(0.1), "train": DATA, "evaluate": {"val": DATA}, "num_steps": 1} | options
    return fdl.Experiment(task, settings.pop("optimizer"), settings.pop("train"), **settings)


def expected(params, rows=slice(None), weight=None) -> dict[str, float]:
    """The numbers of the statistics of these rows, made at once and without an engine."""
    y = MODEL(params, X[rows])
    made = {name: metric(y, Y[rows], weight) for name, metric in STATISTICS.items()}
    return {f"{name}/{part}": float(value) for name, each in made.items() for part, value in each.numbers().items()}


@pytest.mark.parametrize("weight", [None, "w"])
@pytest.mark.parametrize("batch_size", [None, 7, N])
def test_an_evaluation_says_what_the_statistic_of_all_rows_says(weight, batch_size):
    params, state = fdl.init(MODEL, jax.random.key(0))
    found = make_evaluation(experiment(weight, batch_size=batch_size))(params, state)
    want = expected(params, weight=None if weight is None else W)
    assert set(want) == NAMES
    assert {name: found[f"val/{name}"] for name in want} == pytest.approx(want, rel=2e-5)


@pytest.mark.parametrize("accumulate", [1, 4])
def test_a_training_step_says_what_the_statistic_of_its_batch_says(accumulate):
    def objective(params, state, batch, *, key, train):
        y = MODEL(params, batch["x"])
        metrics = {name: metric(y, batch["y"]) for name, metric in STATISTICS.items()}
        return fdl.Outcome(fdl.losses.softmax_cross_entropy(y, batch["y"]), metrics=metrics)

    task = fdl.Task(functools.partial(fdl.init, MODEL), objective)
    made = fdl.Experiment(
        task, optax.set_to_zero(), DATA.take(range(20)), accumulate=accumulate, num_steps=2, evaluate={"val": DATA}
    )
    run = fdl.run(made)
    want = expected(run.params, slice(20))
    assert {name: run.history[f"train/{name}"][1] for name in want} == pytest.approx(want, rel=2e-5)
    want = expected(run.params)
    assert {name: run.metrics[f"val/{name}"] for name in want} == pytest.approx(want, rel=2e-5)


def test_a_number_of_a_statistic_selects_in_a_run_and_in_a_sweep():
    def build(config):
        return experiment(
            optimizer=optax.sgd(config.rate),
            num_steps=4,
            eval_every=1,
            select="val/conf/f1/macro",
            mode="max",
            batch_size=5,
        )

    run = fdl.run(build(Rate()), seed=1)
    assert run.metrics["val/conf/f1/macro"] == max(run.history["val/conf/f1/macro"])
    sweep = fdl.sweep(build, Rate(), over={"rate": [0.5, 0.1]}, seeds=[1])
    assert sweep.metrics["val/conf/f1/macro"][0] == pytest.approx(run.metrics["val/conf/f1/macro"])


def test_a_metric_of_a_whole_batch_never_sees_the_padding():
    params, state = fdl.init(MODEL, jax.random.key(0))
    metrics = {"scalar": lambda y, labels: y[:, 0].mean(), "mean": lambda y, labels: Mean.of(y[:, 0])}
    found = make_evaluation(experiment(metrics=metrics, batch_size=7))(params, state)
    want = float(np.asarray(MODEL(params, X), np.float64)[:, 0].mean())
    assert [found["val/scalar"], found["val/mean"]] == pytest.approx([want, want], rel=1e-5)


@pytest.mark.parametrize("name", STATISTICS)
def test_a_row_of_weight_0_leaves_a_statistic_alone_and_an_invalid_weight_spoils_it(name):
    y = RANDOM.normal(size=(6, C)).astype(np.float32)
    weight, labels = np.array([1, 0, 2, 0.5, 0, 1], np.float32), Y[:6]
    want = {part: float(value) for part, value in STATISTICS[name](y, labels, weight).numbers().items()}
    y[1], compiled = NAN, jax.jit(lambda *arrays: weighted(STATISTICS[name], *arrays).numbers())
    assert {part: float(value) for part, value in compiled(y, labels, weight).items()} == pytest.approx(want, rel=1e-5)
    for wrong in (-1.0, NAN, np.inf):
        weight[0] = wrong
        assert all(np.isnan(value) for value in compiled(y, labels, weight).values())
        with pytest.raises(fdl.InputError, match="weight .* at index 0"):
            weighted(STATISTICS[name], y, labels, weight)


def test_weights_of_pixels_count_pixels_in_blocks(monkeypatch):
    y, labels = RANDOM.normal(size=(2, 3, 5, C)).astype(np.float32), RANDOM.integers(0, C, (2, 3, 5))
    weight = RANDOM.integers(0, 3, (2, 3, 5)).astype(np.float32)
    monkeypatch.setattr("fdl.training.weighted.ELEMENTS", 100)
    found = weighted(confusion, y, labels, jnp.asarray(weight))
    assert found.counts.tolist() == Confusion.of(y.argmax(-1), labels, C, weight).counts.tolist()
    with pytest.raises(fdl.InputError, match=r"axes of the weight, \[2, 3\], got \[2, 4\]"):
        weighted(confusion, y, np.zeros((2, 4), int), jnp.ones((2, 3)))


@pytest.mark.parametrize("wrong", [-0.5, NAN, np.inf])
def test_an_invalid_weight_of_an_example_is_refused_or_nan(wrong):
    weight = np.array([1.0, wrong, 1.0], np.float32)

    def sums(weight):
        metrics = {"own": (jnp.ones(3), weight)}
        return {name: each.value() for name, each in reduce(fdl.Outcome(jnp.ones(3), weight, metrics)).items()}

    with pytest.raises(fdl.InputError, match="weight .* at index 1"):
        sums(weight)
    assert all(np.isnan(value) for value in jax.jit(sums)(weight).values())
    with pytest.raises(fdl.InputError, match="'own': weight .* at index 1"):
        as_sums("own", (np.ones(3), weight))


def test_negative_weights_of_a_set_are_refused_before_anything_is_compiled():
    data = fdl.data.Arrays(x=X, y=Y, w=np.where(np.arange(N) == 8, -1, W))
    with pytest.raises(fdl.InputError, match=r"weight -1\.0"):
        fdl.run(experiment("w", train=data))


def test_two_metrics_of_one_name_and_numbers_that_are_no_scalars_are_refused():
    @dataclasses.dataclass(frozen=True)
    class Plain(Confusion):
        def numbers(self):
            return {"recall": self.recall()}

    Rows = jax.tree_util.register_dataclass(type("Rows", (Plain,), {}))

    for metrics, text in [
        ({"conf": confusion, "conf/accuracy": fdl.metrics.accuracy}, "two metrics have the name 'conf/accuracy'"),
        ({"conf": lambda y, t: Rows(confusion(y, t).counts)}, "'conf/recall': expected a scalar"),
        ({"conf": lambda y, t: Plain(confusion(y, t).counts)}, "'conf': Plain is no pytree; decorate it with"),
        ({"conf": lambda y, t: {"a": 1.0}}, "'conf': expected an array of numbers .* got dict"),
        ({"conf": lambda y, t: "good"}, "'conf': expected an array of numbers .* got str"),
    ]:
        with pytest.raises(fdl.InputError, match=text):
            fdl.run(experiment(metrics=metrics))


NO_NUMBERS = [None, "good", {"a": 1.0}, object(), np.array(["a", "b", "c"]), Confusion, lambda x: x]


@pytest.mark.parametrize("wrong", NO_NUMBERS, ids=lambda value: type(value).__name__)
def test_an_outcome_of_no_numbers_is_refused(wrong):
    for outcome, name in [
        (fdl.Outcome(wrong), "loss"),
        (fdl.Outcome(jnp.ones(3), None, {"mine": wrong}), "metric 'mine'"),
        (fdl.Outcome(jnp.ones(3), None, {"mine": (wrong, jnp.ones(3))}), "metric 'mine'"),
    ]:
        with pytest.raises(fdl.InputError, match=name):
            reduce(outcome)


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (fdl.Outcome(jnp.ones(3) + 0j), "loss: expected real numbers, got complex64"),
        (fdl.Outcome(jnp.ones(3), metrics={"mine": jnp.ones(3) + 0j}), "'mine': expected real numbers, got complex64"),
        (fdl.Outcome(jnp.ones(3), jnp.ones(3) + 0j), "weight: expected real numbers, got complex64"),
        (fdl.Outcome(jnp.ones(3), metrics={"mine": (jnp.ones(3),) * 3}), "a tuple is .values, their weights."),
        (fdl.Outcome(jnp.ones(3), metrics=[jnp.ones(3)]), "metrics: expected a dict"),
        (fdl.Outcome(jnp.ones(3), metrics={3: jnp.ones(3)}), "the name of a metric is a word, got 3"),
    ],
)
def test_an_outcome_that_is_refused_says_why(outcome, message):
    for call in (reduce, jax.jit(lambda loss, weight: reduce(outcome._replace(loss=loss, weight=weight)))):
        with pytest.raises(fdl.InputError, match=message):
            call(outcome) if call is reduce else call(outcome.loss, outcome.weight)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int32", "float16", "bfloat16"])
def test_values_and_weights_of_any_dtype_count_as_they_are(dtype):
    values, weight = jnp.array([1, 0, 1]).astype(dtype), jnp.array([0.5, 0.25, 1.0])
    sums = reduce(fdl.Outcome(values, weight, {"mine": values, "own": (values, weight)}))
    assert {name: float(each.value()) for name, each in sums.items()} == pytest.approx(
        {"loss": 1.5 / 1.75, "mine": 1.5 / 1.75, "own": 1.5 / 1.75}
    )
    assert float(reduce(fdl.Outcome(weight, values))["loss"].value()) == 0.75
