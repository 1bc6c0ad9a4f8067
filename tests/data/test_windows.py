# pyright: reportArgumentType=false
"""Windows: what an example is, and that an epoch goes through the series once."""

from __future__ import annotations

import jax
import numpy as np
import pytest

import fdl
from fdl.data import Windows


def epoch(data: Windows, batch_size: int, key: int = 0):
    order = data.order(jax.random.key(key), batch_size)
    steps = range(data.steps_per_epoch(batch_size))
    batches = [data.batch(data.arrays, order, i, batch_size) for i in steps]
    return {name: np.concatenate([batch[name] for batch in batches]) for name in ("x", "y")}


def test_y_is_x_one_step_later():
    seen = epoch(Windows(np.arange(101), 10), 5)
    assert seen["x"].shape == (10, 10)
    np.testing.assert_array_equal(seen["y"], seen["x"] + 1)


def test_an_epoch_sees_every_value_once_in_another_order_each_time():
    data = Windows(np.arange(101), 10)
    first, second = epoch(data, 5, 0)["x"], epoch(data, 5, 1)["x"]
    assert sorted(first.ravel()) == list(range(100))
    assert (first != second).any()


def test_a_horizon_is_what_comes_after_the_window():
    """And with stride 1 there are as many windows as fit: T - length - horizon + 1."""
    series = np.stack([np.arange(20.0), -np.arange(20.0)], 1).astype(np.float32)
    data = Windows(series, 6, horizon=3, stride=1)
    assert len(data) == 20 - 6 - 3 + 1
    seen = epoch(data, 4)
    assert seen["x"].shape[1:] == (6, 2)
    np.testing.assert_array_equal(seen["y"][:, :, 0], seen["x"][:, -1:, 0] + [1, 2, 3])


def test_random_windows_start_anywhere():
    data = Windows(np.arange(1001), 10, random=True)
    starts = np.concatenate([epoch(data, 10, key)["x"][:, 0] for key in range(20)])
    assert len(starts) == 20 * 100
    assert set(starts % 10) == set(range(10))
    assert starts.max() <= 1001 - 10 - 1


def test_evaluation_sees_every_window_once_in_order():
    data, seen = Windows(np.arange(96), 10), []
    for number in range(data.num_eval_batches(4)):
        batch, mask = data.eval_batch(data.arrays, number, 4)
        seen += list(np.asarray(batch["x"])[np.asarray(mask), 0])
    assert seen == [0, 10, 20, 30, 40, 50, 60, 70, 80]


@pytest.mark.parametrize("changes", [{}, {"horizon": 4, "stride": 3}])
def test_the_head_has_the_first_windows(changes):
    data = Windows(np.arange(96), 10, **changes)
    head = data.head(3)
    assert len(head) == 3
    np.testing.assert_array_equal(head.eval_batch(head.arrays, 0, None)[0]["y"], _rows(data)["y"][:3])


def _rows(data):
    return data.eval_batch(data.arrays, 0, None)[0]


def test_a_sample_holds_the_extremes():
    series = np.ones(50, np.int64)
    series[33], series[12] = 9, 0
    batch, rows = Windows(series, 10).sample(2)
    assert {0, 9} <= set(batch["x"].ravel())
    assert len(rows) == batch["x"].shape[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2, 3], 3), "at least length"),
        ((np.arange(9), 0), "length"),
        ((np.arange(9), 2, "3"), "horizon"),
        ((5, 2), "expected a series"),
    ],
)
def test_what_has_no_window_is_refused(arguments, message):
    with pytest.raises(fdl.InputError, match=message):
        Windows(*arguments[:2], **({"horizon": arguments[2]} if len(arguments) > 2 else {}))


def test_a_batch_larger_than_the_series_is_refused():
    with pytest.raises(fdl.InputError, match="4 examples.*windows of 10 values"):
        Windows(np.arange(41), 10).steps_per_epoch(5)
