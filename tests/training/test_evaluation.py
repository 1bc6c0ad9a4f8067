# pyright: reportArgumentType=false, reportCallIssue=false, reportOptionalCall=false
"""Evaluation alone is that of a run, to the bit, and refuses what is not the model's."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import optax
import pytest

import fdl
from fdl import nn
from fdl.training.evaluation import make_evaluation
from tests.training.test_run import arrays

MODEL = nn.Serial(
    body=nn.Linear(5, 8), norm=nn.BatchNorm(8), act=jax.nn.tanh, drop=nn.Dropout(0.5), head=nn.Linear(8, 2)
)
TASK = fdl.supervised(MODEL, fdl.losses.softmax_cross_entropy, {"accuracy": fdl.metrics.accuracy}, weight="weight")
SETS = {"test": arrays(23), "few": arrays(3)}  # neither is whole batches


def share(rows) -> float:
    return float((rows["predictions"].argmax(-1) == rows["targets"]).mean())


def experiment(**options) -> fdl.Experiment:
    options = {"evaluate": SETS, "batch_size": 8, "num_steps": 7, "reports": {"share": share}} | options
    return fdl.Experiment(TASK, options.pop("optimizer", optax.adam(1e-2)), arrays(40), **options)


@pytest.mark.parametrize(
    "options",
    [{}, {"optimizer": fdl.with_ema(optax.adam(1e-2)), "eval_params": fdl.ema_params}, {"precision": "bfloat16"}],
)
def test_it_has_the_bits_of_the_evaluation_in_a_run(options):
    made = experiment(**options)
    result = fdl.run(made, seed=3)
    found = make_evaluation(made, seed=3)(result.params, result.state)
    assert found == {name: value for name, value in result.metrics.items() if not name.startswith("train/")}
    assert set(found) == {f"{s}/{name}" for s in SETS for name in ("loss", "accuracy", "share")}


def test_it_is_the_mean_over_all_examples_by_their_weights():
    params, state = fdl.init(MODEL, jax.random.key(5))
    found = make_evaluation(experiment())(params, state)
    data = arrays(23)
    logits = np.asarray(MODEL.apply(params, state, data["x"])[0], np.float64)
    losses = np.log(np.exp(logits).sum(-1)) - logits[np.arange(23), data["y"]]
    assert found["test/loss"] == pytest.approx(np.average(losses, weights=data["weight"]), rel=1e-5)
    assert found["test/share"] == pytest.approx((logits.argmax(-1) == data["y"]).mean())


def test_nothing_that_trains_is_traced():
    def objective(params, state, batch, *, key, train):
        assert not train
        return TASK.objective(params, state, batch, key=key, train=train)

    made = replace(experiment(), task=replace(TASK, objective=objective))
    params, state = fdl.init(MODEL, jax.random.key(0))
    assert make_evaluation(made)(params, state) == make_evaluation(experiment())(params, state)


def test_parameters_of_another_model_are_refused_by_path():
    evaluate = make_evaluation(experiment())
    params, state = fdl.init(MODEL, jax.random.key(0))
    wrong = params | {"head": {"kernel": params["head"]["kernel"].T, "scale": params["head"]["bias"]}}
    with pytest.raises(fdl.InputError) as error:
        evaluate(wrong, state)
    for line in ("- params/head/bias", "+ params/head/scale", "! params/head/kernel: expected float32[8, 2]"):
        assert line in str(error.value)
    with pytest.raises(fdl.InputError, match="state/norm"):
        evaluate(params, {})


def test_layers_without_parameters_may_be_left_out():
    evaluate = make_evaluation(experiment())
    params, state = fdl.init(MODEL, jax.random.key(0))
    assert params["drop"] == {}
    some = {name: params[name] for name in ("norm", "head", "body")}
    assert evaluate(some, {"norm": state["norm"]}) == evaluate(params, state)


def test_what_cannot_be_evaluated_is_refused_before_anything_is_compiled():
    with pytest.raises(fdl.InputError, match="no evaluation set"):
        make_evaluation(experiment(evaluate={}))
    with pytest.raises(fdl.InputError, match=r"expected an fdl\.Experiment, got Task"):
        make_evaluation(TASK)
    broken = fdl.data.Arrays(x=np.full((23, 5), np.nan, np.float32), y=arrays(23)["y"], weight=arrays(23)["weight"])
    with pytest.raises(fdl.InputError, match="test"):
        make_evaluation(experiment(evaluate={"test": broken}))
