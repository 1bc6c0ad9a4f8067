# pyright: reportMissingImports=false, reportArgumentType=false
"""Linear, convolution, pooling, normalisation, PReLU against PyTorch and Flax: weights copied, values and gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import nn
from tests.compiling import QUICK

RANDOM = np.random.default_rng(0)
IMAGE = RANDOM.normal(size=(3, 8, 7, 4)).astype(np.float32)
VOLUME = RANDOM.normal(size=(3, 4, 5, 3, 4)).astype(np.float32)
VECTOR = RANDOM.normal(size=(6, 4)).astype(np.float32)


def close(got: Any, want: Any) -> None:
    """1e-5, and 3e-5 of the largest value: float32 sums of another order, and gradients of norms cancel."""
    got, want = np.asarray(got), np.asarray(want)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=3e-5 * max(1.0, float(np.abs(want).max())))


def ours(layer: fdl.Layer, x: np.ndarray, train: bool) -> tuple[Any, Any, Any, Any, Any]:
    """params, y, the new state, and the gradients of sum(y^2) in params and x, from random params."""
    params, state = fdl.init(layer, jax.random.key(0))
    params = jax.tree.map(lambda a: jnp.asarray(RANDOM.normal(size=a.shape), a.dtype) + 0.1, params)

    def loss(params: Any, x: Any) -> Any:
        y, new = layer.apply(params, state, x, train=train)
        return jnp.sum(y**2), (y, new)

    (_, (y, new)), (in_params, in_x) = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True), compiler_options=QUICK)(
        params, x
    )
    return params, y, new, in_params, in_x


def first(a: np.ndarray) -> np.ndarray:
    """Channels first."""
    return np.moveaxis(a, -1, 1)


def last(a: Any) -> np.ndarray:
    return np.moveaxis(np.asarray(a), 1, -1)


def conv_weight(a: Any) -> np.ndarray:
    """[*spatial, in, out] -> [out, in, *spatial]."""
    return np.moveaxis(np.asarray(a), (-1, -2), (0, 1))


def transposed_weight(a: Any) -> np.ndarray:
    """[*spatial, in, out] -> [in, out, *spatial]."""
    return np.moveaxis(np.asarray(a), (-2, -1), (0, 1))


same = np.asarray
LINEAR = {"weight": ("kernel", np.transpose), "bias": ("bias", same)}
CONV = {"weight": ("kernel", conv_weight), "bias": ("bias", same)}
STAMP = {"weight": ("kernel", transposed_weight), "bias": ("bias", same)}
NORM = {"weight": ("scale", same), "bias": ("bias", same)}

TORCH: dict[str, tuple[fdl.Layer, Callable[[Any], Any], np.ndarray, dict[str, Any]]] = {
    "linear": (nn.Linear(4, 5), lambda t: t.Linear(4, 5), VECTOR, LINEAR),
    "conv": (nn.Conv(4, 6, 3, padding=1), lambda t: t.Conv2d(4, 6, 3, padding=1), IMAGE, CONV),
    "conv same": (nn.Conv(4, 6, (3, 5)), lambda t: t.Conv2d(4, 6, (3, 5), padding="same"), IMAGE, CONV),
    "conv strided": (nn.Conv(4, 6, 3, 2, padding=1), lambda t: t.Conv2d(4, 6, 3, 2, 1), IMAGE, CONV),
    "conv dilated": (
        nn.Conv(4, 6, 2, padding="VALID", dilation=2), lambda t: t.Conv2d(4, 6, 2, dilation=2), IMAGE, CONV,
    ),
    "conv grouped": (nn.Conv(4, 6, 3, padding=1, groups=2), lambda t: t.Conv2d(4, 6, 3, 1, 1, 1, 2), IMAGE, CONV),
    "conv depthwise": (nn.Conv(4, 8, 3, padding=1, groups=4), lambda t: t.Conv2d(4, 8, 3, 1, 1, 1, 4), IMAGE, CONV),
    "conv1d": (nn.Conv1d(4, 6, 3, padding=1), lambda t: t.Conv1d(4, 6, 3, padding=1), IMAGE[:, 0], CONV),
    "conv3d": (nn.Conv3d(4, 3, 2, padding="VALID"), lambda t: t.Conv3d(4, 3, 2), VOLUME, CONV),
    "conv transpose": (
        nn.ConvTranspose(4, 6, 3, 2, padding=((1, 0), (1, 0))),
        lambda t: t.ConvTranspose2d(4, 6, 3, 2, padding=1, output_padding=1), IMAGE, STAMP,
    ),
    "max pool": (nn.MaxPool(3, 2), lambda t: t.MaxPool2d(3, 2), IMAGE, {}),
    "avg pool": (
        nn.AvgPool(3, 2, padding=1), lambda t: t.AvgPool2d(3, 2, 1, count_include_pad=False), IMAGE, {},
    ),
    "adaptive avg pool": (nn.AdaptiveAvgPool((3, 2)), lambda t: t.AdaptiveAvgPool2d((3, 2)), IMAGE, {}),
    "adaptive max pool": (nn.AdaptiveMaxPool(3), lambda t: t.AdaptiveMaxPool2d(3), IMAGE, {}),
    "upsample": (nn.Upsample(2, "bilinear"), lambda t: t.Upsample(scale_factor=2, mode="bilinear"), IMAGE, {}),
    "batch norm": (nn.BatchNorm(4), lambda t: t.BatchNorm2d(4), IMAGE, NORM),
    "group norm": (nn.GroupNorm(2, 4), lambda t: t.GroupNorm(2, 4), IMAGE, NORM),
    "instance norm": (nn.InstanceNorm(4), lambda t: t.InstanceNorm2d(4, affine=True), IMAGE, NORM),
    "layer norm": (nn.LayerNorm(4), lambda t: t.LayerNorm(4), VECTOR, NORM),
    "rms norm": (nn.RMSNorm(4), lambda t: t.RMSNorm(4, eps=1e-6), VECTOR, {"weight": ("scale", same)}),
    "prelu": (nn.PReLU(4), lambda t: t.PReLU(4), IMAGE, {"weight": ("slope", same)}),
}  # fmt: skip


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", TORCH)
def test_pytorch(name: str, train: bool) -> None:
    torch = pytest.importorskip("torch")
    layer, make, x, names = TORCH[name]
    params, y, new, in_params, in_x = ours(layer, x, train)
    to, back = (first, last) if x.ndim > 2 else (same, same)
    module = make(torch.nn).train(train)
    with torch.no_grad():
        for theirs, (mine, convert) in names.items():
            getattr(module, theirs).copy_(torch.tensor(convert(np.asarray(params[mine])).copy()))
    inputs = torch.tensor(to(x).copy(), requires_grad=True)
    output = module(inputs)
    (output**2).sum().backward()
    close(y, back(output.detach().numpy()))
    close(in_x, back(inputs.grad.numpy()))
    for theirs, (mine, convert) in names.items():
        close(convert(np.asarray(in_params[mine])), getattr(module, theirs).grad.numpy())
    if name == "batch norm" and train:
        close(new["mean"], module.running_mean.numpy())
        close(new["var"], module.running_var.numpy())


def test_spectral_norm_of_pytorch_after_the_same_power_iterations() -> None:
    torch = pytest.importorskip("torch")
    layer = nn.SpectralNorm(nn.Linear(4, 5, use_bias=False))
    params, state = fdl.init(layer, jax.random.key(0))
    module = torch.nn.Linear(4, 5, bias=False)
    module.weight.data = torch.tensor(np.asarray(params["layer"]["kernel"]).T.copy())
    module = torch.nn.utils.parametrizations.spectral_norm(module)
    want = torch.tensor(0.0)
    for _ in range(50):
        _, state = layer.apply(params, state, VECTOR, train=True)
        want = module(torch.tensor(VECTOR))
    close(layer.apply(params, state, VECTOR)[0], want.detach().numpy())


def test_weight_norm_of_pytorch() -> None:
    torch = pytest.importorskip("torch")
    layer = nn.WeightNorm(nn.Linear(4, 5))
    params, y, _, in_params, in_x = ours(layer, VECTOR, False)
    module = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 5))
    with torch.no_grad():
        module.parametrizations.weight.original0.copy_(torch.tensor(np.asarray(params["scale"]))[:, None])
        module.parametrizations.weight.original1.copy_(torch.tensor(np.asarray(params["layer"]["kernel"]).T.copy()))
        module.bias.copy_(torch.tensor(np.asarray(params["layer"]["bias"])))
    inputs = torch.tensor(VECTOR, requires_grad=True)
    output = module(inputs)
    (output**2).sum().backward()
    close(y, output.detach().numpy())
    close(in_x, inputs.grad.numpy())
    close(in_params["scale"], module.parametrizations.weight.original0.grad.numpy()[:, 0])
    close(in_params["layer"]["kernel"], module.parametrizations.weight.original1.grad.numpy().T)


FLAX: dict[str, tuple[fdl.Layer, Callable[[Any], Any], np.ndarray]] = {
    "linear": (nn.Linear(4, 5), lambda f: f.Dense(5), VECTOR),
    "conv": (nn.Conv(4, 6, 3), lambda f: f.Conv(6, (3, 3)), IMAGE),
    "conv strided": (nn.Conv(4, 6, 3, 2), lambda f: f.Conv(6, (3, 3), strides=2), IMAGE),
    "conv grouped": (
        nn.Conv(4, 6, 2, padding="VALID", groups=2),
        lambda f: f.Conv(6, (2, 2), padding="VALID", feature_group_count=2),
        IMAGE,
    ),
    "conv causal": (
        nn.Conv1d(4, 6, 3, padding="CAUSAL", dilation=2),
        lambda f: f.Conv(6, (3,), padding="CAUSAL", kernel_dilation=2),
        IMAGE[:, 0],
    ),
    "layer norm": (nn.LayerNorm(4), lambda f: f.LayerNorm(epsilon=1e-5), VECTOR),
    "rms norm": (nn.RMSNorm(4), lambda f: f.RMSNorm(), VECTOR),
    "group norm": (nn.GroupNorm(2, 4), lambda f: f.GroupNorm(2, epsilon=1e-5), IMAGE),
    "instance norm": (nn.InstanceNorm(4), lambda f: f.InstanceNorm(epsilon=1e-5), IMAGE),
}


@pytest.mark.parametrize("name", FLAX)
def test_flax(name: str) -> None:
    """Their leaves have our names, so that params are handed over as they are."""
    linen = pytest.importorskip("flax.linen")
    layer, make, x = FLAX[name]
    params, y, _, in_params, in_x = ours(layer, x, False)
    module = make(linen)

    def loss(params: Any, x: Any) -> Any:
        y = module.apply({"params": params}, x)
        return jnp.sum(y**2), y

    (_, want), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)
    close(y, want)
    close(in_x, gradients[1])
    jax.tree.map(close, in_params, gradients[0])


def test_flax_batch_norm_keeps_the_biased_variance() -> None:
    linen = pytest.importorskip("flax.linen")
    layer = nn.BatchNorm(4, momentum=0.99)
    params, state = fdl.init(layer, jax.random.key(0))
    y, new = layer.apply(params, state, IMAGE, train=True)
    module = linen.BatchNorm(use_running_average=False)
    want, updated = module.apply({"params": params, "batch_stats": state}, IMAGE, mutable=["batch_stats"])
    close(y, want)
    close(new["mean"], updated["batch_stats"]["mean"])
    n = IMAGE.size // 4
    biased = 0.99 + (new["var"] - 0.99) * (n - 1) / n
    close(biased, updated["batch_stats"]["var"])


def test_flax_conv_transpose_applies_the_kernel_flipped() -> None:
    linen = pytest.importorskip("flax.linen")
    layer = nn.ConvTranspose(4, 6, 3, 2)
    params, y, *_ = ours(layer, IMAGE, False)
    flipped = params | {"kernel": jnp.flip(params["kernel"], (0, 1))}
    close(y, linen.ConvTranspose(6, (3, 3), (2, 2)).apply({"params": flipped}, IMAGE))
