"""Laws at the ends: parameters and inputs of zeros, batches of nothing, and what an output starts with."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import initializers, nn
from tests.laws.case import case, floating, key
from tests.laws.table import ROWS, Row, every_row, over

ZEROS = initializers.Zeros()


def at_zero(layer: fdl.Layer, x: Any, state: Any, keywords: Any, train: bool) -> tuple[Any, Any]:
    """y and the gradient of its sum, where every parameter is 0."""
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), fdl.abstract(layer)[0])

    def loss(params: Any, x: Any) -> Any:
        y, new = layer.apply(params, state, x, key=key(1), train=train, **keywords)
        return sum(leaf.sum() for leaf in floating(y)), (y, new)

    arguments = (0, 1) if floating(x) and len(floating(x)) == len(jax.tree.leaves(x)) else (0,)
    gradient, results = jax.grad(loss, arguments, has_aux=True)(params, x)
    return results, gradient


@pytest.mark.slow
@every_row
def test_zeros_give_finite_results_and_gradients(row: Row):
    """Whatever divides by a norm, or takes a root, has an answer at 0."""
    it = case(row)
    for x in (it.x, jax.tree.map(np.zeros_like, it.x)):
        for train in it.modes:
            found = at_zero(row.layer, x, it.state, it.keywords, train)
            assert all(np.isfinite(leaf).all() for leaf in floating(found))


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize(
    "layer", [nn.WeightNorm(nn.Linear(3, 2, kernel_init=ZEROS)), nn.SpectralNorm(nn.Linear(3, 2, kernel_init=ZEROS))]
)
def test_a_kernel_of_zeros_has_no_direction_and_stays_as_it_is(layer: Any, train: bool):
    params, state = fdl.init(layer, key(0))
    apply = lambda params: layer.apply(params, state, jnp.ones((4, 3)), train=train)  # noqa: E731
    gradient, (y, new) = jax.grad(lambda params: (apply(params)[0].sum(), apply(params)), has_aux=True)(params)
    assert not y.any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    assert all(leaf.any() for leaf in jax.tree.leaves(new))  # a u of 0 would never move again


@pytest.mark.parametrize("layer", [nn.LayerNorm(3, 0.0), nn.RMSNorm(3, 0.0), nn.GroupNorm(1, 3, 0.0)])
def test_without_eps_a_constant_is_normalised_to_the_bias(layer: Any):
    params, _ = fdl.init(layer, key(0))
    y, gradient = jax.value_and_grad(lambda x: layer(params, x).sum())(jnp.zeros((2, 4, 3)))
    assert float(y) == 0.0
    assert not gradient.any()


@over(row for row in ROWS if row.batched)
def test_a_batch_of_nothing_gives_nothing(row: Row):
    """As in PyTorch; but for the statistics of nothing, which are refused."""
    it = case(row)
    x, keywords = jax.tree.map(lambda a: a[:0], (it.x, it.keywords))
    evaluate = lambda x, keywords: row.layer.apply(it.params, it.state, x, key=key(1), **keywords)  # noqa: E731
    y, new = jax.eval_shape(evaluate, x, keywords)
    for got, want in zip(jax.tree.leaves(y), jax.tree.leaves(it.evaluated[0]), strict=True):
        assert got.shape == tuple(0 if axis == want.shape.index(4) else n for axis, n in enumerate(want.shape))
        assert got.dtype == want.dtype
    assert jax.tree.structure(new) == jax.tree.structure(it.state)


FANS = [
    nn.Linear(300, 200),
    nn.Linear(300, 200, kernel_init=initializers.LecunUniform()),
    *(nn.Conv1d(64, 64, 3, groups=groups) for groups in (1, 4, 64)),
    *(nn.ConvTranspose(64, 64, 3, groups=groups) for groups in (1, 2, 8, 16)),
]


@pytest.mark.parametrize("layer", FANS, ids=repr)
def test_an_output_starts_with_the_variance_of_the_input(layer: Any):
    """With kernels of 1 and x of 1 an output counts what it adds up: fan-in times the kernel's variance is 1."""
    kernel = fdl.init(layer, key(0))[0]["kernel"]
    features = getattr(layer, "in_features", None) or layer.in_channels
    x = jnp.ones((1, *[5] * (kernel.ndim - 2), features))
    fan_in = layer({"kernel": jnp.ones_like(kernel), "bias": jnp.zeros(())}, x).max()
    assert float(jnp.square(kernel).mean() * fan_in) == pytest.approx(1.0, rel=0.06)


@pytest.mark.slow
def test_projections_and_gates_start_with_the_variance_of_the_input():
    attention = fdl.init(nn.Attention(256, 8, num_kv_heads=2), key(0))[0]
    lstm = fdl.init(nn.LSTM(256, 64), key(0))[0]
    adapter = fdl.init(nn.LoRA(nn.Linear(256, 64), 32, 1.0), key(0))[0]
    stacked = fdl.init(nn.Stack(nn.Linear(128, 128), 3), key(0))[0]
    kernels = [
        *((attention[name]["kernel"], 256) for name in ("query", "key", "value", "out")),
        *((gate, 256) for gate in jnp.split(lstm["input"]["kernel"], 4, axis=-1)),
        (adapter["a"]["kernel"], 256),
        *((kernel, 128) for kernel in stacked["kernel"]),
    ]
    for kernel, fan_in in kernels:
        assert float(jnp.square(kernel).mean() * fan_in) == pytest.approx(1.0, rel=0.06)


@pytest.mark.parametrize(
    "layer",
    [nn.GlobalMaxPool(), nn.GlobalAvgPool(), nn.AdaptiveMaxPool(2), nn.AdaptiveAvgPool(2), nn.MaxPool(2)],
    ids=repr,
)
def test_a_pool_of_no_pixels_is_refused(layer: Any):
    with pytest.raises(fdl.InputError, match=r"no pixels|fits nowhere"):
        layer({}, jnp.ones((2, 0, 4, 3)))
