# pyright: reportMissingImports=false
"""A Flax NNX module in the engine follows the loop that one writes in Flax; its random streams are pure."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.interop import from_nnx
from fdl.training.run import run_key
from tests.interop.common import WIDTH, arrays, batches, check_modes, close, cross_entropy, experiment, same_bits

nnx = pytest.importorskip("flax.nnx")


class Network(nnx.Module):
    def __init__(self, rngs):
        self.layers = nnx.List([nnx.Linear(5, WIDTH, rngs=rngs), nnx.Linear(WIDTH, 2, rngs=rngs)])
        self.norm = nnx.BatchNorm(WIDTH, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.4, rngs=rngs)

    def __call__(self, x):
        return self.layers[1](self.dropout(nnx.relu(self.norm(self.layers[0](x)))))


@pytest.fixture(scope="module")
def setup():
    return experiment(from_nnx(Network))


@pytest.fixture(scope="module")
def result(setup):
    return fdl.run(setup)


def test_training_equals_a_loop_in_nnx(setup, result):
    """`nnx.Optimizer` and `nnx.value_and_grad`; before each step the stream of the dropout starts anew."""
    network = Network(nnx.Rngs(fdl.fold(run_key(0), "init")))
    optimizer = nnx.Optimizer(network, setup.optimizer, wrt=nnx.Param)
    network.train()

    @nnx.jit
    def step(network, optimizer, x, y, key):
        network.dropout.rngs.key.set_value(key)
        network.dropout.rngs.count.set_value(jnp.uint32(0))
        optimizer.update(network, nnx.grad(lambda network: cross_entropy(network(x), y))(network))

    for x, y, key in batches(setup):
        step(network, optimizer, x, y, fdl.fold(key, "dropout/rngs/key"))
    layers = {str(i): {"kernel": layer.kernel[...], "bias": layer.bias[...]} for i, layer in enumerate(network.layers)}
    norm = {"scale": network.norm.scale[...], "bias": network.norm.bias[...]}
    close(result.params, {"layers": layers, "norm": norm})
    close(result.state, {"norm": {"mean": network.norm.mean[...], "var": network.norm.var[...]}})
    network.eval()
    test = arrays(13, seed=1)
    want = float(cross_entropy(network(test["x"]), test["y"]))
    assert result.metrics["test/loss"] == pytest.approx(want, rel=1e-5)


@pytest.mark.slow
def test_any_chunk_gives_the_same_bits(setup, result):
    short = fdl.run(setup, chunk=5)
    same_bits((short.params, short.state, short.history), (result.params, result.state, result.history))


def test_dropout_and_statistics_only_in_training():
    check_modes(from_nnx(Network))


class Drops(nnx.Module):
    """Each of its streams by itself: the masks of ones."""

    def __init__(self, rngs, names=("a", "b"), copies=3):
        for name in names:
            setattr(self, name, nnx.Dropout(0.5, rngs=rngs))
        self.shared = rngs
        self.stacked = nnx.vmap(lambda rngs: nnx.Dropout(0.5, rngs=rngs))(rngs.split(copies)) if copies else None

    def __call__(self, x):
        each = [self.a(x), self.b(x)]
        if self.stacked is not None:
            run = nnx.vmap(lambda drop, x: drop(x), in_axes=(0, None))
            each += list(run(self.stacked, x))
        each += [jax.random.bernoulli(self.shared.other(), 0.5, x.shape) * 2.0 for _ in range(2)]
        return jnp.stack(each)


def test_no_two_streams_draw_the_same():
    """Layers, copies of a layer, two draws from a shared stream: all independent. Twice the same call: the same."""
    model = from_nnx(Drops)
    params, state = model.init(jax.random.key(0))
    assert (params, state) == ({}, {})
    masks = np.asarray(model.apply(params, state, jnp.ones(400), key=jax.random.key(1), train=True)[0]) > 0
    assert masks.shape == (7, 400)
    agreement = (masks[:, None] == masks).mean(-1)[~np.eye(7, dtype=bool)]
    assert 0.35 < agreement.min() <= agreement.max() < 0.65  # 0.5 with a standard deviation of 0.025
    again = np.asarray(model.apply(params, state, jnp.ones(400), key=jax.random.key(1), train=True)[0]) > 0
    np.testing.assert_array_equal(masks, again)


def test_another_layer_does_not_change_the_masks_of_the_others():
    x, key = jnp.ones(100), jax.random.key(1)
    few, more = (from_nnx(lambda rngs, n=n: Drops(rngs, n, 0)) for n in (("a", "b"), ("a0", "a", "b")))
    same_bits(*(model.apply({}, {}, x, key=key, train=True)[0] for model in (few, more)))


def test_the_seed_decides_the_initial_values():
    model = from_nnx(Network)
    one, other = (model.init(jax.random.key(i))[0]["layers"]["0"]["kernel"] for i in (0, 1))
    assert not np.allclose(one, other)
    same_bits(one, Network(nnx.Rngs(jax.random.key(0))).layers[0].kernel[...])


class Called(nnx.Module):
    """A module whose call takes the flag and the streams, and which is trained in another variable as well."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(5, 2, rngs=rngs)
        self.low = nnx.LoRAParam(jnp.zeros(2))
        self.drop = nnx.Dropout(0.5)

    def __call__(self, x, *, training, rngs):
        return self.drop(self.linear(x) + self.low, deterministic=not training, rngs=rngs)


def test_flags_and_streams_of_the_call_and_the_filter_of_what_is_trained():
    model = from_nnx(Called, wrt=nnx.LoRAParam)
    params, state = model.init(jax.random.key(0))
    assert set(params) == {"low"}
    assert set(state["linear"]) == {"kernel", "bias"}
    x, key = arrays()["x"], jax.random.key(1)
    dropped, kept = model.apply(params, state, x, key=key, train=True)
    same_bits(kept, state)
    assert 0.3 < float((dropped == 0).mean()) < 0.7
    evaluated = model.apply(params, state, x, key=key, train=False)[0]
    np.testing.assert_allclose(evaluated, x @ state["linear"]["kernel"], rtol=1e-5, atol=1e-6)


def test_bind_gives_the_module_back(result):
    model = from_nnx(Network)
    network = model.bind(result.params, result.state)  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(network, Network)
    x = arrays()["x"]
    same_bits(network(x), model.apply(result.params, result.state, x)[0])


def test_what_cannot_be_meant_is_refused():
    model = from_nnx(Network)
    params, state = model.init(jax.random.key(0))
    with pytest.raises(fdl.InputError, match="Network.*train=True needs a key"):
        model.apply(params, state, jnp.ones((2, 5)), train=True)
    with pytest.raises(fdl.InputError, match="there is none at 'norm/bias'"):
        model.apply({"layers": params["layers"]}, state, jnp.ones((2, 5)))
    with pytest.raises(fdl.InputError, match="expected a function that makes the module"):
        from_nnx(Network(nnx.Rngs(0)))
    with pytest.raises(fdl.InputError, match="expected that build returns an nnx.Module"):
        from_nnx(lambda rngs: None).init(jax.random.key(0))
