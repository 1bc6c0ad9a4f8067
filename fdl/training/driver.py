"""The driver: compiles a run's programs and dispatches them; everything a person sees happens between chunks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fdl.data.stream import Prefetch, Stream
from fdl.errors import InputError, did_you_mean
from fdl.training.compiling import Program, compiled
from fdl.training.experiment import Experiment
from fdl.training.programs import Carry, evaluated_params, init_carry, make_chunk, make_evaluation
from fdl.training.selection import Selection, select, start
from fdl.training.step import TrainState

CAPACITY = 8192  # most steps of one chunk: its history buffer stays a few hundred KiB
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
      info: steps, seconds_compile, seconds_train; best_step with `select`; seconds_waiting for the data of a stream.
      programs: what was compiled, see `fdl.training.compiling.Program`.
    """

    params: Any
    state: Any
    history: dict[str, np.ndarray]
    steps: dict[str, np.ndarray]
    metrics: dict[str, float]
    info: dict[str, float] = field(default_factory=dict)
    programs: tuple[Program, ...] = ()


@dataclass(frozen=True)
class Event:
    """What a hook gets, between two chunks.

    Args:
      step: steps done, of `num_steps`.
      members: how many runs train side by side (1 here).
      metrics: the last value of each metric.
      params: call it for the parameters at this step. Their buffers do not outlive the hook: copy what you keep.
    """

    step: int
    num_steps: int
    members: int
    metrics: Mapping[str, float]
    params: Callable[[], Any]


Hook = Callable[[Event], None]
Watcher = Callable[[np.ndarray, Mapping[str, np.ndarray]], None]
"""Gets (steps, {name: one value a step}) as they become known, while the next chunk already runs."""


