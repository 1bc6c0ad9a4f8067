# pyright: reportMissingImports=false
"""Recurrent layers against PyTorch and Flax: weights copied over in both directions, forward and gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl.nn.recurrent import GRU, LSTM, RNN
from fdl.nn.recurrent_containers import Bidirectional, StackedRNN

IN, HIDDEN, BATCH, STEPS = 3, 5, 4, 7
LENGTHS = np.array([7, 3, 1, 5])
random = np.random.default_rng(0)
X: Any = random.normal(size=(BATCH, STEPS, IN)).astype(np.float32)
WEIGHTS = random.normal(size=(BATCH, STEPS, 2 * HIDDEN)).astype(np.float32)  # a random projection of y is the loss
START = random.normal(size=(2, 2, BATCH, HIDDEN)).astype(np.float32)  # [h or c, direction]

KINDS = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}
every_kind = pytest.mark.parametrize("kind", KINDS)


def close(got: Any, want: Any) -> None:
    """1e-5 of the largest value: sums over steps and batch are taken in another order."""
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        b = np.asarray(b)
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1.0, np.abs(b).max()))


def run(layer: Any, params: Any, carry: Any, lengths: Any = None) -> Any:
    """(y, carry), and the gradients of a projection of both with respect to params, x and the first carry."""

    def loss(params: Any, x: Any, carry: Any) -> Any:
        y, last = layer.unroll(params, x, carry, lengths)
        return (y * WEIGHTS[..., : y.shape[-1]]).sum() + sum(leaf.sum() for leaf in jax.tree.leaves(last)), (y, last)

    (_, outputs), gradients = jax.jit(jax.value_and_grad(loss, (0, 1, 2), has_aux=True))(params, X, carry)
    return outputs, gradients


# PyTorch: [layers * directions, ...] states, transposed kernels, two biases


def to_torch(kind: str, params: Any) -> dict[str, np.ndarray]:
    """Our params as weight_ih, weight_hh, bias_ih, bias_hh, as the docstrings say under "back"."""
    theirs = {"weight_ih": params["input"]["kernel"].T, "weight_hh": params["recurrent"]["kernel"].T}
    if "bias" in params["input"]:
        hidden = np.zeros_like(params["input"]["bias"])
        if kind == "GRU":
            hidden[2 * HIDDEN :] = params["recurrent"]["bias"]
        theirs |= {"bias_ih": params["input"]["bias"], "bias_hh": hidden}
    return theirs


def from_torch(kind: str, theirs: Any) -> Any:
    params: Any = {"input": {"kernel": theirs["weight_ih"].T}, "recurrent": {"kernel": theirs["weight_hh"].T}}
    if "bias_ih" not in theirs:
        return params
    own, hidden = theirs["bias_ih"], theirs["bias_hh"]
    if kind == "GRU":
        params["recurrent"]["bias"] = hidden[2 * HIDDEN :]
        hidden = np.where(np.arange(3 * HIDDEN) < 2 * HIDDEN, hidden, 0)
    params["input"]["bias"] = own + hidden
    return params


def gradients_from_torch(kind: str, module: Any, suffix: str) -> Any:
    """A sum of two biases hands the same gradient to both; the GRU's own hidden bias has one of its own."""
    theirs = {
        name.removesuffix(suffix): p.grad.numpy() for name, p in module.named_parameters() if name.endswith(suffix)
    }
    gradients = from_torch(kind, theirs)
    if "bias_ih" in theirs:
        gradients["input"]["bias"] = theirs["bias_ih"]
    return gradients


def torch_run(module: Any, carry: Any, lengths: Any = None) -> Any:
    torch: Any = pytest.importorskip("torch")
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    x = torch.tensor(X, requires_grad=True)
    carry = jax.tree.map(lambda a: torch.tensor(a, requires_grad=True), carry)
    if lengths is None:
        y, last = module(x, carry)
    else:
        packed = pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        packed, last = module(packed, carry)
        y, _ = pad_packed_sequence(packed, batch_first=True, total_length=STEPS)
    states = jax.tree.leaves(last)
    ((y * torch.tensor(WEIGHTS[..., : y.shape[-1]])).sum() + sum(state.sum() for state in states)).backward()
    outputs = y.detach().numpy(), jax.tree.map(lambda a: a.detach().numpy(), last)
    return outputs, (x.grad.numpy(), jax.tree.map(lambda a: a.grad.numpy(), carry))


