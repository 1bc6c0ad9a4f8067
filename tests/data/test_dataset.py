"""Datasets: views share their arrays, batches cover what they should."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fdl
from fdl.data import Arrays, Full


def test_take_is_a_view_that_shares_the_arrays():
    x = np.arange(10.0, dtype=np.float32)
    view = Arrays(x=x).take([7, 2, 2]).take([2, 0])
    assert view.arrays["tree"]["x"] is x
    np.testing.assert_array_equal(view["x"], [2.0, 7.0])
    assert len(view) == 2


def test_take_accepts_a_mask():
    data = Arrays(x=np.arange(5))
    np.testing.assert_array_equal(data.take(data["x"] % 2 == 0)["x"], [0, 2, 4])


def test_take_nests_for_folds():
    """Five folds of a view cover the view."""
    view = Arrays(x=np.arange(20)).take(np.arange(3, 18))
    folds = [view.take(np.arange(len(view)) % 5 == fold)["x"] for fold in range(5)]
    assert sorted(np.concatenate(folds)) == list(range(3, 18))


def test_a_view_trains_on_its_rows_only():
    data = Arrays(x=np.arange(10)).take([8, 9, 1])
    order = data.order(jax.random.key(0), 2)
    seen = data.batch(jax.device_put(data.arrays), order, 0, 2)["x"]
    assert set(np.asarray(seen)) < {8, 9, 1}


@settings(max_examples=20)  # every size compiles
@given(st.integers(1, 40), st.one_of(st.none(), st.integers(1, 50)))
def test_evaluation_batches_see_every_example_exactly_once(size, batch_size):
    data, seen = Arrays(x=np.arange(size)), []
    for number in range(data.num_eval_batches(batch_size)):
        batch, mask = data.eval_batch(data.arrays, number, batch_size)
        assert mask.shape == batch["x"].shape
        seen += list(np.asarray(batch["x"])[np.asarray(mask)])
    assert seen == list(range(size))


@settings(max_examples=15)
@given(st.integers(1, 40), st.data())
def test_an_epoch_has_no_repeats(size, draw):
    batch_size = draw.draw(st.integers(1, size))
    data = Arrays(x=np.arange(size))
    order = data.order(jax.random.key(size), batch_size)
    steps = data.steps_per_epoch(batch_size)
    seen = np.concatenate([data.batch(data.arrays, order, i, batch_size)["x"] for i in range(steps)])
    assert len(seen) == len(set(seen)) == size - size % batch_size


def test_a_sample_shows_the_extremes_of_the_integers_first():
    data = Arrays(x=np.zeros((9, 2), np.float32), y=np.array([3, 1, 4, 1, 5, 9, 2, 6, 0]))
    batch, rows = data.sample(3)
    assert rows[:2] == [8, 5]
    np.testing.assert_array_equal(batch["y"][:2], [0, 9])
    assert len(rows) == 3


def test_a_sample_of_a_view_names_the_rows_of_the_view():
    data = Arrays(y=np.array([30, 10, 40, 20])).take([0, 2, 3])
    batch, rows = data.sample(2)
    assert (rows, batch["y"].tolist()) == ([2, 1], [20, 40])


def test_arrays_may_be_pytrees_and_lists():
    data = Arrays(x={"a": np.zeros((3, 2)), "b": jnp.ones(3)}, y=[0, 1, 2])
    assert len(data) == 3
    np.testing.assert_array_equal(data.take([1])["y"], [1])


def test_traced_data_is_refused_by_name():
    with pytest.raises(fdl.InputError, match="'noise' is traced"):
        jax.eval_shape(lambda scale: Arrays(noise=scale * jnp.ones(3)).arrays, 1.0)


def test_full_is_one_batch_whatever_the_leading_axes():
    data = Full(x=np.zeros((5, 2)), edges=np.zeros((2, 7), np.int32))
    batch, mask = data.eval_batch(data.arrays, 0, None)
    assert (mask, batch["edges"].shape, data.steps_per_epoch(None)) == (None, (2, 7), 1)


def test_digits_are_split_once_and_for_all():
    """1797 images in 80/20, disjoint, with the pixels in 0..1 and each class on both sides."""
    train, test = fdl.data.load("digits", "train"), fdl.data.load("digits", "test")
    assert (len(train), len(test)) == (1437, 360)
    assert not set(train.arrays["rows"]) & set(test.arrays["rows"])
    assert (train["x"].shape, train["x"].dtype, train["y"].dtype) == ((1437, 8, 8, 1), np.float32, np.int32)
    assert (train["x"].min(), train["x"].max()) == (0.0, 1.0)
    assert set(train["y"]) == set(test["y"]) == set(range(10))
    assert test["y"][:10].tolist() == fdl.data.load("digits", "test")["y"][:10].tolist()
    assert test["y"][:8].tolist() == [7, 9, 4, 7, 0, 2, 6, 1]


@pytest.mark.parametrize("batch_size", [0, -1, 2.0, True])
def test_a_batch_size_that_cannot_be_meant_is_refused(batch_size):
    """Also where an experiment counts its steps before there is an `Experiment`."""
    with pytest.raises(fdl.InputError, match="batch_size: expected a whole number >= 1"):
        fdl.data.Arrays(x=np.ones((4, 2), np.float32)).steps_per_epoch(batch_size)
