"""One unit learns AND and OR but not XOR; with a hidden layer it learns all three.

    python experiments/perceptron.py                        # the table
    fdl run experiments/perceptron.py --gate xor --hidden 8

A unit draws one straight line through the plane, and no line has (0, 1) and (1, 0) on one side and (0, 0) and (1, 1) on
the other (Minsky & Papert, Perceptrons, 1969). Its loss is convex, and on XOR the minimum lies at weights of zero:
every probability is 1/2, the loss is ln 2 = 0.693, and the accuracy is what rounding makes of it, never more than 75 %.
No learning rate and no patience help.

Measured, seed 0, 5 s for everything (2 x86-64 cores, CPU); seeds 1 to 4 differ in the 25 %, which is then 25 % or 75 %:

    gate  one unit            8 hidden units
    and   100%, loss 0.0174   100%, loss 0.0006
    or    100%, loss 0.0093   100%, loss 0.0003
    xor    25%, loss 0.6931   100%, loss 0.0017
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax

import fdl
from fdl import nn

INPUTS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
OUTPUTS = {"and": [0, 0, 0, 1], "or": [0, 1, 1, 1], "xor": [0, 1, 1, 0]}


@dataclass(frozen=True)
class Config:
    gate: Literal["and", "or", "xor"] = "xor"
    """The function of two bits to learn."""
    hidden: int = 0
    """Hidden tanh units; 0 = none, a single unit."""
    learning_rate: float = 0.5
    """Step size of plain gradient descent on all four points at once."""
    num_steps: int = 2000
    """Number of such steps."""


def build(config: Config) -> fdl.Experiment:
    if config.hidden:
        model = nn.Serial(nn.Linear(2, config.hidden), jax.nn.tanh, nn.Linear(config.hidden, 1))
    else:
        model = nn.Serial(nn.Linear(2, 1))
    points = fdl.data.Arrays(x=INPUTS, y=np.array(OUTPUTS[config.gate], np.float32)[:, None])
    return fdl.Experiment(
        task=fdl.supervised(model, fdl.losses.sigmoid_binary_cross_entropy, metrics={"accuracy": correct}),
        optimizer=optax.sgd(config.learning_rate),
        train=points,
        evaluate={"gate": points},  # there are only four points: learning them is the question, not generalising
        num_steps=config.num_steps,
    )


def correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """1 where the unit, thresholded at a probability of 1/2, gives the label."""
    return ((logits > 0) == (labels > 0.5)).astype(jnp.float32)


def main() -> None:
    print("gate  one unit            8 hidden units")
    for gate in ("and", "or", "xor"):
        cells = []
        for hidden in (0, 8):
            metrics = fdl.run(build, Config(gate, hidden)).metrics
            cells.append(f"{metrics['gate/accuracy']:4.0%}, loss {metrics['gate/loss']:.4f}")
        print(f"{gate:<4}  {cells[0]}   {cells[1]}")


if __name__ == "__main__":
    main()
