"""Cross-validation in one program: each fold is a member that gives weight 0 to the images it must not see.

    python experiments/cross_validation.py                  # the table below
    fdl sweep experiments/cross_validation.py --over fold=0,1,2,3,4 --over learning_rate=1e-3,3e-3,1e-2,3e-2,1e-1
    fdl run experiments/cross_validation.py --fold -1       # trained on all five folds, evaluated on the test images

All members have the same data, with the number of its fold beside each image, and no shape depends on which fold is
held out: `fdl.traced` makes that an argument of the program. For a task of your own take `holding_out`, `stratified`.

Measured, per cent right of the fold held out, mean and standard deviation over the 5 folds, seed 0:

    learning rate    0.001         0.003         0.01          0.03          0.1
                     96.3 +- 0.5   96.8 +- 0.7   97.3 +- 0.4   97.7 +- 0.4   95.8 +- 1.0

On the same folds scikit-learn's MLPClassifier has 97.5 +- 0.3 at 0.03 (same size, batches and epochs) and its SVC as it
comes 98.7 +- 0.7. The rate chosen here, 0.03, and all five folds, seeds 0 to 4: 98.4 +- 0.1 % of the test images. The
25 runs are one program: compiled in 2.3 s, trained in 1.7 s; 8 s of processor time for everything (2 x86-64 cores, CPU,
shared with others).

What masks cost: images held out are drawn, too, so that of a batch of 64 only 51 count on average and a fifth of the
training is wasted; evaluation goes through all 1797 images to count 287. Runs on the other folds alone, in full batches
and 17 steps an epoch in place of 22, have 97.1 +- 0.5 % at 0.01, where this has 97.3. Layers do not see weights: images
held out would take part in the statistics of an `nn.BatchNorm`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer

import fdl
from fdl import nn

TEST = -1
"""The fold of the test images: no training image is in it."""
RATES = [1e-3, 3e-3, 1e-2, 3e-2, 1e-1]


@dataclass(frozen=True)
class Config:
    fold: int = fdl.traced(0)
    """Held out of training, and evaluated on; -1 = the test images, so that all training images are used."""
    folds: int = 5
    """Parts that the training images are divided into."""
    learning_rate: float = 3e-2
    """Adam's."""
    width: int = 128
    """Units of the hidden layer."""
    batch_size: int = 64
    """Images a step, those of weight 0 included."""
    num_epochs: int = 30
    """Passes over the training images."""


def build(config: Config) -> fdl.Experiment:
    if not isinstance(config.fold, Tracer) and not TEST <= config.fold < config.folds:
        raise fdl.InputError(f"fold: expected {TEST}..{config.folds - 1}, got {config.fold}: nothing would be held out")
    images = digits(config.folds)
    task = fdl.supervised(network(config), fdl.losses.softmax_cross_entropy, {"accuracy": fdl.metrics.accuracy})
    return fdl.Experiment(
        task=holding_out(task, config.fold),
        optimizer=optax.adam(config.learning_rate),
        train=images.take(images["fold"] != TEST),
        evaluate={"held_out": images},
        batch_size=config.batch_size,
        num_epochs=config.num_epochs,
    )


def network(config: Config) -> nn.Serial:
    return nn.Serial(nn.Flatten(), nn.Linear(64, config.width), jax.nn.relu, head=nn.Linear(config.width, 10))


def holding_out(task: fdl.Task, fold: Any) -> fdl.Task:
    """The same task; training gives weight 0 to the examples of this fold, evaluation to all others."""
    within: Any = task.objective

    def objective(params: Any, state: Any, batch: Any, *, key: jax.Array, train: bool) -> fdl.Outcome:
        held = batch["fold"] == fold
        weight = (~held if train else held).astype(jnp.float32)
        return within(params, state, batch, key=key, train=train)._replace(weight=weight)

    return dataclasses.replace(task, objective=objective)


def digits(folds: int) -> fdl.data.Arrays:
    """All images with the fold of each; the data are the same for every member, only the weights differ."""
    train, test = (fdl.data.load("digits", split=split) for split in ("train", "test"))
    fold = np.concatenate([stratified(train["y"], folds), np.full(len(test), TEST)])
    both = {name: np.concatenate([train[name], test[name]]) for name in ("x", "y")}
    return fdl.data.Arrays(**both, fold=fold)


def stratified(y: np.ndarray, folds: int) -> np.ndarray:
    """A fold for each example: class after class, each in random order, they are dealt out like cards."""
    mixed = np.random.default_rng(0).permutation(len(y))
    fold = np.empty(len(y), int)
    fold[mixed[np.argsort(y[mixed], kind="stable")]] = np.arange(len(y)) % folds
    return fold


def main() -> None:
    from sklearn.model_selection import PredefinedSplit, cross_val_score
    from sklearn.svm import SVC

    result = fdl.sweep(build, Config(), over={"learning_rate": RATES, "fold": range(Config.folds)})
    print(f"{len(result)} runs, programs: {result.compiles}, {result.info['seconds_train']:.1f} s of training")
    for rate, scores in zip(RATES, result.metrics["held_out/accuracy"].reshape(len(RATES), -1), strict=True):
        print(f"learning rate {rate:<6}  {scores.mean():.2%} +- {scores.std():.2%}")
    images: Any = build(Config()).dataset
    scores = cross_val_score(SVC(), images["x"].reshape(-1, 64), images["y"], cv=PredefinedSplit(images["fold"]))
    print(f"scikit-learn's SVC    {scores.mean():.2%} +- {scores.std():.2%}")


if __name__ == "__main__":
    main()
