"""What a run has measured so far, in memory that grows in proportion to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

FIRST = 16  # values that a series has room for at first


class Series:
    """The values of one metric, and the step of each; adding one takes constant time on average.

    What `steps`, `values` and `last` return stays as it is when more is added: nothing is written twice.

    >>> series = Series()
    >>> series.add(np.array([1, 2]), np.array([0.5, 0.25]))
    >>> series.add(np.array([3]), np.array([0.125]))
    >>> len(series), series.steps.tolist(), series.last(2).tolist()
    (3, [1, 2, 3], [0.25, 0.125])
    """

    def __init__(self) -> None:
        self._steps, self._values, self._size = np.empty(0, np.int64), np.empty(0), 0

    def __len__(self) -> int:
        return self._size

    @property
    def steps(self) -> np.ndarray:
        """[n]."""
        return self._steps[: self._size]

    @property
    def values(self) -> np.ndarray:
        """[..., n], with a leading axis for the members of a sweep."""
        return self._values[..., : self._size]

    def last(self, count: int) -> np.ndarray:
        """The last `count` values, fewer where there are fewer."""
        return self._values[..., max(0, self._size - count) : self._size]

    def add(self, steps: np.ndarray, values: np.ndarray) -> None:
        """Copies the values [..., k] of k more steps.

        Raises:
          ValueError: steps that are no whole numbers; another number of values than of steps.
        """
        if steps.dtype.kind not in "iu" or steps.ndim != 1 or steps.shape != values.shape[-1:]:
            raise ValueError(f"expected a step for each value, got {steps.dtype}{steps.shape} for {values.shape}")
        if not self._size:
            self._values = np.empty((*values.shape[:-1], 0), values.dtype)
        end = self._size + len(steps)
        if end > len(self._steps):
            room = max(FIRST, end, 2 * self._size)  # doubled, so that a value is copied once or twice in all
            self._steps, self._values = _moved(self.steps, room), _moved(self.values, room)
        self._steps[self._size : end] = steps
        self._values[..., self._size : end] = values
        self._size = end

    @property
    def nbytes(self) -> int:
        """Of the memory that it holds: less than three times what was recorded."""
        return self._steps.nbytes + self._values.nbytes


class History(Mapping[str, Series]):
    """The series of a run by name, in the order in which they began."""

    def __init__(self) -> None:
        self._series: dict[str, Series] = {}

    def add(self, steps: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
        """Adds to each series; a name that is new begins one."""
        for name, values in columns.items():
            self._series.setdefault(name, Series()).add(steps, values)

    def __getitem__(self, name: str) -> Series:
        return self._series[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._series)

    def __len__(self) -> int:
        return len(self._series)

    @property
    def nbytes(self) -> int:
        """Of the memory that it holds."""
        return sum(series.nbytes for series in self._series.values())


def _moved(array: np.ndarray, room: int) -> np.ndarray:
    """The array [..., n] at the start of new memory [..., room]."""
    moved = np.empty((*array.shape[:-1], room), array.dtype)
    moved[..., : array.shape[-1]] = array
    return moved
