"""`run`: an experiment, a seed, and what may happen around it: a run folder, Ctrl-C."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fdl.data.fingerprint import fingerprint
from fdl.errors import InputError, Interrupted, NonFiniteError
from fdl.paths import user_path
from fdl.records import short
from fdl.runs.checkpoints import Checkpoints
from fdl.runs.fitting import AS_IT_IS, Resume, table
from fdl.runs.folder import RunFolder
from fdl.signatures import check_signature
from fdl.training.compilation_cache import enable
from fdl.training.display import Display, check_display, shown
from fdl.training.driver import Driver, Hook, Result, Trained, Watcher
from fdl.training.executables import Programs
from fdl.training.experiment import Experiment
from fdl.training.members import check_count, check_hooks
from fdl.training.recipe import Recipe, settled, traced_fields
from fdl.training.rehearsal import rehearse


def run(
    experiment: Experiment | Callable[[Any], Experiment],
    config: Any = None,
    *,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    resume: bool | Resume = False,
    chunk: int | None = None,
    hooks: Sequence[Hook] = (),
    display: Display = None,
) -> Result:
    """Trains, and returns a `Result`. The same arguments give the same bits, whatever `chunk` is.

    Args:
      experiment: an `Experiment`; or `build`, a function of `config`. The floats of the config are then arguments of
        the program instead of constants in it, wherever that is possible: one executable serves every learning rate.
      seed: draws initial values, the order of the examples, dropout, everything.
      folder: a new folder for config, manifest, metrics, checkpoints and result; None writes nothing.
      resume: `folder` is that of a run that was interrupted, or killed: goes on from its newest verified checkpoint, to
        the same bits as if nothing had happened. What decides the rest of the run has to be as it was;
        `fdl.Resume(...)` takes changes by name, and trains a finished run longer.
      chunk: steps between two looks from the host; None adapts to about a second.
      hooks: called with an `Event` after every chunk; the device waits for them. `raise fdl.Stop("why")` in one ends
        the run cleanly.
      display: how far the run is: steps, loss, evaluations, the time left. None shows that on a terminal and in a
        notebook, True anywhere, False never. Or your own, as for `fdl.sweep`. The result does not depend on it.

    Raises:
      InputError: anything that can be known to be wrong before compiling.
      NonFiniteError: a FloatingPointError: the loss is no longer finite. Says at which step, and in its notes where in
        the model, forward or backward, and in which rows it began; `folder` then has repro.npz and repro.py, which
        take that step again, alone.
      Interrupted: a KeyboardInterrupt: after Ctrl-C or SIGTERM, once the chunk in progress is done, recorded and saved.
        Its `result` is the `Result` until then, its `folder` that of the run.
      CheckpointError: a checkpoint could not be written; the one before it is still there.
    """
    enable()
    build = None
    if callable(experiment):
        build, experiment = experiment, built("run", experiment, config)
    elif config is not None and isinstance(experiment, Experiment):
        raise InputError("run: a config comes with the function that makes its experiment: fdl.run(build, config)")
    folder = None if folder is None else user_path(folder, "folder")
    options: Any = {"seed": seed, "folder": folder, "resume": resume, "chunk": chunk, "hooks": hooks}
    with told_how_to_go_on("fdl.run", folder):
        return execute(experiment, build=build, config=config, display=display, **options)


def built(function: str, build: Any, config: Any) -> Experiment:
    """The experiment of a config.

    Raises:
      InputError: `build` is no function of a config, or makes no experiment.
    """
    check_signature(f"{function}: build", build, "(config) -> fdl.Experiment")
    try:
        experiment = build(config)
    except (AttributeError, TypeError) as error:
        if config is None:
            error.add_note(f"no config was given, so build got None: fdl.{function}(build, Config())")
        raise
    if not isinstance(experiment, Experiment):
        forgotten = "; does it end with return?" if experiment is None else ""
        raise InputError(
            f"{function}: build: expected it to return an fdl.Experiment, got {short(experiment)}{forgotten}"
        )
    return experiment


def execute(
    experiment: Experiment,
    *,
    build: Callable[[Any], Experiment] | None = None,
    config: Any = None,
    seed: int = 0,
    folder: str | os.PathLike[str] | None = None,
    resume: bool | Resume = False,
    chunk: int | None = None,
    hooks: Sequence[Hook] = (),
    watchers: Sequence[Watcher] = (),
    tell: Callable[[str], None] | None = None,
    display: Display = False,
    source: Callable[[], dict[str, str]] = dict,
) -> Result:
    """`run`, with watchers beside the hooks: the device does not wait for them; `tell` gets what a user should know.

    Without it, what is wrong with the run itself is a Python warning. `source` is as for `RunFolder`.
    """
    if not isinstance(experiment, Experiment):
        raise InputError(f"run: expected an fdl.Experiment, or build and a config, got {short(experiment)}")
    how = AS_IT_IS if isinstance(resume, bool) else resume
    if how.num_steps is not None:
        experiment, build = experiment.until(how.num_steps), None if build is None else until(build, how.num_steps)
    check_count("run: chunk", chunk)
    check_hooks(hooks)
    key, say = run_key(seed), tell or (lambda line: None)
    check_display(display)
    rehearse(experiment)
    recipe = Recipe(experiment, build, config, () if build is None else traced_fields(config))

    def train(watchers: Sequence[Watcher], files: RunFolder | None) -> Result:
        with shown(display, "run", experiment) as watch, interruptible() as interrupted, results():
            watchers = (*watchers, watch)
            programs, _ = settled(recipe, lambda recipe: Programs(recipe, key, recipe.values(), chunk))
            hyper = programs.recipe.values()
            if files is None:
                with explained(None, config):
                    more: Any = {"remark": remarks(tell)}
                    return Driver(programs, key, hyper, chunk, hooks, watchers, interrupted, **more).drive().result()
            files.note(programs=[record._asdict() for record in programs.records])
            with closing(files.checkpoints()) as checkpoints, explained(files.path, config):
                options: Any = {"checkpoints": checkpoints, "remark": remarks(tell, files)}
                driver = Driver(programs, key, hyper, chunk, hooks, watchers, interrupted, **options)
                if resume:
                    files.forget_after(continued(driver, checkpoints, resume, files, say))
                return driver.drive().result()

    if folder is None:
        if resume:
            raise InputError("run: resume needs the folder of the run")
        return train(watchers, None)
    options: Any = {"resume": bool(resume), "longer": how.accepts("num_steps"), "source": source}
    with RunFolder(folder, config=config, seed=seed, **options) as files:
        files.share(data=fingerprint({"train": experiment.dataset, **experiment.evaluate}))
        result = train((files.append, *watchers), files)
        files.finish({**result.metrics, **result.info}, result.stopped)
        return dataclasses.replace(result, changes=tuple(files.changes()))


def until(build: Callable[[Any], Experiment], num_steps: int) -> Callable[[Any], Experiment]:
    """`build`, of experiments with this number of steps."""
    return lambda config: build(config).until(num_steps)


def remarks(tell: Callable[[str], None] | None, files: RunFolder | None = None) -> Callable[[str], None]:
    """What takes a line about something wrong with a run: it is told, or a Python warning, and in the manifest."""

    def remark(line: str) -> None:
        if files is not None:
            files.remark(line)
        if tell is None:
            warnings.warn(line, stacklevel=2)
        else:
            tell(f"warning: {line}")

    return remark


@contextmanager
def results() -> Iterator[None]:
    """Makes of what a driver had trained, when it was interrupted or a report failed, the `Result` that a user gets."""
    try:
        yield
    except BaseException as stop:
        trained = getattr(stop, "result", None)
        if isinstance(trained, Trained):
            stop.result = trained.result()  # pyright: ignore[reportAttributeAccessIssue]
        raise


@contextmanager
def told_how_to_go_on(function: str, folder: str | os.PathLike[str] | None) -> Iterator[None]:
    """Adds to what interrupted a run or sweep where its result and its folder are, and how it goes on from Python."""
    try:
        yield
    except Interrupted as stop:
        stop.folder = None if folder is None else Path(folder)
        told = [str(stop)]
        if stop.result is not None:
            told.append("the result so far is `.result` of this exception")
        if folder is not None:
            told.append(f"recorded in {folder}: {function}(..., folder={os.fspath(folder)!r}, resume=True) goes on")
        stop.args = ("; ".join(told),)
        raise


@contextmanager
def explained(folder: Path | None, config: Any) -> Iterator[None]:
    """Adds to the error of a run that is no longer finite where that comes from."""
    try:
        yield
    except NonFiniteError as error:
        from fdl.runs.repro import explain

        for line in explain(error.moment, folder, config):
            error.add_note(line)
        raise


def continued(
    driver: Driver,
    checkpoints: Checkpoints,
    resume: bool | Resume,
    files: RunFolder,
    tell: Callable[[str], None],
) -> int:
    """Puts a run back to its newest verified checkpoint, and returns the step of that; 0 = from the start.

    `files` keeps what was not taken as it is, `tell` gets what a user should know.
    """
    saved, skipped = checkpoints.newest()
    for remark in skipped:
        tell(f"skipped a checkpoint: {remark}")
    if saved is None:
        tell("there is no checkpoint: starting from the beginning")
        return 0
    how = AS_IT_IS if isinstance(resume, bool) else resume
    lines = driver.restore(saved, how)
    if "decides" not in saved.facts:
        tell("the checkpoint does not say what batch size, loss, ... it was made with: a change of them is not noticed")
    if how.num_steps is not None:
        files.note(num_steps=how.num_steps)
        tell(
            f"training until step {how.num_steps}; schedules go on as they were built, for the steps of the experiment"
        )
    if lines:
        files.adapted(lines)
        tell(table("the checkpoint is not taken as it is:", lines))
    tell(f"going on after step {saved.step}")
    return saved.step


def run_key(seed: int) -> jax.Array:
    """The key of a run. A seed beyond 32 bits is hashed: JAX would fold 2**32 silently onto 0.

    Raises:
      InputError: no whole number.
    """
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise InputError(f"seed: expected a whole number, got {seed!r}")
    if 0 <= seed < 2**32:
        return jax.random.key(jax.device_put(np.uint32(seed)))  # JAX would compile a program that places it
    words = np.frombuffer(hashlib.sha256(str(seed).encode()).digest()[:8], np.uint32)
    return jax.random.fold_in(jax.random.key(words[0]), words[1])


@contextmanager
def interruptible() -> Iterator[Callable[[], int]]:
    """Holds back the first Ctrl-C, SIGTERM or SIGHUP until the loop asks for it; a second one ends the process at once.

    Compiling is under it as well: an exception in the middle of that can crash jaxlib at exit. Where a signal is
    ignored (Ctrl-C of a job in the background), or this is no main thread, nothing is changed. What is asked for is the
    number of the signal that came, 0 = none.
    """
    asked: list[int] = []
    main = threading.current_thread() is threading.main_thread()
    before = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM))
        if main and signal.getsignal(number) is not signal.SIG_IGN
    }

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def hold(number: int, frame: Any) -> None:
        asked.append(number)
        restore()

    for number in before:
        signal.signal(number, hold)
    try:
        yield lambda: asked[0] if asked else 0
    finally:
        restore()
