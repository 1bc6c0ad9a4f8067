"""`run`: drives the compiled programs chunk by chunk. Everything a person sees or keeps happens between chunks."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from fdl.errors import InputError
from fdl.runs.folder import RunFolder
from fdl.training.experiment import Experiment
from fdl.training.programs import Carry, init_carry, make_chunk, make_evaluation
from fdl.training.rehearsal import rehearse

CAPACITY = 8192  # most steps of one chunk: its history buffer stays a few hundred KiB
SECONDS = 0.5  # how long a chunk should take: short enough for a live display and a prompt Ctrl-C


@dataclass(frozen=True)
class Result:
    """What a run returns.

    Args:
      params, state: after the last step.
      history: "train/loss" and each other metric -> one value per step; "test/accuracy" -> one per evaluation.
      steps: for each name of the history, the number of steps done at each of its values.
      metrics: the last value of each.
      info: seconds_compile, seconds_train, steps.
    """

    params: Any
    state: Any
    history: dict[str, np.ndarray]
    steps: dict[str, np.ndarray]
    metrics: dict[str, float]
    info: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Event:
    """What a hook gets, between two chunks.

    Args:
      step: steps done, of `num_steps`.
      members: how many runs train side by side (1 here).
      metrics: the last value of each metric.
      new: name -> (steps, values) since the last event.
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


def run(
    experiment: Experiment | Callable[[Any], Experiment],
    config: Any = None,
    *,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    chunk: int | None = None,
    hooks: Sequence[Hook] = (),
) -> Result:
    """Trains, and returns a `Result`. The same arguments give the same bits, whatever `chunk` is.

    Args:
      experiment: an `Experiment`; or `build`, which is called with `config`.
      seed: draws initial values, the order of the examples, dropout, everything.
      folder: a new folder for config, manifest, metrics and result; None writes nothing.
      chunk: steps between two looks from the host; None adapts to about half a second.
      hooks: called with an `Event` after every chunk; the device waits for them.

    Raises:
      InputError: anything that can be known to be wrong before compiling.
      FloatingPointError: the loss is no longer finite; says at which step.
      KeyboardInterrupt: after Ctrl-C, once the chunk in progress is done and recorded.
    """
    if callable(experiment):
        experiment = experiment(config)
    return execute(experiment, config=config, seed=seed, folder=folder, chunk=chunk, hooks=hooks)


def execute(
    experiment: Experiment,
    *,
    config: Any = None,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    chunk: int | None = None,
    hooks: Sequence[Hook] = (),
    watchers: Sequence[Watcher] = (),
) -> Result:
    """`run`, with watchers beside the hooks: the device does not wait for them."""
    if not isinstance(experiment, Experiment):
        raise InputError(f"run: expected an fdl.Experiment, got {type(experiment).__name__}")
    if chunk is not None and (isinstance(chunk, bool) or not isinstance(chunk, int) or chunk < 1):
        raise InputError(f"run: chunk: expected a whole number >= 1, got {chunk!r}")
    key = run_key(seed)
    if folder is None:
        return _run(experiment, key, chunk, hooks, watchers)
    with RunFolder(folder, config=config, seed=seed) as files:
        result = _run(experiment, key, chunk, hooks, (files.append, *watchers))
        files.finish({**result.metrics, **result.info})
        return result


def _run(
    experiment: Experiment, key: jax.Array, chunk: int | None, hooks: Sequence[Hook], watchers: Sequence[Watcher]
) -> Result:
    rehearse(experiment)
    with _deferred_interrupt() as interrupted:
        return _Run(experiment, key, chunk, hooks, watchers, interrupted).drive()


