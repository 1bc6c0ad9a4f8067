"""Convolution as patches equals XLA's, values and gradients, in float64 over a table of every option."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import ops
from fdl.ops import conv_cpu
from fdl.ops.window import slide
from tests.compiling import QUICK

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
    ((7, 6), (2, 2), 1, 4, 1, "SAME", 1, 1),
]


def arrays(case, dtype: type = np.float64):
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
        for implementation in ("patches", "native", None):
            got = both(lambda x, kernel, i=implementation: ops.conv(x, kernel, *case[4:], implementation=i))
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10), got, want)


BLOCKS = [
    *CASES,
    ((6,), (5,), 2, 4, 1, "SAME", 1, 1),
    ((40,), (3,), 2, 4, 2, "SAME", 3, 1),
    ((13, 5), (5, 2), 2, 4, 2, "SAME", 1, 2),
]


@pytest.mark.parametrize("block_bytes", [1, 700, 2500])
@pytest.mark.parametrize("case", BLOCKS, ids=str)
def test_blocks_of_images_and_bands_of_an_image_change_nothing(monkeypatch, case, block_bytes):
    """A block too small for a row, for an image, for the batch of 3 (which 2 does not divide): one result."""
    monkeypatch.setattr(conv_cpu, "BLOCK_BYTES", block_bytes)
    with jax.enable_x64(True):
        x, kernel = map(jnp.asarray, arrays(case))
        stride, padding, dilation, groups = case[4:]
        window = slide("conv", x.shape[1:-1], kernel.shape[:-2], stride, padding, dilation)
        pull = lambda f: jax.jit(lambda x, k: jax.vjp(f, x, k)[1](f(x, k) ** 2), compiler_options=QUICK)(x, kernel)  # noqa: E731
        want = pull(lambda x, kernel: reference(x, kernel, case))
        got = pull(lambda x, kernel: conv_cpu.conv_patches(x, kernel, window, groups))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), got, want)


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
    want = np.stack([ops.conv(x, k) for k in kernels])
    for loss in (ops.conv, jax.grad(lambda x, kernel: ops.conv(x, kernel).sum())):
        program = jax.jit(jax.vmap(loss, (None, 0)))
        text = jax.export.export(program, platforms=["cpu"])(x, kernels).mlir_module()
        assert "stablehlo.dot_general" in text
        assert "stablehlo.convolution" not in text
    np.testing.assert_allclose(jax.vmap(ops.conv, (None, 0))(x, kernels), want, rtol=1e-5, atol=1e-5)


def test_a_batch_of_batches_is_a_batch():
    """`vmap` over images, twice, and then over kernels as well, of the convolution and of the pool after it."""
    random = np.random.default_rng(3)
    x, kernels = (jnp.asarray(random.normal(size=s), jnp.float32) for s in ((2, 3, 4, 7, 6, 2), (5, 3, 3, 2, 4)))

    def function(x, kernel):
        return ops.max_pool(ops.conv(x, kernel), 2)

    want = function(x.reshape(24, 7, 6, 2), kernels[0])
    every = jax.jit(jax.vmap(jax.vmap(function, (0, None)), (0, None)))
    np.testing.assert_allclose(every(x, kernels[0]).reshape(want.shape), want, rtol=1e-5, atol=1e-5)
    members = jax.jit(jax.vmap(every, (None, 0)))(x, kernels)
    np.testing.assert_allclose(members[0].reshape(want.shape), want, rtol=1e-5, atol=1e-5)
    gradient = jax.jit(jax.vmap(jax.grad(lambda kernel: every(x, kernel).sum())))(kernels)
    alone = jax.grad(lambda kernel: every(x, kernel).sum())(kernels[4])
    np.testing.assert_allclose(gradient[4], alone, rtol=1e-4, atol=1e-4)


FAST = "b01f_01io->b01f"  # the order of axes that XLA's convolution is fast in, wherever it stands
LOOPS = {
    # and how many convolutions stay: that forwards, where it is quicker than products
    "plain": (lambda x, k, i: ops.conv(x, k, implementation=i), (3, 3, 4, 8), 1),
    "strided": (lambda x, k, i: ops.conv(x, k, 2, "VALID", implementation=i), (3, 3, 4, 8), 1),
    "dilated": (lambda x, k, i: ops.conv(x, k, dilation=2, implementation=i), (3, 3, 4, 8), 1),
    "depthwise": (lambda x, k, i: ops.conv(x, k, groups=4, implementation=i), (3, 3, 1, 8), 0),
    "transposed": (lambda x, k, i: ops.conv_transpose(x, k, 2, implementation=i), (3, 3, 4, 8), 0),
}


@pytest.mark.parametrize("name", LOOPS)
def test_on_cpu_no_slow_convolution_is_left_inside_a_compiled_loop(name):
    """What makes a loop fast: XLA's naive loop nest for a gradient's layout (jax issue 12868) has nothing to act on."""
    function, shape, stay = LOOPS[name]

    def compiled(implementation):
        loss = lambda both: jnp.square(function(both[0], both[1], implementation)).sum()  # noqa: E731
        step = lambda _, both: jax.tree.map(lambda a, g: a - 0.1 * g, both, jax.grad(loss)(both))  # noqa: E731
        train = jax.jit(lambda both: jax.lax.fori_loop(0, 10, step, both), compiler_options=QUICK)
        text = train.lower((jnp.ones((2, 8, 8, 4)), jnp.ones(shape))).compile().as_text() or ""
        assert " while(" in text
        return [line for line in text.splitlines() if " convolution(" in line]

    ours = compiled(None)
    assert len(ours) == sum(FAST in line for line in ours) == stay
    assert not all(FAST in line for line in compiled("native"))


@pytest.mark.parametrize("implementation", [None, "patches"])
def test_nothing_but_the_input_is_kept_for_the_gradient(implementation):
    """Neither the patches, here 9 times the input, nor zeros in the place of what another platform would keep."""
    x, kernel = (jnp.asarray(a, jnp.float32) for a in arrays(CASES[2]))
    _, pull = jax.vjp(lambda x, kernel: ops.conv(x, kernel, implementation=implementation), x, kernel)
    assert sum(leaf.size for leaf in jax.tree.leaves(pull)) == x.size + kernel.size


@pytest.mark.parametrize(
    ("platform", "operation"), [("cpu", "dot_general"), ("cuda", "convolution"), ("tpu", "convolution")]
)
def test_the_platform_chooses_when_the_program_is_lowered(platform, operation):
    x, kernel = (jnp.asarray(a, jnp.float32) for a in arrays(CASES[2]))
    other = {"dot_general": "convolution", "convolution": "dot_general"}[operation]
    for function in (lambda x, k: ops.conv(x, k[:1, :1]), lambda x, k: ops.conv_transpose(x, k, 2)):
        gradient = jax.jit(jax.grad(lambda k, f=function: jnp.square(f(x, k)).sum()))
        text = jax.export.export(gradient, platforms=[platform])(kernel).mlir_module()
        assert f"stablehlo.{operation}" in text
        assert f"stablehlo.{other}" not in text


def test_jit_is_eager():
    x, kernel = (jnp.asarray(a, jnp.float32) for a in arrays(CASES[4]))
    np.testing.assert_array_equal(jax.jit(lambda x, k: ops.conv(x, k, 2))(x, kernel), ops.conv(x, kernel, 2))


def test_a_kernels_gradient_in_bfloat16_is_summed_over_the_blocks_in_float32(monkeypatch):
    """In bfloat16 a sum of 1000 ones, one image after the other, sticks at 256."""
    monkeypatch.setattr(conv_cpu, "BLOCK_BYTES", 1)
    x, kernel = jnp.ones((1000, 2, 1), jnp.bfloat16), jnp.ones((2, 1, 1), jnp.bfloat16)
    window = slide("conv", (2,), (2,), 1, "VALID")
    gradient = jax.grad(lambda kernel: conv_cpu.conv_patches(x, kernel, window, 1).astype(jnp.float32).sum())(kernel)
    assert gradient.ravel().tolist() == [1000.0, 1000.0]


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


X = jnp.ones((2, 3, 8, 8))  # channels first
REFUSED = [
    (lambda: ops.conv(X, jnp.ones((3, 3, 3, 4))), "channels come last"),
    (lambda: ops.conv(X[0], jnp.ones((3, 3, 8, 4))), "add the leading axis"),
    (lambda: ops.conv(X, jnp.ones((3, 3, 5, 4))), "8 channels"),
    (lambda: ops.conv(X, jnp.ones((3, 3, 4, 3)), groups=2), "divisible by groups"),
    (lambda: ops.conv(X, jnp.ones((3, 3, 8, 4)), padding="same"), "did you mean 'SAME'"),
    (lambda: ops.conv(X, jnp.ones((3, 3, 8, 4)), stride=0), "stride"),
    (lambda: ops.conv(X, jnp.ones((9, 9, 8, 4)), padding="VALID"), "fits nowhere"),
    (lambda: ops.conv(X, jnp.ones((3, 3, 8, 4)), implementation="fast"), "unknown implementation"),
    (lambda: ops.conv_transpose(X[0], jnp.ones((3, 8, 4)), padding="CAUSAL"), "unknown padding"),
    (lambda: ops.conv_transpose(X, jnp.ones((3, 3, 3, 4))), "channels come last"),
    (lambda: ops.conv_transpose(X, jnp.ones((3, 3, 8, 4)), padding=9), "cuts everything off"),
    (lambda: fdl.nn.Conv(3, 4, 3, groups=2), "2 groups do not divide"),
    (lambda: fdl.nn.Conv(3, 4, 0), "kernel_size"),
    (lambda: fdl.nn.Conv(3, 4, 3, padding="CAUSAL"), "CAUSAL is for one spatial axis"),
]


@pytest.mark.parametrize(("call", "message"), REFUSED)
def test_refused(call, message):
    with pytest.raises(fdl.InputError, match=message):
        call()


@pytest.mark.parametrize("groups", [1, 4])
def test_an_empty_batch_of_tall_images(groups):
    """Tall enough for bands; its kernel has a gradient, of zeros."""
    x, kernel = jnp.zeros((0, 2000, 2000, 4)), jnp.ones((3, 3, 4 // groups, 4))
    loss = lambda kernel: ops.conv(x, kernel, groups=groups, implementation="patches").sum()  # noqa: E731
    value, grad = jax.value_and_grad(loss)(kernel)
    assert (float(value), np.abs(grad).max()) == (0.0, 0.0)
