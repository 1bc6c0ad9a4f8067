"""Which checkpoints of a run stay."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fdl.errors import InputError


@dataclass(frozen=True)
class Keep:
    """Which checkpoints of a run stay; all others are deleted once the newest has been read back and is whole.

    Args:
      last: so many of the newest.
      every: beside them, those after every so many steps; a multiple of `checkpoint_every`.
      best: beside them, so many with the best value of the metric that the experiment selects by, of those that were
        written right after an evaluation. The members of a sweep differ in it: there, it keeps none.

    Raises:
      InputError: no whole numbers, or less than one checkpoint.

    >>> sorted(Keep(last=1, every=20, best=1).stay({10: 0.1, 20: 0.5, 30: 0.4, 40: 0.3, 50: None}))
    [10, 20, 40, 50]
    """

    last: int = 2
    every: int | None = None
    best: int = 0

    def __post_init__(self) -> None:
        for name, least in (("last", 1), ("every", 1), ("best", 0)):
            value = getattr(self, name)
            fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
            if not fits and not (name == "every" and value is None):
                raise InputError(f"Keep: {name}: expected a whole number >= {least}, got {value!r}")

    def stay(self, scores: Mapping[int, float | None]) -> set[int]:
        """The steps that stay, of {step: a score that is better the lower, None = no score}; of equals the earlier."""
        steps = sorted(scores)
        ranked = sorted((score, step) for step, score in scores.items() if score is not None)
        kept = {*steps[-self.last :], *(step for _, step in ranked[: self.best])}
        return kept | {step for step in steps if self.every is not None and step % self.every == 0}


NEWEST = Keep()
"""The two newest."""
