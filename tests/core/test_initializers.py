"""Initialisers: values, distributions with their fans, dtypes."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from functools import partial, reduce
from operator import getitem
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import initializers, nn
from fdl.core import Layer, Param
from fdl.initializers import (
    Constant,
    GlorotNormal,
    GlorotUniform,
    HeNormal,
    HeUniform,
    LecunNormal,
    LecunUniform,
    Normal,
    Ones,
    Orthogonal,
    TorchDefault,
    TruncatedNormal,
    Uniform,
    XavierNormal,
    XavierUniform,
    Zeros,
)

ALL = [
    Zeros(), Ones(), Constant(2.5), Normal(0.5), TruncatedNormal(0.5), Uniform(-1.0, 3.0), Orthogonal(),
    LecunNormal(), LecunUniform(), XavierNormal(), XavierUniform(), HeNormal(), HeUniform(), TorchDefault(),
]  # fmt: skip
ATTENTION = {"in_axis": 0, "out_axis": (1, 2)}
TRUNCATED = 0.87962566103423978  # standard deviation of N(0, 1) cut off at +-2


def draw(initializer: Any, *shape: int, seed: int = 0, dtype: Any = jnp.float32) -> np.ndarray:
    return np.asarray(initializer(jax.random.key(seed), shape, dtype))


@pytest.mark.parametrize("initializer", ALL, ids=repr)
def test_records_are_values(initializer: Any):
    copy = eval(repr(initializer), dict(vars(initializers)))
    assert copy == initializer
    assert copy is not initializer
    assert hash(copy) == hash(initializer)
    assert sum(initializer == other for other in ALL) == 1


@pytest.mark.parametrize("initializer", ALL, ids=repr)
def test_dtype_is_the_one_asked_for(initializer: Any):
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16, jnp.float64):
        with jax.enable_x64(dtype == jnp.float64):
            abstract = jax.eval_shape(lambda dtype=dtype: initializer(jax.random.key(0), (4, 4), dtype))
        assert (abstract.shape, abstract.dtype) == ((4, 4), dtype)


@pytest.mark.parametrize(
    ("kind", "in_out_share"),
    [(LecunNormal, (1, 0)), (LecunUniform, (1, 0)), (XavierNormal, (0.5, 0.5)), (XavierUniform, (0.5, 0.5)),
     (HeNormal, (0.5, 0)), (HeUniform, (0.5, 0)), (TorchDefault, (3, 0))],
)  # fmt: skip
@pytest.mark.parametrize(
    ("shape", "axes", "fans"),
    [((300, 200), {}, (300, 200)), ((3, 3, 16, 32), {}, (144, 288)), ((128, 4, 32), ATTENTION, (128, 128))],
    ids=["linear", "conv", "attention"],
)
def test_variance_is_one_over_the_fan(kind: Any, in_out_share: Any, shape: Any, axes: Any, fans: Any):
    """LeCun 1 / in, Xavier 2 / (in + out), He 2 / in, PyTorch 1 / (3 in), with the receptive field in both fans.

    And the tails are cut.
    """
    want = (np.dot(in_out_share, fans)) ** -0.5
    values = draw(kind(**axes), *shape)
    assert values.std() == pytest.approx(want, rel=0.03)
    assert abs(values.mean()) < 4 * want / math.sqrt(values.size)
    bound = want * (math.sqrt(3) if "Uniform" in kind.__name__ or kind is TorchDefault else 2 / TRUNCATED)
    assert 0.97 * bound < np.abs(values).max() <= bound * (1 + 1e-6)


def test_an_attention_kernel_needs_its_axes_named():
    """Model width 128 into 4 heads of 32: without names the heads are taken for a receptive field."""
    assert draw(LecunNormal(**ATTENTION), 128, 4, 32).std() == pytest.approx(0.0884, abs=0.001)
    assert draw(LecunNormal(), 128, 4, 32).std() == pytest.approx(0.0442, abs=0.001)


def test_plain_distributions():
    assert draw(Normal(0.5), 300, 200).std() == pytest.approx(0.5, rel=0.02)
    cut = draw(TruncatedNormal(0.5), 300, 200)
    assert cut.std() == pytest.approx(0.5 * TRUNCATED, rel=0.02)
    assert 0.95 < np.abs(cut).max() <= 1.0
    half = draw(TruncatedNormal(1.0, lower=0.0, upper=float("inf")), 300, 200)
    assert half.min() >= 0.0
    assert half.mean() == pytest.approx(math.sqrt(2 / math.pi), rel=0.02)
    uniform = draw(Uniform(-1.0, 3.0), 300, 200)
    assert uniform.mean() == pytest.approx(1.0, abs=0.03)
    assert -1.0 <= uniform.min() < -0.99
    assert 2.99 < uniform.max() < 3.0
    assert draw(Constant(2.5), 2).tolist() == [2.5, 2.5]
    assert draw(Zeros(), 2).tolist() == [0.0, 0.0]
    assert draw(Ones(), 2).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("shape", [(8, 8), (12, 5), (5, 12), (3, 3, 4, 16)])
@pytest.mark.parametrize("scale", [1.0, 1.4])
def test_orthogonal(shape: tuple[int, ...], scale: float):
    matrix = draw(Orthogonal(scale), *shape).reshape(-1, shape[-1]).astype(np.float64)
    gram = matrix.T @ matrix if matrix.shape[0] >= matrix.shape[1] else matrix @ matrix.T
    np.testing.assert_allclose(gram, scale**2 * np.eye(len(gram)), atol=2e-6)


def test_orthogonal_along_another_output_axis():
    matrix = draw(Orthogonal(axis=0), 4, 3, 3)
    np.testing.assert_allclose(matrix.reshape(4, 9) @ matrix.reshape(4, 9).T, np.eye(4), atol=2e-6)


def test_orthogonal_matrices_of_many_members_are_those_drawn_alone():
    """One factorisation at a time: a batch of them can stand still for ever on a CPU (next test)."""

    def drawn(key: jax.Array) -> jax.Array:
        return Orthogonal(1.4)(key, (8, 6))

    def keys() -> jax.Array:
        return jax.random.split(jax.random.key(0), 12).reshape(4, 3)

    together = jax.jit(jax.vmap(jax.vmap(drawn)))
    alone = [[drawn(keys()[i, j]) for j in range(3)] for i in range(4)]
    np.testing.assert_array_equal(together(keys()), np.array(alone))
    factorised = re.findall(r"custom_call @lapack_sgeqrf.*\(tensor<([\dx]+)f32>", together.lower(keys()).as_text())
    assert factorised == ["8x6x"]


@pytest.mark.slow
def test_many_lstms_are_drawn_on_every_core_at_once():
    """Four kernels each, drawn side by side on all devices: batches of QR wait for each other's threads there."""
    code = """
import jax, fdl
init = jax.vmap(lambda key: fdl.init(fdl.nn.LSTM(4, 32), key)[0])
mesh = jax.sharding.Mesh(jax.devices(), ("members",))
spec = jax.P("members")
init = jax.jit(jax.shard_map(init, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False))
keys = jax.random.split(jax.random.key(0), 16 * len(jax.devices()))
for _ in range(30):
    jax.block_until_ready(init(keys))
"""
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(os.cpu_count()), "JAX_PLATFORMS": "cpu"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, timeout=300)


