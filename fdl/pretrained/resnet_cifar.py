"""ResNet-20 ... 110 for CIFAR-10 in the layout of akamaster/pytorch_resnet_cifar10, and of models like it."""

from __future__ import annotations

import os
from typing import Any

import jax
import jax.numpy as jnp

from fdl.core import Layer, Tree
from fdl.models import resnet
from fdl.pretrained import mapping
from fdl.pretrained.files import read
from fdl.pretrained.mapping import Report, Rule, prefixed
from fdl.pretrained.pytorch import batch_norm, conv, linear

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def rules() -> list[Rule]:
    """conv1, bn1, layer{1,2,3}.{i}.{conv,bn}{1,2}, linear, of a residual network whose shortcuts have no parameters."""
    table = [*conv("conv1", "stem/conv", use_bias=False), *batch_norm("bn1", "stem/norm")]
    for stage in range(3):
        source, path = f"layer{stage + 1}.{{i}}", f"stages/{stage}/{{i}}/sum/block"
        table += conv(f"{source}.conv{{n}}", f"{path}/conv{{n}}", use_bias=False)
        table += batch_norm(f"{source}.bn{{n}}", f"{path}/norm{{n}}")
    return [*table, *linear("linear", "head")]


def load(path: str | os.PathLike[str]) -> tuple[Layer, Tree, Tree, Report]:
    """(model, params, state, report) from such a file; the depth is read off it.

    The published test errors, 8.27 % (ResNet-20), 7.37 % (32) and 6.61 % (56), are met exactly, with images as
    `normalized` makes them.

    Raises:
      InputError: not such a file.

    Source: github.com/akamaster/pytorch_resnet_cifar10.
    """
    tensors = read(path)
    table = prefixed("state_dict/module.", rules())
    depth = sum(name.startswith("state_dict/module.layer1.") and name.endswith("conv1.weight") for name in tensors)
    model = resnet(3, 10, depths=(max(depth, 1),) * 3, widths=(16, 32, 64), shortcut="pad")
    return model, *mapping.load(model, tensors, table)


def normalized(images: Any) -> jax.Array:
    """Images [B, H, W, 3] in 0..1 (`fdl.data.load("cifar10")`) as these networks want them: (x - mean) / std.

    >>> normalized(jnp.zeros((1, 1, 1, 3))).round(2).tolist()
    [[[[-2.11..., -2.03..., -1.79...]]]]
    """
    images = jnp.asarray(images)
    return (images - jnp.asarray(MEAN, images.dtype)) / jnp.asarray(STD, images.dtype)
