"""Recurrent layers: `RNN`, `LSTM`, `GRU`, and how their kernels of several gates are initialised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from fdl.core import Initializer, Param, Tree
from fdl.fields import Flag, Size
from fdl.initializers import ForgetBias, LecunNormal, Orthogonal, PerGate, Zeros
from fdl.nn.recurrence import Recurrence
from fdl.ops import recurrent as ops
from fdl.ops.shared import shared


@dataclass(frozen=True)
class _Gated(Recurrence):
    """What the three have in common: a product of the input and one of the state, `gates` blocks side by side."""

    in_features: Size
    hidden_features: Size
    use_bias: Flag = True
    kernel_init: Initializer = LecunNormal()
    recurrent_init: Initializer = Orthogonal()
    bias_init: Initializer = Zeros()
    axes: tuple[str | None, str | None] = ("embed", "mlp")
    gates: ClassVar[int] = 1
    step_shape: ClassVar[str] = "in_features"

    def specs(self) -> Tree:
        width, mlp = self.gates * self.hidden_features, self.axes[1]
        kernel = Param((self.in_features, width), PerGate(self.kernel_init, self.gates), self.axes)
        bias = Param((width,), self.bias_init, (mlp,))
        # its input axis has no name: one mesh axis cannot shard both axes of an array
        recurrent = Param((self.hidden_features, width), PerGate(self.recurrent_init, self.gates), (None, mlp))
        return {
            "input": {"kernel": kernel, "bias": bias} if self.use_bias else {"kernel": kernel},
            "recurrent": {"kernel": recurrent},
        }

    def initial_carry(self, batch: int, dtype: Any = jnp.float32) -> Any:
        return jnp.zeros((batch, self.hidden_features), dtype)

    def project(self, params: Tree, x: jax.Array) -> jax.Array:
        # time first, as the loop takes it: what is transposed is x, not y, which is larger
        y = ops.linear(jnp.moveaxis(x, -2, 0), params["input"]["kernel"])
        return jnp.moveaxis(y + shared(params["input"]["bias"], y) if self.use_bias else y, 0, -2)


@dataclass(frozen=True)
class RNN(_Gated):
    """h_t = s(x_t @ U + h_{t-1} @ W + b): the simple recurrence.

    Args:
      in_features, hidden_features: sizes of the last axis of x and of h.
      use_bias: whether there is a b.
      kernel_init, recurrent_init, bias_init: initialise U, W and b.
      axes: logical names of the input and the hidden axis.
      activation: s.
    Call: x [B, T, in_features], lengths [B] -> h [B, T, hidden_features], in x's dtype. `unroll` and `step` as in
      `Recurrence`; the carry is h [B, hidden_features].

    Elman's network also reads y_t = O(h_t @ V + c) out of h: a `Linear` and O after it,
    `Serial(RNN(3, 8), Linear(8, 2), O)`, or, where its carry is needed, `StackedRNN(RNN(3, 8), Linear(8, 2), O)`.

    Params: input/kernel U [in, H], input/bias b [H], recurrent/kernel W [H, H].
    PyTorch's `nn.RNN` (batch_first=True): U = weight_ih_l0.T, W = weight_hh_l0.T, b = bias_ih_l0 + bias_hh_l0 (back:
    bias_hh_l0 = 0); it draws all of them from U(-1/sqrt(H), 1/sqrt(H)). Flax's `SimpleCell` in `nn.RNN`: U = i/kernel,
    b = i/bias, W = h/kernel, the same initialisers.

    Reference: Elman, Finding structure in time, 1990.

    >>> import jax, jax.numpy as jnp, fdl
    >>> layer = RNN(3, 8, activation=jax.nn.relu)
    >>> params, _ = fdl.init(layer, jax.random.key(0))
    >>> x = jnp.ones((2, 5, 3))
    >>> y, carry = layer.unroll(params, x[:, :3])
    >>> rest, carry = layer.unroll(params, x[:, 3:], carry)
    >>> bool(jnp.allclose(jnp.concatenate([y, rest], 1), layer(params, x), atol=1e-6))
    True
    """

    activation: Callable[[jax.Array], jax.Array] = jnp.tanh

    def advance(self, params: Tree, carry: jax.Array, projected: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = ops.rnn_cell(carry, projected, carry @ params["recurrent"]["kernel"], self.activation)
        return h, h


@dataclass(frozen=True)
class LSTM(_Gated):
    """c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g), h_t = sigmoid(o) * tanh(c_t).

    [i, f, g, o] = x_t @ U + h_{t-1} @ W + b.

    Args:
      in_features, hidden_features: sizes of the last axis of x and of h.
      use_bias: whether there is a b.
      kernel_init, recurrent_init: initialise U and W, gate by gate.
      bias_init: initialises b; `Zeros()` for no forget bias.
      axes: logical names of the input and the hidden axis.
    Call: x [B, T, in_features], lengths [B] -> h [B, T, hidden_features], in x's dtype. `unroll` and `step` as in
      `Recurrence`; the carry is (h, c), each [B, hidden_features].

    Params: input/kernel U [in, 4 H], input/bias b [4 H], recurrent/kernel W [H, 4 H], blocks in the order i, f, g, o.
    PyTorch's `nn.LSTM` (batch_first=True) has that order and the carry (h, c), each with a leading axis of layers:
    U = weight_ih_l0.T, W = weight_hh_l0.T, b = bias_ih_l0 + bias_hh_l0 (back: bias_hh_l0 = 0); it draws all of them
    from U(-1/sqrt(H), 1/sqrt(H)), the forget bias too. Its `proj_size` is missing here. Flax's `LSTMCell` and
    `OptimizedLSTMCell` in `nn.RNN` have the carry (c, h) and one kernel a gate: U is ii, if, ig, io side by side, W hi,
    hf, hg, ho, and b the biases of the latter; the initialisers are the same but for a forget bias of 0.

    Reference: Hochreiter & Schmidhuber, Long short-term memory, 1997; Gers et al., Learning to forget, 2000.

    >>> import jax, jax.numpy as jnp, fdl
    >>> layer = LSTM(3, 8)
    >>> params, _ = fdl.init(layer, jax.random.key(0))
    >>> y, (h, c) = layer.unroll(params, jnp.ones((2, 5, 3)), lengths=jnp.array([5, 2]))
    >>> bool((y[0, 4] == h[0]).all() and (y[1, 1] == h[1]).all()), y[1, 2:].any().item()
    (True, False)
    """

    bias_init: Initializer = ForgetBias()
    gates: ClassVar[int] = 4

    def initial_carry(self, batch: int, dtype: Any = jnp.float32) -> Any:
        return super().initial_carry(batch, dtype), super().initial_carry(batch, dtype)

    def advance(self, params: Tree, carry: Any, projected: jax.Array) -> tuple[Any, jax.Array]:
        h, c = ops.lstm_cell(carry, projected, carry[0] @ params["recurrent"]["kernel"])
        return (h, c), h

    def _scan(self, params: Tree, carry: Any, projected: jax.Array, mask: jax.Array | None, reverse: bool) -> Any:
        if type(self).advance is not LSTM.advance:  # a cell of one's own
            return super()._scan(params, carry, projected, mask, reverse)
        return ops.lstm(projected, params["recurrent"]["kernel"], carry, mask, reverse)


@dataclass(frozen=True)
class GRU(_Gated):
    """h_t = (1 - z) * n + z * h_{t-1}, where r and z are gates and n is the new content.

    r = sigmoid(x_t @ U_r + h_{t-1} @ W_r + b_r), z likewise, n = tanh(x_t @ U_n + b_n + r * (h_{t-1} @ W_n + b_hn)).

    Args:
      in_features, hidden_features: sizes of the last axis of x and of h.
      use_bias: whether there are b and b_hn.
      kernel_init, recurrent_init, bias_init: initialise U, W and both biases, kernels gate by gate.
      axes: logical names of the input and the hidden axis.
    Call: x [B, T, in_features], lengths [B] -> h [B, T, hidden_features], in x's dtype. `unroll` and `step` as in
      `Recurrence`; the carry is h [B, hidden_features].

    Params: input/kernel U [in, 3 H], input/bias b [3 H], recurrent/kernel W [H, 3 H], recurrent/bias b_hn [H], blocks
    in the order r, z, n. PyTorch's `nn.GRU` (batch_first=True) has that order and that formula: U = weight_ih_l0.T,
    W = weight_hh_l0.T, b = bias_ih_l0 + bias_hh_l0 for r and z and bias_ih_l0 for n, b_hn = bias_hh_l0 for n (back:
    bias_hh_l0 = [0, 0, b_hn]); it draws all of them from U(-1/sqrt(H), 1/sqrt(H)). Flax's `GRUCell` in `nn.RNN` has one
    kernel a gate: U and b are ir, iz, in side by side, W hr, hz, hn, b_hn is hn/bias; the same initialisers. With
    Keras's reset_after=False, as in Cho et al., r multiplies h before the product: not this layer.

    Reference: Cho et al., Learning phrase representations using RNN encoder-decoder, 2014, section 2.3.

    >>> import jax, jax.numpy as jnp, fdl
    >>> layer = GRU(3, 8)
    >>> params, _ = fdl.init(layer, jax.random.key(0))
    >>> carry = layer.initial_carry(2)
    >>> carry, y = layer.step(params, carry, jnp.ones((2, 3)))
    >>> y.shape
    (2, 8)
    """

    gates: ClassVar[int] = 3

    def specs(self) -> Tree:
        specs = super().specs()
        if self.use_bias:
            specs["recurrent"]["bias"] = Param((self.hidden_features,), self.bias_init, self.axes[1:])
        return specs

    def advance(self, params: Tree, carry: jax.Array, projected: jax.Array) -> tuple[jax.Array, jax.Array]:
        hidden = carry @ params["recurrent"]["kernel"]
        if self.use_bias:
            bias = jnp.pad(params["recurrent"]["bias"], (2 * self.hidden_features, 0))
            hidden = hidden + shared(bias, hidden)
        h = ops.gru_cell(carry, projected, hidden)
        return h, h
