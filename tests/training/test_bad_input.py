# pyright: reportArgumentType=false
"""What can be known to be wrong is one clear error before anything is compiled."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
import optax
import pytest
import sklearn.metrics

import fdl
from fdl import nn
from fdl.training.rehearsal import rehearse

X, Y = np.ones((6, 4), np.float32), np.array([0, 1, 2, 0, 1, 2])


def experiment(x=X, y=Y, **changes) -> fdl.Experiment:
    loss, metrics = changes.pop("loss", fdl.losses.softmax_cross_entropy), {"accuracy": fdl.metrics.accuracy}
    task = fdl.supervised(changes.pop("model", nn.Linear(4, 3)), loss, changes.pop("metrics", metrics))
    settings = {"task": task, "optimizer": optax.sgd(0.1), "train": fdl.data.Arrays(x=x, y=y), "num_steps": 1}
    return fdl.Experiment(**(settings | changes))


def changed(array: np.ndarray, index, value) -> np.ndarray:
    copy = np.array(array)
    copy[index] = value
    return copy


def message_of(error: pytest.ExceptionInfo) -> str:
    return "\n".join([str(error.value), *getattr(error.value, "__notes__", [])])


REHEARSED = {
    "label == classes": (
        lambda: experiment(y=changed(Y, 4, 3)),
        ["label 3 in row 4 of 'train' is outside 0..2"],
    ),
    "label -1": (lambda: experiment(y=changed(Y, 2, -1)), ["label -1", "outside 0..2"]),
    "label in a batch of one": (lambda: experiment(y=changed(Y, 5, 7), batch_size=1), ["label 7 in row 5 of 'train'"]),
    "float labels": (lambda: experiment(y=Y.astype(np.float32)), ["expected integers, got float32"]),
    "labels (B, 1)": (lambda: experiment(y=Y[:, None]), ["labels[..., 0]"]),
    "one-hot labels": (lambda: experiment(y=np.eye(3, dtype=np.int32)[Y]), ["one-hot", "argmax"]),
    "evaluation labels": (
        lambda: experiment(evaluate={"test": fdl.data.Arrays(x=X, y=Y + 1)}),
        ["label 3 in row 2 of 'test'"],
    ),
    "NaN": (lambda: experiment(x=changed(X, (5, 1), np.nan)), ["nan at row 5, column 1"]),
    "infinity": (lambda: experiment(x=changed(X, (0, 0), np.inf)), ["inf at row 0, column 0"]),
    "augment drops the dict": (lambda: experiment(augment=lambda batch, key: batch["x"]), ["expected a dict", "'y'"]),
    "features": (lambda: experiment(x=X[:, :3]), ["Linear(4, 3)", "in_features=4", "[6, 3]"]),
    "not flattened": (lambda: experiment(x=np.ones((6, 2, 2), np.float32)), ["nn.Flatten()"]),
    "no such entry": (lambda: experiment(train=fdl.data.Arrays(x=X, label=Y)), ["no entry 'y'", "label"]),
    "broadcast loss": (
        lambda: experiment(y=X[:, 0], model=nn.Linear(4, 1), loss=lambda p, t: (p - t) ** 2, metrics={}),
        ["loss of predictions [6, 1] has shape [6, 6]"],
    ),
    "targets (B,) for (B, 1)": (
        lambda: experiment(y=X[:, 0], model=nn.Linear(4, 1), loss=fdl.losses.squared_error, metrics={}),
        ["predictions [6, 1] and targets [6]", "y[..., 0]"],
    ),
    "metric of scikit-learn inside": (
        lambda: experiment(metrics={"f1": lambda p, t: sklearn.metrics.accuracy_score(t, p.argmax(-1))}),
        ["metric 'f1'", "cannot be compiled", "Experiment(reports={"],
    ),
    "metric with a branch": (
        lambda: experiment(metrics={"right": lambda p, t: 1.0 if (p.argmax(-1) == t).all() else 0.0}),
        ["metric 'right'", "cannot be compiled"],
    ),
    "mean loss": (
        lambda: experiment(loss=lambda p, t: jnp.mean(fdl.losses.softmax_cross_entropy(p, t))),
        ["without mean or sum"],
    ),
}


@pytest.mark.parametrize("case", REHEARSED)
def test_rehearsal_refuses(case):
    make, parts = REHEARSED[case]
    with pytest.raises(fdl.InputError) as error:
        rehearse(make())
    assert not [part for part in parts if part not in message_of(error)], message_of(error)


CONSTRUCTED = {
    "no examples": (lambda: fdl.data.Arrays(x=X[:0], y=Y[:0]), "no examples"),
    "no arrays": (lambda: fdl.data.Arrays(), "at least one named array"),
    "unequal lengths": (lambda: fdl.data.Arrays(x=X, y=Y[:5]), "x: 6, y: 5"),
    "a scalar": (lambda: fdl.data.Arrays(x=X, y=3), "y: a scalar"),
    "strings": (lambda: fdl.data.Arrays(x=["a", "b"]), "expected numbers"),
    "ragged": (lambda: fdl.data.Arrays(x=[[1.0], [1.0, 2.0]]), "ragged"),
    "wide integers": (lambda: fdl.data.Arrays(x=np.array([0, 2**40 + 7])), "32-bit"),
    "take outside": (lambda: fdl.data.Arrays(x=X).take([0, 6]), "row 6 is outside 0..5"),
    "take nothing": (lambda: fdl.data.Arrays(x=X).take([]), "no examples left"),
    "take floats": (lambda: fdl.data.Arrays(x=X).take([0.5]), "row numbers"),
    "batch too large": (lambda: experiment(batch_size=7), "larger than the 6 examples"),
    "batch size 0": (lambda: experiment(batch_size=0), "batch_size: expected a whole number >= 1, got 0"),
    "batch size 2.5": (lambda: experiment(batch_size=2.5), "batch_size: expected a whole number"),
    "batch size of Full": (lambda: experiment(train=fdl.data.Full(x=X, y=Y), batch_size=2), "no batch_size"),
    "no steps": (lambda: experiment(num_steps=0), "num_steps: expected a whole number >= 1"),
    "epochs and steps": (lambda: experiment(num_epochs=1), "exactly one of num_steps and num_epochs"),
    "neither": (lambda: experiment(num_steps=None), "exactly one of num_steps and num_epochs"),
    "not a task": (lambda: experiment(task=nn.Linear(4, 3)), "task: expected an fdl.Task"),
    "not an optimizer": (lambda: experiment(optimizer=0.1), "optimizer: expected an Optax transformation"),
    "not a dataset": (lambda: experiment(train={"x": X}), "'train': expected a dataset"),
    "a set named train": (lambda: experiment(evaluate={"train": fdl.data.Arrays(x=X)}), "other than"),
    "a model that is no layer": (lambda: fdl.supervised(lambda x: x, fdl.losses.squared_error), "expected a fdl Layer"),
    "an empty task": (lambda: fdl.Task(lambda key: ({}, {})), "an objective to minimise"),
    "unknown dataset": (lambda: fdl.data.load("digit", "train"), "did you mean 'digits'"),
    "unknown split": (lambda: fdl.data.load("digits", "tests"), "did you mean 'test'"),
    "chunk 0": (lambda: fdl.run(experiment(), chunk=0), "chunk: expected a whole number >= 1"),
    "not an experiment": (lambda: fdl.run(lambda config: None, 3), "return an fdl.Experiment, got None"),
    "loss by name": (lambda: experiment(loss="mse"), "not the name 'mse'; pass fdl.losses.squared_error"),
    "loss by a class name": (lambda: experiment(loss="CrossEntropyLoss"), "pass fdl.losses.softmax_cross_entropy"),
    "loss by its own name": (lambda: experiment(loss="kl-divergence"), "pass fdl.losses.kl_divergence"),
    "loss misspelt": (lambda: experiment(loss="squared_eror"), "pass fdl.losses.squared_error"),
    "loss of no meaning": (lambda: experiment(loss="xyzzy"), "see fdl.losses.__all__"),
    "loss is a class": (lambda: experiment(loss=nn.Linear), "got the class Linear"),
    "loss is no function": (lambda: experiment(loss=0.5), "a function of (predictions, targets), such as"),
    "loss is missing": (lambda: experiment(loss=None), "got NoneType"),
    "loss of scikit-learn": (lambda: experiment(loss=sklearn.metrics.log_loss), "log_loss of scikit-learn"),
    "metric by name": (lambda: experiment(metrics={"acc": "accuracy"}), 'metrics={"accuracy": fdl.metrics.accuracy}'),
    "metric by another's name": (lambda: experiment(metrics={"f1": "f1"}), "fdl.metrics.Confusion.of("),
    "metrics as a list": (lambda: experiment(metrics=["accuracy"]), "a dict, name -> function, got list; pass"),
    "metrics as a function": (lambda: experiment(metrics=fdl.metrics.accuracy), "got function; pass metrics={"),
    "metrics by a number": (
        lambda: experiment(metrics={1: fdl.metrics.accuracy}),
        "the name of a metric is a word, got 1",
    ),
    "metric is a class": (lambda: experiment(metrics={"conf": fdl.metrics.Confusion}), "fdl.metrics.Confusion.of("),
    "metric needs all": (lambda: experiment(metrics={"auc": fdl.metrics.roc_auc}), 'reports={"auc": lambda o: fdl'),
    "metric of scikit-learn": (lambda: experiment(metrics={"f1": sklearn.metrics.f1_score}), "Experiment(reports={"),
    "metric of scikit-learn, partial": (
        lambda: experiment(metrics={"f1": functools.partial(sklearn.metrics.f1_score, average="macro")}),
        "f1_score is a function of scikit-learn",
    ),
}


@pytest.mark.parametrize("case", CONSTRUCTED)
def test_construction_refuses(case):
    make, message = CONSTRUCTED[case]
    with pytest.raises(fdl.InputError) as error:
        make()
    assert message in str(error.value)


def test_rows_of_weight_zero_may_have_any_loss():
    """0 / 0 in a row of weight 0: it reaches neither the loss nor the parameters."""

    def objective(params, state, batch, *, key, train):
        return fdl.Outcome(params**2 + batch["x"] / batch["x"], weight=batch["x"])

    task = fdl.Task(lambda key: (jnp.float32(3.0), {}), objective)
    data = fdl.data.Arrays(x=np.array([1, 1, 0, 1], np.float32))
    result = fdl.run(fdl.Experiment(task, optax.sgd(0.25), data, num_steps=2))
    np.testing.assert_allclose(result.history["train/loss"], [10.0, 1.5**2 + 1])  # 3 - 0.25 * 6
