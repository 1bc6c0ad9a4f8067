"""`linear` is `jnp.tensordot`, with every derivative, and its gradients are the products they are said to be."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import fdl
from fdl import ops

CASES = {  # x, kernel, inner axes
    "a vector": ((6,), (6, 5), 1),
    "wide": ((4, 3), (3, 8), 1),
    "narrow": ((4, 8), (8, 2), 1),
    "narrow, batch and time": ((2, 3, 8), (8, 4), 1),
    "to heads": ((2, 3, 8), (8, 2, 4), 1),
    "from heads": ((2, 3, 2, 4), (2, 4, 3), 2),
    "one number": ((5, 4), (4, 1), 1),
    "no column": ((5, 4), (4, 0), 1),
    "no row": ((0, 3, 4), (4, 2), 1),
    "nothing to sum": ((2, 0), (0, 3), 1),
}


def arrays(case: str):
    random = np.random.default_rng(0)
    return [jnp.asarray(random.normal(size=shape)) for shape in CASES[case][:2]]


@pytest.mark.parametrize("case", CASES)
def test_values_and_derivatives_are_those_of_tensordot(case):
    axes = CASES[case][2]
    with jax.enable_x64(True):
        x, kernel = arrays(case)
        want, back = jax.vjp(lambda x, kernel: jnp.tensordot(x, kernel, axes), x, kernel)
        got, pull = jax.vjp(lambda x, kernel: ops.linear(x, kernel, axes), x, kernel)
        np.testing.assert_allclose(got, want, atol=1e-12)
        for mine, plain in zip(pull(jnp.sin(want)), back(jnp.sin(want)), strict=True):
            np.testing.assert_allclose(mine, plain, atol=1e-12)


@pytest.mark.parametrize("case", ["wide", "narrow", "from heads"])
def test_both_modes_and_the_second_order_agree_with_finite_differences(case):
    with jax.enable_x64(True):
        check_grads(lambda x, kernel: ops.linear(jnp.tanh(x), kernel, CASES[case][2]), arrays(case), order=2)


@pytest.mark.parametrize("case", ["wide", "narrow"])
def test_members_may_have_kernels_of_their_own(case):
    x, kernel = arrays(case)
    kernels = jnp.stack([kernel, 2 * kernel, -kernel])
    gradient = jax.grad(lambda kernel: jnp.sin(ops.linear(x, kernel)).sum())
    for member, got in zip(kernels, jax.vmap(gradient)(kernels), strict=True):
        assert np.allclose(got, gradient(member), atol=1e-5)


@pytest.mark.parametrize(
    ("x", "kernel", "want"),
    [("bfloat16", "float32", "float32"), ("int32", "float32", "float32"), ("bfloat16", "bfloat16", "bfloat16")],
)
@pytest.mark.parametrize("case", ["wide", "narrow"])
def test_dtypes_are_promoted_as_by_a_plain_product(case, x, kernel, want):
    a, b = (array.astype(dtype) for array, dtype in zip(arrays(case), (x, kernel), strict=True))
    with jax.numpy_dtype_promotion("standard"):
        got, pull = jax.vjp(lambda b: ops.linear(a, b), b)
        assert (got.dtype, pull(got)[0].dtype) == (want, kernel)
        assert np.array_equal(got, a @ b)


@pytest.mark.parametrize("case", ["narrow, batch and time", "to heads", "from heads"])
def test_each_gradient_is_one_product_of_two_matrices(case):
    """Of the kernel's, XLA on a CPU would transpose the larger operand if it summed over two axes."""
    x, kernel = arrays(case)
    loss = lambda x, kernel: jnp.square(ops.linear(x, kernel, CASES[case][2])).sum()  # noqa: E731
    text = jax.jit(jax.grad(loss, (0, 1))).lower(x, kernel).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert len(products) == 3
    for line in products:
        assert "batching" not in line
        assert [shape.count("x") for shape in re.findall("tensor<(.*?)>", line)] == [2, 2, 2]


def test_a_gradient_with_few_columns_is_made_as_its_transpose():
    """[2, N] times [8, N] transposed, which XLA may not turn round again: only the small operand is transposed."""
    x, kernel = arrays("narrow")
    text = jax.jit(jax.grad(lambda kernel: jnp.square(ops.linear(x, kernel)).sum())).lower(kernel).as_text()
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert "(tensor<2x4xf32>, tensor<8x4xf32>) -> tensor<2x8xf32>" in products[-1]
    assert text.count("optimization_barrier") == 2


@pytest.mark.parametrize(
    ("x", "kernel", "axes"), [((2, 3), (4, 5), 1), ((2, 6, 4), (4, 6, 5), 2), ((2, 3), (3, 5), 0), ((3,), (3, 5), 2)]
)
def test_axes_that_do_not_fit_are_refused(x, kernel, axes):
    """[6, 4] and [4, 6] have as many numbers, and would be multiplied without a word."""
    with pytest.raises(fdl.InputError, match="linear: expected x"):
        ops.linear(jnp.ones(x), jnp.ones(kernel), axes)
