"""Normalisations as bare functions: what the laws and the parity tests do not see."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from fdl.ops import norm


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="only XLA for CPU repeats sums")
def test_a_residual_network_with_layer_norm_grows_with_its_depth_alone():
    """The additions in the program of a gradient: each layer adds as many as the last, so none is computed again."""

    def additions(layers: int) -> int:
        def loss(x, kernels):
            for kernel in kernels:
                x = x + jax.nn.gelu(norm.layer_norm(x, jnp.ones(16), jnp.zeros(16)) @ kernel)
            return jnp.square(x).sum()

        kernels = [jnp.ones((16, 16))] * layers
        program = jax.jit(jax.grad(loss, (0, 1))).lower(jnp.ones((8, 16)), kernels).compile()
        return (program.as_text() or "").count("add(")

    two, four, eight = additions(2), additions(4), additions(8)
    assert eight - four == 2 * (four - two)
