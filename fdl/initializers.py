"""Initialisers as value-equal records over `jax.nn.initializers`: `(key, shape, dtype) -> array`.

Xavier (Glorot), He and LeCun scale by the number of inputs (fan-in) or outputs (fan-out) of a unit, so they must know
which axes of a kernel those are: `in_axis` and `out_axis`; all other axes are the receptive field of a convolution and
multiply both. The defaults fit Linear [in, out] and Conv [H, W, in, out].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.nn import initializers as jax_initializers

from fdl.core import Initializer
from fdl.errors import InputError
from fdl.fields import End, NonNegative, Real, Size, check_fields
from fdl.records import record_source

Axes = int | tuple[int, ...]
Shape = Sequence[int]


class _Record:
    """Prints as source, checks its numbers; equality and hash come from the dataclass.

    Draws that are not random share no loop.
    """

    random: ClassVar[bool] = True

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__repr__ = _Record.__repr__

    def __post_init__(self) -> None:
        check_fields(self)

    def __repr__(self) -> str:
        return record_source(self)


@dataclass(frozen=True)
class Zeros(_Record):
    """All 0."""

    random: ClassVar[bool] = False

    def __call__(self, key: jax.Array | None, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        return jnp.zeros(shape, dtype)


@dataclass(frozen=True)
class Ones(_Record):
    """All 1."""

    random: ClassVar[bool] = False

    def __call__(self, key: jax.Array | None, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        return jnp.ones(shape, dtype)


@dataclass(frozen=True)
class Constant(_Record):
    """All `value`."""

    random: ClassVar[bool] = False

    value: Real

    def __call__(self, key: jax.Array | None, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        return jnp.full(shape, self.value, dtype)


@dataclass(frozen=True)
class Normal(_Record):
    """N(0, stddev^2)."""

    stddev: NonNegative = 0.01

    def __call__(self, key: jax.Array, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        return jax.random.normal(key, shape, dtype) * jnp.asarray(self.stddev, dtype)


@dataclass(frozen=True)
class TruncatedNormal(_Record):
    """A standard normal cut off at `lower` and `upper`, times `stddev`.

    The result's own standard deviation is smaller (0.88 `stddev` for a cut at +-2), as in JAX and PyTorch.
    """

    stddev: NonNegative = 0.01
    lower: End = -2.0
    upper: End = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_ends(self, self.lower, self.upper)

    def __call__(self, key: jax.Array, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        draw = jax.random.truncated_normal(key, self.lower, self.upper, shape, dtype)
        return draw * jnp.asarray(self.stddev, dtype)


@dataclass(frozen=True)
class Uniform(_Record):
    """U[low, high). It has no defaults: a single number could mean either end."""

    low: Real
    high: Real

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_ends(self, self.low, self.high)

    def __call__(self, key: jax.Array, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        low, high = jnp.asarray(self.low, dtype), jnp.asarray(self.high, dtype)
        return jax.random.uniform(key, shape, dtype, low, high)


@dataclass(frozen=True)
class _VarianceScaling(_Record):
    """Variance scale / fan; each subclass fixes scale, fan and distribution."""

    in_axis: Axes = -2
    out_axis: Axes = -1
    scaling: ClassVar[tuple[float, Any, Any]]

    def __call__(self, key: jax.Array, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        scaled = jax_initializers.variance_scaling(*self.scaling, self.in_axis, self.out_axis)
        return scaled(key, tuple(shape), dtype)


@dataclass(frozen=True)
class LecunNormal(_VarianceScaling):
    """Variance 1 / fan_in, normal truncated at two standard deviations (LeCun et al., Efficient BackProp, 1998)."""

    scaling = (1.0, "fan_in", "truncated_normal")


@dataclass(frozen=True)
class LecunUniform(_VarianceScaling):
    """Variance 1 / fan_in, uniform on +-sqrt(3 / fan_in) (LeCun et al., Efficient BackProp, 1998)."""

    scaling = (1.0, "fan_in", "uniform")


@dataclass(frozen=True)
class XavierNormal(_VarianceScaling):
    """Variance 2 / (fan_in + fan_out): keeps it through tanh layers (Glorot & Bengio, 2010, section 4.2).

    PyTorch's `xavier_normal_` does not truncate.
    """

    scaling = (1.0, "fan_avg", "truncated_normal")


@dataclass(frozen=True)
class XavierUniform(_VarianceScaling):
    """Uniform on +-sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio, 2010, equation 16)."""

    scaling = (1.0, "fan_avg", "uniform")


@dataclass(frozen=True)
class HeNormal(_VarianceScaling):
    """Variance 2 / fan_in: keeps the second moment through ReLU layers (He et al., 2015, equation 10).

    PyTorch's `kaiming_normal_` does not truncate.
    """

    scaling = (2.0, "fan_in", "truncated_normal")


@dataclass(frozen=True)
class HeUniform(_VarianceScaling):
    """Uniform on +-sqrt(6 / fan_in) (He et al., 2015)."""

    scaling = (2.0, "fan_in", "uniform")


@dataclass(frozen=True)
class TorchDefault(_VarianceScaling):
    """Uniform on +-1 / sqrt(fan_in), variance 1 / (3 fan_in): what PyTorch's `Linear` and `Conv2d` draw kernels from.

    PyTorch draws their biases from the same interval; those of fdl start at zero unless `bias_init` says otherwise.
    """

    scaling = (1 / 3, "fan_in", "uniform")


GlorotNormal, GlorotUniform = XavierNormal, XavierUniform  # one man, two names


@dataclass(frozen=True)
class Orthogonal(_Record):
    """A matrix with orthonormal rows or columns, times `scale` (Saxe et al., 2014); `axis` is the output axis."""

    scale: Real = 1.0
    axis: int = -1

    def __call__(self, key: jax.Array, shape: Shape, dtype: Any = jnp.float32) -> jax.Array:
        wide = jnp.float32 if jnp.finfo(dtype).bits < 32 else dtype  # there is no QR in half precision

        # One matrix after another, however many members or layers `vmap` draws at once: on a CPU, jaxlib 0.10.2 gives
        # a batch of QR to the threads that run the program, and waits on one of them: where they all wait (two such
        # batches on two cores), the program stands still for ever.
        @jax.custom_batching.sequential_vmap
        def draw(data: jax.Array) -> jax.Array:  # a key as data: loops of loops over keys look like reuse to JAX
            wrapped = jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))
            return jax_initializers.orthogonal(1.0, self.axis)(wrapped, tuple(shape), wide)

        return (self.scale * draw(jax.random.key_data(key))).astype(dtype)


@dataclass(frozen=True)
class PerGate(_Record):
    """`init` drawn for each of the `gates` blocks along the last axis, as for that many kernels.

    Drawn at once, an orthogonal [H, 4 H] kernel would have no orthogonal block, and Xavier would count 4 H outputs.

    >>> import jax, jax.numpy as jnp
    >>> kernel = PerGate(Orthogonal(), 4)(jax.random.key(0), (8, 32))
    >>> [bool(jnp.allclose(u.T @ u, jnp.eye(8), atol=1e-5)) for u in jnp.split(kernel, 4, axis=-1)]
    [True, True, True, True]
    """

    init: Initializer
    gates: Size

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        block = (*shape[:-1], shape[-1] // self.gates)
        return jnp.concatenate([self.init(k, block, dtype) for k in jax.random.split(key, self.gates)], axis=-1)


@dataclass(frozen=True)
class PerGroup(_Record):
    """`init` drawn for each of the `groups` blocks along the last axis but one, as for that many kernels.

    The kernel of a grouped `ConvTranspose` is [H, W, in, out / groups], where an output sees in / groups channels:
    drawn at once, its variance would come out too small by the factor `groups`.
    """

    init: Initializer
    groups: Size

    def __call__(self, key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        block = (*shape[:-2], shape[-2] // self.groups, shape[-1])
        return jnp.concatenate([self.init(k, block, dtype) for k in jax.random.split(key, self.groups)], axis=-2)


@dataclass(frozen=True)
class ForgetBias(Constant):
    """The bias of an LSTM: `value` for the forget gate, the second of the four blocks, and 0 for the others.

    At 0 a new LSTM halves its memory at every step; at 1 it starts out remembering (Jozefowicz et al., An empirical
    exploration of recurrent network architectures, 2015, section 5).

    >>> ForgetBias()(None, (8,)).tolist()
    [0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    """

    value: Real = 1.0

    def __call__(self, key: jax.Array | None, shape: Sequence[int], dtype: Any = jnp.float32) -> jax.Array:
        del key
        size = shape[-1] // 4
        return jnp.zeros(shape, dtype).at[..., size : 2 * size].set(jnp.asarray(self.value, dtype))


def _check_ends(record: _Record, low: Any, high: Any) -> None:
    if not isinstance(low, Tracer) and not isinstance(high, Tracer) and not low < high:
        raise InputError(f"{record!r}: expected a lower end below the upper one, got {low} and {high}")
