"""The order of an epoch has the bits of `jax.random.permutation`, which other libraries draw as well."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from fdl.data.permutation import permutation


# JAX sorts 0, 1, 2 and 3 times: the bounds are the cube roots of 2^32 and 2^64, 1625.5 and 2642245.9.
@pytest.mark.parametrize("size", [0, 1, 2, 1625, 1626, 60_000])
def test_it_is_that_of_jax(size):
    for seed in range(3):
        found = jax.jit(permutation, static_argnums=1)(jax.random.key(seed), size)
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, jax.random.permutation(jax.random.key(seed), size))


@pytest.mark.slow
def test_three_rounds_are_those_of_jax():
    found = permutation(jax.random.key(7), 2_642_246)
    np.testing.assert_array_equal(found, jax.random.permutation(jax.random.key(7), 2_642_246))


def test_members_draw_what_each_would_draw_alone():
    keys = jax.random.split(jax.random.key(1), 4)
    together = jax.jit(jax.vmap(lambda key: permutation(key, 100)))(keys)
    for alone, key in zip(together, jax.random.split(jax.random.key(1), 4), strict=True):
        np.testing.assert_array_equal(alone, jax.random.permutation(key, 100))


def test_where_64_bits_are_on_it_is_the_same():
    with jax.enable_x64(True):
        found = permutation(jax.random.key(2), 64)
    np.testing.assert_array_equal(found, jax.random.permutation(jax.random.key(2), 64))
