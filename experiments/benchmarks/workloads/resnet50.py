"""G3, on a GPU: ResNet-50 in bfloat16 on images of 224 x 224, batches of 128.

Trained with momentum; batch normalisation in float32. PyTorch has its images and kernels channels-last, eager and
compiled.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from experiments.benchmarks import trainers
from experiments.benchmarks.job import Job
from experiments.benchmarks.optimizers import MOMENTUM

DEVICE, UNIT = "gpu", "images"
SIZES = {
    **{"steps": 40, "examples": 512, "batch": 128, "side": 224, "classes": 1000},
    **{"depths": [3, 4, 6, 3], "widths": [64, 128, 256, 512], "precision": "bfloat16"},
    **{"rate": 1e-3, "optimizer": "momentum", "loss": "cross_entropy"},
}
SMOKE = {
    **{"steps": 3, "examples": 16, "batch": 8, "side": 32, "classes": 10},
    **{"depths": [2, 1], "widths": [8, 16]},
}
EXPANSION, EPS, KEPT = 4, 1e-5, 0.9  # channels out of a block over those inside; of batch normalisation


def data(sizes: dict[str, Any]) -> dict[str, np.ndarray]:
    """Ten patterns under noise, each the sign of some classes."""
    rng = np.random.default_rng(0)
    shape = (sizes["side"], sizes["side"], 3)
    y = rng.integers(0, sizes["classes"], sizes["examples"]).astype(np.int32)
    patterns = rng.normal(size=(10, *shape)).astype(np.float32)
    x = rng.standard_normal((sizes["examples"], *shape), np.float32)
    return {"x": x + 0.5 * patterns[y % 10], "y": y}


def blocks(sizes: dict[str, Any]) -> Iterator[tuple[str, str, int, int, int]]:
    """(stage, number in it, channels in, channels inside, stride) of each."""
    channels = sizes["widths"][0]
    for stage, (depth, width) in enumerate(zip(sizes["depths"], sizes["widths"], strict=True)):
        for i in range(depth):
            yield str(stage), str(i), channels, width, 2 if stage > 0 and i == 0 else 1
            channels = EXPANSION * width


def units(sizes: dict[str, Any]) -> int:
    """Images of a run."""
    return sizes["steps"] * sizes["batch"]


def multiplications(sizes: dict[str, Any]) -> int:
    """Of one image, forwards, by convolutions and the last layer."""
    halved = lambda side: -(-side // 2)  # noqa: E731
    side = halved(sizes["side"])
    total, side, out = side**2 * 7 * 7 * 3 * sizes["widths"][0], halved(side), 0
    for _, _, channels, width, stride in blocks(sizes):
        before, side, out = side, side if stride == 1 else halved(side), EXPANSION * width
        total += before**2 * channels * width + side**2 * (9 * width**2 + width * out)
        total += side**2 * channels * out if channels != out else 0
    return total + out * sizes["classes"]


def flops(sizes: dict[str, Any]) -> float:
    """Of a run: two a multiplication, and backwards twice as many as forwards."""
    return 6.0 * units(sizes) * multiplications(sizes)


def experiment(sizes: dict[str, Any], data: dict[str, np.ndarray]) -> Any:
    import optax

    import fdl

    shape = {"depths": sizes["depths"], "widths": sizes["widths"], "block": "bottleneck", "large_images": True}
    model = fdl.models.resnet(3, sizes["classes"], **shape)
    task = fdl.supervised(model, fdl.losses.softmax_cross_entropy)
    options = {"batch_size": sizes["batch"], "num_steps": sizes["steps"]}
    options |= {"precision": sizes.get("precision")}
    return fdl.Experiment(task, optax.sgd(sizes["rate"], MOMENTUM), fdl.data.Arrays(**data), **options)


def ours(job: Job) -> trainers.Train:
    return trainers.fdl(job, experiment)


def limit(job: Job) -> trainers.Train:
    return trainers.limit(job, forward(job.sizes), statistics(job.params))


def forward(sizes: dict[str, Any]) -> trainers.Forward:
    """(params, batch, state) -> (logits, state), where `state` has the running mean and variance of each norm."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    def convolution(x: Any, params: Any, stride: int = 1) -> Any:
        kernel = params["kernel"]
        pad = [(kernel.shape[0] // 2,) * 2] * 2
        return lax.conv_general_dilated(x, kernel, (stride, stride), pad, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def norm(x: Any, params: Any, running: Any) -> Any:
        wide, count = x.astype(jnp.float32), x.size // x.shape[-1]
        mean, square = wide.mean((0, 1, 2)), jnp.square(wide).mean((0, 1, 2))  # in one pass over x
        var = square - jnp.square(mean)
        batch = {"mean": mean, "var": var * count / (count - 1)}
        running = jax.tree.map(lambda old, new: KEPT * old + (1 - KEPT) * lax.stop_gradient(new), running, batch)
        y = (wide - mean) * (lax.rsqrt(var + EPS) * params["scale"]) + params["bias"]
        return y.astype(x.dtype), running

    def block(x: Any, params: Any, state: Any, stride: int) -> Any:
        parts, running, now = params["sum"]["block"], state["sum"]["block"], {"block": {}}
        h = x
        for i in "123":
            h = convolution(h, parts[f"conv{i}"], stride if i == "2" else 1)
            h, now["block"][f"norm{i}"] = norm(h, parts[f"norm{i}"], running[f"norm{i}"])
            h = jax.nn.relu(h) if i != "3" else h
        if "shortcut" in params["sum"]:
            skip, running = params["sum"]["shortcut"], state["sum"]["shortcut"]
            x, after = norm(convolution(x, skip["conv"], stride), skip["norm"], running["norm"])
            now["shortcut"] = {"norm": after}
        return jax.nn.relu(h + x), {"sum": now}

    def apply(params: Any, batch: Any, state: Any) -> Any:
        now: dict[str, Any] = {"stem": {}, "stages": {stage: {} for stage in state["stages"]}}
        x = convolution(batch["x"], params["stem"]["conv"], 2)
        x, now["stem"]["norm"] = norm(x, params["stem"]["norm"], state["stem"]["norm"])
        pad = ((0, 0), (1, 1), (1, 1), (0, 0))
        x = lax.reduce_window(jax.nn.relu(x), -np.inf, lax.max, (1, 3, 3, 1), (1, 2, 2, 1), pad)
        for stage, i, _, _, stride in blocks(sizes):
            x, now["stages"][stage][i] = block(x, params["stages"][stage][i], state["stages"][stage][i], stride)
        x = x.astype(jnp.float32).mean((1, 2)).astype(x.dtype)
        return x @ params["head"]["kernel"] + params["head"]["bias"], now

    return apply


def statistics(params: dict[str, Any]) -> dict[str, Any]:
    """The running mean 0 and variance 1 of each norm, found by its scale."""
    if "scale" in params:
        return {"mean": np.zeros_like(params["scale"]), "var": np.ones_like(params["scale"])}
    found = {name: statistics(part) for name, part in params.items() if isinstance(part, dict)}
    return {name: part for name, part in found.items() if part}


def torch(job: Job, compile: bool = False) -> trainers.Train:
    import torch

    model = trainers.load_torch(torch_model(job.sizes), job.params).to(memory_format=torch.channels_last)
    # What is [B, H, W, C] in memory is, with its axes called [B, C, H, W], channels-last.
    return trainers.torch(job, model, lambda model, batch: model(batch["x"].permute(0, 3, 1, 2)), compile)


def torch_model(sizes: dict[str, Any]) -> Any:
    """Modules with the names of fdl's."""
    from torch import nn

    def named(**parts: nn.Module) -> nn.Sequential:
        made = nn.Sequential()
        for name, part in parts.items():
            made.add_module(name, part)
        return made

    def convolution(channels: int, out: int, size: int, stride: int = 1) -> nn.Module:
        return nn.Conv2d(channels, out, size, stride, size // 2, bias=False)

    def relu() -> nn.Module:
        return nn.ReLU(inplace=True)

    class Residual(nn.Module):
        def __init__(self, channels: int, width: int, stride: int) -> None:
            super().__init__()
            out = EXPANSION * width
            one = {"conv1": convolution(channels, width, 1), "norm1": nn.BatchNorm2d(width), "relu1": relu()}
            two = {"conv2": convolution(width, width, 3, stride), "norm2": nn.BatchNorm2d(width), "relu2": relu()}
            block = named(**one, **two, conv3=convolution(width, out, 1), norm3=nn.BatchNorm2d(out))
            skip = named(conv=convolution(channels, out, 1, stride), norm=nn.BatchNorm2d(out))
            same = stride == 1 and channels == out
            self.sum, self.relu = nn.ModuleDict({"block": block, "shortcut": nn.Identity() if same else skip}), relu()

        def forward(self, x: Any) -> Any:
            return self.relu(self.sum["block"](x) + self.sum["shortcut"](x))

    stages: dict[str, dict[str, nn.Module]] = {}
    for stage, i, *shape in blocks(sizes):
        stages.setdefault(stage, {})[i] = Residual(*shape)
    first = sizes["widths"][0]
    stem = {"conv": convolution(3, first, 7, 2), "norm": nn.BatchNorm2d(first), "relu": relu()}
    return named(
        stem=named(**stem, pool=nn.MaxPool2d(3, 2, 1)),
        stages=named(**{stage: named(**parts) for stage, parts in stages.items()}),
        pool=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        head=nn.Linear(EXPANSION * sizes["widths"][-1], sizes["classes"]),
    )
