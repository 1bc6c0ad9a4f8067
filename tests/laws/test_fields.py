# pyright: reportArgumentType=false
"""Laws of the numbers in a record: one that cannot be meant is refused when the record is made, by type and field."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

import fdl
from fdl import initializers, models, nn
from fdl.core import Layer
from fdl.fields import Count, Size
from tests.laws.table import ROWS

NAN, INF = float("nan"), float("inf")
WRONG: dict[type, tuple[Any, ...]] = {
    bool: ("no", 2, None),
    int: (0, -1, 2.5, "4", True, NAN, None, 3j),
    float: (NAN, INF, "0.5", True, 1j, None, [0.5]),
}


def inside(layer: Any) -> Iterator[Any]:
    """The record and all records in it."""
    if isinstance(layer, tuple):
        for part in layer:
            yield from inside(part)
    elif dataclasses.is_dataclass(layer):
        yield layer
        for field in dataclasses.fields(layer):
            yield from inside(getattr(layer, field.name))


MODELS = (
    models.gpt2(9, 8, num_layers=1, num_heads=2, features=4, dropout=0.1),
    models.llama(9, num_layers=1, num_heads=2, features=4, hidden_features=4),
    models.bert(9, 8, num_layers=1, num_heads=2, features=4, dropout=0.1),
    models.transformer(9, num_layers=1, num_heads=2, features=4, dropout=0.1),
    models.vit(1, 2, image_size=4, patch_size=2, num_layers=1, num_heads=1, features=2),
    models.resnet20(),
    models.vae(4, 2),
    models.denoising_autoencoder(4, 2),
    models.diffusion_unet(1, widths=(8, 8)),
    models.unet(1, 2, widths=(2, 2)),
)
DRAWN = (
    initializers.Normal(),
    initializers.TruncatedNormal(),
    initializers.Uniform(0.0, 1.0),
    initializers.Orthogonal(),
)
RECORDS = {type(record): record for root in (*(row.layer for row in ROWS), *MODELS, *DRAWN) for record in inside(root)}
NUMBERS = [
    pytest.param(record, field.name, value, id=f"{kind.__name__}-{field.name}-{value}")
    for kind, record in RECORDS.items()
    for field in dataclasses.fields(kind)
    for value in WRONG.get(type(getattr(record, field.name)), ())
    if not field.name.endswith("axis")  # of an initializer: it counts from the end, too
    and not (value is INF and field.name in ("lower", "upper"))
    and not (value is None and "None" in str(field.type))
]


@pytest.mark.parametrize(("record", "name", "value"), NUMBERS)
def test_a_number_that_cannot_be_meant_is_refused(record: Any, name: str, value: Any):
    with pytest.raises(
        fdl.InputError, match=rf"^{type(record).__name__}: {name}\b.*expected .*{re.escape(repr(value))}"
    ):
        dataclasses.replace(record, **{name: value})


def test_the_table_has_the_numbers_of_every_public_layer():
    """Otherwise the law above would pass over one that is added."""
    assert {layer for layer in vars(nn).values() if isinstance(layer, type) and dataclasses.is_dataclass(layer)} <= {
        *RECORDS,
        nn.Recurrence,
        nn.Rotary,
    }
    assert len(NUMBERS) > 400


@pytest.mark.parametrize(
    "make",
    [
        lambda value: nn.Dropout(value),
        lambda value: nn.BatchNorm(3, momentum=value, eps=value),
        lambda value: nn.LayerNorm(3, value),
        lambda value: nn.Attention(4, 2, dropout_rate=value),
        lambda value: nn.GAT(3, 2, dropout=value, negative_slope=value),
        lambda value: nn.LoRA(nn.Linear(3, 2), 1, value),
        lambda value: nn.Rotary(value),
        lambda value: initializers.Uniform(-value, value),
        lambda value: models.mlp(3, 2, dropout=value),
    ],
)
def test_a_traced_number_is_taken_and_so_are_those_of_numpy(make: Any):
    """As in a sweep: its value is not known, and it stays weakly typed."""
    found = []
    jax.eval_shape(lambda value: found.append(make(value)), 0.5)
    assert found
    for number in (np.float32(0.5), np.float64(0.5), np.array(0.5), 0.5):
        assert isinstance(make(number), Layer | nn.Rotary | initializers.Uniform)
    assert nn.Linear(np.int64(3), np.int32(2)).specs()["kernel"].shape == (3, 2)


def test_annotations_of_ones_own_are_checked_where_they_have_a_meaning():
    @dataclasses.dataclass(frozen=True)
    class Shift(Layer):
        steps: int  # any: it says no more
        size: Size = 1
        skipped: Count = 0
        inner: Layer | None = None

    assert Shift(-3, inner=None).steps == -3
    for wrong in ({"size": 0}, {"skipped": -1}, {"inner": 3}):
        with pytest.raises(fdl.InputError, match=f"Shift: {next(iter(wrong))}: expected"):
            Shift(1, **wrong)
