"""Whether a run that is stopped and resumed ends with the same bits as one that is not: tried, not believed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from fdl.errors import InputError
from fdl.runs.checkpoints import CheckpointError, Checkpoints, Saved
from fdl.runs.retention import NEWEST
from fdl.runs.stored import apart, differing, same_bits, stores
from fdl.training.driver import Event, Hook
from fdl.training.experiment import Experiment
from fdl.training.snapshot import steps_of

Shorten = Callable[[Experiment], Experiment]
Train = Callable[[Path, Shorten, Sequence[Hook], bool], Any]
"""(folder, what to make of the experiment that was built, hooks, resume) trains in that folder, from the beginning or
from its newest checkpoint."""


class Difference(NamedTuple):
    """Where two runs are not the same: the path of an array, after which step, and what is there in both."""

    path: str
    step: int
    what: str


class Trial(NamedTuple):
    """A run that was stopped, and resumed from the checkpoint of step `resumed`; None = it ended before the stop."""

    stop: int
    resumed: int | None
    arrays: int
    difference: Difference | None


class _StoppedError(Exception):
    """Ends a run without a chance to save, as a power failure does."""


def verified(train: Train, steps: int, stops: Sequence[int], place: Path) -> Iterator[Trial]:
    """For each of the stops: a run that has a checkpoint there, is cut off after it and resumed, beside a whole one.

    Args:
      train: see `Train`; it builds the experiment anew every time.
      steps: how many of the run are tried.
      stops: in 1 .. steps - 1.
      place: an empty folder for the runs.
    """

    def shortened(every: int | None) -> Shorten:
        changes: dict[str, Any] = {"num_steps": steps, "num_epochs": None, "checkpoint_every": every, "keep": NEWEST}
        return lambda experiment: dataclasses.replace(experiment, **changes)

    train(place / "whole", shortened(None), (), False)
    for stop in stops:

        def cut(event: Event, stop: int = stop) -> None:
            if event.step > stop:
                raise _StoppedError

        folder, resumed = place / f"stopped-{stop}", None
        try:
            train(folder, shortened(stop), [cut], False)
        except _StoppedError:
            resumed = max(saved.step for saved in _newest(folder).values())
            try:
                train(folder, shortened(stop), (), True)
            except InputError as error:  # the data were other ones, say
                yield Trial(stop, resumed, 0, Difference("resuming is refused", resumed, str(error)))
                continue
        yield Trial(stop, resumed, *compared(place / "whole", folder))


def compared(one: Path, other: Path) -> tuple[int, Difference | None]:
    """How many arrays the newest checkpoints in two run folders have, and the first difference between them."""
    saved, found = _newest(one), _newest(other)
    for name, mine in saved.items():
        if name not in found:
            return 0, Difference(name, mine.step, "there, and not there")
        if difference := _first(mine, found[name]):
            return 0, difference
    return sum(len(mine.arrays) for mine in saved.values()), None


def _newest(folder: Path) -> dict[str, Saved]:
    """The newest checkpoint of a run, or of each block of a sweep."""
    newest = {str(each.relative_to(folder)): Checkpoints(each).newest()[0] for each in stores(folder)}
    if not newest or None in newest.values():
        raise CheckpointError(f"{folder}: a checkpoint that was just written is not whole")
    return {name: saved for name, saved in newest.items() if saved is not None}


def _first(one: Saved, other: Saved) -> Difference | None:
    """The earliest difference in the history; where there is none, one at the end."""
    for name in one.facts["names"]:
        if f"history/{name}" not in other.arrays:
            return Difference(name, one.step, "measured, and not measured")
    early = [d for name in one.facts["names"] if (d := _in_history(name, one, other))]
    if early:
        return min(early, key=lambda difference: difference.step)
    if (one.step, one.facts["stopped_at"]) != (other.step, other.facts["stopped_at"]):
        return Difference("the end", min(one.step, other.step), f"after {one.step} steps and after {other.step} steps")
    at_the_end = differing(one, other)
    return Difference(at_the_end[0][0].removeprefix("run/"), one.step, at_the_end[0][1]) if at_the_end else None


def _in_history(name: str, one: Saved, other: Saved) -> Difference | None:
    steps = [steps_of(saved, name) for saved in (one, other)]
    values = [saved.arrays[f"history/{name}"] for saved in (one, other)]
    count = min(map(len, steps))
    for at in range(count):
        pair = [value[..., at] for value in values]
        if steps[0][at] != steps[1][at] or not same_bits(*pair):
            return Difference(name, int(steps[0][at]), apart(*pair))
    if len(steps[0]) != len(steps[1]):
        longer = max(steps, key=len)
        return Difference(name, int(longer[count]), f"{len(steps[0])} values and {len(steps[1])} values")
    return None
