"""A layer can be exported with a free batch and, where it sees time, a free number of steps."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from jax import export

import fdl
from fdl import nn
from tests.laws.case import assert_close, case
from tests.laws.table import ROWS, Row, over

#: Layers that cannot have a free size, and why.
EXCEPTIONS = {
    nn.ConvTranspose: "JAX transposes a convolution for known sizes alone",
    nn.Upsample: "jax.image.resize takes numbers",
    nn.Projection: "its input's last axes, time among them, are sizes of the record",
}
FREE = [row for row in ROWS if row.batched and not isinstance(row.layer, tuple(EXCEPTIONS))]


@pytest.mark.slow
@over(FREE)
def test_batch_and_time_can_be_free(row: Row):
    it, scope = case(row), export.SymbolicScope()
    params, state = fdl.abstract(row.layer)

    def free(a: np.ndarray) -> jax.ShapeDtypeStruct:
        sizes = ["b", *("t" if a.shape[1:2] == (5,) and i == 1 else str(n) for i, n in enumerate(a.shape) if i)]
        return jax.ShapeDtypeStruct(export.symbolic_shape(", ".join(sizes), scope=scope), a.dtype)

    def evaluate(params: Any, state: Any, x: Any, keywords: Any) -> Any:
        return row.layer.apply(params, state, x, train=False, **keywords)[0]

    shapes = jax.tree.map(free, (it.x, it.keywords))
    exported = export.export(jax.jit(evaluate))(params, state, *shapes)
    assert_close(exported.call(it.params, it.state, it.x, it.keywords), it.evaluated[0], 1e-5)