def torch_module(kind: str, **settings: Any) -> Any:
    torch: Any = pytest.importorskip("torch")
    torch.manual_seed(0)
    return getattr(torch.nn, kind)(IN, HIDDEN, batch_first=True, **settings)


def start(kind: str, direction: int) -> Any:
    h, c = START[:, direction]
    return (h, c) if kind == "LSTM" else h


def torch_start(kind: str, directions: int) -> Any:
    h, c = START[:, :directions]
    return (h, c) if kind == "LSTM" else h


@every_kind
@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("bias", [True, False])
def test_torch(kind, lengths, bias):
    """Ours from theirs."""
    module = torch_module(kind, bias=bias)
    theirs = {name.removesuffix("_l0"): p.detach().numpy() for name, p in module.named_parameters()}
    layer, params = KINDS[kind](IN, HIDDEN, use_bias=bias), from_torch(kind, theirs)
    fdl.check(layer, params)
    (y, last), (d_params, d_x, d_carry) = run(layer, params, start(kind, 0), lengths)
    (their_y, their_last), (their_d_x, their_d_carry) = torch_run(module, torch_start(kind, 1), lengths)
    close((y, last), (their_y, jax.tree.map(lambda a: a[0], their_last)))
    close((d_x, d_carry), (their_d_x, jax.tree.map(lambda a: a[0], their_d_carry)))
    close(d_params, gradients_from_torch(kind, module, "_l0"))


@every_kind
def test_torch_bidirectional(kind):
    """Theirs from ours, with lengths: each sequence turned within its own length, as when packed."""
    torch: Any = pytest.importorskip("torch")
    module = torch_module(kind, bidirectional=True)
    layer = Bidirectional(KINDS[kind](IN, HIDDEN), KINDS[kind](IN, HIDDEN))
    params = jax.tree.map(lambda a: np.array(a) + 0.1, fdl.init(layer, jax.random.key(0))[0])
    suffixes = {"forward": "_l0", "backward": "_l0_reverse"}
    copied = {n + suffixes[side]: a for side in suffixes for n, a in to_torch(kind, params[side]).items()}
    module.load_state_dict({name: torch.tensor(a) for name, a in copied.items()})
    carry = {side: start(kind, i) for i, side in enumerate(suffixes)}
    (y, last), (d_params, d_x, d_carry) = run(layer, params, carry, LENGTHS)
    (their_y, their_last), (their_d_x, their_d_carry) = torch_run(module, torch_start(kind, 2), LENGTHS)
    close(y, their_y)
    close(d_x, their_d_x)
    for i, (side, suffix) in enumerate(suffixes.items()):
        close(last[side], jax.tree.map(lambda a, i=i: a[i], their_last))
        close(d_carry[side], jax.tree.map(lambda a, i=i: a[i], their_d_carry))
        close(d_params[side], gradients_from_torch(kind, module, suffix))


@every_kind
def test_torch_two_layers(kind):
    module = torch_module(kind, num_layers=2)
    layer = StackedRNN(KINDS[kind](IN, HIDDEN), KINDS[kind](HIDDEN, HIDDEN))
    weights = {name: p.detach().numpy() for name, p in module.named_parameters()}
    params = {i: from_torch(kind, {n[:-3]: a for n, a in weights.items() if n.endswith(f"_l{i}")}) for i in "01"}
    (y, last), (d_params, d_x, d_carry) = run(layer, params, {i: start(kind, int(i)) for i in "01"}, LENGTHS)
    (their_y, their_last), (their_d_x, their_d_carry) = torch_run(module, torch_start(kind, 2), LENGTHS)
    close((y, d_x), (their_y, their_d_x))
    for i in "01":
        close(last[i], jax.tree.map(lambda a, i=i: a[int(i)], their_last))
        close(d_carry[i], jax.tree.map(lambda a, i=i: a[int(i)], their_d_carry))
        close(d_params[i], gradients_from_torch(kind, module, f"_l{i}"))


