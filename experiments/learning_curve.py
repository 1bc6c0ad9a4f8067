"""A learning curve in one program: test accuracy against the number of training images, all sizes side by side.

    python experiments/learning_curve.py                    # the table and a picture, learning_curve.png
    fdl sweep experiments/learning_curve.py --over share=log:0.02..1:6 --over draw=0,1,2 --seeds 2
    fdl run experiments/learning_curve.py --share 0.1

All members have the same data and batches, but only the first share * 1437 images of an order drawn at random have
weight 1, all others 0. No shape depends on `share` or `draw`, so that both are arguments of the program.

Measured, per cent right of the 360 test images, mean and standard deviation over 5 draws and 5 seeds for each of them
(with all images the draws are the same); rate and number of steps were not tuned:

    images   22           45           90           180          359          718          1437
             70.2 +- 5.0  80.4 +- 2.7  87.0 +- 2.2  92.2 +- 0.7  95.6 +- 0.5  96.9 +- 0.5  98.0 +- 0.3

The 175 runs are one program: compiled in 2.6 s, trained in 10 s; 15 s of processor time for everything (2 x86-64 cores,
CPU, shared with others).

A member equals, to rounding, a run whose weights are given as data, and with all images in one batch a run on its own
images alone. In smaller batches it does not: of 128 images drawn only share * 128 count on average, which every step
pays for in full. With 22 images that is 2 a step, and none in one step of eight, where the gradient is 0 (Adam moves on
by its running mean). Runs on the images alone have 71.4 +- 5.5 % with 22 (in batches of 22) and 92.8 +- 0.8 % with 180.
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

SHARES = [2.0**-i for i in range(6, -1, -1)]
"""Of the curve: from 22 images to all 1437, each twice the one before."""
DRAWS = 5
SEEDS = 5


@dataclass(frozen=True)
class Config:
    share: float = 1.0
    """Share of the training images that count, from 0 to 1; all others have weight 0."""
    draw: int = fdl.traced(0)
    """Which images these are, 0 to 4: of each draw a larger share contains the smaller ones."""
    learning_rate: float = 3e-3
    """Adam's."""
    width: int = 128
    """Units of the hidden layer."""
    batch_size: int = 128
    """Images a step, those of weight 0 included."""
    num_steps: int = 300
    """Steps; 11 are a pass over all training images."""


def build(config: Config) -> fdl.Experiment:
    if not isinstance(config.share, Tracer) and not 0 < config.share <= 1:
        raise fdl.InputError(f"share: expected a number above 0 and up to 1, got {config.share}")
    if not isinstance(config.draw, Tracer) and not 0 <= config.draw < DRAWS:
        raise fdl.InputError(f"draw: expected 0..{DRAWS - 1}, got {config.draw}")
    train, test = (fdl.data.load("digits", split=split) for split in ("train", "test"))
    task = fdl.supervised(network(config), fdl.losses.softmax_cross_entropy, {"accuracy": fdl.metrics.accuracy})
    return fdl.Experiment(
        task=among_first(task, config.share * len(train), config.draw),
        optimizer=optax.adam(config.learning_rate),
        train=fdl.data.Arrays(x=train["x"], y=train["y"], rank=ranks(len(train))),
        evaluate={"test": test},
        batch_size=config.batch_size,
        num_steps=config.num_steps,
    )


def network(config: Config) -> nn.Serial:
    return nn.Serial(nn.Flatten(), nn.Linear(64, config.width), jax.nn.relu, head=nn.Linear(config.width, 10))


def among_first(task: fdl.Task, count: Any, draw: Any) -> fdl.Task:
    """The same task; training gives weight 0 to all examples but the first `count` (rounded) of this draw."""
    within: Any = task.objective

    def objective(params: Any, state: Any, batch: Any, *, key: jax.Array, train: bool) -> fdl.Outcome:
        outcome = within(params, state, batch, key=key, train=train)
        if not train:
            return outcome
        counts = batch["rank"][:, draw] < jnp.round(count)
        return outcome._replace(weight=counts.astype(jnp.float32))

    return dataclasses.replace(task, objective=objective)


def ranks(count: int) -> np.ndarray:
    """The place of each example in an order of its own for each draw, [count, DRAWS]."""
    return np.stack([np.random.default_rng(draw).permutation(count) for draw in range(DRAWS)], -1)


def main() -> None:
    result = fdl.sweep(build, Config(), over={"share": SHARES, "draw": range(DRAWS)}, seeds=range(SEEDS))
    print(f"{len(result)} runs, programs: {result.compiles}, {result.info['seconds_train']:.1f} s of training")
    accuracies = result.metrics["test/accuracy"].reshape(len(SHARES), -1)
    counts = [round(share * len(fdl.data.load("digits", split="train"))) for share in SHARES]
    for count, row in zip(counts, accuracies, strict=True):
        print(f"{count:5d} images  {row.mean():.1%} +- {row.std():.1%}")
    draw(counts, accuracies)
    print("picture: learning_curve.png")


def draw(counts: list[int], accuracies: np.ndarray) -> None:
    """Mean accuracy over the number of images, in a band of one standard deviation each way."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axis = figure.subplots()
    mean, std = 100 * accuracies.mean(1), 100 * accuracies.std(1)
    axis.plot(counts, mean, marker="o", markersize=4, color="#0072B2", label="mean")
    axis.fill_between(counts, mean - std, mean + std, color="#0072B2", alpha=0.2, label="+- one standard deviation")
    axis.set(xscale="log", xlabel="training images", ylabel="test accuracy, %", title="What more images are worth")
    axis.set_xticks(counts, [str(count) for count in counts])
    axis.minorticks_off()
    axis.legend(title=f"{DRAWS} draws, {SEEDS} seeds each", loc="lower right", frameon=False)
    axis.grid(alpha=0.3)
    figure.savefig("learning_curve.png", dpi=120)


if __name__ == "__main__":
    main()
