"""Convolution layers: what their parameters are, and what is refused when one is made or called.

Values against other libraries, gradients and golden numbers are in the laws and in tests/ops.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import nn


def test_kernel_stride_and_bias_by_hand():
    """Sums of 2x2 pixels, every second one, plus a half."""
    layer = nn.Conv(1, 1, 2, stride=2, padding="VALID")
    params = {"kernel": jnp.ones((2, 2, 1, 1)), "bias": jnp.array([0.5])}
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    assert layer(params, x)[0, ..., 0].tolist() == [[10.5, 18.5], [42.5, 50.5]]


def test_each_pixel_of_a_transposed_convolution_stamps_the_kernel():
    layer = nn.ConvTranspose(1, 1, 2, stride=2, use_bias=False)
    kernel = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 2, 1, 1)
    x = jnp.array([1.0, 10.0]).reshape(1, 1, 2, 1)
    assert layer({"kernel": kernel}, x)[0, ..., 0].tolist() == [[1.0, 2.0, 10.0, 20.0], [3.0, 4.0, 30.0, 40.0]]


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv(6, 8, (3, 5), groups=2), (3, 5, 3, 8)),
        (nn.Conv1d(6, 12, 3, groups=6, use_bias=False), (3, 1, 12)),
        (nn.Conv3d(6, 8, 2), (2, 2, 2, 6, 8)),
        (nn.ConvTranspose(6, 8, 4, groups=2), (4, 4, 6, 4)),
    ],
    ids=repr,
)
def test_the_kernel_has_its_spatial_axes_then_in_and_out(layer, shape):
    specs = layer.specs()
    assert specs["kernel"].shape == shape
    assert specs["kernel"].axes == (*[None] * (len(shape) - 2), "in_channels", "out_channels")
    assert ("bias" in specs) == layer.use_bias
    assert eval(repr(layer), dict(vars(nn))) == layer


@pytest.mark.parametrize("groups", [1, 4, 64])
def test_lecuns_rule_counts_what_one_output_sees(groups):
    """3 * 3 * 64 / groups numbers of variance 1, so that their weighted sum has variance 1 as well."""
    kernel = fdl.init(nn.Conv(64, 64, 3, groups=groups), jax.random.key(0))[0]["kernel"]
    np.testing.assert_allclose(kernel.var() * 3 * 3 * 64 / groups, 1.0, atol=0.2)  # 576 numbers: 6 % of chance


def test_no_output_of_a_causal_convolution_sees_the_future():
    """The Jacobian over time is lower triangular, with the taps 4, 2 and 0 steps back."""
    layer = nn.Conv1d(1, 1, 3, padding="CAUSAL", dilation=2, use_bias=False)
    params = {"kernel": jnp.array([1.0, 2.0, 3.0]).reshape(3, 1, 1)}
    jacobian = jax.jacobian(lambda x: layer(params, x.reshape(1, 6, 1)).ravel())(jnp.zeros(6))
    np.testing.assert_array_equal(jacobian, 3 * np.eye(6) + 2 * np.eye(6, k=-2) + np.eye(6, k=-4))


X = jnp.ones((2, 8, 8, 3))
REFUSED = [
    (lambda: nn.Conv(3, 4, 3)({}, jnp.moveaxis(X, -1, 1)), r"in_channels=3\], got .*channels come last"),
    (lambda: nn.Conv(3, 4, 3)({}, X[0]), "add the leading axis"),
    (lambda: nn.Conv1d(3, 4, 3)({}, X), r"\[B, T, in_channels=3\]"),
    (lambda: nn.Conv(3, 4, (3, 3, 3)), "Conv: kernel_size must be an int or a tuple of 2 ints"),
    (lambda: nn.Conv(0, 4, 3), "in_channels: expected a whole number >= 1, got 0"),
    (lambda: nn.Conv(4, 6, 3, groups=4), "4 groups do not divide 4 input and 6 output channels"),
    (lambda: nn.Conv(3, 4, 3, padding="SAM"), "did you mean 'SAME'"),
    (lambda: nn.Conv(3, 4, 3, padding=-1), "padding must be an int .* at least 0"),
    (lambda: nn.Conv(3, 4, 3, padding=((1, 1),)), r"2 \(low, high\) pairs"),
    (lambda: nn.Conv(3, 4, 9, padding="VALID")({"kernel": jnp.ones((9, 9, 3, 4))}, X), "fits nowhere"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_refused(call, message):
    with pytest.raises(fdl.InputError, match=message):
        call()
