"""`run`: an experiment, a seed, and what may happen around it: a run folder, Ctrl-C."""

from __future__ import annotations

import hashlib
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np

from fdl.data.fingerprint import fingerprint
from fdl.errors import InputError
from fdl.runs.folder import RunFolder
from fdl.training.driver import Driver, Hook, Result, Watcher
from fdl.training.executables import Programs
from fdl.training.experiment import Experiment
from fdl.training.recipe import Recipe, settled, traced_fields
from fdl.training.rehearsal import rehearse


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
      experiment: an `Experiment`; or `build`, a function of `config`. The floats of the config are then arguments of
        the program instead of constants in it, wherever that is possible: one executable serves every learning rate.
      seed: draws initial values, the order of the examples, dropout, everything.
      folder: a new folder for config, manifest, metrics and result; None writes nothing.
      chunk: steps between two looks from the host; None adapts to about a second.
      hooks: called with an `Event` after every chunk; the device waits for them.

    Raises:
      InputError: anything that can be known to be wrong before compiling.
      FloatingPointError: the loss is no longer finite; says at which step.
      KeyboardInterrupt: after Ctrl-C, once the chunk in progress is done and recorded.
    """
    build = None
    if callable(experiment):
        build, experiment = experiment, experiment(config)
    return execute(experiment, build=build, config=config, seed=seed, folder=folder, chunk=chunk, hooks=hooks)


def execute(
    experiment: Experiment,
    *,
    build: Callable[[Any], Experiment] | None = None,
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
    rehearse(experiment)
    recipe = Recipe(experiment, build, config, () if build is None else traced_fields(config))

    def train(watchers: Sequence[Watcher], compiled: Callable[[Programs], None]) -> Result:
        with interruptible() as interrupted:
            programs, _ = settled(recipe, lambda recipe: Programs(recipe, key, recipe.values(), chunk))
            compiled(programs)
            hyper = programs.recipe.values()
            return Driver(programs, key, hyper, chunk, hooks, watchers, interrupted).drive().result()

    if folder is None:
        return train(watchers, lambda programs: None)
    with RunFolder(folder, config=config, seed=seed) as files:
        files.note(data=fingerprint({"train": experiment.dataset, **experiment.evaluate}))
        result = train(
            (files.append, *watchers),
            lambda programs: files.note(programs=[record._asdict() for record in programs.records]),
        )
        files.finish({**result.metrics, **result.info})
        return result


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


@contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
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
