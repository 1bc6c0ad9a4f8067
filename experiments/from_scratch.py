"""The classic network written by hand in NumPy, and the same network as an fdl task: the same parameters.

    python experiments/from_scratch.py                      # both, in float64, and their times
    fdl run experiments/from_scratch.py                     # the fdl side alone, in float32

Two inputs, three hidden units, one output, sigmoid everywhere; weights from U[0, 1), biases 0; the delta rule on all
100 points at once, 10 000 times. The textbook's rule and `fdl` must be made the same algorithm in two places:

- the error term (y - output) * output * (1 - output) is minus the derivative of (y - output)^2 / 2; the loss here,
  `squared_error`, has no 1/2, so its gradient is twice as long;
- the textbook *sums* over the batch; `fdl` averages over its n examples, so that a learning rate does not depend on the
  batch size.

A textbook step of 0.01 is therefore a step of 0.01 * n / 2 on the mean squared error.

Measured, seed 0, 2 s for everything (2 x86-64 cores, CPU; the times are those of one run):

    NumPy    0.19 s
    fdl      0.04 s   and 0.69 s to compile
    largest difference between the parameters: 8.9e-15
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fdl
from fdl import nn
from fdl.initializers import Uniform


@dataclass(frozen=True)
class Config:
    learning_rate: float = 0.01
    """The textbook's learning rate, for the sum over the points."""
    num_epochs: int = 10_000
    """Updates, each on all points."""
    num_points: int = 100
    """Random points in the unit square."""


def points(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """Points of the unit square, and 1 for those above its falling diagonal."""
    x = np.random.default_rng(0).random((config.num_points, 2))
    return x, (x.sum(1, keepdims=True) > 1).astype(x.dtype)


def build(config: Config) -> fdl.Experiment:
    x, y = points(config)
    drawn = Uniform(0.0, 1.0)
    hidden, head = nn.Linear(2, 3, kernel_init=drawn), nn.Linear(3, 1, kernel_init=drawn)
    model = nn.Serial(hidden, jax.nn.sigmoid, head, jax.nn.sigmoid)
    task = fdl.supervised(model, fdl.losses.squared_error)
    dtype = jnp.result_type(float)  # float64 inside jax.enable_x64(True), float32 otherwise
    return fdl.Experiment(
        task=dataclasses.replace(task, init=lambda key: fdl.init(model, key, dtype)),
        optimizer=optax.sgd(config.learning_rate * config.num_points / 2),
        train=fdl.data.Arrays(x=x, y=y),
        num_epochs=config.num_epochs,
    )


def by_hand(config: Config, params: dict[str, Any]) -> dict[str, Any]:
    """The textbook's network, nothing but NumPy, from the given initial parameters."""
    x, y = points(config)
    w1, b1, w2, b2 = (np.array(params[layer][name]) for layer in ("0", "2") for name in ("kernel", "bias"))
    for _ in range(config.num_epochs):
        hidden = 1 / (1 + np.exp(-(x @ w1 + b1)))
        output = 1 / (1 + np.exp(-(hidden @ w2 + b2)))
        error_output = (y - output) * output * (1 - output)
        error_hidden = error_output @ w2.T * hidden * (1 - hidden)
        w2 += config.learning_rate * hidden.T @ error_output
        b2 += config.learning_rate * error_output.sum(0)
        w1 += config.learning_rate * x.T @ error_hidden
        b1 += config.learning_rate * error_hidden.sum(0)
    return {"0": {"kernel": w1, "bias": b1}, "2": {"kernel": w2, "bias": b2}}


@dataclass(frozen=True)
class Comparison:
    difference: float
    """Largest absolute difference between any two parameters."""
    seconds_numpy: float
    seconds_compile: float
    seconds_train: float


def compare(config: Config, seed: int = 0) -> Comparison:
    """Trains both in float64 from the same initial values."""
    with jax.enable_x64(True):
        experiment = build(config)
        start, _ = experiment.task.init(fdl.fold(jax.random.key(seed), "init"))  # what run() starts from
        began = time.perf_counter()
        textbook = by_hand(config, start)
        seconds_numpy = time.perf_counter() - began
        result = fdl.run(experiment, seed=seed)
        names = [(layer, name) for layer in ("0", "2") for name in ("kernel", "bias")]
        apart = [np.abs(textbook[i][name] - np.asarray(result.params[i][name])).max() for i, name in names]
    info = result.info
    return Comparison(float(max(apart)), seconds_numpy, info["seconds_compile"], info["seconds_train"])


def main() -> None:
    config = Config()
    found = compare(config)
    print(f"2-3-1 network, {config.num_points} points, {config.num_epochs} epochs, float64")
    print(f"NumPy  {found.seconds_numpy:6.2f} s")
    print(f"fdl    {found.seconds_train:6.2f} s   and {found.seconds_compile:.2f} s to compile")
    print(f"largest difference between the parameters: {found.difference:.1e}")


if __name__ == "__main__":
    main()
