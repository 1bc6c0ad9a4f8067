"""Windows over one long array: the text of a language model, the record of a sensor."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from fdl.data.conversion import host_array
from fdl.data.dataset import Batch, Examples
from fdl.errors import InputError


class Windows(Examples):
    """Examples cut from one long array, whose first axis is time: `Windows(tokens, 64)`.

    An example is `{"x": series[i : i + length], "y": what follows}`. For language models y is x one step later; with a
    `horizon` it is the next `horizon` values after the window. Training goes through fresh permutations of the windows
    that start at 0, stride, 2 stride, ..., evaluation through them in their order; what is left at the end is unused.

    Args:
      series: [T, ...].
      length: of x.
      horizon: None: y [length, ...] is x shifted by one; h: y [h, ...] is what comes after x.
      stride: between the starts; None = `length`, so that an epoch sees (nearly) every value once.
      random: training windows start anywhere, drawn anew for every example, as many an epoch as without it.

    Raises:
      InputError: a series too short for one window, sizes below 1, traced values.

    >>> data = Windows(np.arange(10), length=3)
    >>> len(data), data.sample(1)[0]["y"].tolist()
    (3, [[1, 2, 3], [7, 8, 9]])
    """

    def __init__(
        self, series: Any, length: int, *, horizon: int | None = None, stride: int | None = None, random: bool = False
    ) -> None:
        self.series = host_array(series, "series")
        self.length, self.horizon, self.stride, self.random = length, horizon, stride or length, random
        for name in ("length", "horizon", "stride"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise InputError(f"Windows: {name}: expected a whole number >= 1, got {value!r}")
        after = 1 if horizon is None else horizon
        if self.series.ndim < 1 or len(self.series) < length + after:
            raise InputError(
                f"Windows: expected a series [T, ...] of at least length + {after} = {length + after} values, "
                f"got {list(self.series.shape)}"
            )
        self.arrays = {"series": self.series}
        self._starts = len(self.series) - length - after + 1  # of all windows that fit
        self._size = (self._starts - 1) // self.stride + 1

    def head(self, count: int) -> Windows:
        needed = (min(count, self._size) - 1) * self.stride + len(self.series) - self._starts + 1
        options = {"horizon": self.horizon, "stride": self.stride, "random": self.random}
        return Windows(self.series[:needed], self.length, **options)

    def order(self, key: jax.Array, batch_size: int | None) -> jax.Array:
        if self.random:
            return jax.random.randint(key, (self._size,), 0, self._starts)
        return super().order(key, batch_size)

    def sample(self, batch_size: int | None) -> tuple[Batch, list[int]]:
        """The first windows, and those with the smallest and the largest integer."""
        rows = list(range(self._eval_size(batch_size)))
        if np.issubdtype(self.series.dtype, np.integer):
            values = self.series[: (self._size - 1) * self.stride + self.length].reshape(-1, *self.series.shape[1:])
            flat = values.reshape(len(values), -1)
            at = [int(flat.min(1).argmin()), int(flat.max(1).argmax())]
            rows = [*dict.fromkeys([*(min(i // self.stride, self._size - 1) for i in at), *rows])][: len(rows) + 2]
        return jax.tree.map(np.asarray, self._gather(self.arrays, np.asarray(rows) * self.stride)), rows

    def _places(self, numbers: Any) -> Any:
        return numbers * self.stride

    def _gather(self, arrays: Any, places: Any) -> Batch:
        series = arrays["series"]
        after = 1 if self.horizon is None else self.length
        ahead = self.length if self.horizon is None else self.horizon
        return {
            "x": series[places[:, None] + np.arange(self.length)],
            "y": series[places[:, None] + after + np.arange(ahead)],
        }

    def _spelled(self) -> str:
        return f"windows of {self.length} values, {self.stride} apart"
