"""Deep sigmoid networks do not learn because their gradients vanish; ReLU with He's initial values do.

    python experiments/vanishing_gradients.py               # the table and a picture, vanishing_gradients.png
    fdl run experiments/vanishing_gradients.py --activation sigmoid

Backpropagation multiplies by the activation's slope at every layer. A sigmoid's is at most 1/4, and twenty layers of
it leave next to nothing; tanh has slope 1 at 0; ReLU halves the squared gradient where He's variance 2 / fan_in doubles
it again (Glorot & Bengio, 2010; He et al., 2015). The network is a multi-layer perceptron of 20 layers of 128 units on
the digits of scikit-learn, trained by Adam for 20 epochs.

Measured, seed 0, 21 s of processor time for everything (2 x86-64 cores, CPU):

    activation  gradient norm, layer 1 -> layer 20   test accuracy
    sigmoid      1.7e-13 -> 1.5e-01                  8.1%
    tanh         1.6e-01 -> 2.1e-01                  97.5%
    relu         2.0e-01 -> 2.9e-01                  96.1%
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import optax

import fdl
from fdl import initializers, nn

ACTIVATIONS = {
    "sigmoid": (jax.nn.sigmoid, initializers.XavierNormal()),
    "tanh": (jnp.tanh, initializers.XavierNormal()),
    "relu": (jax.nn.relu, initializers.HeNormal()),
}


@dataclass(frozen=True)
class Config:
    activation: Literal["sigmoid", "tanh", "relu"] = "relu"
    """Activation, with the initial values that belong to it: Xavier, Xavier, He."""
    depth: int = 20
    """Hidden layers."""
    width: int = 128
    """Units a layer."""
    learning_rate: float = 1e-4
    """Of Adam."""
    num_epochs: int = 20
    """Passes over the training data."""


def network(config: Config) -> nn.Serial:
    activation, kernel_init = ACTIVATIONS[config.activation]
    sizes = [64, *[config.width] * config.depth]
    layers = [nn.Linear(a, b, kernel_init=kernel_init) for a, b in itertools.pairwise(sizes)]
    hidden = [part for layer in layers for part in (layer, activation)]
    return nn.Serial(nn.Flatten(), *hidden, head=nn.Linear(config.width, 10))


def build(config: Config) -> fdl.Experiment:
    return fdl.Experiment(
        task=fdl.supervised(network(config), fdl.losses.softmax_cross_entropy, {"accuracy": fdl.metrics.accuracy}),
        optimizer=optax.adam(config.learning_rate),
        train=fdl.data.load("digits", split="train"),
        evaluate={"test": fdl.data.load("digits", split="test")},
        batch_size=32,
        num_epochs=config.num_epochs,
    )


def gradient_norms(config: Config, seed: int = 0) -> list[float]:
    """The norm of the loss's gradient in each hidden layer's kernel, from the input to the output, before training."""
    model, data = network(config), fdl.data.load("digits", split="train")
    params, state = fdl.init(model, jax.random.key(seed))

    def loss(params):
        logits, _ = model.apply(params, state, data["x"])
        return fdl.losses.softmax_cross_entropy(logits, data["y"]).mean()

    grads = jax.jit(jax.grad(loss))(params)
    return [float(jnp.linalg.norm(grads[str(1 + 2 * i)]["kernel"])) for i in range(config.depth)]


def main() -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 3.6), layout="constrained")
    print("activation  gradient norm, layer 1 -> layer 20   test accuracy")
    for activation in ("sigmoid", "tanh", "relu"):
        config = Config(activation)
        norms = gradient_norms(config)
        accuracy = fdl.run(build, config).metrics["test/accuracy"]
        print(f"{activation:<10}  {norms[0]:8.1e} -> {norms[-1]:.1e}                  {accuracy:.1%}")
        axis.semilogy(
            range(1, config.depth + 1), norms, marker="o", markersize=3, label=f"{activation}: {accuracy:.0%}"
        )
    axis.set(xlabel="hidden layer", ylabel="norm of the kernel's gradient", title="Gradients before training")
    axis.set_xticks(range(1, Config.depth + 1, 3))
    axis.legend(title="test accuracy after training", frameon=False)
    axis.grid(alpha=0.3)
    figure.savefig("vanishing_gradients.png", dpi=150)
    print("picture: vanishing_gradients.png")


if __name__ == "__main__":
    main()
