# pyright: reportArgumentType=false
"""Convolution as patches equals XLA's, values and gradients, in float64 over a table of every option."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import ops

CASES = [
    # spatial, kernel, in, out, stride, padding, dilation, groups
    ((9,), (3,), 2, 4, 1, "SAME", 1, 1),
    ((9,), (4,), 2, 4, 2, "CAUSAL", 2, 2),
    ((7, 6), (3, 3), 2, 4, 1, "SAME", 1, 1),
    ((7, 6), (2, 4), 2, 4, 1, "SAME", 1, 1),
    ((7, 6), (3, 3), 2, 4, 2, "SAME", 1, 1),
    ((7, 6), (3, 2), 2, 4, (2, 3), "VALID", (2, 1), 1),
    ((7, 6), (1, 1), 2, 4, 3, "VALID", 1, 1),
    ((5, 6), (7, 7), 2, 4, 1, "SAME", 1, 1),
    ((8, 6), (3, 3), 4, 6, 1, ((0, 2), (1, 0)), 1, 2),
    ((6, 7), (3, 3), 3, 6, 2, 1, 1, 3),
    ((4, 5, 3), (2, 3, 2), 2, 3, (1, 2, 1), "SAME", 1, 1),
]


def arrays(case, dtype=np.float64):
    spatial, sizes, channels, out, *_, groups = case
    random = np.random.default_rng(0)
    return random.normal(size=(3, *spatial, channels)).astype(dtype), random.normal(
        size=(*sizes, channels // groups, out)
    ).astype(dtype)


def reference(x, kernel, case):
    """`lax.conv_general_dilated` itself."""
    rank = len(case[0])
    stride, padding, dilation, groups = case[4:]
    every = lambda value: (value,) * rank if isinstance(value, int) else value  # noqa: E731
    if padding == "CAUSAL":
        padding = [((kernel.shape[0] - 1) * dilation, 0)]
    elif isinstance(padding, int):
        padding = [(padding, padding)] * rank
    layout = {1: ("NWC", "WIO", "NWC"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NDHWC", "DHWIO", "NDHWC")}[rank]
    return jax.lax.conv_general_dilated(
        x, kernel, every(stride), padding, rhs_dilation=every(dilation), dimension_numbers=layout,
        feature_group_count=groups,
    )  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_are_those_of_xla(case):
    with jax.enable_x64(True):
        x, kernel = map(jnp.asarray, arrays(case))
        weight = np.random.default_rng(1).normal(size=jax.eval_shape(lambda: reference(x, kernel, case)).shape)

        def both(function):
            loss = lambda x, kernel: (function(x, kernel) * weight).sum()  # noqa: E731
            return jax.jit(jax.value_and_grad(loss, (0, 1)))(x, kernel)

        want = both(lambda x, kernel: reference(x, kernel, case))
        for implementation in ("patches", "native"):
            got = both(lambda x, kernel, i=implementation: ops.conv(x, kernel, *case[4:], implementation=i))
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), got, want)


# SAME: of an image that the stride divides, or the transpose cannot know where its padding was
DIVISIBLE = [((8, 6), (3, 3), 2, 4, 2, "SAME", 1, 1), ((4, 6, 3), (2, 3, 2), 2, 3, (1, 2, 1), "SAME", 1, 1)]


@pytest.mark.parametrize("case", [CASES[2], CASES[5], CASES[9], *DIVISIBLE], ids=str)
def test_the_transpose_is_the_adjoint(case):
    """<conv(x), y> == <x, conv_transpose(y)>, with the kernel's channels swapped."""
    with jax.enable_x64(True):
        x, kernel = map(jnp.asarray, arrays(case))
        stride, padding, dilation, groups = case[4:]
        y, pull = jax.vjp(lambda x: reference(x, kernel, case), x)
        cotangent = np.random.default_rng(2).normal(size=y.shape)
        (want,) = pull(jnp.asarray(cotangent))
        swapped = kernel.swapaxes(-1, -2)
        full = ops.conv_transpose(jnp.asarray(cotangent), swapped, stride, padding, dilation, groups, "patches")
        common = tuple(slice(min(a, b)) for a, b in zip(full.shape, want.shape, strict=True))
        np.testing.assert_allclose(full[common], want[common], rtol=1e-10, atol=1e-10)


