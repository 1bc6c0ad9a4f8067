"""Logistic regression fitted by L-BFGS: the engine hands any Optax optimizer what a line search asks for.

    fdl run experiments/lbfgs.py
    fdl run experiments/lbfgs.py --inverse-penalty 0.1

A whole-batch objective that is smooth and convex has one minimum, and a quasi-Newton method finds it to the last digits
in tens of steps (Liu & Nocedal, 1989). `optax.lbfgs` needs the loss, the gradient and the loss as a function of the
parameters (for its zoom line search); every optimizer gets them, and `sgd` ignores them. The penalty is not the loss of
any example, so each example carries it once: the mean over examples is then the objective.

The problem is scikit-learn's `LogisticRegression(C)` on its breast cancer set (569 biopsies, 30 standardised features),
which minimises sum_i loss_i + |w|^2 / (2 C); divided by the n examples that is mean loss + |w|^2 / (2 C n).

Measured, any seed (the weights start at 0), against scikit-learn's newton-cholesky at tol=1e-12: after 60 steps every
coefficient agrees to 1.0e-5 of its own size, after 100 to 7.3e-6, which is what float32 resolves; in float64 to 7.5e-11
after 100. Loss 0.0663602, accuracy 98.77 %. A run takes 4 s of processor time, 0.01 s of it training (2 x86-64 cores,
CPU).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

import fdl
from fdl import nn


@dataclass(frozen=True)
class Config:
    inverse_penalty: float = 1.0
    """scikit-learn's C: the smaller, the stronger the pull of the weights to 0; the bias is free."""
    num_steps: int = 100
    """Steps of L-BFGS, each on all examples."""


def biopsies() -> tuple[np.ndarray, np.ndarray]:
    """The 30 features of 569 biopsies, each with mean 0 and variance 1, and 1 for the benign ones."""
    from sklearn.datasets import load_breast_cancer

    data: Any = load_breast_cancer()
    return (data.data - data.data.mean(0)) / data.data.std(0), data.target


def build(config: Config) -> fdl.Experiment:
    x, y = biopsies()
    dtype = jnp.result_type(float)  # float64 inside jax.enable_x64(True), float32 otherwise
    data = fdl.data.Arrays(x=x.astype(dtype), y=y.astype(np.int32))
    model = nn.Linear(x.shape[1], 1, kernel_init=fdl.initializers.Zeros())
    decay = 1 / (config.inverse_penalty * len(x))

    def objective(params: Any, state: Any, batch: Any, *, key: Any, train: bool) -> fdl.Outcome:
        del key, train
        logits = model(params, batch["x"])[:, 0]
        misfit = fdl.losses.sigmoid_binary_cross_entropy(logits, batch["y"])
        accuracy = ((logits > 0) == (batch["y"] > 0)).astype(jnp.float32)
        penalty = decay / 2 * jnp.square(params["kernel"]).sum()
        return fdl.Outcome(misfit + penalty, metrics={"accuracy": accuracy, "misfit": misfit})

    return fdl.Experiment(
        task=fdl.Task(lambda key: fdl.init(model, key, dtype), objective, specs=model.specs()),
        optimizer=optax.lbfgs(),
        train=data,
        evaluate={"biopsies": data},  # the minimum of a convex function is the question, not generalising
        num_steps=config.num_steps,
    )
