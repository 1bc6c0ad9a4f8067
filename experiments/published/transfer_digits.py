"""Transfer: a network that knows the digits 0 to 4 learns 5 to 9 from a few labels.

    fdl sweep experiments/published/transfer_digits.py --over start=scratch,frozen,tuned --over labels=1,5,20 \\
        --over draw=0,1,2,3,4 --save experiments/results/transfer_digits.json

The digits are those of scikit-learn. A network trained on 0 to 4 gives its convolutions to a new one with a new last
layer; then either that layer alone is trained ("frozen"), or everything ("tuned"), or the convolutions start as drawn
("scratch") (Yosinski et al., How transferable are features in deep neural networks?, 2014).

There is no published figure. Measured, accuracy on the test digits 5 to 9, mean and standard deviation over five draws
of the labelled images:

    labels a class    1                5               20
    scratch           76.0 +- 8.0 %    93.0 +- 2.3 %   96.1 +- 0.9 %
    frozen            72.7 +- 3.6 %    92.8 +- 2.3 %   95.7 +- 0.8 %
    tuned             73.6 +- 5.4 %    94.2 +- 1.2 %   96.6 +- 1.2 %

Five other digits teach little that a few labels do not: training on from their network gains a point with five labels,
and nothing that can be told from chance with one. 27 s by the clock for the 45 runs (2 x86-64 cores, CPU). Nothing was
tuned.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fdl
from fdl import nn


@dataclass(frozen=True)
class Config:
    start: Literal["scratch", "frozen", "tuned"] = "frozen"
    """Convolutions as drawn; those of the digits 0 to 4, unchanged; those, trained on."""
    labels: int = 5
    """Labelled images of each of the digits 5 to 9."""
    draw: int = 0
    """Which images have labels: another number, another draw."""
    learning_rate: float = 3e-3
    """Adam's."""
    num_steps: int = 200
    """Steps on all labelled images."""


def build(config: Config) -> fdl.Experiment:
    train, test = digits("train", (5, 10)), digits("test", (5, 10))
    task = supervised(fdl.edit(network(), "head", nn.Linear(128, 5)))  # here of the size of the old one
    if config.start != "scratch":
        task = replace(task, init=starting_from(pretrained(), task.init))
    return fdl.Experiment(
        task=task,
        optimizer=optax.adam(config.learning_rate),
        train=few(train, config.labels, config.draw),
        evaluate={"test": test},
        num_steps=config.num_steps,
        trainable=[("features/", config.start != "frozen"), ("", True)],
    )


def starting_from(features: Any, init: Any) -> Any:
    """An init whose features are given, and whose other parameters are drawn."""

    def start(key: jax.Array) -> tuple[Any, Any]:
        params, state = init(key)
        return params | {"features": jax.tree.map(jnp.asarray, features)}, state

    return start


@functools.cache
def pretrained() -> Any:
    """Features [B, 8, 8, 1] -> [B, 128] of a network trained on the digits 0 to 4; once, in a few seconds."""
    train, test = digits("train", (0, 5)), digits("test", (0, 5))
    task = supervised(network())
    result = fdl.run(fdl.Experiment(task, optax.adam(3e-3), train, {"test": test}, batch_size=64, num_epochs=20))
    return jax.device_get(result.params["features"])


def supervised(model: fdl.Layer) -> fdl.Task:
    return fdl.supervised(model, fdl.losses.softmax_cross_entropy, {"accuracy": fdl.metrics.accuracy})


def network() -> nn.Serial:
    """Two convolutions with pooling, and a linear layer for five classes."""
    features = nn.Serial(
        nn.Conv(1, 16, 3), jax.nn.relu, nn.MaxPool(2), nn.Conv(16, 32, 3), jax.nn.relu, nn.MaxPool(2), nn.Flatten()
    )
    return nn.Serial(features=features, head=nn.Linear(128, 5))


def digits(split: str, classes: tuple[int, int]) -> fdl.data.Arrays:
    """The images of five digits, numbered from 0."""
    data = fdl.data.load("digits", split=split)
    chosen = data.take((data["y"] >= classes[0]) & (data["y"] < classes[1]))
    return fdl.data.Arrays(x=chosen["x"], y=chosen["y"] - classes[0])


def few(data: fdl.data.Arrays, count: int, draw: int) -> fdl.data.Arrays:
    """`count` images drawn from each class."""
    mixed = np.random.default_rng(draw).permutation(len(data))
    return data.take(np.concatenate([mixed[data["y"][mixed] == label][:count] for label in range(5)]))
