"""A layer can be exported with a free batch and, where it sees time, a free number of steps; its training as well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import fdl
from fdl import models, nn
from tests.laws.case import Case, assert_close, case, key
from tests.laws.table import EDGES, FEATURES, ROWS, SEQUENCE, SIZES, Row, floats, ints, over

#: Layers with a free batch alone, and why.
FIXED = {
    nn.ConvTranspose: "JAX transposes a convolution for known sizes of pixels alone",
    nn.Projection: "its input's last axes, time among them, are sizes of the record",
}
TOKENS, PICTURES = ints(4, 5, below=7), floats(4, 8, 8, 3)
MODELS = [
    Row(models.mlp(3, 4, 2), FEATURES, None),
    Row(models.lenet5(in_channels=1, num_classes=2), floats(4, 28, 28, 1), None),
    Row(models.resnet20(3, 2), PICTURES, None),
    Row(models.vit(3, 2, image_size=8, patch_size=4, num_layers=1, num_heads=2, features=4), PICTURES, None),
    Row(models.recurrent_classifier(3, 2, hidden_features=4, vocab_size=7), TOKENS, None),
    Row(models.recurrent_classifier(3, 2, hidden_features=4, cell=nn.GRU, pool="mean"), SEQUENCE, None),
    Row(models.bert(7, 6, num_layers=1, num_heads=2, features=4), TOKENS, None),
    Row(models.gpt2(7, 6, num_layers=2, num_heads=2, features=4), TOKENS, None),
    Row(models.llama(7, num_layers=1, num_heads=2, features=4, hidden_features=8), TOKENS, None),
    Row(models.gcn(3, 2), FEATURES, None, keywords=EDGES, batched=False),
    Row(models.gat(3, 2, hidden_features=4, num_heads=2), FEATURES, None, keywords=EDGES, batched=False),
    Row(models.gin(3, 2, hidden_features=4), FEATURES, None, keywords={**EDGES, **SIZES}, batched=False),
]


def free(row: Row, a: np.ndarray, scope: export.SymbolicScope) -> jax.ShapeDtypeStruct:
    """The shape with a free batch and time; free nodes and edges of graphs (`searchsorted` needs their number)."""
    if row.batched:
        timed = a.shape[1:2] == (5,) and not isinstance(row.layer, tuple(FIXED))
        sizes = ["b", *("t" if timed and i == 1 else str(n) for i, n in enumerate(a.shape) if i)]
    else:
        sizes = [str(len(a))] if a.ndim == 1 else ["2", "e"] if a.dtype == np.int32 else ["n", str(a.shape[-1])]
    return jax.ShapeDtypeStruct(export.symbolic_shape(", ".join(sizes), scope=scope), a.dtype)


def exported(row: Row, it: Case, run: Callable[..., Any]) -> Any:
    """What the exported program `run(params, state, x, keywords)` gives for the row's arrays."""
    scope = export.SymbolicScope()
    shapes = jax.tree.map(lambda a: free(row, a, scope), (it.x, it.keywords))
    program = export.export(jax.jit(run))(*fdl.abstract(row.layer), *shapes)
    return program.call(it.params, it.state, it.x, it.keywords)


@pytest.mark.slow
@over([*ROWS, *MODELS])
def test_batch_and_time_can_be_free(row: Row):
    it = case(row)
    run = lambda params, state, x, keywords: row.layer.apply(params, state, x, train=False, **keywords)[0]  # noqa: E731
    assert_close(exported(row, it, run), it.evaluated[0], 1e-5)


@pytest.mark.slow
@over([*ROWS, *MODELS])
def test_training_can_be_exported_with_a_free_batch(row: Row):
    it = case(row)

    def loss(params: Any, state: Any, x: Any, keywords: Any) -> Any:
        y, _ = row.layer.apply(params, state, x, key=key(1), train=True, **keywords)
        return sum(jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(y))

    gradient = jax.grad(loss)
    expected = jax.jit(gradient)(it.params, it.state, it.x, it.keywords)
    assert_close(exported(row, it, gradient), expected, 1e-4)