def test_orthogonal_in_half_precision_is_the_rounded_one():
    np.testing.assert_array_equal(
        draw(Orthogonal(), 6, 6, dtype=jnp.bfloat16), draw(Orthogonal(), 6, 6).astype(jnp.bfloat16)
    )


@pytest.mark.parametrize(
    ("initializer", "first"),
    [
        (Normal(0.5), [-0.01415231, 0.2335659]),
        (TruncatedNormal(0.5), [-0.01350825, 0.2221904]),
        (Uniform(-1.0, 3.0), [0.9548383, 1.719189]),
        (LecunNormal(), [-0.001773252, 0.02916734]),
        (LecunUniform(), [-0.002258086, 0.03595943]),
        (XavierNormal(), [-0.001942501, 0.03195122]),
        (XavierUniform(), [-0.00247361, 0.03939159]),
        (HeNormal(), [-0.002507758, 0.04124885]),
        (HeUniform(), [-0.003193416, 0.05085432]),
        (Orthogonal(), [-0.001620054, 0.02672138]),
    ],
    ids=repr,
)
def test_values_do_not_change_between_versions(initializer: Any, first: Any):
    """Every published seed depends on them: the first two of [300, 200] with key 42."""
    np.testing.assert_allclose(draw(initializer, 300, 200, seed=42)[0, :2], first, rtol=1e-5)


