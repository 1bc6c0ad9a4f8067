"""Residual networks: ResNet-20 ... 110 for CIFAR, ResNet-18 ... 152 for ImageNet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp

from fdl import nn
from fdl.core import Layer, Tree
from fdl.errors import InputError
from fdl.fields import Size, is_whole
from fdl.initializers import HeNormal
from fdl.nn.containers import Part
from fdl.shapes import expect

Block = Literal["basic", "bottleneck"]
Shortcut = Literal["pad", "project"]

EXPANSION = {"basic": 1, "bottleneck": 4}  # channels that leave a block, over those inside it


def resnet(
    in_channels: Size,
    num_classes: int,
    *,
    depths: Sequence[int],
    widths: Sequence[int],
    block: Block = "basic",
    shortcut: Shortcut = "project",
    large_images: bool = False,
) -> nn.Serial:
    """A stem, stages of residual blocks, the mean over positions, a linear layer.

    Args:
      in_channels: 3 for colour images.
      num_classes: logits.
      depths: blocks of each stage; every stage but the first halves height and width.
      widths: channels inside the blocks of each stage.
      block: "basic", two convolutions 3 x 3, or "bottleneck", 1 x 1, 3 x 3 and 1 x 1 with 4 times the channels out.
      shortcut: where a block changes the shape: "pad" subsamples and adds channels of zeros (the paper's option A),
        "project" is a convolution 1 x 1 (option B).
      large_images: a stem that divides height and width by 4 (a 7 x 7 convolution of stride 2, then max pooling) in
        place of a 3 x 3 convolution.
    Call: `apply(params, state, x [B, H, W, in_channels])` -> (logits [B, num_classes], state).

    A bottleneck has its stride in the 3 x 3 convolution, as torchvision (the paper: in the first 1 x 1). Convolutions
    before a BatchNorm have no bias, and pad like PyTorch's, alike on both sides. Params: "stem/conv/kernel",
    "stages/1/0/sum/block/conv1/kernel", "stages/1/0/sum/shortcut/conv/kernel", "head/kernel".

    Raises:
      InputError: depths and widths that do not go together, an unknown block or shortcut.

    Reference: He et al., Deep residual learning for image recognition, 2016.

    >>> import fdl
    >>> model = resnet(3, 10, depths=(1, 1), widths=(4, 8))
    >>> params, state = fdl.abstract(model)
    >>> jax.eval_shape(model.apply, params, state, jnp.ones((2, 8, 8, 3)))[0].shape
    (2, 10)
    """
    if len(depths) != len(widths) or not depths or not all(is_whole(size, 1) for size in (*depths, *widths)):
        raise InputError(f"resnet: expected a depth and a width >= 1 for each stage, got {depths=}, {widths=}")
    if block not in EXPANSION or shortcut not in ("pad", "project"):
        raise InputError(
            f'resnet: expected block "basic" or "bottleneck", shortcut "pad" or "project", got {block!r}, {shortcut!r}'
        )
    stages, channels = [], widths[0]
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        blocks = []
        for i in range(depth):
            stride = 2 if stage > 0 and i == 0 else 1
            blocks.append(_residual(block, shortcut, channels, width, stride))
            channels = width * EXPANSION[block]
        stages.append(nn.Serial(*blocks))
    stem = _stem(in_channels, widths[0], large_images)
    return nn.Serial(
        stem=stem, stages=nn.Serial(*stages), pool=nn.GlobalAvgPool(), head=nn.Linear(channels, num_classes)
    )


def resnet20(in_channels: int = 3, num_classes: int = 10, shortcut: Shortcut = "pad") -> nn.Serial:
    """For CIFAR images, 0.27 M parameters (section 4.2); so `resnet32`, `resnet44`, `resnet56`, `resnet110`."""
    return _cifar(3, in_channels, num_classes, shortcut)


def resnet32(in_channels: int = 3, num_classes: int = 10, shortcut: Shortcut = "pad") -> nn.Serial:
    """For CIFAR images, 0.46 M parameters."""
    return _cifar(5, in_channels, num_classes, shortcut)


def resnet44(in_channels: int = 3, num_classes: int = 10, shortcut: Shortcut = "pad") -> nn.Serial:
    """For CIFAR images, 0.66 M parameters."""
    return _cifar(7, in_channels, num_classes, shortcut)


def resnet56(in_channels: int = 3, num_classes: int = 10, shortcut: Shortcut = "pad") -> nn.Serial:
    """For CIFAR images, 0.85 M parameters."""
    return _cifar(9, in_channels, num_classes, shortcut)


def resnet110(in_channels: int = 3, num_classes: int = 10, shortcut: Shortcut = "pad") -> nn.Serial:
    """For CIFAR images, 1.7 M parameters."""
    return _cifar(18, in_channels, num_classes, shortcut)


def resnet18(in_channels: int = 3, num_classes: int = 1000) -> nn.Serial:
    """For ImageNet images, 11.7 M parameters (table 1); so `resnet34`, `resnet50`, `resnet101`, `resnet152`."""
    return _imagenet("basic", (2, 2, 2, 2), in_channels, num_classes)


def resnet34(in_channels: int = 3, num_classes: int = 1000) -> nn.Serial:
    """For ImageNet images, 21.8 M parameters."""
    return _imagenet("basic", (3, 4, 6, 3), in_channels, num_classes)


def resnet50(in_channels: int = 3, num_classes: int = 1000) -> nn.Serial:
    """For ImageNet images, 25.6 M parameters."""
    return _imagenet("bottleneck", (3, 4, 6, 3), in_channels, num_classes)


def resnet101(in_channels: int = 3, num_classes: int = 1000) -> nn.Serial:
    """For ImageNet images, 44.5 M parameters."""
    return _imagenet("bottleneck", (3, 4, 23, 3), in_channels, num_classes)


def resnet152(in_channels: int = 3, num_classes: int = 1000) -> nn.Serial:
    """For ImageNet images, 60.2 M parameters."""
    return _imagenet("bottleneck", (3, 8, 36, 3), in_channels, num_classes)


@dataclass(frozen=True)
class PadShortcut(Layer):
    """Every stride-th pixel, with channels of zeros on both sides: the shortcut that has no parameters (option A).

    Call: x [B, H, W, in_channels] -> [B, H / stride, W / stride, out_channels], sizes rounded up.

    >>> PadShortcut(2, 4, 2)({}, jnp.ones((1, 3, 3, 2)))[0, 0].tolist()
    [[0.0, 1.0, 1.0, 0.0], [0.0, 1.0, 1.0, 0.0]]
    """

    in_channels: Size
    out_channels: Size
    stride: Size

    def __call__(self, params: Tree, x: jax.Array, *, key: jax.Array | None = None, train: bool = False) -> jax.Array:
        del params, key, train
        expect(self, x, "[B, H, W, in_channels]")
        new = self.out_channels - self.in_channels
        low = new // 2
        return jnp.pad(x[:, :: self.stride, :: self.stride], ((0, 0), (0, 0), (0, 0), (low, new - low)))


def _cifar(n: int, in_channels: int, num_classes: int, shortcut: Shortcut) -> nn.Serial:
    """6 n + 2 layers with weights: three stages of n blocks of two, the first convolution, the head."""
    return resnet(in_channels, num_classes, depths=(n, n, n), widths=(16, 32, 64), shortcut=shortcut)


def _imagenet(block: Block, depths: Sequence[int], in_channels: int, num_classes: int) -> nn.Serial:
    return resnet(in_channels, num_classes, depths=depths, widths=(64, 128, 256, 512), block=block, large_images=True)


def _stem(in_channels: int, channels: int, large_images: bool) -> nn.Serial:
    conv = _conv(in_channels, channels, *((7, 2) if large_images else (3, 1)))
    pool = {"pool": nn.MaxPool(3, 2, padding=1)} if large_images else {}
    return nn.Serial(conv=conv, norm=nn.BatchNorm(channels), relu=jax.nn.relu, **pool)


def _residual(block: Block, shortcut: Shortcut, in_channels: int, width: int, stride: int) -> nn.Serial:
    """relu(shortcut(x) + convolutions(x))."""
    out_channels = width * EXPANSION[block]
    if block == "basic":
        convs = [_conv(in_channels, width, 3, stride), _conv(width, width, 3)]
    else:
        convs = [_conv(in_channels, width, 1), _conv(width, width, 3, stride), _conv(width, out_channels, 1)]
    body: dict[str, Part] = {}
    for number, conv in enumerate(convs, start=1):
        body |= {f"conv{number}": conv, f"norm{number}": nn.BatchNorm(conv.out_channels)}
        body |= {f"relu{number}": jax.nn.relu} if number < len(convs) else {}
    same = stride == 1 and in_channels == out_channels
    skip = None if same else _shortcut(shortcut, in_channels, out_channels, stride)
    return nn.Serial(sum=nn.Residual(nn.Serial(**body), skip), relu=jax.nn.relu)


def _shortcut(kind: Shortcut, in_channels: int, out_channels: int, stride: int) -> Layer:
    if kind == "pad":
        return PadShortcut(in_channels, out_channels, stride)
    return nn.Serial(conv=_conv(in_channels, out_channels, 1, stride), norm=nn.BatchNorm(out_channels))


def _conv(in_channels: int, out_channels: int, size: int, stride: int = 1) -> nn.Conv:
    """Height / stride, rounded up, for an odd size; without a bias, which the BatchNorm behind would remove."""
    return nn.Conv(in_channels, out_channels, size, stride, padding=size // 2, use_bias=False, kernel_init=HeNormal())
