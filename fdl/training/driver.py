"""The driver: dispatches the compiled programs of a run, or of many side by side, and keeps what they measure."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.data.stream import Prefetch, Stream
from fdl.errors import Interrupted, Stop
from fdl.records import figures, listed, sizes
from fdl.runs.checkpoints import Checkpoints, Saved
from fdl.runs.fitting import AS_IT_IS, Resume
from fdl.training.compiling import Program
from fdl.training.deciding import deciding
from fdl.training.executables import Programs, selected_set
from fdl.training.history import History
from fdl.training.recipe import Hyper
from fdl.training.reports import of_members
from fdl.training.rewind import Moment
from fdl.training.sentinel import Sentinel
from fdl.training.snapshot import facts_at, flat, packed, past, put, same_optimizer
from fdl.training.sums import means

INTERVAL = 600.0  # seconds between checkpoints, where the experiment does not say after how many steps
SECONDS = 1.0  # how long a chunk should take: short enough for a live display and a prompt Ctrl-C


@dataclass(frozen=True)
class Result:
    """What a run returns.

    Args:
      params, state: after the last step; with `select`, those of the best evaluation. They are what evaluation uses:
        the averaged ones where the experiment has `eval_params`.
      history: "train/loss" and each other metric -> one value per step; "test/accuracy" -> one per evaluation.
      steps: for each name of the history, the number of steps done at each of its values.
      metrics: the last value of each; with `select`, of evaluations the value at the best one.
      info: steps, seconds_compile, seconds_train (of all sessions, where the run was resumed); best_step with `select`;
        seconds_waiting for the data of a stream.
      programs: what was compiled, see `fdl.training.compiling.Program`.
      stopped: why a hook stopped the run, see `fdl.Stop`; None where none did.
      changes: what of its checkpoints a run did not take as it was, where it was resumed with `fdl.Resume`.
    """

    params: Any
    state: Any
    history: dict[str, np.ndarray]
    steps: dict[str, np.ndarray]
    metrics: dict[str, float]
    info: dict[str, float] = field(default_factory=dict)
    programs: tuple[Program, ...] = ()
    stopped: str | None = None
    changes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        rows = [
            ("metrics", figures(self.metrics)),
            ("history", f"{len(self.history)} names, of {sum(map(len, self.history.values())):,} values together"),
            ("params", sizes(self.params)),
            ("state", sizes(self.state)),
            ("info", figures(self.info)),
            *([] if self.stopped is None else [("stopped", self.stopped)]),
        ]
        return listed(f"Result after {self.info.get('steps', 0):.0f} steps:", rows)


@dataclass(frozen=True)
class Event:
    """What a hook gets, between two chunks.

    Args:
      step: steps done, of `num_steps`.
      members: how many runs train side by side.
      metrics: the last value of each metric, a float; in a sweep an array [members].
      params: call it for the parameters at this step. Their buffers do not outlive the hook: copy what you keep.
    """

    step: int
    num_steps: int
    members: int
    metrics: Mapping[str, Any]
    params: Callable[[], Any]


Hook = Callable[[Event], None]
Watcher = Callable[[np.ndarray, Mapping[str, np.ndarray]], None]
"""Gets (steps, {name: one value a step, [..., n]}) as they become known, while the next chunk already runs."""


@dataclass(frozen=True)
class Trained:
    """What a driver returns; every array has a leading axis for the members of a sweep, and none for a run.

    Args:
      params, state: as in `Result`.
      history: name -> [..., n]; after a member's end its values mean nothing.
      steps: name -> [n].
      ended: the number of steps taken; best_step: 0 where nothing was selected.
      failed: the step at which the loss was no longer finite, 0 = never.
      moment: how the first of them failed; see `fdl.training.sentinel`.
      seconds, waited: of training, in all sessions, and of waiting for the data of a stream.
      seconds_compile, programs: what was compiled; not the executables, which would keep the data on the device.
      stopped: as in `Result`.
    """

    params: Any
    state: Any
    history: dict[str, np.ndarray]
    steps: dict[str, np.ndarray]
    ended: np.ndarray
    best_step: np.ndarray
    failed: np.ndarray
    moment: Moment | Exception | None
    seconds: float
    waited: float | None
    seconds_compile: float
    programs: tuple[Program, ...]
    stopped: str | None

    def result(self, member: Any = ()) -> Result:
        """The `Result` of a run, or of one member."""
        params, state = (
            jax.tree.map(lambda leaf: leaf[member], (self.params, self.state))
            if member != ()
            else (self.params, self.state)
        )
        end, best = int(self.ended[member]), int(self.best_step[member])
        steps = {name: at[at <= end] for name, at in self.steps.items()}
        # A copy, or one member would keep the history of all.
        history = {name: values[member][: len(steps[name])].copy() for name, values in self.history.items()}
        metrics = {name: float(values[-1]) for name, values in history.items() if len(values)}
        info: dict[str, float] = {"steps": end}
        if best:
            info["best_step"] = best
            at = {name: np.flatnonzero(steps[name] == best) for name in steps if not name.startswith("train/")}
            metrics |= {name: float(history[name][rows[0]]) for name, rows in at.items() if len(rows)}
        info |= {"seconds_compile": self.seconds_compile, "seconds_train": self.seconds}
        if self.waited is not None:
            info["seconds_waiting"] = self.waited
        return Result(params, state, history, steps, metrics, info, self.programs, self.stopped)


class Driver:
    """A run in progress, or many side by side: the arrays on the device, and what was recorded so far."""

    def __init__(
        self,
        programs: Programs,
        key: jax.Array,
        hyper: Hyper,
        chunk: int | None = None,
        hooks: Sequence[Hook] = (),
        watchers: Sequence[Watcher] = (),
        interrupted: Callable[[], int] = lambda: 0,
        reports: Sequence[Mapping[str, Callable[[Any], Any]]] = (),
        rungs: Mapping[int, tuple[int, int]] | None = None,
        checkpoints: Checkpoints | None = None,
        remark: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.programs, self.experiment = programs, programs.recipe.experiment
        self.key, self.hyper, self.fixed = key, hyper, chunk
        self.hooks, self.watchers, self.interrupted = hooks, watchers, interrupted
        self.reports = reports or [self.experiment.reports] * key.size  # of each member: they may close over its config
        self.rungs = rungs or {}  # after which steps how many of the first so many members go on
        self.total, self.count = self.experiment.total_steps(), chunk or 1
        self.history = History()
        self.pending: deque[Callable[[], None]] = deque()
        self.ended = np.full(key.shape, self.total)
        self.sentinel = Sentinel(programs, key, hyper, checkpoints)
        self.stopped_at: int | None = None
        self.stop: Stop | None = None  # raised by a hook
        self.broken: Exception | None = None  # raised by a report
        self.unreported = 0  # the step of the evaluation whose reports failed
        self.remark, self.remarked = remark, False
        self.going = np.zeros(key.shape, bool)  # no member has stopped
        self.carry, self.best = programs.begin(key, hyper)
        self.checkpoints, self.start, self.saved = checkpoints, 0, time.monotonic()
        self.decides = {} if checkpoints is None else {**deciding(self.experiment), **checkpoints.source}
        self.started, self.spent, self.newest = time.perf_counter(), 0.0, 0

    def restore(self, saved: Saved, resume: Resume = AS_IT_IS) -> list[str]:
        """Puts the run where it was when the checkpoint was written; says what of it was changed or not taken.

        Raises:
          InputError: the checkpoint is of another model, optimizer or number of members, or something else that decides
        the rest of the run is not as it was.
        """
        before = past(saved, self.total)
        lines = same_optimizer(saved, self.experiment.optimizer, resume)
        state, more = put(self._state(), before.run, str(saved.path), resume)
        self.carry, self.best, self.ended = state["carry"], state["best"], state["ended"]
        self.sentinel.failed = state["failed"]
        self.history, self.stopped_at, self.spent = before.history, before.stopped_at, before.seconds
        lines += more
        if self.decides and "decides" in saved.facts:  # after the arrays: what does not fit is best told by their paths
            lines += resume.compared(saved.facts["decides"], self.decides, str(saved.path))
        self.start = self.newest = saved.step
        self.unreported = saved.facts.get("unreported", 0)
        return lines

    def _state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on; the data are a function of the step."""
        return {"carry": self.carry, "best": self.best, "ended": self.ended, "failed": self.sentinel.failed}

    def _save(self, step: int) -> None:
        """Starts a checkpoint of all that has been done, and of the history up to here."""
        if self.checkpoints is None:
            return
        self._settle(0)
        step = step if self.stopped_at is None else self.stopped_at  # what was dispatched after that took no step
        if step == self.newest:  # the last one is often due already
            return
        self.newest = step
        self.sentinel.look_at(step, self.carry)
        arrays = {f"run/{path}": array for path, array in flat(self._state()).items()}
        recorded, clocks = packed(self.history)
        facts = {"stopped_at": self.stopped_at, "seconds": self._seconds(), "clocks": clocks}
        facts["decides"] = self.decides
        facts |= {"unreported": self.unreported} if self.unreported == step else {}
        facts |= facts_at(self.experiment, self.history, step)
        arrays |= recorded
        self.checkpoints.save(step, arrays, facts, self.experiment.keep)
        self.saved = time.monotonic()

    def _save_is_due(self, step: int) -> bool:
        if self.checkpoints is None:
            return False
        self.checkpoints.check()
        every = self.experiment.checkpoint_every
        return time.monotonic() - self.saved > INTERVAL if every is None else step % every == 0

    def drive(self) -> Trained:
        """Dispatches chunk after chunk; the host reads the metrics of one while the device runs the next.

        Raises:
          NonFiniteError: the loss of a run is not finite. Members of a sweep go on: they do not touch each other.
          Interrupted: after Ctrl-C or SIGTERM, once the chunk in progress is recorded and saved. It has as its `result`
            the `Trained` until then.
          CheckpointError: a checkpoint could not be written; the one before it is still there.
          Exception: whatever a report raised, once the run up to there is recorded and saved.
        """
        self.started = self.read = time.perf_counter()
        dataset, step = self.experiment.dataset, self.start
        capacity = self.programs.capacity
        self.feed = Prefetch(dataset, capacity, self._plan, self.total, step) if isinstance(dataset, Stream) else None
        if step:  # what came before is in a checkpoint, which need not have been taken as it is
            self.sentinel.keep(step, self.carry)
        try:
            if step and step == self.unreported:  # the reports of its evaluation have failed, and may be mended
                self._evaluate(step, again=True)
            while self._goes_on(step) and not self.interrupted():
                unread = len(self.pending)
                step = self._dispatch(step)
                if step == self._evaluation(step - 1):
                    self._evaluate(step)
                self._settle(0 if self.hooks else len(self.pending) - unread)
                if self.hooks and self.stopped_at in (None, step):
                    self._call_hooks(step)
                if self._save_is_due(step):
                    self._save(step)
                if self.sentinel.is_due():
                    self._settle(0)
                    self.sentinel.look_at(step, self.carry)
                    self.sentinel.keep(step, self.carry)
            self._settle(0)
            self.sentinel.look_at(step, self.carry)
            self._save(step)
            if self.stop is not None and step != self._evaluation(step - 1):
                self._evaluate(step)  # after it is saved: a run that goes on from there has no such evaluation
                self._settle(0)
            if self.checkpoints is not None:
                self.checkpoints.wait()
        finally:
            if self.feed is not None:
                self.feed.close()
        if self.broken is not None:
            if not self.programs.members:  # without a folder, this is all there is of the run
                with suppress(AttributeError):
                    self.broken.result = self._trained(step)  # pyright: ignore[reportAttributeAccessIssue]
                    self.broken.add_note("the result so far is `.result` of this exception")
            raise self.broken
        if self._goes_on(step):
            message = f"stopped after step {step} of {self.total}"
            raise Interrupted(message, self.interrupted(), self._trained(step))
        return self._trained(step)

    def _goes_on(self, step: int) -> bool:
        """Whether there is more to train after `step`."""
        return step < self.total and self.stopped_at is None and self.stop is None and self.broken is None

    def _seconds(self) -> float:
        """Of training until now, in the sessions before this one as well."""
        return self.spent + time.perf_counter() - self.started

    def _dispatch(self, step: int) -> int:
        """Starts the chunk that begins at `step`, and says where it ends."""
        if self.feed is None:
            count, arrays = self._plan(step), self.programs.arrays["train"]
        else:
            count, arrays = self.feed.next()
        stopped = self.going if self.best is None else self.best.stopped
        arguments = (self.carry, arrays, self.key, self.hyper, np.int32(step), np.int32(count), stopped)
        self.carry, history = self.programs.chunk(*arguments)
        self.pending.append(partial(self._record, step, count, history))
        return step + count

    def _plan(self, step: int) -> int:
        """The length of the chunk that begins at `step`."""
        every = self.experiment.checkpoint_every or self.total
        checkpoint = (step // every + 1) * every
        return min(self.count, self.programs.capacity, self._evaluation(step) - step, checkpoint - step)

    def _evaluation(self, step: int) -> int:
        """The next evaluation after `step`."""
        every = self.experiment.eval_every or self.total
        return min((step // every + 1) * every, self.total)

    def _settle(self, running: int) -> None:
        """Reads what the device has done, but for the `running` chunks and evaluations that were just dispatched."""
        while len(self.pending) > running and self.stopped_at is None:
            self.pending.popleft()()

    def _record(self, start: int, count: int, history: jax.Array) -> None:
        """Waits for a chunk, keeps its metrics and adapts the length of the next."""
        values = np.array(np.asarray(history)[..., :count, :])  # a copy: a view would keep all of the buffer
        now = time.perf_counter()
        if self.fixed is None:
            self.count = max(1, round(count * min(8.0, SECONDS / max(now - self.read, 1e-6))))
        self.read = now
        steps = np.arange(start + 1, start + count + 1)
        columns = {name: values[..., column] for column, name in enumerate(self.programs.names)}
        self._keep(steps, {f"train/{name}": column for name, column in columns.items()})
        self.sentinel.look(steps, self.history, self.ended)

    def _evaluate(self, step: int, again: bool = False) -> None:
        """Starts an evaluation; `again`: for its reports alone, as its metrics are recorded and selected by already."""
        arrays, now = self.programs.arrays, self.carry.train
        results = {
            name: evaluate(now, arrays[name], self.key, self.hyper)
            for name, (evaluate, _) in self.programs.evaluations.items()
        }
        stopped = None
        if self.best is not None and self.programs.choose is not None and not again:
            sums, _ = results[selected_set(self.experiment)]
            self.best, stopped = self.programs.choose(self.best, sums, np.int32(step), now, self.hyper)
            if step in self.rungs:
                self.best, stopped = self.programs.halve(self.best, *self.rungs[step])
        if results:
            self.pending.append(partial(self._record_evaluation, step, results, stopped, again))

    def _record_evaluation(
        self, step: int, results: Mapping[str, Any], stopped: jax.Array | None, again: bool = False
    ) -> None:
        columns, evaluate, self.unreported = {}, self.experiment.evaluate, 0
        for set_name, (sums, outputs) in results.items():
            _, names = self.programs.evaluations[set_name]
            values = means(sums)
            if not again:
                columns |= {f"{set_name}/{name}": values[..., [column]] for column, name in enumerate(names)}
            made, error = of_members(self.reports, evaluate[set_name], outputs, set_name, names, self.key.shape)
            columns |= made
            if error is not None:
                error.add_note(f"after step {step} of {self.total}")
                self.broken, self.unreported = self.broken or error, step
        if columns:
            self._keep(np.array([step]), columns)
        self._remark_on(step, columns)
        if stopped is not None:
            self.ended = np.where(np.asarray(stopped) & (self.ended > step), step, self.ended)
            if np.asarray(stopped).all():
                self.stopped_at = step
        self.read = time.perf_counter()

    def _remark_on(self, step: int, columns: Mapping[str, np.ndarray]) -> None:
        """Tells of a metric that is to be selected by, and is no number: each time where that costs patience."""
        select, patience = self.experiment.select, self.experiment.patience
        if select is None or select not in columns or (self.remarked and patience is None):
            return
        bad = ~np.isfinite(columns[select][..., 0]) & (self.ended >= step)
        if bad.any():
            self.remarked = True
            who = f" for {bad.sum()} of {bad.size} members" if self.programs.members else ""
            cost = "" if patience is None else f", and counts against patience={patience}"
            self.remark(f"{select} is not finite after step {step}{who}: it is never the best{cost}")

    def _keep(self, steps: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
        if self.programs.stops and self.programs.members:  # what the program computes after a member's end is nothing
            going = steps <= self.ended[:, None]
            columns = {name: np.where(going, values, np.nan) for name, values in columns.items()}
        self.history.add(steps, columns)
        for watch in self.watchers:
            watch(steps, columns)

    def _call_hooks(self, step: int) -> None:
        latest = {name: series.values[..., -1] for name, series in self.history.items()}
        if not self.programs.members:
            latest = {name: float(value) for name, value in latest.items()}
        members = int(np.prod(self.key.shape))
        for hook in self.hooks:
            try:
                hook(
                    Event(step, self.total, members, latest, lambda: self.programs.finish(self.carry.train, self.hyper))
                )
            except Stop as stop:  # the other hooks get this event as well
                self.stop = self.stop or (stop if self._goes_on(step) else None)

    def _trained(self, step: int) -> Trained:
        """What there is after `step` steps."""
        jax.block_until_ready(self.carry)
        steps = {name: series.steps.copy() for name, series in self.history.items()}
        history = {name: series.values.copy() for name, series in self.history.items()}
        params, state = self.programs.finish(self.carry.train, self.hyper), self.carry.train.state
        best_step = np.zeros(self.key.shape, int)
        if self.best is not None:
            best_step = np.asarray(self.best.step)
            last, best = (params, state), (self.best.params, self.best.state)
            params, state = jax.tree.map(partial(_where_found, best_step > 0), best, last)
        waited = None if self.feed is None else self.feed.waited
        every = (params, state, history, steps, np.minimum(self.ended, step), best_step)
        compiled = self.programs.seconds, self.programs.records
        stopped = None if self.stop is None else str(self.stop) or "by a hook"
        return Trained(*every, self.sentinel.failed, self.sentinel.moment, self._seconds(), waited, *compiled, stopped)


def _where_found(found: np.ndarray, best: jax.Array, last: jax.Array) -> jax.Array:
    """The best arrays of the members that have any."""
    if found.all():
        return best
    return jnp.where(found.reshape(found.shape + (1,) * (last.ndim - found.ndim)), best, last)