def run_key(seed: int) -> jax.Array:
    """The key of a run. A seed beyond 32 bits is hashed: JAX would fold 2**32 silently onto 0.

    Raises:
      InputError: no whole number.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise InputError(f"seed: expected a whole number, got {seed!r}")
    if 0 <= seed < 2**32:
        return jax.random.key(np.uint32(seed))
    words = np.frombuffer(hashlib.sha256(str(seed).encode()).digest()[:8], np.uint32)
    return jax.random.fold_in(jax.random.key(words[0]), words[1])


class _Run:
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
        self.experiment, self.key, self.hooks, self.watchers = experiment, key, hooks, watchers
        self.interrupted = interrupted
        self.total = experiment.total_steps()
        self.fixed = chunk
        self.history: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        started = time.perf_counter()
        self._compile(min(chunk or CAPACITY, CAPACITY, self.total))
        self.seconds_compile = time.perf_counter() - started

    def _compile(self, capacity: int) -> None:
        experiment, key, zero = self.experiment, self.key, np.int32(0)
        sets = {"train": experiment.dataset, **experiment.evaluate}
        self.arrays = {name: jax.device_put(dataset.arrays) for name, dataset in sets.items()}
        self.carry: Carry = jax.jit(lambda key: init_carry(experiment, key))(key)
        self.capacity = capacity
        chunk, self.names = make_chunk(experiment, capacity)
        self.chunk = jax.jit(chunk, donate_argnums=0).lower(self.carry, self.arrays["train"], key, zero, zero).compile()
        self.evaluations = {}
        for name, dataset in experiment.evaluate.items():
            evaluate, names = make_evaluation(experiment, name, dataset)
            now = self.carry.train
            lowered = jax.jit(evaluate).lower(now.params, now.state, self.arrays[name], key)
            self.evaluations[name] = (lowered.compile(), names)

    def drive(self) -> Result:
        """Dispatches chunk after chunk; the host reads the metrics of one while the device runs the next."""
        started = self.read = time.perf_counter()
        step, self.count, pending = 0, self.fixed or 1, None
        while step < self.total and not self.interrupted():
            boundary = self._next_evaluation(step)
            count = min(self.count, self.capacity, boundary - step)
            running = (step, count, self._dispatch(step, count))
            step += count
            if pending is not None:
                self._record(*pending)
            pending = running
            if step == boundary or self.hooks:
                self._record(*pending)
                pending = None
                if step == boundary:
                    self._evaluate(step)
                self._call_hooks(step)
        if pending is not None:
            self._record(*pending)
        if step < self.total:
            raise KeyboardInterrupt(f"stopped after step {step} of {self.total}")
        return self._result({"steps": step, "seconds_train": time.perf_counter() - started})

    def _dispatch(self, step: int, count: int) -> jax.Array:
        arrays = self.arrays["train"]
        self.carry, history = self.chunk(self.carry, arrays, self.key, np.int32(step), np.int32(count))
        return history

    def _next_evaluation(self, step: int) -> int:
        every = self.experiment.eval_every or self.total
        return min((step // every + 1) * every, self.total)

    def _record(self, start: int, count: int, history: jax.Array) -> None:
        """Waits for a chunk, keeps its metrics and adapts the length of the next."""
        values = np.asarray(history)[:count]
        now = time.perf_counter()
        if self.fixed is None:
            self.count = max(1, round(count * min(8.0, SECONDS / max(now - self.read, 1e-6))))
        self.read = now
        steps = np.arange(start + 1, start + count + 1)
        self._keep(steps, {f"train/{name}": values[:, column] for column, name in enumerate(self.names)})
        if "loss" in self.names:
            self._require_finite(steps, values[:, self.names.index("loss")])

    def _require_finite(self, steps: np.ndarray, loss: np.ndarray) -> None:
        if not np.isfinite(loss).all():
            first = int(np.argmin(np.isfinite(loss)))
            raise FloatingPointError(
                f"the training loss is {loss[first]} at step {steps[first]} of {self.total}; "
                "a smaller learning rate, or clipped gradients, usually keeps it finite"
            )

    def _evaluate(self, step: int) -> None:
        now, columns = self.carry.train, {}
        for set_name, (evaluate, names) in self.evaluations.items():
            sums = np.asarray(evaluate(now.params, now.state, self.arrays[set_name], self.key), np.float64).sum(0)
            for name, (total, count) in zip(names, sums, strict=True):
                columns[f"{set_name}/{name}"] = np.array([total / count if count else 0.0])
        if columns:
            self._keep(np.array([step]), columns)
        self.read = time.perf_counter()

    def _keep(self, steps: np.ndarray, columns: Mapping[str, np.ndarray]) -> None:
        for name, values in columns.items():
            self.history.setdefault(name, []).append((steps, values))
        for watch in self.watchers:
            watch(steps, columns)

    def _call_hooks(self, step: int) -> None:
        latest = {name: float(chunks[-1][1][-1]) for name, chunks in self.history.items()}
        for hook in self.hooks:
            hook(Event(step, self.total, 1, latest, lambda: self.carry.train.params))

    def _result(self, info: dict[str, float]) -> Result:
        jax.block_until_ready(self.carry)
        steps = {name: np.concatenate([s for s, _ in chunks]) for name, chunks in self.history.items()}
        history = {name: np.concatenate([v for _, v in chunks]) for name, chunks in self.history.items()}
        metrics = {name: float(values[-1]) for name, values in history.items()}
        info = {"steps": info["steps"], "seconds_compile": self.seconds_compile, "seconds_train": info["seconds_train"]}
        return Result(self.carry.train.params, self.carry.train.state, history, steps, metrics, info)


@contextmanager
def _deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Holds back the first Ctrl-C until the loop asks for it; a second one interrupts at once.

    Compiling is under it as well: an exception in the middle of that can crash jaxlib at exit. Where Ctrl-C is ignored
    (a job in the background), or this is no main thread, nothing is changed.
    """
    asked: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield lambda: False
        return

    def handler(number: int, frame: Any) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, before)