def test_the_families_differ_by_their_scale_alone():
    """One underlying draw: LeCun's times sqrt(2) is He's, and times sqrt(2 in / (in + out)) Xavier's."""
    lecun = draw(LecunNormal(), 300, 200)
    np.testing.assert_allclose(draw(HeNormal(), 300, 200), lecun * math.sqrt(2), rtol=2e-6)
    np.testing.assert_allclose(draw(XavierNormal(), 300, 200), lecun * math.sqrt(600 / 500), rtol=2e-6)
    truncated = jax.random.truncated_normal(jax.random.key(0), -2.0, 2.0, (300, 200))
    np.testing.assert_allclose(lecun, np.asarray(truncated) / TRUNCATED / math.sqrt(300), rtol=2e-6)


def test_glorot_is_xavier():
    assert GlorotNormal is XavierNormal
    assert GlorotUniform is XavierUniform
    assert repr(GlorotNormal()) == "XavierNormal()"


UNEVEN = [("f", "kernel"), ("b", "c", "kernel"), ("b", "d", "e", "kernel"), ("a", "a", "a", "kernel")]


def nested(initializer: Any) -> Layer:
    """Four equal arrays on paths of unequal lengths, a fifth of another shape, a constant, and statistics."""

    class Model(Layer):
        def specs(self) -> dict[str, Any]:
            kernel, other = {"kernel": Param((6, 8), initializer)}, {"kernel": Param((8, 6), initializer)}
            f = {**kernel, "bias": Param((8,), Ones())}
            b = {"c": kernel, "d": {"e": kernel}, "mean": Param((3,), Zeros(), kind="state")}
            return {"f": f, "b": b, "a": {"a": {"a": kernel}}, "empty": {}, "other": other}

    return Model()


@pytest.mark.slow
@pytest.mark.parametrize("initializer", ALL, ids=repr)
def test_a_compiled_programs_draws_are_those_of_each_alone(initializer: Any):
    """Equal draws share a loop there, to the bit; eager ones are rounded apart in some distributions."""
    key, model = jax.random.key(3), nested(initializer)
    params, state = jax.jit(partial(fdl.init, model))(key)
    eager, eager_state = fdl.init(model, key)
    assert list(eager) == ["f", "b", "a", "empty", "other"]
    assert jax.tree.structure((params, state)) == jax.tree.structure((eager, eager_state))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), params, eager)
    for names in UNEVEN:
        alone = jax.jit(lambda key: initializer(key, (6, 8), jnp.float32))(fdl.fold(key, *names))
        np.testing.assert_array_equal(reduce(getitem, names, params), alone)


def test_a_compiled_programs_size_is_that_of_its_distributions():
    """One draw of random bits for 3 shapes alike or 30."""
    for n in (3, 30):
        many = nn.Serial(*(nn.Linear(5, 5) for _ in range(n)), nn.Linear(5, 2))
        assert str(jax.make_jaxpr(partial(fdl.init, many))(jax.random.key(0))).count("random_bits") == 2


def test_an_initialiser_without_a_hash_draws_by_itself():
    """As one that holds a float which a sweep traces."""
    model = lambda std: nn.Serial(*(nn.Linear(5, 5, kernel_init=Normal(std)) for _ in range(4)))  # noqa: E731
    draw = jax.jit(lambda std: fdl.init(model(std), jax.random.key(0))[0])
    want, _ = fdl.init(model(0.3), jax.random.key(0))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), draw(0.3), want)
