# pyright: reportMissingImports=false
"""A Flax Linen module in the engine follows the loop that one writes in Flax."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.interop import from_linen
from fdl.training.run import run_key
from tests.interop.common import (
    WIDTH,
    arrays,
    batches,
    check_modes,
    close,
    cross_entropy,
    descend,
    experiment,
    first,
    same_bits,
)

linen = pytest.importorskip("flax.linen")


class Network(linen.Module):
    """A network with a flag named train, as in Flax's examples."""

    dropout: float = 0.4

    @linen.compact
    def __call__(self, x, train: bool):
        x = linen.BatchNorm(use_running_average=not train, momentum=0.9)(linen.Dense(WIDTH)(x))
        return linen.Dense(2)(linen.Dropout(self.dropout)(linen.relu(x), deterministic=not train))


@pytest.fixture(scope="module")
def setup():
    return experiment(from_linen(Network(), jax.ShapeDtypeStruct((1, 5), jnp.float32)))


@pytest.fixture(scope="module")
def result(setup):
    return fdl.run(setup)


def test_training_equals_a_loop_in_flax(setup, result):
    """The same batches, and of each step's key the stream "dropout"."""
    module, optimizer = Network(), setup.optimizer
    key = fdl.fold(run_key(0), "init")
    variables = module.init({"params": key, "dropout": jax.random.key(1)}, jnp.zeros((1, 5)), train=False)
    params, stats = variables["params"], variables["batch_stats"]
    same_bits((params, {"batch_stats": stats}), first(setup))
    opt_state = optimizer.init(params)

    @jax.jit
    def step(params, stats, opt_state, x, y, key):
        def loss(params):
            logits, new = module.apply(
                {"params": params, "batch_stats": stats},
                x,
                train=True,
                rngs={"dropout": key},
                mutable=["batch_stats"],
            )
            return cross_entropy(logits, y), new["batch_stats"]

        grads, stats = jax.grad(loss, has_aux=True)(params)
        return *descend(optimizer, params, opt_state, grads), stats

    for x, y, key in batches(setup):
        params, opt_state, stats = step(params, stats, opt_state, x, y, fdl.fold(key, "dropout"))
    close(result.params, params)
    close(result.state, {"batch_stats": stats})
    test = arrays(13, seed=1)
    logits = module.apply({"params": params, "batch_stats": stats}, test["x"], train=False)
    assert result.metrics["test/loss"] == pytest.approx(float(cross_entropy(logits, test["y"])), rel=1e-5)
    assert result.metrics["test/accuracy"] == pytest.approx(float(np.mean(np.asarray(logits).argmax(-1) == test["y"])))


@pytest.mark.slow
def test_any_chunk_gives_the_same_bits(setup, result):
    short = fdl.run(setup, chunk=5)
    same_bits((short.params, short.state, short.history), (result.params, result.state, result.history))


def test_dropout_and_statistics_only_in_training():
    check_modes(from_linen(Network(), arrays()["x"][:1]))


class Flagged(linen.Module):
    """A module with any keyword as its flag, which records what it got."""

    @linen.compact
    def __call__(self, x, deterministic=None, frozen=None):
        return linen.Dropout(0.5)(x, deterministic=deterministic if frozen is None else frozen)


@pytest.mark.parametrize(
    "model",
    [
        from_linen(Flagged(), np.ones((1, 5), np.float32)),
        from_linen(Flagged(), np.ones((1, 5), np.float32), flags=lambda train: {"frozen": not train}),
        from_linen(linen.Dropout(0.5), np.ones((1, 5))),
    ],
    ids=["by signature", "by flags", "of Flax"],
)
def test_the_flag_is_found_or_given(model):
    params, state = model.init(jax.random.key(0))
    assert (params, state) == ({}, {})
    x = jnp.ones((3, 100))
    same_bits(model.apply(params, state, x, train=False)[0], x)
    y = np.asarray(model.apply(params, state, x, key=jax.random.key(0), train=True)[0])
    assert set(np.unique(y)) == {0.0, 2.0}


def test_keywords_of_the_batch_and_other_streams_reach_the_module():
    class Masked(linen.Module):
        @linen.compact
        def __call__(self, x, *, mask):
            y = linen.Dense(2)(x * mask[:, None])
            return y + jax.random.normal(self.make_rng("noise"), y.shape)

    model = from_linen(Masked(), np.ones((1, 5)), {"mask": np.ones(1)}, rngs=("noise",))
    params, state = model.init(jax.random.key(0))
    objective = fdl.supervised(model, fdl.losses.softmax_cross_entropy, inputs=("x", {"mask": "m"})).objective
    assert objective is not None
    batch = {"x": jnp.ones((4, 5)), "y": jnp.zeros(4, jnp.int32), "m": jnp.zeros(4)}
    key = jax.random.key(3)
    got = objective(params, state, batch, key=key, train=False).outputs["predictions"]
    noise = Masked().apply({"params": params}, batch["x"], mask=batch["m"], rngs={"noise": fdl.fold(key, "noise")})
    same_bits(got, noise)
    assert float(jnp.std(got)) > 0.1  # nothing but noise is left


@pytest.mark.slow
def test_bfloat16_computes_in_it_and_keeps_float32(result):
    """The same dropout masks, activations rounded to 8 bits."""
    got = fdl.run(experiment(from_linen(Network(), np.ones((1, 5))), precision="bfloat16", num_steps=2))
    assert {str(leaf.dtype) for leaf in jax.tree.leaves((got.params, got.state))} == {"float32"}
    difference = abs(got.history["train/loss"] - result.history["train/loss"][:2])
    assert 0 < difference.max() < 2e-2


class Noisy(linen.Module):
    """Dropout without a flag."""

    @linen.compact
    def __call__(self, x):
        return linen.Dropout(0.5, deterministic=False)(x)


class Unsteady(linen.Module):
    """Statistics without a flag."""

    @linen.compact
    def __call__(self, x):
        return linen.BatchNorm(use_running_average=False)(x)


@pytest.mark.parametrize("module", [Noisy(), Unsteady()], ids=["dropout", "statistics"])
def test_randomness_or_statistics_without_a_flag_are_refused(module):
    model = from_linen(module, np.ones((1, 5)))
    with pytest.raises(fdl.InputError, match="needs a parameter train, deterministic"):
        fdl.run(experiment(model))


def test_training_without_a_key_and_a_module_that_is_none_are_refused():
    model = from_linen(Network(), np.ones((1, 5)))
    params, state = model.init(jax.random.key(0))
    with pytest.raises(fdl.InputError, match="training needs a key"):
        model.apply(params, state, jnp.ones((2, 5)), train=True)
    with pytest.raises(fdl.InputError, match="expected a flax.linen.Module"):
        from_linen(Network, np.ones((1, 5)))
    with pytest.raises(fdl.InputError, match="expected arrays or jax.ShapeDtypeStruct"):
        from_linen(Network(), (1, 5))
    with pytest.raises(fdl.InputError, match="through fdl.interop"):
        fdl.supervised(Network(), fdl.losses.softmax_cross_entropy)  # pyright: ignore[reportArgumentType]