class Driver:
    """One run in progress: its compiled programs, its arrays on the device, and what was recorded so far."""

    def __init__(
        self,
        experiment: Experiment,
        key: jax.Array,
        chunk: int | None,
        hooks: Sequence[Hook],
        watchers: Sequence[Watcher],
        interrupted: Callable[[], bool],
    ) -> None:
        self.experiment, self.key, self.fixed = experiment, key, chunk
        self.hooks, self.watchers, self.interrupted = hooks, watchers, interrupted
        self.total, self.count = experiment.total_steps(), chunk or 1
        self.history: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        self.pending: deque[Callable[[], None]] = deque()
        self.programs: tuple[Program, ...] = ()
        self.stopped_at: int | None = None
        started = time.perf_counter()
        self._place()
        self._compile()
        self.seconds_compile = time.perf_counter() - started

    def _place(self) -> None:
        """Every array on the device once, however many views of it there are."""
        placed: dict[int, jax.Array] = {}

        def place(leaf: Any) -> jax.Array:
            if id(leaf) not in placed:
                placed[id(leaf)] = jax.device_put(leaf)
            return placed[id(leaf)]

        sets = {"train": self.experiment.dataset, **self.experiment.evaluate}
        self.arrays = {name: dataset.arrays if dataset.streamed else None for name, dataset in sets.items()}
        for name, dataset in sets.items():
            if not dataset.streamed:
                self.arrays[name] = {k: jax.tree.map(place, v) for k, v in dataset.arrays.items()}

    def _compile(self) -> None:
        experiment, key, zero, no = self.experiment, self.key, np.int32(0), np.bool_(False)
        dataset, most = experiment.dataset, min(self.fixed or CAPACITY, CAPACITY, self.total)
        self.capacity = dataset.capacity(most) if isinstance(dataset, Stream) else most
        arrays = self.arrays["train"]
        if dataset.streamed:
            arrays = jax.tree.map(lambda x: jax.ShapeDtypeStruct((self.capacity, *x.shape[1:]), x.dtype), arrays)
        self.carry: Carry = jax.jit(partial(init_carry, experiment))(key)
        chunk, self.names = make_chunk(experiment, self.capacity)
        arguments = (self.carry, arrays, key, zero, zero, no)
        self.chunk, record = compiled("chunk", chunk, *arguments, steps=self.total, donate_argnums=0)
        self.programs += (record,)
        self.evaluations = {}
        for name, dataset in experiment.evaluate.items():
            evaluate, names = make_evaluation(experiment, name, dataset)
            program, record = compiled(f"evaluate/{name}", evaluate, self.carry.train, self.arrays[name], key)
            self.evaluations[name] = (program, names)
            self.programs += (record,)
        self.best: Selection | None = self._begin_selection() if experiment.select else None

    def _begin_selection(self) -> Selection:
        experiment = self.experiment
        measured = [f"{name}/{metric}" for name, (_, names) in self.evaluations.items() for metric in names]
        wanted = experiment.select or ""
        if wanted not in measured:
            raise InputError(f"select: no evaluation measures {wanted!r}{did_you_mean(wanted, measured)}")
        set_name, metric = wanted.split("/", 1)
        column = self.evaluations[set_name][1].index(metric)

        def choose(best: Selection, sums: jax.Array, step: jax.Array, now: TrainState) -> tuple[Selection, jax.Array]:
            total, count = sums[:, column].sum(0)
            value = total / jnp.where(count == 0, 1, count)
            params = evaluated_params(experiment, now)
            options = experiment.mode, experiment.patience, experiment.min_delta
            best = select(best, value, step, params, now.state, *options)
            return best, jnp.copy(best.stopped)  # a copy, as the selection is donated to the next choice

        def begin(now: TrainState) -> Selection:
            return start(evaluated_params(experiment, now), now.state, experiment.mode)

        now, dataset = self.carry.train, experiment.evaluate[set_name]
        best = jax.jit(begin)(now)
        batches = dataset.num_eval_batches(experiment.batch_size)
        sums = jax.ShapeDtypeStruct((batches, len(self.evaluations[set_name][1]), 2), jnp.float32)
        self.choose, record = compiled("select", choose, best, sums, np.int32(0), now, donate_argnums=0)
        self.programs += (record,)
        return best

    def drive(self) -> Result:
        """Dispatches chunk after chunk; the host reads the metrics of one while the device runs the next."""
        started = self.read = time.perf_counter()
        dataset, step = self.experiment.dataset, 0
        self.feed = Prefetch(dataset, self.capacity, self._plan, self.total) if isinstance(dataset, Stream) else None
        try:
            while step < self.total and self.stopped_at is None and not self.interrupted():
                unread = len(self.pending)
                step = self._dispatch(step)
                if step == self._boundary(step - 1):
                    self._evaluate(step)
                self._settle(0 if self.hooks else len(self.pending) - unread)
                if self.hooks and self.stopped_at in (None, step):
                    self._call_hooks(step)
            self._settle(0)
        finally:
            if self.feed is not None:
                self.feed.close()
        step = step if self.stopped_at is None else self.stopped_at
        if step < self.total and self.stopped_at is None:
            raise KeyboardInterrupt(f"stopped after step {step} of {self.total}")
        return self._result(step, time.perf_counter() - started)

    def _dispatch(self, step: int) -> int:
        """Starts the chunk that begins at `step`, and says where it ends."""
        if self.feed is None:
            count, arrays = self._plan(step), self.arrays["train"]
        else:
            count, arrays = self.feed.next()
        stopped = np.bool_(False) if self.best is None else self.best.stopped
        self.carry, history = self.chunk(self.carry, arrays, self.key, np.int32(step), np.int32(count), stopped)
        self.pending.append(partial(self._record, step, count, history))
        return step + count

    def _plan(self, step: int) -> int:
        """The length of the chunk that begins at `step`."""
        return min(self.count, self.capacity, self._boundary(step) - step)

    def _boundary(self, step: int) -> int:
        """The next evaluation after `step`."""
        every = self.experiment.eval_every or self.total
        return min((step // every + 1) * every, self.total)

    def _settle(self, running: int) -> None:
        """Reads what the device has done, but for the `running` chunks and evaluations that were just dispatched."""
        while len(self.pending) > running and self.stopped_at is None:
            self.pending.popleft()()

    def _record(self, start: int, count: int, history: jax.Array) -> None:
        """Waits for a chunk, keeps its metrics and adapts the length of the next."""
        values = np.asarray(history)[:count]
        now = time.perf_counter()
        if self.fixed is None:
            self.count = max(1, round(count * min(8.0, SECONDS / max(now - self.read, 1e-6))))
        self.read = now
        steps = np.arange(start + 1, start + count + 1)
        columns = {name: values[:, column] for column, name in enumerate(self.names)}
        self._keep(steps, {f"train/{name}": column for name, column in columns.items()})
        self._require_finite(steps, columns)

    def _require_finite(self, steps: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
        """A loss that is not finite ends the run; with a loss scale, only where the scale cannot get any smaller."""
        if "loss" not in columns:
            return
        bad = ~np.isfinite(columns["loss"])
        if "loss_scale" in columns:
            bad &= columns["loss_scale"] <= 1.0
        if bad.any():
            first = int(np.argmax(bad))
            raise FloatingPointError(
                f"the training loss is {columns['loss'][first]} at step {steps[first]} of {self.total}; "
                "a smaller learning rate, or clipped gradients, usually keeps it finite"
            )

    def _evaluate(self, step: int) -> None:
        results = {
            name: evaluate(self.carry.train, self.arrays[name], self.key)
            for name, (evaluate, _) in self.evaluations.items()
        }
        stopped = None
        if self.best is not None:
            sums, _ = results[(self.experiment.select or "").split("/")[0]]
            self.best, stopped = self.choose(self.best, sums, np.int32(step), self.carry.train)
        if results:
            self.pending.append(partial(self._record_evaluation, step, results, stopped))

    def _record_evaluation(self, step: int, results: Mapping[str, Any], stopped: jax.Array | None) -> None:
        columns = {}
        for set_name, (sums, outputs) in results.items():
            _, names = self.evaluations[set_name]
            for name, (total, count) in zip(names, np.asarray(sums, np.float64).sum(0), strict=True):
                columns[f"{set_name}/{name}"] = np.array([total / count if count else 0.0])
            if self.experiment.reports:
                columns |= self._reports(set_name, outputs)
        self._keep(np.array([step]), columns)
        if stopped is not None and bool(stopped):
            self.stopped_at = step
        self.read = time.perf_counter()

    def _reports(self, set_name: str, outputs: Any) -> dict[str, np.ndarray]:
        dataset = self.experiment.evaluate[set_name]
        if outputs is None:
            raise InputError("reports: the objective returns no outputs: Outcome(..., outputs=...)")
        rows = jax.tree.map(lambda leaf: dataset.join(np.asarray(leaf)), outputs)
        columns = {}
        for name, report in self.experiment.reports.items():
            value = np.asarray(report(rows), np.float64)
            if value.ndim:
                raise InputError(f"reports {name!r}: expected a number, got an array {list(value.shape)}")
            columns[f"{set_name}/{name}"] = value[None]
        return columns

    def _keep(self, steps: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
        for name, values in columns.items():
            self.history.setdefault(name, []).append((steps, values))
        for watch in self.watchers:
            watch(steps, columns)

    def _call_hooks(self, step: int) -> None:
        latest = {name: float(chunks[-1][1][-1]) for name, chunks in self.history.items()}
        for hook in self.hooks:
            hook(Event(step, self.total, 1, latest, lambda: evaluated_params(self.experiment, self.carry.train)))

    def _result(self, step: int, seconds: float) -> Result:
        jax.block_until_ready(self.carry)
        steps = {name: np.concatenate([s for s, _ in chunks]) for name, chunks in self.history.items()}
        history = {name: np.concatenate([v for _, v in chunks]) for name, chunks in self.history.items()}
        metrics = {name: float(values[-1]) for name, values in history.items()}
        info: dict[str, float] = {"steps": step}
        now = self.carry.train
        params, state = jax.jit(partial(evaluated_params, self.experiment))(now), now.state
        if self.best is not None and (best_step := int(self.best.step)):
            params, state, info["best_step"] = self.best.params, self.best.state, best_step
            at = {name: np.flatnonzero(steps[name] == best_step) for name in steps if not name.startswith("train/")}
            metrics |= {name: float(history[name][rows[0]]) for name, rows in at.items() if len(rows)}
        info |= {"seconds_compile": self.seconds_compile, "seconds_train": seconds}
        if self.feed is not None:
            info["seconds_waiting"] = self.feed.waited
        return Result(params, state, history, steps, metrics, info, self.programs)
