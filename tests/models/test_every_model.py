"""One table of small models, and what holds for each: values, gradients, dtypes, randomness, names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fdl
from fdl import models, nn
from tests.compiling import QUICK
from tests.models.common import ids, rebuilt

pytestmark = pytest.mark.slow


def floats(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Row:
    """A model, an input of two examples, the shape of y, and parameters that are 0 or idle at the start."""

    model: fdl.Layer
    x: Any
    y: Any
    keywords: dict[str, Any] = field(default_factory=dict)
    idle: tuple[str, ...] = ()


V = 9
TEXT, TARGET, LENGTHS = ids(2, 5, below=V), ids(2, 4, below=V, seed=1), np.array([5, 3], np.int32)
SIZES: dict[str, Any] = {"num_layers": 2, "num_heads": 2, "features": 4, "dropout": 0.1}
LLAMA: dict[str, Any] = {"num_layers": 1, "num_heads": 2, "features": 4, "hidden_features": 6}
EDGES = {"edges": np.array([[0, 1, 1, 2, 2, 3, 4, 0], [1, 0, 2, 1, 3, 2, 0, 4]], np.int32)}
IDLE = ("key/bias",)  # adds the same to all scores of a query
ROWS = {
    "perceptron": Row(models.perceptron(12, 3), floats(2, 2, 2, 3), (2, 3)),
    "mlp": Row(models.mlp(12, 8, 8, 3, dropout=0.1), floats(2, 2, 2, 3), (2, 3)),
    "lenet5": Row(models.lenet5(3, 4, image_size=12), floats(2, 12, 12, 3), (2, 4)),
    "resnet, padded": Row(
        models.resnet(3, 4, depths=(1, 1), widths=(4, 8), shortcut="pad"), floats(2, 8, 8, 3), (2, 4)
    ),
    "resnet, bottleneck": Row(
        models.resnet(3, 4, depths=(1, 1), widths=(2, 4), block="bottleneck", large_images=True),
        floats(2, 16, 16, 3), (2, 4),
    ),
    "unet": Row(models.unet(3, 2, widths=(4, 6, 8)), floats(2, 8, 12, 3), (2, 8, 12, 2)),
    "classifier": Row(
        models.recurrent_classifier(3, 2, hidden_features=4, num_layers=2, dropout=0.1),
        floats(2, 5, 3), (2, 2), {"lengths": LENGTHS},
    ),
    "classifier of ids": Row(
        models.recurrent_classifier(3, 2, hidden_features=4, cell=nn.GRU, bidirectional=True, vocab_size=V),
        TEXT, (2, 2), {"lengths": LENGTHS},
    ),
    "language model": Row(
        models.recurrent_language_model(V, features=3, hidden_features=4, num_layers=2, dropout=0.1), TEXT, (2, 5, V)
    ),
    "seq2seq": Row(
        models.seq2seq(V, 7, features=3, hidden_features=4, dropout=0.1),
        (TEXT, TARGET % 7), (2, 4, 7), {"source_lengths": LENGTHS}, IDLE,
    ),
    "autoencoder": Row(models.autoencoder(12, 8, 3), floats(2, 12), (2, 12)),
    "denoising autoencoder": Row(models.denoising_autoencoder(12, 8, 3), floats(2, 12), (2, 12)),
    "vae": Row(models.vae(12, 8, 3), floats(2, 12), ((2, 12), (2, 3), (2, 3))),
    "gcn": Row(models.gcn(3, 2, hidden_features=4, dropout=0.1), floats(5, 3), (5, 2), EDGES),
    "gat": Row(models.gat(3, 2, hidden_features=4, num_heads=2, dropout=0.1), floats(5, 3), (5, 2), EDGES),
    "gin": Row(
        models.gin(3, 2, hidden_features=4, num_layers=2, train_eps=True, dropout=0.1),
        floats(5, 3), (2, 2), EDGES | {"sizes": np.array([4, 1], np.int32)},
    ),
    "gpt2": Row(models.gpt2(V, 6, **SIZES), TEXT, (2, 5, V), idle=IDLE),
    "llama": Row(models.llama(V, **LLAMA, num_kv_heads=1), TEXT, (2, 5, V)),
    "bert": Row(
        models.bert(V, 6, **SIZES), TEXT, (2, 5, 4), {"types": TEXT % 2},
        (*IDLE, "pooler/linear/kernel", "pooler/linear/bias"),
    ),
    "transformer": Row(models.transformer(V, 7, **SIZES), (TEXT, TARGET % 7), (2, 4, 7), idle=IDLE),
    "vit": Row(models.vit(3, 4, image_size=4, patch_size=2, **SIZES), floats(2, 4, 4, 3), (2, 4), idle=IDLE),
}  # fmt: skip
rows = pytest.mark.parametrize("name", ROWS)


def shapes(tree: Any) -> Any:
    return jax.tree.map(lambda a: a.shape, tree)


@rows
def test_values_are_finite_and_every_parameter_has_a_gradient(name: str):
    row = ROWS[name]
    params, state = fdl.init(row.model, jax.random.key(0))
    params = jax.tree.map(lambda a: a + 0.1, params)  # biases of 0 hide kinks and scales

    def loss(params: Any) -> Any:
        y, new = row.model.apply(params, state, row.x, key=jax.random.key(1), train=True, **row.keywords)
        weighted = jax.tree.map(lambda a: (a * jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape)).sum(), y)
        return sum(jax.tree.leaves(weighted)), (y, new)

    gradient, (y, new) = jax.jit(jax.grad(loss, has_aux=True), compiler_options=QUICK)(params)
    assert shapes(y) == row.y
    assert jax.tree.structure(new) == jax.tree.structure(state)
    for path, leaf in fdl.core.leaves(gradient):
        assert np.isfinite(leaf).all(), path
        assert path.endswith(row.idle) == (np.abs(leaf).max() < 1e-6), path


@rows
def test_equal_records_are_equal_and_bfloat16_stays(name: str):
    row = ROWS[name]
    assert rebuilt(row.model) == row.model
    params, state = fdl.abstract(row.model, jnp.bfloat16)
    cast = lambda a: a.astype(jnp.bfloat16) if a.dtype == np.float32 else a  # noqa: E731
    y, new = jax.eval_shape(
        lambda p, s, x: row.model.apply(p, s, x, key=jax.random.key(0), train=True, **row.keywords),
        params, state, jax.tree.map(cast, row.x),
    )  # fmt: skip
    assert {leaf.dtype for leaf in jax.tree.leaves(y)} == {jnp.dtype(jnp.bfloat16)}
    assert {leaf.dtype for leaf in jax.tree.leaves(new)} <= {jnp.dtype(jnp.float32)}


@rows
def test_a_summary_sees_the_layers_inside(name: str):
    row = ROWS[name]
    example = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), row.x)
    keywords = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), row.keywords)
    examples = example if isinstance(example, tuple) else (example,)
    table = fdl.summary(row.model, *examples, **keywords)
    assert table.params == sum(leaf.size for leaf in jax.tree.leaves(fdl.abstract(row.model)[0]))
    assert len(table.rows) >= 2
