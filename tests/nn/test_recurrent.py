"""Recurrent layers: one function by many routes, padding, direction, memory, initial values, what is refused."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import initializers, nn
from fdl.initializers import ForgetBias, PerGate
from fdl.inspect.taps import attach
from fdl.nn.recurrence import Recurrence
from fdl.nn.recurrent import GRU, LSTM, RNN
from fdl.nn.recurrent_containers import Bidirectional, StackedRNN
from tests.compiling import QUICK

BATCH, STEPS = 3, 5
LENGTHS: Any = np.array([STEPS, 2, 0])
MASK = LENGTHS[:, None] > np.arange(STEPS)
X: Any = np.random.default_rng(0).normal(size=(BATCH, STEPS, 3)).astype(np.float32)

CELLS = [RNN(3, 4, activation=jax.nn.sigmoid), LSTM(3, 4, use_bias=False), GRU(3, 4)]
STACK = StackedRNN(LSTM(3, 4), jnp.sin, GRU(4, 4), head=nn.Linear(4, 4))
BOTH_WAYS = Bidirectional(LSTM(3, 2), StackedRNN(GRU(3, 3), RNN(3, 2)))
LAYERS = [*CELLS, STACK, BOTH_WAYS]


def over(layers: list[Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("layer", [pytest.param(layer, id=repr(layer)) for layer in layers])


def fresh(layer: fdl.Layer, dtype: Any = jnp.float32) -> Any:
    """Initial params, moved away from zero biases."""
    params, _ = fdl.init(layer, jax.random.key(0))
    random = np.random.default_rng(1)
    return jax.tree.map(lambda a: (np.asarray(a) + 0.3 * random.normal(size=a.shape)).astype(dtype), params)


def unroll(layer: Any, params: Any, *arguments: Any, **settings: Any) -> Any:
    run = jax.jit(lambda params, *arguments: layer.unroll(params, *arguments, **settings), compiler_options=QUICK)
    return run(params, *arguments)


def assert_trees_close(got: Any, want: Any, tolerance: float = 1e-5) -> None:
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def call(layer: Any, params: Any, x: Any, **settings: Any) -> Any:
    return jax.jit(lambda params, x: layer(params, x, **settings), compiler_options=QUICK)(params, x)


def grad(loss: Any, *arguments: Any) -> Any:
    return jax.jit(jax.grad(loss), compiler_options=QUICK)(*arguments)


def rows(tree: Any, index: Any) -> Any:
    return jax.tree.map(lambda a: a[index], tree)


# one function, many routes


@over([*CELLS, STACK])
def test_unroll_is_a_loop_over_step(layer):
    params, carry = fresh(layer), layer.initial_carry(BATCH)
    y, last = unroll(layer, params, X)
    step = jax.jit(layer.step, compiler_options=QUICK)
    for t in range(STEPS):
        carry, y_t = step(params, carry, X[:, t])
        np.testing.assert_allclose(y_t, y[:, t], rtol=1e-5, atol=1e-6)
    assert_trees_close(carry, last)


@over([*CELLS, STACK])
def test_step_is_the_body_of_a_scan(layer):
    """The gradients as well: autodiff of a textbook scan."""
    params = fresh(layer)

    def by_scan(params):
        _, y = jax.lax.scan(lambda c, x: layer.step(params, c, x), layer.initial_carry(BATCH), X.swapaxes(0, 1))
        return jnp.square(y).sum()

    unrolled = lambda params: jnp.square(layer(params, X)).sum()  # noqa: E731
    want, got = (jax.jit(jax.grad(f), compiler_options=QUICK)(params) for f in (by_scan, unrolled))
    assert_trees_close(got, want)


@over([*CELLS, STACK])
def test_two_halves_with_the_carry_are_the_whole(layer):
    """Lengths too: less the start of the chunk, so that the second half has one of 3, one of 0 and one below it."""
    params = fresh(layer)
    for lengths in (None, LENGTHS):
        y, last = unroll(layer, params, X, lengths=lengths)
        first, carry = unroll(layer, params, X[:, :2], None, lengths=lengths)
        second, carry = unroll(layer, params, X[:, 2:], carry, lengths=None if lengths is None else lengths - 2)
        assert_trees_close((np.concatenate([first, second], 1), carry), (y, last))


@over(LAYERS)
def test_call_is_unroll(layer):
    params = fresh(layer)
    y, _ = unroll(layer, params, X, lengths=LENGTHS)
    np.testing.assert_allclose(call(layer, params, X, lengths=LENGTHS), y, rtol=1e-5, atol=1e-6)


def test_tapped_it_is_the_same():
    """And both directions are seen: the backward one would silently run forward if its keyword were lost."""
    layer, seen = Bidirectional(LSTM(3, 2), GRU(3, 2)), []
    params = fresh(layer)
    tapped: Any = attach(layer, lambda path, part, inputs, y: seen.append(path))
    np.testing.assert_allclose(call(tapped, params, X), call(layer, params, X), rtol=1e-6)
    assert seen == ["forward", "backward", ""]
    assert fdl.summary(layer, (1, 5, 3)).params == sum(row.params for row in fdl.summary(layer, (1, 5, 3)).rows)


@over([LSTM(3, 4), GRU(3, 4)])
def test_vmap_over_members_is_one_after_the_other(layer):
    members = [fresh(layer), fdl.init(layer, jax.random.key(5))[0]]
    stacked = jax.tree.map(lambda *a: np.stack(a), *members)
    loss = lambda params: jnp.square(layer(params, X, lengths=LENGTHS)).sum()  # noqa: E731
    got = jax.jit(jax.vmap(jax.value_and_grad(loss)), compiler_options=QUICK)(stacked)
    for i, params in enumerate(members):
        assert_trees_close(rows(got, i), jax.jit(jax.value_and_grad(loss), compiler_options=QUICK)(params))


def test_an_lstm_by_hand():
    """One unit, no input: c_t = sigmoid(1) c + sigmoid(0) tanh(0), the forget bias of 1 alone keeps 73 %."""
    layer = LSTM(1, 1)
    params, _ = fdl.init(layer, jax.random.key(0))
    params["recurrent"]["kernel"] = jnp.zeros((1, 4))
    y, (h, c) = unroll(layer, params, np.zeros((1, 2, 1), np.float32), (jnp.zeros((1, 1)), jnp.ones((1, 1))))
    keep = 1 / (1 + np.exp(-1))
    assert float(c[0, 0]) == pytest.approx(keep**2)
    np.testing.assert_allclose(y[0, :, 0], 0.5 * np.tanh([keep, keep**2]), rtol=1e-6)
    assert float(h[0, 0]) == float(y[0, -1, 0])


def test_a_gru_by_hand():
    """h = 1, x = 0, no biases but b_hn = 2 behind r = sigmoid(0): n = tanh(0.5 * (1 + 2)), z = sigmoid(0)."""
    params = {
        "input": {"kernel": jnp.zeros((1, 3)), "bias": jnp.zeros(3)},
        "recurrent": {"kernel": jnp.array([[0.0, 0.0, 1.0]]), "bias": jnp.array([2.0])},
    }
    _, y = GRU(1, 1).step(params, jnp.ones((1, 1)), jnp.zeros((1, 1)))
    assert float(y[0, 0]) == pytest.approx(0.5 * np.tanh(1.5) + 0.5)


# padding


@over(LAYERS)
def test_a_padded_batch_is_each_sequence_alone(layer):
    params, start = fresh(layer), layer.initial_carry(BATCH)
    y, last = unroll(layer, params, X, start, LENGTHS)
    recurrent_head = "head" in layer.parts()  # a Linear gives its bias for zeros
    for b, length in enumerate(LENGTHS):
        alone, carry = unroll(layer, params, X[b : b + 1, :length])
        assert_trees_close((y[b : b + 1, :length], rows(last, slice(b, b + 1))), (alone, carry))
        assert recurrent_head or not y[b, length:].any()


@over(LAYERS)
def test_what_stands_in_padding_does_not_matter(layer):
    """Not even nan: values and gradients of the params are equal, and the gradient of padding is exactly 0."""
    params = fresh(layer)

    def loss(params, x):
        y, carry = layer.unroll(params, x, lengths=LENGTHS)
        return jnp.where(MASK[..., None], y, 0).sum() + sum(leaf.sum() for leaf in jax.tree.leaves(carry))

    run = jax.jit(jax.value_and_grad(loss, (0, 1)), compiler_options=QUICK)
    clean, dirty = run(params, X), run(params, np.where(MASK[..., None], X, np.float32("nan")))
    for a, b in zip(jax.tree.leaves(clean), jax.tree.leaves(dirty), strict=True):
        np.testing.assert_array_equal(a, b)
    gradient = np.asarray(clean[1][1])
    assert not gradient[~MASK].any()
    assert (gradient[MASK] != 0).any(-1).all()


@over([LSTM(3, 4), GRU(3, 4), STACK])
def test_length_zero_returns_the_carry_that_came_in(layer):
    carry = jax.tree.map(lambda a: a + 0.5, layer.initial_carry(BATCH))
    _, last = unroll(layer, fresh(layer), X, carry, np.zeros(BATCH, np.int32))
    assert_trees_close(last, carry, 0.0)


@over(LAYERS)
@pytest.mark.parametrize("steps", [0, 1])
def test_zero_steps_and_one(layer, steps):
    params = fresh(layer)
    y, last = unroll(layer, params, X[:1, :steps])
    assert y.shape == (1, steps, 4)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(last))
    if steps == 0:
        assert_trees_close(last, layer.initial_carry(1), 0.0)
    gradient = grad(lambda p: layer(p, X[:1, :steps]).sum(), params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


# direction


@over([*CELLS, STACK])
def test_causality_by_gradients(layer):
    """y_2 depends on x_0, x_1, x_2 and on nothing after; backwards on x_2 and later."""
    params = fresh(layer)
    for reverse in (False, True):
        at_2 = lambda x, reverse=reverse: layer.unroll(params, x, reverse=reverse)[0][:, 2].sum()  # noqa: E731
        seen = np.asarray(grad(at_2, X)).any(axis=(0, 2))
        assert seen.tolist() == ([False, False, True, True, True] if reverse else [True, True, True, False, False])


@over([*CELLS, STACK])
def test_reverse_is_a_flip_of_each_sequence(layer):
    params = fresh(layer)
    y, last = unroll(layer, params, X, lengths=LENGTHS, reverse=True)
    for b, n in enumerate(LENGTHS):
        flipped, carry = unroll(layer, params, X[b : b + 1, :n][:, ::-1])
        assert_trees_close((y[b : b + 1, :n], rows(last, slice(b, b + 1))), (flipped[:, ::-1], carry))


def test_bidirectional_is_both_ways_side_by_side():
    params = fresh(BOTH_WAYS)
    y, carry = unroll(BOTH_WAYS, params, X, lengths=LENGTHS)
    forward, there = unroll(BOTH_WAYS.forward, params["forward"], X, lengths=LENGTHS)
    backward, back = unroll(BOTH_WAYS.backward, params["backward"], X, lengths=LENGTHS, reverse=True)
    assert_trees_close((y, carry), (np.concatenate([forward, backward], -1), {"forward": there, "backward": back}), 0.0)
    again, _ = unroll(BOTH_WAYS, params, X, carry, LENGTHS)
    assert not np.allclose(again[0], y[0])
    assert not again[2].any()


# memory


def test_gradients_flow_through_the_carry_until_it_is_stopped():
    layer, params = LSTM(3, 4), fresh(LSTM(3, 4))

    def loss(x, cut):
        _, carry = layer.unroll(params, x[:, :2])
        return layer.unroll(params, x[:, 2:], cut(carry))[0].sum()

    whole = grad(lambda x: layer(params, x)[:, 2:].sum(), X)
    np.testing.assert_allclose(grad(lambda x: loss(x, lambda carry: carry), X), whole, rtol=1e-4, atol=1e-6)
    cut = grad(lambda x: loss(x, jax.lax.stop_gradient), X)
    assert not cut[:, :2].any()
    np.testing.assert_allclose(cut[:, 2:], whole[:, 2:], rtol=1e-4, atol=1e-6)


def test_a_stack_routes_keys_and_carries_by_name():
    """Dropout between layers draws in training only, from the same key in unroll as in a call."""
    model = StackedRNN(GRU(3, 8), nn.Dropout(0.5), last=GRU(8, 8))
    params, key = fresh(model), jax.random.key(3)
    y, carry = unroll(model, params, X, lengths=LENGTHS, key=key, train=True)
    np.testing.assert_allclose(y, call(model, params, X, lengths=LENGTHS, key=key, train=True), rtol=1e-6)
    assert not np.allclose(y[0], call(model, params, X)[0])
    assert {name: leaf.shape for name, leaf in carry.items()} == {"0": (BATCH, 8), "last": (BATCH, 8)}
    with pytest.raises(fdl.InputError, match="key="):
        unroll(model, params, X, train=True)
    _, y_0 = model.step(params, model.initial_carry(BATCH), X[:, 0], key=key, train=True)
    assert not np.allclose(y_0, model.step(params, model.initial_carry(BATCH), X[:, 0])[1])


def test_a_stack_is_a_value_and_stays_one_under_surgery():
    model = StackedRNN(GRU(3, 8), nn.Dropout(0.5), last=GRU(8, 8))
    assert eval(repr(model), {**vars(nn), "StackedRNN": StackedRNN, "GRU": GRU}) == model
    edited: Any = fdl.edit(model, "1", nn.Dropout(0.25))
    assert edited == StackedRNN(GRU(3, 8), nn.Dropout(0.25), last=GRU(8, 8)) != model


def test_a_cell_of_ones_own_gets_everything():
    """An exponential moving average of images, h = (1 - a) h + a x: more axes than [B, T, H], a learned rate."""

    class Average(Recurrence):
        def specs(self):
            return {"rate": fdl.Param((), initializers.Constant(0.25), ())}

        def initial_carry(self, batch, dtype=jnp.float32):
            return jnp.zeros((batch, 2, 2), dtype)

        def advance(self, params, carry, projected):
            carry = carry + params["rate"] * (projected - carry)
            return carry, carry

    layer, x = Average(), jnp.ones((BATCH, STEPS, 2, 2))
    params, _ = fdl.init(layer, jax.random.key(0))
    y, carry = unroll(layer, params, x, lengths=LENGTHS)
    np.testing.assert_allclose(y[0, :, 0, 0], 1 - 0.75 ** np.arange(1, 6), rtol=1e-6)
    np.testing.assert_allclose(carry[:, 1, 1], 1 - 0.75**LENGTHS, rtol=1e-6)
    back = call(layer, params, x, lengths=LENGTHS, reverse=True)
    np.testing.assert_allclose(back[1, :, 0, 0], [1 - 0.75**2, 0.25, 0, 0, 0], rtol=1e-6)
    gradient = grad(lambda p: layer.unroll(p, x[:1])[1][0, 0, 0], params)
    assert float(gradient["rate"]) == pytest.approx(5 * 0.75**4, rel=1e-5)


# dtypes, initial values


@over(LAYERS)
def test_bfloat16_stays_bfloat16(layer):
    y, carry = unroll(layer, fresh(layer, jnp.bfloat16), X.astype(jnp.bfloat16), lengths=LENGTHS)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves((y, carry))} == {"bfloat16"}
    np.testing.assert_allclose(y.astype(np.float32), call(layer, fresh(layer), X, lengths=LENGTHS), atol=0.1)
    carry = layer.initial_carry(BATCH, jnp.bfloat16)
    assert {str(leaf.dtype) for leaf in jax.tree.leaves(carry)} == {"bfloat16"}


@pytest.mark.parametrize("layer", [LSTM(4, 16), GRU(4, 16)])
def test_a_bfloat16_gradient_is_added_up_in_float32(layer):
    """512 steps: the recurrent kernel's is as accurate as the input kernel's, which is one product over all of them."""
    x = np.random.default_rng(2).normal(size=(4, 512, 4))

    def gradient(dtype):
        given, params = jax.tree.map(lambda a: a.astype(jnp.bfloat16).astype(dtype), (x, fresh(layer)))
        return grad(lambda params: layer(params, given).sum(), params)

    def error(side):
        got, want = (np.asarray(tree[side]["kernel"], np.float32) for tree in (half, full))
        return np.linalg.norm(got - want) / np.linalg.norm(want)

    half, full = gradient(jnp.bfloat16), gradient(np.float32)
    assert error("recurrent") < 2 * error("input") < 0.05


@pytest.mark.parametrize(("layer", "gates"), [(RNN(8, 8), 1), (LSTM(8, 8), 4), (GRU(8, 8), 3)])
def test_every_gate_has_an_orthogonal_recurrent_kernel_of_its_own(layer, gates):
    blocks = np.split(np.asarray(fdl.init(layer, jax.random.key(0))[0]["recurrent"]["kernel"]), gates, axis=1)
    for i, block in enumerate(blocks):
        np.testing.assert_allclose(block.T @ block, np.eye(8), atol=1e-5)
        assert all(not np.allclose(block, other) for other in blocks[:i])


def test_xavier_counts_the_outputs_of_one_gate():
    """Variance 2 / (400 + 100), not 2 / (400 + 400)."""
    layer = LSTM(400, 100, kernel_init=initializers.XavierNormal())
    kernel = fdl.init(layer, jax.random.key(0))[0]["input"]["kernel"]
    for gate in np.split(np.asarray(kernel), 4, axis=1):
        assert gate.var() == pytest.approx(2 / 500, rel=0.02)


def test_the_forget_bias_can_be_chosen_or_swept():
    bias = lambda layer: fdl.init(layer, jax.random.key(0))[0]["input"]["bias"]  # noqa: E731
    assert bias(LSTM(1, 2)).tolist() == [0, 0, 1, 1, 0, 0, 0, 0]
    assert not bias(LSTM(1, 2, bias_init=initializers.Zeros())).any()
    swept = jax.vmap(lambda value: bias(LSTM(1, 1, bias_init=ForgetBias(value))))(jnp.array([0.5, 2.0]))
    assert swept.tolist() == [[0, 0.5, 0, 0], [0, 2, 0, 0]]


def test_records_are_values():
    assert hash(LSTM(3, 4)) == hash(LSTM(3, 4))
    assert PerGate(initializers.Orthogonal(), 4) == LSTM(3, 4).specs()["recurrent"]["kernel"].init
    assert repr(RNN(3, 4, activation=jax.nn.relu)) == "RNN(3, 4, activation=jax.nn.relu)"
    assert repr(BOTH_WAYS) == "Bidirectional(LSTM(3, 2), StackedRNN(GRU(3, 3), RNN(3, 2)))"


# what is refused


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: LSTM(3, 4)(p, X[0]), r"LSTM\(3, 4\): expected x of shape \[B, T, in_features=3\].*add the leading"),
        (lambda p: LSTM(3, 4)(p, X[..., :2]), r"in_features=3\], got float32\[3, 5, 2\]"),
        (lambda p: LSTM(3, 4)(p, X, lengths=LENGTHS[:2]), r"expected lengths of shape \[3\], got int64\[2\]"),
        (lambda p: LSTM(3, 4)(p, X, lengths=LENGTHS / 2), "one integer for each sequence"),
        (lambda p: LSTM(3, 4).unroll(p, X, X[:, 0]), r"\(float32\[3, 4\], float32\[3, 4\]\), got float32\[3, 3\]"),
        (lambda p: LSTM(3, 4).unroll(p, X, LSTM(3, 4).initial_carry(2)), r"got \(float32\[2, 4\], float32\[2, 4\]\)"),
        (lambda p: LSTM(3, 4).unroll(p, X, LSTM(3, 4).initial_carry(3, jnp.bfloat16)), r"got \(bfloat16.*x\.dtype\)"),
        (lambda p: LSTM(3, 4).step(p, None, X[:, 0]), "got None; the first one is initial_carry"),
        (lambda p: LSTM(3, 4).step(p, LSTM(3, 4).initial_carry(3), X), r"expected x of shape \[B, in_features=3\]"),
        (lambda p: LSTM(0, 4), "in_features: expected a whole number >= 1, got 0"),
        (lambda p: GRU(4, -1), "hidden_features: expected a whole number >= 1, got -1"),
        (lambda p: Bidirectional(LSTM(3, 4), nn.Linear(3, 4)), r"backward: expected a recurrent layer.*Linear\(3, 4\)"),
        (lambda p: BOTH_WAYS.unroll(p, X, (X, X)), r"an entry for each of \['backward', 'forward'\], got tuple"),
        (lambda p: STACK.unroll(p, X, {"0": X}), r"an entry for each of \['0', '2'\], got \['0'\]"),
        (lambda p: StackedRNN(BOTH_WAYS).step({"0": p}, {"0": None}, X[:, 0]), "whole sequence"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, message):
    params = fresh(BOTH_WAYS) if "BOTH_WAYS" in call.__code__.co_names else fresh(LSTM(3, 4))
    with pytest.raises(fdl.InputError, match=message):
        call(params)


def test_an_error_inside_names_the_path():
    model = nn.Serial(body=Bidirectional(LSTM(3, 2), LSTM(4, 2)))
    with pytest.raises(fdl.InputError) as error:
        model(fdl.init(model, jax.random.key(0))[0], X)
    assert error.value.__notes__[0] == "in layer body/backward"
    stack = StackedRNN(LSTM(3, 2), top=GRU(3, 2))
    with pytest.raises(fdl.InputError) as error:
        stack.unroll(fresh(stack), X)
    assert error.value.__notes__ == ["in layer top"]
