"""The perceptron, and layers of them."""

from __future__ import annotations

from collections.abc import Callable

import jax

from fdl import nn
from fdl.core import Initializer
from fdl.errors import InputError
from fdl.fields import DropRate, check_values
from fdl.initializers import LecunNormal
from fdl.nn.dropout import drops

KERNEL = LecunNormal()


def perceptron(in_features: int, out_features: int) -> nn.Serial:
    """logits = x @ kernel + bias: one layer, and so one hyperplane a class.

    Args:
      in_features: numbers in an example.
      out_features: logits; 1 for Rosenblatt's unit, whose threshold is logits > 0.
    Call: x [B, ...] with in_features numbers in an example, such as an image -> [B, out_features].

    Reference: Rosenblatt, The perceptron, 1958.

    >>> perceptron(784, 10)
    Serial(flatten=Flatten(), head=Linear(784, 10))
    """
    return nn.Serial(flatten=nn.Flatten(), head=nn.Linear(in_features, out_features))


def mlp(
    in_features: int,
    *sizes: int,
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    dropout: float = 0.0,
    kernel_init: Initializer = KERNEL,
) -> nn.Serial:
    """logits = x_n @ kernel + bias, x_i = activation(x_{i-1} @ kernel_i + bias_i): hidden layers, then a linear one.

    Args:
      in_features: numbers in an example.
      sizes: units of each layer; the last are the outputs.
      activation: after every hidden layer.
      dropout: the probability of dropping a hidden unit.
      kernel_init: of every layer.
    Call: x [B, ...] with in_features numbers in an example -> [B, sizes[-1]].

    Raises:
      InputError: no sizes.

    Reference: Rumelhart et al., Learning representations by back-propagating errors, 1986.

    >>> mlp(784, 128, 10)
    Serial(flatten=Flatten(), hidden=Serial(Serial(linear=Linear(784, 128), activation=jax.nn.relu)), head=Linear(128, 10))
    """  # noqa: E501
    if not sizes:
        raise InputError(f"mlp: expected the size of at least one layer after in_features={in_features}")
    check_values("mlp", DropRate, dropout=dropout)
    *hidden, out_features = sizes
    layers, features = [], in_features
    for size in hidden:
        drop = {"dropout": nn.Dropout(dropout)} if drops(dropout) else {}
        linear = nn.Linear(features, size, kernel_init=kernel_init)
        layers.append(nn.Serial(linear=linear, activation=activation, **drop))
        features = size
    head = nn.Linear(features, out_features, kernel_init=kernel_init)
    return nn.Serial(flatten=nn.Flatten(), hidden=nn.Serial(*layers), head=head)
