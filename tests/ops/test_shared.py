"""Numbers that many rows share, in half precision: gradients that are sums over more rows than it can count."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fdl import ops
from fdl.ops.activations import prelu
from fdl.ops.attention import Implementation
from fdl.ops.shared import shared, summed_wide

N = 20_011  # in bfloat16 a sum of ones stops at 256, in float16 at 2048
STAR = jnp.asarray(np.stack([np.zeros(N), np.arange(N) % 3]), jnp.int32)  # node 0 speaks to all
ZEROS = jnp.zeros(N, jnp.int32)

#: name: (function of a that reads each of its numbers, or only the first, N times; the gradient's total over N)
READERS: dict[str, tuple[Callable[[jax.Array], jax.Array], float]] = {
    "a bias": (lambda a: jnp.zeros((N, 3), a.dtype) + shared(a, jnp.zeros((N, 3), a.dtype)), 3),
    "gather": (lambda a: ops.gather(a, ZEROS), 1),
    "propagate": (lambda a: ops.propagate(a, STAR), 1),
    "the mean over a segment": (lambda a: ops.gather(ops.segment_mean(a, ZEROS[:3], 1), ZEROS), 1),
    "prelu": (lambda a: prelu(-jnp.ones((N, 3), a.dtype), a), -3),
    "nearest": (lambda a: ops.upsample(a.reshape(1, 1, 1, 3), (1, N)), 3),
    "bins that repeat a pixel": (lambda a: ops.adaptive_max_pool(a.reshape(1, 1, 3), N), 3),
    "a depthwise kernel": (
        lambda a: ops.conv(jnp.ones((N, 1, 1, 3), a.dtype), a.reshape(1, 1, 1, 3), groups=3, implementation="patches"),
        3,
    ),
}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", READERS)
def test_a_gradient_over_many_rows_is_their_number(name: str, dtype: jnp.dtype):
    function, total = READERS[name]
    loss = lambda a: (function(a) * jnp.asarray(1 / 64, dtype)).astype(jnp.float32).sum()  # noqa: E731
    gradient = jax.jit(jax.grad(loss))(jnp.ones(3, dtype))
    assert gradient.dtype == dtype
    assert float(gradient.astype(jnp.float32).sum()) == pytest.approx(
        total * N / 64, rel=2 * float(jnp.finfo(dtype).eps)
    )


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_equal_rows_of_a_segment_share_a_gradient_that_adds_up(dtype: jnp.dtype):
    gradient = jax.grad(lambda x: ops.segment_max(x, ZEROS, 1).astype(jnp.float32).sum())(jnp.zeros(N, dtype))
    np.testing.assert_allclose(np.asarray(gradient, np.float64), 1 / N, rtol=float(jnp.finfo(dtype).eps), atol=6e-8)


@pytest.mark.parametrize("name", ["k", "v"])
def test_blocks_of_queries_add_up_wide(name: str):
    """Chunked attention reads every key and value once a block of queries; 4096 queries are 16 blocks."""
    random = np.random.default_rng(0)
    qkv = {letter: jnp.asarray(random.normal(size=(1, 4096, 1, 2)), jnp.bfloat16) for letter in "qkv"}
    qkv = {letter: a if letter == "q" else a[:, :4] for letter, a in qkv.items()}

    def loss(a: jax.Array, implementation: Implementation) -> jax.Array:
        q, k, v = (a if letter == name else qkv[letter] for letter in "qkv")
        y = ops.dot_product_attention(q, k, v, implementation=implementation)
        return (y.astype(jnp.float32) * jnp.asarray([1.0, 3.0])).sum()

    chunked, whole = (jax.jit(jax.grad(loss), static_argnums=1)(qkv[name], each) for each in ("chunked", "einsum"))
    scale = float(jnp.abs(whole.astype(jnp.float32)).max())
    np.testing.assert_allclose(*(np.asarray(a, np.float64) for a in (chunked, whole)), rtol=0, atol=scale * 2**-7)


def test_values_and_programs_in_float32_are_those_of_plain_code():
    """A bias in float32 stays out of it, and a gather in half precision does not widen its table."""
    a, x, ids = jnp.ones(3), jnp.ones((5, 3)), jnp.zeros(4, jnp.int32)
    plain = jax.make_jaxpr(lambda a, x: x + a)(a, x)
    assert str(jax.make_jaxpr(lambda a, x: x + shared(a, x))(a, x)) == str(plain)
    table = jnp.arange(6, dtype=jnp.bfloat16).reshape(3, 2)
    program = jax.jit(partial(summed_wide, jnp.take)).lower(table, ids).as_text()
    assert "f32" not in program


def test_every_mode_and_order_goes_through():
    """f(a) = (sum over the rows of a[ids])^3 / 6 has the second derivative n_i n_j sum, here with n = (2, 1)."""
    ids = jnp.array([0, 1, 0])

    def f(a: jax.Array) -> jax.Array:
        return summed_wide(lambda a, ids: a[ids], a, ids).astype(jnp.float32).sum() ** 3 / 6

    a = jnp.ones(2, jnp.bfloat16)
    for hessian in (jax.jit(jax.hessian(f)), jax.jit(jax.jacrev(jax.grad(f)))):
        assert hessian(a).astype(jnp.float32).tolist() == [[12.0, 6.0], [6.0, 3.0]]
    many = jax.vmap(jax.grad(f))(jnp.stack([a, 2 * a]))
    assert many.astype(jnp.float32).tolist() == [[9.0, 4.5], [36.0, 18.0]]