def test_members_with_their_own_kernels_are_a_batched_product_and_no_grouped_convolution():
    """vmap of the native form becomes one convolution of so many groups, which is slow on CPU."""
    x, kernel = (jnp.asarray(a) for a in arrays(CASES[2], np.float32))
    kernels = jnp.stack([kernel, 2 * kernel, -kernel])
    program = jax.jit(jax.vmap(lambda kernel: ops.conv(x, kernel, implementation="patches")))
    text = program.lower(kernels).as_text()
    assert "stablehlo.dot_general" in text
    assert "stablehlo.convolution" not in text
    want = np.stack([ops.conv(x, k) for k in kernels])
    np.testing.assert_allclose(program(kernels), want, rtol=1e-5, atol=1e-5)


def test_on_cpu_no_convolution_is_left_inside_a_compiled_loop():
    """What makes a loop fast: XLA's naive loop nest for a gradient's layout (jax issue 12868) has nothing to act on."""
    x, kernel = (jnp.asarray(a) for a in arrays(CASES[2], np.float32))

    def train(x, kernel):
        def step(_, kernel):
            return kernel - 0.1 * jax.grad(lambda k: jnp.square(ops.conv(x, k)).sum())(kernel)

        return jax.lax.fori_loop(0, 10, step, kernel)

    text = jax.jit(train).lower(x, kernel).compile().as_text() or ""
    assert "while(" in text
    assert " convolution(" not in text


def test_derivatives_of_any_mode_and_order_exist():
    x, kernel = (jnp.asarray(a, jnp.float32) for a in arrays(CASES[4]))
    loss = lambda kernel: jnp.tanh(ops.conv(x, kernel, 2)).sum()  # noqa: E731
    tangent = jnp.ones_like(kernel)
    _, forward = jax.jvp(loss, (kernel,), (tangent,))
    np.testing.assert_allclose(forward, jnp.vdot(jax.grad(loss)(kernel), tangent), rtol=1e-4)
    assert np.isfinite(jax.jvp(jax.grad(loss), (kernel,), (tangent,))[1]).all()


def test_bfloat16_stays_bfloat16():
    x, kernel = (jnp.asarray(a, jnp.bfloat16) for a in arrays(CASES[2]))
    y = ops.conv(x, kernel)
    assert y.dtype == jnp.bfloat16
    want = ops.conv(x.astype(jnp.float32), kernel.astype(jnp.float32))
    np.testing.assert_allclose(y.astype(jnp.float32), want, rtol=0.05, atol=0.05)


def test_by_hand():
    """An edge detector, whose bias-free answer is the difference of the neighbours."""
    x = jnp.array([[1.0, 2.0, 4.0], [1.0, 2.0, 4.0]]).reshape(1, 2, 3, 1)
    kernel = jnp.array([-1.0, 0.0, 1.0]).reshape(1, 3, 1, 1)
    assert ops.conv(x, kernel)[0, :, :, 0].tolist() == [[2.0, 3.0, -2.0]] * 2
    assert ops.conv(x, kernel, padding="VALID").ravel().tolist() == [3.0, 3.0]


X = np.ones((2, 3, 8, 8), np.float32)  # channels first
REFUSED = [
    (lambda: ops.conv(X, np.ones((3, 3, 3, 4), np.float32)), "channels come last"),
    (lambda: ops.conv(X[0], np.ones((3, 3, 8, 4), np.float32)), "add the leading axis"),
    (lambda: ops.conv(X, np.ones((3, 3, 5, 4), np.float32)), "8 channels"),
    (lambda: ops.conv(X, np.ones((3, 3, 4, 3), np.float32), groups=2), "divisible by groups"),
    (lambda: ops.conv(X, np.ones((3, 3, 8, 4), np.float32), padding="same"), "did you mean 'SAME'"),
    (lambda: ops.conv(X, np.ones((3, 3, 8, 4), np.float32), stride=0), "stride"),
    (lambda: ops.conv(X, np.ones((9, 9, 8, 4), np.float32), padding="VALID"), "fits nowhere"),
    (lambda: ops.conv(X, np.ones((3, 3, 8, 4), np.float32), implementation="fast"), "unknown implementation"),
    (lambda: fdl.nn.Conv(3, 4, 3, groups=2), "2 groups do not divide"),
    (lambda: fdl.nn.Conv(3, 4, 0), "kernel_size"),
    (lambda: fdl.nn.Conv(3, 4, 3, padding="CAUSAL"), "CAUSAL is for one spatial axis"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_refused(call, message):
    with pytest.raises(fdl.InputError, match=message):
        call()
