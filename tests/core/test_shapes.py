"""`expect`: what a wrong shape is told."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import pytest

import fdl
from fdl import nn
from fdl.core import Layer
from fdl.shapes import expect


@dataclass(frozen=True)
class Image(Layer):
    channels: int = 3


@pytest.mark.parametrize(
    ("spelled", "shape"),
    [
        ("[..., channels]", (3,)),
        ("[..., channels]", (5, 4, 3)),
        ("[B, H, W, channels]", (2, 5, 4, 3)),
        ("[B, 2, channels]", (7, 2, 3)),
        ("[B, T]", (0, 9)),
        ("[...]", ()),
    ],
)
def test_what_fits_passes(spelled: str, shape: tuple[int, ...]):
    expect(Image(), jnp.zeros(shape), spelled)
    expect(Image(), jax.ShapeDtypeStruct(shape, jnp.float32), spelled)


def test_axes_in_the_middle_may_be_open():
    expect(Image(), jnp.zeros((2, 3)), "[B, ..., channels]")
    expect(Image(), jnp.zeros((2, 9, 9, 3)), "[B, ..., channels]")
    expect(Image(), jnp.zeros((3, 9)), "[channels, ...]")
    for shape in ((3,), (2, 9, 4)):
        with pytest.raises(fdl.InputError, match=r"\[B, \.\.\., channels=3\]"):
            expect(Image(), jnp.zeros(shape), "[B, ..., channels]")


@pytest.mark.parametrize(
    ("spelled", "shape", "hint"),
    [
        ("[..., channels]", (4, 5), ""),
        ("[..., channels]", (), ""),
        ("[B, 2, channels]", (7, 3, 3), ""),
        ("[B, T, channels]", (3,), ""),
        ("[B, 2]", (7,), ""),
        ("[B, channels]", (4, 1, 3, 1), "; flatten each example first (nn.Flatten())"),
        ("[B, H, W, channels]", (2, 3, 5, 5), "; channels come last here: x = jnp.moveaxis(x, 1, -1)"),
        ("[B, H, W, channels]", (5, 5, 3), "; layers see the batch: add the leading axis, x[None]"),
        ("[B, T]", (5,), "; layers see the batch: add the leading axis, x[None]"),
    ],
)
def test_what_does_not_fit_is_told_what_was_expected_what_came_and_the_likely_fix(
    spelled: str, shape: tuple[int, ...], hint: str
):
    with pytest.raises(fdl.InputError) as error:
        expect(Image(), jnp.zeros(shape), spelled, "image")
    wanted = spelled.replace("channels", "channels=3")
    assert str(error.value) == f"Image(): expected image of shape {wanted}, got float32{list(shape)}{hint}"


def test_an_array_that_is_not_one_is_told_its_type():
    with pytest.raises(fdl.InputError, match=r"x of shape \[\.\.\., in_features=3\], got list\[1, 2\]"):
        nn.Linear(3, 1)({}, [[1.0, 2.0]])  # pyright: ignore[reportArgumentType]
