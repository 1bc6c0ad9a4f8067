"""Rearranging axes: against the transpose and reshape it stands for, and back to the same bits."""

from __future__ import annotations

import numpy as np
import pytest

from fdl.errors import InputError
from fdl.pretrained import Rearrange

x = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
CASES = [
    ("o i -> i o", x, x.T),
    ("(h k) d -> d h k", x, x.T.reshape(4, 2, 3)),
    ("d (h k) -> h k d", x.T, x.reshape(2, 3, 4)),
    ("(s h k) -> s h k", x.ravel(), x.reshape(3, 2, 4)),
    ("d (s h k) -> s d h k", x, x.reshape(6, 2, 1, 2).transpose(1, 0, 2, 3)),
    ("o i k 1 -> k i o", x.reshape(6, 2, 2, 1), x.reshape(6, 2, 2).transpose(2, 1, 0)),
    ("1 t d -> t d", x[None], x),
    ("o (c h=2 w=2) -> (h w c) o", x, x.reshape(6, 1, 2, 2).transpose(2, 3, 1, 0).reshape(4, 6)),
    ("", x, x),
]


@pytest.mark.parametrize(("pattern", "before", "after"), CASES, ids=[case[0] or "nothing" for case in CASES])
def test_there_and_back(pattern: str, before: np.ndarray, after: np.ndarray) -> None:
    change = Rearrange(pattern)
    np.testing.assert_array_equal(change(before, after.shape), after)
    np.testing.assert_array_equal(change.inverse(after), before)
    assert change.inverse(after).shape == before.shape


def test_stacked_heads_are_joined_and_split_again() -> None:
    """The bias [h k] of a layer from h arrays [k]: on the way back their number says how to divide."""
    change = Rearrange("h k -> (h k)")
    np.testing.assert_array_equal(change(x, (24,)), x.ravel())
    np.testing.assert_array_equal(change.inverse(x.ravel(), leading=6), x)
    with pytest.raises(ValueError, match="which its parts do not give"):
        change.inverse(x.ravel())


def test_a_name_that_only_stands_on_the_left_is_summed_and_comes_back_as_the_first_of_a_sum() -> None:
    change = Rearrange("s o -> o")
    np.testing.assert_allclose(change(x, (4,)), x.sum(0), rtol=1e-6)
    back = change.inverse(x[0], leading=2)
    np.testing.assert_array_equal(back, [x[0], np.zeros(4)])
    np.testing.assert_array_equal(change(back, (4,)), x[0])  # so that export and load give the same model


@pytest.mark.parametrize(
    "pattern", ["o i", "o i -> i o x", "o o -> o", "(o i -> i o", "o) i -> i o", "o i -> i o o", "2 a -> a"]
)
def test_bad_patterns(pattern: str) -> None:
    with pytest.raises(InputError, match="Rearrange"):
        Rearrange(pattern)


@pytest.mark.parametrize(
    ("pattern", "shape", "want"),
    [
        ("o i -> i o", (6, 4), (6, 4)),
        ("o i -> i o", (6,), (6,)),
        ("(h k) d -> d h k", (6, 4), (4, 4, 2)),
        ("", (2,), (3,)),
    ],
)
def test_arrays_that_do_not_fit(pattern: str, shape: tuple[int, ...], want: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected|which its parts|no change"):
        Rearrange(pattern)(np.zeros(shape), want)
