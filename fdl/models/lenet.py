"""LeNet-5: the convolutional network that read cheques."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from fdl import nn
from fdl.errors import InputError
from fdl.fields import Size, check_values


def lenet5(
    in_channels: int = 1,
    num_classes: int = 10,
    *,
    image_size: int = 28,
    activation: Callable[[jax.Array], jax.Array] = jnp.tanh,
) -> nn.Serial:
    """Two convolutions 5 x 5, each halved by mean pooling, then layers of 120, 84 and num_classes units.

    Args:
      in_channels: 1 for gray images.
      num_classes: logits.
      image_size: height and width of an image, 12 or more; 28 is MNIST, padded to 32 by the first convolution.
      activation: after every layer but the last.
    Call: x [B, image_size, image_size, in_channels] -> logits [B, num_classes].

    The textbook's form. In the paper pooling has a weight and a bias a channel, the second convolution leaves out some
    pairs of channels, and the last layer measures distances to drawn digits (sections II.B and C).

    Reference: LeCun et al., Gradient-based learning applied to document recognition, 1998, figure 2.

    >>> import jax.numpy as jnp, fdl
    >>> model = lenet5()
    >>> params, _ = fdl.abstract(model)
    >>> jax.eval_shape(model, params, jnp.ones((1, 28, 28, 1))).shape
    (1, 10)
    """
    check_values("lenet5", Size, image_size=image_size)
    positions = (image_size // 2 - 4) // 2  # after pooling, a convolution without padding, and pooling
    if positions < 1:
        raise InputError(f"lenet5: expected image_size 12 or more, got {image_size}")
    features = nn.Serial(
        conv1=nn.Conv(in_channels, 6, 5),
        activation1=activation,
        pool1=nn.AvgPool(2),
        conv2=nn.Conv(6, 16, 5, padding="VALID"),
        activation2=activation,
        pool2=nn.AvgPool(2),
    )
    classifier = nn.Serial(
        linear1=nn.Linear(16 * positions**2, 120),
        activation1=activation,
        linear2=nn.Linear(120, 84),
        activation2=activation,
    )
    return nn.Serial(features=features, flatten=nn.Flatten(), classifier=classifier, head=nn.Linear(84, num_classes))