def test_torch_relu():
    module = torch_module("RNN", nonlinearity="relu")
    params = from_torch("RNN", {name.removesuffix("_l0"): p.detach().numpy() for name, p in module.named_parameters()})
    (y, _), gradients = run(RNN(IN, HIDDEN, activation=jax.nn.relu), params, start("RNN", 0))
    (their_y, _), (their_d_x, _) = torch_run(module, torch_start("RNN", 1))
    close((y, gradients[1]), (their_y, their_d_x))


# Flax: one kernel a gate, the LSTM's carry as (c, h)

FLAX = {
    "SimpleCell": (RNN(IN, HIDDEN), [""]),
    "LSTMCell": (LSTM(IN, HIDDEN), ["i", "f", "g", "o"]),
    "OptimizedLSTMCell": (LSTM(IN, HIDDEN), ["i", "f", "g", "o"]),
    "GRUCell": (GRU(IN, HIDDEN), ["r", "z", "n"]),
}


def from_flax(theirs: Any, gates: list[str]) -> Any:
    def joined(side: str, leaf: str) -> Any:
        return np.concatenate([theirs[side + gate][leaf] for gate in gates if leaf in theirs[side + gate]], -1)

    params: Any = {side: {"kernel": joined(s, "kernel")} for side, s in (("input", "i"), ("recurrent", "h"))}
    params["input"]["bias"] = joined("h" if len(gates) == 4 else "i", "bias")
    if len(gates) == 3:
        params["recurrent"]["bias"] = joined("h", "bias")
    return params


@pytest.mark.parametrize("name", FLAX)
@pytest.mark.parametrize("reverse", [False, True])
def test_flax(name, reverse):
    """And `reverse` is their reverse=True, keep_order=True."""
    linen: Any = pytest.importorskip("flax.linen")
    layer, gates = FLAX[name]
    module = linen.RNN(getattr(linen, name)(HIDDEN), return_carry=True, reverse=reverse, keep_order=True)
    theirs = module.init(jax.random.key(0), X)["params"]["cell"]
    offset = np.random.default_rng(1)
    theirs = jax.tree.map(lambda a: np.asarray(a) + 0.1 * offset.normal(size=a.shape).astype(np.float32), theirs)
    swap = (lambda carry: carry[::-1]) if len(gates) == 4 else (lambda carry: carry)
    carry = start(type(layer).__name__, 0)

    def their_loss(cell: Any, x: Any) -> Any:
        settings = {"seq_lengths": jnp.asarray(LENGTHS), "initial_carry": swap(carry)}
        last, y = module.apply({"params": {"cell": cell}}, x, **settings)
        y = jnp.where((LENGTHS[:, None] > np.arange(STEPS))[..., None], y, 0)  # theirs goes on through the padding
        return (y * WEIGHTS[..., :HIDDEN]).sum() + sum(a.sum() for a in jax.tree.leaves(last)), (y, swap(last))

    def our_loss(params: Any, x: Any) -> Any:
        y, last = layer.unroll(params, x, carry, LENGTHS, reverse=reverse)
        return (y * WEIGHTS[..., :HIDDEN]).sum() + sum(a.sum() for a in jax.tree.leaves(last)), (y, last)

    (_, want), (their_d_params, their_d_x) = jax.value_and_grad(their_loss, (0, 1), has_aux=True)(theirs, X)
    params = from_flax(theirs, gates)
    fdl.check(layer, params)
    (_, got), (d_params, d_x) = jax.jit(jax.value_and_grad(our_loss, (0, 1), has_aux=True))(params, X)
    close(got, want)
    close((d_params, d_x), (from_flax(their_d_params, gates), their_d_x))


def test_flax_bidirectional():
    linen: Any = pytest.importorskip("flax.linen")
    module = linen.Bidirectional(linen.RNN(linen.GRUCell(HIDDEN)), linen.RNN(linen.GRUCell(HIDDEN)))
    theirs = module.init(jax.random.key(0), X)["params"]
    layer = Bidirectional(GRU(IN, HIDDEN), GRU(IN, HIDDEN))
    params = {side: from_flax(theirs[f"{side}_rnn"]["cell"], ["r", "z", "n"]) for side in ("forward", "backward")}
    fdl.check(layer, params)
    want = module.apply({"params": theirs}, X, seq_lengths=jnp.asarray(LENGTHS))
    got = layer(params, X, lengths=LENGTHS)
    real = LENGTHS[:, None] > np.arange(STEPS)
    close(np.asarray(got)[real], np.asarray(want)[real])
