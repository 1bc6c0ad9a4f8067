"""Recurrences as bare functions: the cells, and a loop over time that is aware of padding.

What a step does with x_t does not depend on the carry, so for a whole sequence it is one large product before the loop:
`projected = x @ kernel + bias`. The product with the state, `hidden = h @ kernel`, is all that must stay inside. A cell
is what follows both, elementwise.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.errors import InputError
from fdl.ops.linear import linear
from fdl.ops.norm import widen


def rnn_cell(
    h: jax.Array, projected: jax.Array, hidden: jax.Array, activation: Callable[[jax.Array], jax.Array] = jnp.tanh
) -> jax.Array:
    """h_t = s(projected + hidden) (Elman, Finding structure in time, 1990).

    Args:
      h: h_{t-1} [B, H], of which only `hidden` is needed here.
      projected: x_t @ input kernel + bias, [B, H].
      hidden: h_{t-1} @ recurrent kernel, [B, H].
      activation: s.

    >>> import jax.numpy as jnp
    >>> rnn_cell(jnp.ones(1), jnp.array([3.0]), jnp.array([-1.0]), jax.nn.relu).tolist()
    [2.0]
    """
    del h
    return activation(projected + hidden)


def lstm_cell(
    carry: tuple[jax.Array, jax.Array], projected: jax.Array, hidden: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """c_t = sigmoid(f) * c_{t-1} + sigmoid(i) * tanh(g), h_t = sigmoid(o) * tanh(c_t).

    [i, f, g, o] = projected + hidden, in this order (Gers et al., Learning to forget, 2000).

    Args:
      carry: (h, c) of step t-1, each [B, H].
      projected: x_t @ input kernel + bias, [B, 4 H].
      hidden: h_{t-1} @ recurrent kernel, [B, 4 H].
    Returns: (h, c) of step t.

    >>> import jax.numpy as jnp
    >>> gates = jnp.array([-99.0, 99.0, 0.0, 99.0])  # write nothing, keep, show
    >>> h, c = lstm_cell((jnp.zeros(1), jnp.ones(1)), gates, jnp.zeros(4))
    >>> c.tolist(), (h == jnp.tanh(1.0)).tolist()
    ([1.0], [True])
    """
    i, f, g, o = jnp.split(projected + hidden, 4, axis=-1)
    c = jax.nn.sigmoid(f) * carry[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def gru_cell(h: jax.Array, projected: jax.Array, hidden: jax.Array) -> jax.Array:
    """h_t = (1 - z) * n + z * h_{t-1}, r = sigmoid(p_r + q_r), z = sigmoid(p_z + q_z), n = tanh(p_n + r * q_n).

    [p_r, p_z, p_n] = projected and [q_r, q_z, q_n] = hidden. The reset gate multiplies *after* the product, as in
    PyTorch, cuDNN and Flax; in Cho et al. (Learning phrase representations, 2014, equation 8) before it.

    Args:
      h: h_{t-1} [B, H].
      projected: x_t @ input kernel + bias, [B, 3 H].
      hidden: h_{t-1} @ recurrent kernel + recurrent bias, [B, 3 H].

    >>> import jax.numpy as jnp
    >>> gru_cell(jnp.array([0.5]), jnp.array([0.0, 99.0, 9.0]), jnp.zeros(3)).tolist()  # z = 1 keeps the state
    [0.5]
    """
    p_r, p_z, p_n = jnp.split(projected, 3, axis=-1)
    q_r, q_z, q_n = jnp.split(hidden, 3, axis=-1)
    r, z = jax.nn.sigmoid(p_r + q_r), jax.nn.sigmoid(p_z + q_z)
    return (1.0 - z) * jnp.tanh(p_n + r * q_n) + z * h


def length_mask(lengths: Any, num_steps: int) -> jax.Array:
    """mask[b, t] = t < lengths[b], bool [B, num_steps].

    Args:
      lengths: integers [B]. One above `num_steps` means all steps and one below 0 none, so that `lengths - start` is
        right for a chunk of a longer sequence that begins at `start`.

    Raises:
      InputError: lengths that are no vector of integers.

    >>> import jax.numpy as jnp
    >>> length_mask(jnp.array([2, 0]), 3).tolist()
    [[True, True, False], [False, False, False]]
    """
    lengths = jnp.asarray(lengths)
    if lengths.ndim != 1 or not jnp.issubdtype(lengths.dtype, jnp.integer):
        raise InputError(f"lengths: expected one integer for each sequence, [B], got {lengths.dtype}{[*lengths.shape]}")
    return jnp.arange(num_steps, dtype=lengths.dtype) < lengths[:, None]


def scan_time(
    step: Callable[[Any, jax.Array], tuple[Any, jax.Array]],
    carry: Any,
    x: jax.Array,
    mask: jax.Array | None = None,
    reverse: bool = False,
) -> tuple[jax.Array, Any]:
    """carry_t, y_t = step(carry_{t-1}, x_t): `jax.lax.scan` over the second axis, aware of padding.

    Where the mask is false the carry stays what it was and y is 0, so the last carry is that of the last real step.

    Args:
      step: (carry, x_t [B, ...]) -> (carry, y_t [B, ...]).
      carry: tree of arrays [B, ...], which `step` keeps in shape and dtype.
      x: [B, T, ...]. What stands in padding should be finite: 0 * nan is nan in the gradient of a step's kernel.
      mask: bool [B, T], true at real steps; None: at all.
      reverse: from the last step to the first. Padding at the end then comes first and changes nothing, so that every
        sequence starts at its own last step; nothing needs to be reordered.
    Returns: y [B, T, ...], the last carry.

    >>> import jax.numpy as jnp
    >>> def add(total, x):
    ...     return total + x, total + x
    >>> mask = length_mask(jnp.array([3, 2]), 3)
    >>> y, total = scan_time(add, jnp.zeros(2), jnp.ones((2, 3)), mask)
    >>> y.tolist(), total.tolist()
    ([[1.0, 2.0, 3.0], [1.0, 2.0, 0.0]], [3.0, 2.0])
    >>> scan_time(add, jnp.zeros(2), jnp.ones((2, 3)), mask, reverse=True)[0].tolist()
    [[3.0, 2.0, 1.0], [2.0, 1.0, 0.0]]
    """

    def advance(carry: Any, now: tuple[jax.Array, jax.Array | None]) -> tuple[Any, jax.Array]:
        x, real = now
        after, y = step(carry, x)
        return _where(real, after, carry), y

    # Plain autodiff. To have the gradient of any kernel as one product after the loop, a rule would have to compute the
    # steps again, which costs what it gains; `lstm` knows its own derivative. Unrolling by 4: no gain.
    carry, y = jax.lax.scan(advance, carry, _time_first((x, mask)), reverse=reverse)
    y = _time_first(y)
    return _where(mask, y, jnp.zeros_like(y)), carry


def lstm(
    projected: jax.Array,
    kernel: jax.Array,
    carry: tuple[jax.Array, jax.Array],
    mask: jax.Array | None = None,
    reverse: bool = False,
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """`lstm_cell` over time with hidden = h_{t-1} @ kernel: what `scan_time` gives, with a quicker derivative.

    Plain autodiff adds up the kernel's gradient step by step. Here it is one product after the loop, and of a step no
    more is kept than 7 H numbers. As a rule for tangents, not cotangents, it serves forward mode as well.

    Args:
      projected: x @ input kernel + bias, [B, T, 4 H], the gates in the order i, f, g, o.
      kernel: the recurrent one, [H, 4 H].
      carry: the first (h, c), each [B, H].
      mask, reverse: as in `scan_time`.
    Returns: h [B, T, H], 0 where the mask is false, and the last (h, c).

    >>> import jax.numpy as jnp
    >>> zeros = jnp.zeros((1, 1))
    >>> y, (h, c) = lstm(jnp.ones((1, 2, 4)), jnp.zeros((1, 4)), (zeros, zeros))
    >>> [round(float(value), 4) for value in y[0, :, 0]], bool((y[:, -1] == h).all())
    ([0.3696, 0.5453], True)
    """
    return _lstm(projected, kernel, carry, mask, reverse)


@partial(jax.custom_jvp, nondiff_argnums=(4,))
def _lstm(projected: jax.Array, kernel: jax.Array, carry: Any, mask: jax.Array | None, reverse: bool) -> Any:
    return _lstm_steps(projected, kernel, carry, mask, reverse)[:2]


def _lstm_steps(projected: jax.Array, kernel: jax.Array, carry: Any, mask: jax.Array | None, reverse: bool) -> Any:
    """y, the last carry and, of each step, time first: h before it, and what its tangents are multiplied with."""
    # sigmoid(z) = (1 + tanh(z / 2)) / 2, for all gates at once: XLA on a CPU is slow with parts of an array
    scale = jnp.asarray(np.repeat([0.5, 0.5, 1.0, 0.5], kernel.shape[0]), widen(projected).dtype)

    def step(carry: Any, now: Any) -> Any:
        projected, real = now
        h, c = carry
        t = jnp.tanh(scale * widen(projected + h @ kernel))  # in bfloat16 a gate near 0 would have lost its digits
        i, f, g, o = jnp.split((scale * t + (1 - scale)).astype(projected.dtype), 4, axis=-1)
        after = f * c + i * g
        shown = jnp.tanh(after)
        new = _where(real, (o * shown, after), carry)
        slopes = (scale * scale * (1 - t * t)).astype(projected.dtype) * jnp.concatenate([g, c, i, shown], axis=-1)
        return new, (new[0], (h, slopes, f, o * (1 - shown * shown)))

    last, (y, kept) = jax.lax.scan(step, carry, _time_first((projected, mask)), reverse=reverse)
    y = _time_first(y)
    return _where(mask, y, jnp.zeros_like(y)), last, kept


@_lstm.defjvp
def _lstm_tangents(reverse: bool, primals: Any, tangents: Any) -> Any:
    (projected, kernel, carry, mask), (d_projected, d_kernel, d_carry, _) = primals, tangents
    y, last, (h, *slopes) = _lstm_steps(projected, kernel, carry, mask, reverse)

    def step(d_carry: Any, now: Any) -> Any:
        d_gates, real, (by_gates, by_c, by_shown) = now
        d_h, d_c = d_carry
        d_i, d_f, d_g, d_o = jnp.split(by_gates * (d_gates + d_h @ kernel), 4, axis=-1)
        d_c = by_c * d_c + d_i + d_f + d_g
        new = _where(real, (by_shown * d_c + d_o, d_c), d_carry)
        return new, new[0]

    d_gates = _time_first(d_projected) + linear(h, d_kernel)
    d_last, d_y = jax.lax.scan(step, d_carry, (d_gates, _time_first(mask), slopes), reverse=reverse)
    d_y = _time_first(d_y)
    return (y, last), (_where(mask, d_y, jnp.zeros_like(d_y)), d_last)


def _time_first(tree: Any) -> Any:
    """[B, T, ...] as [T, B, ...], and back."""
    return jax.tree.map(lambda a: jnp.swapaxes(a, 0, 1), tree)


def _where(real: jax.Array | None, new: Any, old: Any) -> Any:
    """`new` where `real`, which has the leading axes of both, is true or None."""
    if real is None:
        return new
    return jax.tree.map(lambda n, o: jnp.where(real.reshape(real.shape + (1,) * (n.ndim - real.ndim)), n, o), new, old)
