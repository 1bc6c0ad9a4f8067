"""A checkpoint and what it is put into: whether they fit, and what to do where they do not."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fdl.errors import InputError, did_you_mean
from fdl.runs.stored import kind

LINES = 10  # of a table of differences
SELECTED = "best/"  # what means nothing in parts: a best value without the parameters that had it
NEEDED = ("carry/order", "ended", "failed")  # what nothing can stand in for, in the middle of an epoch


@dataclass(frozen=True)
class Resume:
    """How a checkpoint is put into an experiment that it does not fit, for `fdl.run(..., resume=Resume(...))`.

    What was changed or not taken is printed, and kept in the manifest of the run.

    Args:
      partial: take what fits, also where the optimizer is another one, and leave the rest as before the first step.
      rename: (regex, replacement) pairs, as `re.sub` takes them, for paths such as those of the table that says what
        does not fit: ("/fc/", "/head/") renames parameters, and their part of the optimiser's state.
      cast: into the dtypes of the experiment.
      accept: what may be another than it was, by the names in the message that refuses it: "batch_size", "loss",
        "num_steps", "optimizer", "source", ...; "metrics" takes all of "metrics/...".
      num_steps: train until this step, also where the run is finished. Everything else is as it was: schedules go on as
        they were built, so one that ends with the steps of the run stays at its last value. The first steps are
        equal to the bit to those of the shorter run, whose last evaluation stays in the history.

    Raises:
      InputError: a regex that is not valid, or a number of steps; on resuming, a regex that is found in no path, a name
        that decides nothing.
    """

    partial: bool = False
    rename: Sequence[tuple[str, str]] = ()
    cast: bool = False
    accept: Sequence[str] = ()
    num_steps: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.accept, str) or not all(isinstance(name, str) for name in self.accept):
            raise InputError(f"resume: accept: expected names, such as ['batch_size'], got {self.accept!r}")
        steps = self.num_steps
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
            raise InputError(f"resume: num_steps: expected a whole number >= 1, got {steps!r}")
        for regex, replacement in self.rename:
            try:
                re.sub(regex, replacement, "")
            except (re.error, IndexError) as error:
                raise InputError(f"resume: rename: {regex}={replacement}: {error}") from None

    def fitted(self, arrays: Mapping[str, np.ndarray], expected: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """The arrays under new names and in new dtypes, and a line for each that was changed or is not taken."""
        found, lines = self._renamed(arrays)
        for path, array in found.items() if self.cast else ():
            if path in expected and array.dtype != expected[path].dtype:
                lines.append(f"{path}: cast from {array.dtype} to {expected[path].dtype}")
                found[path] = array.astype(expected[path].dtype)
        if self.partial:
            self._require(expected, found)
            unfit = differences(expected, found)
            if any(path.startswith(SELECTED) for path in unfit):
                unfit = {path: "" for path in found if path.startswith(SELECTED)} | unfit
                lines.append("selection begins anew, as the best parameters do not fit")
            lines += [f"not taken: {line}" for line in unfit.values() if line]
            found = {path: array for path, array in found.items() if path not in unfit}
        return found, lines

    def accepts(self, name: str) -> bool:
        """Whether what has this name may be another than it was."""
        if (name == "num_steps" and self.num_steps is not None) or {name, name.partition("/")[0]} & {*self.accept}:
            return True
        code = name.partition("/")[0] in ("model", "source")  # which these options are for
        return code and (self.partial or self.cast or bool(self.rename))

    def compared(self, before: Mapping[str, Any], now: Mapping[str, Any], where: str) -> list[str]:
        """A line for each fact that decides the rest of a run and is another than it was, where that is accepted.

        Raises:
          InputError: a difference that is not accepted; a name in `accept` that no fact has.
        """
        names = {*before, *now, "optimizer", "source"}
        for name in self.accept:
            if name not in names | {each.partition("/")[0] for each in names}:
                raise InputError(f"resume: accept: nothing is called {name!r}{did_you_mean(name, sorted(names))}")
        lines = {name: changes({name: before.get(name)}, {name: now.get(name)}) for name in sorted(names)}
        differing = {name: each[0] for name, each in lines.items() if each}
        refused = [name for name in differing if not self.accepts(name)]
        if refused:
            kinds = sorted({name.partition("/")[0] for name in refused})
            hint = f"to go on so: fdl resume RUN --accept {','.join(kinds)}, in Python fdl.Resume(accept={kinds})"
            title = f"{where}: this is not as it was, so the result would be that of neither run:"
            raise InputError(f"{table(title, [differing[name] for name in refused])}\n{hint}")
        return [*differing.values()]

    def _require(self, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        for path in NEEDED:
            if path in expected and (path not in found or kind(expected[path]) != kind(found[path])):
                was = kind(found[path]) if path in found else "nothing"
                raise InputError(
                    f"resume: {path}: expected {kind(expected[path])}, got {was}: with other data, another batch size "
                    "or other members, start a new run"
                )

    def _renamed(self, arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], list[str]]:
        found, lines = {}, []
        for regex, _ in self.rename:
            if not any(re.search(regex, path) for path in arrays):
                some = next((path for path in arrays if "/params" in path), next(iter(arrays), "none"))
                raise InputError(f"resume: rename: {regex!r} is found in no path; there is {some}, for example")
        for path, array in arrays.items():
            name = path
            for regex, replacement in self.rename:
                name = re.sub(regex, replacement, name)
            if name in found:
                raise InputError(f"resume: rename: two arrays would become {name}, one of them {path}")
            if name != path:
                lines.append(f"{path}: renamed {name}")
            found[name] = array
        return found, lines


AS_IT_IS = Resume()


def table(title: str, lines: Sequence[str]) -> str:
    """The title, at most `LINES` lines below it, and how many more there are."""
    more = [f"and {len(lines) - LINES} more"] if len(lines) > LINES else []
    return "\n  ".join([title, *lines[:LINES], *more])


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, str]:
    """A line for each path that is missing (-), not expected (+), or of another shape or dtype (!)."""
    lines = {path: f"- {path}: missing, expected {kind(expected[path])}" for path in expected if path not in found}
    lines |= {path: f"+ {path}: not expected, {kind(found[path])}" for path in sorted(found) if path not in expected}
    for path in expected:
        if path in found and kind(expected[path]) != kind(found[path]):
            lines[path] = f"! {path}: expected {kind(expected[path])}, got {kind(found[path])}"
    return lines


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each fact that is not the same.

    >>> changes({"batch_size": 8, "mode": "min"}, {"batch_size": 16, "mode": "min"})
    ['batch_size: was 8, is 16']
    """
    lines = []
    for name in [*before, *(name for name in now if name not in before)]:
        sides = [_shown(side[name]) if name in side else "not there" for side in (before, now)]
        if sides[0] != sides[1]:
            lines.append(f"{name}: was {sides[0]}, is {sides[1]}")
    return lines


def _shown(value: Any) -> str:
    return "there" if value == "" else repr(value)
