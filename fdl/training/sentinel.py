"""The sentinel of a run: sees the first value that is not finite, and finds the step that made it.

It costs the compiled program nothing: the losses are looked at on the host, where they go anyway, and the state before
a bad step is not kept but computed again, from one that is copied to the host once a minute, or from the beginning.
"""

from __future__ import annotations

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.errors import NonFiniteError
from fdl.runs.checkpoints import Checkpoints
from fdl.training.executables import Programs
from fdl.training.history import History, Series
from fdl.training.programs import Carry
from fdl.training.recipe import Hyper
from fdl.training.rewind import Kept, Moment, rewound
from fdl.training.snapshot import flat

KEPT_EVERY = 60.0  # seconds: no more than that is to be computed again
KEPT_BYTES = 2**28  # larger states are not copied: their checkpoints serve, or the beginning
STUCK = 32  # steps skipped in a row that end a run: the loss scale of float16 may need 24 to find its place
CARRY = "run/carry/"  # where a checkpoint has it


class Sentinel:
    """Of one run, or of many side by side.

    Attributes:
      failed: the step at which a loss was no longer finite, or after which parameters were not, 0 = never.
      moment: of the first that failed; the exception where it could not be found again.
    """

    def __init__(self, programs: Programs, key: jax.Array, hyper: Hyper, checkpoints: Checkpoints | None) -> None:
        self.programs, self.key, self.hyper, self.checkpoints = programs, key, hyper, checkpoints
        self.failed = np.zeros(key.shape, int)
        self.moment: Moment | Exception | None = None
        self._kept: Kept | None = None
        self._kept_at = time.monotonic()

    def is_due(self) -> bool:
        """Whether a state is to be kept."""
        return time.monotonic() - self._kept_at > KEPT_EVERY

    def keep(self, step: int, carry: Carry) -> None:
        """Keeps the state after `step` to go back to; everything up to there has been looked at."""
        self._kept_at = time.monotonic()
        if sum(leaf.nbytes for leaf in jax.tree.leaves(carry)) <= KEPT_BYTES:
            self._kept = Kept(step, flat(carry))

    def look(self, steps: np.ndarray, history: History, ended: np.ndarray) -> None:
        """Looks at the losses of a chunk, the last in the history.

        With a loss scale, a step that was skipped to halve it is as it should be.

        Raises:
          NonFiniteError: there is one that is not finite, and this is no sweep, whose members do not touch each other.
        """
        if "train/loss" not in history:
            return
        count = len(steps)
        loss = history["train/loss"].last(count)
        if self.programs.recipe.experiment.nonfinite == "skip":
            bad, said = _stuck(history["train/skipped"], count), f"the last {STUCK} steps were all skipped"
        else:
            bad, said = ~np.isfinite(loss), f"the training loss is {loss.flat[(~np.isfinite(loss)).argmax()]}"
            if "train/loss_scale" in history:
                bad &= (history["train/loss_scale"].last(count) <= 1.0) | (history["train/skipped"].last(count) == 0)
        first = steps[bad.argmax(-1)]
        self._fail(bad.any(-1) & (first <= ended), first, said + " at step", "it")

    def look_at(self, step: int, carry: Carry) -> None:
        """Looks at the parameters: what the last update left is in no loss yet.

        Raises:
          NonFiniteError: as above.
        """
        bad = ~_finite(carry.train.params, self.failed.shape)
        self._fail(bad, np.full(bad.shape, step), "the parameters are no longer finite after step", "them")

    def _fail(self, bad: np.ndarray, first: np.ndarray, said: str, what: str) -> None:
        new = bad & (self.failed == 0)
        if not new.any():
            return
        self.failed = np.where(new, first, self.failed)
        if self.moment is None:
            member = np.unravel_index(np.where(new, first, np.iinfo(int).max).argmin(), new.shape)
            try:
                self.moment = self._moment(int(first[member]), tuple(map(int, member)))
            except Exception as error:  # it must not hide what it is about
                self.moment = error
        if self.programs.members:
            return
        total = self.programs.recipe.experiment.total_steps()
        raise NonFiniteError(
            f"{said} {first} of {total}; a smaller learning rate, or clipped gradients, usually keeps {what} finite",
            self.moment,
        )

    def _moment(self, failed: int, member: tuple[int, ...]) -> Moment:
        kept = self._kept
        if kept is None:
            saved = None if self.checkpoints is None else self.checkpoints.newest()[0]
            if saved is not None:
                arrays = saved.arrays.items()
                kept = Kept(saved.step, {p.removeprefix(CARRY): a for p, a in arrays if p.startswith(CARRY)})
            else:
                kept = Kept(0, flat(self.programs.begin(self.key, self.hyper)[0]))
        return rewound(self.programs, self.key, self.hyper, kept, failed, member)


def _finite(params: Any, members: tuple[int, ...]) -> np.ndarray:
    """Whether every number is finite, for each member.

    On the host, as this is asked once a minute and at the end: to compile a program for it takes longer.
    """
    good = np.ones(members, bool)
    for leaf in jax.tree.leaves(params):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            good &= np.isfinite(np.asarray(leaf)).all(tuple(range(len(members), leaf.ndim)))
    return good


def _stuck(skipped: Series, count: int) -> np.ndarray:
    """Where in the last `count` steps so many have been skipped in a row, over the borders of chunks."""
    values = skipped.last(count + STUCK - 1) > 0
    before = np.zeros((*values.shape[:-1], count + STUCK - 1 - values.shape[-1]), bool)
    values = np.concatenate([before, values], -1)
    return np.asarray(np.lib.stride_tricks.sliding_window_view(values, STUCK, -1).all(-1))
